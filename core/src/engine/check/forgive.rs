//! What is missing, and no damage: another process gave it up while the check looked.

use std::collections::HashSet;

use super::{Check, EXPIRED_LOOKS_MAX, HINT, scan_usage};
use crate::engine::root::Root;
use crate::format::BlockId;
use crate::format::rows::DataBlock;
use crate::storage::StorageExt as _;
use crate::{Error, Result};

impl Check<'_> {
    /// What another process deleted because it gave up this state, or put another in its place, is no damage. What the newest
    /// state needs is, whatever became of this one.
    pub(super) async fn forgive(&mut self, mut given_up: bool) -> Result<()> {
        let absent = std::mem::take(&mut self.absent);
        let mut forgiven = HashSet::new();
        if !absent.is_empty()
            && let Some(mut head) = self.newest_head().await?
        {
            let hints = self.shared.chain.hints().await?;
            let hinted = hints.iter().filter_map(|(_, hint)| hint.as_ref().ok()).map(|hint| hint.sequence).max();
            let hinted = hinted.unwrap_or(0);
            let mut looks_left = EXPIRED_LOOKS_MAX;
            for place in absent {
                let Some(finding) = self.report.findings.get(place) else { continue };
                let id = finding.damage.blob.and_then(|blob| self.shared.blocks.reader.block_id(blob));
                let is_hint = finding.damage.structure == HINT;
                let (is_forgiven, gives_up) = match id {
                    // It goes when there is one to a newer checkpoint.
                    None => (is_hint && hinted > self.root.base, false),
                    // They go up to a checkpoint that there is a hint to, once no state before it is to be read any more.
                    Some(BlockId::Commit { sequence, .. }) if sequence < self.root.base => {
                        (hinted >= self.root.base, false)
                    }
                    Some(BlockId::Commit { .. }) => {
                        let is_superseded = hinted > self.root.sequence;
                        (is_superseded, is_superseded)
                    }
                    Some(BlockId::Data { key_epoch, writer_epoch, counter }) => {
                        let block = DataBlock { key_epoch, writer_epoch, counter };
                        let without = loop {
                            match self.shared.does_without(&head, block, self.root.sequence).await {
                                Err(Error::Missing { .. }) if looks_left > 0 => {
                                    looks_left -= 1;
                                    let Some(newer) = self.newest_head().await? else { break false };
                                    head = newer;
                                }
                                Err(Error::Missing { .. } | Error::Damaged(_)) => break false,
                                without => break without?,
                            }
                        };
                        (without, without)
                    }
                };
                given_up |= gives_up;
                if is_forgiven {
                    forgiven.insert(place);
                }
            }
        }
        let mut place = 0;
        self.report.findings.retain(|_| {
            place += 1;
            !forgiven.contains(&(place - 1))
        });
        if !given_up {
            return Ok(());
        }
        // Damage is told even so: a state that stands as long as a check takes might never come.
        if self.report.findings.is_empty() {
            return Err(Error::Expired);
        }
        self.report.is_cut_short = true;
        Ok(())
    }

    /// Blocks that the newest state counts on and that are not there: told where the one that was looked at was given up, for
    /// others may go on so fast that none stands as long as a check takes.
    pub(super) async fn newest_blocks(&mut self) -> Result<()> {
        let shared = self.shared;
        for _ in 0..EXPIRED_LOOKS_MAX {
            shared.catch_up(!shared.read_only).await?;
            let (root, pin) = shared.pin();
            let mut counted_on: HashSet<_> = root.spills.iter().copied().collect();
            let scanned = scan_usage(shared, &root, &pin, |row| counted_on.extend(row.map(|(block, _)| block)));
            match scanned.await {
                Ok(()) => {}
                // Given up in turn.
                Err(Error::Missing { .. }) => continue,
                Err(error) => return self.note(error),
            }
            let names = shared.storage().list_all(&[]).await?;
            let told: HashSet<_> = self.report.findings.iter().filter_map(|finding| finding.damage.blob).collect();
            let mut lost: Vec<_> = counted_on.into_iter().map(|block| shared.block_name(block)).collect();
            lost.retain(|name| !names.contains(name) && !told.contains(name));
            lost.sort_unstable();
            for name in lost {
                self.find_absent("block", Some(name), "missing from storage");
            }
            return Ok(());
        }
        Ok(())
    }

    /// The newest state, where there is one that can be read. That the storage does not answer tells nothing of it.
    async fn newest_head(&self) -> Result<Option<Root>> {
        match self.shared.chain.find_head().await {
            Ok(head) => Ok(Some(head)),
            Err(error @ Error::Storage(_)) => Err(error),
            Err(_) => Ok(None),
        }
    }
}
