use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_channel::oneshot;
use futures_util::future::{Either, select};

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

/// As [`start`], and the task ends with its handle.
pub(super) fn start_wanted<T: MaybeSend + 'static>(
    spawn: Option<&dyn Spawn>,
    task: impl Future<Output = T> + MaybeSend + 'static,
) -> TaskHandle<T> {
    let Some(spawn) = spawn else { return start(None, task) };
    let (mut sender, receiver) = oneshot::channel();
    spawn.spawn(Box::pin(async move {
        // The handle first: of what nobody wants any more when its turn comes, nothing is begun.
        let done = match select(sender.cancellation(), pin!(task)).await {
            Either::Left(_) => None,
            Either::Right((done, _)) => Some(done),
        };
        if let Some(done) = done {
            let _ = sender.send(done);
        }
    }));
    TaskHandle { state: State::There(receiver) }
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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    /// Workers that work when they are told to.
    #[derive(Default)]
    struct Later(Mutex<Vec<BoxTask>>);

    impl Spawn for Later {
        fn spawn(&self, task: BoxTask) {
            self.0.lock().unwrap().push(task);
        }

        fn parallelism(&self) -> usize {
            1
        }
    }

    impl Later {
        /// How many tasks are left after each has had a turn.
        fn turn(&self) -> usize {
            let mut tasks = self.0.lock().unwrap();
            let mut context = Context::from_waker(std::task::Waker::noop());
            tasks.retain_mut(|task| task.as_mut().poll(&mut context).is_pending());
            tasks.len()
        }
    }

    #[test]
    fn what_only_its_handle_wants_ends_with_it_and_the_rest_goes_on() {
        let (later, held) = (Later::default(), Arc::new(()));
        let task = |held: Arc<()>| async move {
            let () = std::future::pending().await;
            drop(held);
        };
        let wanted = start_wanted(Some(&later), task(held.clone()));
        let kept = start(Some(&later), task(held.clone()));
        assert_eq!((later.turn(), Arc::strong_count(&held)), (2, 3));
        drop((wanted, kept));
        assert_eq!((later.turn(), Arc::strong_count(&held)), (1, 2));

        let begun = Arc::new(AtomicBool::new(false));
        let begins = begun.clone();
        drop(start_wanted(Some(&later), async move { begins.store(true, Ordering::Relaxed) }));
        assert_eq!(later.turn(), 1);
        assert!(!begun.load(Ordering::Relaxed), "nobody waited for it any more");

        let mut done = start_wanted(Some(&later), async { 7 });
        assert_eq!(later.turn(), 1);
        let mut context = Context::from_waker(std::task::Waker::noop());
        assert_eq!(Pin::new(&mut done).poll(&mut context), Poll::Ready(Some(7)));
    }
}
