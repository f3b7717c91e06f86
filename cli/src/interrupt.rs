//! SIGINT and SIGTERM: the first asks to stop at the next safe point, the second stops at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};

use crate::exit::{Exit, Failure};

/// Whether someone asked to stop.
#[derive(Clone, Default)]
pub(crate) struct Interrupt {
    asked: Arc<AtomicBool>,
}

impl Interrupt {
    /// Begins to listen. Not called before passwords were asked for: a prompt must end at the first Ctrl-C.
    pub(crate) fn listen(&self) -> Result<(), Failure> {
        for signal in [SIGINT, SIGTERM] {
            // Order matters: the check for a second signal stands before the note of the first.
            signal_hook::flag::register_conditional_shutdown(signal, Exit::Failed.code().into(), self.asked.clone())
                .and_then(|_| signal_hook::flag::register(signal, self.asked.clone()))
                .map_err(|error| Failure::failed(format!("cannot listen to signals: {error}")))?;
        }
        Ok(())
    }

    /// Whether to stop at the next safe point.
    pub(crate) fn asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    /// An error where someone asked to stop.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        if self.asked() { Err(Failure::failed("interrupted: nothing of this command was kept")) } else { Ok(()) }
    }
}
