//! Which file is what.

use strongroom_core::storage::Name;

/// The sub-folder of unfinished files.
pub(crate) const INCOMING: &str = "incoming";

/// The first byte of a name: its sub-folder.
pub(crate) type Shard = u8;

pub(crate) fn shard_of(name: Name) -> Shard {
    let [first, ..] = *name.as_bytes();
    first
}

pub(crate) fn shard_path(shard: Shard) -> String {
    format!("{shard:02x}")
}

/// The shard that a sub-folder of this name is.
pub(crate) fn shard_from(text: &str) -> Option<Shard> {
    let digits = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    (text.len() == 2 && digits).then(|| u8::from_str_radix(text, 16).ok()).flatten()
}

/// The path of a blob, relative to the folder.
pub(crate) fn blob_path(name: Name) -> String {
    let hex = name.to_hex();
    let mut path = String::with_capacity(35);
    path.extend(hex.chars().take(2));
    path.push('/');
    path.push_str(&hex);
    path
}

/// Where the handle with this tag writes its `number`-th file.
pub(crate) fn temporary_path(tag: u64, number: u64) -> String {
    format!("{INCOMING}/{tag:016x}-{number:x}.part")
}

/// The tag of the handle that wrote an unfinished file; `None` for a file that is not ours.
pub(crate) fn temporary_tag(file_name: &str) -> Option<u64> {
    let (tag, number) = file_name.strip_suffix(".part")?.split_once('-')?;
    let hex = |text: &str| text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if tag.len() != 16 || number.is_empty() || number.len() > 16 || !hex(tag) || !hex(number) {
        return None;
    }
    u64::from_str_radix(tag, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_stands_in_the_sub_folder_of_its_first_byte() {
        let mut bytes = [0xab; 16];
        bytes[0] = 0x07;
        let name = Name::new(bytes);
        assert_eq!(blob_path(name), format!("07/07{}", "ab".repeat(15)));
        assert_eq!(shard_from(&shard_path(shard_of(name))), Some(7));
        assert!(["7", "+7", "0A", "007", "zz", "incoming"].iter().all(|text| shard_from(text).is_none()));
    }

    #[test]
    fn unfinished_files_are_told_from_foreign_ones() {
        let path = temporary_path(0xfeed, 31);
        assert_eq!(temporary_tag(path.strip_prefix("incoming/").unwrap()), Some(0xfeed));
        let foreign =
            ["notes.part", "-1.part", "000000000000feed-.part", "000000000000feed-1", "00000000000+feed-1.part"];
        assert!(foreign.iter().all(|name| temporary_tag(name).is_none()));
    }
}
