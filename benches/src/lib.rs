//! What the workloads have in common: bytes to write, a storage that counts, figures, and the tables made of them.
//!
//! The workloads themselves are in `benches/workloads/`; `docs/benchmarks.md` says how to run them and what came out.

pub mod counting;
pub mod figures;
pub mod report;
pub mod settings;
