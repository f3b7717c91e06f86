//! S11: what errors say.

use bytes::Bytes;
use strongroom_core::storage::{Effect, ErrorKind, Operation, Retry, StorageExt as _};

use crate::storage::outcome::{Answer as _, Outcome, Verdict, ensure, ensure_eq};
use crate::storage::{Place, open, sample_bytes, sample_name};

/// **S11** Errors of every operation that can be made to fail say kind, operation, context, retry and effect, and tell no
/// secret; where a reply was lost, that the effect is unknown.
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

    if place.lose_next_reply() {
        let error = storage.put(lost, sample_bytes(3, 10)).await.refuses("a put whose reply was lost")?;
        ensure_eq!(error.effect(), Effect::Unknown, "the effect of a put whose reply was lost");
    } else {
        verdict.limit("no reply was lost: that the effect is unknown then was not tried");
    }
    Ok(verdict)
}
