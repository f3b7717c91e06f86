//! `backends` and `conformance`, and the program with a storage of someone else's.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use crate::common::{Scratch, list};

fn json(bytes: &[u8]) -> serde_json::Value {
    serde_json::from_slice(bytes).unwrap()
}

/// The example `own_scheme`, which is built with the tests of this package.
fn own_scheme(scratch: &Scratch, arguments: &[&str]) -> Output {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_strongroom")).with_file_name("examples").join("own_scheme");
    assert!(program.exists(), "build it first: cargo build -p strongroom-cli --example own_scheme");
    Command::new(program)
        .current_dir(scratch.root.path())
        .env("XDG_STATE_HOME", scratch.path("state"))
        .env("STRONGROOM_PASSWORD", &scratch.password)
        .args(arguments)
        .output()
        .unwrap()
}

#[test]
fn backends_are_shown_with_feature_forms_and_capabilities() {
    let scratch = Scratch::new();
    let text = String::from_utf8(scratch.succeeds(["backends"])).unwrap();
    for part in
        ["file     a folder", "feature `memory`", "file:///abs/dir", "durability power", "blocks 128KiB (at most 4MiB)"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    let report = json(&scratch.succeeds(["backends", "--json"]));
    assert_eq!(report["schema"], "strongroom/backends/1");
    let file = &report["schemes"][0];
    assert_eq!((&file["scheme"], &file["available"]), (&"file".into(), &true.into()));
    assert_eq!((&file["feature"], &file["capabilities"]["reach"]), (&"file".into(), &"host".into()));
    assert_eq!(report["schemes"][1]["capabilities"]["batch"], "atomic");
}

#[test]
fn conformance_beside_a_repository_passes_and_touches_nothing_of_it() {
    let scratch = Scratch::with_repository();
    let state = || {
        let paths = list(&scratch.path("repo"));
        paths.into_iter().map(|path| (fs::read(&path).ok(), path)).collect::<Vec<_>>()
    };
    let before = state();
    let text = String::from_utf8(scratch.succeeds(["conformance", "repo"])).unwrap();
    assert!(text.starts_with("S1   passed   put stores all and never replaces\n"), "{text}");
    assert!(text.contains("S10  limited  ") && text.contains("not tested: the power was not cut"), "{text}");
    assert!(state() == before, "something was left behind, or changed");
    scratch.succeeds(["check", "--data"]);

    let report = json(&scratch.succeeds(["conformance", "--json", "mem://anything"]));
    assert_eq!((&report["schema"], &report["passed"]), (&"strongroom/conformance/1".into(), &true.into()));
    let clauses = report["clauses"].as_array().unwrap();
    assert_eq!(clauses.len(), 14);
    assert_eq!((&clauses[12]["clause"], &clauses[12]["result"]), (&"S13".into(), &"passed".into()));
}

#[test]
fn a_storage_that_breaks_a_clause_is_told_and_left_as_it_was() {
    let scratch = Scratch::new();
    fs::create_dir(scratch.path("small")).unwrap();
    // The system cuts files off at 256 or 512 KiB: not long enough for the largest blob.
    let script = "trap '' XFSZ; ulimit -f 512; exec \"$0\" conformance --json small";
    let output = Command::new("sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_strongroom")])
        .current_dir(scratch.root.path())
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("S13") && stderr.lines().count() == 1, "{stderr}");
    let report = json(&output.stdout);
    assert_eq!(report["passed"], false);
    let failed: Vec<_> =
        report["clauses"].as_array().unwrap().iter().filter(|clause| clause["result"] == "failed").collect();
    // Those whose blobs are as large as a storage must take.
    let names: Vec<_> = failed.iter().map(|clause| clause["clause"].as_str().unwrap()).collect();
    assert_eq!(names, ["S1", "S9", "S13"], "{failed:?}");
    assert!(failed[2]["breach"].as_str().unwrap().contains("4194304 bytes"), "{failed:?}");
    assert_eq!(fs::read_dir(scratch.path("small")).unwrap().count(), 0);
}

#[test]
fn conformance_of_a_place_that_is_not_there_creates_none() {
    let scratch = Scratch::new();
    let stderr = scratch.fails(1, ["conformance", "absent"]);
    assert!(stderr.contains("create it first") && stderr.lines().count() == 1, "{stderr}");
    assert!(!scratch.path("absent").exists());
    scratch.fails(2, ["conformance", "nowhere://x"]);
    scratch.fails(2, ["conformance", "file:x?token=1"]);
}

#[test]
fn a_storage_of_ones_own_is_plugged_in_by_a_short_main() {
    let main = include_str!("../../examples/own_scheme.rs");
    assert!(main.lines().count() <= 20);
    let scratch = Scratch::new();
    let output = own_scheme(&scratch, &["backends"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("shelf    a map in memory, an example; registered by this program"), "{text}");
    assert!(text.contains("file "), "{text}");

    // Its scheme knows no scratch places: so it is tried in the store itself, which is empty.
    let output = own_scheme(&scratch, &["conformance", "shelf://new"]);
    let (stdout, stderr) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{stdout}{stderr}");
    assert_eq!(stdout.lines().filter(|line| line.starts_with('S')).count(), 14, "{stdout}");

    let output = own_scheme(&scratch, &["conformance", "--json", "shelf://new"]);
    assert_eq!(json(&output.stdout)["passed"], true);

    fs::write(scratch.path("letter"), "Dear Anna").unwrap();
    let output = own_scheme(&scratch, &["-r", "shelf://x", "import", "--init", "--no-progress", "letter"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    assert!(said.contains("`shelf:` keeps nothing beyond the end of this program"), "{said}");
    for lasting in ["file:new", "sqlite:new.db", "redb:new.redb", "mem://new"] {
        let output = own_scheme(&scratch, &["-r", lasting, "init", "--no-recovery", "--kdf-time", "1"]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && !said.contains("durability"), "{lasting}: {said}");
    }
}
