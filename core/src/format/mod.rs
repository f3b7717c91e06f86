//! One file for each stored structure: encode and decode, nothing else.
//!
//! Everything decoded here comes from storage, even where it was authenticated first: nothing is indexed or allocated
//! before it was checked, and no input panics.

mod block_id;
mod pointer;
mod record;

pub use block_id::{BlockId, COUNTER_MAX};
pub use pointer::Pointer;
pub use record::{AAD_BYTES, BlockClass, DIRECTORY_INDEX, FORMAT_VERSION, INDEX_MAX, RecordKind, TRAILER_INDEX, aad};
