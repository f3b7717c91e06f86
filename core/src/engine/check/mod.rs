//! Check: every reference leads somewhere, every count is what it counts, and, where asked, every blob opens.

mod blobs;
mod counts;
mod forgive;
mod identities;
mod kept;
mod state;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::{Bound, RangeInclusive};
use std::sync::Arc;

use super::in_force;
use super::keyring::{self, CopyState, Header};
use super::root::Root;
use super::shared::{Pin, Shared};
use super::{ChunkNumber, Direction, References};
use crate::crypto::RootSecret;
use crate::format::limits::HEADER_COPIES_COUNT;
use crate::format::node::Node;
use crate::format::rows::{self, ChunkRow, DataBlock, Place};
use crate::format::{Pointer, SALT_BYTES};
use crate::storage::Name;
use crate::tree::{self, TreeRoot};
use crate::{Damage, Error, Result};
use blobs::Part;
pub use counts::Counts;
use identities::Identities;
use kept::Kept;

/// How deep a check looks.
#[derive(Default)]
pub struct CheckOptions<'a> {
    /// Open every blob in storage, not only what the trees lead to. Without it, of what holds records only the length is
    /// looked at, and only where that costs little: on storage of this host or process.
    pub data: bool,
    /// Without `data`: open so many of a hundred of those blobs, which ones is drawn anew each time; one at least, unless this
    /// is 0.
    pub sample_percent: u8,
    /// How many references the content holds on each chunk, by its number, where the caller has counted them.
    pub references: Option<Counts>,
    /// Whoever knows the rows: then what those of snapshots refer to is looked for too.
    pub rows: Option<&'a dyn References>,
    /// Look at what a snapshot keeps, and at nothing else: its nodes, the chunks that its rows refer to, the blocks that hold
    /// them, and the header. How many references there are on a chunk is for all states together, so it is not compared.
    pub at: Option<&'a str>,
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
    /// Ballast that is there.
    spare: HashSet<Name>,
    /// Ballast that is not.
    spare_absent: BTreeSet<Name>,
}

const ALL: (Bound<&[u8]>, Bound<&[u8]>) = (Bound::Unbounded, Bound::Unbounded);

/// For how many missing nodes it is looked up at once whether the state was given up, one tells as much as many, mostly; and
/// how often in all the newest state is looked for anew because it was given up, too.
const EXPIRED_LOOKS_MAX: usize = 4;

/// What findings about hints are of.
const HINT: &str = "hint";

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
        spare: HashSet::new(),
        spare_absent: BTreeSet::new(),
    };
    let at = options.at;
    let looked = match at {
        Some(name) => check.look_at(name, header, secret, &options).await,
        None => check.look(header, secret, options).await,
    };
    let given_up = match looked {
        Ok(()) => false,
        Err(Error::Expired) => true,
        Err(error) => return Err(error),
    };
    if given_up && at.is_none() {
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
        let part = Part::of(&options);
        self.headers(header, secret).await?;
        self.trees().await?;
        self.snapshots(options.rows).await?;
        self.chunks(options.references).await?;
        self.usage().await?;
        self.blobs(part).await?;
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

    /// The records that hold a chunk.
    fn count_chunk(&mut self, number: ChunkNumber, row: &ChunkRow) {
        let Place::Records(pointers) = &row.place else { return };
        for pointer in pointers {
            let block = DataBlock::of(pointer);
            *self.live.entry(block).or_default() += rows::live_bytes(pointer);
            if *self.salts.entry(block).or_insert(pointer.salt) != pointer.salt {
                let name = self.shared.block_name(block);
                self.hurt.push((block, self.report.findings.len()));
                let detail = format!("chunk {:#x} names another sealing of its block than others do", number.0);
                self.find("chunk", Some(name), detail);
            }
        }
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
            self.count_chunk(number, &row);
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

fn missing(error: &Error) -> Option<Name> {
    match error {
        Error::Missing { blob, .. } => Some(*blob),
        _ => None,
    }
}
