//! How an engine comes to be: a repository is created, or one is opened at its newest state.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::chain::Chain;
use super::commit::{Draft, Extra, Leader, Outcome};
use super::keyring::{self, CreateHeader, Header, NewSlot};
use super::nodes::Nodes;
use super::recent::Recent;
use super::root::Root;
use super::shared::{EpochState, Shared, lock};
use super::{CreateOptions, Engine, OpenOptions, Secrets, Transaction, TrustedState, Tuning, in_force};
use crate::block::{BlockContext, BlockReader, BlockStore, BlockWriter, Geometry, WriterOptions};
use crate::crypto::{Keys, RootSecret};
use crate::env::Env;
use crate::format::header::Features;
use crate::layer::ReadOnly;
use crate::storage::{Name, Occupant, Storage};
use crate::{Error, Result};

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

    pub(super) async fn create_having<E: From<Error>>(
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
        }
        if options.accept_rollback {
            // Before anything relies on it that this history is the one that is remembered.
            shared.remember_instead().await?;
        }
        if !options.read_only {
            shared.clear_up().await?;
        }
        if options.accept_rollback {
            shared.remember_instead().await?;
        } else {
            shared.remember().await?;
        }
        Ok(engine)
    }

    /// An engine before the head is known.
    pub(super) fn assemble_opened(
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
    pub(super) async fn find_fresh_head(
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
            signed_at: AtomicU64::new(0),
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
}

/// Comes in on a handle that others may use too.
pub(super) async fn enter(storage: &Arc<dyn Storage>) -> Option<Occupant> {
    match storage.occupancy() {
        Some(occupancy) => Some(occupancy.enter().await),
        None => None,
    }
}
