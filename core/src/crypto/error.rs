/// What cryptography can refuse. None of it holds or describes a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CryptoError {
    /// The tag does not fit the ciphertext, the associated data, the index or the key.
    #[error("not authentic")]
    Authentication,
    /// A parameter of the password-based key derivation outside its floor and ceiling.
    #[error("key derivation: {what} is {value}, allowed is {minimum} to {maximum}")]
    KdfOutOfBounds {
        /// The parameter, its unit last.
        what: &'static str,
        /// What was asked for.
        value: u32,
        /// The floor.
        minimum: u32,
        /// The ceiling.
        maximum: u32,
    },
    /// The password-based key derivation failed: there is not enough memory.
    #[error("key derivation failed: not enough memory")]
    KdfFailed,
    /// More bytes than the suite can seal at once.
    #[error("message too long for the suite")]
    MessageTooLong,
    /// A nonce of another length than the suite has.
    #[error("nonce of the wrong length")]
    NonceLength,
    /// Buffers for ciphertext, tag and plaintext whose lengths do not fit each other.
    #[error("buffers of lengths that do not fit each other")]
    BufferLength,
    /// No suite of that name.
    #[error("no such suite; there are aes-256-gcm and xchacha20-poly1305")]
    UnknownSuite,
}
