//! The file system on the engine, on storage that crashes.

mod check;
mod concurrency;
mod content;
mod files;
mod model;
mod names;
mod support;
