use aes_gcm::Aes256Gcm;
use aes_gcm::aead::array::Array;
use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::aead::{AeadInOut, KeyInit};
use chacha20poly1305::XChaCha20Poly1305;

#[cfg(feature = "fast-aead")]
use super::fast_aes::FastAes;
use super::{CryptoError, Secret, Suite};

/// The length of every tag, in both suites.
pub const TAG_BYTES: usize = 16;

/// One AEAD key, its key schedule done. Seals and opens in place, the tag apart; or from one buffer into another, the tag
/// at the end.
///
/// A key serves one sealing of one thing, and within it every index once: the caller draws a fresh salt, hence a fresh
/// key, each time it seals. That is why nonces may be plain counters.
pub struct BlockKey(Cipher);

enum Cipher {
    Portable(Portable),
    #[cfg(feature = "fast-aead")]
    FastAes(FastAes),
}

// Boxed: the expanded AES key is large, and keys move.
enum Portable {
    Aes(Box<Aes256Gcm>),
    XChaCha(Box<XChaCha20Poly1305>),
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
        Self(Cipher::Portable(match suite {
            Suite::Aes256Gcm => Portable::Aes(Box::new(Aes256Gcm::new(key))),
            Suite::XChaCha20Poly1305 => Portable::XChaCha(Box::new(XChaCha20Poly1305::new(key))),
        }))
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

    /// As [`BlockKey::seal`], from one buffer into another: ciphertext and then tag, so `sealed` is [`TAG_BYTES`] longer than
    /// `plaintext`. Saves the pass over the bytes that copying them first would cost.
    ///
    /// # Errors
    /// As [`BlockKey::seal`]; [`CryptoError::BufferLength`].
    pub fn seal_into(&self, index: u64, aad: &[u8], plaintext: &[u8], sealed: &mut [u8]) -> Result<(), CryptoError> {
        let (text, tag) = sealed.split_last_chunk_mut::<TAG_BYTES>().ok_or(CryptoError::BufferLength)?;
        let mut nonce = [0; NONCE_BYTES_MAX];
        let nonce = self.nonce(index, &mut nonce);
        match &self.0 {
            Cipher::Portable(cipher) => *tag = cipher.seal(nonce, aad, buffers(plaintext, text)?)?,
            #[cfg(feature = "fast-aead")]
            Cipher::FastAes(cipher) => cipher.seal_into(nonce, aad, plaintext, text, tag)?,
        }
        Ok(())
    }

    /// As [`BlockKey::open`], from one buffer into another: `sealed` is ciphertext and then tag, [`TAG_BYTES`] longer than
    /// `plaintext`. On an error `plaintext` is as it was or zeros.
    ///
    /// # Errors
    /// As [`BlockKey::open`]; [`CryptoError::BufferLength`].
    pub fn open_into(&self, index: u64, aad: &[u8], sealed: &[u8], plaintext: &mut [u8]) -> Result<(), CryptoError> {
        let (text, tag) = sealed.split_last_chunk::<TAG_BYTES>().ok_or(CryptoError::BufferLength)?;
        let mut nonce = [0; NONCE_BYTES_MAX];
        let nonce = self.nonce(index, &mut nonce);
        match &self.0 {
            Cipher::Portable(cipher) => cipher.open(nonce, aad, buffers(text, plaintext)?, tag),
            #[cfg(feature = "fast-aead")]
            Cipher::FastAes(cipher) => cipher.open_into(nonce, aad, text, tag, plaintext),
        }
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
        match &self.0 {
            Cipher::Portable(cipher) => cipher.seal(nonce, aad, in_place.into()),
            #[cfg(feature = "fast-aead")]
            Cipher::FastAes(cipher) => cipher.seal(nonce, aad, in_place),
        }
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
        match &self.0 {
            Cipher::Portable(cipher) => cipher.open(nonce, aad, in_place.into(), tag),
            #[cfg(feature = "fast-aead")]
            Cipher::FastAes(cipher) => cipher.open(nonce, aad, in_place, tag),
        }
    }

    fn nonce<'a>(&self, index: u64, nonce: &'a mut [u8; NONCE_BYTES_MAX]) -> &'a [u8] {
        for (byte, of_index) in nonce.iter_mut().zip(index.to_le_bytes()) {
            *byte = of_index;
        }
        let nonce_bytes = match &self.0 {
            Cipher::Portable(Portable::XChaCha(_)) => NONCE_BYTES_MAX,
            _ => 12,
        };
        nonce.get(..nonce_bytes).unwrap_or_default()
    }
}

impl Portable {
    fn seal(&self, nonce: &[u8], aad: &[u8], text: InOutBuf<'_, '_, u8>) -> Result<[u8; TAG_BYTES], CryptoError> {
        let tag = match self {
            Self::Aes(cipher) => cipher.encrypt_inout_detached(sized(nonce)?, aad, text),
            Self::XChaCha(cipher) => cipher.encrypt_inout_detached(sized(nonce)?, aad, text),
        };
        tag.map(Into::into).map_err(|_| CryptoError::MessageTooLong)
    }

    fn open(
        &self,
        nonce: &[u8],
        aad: &[u8],
        text: InOutBuf<'_, '_, u8>,
        tag: &[u8; TAG_BYTES],
    ) -> Result<(), CryptoError> {
        let tag = Array::cast_from_core(tag);
        match self {
            Self::Aes(cipher) => cipher.decrypt_inout_detached(sized(nonce)?, aad, text, tag),
            Self::XChaCha(cipher) => cipher.decrypt_inout_detached(sized(nonce)?, aad, text, tag),
        }
        .map_err(|_| CryptoError::Authentication)
    }
}

fn buffers<'i, 'o>(from: &'i [u8], to: &'o mut [u8]) -> Result<InOutBuf<'i, 'o, u8>, CryptoError> {
    InOutBuf::new(from, to).map_err(|_| CryptoError::BufferLength)
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
    fn from_one_buffer_into_another_a_refusal_gives_no_plaintext_either() {
        for (suite, new) in all() {
            let key = new(suite, &Secret::from_bytes([1; 32]));
            let mut sealed = [0; 14 + TAG_BYTES];
            key.seal_into(5, b"aad", b"attack at dawn", &mut sealed).unwrap();
            for bit in 0..sealed.len() * 8 {
                let (mut flipped, mut opened) = (sealed, [7; 14]);
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(key.open_into(5, b"aad", &flipped, &mut opened), Err(CryptoError::Authentication));
                assert!(opened == [7; 14] || opened == [0; 14]);
            }
            for wrong in [0, TAG_BYTES - 1, 13 + TAG_BYTES, 15 + TAG_BYTES] {
                let sealed = key.seal_into(5, b"aad", b"attack at dawn", &mut vec![0; wrong]);
                assert_eq!(sealed, Err(CryptoError::BufferLength));
                assert_eq!(key.open_into(5, b"aad", &vec![0; wrong], &mut [0; 14]), Err(CryptoError::BufferLength));
            }
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
                for key in [&one, &other] {
                    let (mut sealed, mut opened) = (vec![1; length + TAG_BYTES], vec![1; length]);
                    key.seal_into(index, &aad, &plaintext, &mut sealed).unwrap();
                    prop_assert!(sealed == [&by_one[..], &tag].concat());
                    key.open_into(index, &aad, &sealed, &mut opened).unwrap();
                    prop_assert!(opened == plaintext);
                }
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
        assert!(matches!(BlockKey::portable(Suite::Aes256Gcm, &key).0, Cipher::Portable(Portable::Aes(_))));
    }
}
