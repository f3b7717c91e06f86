//! The engine on a storage that crashes, against in-memory models.

mod basics;
mod model;
mod processes;
mod support;
