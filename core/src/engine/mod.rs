//! engine

pub mod keyring;
