//! Which files an import leaves out.
//!
//! A pattern without a slash is held against every name (`*.o`, `target`); one with a slash against the whole path, from
//! the name of the SRC on (`docs/draft/*`, `**/cache/*.tmp`). `*` stops at a slash, `**` does not. A folder that is left
//! out takes all below it along.

use std::path::Path;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use rustix::fs::OFlags;

use crate::exit::Failure;
use crate::local::own::Own;
use crate::local::{bytes_of, name_of, reach};

/// The patterns, ready to use.
#[derive(Debug)]
pub(crate) struct Exclude {
    names: GlobSet,
    paths: GlobSet,
}

impl Exclude {
    /// From patterns, and from files of patterns: one a line, empty lines and `#` comments left out.
    pub(crate) fn new(patterns: &[String], files: &[std::path::PathBuf]) -> Result<Self, Failure> {
        let (mut names, mut paths) = (GlobSetBuilder::new(), GlobSetBuilder::new());
        let mut add = |pattern: &str| -> Result<(), Failure> {
            let builder = if pattern.trim_end_matches('/').contains('/') { &mut paths } else { &mut names };
            let glob = GlobBuilder::new(pattern.trim_start_matches('/').trim_end_matches('/'))
                .literal_separator(true)
                .backslash_escape(true)
                .build()
                .map_err(|error| Failure::usage(format!("the pattern `{pattern}` makes no sense: {error}")))?;
            builder.add(glob);
            Ok(())
        };
        for pattern in patterns {
            add(pattern)?;
        }
        for file in files {
            let text = std::fs::read_to_string(file)
                .map_err(|error| Failure::usage(format!("cannot read the patterns in {}: {error}", file.display())))?;
            for line in text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
                add(line)?;
            }
        }
        let build = |builder: GlobSetBuilder| {
            builder.build().map_err(|error| Failure::usage(format!("the patterns are too large: {error}")))
        };
        Ok(Self { names: build(names)?, paths: build(paths)? })
    }

    /// Whether the last name of this path (from the name of the SRC on) is to be left out.
    pub(crate) fn matches(&self, path: &[u8]) -> bool {
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
        self.names.is_match(Path::new(&name_of(name))) || self.paths.is_match(Path::new(&name_of(path)))
    }
}

/// The beginning of a `CACHEDIR.TAG` that counts (bford.info/cachedir).
const CACHE_TAG: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55";

/// Whether a folder says of itself that all in it can be made again.
pub(crate) fn is_cache(folder: &Path, own: &Own) -> bool {
    use std::io::Read as _;
    let mut start = Vec::with_capacity(CACHE_TAG.len());
    let limit = u64::try_from(CACHE_TAG.len()).unwrap_or_default();
    let path = folder.join("CACHEDIR.TAG");
    // Opened only where it is a plain file, and none of the repository's: a FIFO of that name would wait for ever.
    if !reach::metadata(&path).is_ok_and(|metadata| metadata.is_file()) || own.refuse_reading(&path).is_err() {
        return false;
    }
    let file = reach::open(&path, OFlags::RDONLY | OFlags::NONBLOCK).map(std::fs::File::from);
    file.and_then(|file| file.take(limit).read_to_end(&mut start)).is_ok() && start == CACHE_TAG
}

/// The path of an entry below a folder.
pub(crate) fn join(folder: &[u8], name: &std::ffi::OsStr) -> Vec<u8> {
    let mut path = folder.to_vec();
    if !path.is_empty() && path.last() != Some(&b'/') {
        path.push(b'/');
    }
    path.extend_from_slice(bytes_of(name));
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_anywhere_and_paths_from_the_source_on() {
        let patterns = ["*.o", "target/", "docs/draft/*", "**/deep/*.tmp", "/top/only"].map(str::to_owned);
        let exclude = Exclude::new(&patterns, &[]).unwrap();
        for path in ["src/a.o", "a/b/target", "docs/draft/x", "a/b/deep/c.tmp", "top/only"] {
            assert!(exclude.matches(path.as_bytes()), "{path}");
        }
        for path in ["src/a.c", "a/targets", "docs/draft", "docs/draft/x/y", "x/top/only", "o"] {
            assert!(!exclude.matches(path.as_bytes()), "{path}");
        }
        assert!(exclude.matches(b"dir/\xff.o"));
    }

    #[test]
    fn a_pattern_that_makes_no_sense_is_a_usage_error() {
        assert_eq!(Exclude::new(&["a[".to_owned()], &[]).unwrap_err().exit(), crate::exit::Exit::Usage);
    }
}
