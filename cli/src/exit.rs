//! How a command ends: the exit codes of the contract, and which error means which.

use std::fmt;

/// The exit codes that scripts rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It failed.
    Failed = 1,
    /// The command line, or what it names, makes no sense.
    Usage = 2,
    /// Done in part; what was left out is listed.
    Partial = 3,
    /// No repository is there.
    NoRepository = 10,
    /// Held by another process, or a commit race lost.
    Busy = 11,
    /// Wrong credentials.
    Credentials = 12,
    /// Damaged, or rolled back.
    Damaged = 13,
}

impl Exit {
    /// The number.
    pub(crate) const fn code(self) -> u8 {
        self as u8
    }
}

/// Why a command ended early: one line for stderr, and the exit code.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    message: String,
    quiet: bool,
}

impl Failure {
    /// A failure with this code; `message` says what failed, on what, and what to do.
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), quiet: false }
    }

    /// A failure of the general kind.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::new(Exit::Failed, message)
    }

    /// A call that makes no sense.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// The reader of stdout went away: nothing is left to say, and nobody to say it to.
    pub(crate) fn reader_gone() -> Self {
        Self { exit: Exit::Failed, message: String::new(), quiet: true }
    }

    /// Says on what it failed.
    #[must_use]
    pub(crate) fn on(mut self, what: impl fmt::Display) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// The exit code.
    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }

    /// Whether there is something to say.
    pub(crate) fn is_quiet(&self) -> bool {
        self.quiet
    }
}

impl fmt::Display for Failure {
    /// One line, whatever the cause wrote into it.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&crate::output::one_line(&self.message))
    }
}
