use super::BlockId;

/// Where a record is, and which sealing of its block it belongs to.
///
/// ```text
/// key epoch u16 ‖ writer epoch u32 ‖ counter u48 ‖ index u16 ‖ offset u32 ‖ length u32 ‖ salt 16     (38 bytes)
/// ```
///
/// The salt binds the pointer to one sealing: a block of the same name sealed again opens under no older pointer. Any 38
/// bytes decode; whether offset and length lie in a block is checked by the reader, who knows its size.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Pointer {
    /// The key epoch that the block is sealed under.
    pub key_epoch: u16,
    /// The epoch of the writer of the block.
    pub writer_epoch: u32,
    /// The number of the block, at most [`COUNTER_MAX`](super::COUNTER_MAX); the encoding keeps no more of it.
    pub counter: u64,
    /// The index of the record in its block: its nonce.
    pub index: u16,
    /// Where the sealed record begins in the block, in bytes.
    pub offset: u32,
    /// The length of the sealed record in bytes, its tag included.
    pub length: u32,
    /// The salt of the block.
    pub salt: [u8; 16],
}

impl Pointer {
    /// The length of the encoding.
    pub const BYTES: usize = 38;

    /// The bytes of the pointer.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::BYTES] {
        let [c0, c1, c2, c3, c4, c5, _, _] = self.counter.to_le_bytes();
        let mut bytes = [0; Self::BYTES];
        bytes[0..2].copy_from_slice(&self.key_epoch.to_le_bytes());
        bytes[2..6].copy_from_slice(&self.writer_epoch.to_le_bytes());
        bytes[6..12].copy_from_slice(&[c0, c1, c2, c3, c4, c5]);
        bytes[12..14].copy_from_slice(&self.index.to_le_bytes());
        bytes[14..18].copy_from_slice(&self.offset.to_le_bytes());
        bytes[18..22].copy_from_slice(&self.length.to_le_bytes());
        bytes[22..38].copy_from_slice(&self.salt);
        bytes
    }

    /// Reads what [`Pointer::encode`] wrote; `None` for another length.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (&[k0, k1, w0, w1, w2, w3, c0, c1, c2, c3, c4, c5, i0, i1, o0, o1, o2, o3, l0, l1, l2, l3], rest) =
            bytes.split_first_chunk::<22>()?;
        Some(Self {
            key_epoch: u16::from_le_bytes([k0, k1]),
            writer_epoch: u32::from_le_bytes([w0, w1, w2, w3]),
            counter: u64::from_le_bytes([c0, c1, c2, c3, c4, c5, 0, 0]),
            index: u16::from_le_bytes([i0, i1]),
            offset: u32::from_le_bytes([o0, o1, o2, o3]),
            length: u32::from_le_bytes([l0, l1, l2, l3]),
            salt: rest.try_into().ok()?,
        })
    }

    /// The block that the record is in.
    #[must_use]
    pub const fn block_id(&self) -> BlockId {
        BlockId::Data { key_epoch: self.key_epoch, writer_epoch: self.writer_epoch, counter: self.counter }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_layout_is_frozen() {
        let pointer = Pointer {
            key_epoch: 0x0201,
            writer_epoch: 0x0605_0403,
            counter: 0x0c0b_0a09_0807,
            index: 0x0e0d,
            offset: 0x1211_100f,
            length: 0x1615_1413,
            salt: [0xaa; 16],
        };
        let mut expected: Vec<u8> = (1..=22).collect();
        expected.extend([0xaa; 16]);
        assert_eq!(pointer.encode().as_slice(), expected);
        assert_eq!(Pointer::decode(&expected), Some(pointer));
    }

    proptest! {
        #[test]
        fn any_38_bytes_are_one_pointer_and_nothing_else_is(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            match Pointer::decode(&bytes) {
                Some(pointer) => prop_assert_eq!(pointer.encode().to_vec(), bytes),
                None => prop_assert_ne!(bytes.len(), Pointer::BYTES),
            }
        }

        #[test]
        fn pointers_round_trip(bytes: [u8; 19], rest: [u8; 19]) {
            let bytes = [bytes, rest].concat();
            let pointer = Pointer::decode(&bytes).unwrap();
            prop_assert_eq!(pointer.encode().to_vec(), bytes);
        }
    }
}
