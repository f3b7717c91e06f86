//! What a clause finds: that it holds, how far that was looked at, or what breaks it.

use std::fmt;

use bytes::Bytes;
use strongroom_core::storage::{Error, ErrorKind, Name, Operation, Result, Storage, StorageExt as _};

/// What a clause function answers.
pub type Outcome = std::result::Result<Verdict, Breach>;

/// The clause holds, as far as it was tested.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// All of it was tested.
    Passed,
    /// What was tested holds; what was not tested, and why, stands here, a sentence each.
    Limited(Vec<String>),
}

impl Verdict {
    /// Notes what was not tested.
    pub(super) fn limit(&mut self, reason: impl Into<String>) {
        match self {
            Self::Passed => *self = Self::Limited(vec![reason.into()]),
            Self::Limited(reasons) => reasons.push(reason.into()),
        }
    }

    /// What was not tested; empty where all was.
    #[must_use]
    pub fn limits(&self) -> &[String] {
        match self {
            Self::Passed => &[],
            Self::Limited(reasons) => reasons,
        }
    }
}

/// How a storage broke a clause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breach(String);

impl Breach {
    pub(super) fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

impl fmt::Display for Breach {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Breach {}

/// Ends the clause with a breach unless the condition holds.
macro_rules! ensure {
    ($holds:expr, $($what:tt)+) => {
        if !$holds {
            return Err($crate::storage::outcome::Breach::new(format!($($what)+)));
        }
    };
}

/// The same where two values must be equal; both are shown.
macro_rules! ensure_eq {
    ($found:expr, $wanted:expr, $($what:tt)+) => {
        match (&$found, &$wanted) {
            (found, wanted) => ensure!(*found == *wanted, "{}: {found:?}, not {wanted:?}", format_args!($($what)+)),
        }
    };
}

pub(super) use {ensure, ensure_eq};

/// What a call had to answer.
pub(super) trait Answer<T> {
    /// It had to succeed.
    fn answers(self, what: impl fmt::Display) -> std::result::Result<T, Breach>;

    /// It had to fail.
    fn refuses(self, what: impl fmt::Display) -> std::result::Result<Error, Breach>;

    /// It had to fail in this way.
    fn refuses_as(
        self,
        kind: ErrorKind,
        operation: Operation,
        what: impl fmt::Display,
    ) -> std::result::Result<Error, Breach>;
}

impl<T> Answer<T> for Result<T> {
    fn answers(self, what: impl fmt::Display) -> std::result::Result<T, Breach> {
        self.map_err(|error| Breach::new(format!("{what} failed: {error}")))
    }

    fn refuses(self, what: impl fmt::Display) -> std::result::Result<Error, Breach> {
        match self {
            Ok(_) => Err(Breach::new(format!("{what} succeeded"))),
            Err(error) => Ok(error),
        }
    }

    fn refuses_as(
        self,
        kind: ErrorKind,
        operation: Operation,
        what: impl fmt::Display,
    ) -> std::result::Result<Error, Breach> {
        let error = self.refuses(&what)?;
        let found = (error.kind(), error.operation());
        ensure!(found == (kind, operation), "{what} is {found:?}, not {:?}: {error}", (kind, operation));
        Ok(error)
    }
}

/// All of a blob; `None` where it is absent.
pub(super) async fn whole(storage: &dyn Storage, name: Name) -> std::result::Result<Option<Bytes>, Breach> {
    match storage.get_all(name, u64::from(storage.capabilities().block_bytes_max)).await {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Breach::new(format!("reading {name} failed: {error}"))),
    }
}

/// The blob must be exactly this, or absent.
pub(super) async fn ensure_holds(
    storage: &dyn Storage,
    name: Name,
    wanted: Option<&Bytes>,
    when: &str,
) -> std::result::Result<(), Breach> {
    let found = whole(storage, name).await?;
    ensure!(found.as_ref() == wanted, "{when}, {name} is {}", difference(found.as_ref(), wanted));
    Ok(())
}

/// In words, because a blob can be long.
pub(super) fn difference(found: Option<&Bytes>, wanted: Option<&Bytes>) -> String {
    match (found, wanted) {
        (None, None) => "absent, as it should be".to_owned(),
        (None, Some(wanted)) => format!("absent, not {} bytes long", wanted.len()),
        (Some(found), None) => format!("{} bytes long, not absent", found.len()),
        (Some(found), Some(wanted)) if found.len() != wanted.len() => {
            format!("{} bytes long, not {}", found.len(), wanted.len())
        }
        (Some(found), Some(wanted)) => {
            let place = found.iter().zip(wanted).position(|(found, wanted)| found != wanted);
            format!("of other bytes, the first of them at {}", place.unwrap_or(wanted.len()))
        }
    }
}
