//! Defragmentation in the background: a task that watches how much of the stored blocks is garbage, and moves what lives
//! out of the sparsest ones, within a budget of I/O and time.
//!
//! What must stay true:
//!
//! * It is as safe as any writer: what it copies is nobody's before a commit makes it the chunks' own, and each commit is
//!   whole or not there. What it has moved is moved, whenever it is cut off.
//! * Commits of others wait for one of its commits at most, or for one checkpoint, as behind any other writer. It reads,
//!   copies and makes durable without holding the lead, and commits first for those who wait when it gets it.
//! * At rest it holds nothing: no state is pinned, no engine kept alive.

mod control;
mod step;
mod task;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::select;

pub(super) use control::Control;

use super::Engine;
use super::shared::lock;
use crate::env::TaskHandle;
use crate::{Error, Result};

/// The most chunks that one step may be allowed to move.
pub const STEP_CHUNKS_MAX: u32 = 4096;
/// The most bytes that may be copied before they are committed.
pub const BATCH_BYTES_MAX: u64 = 256 << 20;
/// The least budget, in bytes a second.
pub const BYTES_PER_SECOND_MIN: u64 = 64 << 10;

/// When a defragmenter works, and how much it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DefragmentOptions {
    /// It begins when so much of the stored blocks is garbage, in percent: 2 to 99.
    pub start_percent: u8,
    /// It ends when no more than this is, in percent: 1 to below the start.
    pub stop_percent: u8,
    /// Less garbage than this is not worth beginning for, in bytes.
    pub garbage_bytes_min: u64,
    /// What it reads and writes in a second, in bytes: [`BYTES_PER_SECOND_MIN`] at least.
    pub bytes_per_second: u64,
    /// The share of the time that it may be at work, in percent: 1 to 100.
    pub busy_percent: u8,
    /// Chunks whose places one commit of it changes, at most: 1 to [`STEP_CHUNKS_MAX`]. One such commit is what a commit of
    /// somebody else can have to wait for; or one checkpoint, as behind any other writer.
    pub step_chunks: u32,
    /// Bytes that are copied before they are committed, 1 to [`BATCH_BYTES_MAX`]; but eight blocks' worth at least, so that
    /// what is written is not sparse in turn.
    pub batch_bytes: u64,
    /// How long it waits before it looks for the first time: what is opened for a moment is left in peace.
    pub delay: Duration,
}

impl Default for DefragmentOptions {
    /// From a quarter down to a tenth, where there are 32 MiB to be gained; 16 MiB and a quarter of each second.
    fn default() -> Self {
        Self {
            start_percent: 25,
            stop_percent: 10,
            garbage_bytes_min: 32 << 20,
            bytes_per_second: 16 << 20,
            busy_percent: 25,
            step_chunks: 256,
            batch_bytes: 1 << 20,
            delay: Duration::from_secs(30),
        }
    }
}

impl DefragmentOptions {
    /// Whether the numbers are within their bounds.
    ///
    /// # Errors
    /// [`Error::Invalid`], which says what is wrong.
    pub fn validate(&self) -> Result<()> {
        let wrong = [
            (!(2..=99).contains(&self.start_percent), "start_percent: 2 to 99"),
            (self.stop_percent == 0 || self.stop_percent >= self.start_percent, "stop_percent: 1 to below the start"),
            (self.bytes_per_second < BYTES_PER_SECOND_MIN, "bytes_per_second: 65,536 at least"),
            (!(1..=100).contains(&self.busy_percent), "busy_percent: 1 to 100"),
            (!(1..=STEP_CHUNKS_MAX).contains(&self.step_chunks), "step_chunks: 1 to 4,096"),
            (!(1..=BATCH_BYTES_MAX).contains(&self.batch_bytes), "batch_bytes: 1 to 268,435,456"),
        ];
        match wrong.into_iter().find(|(is_wrong, _)| *is_wrong) {
            Some((_, bounds)) => Err(Error::Invalid(format!("the defragmenter's {bounds}"))),
            None => Ok(()),
        }
    }
}

/// What a defragmenter is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DefragmentState {
    /// There is nothing to do, or it rests after an error.
    #[default]
    Watching,
    /// It looks, or moves.
    Working,
    /// It was told to wait, and does.
    Paused,
    /// It was stopped, or the engine closed.
    Ended,
}

/// How a defragmenter stands.
#[derive(Clone, Debug, Default)]
pub struct DefragmentStatus {
    /// What it is about.
    pub state: DefragmentState,
    /// Bytes of the blocks that something lives in, when it last looked.
    pub stored_bytes: u64,
    /// How many of these are garbage.
    pub garbage_bytes: u64,
    /// Bytes of live payloads that it has moved.
    pub moved_bytes: u64,
    /// Bytes that it has read and written for that.
    pub transferred_bytes: u64,
    /// Blocks that it has deleted.
    pub given_back_blocks: u64,
    /// What it last ran into; it rests then, and tries again later.
    pub last_error: Option<Error>,
}

impl DefragmentStatus {
    /// How much of the stored blocks is garbage, in percent.
    #[must_use]
    pub fn garbage_percent(&self) -> f64 {
        if self.stored_bytes == 0 { 0.0 } else { self.garbage_bytes as f64 * 100.0 / self.stored_bytes as f64 }
    }
}

/// A defragmenter at work beside its engine; see [`Engine::defragmenter`]. Dropping it stops it.
///
/// Where the environment has workers it runs by itself. Where it has none it goes on while somebody awaits
/// [`Defragmenter::run`], [`Defragmenter::idle`] or [`Defragmenter::stop`].
pub struct Defragmenter {
    control: Arc<Control>,
    task: async_lock::Mutex<Option<TaskHandle<()>>>,
}

impl std::fmt::Debug for Defragmenter {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Defragmenter").field("status", &self.status()).finish_non_exhaustive()
    }
}

impl Defragmenter {
    /// Makes it wait. What it has copied already it still commits.
    pub fn pause(&self) {
        self.control.pause();
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.control.resume();
    }

    /// How it stands.
    #[must_use]
    pub fn status(&self) -> DefragmentStatus {
        self.control.status()
    }

    /// Ends when there is nothing to do for it at present: no look is due, it rests after an error, is paused, or has ended.
    pub async fn idle(&self) {
        self.drive(self.control.until_idle()).await;
    }

    /// Ends when it has ended: what an environment without workers has it run by.
    pub async fn run(&self) {
        self.drive(std::future::pending()).await;
    }

    /// Stops it and waits for its end; answers how it stood then. What it has copied already it still commits.
    pub async fn stop(&self) -> DefragmentStatus {
        self.control.stop();
        self.run().await;
        // The workers may have dropped it.
        self.control.update(|status| status.state = DefragmentState::Ended);
        self.status()
    }

    /// Polls the task until it ends or the other future does.
    async fn drive(&self, until: impl Future<Output = ()>) {
        let task = async {
            let mut task = self.task.lock().await;
            if let Some(running) = task.as_mut() {
                running.await;
            }
            *task = None;
        };
        select(pin!(task), pin!(until)).await;
    }
}

impl Drop for Defragmenter {
    fn drop(&mut self) {
        self.control.stop();
    }
}

impl Engine {
    /// Starts defragmenting in the background. It ends when the handle is dropped, when the engine is closed, and when the
    /// last handle of the engine is gone. It works beside readers, writers and snapshots, and moves what they look at, too;
    /// blocks that hold nodes of trees it leaves to [`Engine::compact`].
    ///
    /// # Errors
    /// [`Error::Invalid`] for options out of bounds, and where a defragmenter is at work already; [`Error::ReadOnly`] and
    /// [`Error::Closed`].
    pub fn defragmenter(&self, options: DefragmentOptions) -> Result<Defragmenter> {
        options.validate()?;
        self.shared.check_writable()?;
        let mut current = lock(&self.shared.defragmenter);
        if current.upgrade().is_some_and(|control| !control.is_stopped()) {
            return Err(Error::Invalid("a defragmenter is at work already".into()));
        }
        let control = Arc::new(Control::new());
        *current = Arc::downgrade(&control);
        drop(current);
        let task =
            task::run(control.clone(), Arc::downgrade(&self.shared), options, self.shared.env().sleep(options.delay));
        let task = self.shared.env().spawn(task);
        Ok(Defragmenter { control, task: async_lock::Mutex::new(Some(task)) })
    }
}
