//! How a clone is brought from what it is to a state: by what differs, or by all that is there.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::{Stream, StreamExt as _};

use super::CloneOptions;
use super::state::State;
use super::target::{Target, in_clone};
use super::transfer::{Known, Sent, at_once};
use super::usage::{Change, UsageChanges};
use crate::engine::shared::Shared;
use crate::format::CloneMark;
use crate::format::rows::DataBlock;
use crate::storage::{Name, StorageExt as _};
use crate::{Damage, Error, Result};

/// What a run goes by.
pub(super) enum Way {
    /// Every block that the state needs, and every name that is there.
    All { names: BTreeSet<Name>, blocks: u64 },
    /// What differs between the state that the clone is at and the new one: the clone says of itself that it holds the former, and
    /// how many blocks beside.
    Changes { changes: Box<UsageChanges>, mark: CloneMark, added: u64, removed: u64 },
}

/// Data blocks that are in the clone, and that the state does not need.
#[derive(Default)]
pub(super) struct Spare {
    pub(super) blocks: u64,
    /// Those of them that may be deleted, where that is asked for.
    pub(super) names: Vec<Name>,
}

impl Way {
    /// The names that are there, where a run has to go by them; `None` where what differs is sure to be all. To be asked before the
    /// state is taken: then what is listed was put for that state or an older one, and what the state does without nothing later
    /// needs either.
    pub(super) async fn names(
        target: &Target,
        sent: &Sent,
        options: &CloneOptions<'_>,
    ) -> Result<Option<BTreeSet<Name>>> {
        // What this call has put for a state that it gave up, another run that ended meanwhile did not count.
        let asks_for_all = options.checksum || options.partial || sent.goes_by_all || !sent.names.is_empty();
        // What else is there is told by its names alone.
        let needs_names = |mark: &CloneMark| asks_for_all || options.prune && mark.spare > 0;
        let is_sure = match target.mark().filter(|mark| !needs_names(mark)) {
            Some(mark) => holds(target, mark).await?,
            None => false,
        };
        if is_sure { Ok(None) } else { Ok(Some(target.list().await?)) }
    }

    /// By these names, or by what differs: where the clone has lost what tells that, the run has to begin anew.
    pub(super) async fn choose(
        shared: &Arc<Shared>,
        target: &Target,
        state: &State,
        names: Option<BTreeSet<Name>>,
        sent: &mut Sent,
    ) -> Result<Self> {
        if let Some(names) = names {
            return Ok(Self::All { names, blocks: state.count_blocks(shared).await? });
        }
        if let (Some(mark), Some(head)) = (target.mark(), target.head()) {
            let changes = Box::new(UsageChanges::new(shared, head.clone(), target.nodes().clone()));
            match changes.count(shared, state).await {
                Ok((added, removed)) if removed <= mark.blocks.saturating_add(added) => {
                    return Ok(Self::Changes { changes, mark: *mark, added, removed });
                }
                Ok(_) => {}
                Err(error) if is_lost_by_clone(&error) => sent.suspects.extend(blob_of(&error)),
                Err(error) => return Err(error),
            }
        }
        sent.goes_by_all = true;
        Err(Error::Conflict)
    }

    /// Blocks that the state needs, and how many of them are known to be in the clone.
    pub(super) fn blocks(&self) -> (u64, u64) {
        match self {
            Self::All { blocks, .. } => (*blocks, 0),
            Self::Changes { mark, added, removed, .. } => {
                let kept = mark.blocks.saturating_sub(*removed);
                (kept.saturating_add(*added), kept)
            }
        }
    }

    /// Numbers of the commits that are there.
    pub(super) fn commits(&self, target: &Target) -> BTreeSet<u64> {
        match self {
            Self::All { names, .. } => names.iter().filter_map(|name| target.commit_number(*name)).collect(),
            Self::Changes { .. } => target.head().map(|head| head.base..=head.sequence).into_iter().flatten().collect(),
        }
    }

    /// The blocks to look at, each with what is known of it.
    pub(super) fn to_send<'w>(
        &'w self,
        shared: &'w Arc<Shared>,
        target: &'w Target,
        state: &'w State,
        sent: &'w Sent,
        checksum: bool,
    ) -> impl Stream<Item = Result<(DataBlock, Known)>> + 'w {
        match self {
            Self::All { names, .. } => {
                let blocks = state.blocks(shared).then(move |block| async move {
                    let block = block?;
                    let name = target.name(block);
                    let known = match names.contains(&name) {
                        false => Known::Absent,
                        true if checksum || sent.suspects.contains(&name) => Known::Listed,
                        true if sent.names.contains(&name) => Known::There,
                        true if target.needs(block).await.map_err(in_clone)? => Known::There,
                        true => Known::Listed,
                    };
                    Ok((block, known))
                });
                blocks.left_stream()
            }
            Self::Changes { changes, .. } => {
                let added = changes.stream(shared, state).filter_map(async |change| match change {
                    Ok(Change::Added(block)) => Some(Ok((block, Known::Absent))),
                    Ok(Change::Removed(_)) => None,
                    Err(error) => Some(Err(anew(error))),
                });
                added.right_stream()
            }
        }
    }

    /// Looks for all that was sent once more, save what was left out: a writer that was at work there could have taken what had
    /// just arrived for left over. Answers what is there beside.
    pub(super) async fn look_again(
        &self,
        shared: &Arc<Shared>,
        target: &Target,
        state: &State,
        puts_nothing: bool,
        left_out: &[Damage],
        prune: bool,
    ) -> Result<Spare> {
        match self {
            Self::All { names, .. } => {
                let mut there = match puts_nothing {
                    true => names.clone(),
                    false => target.list().await.map_err(in_clone)?,
                };
                let left_out: BTreeSet<_> = left_out.iter().filter_map(|damage| damage.blob).collect();
                let mut blocks = std::pin::pin!(state.blocks(shared));
                while let Some(block) = blocks.next().await {
                    let name = target.name(block?);
                    if !there.remove(&name) && !left_out.contains(&name) {
                        return Err(Error::Conflict);
                    }
                }
                there.retain(|name| target.is_data(*name));
                let blocks = there.len() as u64;
                // What has come since may be of one who is at work.
                there.retain(|name| prune && names.contains(name));
                Ok(Spare { blocks, names: there.into_iter().collect() })
            }
            Self::Changes { changes, mark, .. } => {
                let mut spare = Spare { blocks: mark.spare, names: Vec::new() };
                let looks = changes.stream(shared, state).map(|change| async move {
                    match change.map_err(anew)? {
                        Change::Removed(block) => Ok(Some(target.name(block))),
                        Change::Added(block) => match target.storage().exists(target.name(block)).await {
                            Ok(true) => Ok(None),
                            Ok(false) => Err(Error::Conflict),
                            Err(error) => Err(in_clone(error.into())),
                        },
                    }
                });
                let at_once = at_once(shared.context.geometry.block_bytes());
                let mut looks = std::pin::pin!(looks.buffer_unordered(at_once));
                while let Some(removed) = looks.next().await {
                    if let Some(name) = removed? {
                        spare.blocks += 1;
                        spare.names.extend(prune.then_some(name));
                    }
                }
                Ok(spare)
            }
        }
    }
}

/// Whether a clone has as many blocks as it says, where telling is cheap: what storage at hand has lost is put again. Of one far
/// away `check` there tells it, and a run with `checksum`.
async fn holds(target: &Target, mark: &CloneMark) -> Result<bool> {
    Ok(target.storage().is_remote() || target.count_data().await? == mark.blocks.saturating_add(mark.spare))
}

/// Whether the clone has lost nodes of its own state.
fn is_lost_by_clone(error: &Error) -> bool {
    matches!(error, Error::InClone(error) if matches!(**error, Error::Damaged(_) | Error::Missing { .. }))
}

/// The blob of the clone that an error is about.
fn blob_of(error: &Error) -> Option<Name> {
    match error {
        Error::InClone(error) => match &**error {
            Error::Damaged(damage) => damage.blob,
            Error::Missing { blob, .. } => Some(*blob),
            _ => None,
        },
        _ => None,
    }
}

/// What the clone has lost after it was counted has the run begin anew, by all that is there.
fn anew(error: Error) -> Error {
    if is_lost_by_clone(&error) { Error::Conflict } else { error }
}
