use aes::Aes256;
use aes::cipher::{BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};

use super::Secret;

/// The permutation of names: AES-256 over one 16-byte block. To storage a name is random; to the holder of the key it is
/// invertible, so that a listed blob tells its owner what it is. Distinct plaintexts give distinct names.
pub struct NameCipher(Aes256);

impl NameCipher {
    /// The permutation of a key.
    #[must_use]
    pub fn new(key: &Secret) -> Self {
        Self(Aes256::new(key.expose().into()))
    }

    /// The name of a plaintext.
    #[must_use]
    pub fn encrypt(&self, plaintext: [u8; 16]) -> [u8; 16] {
        let mut block = plaintext.into();
        self.0.encrypt_block(&mut block);
        block.into()
    }

    /// The plaintext of a name; any 16 bytes have one, so the caller checks what it means.
    #[must_use]
    pub fn decrypt(&self, name: [u8; 16]) -> [u8; 16] {
        let mut block = name.into();
        self.0.decrypt_block(&mut block);
        block.into()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_is_aes_256_as_in_fips_197() {
        let cipher = NameCipher::new(&Secret::from_bytes(std::array::from_fn(|at| at as u8)));
        let plaintext = std::array::from_fn(|at| at as u8 * 0x11);
        let name = cipher.encrypt(plaintext);
        assert_eq!(u128::from_be_bytes(name), 0x8ea2_b7ca_5167_45bf_eafc_4990_4b49_6089);
        assert_eq!(cipher.decrypt(name), plaintext);
    }

    proptest! {
        #[test]
        fn decrypt_inverts_encrypt(key: [u8; 32], plaintext: [u8; 16]) {
            let cipher = NameCipher::new(&Secret::from_bytes(key));
            prop_assert_eq!(cipher.decrypt(cipher.encrypt(plaintext)), plaintext);
        }
    }
}
