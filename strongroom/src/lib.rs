//! Encrypted, transactional storage.

pub mod env;
pub mod trust;
