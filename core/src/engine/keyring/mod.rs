//! The keyring: headers, their slots, and the way from a credential to the root secret.
//!
//! ```text
//! input key material = BLAKE3(factors ‖ hash of password ‖ hash of key file ‖ hash of recovery key)
//! attempt            = Argon2id(input key material, header's salt)           once for all slots
//! slot secret        = keyed BLAKE3(attempt, slot index ‖ slot's salt)
//! commitment, key    = derived from the slot secret, each in a context of its own
//! root secret        = opened with the key, after the commitment was found equal
//! header MAC         = keyed BLAKE3, its key derived from the newest epoch's secret
//! ```
//!
//! A header is written once. Changing a slot makes the next generation, which names the hash of the one before; it is in
//! force once a commit names its generation and hash. That rule, and refusing a header older than the head names, is
//! the engine's; so is deleting older generations.

mod create;
mod credentials;
mod edit;
mod header;
mod recovery;
mod slots;
mod store;
mod tune;

pub use create::{CreateHeader, build_header, create_header};
pub use credentials::{CREDENTIAL_BYTES_MAX, Credentials, KEY_FILE_BYTES_MIN};
pub use edit::{HeaderEdit, NewSlot, SlotInfo, slots};
pub use header::Header;
pub use recovery::RecoveryKey;
pub(crate) use slots::{Candidate, SlotId, unlock_slot};
pub use slots::{unlock, unlock_with_root};
pub use store::{
    CopyFault, CopyState, HeaderSet, delete_header, read_headers, read_headers_among, repair_copy, verify_copy,
    write_header,
};
pub(crate) use store::{put_copy, take_back};
pub use tune::tune;
