//! Which files an import leaves out.
//!
//! A pattern without a slash is held against every name (`*.o`, `target`); one with a slash against the whole path, from
//! the name of the SRC on (`docs/draft/*`, `**/cache/*.tmp`). `*` stops at a slash, `**` does not. A folder that is left
//! out takes all below it along.

use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use rustix::fs::OFlags;

use crate::exit::Failure;
use crate::local::own::Own;
use crate::local::{bytes_of, name_of, reach};
use crate::output::shown;

/// The patterns, ready to use.
#[derive(Debug)]
pub(crate) struct Exclude {
    names: Patterns,
    paths: Patterns,
}

/// Patterns that are held against the same.
#[derive(Debug)]
struct Patterns {
    set: GlobSet,
    /// As they were given.
    texts: Vec<String>,
    /// Whether they are of a file: one that serves for many trees.
    are_shared: Vec<bool>,
    has_matched: Vec<AtomicBool>,
}

impl Patterns {
    fn new(patterns: Vec<(String, bool, globset::Glob)>) -> Result<Self, Failure> {
        let mut builder = GlobSetBuilder::new();
        let (mut texts, mut are_shared) = (Vec::new(), Vec::new());
        for (text, is_shared, glob) in patterns {
            builder.add(glob);
            texts.push(text);
            are_shared.push(is_shared);
        }
        let set = builder.build().map_err(|error| Failure::usage(format!("the patterns are too large: {error}")))?;
        let has_matched = texts.iter().map(|_| AtomicBool::new(false)).collect();
        Ok(Self { set, texts, are_shared, has_matched })
    }

    fn matches(&self, path: &[u8]) -> bool {
        let path = name_of(path);
        if !self.set.is_match(Path::new(&path)) {
            return false;
        }
        for index in self.set.matches(Path::new(&path)) {
            if let Some(has_matched) = self.has_matched.get(index) {
                has_matched.store(true, Ordering::Relaxed);
            }
        }
        true
    }

    /// With whether they are of a file.
    fn unmatched(&self) -> impl Iterator<Item = (&str, bool)> {
        let patterns = self.texts.iter().zip(&self.are_shared).zip(&self.has_matched);
        patterns
            .filter(|(_, has_matched)| !has_matched.load(Ordering::Relaxed))
            .map(|((text, is_shared), _)| (text.as_str(), *is_shared))
    }
}

/// What of a pattern is matched: slashes around it say where it begins and that it is a folder, and are no part of names.
fn matched(pattern: &str) -> &str {
    pattern.trim_start_matches('/').trim_end_matches('/')
}

impl Exclude {
    /// From patterns, and from files of patterns: one a line, empty lines and `#` comments left out.
    pub(crate) fn new(patterns: &[String], files: &[PathBuf]) -> Result<Self, Failure> {
        let (mut names, mut paths) = (Vec::new(), Vec::new());
        let mut add = |pattern: &str, is_shared: bool| -> Result<(), Failure> {
            if matched(pattern).is_empty() {
                return Err(Failure::usage(format!("the pattern `{pattern}` matches nothing: leave it out")));
            }
            let glob = GlobBuilder::new(matched(pattern))
                .literal_separator(true)
                .backslash_escape(true)
                .build()
                .map_err(|error| Failure::usage(format!("the pattern `{pattern}` makes no sense: {error}")))?;
            let patterns = if pattern.trim_end_matches('/').contains('/') { &mut paths } else { &mut names };
            patterns.push((pattern.to_owned(), is_shared, glob));
            Ok(())
        };
        for pattern in patterns {
            add(pattern, false)?;
        }
        for file in files {
            let text = std::fs::read_to_string(file)
                .map_err(|error| Failure::usage(format!("cannot read the patterns in {}: {error}", file.display())))?;
            for line in text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
                add(line, true)?;
            }
        }
        Ok(Self { names: Patterns::new(names)?, paths: Patterns::new(paths)? })
    }

    /// Refuses patterns that lead to what is in the sources, and match nothing since they do not begin with the name under
    /// which a source arrives.
    pub(crate) fn refuse_unnamed(&self, sources: &[(&Path, &[u8])]) -> Result<(), Failure> {
        for pattern in self.names.texts.iter().chain(&self.paths.texts) {
            let is_relative =
                ["./", "../"].iter().any(|start| pattern.starts_with(start)) || [".", ".."].contains(&matched(pattern));
            if !is_relative && !pattern.starts_with('/') {
                continue;
            }
            let meant = lexical(Path::new(pattern));
            let named: Vec<Vec<u8>> = sources.iter().filter_map(|source| named_in(&meant, *source)).collect();
            // A path that begins with a slash may begin with the name of a source, too.
            let as_given = matched(pattern).as_bytes();
            if !is_relative && (named.is_empty() || named.iter().any(|name| name == as_given)) {
                continue;
            }
            let what = match (named.first(), sources.first()) {
                (Some(name), _) if sources.iter().any(|(_, source)| source == name) => {
                    "it is SRC itself, which no pattern leaves out".to_owned()
                }
                (Some(name), _) => format!("paths begin with the name of SRC: write `{}`", shown(name)),
                (None, Some((_, source))) => {
                    let rest = pattern.split('/').filter(|name| !["", ".", ".."].contains(name));
                    let rest = rest.collect::<Vec<_>>().join("/");
                    let name = join(source, &name_of(rest.as_bytes()));
                    format!("paths begin with the name of SRC: write `{}`", shown(&name))
                }
                (None, None) => "paths begin with the name of SRC".to_owned(),
            };
            return Err(Failure::usage(format!("the pattern `{pattern}` matches nothing: {what}")));
        }
        Ok(())
    }

    /// Whether the last name of this path (from the name of the SRC on) is to be left out.
    pub(crate) fn matches(&self, path: &[u8]) -> bool {
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
        // Both are asked, so that what each has matched is known.
        self.names.matches(name) | self.paths.matches(path)
    }

    /// The patterns that matched nothing so far: those that were given by themselves, and how many of files, which may be
    /// for other trees.
    pub(crate) fn unmatched(&self) -> (Vec<String>, u64) {
        let (mut given, mut shared) = (Vec::new(), 0);
        for (text, is_shared) in self.names.unmatched().chain(self.paths.unmatched()) {
            if is_shared {
                shared += 1;
            } else {
                given.push(text.to_owned());
            }
        }
        (given, shared)
    }
}

/// A path from the root on, without `.` and `..`, whatever links it leads through.
fn lexical(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).components() {
        match component {
            Component::ParentDir => {
                plain.pop();
            }
            Component::CurDir => {}
            component => plain.push(component),
        }
    }
    plain
}

/// What a path of this machine is called that lies in a source, or is one.
fn named_in(path: &Path, (source, name): (&Path, &[u8])) -> Option<Vec<u8>> {
    [lexical(source), std::fs::canonicalize(source).unwrap_or_default()]
        .iter()
        .filter(|source| !source.as_os_str().is_empty())
        .find_map(|source| path.strip_prefix(source).ok())
        .map(|rest| if rest.as_os_str().is_empty() { name.to_vec() } else { join(name, rest.as_os_str()) })
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
    fn patterns_that_matched_nothing_are_known() {
        let patterns = ["*.o", "*.c", "src/*.o", "src/*.h"].map(str::to_owned);
        let exclude = Exclude::new(&patterns, &[]).unwrap();
        assert!(exclude.matches(b"src/a.o"));
        assert_eq!(exclude.unmatched(), (vec!["*.c".to_owned(), "src/*.h".to_owned()], 0));
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "*.o\n*.c\n\n# *.d\nsrc/*.h\n").unwrap();
        let exclude = Exclude::new(&["*.c".to_owned()], &[file.path().to_owned()]).unwrap();
        assert!(exclude.matches(b"src/a.o"));
        assert_eq!(exclude.unmatched(), (vec!["*.c".to_owned()], 2));
    }

    #[test]
    fn a_pattern_that_makes_no_sense_is_a_usage_error() {
        assert_eq!(Exclude::new(&["a[".to_owned()], &[]).unwrap_err().exit(), crate::exit::Exit::Usage);
    }
}
