use blake3::Hasher;
use zeroize::Zeroize;

use super::Secret;

/// A key from a key: BLAKE3 in derive-key mode. The context is a constant that appears once in the program; anything that
/// varies is input of [`keyed_hash`] instead.
#[must_use]
pub fn derive(context: &'static str, secret: &Secret) -> Secret {
    derive_from(context, &[secret.expose()])
}

/// A key from material of any length, as [`derive()`]; the parts are concatenated, so all but one have a fixed width.
#[must_use]
pub fn derive_from(context: &'static str, parts: &[&[u8]]) -> Secret {
    let mut hasher = Hasher::new_derive_key(context);
    for part in parts {
        hasher.update(part);
    }
    finish(hasher)
}

/// Keyed BLAKE3 over the concatenation of the parts. The caller gives parts of fixed width, or just one of free length, so
/// that no two inputs concatenate to the same bytes.
#[must_use]
pub fn keyed_hash(key: &Secret, parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = keyed(key, parts);
    let hash = *hasher.finalize().as_bytes();
    hasher.zeroize();
    hash
}

/// Fills `out` with the extendable output of keyed BLAKE3 over the concatenation of the parts (see [`keyed_hash`], of
/// which it starts with the 32 bytes).
pub fn keyed_stream(key: &Secret, parts: &[&[u8]], out: &mut [u8]) {
    let mut hasher = keyed(key, parts);
    let mut reader = hasher.finalize_xof();
    reader.fill(out);
    reader.zeroize();
    hasher.zeroize();
}

fn keyed(key: &Secret, parts: &[&[u8]]) -> Hasher {
    let mut hasher = Hasher::new_keyed(key.expose());
    for part in parts {
        hasher.update(part);
    }
    hasher
}

fn finish(mut hasher: Hasher) -> Secret {
    let mut hash = hasher.finalize();
    let secret = Secret::from_bytes(*hash.as_bytes());
    hash.zeroize();
    hasher.zeroize();
    secret
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derive_is_blake3_derive_key() {
        let secret = Secret::from_bytes([3; 32]);
        assert!(
            derive("Strongroom test", &secret) == Secret::from_bytes(blake3::derive_key("Strongroom test", &[3; 32]))
        );
        assert!(derive("Strongroom test", &secret) != derive("Strongroom other test", &secret));
    }

    #[test]
    fn parts_are_concatenated_and_the_stream_starts_with_the_hash() {
        let key = Secret::from_bytes([4; 32]);
        let hash = keyed_hash(&key, &[b"ab", b"", b"c"]);
        assert_eq!(hash, *blake3::keyed_hash(&[4; 32], b"abc").as_bytes());
        let mut stream = [0; 100];
        keyed_stream(&key, &[b"a", b"bc"], &mut stream);
        assert_eq!(stream[..32], hash);
    }
}
