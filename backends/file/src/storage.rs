//! The handle: what the clauses ask for, as steps on the folder.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write as _};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use async_trait::async_trait;
use bytes::Bytes;
use futures_channel::oneshot;
use strongroom_core::env::Env;
use strongroom_core::storage::bounds::{check_range, name_range, not_found};
use strongroom_core::storage::{
    BatchSupport, BlockingMode, BlockingStorage, BlockingStore, Capabilities, Durability, Effect, Error, ErrorKind,
    ListOrder, Name, OpenContext, OpenMode, Operation, Put, RangeReads, Reach, Result, StorageUri, StoreHandle, Torn,
};

use crate::deleted::{self, DELETED, KEPT_MILLIS};
use crate::durability::Ledger;
use crate::error::{corrupt, failed as io_failed, gone, publishing, reading, without_effect};
use crate::folder::{Folder, Published, create_folder, read_at};
use crate::layout::{INCOMING, Shard, blob_path, shard_from, shard_of, shard_path, temporary_path, temporary_tag};
use crate::lock::{Locks, Patience};
use crate::place;

/// How often opening looks whether whoever holds the folder exclusively has left: for a minute.
const GATE_LOOKS: u32 = 12_000;

pub(crate) const CAPABILITIES: Capabilities = Capabilities {
    reach: Reach::Host,
    durability: Durability::Power,
    torn: Torn::BeforeSync,
    batch: BatchSupport::Sequential,
    list_order: ListOrder::Ascending,
    range_reads: RangeReads::Native,
    block_bytes_best: 128 * 1024,
    block_bytes_max: 4 * 1024 * 1024,
};

/// A page of a listing ends with the shard that makes it at least so long.
const PAGE_NAMES_MIN: usize = 1024;

/// Unfinished files older than this were left behind: no put takes so long.
const LEFTOVER_AGE_MILLIS: u64 = 24 * 60 * 60 * 1000;

/// A handle on a folder. To open it, another handle that holds it exclusively is waited for, up to a minute. A folder that cannot
/// be written to can be read.
///
/// `open` fails with [`ErrorKind::NotFound`] where it is absent and may not be created; [`ErrorKind::Invalid`] where the path is
/// something else than a folder; [`ErrorKind::Busy`] where another handle holds it exclusively for longer than that; and what the
/// medium raises.
pub type FileStorage = BlockingStorage<Store>;

/// An open folder.
#[derive(Debug)]
pub struct Store {
    /// As it was when it was opened; everything but its own removal goes by the open folder.
    path: PathBuf,
    /// Let go before the folder, which is what it is known by.
    ledger: Arc<Ledger>,
    folder: Arc<Folder>,
    locks: Locks,
    /// Tells our unfinished files from those of others.
    tag: u64,
    temporaries: AtomicU64,
    /// Whether files are written back while more are put: where the environment has workers.
    flushes_early: bool,
    env: Env,
    is_flushing_early: Arc<AtomicBool>,
    /// Whether this handle has looked for deleted blobs that were kept long enough.
    has_purged: AtomicBool,
    early_flush: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for Store {
    /// What was dropped is taken for closed: so it waits for the thread that is still at work in the folder.
    fn drop(&mut self) {
        let early_flush = self.early_flush.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = early_flush {
            let _ = thread.join();
        }
    }
}

enum Entered {
    Inside(Folder, Locks),
    AtTheGate(Folder),
}

fn enter(path: PathBuf, mode: OpenMode, shown: &str) -> Result<Entered> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotADirectory => Error::new(ErrorKind::Invalid, Operation::Open, shown)
            .with_source("it is no folder: name the folder of a repository, or a new one"),
        _ => without_effect(Operation::Open, shown, error),
    };
    if mode == OpenMode::CreateIfMissing {
        create_folder(&path).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => failed(io::ErrorKind::NotADirectory.into()),
            _ => failed(error),
        })?;
    }
    let folder = Folder::open(&path).map_err(failed)?;
    if mode == OpenMode::CreateIfMissing {
        // Where it cannot be created the folder is for reading only, which the first put will tell.
        let _ = folder.create_directory(INCOMING);
    }
    match Locks::enter(&folder, Patience::Leave).map_err(failed)? {
        Some(locks) => Ok(Entered::Inside(folder, locks)),
        None => Ok(Entered::AtTheGate(folder)),
    }
}

/// Waits in a thread of its own, unless the caller's may block: a worker that waits here could be the one that whoever
/// is inside needs in order to leave.
async fn wait_at_gate(folder: Folder, mode: BlockingMode, shown: &str) -> Result<(Folder, Locks)> {
    let wait = move || match Locks::enter(&folder, Patience::Looks(GATE_LOOKS)) {
        Ok(Some(locks)) => Ok((folder, locks)),
        Ok(None) => Err(io::Error::new(io::ErrorKind::WouldBlock, "another process holds it exclusively")),
        Err(error) => Err(error),
    };
    let outcome: io::Result<_> = match mode {
        BlockingMode::Inline => wait(),
        BlockingMode::Offload => {
            let (sender, receiver) = oneshot::channel();
            let thread = thread::Builder::new().name("strongroom-gate".to_owned()).spawn(move || {
                let _ = sender.send(wait());
            });
            match thread {
                Ok(_) => receiver.await.unwrap_or_else(|_| Err(io::ErrorKind::Other.into())),
                Err(error) => Err(error),
            }
        }
    };
    outcome.map_err(|error| without_effect(Operation::Open, shown, error))
}

/// An unfinished file, removed again unless it was published.
struct Temporary<'a> {
    folder: &'a Folder,
    path: String,
    is_published: bool,
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        if !self.is_published {
            let _ = self.folder.remove(&self.path);
        }
    }
}

impl Store {
    fn create_temporary(&self) -> io::Result<(Temporary<'_>, File)> {
        loop {
            let path = temporary_path(self.tag, self.temporaries.fetch_add(1, Ordering::Relaxed));
            match self.folder.create_file(&path) {
                Ok(file) => return Ok((Temporary { folder: &self.folder, path, is_published: false }, file)),
                // Numbers end some time, and so do files of one folder.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => self.folder.create_directory(INCOMING)?,
                Err(error) => return Err(error),
            }
        }
    }

    fn publish(&self, temporary: &str, path: &str, name: Name) -> io::Result<Published> {
        match self.folder.publish(temporary, path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.folder.create_directory(&shard_path(shard_of(name)))?;
                self.folder.publish(temporary, path)
            }
            outcome => outcome,
        }
    }

    /// Begins to write back in a thread of its own, one at a time. What fails is told by the next barrier.
    fn flush_early(&self) {
        if !self.flushes_early || self.is_flushing_early.swap(true, Ordering::SeqCst) {
            return;
        }
        // Held while the thread begins, so that the handle kept is that of the last one.
        let mut kept = self.early_flush.lock().unwrap_or_else(PoisonError::into_inner);
        let (ledger, folder, is_flushing) = (self.ledger.clone(), self.folder.clone(), self.is_flushing_early.clone());
        let thread = thread::Builder::new().name("strongroom-flush".to_owned()).spawn(move || {
            let _ = ledger.flush(&folder);
            is_flushing.store(false, Ordering::SeqCst);
        });
        match thread {
            Ok(thread) => *kept = Some(thread),
            Err(_) => self.is_flushing_early.store(false, Ordering::SeqCst),
        }
    }

    /// What there is to say of a name without a file.
    fn absent(&self, operation: Operation, name: Name) -> Error {
        if self.folder.is_gone() { gone(operation) } else { not_found(operation, name) }
    }

    fn list_shard(&self, shard: Shard, first: Name, last: Name, page: &mut Vec<Name>) -> Result<()> {
        let mut names = BTreeSet::new();
        let listed = self.folder.each_entry(&shard_path(shard), |entry| {
            // What is none of ours is left alone.
            let name = Name::from_hex(entry).filter(|name| shard_of(*name) == shard);
            names.extend(name.filter(|name| first <= *name && *name <= last));
        });
        match listed {
            Ok(()) => page.extend(names),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
            Err(error) => return Err(io_failed(Operation::List, shard_path(shard), error)),
        }
        Ok(())
    }

    /// Removes what crashes left behind: files older than a day where `now` is given, else all that are not our own.
    /// What cannot be removed stays for the next time.
    fn remove_leftovers(&self, now: Option<u64>) {
        let mut leftovers = Vec::new();
        let _ = self.folder.each_entry(INCOMING, |entry| {
            if temporary_tag(entry).is_some_and(|tag| tag != self.tag) {
                leftovers.push(format!("{INCOMING}/{entry}"));
            }
        });
        for path in leftovers {
            let is_old = match (now, self.folder.file_written(&path)) {
                (Some(now), Ok(Some(written))) => now.saturating_sub(written) > LEFTOVER_AGE_MILLIS,
                (None, Ok(Some(_))) => true,
                (_, Ok(None) | Err(_)) => false,
            };
            if is_old {
                let _ = self.folder.remove(&path);
            }
        }
    }

    /// What is deleted and kept is given up for what is to be stored.
    fn put_as(&self, operation: Operation, name: Name, bytes: &Bytes) -> Result<Put> {
        match self.try_to_put(operation, name, bytes) {
            Err(error)
                if error.kind() == ErrorKind::Full
                    && error.effect() == Effect::None
                    && deleted::remove_before(&self.folder, u64::MAX) > 0 =>
            {
                self.try_to_put(operation, name, bytes)
            }
            done => done,
        }
    }

    fn try_to_put(&self, operation: Operation, name: Name, bytes: &Bytes) -> Result<Put> {
        let path = blob_path(name);
        let (mut temporary, mut file) = self.create_temporary().map_err(|e| without_effect(operation, &path, e))?;
        let durable = operation == Operation::PutDurable;
        file.write_all(bytes)
            .and_then(|()| if durable { self.folder.sync_file_now(&file) } else { Ok(()) })
            .map_err(|error| without_effect(operation, &path, error))?;
        match self.publish(&temporary.path, &path, name).map_err(|error| publishing(operation, &path, error))? {
            Published::Taken => return Ok(Put::Exists),
            Published::Created => temporary.is_published = true,
        }
        if durable {
            self.ledger
                .flush_shards(&self.folder, operation, &BTreeSet::from([shard_of(name)]))
                .map_err(|error| error.with_effect(Effect::Unknown))?;
        } else if self.ledger.note_put(name, file, bytes.len() as u64) {
            self.flush_early();
        }
        Ok(Put::Created)
    }
}

#[async_trait]
impl BlockingStore for Store {
    const CAPABILITIES: Capabilities = CAPABILITIES;

    async fn open(path: &Path, context: &OpenContext) -> Result<StoreHandle<Self>> {
        let blocking = context.blocking();
        let tag = context
            .env
            .random()
            .map(u64::from_le_bytes)
            .map_err(|error| Error::new(ErrorKind::Other, Operation::Open, "the folder").with_source(error))?;
        let (path, mode, shown) = (path.to_owned(), context.mode, StorageUri::show_path("file", path, "the folder"));
        let absolute = std::path::absolute(&path).unwrap_or_else(|_| path.clone());
        let opened = {
            let shown = shown.clone();
            blocking.run(Operation::Open, move || enter(path, mode, &shown)).await?
        };
        let (folder, locks) = match opened {
            Entered::Inside(folder, locks) => (folder, locks),
            Entered::AtTheGate(folder) => wait_at_gate(folder, context.blocking, &shown).await?,
        };
        let ledger = Ledger::of(&folder).map_err(|error| without_effect(Operation::Open, shown, error))?;
        let store = Self {
            path: absolute,
            ledger,
            folder: Arc::new(folder),
            locks,
            tag,
            temporaries: AtomicU64::new(0),
            flushes_early: context.env.parallelism() > 1,
            env: context.env.clone(),
            is_flushing_early: Arc::default(),
            has_purged: AtomicBool::new(false),
            early_flush: Mutex::default(),
        };
        let now = context.env.now();
        let clean = move || {
            store.remove_leftovers(Some(now));
            let place = place::of(&store.folder, &store.path);
            Ok(StoreHandle::single_at(store, place))
        };
        blocking.run(Operation::Open, clean).await
    }

    fn put(&self, name: Name, bytes: &Bytes) -> Result<Put> {
        self.put_as(Operation::Put, name, bytes)
    }

    fn put_durable(&self, name: Name, bytes: &Bytes) -> Result<Put> {
        self.put_as(Operation::PutDurable, name, bytes)
    }

    fn get(&self, name: Name, range: Option<Range<u64>>, max_bytes: u64) -> Result<Bytes> {
        let path = blob_path(name);
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => self.absent(Operation::Get, name),
            _ => reading(Operation::Get, &path, error),
        };
        let file = self.folder.open_blob(&path).map_err(failed)?;
        // A part that is there needs no question for the length.
        if let Some(range) = &range
            && let Some(length) =
                range.end.checked_sub(range.start).filter(|length| *length > 0 && *length <= max_bytes)
            && length <= u64::from(CAPABILITIES.block_bytes_max)
            && range.end <= i64::MAX as u64
        {
            let bytes = read_at(&file, range.start, length as usize).map_err(failed)?;
            if bytes.len() as u64 == length {
                return Ok(bytes.into());
            }
        }
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            return Err(corrupt(Operation::Get, &path, "something else than a file is in its place"));
        }
        let range = check_range(name, range, metadata.len(), max_bytes)?;
        let length = usize::try_from(range.end - range.start)
            .map_err(|_| Error::new(ErrorKind::LimitExceeded, Operation::Get, path.clone()))?;
        let bytes = if length == 0 { Vec::new() } else { read_at(&file, range.start, length).map_err(failed)? };
        if bytes.len() != length {
            return Err(corrupt(Operation::Get, &path, "it became shorter while it was read"));
        }
        Ok(bytes.into())
    }

    fn size(&self, name: Name) -> Result<u64> {
        let path = blob_path(name);
        match self.folder.file_bytes(&path) {
            Ok(Some(bytes)) => Ok(bytes),
            Ok(None) => Err(corrupt(Operation::Size, &path, "something else than a file is in its place")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(self.absent(Operation::Size, name)),
            Err(error) => Err(reading(Operation::Size, &path, error)),
        }
    }

    fn delete(&self, name: Name) -> Result<()> {
        let (path, now) = (blob_path(name), self.env.now());
        // Not at opening: who looks for what was deleted is to find it, however late.
        if !self.has_purged.swap(true, Ordering::Relaxed) {
            deleted::remove_before(&self.folder, now.saturating_sub(KEPT_MILLIS));
        }
        let is_kept = deleted::keep(&self.folder, &path, name, now);
        let removed = if is_kept { Ok(()) } else { self.folder.remove(&path) };
        match removed {
            Ok(()) => {
                self.ledger.note_delete(name);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound && !self.folder.is_gone() => Ok(()),
            Err(error) => Err(publishing(Operation::Delete, &path, error)),
        }
    }

    fn list(&self, prefix: &[u8], after: Option<Name>) -> Result<Vec<Name>> {
        let Some((first, last)) = name_range(prefix, after) else { return Ok(Vec::new()) };
        let failed = |error| io_failed(Operation::List, "the folder", error);
        let (first_shard, last_shard) = (shard_of(first), shard_of(last));
        let mut shards = BTreeSet::new();
        if first_shard == last_shard {
            shards.insert(first_shard);
        } else {
            let wanted = first_shard..=last_shard;
            let found = |entry: &str| shards.extend(shard_from(entry).filter(|shard| wanted.contains(shard)));
            self.folder.each_entry(".", found).map_err(failed)?;
        }
        let mut page = Vec::new();
        for shard in shards {
            self.list_shard(shard, first, last, &mut page)?;
            if page.len() >= PAGE_NAMES_MIN {
                break;
            }
        }
        if page.is_empty() && self.folder.is_gone() {
            return Err(gone(Operation::List));
        }
        Ok(page)
    }

    fn sync(&self) -> Result<()> {
        self.ledger.flush(&self.folder)
    }

    fn persist(&self, names: &[Name]) -> Result<()> {
        self.ledger.persist(&self.folder, names)
    }

    #[cfg(unix)]
    fn available_bytes(&self) -> Result<Option<u64>> {
        let Ok(disk) = rustix::fs::statvfs(&self.path) else { return Ok(None) };
        // Some file systems do not count.
        Ok((disk.f_blocks > 0).then(|| disk.f_bavail.saturating_mul(disk.f_frsize)))
    }

    fn try_keep_others_out(&self) -> Result<bool> {
        let outcome = self.locks.try_alone(&self.folder);
        let is_alone = outcome.map_err(|error| io_failed(Operation::TryExclusive, "the folder", error))?;
        if is_alone {
            self.remove_leftovers(None);
        }
        Ok(is_alone)
    }

    fn let_others_in(&self) {
        self.locks.no_longer_alone();
    }

    /// Removes the sub-folders with nothing in them, and the folder itself, where then nothing is in that either.
    fn vacate(&self) -> Result<()> {
        deleted::remove_before(&self.folder, u64::MAX);
        let mut folders = vec![INCOMING.to_owned(), DELETED.to_owned()];
        let found = |entry: &str| folders.extend(shard_from(entry).map(shard_path));
        self.folder.each_entry(".", found).map_err(|error| io_failed(Operation::List, "the folder", error))?;
        for folder in folders {
            let _ = self.folder.remove_directory(&folder);
        }
        // The path may lead elsewhere by now, or through a link, which is somebody's.
        let is_it = Folder::open(&self.path).and_then(|there| Ok(there.id()? == self.folder.id()?));
        if is_it.unwrap_or(false) {
            let _ = std::fs::remove_dir(&self.path);
        }
        Ok(())
    }
}
