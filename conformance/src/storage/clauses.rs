// A clause that is broken must stop the test, with the place in the code: so here, unlike elsewhere, one may panic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::Arc;
use std::thread;

use bytes::Bytes;
use futures_lite::future::{block_on, poll_once};
use strongroom_core::storage::{
    BatchSupport, Change, Durability, Effect, Error, ErrorKind, ListOrder, Name, Operation, Put, Reach, Retry, Storage,
    StorageExt as _, Torn,
};

use super::{Place, sample_bytes, sample_name};

const TASKS: u64 = 4;

async fn open(place: &dyn Place) -> Arc<dyn Storage> {
    place.open().await.expect("a fresh place opens")
}

async fn whole(storage: &dyn Storage, name: Name) -> Option<Bytes> {
    match storage.get_all(name, u64::from(storage.capabilities().block_bytes_max)).await {
        Ok(bytes) => Some(bytes),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => panic!("{error}"),
    }
}

fn assert_not_found(error: &Error, operation: Operation) {
    assert_eq!(
        (error.kind(), error.operation(), error.effect(), error.retry()),
        (ErrorKind::NotFound, operation, Effect::None, Retry::Useless)
    );
}

/// **S1** `put` and `put_durable` store all or nothing, and answer `Exists` where the name is taken, whose content stays.
///
/// # Panics
/// Where the storage breaks the clause; so do all functions here.
pub async fn s1_put_stores_all_and_never_replaces(place: &dyn Place) {
    let storage = open(place).await;
    let (plain, durable) = (sample_name(1), sample_name(2));
    let bytes = sample_bytes(1, 10_000);
    assert_eq!(storage.put(plain, bytes.clone()).await.unwrap(), Put::Created);
    assert_eq!(storage.put_durable(durable, bytes.clone()).await.unwrap(), Put::Created);
    for name in [plain, durable] {
        for length in [0, 5, 10_000, 20_000] {
            assert_eq!(storage.put(name, sample_bytes(2, length)).await.unwrap(), Put::Exists);
            assert_eq!(storage.put_durable(name, sample_bytes(2, length)).await.unwrap(), Put::Exists);
        }
        assert_eq!(whole(&*storage, name).await, Some(bytes.clone()));
    }
}

/// **S2** Of concurrent puts of one name exactly one answers `Created`, and its bytes are what is there.
///
/// # Panics
/// As all here.
pub async fn s2_of_concurrent_puts_exactly_one_creates(place: &dyn Place) {
    const NAMES: u64 = 40;
    let handles = [open(place).await, open(place).await];
    let created: Vec<BTreeSet<Name>> = thread::scope(|scope| {
        let tasks: Vec<_> = (0..TASKS)
            .map(|task| {
                let storage = handles[task as usize % 2].clone();
                scope.spawn(move || {
                    let put = async |number| {
                        let (name, bytes) = (sample_name(number), sample_bytes(task, 3000));
                        let outcome = match task / 2 {
                            0 => storage.put(name, bytes).await,
                            _ => storage.put_durable(name, bytes).await,
                        };
                        (outcome.unwrap() == Put::Created).then_some(name)
                    };
                    block_on(async {
                        let mut created = BTreeSet::new();
                        for number in 0..NAMES {
                            created.extend(put(number).await);
                        }
                        created
                    })
                })
            })
            .collect();
        tasks.into_iter().map(|task| task.join().unwrap()).collect()
    });
    for number in 0..NAMES {
        let name = sample_name(number);
        let winners: Vec<usize> = (0..created.len()).filter(|task| created[*task].contains(&name)).collect();
        assert_eq!(winners.len(), 1, "{name} was created by {winners:?}");
        assert_eq!(whole(&*handles[0], name).await, Some(sample_bytes(winners[0] as u64, 3000)));
    }
}

/// **S3** `get` returns exactly the bytes put, whole or in part; past the end is `RangeInvalid`, over the maximum is
/// `LimitExceeded`.
///
/// # Panics
/// As all here.
pub async fn s3_get_returns_exactly_what_was_put(place: &dyn Place) {
    const LENGTH: u64 = 50_000;
    let storage = open(place).await;
    let (name, bytes) = (sample_name(1), sample_bytes(1, LENGTH as usize));
    storage.put(name, bytes.clone()).await.unwrap();
    for range in [0..1, 0..LENGTH, 0..0, LENGTH..LENGTH, 16_384..32_768, 49_999..LENGTH, 7..7_000] {
        let length = range.end - range.start;
        let part = bytes.slice(range.start as usize..range.end as usize);
        assert_eq!(storage.get(name, Some(range.clone()), length).await.unwrap(), part, "{range:?}");
        assert_eq!(storage.get(name, Some(range), u64::MAX).await.unwrap(), part);
    }
    assert_eq!(storage.get(name, None, LENGTH).await.unwrap(), bytes);

    #[allow(clippy::reversed_empty_ranges)]
    let outside = [
        LENGTH..LENGTH + 1,
        0..LENGTH + 1,
        LENGTH + 1..LENGTH + 1,
        i64::MAX as u64 - 1..i64::MAX as u64,
        u64::MAX - 1..u64::MAX,
        5..4,
        0..u64::MAX,
    ];
    for range in outside {
        let error = storage.get(name, Some(range.clone()), u64::MAX).await.unwrap_err();
        assert_eq!((error.kind(), error.operation()), (ErrorKind::RangeInvalid, Operation::Get), "{range:?}");
    }
    for (range, max_bytes) in [(None, LENGTH - 1), (Some(10..21), 10), (Some(0..1), 0), (None, 0)] {
        let error = storage.get(name, range, max_bytes).await.unwrap_err();
        assert_eq!((error.kind(), error.operation()), (ErrorKind::LimitExceeded, Operation::Get));
    }
}

/// **S4** `get`, `size` and `persist` of an absent name are `NotFound`.
///
/// # Panics
/// As all here.
pub async fn s4_absent_names_are_not_found(place: &dyn Place) {
    let storage = open(place).await;
    let (absent, present) = (sample_name(1), sample_name(2));
    storage.put(present, sample_bytes(1, 10)).await.unwrap();
    assert_not_found(&storage.get_all(absent, 10).await.unwrap_err(), Operation::Get);
    assert_not_found(&storage.get(absent, Some(0..0), 0).await.unwrap_err(), Operation::Get);
    assert_not_found(&storage.size(absent).await.unwrap_err(), Operation::Size);
    assert_eq!(storage.persist(&[present, absent]).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert!(!storage.exists(absent).await.unwrap());
}

/// **S5** After a put or delete answers, every handle within reach sees it, in `get`, `size` and `list`.
///
/// # Panics
/// As all here.
pub async fn s5_every_handle_sees_what_was_answered(place: &dyn Place) {
    let handles = [open(place).await, open(place).await];
    for round in 0..20 {
        let (name, length) = (sample_name(round), 100 + round as usize);
        let (writer, reader) = (&handles[round as usize % 2], &handles[(round as usize + 1) % 2]);
        writer.put(name, sample_bytes(round, length)).await.unwrap();
        for storage in [writer, reader] {
            assert_eq!(storage.size(name).await.unwrap(), length as u64);
            assert_eq!(whole(&**storage, name).await, Some(sample_bytes(round, length)));
            assert!(storage.list_all(name.as_bytes()).await.unwrap().contains(&name));
        }
        reader.delete(name).await.unwrap();
        for storage in [writer, reader] {
            assert_eq!(storage.size(name).await.unwrap_err().kind(), ErrorKind::NotFound);
            assert_eq!(whole(&**storage, name).await, None);
            assert!(storage.list_all(&[]).await.unwrap().is_empty());
        }
    }
}

/// **S6** Deleting an absent name succeeds; after a deletion the name can be put anew, with other bytes.
///
/// # Panics
/// As all here.
pub async fn s6_delete_frees_the_name(place: &dyn Place) {
    let storage = open(place).await;
    let name = sample_name(1);
    storage.delete(name).await.unwrap();
    for round in 0..3 {
        let bytes = sample_bytes(round, 1000 - 100 * round as usize);
        assert_eq!(storage.put(name, bytes.clone()).await.unwrap(), Put::Created);
        assert_eq!(whole(&*storage, name).await, Some(bytes));
        storage.delete(name).await.unwrap();
        storage.delete(name).await.unwrap();
        assert_eq!(storage.put_durable(name, sample_bytes(9, 9)).await.unwrap(), Put::Created);
        storage.delete(name).await.unwrap();
        assert_eq!(whole(&*storage, name).await, None);
    }
}

/// Follows the pages as the clause says; `between` runs after each.
async fn follow(storage: &dyn Storage, prefix: &[u8], mut between: impl AsyncFnMut()) -> Vec<Name> {
    let mut names = Vec::new();
    loop {
        let page = storage.list(prefix, names.last().copied()).await.unwrap();
        between().await;
        if page.is_empty() {
            return names;
        }
        names.extend(page);
        if storage.capabilities().list_order == ListOrder::Unordered {
            return names;
        }
    }
}

/// **S7** Following the pages gives every name that stays exactly once, those with the prefix alone, while others come
/// and go.
///
/// # Panics
/// As all here.
pub async fn s7_list_gives_each_name_once(place: &dyn Place) {
    const STAYING: u64 = 1500;
    let storage = open(place).await;
    assert!(storage.list(&[], None).await.unwrap().is_empty());
    let staying: BTreeSet<Name> = (0..STAYING).map(sample_name).collect();
    for name in &staying {
        storage.put(*name, Bytes::new()).await.unwrap();
    }
    let mut coming = STAYING;
    let listed = follow(&*storage, &[], async || {
        coming += 1;
        storage.put(sample_name(coming), Bytes::new()).await.unwrap();
        storage.delete(sample_name(coming - 1)).await.unwrap();
    })
    .await;
    if storage.capabilities().list_order == ListOrder::Ascending {
        assert!(listed.is_sorted());
    }
    let once: BTreeSet<Name> = listed.iter().copied().collect();
    assert_eq!(once.len(), listed.len(), "a name came twice");
    assert!(staying.is_subset(&once));
    storage.delete(sample_name(coming)).await.unwrap();

    let some = *staying.iter().nth(700).unwrap();
    for length in [1, 2, 15, 16] {
        let prefix = &some.as_bytes()[..length];
        let expected: Vec<Name> = staying.iter().copied().filter(|name| name.as_bytes().starts_with(prefix)).collect();
        let mut listed = follow(&*storage, prefix, async || {}).await;
        listed.sort_unstable();
        assert_eq!(listed, expected);
    }
    if storage.capabilities().list_order == ListOrder::Ascending {
        let after: Vec<Name> = staying.range(some..).skip(1).copied().collect();
        let page = storage.list(&[], Some(some)).await.unwrap();
        assert!(!page.is_empty() && after.starts_with(&page));
        assert!(storage.list(&[], Some(Name::new([u8::MAX; 16]))).await.unwrap().is_empty());
    }
    for edge in [Name::new([0; 16]), Name::new([u8::MAX; 16])] {
        storage.put(edge, Bytes::new()).await.unwrap();
        assert_eq!(follow(&*storage, edge.as_bytes(), async || {}).await, [edge]);
    }
}

/// **S8** `apply` equals its changes in order, one outcome a put; an atomic one does nothing where it fails, and across
/// power loss.
///
/// # Panics
/// As all here.
pub async fn s8_a_batch_is_its_changes_in_order(place: &dyn Place) {
    let storage = open(place).await;
    let [a, b, c] = [1, 2, 3].map(sample_name);
    storage.put(a, sample_bytes(1, 100)).await.unwrap();
    let batch = vec![
        Change::Put(a, sample_bytes(2, 100)),
        Change::Delete(a),
        Change::Put(a, sample_bytes(3, 100)),
        Change::Put(b, sample_bytes(4, 100)),
        Change::Delete(b),
        Change::Delete(c),
        Change::Put(c, Bytes::new()),
    ];
    let outcomes = storage.apply(batch).await.unwrap();
    assert_eq!(outcomes, [Put::Exists, Put::Created, Put::Created, Put::Created]);
    assert_eq!(whole(&*storage, a).await, Some(sample_bytes(3, 100)));
    assert_eq!(whole(&*storage, b).await, None);
    assert_eq!(whole(&*storage, c).await, Some(Bytes::new()));
    assert!(storage.apply(Vec::new()).await.unwrap().is_empty());

    if storage.capabilities().batch != BatchSupport::Atomic {
        return;
    }
    let too_long = Bytes::from(vec![0; storage.capabilities().block_bytes_max as usize + 1]);
    let failing = vec![Change::Delete(a), Change::Put(b, sample_bytes(1, 1)), Change::Put(sample_name(4), too_long)];
    assert_eq!(storage.apply(failing).await.unwrap_err().kind(), ErrorKind::LimitExceeded);
    assert_eq!(storage.list_all(&[]).await.unwrap(), BTreeSet::from([a, c]));

    storage.sync().await.unwrap();
    for seed in 0..20 {
        let storage = open(place).await;
        let before = storage.list_all(&[]).await.unwrap();
        let (gone, come) = if before.contains(&a) { (a, b) } else { (b, a) };
        storage.apply(vec![Change::Delete(gone), Change::Put(come, sample_bytes(seed, 50))]).await.unwrap();
        if !place.power_loss(seed) {
            break;
        }
        let after = open(place).await.list_all(&[]).await.unwrap();
        assert!(after == before || after == BTreeSet::from([come, c]), "half a batch: {after:?}");
    }
}

/// **S9** What was acknowledged before `sync`, put by `put_durable`, or named to `persist`, outlives what
/// the storage says that it outlives: the power where the place can cut it, else all its handles.
///
/// # Panics
/// As all here.
pub async fn s9_barriers_protect_what_was_acknowledged(place: &dyn Place) {
    let mut expected = BTreeMap::new();
    for round in 0..12 {
        let [synced, durable, foreign, deleted] = [0, 1, 2, 3].map(|number| sample_name(10 * round + number));
        let bytes = sample_bytes(round, 5000);
        let (ours, theirs) = (open(place).await, open(place).await);
        ours.put(synced, bytes.clone()).await.unwrap();
        ours.put(deleted, bytes.clone()).await.unwrap();
        theirs.put(foreign, bytes.clone()).await.unwrap();
        ours.delete(deleted).await.unwrap();
        ours.sync().await.unwrap();
        ours.persist(&[foreign]).await.unwrap();
        ours.put_durable(durable, bytes.clone()).await.unwrap();
        // A barrier with nothing to do is one nevertheless.
        ours.sync().await.unwrap();
        ours.persist(&[]).await.unwrap();

        let lost = place.power_loss(round);
        if !lost && ours.capabilities().durability == Durability::None {
            return;
        }
        drop((ours, theirs));
        let storage = open(place).await;
        for name in [synced, durable, foreign] {
            expected.insert(name, bytes.clone());
        }
        for (name, bytes) in &expected {
            assert_eq!(whole(&*storage, *name).await.as_ref(), Some(bytes));
        }
        assert_eq!(whole(&*storage, deleted).await, None);
    }
}

/// **S10** Power loss leaves each blob absent or whole, save a plain put that no barrier covered, where the storage says
/// that it may be torn. (That a process can be killed needs processes: each backend tests it.)
///
/// # Panics
/// As all here.
pub async fn s10_a_crash_leaves_blobs_absent_or_whole(place: &dyn Place) {
    for seed in 0..20 {
        let storage = open(place).await;
        let torn = storage.capabilities().torn;
        let names: Vec<Name> = (0..10).map(|number| sample_name(100 * seed + number)).collect();
        for (number, name) in names.iter().enumerate() {
            storage.put(*name, sample_bytes(number as u64, 4000)).await.unwrap();
            if number % 3 == 0 {
                storage.persist(&[*name]).await.unwrap();
            }
        }
        if !place.power_loss(seed) {
            return;
        }
        let storage = open(place).await;
        for (number, name) in names.iter().enumerate() {
            let is_whole = whole(&*storage, *name).await.map(|bytes| bytes == sample_bytes(number as u64, 4000));
            match is_whole {
                Some(true) => {}
                None => assert_ne!(number % 3, 0, "a blob that was persisted is gone"),
                Some(false) => assert!(torn == Torn::BeforeSync && number % 3 != 0, "a blob is torn"),
            }
        }
    }
}

/// **S11** Errors of every operation that can be made to fail say kind, operation, context, retry and effect, and their
/// text names what they are about.
///
/// # Panics
/// As all here.
pub async fn s11_errors_say_what_happened(place: &dyn Place) {
    let storage = open(place).await;
    let (absent, present) = (sample_name(1), sample_name(2));
    storage.put(present, sample_bytes(1, 10)).await.unwrap();
    let too_long = Bytes::from(vec![0; storage.capabilities().block_bytes_max as usize + 1]);
    let errors = [
        (storage.get_all(absent, 10).await.unwrap_err(), ErrorKind::NotFound, Operation::Get),
        (storage.size(absent).await.unwrap_err(), ErrorKind::NotFound, Operation::Size),
        (storage.persist(&[absent]).await.unwrap_err(), ErrorKind::NotFound, Operation::Persist),
        (storage.get(present, Some(5..11), 10).await.unwrap_err(), ErrorKind::RangeInvalid, Operation::Get),
        (storage.get_all(present, 9).await.unwrap_err(), ErrorKind::LimitExceeded, Operation::Get),
        (storage.put(absent, too_long.clone()).await.unwrap_err(), ErrorKind::LimitExceeded, Operation::Put),
        (storage.put_durable(absent, too_long).await.unwrap_err(), ErrorKind::LimitExceeded, Operation::PutDurable),
    ];
    for (error, kind, operation) in errors {
        assert_eq!((error.kind(), error.operation()), (kind, operation));
        assert_eq!((error.effect(), error.retry()), (Effect::None, Retry::Useless), "{error}");
        assert!(!error.context().is_empty());
        assert!(error.to_string().contains(&format!("{operation:?}")));
    }
    assert!(!storage.exists(absent).await.unwrap());
}

/// **S12** A future that is dropped in the middle leaves its blob absent or whole, and the storage usable.
///
/// # Panics
/// As all here.
pub async fn s12_a_dropped_future_leaves_blobs_absent_or_whole(place: &dyn Place) {
    let storage = open(place).await;
    let bytes = sample_bytes(1, 200_000);
    for number in 0..40 {
        let name = sample_name(number);
        let polls = number % 4;
        let change = vec![Change::Put(name, bytes.clone()), Change::Delete(sample_name(number + 1))];
        let mut call = pin!(async {
            match number % 3 {
                0 => storage.put(name, bytes.clone()).await.map(drop),
                1 => storage.put_durable(name, bytes.clone()).await.map(drop),
                _ => storage.apply(change).await.map(drop),
            }
        });
        for _ in 0..polls {
            if poll_once(call.as_mut()).await.is_some() {
                break;
            }
        }
    }
    for number in 0..40 {
        let name = sample_name(number);
        let left = whole(&*storage, name).await;
        assert!(left.is_none_or(|left| left == bytes), "part of a blob");
        let _ = storage.put(name, bytes.clone()).await.unwrap();
        assert_eq!(whole(&*storage, name).await.as_ref(), Some(&bytes));
        let _ = poll_once(storage.delete(name)).await;
        storage.delete(name).await.unwrap();
    }
}

/// **S13** Any name and any bytes up to `block_bytes_max` work, none among them; one byte more is `LimitExceeded`.
///
/// # Panics
/// As all here.
pub async fn s13_any_name_and_any_length_within_the_limit(place: &dyn Place) {
    let storage = open(place).await;
    let capabilities = storage.capabilities();
    let max_bytes = capabilities.block_bytes_max as usize;
    assert!(capabilities.block_bytes_best <= capabilities.block_bytes_max);
    let names = [[0; 16], [u8::MAX; 16], *b"../../etc/passwd", *b"strongrH\0\0\0\0\0\0\0\x01", [b'/'; 16], [0x80; 16]];
    for (name, length) in names.map(Name::new).into_iter().zip([0, 1, 4095, 4096, max_bytes, 65_537]) {
        let bytes = sample_bytes(length as u64, length);
        assert_eq!(storage.put(name, bytes.clone()).await.unwrap(), Put::Created);
        assert_eq!(storage.size(name).await.unwrap(), length as u64);
        assert_eq!(whole(&*storage, name).await, Some(bytes.clone()));
        storage.delete(name).await.unwrap();
        assert_eq!(storage.put_durable(name, bytes.clone()).await.unwrap(), Put::Created);
        assert_eq!(whole(&*storage, name).await, Some(bytes));
    }
    assert_eq!(storage.list_all(&[]).await.unwrap(), names.map(Name::new).into_iter().collect());
    // What compresses well, or is all zeros, comes back as it went.
    let zeros = Bytes::from(vec![0; max_bytes]);
    storage.put(sample_name(1), zeros.clone()).await.unwrap();
    assert_eq!(whole(&*storage, sample_name(1)).await, Some(zeros));

    let too_long = Bytes::from(vec![0; max_bytes + 1]);
    for error in [
        storage.put(sample_name(2), too_long.clone()).await.unwrap_err(),
        storage.put_durable(sample_name(2), too_long.clone()).await.unwrap_err(),
        storage.apply(vec![Change::Put(sample_name(2), too_long)]).await.unwrap_err(),
    ] {
        assert_eq!((error.kind(), error.effect()), (ErrorKind::LimitExceeded, Effect::None));
    }
    assert!(!storage.exists(sample_name(2)).await.unwrap());
}

/// **S14** One handle serves many tasks at once, each of which sees its own changes at once.
///
/// # Panics
/// As all here.
pub async fn s14_handles_serve_many_tasks_at_once(place: &dyn Place) {
    const ROUNDS: u64 = 30;
    let storage = open(place).await;
    thread::scope(|scope| {
        for task in 0..TASKS {
            let storage = storage.clone();
            scope.spawn(move || {
                block_on(async {
                    for round in 0..ROUNDS {
                        let (name, bytes) = (sample_name(1000 * task + round), sample_bytes(round, 2000));
                        assert_eq!(storage.put(name, bytes.clone()).await.unwrap(), Put::Created);
                        if round % 10 == task {
                            storage.sync().await.unwrap();
                        }
                        assert_eq!(whole(&*storage, name).await, Some(bytes));
                        assert!(storage.list_all(&name.as_bytes()[..1]).await.unwrap().contains(&name));
                        if round % 2 == 0 {
                            storage.delete(name).await.unwrap();
                            assert_eq!(whole(&*storage, name).await, None);
                        }
                    }
                });
            });
        }
    });
    assert_eq!(storage.list_all(&[]).await.unwrap().len() as u64, TASKS * ROUNDS / 2);
}

/// `try_exclusive` answers a guard only where nobody else is there, denies it to a second one, and gives it again after
/// the first was dropped. A storage that cannot tell always answers `None`.
///
/// # Panics
/// As all here.
pub async fn exclusive_access_is_proved_or_denied(place: &dyn Place) {
    let storage = open(place).await;
    let other = open(place).await;
    assert!(storage.try_exclusive().await.unwrap().is_none());
    assert!(other.try_exclusive().await.unwrap().is_none());
    drop(other);
    let Some(guard) = storage.try_exclusive().await.unwrap() else { return };
    assert_ne!(storage.capabilities().reach, Reach::Everywhere, "nobody can lock out everyone");
    assert!(storage.try_exclusive().await.unwrap().is_none());
    // Its holder works on.
    assert_eq!(storage.put(sample_name(1), sample_bytes(1, 10)).await.unwrap(), Put::Created);
    storage.sync().await.unwrap();
    drop(guard);

    let other = open(place).await;
    assert!(storage.try_exclusive().await.unwrap().is_none());
    assert!(other.exists(sample_name(1)).await.unwrap());
    drop(storage);
    assert!(other.try_exclusive().await.unwrap().is_some());
    assert!(other.try_exclusive().await.unwrap().is_some());
}
