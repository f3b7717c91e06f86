//! Where files are cut: content-defined chunks, their boundaries keyed.
//!
//! A boundary is where a rolling hash over the last bytes has zeros in chosen places, so equal stretches are cut equally
//! wherever they lie in a file. The hash's table is drawn from the repository's secret seed: without it nobody can make
//! content that is cut where they choose. The cuts follow from the bytes alone, however the caller slices them.
//!
//! FastCDC, Xia et al. 2020, level 2 normalization; its scan is the `fastcdc` crate's.

use std::io::Read;

use bytes::{Bytes, BytesMut};
use fastcdc::v2020;

/// Chunks are slices of windows of about this many bytes, so a byte is copied once on its way in (and the rest of a
/// window, less than a chunk, once more).
const WINDOW_BYTES: usize = 1 << 20;
/// How much is asked of a reader at once.
const READ_BYTES: usize = 128 << 10;

/// Lengths of chunks in bytes: every chunk but a file's last has at least `min_bytes`, none has over `max_bytes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkSizes {
    /// Shortest.
    pub min_bytes: u32,
    /// What cuts gather around.
    pub average_bytes: u32,
    /// Longest.
    pub max_bytes: u32,
}

impl ChunkSizes {
    /// The sizes for a repository: half a block on average between 4 and 64 KiB, so that blocks pack well and a small
    /// read opens little; half to four times of that around it, within the engine's largest payload. The scan skips what is
    /// below the shortest, and a long shortest makes it faster.
    #[must_use]
    pub fn for_block(block_bytes: u32, payload_bytes_max: usize) -> Self {
        let average_bytes = (block_bytes / 2).clamp(4 << 10, 64 << 10);
        let payload = u32::try_from(payload_bytes_max).unwrap_or(u32::MAX);
        // Even, as the scan takes two bytes at a time, with room for the framing.
        let most = payload.saturating_sub(crate::codec::FRAMING_BYTES) & !1;
        Self { min_bytes: average_bytes / 2, average_bytes, max_bytes: most.min(average_bytes * 4) }
    }

    /// Chunks of one length: where equal ones are not looked for, it does not matter where they are cut, and nothing needs
    /// to be searched.
    pub(crate) fn fixed(self) -> Self {
        Self { min_bytes: self.average_bytes, max_bytes: self.average_bytes, ..self }
    }

    pub(crate) fn valid(&self) -> bool {
        let even = |bytes: u32| bytes.is_multiple_of(2);
        let Self { min_bytes, average_bytes, max_bytes } = *self;
        even(min_bytes)
            && even(average_bytes)
            && even(max_bytes)
            && (256..=1 << 20).contains(&min_bytes)
            && (1024..=4 << 20).contains(&average_bytes)
            && (1024..=16 << 20).contains(&max_bytes)
            && min_bytes <= average_bytes
            && average_bytes <= max_bytes
    }
}

/// The keyed cutting rule of a repository.
pub(crate) struct Boundaries {
    min: usize,
    average: usize,
    max: usize,
    mask_strict: u64,
    mask_loose: u64,
    gear: [u64; 256],
    gear_shifted: [u64; 256],
}

impl Boundaries {
    /// `sizes` must be valid.
    pub(crate) fn new(seed: u64, sizes: ChunkSizes) -> Self {
        let (mask_strict, mask_loose) = v2020::select_masks(sizes.average_bytes as usize, v2020::Normalization::Level2);
        let mut state = seed;
        let gear = std::array::from_fn(|_| split_mix(&mut state));
        Self {
            min: sizes.min_bytes as usize,
            average: sizes.average_bytes as usize,
            max: sizes.max_bytes as usize,
            mask_strict,
            mask_loose,
            gear,
            gear_shifted: gear.map(|value| value << 1),
        }
    }

    /// Length of the first chunk of a window. The whole window means that no boundary is in it: then it must hold `max`
    /// bytes, or all that is left of the content.
    fn cut(&self, window: &[u8]) -> usize {
        let (_, length) = v2020::cut_gear(
            window,
            self.min,
            self.average,
            self.max,
            self.mask_strict,
            self.mask_loose,
            self.mask_strict << 1,
            self.mask_loose << 1,
            &self.gear,
            &self.gear_shifted,
        );
        length
    }

    /// Below this length a last chunk is cut again with what follows it.
    pub(crate) fn short_bytes(&self) -> usize {
        self.average / 4
    }

    /// Bytes that a chunk has around.
    pub(crate) fn average_bytes(&self) -> usize {
        self.average
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): spreads the seed over the table.
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut value = *state;
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// Cuts a stream. Feed until it takes no more, then take the chunks that are ready.
#[derive(Default)]
pub(crate) struct Chunker {
    buffer: BytesMut,
    /// No boundary is in the first `searched` bytes of the buffer.
    searched: usize,
    /// Whether a chunk was cut: a long file gets whole windows, a small one only what it needs.
    long: bool,
}

impl Chunker {
    /// How many bytes the buffer should hold before it is searched: as many as almost certainly hold a boundary, and where
    /// they did not, the longest chunk.
    fn wanted(&self, boundaries: &Boundaries) -> usize {
        let likely = (2 * boundaries.average).min(boundaries.max);
        if self.searched < likely { likely } else { boundaries.max }
    }

    /// Takes bytes off the front of `bytes`, up to what the next cut needs; answers how many.
    pub(crate) fn feed(&mut self, boundaries: &Boundaries, bytes: &[u8]) -> usize {
        let taken = bytes.len().min(self.wanted(boundaries).saturating_sub(self.buffer.len()));
        self.make_room(boundaries, taken);
        self.buffer.extend_from_slice(bytes.get(..taken).unwrap_or_default());
        taken
    }

    /// As [`Self::feed`], from a reader; 0 where it ended, or where a cut is due first.
    pub(crate) fn feed_from(&mut self, boundaries: &Boundaries, reader: &mut impl Read) -> std::io::Result<usize> {
        let start = self.buffer.len();
        let wanted = self.wanted(boundaries).saturating_sub(start).min(READ_BYTES);
        if wanted == 0 {
            return Ok(0);
        }
        self.make_room(boundaries, wanted);
        self.buffer.resize(start + wanted, 0);
        let read = loop {
            match reader.read(self.buffer.get_mut(start..).unwrap_or_default()) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        self.buffer.truncate(start + read.as_ref().copied().unwrap_or(0).min(wanted));
        read
    }

    /// The next chunk, where enough was fed to know it.
    pub(crate) fn ready(&mut self, boundaries: &Boundaries) -> Option<Bytes> {
        let held = self.buffer.len();
        if held < self.wanted(boundaries) {
            return None;
        }
        let length = boundaries.cut(&self.buffer);
        if length >= held && held < boundaries.max {
            self.searched = held;
            return None;
        }
        Some(self.split(length))
    }

    /// The next chunk, given that nothing follows.
    pub(crate) fn rest(&mut self, boundaries: &Boundaries) -> Option<Bytes> {
        (!self.buffer.is_empty()).then(|| self.split(boundaries.cut(&self.buffer)))
    }

    /// What was fed and is not yet cut.
    pub(crate) fn uncut(&self) -> &[u8] {
        &self.buffer
    }

    /// Whether chunks are slices of windows that are longer than they.
    pub(crate) fn is_long(&self) -> bool {
        self.long
    }

    /// Holds on to no window for what little of it is not cut.
    pub(crate) fn let_go(&mut self) {
        self.buffer = BytesMut::from(&*self.buffer);
    }

    fn split(&mut self, length: usize) -> Bytes {
        self.searched = 0;
        let length = length.clamp(1, self.buffer.len());
        self.long |= length < self.buffer.len();
        self.buffer.split_to(length).freeze()
    }

    fn make_room(&mut self, boundaries: &Boundaries, wanted: usize) {
        if self.buffer.capacity() - self.buffer.len() >= wanted {
            return;
        }
        if self.long {
            let mut window = BytesMut::with_capacity(WINDOW_BYTES.min(boundaries.max.saturating_mul(8)));
            window.extend_from_slice(&self.buffer);
            self.buffer = window;
        }
        self.buffer.reserve(wanted);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn boundaries(seed: u64) -> Boundaries {
        Boundaries::new(seed, ChunkSizes::for_block(4096, 16 << 10))
    }

    fn noise(seed: u64, length: usize) -> Vec<u8> {
        let mut state = seed;
        (0..length.div_ceil(8)).flat_map(|_| split_mix(&mut state).to_le_bytes()).take(length).collect()
    }

    fn chunks(rule: &Boundaries, content: &[u8], slices: &[usize]) -> Vec<Bytes> {
        let mut chunker = Chunker::default();
        let (mut out, mut rest, mut slices) = (Vec::new(), content, slices.iter().cycle());
        while !rest.is_empty() {
            let (mut piece, after) = rest.split_at((*slices.next().unwrap()).clamp(1, rest.len()));
            rest = after;
            while !piece.is_empty() {
                let taken = chunker.feed(rule, piece);
                piece = &piece[taken..];
                out.extend(std::iter::from_fn(|| chunker.ready(rule)));
            }
        }
        out.extend(std::iter::from_fn(|| chunker.rest(rule)));
        out
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn chunks_depend_on_the_bytes_alone_and_not_on_how_they_are_sliced(
            seed in any::<u64>(), length in 0usize..200_000, slices in proptest::collection::vec(1usize..70_000, 1..8),
        ) {
            let (rule, content) = (boundaries(seed), noise(seed ^ 1, length));
            let whole = chunks(&rule, &content, &[length.max(1)]);
            prop_assert_eq!(&whole, &chunks(&rule, &content, &slices));
            prop_assert_eq!(whole.concat(), content.clone());
            let mut from_reader = Vec::new();
            let (mut chunker, mut reader) = (Chunker::default(), content.as_slice());
            while chunker.feed_from(&rule, &mut reader).unwrap() > 0 {
                from_reader.extend(std::iter::from_fn(|| chunker.ready(&rule)));
            }
            from_reader.extend(std::iter::from_fn(|| chunker.rest(&rule)));
            prop_assert_eq!(whole, from_reader);
        }

        #[test]
        fn all_chunks_but_the_last_keep_to_the_sizes(seed in any::<u64>(), length in 0usize..300_000) {
            let rule = boundaries(seed);
            let all = chunks(&rule, &noise(seed, length), &[4096]);
            for (index, chunk) in all.iter().enumerate() {
                prop_assert!(chunk.len() <= rule.max);
                prop_assert!(index + 1 == all.len() || chunk.len() >= rule.min);
            }
        }
    }

    #[test]
    fn where_nothing_is_looked_for_chunks_have_one_length_and_the_last_is_what_is_left() {
        let sizes = ChunkSizes::for_block(4096, 16 << 10).fixed();
        let content = noise(4, 10 * 4096 + 17);
        for slices in [&[1 << 20][..], &[4096], &[5000, 3]] {
            let all = chunks(&Boundaries::new(1, sizes), &content, slices);
            assert_eq!(all.iter().map(Bytes::len).collect::<Vec<_>>(), [&[4096; 10][..], &[17]].concat());
            assert_eq!(all.concat(), content);
        }
    }

    #[test]
    fn an_insertion_at_the_front_changes_only_chunks_near_it() {
        let (rule, content) = (boundaries(7), noise(3, 1 << 20));
        let before = chunks(&rule, &content, &[65_536]);
        let after = chunks(&rule, &[b"inserted".as_slice(), &content].concat(), &[65_536]);
        let shared = after.iter().filter(|chunk| before.contains(chunk)).count();
        assert!(shared + 4 >= before.len(), "{shared} of {} chunks found again", before.len());
    }

    #[test]
    fn another_seed_cuts_elsewhere() {
        let content = noise(3, 1 << 18);
        let lengths = |seed| chunks(&boundaries(seed), &content, &[65_536]).iter().map(Bytes::len).collect::<Vec<_>>();
        assert_ne!(lengths(1), lengths(2));
    }

    #[test]
    fn sizes_follow_the_block_and_the_payload_limit() {
        for shift in 12..=22 {
            let block = 1u32 << shift;
            let payload = (256 << 10).min(4 * block as usize);
            let sizes = ChunkSizes::for_block(block, payload);
            assert!(sizes.valid(), "{sizes:?}");
            assert!(sizes.max_bytes as usize + crate::codec::FRAMING_BYTES as usize <= payload);
        }
    }

    #[test]
    fn a_small_file_takes_a_small_buffer() {
        let mut chunker = Chunker::default();
        chunker.feed(&boundaries(1), &[1; 1000]);
        assert!(chunker.buffer.capacity() < 4096);
    }

    #[test]
    fn searching_early_cuts_where_searching_late_does() {
        for seed in 0..40 {
            let (rule, content) = (boundaries(seed), noise(seed, 20_000));
            let whole = rule.cut(&content[..rule.max]);
            for window in (rule.min..rule.max).step_by(97) {
                let early = rule.cut(&content[..window]);
                assert!(early == whole || (early == window && whole >= window));
            }
        }
    }
}
