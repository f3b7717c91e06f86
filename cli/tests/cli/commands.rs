//! The commands on single files and keys.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use crate::common::{self, Numbers, Scratch};

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

#[test]
fn put_and_get_carry_content_and_metadata() {
    let scratch = Scratch::with_repository();
    let content = Numbers::new(1).bytes(3_000_000);
    fs::write(scratch.path("local"), &content).unwrap();
    fs::set_permissions(scratch.path("local"), fs::Permissions::from_mode(0o640)).unwrap();
    scratch.succeeds(["mkdir", "/folder"]);
    scratch.succeeds(["put", "local", "/folder"]);
    scratch.succeeds(["get", "/folder/local", "back"]);
    assert!(fs::read(scratch.path("back")).unwrap() == content);
    let (one, other) = (scratch.path("local").metadata().unwrap(), scratch.path("back").metadata().unwrap());
    assert_eq!((one.mode(), one.mtime(), one.mtime_nsec()), (other.mode(), other.mtime(), other.mtime_nsec()));
    assert!(scratch.succeeds(["get", "/folder/local", "-"]) == content);
    assert!(scratch.succeeds(["cat", "folder/local"]) == content);

    let output = scratch.feeds(["put", "-", "/from stdin"], b"piped");
    assert!(output.status.success());
    assert_eq!(scratch.succeeds(["cat", "/from stdin"]), b"piped");
    scratch.fails(2, ["put", "-", "/folder"]);
    scratch.fails(1, ["put", "absent", "/x"]);
    scratch.fails(1, ["get", "/folder", "x"]);
    fs::create_dir(scratch.path("into")).unwrap();
    scratch.succeeds(["get", "/folder/local", "into"]);
    assert!(scratch.path("into/local").is_file());
}

#[test]
fn folders_are_made_moved_and_removed_all_or_nothing() {
    let scratch = Scratch::with_repository();
    scratch.fails(1, ["mkdir", "/a/b/c"]);
    scratch.fails(1, ["mkdir", "/new", "/a/b/c"]);
    assert_eq!(scratch.succeeds(["ls"]), b"");
    scratch.succeeds(["mkdir", "-p", "/a/b/c", "/d"]);
    scratch.feeds(["put", "-", "/a/file"], b"x");
    scratch.succeeds(["mv", "/a/file", "/a/renamed"]);
    scratch.succeeds(["mv", "/a/renamed", "/a/b", "/d"]);
    assert_eq!(text(scratch.succeeds(["ls", "-R"])), "a\nd\nd/b\nd/b/c\nd/renamed\n");
    scratch.fails(1, ["rm", "/d"]);
    scratch.fails(1, ["rm", "/d/renamed", "/absent"]);
    assert_eq!(scratch.succeeds(["cat", "/d/renamed"]), b"x");
    scratch.succeeds(["rm", "-f", "/absent", "/d/renamed"]);
    scratch.succeeds(["rm", "-r", "/d", "/a"]);
    assert_eq!(scratch.succeeds(["ls"]), b"");
    scratch.succeeds(["check", "--data"]);
}

#[test]
fn flags_may_stand_between_the_paths_of_what_is_copied_moved_or_exported() {
    let scratch = Scratch::with_repository();
    for path in ["/a", "/b"] {
        assert!(scratch.feeds(["put", "-", path], path.as_bytes()).status.success());
    }
    scratch.succeeds(["mkdir", "/d"]);
    scratch.succeeds(["cp", "/a", "-q", "/copy"]);
    scratch.succeeds(["cp", "/a", "--recursive", "/b", "-v", "/d"]);
    scratch.succeeds(["mv", "/copy", "--json", "/moved"]);
    assert_eq!(text(scratch.succeeds(["ls", "-R"])), "a\nb\nd\nd/a\nd/b\nmoved\n");
    scratch.succeeds(["export", "/moved", "--partial", "/d", "-q", "out"]);
    assert_eq!(std::fs::read(scratch.path("out/d/b")).unwrap(), b"/b");
    assert_eq!(std::fs::read(scratch.path("out/moved")).unwrap(), b"/a");
}

#[test]
fn ls_stat_and_tree_show_what_is_there() {
    let scratch = Scratch::with_repository();
    fs::create_dir_all(scratch.path("tree/inner")).unwrap();
    fs::write(scratch.path("tree/inner/file"), "12345").unwrap();
    std::os::unix::fs::symlink("inner/file", scratch.path("tree/link")).unwrap();
    scratch.succeeds(["import", "tree"]);
    assert_eq!(text(scratch.succeeds(["ls", "/tree"])), "inner\nlink\n");
    assert_eq!(text(scratch.succeeds(["ls", "/tree/link"])), "/tree/link\n");
    let long = text(scratch.succeeds(["ls", "-l", "/tree"]));
    assert!(long.contains("lrwxrwxrwx") && long.contains("link -> inner/file"), "{long}");
    let drawn = text(scratch.succeeds(["tree", "/tree"]));
    assert_eq!(drawn, "/tree\n├── inner/\n│   └── file\n└── link -> inner/file\n");
    let stat = text(scratch.succeeds(["stat", "/tree/inner/file"]));
    assert!(stat.contains("size      5 (5B)") && stat.contains("kind      file"), "{stat}");
    assert_eq!(scratch.succeeds(["cat", "/tree/link"]), b"12345");
}

#[test]
fn keys_are_put_read_scanned_and_removed() {
    let scratch = Scratch::with_repository();
    for (key, value) in [("user/1", "anna"), ("user/2", "ben"), ("zz", "-")] {
        let output = scratch.feeds(["kv", "put", key, value], b"from stdin");
        assert!(output.status.success());
    }
    assert_eq!(scratch.succeeds(["kv", "get", "user/1"]), b"anna");
    assert_eq!(scratch.succeeds(["kv", "get", "zz"]), b"from stdin");
    assert_eq!(text(scratch.succeeds(["kv", "scan", "user/"])), "user/1\nuser/2\n");
    assert_eq!(text(scratch.succeeds(["kv", "scan", "--reverse", "--limit", "1", "--values"])), "zz\tfrom stdin\n");
    let row: serde_json::Value = serde_json::from_slice(&scratch.succeeds(["kv", "get", "user/2", "--json"])).unwrap();
    assert_eq!((&row["key"], &row["value"], &row["bytes"]), (&"user/2".into(), &"ben".into(), &3.into()));

    let large = Numbers::new(5).bytes(2 << 20);
    assert!(scratch.feeds(["kv", "put", "large", "-"], &large).status.success());
    assert!(scratch.succeeds(["kv", "get", "large"]) == large);
    scratch.succeeds(["check", "--data"]);
    scratch.fails(1, ["kv", "del", "user/1", "absent"]);
    scratch.succeeds(["kv", "del", "user/1", "large"]);
    assert_eq!(text(scratch.succeeds(["kv", "scan"])), "user/2\nzz\n");
}

#[test]
fn nothing_that_only_looks_writes_to_the_repository() {
    let scratch = Scratch::with_repository();
    scratch.feeds(["put", "-", "/file"], b"content");
    let repository = scratch.path("repo");
    let state = || -> Vec<_> {
        let listed = common::list(&repository).into_iter().filter(|path| path.is_file());
        listed.map(|path| (fs::read(&path).unwrap(), path)).collect()
    };
    let before = state();
    for arguments in
        [&["ls", "-R"][..], &["cat", "/file"], &["stat", "/file"], &["info"], &["check", "--data"], &["kv", "scan"]]
    {
        scratch.succeeds(arguments);
    }
    scratch.succeeds(["history", "/file"]);
    scratch.succeeds(["cat", "--version", "1", "/file"]);
    scratch.succeeds(["export", "/", "out"]);
    assert!(before == state());
}

#[test]
fn an_older_copy_put_back_is_noticed() {
    let scratch = Scratch::with_repository();
    let copy = |from: &str, to: &str| {
        let _ = fs::remove_dir_all(scratch.path(to));
        let status = std::process::Command::new("cp").args(["-a", from, to]).current_dir(scratch.root.path()).status();
        assert!(status.unwrap().success());
    };
    copy("repo", "older");
    scratch.feeds(["put", "-", "/file"], b"content");
    copy("older", "repo");
    let stderr = scratch.fails(13, ["ls"]);
    assert!(stderr.contains("--accept-rollback"), "{stderr}");
    scratch.succeeds(["--accept-rollback", "ls"]);
    scratch.feeds(["--accept-rollback", "put", "-", "/again"], b"content");
    assert_eq!(text(scratch.succeeds(["ls"])), "again\n");
}

#[test]
fn everything_goes_only_when_it_is_said_twice() {
    let scratch = Scratch::with_repository();
    scratch.succeeds(["mkdir", "/a"]);
    for root in ["/", "//"] {
        assert!(scratch.fails(1, ["rm", "-r", root]).contains("pass -r and -f"));
    }
    for root in [".", "/.", "/a/.."] {
        assert!(scratch.fails(2, ["rm", "-r", "-f", root]).contains("ends with `."));
    }
    assert_eq!(scratch.succeeds(["ls"]), b"a\n");
    scratch.succeeds(["rm", "-r", "-f", "/"]);
    assert_eq!(scratch.succeeds(["ls"]), b"");
}

#[test]
fn what_ends_with_dots_is_neither_removed_nor_moved() {
    let scratch = Scratch::with_repository();
    scratch.succeeds(["mkdir", "-p", "/p/inner", "/to"]);
    let list = scratch.succeeds(["ls", "-R"]);
    for path in ["/p/.", "/p/./", "/p/inner/..", "/p/inner/../"] {
        for line in [&["rm", "-r", path][..], &["rm", path], &["mv", path, "/to"], &["mv", "/p/inner", path, "/to"]] {
            let said = scratch.fails(2, line);
            assert!(said.contains(path) && said.contains("name the file or folder itself"), "{line:?}: {said}");
        }
        for op in [
            format!(r#"{{"op":"rm","path":"{path}","recursive":true}}"#),
            format!(r#"{{"op":"mv","from":"{path}","to":"/to/p"}}"#),
        ] {
            let output = scratch.feeds(["batch"], op.as_bytes());
            let said = text(output.stderr);
            assert_eq!(output.status.code(), Some(2), "{said}");
            assert!(said.contains(&format!("line 1: {path}: ends with `.")), "{said}");
        }
        assert_eq!(scratch.succeeds(["ls", "-R"]), list);
    }
    // Names that only begin or end so are names, and a folder to move into may be called what one likes.
    scratch.succeeds(["mkdir", "/...", "/..a", "/b.."]);
    scratch.succeeds(["mv", "/...", "/..a", "/p/inner/../."]);
    scratch.succeeds(["rm", "-r", "/b..", "/p/..."]);
    assert_eq!(text(scratch.succeeds(["ls", "-R"])), "p\np/..a\np/inner\nto\n");
}

#[test]
fn two_of_one_name_are_neither_moved_nor_copied_into_one_folder() {
    let scratch = Scratch::with_repository();
    scratch.succeeds(["mkdir", "-p", "/A/folder/a", "/B/folder/b", "/D", "/E"]);
    for path in ["/A/same", "/B/same", "/A/other"] {
        assert!(scratch.feeds(["put", "-", path], path.as_bytes()).status.success());
    }
    // The same file by two names.
    scratch.succeeds(["ln", "/A/same", "/E/same"]);
    let list = scratch.succeeds(["ls", "-R", "-l"]);
    for pair in [
        ["/A/same", "/B/same"],
        ["A/same", "/B/../A/same"],
        ["/A/same", "/A/same"],
        ["/A/same", "/E/same"],
        ["/A/folder", "/B/folder/"],
        ["/A/folder/.//", "/B//folder"],
    ] {
        for command in [&["mv"][..], &["cp"], &["cp", "-r"]] {
            let said = scratch.fails(2, [command, &["/A/other"], &pair, &["/D"]].concat());
            let name = if pair[0].contains("same") { "same" } else { "folder" };
            let says = format!("{} and {} would both arrive as {name}", pair[0], pair[1]);
            assert!(said.contains(&says), "{command:?} {pair:?}: {said}");
        }
        assert_eq!(scratch.succeeds(["ls", "-R", "-l"]), list);
    }
    // What is in the folder already is replaced, as ever.
    scratch.succeeds(["cp", "/A/same", "/D"]);
    scratch.succeeds(["mv", "/B/same", "/A/other", "/D"]);
    assert_eq!(scratch.succeeds(["cat", "/D/same"]), b"/B/same");
}

#[test]
fn a_message_names_what_it_is_about_once() {
    let scratch = Scratch::with_repository();
    let message = scratch.fails(1, ["get", "/no", "here"]);
    assert_eq!(message.matches("/no").count(), 1, "{message}");
}

#[test]
fn a_password_command_does_not_see_the_password_of_the_environment() {
    let scratch = Scratch::with_repository();
    let command = format!("env | grep STRONGROOM_PASSWORD= > seen; echo {}", common::PASSWORD);
    scratch.succeeds(["ls", "--password-command", &command]);
    assert_eq!(std::fs::read(scratch.path("seen")).unwrap(), b"");
}

#[test]
fn an_import_of_what_is_not_there_creates_nothing() {
    let scratch = Scratch::new();
    assert!(scratch.fails(1, ["import", "--init", "no such", "nor such"]).contains("no such: cannot be read"));
    assert!(!scratch.path("repo").exists());
}

#[test]
fn what_takes_files_alone_says_of_anything_else_what_it_is_and_what_is_to_be_done_with_it() {
    let scratch = Scratch::with_repository();
    scratch.succeeds(["mkdir", "-p", "/folder/inner"]);
    scratch.feeds(["put", "-", "/folder/file"], b"content");
    let made = std::process::Command::new("mkfifo").arg(scratch.path("pipe")).status().unwrap();
    assert!(made.success());
    let says = |said: &str, all: [&str; 3]| {
        assert!(said.lines().count() == 1 && all.iter().all(|what| said.contains(what)), "{all:?}: {said}");
    };
    for (line, what, instead) in [
        (&["put", "pipe", "/new"][..], "pipe: is a FIFO", "`put - PATH`"),
        (&["put", "/dev/null", "/new"], "/dev/null: is a device", "`put - PATH`"),
        (&["get", "/folder", "local"], "/folder: is a folder", "`export`"),
        (&["cat", "/folder"], "/folder: is a folder", "`ls`"),
        (&["cat", "--version", "1", "/folder"], "/folder: is a folder", "`ls`"),
        (&["history", "/folder"], "/folder: is a folder", "no versions"),
        (&["history", "--keep", "3", "/folder"], "/folder: is a folder", "snapshots"),
        (&["history", "--prune", "/folder"], "/folder: is a folder", "snapshots"),
        (&["restore", "/folder", "--version", "1"], "/folder: is a folder", "snapshots"),
        (&["rm", "/folder"], "/folder: is a folder", "-r"),
        (&["cp", "/folder", "/other"], "/folder: is a folder", "-r"),
        (&["ln", "/folder", "/other"], "/folder: is a folder", "-s"),
    ] {
        says(&scratch.fails(1, line), ["strongroom: ", what, instead]);
    }
    for (line, what, instead) in [
        (r#"{"op": "rm", "path": "/folder"}"#, "/folder: is a folder", r#""recursive": true"#),
        (r#"{"op": "rmdir", "path": "/folder"}"#, "/folder: is not empty", r#""recursive": true"#),
        (r#"{"op": "rmdir", "path": "/folder/file"}"#, "/folder/file: is not a folder", "rm removes files"),
        (r#"{"op": "cp", "from": "/folder", "to": "/other"}"#, "/folder: is a folder", r#""recursive": true"#),
        (r#"{"op": "ln", "target": "/folder", "link": "/other"}"#, "/folder: is a folder", r#""symbolic": true"#),
    ] {
        let output =
            scratch.feeds(["batch"], format!("{{\"op\": \"mkdir\", \"path\": \"/new\"}}\n{line}\n").as_bytes());
        assert_eq!(output.status.code(), Some(1), "{line}");
        says(&text(output.stderr), ["strongroom: line 2: ", what, instead]);
    }
    assert_eq!(text(scratch.succeeds(["ls", "-R"])), "folder\nfolder/file\nfolder/inner\n");
}
