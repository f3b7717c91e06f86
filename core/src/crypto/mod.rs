//! The cryptography, and nothing else: suites, key derivation, secret types. This module imports no sibling, so that it
//! can be read, reviewed and replaced alone.
//!
//! Rules that every caller keeps:
//!
//! * An AEAD key is used for one sealing of one thing (a block, a slot): fresh random salts make fresh keys, and nonces
//!   are small counters under them. See [`BlockKey`].
//! * BLAKE3 in derive-key mode makes keys from keys, with a constant context each; whatever varies enters as fixed-width
//!   input of keyed BLAKE3. See [`derive()`] and [`keyed_hash`].
//! * Secrets are erased on drop, compared in constant time, and have no `Debug`.

mod aead;
mod error;
#[cfg(feature = "fast-aead")]
mod fast_aes;
mod hash;
mod kdf;
mod keys;
mod name_cipher;
mod secret;
mod suite;

pub use aead::{BlockKey, TAG_BYTES};
pub use error::CryptoError;
pub use hash::{derive, derive_from, keyed_hash, keyed_stream};
pub use kdf::KdfParameters;
pub use keys::{Keys, RootSecret};
pub use name_cipher::NameCipher;
pub use secret::{Secret, SecretBytes, equal};
pub use suite::Suite;
