//! The sub-folder `deleted`: who makes it wants deleted blobs kept there for a while. In a folder that a sync client keeps alike on
//! several machines, what one of them deletes is gone from all; another may have written meanwhile what still needs it.

use std::io;

use strongroom_core::storage::Name;

use crate::folder::Folder;

/// It is never made by us.
pub(crate) const DELETED: &str = "deleted";

/// How long deleted blobs are kept.
pub(crate) const KEPT_MILLIS: u64 = 30 * 24 * 60 * 60 * 1000;

/// What a file there is called: when it was deleted, and what it was.
fn file_name(name: Name, millis: u64) -> String {
    format!("{millis:016}-{}", name.to_hex())
}

/// When a blob was deleted that a file there is, and its name; `None` for a file that is none of ours.
fn parse(entry: &str) -> Option<(u64, Name)> {
    let (millis, hex) = entry.split_once('-')?;
    let is_time = millis.len() == 16 && millis.bytes().all(|byte| byte.is_ascii_digit());
    Some((millis.parse().ok().filter(|_| is_time)?, Name::from_hex(hex)?))
}

/// Keeps a blob, where that is wanted and can be done; whether it was. Else it goes like any other: that it cannot be kept (because
/// the sub-folder leads to another disk, or is full) is no reason to keep what takes space, or opens with an old password.
pub(crate) fn keep(folder: &Folder, path: &str, name: Name, millis: u64) -> bool {
    // Asked first, though the move would tell: deleting is to name nothing that is to be made durable, where nobody wants it.
    if !matches!(folder.file_bytes(DELETED), Ok(None)) {
        return false;
    }
    folder.rename(path, &format!("{DELETED}/{}", file_name(name, millis))).is_ok()
}

/// The blobs that are kept, by where they are, the first deleted first.
pub(crate) fn kept(folder: &Folder) -> io::Result<Vec<(String, u64, Name)>> {
    let mut kept = Vec::new();
    let listed = folder.each_entry(DELETED, |entry| {
        kept.extend(parse(entry).map(|(millis, name)| (format!("{DELETED}/{entry}"), millis, name)));
    });
    match listed {
        Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Err(error),
        _ => {
            kept.sort();
            Ok(kept)
        }
    }
}

/// Removes those that were deleted before then; how many. What cannot be removed stays.
pub(crate) fn remove_before(folder: &Folder, millis: u64) -> usize {
    let old = kept(folder).unwrap_or_default().into_iter().filter(|(_, deleted, _)| *deleted < millis);
    old.filter(|(path, ..)| folder.remove(path).is_ok()).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_says_when_it_was_deleted_and_goes_after_its_time_and_nothing_else_goes() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::open(root.path()).unwrap();
        let names = [1, 2].map(|byte| Name::new([byte; 16]));
        std::fs::write(root.path().join("blob"), b"blob").unwrap();
        assert!(!keep(&folder, "blob", names[0], 5), "nobody wants it");
        assert!(kept(&folder).unwrap().is_empty());
        std::fs::create_dir(root.path().join(DELETED)).unwrap();
        for (name, millis) in [(names[0], 1_700_000_000_000), (names[1], 1_700_000_000_001), (names[0], 9)] {
            std::fs::write(root.path().join("blob"), b"blob").unwrap();
            assert!(keep(&folder, "blob", name, millis));
        }
        std::fs::write(root.path().join(DELETED).join("notes"), b"mine").unwrap();
        let order: Vec<_> = kept(&folder).unwrap().into_iter().map(|(_, millis, name)| (millis, name)).collect();
        assert_eq!(order, [(9, names[0]), (1_700_000_000_000, names[0]), (1_700_000_000_001, names[1])]);
        assert_eq!(remove_before(&folder, 1_700_000_000_001), 2);
        assert_eq!(kept(&folder).unwrap().len(), 1);
        assert_eq!(remove_before(&folder, u64::MAX), 1);
        assert!(root.path().join(DELETED).join("notes").exists());
    }
}
