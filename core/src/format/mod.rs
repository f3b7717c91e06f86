//! The stored structures, one file each: bytes to structs and back, nothing else. This module imports no sibling and
//! does no cryptography beyond an unkeyed checksum; what it reads comes from hostile storage until a key holder has
//! authenticated it, so every decoder refuses what it does not understand, before it allocates.
//!
//! Integers are little-endian and of fixed width; `docs/format.md` has the tables.

mod block_id;
mod bytes;
mod clone_mark;
pub mod commit;
mod directory;
mod error;
pub mod header;
pub mod limits;
pub mod node;
mod pointer;
mod record;
pub mod rows;
pub mod slot;
mod trailer;
pub mod well_known;

pub use block_id::{BlockId, COUNTER_MAX};
pub use bytes::{Reader, Writer};
pub use clone_mark::CloneMark;
pub use directory::{DirectoryEntry, decode_directory};
pub use error::FormatError;
pub use pointer::Pointer;
pub use record::{
    AAD_BYTES, BlockClass, DIRECTORY_INDEX, RECORDS_COUNT_MAX, RecordKind, SALT_BYTES, SEAL_BYTES, TRAILER_INDEX, aad,
};
pub use trailer::Trailer;
