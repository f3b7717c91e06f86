//! The blobs in storage: that those are there which references lead to, and, where asked, that every one opens.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use futures_util::StreamExt as _;
use futures_util::stream;

use super::{Check, CheckOptions, HINT};
use crate::block::BlockReader;
use crate::engine::Direction;
use crate::engine::space::epoch_rows;
use crate::engine::sweep::{Claims, Made, next_epoch};
use crate::env::Env;
use crate::format::rows::{self, DataBlock};
use crate::format::well_known;
use crate::format::{BlockId, SALT_BYTES};
use crate::storage::{ErrorKind, Name, StorageExt};
use crate::{Error, Result};

/// What findings about blocks that hold nothing are of: they keep room for deleting on a full storage.
const BALLAST: &str = "ballast";
/// Blobs opened at once.
const AT_ONCE: usize = 8;

/// How many of the blobs are opened whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    None,
    /// So many of a hundred.
    Sample(u8),
    All,
}

impl Part {
    pub(super) fn of(options: &CheckOptions<'_>) -> Self {
        match options.sample_percent {
            _ if options.data => Self::All,
            0 => Self::None,
            100.. => Self::All,
            percent => Self::Sample(percent),
        }
    }

    /// Takes those that are opened out of all.
    fn draw(self, names: &mut Vec<Name>, env: &Env) -> Result<Vec<Name>> {
        let percent = match self {
            Self::None => return Ok(Vec::new()),
            Self::All => return Ok(std::mem::take(names)),
            Self::Sample(percent) => usize::from(percent),
        };
        let count = names.len().saturating_mul(percent).div_ceil(100).min(names.len());
        // The first places of a shuffle.
        for place in 0..count {
            let left = (names.len() - place) as u64;
            let drawn = u64::from_le_bytes(env.random()?).checked_rem(left).unwrap_or_default();
            names.swap(place, place + usize::try_from(drawn).unwrap_or_default());
        }
        let rest = names.split_off(count);
        Ok(std::mem::replace(names, rest))
    }
}

impl Check<'_> {
    async fn commit_hash(&self, sequence: u64) -> Result<Option<Vec<u8>>> {
        if sequence == self.root.sequence {
            return Ok(Some(self.root.hash.to_vec()));
        }
        let row = self.shared.get_at(&self.root, &rows::history_key(sequence)).await?;
        Ok(row.map(|row| row.to_vec()))
    }

    /// The blocks that the nodes and chunks lead to that were met, and no others: those of one state.
    pub(super) async fn blobs_met(&mut self, part: Part) -> Result<()> {
        let names = self.shared.storage().list_all(&[]).await?;
        let wanted = self.wanted(&names, &[]);
        self.report.blobs = wanted.len() as u64;
        // Nothing of it is condemned: it is needed.
        let (names, condemned) = (wanted.keys().copied().collect(), HashSet::new());
        self.open(part, names, &wanted, &condemned).await
    }

    /// Opens part of these blobs, and of the others looks at what is known without that.
    async fn open(
        &mut self,
        part: Part,
        mut names: Vec<Name>,
        wanted: &HashMap<Name, DataBlock>,
        condemned: &HashSet<DataBlock>,
    ) -> Result<()> {
        // Headers were read whole, and what is nobody's has nothing to be opened: it would pass for a part of the sample.
        let reader = &self.shared.blocks.reader;
        names.retain(|name| reader.block_id(*name).is_some() || well_known::is_hint_name(name.as_bytes()));
        let opened = part.draw(&mut names, self.shared.env())?;
        self.open_all(opened, wanted, condemned).await?;
        self.lengths(names, wanted, condemned).await
    }

    /// Of the blocks that references lead to, those that are there; the others are told.
    fn wanted(&mut self, names: &BTreeSet<Name>, spills: &[DataBlock]) -> HashMap<Name, DataBlock> {
        let shared = self.shared;
        let mut wanted: HashMap<Name, DataBlock> =
            self.live.keys().chain(spills).map(|block| (shared.block_name(*block), *block)).collect();
        let missing: Vec<_> =
            wanted.iter().filter(|(name, _)| !names.contains(name)).map(|(name, block)| (*name, *block)).collect();
        for (name, block) in missing {
            wanted.remove(&name);
            self.hurt.push((block, self.report.findings.len()));
            self.find_absent("block", Some(name), "missing from storage");
        }
        wanted
    }

    pub(super) async fn blobs(&mut self, part: Part) -> Result<()> {
        let (shared, root) = (self.shared, self.root.clone());
        let names = shared.storage().list_all(&[]).await?;
        self.report.blobs = names.len() as u64;
        let mut wanted = self.wanted(&names, &root.spills);
        let ballast = match shared.ballast_rows(&root).await {
            Ok(rows) => rows,
            Err(error) => {
                self.note(error)?;
                BTreeMap::new()
            }
        };
        for (block, salt) in ballast {
            let name = shared.block_name(block);
            self.salts.insert(block, salt);
            if names.contains(&name) {
                wanted.insert(name, block);
                self.spare.insert(name);
            } else {
                // A clone has none until somebody writes to it; or a writer gave it up on a full storage, and died before its
                // next commit. Ballast is fill: without it there is less room for deleting, and nothing else.
                self.spare_absent.insert(name);
            }
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
        let left_over = self.left_over(&unnamed).await?;
        if left_over > 0 {
            self.report.notices.push(format!(
                "{left_over} blobs are left over, or have come before the commits that name them: once nothing is on its way, \
                 `compact --end-writers` gives their space back"
            ));
        }
        let waiting = unnamed.len().saturating_sub(left_over);
        if part == Part::All && waiting > 0 {
            self.report.notices.push(format!("{waiting} blobs belong to unfinished work, or wait to be deleted"));
        }
        self.open(part, names, &wanted, &condemned).await?;
        if !self.spare_absent.is_empty() {
            let names: Vec<String> = self.spare_absent.iter().map(|name| name.to_hex()).collect();
            let (count, names) = (names.len(), names.join(", "));
            let notice = format!(
                "ballast: {count} blocks are not there ({names}); they held nothing, and the next writer puts others"
            );
            self.report.notices.push(notice);
        }
        Ok(())
    }

    /// How many of the blobs that nothing names no sweep takes unless somebody says so: none where there is one place.
    async fn left_over(&mut self, unnamed: &[Name]) -> Result<usize> {
        let (shared, root) = (self.shared, self.root.clone());
        if shared.place().is_none() {
            return Ok(0);
        }
        let scan = shared.scan_root(&root, &self.pin, rows::EPOCH, super::ALL, Direction::Ascending);
        let next = shared.get_at(&root, &rows::counter_key(rows::NEXT_EPOCH)).await;
        let claims = match (epoch_rows(scan).await, next.and_then(next_epoch)) {
            (Ok(rows), Ok(next)) => Claims { rows, next, is_one_place: false },
            (Err(error), _) | (_, Err(error)) => return self.note(error).map(|()| 0),
        };
        let is_left_over = |name: &&Name| match shared.blocks.reader.block_id(**name) {
            Some(BlockId::Data { writer_epoch, counter, .. }) => claims.made(writer_epoch, counter) == Made::Unclaimed,
            Some(BlockId::Commit { sequence, .. }) => sequence < root.oldest,
            None => false,
        };
        Ok(unnamed.iter().filter(is_left_over).count())
    }

    /// Opens these blobs, which are blocks and hints, whole.
    async fn open_all(
        &mut self,
        names: Vec<Name>,
        wanted: &HashMap<Name, DataBlock>,
        condemned: &HashSet<DataBlock>,
    ) -> Result<()> {
        let shared = self.shared;
        let reader = shared.blocks.reader.clone();
        let opened: Vec<(Name, Result<Option<[u8; SALT_BYTES]>>)> = stream::iter(names)
            .map(|name| {
                let reader = reader.clone();
                shared.env().spawn(async move {
                    let result = if well_known::is_hint_name(name.as_bytes()) {
                        open_hint(&reader, name).await.map(|()| None)
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
            if result.as_ref().is_err_and(is_damage) && self.is_given_up(name, wanted, condemned) {
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
                // A writer gave it up since it was listed.
                Err(Error::Missing { .. }) if self.spare.contains(&name) => {
                    self.spare_absent.insert(name);
                }
                // Not to be taken for lost content.
                Err(Error::Damaged(damage)) if self.spare.contains(&name) => {
                    self.find(BALLAST, Some(name), damage.detail);
                }
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
                Err(error) if error.kind() == ErrorKind::NotFound && self.spare.contains(&name) => {
                    self.spare_absent.insert(name);
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::NotFound => ("missing from storage".to_owned(), false, false),
                Err(error) => return Err(error.into()),
            };
            let block = wanted.get(&name).filter(|_| !is_readable);
            self.hurt.extend(block.map(|block| (*block, self.report.findings.len())));
            if is_there {
                let structure = if self.spare.contains(&name) { BALLAST } else { "block" };
                self.find(structure, Some(name), detail);
            } else {
                self.find_absent("block", Some(name), detail);
            }
        }
        Ok(())
    }
}

fn is_damage(error: &Error) -> bool {
    matches!(error, Error::Damaged(_))
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
