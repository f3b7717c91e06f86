//! What the workloads have in common: bytes to write, and medians.
//!
//! The workloads themselves are in `benches/workloads.rs`; `cargo bench -p strongroom-benches` runs them, with `-- --smoke`
//! at a size that only shows that they run.

use std::time::{Duration, Instant};

/// Incompressible bytes, different for each seed (xorshift64*; no cryptography).
#[must_use]
pub fn random_bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// How long it took.
#[allow(clippy::disallowed_methods)] // Measuring is what this crate is for.
pub fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let start = Instant::now();
    let result = work();
    (start.elapsed(), result)
}

/// The median of the durations; zero of none.
#[must_use]
pub fn median(mut durations: Vec<Duration>) -> Duration {
    durations.sort();
    durations.get(durations.len() / 2).copied().unwrap_or_default()
}

/// Decimal megabytes a second.
#[must_use]
pub fn megabytes_per_second(bytes: u64, duration: Duration) -> f64 {
    bytes as f64 / 1e6 / duration.as_secs_f64().max(1e-9)
}
