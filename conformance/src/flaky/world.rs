//! What the handles on one flaky medium share: the dice, the calls, what is late, who waits.

use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use bytes::Bytes;
use strongroom_core::storage::{Change, Name, Operation};

use super::{Fault, FlakyOptions, Rates};
use crate::Dice;
use crate::crash::Calls;

/// How many turns of the executor a slow call waits for each call that does not come.
const TURNS_PER_CALL: u64 = 16;

/// How many changes are remembered for stale listings.
const CHANGES_COUNT_MAX: usize = 256;

#[derive(Clone, Debug)]
pub(super) enum Action {
    Put { name: Name, bytes: Bytes, durable: bool },
    Delete(Name),
    Apply(Vec<Change>),
    Sync,
    Persist(Vec<Name>),
}

pub(super) struct World {
    calls_max: u64,
    state: Mutex<State>,
}

pub(super) struct State {
    dice: Dice,
    pub(super) rates: Rates,
    /// By the number of the call among all.
    pub(super) at_call: BTreeMap<u64, Fault>,
    /// By the number of the call among those of its operation.
    pub(super) at_operation: BTreeMap<(Operation, u64), Fault>,
    pub(super) calls: Calls,
    pub(super) faults: u64,
    /// What takes effect once so many calls have begun.
    pub(super) late: Vec<(u64, Action)>,
    /// The call at which a name came (true) or went.
    changes: VecDeque<(u64, Name, bool)>,
    pub(super) stuck: usize,
    releases: u64,
    waiting: Vec<Waker>,
}

impl World {
    pub(super) fn new(options: FlakyOptions) -> Self {
        let state = State {
            dice: Dice::new(options.seed),
            rates: options.rates,
            at_call: BTreeMap::new(),
            at_operation: BTreeMap::new(),
            calls: Calls::default(),
            faults: 0,
            late: Vec::new(),
            changes: VecDeque::new(),
            stuck: 0,
            releases: 0,
            waiting: Vec::new(),
        };
        Self { calls_max: options.calls_max.max(1), state: Mutex::new(state) }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a call: what happens to it, what takes effect before it, and its number.
    pub(super) fn begin(&self, operation: Operation) -> (Option<Fault>, Vec<Action>, u64) {
        let mut guard = self.lock();
        let state = &mut *guard;
        state.calls.count(operation);
        let now = state.calls.all();
        let (due, late) = std::mem::take(&mut state.late).into_iter().partition(|(when, _)| *when <= now);
        state.late = late;
        let due: Vec<(u64, Action)> = due;
        let planned =
            (state.at_call.remove(&now)).or_else(|| state.at_operation.remove(&(operation, state.calls.of(operation))));
        let fault = planned.or_else(|| state.rates.draw(&mut state.dice, self.calls_max));
        state.faults += u64::from(fault.is_some());
        (fault, due.into_iter().map(|(_, action)| action).collect(), now)
    }

    pub(super) fn later(&self, calls: u64, action: Action) {
        let mut state = self.lock();
        let when = state.calls.all() + calls;
        state.late.push((when, action));
    }

    pub(super) fn changed(&self, name: Name, is_there: bool) {
        let mut state = self.lock();
        let now = state.calls.all();
        state.changes.push_back((now, name, is_there));
        if state.changes.len() > CHANGES_COUNT_MAX {
            state.changes.pop_front();
        }
    }

    /// Which names came or went within the last `calls` calls, and whether they were there before.
    pub(super) fn changes_since(&self, calls: u64) -> BTreeMap<Name, bool> {
        let state = self.lock();
        let since = state.calls.all().saturating_sub(calls);
        let recent = state.changes.iter().rev().take_while(|(when, ..)| *when >= since);
        // The earliest change of a name is seen last, and stays.
        recent.map(|(_, name, is_there)| (*name, !is_there)).collect()
    }

    /// Waits until the call of this number begins, or for some turns where it does not come.
    pub(super) async fn others(&self, number: u64, calls: u64) {
        let mut turns = calls * TURNS_PER_CALL;
        poll_fn(|context| {
            if turns == 0 || self.lock().calls.all() >= number {
                return Poll::Ready(());
            }
            turns -= 1;
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }

    pub(super) fn release(&self) {
        let waiting = {
            let mut state = self.lock();
            state.releases += 1;
            std::mem::take(&mut state.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Waits for the next release.
    pub(super) async fn released(&self) {
        let _stuck = Stuck::new(self);
        let since = self.lock().releases;
        poll_fn(|context| {
            let mut state = self.lock();
            if state.releases > since {
                return Poll::Ready(());
            }
            state.waiting.push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

/// Counts one who is stuck, until he goes on or is dropped.
struct Stuck<'w>(&'w World);

impl<'w> Stuck<'w> {
    fn new(world: &'w World) -> Self {
        world.lock().stuck += 1;
        Self(world)
    }
}

impl Drop for Stuck<'_> {
    fn drop(&mut self) {
        self.0.lock().stuck -= 1;
    }
}
