/// The largest counter of a data block: pointers hold 48 bits of it.
pub const COUNTER_MAX: u64 = (1 << 48) - 1;

const DATA: u8 = 1;
const COMMIT: u8 = 2;

/// What the name of a block says to the key holder: the plaintext that the name cipher turns into the name.
///
/// ```text
/// domain u8 (1 data, 2 commit) ‖ 0 u8 ‖ key epoch u16 ‖ writer epoch u32 (0 for a commit) ‖ counter or sequence u64
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum BlockId {
    /// A block of records, numbered by its writer.
    Data {
        /// The key epoch that it is sealed under.
        key_epoch: u16,
        /// The epoch of its writer.
        writer_epoch: u32,
        /// The how-manieth block of that writer, at most [`COUNTER_MAX`].
        counter: u64,
    },
    /// A link of the commit chain.
    Commit {
        /// The key epoch that it is sealed under.
        key_epoch: u16,
        /// Its place in the chain.
        sequence: u64,
    },
}

impl BlockId {
    /// The length of the encoding: that of a name.
    pub const BYTES: usize = 16;

    /// The plaintext of the name.
    #[must_use]
    pub const fn encode(&self) -> [u8; Self::BYTES] {
        let (domain, key_epoch, writer_epoch, number) = match *self {
            Self::Data { key_epoch, writer_epoch, counter } => (DATA, key_epoch, writer_epoch, counter),
            Self::Commit { key_epoch, sequence } => (COMMIT, key_epoch, 0, sequence),
        };
        let [k0, k1] = key_epoch.to_le_bytes();
        let [w0, w1, w2, w3] = writer_epoch.to_le_bytes();
        let [n0, n1, n2, n3, n4, n5, n6, n7] = number.to_le_bytes();
        [domain, 0, k0, k1, w0, w1, w2, w3, n0, n1, n2, n3, n4, n5, n6, n7]
    }

    /// Reads what [`BlockId::encode`] wrote; `None` for anything else, which is then not a block of ours.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let &[domain, 0, k0, k1, w0, w1, w2, w3, n0, n1, n2, n3, n4, n5, n6, n7] = bytes else { return None };
        let key_epoch = u16::from_le_bytes([k0, k1]);
        let writer_epoch = u32::from_le_bytes([w0, w1, w2, w3]);
        let number = u64::from_le_bytes([n0, n1, n2, n3, n4, n5, n6, n7]);
        match domain {
            DATA if number <= COUNTER_MAX => Some(Self::Data { key_epoch, writer_epoch, counter: number }),
            COMMIT if writer_epoch == 0 => Some(Self::Commit { key_epoch, sequence: number }),
            _ => None,
        }
    }

    /// The key epoch that the block is sealed under.
    #[must_use]
    pub const fn key_epoch(&self) -> u16 {
        match *self {
            Self::Data { key_epoch, .. } | Self::Commit { key_epoch, .. } => key_epoch,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_layout_is_frozen() {
        let data = BlockId::Data { key_epoch: 0x0201, writer_epoch: 0x0605_0403, counter: 0x0c0b_0a09_0807 };
        assert_eq!(data.encode(), [1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0, 0]);
        let commit = BlockId::Commit { key_epoch: 0x0201, sequence: u64::MAX - 1 };
        assert_eq!(commit.encode(), [2, 0, 1, 2, 0, 0, 0, 0, 254, 255, 255, 255, 255, 255, 255, 255]);
        assert_eq!(BlockId::decode(&data.encode()), Some(data));
        assert_eq!(BlockId::decode(&commit.encode()), Some(commit));
    }

    #[test]
    fn anything_else_is_foreign() {
        let data = BlockId::Data { key_epoch: 1, writer_epoch: 2, counter: 3 }.encode();
        assert_eq!(BlockId::decode(&data[..15]), None);
        let changed = |index: usize, byte: u8| {
            let mut bytes = data;
            bytes[index] = byte;
            BlockId::decode(&bytes)
        };
        assert_eq!(changed(0, 0), None);
        assert_eq!(changed(0, 2), None, "a commit has no writer epoch");
        assert_eq!(changed(1, 1), None);
        assert_eq!(changed(14, 1), None, "a counter has 48 bits");
    }

    proptest! {
        #[test]
        fn each_identifier_has_one_encoding(bytes: [u8; 16]) {
            let mut near = bytes;
            near[0] = bytes[0] % 3;
            near[1] = 0;
            for bytes in [bytes, near] {
                if let Some(id) = BlockId::decode(&bytes) {
                    prop_assert_eq!(id.encode(), bytes);
                }
            }
        }

        #[test]
        fn any_input_is_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = BlockId::decode(&bytes);
        }
    }
}
