//! S9, S10: what outlives the process and the power.

use std::collections::BTreeMap;

use strongroom_core::storage::{Durability, Name, Operation, StorageExt as _, Torn};

use super::looks::never_seen_in_part;
use crate::storage::outcome::{Answer as _, Breach, Outcome, Verdict, ensure, ensure_holds, whole};
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

/// **S9** What was acknowledged before `sync`, put by `put_durable`, or named to `persist`, outlives what
/// the storage says that it outlives: all its handles, its process, the power. A durable put is whole before it
/// is visible.
///
/// # Errors
/// As all here.
pub async fn s9_barriers_protect_what_was_acknowledged(place: &dyn Place) -> Outcome {
    let mut verdict = Verdict::Passed;
    never_seen_in_part(place, Operation::PutDurable).await?;
    let mut expected = BTreeMap::new();
    for round in 0..12 {
        let [synced, durable, foreign, deleted] = [0, 1, 2, 3].map(|number| sample_name(10 * round + number));
        let bytes = sample_bytes(round, 4096);
        let (ours, theirs) = (open(place).await?, open(place).await?);
        // Barriers with nothing to do are not refused. Here, so that none of them covers what comes.
        theirs.sync().await.answers("a sync of nothing")?;
        ours.persist(&[]).await.answers("a persist of nothing")?;
        ours.put(synced, bytes.clone()).await.answers("a put")?;
        ours.put(deleted, bytes.clone()).await.answers("a put")?;
        theirs.put(foreign, bytes.clone()).await.answers("a put through another handle")?;
        ours.delete(deleted).await.answers("a delete")?;
        ours.sync().await.answers("a sync")?;
        ours.persist(&[foreign]).await.answers("a persist of what another handle put")?;
        // Last, so that no other barrier covers it.
        ours.put_durable(durable, bytes.clone()).await.answers("a durable put")?;

        let promises = ours.capabilities().durability;
        let lost = place.power_loss(round);
        if !lost && promises == Durability::None {
            verdict.limit("the storage promises no durability: that barriers answer is all that was tried");
            return Ok(verdict);
        }
        drop((ours, theirs));
        let storage = open(place).await?;
        for (name, how) in [(synced, "synced"), (durable, "put durably"), (foreign, "persisted")] {
            expected.insert(name, (bytes.clone(), how));
        }
        let event = if lost { "and the power lost" } else { "and all handles closed" };
        for (name, (bytes, how)) in &expected {
            ensure_holds(&*storage, *name, Some(bytes), &format!("{how}, {event}")).await?;
        }
        ensure_holds(&*storage, deleted, None, &format!("deleted, synced, {event}")).await?;
        if !lost {
            if promises == Durability::Power {
                verdict.limit("the power was not cut: only that all handles were closed");
            }
            break;
        }
    }
    if open(place).await?.capabilities().durability == Durability::None {
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

/// **S10** Power loss and the death of a process leave each blob absent or whole, save, at power loss, a plain put that
/// no barrier covered, where the storage says that it may be torn.
///
/// # Errors
/// As all here.
pub async fn s10_a_crash_leaves_blobs_absent_or_whole(place: &dyn Place) -> Outcome {
    let mut verdict = Verdict::Passed;
    for seed in 0..20 {
        let storage = open(place).await?;
        let torn = storage.capabilities().torn;
        let names: Vec<Name> = (0..10).map(|number| sample_name(100 * seed + number)).collect();
        for (number, name) in (0..).zip(&names) {
            storage.put(*name, sample_bytes(number, 4000)).await.answers("a put")?;
            if number % 3 == 0 {
                storage.persist(&[*name]).await.answers("a persist")?;
            }
        }
        if !place.power_loss(seed) {
            verdict.limit("the power was not cut");
            break;
        }
        drop(storage);
        let storage = open(place).await?;
        for (number, name) in (0..).zip(&names) {
            let left = whole(&*storage, *name).await?;
            let is_torn = left.is_some_and(|left| left != sample_bytes(number, 4000));
            let may_be_torn = torn == Torn::BeforeSync && number % 3 != 0;
            ensure!(!is_torn || may_be_torn, "power loss tore {name}");
        }
    }
    if open(place).await?.capabilities().durability == Durability::None {
        verdict.limit("nothing here outlives its process: there is nothing left to look at");
        return Ok(verdict);
    }
    for rounds in 0..4 {
        if !after_death(place, rounds, Look::All).await? {
            verdict.limit("no process was killed");
            break;
        }
    }
    Ok(verdict)
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
