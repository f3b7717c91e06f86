use aes_gcm::Aes256Gcm;
use aes_gcm::aead::array::Array;
use aes_gcm::aead::{AeadInOut, KeyInit};
use chacha20poly1305::XChaCha20Poly1305;

#[cfg(feature = "fast-aead")]
use super::fast_aes::FastAes;
use super::{CryptoError, Secret, Suite};

/// The length of every tag, in both suites.
pub const TAG_BYTES: usize = 16;

/// One AEAD key, its key schedule done. Seals and opens in place; the tag is apart.
///
/// A key serves one sealing of one thing, and within it every index once: the caller draws a fresh salt, hence a fresh
/// key, each time it seals. That is why nonces may be plain counters.
pub struct BlockKey(Cipher);

enum Cipher {
    // Boxed: the expanded AES key is large, and keys move.
    Aes(Box<Aes256Gcm>),
    XChaCha(Box<XChaCha20Poly1305>),
    #[cfg(feature = "fast-aead")]
    FastAes(FastAes),
}

impl BlockKey {
    /// The key of a suite, ready to use, by the fastest implementation that was built in.
    #[must_use]
    pub fn new(suite: Suite, key: &Secret) -> Self {
        #[cfg(feature = "fast-aead")]
        if suite == Suite::Aes256Gcm
            && let Some(fast) = FastAes::new(key)
        {
            return Self(Cipher::FastAes(fast));
        }
        Self::portable(suite, key)
    }

    /// [`BlockKey::new`] by the implementation that is always built in: to hold the others against it.
    #[doc(hidden)]
    #[must_use]
    pub fn portable(suite: Suite, key: &Secret) -> Self {
        let key = Array::cast_from_core(key.expose());
        Self(match suite {
            Suite::Aes256Gcm => Cipher::Aes(Box::new(Aes256Gcm::new(key))),
            Suite::XChaCha20Poly1305 => Cipher::XChaCha(Box::new(XChaCha20Poly1305::new(key))),
        })
    }

    /// Encrypts in place and returns the tag. The nonce is `index` as a little-endian `u64`, zero-padded to the 12 or 24
    /// bytes of the suite.
    ///
    /// # Errors
    /// [`CryptoError::MessageTooLong`] over the limit of the suite (64 GiB).
    pub fn seal(&self, index: u64, aad: &[u8], in_place: &mut [u8]) -> Result<[u8; TAG_BYTES], CryptoError> {
        self.seal_with_nonce(self.nonce(index, &mut [0; NONCE_BYTES_MAX]), aad, in_place)
    }

    /// Checks the tag, then decrypts in place. On an error the bytes are as they were or zeros, as the implementation
    /// has it, and never plaintext.
    ///
    /// # Errors
    /// [`CryptoError::Authentication`] where key, index, associated data, ciphertext or tag differ from what was sealed.
    pub fn open(&self, index: u64, aad: &[u8], in_place: &mut [u8], tag: &[u8; TAG_BYTES]) -> Result<(), CryptoError> {
        self.open_with_nonce(self.nonce(index, &mut [0; NONCE_BYTES_MAX]), aad, in_place, tag)
    }

    /// [`BlockKey::seal`] with any nonce of the length that the suite has: for published test vectors only.
    ///
    /// # Errors
    /// As [`BlockKey::seal`], and [`CryptoError::NonceLength`].
    #[doc(hidden)]
    pub fn seal_with_nonce(
        &self,
        nonce: &[u8],
        aad: &[u8],
        in_place: &mut [u8],
    ) -> Result<[u8; TAG_BYTES], CryptoError> {
        let too_long = |_| CryptoError::MessageTooLong;
        let tag = match &self.0 {
            Cipher::Aes(cipher) => {
                cipher.encrypt_inout_detached(sized(nonce)?, aad, in_place.into()).map_err(too_long)?
            }
            Cipher::XChaCha(cipher) => {
                cipher.encrypt_inout_detached(sized(nonce)?, aad, in_place.into()).map_err(too_long)?
            }
            #[cfg(feature = "fast-aead")]
            Cipher::FastAes(cipher) => return cipher.seal(nonce, aad, in_place),
        };
        Ok(tag.into())
    }

    /// [`BlockKey::open`] with any nonce of the length that the suite has: for published test vectors only.
    ///
    /// # Errors
    /// As [`BlockKey::open`], and [`CryptoError::NonceLength`].
    #[doc(hidden)]
    pub fn open_with_nonce(
        &self,
        nonce: &[u8],
        aad: &[u8],
        in_place: &mut [u8],
        tag: &[u8; TAG_BYTES],
    ) -> Result<(), CryptoError> {
        let array = Array::cast_from_core(tag);
        match &self.0 {
            Cipher::Aes(cipher) => cipher.decrypt_inout_detached(sized(nonce)?, aad, in_place.into(), array),
            Cipher::XChaCha(cipher) => cipher.decrypt_inout_detached(sized(nonce)?, aad, in_place.into(), array),
            #[cfg(feature = "fast-aead")]
            Cipher::FastAes(cipher) => return cipher.open(nonce, aad, in_place, tag),
        }
        .map_err(|_| CryptoError::Authentication)
    }

    fn nonce<'a>(&self, index: u64, nonce: &'a mut [u8; NONCE_BYTES_MAX]) -> &'a [u8] {
        for (byte, of_index) in nonce.iter_mut().zip(index.to_le_bytes()) {
            *byte = of_index;
        }
        let nonce_bytes = match &self.0 {
            Cipher::XChaCha(_) => NONCE_BYTES_MAX,
            _ => 12,
        };
        nonce.get(..nonce_bytes).unwrap_or_default()
    }
}

const NONCE_BYTES_MAX: usize = 24;

fn sized<N: aes_gcm::aead::array::ArraySize>(nonce: &[u8]) -> Result<&Array<u8, N>, CryptoError> {
    <&Array<u8, N>>::try_from(nonce).map_err(|_| CryptoError::NonceLength)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A suite with each implementation of it.
    type Implementation = (Suite, fn(Suite, &Secret) -> BlockKey);

    fn all() -> impl Iterator<Item = Implementation> {
        Suite::ALL
            .into_iter()
            .flat_map(|suite| -> [Implementation; 2] { [(suite, BlockKey::new), (suite, BlockKey::portable)] })
    }

    #[test]
    fn what_was_sealed_opens_and_nothing_else_does() {
        for (suite, new) in all() {
            let key = new(suite, &Secret::from_bytes([1; 32]));
            let mut bytes = *b"attack at dawn";
            let tag = key.seal(5, b"aad", &mut bytes).unwrap();
            assert_ne!(&bytes, b"attack at dawn");
            let sealed = bytes;

            let refused = |key: &BlockKey, index, aad: &[u8], mut bytes: [u8; 14], tag: [u8; 16]| {
                let before = bytes;
                assert_eq!(key.open(index, aad, &mut bytes, &tag), Err(CryptoError::Authentication));
                assert!(bytes == before || bytes == [0; 14], "a refusal gives no plaintext");
            };
            refused(&key, 6, b"aad", sealed, tag);
            refused(&key, 5, b"aae", sealed, tag);
            refused(&new(suite, &Secret::from_bytes([2; 32])), 5, b"aad", sealed, tag);
            for bit in 0..14 * 8 {
                let mut flipped = sealed;
                flipped[bit / 8] ^= 1 << (bit % 8);
                refused(&key, 5, b"aad", flipped, tag);
            }
            for bit in 0..16 * 8 {
                let mut flipped = tag;
                flipped[bit / 8] ^= 1 << (bit % 8);
                refused(&key, 5, b"aad", sealed, flipped);
            }

            key.open(5, b"aad", &mut bytes, &tag).unwrap();
            assert_eq!(&bytes, b"attack at dawn");
        }
    }

    #[test]
    fn the_nonce_is_the_index_little_endian_and_zero_padded() {
        for (suite, new) in all() {
            let nonce_bytes = if suite == Suite::Aes256Gcm { 12 } else { 24 };
            let key = new(suite, &Secret::from_bytes([1; 32]));
            let mut nonce = vec![0; nonce_bytes];
            nonce[..8].copy_from_slice(&0x0102_0304_0506_0708_u64.to_le_bytes());
            let (mut by_index, mut by_nonce) = ([9; 100], [9; 100]);
            let tag = key.seal(0x0102_0304_0506_0708, b"", &mut by_index).unwrap();
            assert_eq!(key.seal_with_nonce(&nonce, b"", &mut by_nonce), Ok(tag));
            assert_eq!(by_index, by_nonce);
            assert_eq!(key.seal_with_nonce(&[0; 13], b"", &mut by_nonce), Err(CryptoError::NonceLength));
        }
    }

    #[test]
    fn an_empty_message_is_authenticated_too() {
        for (suite, new) in all() {
            let key = new(suite, &Secret::from_bytes([1; 32]));
            let tag = key.seal(0, b"aad", &mut []).unwrap();
            assert_eq!(key.open(0, b"aad", &mut [], &tag), Ok(()));
            assert_eq!(key.open(0, b"", &mut [], &tag), Err(CryptoError::Authentication));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn every_implementation_makes_the_same_bytes_and_opens_those_of_the_other(
            key in any::<[u8; 32]>(),
            index in any::<u64>(),
            aad in proptest::collection::vec(any::<u8>(), 0..80),
            // Around the ends of blocks, and of the strides that fast code takes.
            length in prop_oneof![0usize..600, 4000usize..4200, 65_000usize..66_000],
        ) {
            for suite in Suite::ALL {
                let key = Secret::from_bytes(key);
                let (one, other) = (BlockKey::new(suite, &key), BlockKey::portable(suite, &key));
                let plaintext: Vec<u8> = (0..length).map(|at| (at * 7 + at / 256) as u8).collect();
                let (mut by_one, mut by_other) = (plaintext.clone(), plaintext.clone());
                let tag = one.seal(index, &aad, &mut by_one).unwrap();
                prop_assert_eq!(tag, other.seal(index, &aad, &mut by_other).unwrap());
                prop_assert_eq!(&by_one, &by_other);
                one.open(index, &aad, &mut by_other, &tag).unwrap();
                other.open(index, &aad, &mut by_one, &tag).unwrap();
                prop_assert!(by_one == plaintext && by_other == plaintext);
            }
        }
    }

    #[cfg(feature = "fast-aead")]
    #[test]
    fn the_fast_implementation_serves_where_it_was_built_in() {
        let key = Secret::from_bytes([1; 32]);
        assert!(matches!(BlockKey::new(Suite::Aes256Gcm, &key).0, Cipher::FastAes(_)));
        assert!(matches!(BlockKey::portable(Suite::Aes256Gcm, &key).0, Cipher::Aes(_)));
    }
}
