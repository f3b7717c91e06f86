//! The threads on which the requests of all storages of this process are made.
//!
//! The client needs a runtime of tokio, and nobody who calls has to have one: so there is one here, begun with the first
//! storage and ended with the last.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};

use strongroom_core::storage::{Error, ErrorKind, Operation, Result};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

/// They only move bytes and encrypt connections.
const THREADS: usize = 2;

/// Names are looked up in threads of their own.
const LOOKUPS_MAX: usize = 4;

static SHARED: Mutex<Weak<Threads>> = Mutex::new(Weak::new());

/// The threads, as long as somebody holds them.
#[derive(Debug)]
pub(crate) struct Threads {
    runtime: Option<Runtime>,
}

impl Threads {
    /// Those of this process, begun if there are none.
    pub(crate) fn shared() -> io::Result<Arc<Self>> {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(threads) = shared.upgrade() {
            return Ok(threads);
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .max_blocking_threads(LOOKUPS_MAX)
            .thread_name("strongroom-s3")
            .enable_all()
            .build()?;
        let threads = Arc::new(Self { runtime: Some(runtime) });
        *shared = Arc::downgrade(&threads);
        Ok(threads)
    }

    /// Runs a call on these threads; whoever drops the answer ends the call. A request that was on its way is whole at the
    /// server then, or was cut off, which the server sees by its length.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        operation: Operation,
        call: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let ended = |what: &str| {
            Error::new(ErrorKind::Other, operation, "the threads for requests")
                .with_effect(operation.effect_if_lost())
                .with_source(what.to_owned())
        };
        let Some(runtime) = &self.runtime else { return Err(ended("they have ended")) };
        match Running(runtime.spawn(call)).await {
            Ok(answer) => answer,
            Err(error) if error.is_panic() => Err(ended("the call panicked")),
            Err(_) => Err(ended("the call was ended")),
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Without waiting: whoever drops the last storage may be in a runtime themselves, where waiting is forbidden.
            runtime.shutdown_background();
        }
    }
}

/// A task that ends when nobody waits for it.
struct Running<T>(JoinHandle<T>);

impl<T> Future for Running<T> {
    type Output = std::result::Result<T, tokio::task::JoinError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context)
    }
}

impl<T> Drop for Running<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
