use std::collections::HashMap;

use strongroom_core::engine::ChunkNumber;

/// Chunks that lie in one page.
const PAGE_CHUNKS: u64 = 16;

/// Up to which of its bytes each of many chunks was looked at, in a few bytes each: numbers come in runs.
#[derive(Default)]
pub(super) struct Reached {
    pages: HashMap<u64, [u32; PAGE_CHUNKS as usize]>,
}

impl Reached {
    /// Notes that somebody wants the bytes before `end`; answers whether nobody wanted as much before.
    pub(super) fn is_further(&mut self, chunk: ChunkNumber, end: u32) -> bool {
        let place = usize::try_from(chunk.0 % PAGE_CHUNKS).unwrap_or_default();
        let page = self.pages.entry(chunk.0 / PAGE_CHUNKS).or_default();
        let Some(reached) = page.get_mut(place).filter(|reached| **reached < end) else { return false };
        *reached = end;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_wants_more_of_a_chunk_than_those_before_is_told_so() {
        let mut reached = Reached::default();
        let (one, other) = (ChunkNumber(7 << 32 | 15), ChunkNumber(7 << 32 | 16));
        let answers = [10, 10, 9, 11, u32::MAX].map(|end| reached.is_further(one, end));
        assert_eq!(answers, [true, false, false, true, true]);
        assert!(reached.is_further(other, 1) && !reached.is_further(other, 1));
    }
}
