//! Encrypted, transactional storage.

pub use strongroom_core::{Error, Result};

pub mod env;
pub mod kv;
pub mod trust;
