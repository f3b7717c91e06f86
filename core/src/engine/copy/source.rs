//! The repository that is copied: its states, and how it is kept from giving them up.

use std::collections::BTreeSet;

use crate::engine::Engine;
use crate::engine::snapshots::SnapshotInfo;
use crate::engine::view::Snapshot;
use crate::format::rows;
use crate::storage::ErrorKind;
use crate::{Error, Result};

/// What the names of the snapshots begin with that keep a source as it is; a number of the copying writer follows, so that
/// they say by themselves when nobody needs them any more.
const HOLD_PREFIX: &str = "being-copied-";

/// A state that can be opened again: where chunks and nodes are moves while it is read, though what it shows does not.
pub(super) struct State {
    pub(super) engine: Engine,
    /// `None`: the newest one, which nobody keeps.
    kept: Option<SnapshotInfo>,
    pub(super) snapshot: Snapshot,
}

impl State {
    async fn open(engine: &Engine, info: &SnapshotInfo) -> Result<Self> {
        let snapshot = open(engine, info).await?;
        Ok(Self { engine: engine.clone(), kept: Some(info.clone()), snapshot })
    }

    /// Looks anew for where it is.
    pub(super) async fn reopen(&mut self) -> Result<()> {
        let info = self.kept.as_ref().ok_or(Error::Expired)?;
        self.engine.refresh().await?;
        self.snapshot = open(&self.engine, info).await?;
        Ok(())
    }
}

/// Opens this very snapshot: others may have removed it since, and taken another of its name.
async fn open(engine: &Engine, info: &SnapshotInfo) -> Result<Snapshot> {
    match engine.open_snapshot(&info.name).await {
        Ok(snapshot) if snapshot.sequence() == info.sequence => Ok(snapshot),
        Ok(_) | Err(Error::NoSnapshot { .. }) => Err(Error::Expired),
        Err(error) => Err(error),
    }
}

/// What is copied.
pub(super) struct Source {
    engine: Engine,
    hold: Option<String>,
    snapshots: Vec<SnapshotInfo>,
    newest: State,
}

impl Source {
    /// All of it, or all up to the snapshot of this name. `left_behind`: what may keep the source though this failed to.
    pub(super) async fn take(engine: &Engine, at: Option<&str>, left_behind: &mut Option<String>) -> Result<Self> {
        engine.refresh().await?;
        let hold = if engine.is_read_only() || at.is_some() { None } else { hold(engine, left_behind).await? };
        match Self::look(engine, hold.as_deref().or(at)).await {
            Ok((snapshots, newest)) => Ok(Self { engine: engine.clone(), hold, snapshots, newest }),
            Err(error) => {
                if let Some(hold) = hold {
                    *left_behind = let_go(engine, hold).await;
                }
                Err(error)
            }
        }
    }

    async fn look(engine: &Engine, name: Option<&str>) -> Result<(Vec<SnapshotInfo>, State)> {
        let mut snapshots = engine.snapshots().await?;
        let newest = match name {
            Some(name) => {
                let info = snapshots.iter().find(|info| info.name == name);
                State::open(engine, info.ok_or_else(|| Error::NoSnapshot { name: name.to_owned() })?).await?
            }
            None => State { engine: engine.clone(), kept: None, snapshot: engine.snapshot() },
        };
        let last = newest.snapshot.sequence();
        snapshots.retain(|info| info.sequence <= last && !info.is_hold());
        Ok((snapshots, newest))
    }

    /// The snapshots to be copied, the oldest first.
    pub(super) fn snapshots(&self) -> Vec<SnapshotInfo> {
        self.snapshots.clone()
    }

    /// What one of them keeps.
    pub(super) async fn state(&self, info: &SnapshotInfo) -> Result<State> {
        State::open(&self.engine, info).await
    }

    pub(super) fn newest(&mut self) -> &mut State {
        &mut self.newest
    }

    /// A writer epoch above all that any number in these states was drawn under.
    pub(super) async fn first_epoch(&self) -> Result<u64> {
        // Of the newest state there is: a later one than those that are copied.
        let shared = self.newest.snapshot.shared();
        match shared.get_at(self.newest.snapshot.root(), &rows::counter_key(rows::NEXT_EPOCH)).await? {
            Some(row) => {
                rows::decode_count(&row).map_err(|error| Error::damaged("epoch counter", None, error.to_string()))
            }
            None => Ok(1),
        }
    }

    /// Lets it go on; answers the snapshot that could not be removed.
    pub(super) async fn release(self) -> Option<String> {
        let Self { engine, hold, newest, .. } = self;
        drop(newest);
        let_go(&engine, hold?).await
    }
}

/// Removes what kept a source; answers its name where it may be there still.
async fn let_go(engine: &Engine, name: String) -> Option<String> {
    match engine.remove_snapshot(&name).await {
        Ok(()) | Err(Error::NoSnapshot { .. }) => None,
        // What it kept is freed by the next that is taken or removed.
        Err(_) if engine.snapshots().await.is_ok_and(|kept| kept.iter().all(|info| info.name != name)) => None,
        Err(error) => {
            tracing::warn!(%error, name, "the snapshot that kept the source as it was stays; the next copy removes it");
            Some(name)
        }
    }
}

/// Keeps the newest state, and removes what copies that died kept. `None` where the storage takes nothing.
async fn hold(engine: &Engine, left_behind: &mut Option<String>) -> Result<Option<String>> {
    let held = async {
        remove_leftovers(engine).await?;
        let name = format!("{HOLD_PREFIX}{:016x}", engine.begin().number().await?);
        match engine.create_snapshot_of(&name, None).await {
            Ok(_) => Ok(name),
            Err(error) => {
                // It may have been taken all the same.
                let is_unknown = matches!(error, Error::CommitUnknown { .. }) && engine.refresh().await.is_err();
                *left_behind = if is_unknown { Some(name) } else { let_go(engine, name).await };
                Err(error)
            }
        }
    };
    match held.await {
        Err(error)
            if matches!(
                error.storage_kind(),
                Some(ErrorKind::Full | ErrorKind::ReadOnly | ErrorKind::PermissionDenied)
            ) =>
        {
            tracing::warn!(%error, "nothing can be written to keep the source as it is while it is copied");
            Ok(None)
        }
        held => held.map(Some),
    }
}

async fn remove_leftovers(engine: &Engine) -> Result<()> {
    let held = engine.snapshots().await?.into_iter().filter_map(|info| Some((holder(&info.name)?, info.name)));
    let held: Vec<_> = held.collect();
    if held.is_empty() {
        return Ok(());
    }
    // Claiming an epoch ends those of writers that are known to be gone.
    engine.begin().number().await?;
    let open: BTreeSet<u32> = engine.open_epochs().await?;
    for (_, name) in held.into_iter().filter(|(epoch, _)| !open.contains(epoch)) {
        match engine.remove_snapshot(&name).await {
            Ok(()) | Err(Error::NoSnapshot { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The writer epoch that keeps a source by a snapshot of this name.
pub(in crate::engine) fn holder(name: &str) -> Option<u32> {
    let number = name.strip_prefix(HOLD_PREFIX).filter(|number| number.len() == 16)?;
    let is_hex = number.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    u64::from_str_radix(number, 16).ok().filter(|_| is_hex).and_then(|number| u32::try_from(number >> 32).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hold_tells_its_writer_and_no_other_name_does() {
        assert_eq!(holder("being-copied-0000000700000003"), Some(7));
        for name in
            ["being-copied-", "being-copied-7", "being-copied-00000007000000030", "being-copied-000000070000000G"]
        {
            assert_eq!(holder(name), None, "{name}");
        }
        assert_eq!(holder("being-copied-+000000700000003"), None);
        assert_eq!(holder("before-0000000700000003"), None);
    }
}
