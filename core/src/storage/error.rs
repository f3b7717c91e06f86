use std::error::Error as StdError;
use std::fmt;

/// What went wrong, coarse enough to act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// No blob of that name; of [`Operation::Open`], no store yet, in a place where opening could create one. What it could not
    /// create, a bucket, and a store that is gone after it was opened, is [`ErrorKind::Other`] with words of its own: this would
    /// say that nothing is there, or that the blob is absent.
    NotFound,
    /// A range past the end of the blob.
    RangeInvalid,
    /// Over a stated limit.
    LimitExceeded,
    /// The medium is full.
    Full,
    /// The medium refuses the caller.
    PermissionDenied,
    /// The medium can be read only.
    ReadOnly,
    /// Another process holds it.
    Busy,
    /// The medium did not answer in time, or is overloaded.
    Unavailable,
    /// Credentials are missing or wrong.
    Credentials,
    /// A URI or an option that makes no sense.
    Invalid,
    /// The scheme is unknown or its feature is off.
    Unsupported,
    /// The medium answers something that it must not.
    Corrupt,
    /// Anything else: see the source.
    Other,
}

/// The operation that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum Operation {
    Open,
    Put,
    PutDurable,
    Get,
    Size,
    Delete,
    List,
    Apply,
    Sync,
    Persist,
    TryExclusive,
}

impl Operation {
    /// What was being done, in words for people.
    #[must_use]
    pub const fn doing(self) -> &'static str {
        match self {
            Self::Open => "opening",
            Self::Put | Self::PutDurable => "writing",
            Self::Get => "reading",
            Self::Size => "measuring",
            Self::Delete => "deleting",
            Self::List => "listing",
            Self::Apply => "changing",
            Self::Sync | Self::Persist => "making durable",
            Self::TryExclusive => "locking",
        }
    }

    /// What a call of this operation may have done when nothing more is known than that it failed.
    #[must_use]
    pub fn effect_if_lost(self) -> Effect {
        match self {
            Self::Put | Self::PutDurable | Self::Delete | Self::Apply | Self::Sync | Self::Persist => Effect::Unknown,
            Self::Open | Self::Get | Self::Size | Self::List | Self::TryExclusive => Effect::None,
        }
    }
}

/// Whether trying again can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// The same call may succeed later.
    CanHelp,
    /// The same call will fail again.
    Useless,
}

/// What a failed call may have done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing changed.
    None,
    /// It may have taken effect, or may yet.
    Unknown,
}

/// A failed storage operation (clause S11).
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    operation: Operation,
    context: String,
    retry: Retry,
    effect: Effect,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of no effect ([`Effect::None`]), where a retry can help if it is [`ErrorKind::Unavailable`] or
    /// [`ErrorKind::Busy`], and else is useless; say what is different. `context` says on what, and holds no secret.
    pub fn new(kind: ErrorKind, operation: Operation, context: impl Into<String>) -> Self {
        let retry = match kind {
            ErrorKind::Unavailable | ErrorKind::Busy => Retry::CanHelp,
            _ => Retry::Useless,
        };
        Self { kind, operation, context: context.into(), retry, effect: Effect::None, source: None }
    }

    /// States whether a retry can help.
    #[must_use]
    pub fn with_retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    /// States what may have happened.
    #[must_use]
    pub fn with_effect(mut self, effect: Effect) -> Self {
        self.effect = effect;
        self
    }

    /// Keeps the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// An I/O error, its kind translated; the effect of a failed write is unknown, of anything else none
    /// ([`Operation::effect_if_lost`]).
    ///
    /// A connection that is refused or lost is [`ErrorKind::Unavailable`], as `TimedOut` and `Interrupted` are; `WouldBlock`
    /// is [`ErrorKind::Busy`], as of a locked file. `docs/backends.md` has the table. `NotFound` becomes
    /// [`ErrorKind::NotFound`], which of an open storage says that a blob is absent: once it is open, give this no other "not
    /// found" than the blob's own, and make [`ErrorKind::Other`] of that of a folder, a table or a file of yours. Whoever knows that nothing was sent
    /// (the first connection of a call was refused) says so with [`Error::with_effect`].
    pub fn from_io(operation: Operation, context: impl Into<String>, source: std::io::Error) -> Self {
        use std::io::ErrorKind as Io;
        let kind = match source.kind() {
            Io::NotFound => ErrorKind::NotFound,
            Io::PermissionDenied => ErrorKind::PermissionDenied,
            Io::ReadOnlyFilesystem => ErrorKind::ReadOnly,
            Io::StorageFull | Io::QuotaExceeded | Io::FileTooLarge => ErrorKind::Full,
            Io::ResourceBusy | Io::WouldBlock => ErrorKind::Busy,
            Io::TimedOut | Io::Interrupted => ErrorKind::Unavailable,
            Io::ConnectionRefused | Io::ConnectionReset | Io::ConnectionAborted | Io::NotConnected => {
                ErrorKind::Unavailable
            }
            Io::BrokenPipe | Io::UnexpectedEof => ErrorKind::Unavailable,
            Io::HostUnreachable | Io::NetworkUnreachable | Io::NetworkDown => ErrorKind::Unavailable,
            Io::InvalidInput | Io::InvalidFilename | Io::NotADirectory | Io::IsADirectory => ErrorKind::Invalid,
            _ => ErrorKind::Other,
        };
        Self::new(kind, operation, context).with_effect(operation.effect_if_lost()).with_source(source)
    }

    /// What went wrong.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The operation that failed.
    #[must_use]
    pub fn operation(&self) -> Operation {
        self.operation
    }

    /// On what it failed.
    #[must_use]
    pub fn context(&self) -> &str {
        &self.context
    }

    /// Whether trying again can help.
    #[must_use]
    pub fn retry(&self) -> Retry {
        self.retry
    }

    /// What the call may have done.
    #[must_use]
    pub fn effect(&self) -> Effect {
        self.effect
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            ErrorKind::NotFound => "not found",
            ErrorKind::RangeInvalid => "range past the end",
            ErrorKind::LimitExceeded => "over the limit",
            ErrorKind::Full => "storage is full: free some space there and try again",
            ErrorKind::PermissionDenied => "permission denied: check who may read and write there",
            ErrorKind::ReadOnly => "storage is read-only: make it writable, or only read from it",
            ErrorKind::Busy => "held by another process: try again when it has ended",
            ErrorKind::Unavailable => "storage does not answer: try again",
            ErrorKind::Credentials => "storage refuses the credentials",
            ErrorKind::Invalid => "invalid",
            ErrorKind::Unsupported => "not supported",
            ErrorKind::Corrupt => "storage answers nonsense",
            ErrorKind::Other => "failed",
        };
        write!(formatter, "{} {}: {what}", self.operation.doing(), brief(&self.context))?;
        if let Some(source) = &self.source {
            write!(formatter, " ({source})")?;
        }
        if self.effect == Effect::Unknown {
            write!(formatter, "; it may have taken effect")?;
        }
        Ok(())
    }
}

/// A name short enough to leave the rest of its line readable: of one of more than 240 characters the beginning and the
/// end. For messages, never for anything that is looked up.
#[must_use]
pub fn brief(name: &str) -> std::borrow::Cow<'_, str> {
    const PART_CHARACTERS: usize = 120;
    if name.len() <= 2 * PART_CHARACTERS || name.chars().count() <= 2 * PART_CHARACTERS {
        return name.into();
    }
    let start = name.chars().take(PART_CHARACTERS);
    let end: Vec<char> = name.chars().rev().take(PART_CHARACTERS).collect();
    start.chain(['…']).chain(end.into_iter().rev()).collect()
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn a_connection_that_is_lost_may_come_back_and_nobody_knows_what_it_did() {
        for kind in [
            io::ErrorKind::ConnectionRefused,
            io::ErrorKind::ConnectionReset,
            io::ErrorKind::ConnectionAborted,
            io::ErrorKind::NotConnected,
            io::ErrorKind::BrokenPipe,
            io::ErrorKind::UnexpectedEof,
            io::ErrorKind::TimedOut,
            io::ErrorKind::Interrupted,
            io::ErrorKind::HostUnreachable,
            io::ErrorKind::NetworkUnreachable,
            io::ErrorKind::NetworkDown,
        ] {
            for (operation, effect) in [(Operation::PutDurable, Effect::Unknown), (Operation::Get, Effect::None)] {
                let error = Error::from_io(operation, "a blob", kind.into());
                assert_eq!(
                    (error.kind(), error.retry(), error.effect()),
                    (ErrorKind::Unavailable, Retry::CanHelp, effect),
                    "{kind:?}"
                );
            }
        }
        let other = Error::from_io(Operation::Put, "a blob", io::ErrorKind::Other.into());
        assert_eq!((other.kind(), other.retry()), (ErrorKind::Other, Retry::Useless));
    }

    #[test]
    fn a_long_name_is_shown_by_its_beginning_and_its_end() {
        for name in ["", "name", &"ä".repeat(240)] {
            assert_eq!(brief(name), name);
        }
        assert_eq!(brief(&format!("begin{}end", "ä".repeat(4_000))).chars().count(), 241);
        let long = format!("begin{}end", "x".repeat(4_000));
        assert!(brief(&long).starts_with("beginx") && brief(&long).ends_with("xend"));
    }
}
