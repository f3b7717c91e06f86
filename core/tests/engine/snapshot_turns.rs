//! Many tasks of one process that take and remove snapshots at once, interleaved by seed: a die says whose turn it is, and
//! storage lets others run before each effect and before each answer.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use futures_lite::future::block_on;
use strongroom_conformance::crash::CrashOptions;
use strongroom_conformance::{Dice, simulate};
use strongroom_core::crypto::Suite;
use strongroom_core::engine::{Engine, Tuning};

use crate::support::{Bed, assert_clean, put};

const TASKS: u64 = 12;
const ROUNDS: u64 = 4;
/// Who has to begin anew so often has others before it all the time. Where tasks take turns, none has to.
const ATTEMPTS_MAX: u32 = 3;

type Task<'t> = Pin<Box<dyn Future<Output = ()> + 't>>;

/// Polls the tasks in an order of the dice's until all have ended: in some runs fairly, in others by ranks that change seldom.
/// All are polled whether they were woken or not; who waits for a lock goes on waiting.
fn run(dice: &mut Dice, tasks: Vec<Task<'_>>) {
    let by_rank = dice.below(2) == 0;
    let mut tasks: Vec<(u64, Task<'_>)> = tasks.into_iter().map(|task| (dice.roll(), task)).collect();
    while !tasks.is_empty() {
        let mut next = dice.below(tasks.len() as u64) as usize;
        if by_rank && !dice.per_mille(300) {
            next = (0..tasks.len()).max_by_key(|number| tasks[*number].0).unwrap_or(next);
        }
        if dice.per_mille(30) {
            tasks[next].0 = dice.roll();
        }
        if tasks[next].1.as_mut().poll(&mut Context::from_waker(Waker::noop())) == Poll::Ready(()) {
            drop(tasks.swap_remove(next));
        }
    }
}

/// Takes snapshots, and removes each again; none of that is in anybody's way.
async fn take_and_remove(engine: Engine, id: u64) {
    for round in 0..ROUNDS {
        let name = format!("{id} {round}");
        put(&engine, name.as_bytes(), &[1]).await.unwrap();
        engine.create_snapshot(&name).await.unwrap_or_else(|error| panic!("{name} was not taken: {error}"));
        engine.remove_snapshot(&name).await.unwrap_or_else(|error| panic!("{name} was not removed: {error}"));
    }
}

#[test]
fn tasks_that_take_and_remove_snapshots_at_once_take_turns_and_none_is_put_off_for_ever() {
    simulate(12, |seed| {
        let mut dice = Dice::new(seed);
        let (mut bed, engine) = block_on(async {
            let (mut bed, engine) = Bed::new(seed, 4096, Suite::Aes256Gcm, CrashOptions::default()).await;
            engine.close().await.unwrap();
            bed.tuning = Tuning { attempts_max: ATTEMPTS_MAX, ..bed.tuning };
            let engine = bed.open().await.unwrap();
            (bed, engine)
        });
        run(&mut dice, (0..TASKS).map(|id| Box::pin(take_and_remove(engine.clone(), id)) as Task<'_>).collect());
        block_on(async {
            assert_eq!(engine.snapshots().await.unwrap(), []);
            assert_clean(&engine).await;
            drop(engine);
            let engine = bed.open().await.unwrap();
            assert_eq!(engine.snapshots().await.unwrap(), []);
            assert_clean(&engine).await;
        });
    });
}
