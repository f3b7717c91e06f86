//! Wrappers that are storages themselves, each with one thing to add.
//!
//! From the engine down, in the order that `strongroom` stacks them:
//!
//! | layer | adds | why there |
//! |---|---|---|
//! | [`ReadOnly`] | nothing is changed | a guard, which the engine stands on wherever it opens for reading only |
//! | [`Cached`] | records come from a cache | a hit costs nothing of what is below |
//! | [`Retry`] | what can be settled is settled | each try is limited, timed and counted anew |
//! | [`Limit`] | calls at once, bytes a second | waiting for one's turn is not the medium being slow |
//! | [`Timeout`] | a call that hangs is an error | |
//! | [`Measured`] | counts | what really goes to the medium |
//!
//! Any other order is right too, only less useful. All of them answer the capabilities of what they wrap, because they
//! change none: a put that a retry settled was durable when that was asked for, a read of [`Storage::get`] is never
//! answered from a cache, and nothing is put or deleted that was not asked for.
//!
//! [`Storage::get`]: crate::storage::Storage::get

mod cached;
mod limit;
mod metrics;
mod read_only;
mod retry;
mod timeout;

pub use cached::Cached;
pub use limit::{Limit, Limits};
pub use metrics::{Measured, Metrics, MetricsSnapshot, OperationCounts};
pub use read_only::ReadOnly;
pub(crate) use retry::{Attempts, put_own_durable};
pub use retry::{Retry, RetryPolicy};
pub use timeout::Timeout;
