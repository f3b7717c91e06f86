//! How a command ends: the exit codes of the contract, and which error means which.

use std::fmt;

use strongroom::core;
use strongroom::storage::{self, ErrorKind, Operation, StorageUri};

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
    no_room: bool,
    of_storage: bool,
}

impl Failure {
    /// A failure with this code; `message` says what failed, on what, and what to do.
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), quiet: false, no_room: false, of_storage: false }
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
        Self { quiet: true, ..Self::failed(String::new()) }
    }

    /// This machine has no room for more, or grants none.
    #[must_use]
    pub(crate) fn for_want_of_room(self) -> Self {
        Self { no_room: true, ..self }
    }

    /// Says on what it failed.
    #[must_use]
    pub(crate) fn on(mut self, what: impl fmt::Display) -> Self {
        // Who asked to stop knows on what.
        if self.message.starts_with("interrupted: ") {
            return self;
        }
        let what = what.to_string();
        let what = storage::brief(&what);
        // Many causes name it themselves, at the beginning or after what was being done with it.
        let place = format!("{what}: ");
        if !self.message.starts_with(&place) && !self.message.contains(&format!(" {place}")) {
            self.message.insert_str(0, &place);
        }
        self
    }

    /// The same, of a failure of the storage at this address.
    #[must_use]
    pub(crate) fn at(self, storage: &StorageUri) -> Self {
        Self { of_storage: false, ..self.on(storage) }
    }

    /// Says of a failure of a storage that was not named that it is this one.
    #[must_use]
    pub(crate) fn at_unnamed(self, storage: &StorageUri) -> Self {
        let shown = storage.to_string();
        let place = shown.split_once('?').map_or(&*shown, |(place, _)| place);
        if self.of_storage && !names(&self.message, place) { self.at(storage) } else { self }
    }

    /// Says what else there is to know.
    #[must_use]
    pub(crate) fn with(mut self, more: Option<&str>) -> Self {
        if let Some(more) = more {
            self.message = format!("{}; {more}", self.message);
        }
        self
    }

    /// The exit code.
    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }

    /// Whether this machine has no room for more.
    pub(crate) fn is_for_want_of_room(&self) -> bool {
        self.no_room
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

/// Says of a folder, where that is why something was refused, what is to be done with it instead.
pub(crate) fn of_folder(instead: &str) -> impl FnOnce(strongroom::Error) -> Failure {
    move |error| match error {
        strongroom::Error::IsADirectory { path } => Failure::failed(format!("{path}: is a folder{instead}")),
        error => error.into(),
    }
}

impl From<core::Error> for Failure {
    fn from(error: core::Error) -> Self {
        let failure = Self::new(exit_of(&error), error.to_string()).with(advice(&error));
        Self { of_storage: is_of_open_storage(&error), ..failure }
    }
}

/// What to do where the repository's storage is full, and much of what fills it may be nobody's.
fn advice(error: &core::Error) -> Option<&'static str> {
    let is_full = matches!(error, core::Error::Storage(error) if error.kind() == ErrorKind::Full);
    is_full.then_some("if nobody else writes, and all has arrived where a sync client brings it, `compact --end-writers` gives back what writers that died have left")
}

impl From<strongroom::Error> for Failure {
    fn from(error: strongroom::Error) -> Self {
        use strongroom::Error as E;
        match error {
            E::Core(error) => error.into(),
            E::InvalidPath { .. } => Self::usage(error.to_string()),
            _ => Self::failed(error.to_string()),
        }
    }
}

impl From<storage::Error> for Failure {
    fn from(error: storage::Error) -> Self {
        core::Error::from(error).into()
    }
}

/// Whether a message names this place, or something in it, and not only one whose name begins as its does.
fn names(message: &str, place: &str) -> bool {
    let place = place.trim_end_matches('/');
    message.match_indices(place).any(|(at, _)| {
        let after = message.get(at + place.len()..).unwrap_or_default();
        after.chars().next().is_none_or(|next| matches!(next, '/' | ':' | '?' | '`') || next.is_whitespace())
    })
}

/// Whether it is of a storage that is open. Who opens one says itself which it is.
fn is_of_open_storage(error: &core::Error) -> bool {
    use core::Error as E;
    match error {
        E::Storage(error) => error.operation() != Operation::Open,
        E::CommitUnknown { .. } => true,
        _ => false,
    }
}

/// The one place that says which error of the engine means which exit code.
pub(crate) fn exit_of(error: &core::Error) -> Exit {
    use core::Error as E;
    match error {
        E::NotARepository => Exit::NoRepository,
        E::WrongCredentials => Exit::Credentials,
        E::Damaged(_) | E::Missing { .. } | E::RolledBack { .. } | E::UnfinishedCopy => Exit::Damaged,
        E::InClone(error) | E::InCopy(error) => exit_of(error),
        E::Conflict | E::Expired => Exit::Busy,
        E::Invalid(_) | E::BlocksTooSmall { .. } => Exit::Usage,
        E::Storage(error) => match error.kind() {
            ErrorKind::Busy => Exit::Busy,
            ErrorKind::Credentials => Exit::Credentials,
            ErrorKind::Corrupt => Exit::Damaged,
            ErrorKind::Invalid | ErrorKind::Unsupported if error.operation() == Operation::Open => Exit::Usage,
            _ => Exit::Failed,
        },
        _ => Exit::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_that_scripts_tell_apart_has_its_code() {
        let storage = |kind, operation| core::Error::from(storage::Error::new(kind, operation, "test"));
        for (error, code) in [
            (core::Error::NotARepository, 10),
            (core::Error::AlreadyExists, 1),
            (core::Error::WrongCredentials, 12),
            (core::Error::damaged("chunk", None, "test"), 13),
            (core::Error::RolledBack { detail: String::new() }, 13),
            (core::Error::Conflict, 11),
            (core::Error::Expired, 11),
            (core::Error::ReadOnly, 1),
            (storage(ErrorKind::Busy, Operation::Put), 11),
            (storage(ErrorKind::Full, Operation::Put), 1),
            (storage(ErrorKind::Unsupported, Operation::Open), 2),
        ] {
            assert_eq!(Failure::from(error.clone()).exit().code(), code, "{error}");
            assert_eq!(Failure::from(strongroom::Error::from(error.clone())).exit().code(), code, "{error}");
        }
    }

    #[test]
    fn a_failure_of_an_open_storage_names_the_storage_once() {
        let uri = StorageUri::parse("file:///place?cache=none").unwrap();
        let of = |operation, context: &str| {
            let error = storage::Error::new(ErrorKind::Full, operation, context);
            Failure::from(strongroom::Error::from(core::Error::from(error)))
        };
        let said = |failure: Failure| failure.at_unnamed(&uri).to_string();
        assert!(said(of(Operation::Put, "ab/cd")).starts_with("file:///place?cache=none: writing ab/cd: "));
        assert!(
            said(of(Operation::Put, "ab/cd").on("letter")).starts_with("file:///place?cache=none: letter: writing")
        );
        assert!(said(of(Operation::Put, "file:///place/ab")).starts_with("writing file:///place/ab: "));
        // A neighbour is another place, however its name begins.
        for neighbour in ["file:///place2/ab", "file:///place-2", "file:///place.old: ab"] {
            assert!(
                said(of(Operation::Put, neighbour)).starts_with("file:///place?cache=none: writing "),
                "{neighbour}"
            );
        }
        for named in ["file:///place", "file:///place?cache=none"] {
            assert!(said(of(Operation::Put, named)).starts_with(&format!("writing {named}: ")), "{named}");
        }
        let other = StorageUri::parse("file:///other").unwrap();
        assert!(said(of(Operation::Put, "ab/cd").at(&other)).starts_with("file:///other: writing ab/cd: "));
        assert!(said(of(Operation::Open, "file:///other")).starts_with("opening file:///other: "));
        assert_eq!(said(Failure::failed("no storage")), "no storage");
    }

    #[test]
    fn who_has_no_room_left_is_told_what_may_give_some() {
        let full = core::Error::from(storage::Error::new(ErrorKind::Full, Operation::Put, "test"));
        for failure in [Failure::from(full.clone()), Failure::from(strongroom::Error::from(full))] {
            let told = failure.to_string();
            assert!(told.contains("all has arrived") && told.contains("`compact --end-writers`"), "{told}");
        }
        assert!(!Failure::from(core::Error::Conflict).to_string().contains("compact"));
    }

    #[test]
    fn a_failure_is_one_line() {
        let failure = Failure::failed("a\nb").on("file:x");
        assert_eq!(failure.to_string(), "file:x: a b");
        assert_eq!(failure.on("file:x").to_string(), "file:x: a b");
    }
}
