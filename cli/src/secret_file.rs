//! Files that hold secrets: read into memory that is erased, and written once, for their owner alone.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::exit::{Exit, Failure};
use crate::local::own::Own;
use crate::password::Password;

/// Over this many bytes a key file is refused.
const SECRET_BYTES_MAX: usize = strongroom::CREDENTIAL_BYTES_MAX;
/// What a key file that is made here holds: twice what anyone could need, and still one small file.
const KEY_FILE_BYTES: usize = 64;

/// Reads a whole file that holds a secret; an empty one, one over 1 MiB, and what is the repository's is refused.
pub(crate) fn read(path: &Path, what: &str, own: &Own) -> Result<Password, Failure> {
    let failed = |error: io::Error| Failure::usage(format!("cannot read {what} {}: {error}", path.display()));
    own.refuse_reading(path).map_err(failed)?;
    let file = File::open(path).map_err(failed)?;
    // What has no length (a pipe) gets the largest buffer: it must never be moved, since a move leaves a copy behind.
    let length = match file.metadata().map_err(failed)? {
        metadata if metadata.is_file() => usize::try_from(metadata.len()).unwrap_or(SECRET_BYTES_MAX),
        _ => SECRET_BYTES_MAX,
    };
    let mut bytes = Zeroizing::new(Vec::with_capacity(length.clamp(4096, SECRET_BYTES_MAX) + 64));
    let limit = u64::try_from(SECRET_BYTES_MAX + 1).unwrap_or(u64::MAX);
    file.take(limit).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.is_empty() {
        return Err(Failure::usage(format!("{what} {} is empty", path.display())));
    }
    if bytes.len() > SECRET_BYTES_MAX {
        return Err(Failure::usage(format!("{what} {} is larger than 1MiB", path.display())));
    }
    Ok(bytes)
}

/// A file that this command has made, durably, and that is taken away again unless it is kept.
pub(crate) struct Written {
    path: PathBuf,
    keep: bool,
}

impl Written {
    /// Writes a new file that its owner alone may read; one that is there is never touched, and what is to stay free for the
    /// repository is not taken.
    pub(crate) fn new(path: &Path, what: &str, bytes: &[u8], own: &Own) -> Result<Self, Failure> {
        own.refuse(path)?;
        let failed = |error: io::Error| {
            let (exit, reason) = match error.kind() {
                io::ErrorKind::AlreadyExists => (Exit::Usage, "a file is there already, and is kept".to_owned()),
                // Not of the place that was named, but of the disk under it.
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::ReadOnlyFilesystem => {
                    (Exit::Failed, error.to_string())
                }
                _ => (Exit::Usage, error.to_string()),
            };
            Failure::new(exit, format!("cannot write {what} to {}: {reason}", path.display()))
        };
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(path).map_err(failed)?;
        let written = Self { path: path.to_owned(), keep: false };
        file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed)?;
        sync_folder(path).map_err(failed)?;
        Ok(written)
    }

    /// A fresh key file, and what it holds.
    pub(crate) fn new_key_file(path: &Path, own: &Own) -> Result<(Self, Password), Failure> {
        let env = strongroom::env::system().map_err(|error| Failure::new(Exit::Failed, error.to_string()))?;
        let bytes = Zeroizing::new(env.random::<KEY_FILE_BYTES>().map_err(strongroom::core::Error::from)?);
        let written = Self::new(path, "a key file", bytes.as_ref(), own)?;
        Ok((written, Zeroizing::new(bytes.to_vec())))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What it was made for is done.
    pub(crate) fn keep(mut self) {
        self.keep = true;
    }

    /// Keeps it where what it was made for is done, or may be, and answers where it is; else takes it away: it opens
    /// nothing.
    pub(crate) fn keep_if<T>(self, done: &Result<T, strongroom::Error>) -> Option<PathBuf> {
        use strongroom::core::Error as E;
        // An error of the storage may be of what comes after the commit, and one that tells damage or a rollback may be of
        // looking for what became of it.
        let may_be = match done {
            Ok(_) => true,
            Err(strongroom::Error::Core(error)) => {
                matches!(error, E::CommitUnknown { .. } | E::Storage(_) | E::Damaged(_) | E::RolledBack { .. })
            }
            Err(_) => false,
        };
        may_be.then(|| {
            let path = self.path.clone();
            self.keep();
            path
        })
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        if !self.keep {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// So that the name is durable too.
#[cfg(unix)]
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

#[cfg(not(unix))]
fn sync_folder(_: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_secret_file_is_its_owners_is_never_overwritten_and_goes_unless_it_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let (written, content) = Written::new_key_file(&path, &Own::default()).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(*fs::read(&path).unwrap(), **content);
        assert!(Written::new(&path, "a key file", b"other", &Own::default()).is_err());
        assert_eq!(*fs::read(&path).unwrap(), **content);
        drop(written);
        assert!(!path.exists());
        Written::new(&path, "a key file", b"kept", &Own::default()).unwrap().keep();
        assert_eq!(fs::read(&path).unwrap(), b"kept");
    }

    #[test]
    fn what_is_no_key_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, bytes: usize| {
            let path = folder.path().join(name);
            fs::write(&path, vec![7; bytes]).unwrap();
            path
        };
        for (path, why) in [
            (folder.path().join("absent"), "No such file"),
            (folder.path().to_owned(), "directory"),
            (file("empty", 0), "empty"),
            (file("large", SECRET_BYTES_MAX + 1), "1MiB"),
            ("/dev/zero".into(), "1MiB"),
        ] {
            let failure = read(&path, "the key file", &Own::default()).unwrap_err();
            assert!(failure.exit() == Exit::Usage && failure.to_string().contains(why), "{failure}");
        }
        assert_eq!(read(&file("largest", SECRET_BYTES_MAX), "it", &Own::default()).unwrap().len(), SECRET_BYTES_MAX);
    }
}
