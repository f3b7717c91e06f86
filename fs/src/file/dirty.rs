use std::collections::BTreeMap;

use crate::extents;

/// What a range takes in memory beside its bytes; of very small ones it is most. Where it starts and where its bytes are is
/// 32 bytes, in nodes of a map that are half empty where ranges come in order, and its bytes are an allocation of their
/// own, which is rounded up and kept account of.
pub(super) const RANGE_BYTES: usize = 96;

/// Stretches of a file that were overwritten in memory, none touching another.
#[derive(Default)]
pub(super) struct DirtyRanges {
    ranges: BTreeMap<u64, Vec<u8>>,
    /// Of all ranges, without what each takes besides.
    payload_bytes: usize,
}

impl DirtyRanges {
    /// What it takes in memory.
    pub(super) fn bytes(&self) -> usize {
        self.payload_bytes.saturating_add(self.ranges.len().saturating_mul(RANGE_BYTES))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Puts bytes over what is there.
    pub(super) fn insert(&mut self, offset: u64, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let end = offset.saturating_add(bytes.len() as u64);
        // The range before this one, where it reaches it, is what grows: writing in sequence copies each byte once.
        let before = self.ranges.range(..=offset).next_back().map(|(&start, range)| (start, range.len()));
        let (start, mut merged) = match before {
            Some((start, length)) if start.saturating_add(length as u64) >= offset => {
                (start, self.take(start).unwrap_or_default())
            }
            _ => (offset, Vec::with_capacity(bytes.len())),
        };
        let at = usize::try_from(offset - start).unwrap_or(usize::MAX).min(merged.len());
        let over = (merged.len() - at).min(bytes.len());
        let (head, tail) = bytes.split_at(over);
        if let Some(covered) = merged.get_mut(at..at + over) {
            covered.copy_from_slice(head);
        }
        merged.extend_from_slice(tail);
        while let Some((&next, _)) = self.ranges.range(offset..=end).next() {
            let range = self.take(next).unwrap_or_default();
            let merged_end = start.saturating_add(merged.len() as u64);
            let covered = usize::try_from(merged_end - next).unwrap_or(usize::MAX);
            merged.extend_from_slice(range.get(covered..).unwrap_or_default());
        }
        self.payload_bytes += merged.len();
        self.ranges.insert(start, merged);
    }

    fn take(&mut self, start: u64) -> Option<Vec<u8>> {
        let range = self.ranges.remove(&start)?;
        self.payload_bytes -= range.len();
        Some(range)
    }

    /// Puts what is held over `out`, which holds the file's bytes from `offset` on.
    pub(super) fn overlay(&self, offset: u64, out: &mut [u8]) {
        let end = offset.saturating_add(out.len() as u64);
        let first = self.ranges.range(..=offset).next_back().map_or(offset, |(&start, _)| start);
        for (&start, range) in self.ranges.range(first..end) {
            extents::lay_over(out, offset, range, start);
        }
    }

    /// Where the range ends that holds a byte at `offset`.
    pub(super) fn end_of(&self, offset: u64) -> Option<u64> {
        let (&start, range) = self.ranges.range(..=offset).next_back()?;
        Some(start.saturating_add(range.len() as u64)).filter(|&end| end > offset)
    }

    /// The first offset from `offset` on at which a byte is held.
    pub(super) fn next(&self, offset: u64) -> Option<u64> {
        match self.end_of(offset) {
            Some(_) => Some(offset),
            None => self.ranges.range(offset..).next().map(|(&start, _)| start),
        }
    }

    /// Drops what lies at `size` and beyond it.
    pub(super) fn truncate(&mut self, size: u64) {
        while let Some((&start, range)) = self.ranges.range(..).next_back()
            && start.saturating_add(range.len() as u64) > size
        {
            let mut range = self.take(start).unwrap_or_default();
            if start < size {
                range.truncate(usize::try_from(size - start).unwrap_or(usize::MAX));
                // What is no longer counted is no longer held.
                range.shrink_to_fit();
                self.payload_bytes += range.len();
                self.ranges.insert(start, range);
            }
        }
    }

    /// Whether anything is held at `offset` or beyond it.
    pub(super) fn reaches(&self, offset: u64) -> bool {
        self.ranges.iter().next_back().is_some_and(|(&start, range)| start.saturating_add(range.len() as u64) > offset)
    }

    /// Takes the first range, and its successors as far as each begins within `gap` bytes of the end of the one before, and
    /// all of them together span no more than `span_max`: what lies close together is cut anew together, and needs memory
    /// for what lies between, too.
    pub(super) fn take_group(&mut self, gap: u64, span_max: u64) -> Vec<(u64, Vec<u8>)> {
        let mut group = Vec::new();
        // Where the group begins, and how far the next may begin.
        let mut bounds: Option<(u64, u64)> = None;
        while let Some((&start, range)) = self.ranges.iter().next() {
            let end = start.saturating_add(range.len() as u64);
            if bounds.is_some_and(|(first, reach)| start > reach || end - first > span_max) {
                break;
            }
            let first = bounds.map_or(start, |(first, _)| first);
            bounds = Some((first, end.saturating_add(gap)));
            group.push((start, self.take(start).unwrap_or_default()));
        }
        group
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_range_counts_for_more_than_its_bytes_until_it_merges_with_another() {
        const BOUND: usize = 4 << 20;
        let mut ranges = DirtyRanges::default();
        let mut count = 0;
        while ranges.bytes() <= BOUND {
            ranges.insert(2 * count, &[1]);
            count += 1;
        }
        assert_eq!(count, (BOUND / (1 + RANGE_BYTES)) as u64 + 1);
        // The bytes between the first ten make one range of them.
        let before = ranges.bytes();
        for number in 0..9 {
            ranges.insert(2 * number + 1, &[2]);
        }
        assert_eq!(ranges.bytes(), before + 9 - 9 * RANGE_BYTES);
        // One write over all the others, that touches this one.
        ranges.insert(19, &vec![3; 2 * count as usize]);
        assert_eq!(ranges.bytes(), 19 + 2 * count as usize + RANGE_BYTES);
        ranges.truncate(5);
        assert_eq!(ranges.bytes(), 5 + RANGE_BYTES);
        ranges.insert(6, &[4]);
        ranges.truncate(6);
        assert_eq!(ranges.bytes(), 5 + RANGE_BYTES);
        ranges.truncate(0);
        assert_eq!(ranges.bytes(), 0);
    }

    proptest! {
        #[test]
        fn overlaid_ranges_read_as_the_last_write_of_each_byte(
            writes in proptest::collection::vec((0usize..200, proptest::collection::vec(1u8.., 0..60)), 0..20),
            size in 0u64..300,
        ) {
            let (mut ranges, mut model) = (DirtyRanges::default(), vec![0u8; 300]);
            for (offset, bytes) in &writes {
                ranges.insert(*offset as u64, bytes);
                model[*offset..*offset + bytes.len()].copy_from_slice(bytes);
            }
            ranges.truncate(size);
            model[size as usize..].fill(0);
            let mut out = vec![0u8; 300];
            ranges.overlay(0, &mut out);
            prop_assert_eq!(&out, &model);
            let mut part = vec![0u8; 50];
            ranges.overlay(37, &mut part);
            prop_assert_eq!(&part[..], &model[37..87]);
            for at in 0..300 {
                let next = (at..300).find(|&at| model[at] != 0);
                let end = (at..300).find(|&at| model[at] == 0).unwrap_or(300);
                prop_assert_eq!(ranges.next(at as u64), next.map(|next| next as u64));
                prop_assert_eq!(ranges.end_of(at as u64), (end > at).then_some(end as u64));
            }
            let payload = model.iter().filter(|&&byte| byte != 0).count();
            let starts = (0..300).filter(|&at| model[at] != 0 && (at == 0 || model[at - 1] == 0)).count();
            prop_assert_eq!(ranges.bytes(), payload + starts * RANGE_BYTES);
            prop_assert!(!ranges.reaches(size));

            // Where the group before began, and where its last range ended.
            let mut before = None;
            while !ranges.is_empty() {
                let group = ranges.take_group(5, 100);
                let first = group[0].0;
                for (index, (start, bytes)) in group.iter().enumerate() {
                    let end = start + bytes.len() as u64;
                    if let Some((begun, ended)) = before {
                        prop_assert!(*start > ended, "ranges that touch are one");
                        let joins = *start <= ended + 5 && end - begun <= 100;
                        prop_assert_eq!(index > 0, joins);
                    }
                    before = Some((first, end));
                }
            }
            prop_assert_eq!(ranges.bytes(), 0);
        }
    }
}
