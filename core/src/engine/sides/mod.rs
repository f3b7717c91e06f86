//! The sides of a fork: writers that were apart, each of which saw only its own commits, have made several histories out of one;
//! what they stored has come together since, some of it under other names.
//!
//! A commit holds the hash of the one before it, so which commits are of one side shows however they are mixed. What is
//! needed beside them is under names that are no other side's: see [`super::place`]. Nothing is written here.

mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use view::{Choice, Contents, SideView};

use super::chain::Chain;
use super::in_force;
use super::keyring::Header;
use super::nodes::Nodes;
use super::root::Root;
use super::{Unlock, keyring};
use crate::block::{BlockContext, BlockReader, BlockStore, BlockWriter, Geometry, WriterOptions};
use crate::crypto::Keys;
use crate::env::Env;
use crate::format::commit::CommitHead;
use crate::format::well_known::{HeaderId, is_hint_name};
use crate::format::{BlockId, rows};
use crate::storage::{Error as StorageError, ErrorKind, Name, Storage};
use crate::{Error, Result};

/// How many headers are tried, at least, before it is given up.
const HEADERS_MAX: usize = 16;
/// How many histories are shown. Each costs some memory, and whoever holds on to old commits can make many seem to be ends of one.
const SIDES_MAX: usize = 64;
/// Decoded nodes that are kept to look up a history in.
const NODES_BYTES: u64 = 1 << 20;

/// One of the histories that have parted.
#[derive(Clone)]
pub struct Side {
    /// Its newest commit.
    pub sequence: u64,
    /// That commit's hash.
    pub hash: [u8; 32],
    /// When that was made, in ms since 1970.
    pub time_millis: u64,
    /// The last commit that it has in common with all the others; none where that is not known any more.
    pub parted_after: Option<u64>,
    /// What of its commits is missing, so that it cannot be opened; none where all are there.
    pub missing: Option<String>,
    /// Whether a header that its commits name is there. Where none is, because another side has changed credentials, it opens by
    /// that side's, as [`Side::storage`] shows it.
    pub has_header: bool,
    /// Whether the headers that are there are older than the one its commits name, or of no side: then they were put back, and
    /// may let in who was let out since. It opens by [`Side::storage_taken_back`] alone.
    pub is_rolled_back: bool,
    /// How many contents have the name of a commit or of a hint, of whichever side, and cannot be read at all.
    pub unread: usize,
    /// Its commits that are there.
    commits: BTreeMap<u64, [u8; 32]>,
    /// Its newest state, where that can be read.
    state: Option<Arc<(Root, Nodes)>>,
    view: SideView,
    taken_back: Option<SideView>,
}

impl std::fmt::Debug for Side {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { sequence, parted_after, missing, has_header, is_rolled_back, .. } = self;
        formatter
            .debug_struct("Side")
            .field("sequence", sequence)
            .field("parted_after", parted_after)
            .field("missing", missing)
            .field("has_header", has_header)
            .field("is_rolled_back", is_rolled_back)
            .finish_non_exhaustive()
    }
}

impl Side {
    /// All the places as this side left them, for reading alone: to be opened, or cloned from. Where its header is not there, a
    /// commit follows its newest that names the one which [`sides`] opened, unless [that was put back](Side::is_rolled_back).
    #[must_use]
    pub fn storage(&self) -> Arc<dyn Storage> {
        Arc::new(self.view.clone())
    }

    /// The same with the header that [`sides`] opened, though it was put back in place of a newer one: for one who says that it is
    /// to be so.
    #[must_use]
    pub fn storage_taken_back(&self) -> Arc<dyn Storage> {
        Arc::new(self.taken_back.as_ref().unwrap_or(&self.view).clone())
    }

    /// Whether a commit is one of this side's; none where that is longer ago than its history goes back, or where that cannot be
    /// read.
    ///
    /// # Errors
    /// What the storages raise.
    pub async fn has(&self, sequence: u64, hash: &[u8; 32]) -> Result<Option<bool>> {
        if sequence > self.sequence {
            return Ok(Some(false));
        }
        Ok(self.hash_of(sequence).await?.map(|own| own == *hash))
    }

    async fn hash_of(&self, sequence: u64) -> Result<Option<[u8; 32]>> {
        if let Some(hash) = self.commits.get(&sequence) {
            return Ok(Some(*hash));
        }
        // Of those that are gone since a checkpoint the history tells.
        let Some((root, nodes)) = self.state.as_deref() else { return Ok(None) };
        match root.get(nodes, &rows::history_key(sequence)).await {
            Ok(row) => Ok(row.and_then(|row| row.as_ref().try_into().ok())),
            Err(Error::Storage(error)) if !is_of_the_blob(&error) => Err(Error::Storage(error)),
            Err(_) => Ok(None),
        }
    }
}

/// A commit, and in which of the places it lies.
struct Found {
    head: CommitHead,
    name: Name,
    place: usize,
}

type Commits = BTreeMap<[u8; 32], Found>;

/// What there is of histories.
#[derive(Default)]
struct Findings {
    commits: Commits,
    /// The hashes that hints name, by the names and places of those.
    hints: Vec<(Name, usize, [u8; 32])>,
    /// The names of both: each side has some of them, and in places of its own.
    names: Arc<BTreeSet<Name>>,
    /// How many have the name of one, and cannot be read at all.
    unread: usize,
}

impl Findings {
    /// The newest commits of histories, the newest first.
    fn tips(&self) -> Vec<[u8; 32]> {
        let continued: BTreeSet<[u8; 32]> = self.commits.values().map(|found| found.head.previous).collect();
        let mut tips: Vec<_> = self.commits.iter().filter(|(hash, _)| !continued.contains(*hash)).collect();
        tips.sort_by_key(|(_, found)| std::cmp::Reverse((found.head.sequence, found.head.time)));
        tips.into_iter().map(|(hash, _)| *hash).collect()
    }

    /// The commits that lead to this one, as far as they are there, and whether a checkpoint is among them.
    fn line(&self, tip: [u8; 32]) -> (BTreeMap<u64, [u8; 32]>, bool) {
        let (mut own, mut next, mut reaches_checkpoint) = (BTreeMap::new(), tip, false);
        while let Some(found) = self.commits.get(&next) {
            if own.insert(found.head.sequence, next).is_some() {
                break;
            }
            reaches_checkpoint |= found.head.sequence == found.head.base;
            next = found.head.previous;
        }
        (own, reaches_checkpoint)
    }
}

/// Whether that one content cannot be read, and not the storage: a sub-folder or a pipe by that name, or a part of a disk that is
/// gone.
fn is_of_the_blob(error: &StorageError) -> bool {
    !matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Busy | ErrorKind::Credentials)
}

/// What is common to the places.
struct Survey {
    env: Env,
    keys: Arc<Keys>,
    geometry: Geometry,
    contents: Arc<Contents>,
}

impl Survey {
    fn chain(&self, storage: Arc<dyn Storage>) -> (Chain, Nodes) {
        let (env, keys) = (self.env.clone(), self.keys.clone());
        let context = Arc::new(BlockContext { storage, env, keys, geometry: self.geometry });
        let writer = Arc::new(BlockWriter::new(context.clone(), WriterOptions { in_flight_bytes_max: 0 }));
        let blocks = Arc::new(BlockStore { reader: BlockReader::new(context), writer });
        (Chain::new(blocks.clone()), Nodes::new(blocks, NODES_BYTES))
    }

    /// Every commit and hint in each of the places. What is none, though it has the name of one, is passed by: cut short, say; and
    /// so is what cannot be read.
    async fn findings(&self) -> Result<Findings> {
        let (mut found, mut names) = (Findings::default(), BTreeSet::new());
        for (place, storage) in self.contents.places().iter().enumerate() {
            let (chain, _) = self.chain(storage.clone());
            for name in self.contents.names_in(place) {
                let outcome = match chain.blocks().reader.block_id(name) {
                    Some(BlockId::Commit { sequence, .. }) => chain.read_head(sequence).await.map(|read| {
                        if let Some((head, hash)) = read {
                            names.insert(name);
                            found.commits.entry(hash).or_insert(Found { head, name, place });
                        }
                    }),
                    _ if is_hint_name(name.as_bytes()) => {
                        names.insert(name);
                        chain.read_hint(name).await.map(|hint| found.hints.push((name, place, hint.hash)))
                    }
                    _ => continue,
                };
                match outcome {
                    Err(Error::Storage(error)) if is_of_the_blob(&error) => found.unread += 1,
                    Err(Error::Storage(error)) => return Err(Error::Storage(error)),
                    Ok(()) | Err(_) => {}
                }
            }
        }
        Ok(Findings { names: Arc::new(names), ..found })
    }

    /// The side that ends with a commit.
    fn side(&self, tip: [u8; 32], findings: &Findings) -> Option<Side> {
        let commits = &findings.commits;
        let head = &commits.get(&tip)?.head;
        let (own, reaches_checkpoint) = findings.line(tip);
        // Of commits and hints only its own are there.
        let mut choice: Choice =
            own.values().filter_map(|hash| commits.get(hash)).map(|found| (found.name, found.place)).collect();
        let hashes: BTreeSet<_> = own.values().collect();
        for (name, place, hash) in &findings.hints {
            if hashes.contains(hash) {
                choice.insert(*name, *place);
            }
        }
        let missing = (!reaches_checkpoint).then(|| {
            let first = own.first_key_value().map_or(head.sequence, |(sequence, _)| *sequence);
            format!("commits {} to {}", head.base, first.saturating_sub(1))
        });
        let view = SideView::new(self.contents.clone(), findings.names.clone(), choice);
        Some(Side {
            sequence: head.sequence,
            hash: tip,
            time_millis: head.time,
            parted_after: None,
            missing,
            has_header: true,
            is_rolled_back: false,
            taken_back: None,
            unread: findings.unread,
            commits: own,
            state: None,
            view: view.of_length(self.geometry.block_bytes().into()),
        })
    }

    /// The newest state of a side; none where it cannot be read.
    async fn state(&self, side: &Side) -> Result<Option<(Root, Nodes)>> {
        let (chain, nodes) = self.chain(side.storage());
        match chain.find_head().await {
            Ok(root) => Ok(Some((root, nodes))),
            Err(Error::Storage(error)) if !is_of_the_blob(&error) => Err(Error::Storage(error)),
            Err(_) => Ok(None),
        }
    }

    /// Where several headers are under one name, that which the side's commits name; whether it is there.
    async fn choose_header(&self, side: &mut Side, state: &Root) -> Result<bool> {
        for place in 0..self.contents.places().len() {
            let Some(view) = side.view.with_headers_of(place) else { continue };
            let headers = match keyring::read_headers(&(Arc::new(view.clone()) as Arc<dyn Storage>)).await {
                Err(Error::Storage(error)) if !is_of_the_blob(&error) => return Err(Error::Storage(error)),
                Err(_) => continue,
                Ok(headers) => headers,
            };
            if headers.find(state.header_generation, &state.header_hash).is_some() {
                side.view = view;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Another side's change of credentials took the side's header away. All headers of a repository wrap the same secret, so that
    /// another serves as well; a commit of the view's own puts it in force. But one that was put out of force before may let in whom
    /// the side has let out, and so may one that no commit names.
    fn stand_in(&self, side: &mut Side, state: &Root, header: &Header, place: usize, commits: &Commits) -> Result<()> {
        let head = CommitHead {
            sequence: state.sequence + 1,
            previous: state.hash,
            checkpoint: false,
            spilled: false,
            writer_epoch: 0,
            time: state.time,
            header_generation: header.generation(),
            header_hash: *header.hash(),
            floor: state.floor,
            oldest: state.oldest,
            base: state.base,
            body_bytes: 0,
            content: None,
            space: None,
        };
        // The same each time: of one side twice the same repository comes.
        let sealed = self.chain(side.storage()).0.seal_alike(&head)?;
        let is_named = commits.values().any(|found| {
            found.head.header_generation == header.generation() && found.head.header_hash == *header.hash()
        });
        side.has_header = false;
        side.is_rolled_back = !is_named || header.generation() <= state.header_generation;
        let view = side.view.with_headers_of(place).map(|view| view.with_blob(sealed.name, sealed.blob));
        match view {
            Some(view) if side.is_rolled_back => side.taken_back = Some(view),
            Some(view) => side.view = view,
            None => {}
        }
        Ok(())
    }
}

/// Finds the histories in several places that hold blobs of one repository, the newest first, and the repository's id: one history
/// where nobody wrote apart. Of a name that is in several places, each may hold something else. What other histories have given up
/// may be missing from one of them, commits as well as blocks. More than 64 are not shown: of those that are whole the newest come
/// first, then the newest of the others.
///
/// # Errors
/// [`Error::NotARepository`], [`Error::WrongCredentials`] and [`Error::NewerFormat`], each for what it says; [`Error::Damaged`]
/// where no header is whole; what the storages raise.
pub async fn sides(places: Vec<Arc<dyn Storage>>, env: Env, unlock: Unlock<'_>) -> Result<(Vec<Side>, [u8; 16])> {
    let contents = Arc::new(Contents::list(places).await?);
    let (opened, opened_in) = open_any(&contents, &env, unlock).await?;
    let header = &opened.header;
    let keys = Arc::new(Keys::from_root(header.suite(), *header.repository(), &opened.root, &[]));
    let survey = Survey { env, keys, geometry: Geometry::new(header.block_bytes())?, contents };
    let findings = survey.findings().await?;
    if findings.commits.is_empty() {
        return Err(Error::damaged("commit chain", None, "no commit is left"));
    }
    let (whole, parts): (Vec<_>, Vec<_>) = findings.tips().into_iter().partition(|tip| findings.line(*tip).1);
    let mut sides: Vec<Side> = Vec::new();
    // Those first that can be opened: their histories tell which of the others are no more than what is left of them.
    for tip in whole.into_iter().chain(parts) {
        let Some(head) = findings.commits.get(&tip).map(|found| &found.head) else { continue };
        if is_past(head.sequence, &tip, &sides).await? {
            continue;
        }
        if sides.len() == SIDES_MAX {
            tracing::warn!("there are more ends of histories than are shown");
            break;
        }
        let Some(mut side) = survey.side(tip, &findings) else { continue };
        if side.missing.is_none()
            && let Some((root, nodes)) = survey.state(&side).await?
        {
            if !survey.choose_header(&mut side, &root).await? {
                survey.stand_in(&mut side, &root, header, opened_in, &findings.commits)?;
            }
            side.state = Some(Arc::new((root, nodes)));
        }
        sides.push(side);
    }
    sides.sort_by_key(|side| std::cmp::Reverse((side.sequence, side.time_millis)));
    part(&mut sides).await?;
    Ok((sides, *header.repository()))
}

/// Opens a header of any of the places, and says in which: each side may have changed its credentials.
async fn open_any(contents: &Arc<Contents>, env: &Env, unlock: Unlock<'_>) -> Result<(in_force::Opened, usize)> {
    let view = SideView::new(contents.clone(), Arc::default(), Choice::default());
    let (mut first, mut tried) = (None, BTreeSet::new());
    for place in 0..contents.places().len() {
        let Some(view) = view.with_headers_of(place) else { continue };
        let opened = match keyring::read_headers(&(Arc::new(view) as Arc<dyn Storage>)).await {
            Ok(headers) => {
                // Each costs a key derivation, and whoever can plant files can plant many.
                let before = tried.len();
                tried.extend(headers.headers().iter().map(|header| *header.hash()));
                if tried.len() == before {
                    continue;
                }
                if before >= HEADERS_MAX {
                    break;
                }
                in_force::open_newest(env, &headers, unlock).await
            }
            Err(error) => Err(error),
        };
        match opened {
            Ok(opened) => return Ok((opened, place)),
            Err(error) => first = first.or(Some(error)),
        }
    }
    Err(first.unwrap_or(Error::NotARepository))
}

/// Whether it is no side of its own, but what another comes of: commits that were given up and are not deleted yet.
async fn is_past(sequence: u64, hash: &[u8; 32], sides: &[Side]) -> Result<bool> {
    for later in sides.iter().filter(|other| other.sequence > sequence && other.state.is_some()) {
        if later.has(sequence, hash).await? == Some(true) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Says where they parted.
async fn part(sides: &mut [Side]) -> Result<()> {
    if sides.len() < 2 {
        return Ok(());
    }
    let end = sides.iter().map(|side| side.sequence).min().unwrap_or_default();
    // Of one that cannot be opened the commits that are there tell; of the others all, as far as their history goes back.
    let is_readable = sides.iter().all(|side| side.state.is_some());
    let first = sides.iter().filter(|side| side.state.is_none()).filter_map(|side| side.commits.keys().next()).max();
    let newest = sides.iter().map(|side| side.sequence).max().unwrap_or_default();
    let horizon = newest.saturating_sub(rows::HISTORY_COMMITS).max(1);
    let (mut common, mut after) = (None, end + 1);
    let mut from = if is_readable { horizon } else { horizon.max(first.copied().unwrap_or_default()) };
    // Up to where they parted all agree, and none of them from there on.
    while from < after {
        let middle = from + (after - from) / 2;
        if is_common(sides, middle).await? {
            (common, from) = (Some(middle), middle + 1);
        } else {
            after = middle;
        }
    }
    for side in sides {
        side.parted_after = common;
    }
    Ok(())
}

async fn is_common(sides: &[Side], sequence: u64) -> Result<bool> {
    let Some((first, others)) = sides.split_first() else { return Ok(false) };
    let Some(hash) = first.hash_of(sequence).await? else { return Ok(false) };
    for other in others {
        if other.has(sequence, &hash).await? != Some(true) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether a name is a header's.
fn is_header(name: Name) -> bool {
    HeaderId::from_name(name.as_bytes()).is_some()
}
