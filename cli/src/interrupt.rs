//! SIGINT and SIGTERM: the first asks to stop at the next safe point, the second stops at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use signal_hook::consts::{SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::iterator::Signals;
use signal_hook::low_level;

use crate::exit::{Exit, Failure};
use crate::output::complain;

/// Whether someone asked to stop.
#[derive(Clone, Default)]
pub(crate) struct Interrupt {
    asked: Arc<AtomicBool>,
    /// While others are waited for and nothing needs to be left tidy.
    waiting: Arc<AtomicBool>,
}

/// While it lives, the first signal stops at once.
pub(crate) struct AtOnce(Arc<AtomicBool>);

impl Drop for AtOnce {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

impl Interrupt {
    /// Begins to listen. Not called before passwords were asked for: a prompt must end at the first Ctrl-C.
    pub(crate) fn listen(&self) -> Result<(), Failure> {
        let failed = |error| Failure::failed(format!("cannot listen to signals: {error}"));
        // With a handler, a write over the limit on a file's size fails like any other instead of ending the process.
        signal_hook::flag::register(SIGXFSZ, Arc::default()).map_err(failed)?;
        let early = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // One that comes between the next two is caught, and noted by neither.
            signal_hook::flag::register(signal, early.clone()).map_err(failed)?;
            // Order matters: the check for a second signal stands before the note of the first.
            signal_hook::flag::register_conditional_shutdown(signal, Exit::Failed.code().into(), self.asked.clone())
                .and_then(|_| signal_hook::flag::register(signal, self.asked.clone()))
                .map_err(failed)?;
        }
        self.asked.fetch_or(early.load(Ordering::SeqCst), Ordering::SeqCst);
        // A handler may say nothing; a thread may.
        let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(failed)?;
        let waiting = self.waiting.clone();
        let stop = move || {
            for _ in signals.forever() {
                if waiting.load(Ordering::SeqCst) {
                    complain("interrupted");
                    low_level::exit(Exit::Failed.code().into());
                }
            }
        };
        std::thread::Builder::new().name("signals".to_owned()).spawn(stop).map(drop).map_err(failed)
    }

    /// Whether to stop at the next safe point.
    pub(crate) fn asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    /// Gives something to a reader that may never take it: until then the first signal stops at once, since the call
    /// would be taken up again behind it.
    pub(crate) fn while_waiting<T>(&self, give: impl FnOnce() -> T) -> T {
        self.waiting.store(true, Ordering::SeqCst);
        let given = give();
        self.waiting.store(false, Ordering::SeqCst);
        given
    }

    /// As long as the answer lives, the first signal stops at once: what is under way is done as a whole or not at all, and nothing
    /// of it needs to be left tidy.
    ///
    /// # Errors
    /// Someone has asked to stop already.
    pub(crate) fn stops_at_once(&self) -> Result<AtOnce, Failure> {
        self.waiting.store(true, Ordering::SeqCst);
        let at_once = AtOnce(self.waiting.clone());
        self.check().map(|()| at_once)
    }

    /// The same for a part of something larger: not given at all once someone asked to stop, since the note of a signal
    /// that came just before the wait would wake nobody.
    ///
    /// # Errors
    /// Someone has asked to stop already; what `failed` makes of an error of `give`.
    pub(crate) fn while_asked_for<T>(
        &self,
        give: impl FnOnce() -> std::io::Result<T>,
        failed: fn(std::io::Error) -> Failure,
    ) -> Result<T, Failure> {
        self.while_waiting(|| {
            self.check()?;
            give().map_err(failed)
        })
    }

    /// Waits until stdin has something to read, or its end.
    pub(crate) fn wait_for_stdin(&self) -> Result<(), Failure> {
        let stdin = std::io::stdin();
        loop {
            self.check()?;
            // A signal between the check and the call would be slept over without a limit.
            let limit = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };
            match rustix::event::poll(&mut [PollFd::new(&stdin, PollFlags::IN)], Some(&limit)) {
                Ok(0) | Err(Errno::INTR) => {}
                // What cannot be waited for can be read.
                Ok(_) | Err(_) => return Ok(()),
            }
        }
    }

    /// An error where someone asked to stop.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        if self.asked() { Err(Failure::failed("interrupted: nothing of this command was kept")) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::stdout_failed;

    #[test]
    fn a_signal_that_comes_before_a_wait_is_told_as_one_and_not_as_a_failure_of_what_was_waited_for() {
        let interrupt = Interrupt::default();
        let gives = || interrupt.while_asked_for(|| Ok(1), stdout_failed);
        assert!(matches!(gives(), Ok(1)));
        let fails = interrupt.while_asked_for(|| Err::<(), _>(std::io::Error::other("gone")), stdout_failed);
        assert_eq!(fails.unwrap_err().on("/file").to_string(), "/file: cannot write to stdout: gone");
        interrupt.asked.store(true, Ordering::SeqCst);
        let told = gives().unwrap_err().on("/file").to_string();
        assert!(told.starts_with("interrupted: "), "{told}");
    }
}
