//! S9, S10: what outlives the process and the power.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use strongroom_core::storage::{Durability, Name, Operation, Put, Storage, StorageExt as _, Torn};

use super::looks::never_seen_in_part;
use crate::storage::outcome::{
    Answer as _, Breach, Outcome, Verdict, difference, ensure, ensure_eq, ensure_holds, whole,
};
use crate::storage::place::{ROUND_PUTS, work_blob};
use crate::storage::{Place, open, sample_bytes, sample_name};

/// Which blobs are looked at after a process died in the middle of its work.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    /// Those that were acknowledged: they must be there.
    Acknowledged,
    /// All: they must be absent or whole.
    All,
}

/// What makes durable, and what comes first in each round of [`s9_barriers_protect_what_was_acknowledged`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Barrier {
    Sync,
    SyncElsewhere,
    PutDurable,
    Persist,
    PersistElsewhere,
}

impl Barrier {
    const ALL: [Self; 5] = [Self::Sync, Self::SyncElsewhere, Self::PutDurable, Self::Persist, Self::PersistElsewhere];

    /// What became of a blob.
    fn how(self) -> &'static str {
        match self {
            Self::Sync => "put and synced",
            Self::SyncElsewhere => "put, then synced on another handle of the same process",
            Self::PutDurable => "put durably",
            Self::Persist => "put and persisted",
            Self::PersistElsewhere => "put, then persisted on another handle",
        }
    }

    fn covers_deletions(self) -> bool {
        matches!(self, Self::Sync | Self::SyncElsewhere)
    }
}

/// **S9** What was acknowledged before `sync`, put by `put_durable`, or named to `persist`, outlives what
/// the storage says that it outlives: all its handles, its process, the power. A durable put is whole before it
/// is visible.
///
/// # Errors
/// As all here.
pub async fn s9_barriers_protect_what_was_acknowledged(place: &dyn Place) -> Outcome {
    let mut verdict = Verdict::Passed;
    never_seen_in_part(place, Operation::PutDurable).await?;
    let storage = open(place).await?;
    let promises = storage.capabilities().durability;
    storage.sync().await.answers("a sync of nothing")?;
    storage.persist(&[]).await.answers("a persist of nothing")?;
    drop(storage);
    let (mut expected, mut gone) = (BTreeMap::new(), Vec::new());
    let mut is_cut = true;
    for round in 0..20 {
        for (kind, barrier) in (0..).zip(Barrier::ALL) {
            if barrier == Barrier::SyncElsewhere && !place.is_one_process() {
                continue;
            }
            let number = 10 * round + kind;
            let deleted = [0, 1].map(|which| sample_name(0x6465_6c00 + 2 * number + which));
            let blobs = covered_by(place, barrier, number, deleted).await?;
            // Nothing between, so that no other barrier covers it.
            is_cut = place.power_loss(number);
            if !is_cut && promises == Durability::None {
                verdict.limit("the storage promises no durability: that barriers answer is all that was tried");
                return Ok(verdict);
            }
            expected.extend(blobs.into_iter().map(|(name, bytes)| (name, (bytes, barrier.how()))));
            if barrier.covers_deletions() {
                gone.extend(deleted);
            }
            let event = if is_cut { "and the power lost" } else { "and all handles closed" };
            let storage = open(place).await?;
            for (name, (bytes, how)) in &expected {
                ensure_holds(&*storage, *name, Some(bytes), &format!("{how}, {event}")).await?;
            }
            for name in &gone {
                ensure_holds(&*storage, *name, None, &format!("deleted, synced, {event}")).await?;
            }
        }
        if !is_cut {
            break;
        }
        // Few at a time, because all are looked at each time.
        if round % 5 == 4 {
            let storage = open(place).await?;
            for name in std::mem::take(&mut expected).into_keys() {
                storage.delete(name).await.answers("a delete")?;
            }
            storage.sync().await.answers("a sync")?;
        }
    }
    if !is_cut && promises == Durability::Power {
        verdict.limit("the power was not cut: only that all handles were closed");
    }
    if !place.is_one_process() {
        verdict.limit("no two handles were of one process: that `sync` covers what others of it put was not tried");
    }
    if promises == Durability::None {
        return Ok(verdict);
    }
    for rounds in [1, 2] {
        if !after_death(place, rounds, Look::Acknowledged).await? {
            verdict.limit("no process was killed");
            break;
        }
    }
    Ok(verdict)
}

/// Puts and deletes what this barrier covers, and ends with the barrier; answers the blobs.
async fn covered_by(
    place: &dyn Place,
    barrier: Barrier,
    number: u64,
    deleted: [Name; 2],
) -> Result<Vec<(Name, Bytes)>, Breach> {
    let (ours, theirs) = (open(place).await?, open(place).await?);
    let max_bytes = ours.capabilities().block_bytes_max as usize;
    let blob = |which: u64, length: usize| {
        let seed = 0x636f_7600 + 10 * number + which;
        (sample_name(seed), sample_bytes(seed, length.min(max_bytes)))
    };
    if barrier == Barrier::PutDurable {
        let (name, bytes) = blob(0, 4096);
        ours.put_durable(name, bytes.clone()).await.answers("a durable put")?;
        return Ok(vec![(name, bytes)]);
    }
    let blobs: Vec<(Name, Bytes)> = (0..).zip([100, 4096, 20_000]).map(|(which, length)| blob(which, length)).collect();
    let names: Vec<Name> = blobs.iter().map(|(name, _)| *name).collect();
    if barrier.covers_deletions() {
        // One that is durable before, and one that never was.
        let [durable, plain] = deleted;
        ours.put_durable(durable, sample_bytes(number, 1000)).await.answers("a durable put")?;
        ours.put(plain, sample_bytes(number, 4096)).await.answers("a put")?;
        for name in deleted {
            ours.delete(name).await.answers("a delete")?;
        }
    }
    for (name, bytes) in &blobs {
        ours.put(*name, bytes.clone()).await.answers("a put")?;
    }
    match barrier {
        Barrier::Sync => ours.sync().await.answers("a sync")?,
        Barrier::SyncElsewhere => theirs.sync().await.answers("a sync")?,
        Barrier::Persist => ours.persist(&names).await.answers("a persist")?,
        _ => theirs.persist(&names).await.answers("a persist of what another handle put")?,
    }
    Ok(blobs)
}

/// The lengths of blobs that no barrier covers when the power is cut: around what media write at once.
const UNSYNCED_BYTES: [usize; 8] = [1, 511, 512, 513, 4095, 4096, 9000, 20_000];

/// **S10** Power loss and the death of a process leave each blob absent or whole, save, at power loss, a plain put that
/// no barrier covered, where the storage says that it may be torn. Afterwards the storage goes on as before.
///
/// # Errors
/// As all here.
pub async fn s10_a_crash_leaves_blobs_absent_or_whole(place: &dyn Place) -> Outcome {
    let mut verdict = Verdict::Passed;
    let capabilities = open(place).await?.capabilities();
    let max_bytes = capabilities.block_bytes_max as usize;
    for seed in 0..20 {
        let storage = open(place).await?;
        let persisted =
            (0..10).map(|number| (sample_name(100 * seed + number), sample_bytes(number, 4000), number % 3 == 0));
        let plain = (10..).zip(UNSYNCED_BYTES).map(|(number, length)| {
            (sample_name(100 * seed + number), sample_bytes(100 * seed + number, length.min(max_bytes)), false)
        });
        let blobs: Vec<_> = persisted.chain(plain).collect();
        for (name, bytes, is_persisted) in &blobs {
            storage.put(*name, bytes.clone()).await.answers("a put")?;
            if *is_persisted {
                storage.persist(&[*name]).await.answers("a persist")?;
            }
        }
        if !place.power_loss(seed) {
            verdict.limit("the power was not cut");
            break;
        }
        drop(storage);
        let storage = open(place).await?;
        for (name, bytes, is_persisted) in &blobs {
            let left = whole(&*storage, *name).await?;
            let is_torn = left.as_ref().is_some_and(|left| left != bytes);
            let may_be_torn = capabilities.torn == Torn::BeforeSync && !is_persisted;
            ensure!(
                !is_torn || may_be_torn,
                "power loss tore {name}, which {}: it is {}",
                if *is_persisted {
                    "was persisted"
                } else {
                    "no barrier covered; the storage says that it tears nothing"
                },
                difference(left.as_ref(), Some(bytes))
            );
        }
        goes_on(place, storage, seed, "power loss").await?;
    }
    if capabilities.durability == Durability::None {
        verdict.limit("nothing here outlives its process: there is nothing left to look at");
        return Ok(verdict);
    }
    for rounds in 0..4 {
        if !after_death(place, rounds, Look::All).await? {
            verdict.limit("no process was killed");
            break;
        }
        goes_on(place, open(place).await?, 100 + rounds, "the death of a process").await?;
    }
    Ok(verdict)
}

/// What is put after a crash is found again: it may not stand behind something that the crash left half written.
async fn goes_on(place: &dyn Place, storage: Arc<dyn Storage>, number: u64, crash: &str) -> Result<(), Breach> {
    if storage.capabilities().durability == Durability::None {
        return Ok(());
    }
    let blobs = [1, 2, 3]
        .map(|which| (sample_name(0x6f6e_0000 + 10 * number + which), sample_bytes(which, 700 * which as usize)));
    for (name, bytes) in &blobs {
        let outcome = storage.put(*name, bytes.clone()).await.answers("a put after a crash")?;
        ensure_eq!(outcome, Put::Created, "a put after {crash}");
    }
    storage.sync().await.answers("a sync after a crash")?;
    drop(storage);
    let storage = open(place).await?;
    for (name, bytes) in &blobs {
        let when = format!(
            "put and synced after {crash}, and all handles closed (does it stand behind what the crash left half written?)"
        );
        ensure_holds(&*storage, *name, Some(bytes), &when).await?;
    }
    Ok(())
}

/// Lets a process die at work, and looks at what it left, which is removed then. False where the place kills none.
async fn after_death(place: &dyn Place, rounds: u64, look: Look) -> Result<bool, Breach> {
    let Some(acknowledged) = place.process_death(rounds) else { return Ok(false) };
    let storage = open(place).await?;
    // The round after those may have been begun.
    let numbers = 0..ROUND_PUTS * (acknowledged + 1);
    let work: Vec<_> = numbers.map(|number| (number, work_blob(number, &*storage))).collect();
    for (number, (name, bytes)) in &work {
        let left = whole(&*storage, *name).await?;
        match (look, left) {
            (Look::Acknowledged, left) if *number < ROUND_PUTS * acknowledged => {
                ensure!(left.as_ref() == Some(bytes), "{name}, synced by a process that died then, is gone or changed");
            }
            (Look::Acknowledged, _) | (Look::All, None) => {}
            (Look::All, Some(left)) => {
                ensure!(left == *bytes, "a process that died left {} of {} bytes of {name}", left.len(), bytes.len());
            }
        }
    }
    for (_, (name, _)) in &work {
        if storage.exists(*name).await.answers("looking for a name")? {
            storage.delete(*name).await.answers("a delete of what a dead process left")?;
        }
    }
    Ok(true)
}
