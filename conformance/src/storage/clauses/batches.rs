//! S8: several changes in one call.

use std::collections::BTreeSet;

use bytes::Bytes;
use strongroom_core::storage::{BatchSupport, Change, ErrorKind, Put, StorageExt as _};

use crate::storage::outcome::{Answer as _, Outcome, Verdict, ensure, ensure_eq, ensure_holds};
use crate::storage::{Place, open, sample_bytes, sample_name};

/// **S8** `apply` equals its changes in order, one outcome a put; an atomic one does nothing where it fails, and all or
/// nothing across power loss.
///
/// # Errors
/// As all here.
pub async fn s8_a_batch_is_its_changes_in_order(place: &dyn Place) -> Outcome {
    let mut verdict = Verdict::Passed;
    let storage = open(place).await?;
    let [a, b, c] = [1, 2, 3].map(sample_name);
    storage.put(a, sample_bytes(1, 100)).await.answers("a put")?;
    let batch = vec![
        Change::Put(a, sample_bytes(2, 100)),
        Change::Delete(a),
        Change::Put(a, sample_bytes(3, 100)),
        Change::Put(b, sample_bytes(4, 100)),
        Change::Delete(b),
        Change::Delete(c),
        Change::Put(c, Bytes::new()),
    ];
    let outcomes = storage.apply(batch).await.answers("a batch")?;
    ensure_eq!(outcomes, [Put::Exists, Put::Created, Put::Created, Put::Created], "the outcomes of the puts");
    ensure_holds(&*storage, a, Some(&sample_bytes(3, 100)), "deleted and put anew in a batch").await?;
    ensure_holds(&*storage, b, None, "put and deleted in a batch").await?;
    ensure_holds(&*storage, c, Some(&Bytes::new()), "put in a batch").await?;
    let outcomes = storage.apply(Vec::new()).await.answers("an empty batch")?;
    ensure!(outcomes.is_empty(), "an empty batch has outcomes: {outcomes:?}");

    if storage.capabilities().batch != BatchSupport::Atomic {
        verdict.limit("batches are sequential here: all or nothing is not promised, and was not tried");
        return Ok(verdict);
    }
    let too_long = Bytes::from(vec![0; storage.capabilities().block_bytes_max as usize + 1]);
    let failing = vec![Change::Delete(a), Change::Put(b, sample_bytes(1, 1)), Change::Put(sample_name(4), too_long)];
    let error = storage.apply(failing).await.refuses("a batch with a blob over the limit")?;
    ensure_eq!(error.kind(), ErrorKind::LimitExceeded, "why a batch with a blob over the limit fails");
    let left = storage.list_all(&[]).await.answers("a listing")?;
    ensure_eq!(left, BTreeSet::from([a, c]), "what is there after an atomic batch that failed");

    storage.sync().await.answers("a sync")?;
    let unlost = "the power was not cut: that an atomic batch outlives that whole was not tried";
    if !place.power_loss(0) {
        verdict.limit(unlost);
        return Ok(verdict);
    }
    drop(storage);
    // What a batch is compared with must be there in any case; that it is, is S9.
    let left = open(place).await?.list_all(&[]).await.answers("a listing")?;
    ensure_eq!(
        left,
        BTreeSet::from([a, c]),
        "no batch was under way, and what was synced is not what power loss leaves, so S9 is broken"
    );
    for seed in 1..21 {
        let storage = open(place).await?;
        let before = storage.list_all(&[]).await.answers("a listing")?;
        let (gone, come) = if before.contains(&a) { (a, b) } else { (b, a) };
        let batch = vec![Change::Delete(gone), Change::Put(come, sample_bytes(seed, 50))];
        storage.apply(batch).await.answers("a batch")?;
        if !place.power_loss(seed) {
            verdict.limit(unlost);
            break;
        }
        drop(storage);
        let storage = open(place).await?;
        let after = storage.list_all(&[]).await.answers("a listing")?;
        let is_all_or_nothing = after == before || after == BTreeSet::from([come, c]);
        ensure!(is_all_or_nothing, "power loss leaves half an atomic batch: {after:?} after {before:?}");
        if after.contains(&come) {
            ensure_holds(&*storage, come, Some(&sample_bytes(seed, 50)), "put in a batch that power loss kept").await?;
        }
    }
    Ok(verdict)
}
