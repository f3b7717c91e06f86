use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Thirty-two secret bytes: a key, or what keys are made from. Erased on drop, compared in constant time; it cannot be
/// shown, and is copied only where [`Secret::duplicate`] says so.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Secret([u8; Secret::BYTES]);

impl Secret {
    /// The length of every secret.
    pub const BYTES: usize = 32;

    /// A secret from its bytes. The caller erases its own copy, if it keeps one.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; Secret::BYTES]) -> Self {
        Self(bytes)
    }

    /// The bytes, for a moment.
    #[must_use]
    pub const fn expose(&self) -> &[u8; Secret::BYTES] {
        &self.0
    }

    /// A second copy, made on purpose.
    #[must_use]
    pub const fn duplicate(&self) -> Self {
        Self(self.0)
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        equal(&self.0, &other.0)
    }
}

impl Eq for Secret {}

/// Secret bytes of any length: a password, the content of a key file. Erased on drop; it cannot be shown.
pub struct SecretBytes(Zeroizing<Vec<u8>>);

impl SecretBytes {
    /// Takes the bytes over, so that no copy stays behind.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes, for a moment.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// A second copy, made on purpose.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Self(self.0.clone())
    }
}

impl From<String> for SecretBytes {
    fn from(text: String) -> Self {
        Self::new(text.into_bytes())
    }
}

impl From<&str> for SecretBytes {
    fn from(text: &str) -> Self {
        Self::new(text.as_bytes().to_vec())
    }
}

impl PartialEq for SecretBytes {
    fn eq(&self, other: &Self) -> bool {
        equal(&self.0, &other.0)
    }
}

impl Eq for SecretBytes {}

/// Whether two byte strings are equal, in a time that depends on their lengths alone.
#[must_use]
pub fn equal(left: &[u8], right: &[u8]) -> bool {
    left.ct_eq(right).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_equal_by_content() {
        let secret = Secret::from_bytes([7; 32]);
        assert!(secret == secret.duplicate());
        assert!(secret != Secret::from_bytes([8; 32]));
        assert!(SecretBytes::from("a") == SecretBytes::new(vec![b'a']));
        assert!(SecretBytes::from("a") != SecretBytes::from("ab"));
    }
}
