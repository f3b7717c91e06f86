//! `export` and `get`: what they refuse to write over, what they count, and who can read what they wrote.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::common::acceptance::{check_is_clean, text};
use crate::common::{self, Scratch, compare_trees, list, mounts};

/// `/A` and `/B`, with a file and a folder of the same name in each.
fn doubles() -> Scratch {
    let scratch = Scratch::with_repository();
    scratch.succeeds(["mkdir", "-p", "/A/folder/a", "/B/folder/b", "/same"]);
    for path in ["/A/same", "/B/same", "/A/other"] {
        assert!(scratch.feeds(["put", "-", path], path.as_bytes()).status.success());
    }
    scratch
}

#[test]
fn two_of_one_name_are_not_written_to_one_place() {
    let scratch = doubles();
    for (paths, says) in [
        (&["/A/other", "/A/same", "/B/same"][..], "/A/same and /B/same would both arrive as same"),
        (&["A/same", "/B/../A/same"], "A/same and /B/../A/same would both arrive as same"),
        (&["/A/folder", "/B/folder/"], "/A/folder and /B/folder/ would both arrive as folder"),
        (&["/A/same", "/"], "what is in / and /A/same would both arrive as same"),
        (&["/", "/B"], "what is in / and /B would both arrive as B"),
        (&["/", "/."], "/ and /. are the same"),
    ] {
        for more in [&["out"][..], &["-"], &["out", "--dry-run"]] {
            let output = scratch.run([&["export"], paths, more].concat());
            let said = text(&output.stderr);
            assert_eq!((output.status.code(), said.lines().count()), (Some(2), 1), "{paths:?}: {said}");
            assert!(said.contains(says) && output.stdout.is_empty(), "{paths:?}: {said}");
            assert!(!scratch.path("out").exists());
        }
    }
    scratch.succeeds(["export", "/", "/A/other", "out"]);
    assert_eq!(fs::read(scratch.path("out/other")).unwrap(), b"/A/other");
    assert!(scratch.path("out/A/other").is_file());
}

#[test]
fn what_is_named_twice_is_written_once() {
    let scratch = doubles();
    for (paths, files) in [(&["/A/same", "/A/other", "/A/same"][..], 2), (&["/A", "/A"], 2), (&["/", "/", "/"], 3)] {
        let output = scratch.run([&["export"], paths, &["out", "--json"]].concat());
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()), "{paths:?}");
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["files"], files, "{paths:?}: {report}");
        fs::remove_dir_all(scratch.path("out")).unwrap();
    }
    let once = scratch.succeeds(["export", "/A/same", "-"]);
    assert_eq!(scratch.succeeds(["export", "/A/same", "/A/same", "-"]), once);
}

#[test]
fn a_folder_named_by_dots_is_not_the_root() {
    let scratch = Scratch::with_repository();
    scratch.succeeds(["mkdir", "-p", "/.../inner"]);
    scratch.succeeds(["export", "/...", "out"]);
    assert!(scratch.path("out/.../inner").is_dir() && !scratch.path("out/inner").exists());
}

#[test]
fn a_folder_that_cannot_be_entered_is_not_counted() {
    let scratch = doubles();
    fs::create_dir(scratch.path("out")).unwrap();
    fs::write(scratch.path("out/A"), "in the way").unwrap();
    fs::write(scratch.path("out/folder"), "in the way").unwrap();
    for (path, folders) in [("/A", 0), ("/A/folder", 0), ("/", 4)] {
        let output = scratch.run(["export", path, "out", "--json"]);
        assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["folders"], folders, "{path}: {report}");
    }
}

#[test]
fn a_dry_run_says_what_the_run_does_and_touches_nothing() {
    let scratch = Scratch::with_repository();
    scratch.succeeds(["mkdir", "-p", "/s/d", "/s/e", "/s/kept", "/s/f/inner"]);
    for path in ["/s/d/file", "/s/d/other", "/s/kept/file", "/s/f/inner/file"] {
        assert!(scratch.feeds(["put", "-", path], b"content").status.success());
    }
    scratch.succeeds(["ln", "-s", "nowhere", "/s/e/link"]);
    scratch.succeeds(["ln", "/s/d/other", "/s/kept/same"]);
    let out = scratch.path("out");
    for folder in ["s/d/file/full", "s/e/link/full", "s/kept/same"] {
        fs::create_dir_all(out.join(folder)).unwrap();
    }
    fs::write(out.join("s/f"), "a file in the way").unwrap();
    symlink("elsewhere", out.join("s/d/other")).unwrap();
    let run = |more: &[&str]| {
        let output = scratch.run(["export", "/s", "out", "--json"].iter().chain(more));
        let mut report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        report["seconds"] = 0.into();
        (output.status.code(), text(&output.stderr), report)
    };
    let before = state(&out);
    let would = run(&["--dry-run"]);
    assert_eq!(state(&out), before);
    assert_eq!(would, run(&[]));
    assert_eq!((would.0, would.2["left_out"].as_array().unwrap().len()), (Some(3), 4), "{}", would.2);
    let reasons = would.1.matches(": cannot write: a folder is in the way").count();
    assert_eq!(reasons, 3, "a file, a link and one more name: {}", would.1);

    // Where DEST itself is none, and where it is not there yet.
    for (dest, code) in [("out/s/f", 1), ("out/s/f/deep", 1), ("new/deep", 0)] {
        let would = scratch.run(["export", "/s", dest, "--dry-run", "-q"]);
        assert!(!scratch.path("new").exists());
        let did = scratch.run(["export", "/s", dest, "-q"]);
        assert_eq!((would.status.code(), text(&would.stderr)), (Some(code), text(&did.stderr)), "{dest}");
        assert_eq!(did.status.code(), Some(code), "{dest}");
    }
}

#[test]
fn a_folder_that_cannot_be_opened_is_left_out_and_the_rest_is_written() {
    use std::os::unix::fs::PermissionsExt as _;
    let scratch = doubles();
    let shut = [scratch.path("out/A"), scratch.path("out/B/folder")];
    for folder in &shut {
        fs::create_dir_all(folder).unwrap();
        fs::set_permissions(folder, fs::Permissions::from_mode(0o000)).unwrap();
    }
    let output = scratch.run_humbly(["export", "/A", "/B", "/same", "out"]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    for path in ["/A", "/B/folder"] {
        assert!(said.contains(&format!("strongroom: {path}: cannot write: Permission denied")), "{said}");
    }
    assert!(scratch.path("out/B/same").is_file() && scratch.path("out/same").is_dir());
    for folder in &shut {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(fs::read_dir(folder).unwrap().count(), 0);
    }
    scratch.succeeds(["export", "/A", "/B", "/same", "out"]);
    assert!(scratch.path("out/A/folder/a").is_dir() && scratch.path("out/B/folder/b").is_dir());
}

#[test]
fn a_folder_that_is_left_out_is_not_counted_though_it_is_there() {
    if !mounts::inside("export::a_folder_that_is_left_out_is_not_counted_though_it_is_there") {
        return;
    }
    let scratch = doubles();
    let way = scratch.path("out/A");
    mounts::small_disk(&way, 64);
    mounts::remount(&way, "ro");
    for (path, folders) in [("/A", 0), ("/", 4)] {
        let output = scratch.run(["export", path, "out", "--json"]);
        assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["folders"], folders, "{path}: {report}");
        let left_out = report["left_out"].as_array().unwrap();
        assert!(left_out.iter().any(|left_out| left_out["name"] == "/A"), "{path}: {report}");
    }
}

/// Files of a folder with their content, and everything by its name.
fn state(root: &Path) -> Vec<(std::path::PathBuf, Option<Vec<u8>>)> {
    list(root).into_iter().map(|path| (path.clone(), fs::read(path).ok())).collect()
}

#[test]
fn nothing_is_written_over_the_repository_itself() {
    let scratch = doubles();
    let repository = scratch.path("repo");
    let blob = common::acceptance::blobs(&repository).remove(0);
    let blob = blob.strip_prefix(scratch.root.path()).unwrap().to_str().unwrap();
    symlink("repo", scratch.path("link")).unwrap();
    fs::create_dir(scratch.path("elsewhere")).unwrap();
    let before = state(&repository);
    for destination in
        ["repo", "repo/new/deep", "link", "link/new", "elsewhere/../repo", "absent/../repo/new", "./repo"]
    {
        for more in [&[][..], &["--dry-run"]] {
            let said = scratch.fails(2, [&["export", "/A", destination], more].concat());
            assert!(said.contains("here lies the repository itself"), "{destination}: {said}");
        }
    }
    for destination in [blob, "repo", "repo/new", "link", "link/new", "link/../repo/new"] {
        let said = scratch.fails(2, ["get", "/A/same", destination]);
        assert!(said.contains("here lies the repository itself"), "{destination}: {said}");
    }
    assert_eq!(state(&repository), before);
    assert!(!scratch.path("absent").exists());

    // What would lead into it is left out, and the rest arrives: a folder, and a file or link in the place of the folder.
    scratch.succeeds(["mkdir", "-p", "/tree/repo/inner", "/files", "/links"]);
    assert!(scratch.feeds(["put", "-", "/tree/other"], b"other").status.success());
    assert!(scratch.feeds(["put", "-", "/files/repo"], b"in its place").status.success());
    scratch.succeeds(["ln", "-s", "elsewhere", "/links/repo"]);
    let before = state(&repository);
    for path in ["/tree/repo", "/files/repo", "/links/repo"] {
        let said = scratch.fails(3, ["export", path, "."]);
        assert!(said.contains(&format!("{path}: cannot write: the repository itself is in the way")), "{said}");
    }
    let said = scratch.fails(1, ["get", "/files/repo", "."]);
    assert!(said.contains("the repository itself is in the way"), "{said}");
    assert_eq!(state(&repository), before);
    // A link that leads into it is a name like any other, and is replaced; a folder beside it may be called likewise.
    scratch.succeeds(["get", "/A/same", "elsewhere"]);
    scratch.succeeds(["export", "/tree", "elsewhere"]);
    assert!(scratch.path("elsewhere/tree/repo/inner").is_dir() && scratch.path("elsewhere/same").is_file());
    assert_eq!(state(&repository), before);
    check_is_clean(&scratch, "after all that was refused");
}

#[cfg(target_os = "linux")]
mod access_lists {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    use rustix::fs::XattrFlags;
    use rustix::io::Errno;

    use super::*;

    const ACCESS: &str = "system.posix_acl_access";
    const DEFAULT: &str = "system.posix_acl_default";

    /// A list that gives one user everything, beside the bits of this mode: version, then tag, permissions and user of each.
    fn list_for(user: u32, mode: u32) -> Vec<u8> {
        let nobody = u32::MAX;
        let bits = |shift: u32| u16::try_from(mode >> shift & 7).unwrap();
        let mut bytes = 2_u32.to_le_bytes().to_vec();
        for (tag, permissions, id) in
            [(1, bits(6), nobody), (2, 7, user), (4, bits(3), nobody), (16, 7, nobody), (32, bits(0), nobody)]
        {
            bytes.extend([u16::to_le_bytes(tag), permissions.to_le_bytes()].concat());
            bytes.extend(u32::to_le_bytes(id));
        }
        bytes
    }

    /// Answers whether the file system has such lists; anything else that goes wrong fails the test.
    fn give(path: &Path, name: &str, value: &[u8]) -> bool {
        match rustix::fs::setxattr(path, name, value, XattrFlags::empty()) {
            Ok(()) => true,
            Err(Errno::OPNOTSUPP) => {
                eprintln!("NOT TESTED: the file system of {} has no access lists", path.display());
                false
            }
            Err(error) => panic!("{}: {error}", path.display()),
        }
    }

    fn get(path: &Path, name: &str) -> Option<Vec<u8>> {
        let mut buffer = vec![0; 1 << 12];
        match rustix::fs::getxattr(path, name, buffer.as_mut_slice()) {
            Ok(bytes) => Some(buffer[..bytes].to_vec()),
            Err(Errno::NODATA) => None,
            Err(error) => panic!("{}: {error}", path.display()),
        }
    }

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().mode() & 0o7777
    }

    #[test]
    fn what_is_written_out_has_those_it_was_stored_with_and_no_others() {
        let scratch = Scratch::with_repository();
        let tree = scratch.path("tree");
        fs::create_dir_all(tree.join("d/listed")).unwrap();
        for (name, bits) in [("d/f", 0o640), ("d/listed/f", 0o600)] {
            fs::write(tree.join(name), name).unwrap();
            fs::set_permissions(tree.join(name), fs::Permissions::from_mode(bits)).unwrap();
        }
        for (name, bits) in [("d", 0o750), ("d/listed", 0o700)] {
            fs::set_permissions(tree.join(name), fs::Permissions::from_mode(bits)).unwrap();
        }
        let own = list_for(1_234, 0o700);
        if !give(&tree.join("d/listed"), ACCESS, &own) || !give(&tree.join("d/listed/f"), ACCESS, &own) {
            return;
        }
        scratch.succeeds(["import", "tree"]);

        let out = scratch.path("out");
        fs::create_dir_all(out.join("bystander")).unwrap();
        for folder in [out.clone(), out.join("bystander")] {
            assert!(give(&folder, DEFAULT, &list_for(1_000, 0o750)));
        }
        rustix::fs::setxattr(out.join("bystander"), "user.mark", b"kept", XattrFlags::empty()).unwrap();
        for round in 0..3 {
            scratch.succeeds(["export", "/tree/d", "out"]);
            scratch.succeeds(["get", "/tree/d/f", "out"]);
            assert_eq!(compare_trees(&tree.join("d"), &out.join("d")), Vec::<String>::new(), "round {round}");
            for (name, bits) in [("d", 0o750), ("d/f", 0o640), ("f", 0o640)] {
                let path = out.join(name);
                assert_eq!(get(&path, ACCESS), None, "{name}, round {round}");
                assert_eq!(mode(&path), bits, "{name}, round {round}");
            }
            for name in ["d/listed", "d/listed/f"] {
                assert_eq!(get(&out.join(name), ACCESS).as_deref(), Some(own.as_slice()), "{name}, round {round}");
            }
            for name in ["d", "d/listed"] {
                assert_eq!(get(&out.join(name), DEFAULT), None, "{name}, round {round}");
            }
            // Someone lets others in meanwhile: writing it out anew makes it as it was stored.
            match round {
                0 => {
                    assert!(give(&out.join("d"), DEFAULT, &list_for(1_000, 0o750)));
                    assert!(give(&out.join("d"), ACCESS, &list_for(1_000, 0o750)));
                    rustix::fs::setxattr(out.join("d"), "user.mark", b"kept", XattrFlags::empty()).unwrap();
                }
                _ => assert_eq!(get(&out.join("d"), "user.mark").as_deref(), Some(&b"kept"[..])),
            }
        }
        // What was there before, and is no part of it, is as it was.
        for folder in [out.clone(), out.join("bystander")] {
            assert_eq!(get(&folder, DEFAULT), Some(list_for(1_000, 0o750)));
        }
        assert_eq!(get(&out.join("bystander"), "user.mark").unwrap(), b"kept");
    }
}
