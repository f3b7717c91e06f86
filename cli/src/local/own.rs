//! Where the repository itself lies on this machine: nothing but the repository reads or writes there.

use std::borrow::Cow;
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use super::bytes_of;
use super::source::Identity;
use crate::exit::Failure;

/// The files and folders that the repository's own storage lies in, or will lie in; none where it lies elsewhere. Stored into
/// itself it would grow with every import; and where it is a database, opening one of its files and closing it again would end
/// the locks that this process has on it. A name that a database may look for is kept free: what is put there would be
/// taken for its own, and a journal so found can undo all there is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Own(Arc<[PathBuf]>);

impl Own {
    pub(crate) fn new(paths: Vec<PathBuf>) -> Self {
        let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
        Self(paths.into_iter().map(absolute).collect())
    }

    /// What is there now: a log comes and goes. Nothing is opened for that.
    pub(crate) fn now(&self) -> Vec<Identity> {
        self.0.iter().filter_map(|path| Identity::at(path)).collect()
    }

    /// Whether it is one of these files or folders.
    pub(crate) fn is(&self, identity: Identity) -> bool {
        self.0.iter().any(|path| Identity::at(path) == Some(identity))
    }

    /// Whether what has that name in that folder, or would get it, is one of these.
    pub(crate) fn is_named(&self, folder: Identity, name: &[u8]) -> bool {
        self.0.iter().any(|path| {
            let (Some(around), Some(own)) = (path.parent(), path.file_name()) else { return false };
            // What is there is known by what it is. What is not may be found under a name in capitals, too.
            let own = bytes_of(own);
            let is_same = own == name || folded(own) == folded(name) && !path.exists();
            is_same && Identity::at(around) == Some(folder)
        })
    }

    /// Refuses to run with its results going into a file that is the repository's.
    pub(crate) fn refuse_stdout(&self) -> Result<(), Failure> {
        if self.0.is_empty() {
            return Ok(());
        }
        match rustix::fs::fstat(std::io::stdout().as_fd()) {
            Ok(there) if self.is(Identity::of_stat(&there)) => Err(Failure::usage(
                "stdout is a file of the repository itself, which this would damage: send it somewhere else",
            )),
            _ => Ok(()),
        }
    }

    /// Refuses to read what is the storage's, by whatever name.
    pub(crate) fn refuse_reading(&self, path: &Path) -> io::Result<()> {
        let own = self.now();
        if !own.is_empty() && Identity::at(path).is_some_and(|identity| own.contains(&identity)) {
            return Err(io::Error::other("it belongs to the repository itself"));
        }
        Ok(())
    }

    /// Refuses to write at a path that is the repository's, or lies in it, by whatever name it is called. Nothing needs to
    /// be there yet.
    pub(crate) fn refuse(&self, path: &Path) -> Result<(), Failure> {
        if self.0.is_empty() {
            return Ok(());
        }
        let own = self.now();
        let real = resolved(path).map_err(|error| Failure::failed(format!("{}: {error}", path.display())))?;
        let is_own = |place: &Path| {
            let folder = place.parent().and_then(Identity::at);
            let is_named = || Some(self.is_named(folder?, bytes_of(place.file_name()?)));
            Identity::at(place).is_some_and(|identity| own.contains(&identity)) || is_named() == Some(true)
        };
        if real.ancestors().any(is_own) {
            let what = "here lies the repository itself, which this would damage: write somewhere else";
            return Err(Failure::usage(format!("{}: {what}", path.display())));
        }
        Ok(())
    }
}

/// As a file system may compare names that tells no capitals from small letters.
fn folded(name: &[u8]) -> Cow<'_, str> {
    match String::from_utf8_lossy(name) {
        name if name.chars().any(char::is_uppercase) => name.to_lowercase().into(),
        name => name,
    }
}

/// The path without links, `.` and `..`, as it will be once the folders that are missing have been made.
fn resolved(path: &Path) -> io::Result<PathBuf> {
    let mut real = PathBuf::new();
    for component in std::path::absolute(path)?.components() {
        match component {
            Component::ParentDir => {
                real.pop();
            }
            Component::CurDir => {}
            component => {
                real.push(component);
                if let Ok(there) = std::fs::canonicalize(&real) {
                    real = there;
                }
            }
        }
    }
    Ok(real)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_lies_in_it_is_refused_by_whatever_name_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        std::fs::create_dir_all(path("repo/inner")).unwrap();
        std::fs::create_dir(path("elsewhere")).unwrap();
        symlink("../repo/inner", path("elsewhere/link")).unwrap();
        let own = Own::new(vec![path("repo")]);
        for name in [
            "repo",
            "repo/",
            "repo/new/deep",
            "elsewhere/../repo",
            "elsewhere/link",
            "elsewhere/link/new",
            "elsewhere/link/../new",
            "absent/../repo/new",
        ] {
            assert_eq!(own.refuse(&path(name)).unwrap_err().exit().code(), 2, "{name}");
            Own::default().refuse(&path(name)).unwrap();
        }
        for name in ["", "repo new", "elsewhere", "elsewhere/repo", "repo/..", "repo/../new", "elsewhere/link/../.."] {
            own.refuse(&path(name)).unwrap();
        }
    }

    #[test]
    fn a_name_that_is_to_stay_free_is_refused_before_anything_has_it() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        std::fs::create_dir(path("folder")).unwrap();
        std::fs::write(path("folder/db"), "").unwrap();
        symlink("folder", path("link")).unwrap();
        let own = Own::new(["db", "db-journal"].map(|name| path("folder").join(name)).into());
        for name in ["folder/db-journal", "link/db-journal", "folder/DB-Journal", "folder/db-journal/new"] {
            assert_eq!(own.refuse(&path(name)).unwrap_err().exit().code(), 2, "{name}");
        }
        for name in ["db-journal", "folder/DB", "folder/db-journal2", "folder/new/db-journal"] {
            own.refuse(&path(name)).unwrap();
        }
    }
}
