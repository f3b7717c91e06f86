//! The part of S14 that is about being alone: to whom exclusive access is given, and what it does to newcomers.

use std::cell::RefCell;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, Scope};
use std::time::Duration;

use futures_lite::future::{block_on, poll_once};
use strongroom_core::storage::{ExclusiveGuard, Reach, Storage, StorageExt as _};

use crate::storage::outcome::{Answer as _, Breach, Verdict, ensure};
use crate::storage::visitor::{PAUSE, beside_another_process, ensure_nobody_came, looks};
use crate::storage::{Place, open, sample_bytes, sample_name};

type Guard = Box<dyn ExclusiveGuard>;

const ASKED: &str = "asking for exclusive access";
const TWO: &str = "exclusive access was given to one of two handles";

/// Who was asked so often whether it has come in, a [`PAUSE`] apart, and had not, is kept waiting.
const QUIET_POLLS: u32 = 50;

/// Who waits in a blocking call cannot be asked. It is taken to be kept waiting after this.
const QUIET: Duration = Duration::from_secs(1);

/// So long another process is given to come in where it must not. Whether it tried by then cannot be known.
const QUIET_OF_A_PROCESS: Duration = Duration::from_millis(100);

/// For so long at most a storage that can tell who is alone may be wrong, and say that somebody is there: a lock that was
/// let go lives on in a child of this process, of some other test perhaps, until that has begun its program.
const DOUBT: Duration = Duration::from_secs(5);

/// Tries whether the storage can tell who is alone; a breach where it tells wrong.
pub(super) async fn alone_is_who_is_alone(place: &dyn Place, verdict: &mut Verdict) -> Result<(), Breach> {
    let storage = open(place).await?;
    let other = open(place).await?;
    ensure!(ask(&*storage).await?.is_none(), "{TWO}");
    ensure!(ask(&*other).await?.is_none(), "{TWO}");
    drop(other);
    let doubt = if storage.occupancy().is_some() { DOUBT } else { Duration::ZERO };
    let Some(guard) = ask_for(doubt, &*storage).await? else {
        verdict.limit("the storage cannot tell who is alone: no exclusive access was given");
        return Ok(());
    };
    ensure!(storage.capabilities().reach != Reach::Everywhere, "nobody can lock out everyone");
    let counted = storage.occupancy().zip(storage.occupancy());
    let is_counted = counted.is_some_and(|(one, same)| Arc::ptr_eq(&one, &same));
    ensure!(
        is_counted,
        "exclusive access was given on a handle that does not count who shares it: see Storage::occupancy"
    );
    ensure!(ask(&*storage).await?.is_none(), "exclusive access was given twice");
    // Its holder works on.
    storage.put(sample_name(1), sample_bytes(1, 10)).await.answers("a put by the one who is alone")?;
    storage.sync().await.answers("a sync by the one who is alone")?;

    let other = newcomer_waits(place, guard)?;
    ensure!(ask(&*storage).await?.is_none(), "{TWO}, the other of which had waited for a guard that was dropped");
    ensure!(ask(&*other).await?.is_none(), "{TWO}, itself one that had waited for a guard that was dropped");
    let is_there = other.exists(sample_name(1)).await.answers("looking for a name")?;
    ensure!(is_there, "what was put under exclusive access is gone");
    drop(storage);
    for _ in 0..2 {
        let guard = ask_for(place.patience(), &*other).await?;
        ensure!(guard.is_some(), "exclusive access is not given again after a guard was dropped");
    }
    another_process_counts(place, &*other, verdict).await
}

async fn ask(storage: &dyn Storage) -> Result<Option<Guard>, Breach> {
    storage.try_exclusive().await.answers(ASKED)
}

/// Asks again for a time where it is not given.
async fn ask_for(time: Duration, storage: &dyn Storage) -> Result<Option<Guard>, Breach> {
    for _ in 0..looks(time) {
        let given = ask(storage).await?;
        if given.is_some() {
            return Ok(given);
        }
        thread::sleep(PAUSE);
    }
    ask(storage).await
}

/// Opens a handle while the guard lives, which must wait for its end, and no longer.
fn newcomer_waits(place: &dyn Place, guard: Guard) -> Result<Arc<dyn Storage>, Breach> {
    let gives_up = AtomicBool::new(false);
    thread::scope(|scope| {
        // In a thread of its own, because it may wait in a blocking call.
        let newcomer = newcomer(scope, place, &gives_up);
        if newcomer.recv_timeout(place.patience()).is_err() {
            return Err(Breach::new("no thread was started"));
        }
        if let Ok(News::Came(came)) = newcomer.recv_timeout(QUIET) {
            return Err(match came {
                Ok(_) => {
                    Breach::new("a handle that was opened while exclusive access was held did not wait for its end")
                }
                Err(breach) => {
                    Breach::new(format!("{breach}: it was opened while exclusive access was held, and must wait"))
                }
            });
        }
        drop(guard);
        loop {
            match newcomer.recv_timeout(place.patience()) {
                Ok(News::Came(came)) => return came,
                Ok(News::Begins | News::Waits) => {}
                Err(_) => {
                    gives_up.store(true, Ordering::SeqCst);
                    return Err(Breach::new(format!(
                        "a handle that was opened while exclusive access was held still waits, {:?} after that ended",
                        place.patience()
                    )));
                }
            }
        }
    })
}

/// What is heard of a newcomer, in this order.
enum News {
    Begins,
    /// Not of one that comes in before, or that waits in a blocking call.
    Waits,
    Came(Result<Arc<dyn Storage>, Breach>),
}

/// Opens a handle and makes a call, and tells when that is answered.
fn newcomer<'s>(scope: &'s Scope<'s, '_>, place: &'s dyn Place, gives_up: &'s AtomicBool) -> Receiver<News> {
    let (sender, receiver) = channel();
    scope.spawn(move || {
        // The first call counts too: some open at once, and wait then.
        let mut opening = pin!(async {
            let storage = open(place).await?;
            storage.list(&[], None).await.answers("a listing by a newcomer")?;
            Ok(storage)
        });
        // Whoever does not hear it any more has given up.
        let _ = sender.send(News::Begins);
        let mut polls = 0;
        while !gives_up.load(Ordering::SeqCst) {
            if let Some(came) = block_on(poll_once(opening.as_mut())) {
                let _ = sender.send(News::Came(came));
                return;
            }
            polls += 1;
            if polls == QUIET_POLLS {
                let _ = sender.send(News::Waits);
            }
            thread::sleep(PAUSE);
        }
    });
    receiver
}

/// Another process keeps this one from being alone, and waits itself while this one is.
async fn another_process_counts(place: &dyn Place, storage: &dyn Storage, verdict: &mut Verdict) -> Result<(), Breach> {
    if storage.capabilities().reach == Reach::Process {
        return Ok(());
    }
    let guard = ask_for(place.patience(), storage).await?;
    ensure!(guard.is_some(), "exclusive access is not given again after a guard was dropped");
    let guard = RefCell::new(guard);
    let before = || {
        // Whether it has come to opening this place by then is not known.
        thread::sleep(QUIET_OF_A_PROCESS);
        block_on(ensure_nobody_came(
            storage,
            "another process that was started while exclusive access was held did not wait for its end",
        ))?;
        drop(guard.take());
        Ok(())
    };
    let met = beside_another_process(place, storage, before, async || {
        for _ in 0..3 {
            let given = ask(storage).await?;
            ensure!(given.is_none(), "exclusive access was given while another process had this place open");
        }
        Ok(())
    })
    .await?;
    if !met && place.reach() == Reach::Process {
        verdict.limit("no other process was started: that it keeps this one from being alone was not tried");
    }
    Ok(())
}
