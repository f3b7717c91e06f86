//! Extended attributes go in and come out, with files, with folders, and in tar streams.

#![cfg(target_os = "linux")]

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::common::acceptance::check_is_clean;
use crate::common::{self, Scratch, compare_trees};
use rustix::fs::XattrFlags;

fn set(path: &Path, name: &str, value: &[u8]) -> bool {
    rustix::fs::setxattr(path, name, value, XattrFlags::empty()).is_ok()
}

fn get(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut buffer = vec![0; 1 << 16];
    let bytes = rustix::fs::getxattr(path, name, buffer.as_mut_slice()).ok()?;
    buffer.truncate(bytes);
    Some(buffer)
}

/// A tree with extended attributes; none where the file system of the temporary folder has no such.
fn tree(scratch: &Scratch) -> bool {
    let tree = scratch.path("tree");
    fs::create_dir_all(tree.join("folder")).unwrap();
    for name in ["folder/file", "plain"] {
        fs::write(tree.join(name), name).unwrap();
    }
    let all = set(&tree.join("folder"), "user.of.folder", b"folder")
        && set(&tree.join("folder/file"), "user.empty", b"")
        && set(&tree.join("folder/file"), "user.long", &[0xff; 3_000]);
    if !all {
        eprintln!("no extended attributes here: nothing to try");
    }
    all
}

fn are_there(tree: &Path) {
    assert_eq!(get(&tree.join("folder"), "user.of.folder").unwrap(), b"folder");
    assert_eq!(get(&tree.join("folder/file"), "user.empty").unwrap(), b"");
    assert_eq!(get(&tree.join("folder/file"), "user.long").unwrap(), [0xff; 3_000]);
    assert_eq!(get(&tree.join("plain"), "user.long"), None);
}

#[test]
fn they_come_back_with_files_and_folders() {
    let scratch = Scratch::with_repository();
    if !tree(&scratch) {
        return;
    }
    let report =
        || -> serde_json::Value { serde_json::from_slice(&scratch.succeeds(["import", "tree", "--json"])).unwrap() };
    report();
    scratch.succeeds(["export", "/tree", "out"]);
    are_there(&scratch.path("out/tree"));
    assert_eq!(compare_trees(&scratch.path("tree"), &scratch.path("out/tree")), Vec::<String>::new());

    // They change without a change of content or of its time.
    let file = scratch.path("tree/folder/file");
    rustix::fs::removexattr(&file, "user.long").unwrap();
    assert!(set(&file, "user.new", b"new"));
    let changed = report();
    let counts = ["files", "folders", "attributes"].map(|count| changed[count].as_u64());
    assert_eq!(counts, [Some(0), Some(0), Some(1)]);
    scratch.succeeds(["get", "/tree/folder/file", "alone"]);
    for back in ["alone", "tree/folder/file"] {
        let back = scratch.path(back);
        assert_eq!((get(&back, "user.long"), get(&back, "user.new").unwrap().as_slice()), (None, &b"new"[..]));
    }
    check_is_clean(&scratch, "after both");
}

/// Only the system's own names, which root alone may give, are for links.
#[test]
fn those_of_a_link_come_back_and_never_reach_what_it_leads_to() {
    let scratch = Scratch::with_repository();
    if !tree(&scratch) {
        return;
    }
    let link = scratch.path("tree/link");
    std::os::unix::fs::symlink("plain", &link).unwrap();
    if rustix::fs::lsetxattr(&link, "trusted.of.link", b"link", XattrFlags::empty()).is_err() {
        eprintln!("no extended attributes of links here: nothing to try");
        return;
    }
    let of = |path: &Path| {
        let mut buffer = vec![0; 100];
        let bytes = rustix::fs::lgetxattr(path, "trusted.of.link", buffer.as_mut_slice()).ok()?;
        Some(buffer[..bytes].to_vec())
    };
    scratch.succeeds(["import", "tree"]);
    scratch.succeeds(["export", "/tree", "out"]);
    fs::create_dir(scratch.path("untarred")).unwrap();
    fs::write(scratch.path("tar"), scratch.succeeds(["export", "/tree", "-", "-q"])).unwrap();
    let mut tar = Command::new("tar");
    tar.args(["--extract", "--xattrs", "--xattrs-include=*", "--directory"]).arg(scratch.path("untarred"));
    let done = tar.stdin(Stdio::from(File::open(scratch.path("tar")).unwrap())).status().expect("tar is installed");
    assert!(done.success());
    for out in ["out/tree", "untarred/tree"] {
        assert_eq!(of(&scratch.path(out).join("link")).as_deref(), Some(&b"link"[..]), "{out}");
        assert_eq!(of(&scratch.path(out).join("plain")), None, "{out}");
    }
    // They change by themselves.
    rustix::fs::lsetxattr(&link, "trusted.of.link", b"other", XattrFlags::empty()).unwrap();
    scratch.succeeds(["import", "tree"]);
    scratch.succeeds(["export", "/tree", "out"]);
    assert_eq!(of(&scratch.path("out/tree/link")).as_deref(), Some(&b"other"[..]));
    check_is_clean(&scratch, "after all");
}

/// What an export writes into is somebody's: it gets what was stored, and loses nothing.
#[test]
fn folders_that_were_there_keep_their_own_beside_those_that_were_stored() {
    let scratch = Scratch::with_repository();
    if !tree(&scratch) {
        return;
    }
    scratch.succeeds(["import", "tree"]);
    fs::create_dir_all(scratch.path("out/tree/folder")).unwrap();
    for (folder, name) in [("out", "user.own"), ("out/tree", "user.own"), ("out/tree/folder", "user.own")] {
        assert!(set(&scratch.path(folder), name, b"own"));
    }
    assert!(set(&scratch.path("out/tree/folder"), "user.of.folder", b"before"));
    for _ in 0..2 {
        let output = scratch.run(["export", "/tree", "out"]);
        assert_eq!((output.status.code(), common::acceptance::text(&output.stderr)), (Some(0), String::new()));
        are_there(&scratch.path("out/tree"));
        for folder in ["out", "out/tree", "out/tree/folder"] {
            assert_eq!(get(&scratch.path(folder), "user.own").unwrap(), b"own", "{folder}");
        }
    }
}

#[test]
fn they_go_through_tar() {
    let scratch = Scratch::with_repository();
    if !tree(&scratch) {
        return;
    }
    scratch.succeeds(["import", "tree"]);
    fs::create_dir(scratch.path("out")).unwrap();
    let stream = scratch.succeeds(["export", "/tree", "-", "-q"]);
    fs::write(scratch.path("tar"), stream).unwrap();
    let mut tar = Command::new("tar");
    tar.args(["--extract", "--xattrs", "--xattrs-include=*", "--directory"]).arg(scratch.path("out"));
    let done = tar.stdin(Stdio::from(File::open(scratch.path("tar")).unwrap())).status().expect("tar is installed");
    assert!(done.success());
    are_there(&scratch.path("out/tree"));
}

#[test]
fn those_that_no_tar_stream_can_name_are_counted() {
    let scratch = Scratch::with_repository();
    if !tree(&scratch) {
        return;
    }
    let odd = common::os(b"user.\xff");
    for (path, name) in [("plain", "user.a=b"), ("folder", "user.=")] {
        assert!(set(&scratch.path("tree").join(path), name, b"value"));
    }
    rustix::fs::setxattr(scratch.path("tree/plain"), odd, b"value", XattrFlags::empty()).unwrap();
    scratch.succeeds(["import", "tree"]);
    let output = scratch.run(["export", "/tree", "-"]);
    let said = common::acceptance::text(&output.stderr);
    // As where a folder does not take them.
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("3 extended attributes were left out"), "{said}");
    scratch.succeeds(["export", "/tree", "out"]);
    are_there(&scratch.path("out/tree"));
    assert_eq!(get(&scratch.path("out/tree/plain"), "user.a=b").unwrap(), b"value");
}

/// Its new content goes into the file that is there, or takes its place; what it is marked with follows either way.
#[test]
fn those_of_a_large_file_are_those_it_has_when_it_is_imported_anew() {
    for versions in ["0", "2"] {
        let scratch = Scratch::new();
        let init = ["init", "--no-recovery", "--kdf-time", "1", "--block-size", "16KiB", "--versions", versions];
        scratch.succeeds(init);
        if !tree(&scratch) {
            return;
        }
        let file = scratch.path("tree/large");
        fs::write(&file, vec![1; 16 << 20]).unwrap();
        assert!(set(&file, "user.first", b"1"));
        scratch.succeeds(["import", "tree"]);
        for (round, expected) in [(2, None), (3, Some(&b"3"[..])), (4, Some(&b"3"[..]))] {
            fs::write(&file, vec![round; (16 << 20) + usize::from(round)]).unwrap();
            match round {
                2 => rustix::fs::removexattr(&file, "user.first").unwrap(),
                3 => assert!(set(&file, "user.third", b"3")),
                _ => {}
            }
            scratch.succeeds(["import", "tree"]);
            let back = format!("back {round}");
            scratch.succeeds(["get", "/tree/large", &back]);
            let back = scratch.path(&back);
            assert_eq!((get(&back, "user.first"), get(&back, "user.third").as_deref()), (None, expected), "{round}");
        }
        check_is_clean(&scratch, "after all");
    }
}
