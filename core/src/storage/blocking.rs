use super::{Error, ErrorKind, Operation, Result, Retry};
use crate::env::{Env, MaybeSend};

/// In which thread a storage whose calls block makes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockingMode {
    /// In the thread that awaits: for the blocking API, which pays no thread hop then.
    Inline,
    /// On the workers of the environment: for async executors, which must not be blocked. As many calls run at once as there
    /// are workers ([`Env::parallelism`]), and they are the engine's too: for a network, have threads of your own.
    Offload,
}

/// Runs the blocking calls of a storage where the caller wants them.
#[derive(Clone, Debug)]
pub struct Blocking {
    mode: BlockingMode,
    env: Env,
}

impl Blocking {
    /// Calls run as `mode` says, on the workers of `env` where they must.
    #[must_use]
    pub fn new(mode: BlockingMode, env: Env) -> Self {
        Self { mode, env }
    }

    /// The environment.
    #[must_use]
    pub fn env(&self) -> &Env {
        &self.env
    }

    /// Runs one call to its end; dropping the future does not stop a call that has begun.
    ///
    /// # Errors
    /// What the call answers; [`ErrorKind::Other`] with unknown effect where the worker died.
    pub async fn run<T: MaybeSend + 'static>(
        &self,
        operation: Operation,
        call: impl FnOnce() -> Result<T> + MaybeSend + 'static,
    ) -> Result<T> {
        match self.mode {
            BlockingMode::Inline => call(),
            BlockingMode::Offload => self.env.spawn(async move { call() }).await.unwrap_or_else(|| {
                Err(Error::new(ErrorKind::Other, operation, "a worker thread that died")
                    .with_retry(Retry::Useless)
                    .with_effect(operation.effect_if_lost()))
            }),
        }
    }
}
