use std::fmt;

use bytes::Bytes;

use crate::crypto::{KdfParameters, RootSecret, Suite, equal, keyed_hash, keyed_stream};
use crate::format::header::{Features, HEADER_AUTHENTICATED_BYTES, HeaderError, header_hash};
use crate::format::limits::HEADER_BYTES;
use crate::format::{FormatError, header};
use crate::storage::Name;
use crate::{Error, Result};

pub(super) const HEADER: &str = "header";

/// A header that was read or made: its content, and what its clear fields say. The fields are believed only after
/// [`super::unlock`], which checks the MAC.
#[derive(Clone)]
pub struct Header {
    pub(super) fields: header::Header,
    mac: [u8; 32],
    content: Bytes,
    hash: [u8; 32],
    suite: Suite,
    kdf: KdfParameters,
}

impl Header {
    /// Reads the content of a header (4 KiB): from storage, or from where it was exported to.
    ///
    /// # Errors
    /// [`HeaderError`]; bounds of the key derivation are checked here, before anyone allocates by them.
    pub fn from_content(content: &[u8]) -> std::result::Result<Self, HeaderError> {
        let (fields, mac) = header::Header::decode(content)?;
        let suite = Suite::from_code(fields.suite)
            .ok_or_else(|| HeaderError::Newer { detail: format!("unknown suite {}", fields.suite) })?;
        let kdf =
            KdfParameters { memory_kib: fields.kdf.memory_kib, passes: fields.kdf.passes, lanes: fields.kdf.lanes };
        kdf.validate().map_err(|error| FormatError::new(HEADER, error.to_string()))?;
        let hash = header_hash(content);
        Ok(Self { fields, mac, content: Bytes::copy_from_slice(content), hash, suite, kdf })
    }

    /// The fields under a fresh MAC of this root.
    pub(super) fn from_fields(fields: &header::Header, root: &RootSecret) -> Result<Self> {
        let authenticated = fields.encode();
        let mac = keyed_hash(&root.header_mac_key(), &[&authenticated]);
        Self::from_content(&header::Header::complete(authenticated, &mac)).map_err(|error| refused(error, None))
    }

    /// The suite that the repository is sealed with.
    #[must_use]
    pub const fn suite(&self) -> Suite {
        self.suite
    }

    /// The size of every blob, in bytes.
    #[must_use]
    pub const fn block_bytes(&self) -> u32 {
        self.fields.block_bytes
    }

    /// The cost of one attempt.
    #[must_use]
    pub const fn kdf(&self) -> KdfParameters {
        self.kdf
    }

    /// The features; see [`Features::unknown`] for those that forbid writing.
    #[must_use]
    pub const fn features(&self) -> Features {
        self.fields.features
    }

    /// The random id of the repository.
    #[must_use]
    pub const fn repository(&self) -> &[u8; 16] {
        &self.fields.repository
    }

    /// The generation, from 1.
    #[must_use]
    pub const fn generation(&self) -> u64 {
        self.fields.generation
    }

    /// The hash by which a commit names this header.
    #[must_use]
    pub const fn hash(&self) -> &[u8; 32] {
        &self.hash
    }

    /// The hash of the generation before; zeros in the first.
    #[must_use]
    pub const fn previous(&self) -> &[u8; 32] {
        &self.fields.previous
    }

    /// The content (4 KiB): what to export, and what both copies start with.
    #[must_use]
    pub const fn content(&self) -> &Bytes {
        &self.content
    }

    /// Whether the MAC is that of this root.
    pub(super) fn check_mac(&self, root: &RootSecret) -> Result<()> {
        let authenticated = self.content.get(..HEADER_AUTHENTICATED_BYTES).unwrap_or_default();
        if equal(&keyed_hash(&root.header_mac_key(), &[authenticated]), &self.mac) {
            return Ok(());
        }
        Err(Error::damaged(HEADER, None, format!("MAC of generation {} differs", self.generation())))
    }

    /// The whole blob of a copy: the content, and a stream that only a key holder can make or check, up to the block
    /// size.
    pub(super) fn blob(&self, root: &RootSecret, copy: u8) -> Vec<u8> {
        let mut blob = vec![0; usize::try_from(self.block_bytes()).unwrap_or(HEADER_BYTES)];
        if let Some((content, fill)) = blob.split_at_mut_checked(HEADER_BYTES) {
            content.copy_from_slice(&self.content);
            let input: [&[u8]; 3] = [&self.generation().to_le_bytes(), &[copy], &self.hash];
            keyed_stream(&root.header_fill_key(), &input, fill);
        }
        blob
    }
}

/// The clear fields alone.
impl fmt::Debug for Header {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Header")
            .field("suite", &self.suite)
            .field("block_bytes", &self.block_bytes())
            .field("kdf", &self.kdf)
            .field("features", &self.features())
            .field("generation", &self.generation())
            .finish_non_exhaustive()
    }
}

/// What the engine answers for a header that cannot be used.
pub(super) fn refused(error: HeaderError, blob: Option<Name>) -> Error {
    match error {
        HeaderError::Damaged(FormatError { structure, reason }) => Error::damaged(structure, blob, reason),
        HeaderError::Newer { detail } => Error::NewerFormat { detail },
    }
}
