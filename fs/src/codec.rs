//! How a chunk's plaintext is framed before the engine seals it.
//!
//! A plaintext is its own payload, so that what does not compress is copied nowhere. `MARK (4) ‖ 1 u8 ‖ plain length u32 ‖
//! LZ4 block` is a compressed one, and `MARK ‖ 0 u8 ‖ plaintext` one that happens to begin with the mark itself.
//!
//! LZ4 is kept only where it saves at least a sixteenth; for content that does not compress, two samples say so at a
//! fraction of the cost.

use bytes::Bytes;
use lz4_flex::block;
use strongroom_core::{Error, Result};

use crate::format::Compression;

/// What a payload that is not just its plaintext begins with.
const MARK: [u8; 4] = [0xf3, b'S', b'R', 0x1a];
const RAW: u8 = 0;
const LZ4: u8 = 1;
const STRUCTURE: &str = "chunk";

/// Bytes that framing adds to a plaintext at most.
pub(crate) const FRAMING_BYTES: u32 = 5;

const SAMPLE_BYTES: usize = 2 << 10;
/// Up to this length trying costs no more than sampling.
const SAMPLED_BYTES_MIN: usize = 16 << 10;

/// The payload for a plaintext.
pub(crate) fn encode(plain: &Bytes, compression: Compression) -> Bytes {
    if promising(plain, compression, true) == Some(true) { pack(plain) } else { frame(plain) }
}

/// The payload for a plaintext that is worth compressing, by the looks of it.
pub(crate) fn pack(plain: &Bytes) -> Bytes {
    compress(plain).unwrap_or_else(|| frame(plain))
}

/// The payload for a plaintext that is not.
pub(crate) fn frame(plain: &Bytes) -> Bytes {
    if plain.starts_with(&MARK) {
        return [&MARK[..], &[RAW], plain].concat().into();
    }
    plain.clone()
}

/// The plaintext of a payload, at most `plain_bytes_max` long.
pub(crate) fn decode(payload: &Bytes, plain_bytes_max: usize) -> Result<Bytes> {
    let damaged = |detail: &str| Error::damaged(STRUCTURE, None, detail);
    let plain = match payload.strip_prefix(&MARK).map(<[u8]>::split_first) {
        None => payload.clone(),
        Some(Some((&RAW, _))) => payload.slice(MARK.len() + 1..),
        Some(Some((&LZ4, rest))) => {
            let (length, packed) = rest.split_first_chunk().ok_or_else(|| damaged("too short"))?;
            let length = u32::from_le_bytes(*length) as usize;
            if length > plain_bytes_max {
                return Err(damaged("claims to be longer than any chunk"));
            }
            let mut plain = vec![0; length];
            match block::decompress_into(packed, &mut plain) {
                Ok(written) if written == length => plain.into(),
                _ => return Err(damaged("does not decompress to the length it states")),
            }
        }
        Some(Some(_)) => return Err(damaged("unknown encoding")),
        Some(None) => return Err(damaged("too short")),
    };
    if plain.len() > plain_bytes_max { Err(damaged("longer than any chunk")) } else { Ok(plain) }
}

fn saves(plain: usize, packed: usize) -> bool {
    packed <= plain - plain / 16 && packed < plain
}

/// Whether a plaintext is worth compressing. Of a long one samples say so: they are taken where `try_it` allows the cost.
pub(crate) fn promising(plain: &[u8], compression: Compression, try_it: bool) -> Option<bool> {
    let length = plain.len();
    if compression == Compression::None {
        return Some(false);
    }
    if length < SAMPLED_BYTES_MIN {
        return Some(length > 64);
    }
    let mut packed = [0; block::get_maximum_output_size(SAMPLE_BYTES)];
    let mut saves_at = |start: usize| {
        plain
            .get(start..start + SAMPLE_BYTES)
            .and_then(|sample| lz4(sample, &mut packed))
            .is_some_and(|packed| saves(SAMPLE_BYTES, packed))
    };
    try_it.then(|| saves_at(length / 4) || saves_at(length / 4 * 3))
}

/// Length of what LZ4 makes of `plain`.
fn lz4(plain: &[u8], packed: &mut [u8]) -> Option<usize> {
    #[cfg(test)]
    COMPRESSED_BYTES.set(COMPRESSED_BYTES.get() + plain.len() as u64);
    block::compress_into(plain, packed).ok()
}

#[cfg(test)]
std::thread_local! {
    /// What LZ4 was given on this thread, tries too.
    pub(crate) static COMPRESSED_BYTES: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

fn compress(plain: &[u8]) -> Option<Bytes> {
    const HEAD: usize = MARK.len() + 1;
    const BODY: usize = HEAD + 4;
    let mut payload = vec![0; BODY + block::get_maximum_output_size(plain.len())];
    let (head, body) = payload.split_at_mut_checked(BODY)?;
    let packed = lz4(plain, body)?;
    let (mark, rest) = head.split_first_chunk_mut()?;
    let (kind, length) = rest.split_first_mut()?;
    *mark = MARK;
    *kind = LZ4;
    length.copy_from_slice(&u32::try_from(plain.len()).ok()?.to_le_bytes());
    payload.truncate(BODY + packed);
    // Copied to its own length: the engine may hold it for a while.
    saves(plain.len(), payload.len()).then(|| Bytes::copy_from_slice(&payload))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAX: usize = 1 << 18;

    fn content() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..40_000),
            proptest::collection::vec(0u8..3, 0..40_000),
            (any::<u8>(), 0usize..100_000).prop_map(|(byte, length)| vec![byte; length]),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_chunk_decodes_to_what_was_encoded(plain in content(), marked in any::<bool>()) {
            let plain = Bytes::from(if marked { [&MARK, &plain[..]].concat() } else { plain });
            for compression in [Compression::Lz4, Compression::None] {
                let payload = encode(&plain, compression);
                prop_assert!(payload.len() <= plain.len() + FRAMING_BYTES as usize);
                prop_assert_eq!(&decode(&payload, MAX).unwrap(), &plain);
            }
        }

        #[test]
        fn any_bytes_decode_to_an_error_or_to_a_bounded_plaintext(payload in proptest::collection::vec(any::<u8>(), 0..200), kind in 0u8..3) {
            for payload in [payload.clone(), [&MARK[..], &[kind], &payload].concat()] {
                if let Ok(plain) = decode(&payload.into(), 100) {
                    prop_assert!(plain.len() <= 100);
                }
            }
        }
    }

    #[test]
    fn a_length_beyond_any_chunk_is_refused_before_it_is_allocated() {
        let payload = [&MARK[..], &[LZ4], &u32::MAX.to_le_bytes(), &[0; 8]].concat();
        assert!(decode(&payload.into(), MAX).is_err());
    }

    #[test]
    fn what_does_not_compress_is_not_copied() {
        let plain = Bytes::from_static(b"\x01\x02\x03");
        let payload = encode(&plain, Compression::Lz4);
        assert_eq!(payload.as_ptr(), plain.as_ptr());
        assert_eq!(decode(&payload, MAX).unwrap().as_ptr(), plain.as_ptr());
    }

    #[test]
    fn text_shrinks() {
        let text = Bytes::from(b"all work and no play makes a dull repository ".repeat(1000));
        assert!(encode(&text, Compression::Lz4).len() < text.len() / 4);
    }
}
