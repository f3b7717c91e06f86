//! `destroy`: all of a repository goes, and nothing else does, and not without a word.

use std::fs;
use std::io::Read as _;
use std::process::Stdio;

use crate::common::acceptance::blobs;
use crate::common::{Scratch, list};

#[test]
fn the_blobs_of_a_repository_go_and_those_of_others_stay() {
    let mut scratch = Scratch::with_repository();
    fs::write(scratch.path("file"), vec![7; 3 << 20]).unwrap();
    scratch.succeeds(["import", "file"]);
    // A letter in the same folder, and a blob in a place like its own that bears the name of none.
    let repository = scratch.path("repo");
    fs::write(repository.join("letter"), "dear reader").unwrap();
    let blob = blobs(&repository).into_iter().find(|path| path.file_name().unwrap().len() >= 30).unwrap();
    let stranger = blob.with_file_name(blob.file_name().unwrap().to_str().unwrap().chars().rev().collect::<String>());
    assert!(!stranger.exists());
    fs::write(&stranger, "of somebody else").unwrap();

    // Nobody there to type the name; the wrong password.
    let before = blobs(&repository);
    assert!(scratch.fails(2, ["destroy"]).contains("--yes"));
    assert!(scratch.fails(2, ["destroy", "--no-input"]).contains("--yes"));
    let password = std::mem::replace(&mut scratch.password, "wrong".to_owned());
    scratch.fails(12, ["destroy", "--yes"]);
    scratch.password = password;
    assert_eq!(blobs(&repository), before);

    let report: serde_json::Value = serde_json::from_slice(&scratch.succeeds(["destroy", "--yes", "--json"])).unwrap();
    assert_eq!(report["schema"], "strongroom/destroy/1");
    assert!(report["deleted"].as_u64().unwrap() > 5);
    assert_eq!(fs::read(repository.join("letter")).unwrap(), b"dear reader");
    assert_eq!(fs::read(&stranger).unwrap(), b"of somebody else");
    // Nor a folder that was made for it.
    let mut left = list(&repository);
    left.sort();
    assert_eq!(left, [&repository, stranger.parent().unwrap(), &stranger, &repository.join("letter")]);
    assert!(scratch.fails(10, ["ls"]).contains("no repository"));
    assert!(scratch.fails(10, ["destroy", "--yes"]).contains("no repository"));
    // The place is free again.
    scratch.succeeds(["init", "--no-recovery", "--kdf-time", "1"]);
    assert!(list(&repository).len() > 2);
}

#[test]
fn where_nothing_of_others_is_no_folder_is_left_and_nothing_around_it_is_touched() {
    let scratch = Scratch::with_repository();
    fs::create_dir(scratch.path("beside")).unwrap();
    fs::write(scratch.path("file"), vec![7; 3 << 20]).unwrap();
    scratch.succeeds(["import", "file"]);
    scratch.succeeds(["destroy", "--yes"]);
    assert!(!scratch.path("repo").exists());
    assert!(scratch.path("beside").is_dir() && scratch.path("file").is_file());
    assert!(scratch.fails(10, ["ls"]).contains("no repository"));
    scratch.succeeds(["init", "--no-recovery", "--kdf-time", "1"]);
}

#[test]
fn while_others_use_it_nothing_goes() {
    let scratch = Scratch::with_repository();
    fs::write(scratch.path("file"), vec![7; 4 << 20]).unwrap();
    scratch.succeeds(["import", "file"]);
    let mut other =
        scratch.command().args(["cat", "/file"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    // Once something of it comes out, it has the repository open, and keeps it until all is taken.
    let mut out = other.stdout.take().unwrap();
    out.read_exact(&mut [0]).unwrap();
    let before = blobs(&scratch.path("repo"));
    assert!(scratch.fails(11, ["destroy", "--yes"]).contains("nothing was deleted"));
    assert_eq!(blobs(&scratch.path("repo")), before);
    drop(out);
    other.wait().unwrap();
    scratch.succeeds(["destroy", "--yes"]);
}
