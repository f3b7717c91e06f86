use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use quick_cache::sync::Cache;

use super::run::{self, Run};
use super::sealing::Sealing;
use super::{BlockContext, Place, WholeBlock};
use crate::crypto::BlockKey;
use crate::format::{BlockId, COUNTER_MAX, Pointer, RECORDS_COUNT_MAX, RecordKind, SALT_BYTES};
use crate::storage::{ErrorKind, Name, Retry};
use crate::{Error, Result};

/// Of records that have to be asked for one by one so many are asked for at once: there may be thousands in a run.
const ALONE_AT_ONCE: usize = 32;

/// Reads ask for parts aligned to this, so that storage learns no record boundary.
pub const READ_ALIGNMENT_BYTES: u32 = 16 << 10;

/// Block keys kept ready: deriving one costs about as much as opening a small record.
const KEYS_COUNT_MAX: usize = 256;

/// What one sealing is known by: key epoch, name and salt.
type SealingId = (u16, Name, [u8; SALT_BYTES]);

/// A record, and what is needed to open it.
pub(super) struct Sought {
    pub(super) name: Name,
    pub(super) place: Place,
    kind: RecordKind,
    key: Arc<BlockKey>,
}

/// Where bytes may come from.
#[derive(Clone, Copy)]
enum Source {
    /// A cache, where there is one: for what is bound by a pointer.
    Cached,
    /// Storage itself: for whole blocks, which are read to learn what storage holds.
    Storage,
}

/// Reads records and whole blocks; cheap to clone, the clones share their keys.
#[derive(Clone)]
pub struct BlockReader {
    context: Arc<BlockContext>,
    keys: Arc<Cache<SealingId, Arc<BlockKey>>>,
}

impl BlockReader {
    /// A reader.
    #[must_use]
    pub fn new(context: Arc<BlockContext>) -> Self {
        Self { context, keys: Arc::new(Cache::new(KEYS_COUNT_MAX)) }
    }

    /// Forgets the keys of blocks, and so erases those that nobody reads with; they are derived again when they are needed.
    pub fn forget_keys(&self) {
        self.keys.clear();
    }

    /// What it reads with.
    #[must_use]
    pub const fn context(&self) -> &Arc<BlockContext> {
        &self.context
    }

    /// The payload of a record, authenticated as the one that the pointer was made for.
    ///
    /// # Errors
    /// [`Error::Missing`] where the block is not there, [`Error::Damaged`] where it is not what was put, and what the
    /// storage raises.
    pub async fn read(&self, pointer: &Pointer, kind: RecordKind) -> Result<Bytes> {
        self.read_sought(&self.find(pointer, kind)?).await
    }

    async fn read_sought(&self, record: &Sought) -> Result<Bytes> {
        // The pointer binds one sealing, so what opens is right wherever it comes from, and a cache may answer.
        match self.read_record(record, Source::Cached).await {
            Err(Error::Damaged(damage)) => self.read_past_caches(record, Error::Damaged(damage)).await,
            read => read,
        }
    }

    /// What a cache holds damages nothing: only storage's own answer counts.
    async fn read_past_caches(&self, record: &Sought, found: Error) -> Result<Bytes> {
        if !self.context.storage.forget(record.name).await {
            return Err(found);
        }
        self.read_record(record, Source::Storage).await
    }

    /// The payloads of several records, in the order of the pointers, each as [`BlockReader::read`] answers it. Those that lie
    /// together come by one request, all requests at once; each is authenticated by itself, so what is wrong with one is said of
    /// that one.
    ///
    /// It holds all payloads, and what came with them until it is opened: at most as much again as the parts that are wanted.
    pub async fn read_many(&self, pointers: &[Pointer], kind: RecordKind) -> Vec<Result<Bytes>> {
        let mut wanted = Vec::with_capacity(pointers.len());
        let mut read = Vec::with_capacity(pointers.len());
        for (index, pointer) in pointers.iter().enumerate() {
            match self.find(pointer, kind) {
                Ok(record) => wanted.push((index, record)),
                Err(error) => read.push((index, Err(error))),
            }
        }
        let runs = run::together(wanted, |record| self.aligned(&record.place));
        read.extend(join_all(runs.into_iter().map(|run| self.read_run(run))).await.into_iter().flatten());
        read.sort_by_key(|(index, _)| *index);
        read.into_iter().map(|(_, payload)| payload).collect()
    }

    async fn read_run(&self, run: Run) -> Vec<(usize, Result<Bytes>)> {
        let Run { name, part, records, .. } = run;
        if let [_] = records.as_slice() {
            return self.read_alone(&records).await;
        }
        let structure = records.first().map_or("block", |(_, record)| record.kind.name());
        match self.fetch(name, part.clone(), structure, Source::Cached).await {
            Ok(fetched) => {
                let opened = records.iter().map(|(index, record)| {
                    let start = record.place.offset.saturating_sub(part.start) as usize;
                    let sealed = fetched.get(start..start.saturating_add(record.place.length as usize));
                    let (place, sealed) = (record.place.index.into(), sealed.unwrap_or_default());
                    let opened = self.sealing(record).open_copy(place, record.kind, sealed);
                    async move {
                        match opened {
                            Err(error) => (*index, self.read_past_caches(record, error).await),
                            opened => (*index, opened),
                        }
                    }
                });
                join_all(opened).await
            }
            Err(error) if concerns_all(&error) => met_by_all(&records, &error),
            // A server that does not answer now, or one that cannot read a place of its disk: the records at both ends tell.
            Err(error) if is_passing(&error) => {
                let [first, between @ .., last] = records.as_slice() else { return self.read_alone(&records).await };
                let mut read = join_all(
                    [first, last].map(|(index, record)| async move { (*index, self.read_sought(record).await) }),
                )
                .await;
                let are_all_met = read.iter().all(|(_, alone)| alone.as_ref().is_err_and(is_passing));
                read.extend(if are_all_met { met_by_all(between, &error) } else { self.read_alone(between).await });
                read
            }
            // Some of the part is not to be had, or came wrongly; the records beside it may be.
            Err(_) => self.read_alone(&records).await,
        }
    }

    /// Each by a request of its own, so many at once.
    async fn read_alone(&self, records: &[(usize, Sought)]) -> Vec<(usize, Result<Bytes>)> {
        let mut read = Vec::with_capacity(records.len());
        for some in records.chunks(ALONE_AT_ONCE) {
            let each = some.iter().map(|(index, record)| async move { (*index, self.read_sought(record).await) });
            read.extend(join_all(each).await);
        }
        read
    }

    fn sealing<'a>(&'a self, record: &'a Sought) -> Sealing<'a> {
        Sealing { key: &record.key, repository: self.context.keys.repository(), name: record.name }
    }

    /// As [`BlockReader::read`], into a buffer that is as long as the payload. After an error it holds nothing of use.
    ///
    /// # Errors
    /// As [`BlockReader::read`].
    pub async fn read_into(&self, pointer: &Pointer, kind: RecordKind, payload: &mut [u8]) -> Result<()> {
        let record = self.find(pointer, kind)?;
        match self.read_record_into(&record, Source::Cached, payload).await {
            Err(Error::Damaged(_)) if self.context.storage.forget(record.name).await => {
                self.read_record_into(&record, Source::Storage, payload).await
            }
            read => read,
        }
    }

    fn find(&self, pointer: &Pointer, kind: RecordKind) -> Result<Sought> {
        let name = self.name(&pointer.block_id());
        if pointer.counter > COUNTER_MAX {
            return Err(Error::damaged(kind.name(), Some(name), "a pointer to a block that there cannot be"));
        }
        let place = Place::from(pointer);
        self.check_place(name, kind, &place)?;
        let key = self.key(name, pointer.key_epoch, &pointer.salt, kind)?;
        Ok(Sought { name, place, kind, key })
    }

    async fn read_record(&self, record: &Sought, source: Source) -> Result<Bytes> {
        let (fetched, range) = self.fetch_around(record, source).await?;
        let (index, kind, sealing) = (record.place.index.into(), record.kind, self.sealing(record));
        // In place, where nobody else holds the bytes, and keeping the record keeps little that was fetched around it.
        if fetched.len() / 2 <= range.len() {
            let sealed = fetched.slice(range);
            drop(fetched);
            return match sealed.try_into_mut() {
                Ok(owned) => sealing.open_owned(index, kind, owned),
                Err(shared) => sealing.open_copy(index, kind, &shared),
            };
        }
        sealing.open_copy(index, kind, fetched.get(range).unwrap_or_default())
    }

    async fn read_record_into(&self, record: &Sought, source: Source, payload: &mut [u8]) -> Result<()> {
        let (fetched, range) = self.fetch_around(record, source).await?;
        let sealing = self.sealing(record);
        sealing.open_into(record.place.index.into(), record.kind, fetched.get(range).unwrap_or_default(), payload)
    }

    /// The aligned parts around a record, and where in them it lies.
    async fn fetch_around(&self, record: &Sought, source: Source) -> Result<(Bytes, Range<usize>)> {
        let part = self.aligned(&record.place);
        let start = (record.place.offset - part.start) as usize;
        let fetched = self.fetch(record.name, part, record.kind.name(), source).await?;
        // Within it: the parts were asked for by this place, and came whole.
        let end = start.saturating_add(record.place.length as usize).min(fetched.len());
        Ok((fetched, start.min(end)..end))
    }

    /// Everything in the block of that name.
    ///
    /// # Errors
    /// As [`BlockReader::read`]; [`Error::Damaged`] too where the name is none that this repository gives to a numbered
    /// block, and where any byte of the block is not what was put.
    pub async fn read_whole(&self, name: Name) -> Result<WholeBlock> {
        self.read_salvage(name).await?.intact()
    }

    /// What can still be opened of the block of that name; [`WholeBlock::damaged`] lists what cannot.
    ///
    /// # Errors
    /// As [`BlockReader::read_whole`], save that a damaged record is none.
    pub async fn read_salvage(&self, name: Name) -> Result<WholeBlock> {
        let id = self
            .block_id(name)
            .ok_or_else(|| Error::damaged("block", Some(name), "its name is none of this repository's"))?;
        let block_bytes = self.context.geometry.block_bytes();
        let bytes = self.fetch(name, 0..block_bytes, "block", Source::Storage).await?;
        self.open_salvage(name, id.key_epoch(), bytes)
    }

    /// Opens a block whose bytes are at hand; names that are no numbers are welcome.
    ///
    /// # Errors
    /// [`Error::Damaged`] where any byte is not what was sealed under that name.
    pub fn open_whole(&self, name: Name, key_epoch: u16, bytes: Bytes) -> Result<WholeBlock> {
        self.open_salvage(name, key_epoch, bytes)?.intact()
    }

    fn open_salvage(&self, name: Name, key_epoch: u16, bytes: Bytes) -> Result<WholeBlock> {
        let salt = *(bytes.first_chunk())
            .ok_or_else(|| Error::damaged("block", Some(name), format!("has {} bytes", bytes.len())))?;
        // Not through the cache: a walk over all blocks would wash it out.
        let key = self.derive_key(name, key_epoch, &salt, "block")?;
        let sealing = Sealing { key: &key, repository: self.context.keys.repository(), name };
        let id = self.block_id(name).filter(|id| id.key_epoch() == key_epoch);
        WholeBlock::open(&sealing, self.context.geometry, id, salt, bytes)
    }

    /// Opens one record of a block of which the beginning is at hand, by the salt found there: for commits, whose salt is
    /// not known beforehand.
    ///
    /// # Errors
    /// [`Error::Damaged`] where no record of that kind lies exactly there.
    pub fn open_record(
        &self,
        name: Name,
        key_epoch: u16,
        beginning: &[u8],
        place: &Place,
        kind: RecordKind,
    ) -> Result<Bytes> {
        self.check_place(name, kind, place)?;
        let start = place.offset as usize;
        let short = || Error::damaged(kind.name(), Some(name), "its block is too short");
        let salt = beginning.first_chunk().ok_or_else(short)?;
        let record = beginning.get(start..start + place.length as usize).ok_or_else(short)?;
        let key = self.derive_key(name, key_epoch, salt, kind.name())?;
        let sealing = Sealing { key: &key, repository: self.context.keys.repository(), name };
        sealing.open_copy(place.index.into(), kind, record)
    }

    /// The name of a numbered block.
    #[must_use]
    pub fn name(&self, id: &BlockId) -> Name {
        Name::new(self.context.keys.encrypt_name(id.encode()))
    }

    /// What a name says to the key holder; `None` for one that is no number of this repository.
    #[must_use]
    pub fn block_id(&self, name: Name) -> Option<BlockId> {
        BlockId::decode(&self.context.keys.decrypt_name(*name.as_bytes()))
    }

    fn check_place(&self, name: Name, kind: RecordKind, place: &Place) -> Result<()> {
        if !self.context.geometry.holds(place.offset, place.length) || usize::from(place.index) >= RECORDS_COUNT_MAX {
            return Err(Error::damaged(kind.name(), Some(name), "a pointer to where no record can be"));
        }
        Ok(())
    }

    fn aligned(&self, place: &Place) -> Range<u32> {
        let end = place.offset.saturating_add(place.length);
        // Blocks are powers of two: either a multiple of the alignment, or one part altogether.
        let end = end.next_multiple_of(READ_ALIGNMENT_BYTES).min(self.context.geometry.block_bytes());
        place.offset / READ_ALIGNMENT_BYTES * READ_ALIGNMENT_BYTES..end
    }

    async fn fetch(&self, name: Name, part: Range<u32>, structure: &'static str, source: Source) -> Result<Bytes> {
        let expected = part.end - part.start;
        // Asked for without a range, the whole must be whole: a blob of another length shows.
        let whole = expected == self.context.geometry.block_bytes();
        let range = (!whole).then_some(u64::from(part.start)..u64::from(part.end));
        let damaged = |detail: String| Error::damaged(structure, Some(name), detail);
        let storage = &self.context.storage;
        let answer = match source {
            Source::Cached => storage.get_cached(name, range, expected.into()).await,
            Source::Storage => storage.get(name, range, expected.into()).await,
        };
        match answer {
            Ok(bytes) if bytes.len() == expected as usize => Ok(bytes),
            Ok(bytes) => Err(damaged(format!("{} bytes came where there are {expected}", bytes.len()))),
            Err(error) => Err(match error.kind() {
                ErrorKind::NotFound => Error::Missing { structure, blob: name },
                ErrorKind::RangeInvalid => damaged("its blob is shorter than a block".into()),
                ErrorKind::LimitExceeded => damaged("its blob is longer than a block".into()),
                _ => error.into(),
            }),
        }
    }

    fn key(&self, name: Name, key_epoch: u16, salt: &[u8; SALT_BYTES], kind: RecordKind) -> Result<Arc<BlockKey>> {
        let of = (key_epoch, name, *salt);
        if let Some(key) = self.keys.get(&of) {
            return Ok(key);
        }
        let key = Arc::new(self.derive_key(name, key_epoch, salt, kind.name())?);
        self.keys.insert(of, key.clone());
        Ok(key)
    }

    fn derive_key(
        &self,
        name: Name,
        key_epoch: u16,
        salt: &[u8; SALT_BYTES],
        structure: &'static str,
    ) -> Result<BlockKey> {
        (self.context.keys.block_key(key_epoch, name.as_bytes(), salt)).ok_or_else(|| {
            Error::damaged(structure, Some(name), format!("sealed in key epoch {key_epoch}, which is not at hand"))
        })
    }
}

fn met_by_all(records: &[(usize, Sought)], error: &Error) -> Vec<(usize, Result<Bytes>)> {
    records.iter().map(|(index, _)| (*index, Err(error.clone()))).collect()
}

/// Whether what a request for several records met would be met by one for each: asking again one by one would only take longer.
fn concerns_all(error: &Error) -> bool {
    match error {
        Error::Missing { .. } => true,
        Error::Storage(error) => {
            matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::Credentials | ErrorKind::Unsupported)
        }
        _ => false,
    }
}

/// Whether another request may not meet it.
fn is_passing(error: &Error) -> bool {
    matches!(error, Error::Storage(error) if error.retry() == Retry::CanHelp)
}
