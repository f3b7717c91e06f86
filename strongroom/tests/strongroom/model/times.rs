//! What is known of the times of an inode: what they were when they were looked at last, and since when they may be others.

use std::sync::atomic::{AtomicU64, Ordering};

use strongroom::core::env::{Clock, UnixMillis};
use strongroom::fs::{Metadata, Timestamp};

/// The time that all processes of a history see. It goes on by a millisecond whenever one of them looks, so that of two changes
/// the later one has a later time.
#[derive(Debug)]
pub(crate) struct Time(AtomicU64);

impl Time {
    /// What the next look shows; whatever is there is from before.
    pub(crate) fn now(&self) -> UnixMillis {
        self.0.load(Ordering::Relaxed)
    }
}

impl Default for Time {
    fn default() -> Self {
        Self(AtomicU64::new(1_700_000_000_000))
    }
}

impl Clock for Time {
    fn now(&self) -> UnixMillis {
        self.0.fetch_add(1, Ordering::Relaxed)
    }

    fn monotonic_nanos(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed) * 1_000_000
    }
}

fn moment(millis: UnixMillis) -> Timestamp {
    Timestamp::from_nanos(millis * 1_000_000)
}

/// One of the times of an inode.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known {
    /// As it was when it was looked at last, or as it was set by hand; `None` of a new inode.
    was: Option<Timestamp>,
    /// It may be that of a change, which was not before.
    since: Option<UnixMillis>,
    /// It is.
    is_other: bool,
}

impl Known {
    pub(crate) fn set(time: Timestamp) -> Self {
        Self { was: Some(time), since: None, is_other: false }
    }

    pub(crate) fn changes(&mut self, since: UnixMillis) {
        (self.since, self.is_other) = (Some(since), true);
    }

    /// The change may leave it as it is.
    pub(crate) fn may_change(&mut self, since: UnixMillis) {
        self.since = Some(self.since.map_or(since, |earlier| earlier.min(since)));
    }

    fn is_right(&self, found: Timestamp, now: UnixMillis) -> bool {
        let is_as_it_was = !self.is_other && self.was == Some(found);
        is_as_it_was || self.since.is_some_and(|since| (moment(since)..moment(now)).contains(&found))
    }
}

/// Those that no caller sets as he likes, save the last.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    birth: Known,
    /// Of whatever there is about it, but when it was read.
    pub(crate) status: Known,
    /// Of the content, or of the names in a directory.
    pub(crate) content: Known,
}

impl Times {
    /// Of what is made now.
    pub(crate) fn new(now: UnixMillis) -> Self {
        let new = Known { was: None, since: Some(now), is_other: true };
        Self { birth: new, status: new, content: new }
    }

    /// Content, or a name in a directory, is another.
    pub(crate) fn changes(&mut self, since: UnixMillis) {
        self.status.changes(since);
        self.content.changes(since);
    }

    /// Compares, and learns what they are.
    pub(crate) fn look(&mut self, found: &Metadata, now: UnixMillis) -> Result<(), String> {
        // Nobody sets that of the status, so it never goes back.
        let goes_back = self.status.was.is_some_and(|was| found.ctime < was);
        for (which, found, known) in [
            ("birth", found.btime, &mut self.birth),
            ("status", found.ctime, &mut self.status),
            ("modification", found.mtime, &mut self.content),
        ] {
            if !known.is_right(found, now) || (which == "status" && goes_back) {
                return Err(format!("the time of {which} is {found:?}, at {now}, in the model {known:?}"));
            }
            *known = Known::set(found);
        }
        Ok(())
    }
}
