//! Check: every reference leads somewhere, every count is what it counts, and, where asked, every blob opens.

mod counts;
mod forgive;
mod identities;
mod kept;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::{Bound, RangeInclusive};
use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::stream;

use super::in_force;
use super::keyring::{self, CopyState, Header};
use super::root::Root;
use super::shared::{Pin, Shared};
use super::{ChunkNumber, Direction, References};
use crate::block::BlockReader;
use crate::crypto::RootSecret;
use crate::format::limits::HEADER_COPIES_COUNT;
use crate::format::node::Node;
use crate::format::rows::{self, ChunkRow, DataBlock, Place};
use crate::format::well_known;
use crate::format::{BlockId, Pointer, SALT_BYTES};
use crate::storage::{ErrorKind, Name, StorageExt};
use crate::tree::{self, TreeRoot};
use crate::{Damage, Error, Result};
pub use counts::Counts;
use identities::Identities;
use kept::Kept;

/// How deep a check looks.
#[derive(Default)]
pub struct CheckOptions<'a> {
    /// Open every blob in storage, not only what the trees lead to. Without it, of what holds records only the length is
    /// looked at, and only where that costs little: on storage of this host or process.
    pub data: bool,
    /// How many references the content holds on each chunk, by its number, where the caller has counted them.
    pub references: Option<Counts>,
    /// Whoever knows the rows: then what those of snapshots refer to is looked for too.
    pub rows: Option<&'a dyn References>,
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What, and where.
    pub damage: Damage,
    /// The chunks that cannot be read because of it: whoever knows the files names them by it.
    pub chunks: Vec<ChunkNumber>,
}

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Blobs in storage.
    pub blobs: u64,
    /// Blobs opened and authenticated whole.
    pub blobs_opened: u64,
    /// Tree nodes visited.
    pub nodes: u64,
    /// Chunks counted.
    pub chunks: u64,
    /// Snapshots that are kept.
    pub snapshots: u64,
    /// What is wrong; empty when all is well.
    pub findings: Vec<Finding>,
    /// What is odd without being damage.
    pub notices: Vec<String>,
    /// Whether another process gave up the state that was looked at, so that there may be more to find.
    pub is_cut_short: bool,
}

struct Check<'a> {
    shared: &'a Arc<Shared>,
    root: Arc<Root>,
    pin: Arc<Pin>,
    report: CheckReport,
    /// Live bytes as references tell.
    live: BTreeMap<DataBlock, u64>,
    /// The sealing that references lead to: under the name there may be another, and a real one.
    salts: HashMap<DataBlock, [u8; SALT_BYTES]>,
    /// Blocks that cannot be read whole, each with the number of the finding that says so: what they hold is looked up last.
    hurt: Vec<(DataBlock, usize)>,
    /// Findings of what is not there, by number: it may be that this state was given up meanwhile.
    absent: Vec<usize>,
    /// Whether it was told that rows of identities cannot be read.
    identities_hurt: bool,
    kept: Kept,
}

const ALL: (Bound<&[u8]>, Bound<&[u8]>) = (Bound::Unbounded, Bound::Unbounded);

/// For how many missing nodes it is looked up at once whether the state was given up, one tells as much as many, mostly; and
/// how often in all the newest state is looked for anew because it was given up, too.
const EXPIRED_LOOKS_MAX: usize = 4;

/// What findings about hints are of.
const HINT: &str = "hint";

/// Blobs opened at once.
const AT_ONCE: usize = 8;

pub(super) async fn run(
    shared: &Arc<Shared>,
    header: &Header,
    secret: &RootSecret,
    options: CheckOptions<'_>,
) -> Result<CheckReport> {
    let (root, pin) = shared.pin();
    let mut check = Check {
        shared,
        root,
        pin,
        report: CheckReport::default(),
        live: BTreeMap::new(),
        salts: HashMap::new(),
        hurt: Vec::new(),
        absent: Vec::new(),
        identities_hurt: false,
        kept: Kept::default(),
    };
    let looked = check.look(header, secret, options).await;
    let given_up = match looked {
        Ok(()) => false,
        Err(Error::Expired) => true,
        Err(error) => return Err(error),
    };
    if given_up {
        check.newest_blocks().await?;
    }
    check.forgive(given_up).await?;
    Ok(check.report)
}

impl Check<'_> {
    fn find(&mut self, structure: &'static str, blob: Option<Name>, detail: impl Into<String>) {
        self.report
            .findings
            .push(Finding { damage: Damage { structure, blob, detail: detail.into() }, chunks: Vec::new() });
    }

    fn find_absent(&mut self, structure: &'static str, blob: Option<Name>, detail: impl Into<String>) {
        self.absent.push(self.report.findings.len());
        self.find(structure, blob, detail);
    }

    /// Damage becomes a finding; anything else stops the check.
    fn note(&mut self, error: Error) -> Result<()> {
        match error {
            Error::Damaged(damage) => self.report.findings.push(Finding { damage, chunks: Vec::new() }),
            Error::Missing { structure, blob } => self.find_absent(structure, Some(blob), "missing from storage"),
            other => return Err(other),
        }
        Ok(())
    }

    async fn look(&mut self, header: &Header, secret: &RootSecret, options: CheckOptions<'_>) -> Result<()> {
        self.headers(header, secret).await?;
        self.trees().await?;
        self.snapshots(options.rows).await?;
        self.chunks(options.references).await?;
        self.usage().await?;
        self.blobs(options.data).await?;
        self.name_chunks().await;
        self.kept.name_hurt(&mut self.report);
        Ok(())
    }

    async fn headers(&mut self, header: &Header, secret: &RootSecret) -> Result<()> {
        let mut header = header.clone();
        loop {
            let mut faults = Vec::new();
            for copy in 0..HEADER_COPIES_COUNT {
                match keyring::verify_copy(self.shared.storage(), &header, secret, copy).await? {
                    (_, CopyState::Intact) => {}
                    (name, CopyState::Missing) => faults.push((name, format!("copy {copy} is missing"))),
                    (name, CopyState::Damaged { detail }) => faults.push((name, format!("copy {copy}: {detail}"))),
                }
            }
            if !faults.is_empty() {
                // Another process may have put a newer one in force since: it deletes this one then.
                match in_force::newest(self.shared, secret, None).await {
                    Ok(newest) if newest.generation() > header.generation() => {
                        header = newest;
                        continue;
                    }
                    _ => {}
                }
            }
            for (name, detail) in faults {
                self.find("header", Some(name), detail);
            }
            return Ok(());
        }
    }

    async fn trees(&mut self) -> Result<()> {
        let root = self.root.clone();
        self.tree(root.content.tree.as_ref(), true, |_, _| {}).await?;
        self.tree(root.space.tree.as_ref(), false, |_, _| {}).await.map(|_| ())
    }

    /// Every node of a tree; of several content trees, every node once. Answers whether all of it could be read.
    async fn tree(
        &mut self,
        tree: Option<&TreeRoot>,
        is_content: bool,
        mut visit: impl FnMut(&Pointer, &Node),
    ) -> Result<bool> {
        let shared = self.shared;
        let mut failed = Vec::new();
        let mut met = std::mem::take(&mut self.kept.nodes);
        let (mut births, mut edges) = (Vec::new(), std::mem::take(&mut self.kept.edges));
        let is_new = |pointer: &Pointer| {
            let is_new = !met.contains_key(pointer);
            if is_new && is_content {
                met.insert(*pointer, 0);
            }
            is_new || !is_content
        };
        let walked = tree::walk_where(&shared.nodes, tree, is_new, |visited| {
            match visited.node {
                Ok(node) => {
                    self.report.nodes += 1;
                    failed.extend(self.count_node(visited.pointer));
                    if is_content {
                        births.push((*visited.pointer, node.birth()));
                        let children = (0..node.count()).filter_map(|index| node.child(index));
                        edges.extend(children.map(|child| (child, node.birth())));
                    }
                    visit(visited.pointer, node);
                }
                Err(error) => failed.push(error),
            }
            Ok(())
        })
        .await;
        met.extend(births);
        (self.kept.nodes, self.kept.edges) = (met, edges);
        walked?;
        let is_whole = failed.is_empty();
        let absent: Vec<Name> = failed.iter().filter_map(missing).collect();
        failed.into_iter().try_for_each(|error| self.note(error))?;
        // Others may have moved nodes, or written them anew, since this state was the newest: then the rest tells nothing.
        for blob in absent.into_iter().take(EXPIRED_LOOKS_MAX) {
            match shared.has_expired(blob, self.root.sequence).await {
                Ok(true) => return Err(Error::Expired),
                Err(error @ Error::Storage(_)) => return Err(error),
                Ok(false) | Err(_) => {}
            }
        }
        Ok(is_whole)
    }

    fn count_node(&mut self, pointer: &Pointer) -> Option<Error> {
        let block = DataBlock::of(pointer);
        *self.live.entry(block).or_default() += rows::live_bytes(pointer);
        (*self.salts.entry(block).or_insert(pointer.salt) != pointer.salt)
            .then(|| Error::damaged("tree node", None, "two pointers name two sealings of one block"))
    }

    async fn chunks(&mut self, mut references: Option<Counts>) -> Result<()> {
        let (shared, root) = (self.shared, self.root.clone());
        let mut identities = Identities::default();
        let mut first = 0;
        let mut scan = shared.scan_root(&root, &self.pin, rows::CHUNK, ALL, Direction::Ascending);
        loop {
            let (key, value) = match scan.next().await {
                Ok(Some(row)) => row,
                Ok(None) => break,
                Err(error) => return self.note(error),
            };
            let Ok(number) = <[u8; 8]>::try_from(key.as_ref()).map(u64::from_be_bytes) else {
                self.find("chunk", None, "its key has another length");
                continue;
            };
            let row = match ChunkRow::decode(&value) {
                Ok(row) => row,
                Err(error) => {
                    self.find("chunk", None, format!("chunk {number:#x}: {error}"));
                    continue;
                }
            };
            self.report.chunks += 1;
            let number = ChunkNumber(number);
            self.kept.meet(number, &row, &mut self.report);
            if let Some(references) = &mut references {
                let counted = references.take(number.0);
                if counted != row.references {
                    self.find(
                        "chunk",
                        None,
                        format!("chunk {:#x} has {} references, {counted} are there", number.0, row.references),
                    );
                }
            }
            if let Some(identity) = row.identity {
                identities.push(number.0, &identity);
                // All rows of identities are gone through once for as many chunks, so that memory does not grow with them.
                if identities.bytes() >= shared.tuning.check_bytes_max {
                    self.identities(&identities, first..=number.0).await?;
                    identities.clear();
                    first = number.0.saturating_add(1);
                }
            }
            if let Place::Records(pointers) = &row.place {
                for pointer in pointers {
                    let block = DataBlock::of(pointer);
                    *self.live.entry(block).or_default() += rows::live_bytes(pointer);
                    if *self.salts.entry(block).or_insert(pointer.salt) != pointer.salt {
                        let name = shared.block_name(block);
                        self.hurt.push((block, self.report.findings.len()));
                        self.find(
                            "chunk",
                            Some(name),
                            format!("chunk {:#x} names another sealing of its block than others do", number.0),
                        );
                    }
                }
            }
        }
        self.kept.finish(&mut self.report);
        self.identities(&identities, first..=u64::MAX).await?;
        // What is left was not met.
        for (number, count) in references.iter().flat_map(Counts::iter) {
            self.report.findings.push(Finding {
                damage: Damage {
                    structure: "chunk",
                    blob: None,
                    detail: format!("chunk {number:#x} has no row, {count} references lead to it"),
                },
                chunks: vec![ChunkNumber(number)],
            });
        }
        Ok(())
    }

    /// Names the chunks that hurt blocks take along. Seldom are there any, so they are looked for rather than remembered.
    async fn name_chunks(&mut self) {
        let mut findings: HashMap<DataBlock, Vec<usize>> = HashMap::new();
        for (block, finding) in self.hurt.drain(..) {
            findings.entry(block).or_default().push(finding);
        }
        if findings.is_empty() {
            return;
        }
        let (shared, root) = (self.shared, self.root.clone());
        let mut scan = shared.scan_root(&root, &self.pin, rows::CHUNK, ALL, Direction::Ascending);
        loop {
            let (key, value) = match scan.next().await {
                Ok(Some(row)) => row,
                Ok(None) => return,
                // What was found is told all the same. Rows may be damaged too, or given up by others since they were looked at.
                Err(error) => {
                    self.report.notices.push(format!("not all that damaged blocks hold could be looked up: {error}"));
                    return;
                }
            };
            let number = <[u8; 8]>::try_from(key.as_ref()).map(|number| ChunkNumber(u64::from_be_bytes(number)));
            let (Ok(number), Ok(ChunkRow { place: Place::Records(pointers), .. })) = (number, ChunkRow::decode(&value))
            else {
                continue;
            };
            for finding in pointers.iter().filter_map(|pointer| findings.get(&DataBlock::of(pointer))).flatten() {
                if let Some(Finding { chunks, .. }) = self.report.findings.get_mut(*finding)
                    && chunks.last() != Some(&number)
                {
                    chunks.push(number);
                }
            }
        }
    }

    /// An identity leads to a chunk that has it, looked at for chunks of these numbers. Not every chunk is led to: of two
    /// that came at once, one is.
    async fn identities(&mut self, identities: &Identities, numbers: RangeInclusive<u64>) -> Result<()> {
        let (shared, root) = (self.shared, self.root.clone());
        let mut scan = shared.scan_root(&root, &self.pin, rows::IDENTITY, ALL, Direction::Ascending);
        loop {
            match scan.next().await {
                Ok(Some((identity, value))) => match rows::decode_count(&value).map(ChunkNumber) {
                    Ok(number) if !numbers.contains(&number.0) || identities.has(number.0, &identity) => {}
                    Ok(number) => self.find(
                        "identity",
                        None,
                        format!("it leads to chunk {:#x}, which has another or is gone", number.0),
                    ),
                    Err(_) if *numbers.start() > 0 => {}
                    Err(error) => self.find("identity", None, error.to_string()),
                },
                Ok(None) => return Ok(()),
                Err(error) => {
                    // Once is enough.
                    let (findings, absent) = (self.report.findings.len(), self.absent.len());
                    self.note(error)?;
                    if std::mem::replace(&mut self.identities_hurt, true) {
                        self.report.findings.truncate(findings);
                        self.absent.truncate(absent);
                    }
                    return Ok(());
                }
            }
        }
    }

    async fn usage(&mut self) -> Result<()> {
        let shared = self.shared;
        let mut stated = BTreeMap::new();
        let mut misshapen = 0;
        let scanned = scan_usage(shared, &self.root, &self.pin, |row| match row {
            Some((block, bytes)) => {
                stated.insert(block, bytes);
            }
            None => misshapen += 1,
        });
        if let Err(error) = scanned.await {
            return self.note(error);
        }
        for _ in 0..misshapen {
            self.find("usage", None, "a row of another shape");
        }
        let blocks: HashSet<DataBlock> = stated.keys().chain(self.live.keys()).copied().collect();
        let mut wrong: Vec<_> = blocks
            .into_iter()
            .map(|block| (block, stated.get(&block).copied().unwrap_or(0), self.live.get(&block).copied().unwrap_or(0)))
            .filter(|(_, stated, live)| stated != live)
            .collect();
        wrong.sort_by_key(|(block, _, _)| *block);
        for (block, stated, live) in wrong {
            let name = shared.block_name(block);
            self.find("usage", Some(name), format!("{stated} live bytes stated, {live} found"));
        }
        Ok(())
    }

    async fn commit_hash(&self, sequence: u64) -> Result<Option<Vec<u8>>> {
        if sequence == self.root.sequence {
            return Ok(Some(self.root.hash.to_vec()));
        }
        let row = self.shared.get_at(&self.root, &rows::history_key(sequence)).await?;
        Ok(row.map(|row| row.to_vec()))
    }

    async fn blobs(&mut self, data: bool) -> Result<()> {
        let (shared, root) = (self.shared, self.root.clone());
        let names = shared.storage().list_all(&[]).await?;
        self.report.blobs = names.len() as u64;
        let mut wanted: HashMap<Name, DataBlock> =
            self.live.keys().chain(&root.spills).map(|block| (shared.block_name(*block), *block)).collect();
        let missing: Vec<_> =
            wanted.iter().filter(|(name, _)| !names.contains(name)).map(|(name, block)| (*name, *block)).collect();
        for (name, block) in missing {
            wanted.remove(&name);
            self.hurt.push((block, self.report.findings.len()));
            self.find_absent("block", Some(name), "missing from storage");
        }
        let ballast = match shared.ballast_rows(&root).await {
            Ok(rows) => rows,
            Err(error) => {
                self.note(error)?;
                BTreeMap::new()
            }
        };
        let mut absent = 0_u64;
        for (block, salt) in ballast {
            let name = shared.block_name(block);
            self.salts.insert(block, salt);
            if names.contains(&name) {
                wanted.insert(name, block);
            } else {
                // A clone has none until somebody writes to it; or a writer gave it up on a full storage, and died before its
                // next commit. Ballast is fill: without it there is less room for deleting, and nothing else.
                absent += 1;
            }
        }
        if absent > 0 {
            let notice =
                format!("{absent} ballast blocks are not there; they held nothing, and the next writer puts others");
            self.report.notices.push(notice);
        }
        // A hint that could not be put after its checkpoint is made up for later; until then an older one leads to the head, by
        // the commits between. Those a clone never had that went on from one state to a much later one.
        let hints = shared.chain.hints().await?;
        let hinted = hints.iter().filter_map(|(_, hint)| hint.as_ref().ok()).map(|hint| hint.sequence);
        let mut first = hinted.filter(|sequence| (root.oldest..=root.base).contains(sequence)).max();
        if let Some(hinted) = first
            && (hinted.max(1)..root.base).any(|sequence| !names.contains(&shared.chain.name(sequence)))
        {
            first = None;
        }
        if first.is_none() {
            let detail =
                format!("no hint leads to checkpoint {}; if this is a clone, bring it up to date again", root.base);
            self.find_absent(HINT, None, detail);
        }
        let first = first.unwrap_or(root.base).max(1);
        for sequence in first..=root.sequence {
            let name = shared.chain.name(sequence);
            match shared.chain.read(sequence).await {
                Ok(None) => self.find_absent("commit", Some(name), format!("commit {sequence} is missing")),
                Ok(Some(commit)) => {
                    // Another one of the same number can be as real: one of a branch that was given up.
                    let known = self.commit_hash(sequence).await;
                    match known {
                        Ok(known) if known.as_deref() == Some(commit.hash.as_slice()) => {}
                        Ok(_) => self.find(
                            "commit",
                            Some(name),
                            format!("commit {sequence} is another one than the history says"),
                        ),
                        Err(error) => self.note(error)?,
                    }
                }
                Err(error) => self.note(error)?,
            }
        }
        let mut foreign = 0_u64;
        for name in &names {
            let id = shared.blocks.reader.block_id(*name);
            match id {
                Some(BlockId::Commit { sequence, .. }) if sequence > root.sequence => {
                    // Another writer may have gone on since we looked; then our head still has its successor.
                    shared.catch_up(!shared.read_only).await?;
                    if shared.root().sequence < sequence {
                        self.find(
                            "commit chain",
                            Some(*name),
                            format!(
                                "commit {sequence} is there, and does not follow the head; if this is a clone, bring it up to date again"
                            ),
                        );
                    }
                }
                Some(_) => {}
                None if well_known::is_hint_name(name.as_bytes())
                    || well_known::HeaderId::from_name(name.as_bytes()).is_some() => {}
                // Nothing leads to it: left by a creation that was cut short, or planted. Kept, and told.
                None => foreign += 1,
            }
        }
        if foreign > 0 {
            self.report.notices.push(format!("{foreign} blobs have names that are none of this repository's"));
        }
        // What nothing names yet belongs to writers at work, or to ones that died: it may be torn, and is swept in time.
        let condemned = match shared.condemned(&root).await {
            Ok(condemned) => condemned,
            Err(error) => {
                self.note(error)?;
                Default::default()
            }
        };
        let unnamed = |name: &Name| match shared.blocks.reader.block_id(*name) {
            Some(BlockId::Data { key_epoch, writer_epoch, counter }) => {
                let block = DataBlock { key_epoch, writer_epoch, counter };
                !wanted.contains_key(name) && !condemned.contains(&block)
            }
            Some(BlockId::Commit { sequence, .. }) => sequence < first || sequence > root.sequence,
            None => false,
        };
        let (unnamed, names): (Vec<Name>, Vec<Name>) = names.into_iter().partition(unnamed);
        if !data {
            return self.lengths(names, &wanted, &condemned).await;
        }
        if !unnamed.is_empty() {
            self.report
                .notices
                .push(format!("{} blobs belong to unfinished work, or wait to be deleted", unnamed.len()));
        }
        let reader = shared.blocks.reader.clone();
        let opened: Vec<(Name, Result<Option<[u8; SALT_BYTES]>>)> = stream::iter(names)
            .filter(|name| std::future::ready(well_known::HeaderId::from_name(name.as_bytes()).is_none()))
            .map(|name| {
                let reader = reader.clone();
                shared.env().spawn(async move {
                    let result = if well_known::is_hint_name(name.as_bytes()) {
                        open_hint(&reader, name).await.map(|()| None)
                    } else if reader.block_id(name).is_none() {
                        Ok(None)
                    } else {
                        reader.read_whole(name).await.map(|block| Some(block.salt))
                    };
                    (name, result)
                })
            })
            .buffer_unordered(AT_ONCE)
            .filter_map(std::future::ready)
            .collect()
            .await;
        for (name, result) in opened {
            if result.as_ref().is_err_and(is_damage) && self.is_given_up(name, &wanted, &condemned) {
                continue;
            }
            let expected = wanted.get(&name).and_then(|block| self.salts.get(block)).copied();
            let result = result.and_then(|salt| match (salt, expected) {
                (Some(salt), Some(expected)) if salt != expected => Err(Error::damaged(
                    "block",
                    Some(name),
                    "it is another sealing than the one that references lead to",
                )),
                _ => Ok(()),
            });
            match result {
                Ok(()) => self.report.blobs_opened += 1,
                // Deleted since it was listed, by a writer that may.
                Err(Error::Missing { .. }) if !wanted.contains_key(&name) => {}
                Err(error) => {
                    let before = self.report.findings.len();
                    self.note(error)?;
                    let block = wanted.get(&name).copied();
                    self.hurt
                        .extend((before..self.report.findings.len()).filter_map(|finding| Some((block?, finding))));
                }
            }
        }
        Ok(())
    }

    /// Whether nothing is left in a damaged block: then that is told, and no damage. It goes when no reader of an older state
    /// can need it.
    fn is_given_up(&mut self, name: Name, wanted: &HashMap<Name, DataBlock>, condemned: &HashSet<DataBlock>) -> bool {
        let Some(BlockId::Data { key_epoch, writer_epoch, counter }) = self.shared.blocks.reader.block_id(name) else {
            return false;
        };
        let is_given_up =
            !wanted.contains_key(&name) && condemned.contains(&DataBlock { key_epoch, writer_epoch, counter });
        if is_given_up {
            let notice =
                format!("block {} is damaged; nothing is left in it, and it waits to be deleted", name.to_hex());
            self.report.notices.push(notice);
        }
        is_given_up
    }

    /// Whether these blobs are as long as a block, where it costs little to ask. Records are read by their place: one that
    /// was cut behind its records, or lengthened, shows in nothing else. Over a network it is a request a blob, and so left
    /// to a look at the data, which reads them whole.
    async fn lengths(
        &mut self,
        names: Vec<Name>,
        wanted: &HashMap<Name, DataBlock>,
        condemned: &HashSet<DataBlock>,
    ) -> Result<()> {
        let (storage, reader) = (self.shared.storage(), &self.shared.blocks.reader);
        if storage.is_remote() {
            return Ok(());
        }
        let block_bytes = u64::from(self.shared.context.geometry.block_bytes());
        // Headers were read whole.
        let ours = |name: &Name| reader.block_id(*name).is_some() || well_known::is_hint_name(name.as_bytes());
        let sizes: Vec<_> = stream::iter(names.into_iter().filter(ours))
            .map(|name| async move { (name, storage.size(name).await) })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        for (name, size) in sizes {
            let (detail, is_there, is_readable) = match size {
                Ok(bytes) if bytes == block_bytes => continue,
                Ok(_) if self.is_given_up(name, wanted, condemned) => continue,
                Ok(bytes) => (format!("{bytes} bytes long, not {block_bytes}"), true, bytes > block_bytes),
                // Deleted since it was listed, by a writer that may.
                Err(error) if error.kind() == ErrorKind::NotFound && !wanted.contains_key(&name) => continue,
                Err(error) if error.kind() == ErrorKind::NotFound => ("missing from storage".to_owned(), false, false),
                Err(error) => return Err(error.into()),
            };
            let block = wanted.get(&name).filter(|_| !is_readable);
            self.hurt.extend(block.map(|block| (*block, self.report.findings.len())));
            if is_there {
                self.find("block", Some(name), detail);
            } else {
                self.find_absent("block", Some(name), detail);
            }
        }
        Ok(())
    }
}

/// The live bytes of each block, as a state says; `None` for a row of another shape.
async fn scan_usage(
    shared: &Arc<Shared>,
    root: &Arc<Root>,
    pin: &Arc<Pin>,
    mut each: impl FnMut(Option<(DataBlock, u64)>),
) -> Result<()> {
    let mut scan = shared.scan_root(root, pin, rows::USAGE, ALL, Direction::Ascending);
    while let Some((key, value)) = scan.next().await? {
        let block = rows::decode_block_key(&rows::table_key(rows::USAGE, &key));
        each(block.ok().zip(rows::decode_count(&value).ok()));
    }
    Ok(())
}

fn is_damage(error: &Error) -> bool {
    matches!(error, Error::Damaged(_))
}

fn missing(error: &Error) -> Option<Name> {
    match error {
        Error::Missing { blob, .. } => Some(*blob),
        _ => None,
    }
}

/// Hints have no number: their key epoch is the newest.
async fn open_hint(reader: &BlockReader, name: Name) -> Result<()> {
    let context = reader.context();
    let bytes = match context.storage.get_all(name, u64::from(context.geometry.block_bytes())).await {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(Error::Missing { structure: "checkpoint hint", blob: name });
        }
        Err(error) if error.kind() == ErrorKind::LimitExceeded => {
            return Err(Error::damaged("checkpoint hint", Some(name), "longer than a block"));
        }
        Err(error) => return Err(error.into()),
    };
    reader.open_whole(name, context.keys.newest_epoch(), bytes).map(|_| ())
}
