//! The engine: a transactional, ordered key space on blocks, with snapshots, chunks and a commit chain.
//!
//! * `root` is a state: two copy-on-write trees under an overlay of recent changes.
//! * `chain` reads and seals commits and finds the head; `admit` judges transactions, `commit` in
//!   groups, `publish` brings them into it, `follow` learns what others committed.
//! * `checkpoint` folds the overlay into the trees; `space` claims and ends writer epochs and gives space back; `compact`
//!   and `defragment` pack what is left, `defragmenter` does so in the background; `ballast` keeps room for deleting on a full storage, `room` makes do with it.
//! * `destroy` deletes all of it.
//! * `snapshots` keeps states under names; `difference` compares states, and brings one back; `footprint` counts what one takes,
//!   `held` what the storage holds; `copy` brings all of them into another repository; `clone` brings the repository itself to
//!   another place.
//! * [`keyring`] opens the header's slots; `check` verifies every reference and count, `repair` keeps what it found damaged
//!   from spreading.
//!
//! Invariants kept here: a commit that is present refers only to what is durable; a state changes by its successor alone;
//! what a reader may still look at (`floor`) is not deleted; nothing is revived once it is condemned.

mod admit;
mod ballast;
mod chain;
mod check;
mod checkpoint;
mod clone;
mod commit;
mod compact;
mod copy;
mod defragment;
mod defragmenter;
mod destroy;
mod difference;
mod epochs;
mod follow;
mod footprint;
mod gather;
mod held;
mod import_header;
mod in_force;
pub mod keyring;
mod nodes;
mod options;
mod place;
mod publish;
mod reads;
mod recent;
mod remembered;
mod repair;
mod room;
mod root;
mod settled;
mod shared;
mod sides;
mod slots;
mod snapshots;
mod space;
mod sweep;
mod transaction;
mod view;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use crate::block::{BlockContext, BlockReader, BlockStore, BlockWriter, Geometry, WriterOptions};
use crate::crypto::{Keys, RootSecret, Suite};
use crate::env::Env;
use crate::format::header::Features;
use crate::format::node;
use crate::format::rows::{self, ChunkRow};
use crate::layer::ReadOnly;
use crate::storage::{Name, Occupant, Storage, StorageExt};
use crate::{Error, Result};

pub use crate::tree::Direction;
pub use check::{CheckOptions, CheckReport, Counts, Finding};
pub use clone::{CloneOptions, CloneProgress, Cloned};
pub use compact::{CompactOptions, CompactReport};
pub use copy::{Contents, Copied, CopyOptions};
pub use defragmenter::{
    BATCH_BYTES_MAX, BYTES_PER_SECOND_MIN, DefragmentOptions, DefragmentState, DefragmentStatus, Defragmenter,
    STEP_CHUNKS_MAX,
};
pub use destroy::Destroyed;
pub use difference::{Change, Changes, References};
pub use footprint::Footprint;
pub use held::Held;
pub use import_header::HeaderImport;
pub use options::{CreateOptions, OpenOptions, TrustedState, Tuning, Unlock};
pub use remembered::Remembered;
pub use repair::Repaired;
pub use sides::{Side, sides};
pub use snapshots::{SNAPSHOT_NAME_BYTES_MAX, SnapshotInfo};
pub use transaction::{CommitInfo, Transaction};
pub use view::{BATCH_REMOTE_BYTES, Scan, Snapshot, View};

use chain::Chain;
use checkpoint::Trees;
use commit::{Draft, Extra, Leader, Outcome};
use keyring::{CreateHeader, Header, NewSlot, SlotId};
use nodes::Nodes;
use recent::Recent;
use root::Root;
use shared::{EpochState, Shared, lock};

/// Which table a key lies in: the file system uses 0x10 to 0x7f, applications 0x80 to 0xef.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Table(pub u8);

impl Table {
    /// The last table that callers may use.
    pub const LAST: u8 = 0xef;
}

/// The number of a chunk: writer epoch in the upper, counter in the lower 32 bits; ascending in the order of ingest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkNumber(pub u64);

/// Errors that may mean "run the transaction again".
pub trait ConflictTest {
    /// Whether this is [`Error::Conflict`], or [`Error::Expired`]: the state that the transaction began on is out of date.
    fn is_conflict(&self) -> bool;
}

impl ConflictTest for Error {
    fn is_conflict(&self) -> bool {
        matches!(self, Self::Conflict | Self::Expired)
    }
}

/// What `info` tells of an open repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineInfo {
    /// The random id of the repository.
    pub repository: [u8; 16],
    /// The cipher suite.
    pub suite: Suite,
    /// Size of every blob in bytes.
    pub block_bytes: u32,
    /// Number of the newest commit.
    pub sequence: u64,
    /// Number of the last checkpoint.
    pub checkpoint: u64,
    /// The oldest commit that may still be read.
    pub floor: u64,
    /// Blobs in storage.
    pub blobs: u64,
    /// Chunks.
    pub chunks: u64,
    /// Bytes of the payloads of all chunks, as they were given: compressed, where who gave them did that.
    pub chunk_bytes: u64,
    /// Those of the chunks that only snapshots need.
    pub snapshot_chunk_bytes: u64,
    /// Bytes that live records take.
    pub live_bytes: u64,
    /// Writer epochs that are open.
    pub open_epochs: u64,
    /// Snapshots that are kept.
    pub snapshots: u64,
}

/// An open repository; cheap to clone, usable from many tasks and threads. [`Engine::close`] leaves it tidy; dropping it
/// loses nothing that was committed.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
    secrets: Arc<Secrets>,
}

/// What `check` needs to judge header copies.
struct Secrets {
    header: Mutex<Header>,
    root: RootSecret,
    /// The slot that it was opened with.
    slot: Mutex<Option<SlotId>>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Engine").field("sequence", &self.shared.root().sequence).finish_non_exhaustive()
    }
}

impl Engine {
    /// Creates a repository: the first commit, then the header, which makes it one, then the hint, without which the
    /// commit is found by looking at every name. So a creation that was cut short can be repeated, or was none.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`] where one is; [`Error::Invalid`] for options that make no sense; what the storage raises.
    pub async fn create(storage: Arc<dyn Storage>, env: Env, options: CreateOptions<'_>) -> Result<Self> {
        Self::create_with(storage, env, options, async |_: &Self, _: &mut Transaction| Ok(())).await
    }

    /// As [`Engine::create`], with rows that are there from the first commit on: no crash leaves a repository without
    /// them. The closure may put rows and nothing else.
    ///
    /// # Errors
    /// As [`Engine::create`]; what the closure answers.
    pub async fn create_with<E: From<Error>>(
        storage: Arc<dyn Storage>,
        env: Env,
        options: CreateOptions<'_>,
        fill: impl AsyncFnOnce(&Self, &mut Transaction) -> std::result::Result<(), E>,
    ) -> std::result::Result<Self, E> {
        Self::create_having(storage, env, options, Features::default(), fill).await
    }

    async fn create_having<E: From<Error>>(
        storage: Arc<dyn Storage>,
        env: Env,
        options: CreateOptions<'_>,
        features: Features,
        fill: impl AsyncFnOnce(&Self, &mut Transaction) -> std::result::Result<(), E>,
    ) -> std::result::Result<Self, E> {
        let (engine, header) = Self::assemble_new(storage, env, options, features).await?;
        let mut first = engine.begin();
        fill(&engine, &mut first).await?;
        engine.establish(&header, first).await?;
        Ok(engine)
    }

    async fn assemble_new(
        storage: Arc<dyn Storage>,
        env: Env,
        options: CreateOptions<'_>,
        features: Features,
    ) -> Result<(Self, Header)> {
        let occupant = enter(&storage).await;
        match keyring::read_headers(&storage).await {
            Err(Error::NotARepository) => {}
            Ok(headers) if headers.is_unfinished_copy() => return Err(Error::UnfinishedCopy),
            Ok(_) | Err(Error::Damaged(_) | Error::NewerFormat { .. }) => return Err(Error::AlreadyExists),
            Err(error) => return Err(error),
        }
        let limit = storage.capabilities().block_bytes_max;
        if options.block_bytes > limit {
            let (value, limit) = (u64::from(options.block_bytes), u64::from(limit));
            return Err(Error::LimitExceeded { what: "block_bytes", value, limit });
        }
        let mut slots = vec![NewSlot { credentials: options.credentials, label: "" }];
        slots.extend(options.recovery.map(|credentials| NewSlot { credentials, label: "recovery" }));
        let create = CreateHeader {
            suite: options.suite,
            block_bytes: options.block_bytes,
            kdf: options.kdf,
            features,
            slots: &slots,
        };
        let (header, root_secret) = keyring::build_header(&env, &create).await?;
        let genesis = Root::genesis(header.generation(), *header.hash());
        let engine = Self::assemble(
            storage.clone(),
            env,
            &header,
            root_secret,
            options.tuning,
            options.trusted,
            false,
            occupant,
            genesis,
        )?;
        Ok((engine, header))
    }

    async fn establish(&self, header: &Header, first: Transaction) -> Result<()> {
        let (shared, storage) = (&self.shared, self.shared.storage());
        {
            let mut leader = shared.leader.lock().await;
            let (base, mut draft) = (shared.root(), Draft::default());
            shared.admit(&base, &first.into_work(), &mut draft).await?;
            let extra = Extra { roots: Some((None, None)), ..Extra::default() };
            match shared.publish(&mut leader, base, draft, extra).await? {
                Outcome::Published(_) => {}
                Outcome::Lost => return Err(Error::Conflict),
            }
        }
        let root = shared.root();
        if let Err(error) = keyring::write_header(storage, header, &self.secrets.root).await {
            if matches!(error, Error::AlreadyExists) {
                // Somebody else's repository is here: leave nothing of ours in it.
                storage.delete(shared.chain.name(root.sequence)).await?;
            }
            return Err(error);
        }
        shared.ensure_hint(&root).await?;
        shared.remember().await?;
        shared.settled().await
    }

    /// Opens a repository. With `read_only` nothing at all is written to it: a [`ReadOnly`] layer stands between.
    ///
    /// # Errors
    /// [`Error::NotARepository`], [`Error::UnfinishedCopy`], [`Error::WrongCredentials`], [`Error::NewerFormat`],
    /// [`Error::Damaged`] and [`Error::RolledBack`], each for what it says; what the storage raises.
    pub async fn open(storage: Arc<dyn Storage>, env: Env, options: OpenOptions<'_>) -> Result<Self> {
        let storage: Arc<dyn Storage> = if options.read_only { Arc::new(ReadOnly::new(storage)) } else { storage };
        let occupant = enter(&storage).await;
        let mut headers = keyring::read_headers(&storage).await?;
        let mut opened = in_force::open_newest(&env, &headers, options.unlock).await?;
        if !options.read_only && opened.header.features().unknown() != Features::default() {
            return Err(Error::NewerFormat {
                detail: "it has features that only reading tolerates; open it read-only".into(),
            });
        }
        let engine = Self::assemble_opened(storage, env, &opened, &options, options.read_only, occupant)?;
        let shared = &engine.shared;
        let mut attempts_left = shared.tuning.attempts_max;
        let (head, freshness, opened) = loop {
            let (head, freshness) = engine.find_fresh_head(Some(headers.hints()), options.accept_rollback).await?;
            match in_force::choose(shared.env(), &headers, opened, &head, options.unlock).await {
                Ok(opened) => break (head, freshness, opened),
                Err(error @ (Error::RolledBack { .. } | Error::Damaged(_))) if attempts_left > 0 => {
                    // Another process may have changed slots since the headers were read.
                    let again = keyring::read_headers(shared.storage()).await?;
                    if again.is_like(&headers) {
                        return Err(error);
                    }
                    headers = again;
                    opened = in_force::open_newest(shared.env(), &headers, options.unlock).await?;
                    if opened.root != engine.secrets.root {
                        return Err(Error::Conflict);
                    }
                    attempts_left -= 1;
                }
                Err(error) => return Err(error),
            }
        };
        if opened.header.features().is_unfinished_copy() {
            return Err(Error::UnfinishedCopy);
        }
        *lock(&engine.secrets.header) = opened.header;
        *lock(&engine.secrets.slot) = opened.slot;
        freshness?;
        *lock(&shared.root) = Arc::new(head);
        shared.meet(options.accept_rollback).await?;
        if !options.read_only {
            // We build on it: it must not be lost after we have. Nor after the header that it put out of force is gone:
            // what it went back to would name that.
            shared.persist_commit(shared.root().sequence).await?;
            in_force::heal(&shared.context.storage, &headers, &engine.secrets).await;
            shared.clear_up().await?;
        }
        if options.accept_rollback {
            shared.remember_instead().await?
        } else {
            shared.remember().await?
        }
        Ok(engine)
    }

    /// An engine before the head is known.
    fn assemble_opened(
        storage: Arc<dyn Storage>,
        env: Env,
        opened: &in_force::Opened,
        options: &OpenOptions<'_>,
        read_only: bool,
        occupant: Option<Occupant>,
    ) -> Result<Self> {
        let header = &opened.header;
        let genesis = Root::genesis(header.generation(), *header.hash());
        let (tuning, trusted) = (options.tuning, options.trusted.clone());
        Self::assemble(storage, env, header, opened.root.duplicate(), tuning, trusted, read_only, occupant, genesis)
    }

    /// The newest state in storage, and whether it is as new as what this device remembers; with hints that were read already.
    async fn find_fresh_head(
        &self,
        mut hints: Option<&BTreeMap<Name, Bytes>>,
        accept_rollback: bool,
    ) -> Result<(Root, Result<()>)> {
        let shared = &self.shared;
        // Before the head is looked for: another process may commit and remember that while we look.
        let seen = match &shared.trusted {
            Some(trusted) => trusted.load(shared.context.keys.repository()).await?,
            None => None,
        };
        let mut attempts_left = shared.tuning.attempts_max;
        loop {
            let head = match hints.take() {
                Some(hints) => Box::pin(shared.chain.find_head_from(hints)).await?,
                None => shared.chain.find_head().await?,
            };
            let freshness = self.check_freshness(&head, seen, accept_rollback).await;
            // Gone while we looked: others gave that state up, and there is a newer one.
            let gone = matches!(freshness, Err(Error::Missing { .. } | Error::Expired)) && attempts_left > 0;
            if !gone || shared.chain.find_head().await?.sequence == head.sequence {
                return Ok((head, freshness));
            }
            attempts_left -= 1;
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn assemble(
        storage: Arc<dyn Storage>,
        env: Env,
        header: &Header,
        root_secret: RootSecret,
        tuning: Tuning,
        trusted: Option<Arc<dyn TrustedState>>,
        read_only: bool,
        occupant: Option<Occupant>,
        root: Root,
    ) -> Result<Self> {
        let keys = Arc::new(Keys::from_root(header.suite(), *header.repository(), &root_secret, &[]));
        let geometry = Geometry::new(header.block_bytes())?;
        let context = Arc::new(BlockContext { storage, env, keys, geometry });
        let in_flight = usize::try_from(tuning.in_flight_bytes_max).unwrap_or(usize::MAX);
        let blocks = Arc::new(BlockStore {
            reader: BlockReader::new(context.clone()),
            writer: Arc::new(BlockWriter::new(context.clone(), WriterOptions { in_flight_bytes_max: in_flight })),
        });
        let shared = Shared {
            chain: Chain::new(blocks.clone()),
            nodes: Arc::new(Nodes::new(blocks.clone(), tuning.node_cache_bytes_max)),
            context,
            _occupant: occupant,
            blocks,
            tuning,
            read_only,
            trusted,
            is_strange: AtomicBool::new(false),
            told_at: AtomicU64::new(u64::MAX),
            root: Mutex::new(Arc::new(root)),
            recent: Mutex::new(Recent::default()),
            queue: Mutex::default(),
            leader: async_lock::Mutex::new(Leader::default()),
            snapshots: async_lock::Mutex::new(()),
            epoch: Mutex::new(EpochState::default()),
            claims: Mutex::default(),
            abandoned: Mutex::default(),
            lasting: Mutex::default(),
            claim: async_lock::Mutex::new(()),
            unlisted: Mutex::default(),
            given_back: Mutex::default(),
            spent: AtomicBool::new(false),
            appending: Mutex::default(),
            unreferenced: Mutex::default(),
            pins: Mutex::new(BTreeMap::new()),
            hinted: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            loosened: AtomicU64::new(0),
            defragmenter: Mutex::default(),
            counted: Mutex::default(),
        };
        Ok(Self {
            shared: Arc::new(shared),
            secrets: Arc::new(Secrets {
                header: Mutex::new(header.clone()),
                root: root_secret,
                slot: Mutex::default(),
            }),
        })
    }

    /// Compares the head with what this device remembered before it was found.
    async fn check_freshness(&self, head: &Root, seen: Option<(u64, [u8; 32])>, accept_rollback: bool) -> Result<()> {
        let Some((sequence, hash)) = seen else { return Ok(()) };
        match self.shared.contradiction(head, sequence, &hash).await? {
            Some(detail) if !accept_rollback => Err(Error::RolledBack {
                detail: format!("{detail}; if you restored an older copy yourself, pass --accept-rollback"),
            }),
            _ => Ok(()),
        }
    }

    /// A read-write transaction on the newest state that this process knows.
    #[must_use]
    pub fn begin(&self) -> Transaction {
        Transaction::new(&self.shared)
    }

    /// The newest state that this process knows, pinned.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::new(&self.shared)
    }

    /// Runs a closure in a transaction and commits it; on a conflict, again, on the newest state.
    ///
    /// # Errors
    /// What the closure answers; [`Error::Conflict`] after [`Tuning::attempts_max`] attempts; as [`Transaction::commit`].
    pub async fn transact<T, E>(
        &self,
        mut closure: impl AsyncFnMut(&mut Transaction) -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E>
    where
        E: From<Error> + ConflictTest,
    {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let mut transaction = self.begin();
            let result = match closure(&mut transaction).await {
                Ok(value) => transaction.commit().await.map(|_| value).map_err(E::from),
                Err(error) => Err(error),
            };
            match result {
                Err(error) if error.is_conflict() && attempt < self.shared.tuning.attempts_max => {
                    self.refresh().await?
                }
                result => return result,
            }
        }
    }

    /// Learns what other processes have committed.
    ///
    /// # Errors
    /// [`Error::Damaged`] and [`Error::RolledBack`]; what the storage raises.
    pub async fn refresh(&self) -> Result<()> {
        if self.shared.read_only {
            return self.shared.catch_up(false).await;
        }
        let _leader = self.shared.leader.lock().await;
        self.shared.catch_up(true).await
    }

    /// Brings to its end what waits to be committed though whoever began it may be gone, and what of nobody knows whether it
    /// was committed.
    ///
    /// # Errors
    /// [`Error::CommitUnknown`] where that cannot be found out yet; [`Error::Closed`]; what the storage raises.
    pub async fn settle(&self) -> Result<()> {
        self.shared.check_writable()?;
        let mut leader = self.shared.leader.lock().await;
        self.shared.settle(&mut leader).await?;
        // What fails of it is told to those who wait.
        self.shared.answer_waiting(&mut leader).await;
        self.shared.settle(&mut leader).await
    }

    /// Waits until every commit under way is answered, and makes a checkpoint when one is due.
    ///
    /// # Errors
    /// As [`Transaction::commit`].
    pub async fn flush(&self) -> Result<()> {
        self.shared.check_writable()?;
        let mut leader = self.shared.leader.lock().await;
        self.shared.settle(&mut leader).await?;
        if self.shared.checkpoint_due() {
            self.shared.checkpoint(&mut leader, Trees::Change).await?;
        }
        drop(leader);
        self.shared.remember().await
    }

    /// Folds everything committed so far into the trees, and deletes what that makes superfluous.
    ///
    /// # Errors
    /// As [`Transaction::commit`].
    pub async fn checkpoint(&self) -> Result<()> {
        self.shared.check_writable()?;
        for _ in 0..self.shared.tuning.attempts_max {
            self.shared.hold_epoch().await?;
            let mut leader = self.shared.leader.lock().await;
            if self.shared.checkpoint(&mut leader, Trees::Change).await? {
                break;
            }
        }
        self.shared.remember().await
    }

    /// Gives back the space of what nothing needs, and packs what is left; see [`CompactOptions`]. Other transactions go on
    /// beside it. What readers of older states may need stays: see [`CompactReport::waiting`].
    ///
    /// # Errors
    /// As [`Transaction::commit`]. Cut short at any point, it has done a part and harmed nothing.
    pub async fn compact(&self, options: CompactOptions<'_>) -> Result<CompactReport> {
        compact::run(&self.shared, options).await
    }

    /// Ends the writer's epoch and gives back what nothing needs. Later writes answer [`Error::Closed`].
    ///
    /// # Errors
    /// What the storage raises; what was committed stays committed.
    pub async fn close(&self) -> Result<()> {
        let defragmenter = lock(&self.shared.defragmenter).upgrade();
        if let Some(control) = defragmenter {
            control.stop();
        }
        self.shared.close().await
    }

    /// Forgets what is kept in memory for no other reason than to be fast: decoded tree nodes, and the keys of blocks, which
    /// are erased. What is committed and not in the trees yet stays, and so does what readers and transactions hold. What a
    /// [`crate::layer::Cached`] below keeps is that cache's.
    pub fn drop_caches(&self) {
        self.shared.nodes.forget();
        self.shared.blocks.reader.forget_keys();
    }

    /// The identity of a chunk's plaintext, for dedup: a keyed hash.
    #[must_use]
    pub fn identity(&self, plaintext: &[u8]) -> [u8; 32] {
        self.shared.context.keys.identity(plaintext)
    }

    /// The keys, for those who hash on other threads.
    #[must_use]
    pub fn keys(&self) -> &Arc<Keys> {
        &self.shared.context.keys
    }

    /// The repository's secret seed for chunk boundaries.
    #[must_use]
    pub fn boundary_seed(&self) -> u64 {
        self.shared.context.keys.boundary_seed()
    }

    /// The largest payload of a chunk in bytes: 256 KiB, and in blocks of less than 16 KiB four blocks.
    #[must_use]
    pub fn chunk_bytes_max(&self) -> usize {
        self.shared.chunk_bytes_max()
    }

    /// The largest key in bytes, without its table.
    #[must_use]
    pub fn key_bytes_max(&self) -> usize {
        node::key_bytes_max(self.shared.context.geometry.node_bytes_max()).saturating_sub(1)
    }

    /// The largest key and value in bytes together, without the table.
    #[must_use]
    pub fn row_bytes_max(&self) -> usize {
        node::leaf_entry_bytes_max(self.shared.context.geometry.node_bytes_max()).saturating_sub(1)
    }

    /// The size of every blob in bytes.
    #[must_use]
    pub fn block_bytes(&self) -> u32 {
        self.shared.context.geometry.block_bytes()
    }

    /// Clock, randomness and workers.
    #[must_use]
    pub fn env(&self) -> &Env {
        &self.shared.context.env
    }

    /// Whether it was opened for reading only.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.shared.read_only
    }

    /// A copy of the root secret: for an agent that opens the repository again without its credentials.
    #[must_use]
    pub fn root_secret(&self) -> RootSecret {
        self.secrets.root.duplicate()
    }

    /// Counts, at the newest state that this process knows. Costs one listing of the storage and a look at the rows of all
    /// chunks and blocks; no content is read.
    ///
    /// # Errors
    /// [`Error::Damaged`]; what the storage raises.
    pub async fn info(&self) -> Result<EngineInfo> {
        let shared = &self.shared;
        let (root, pin) = shared.pin();
        let mut info = EngineInfo {
            repository: *shared.context.keys.repository(),
            suite: shared.context.keys.suite(),
            block_bytes: self.block_bytes(),
            sequence: root.sequence,
            checkpoint: root.base,
            floor: root.floor,
            blobs: shared.storage().list_all(&[]).await?.len() as u64,
            chunks: 0,
            chunk_bytes: 0,
            snapshot_chunk_bytes: 0,
            live_bytes: 0,
            open_epochs: 0,
            snapshots: self.snapshots().await?.len() as u64,
        };
        let all = (std::ops::Bound::Unbounded, std::ops::Bound::Unbounded);
        for table in [rows::CHUNK, rows::USAGE, rows::EPOCH] {
            let mut scan = shared.scan_root(&root, &pin, table, all, Direction::Ascending);
            while let Some((_, value)) = scan.next().await? {
                match table {
                    rows::CHUNK => {
                        let row = ChunkRow::decode(&value)
                            .map_err(|error| Error::damaged("chunk", None, error.to_string()))?;
                        let bytes = row.place.payload_bytes();
                        info.chunks += 1;
                        info.chunk_bytes = info.chunk_bytes.saturating_add(bytes);
                        if row.references == 0 {
                            info.snapshot_chunk_bytes = info.snapshot_chunk_bytes.saturating_add(bytes);
                        }
                    }
                    rows::USAGE => info.live_bytes += rows::decode_count(&value).unwrap_or_default(),
                    _ => info.open_epochs += u64::from(place::is_open(Some(value))?),
                }
            }
        }
        Ok(info)
    }

    /// Verifies every reference and every count; see [`CheckOptions`].
    ///
    /// # Errors
    /// What the storage raises. Damage is no error here: it is what the report lists.
    pub async fn check(&self, options: CheckOptions<'_>) -> Result<CheckReport> {
        check::run(&self.shared, &self.header().await?, &self.secrets.root, options).await
    }
}

/// Comes in on a handle that others may use too.
async fn enter(storage: &Arc<dyn Storage>) -> Option<Occupant> {
    match storage.occupancy() {
        Some(occupancy) => Some(occupancy.enter().await),
        None => None,
    }
}

impl Shared {
    pub(crate) fn chunk_bytes_max(&self) -> usize {
        self.context.geometry.chunk_bytes_max()
    }

    /// How many bytes of payloads a transaction may keep in its rows.
    pub(crate) fn inline_bytes_max(&self) -> usize {
        (64 << 10).min(self.context.geometry.block_bytes() as usize / 2)
    }

    pub(crate) fn check_row(&self, key_bytes: usize, value_bytes: usize) -> Result<()> {
        self.check_writable()?;
        let node_bytes_max = self.context.geometry.node_bytes_max();
        let limits = [
            ("key_bytes", key_bytes + 1, node::key_bytes_max(node_bytes_max)),
            ("row_bytes", key_bytes + 1 + value_bytes, node::leaf_entry_bytes_max(node_bytes_max)),
        ];
        for (what, value, limit) in limits {
            if value > limit {
                return Err(Error::LimitExceeded { what, value: value as u64, limit: limit as u64 });
            }
        }
        Ok(())
    }
}
