//! The stored structures, one file each: bytes to structs and back, nothing else. This module imports no sibling and
//! does no cryptography beyond an unkeyed checksum; what it reads comes from hostile storage until a key holder has
//! authenticated it, so every decoder refuses what it does not understand, before it allocates.
//!
//! Integers are little-endian and of fixed width; `docs/format.md` has the tables.

mod bytes;
mod error;
pub mod header;
pub mod limits;
pub mod slot;
pub mod well_known;

pub use bytes::{Reader, Writer};
pub use error::FormatError;
