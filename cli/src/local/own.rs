//! Where the repository itself lies on this machine, so that nothing but the repository writes there.

use std::io;
use std::path::{Component, Path, PathBuf};

use super::source::Identity;
use crate::exit::Failure;

/// The folder that the repository itself lies in, or the file; neither where it lies elsewhere.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Own(Option<Identity>);

impl Own {
    /// What is at the path of a repository that is there.
    pub(crate) fn at(path: &Path) -> Self {
        Self(Identity::at(path))
    }

    /// Whether it is this folder or file.
    pub(crate) fn is(self, identity: Identity) -> bool {
        self.0 == Some(identity)
    }

    /// Refuses to write at a path that is the repository's, or lies in it, by whatever name it is called. Nothing needs to
    /// be there yet.
    pub(crate) fn refuse(self, path: &Path) -> Result<(), Failure> {
        if self.0.is_none() {
            return Ok(());
        }
        let real = resolved(path).map_err(|error| Failure::failed(format!("{}: {error}", path.display())))?;
        if real.ancestors().filter_map(Identity::at).any(|identity| self.is(identity)) {
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
        let own = Own::at(&path("repo"));
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
