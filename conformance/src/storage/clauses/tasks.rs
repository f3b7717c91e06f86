//! S2, S5, S12, S14: many handles, tasks and futures.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use futures_lite::future::{block_on, poll_once};
use futures_util::future::join_all;
use strongroom_core::storage::{Change, ErrorKind, Name, Put, Reach, Storage, StorageExt as _};

use super::alone::alone_is_who_is_alone;
use crate::storage::outcome::{Answer as _, Breach, Outcome, Verdict, ensure, ensure_eq, ensure_holds, whole};
use crate::storage::visitor::race_with_another_process;
use crate::storage::{Place, open, sample_bytes, sample_name};

const TASKS: u64 = 4;

/// A task that panics has broken the clause too.
fn joined<T>(task: thread::ScopedJoinHandle<'_, Result<T, Breach>>) -> Result<T, Breach> {
    task.join().unwrap_or_else(|_| Err(Breach::new("a task panicked")))
}

/// `met` is how far apart those were that were tried beside the handles of the place.
fn within_reach(place: &dyn Place, storage: &dyn Storage, met: Reach) -> Verdict {
    let mut verdict = Verdict::Passed;
    let (claimed, tried) = (storage.capabilities().reach, place.reach().max(met));
    if claimed > tried {
        let tried = match tried {
            Reach::Process => "this process",
            Reach::Host => "this host",
            Reach::Everywhere => "everywhere",
        };
        verdict.limit(format!("the storage reaches further ({claimed:?}): only handles of {tried} were tried"));
    }
    verdict
}

/// Lets tasks begin each round at the same moment. Where one of them ends, the others need not wait for it.
#[derive(Default)]
struct Together {
    arrivals: AtomicU64,
    has_ended: AtomicBool,
}

impl Together {
    /// False where a task has ended, so that they cannot be together any more.
    fn meet(&self, round: u64) -> bool {
        self.arrivals.fetch_add(1, Ordering::SeqCst);
        // Who wakes up by itself is at the start with the others; who must be woken up comes later.
        while self.arrivals.load(Ordering::SeqCst) < TASKS * (round + 1) {
            if self.has_ended.load(Ordering::SeqCst) {
                return false;
            }
            thread::yield_now();
        }
        true
    }
}

/// Tells the others, however a task ends.
struct Ending<'a>(&'a Together);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.has_ended.store(true, Ordering::SeqCst);
    }
}

/// **S2** Of concurrent puts of one name exactly one answers `Created`, and its bytes are what is there. Tasks begin
/// together, through two handles; so does another process, where the storage reaches it and the place can start one.
///
/// # Errors
/// As all here.
pub async fn s2_of_concurrent_puts_exactly_one_creates(place: &dyn Place) -> Outcome {
    const NAMES: u64 = 120;
    let handles = [open(place).await?, open(place).await?];
    let [first, second] = &handles;
    let together = Together::default();
    let put_all = |task: u64, storage: Arc<dyn Storage>| {
        let _ending = Ending(&together);
        let mut created = BTreeSet::new();
        for number in 0..NAMES {
            let (name, bytes) = (sample_name(number), sample_bytes(task, 3000));
            if !together.meet(number) {
                break;
            }
            let outcome = block_on(async {
                // Most are plain, because those take less time than it takes to come too late.
                match (task / 2, number % 3) {
                    (1, 0) => storage.put_durable(name, bytes).await,
                    _ => storage.put(name, bytes).await,
                }
            });
            if outcome.answers("a put in a race")? == Put::Created {
                created.insert(name);
            }
        }
        Ok(created)
    };
    let created = thread::scope(|scope| {
        let tasks: Vec<_> = (0..TASKS)
            .map(|task| {
                let storage = if task % 2 == 0 { first.clone() } else { second.clone() };
                let put_all = &put_all;
                scope.spawn(move || put_all(task, storage))
            })
            .collect();
        tasks.into_iter().map(joined).collect::<Result<Vec<BTreeSet<Name>>, Breach>>()
    })?;
    for number in 0..NAMES {
        let name = sample_name(number);
        let winners: Vec<u64> =
            (0..).zip(&created).filter(|(_, created)| created.contains(&name)).map(|(task, _)| task).collect();
        let [winner] = winners.as_slice() else {
            return Err(Breach::new(format!("{name} was created by {} of {TASKS} tasks", winners.len())));
        };
        for storage in &handles {
            ensure_holds(&**storage, name, Some(&sample_bytes(*winner, 3000)), "after a race").await?;
        }
    }
    let mut met = Reach::Process;
    if first.capabilities().reach > Reach::Process && race_with_another_process(place, &**first).await? {
        met = Reach::Host;
    }
    Ok(within_reach(place, &**first, met))
}

/// **S5** After a put or delete answers, every handle within reach sees it, in `get`, `size` and `list`.
///
/// # Errors
/// As all here.
pub async fn s5_every_handle_sees_what_was_answered(place: &dyn Place) -> Outcome {
    let (one, other) = (open(place).await?, open(place).await?);
    for round in 0..20 {
        let (name, length) = (sample_name(round), 100 + round as usize);
        let bytes = sample_bytes(round, length);
        let (writer, reader) = if round % 2 == 0 { (&one, &other) } else { (&other, &one) };
        writer.put(name, bytes.clone()).await.answers("a put")?;
        for (storage, whose) in [(writer, "the same handle"), (reader, "another handle")] {
            let size = storage.size(name).await.answers(format_args!("the size, asked of {whose} after a put,"))?;
            ensure_eq!(size, length as u64, "the size, asked of {whose} after a put");
            ensure_holds(&**storage, name, Some(&bytes), &format!("read through {whose} after a put")).await?;
            let listed = storage.list_all(name.as_bytes()).await.answers("a listing")?;
            ensure!(listed.contains(&name), "a name that was put is not listed by {whose}");
        }
        reader.delete(name).await.answers("a delete")?;
        for (storage, whose) in [(writer, "another handle"), (reader, "the same handle")] {
            let error = storage.size(name).await.refuses(format_args!("the size, asked of {whose} after a delete,"))?;
            ensure_eq!(error.kind(), ErrorKind::NotFound, "the size, asked of {whose} after a delete");
            ensure_holds(&**storage, name, None, &format!("read through {whose} after a delete")).await?;
            let listed = storage.list_all(&[]).await.answers("a listing")?;
            ensure!(listed.is_empty(), "names that were deleted are listed by {whose}: {listed:?}");
        }
    }
    Ok(within_reach(place, &*one, Reach::Process))
}

/// **S12** A future that is dropped in the middle leaves its blob absent or whole, and the storage usable.
///
/// # Errors
/// As all here.
pub async fn s12_a_dropped_future_leaves_blobs_absent_or_whole(place: &dyn Place) -> Outcome {
    let storage = open(place).await?;
    let bytes = sample_bytes(1, 200_000.min(storage.capabilities().block_bytes_max as usize));
    for number in 0..48 {
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
            if let Some(outcome) = poll_once(call.as_mut()).await {
                outcome.answers("a change after others were dropped")?;
                break;
            }
        }
    }
    for number in 0..48 {
        let name = sample_name(number);
        let left = whole(&*storage, name).await?;
        ensure!(left.is_none_or(|left| left == bytes), "a dropped put left part of {name}");
        // Absent or whole, and a put that was dropped may yet take effect: then it is there already.
        let _ = storage.put(name, bytes.clone()).await.answers("a put after one that was dropped")?;
        ensure_holds(&*storage, name, Some(&bytes), "put again after a dropped put").await?;
        let _ = poll_once(storage.delete(name)).await;
        storage.delete(name).await.answers("a delete after one that was dropped")?;
    }
    Ok(Verdict::Passed)
}

/// **S14** One handle serves many tasks at once, each of which sees its own changes at once; and `try_exclusive` gives
/// a guard to a handle that is alone, in this process and among all, and to no other, and keeps newcomers waiting until it
/// is dropped. That handles and the futures of their calls can be sent and shared,
/// the compiler proves:
///
/// ```
/// # use std::sync::Arc;
/// # use strongroom_core::storage::{Name, Storage};
/// fn shared(_: impl Send + Sync + Clone + 'static) {}
/// fn sent(_: impl Future + Send) {}
/// fn handles(storage: Arc<dyn Storage>, names: &[Name], name: Name) {
///     sent(storage.put(name, "bytes".into()));
///     sent(storage.put_durable(name, "bytes".into()));
///     sent(storage.get(name, None, 10));
///     sent(storage.size(name));
///     sent(storage.delete(name));
///     sent(storage.list(&[], None));
///     sent(storage.apply(Vec::new()));
///     sent(storage.sync());
///     sent(storage.persist(names));
///     sent(storage.try_exclusive());
///     shared(storage);
/// }
/// ```
///
/// What could not be, is no storage. This compiles:
///
/// ```
/// fn a_part_of_a_storage<T: strongroom_core::storage::MaybeSendSync>() {}
/// a_part_of_a_storage::<std::sync::Arc<str>>();
/// ```
///
/// and this does not:
///
/// ```compile_fail,E0277
/// fn a_part_of_a_storage<T: strongroom_core::storage::MaybeSendSync>() {}
/// a_part_of_a_storage::<std::rc::Rc<str>>();
/// ```
///
/// # Errors
/// As all here.
pub async fn s14_handles_serve_many_tasks_at_once(place: &dyn Place) -> Outcome {
    const ROUNDS: u64 = 20;
    const { handles_are_send_and_sync::<dyn Storage>() };
    let mut verdict = Verdict::Passed;
    let storage = open(place).await?;
    thread::scope(|scope| {
        let tasks: Vec<_> = (0..TASKS)
            .map(|task| {
                let storage = storage.clone();
                scope.spawn(move || block_on(one_task(&*storage, task, ROUNDS)))
            })
            .collect();
        tasks.into_iter().try_for_each(joined)
    })?;
    // The same in one thread, where each waits while the others go on.
    join_all((TASKS..2 * TASKS).map(|task| one_task(&*storage, task, ROUNDS)))
        .await
        .into_iter()
        .collect::<Result<(), _>>()?;
    let left = storage.list_all(&[]).await.answers("a listing")?.len() as u64;
    ensure_eq!(left, TASKS * ROUNDS, "the blobs that the tasks left");
    drop(storage);
    alone_is_who_is_alone(place, &mut verdict).await?;
    Ok(verdict)
}

const fn handles_are_send_and_sync<T: Send + Sync + ?Sized>() {}

async fn one_task(storage: &dyn Storage, task: u64, rounds: u64) -> Result<(), Breach> {
    for round in 0..rounds {
        let (name, bytes) = (sample_name(1000 * task + round), sample_bytes(round, 2000));
        let outcome = storage.put(name, bytes.clone()).await.answers("a put beside others")?;
        ensure_eq!(outcome, Put::Created, "a put beside others");
        if round % 10 == task {
            storage.sync().await.answers("a sync beside others")?;
        }
        ensure_holds(storage, name, Some(&bytes), "put beside others").await?;
        let prefix = name.as_bytes().get(..1).unwrap_or_default();
        let listed = storage.list_all(prefix).await.answers("a listing beside others")?;
        ensure!(listed.contains(&name), "a task does not list what it put");
        if round % 2 == 0 {
            storage.delete(name).await.answers("a delete beside others")?;
            ensure_holds(storage, name, None, "deleted beside others").await?;
        }
    }
    Ok(())
}
