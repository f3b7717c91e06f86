//! A figure: one measured value of one row in one round, a line of JSON.
//!
//! The comparison crates include this file, so that everyone's figures read alike: it names nothing but `serde`.

use std::io::Write as _;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// The schema of a line.
pub const SCHEMA: &str = "strongroom/bench/1";

/// One measured value.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Figure {
    /// [`SCHEMA`].
    pub schema: String,
    /// Whose: `strongroom`, a peer, or `limit`.
    pub who: String,
    /// What was measured: `file/write/dedup-on`.
    pub row: String,
    /// The block size in bytes, where there are blocks.
    pub block_bytes: Option<u32>,
    /// The unit of the value.
    pub unit: String,
    /// The value.
    pub value: f64,
    /// What the storage was asked to do meanwhile, where that was counted.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub trace: Option<Trace>,
}

/// What a row that claims durability asked of the storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// Operations that were answered as durable.
    pub operations: u64,
    /// Commits that the chain grew by.
    pub commits: u64,
    /// Calls of `put_durable`, `sync` and `persist`.
    pub barriers: u64,
    /// Blobs put, in either way.
    pub puts: u64,
}

impl Trace {
    /// Whether each operation can have been covered: `at_once` callers share one barrier at best, and each commit has one
    /// of its own.
    ///
    /// # Errors
    /// What is missing, in words.
    pub fn covers(&self, at_once: u64) -> Result<(), String> {
        let Self { operations, commits, barriers, puts } = *self;
        let groups = operations.div_ceil(at_once.max(1));
        if barriers < groups || barriers < commits || commits < groups || puts < commits {
            return Err(format!(
                "{operations} durable operations by {at_once} at once need {groups} groups, each a commit with a barrier: \
                 there were {commits} commits, {puts} puts and {barriers} barriers"
            ));
        }
        Ok(())
    }
}

/// Collects figures: each is written as a line at once, and the medians are printed at the end.
pub struct Recorder {
    who: String,
    json: Option<std::fs::File>,
    figures: Vec<Figure>,
    /// The block size of what is recorded next.
    pub block_bytes: Option<u32>,
}

impl Recorder {
    /// For `who`; lines are appended to the file `json`.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn new(who: &str, json: Option<&std::path::Path>) -> std::io::Result<Self> {
        let json = json.map(|path| std::fs::File::options().create(true).append(true).open(path)).transpose()?;
        Ok(Self { who: who.to_owned(), json, figures: Vec::new(), block_bytes: None })
    }

    /// Notes a value.
    ///
    /// # Errors
    /// When the line cannot be written.
    pub fn note(&mut self, row: &str, unit: &str, value: f64) -> std::io::Result<()> {
        self.note_traced(row, unit, value, None)
    }

    /// Notes a value with what the storage was asked for.
    ///
    /// # Errors
    /// When the line cannot be written.
    pub fn note_traced(&mut self, row: &str, unit: &str, value: f64, trace: Option<Trace>) -> std::io::Result<()> {
        let (who, row) = match row.strip_prefix("limit/") {
            Some(row) => ("limit", row),
            None => (self.who.as_str(), row),
        };
        let figure = Figure {
            schema: SCHEMA.to_owned(),
            who: who.to_owned(),
            row: row.to_owned(),
            block_bytes: if who == "limit" { None } else { self.block_bytes },
            unit: unit.to_owned(),
            value,
            trace,
        };
        if let Some(json) = &mut self.json {
            writeln!(json, "{}", serde_json::to_string(&figure)?)?;
        }
        self.figures.push(figure);
        Ok(())
    }

    /// Notes how many bytes a second, in decimal megabytes.
    ///
    /// # Errors
    /// When the line cannot be written.
    pub fn throughput(&mut self, row: &str, bytes: u64, took: Duration) -> std::io::Result<()> {
        self.note(row, "MB/s", bytes as f64 / 1e6 / seconds(took))
    }

    /// Notes how many of something a second.
    ///
    /// # Errors
    /// When the line cannot be written.
    pub fn rate(&mut self, row: &str, count: u64, took: Duration, trace: Option<Trace>) -> std::io::Result<()> {
        self.note_traced(row, "/s", count as f64 / seconds(took), trace)
    }

    /// The medians of all rounds, as a table to read.
    #[must_use]
    pub fn table(&self) -> String {
        let mut table = String::new();
        for median in medians(&self.figures) {
            let block = median.block_bytes.map(|bytes| format!("{} KiB", bytes >> 10)).unwrap_or_default();
            let trace = median.trace.map_or_else(String::new, |trace| {
                format!("  {} commits, {} barriers, {} puts", trace.commits, trace.barriers, trace.puts)
            });
            let spread = format!("({} to {}, {})", shown(median.least), shown(median.most), median.rounds);
            table.push_str(&format!(
                "{:<10} {:<46} {:>9} {:>10} {:<5} {spread:<24}{trace}\n",
                median.who,
                median.row,
                block,
                shown(median.value),
                median.unit
            ));
        }
        table
    }
}

/// The median of the rounds of one row.
#[derive(Clone, Debug)]
pub struct Median {
    /// As in [`Figure`].
    pub who: String,
    /// As in [`Figure`].
    pub row: String,
    /// As in [`Figure`].
    pub block_bytes: Option<u32>,
    /// As in [`Figure`].
    pub unit: String,
    /// The median; the mean of the two in the middle where the count is even.
    pub value: f64,
    /// The least value.
    pub least: f64,
    /// The greatest value.
    pub most: f64,
    /// How many rounds there were.
    pub rounds: usize,
    /// The trace of the last round.
    pub trace: Option<Trace>,
}

/// The median of each row, in the order of first appearance.
#[must_use]
pub fn medians(figures: &[Figure]) -> Vec<Median> {
    let mut rows: Vec<(&Figure, Vec<f64>, Option<Trace>)> = Vec::new();
    for figure in figures {
        let same = |row: &&mut (&Figure, Vec<f64>, Option<Trace>)| {
            row.0.who == figure.who && row.0.row == figure.row && row.0.block_bytes == figure.block_bytes
        };
        match rows.iter_mut().find(same) {
            Some(row) => {
                row.1.push(figure.value);
                row.2 = figure.trace.or(row.2);
            }
            None => rows.push((figure, vec![figure.value], figure.trace)),
        }
    }
    let median = |(figure, mut values, trace): (&Figure, Vec<f64>, Option<Trace>)| {
        values.sort_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied().unwrap_or_default();
        Median {
            who: figure.who.clone(),
            row: figure.row.clone(),
            block_bytes: figure.block_bytes,
            unit: figure.unit.clone(),
            value: (at(values.len().saturating_sub(1) / 2) + at(values.len() / 2)) / 2.0,
            least: at(0),
            most: at(values.len().max(1) - 1),
            rounds: values.len(),
            trace,
        }
    };
    rows.into_iter().map(median).collect()
}

/// A number with three or four digits that matter.
#[must_use]
pub fn shown(value: f64) -> String {
    match value.abs() {
        100.0.. => {
            let digits = format!("{value:.0}");
            let places = digits.len();
            let grouped: Vec<char> = digits
                .chars()
                .enumerate()
                .flat_map(|(at, digit)| {
                    let separator = (at > 0 && (places - at) % 3 == 0 && digit != '-').then_some(',');
                    separator.into_iter().chain([digit])
                })
                .collect();
            grouped.into_iter().collect()
        }
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// Seconds, never 0.
#[must_use]
pub fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64().max(1e-9)
}

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

/// Numbers below a bound, without end: the same ones for the same seed.
pub fn picks(seed: u64, below: u64) -> impl Iterator<Item = u64> {
    let mut state = seed;
    std::iter::from_fn(move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        Some((state >> 20) % below.max(1))
    })
}

/// How long it took.
#[allow(clippy::disallowed_methods)] // Measuring is what this is for.
pub fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let start = Instant::now();
    let result = work();
    (start.elapsed(), result)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a test may
mod tests {
    use super::*;

    #[test]
    fn a_row_without_its_barriers_is_not_durable() {
        let honest = Trace { operations: 64, commits: 64, barriers: 64, puts: 64 };
        honest.covers(1).unwrap();
        Trace { commits: 2, barriers: 2, puts: 2, ..honest }.covers(32).unwrap();
        for cheat in [
            Trace { barriers: 63, ..honest },
            Trace { commits: 63, ..honest },
            Trace { puts: 63, ..honest },
            Trace { barriers: 0, ..honest },
        ] {
            cheat.covers(1).unwrap_err();
        }
        Trace { commits: 1, barriers: 1, puts: 1, ..honest }.covers(32).unwrap_err();
    }

    #[test]
    fn the_median_of_a_row_is_that_of_its_rounds() {
        let mut recorder = Recorder::new("strongroom", None).unwrap();
        for value in [5.0, 1.0, 3.0] {
            recorder.note("a", "MB/s", value).unwrap();
            recorder.note("limit/a", "MB/s", 10.0 * value).unwrap();
        }
        let medians = medians(&recorder.figures);
        let seen: Vec<_> = medians.iter().map(|row| (row.who.as_str(), row.value, row.least, row.most)).collect();
        assert_eq!(seen, [("strongroom", 3.0, 1.0, 5.0), ("limit", 30.0, 10.0, 50.0)]);
        assert!(recorder.table().contains("3.00"));
        recorder.note("a", "MB/s", 4.0).unwrap();
        assert_eq!(super::medians(&recorder.figures).first().map(|row| row.value), Some(3.5));
    }

    #[test]
    fn numbers_are_grouped_and_keep_what_matters() {
        assert_eq!([1_234_567.0, 999.6, 12.34, 0.123].map(shown), ["1,234,567", "1,000", "12.3", "0.12"]);
    }
}
