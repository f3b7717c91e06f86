//! What tells a folder from all copies of it, on this machine and on others: a sync client may carry what is put into one of them to
//! the rest, and a lock is seen in one alone.

use std::fs::Metadata;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::folder::Folder;

/// The machine, and the folder on it. It stays the same while the folder stays where it is, and is renamed; elsewhere it is taken
/// for another place, which costs nothing but time until what a crash left behind is removed.
pub(crate) fn of(folder: &Folder, path: &Path) -> Vec<u8> {
    let metadata = folder.metadata().ok();
    let created = metadata.as_ref().and_then(|metadata| metadata.created().ok());
    let created = created.and_then(|time: SystemTime| time.duration_since(UNIX_EPOCH).ok());
    let created = created.map_or_else(host, |time| time.as_nanos().to_string());
    format!("{}\n{}\n{created}", machine(), number(metadata.as_ref(), path)).into_bytes()
}

/// Not the device, whose number may be another after the next start.
#[cfg(unix)]
fn number(metadata: Option<&Metadata>, _: &Path) -> String {
    use std::os::unix::fs::MetadataExt as _;
    metadata.map(|metadata| metadata.ino().to_string()).unwrap_or_default()
}

#[cfg(not(unix))]
fn number(_: Option<&Metadata>, path: &Path) -> String {
    std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned()).display().to_string()
}

/// Where the system has no name for it, number and time of the folder must do.
#[cfg(unix)]
fn machine() -> String {
    std::fs::read_to_string("/etc/machine-id").map(|text| text.trim().to_owned()).unwrap_or_default()
}

/// Where the file system does not say when a folder was made. Containers have another one each time.
#[cfg(unix)]
fn host() -> String {
    std::fs::read_to_string("/etc/hostname").map(|text| text.trim().to_owned()).unwrap_or_default()
}

#[cfg(not(unix))]
fn host() -> String {
    String::new()
}

#[cfg(not(unix))]
fn machine() -> String {
    std::env::var("COMPUTERNAME").unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_itself_under_any_path_and_no_copy_of_it() {
        let root = tempfile::tempdir().unwrap();
        let [here, renamed, copy] = ["here", "renamed", "copy"].map(|name| root.path().join(name));
        for folder in [&here, &copy] {
            std::fs::create_dir(folder).unwrap();
        }
        let at = |path: &Path| of(&Folder::open(path).unwrap(), path);
        let (place, open) = (at(&here), Folder::open(&here).unwrap());
        assert_eq!(at(&root.path().join("copy/../here")), place);
        assert_ne!(at(&copy), place);
        std::fs::rename(&here, &renamed).unwrap();
        #[cfg(unix)]
        assert_eq!(at(&renamed), place);
        // It goes by what is open, whatever lies at the path by now.
        std::fs::rename(&copy, &here).unwrap();
        #[cfg(unix)]
        assert_eq!(of(&open, &here), place);
        let _ = open;
    }
}
