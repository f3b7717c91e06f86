//! `check --repair`, and importing the originals again: what was lost comes back, in files, versions and snapshots.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::common::acceptance::{blobs, check_is_clean, did_not_panic, text};
use crate::common::{self, Numbers, Scratch};
use strongroom::blocking::{FsSnapshot, Repository};
use strongroom::{Credentials, OpenOptions};

const FILES: u64 = 8;

fn content(number: u64) -> Vec<u8> {
    Numbers::new(number).bytes(if number.is_multiple_of(2) { 150_000 } else { 20_000 })
}

fn write_tree(tree: &Path) {
    fs::create_dir_all(tree).unwrap();
    for number in 0..FILES {
        fs::write(tree.join(number.to_string()), content(number)).unwrap();
    }
}

fn path(number: u64) -> String {
    format!("/tree/{number}")
}

/// Opens it as another device would, for looking.
fn opened(scratch: &Scratch) -> strongroom::Result<FsSnapshot> {
    let options = OpenOptions::new(Credentials::password(common::PASSWORD)).read_only(true).without_trusted_state();
    Ok(Repository::open(scratch.path("repo").to_str().unwrap(), options)?.fs().snapshot())
}

/// The blobs with content of the files, and of nothing else that is looked at: without one, files are listed and not read.
fn content_blobs(scratch: &Scratch) -> Vec<PathBuf> {
    let is_content = |blob: &PathBuf| {
        let aside = scratch.path("aside");
        fs::rename(blob, &aside).unwrap();
        let is_content = opened(scratch).is_ok_and(|files| {
            (0..FILES).all(|number| files.metadata(path(number)).is_ok())
                && (0..FILES).any(|number| files.read(path(number)).is_err())
        });
        fs::rename(&aside, blob).unwrap();
        is_content
    };
    let found: Vec<PathBuf> = blobs(&scratch.path("repo")).into_iter().filter(is_content).collect();
    assert!(found.len() >= 4, "{found:?}");
    found
}

fn flip(blob: &Path) {
    let mut bytes = fs::read(blob).unwrap();
    bytes[5_000] ^= 1;
    fs::remove_file(blob).unwrap();
    fs::write(blob, bytes).unwrap();
}

fn json(output: &[u8]) -> serde_json::Value {
    serde_json::from_slice(output).unwrap()
}

/// A tree with a file that has an older version and one that only a snapshot has.
fn imported(more: &[&str]) -> Scratch {
    let scratch = Scratch::new();
    let init = ["init", "--no-recovery", "--kdf-time", "1", "--block-size", "32KiB"];
    scratch.succeeds(init.iter().chain(more));
    let tree = scratch.path("tree");
    write_tree(&tree);
    fs::write(tree.join("gone"), content(100)).unwrap();
    fs::write(tree.join("0"), content(200)).unwrap();
    scratch.succeeds(["import", "tree"]);
    scratch.succeeds(["snapshot", "create", "monday"]);
    fs::write(tree.join("0"), content(0)).unwrap();
    fs::remove_file(tree.join("gone")).unwrap();
    scratch.succeeds(["import", "tree", "--delete"]);
    check_is_clean(&scratch, "before any damage");
    scratch
}

fn assert_files_are_right(scratch: &Scratch) {
    for number in 0..FILES {
        assert!(scratch.succeeds(["cat", &path(number)]) == content(number), "{number}");
    }
}

#[test]
fn repairing_and_importing_again_brings_everything_back() {
    for (harm, repair) in [("gone", &["check", "--repair"][..]), ("flipped", &["check", "--data", "--repair"])] {
        let scratch = imported(&["--versions", "3"]);
        for blob in content_blobs(&scratch) {
            if harm == "gone" { fs::remove_file(blob).unwrap() } else { flip(&blob) }
        }
        let said = scratch.fails(13, ["check", "--data"]);
        assert!(said.contains("check --data --repair"), "{said}");
        let versions = scratch.succeeds(["history", "/tree/0", "--json"]);

        let output = scratch.run(repair);
        did_not_panic(&output, harm);
        let (said, told) = (text(&output.stderr), text(&output.stdout));
        assert_eq!(output.status.code(), Some(13), "{harm}: {said}");
        assert!(said.contains("/tree/2: ") && said.contains("import the originals again"), "{harm}: {said}");
        assert!(told.contains("wait for their content to be stored again"), "{harm}: {told}");
        // Again: it says the same, and does nothing.
        let again = json(&scratch.run(repair.iter().chain(&["--json"])).stdout);
        assert_eq!(again["schema"], "strongroom/check/1");
        assert!(again["repaired"]["damaged"].as_u64().unwrap() > 0, "{harm}: {again}");
        assert_eq!(again["repaired"]["moved"], 0, "{harm}: {again}");

        // The originals have not changed since, and would be taken as unchanged without a look.
        let would = json(&scratch.succeeds(["import", "tree", "--dry-run", "--json"]));
        assert!(would["files"].as_u64().unwrap() >= 4, "{harm}: {would}");
        let report = json(&scratch.succeeds(["import", "tree", "--json"]));
        assert!(report["mended"].as_u64().unwrap() >= 4, "{harm}: {report}");
        assert_eq!((&report["files"], &report["unchanged"]), (&0.into(), &(FILES + 1).into()), "{harm}: {report}");
        assert_files_are_right(&scratch);
        // Mending is no change: there is no other version.
        assert_eq!(scratch.succeeds(["history", "/tree/0", "--json"]), versions, "{harm}");

        // What else was there heals from wherever it comes.
        fs::create_dir(scratch.path("found")).unwrap();
        fs::write(scratch.path("found/gone"), content(100)).unwrap();
        fs::write(scratch.path("found/old"), content(200)).unwrap();
        scratch.succeeds(["import", "found"]);
        check_is_clean(&scratch, harm);
        assert!(scratch.succeeds(["cat", "--at", "monday", "/tree/gone"]) == content(100), "{harm}");
        assert!(scratch.succeeds(["cat", "--at", "monday", "/tree/0"]) == content(200), "{harm}");
        assert!(scratch.succeeds(["cat", "--version", "1", "/tree/0"]) == content(200), "{harm}");
        let clean = json(&scratch.succeeds(["check", "--repair", "--json"]));
        assert_eq!((&clean["damaged"], &clean["repaired"]["damaged"]), (&0.into(), &0.into()), "{harm}");
        assert_eq!(json(&scratch.succeeds(["check", "--json"])).get("repaired"), None);
    }
}

#[test]
fn what_is_stored_after_a_repair_is_never_taken_for_what_is_lost() {
    let scratch = imported(&[]);
    content_blobs(&scratch).into_iter().for_each(|blob| fs::remove_file(blob).unwrap());
    scratch.fails(13, ["check", "--repair"]);
    for number in 0..FILES {
        fs::write(scratch.path("again"), content(number)).unwrap();
        scratch.succeeds(["put", "again", &format!("/again {number}")]);
        assert!(scratch.succeeds(["cat", &format!("/again {number}")]) == content(number), "{number}");
    }
    // And it is what the files have lost.
    assert_files_are_right(&scratch);
}

#[test]
fn without_dedup_files_are_stored_anew() {
    let scratch = imported(&["--dedup", "off"]);
    scratch.succeeds(["snapshot", "rm", "monday"]);
    content_blobs(&scratch).into_iter().for_each(|blob| fs::remove_file(blob).unwrap());
    let said = scratch.fails(13, ["check", "--repair"]);
    assert!(said.contains("stores the files anew"), "{said}");
    let report = json(&scratch.succeeds(["import", "tree", "--json"]));
    assert!(report["files"].as_u64().unwrap() >= 4, "{report}");
    assert_files_are_right(&scratch);
    check_is_clean(&scratch, "after the import");
}

#[test]
fn an_original_that_is_another_by_now_is_stored_as_it_is() {
    let scratch = imported(&[]);
    content_blobs(&scratch).into_iter().for_each(|blob| fs::remove_file(blob).unwrap());
    scratch.fails(13, ["check", "--repair"]);
    let file = scratch.path("tree/2");
    let mut other = content(2);
    other[0] ^= 1;
    let time = file.metadata().unwrap().modified().unwrap();
    fs::write(&file, &other).unwrap();
    fs::File::options().write(true).open(&file).unwrap().set_modified(time).unwrap();
    scratch.succeeds(["import", "tree"]);
    assert!(scratch.succeeds(["cat", "/tree/2"]) == other);
    assert!(scratch.succeeds(["cat", "/tree/4"]) == content(4));
}

#[test]
fn a_repair_beside_an_import_harms_neither() {
    let scratch = imported(&[]);
    content_blobs(&scratch).into_iter().for_each(|blob| fs::remove_file(blob).unwrap());
    write_tree(&scratch.path("more"));
    let start = |arguments: &[&str]| {
        scratch.command().args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let children = [start(&["import", "more"]), start(&["check", "--repair"]), start(&["check", "--data", "--repair"])];
    let [import, repair, other] = children.map(|child| child.wait_with_output().unwrap());
    assert_eq!(import.status.code(), Some(0), "{}", text(&import.stderr));
    for output in [repair, other] {
        did_not_panic(&output, "beside an import");
        // All may have been healed by then; or the state was given up again and again.
        let code = output.status.code();
        assert!(matches!(code, Some(0 | 11 | 13)), "{code:?}: {}", text(&output.stderr));
    }
    scratch.run(["check", "--repair"]);
    let report = json(&scratch.succeeds(["import", "tree", "more", "--json"]));
    assert_eq!(report["left_out"], serde_json::json!([]), "{report}");
    for number in 0..FILES {
        assert!(scratch.succeeds(["cat", &format!("/more/{number}")]) == content(number), "{number}");
    }
    assert_files_are_right(&scratch);
}
