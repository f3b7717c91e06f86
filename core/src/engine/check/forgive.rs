//! What is missing, and no damage: another process gave it up while the check looked.

use std::collections::HashSet;

use super::{Check, EXPIRED_LOOKS_MAX, HINT};
use crate::format::BlockId;
use crate::format::rows::DataBlock;
use crate::{Error, Result};

impl Check<'_> {
    /// What another process deleted because it gave up this state, or put another in its place, is no damage. What the newest
    /// state needs is, whatever became of this one.
    pub(super) async fn forgive(&mut self, mut given_up: bool) -> Result<()> {
        let absent = std::mem::take(&mut self.absent);
        let mut forgiven = HashSet::new();
        if !absent.is_empty()
            && let Ok(mut head) = self.shared.chain.find_head().await
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
                                    let Ok(newer) = self.shared.chain.find_head().await else { break false };
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
        let notice = "another process gave up the state that was looked at: there may be more, check again";
        self.report.notices.push(notice.to_owned());
        Ok(())
    }
}
