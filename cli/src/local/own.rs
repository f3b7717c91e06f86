//! Where the repository itself lies on this machine: nothing but the repository reads or writes there.

use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use super::source::Identity;
use crate::exit::Failure;

/// The files and folders that the repository's own storage lies in; none where it lies elsewhere. Stored into itself it would
/// grow with every import; and where it is a database, opening one of its files and closing it again would end the locks that
/// this process has on it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Own(Arc<[PathBuf]>);

impl Own {
    pub(crate) fn new(paths: Vec<PathBuf>) -> Self {
        Self(paths.into())
    }

    /// What is there now: a log comes and goes. Nothing is opened for that.
    pub(crate) fn now(&self) -> Vec<Identity> {
        self.0.iter().filter_map(|path| Identity::at(path)).collect()
    }

    /// Whether it is one of these files or folders.
    pub(crate) fn is(&self, identity: Identity) -> bool {
        self.0.iter().any(|path| Identity::at(path) == Some(identity))
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
        let own = self.now();
        if own.is_empty() {
            return Ok(());
        }
        let real = resolved(path).map_err(|error| Failure::failed(format!("{}: {error}", path.display())))?;
        if real.ancestors().filter_map(Identity::at).any(|identity| own.contains(&identity)) {
            let what = "here lies the repository itself, which this would damage: write somewhere else";
            return Err(Failure::usage(format!("{}: {what}", path.display())));
        }
        Ok(())
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
}
