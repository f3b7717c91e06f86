use super::{FormatError, Reader, RecordKind, SALT_BYTES, SEAL_BYTES, Writer};

/// One line of a block's directory: what a record is and where.
///
/// ```text
/// record kind u8 ‖ 0 u8 ‖ index u16 ‖ offset u32 ‖ length u32 ‖ 0 u32 ‖ id u64     (24 bytes)
/// ```
///
/// Entries stand in the order of their records, which lie back to back; zeros fill the directory up to the trailer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DirectoryEntry {
    /// What the record holds.
    pub kind: RecordKind,
    /// Its index in the block: its nonce.
    pub index: u16,
    /// Where the sealed record begins in the block, in bytes.
    pub offset: u32,
    /// The length of the sealed record in bytes, its tag included.
    pub length: u32,
    /// Whose it is: a chunk number, the level of a node, the sequence of a commit.
    pub id: u64,
}

const STRUCTURE: &str = "block directory";

impl DirectoryEntry {
    /// The length of the encoding.
    pub const BYTES: usize = 24;

    /// Appends the bytes of the entry.
    pub fn encode(&self, writer: &mut Writer) {
        writer.u8(self.kind.code()).u8(0).u16(self.index).u32(self.offset).u32(self.length).u32(0).u64(self.id);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, FormatError> {
        let kind = reader.u8()?;
        let kind = (RecordKind::from_code(kind).filter(|kind| kind.is_listed()))
            .ok_or_else(|| reader.error(format!("lists a record of kind {kind}")))?;
        reader.zeros(1)?;
        let (index, offset, length) = (reader.u16()?, reader.u32()?, reader.u32()?);
        reader.zeros(4)?;
        Ok(Self { kind, index, offset, length, id: reader.u64()? })
    }
}

/// Reads the plaintext of a directory that lists `records` records and begins at `directory_offset`. The records must lie
/// back to back from the salt to the directory, so that no byte of the block belongs to nothing.
///
/// # Errors
/// [`FormatError`] for anything that no writer makes.
pub fn decode_directory(bytes: &[u8], records: u16, directory_offset: u32) -> Result<Vec<DirectoryEntry>, FormatError> {
    let mut reader = Reader::new(STRUCTURE, bytes);
    if reader.remaining() / DirectoryEntry::BYTES < usize::from(records) {
        return Err(reader.error(format!("{records} records do not fit {} bytes", reader.remaining())));
    }
    let mut entries = Vec::with_capacity(records.into());
    let mut end = SALT_BYTES as u64;
    for index in 0..records {
        let entry = DirectoryEntry::decode(&mut reader)?;
        if entry.index != index || u64::from(entry.offset) != end || (entry.length as usize) < SEAL_BYTES {
            return Err(reader.error(format!("record {index} is not where the one before it ends")));
        }
        end += u64::from(entry.length);
        entries.push(entry);
    }
    if end != u64::from(directory_offset) {
        return Err(reader.error(format!("records end at byte {end}, the directory begins at {directory_offset}")));
    }
    reader.zeros(reader.remaining())?;
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entries(lengths: &[u32]) -> (Vec<DirectoryEntry>, u32) {
        let mut offset = 16;
        let entries = (lengths.iter().enumerate())
            .map(|(index, &length)| {
                let kind = RecordKind::LISTED[index % RecordKind::LISTED.len()];
                let entry = DirectoryEntry { kind, index: index as u16, offset, length, id: index as u64 * 77 };
                offset += length;
                entry
            })
            .collect();
        (entries, offset)
    }

    fn encode(entries: &[DirectoryEntry], padding: usize) -> Vec<u8> {
        let mut writer = Writer::default();
        entries.iter().for_each(|entry| entry.encode(&mut writer));
        writer.zeros(padding);
        writer.into_vec()
    }

    #[test]
    fn the_layout_is_frozen() {
        let entry =
            DirectoryEntry { kind: RecordKind::Node, index: 0, offset: 16, length: 0x0403_0201, id: 0x0807_0605 };
        let bytes = encode(&[entry], 0);
        assert_eq!(bytes, [2, 0, 0, 0, 16, 0, 0, 0, 1, 2, 3, 4, 0, 0, 0, 0, 5, 6, 7, 8, 0, 0, 0, 0]);
        assert_eq!(decode_directory(&bytes, 1, 0x0403_0211), Ok(vec![entry]));
    }

    #[test]
    fn gaps_overlaps_and_what_is_not_listed_are_refused() {
        let (good, end) = entries(&[16, 40, 100]);
        assert_eq!(decode_directory(&encode(&good, 5), 3, end), Ok(good.clone()));
        let refused = |change: fn(&mut Vec<DirectoryEntry>)| {
            let mut entries = good.clone();
            change(&mut entries);
            decode_directory(&encode(&entries, 5), 3, end).unwrap_err();
        };
        refused(|entries| entries[1].offset += 1);
        refused(|entries| entries[1].length -= 1);
        refused(|entries| entries[0].length = 15);
        refused(|entries| entries[2].index = 1);
        refused(|entries| entries[2].length = u32::MAX);
        refused(|entries| entries[1].kind = RecordKind::Directory);
        refused(|entries| entries.swap(0, 1));
        refused(|entries| entries.truncate(2));
        decode_directory(&encode(&good, 5), 2, end).unwrap_err();
        decode_directory(&encode(&good, 5), 3, end + 1).unwrap_err();
        decode_directory(&[], u16::MAX, end).unwrap_err();
        let mut padding = encode(&good, 5);
        *padding.last_mut().unwrap() = 1;
        decode_directory(&padding, 3, end).unwrap_err();
    }

    proptest! {
        #[test]
        fn directories_round_trip(lengths in proptest::collection::vec(16..5000_u32, 0..20), padding in 0..100_usize) {
            let (entries, end) = entries(&lengths);
            prop_assert_eq!(decode_directory(&encode(&entries, padding), lengths.len() as u16, end), Ok(entries));
        }

        #[test]
        fn any_input_is_refused_or_read_without_a_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..200), records: u16, offset: u32,
        ) {
            let _ = decode_directory(&bytes, records % 10, offset);
            let _ = decode_directory(&bytes, records, offset);
        }
    }
}
