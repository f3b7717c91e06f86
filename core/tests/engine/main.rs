//! The engine on a storage that crashes, against in-memory models.

mod basics;
mod freshness;
mod hostile;
mod model;
mod processes;
mod races;
mod support;
