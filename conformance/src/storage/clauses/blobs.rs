//! S1, S3, S4, S6, S13: what a single blob may do.

use bytes::Bytes;
use strongroom_core::storage::{Change, Effect, ErrorKind, Name, Operation, Put, Retry, StorageExt as _};

use super::looks::never_seen_in_part;
use crate::storage::outcome::{Answer as _, Outcome, Verdict, ensure, ensure_eq, ensure_holds};
use crate::storage::{Place, open, sample_bytes, sample_name};

/// The smallest blobs that a repository can be made of; a storage must hold these at least.
const BLOCK_BYTES_MIN: u32 = 4096;

/// **S1** `put` and `put_durable` store all or nothing, and answer `Exists` where the name is taken, whose content stays.
/// Whoever looks meanwhile sees all or nothing.
///
/// # Errors
/// How the storage broke the clause; so do all functions here.
pub async fn s1_put_stores_all_and_never_replaces(place: &dyn Place) -> Outcome {
    let storage = open(place).await?;
    let length = 10_000.min(storage.capabilities().block_bytes_max as usize);
    let (plain, durable) = (sample_name(1), sample_name(2));
    let bytes = sample_bytes(1, length);
    ensure_eq!(storage.put(plain, bytes.clone()).await.answers("a put")?, Put::Created, "a put of a free name");
    let outcome = storage.put_durable(durable, bytes.clone()).await.answers("a durable put")?;
    ensure_eq!(outcome, Put::Created, "a durable put of a free name");
    for name in [plain, durable] {
        for other in [0, 5, length / 2, length] {
            let outcome = storage.put(name, sample_bytes(2, other)).await.answers("a put of a taken name")?;
            ensure_eq!(outcome, Put::Exists, "a put of a taken name");
            ensure_holds(&*storage, name, Some(&bytes), "after a put of a taken name").await?;
            let outcome = storage.put_durable(name, sample_bytes(2, other)).await.answers("a durable put")?;
            ensure_eq!(outcome, Put::Exists, "a durable put of a taken name");
            ensure_holds(&*storage, name, Some(&bytes), "after a durable put of a taken name").await?;
        }
    }
    drop(storage);
    never_seen_in_part(place, Operation::Put).await?;
    Ok(Verdict::Passed)
}

/// **S3** `get` returns exactly the bytes put, whole or in part; past the end is `RangeInvalid`, over the maximum is
/// `LimitExceeded`.
///
/// # Errors
/// As all here.
pub async fn s3_get_returns_exactly_what_was_put(place: &dyn Place) -> Outcome {
    let storage = open(place).await?;
    let length = 50_000.min(u64::from(storage.capabilities().block_bytes_max));
    let (name, bytes) = (sample_name(1), sample_bytes(1, length as usize));
    storage.put(name, bytes.clone()).await.answers("a put")?;
    let inside = [
        0..1,
        0..length,
        0..0,
        length..length,
        length / 3..length / 3,
        length / 3..2 * (length / 3),
        length - 1..length,
        7..length / 7,
    ];
    for range in inside {
        let part = bytes.slice(range.start as usize..range.end as usize);
        for max_bytes in [range.end - range.start, u64::MAX] {
            let found = storage.get(name, Some(range.clone()), max_bytes).await;
            let found = found.answers(format_args!("a get of {range:?} of {length} bytes, at most {max_bytes}"))?;
            ensure!(found == part, "a get of {range:?} gives {} other bytes", found.len());
        }
    }
    for max_bytes in [length, u64::MAX] {
        let found = storage.get(name, None, max_bytes).await.answers("a get of the whole blob")?;
        ensure!(found == bytes, "a get of {length} bytes gives {} other bytes", found.len());
    }

    #[allow(clippy::reversed_empty_ranges)]
    let outside = [
        length..length + 1,
        0..length + 1,
        length - 1..length + 1,
        length + 1..length + 1,
        i64::MAX as u64 - 1..i64::MAX as u64,
        u64::MAX - 1..u64::MAX,
        5..4,
        0..u64::MAX,
    ];
    for range in outside {
        let found = storage.get(name, Some(range.clone()), u64::MAX).await;
        found.refuses_as(
            ErrorKind::RangeInvalid,
            Operation::Get,
            format_args!("a get of {range:?} of {length} bytes"),
        )?;
    }
    for (range, max_bytes) in [(None, length - 1), (Some(10..21), 10), (Some(0..1), 0), (None, 0)] {
        let what = format_args!("a get of {range:?} (None: of all), at most {max_bytes} bytes wanted,").to_string();
        storage.get(name, range, max_bytes).await.refuses_as(ErrorKind::LimitExceeded, Operation::Get, what)?;
    }
    Ok(Verdict::Passed)
}

/// **S4** `get`, `size` and `persist` of an absent name are `NotFound`.
///
/// # Errors
/// As all here.
pub async fn s4_absent_names_are_not_found(place: &dyn Place) -> Outcome {
    let storage = open(place).await?;
    let (absent, present) = (sample_name(1), sample_name(2));
    storage.put(present, sample_bytes(1, 10)).await.answers("a put")?;
    let errors = [
        storage.get_all(absent, 10).await.refuses_as(ErrorKind::NotFound, Operation::Get, "a get of an absent name")?,
        storage.get(absent, Some(0..0), 0).await.refuses_as(
            ErrorKind::NotFound,
            Operation::Get,
            "a get of no bytes of an absent name",
        )?,
        storage.size(absent).await.refuses_as(ErrorKind::NotFound, Operation::Size, "the size of an absent name")?,
        storage.persist(&[present, absent]).await.refuses_as(
            ErrorKind::NotFound,
            Operation::Persist,
            "a persist with an absent name",
        )?,
    ];
    for error in errors {
        ensure_eq!((error.effect(), error.retry()), (Effect::None, Retry::Useless), "effect and retry of `{error}`");
    }
    ensure!(!storage.exists(absent).await.answers("looking for a name")?, "what was asked for and absent is there now");
    Ok(Verdict::Passed)
}

/// **S6** Deleting an absent name succeeds; after a deletion the name can be put anew, with other bytes.
///
/// # Errors
/// As all here.
pub async fn s6_delete_frees_the_name(place: &dyn Place) -> Outcome {
    let storage = open(place).await?;
    let name = sample_name(1);
    storage.delete(name).await.answers("a delete of a name that never was")?;
    for round in 0..3 {
        let bytes = sample_bytes(round, 1000 - 100 * round as usize);
        let outcome = storage.put(name, bytes.clone()).await.answers("a put after a delete")?;
        ensure_eq!(outcome, Put::Created, "a put after a delete");
        ensure_holds(&*storage, name, Some(&bytes), "put anew").await?;
        storage.delete(name).await.answers("a delete")?;
        ensure_holds(&*storage, name, None, "after a delete").await?;
        storage.delete(name).await.answers("a second delete")?;
        let outcome = storage.put_durable(name, sample_bytes(9, 9)).await.answers("a durable put after a delete")?;
        ensure_eq!(outcome, Put::Created, "a durable put after a delete");
        ensure_holds(&*storage, name, Some(&sample_bytes(9, 9)), "put anew, durably").await?;
        storage.delete(name).await.answers("a delete")?;
        ensure_holds(&*storage, name, None, "after a delete").await?;
    }
    Ok(Verdict::Passed)
}

/// **S13** Any name and any bytes up to `block_bytes_max` work, none among them; more is `LimitExceeded`,
/// be it one byte or many.
///
/// # Errors
/// As all here.
pub async fn s13_any_name_and_any_length_within_the_limit(place: &dyn Place) -> Outcome {
    let storage = open(place).await?;
    let capabilities = storage.capabilities();
    let max_bytes = capabilities.block_bytes_max as usize;
    ensure!(capabilities.block_bytes_best <= capabilities.block_bytes_max, "the best block size is over the largest");
    ensure!(capabilities.block_bytes_max >= BLOCK_BYTES_MIN, "blobs of {BLOCK_BYTES_MIN} bytes must be possible");
    let names = [[0; 16], [u8::MAX; 16], *b"../../etc/passwd", *b"strongrH\0\0\0\0\0\0\0\x01", [b'/'; 16], [0x80; 16]]
        .map(Name::new);
    for (name, length) in names.into_iter().zip([0, 1, 4095, 4096, max_bytes, 65_537.min(max_bytes)]) {
        let bytes = sample_bytes(length as u64, length);
        let outcome = storage.put(name, bytes.clone()).await;
        let outcome = outcome.answers(format_args!("a put of {length} bytes under {name}"))?;
        ensure_eq!(outcome, Put::Created, "a put of {length} bytes under {name}");
        let size = storage.size(name).await.answers("the size of what was put")?;
        ensure_eq!(size, length as u64, "the size of {name}");
        ensure_holds(&*storage, name, Some(&bytes), "once put").await?;
        storage.delete(name).await.answers("a delete")?;
        let outcome = storage.put_durable(name, bytes.clone()).await;
        let outcome = outcome.answers(format_args!("a durable put of {length} bytes under {name}"))?;
        ensure_eq!(outcome, Put::Created, "a durable put of {length} bytes under {name}");
        ensure_holds(&*storage, name, Some(&bytes), "once put durably").await?;
    }
    let listed = storage.list_all(&[]).await.answers("a listing")?;
    ensure_eq!(listed, names.into_iter().collect(), "what is there");
    // What compresses well, or is all zeros, comes back as it went.
    let zeros = Bytes::from(vec![0; max_bytes]);
    storage.put(sample_name(1), zeros.clone()).await.answers("a put of the largest blob, all zeros")?;
    ensure_holds(&*storage, sample_name(1), Some(&zeros), "put as zeros").await?;

    let over = sample_name(2);
    // One byte over, and so far that what carries it may have a limit of its own.
    for length in [max_bytes + 1, 4 * max_bytes + 1] {
        let too_long = Bytes::from(vec![0; length]);
        let batch = vec![Change::Put(over, too_long.clone())];
        for (outcome, operation) in [
            (storage.put(over, too_long.clone()).await.map(drop), Operation::Put),
            (storage.put_durable(over, too_long.clone()).await.map(drop), Operation::PutDurable),
            (storage.apply(batch).await.map(drop), Operation::Apply),
        ] {
            let what = format!("{operation:?} of {length} bytes, where {max_bytes} are the most,");
            let error = outcome.refuses(&what)?;
            let found = (error.kind(), error.effect());
            ensure_eq!(found, (ErrorKind::LimitExceeded, Effect::None), "kind and effect of {what}");
        }
    }
    storage.put(sample_name(3), sample_bytes(3, 10)).await.answers("a put after others were too long")?;
    ensure!(!storage.exists(over).await.answers("looking for a name")?, "a blob over the limit was stored");
    Ok(Verdict::Passed)
}
