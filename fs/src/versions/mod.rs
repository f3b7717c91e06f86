//! Versions of files: what commits to a file's content leave of the content before.
//!
//! The extents of a file are those of its current content, versions or not. A transaction that changes the content makes
//! version *n* of version *n* − 1, and moves the extents that it replaces, with the references to chunks that they own, to
//! the table of past extents under *n* ([`change`]). So version *k* is the current content, where nothing has been
//! replaced since *k*, and else what was there when it first was ([`past`]): a commit costs what it changes, reading costs
//! what was changed since, no byte is stored or moved for either. Giving up the oldest version is giving up the
//! extents that the next one replaced ([`history`]).
//!
//! Invariants: of a file whose versions *oldest* to *current* exist, there are version rows for *oldest* to *current* − 1
//! and past extents under *oldest* + 1 to *current*; those under *n* do not overlap, lie within the length of version
//! *n* − 1, and cover what of that is beyond the length of version *n*.

mod change;
mod diff;
mod history;
mod past;

pub(crate) use change::ContentChange;
pub(crate) use diff::differing;
pub use history::Version;
pub(crate) use history::{check_limit, evict, list, load};
pub(crate) use past::{Past, pieces, seek, stride};
