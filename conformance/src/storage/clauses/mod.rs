//! The clause functions: each tries one clause on a fresh place, and answers a verdict, or how it was broken.

mod alone;
mod batches;
mod blobs;
mod crashes;
mod errors;
mod listings;
mod looks;
mod tasks;

pub use batches::*;
pub use blobs::*;
pub use crashes::*;
pub use errors::*;
pub use listings::*;
pub use tasks::*;
