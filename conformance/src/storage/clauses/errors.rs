//! S11: what errors say.

use bytes::Bytes;
use strongroom_core::storage::{Change, Effect, Error, ErrorKind, Name, Operation, Retry, Storage, StorageExt as _};

use crate::storage::outcome::{Answer as _, Breach, Outcome, Verdict, ensure, ensure_eq, ensure_holds};
use crate::storage::{Place, open, open_writer, sample_bytes, sample_name};

/// **S11** Errors of every operation that can be made to fail say kind, operation, context, retry and effect, and tell no
/// secret; where a reply was lost, that the effect is unknown, and that a retry can help. A handle that can only read refuses
/// every change as that, and changes nothing.
///
/// # Errors
/// As all here.
pub async fn s11_errors_say_what_happened(place: &dyn Place) -> Outcome {
    let mut verdict = Verdict::Passed;
    let storage = open(place).await?;
    let [absent, present, lost] = [1, 2, 3].map(sample_name);
    storage.put(present, sample_bytes(1, 10)).await.answers("a put")?;
    let too_long = Bytes::from(vec![0; storage.capabilities().block_bytes_max as usize + 1]);
    let refusals = [
        (storage.get_all(absent, 10).await.map(drop), ErrorKind::NotFound, Operation::Get),
        (storage.size(absent).await.map(drop), ErrorKind::NotFound, Operation::Size),
        (storage.persist(&[absent]).await, ErrorKind::NotFound, Operation::Persist),
        (storage.get(present, Some(5..11), 10).await.map(drop), ErrorKind::RangeInvalid, Operation::Get),
        (storage.get_all(present, 9).await.map(drop), ErrorKind::LimitExceeded, Operation::Get),
        (storage.put(absent, too_long.clone()).await.map(drop), ErrorKind::LimitExceeded, Operation::Put),
        (storage.put_durable(absent, too_long).await.map(drop), ErrorKind::LimitExceeded, Operation::PutDurable),
    ];
    for (refusal, kind, operation) in refusals {
        let error = refusal.refuses_as(kind, operation, format_args!("{operation:?} that must be {kind:?}"))?;
        ensure_eq!((error.effect(), error.retry()), (Effect::None, Retry::Useless), "effect and retry of `{error}`");
        ensure!(!error.context().is_empty(), "`{error}` does not say on what");
        let text = error.to_string();
        ensure!(
            !place.secrets().iter().any(|secret| text.contains(secret)),
            "an error of {operation:?} tells a secret"
        );
    }
    ensure!(!storage.exists(absent).await.answers("looking for a name")?, "a put that was refused took effect");
    if let Some(writer) = open_writer(place).await? {
        changes_are_refused(&*place.open().await.answers("opening the place")?, &*writer).await?;
    }

    if place.lose_next_reply() {
        let outcome = storage.put(lost, sample_bytes(3, 10)).await.map(drop);
        is_unknown(outcome.refuses("a put whose reply was lost")?, Operation::Put)?;
        replies_are_lost(place, &*storage, present).await?;
    } else {
        verdict.limit("no reply was lost: that the effect is unknown then was not tried");
    }
    Ok(verdict)
}

/// The reader refuses every change, says so, and has changed nothing, as the writer sees it.
async fn changes_are_refused(reader: &dyn Storage, writer: &dyn Storage) -> Result<(), Breach> {
    let [taken, free] = [4, 5].map(sample_name);
    let (bytes, other) = (sample_bytes(4, 10), sample_bytes(5, 20));
    writer.put(taken, bytes.clone()).await.answers("a put by who may")?;
    for name in [taken, free] {
        let refusals = [
            (reader.put(name, other.clone()).await.map(drop), Operation::Put),
            (reader.put_durable(name, other.clone()).await.map(drop), Operation::PutDurable),
            (reader.delete(name).await, Operation::Delete),
            (reader.apply(vec![Change::Put(name, other.clone())]).await.map(drop), Operation::Apply),
            (reader.apply(vec![Change::Delete(name)]).await.map(drop), Operation::Apply),
        ];
        for (refusal, operation) in refusals {
            let what = format_args!("{operation:?} through a handle that can only read").to_string();
            let error = refusal.refuses_as(ErrorKind::ReadOnly, operation, what)?;
            ensure_eq!(
                (error.effect(), error.retry()),
                (Effect::None, Retry::Useless),
                "effect and retry of `{error}`"
            );
        }
    }
    ensure_holds(writer, taken, Some(&bytes), "after changes that were refused").await?;
    ensure_holds(writer, free, None, "after changes that were refused").await?;
    writer.delete(taken).await.answers("a delete by who may")
}

fn is_unknown(error: Error, operation: Operation) -> Result<(), Breach> {
    let found = (error.effect(), error.retry());
    ensure_eq!(found, (Effect::Unknown, Retry::CanHelp), "effect and retry of {operation:?} whose reply was lost");
    Ok(())
}

/// The reply of each other call that changes something is lost, once the place is known to do that.
async fn replies_are_lost(place: &dyn Place, storage: &dyn Storage, present: Name) -> Result<(), Breach> {
    let bytes = sample_bytes(4, 10);
    for (number, operation) in
        [Operation::PutDurable, Operation::Delete, Operation::Apply, Operation::Sync, Operation::Persist]
            .into_iter()
            .enumerate()
    {
        // Something to do for every barrier.
        let [before, name, after] = [0, 1, 2].map(|which| sample_name(10 * (number as u64 + 1) + which));
        storage.put(before, bytes.clone()).await.answers("a put")?;
        ensure!(place.lose_next_reply(), "the place loses one reply and not another");
        let outcome = match operation {
            Operation::PutDurable => storage.put_durable(name, bytes.clone()).await.map(drop),
            Operation::Delete => storage.delete(present).await,
            Operation::Apply => storage.apply(vec![Change::Put(name, bytes.clone())]).await.map(drop),
            Operation::Sync => storage.sync().await,
            _ => storage.persist(&[before]).await,
        };
        match outcome {
            Err(error) => is_unknown(error, operation)?,
            // The place loses replies of other calls: here is one, so that the loss does not wait for the next round.
            Ok(()) if matches!(operation, Operation::Apply | Operation::Sync | Operation::Persist) => {
                let _ = storage.put(after, bytes.clone()).await;
            }
            Ok(()) => return Err(Breach::new(format!("{operation:?} whose reply was lost succeeded"))),
        }
    }
    Ok(())
}
