//! AES-256-GCM by AWS-LC: the same algorithm, two to four times as fast. Byte-equal to the portable one by the same vectors.
//!
//! AWS-LC keeps the expanded key in one allocation of its own and erases it when it is freed.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use super::{CryptoError, Secret, TAG_BYTES};

/// One key, its schedule done.
pub(super) struct FastAes(LessSafeKey);

impl FastAes {
    /// `None` where the library has no memory for it: the portable implementation serves then.
    pub(super) fn new(key: &Secret) -> Option<Self> {
        UnboundKey::new(&AES_256_GCM, key.expose()).ok().map(|key| Self(LessSafeKey::new(key)))
    }

    /// As [`super::BlockKey::seal_with_nonce`].
    pub(super) fn seal(&self, nonce: &[u8], aad: &[u8], in_place: &mut [u8]) -> Result<[u8; TAG_BYTES], CryptoError> {
        let tag = self.0.seal_in_place_separate_tag(sized(nonce)?, Aad::from(aad), in_place);
        tag.ok().and_then(|tag| tag.as_ref().try_into().ok()).ok_or(CryptoError::MessageTooLong)
    }

    /// As [`super::BlockKey::open_with_nonce`]; on an error the bytes are zeros.
    pub(super) fn open(
        &self,
        nonce: &[u8],
        aad: &[u8],
        in_place: &mut [u8],
        tag: &[u8; TAG_BYTES],
    ) -> Result<(), CryptoError> {
        let opened = self.0.open_in_place_separate_tag(sized(nonce)?, Aad::from(aad), tag, in_place);
        opened.map(|_| ()).map_err(|_| CryptoError::Authentication)
    }

    /// As [`super::BlockKey::seal_into`].
    pub(super) fn seal_into(
        &self,
        nonce: &[u8],
        aad: &[u8],
        plaintext: &[u8],
        text: &mut [u8],
        tag: &mut [u8; TAG_BYTES],
    ) -> Result<(), CryptoError> {
        if plaintext.len() != text.len() {
            return Err(CryptoError::BufferLength);
        }
        self.0
            .seal_out_of_place_scatter(sized(nonce)?, Aad::from(aad), plaintext, text, &[], tag)
            .map_err(|_| CryptoError::MessageTooLong)
    }

    /// As [`super::BlockKey::open_into`]; on an error the plaintext is zeros.
    pub(super) fn open_into(
        &self,
        nonce: &[u8],
        aad: &[u8],
        text: &[u8],
        tag: &[u8; TAG_BYTES],
        plaintext: &mut [u8],
    ) -> Result<(), CryptoError> {
        if plaintext.len() != text.len() {
            return Err(CryptoError::BufferLength);
        }
        self.0
            .open_separate_gather(sized(nonce)?, Aad::from(aad), text, tag, plaintext)
            .map_err(|_| CryptoError::Authentication)
    }
}

fn sized(nonce: &[u8]) -> Result<Nonce, CryptoError> {
    let nonce: [u8; NONCE_LEN] = nonce.try_into().map_err(|_| CryptoError::NonceLength)?;
    Ok(Nonce::assume_unique_for_key(nonce))
}
