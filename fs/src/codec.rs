//! How a chunk's plaintext is framed before the engine seals it.
//!
//! `0 u8 ‖ plaintext`, or `1 u8 ‖ plain length u32 ‖ LZ4 block`. LZ4 is kept only where it saves at least a sixteenth; for
//! content that does not compress, two samples say so at a fraction of the cost.

use bytes::Bytes;
use lz4_flex::block;
use strongroom_core::{Error, Result};

use crate::format::Compression;

const RAW: u8 = 0;
const LZ4: u8 = 1;
const STRUCTURE: &str = "chunk";

/// Bytes that framing adds to a plaintext at most (kept even for the chunker's sake).
pub(crate) const FRAMING_BYTES: u32 = 2;

const SAMPLE_BYTES: usize = 2 << 10;
/// Up to this length trying costs no more than sampling.
const SAMPLED_BYTES_MIN: usize = 16 << 10;

/// The payload for a plaintext.
pub(crate) fn encode(plain: &[u8], compression: Compression) -> Bytes {
    if compression == Compression::Lz4
        && promising(plain)
        && let Some(payload) = compress(plain)
    {
        return payload;
    }
    let mut payload = Vec::with_capacity(plain.len() + 1);
    payload.push(RAW);
    payload.extend_from_slice(plain);
    payload.into()
}

/// The plaintext of a payload, at most `plain_bytes_max` long.
pub(crate) fn decode(payload: &Bytes, plain_bytes_max: usize) -> Result<Bytes> {
    let damaged = |detail: &str| Error::damaged(STRUCTURE, None, detail);
    match payload.split_first() {
        Some((&RAW, plain)) if plain.len() <= plain_bytes_max => Ok(payload.slice(1..)),
        Some((&LZ4, rest)) => {
            let (length, packed) = rest.split_first_chunk().ok_or_else(|| damaged("too short"))?;
            let length = u32::from_le_bytes(*length) as usize;
            if length > plain_bytes_max {
                return Err(damaged("claims to be longer than any chunk"));
            }
            let mut plain = vec![0; length];
            match block::decompress_into(packed, &mut plain) {
                Ok(written) if written == length => Ok(plain.into()),
                _ => Err(damaged("does not decompress to the length it states")),
            }
        }
        Some((&RAW, _)) => Err(damaged("longer than any chunk")),
        Some(_) => Err(damaged("unknown encoding")),
        None => Err(damaged("empty")),
    }
}

fn saves(plain: usize, packed: usize) -> bool {
    packed <= plain - plain / 16 && packed < plain
}

fn promising(plain: &[u8]) -> bool {
    let length = plain.len();
    if length < SAMPLED_BYTES_MIN {
        return length > 64;
    }
    let mut packed = [0; block::get_maximum_output_size(SAMPLE_BYTES)];
    [length / 4, length / 4 * 3].iter().any(|&start| {
        plain
            .get(start..start + SAMPLE_BYTES)
            .and_then(|sample| block::compress_into(sample, &mut packed).ok())
            .is_some_and(|packed| saves(SAMPLE_BYTES, packed))
    })
}

fn compress(plain: &[u8]) -> Option<Bytes> {
    const HEAD: usize = 5;
    let mut payload = vec![0; HEAD + block::get_maximum_output_size(plain.len())];
    let (head, body) = payload.split_at_mut_checked(HEAD)?;
    let packed = block::compress_into(plain, body).ok()?;
    let (kind, length) = head.split_first_mut()?;
    *kind = LZ4;
    length.copy_from_slice(&u32::try_from(plain.len()).ok()?.to_le_bytes());
    payload.truncate(HEAD + packed);
    // The engine may hold a small payload for a while, in its own allocation.
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
        fn a_chunk_decodes_to_what_was_encoded(plain in content()) {
            for compression in [Compression::Lz4, Compression::None] {
                let payload = encode(&plain, compression);
                prop_assert!(payload.len() <= plain.len() + FRAMING_BYTES as usize);
                prop_assert_eq!(&decode(&payload, MAX).unwrap()[..], &plain[..]);
            }
        }

        #[test]
        fn any_bytes_decode_to_an_error_or_to_a_bounded_plaintext(mut payload in proptest::collection::vec(any::<u8>(), 0..200), kind in 0u8..3) {
            if let Some(first) = payload.first_mut() {
                *first = kind;
            }
            if let Ok(plain) = decode(&payload.into(), 4096) {
                prop_assert!(plain.len() <= 4096);
            }
        }
    }

    #[test]
    fn a_length_beyond_any_chunk_is_refused_before_it_is_allocated() {
        let payload = [&[LZ4][..], &u32::MAX.to_le_bytes(), &[0; 8]].concat();
        assert!(decode(&payload.into(), MAX).is_err());
    }

    #[test]
    fn a_raw_plaintext_shares_the_payload() {
        let payload = encode(&[7; 10], Compression::None);
        assert_eq!(decode(&payload, MAX).unwrap().as_ptr(), payload[1..].as_ptr());
    }

    #[test]
    fn text_shrinks() {
        let text = b"all work and no play makes a dull repository ".repeat(1000);
        assert!(encode(&text, Compression::Lz4).len() < text.len() / 4);
    }
}
