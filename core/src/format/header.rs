//! The header: by it a repository is recognised on any device, and opened with a credential. Numbered and write-once, in
//! two copies, each as large as a block; this is the content, its first 4 KiB.
//!
//! ```text
//!     at  bytes
//!      0     16  "strongroom.head\0"
//!     16      2  format version
//!     18      1  suite: 1 AES-256-GCM, 2 XChaCha20-Poly1305
//!     19      1  KDF algorithm: 1 Argon2id version 0x13
//!     20      4  block size
//!     24      8  incompatible features: one that is unknown forbids opening
//!     32      8  read-only-compatible features: one that is unknown forbids writing
//!     40     12  KDF memory KiB, passes, lanes: u32 each
//!     52      4  0
//!     56     32  KDF salt
//!     88     16  repository id
//!    104      8  generation
//!    112     32  hash of the previous generation's content; 0 in the first
//!    144     32  slot directory salt
//!    176    528  slot directory, sealed: 512, and its tag 16
//!    704   1664  slots: 8 × 208
//!   2368   1680  0
//!   4048     32  MAC of all that comes before: keyed BLAKE3, the key derived from the newest epoch's secret
//!   4080     16  checksum of all that comes before: BLAKE3, its first 16 bytes
//! ```
//!
//! Where the checksum fails the header is damaged; where it holds and no slot opens, the credential is wrong; where a slot
//! opens and the MAC fails, someone changed the header. Magic, version, features and checksum keep their places in every
//! version, so that an old program can tell a newer header from a damaged one.

use super::limits::{
    FORMAT_VERSION, HEADER_BYTES, HEADER_GENERATION_MAX, HEADER_GENERATION_MIN, SLOTS_COUNT, check_block_bytes,
};
use super::slot::{SLOT_BYTES, SLOT_DIRECTORY_BYTES, Slot};
use super::{FormatError, Reader, Writer};

const HEADER: &str = "header";
/// What the content of a header starts with.
pub const HEADER_MAGIC: [u8; 16] = *b"strongroom.head\0";
/// How much of the content the MAC covers.
pub const HEADER_AUTHENTICATED_BYTES: usize = HEADER_BYTES - 32 - CHECKSUM_BYTES;
const CHECKSUM_BYTES: usize = 16;
const KDF_ARGON2ID: u8 = 1;
const FIELD_BYTES: usize = 176 + SLOT_DIRECTORY_BYTES + 16 + SLOTS_COUNT * SLOT_BYTES;
const RESERVED_BYTES: usize = HEADER_AUTHENTICATED_BYTES - FIELD_BYTES;

/// Features beyond the format version, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// Who does not know one of them cannot open the repository.
    pub incompatible: u64,
    /// Who does not know one of them can only read.
    pub read_only_compatible: u64,
}

impl Features {
    /// Incompatible: the repository is being made out of another one, and is not all there yet.
    pub const UNFINISHED_COPY: u64 = 1;

    /// What this version knows.
    pub const KNOWN: Self = Self { incompatible: Self::UNFINISHED_COPY, read_only_compatible: 0 };

    /// Whether the repository is a copy that did not come to its end.
    #[must_use]
    pub const fn is_unfinished_copy(self) -> bool {
        self.incompatible & Self::UNFINISHED_COPY != 0
    }

    /// Those of these that this version does not know.
    #[must_use]
    pub const fn unknown(self) -> Self {
        Self {
            incompatible: self.incompatible & !Self::KNOWN.incompatible,
            read_only_compatible: self.read_only_compatible & !Self::KNOWN.read_only_compatible,
        }
    }
}

/// The cost of a password attempt, as it is stored; bounds are checked by who runs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KdfCost {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes over the memory.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
}

/// The fields of a header, all but MAC and checksum.
#[derive(Clone, PartialEq, Eq)]
pub struct Header {
    /// The code of the suite; whether it is known is checked by who uses it.
    pub suite: u8,
    /// The size of every blob of the repository.
    pub block_bytes: u32,
    /// Features.
    pub features: Features,
    /// The cost of an attempt.
    pub kdf: KdfCost,
    /// The salt of the key derivation, one for all slots.
    pub salt: [u8; 32],
    /// The random id of the repository.
    pub repository: [u8; 16],
    /// The generation, from 1.
    pub generation: u64,
    /// The hash of the previous generation's content.
    pub previous: [u8; 32],
    /// Drawn anew each time the slot directory is sealed.
    pub directory_salt: [u8; 32],
    /// The sealed slot directory.
    pub directory: [u8; SLOT_DIRECTORY_BYTES],
    /// Its tag.
    pub directory_tag: [u8; 16],
    /// The slots.
    pub slots: [Slot; SLOTS_COUNT],
}

/// Why the content of a header cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// It is not what was written.
    #[error(transparent)]
    Damaged(#[from] FormatError),
    /// It is whole, and of a version, or with a feature, that is not known.
    #[error("newer format: {detail}")]
    Newer {
        /// What is not known.
        detail: String,
    },
}

impl Header {
    /// The bytes that the MAC covers.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::with_capacity(HEADER_BYTES);
        writer.bytes(&HEADER_MAGIC).u16(FORMAT_VERSION).u8(self.suite).u8(KDF_ARGON2ID).u32(self.block_bytes);
        writer.u64(self.features.incompatible).u64(self.features.read_only_compatible);
        writer.u32(self.kdf.memory_kib).u32(self.kdf.passes).u32(self.kdf.lanes).zeros(4);
        writer.bytes(&self.salt).bytes(&self.repository).u64(self.generation).bytes(&self.previous);
        writer.bytes(&self.directory_salt).bytes(&self.directory).bytes(&self.directory_tag);
        for slot in &self.slots {
            slot.write(&mut writer);
        }
        writer.zeros(RESERVED_BYTES);
        debug_assert_eq!(writer.len(), HEADER_AUTHENTICATED_BYTES);
        writer.into_vec()
    }

    /// The whole content: what [`Header::encode`] gave, its MAC, and the checksum.
    #[must_use]
    pub fn complete(mut authenticated: Vec<u8>, mac: &[u8; 32]) -> Vec<u8> {
        authenticated.extend_from_slice(mac);
        let checksum = checksum(&authenticated);
        authenticated.extend_from_slice(&checksum);
        authenticated
    }

    /// Reads a whole content; returns the fields and the MAC, which the caller checks once it has the key.
    ///
    /// # Errors
    /// [`HeaderError::Newer`] for a version or an incompatible feature that is not known; [`HeaderError::Damaged`] for
    /// anything else that does not fit.
    pub fn decode(content: &[u8]) -> Result<(Self, [u8; 32]), HeaderError> {
        let mut reader = Reader::new(HEADER, content);
        let length_fits = content.len() == HEADER_BYTES;
        if !length_fits {
            return Err(reader.error(format!("{} bytes long, not {HEADER_BYTES}", content.len())).into());
        }
        if reader.array()? != HEADER_MAGIC {
            return Err(reader.error("does not start with the magic").into());
        }
        let (covered, stored) = content.split_at_checked(HEADER_BYTES - CHECKSUM_BYTES).unwrap_or_default();
        if checksum(covered) != stored {
            return Err(reader.error("checksum differs").into());
        }

        let version = reader.u16()?;
        let (suite, kdf_algorithm, block_bytes) = (reader.u8()?, reader.u8()?, reader.u32()?);
        let features = Features { incompatible: reader.u64()?, read_only_compatible: reader.u64()? };
        if version != FORMAT_VERSION {
            return Err(HeaderError::Newer { detail: format!("format version {version}, known is {FORMAT_VERSION}") });
        }
        let unknown = features.unknown().incompatible;
        if unknown != 0 {
            return Err(HeaderError::Newer { detail: format!("unknown features {unknown:#x}") });
        }
        if kdf_algorithm != KDF_ARGON2ID {
            return Err(HeaderError::Newer { detail: format!("unknown key derivation {kdf_algorithm}") });
        }
        check_block_bytes(block_bytes)?;

        let kdf = KdfCost { memory_kib: reader.u32()?, passes: reader.u32()?, lanes: reader.u32()? };
        reader.zeros(4)?;
        let (salt, repository, generation, previous) =
            (reader.array()?, reader.array()?, reader.u64()?, reader.array()?);
        if !(HEADER_GENERATION_MIN..=HEADER_GENERATION_MAX).contains(&generation) {
            return Err(reader.error(format!("generation {generation}")).into());
        }
        let (directory_salt, directory, directory_tag) = (reader.array()?, reader.array()?, reader.array()?);
        let slots = [
            Slot::read(&mut reader)?,
            Slot::read(&mut reader)?,
            Slot::read(&mut reader)?,
            Slot::read(&mut reader)?,
            Slot::read(&mut reader)?,
            Slot::read(&mut reader)?,
            Slot::read(&mut reader)?,
            Slot::read(&mut reader)?,
        ];
        reader.zeros(RESERVED_BYTES)?;
        let mac = reader.array()?;
        reader.bytes(CHECKSUM_BYTES)?;
        reader.finish()?;
        let header = Self {
            suite,
            block_bytes,
            features,
            kdf,
            salt,
            repository,
            generation,
            previous,
            directory_salt,
            directory,
            directory_tag,
            slots,
        };
        Ok((header, mac))
    }

    /// What a slot's payload is bound to.
    #[must_use]
    pub fn slot_aad(&self, index: u8, slot_salt: &[u8; 32]) -> Vec<u8> {
        let mut writer = Writer::with_capacity(65);
        writer.u16(FORMAT_VERSION).u8(self.suite).bytes(&self.repository).u8(index).bytes(slot_salt).u8(KDF_ARGON2ID);
        writer.u32(self.kdf.memory_kib).u32(self.kdf.passes).u32(self.kdf.lanes);
        writer.into_vec()
    }

    /// What the slot directory is bound to: `format version u16 ‖ suite u8 ‖ repository 16 ‖ generation u64`.
    #[must_use]
    pub fn directory_aad(&self) -> Vec<u8> {
        let mut writer = Writer::with_capacity(27);
        writer.u16(FORMAT_VERSION).u8(self.suite).bytes(&self.repository).u64(self.generation);
        writer.into_vec()
    }
}

/// The hash by which a commit names a header: BLAKE3 of its content.
#[must_use]
pub fn header_hash(content: &[u8]) -> [u8; 32] {
    *blake3::hash(content).as_bytes()
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut checksum = [0; CHECKSUM_BYTES];
    blake3::Hasher::new().update(bytes).finalize_xof().fill(&mut checksum);
    checksum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Header {
        let slot = |n: u8| Slot { salt: [n; 32], commitment: [n; 32], sealed: [n; 128], tag: [n; 16] };
        Header {
            suite: 1,
            block_bytes: 1 << 20,
            features: Features::default(),
            kdf: KdfCost { memory_kib: 8192, passes: 1, lanes: 1 },
            salt: [1; 32],
            repository: [2; 16],
            generation: 3,
            previous: [4; 32],
            directory_salt: [5; 32],
            directory: [6; SLOT_DIRECTORY_BYTES],
            directory_tag: [7; 16],
            slots: [slot(8), slot(9), slot(10), slot(11), slot(12), slot(13), slot(14), slot(15)],
        }
    }

    fn content(edit: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut bytes = sample().encode();
        edit(&mut bytes);
        Header::complete(bytes, &[16; 32])
    }

    #[test]
    fn a_header_round_trips() {
        let content = content(|_| {});
        assert_eq!(content.len(), HEADER_BYTES);
        let (header, mac) = Header::decode(&content).unwrap();
        assert!(header == sample());
        assert_eq!(mac, [16; 32]);
    }

    #[test]
    fn every_flipped_bit_is_damage() {
        let content = content(|_| {});
        for bit in 0..HEADER_BYTES * 8 {
            let mut flipped = content.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(Header::decode(&flipped), Err(HeaderError::Damaged(_))), "bit {bit}");
        }
    }

    #[test]
    fn every_other_length_is_damage() {
        let content = content(|_| {});
        for length in (0..HEADER_BYTES).step_by(61) {
            assert!(matches!(Header::decode(&content[..length]), Err(HeaderError::Damaged(_))));
        }
        assert!(matches!(Header::decode(&[content, vec![0]].concat()), Err(HeaderError::Damaged(_))));
    }

    #[test]
    fn a_newer_version_and_an_unknown_feature_are_told_from_damage() {
        for (at, field) in [(16, "version 1"), (19, "key derivation"), (25, "features"), (31, "features")] {
            let newer = content(|bytes| bytes[at] ^= if at == 19 { 2 } else { 1 });
            let Err(HeaderError::Newer { detail }) = Header::decode(&newer) else { panic!("byte {at}") };
            assert!(detail.contains(field), "{detail}");
        }
    }

    #[test]
    fn an_unknown_read_only_compatible_feature_can_be_read() {
        let (header, _) = Header::decode(&content(|bytes| bytes[32] = 2)).unwrap();
        assert_eq!(header.features.unknown(), Features { incompatible: 0, read_only_compatible: 2 });
    }

    #[test]
    fn an_unfinished_copy_can_be_read_so_that_it_can_be_destroyed() {
        let (header, _) = Header::decode(&content(|bytes| bytes[24] = 1)).unwrap();
        assert!(header.features.is_unfinished_copy());
        assert_eq!(header.features.unknown(), Features::default());
    }

    #[test]
    fn what_has_no_meaning_is_refused_even_with_a_fitting_checksum() {
        type Edit = fn(&mut Vec<u8>);
        let edits: [(&str, Edit); 6] = [
            ("block size zero", |bytes| bytes[20..24].fill(0)),
            ("block size not a power of two", |bytes| bytes[20] = 1),
            ("block size too large", |bytes| bytes[23] = 1),
            ("reserved field", |bytes| bytes[53] = 1),
            ("generation zero", |bytes| bytes[104..112].fill(0)),
            ("reserved end", |bytes| bytes[HEADER_AUTHENTICATED_BYTES - 1] = 1),
        ];
        for (what, edit) in edits {
            assert!(matches!(Header::decode(&content(edit)), Err(HeaderError::Damaged(_))), "{what}");
        }
    }
}
