//! What the handle of a defragmenter and its task share: what is wanted, what is going on, and who waits for a change.

use std::future::poll_fn;
use std::sync::Mutex;
use std::task::{Poll, Waker};

use futures_util::future::select;

use super::{DefragmentState, DefragmentStatus};
use crate::Error;
use crate::engine::shared::lock;
use crate::env::BoxTask;

/// What the owner wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Run,
    Pause,
    Stop,
}

/// Shared by handle, task and engine. No lock of it is held across an await.
pub(crate) struct Control {
    inner: Mutex<Inner>,
}

struct Inner {
    wanted: Wanted,
    /// Whether a look is due: at the beginning, and when enough has come loose since the last one.
    is_due: bool,
    /// How much must have come loose, all in all, for the next look.
    due_at: u64,
    /// Whether it rests after an error.
    is_resting: bool,
    status: DefragmentStatus,
    waiting: Vec<Waker>,
}

impl Control {
    pub(super) fn new() -> Self {
        Self {
            inner: Mutex::new(Inner {
                wanted: Wanted::Run,
                is_due: true,
                due_at: 0,
                is_resting: false,
                status: DefragmentStatus::default(),
                waiting: Vec::new(),
            }),
        }
    }

    fn change(&self, change: impl FnOnce(&mut Inner)) {
        let waiting = {
            let mut inner = lock(&self.inner);
            change(&mut inner);
            std::mem::take(&mut inner.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Ends when the test is true, which is asked again at each change.
    async fn until(&self, test: impl Fn(&Inner) -> bool) {
        poll_fn(|context| {
            let mut inner = lock(&self.inner);
            if test(&inner) {
                return Poll::Ready(());
            }
            if !inner.waiting.iter().any(|waker| waker.will_wake(context.waker())) {
                inner.waiting.push(context.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }

    pub(super) fn pause(&self) {
        self.change(|inner| {
            if inner.wanted == Wanted::Run {
                inner.wanted = Wanted::Pause;
            }
        });
    }

    pub(super) fn resume(&self) {
        self.change(|inner| {
            if inner.wanted == Wanted::Pause {
                inner.wanted = Wanted::Run;
            }
        });
    }

    /// Asks the task to end; it does after what it has in hand.
    pub(in crate::engine) fn stop(&self) {
        self.change(|inner| inner.wanted = Wanted::Stop);
    }

    /// Whether it is to go on at once.
    pub(super) fn is_running(&self) -> bool {
        lock(&self.inner).wanted == Wanted::Run
    }

    pub(in crate::engine) fn is_stopped(&self) -> bool {
        let inner = lock(&self.inner);
        inner.wanted == Wanted::Stop || inner.status.state == DefragmentState::Ended
    }

    pub(super) fn status(&self) -> DefragmentStatus {
        let inner = lock(&self.inner);
        let state = match (inner.status.state, inner.wanted) {
            (DefragmentState::Watching, Wanted::Pause) => DefragmentState::Paused,
            (state, _) => state,
        };
        DefragmentStatus { state, ..inner.status.clone() }
    }

    pub(super) fn update(&self, update: impl FnOnce(&mut DefragmentStatus)) {
        self.change(|inner| update(&mut inner.status));
    }

    /// `total` bytes have come loose since the engine was opened.
    pub(in crate::engine) fn loosened(&self, total: u64) {
        let is_due = {
            let inner = lock(&self.inner);
            !inner.is_due && total >= inner.due_at
        };
        if is_due {
            self.change(|inner| inner.is_due = true);
        }
    }

    /// Nothing to do before so much has come loose, all in all.
    pub(super) fn rest_until(&self, total: u64) {
        self.change(|inner| {
            inner.is_due = false;
            inner.due_at = total;
        });
    }

    /// Ends when there is something to do, or it is to end.
    pub(super) async fn until_due(&self) {
        self.until(|inner| inner.wanted == Wanted::Stop || (inner.wanted == Wanted::Run && inner.is_due)).await;
    }

    /// Ends when it is not to wait, or no longer.
    pub(super) async fn until_running(&self) {
        self.until(|inner| inner.wanted != Wanted::Pause).await;
    }

    /// Ends when it is to end.
    async fn until_stopped(&self) {
        self.until(|inner| inner.wanted == Wanted::Stop).await;
    }

    /// Ends when the sleep does, or when it is no longer to go on at once.
    pub(super) async fn nap(&self, sleep: BoxTask) {
        select(sleep, Box::pin(self.until(|inner| inner.wanted != Wanted::Run))).await;
    }

    /// Ends when the sleep does, or when it is to end.
    pub(super) async fn sleep(&self, sleep: BoxTask) {
        select(sleep, Box::pin(self.until_stopped())).await;
    }

    /// Ends when there is nothing in hand and nothing to be begun: all is well, it rests after an error, it is paused, or
    /// it has ended.
    pub(super) async fn until_idle(&self) {
        self.until(|inner| match inner.status.state {
            DefragmentState::Ended => true,
            DefragmentState::Watching => inner.wanted == Wanted::Pause || !inner.is_due || inner.is_resting,
            DefragmentState::Working | DefragmentState::Paused => false,
        })
        .await;
    }

    /// Says what went wrong, and ends when the sleep does, or when it is to end.
    pub(super) async fn rest(&self, error: Error, sleep: BoxTask) {
        self.failed(error);
        self.change(|inner| inner.is_resting = true);
        self.sleep(sleep).await;
        self.change(|inner| inner.is_resting = false);
    }

    pub(super) fn failed(&self, error: Error) {
        tracing::warn!(%error, "the defragmenter rests");
        self.update(|status| status.last_error = Some(error));
    }
}
