use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_channel::oneshot;

use super::MaybeSend;
use crate::storage::MaybeSendSync;

/// A task for the workers.
#[cfg(not(target_family = "wasm"))]
pub type BoxTask = Pin<Box<dyn Future<Output = ()> + Send>>;
/// A task for the workers.
#[cfg(target_family = "wasm")]
pub type BoxTask = Pin<Box<dyn Future<Output = ()>>>;

/// The workers.
pub trait Spawn: MaybeSendSync {
    /// Runs the task to its end, some time; it may block its thread.
    fn spawn(&self, task: BoxTask);
    /// How many tasks run at once.
    fn parallelism(&self) -> usize;
}

impl<S: Spawn + ?Sized> Spawn for Arc<S> {
    fn spawn(&self, task: BoxTask) {
        (**self).spawn(task);
    }

    fn parallelism(&self) -> usize {
        (**self).parallelism()
    }
}

/// The result of a task, to be awaited. `None` where the workers dropped the task (they are shutting down, or it panicked).
pub struct TaskHandle<T> {
    state: State<T>,
}

enum State<T> {
    #[cfg(not(target_family = "wasm"))]
    Here(Pin<Box<dyn Future<Output = T> + Send>>),
    #[cfg(target_family = "wasm")]
    Here(Pin<Box<dyn Future<Output = T>>>),
    There(oneshot::Receiver<T>),
}

pub(super) fn start<T: MaybeSend + 'static>(
    spawn: Option<&dyn Spawn>,
    task: impl Future<Output = T> + MaybeSend + 'static,
) -> TaskHandle<T> {
    let state = match spawn {
        None => State::Here(Box::pin(task)),
        Some(spawn) => {
            let (sender, receiver) = oneshot::channel();
            spawn.spawn(Box::pin(async move {
                let _ = sender.send(task.await);
            }));
            State::There(receiver)
        }
    };
    TaskHandle { state }
}

impl<T> Future for TaskHandle<T> {
    type Output = Option<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.state {
            State::Here(task) => task.as_mut().poll(context).map(Some),
            State::There(receiver) => Pin::new(receiver).poll(context).map(Result::ok),
        }
    }
}
