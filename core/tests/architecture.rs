//! The direction of dependencies, which the folders show, holds.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a file that cannot be read fails the test

use std::fs;
use std::path::{Path, PathBuf};

fn core_folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file of a folder and those below it, with its depth: 0 for the folder itself.
fn rust_files(folder: &Path, depth: usize, files: &mut Vec<(PathBuf, usize)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, depth + 1, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push((path, depth));
        }
    }
}

/// The text without comments, and without space around `::`, so that a path cannot hide behind a line break.
fn code(text: &str) -> String {
    let lines = text.lines().map(|line| line.split_once("//").map_or(line, |(code, _)| code));
    let joined = lines.collect::<Vec<_>>().join(" ");
    joined.split("::").map(str::trim).collect::<Vec<_>>().join("::")
}

/// What in the source of a file of `module` reaches out of it; `supers` is how many `super` lead to the module itself.
fn reaches_out(module: &str, supers: usize, text: &str) -> Vec<String> {
    let is_word = |character: char| character.is_alphanumeric() || character == '_';
    let text = code(text);
    let mut found = Vec::new();
    for (place, path) in text.match_indices("crate::") {
        let before = text[..place].chars().next_back();
        let target = &text[place + path.len()..];
        // `other_crate::` is another word, and `$crate::` is this crate.
        let is_path = before.is_none_or(|character| !is_word(character));
        let is_own = target.strip_prefix(module).is_some_and(|rest| !rest.starts_with(is_word));
        if is_path && !is_own {
            found.push(format!("crate::{}", target.chars().take(20).collect::<String>()));
        }
    }
    // A module of tests inside the file is one deeper than the file.
    let product = text.split("#[cfg(test)] mod ").next().unwrap_or_default();
    for (part, supers) in [(product, supers), (&text, supers + 1)] {
        let too_far = "super::".repeat(supers + 1);
        if part.contains(&too_far) {
            found.push(too_far);
            break;
        }
    }
    found
}

/// The crates of this workspace, `strongroom-core` aside, that a manifest's `[dependencies]` name: those of every
/// target too, but not those that only its tests need.
fn other_strongroom_crates(manifest: &str) -> Vec<String> {
    let mut counts = false;
    let mut found = Vec::new();
    for line in manifest.lines().map(|line| line.split_once('#').map_or(line, |(code, _)| code).trim()) {
        if let Some(section) = line.strip_prefix('[') {
            let section = section.trim_end_matches(']');
            let is_for_tests = section.contains("dev-dependencies");
            counts = !is_for_tests && (section.ends_with("dependencies") || section.contains("dependencies."));
            // `[dependencies.name]` is a dependency by itself.
            let named = section.rsplit_once("dependencies.").map(|(_, name)| name);
            found.extend(named.filter(|name| counts && is_other(name)).map(str::to_owned));
        } else if counts {
            let key = line.split(['=', '.', ' ']).next().unwrap_or_default();
            let quoted = line.split('"').find(|part| is_other(part));
            found.extend([Some(key), quoted].into_iter().flatten().filter(|name| is_other(name)).map(str::to_owned));
        }
    }
    found
}

fn is_other(name: &str) -> bool {
    let is_name = name.chars().all(|character| character.is_ascii_alphanumeric() || "-_".contains(character));
    is_name && (name == "strongroom" || name.starts_with("strongroom-")) && name != "strongroom-core"
}

#[test]
fn crypto_and_format_import_no_sibling() {
    for module in ["crypto", "format"] {
        let mut files = Vec::new();
        rust_files(&core_folder().join("src").join(module), 0, &mut files);
        assert!(!files.is_empty(), "{module} has moved: tell this test");
        for (path, depth) in files {
            let is_folder = path.file_name().is_some_and(|name| name == "mod.rs");
            let supers = if is_folder { depth } else { depth + 1 };
            let found = reaches_out(module, supers, &fs::read_to_string(&path).unwrap());
            assert!(found.is_empty(), "{} reaches out of {module}: {found:?}", path.display());
        }
    }
}

#[test]
fn a_backend_depends_on_the_core_alone() {
    let mut seen = 0;
    for entry in fs::read_dir(core_folder().join("../backends")).unwrap() {
        let manifest = entry.unwrap().path().join("Cargo.toml");
        let Ok(text) = fs::read_to_string(&manifest) else { continue };
        let found = other_strongroom_crates(&text);
        assert!(found.is_empty(), "{} depends on {found:?}", manifest.display());
        seen += 1;
    }
    assert!(seen >= 2, "the backends have moved: tell this test");
}

/// Who knows one knows all; and what somebody must know before choosing one stands where it is looked for.
#[test]
fn a_backend_has_the_files_that_all_have_and_says_what_must_be_known() {
    let mut seen = 0;
    for entry in fs::read_dir(core_folder().join("../backends")).unwrap() {
        let folder = entry.unwrap().path();
        if !folder.is_dir() {
            continue;
        }
        let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
        for file in ["src/lib.rs", "src/config.rs", "src/storage.rs", "README.md", "tests/conformance.rs"] {
            assert!(folder.join(file).is_file(), "{name} has no {file}");
        }
        // Memory has no errors of a medium.
        assert!(name == "memory" || folder.join("src/error.rs").is_file(), "{name} has no src/error.rs");
        let says = fs::read_to_string(folder.join("README.md")).unwrap();
        let says_who_else = says.contains("**A second process**") || says.contains("**Several processes**");
        assert!(says_who_else, "{name} does not say what a second process gets");
        assert!(says.to_lowercase().contains("sync"), "{name} does not say what is durable");
        seen += 1;
    }
    assert!(seen >= 6, "{seen} backends");
}

#[test]
fn the_example_outside_has_of_this_workspace_what_others_have() {
    let manifest = fs::read_to_string(core_folder().join("../examples/own-storage/Cargo.toml")).unwrap();
    assert!(manifest.lines().any(|line| line == "[workspace]") && !manifest.contains("workspace = true"));
    assert!(other_strongroom_crates(&manifest).is_empty());
}

#[test]
fn imports_that_reach_out_are_found() {
    for text in [
        "use crate::storage::Name;",
        "use crate::{format::Pointer, error::Error};",
        "fn f() -> crate::Result<()> {}",
        "use crate::crypto_extra::X;",
        "use crate::\n    engine::Engine;",
        "use super::super::storage::Name;",
        "use crate :: storage;",
        "macro_rules! m { () => { $crate::storage::x() } }",
    ] {
        assert_eq!(reaches_out("crypto", 1, text).len(), 1, "{text}");
    }
    assert_eq!(reaches_out("crypto", 0, "use super::storage::Name;").len(), 1);
    assert_eq!(reaches_out("crypto", 0, "#[cfg(test)]\nmod tests { use super::super::storage; }").len(), 1);
    assert_eq!(reaches_out("crypto", 2, "use super::super::super::storage::Name;").len(), 1);
}

#[test]
fn imports_that_stay_within_are_not_found() {
    for text in [
        "use crate::crypto::Secret;",
        "use super::Secret; use std::fmt; use bytes::Bytes;",
        "/// See [`crate::engine`]. // crate::storage",
        "macro_rules! m { () => { $crate::crypto::x() } }",
        "use other_crate::thing;",
    ] {
        assert!(reaches_out("crypto", 1, text).is_empty(), "{text}");
    }
    assert!(reaches_out("crypto", 0, "mod a;\n#[cfg(test)]\nmod tests { use super::*; }").is_empty());
    assert!(reaches_out("crypto", 1, "#[cfg(test)]\nmod tests { use super::super::x; }").is_empty());
    assert!(reaches_out("crypto", 2, "use super::super::Secret;").is_empty());
}

#[test]
fn dependencies_on_other_crates_are_found() {
    for manifest in [
        "[dependencies]\nstrongroom-fs.workspace = true",
        "[dependencies]\nbytes = \"1\"\nstrongroom = { path = \"../../strongroom\" }",
        "[target.'cfg(unix)'.dependencies]\nstrongroom-memory.workspace = true",
        "[build-dependencies]\nstrongroom-file.workspace = true",
        "[dependencies.strongroom-fs]\nworkspace = true",
        "[dependencies]\ninnocent = { package = \"strongroom-fs\", version = \"1\" }",
        "[dev-dependencies]\nx = \"1\"\n[dependencies]\nstrongroom-conformance.workspace = true",
    ] {
        assert_eq!(other_strongroom_crates(manifest).len(), 1, "{manifest}");
    }
    for manifest in [
        "[package]\nname = \"strongroom-file\"\n[dependencies]\nstrongroom-core.workspace = true\nbytes.workspace = true",
        "[dependencies]\nbytes = \"1\"\n[dev-dependencies]\nstrongroom-conformance.workspace = true",
        "[dependencies] # strongroom-fs\nbytes = \"1\" # not strongroom-fs",
    ] {
        assert!(other_strongroom_crates(manifest).is_empty(), "{manifest}");
    }
}
