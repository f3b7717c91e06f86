//! Records that lie next to each other in a block, to be fetched by one request.
//!
//! Over a network a request costs a round trip and money, whatever it brings: so what is wanted together and lies together is
//! asked for together. What it takes is bounded: a run is no longer than [`RUN_BYTES_MAX`], and no more of it is brought in vain
//! than is wanted.

use std::ops::Range;

use super::reader::Sought;
use crate::storage::Name;

/// As much may lie between two records of a run. It passes a line of 1 Gbit/s in a quarter of a millisecond, where even near round
/// trips take several; where bytes cost money and time does not count, a request is worth some 4 KiB, and two of these parts are
/// the least that a chunk between takes.
pub(super) const GAP_BYTES_MAX: u32 = 32 << 10;

/// What one request asks for at most: all of a block of the size that is best for S3. Of larger blocks as much at a time, so that
/// what waits for its records to be opened stays bounded.
pub(super) const RUN_BYTES_MAX: u32 = 1 << 20;

/// What one request is to bring.
pub(super) struct Run {
    pub(super) name: Name,
    /// The part of the block that holds all of the records.
    pub(super) part: Range<u32>,
    /// Which records, by their places in what was asked for, ascending by where they lie.
    pub(super) records: Vec<(usize, Sought)>,
    /// How much of the part the records need.
    needed: u32,
}

impl Run {
    /// Whether a record that lies behind the others can be brought by the same request.
    fn takes(&self, name: Name, part: &Range<u32>) -> bool {
        let end = self.part.end.max(part.end);
        let bytes = end.saturating_sub(self.part.start);
        let needed = self.needed.saturating_add(self.adds(part));
        name == self.name
            && part.start.saturating_sub(self.part.end) <= GAP_BYTES_MAX
            && bytes <= RUN_BYTES_MAX
            && bytes / 2 <= needed
    }

    /// How much of a part is not asked for already.
    fn adds(&self, part: &Range<u32>) -> u32 {
        part.end.saturating_sub(part.start.max(self.part.end))
    }
}

/// Puts records that lie together into runs. `part` is what a request for one alone asks for: aligned.
pub(super) fn together(mut wanted: Vec<(usize, Sought)>, part: impl Fn(&Sought) -> Range<u32>) -> Vec<Run> {
    wanted.sort_by_key(|(_, record)| (record.name, record.place.offset));
    let mut runs: Vec<Run> = Vec::new();
    for (index, record) in wanted {
        let part = part(&record);
        match runs.last_mut() {
            Some(run) if run.takes(record.name, &part) => {
                run.needed = run.needed.saturating_add(run.adds(&part));
                run.part.end = run.part.end.max(part.end);
                run.records.push((index, record));
            }
            _ => {
                let needed = part.end.saturating_sub(part.start);
                runs.push(Run { name: record.name, part, records: vec![(index, record)], needed });
            }
        }
    }
    runs
}
