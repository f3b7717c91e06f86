//! A slot of a header: one way to the root secret. Used or not, all slots look alike.
//!
//! ```text
//! slot       salt 32 ‖ key commitment 32 ‖ sealed payload 128 ‖ tag 16                                (208 bytes)
//! payload    factors u8 ‖ 0 u8 ‖ key epoch u16 ‖ 0 u32 ‖ epoch secret 32 ‖ lifetime secret 32 ‖ 0 56   (128 bytes)
//! AAD        format version u16 ‖ suite u8 ‖ repository 16 ‖ slot index u8 ‖ slot salt 32
//!            ‖ KDF algorithm u8 ‖ memory KiB u32 ‖ passes u32 ‖ lanes u32                               (65 bytes)
//! directory  8 × ( factors u8, 0: unused ‖ label length u8 ‖ 0 48 bit ‖ created, ms u64 ‖ label 48 )   (512 bytes)
//! ```
//!
//! The directory is sealed under a key of the root secret, so that who holds any slot can list them all, and add one
//! without overwriting another.

use zeroize::{Zeroize, Zeroizing};

use super::limits::{SLOT_LABEL_BYTES_MAX, SLOTS_COUNT};
use super::{FormatError, Reader, Writer};

const SLOT: &str = "slot";
const DIRECTORY: &str = "slot directory";

/// The length of a slot.
pub const SLOT_BYTES: usize = 32 + 32 + SLOT_PAYLOAD_BYTES + 16;
/// The length of what a slot seals.
pub const SLOT_PAYLOAD_BYTES: usize = 128;
/// The length of an entry of the slot directory.
pub const SLOT_ENTRY_BYTES: usize = 64;
/// The length of the slot directory.
pub const SLOT_DIRECTORY_BYTES: usize = SLOTS_COUNT * SLOT_ENTRY_BYTES;

/// What a credential is made of: at least one factor; all of them are needed at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Factors(u8);

impl Factors {
    /// Something known: a password.
    pub const PASSWORD: Self = Self(1);
    /// Something held: a key file.
    pub const KEY_FILE: Self = Self(2);
    /// A recovery key, kept on paper.
    pub const RECOVERY: Self = Self(4);

    /// The factors of a code; `None` for none at all, and for those that this version does not know.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        if code == 0 || code > 7 { None } else { Some(Self(code)) }
    }

    /// The code: bit 0 password, bit 1 key file, bit 2 recovery key.
    #[must_use]
    pub const fn code(self) -> u8 {
        self.0
    }

    /// Whether all of `other` are among these.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl std::fmt::Display for Factors {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = [(Self::PASSWORD, "password"), (Self::KEY_FILE, "key file"), (Self::RECOVERY, "recovery key")];
        let mut separator = "";
        for (factor, name) in names {
            if self.contains(factor) {
                write!(formatter, "{separator}{name}")?;
                separator = " and ";
            }
        }
        Ok(())
    }
}

/// A slot as it is stored. An unused one is random from front to back.
#[derive(Clone, PartialEq, Eq)]
pub struct Slot {
    /// Drawn anew each time the slot is sealed.
    pub salt: [u8; 32],
    /// Tells, before decryption, whether a key is the key of this slot.
    pub commitment: [u8; 32],
    /// The sealed payload.
    pub sealed: [u8; SLOT_PAYLOAD_BYTES],
    /// Its tag.
    pub tag: [u8; 16],
}

impl Slot {
    pub(super) fn write(&self, writer: &mut Writer) {
        writer.bytes(&self.salt).bytes(&self.commitment).bytes(&self.sealed).bytes(&self.tag);
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, FormatError> {
        Ok(Self { salt: reader.array()?, commitment: reader.array()?, sealed: reader.array()?, tag: reader.array()? })
    }
}

/// What a slot seals. Erased on drop.
pub struct SlotPayload {
    /// The factors that open it.
    pub factors: Factors,
    /// The number of the newest key epoch.
    pub key_epoch: u16,
    /// Its secret.
    pub epoch: Zeroizing<[u8; 32]>,
    /// The lifetime secret.
    pub lifetime: Zeroizing<[u8; 32]>,
}

impl SlotPayload {
    /// The bytes that are sealed.
    #[must_use]
    pub fn encode(&self) -> Zeroizing<[u8; SLOT_PAYLOAD_BYTES]> {
        let mut writer = Writer::with_capacity(SLOT_PAYLOAD_BYTES);
        writer.u8(self.factors.code()).u8(0).u16(self.key_epoch).u32(0);
        writer.bytes(self.epoch.as_ref()).bytes(self.lifetime.as_ref()).zeros(56);
        let mut bytes = writer.into_vec();
        let mut payload = Zeroizing::new([0; SLOT_PAYLOAD_BYTES]);
        for (to, from) in payload.iter_mut().zip(&bytes) {
            *to = *from;
        }
        bytes.zeroize();
        payload
    }

    /// Reads what [`SlotPayload::encode`] wrote.
    ///
    /// # Errors
    /// [`FormatError`] for anything else.
    pub fn decode(bytes: &[u8; SLOT_PAYLOAD_BYTES]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(SLOT, bytes);
        let factors = Factors::from_code(reader.u8()?).ok_or_else(|| reader.error("unknown factors"))?;
        reader.zeros(1)?;
        let key_epoch = reader.u16()?;
        reader.zeros(4)?;
        let (epoch, lifetime) = (Zeroizing::new(reader.array()?), Zeroizing::new(reader.array()?));
        reader.zeros(56)?;
        reader.finish()?;
        Ok(Self { factors, key_epoch, epoch, lifetime })
    }
}

/// What the slot directory says of a used slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotEntry {
    /// The factors that open it.
    pub factors: Factors,
    /// When it was sealed, in milliseconds since the Unix epoch.
    pub created: u64,
    /// What the user calls it, at most [`SLOT_LABEL_BYTES_MAX`] bytes.
    pub label: String,
}

/// The slot directory: `None` is an unused slot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlotDirectory(pub [Option<SlotEntry>; SLOTS_COUNT]);

impl SlotDirectory {
    /// The bytes that are sealed.
    ///
    /// # Errors
    /// [`FormatError`] for a label over the limit.
    pub fn encode(&self) -> Result<[u8; SLOT_DIRECTORY_BYTES], FormatError> {
        let mut writer = Writer::with_capacity(SLOT_DIRECTORY_BYTES);
        for entry in &self.0 {
            let Some(SlotEntry { factors, created, label }) = entry else {
                writer.zeros(SLOT_ENTRY_BYTES);
                continue;
            };
            let padding = SLOT_LABEL_BYTES_MAX.checked_sub(label.len());
            let length = u8::try_from(label.len()).ok();
            let (Some(padding), Some(length)) = (padding, length) else {
                return Err(FormatError::new(DIRECTORY, "label too long"));
            };
            writer.u8(factors.code()).u8(length).zeros(6).u64(*created).bytes(label.as_bytes()).zeros(padding);
        }
        Reader::new(DIRECTORY, writer.as_slice()).array()
    }

    /// Reads what [`SlotDirectory::encode`] wrote.
    ///
    /// # Errors
    /// [`FormatError`] for anything else.
    pub fn decode(bytes: &[u8; SLOT_DIRECTORY_BYTES]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(DIRECTORY, bytes);
        let mut directory = Self::default();
        for entry in &mut directory.0 {
            let code = reader.u8()?;
            if code == 0 {
                reader.zeros(SLOT_ENTRY_BYTES - 1)?;
                continue;
            }
            let factors = Factors::from_code(code).ok_or_else(|| reader.error("unknown factors"))?;
            let length = usize::from(reader.u8()?);
            reader.zeros(6)?;
            let created = reader.u64()?;
            let padding =
                SLOT_LABEL_BYTES_MAX.checked_sub(length).ok_or_else(|| reader.error("label longer than its field"))?;
            let label = std::str::from_utf8(reader.bytes(length)?).map_err(|_| reader.error("label is not UTF-8"))?;
            reader.zeros(padding)?;
            *entry = Some(SlotEntry { factors, created, label: label.to_owned() });
        }
        reader.finish()?;
        Ok(directory)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn payloads_round_trip(code in 1..8_u8, key_epoch: u16, epoch: [u8; 32], lifetime: [u8; 32]) {
            let factors = Factors::from_code(code).unwrap();
            let payload =
                SlotPayload { factors, key_epoch, epoch: Zeroizing::new(epoch), lifetime: Zeroizing::new(lifetime) };
            let read = SlotPayload::decode(&payload.encode()).unwrap();
            prop_assert_eq!((read.factors, read.key_epoch, *read.epoch, *read.lifetime), (factors, key_epoch, epoch, lifetime));
        }

        #[test]
        fn directories_round_trip(entries in proptest::collection::vec(proptest::option::of((1..8_u8, any::<u64>(), "[a-z]{0,48}")), 8)) {
            let mut directory = SlotDirectory::default();
            for (to, from) in directory.0.iter_mut().zip(entries) {
                *to = from.map(|(code, created, label)| SlotEntry { factors: Factors::from_code(code).unwrap(), created, label });
            }
            prop_assert_eq!(SlotDirectory::decode(&directory.encode().unwrap()).unwrap(), directory);
        }

        #[test]
        fn any_bytes_decode_to_what_encodes_to_them_or_are_refused(seed in proptest::collection::vec(any::<u8>(), 3), at in 0..SLOT_DIRECTORY_BYTES) {
            let mut bytes = [0; SLOT_DIRECTORY_BYTES];
            for (byte, from) in bytes[at..].iter_mut().zip(seed) {
                *byte = from;
            }
            if let Ok(directory) = SlotDirectory::decode(&bytes) {
                prop_assert_eq!(directory.encode().unwrap(), bytes);
            }
        }
    }

    #[test]
    fn a_label_over_the_limit_is_refused() {
        let mut directory = SlotDirectory::default();
        directory.0[0] = Some(SlotEntry { factors: Factors::PASSWORD, created: 0, label: "x".repeat(49) });
        assert!(directory.encode().is_err());
    }

    #[test]
    fn factors_are_named_together() {
        assert_eq!(Factors::PASSWORD.and(Factors::KEY_FILE).to_string(), "password and key file");
        assert_eq!(Factors::RECOVERY.to_string(), "recovery key");
        assert_eq!(Factors::from_code(0), None);
        assert_eq!(Factors::from_code(8), None);
    }
}
