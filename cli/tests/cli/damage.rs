//! Whatever the storage does to its bytes, it is noticed and named, and what comes out all the same is right.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::common::acceptance::{blobs, check_is_clean, copy_folder, did_not_panic, scaled, seed, text};
use crate::common::{self, Numbers, Scratch, list};
use strongroom::blocking::{FsSnapshot, Repository};
use strongroom::{Credentials, OpenOptions};

/// A repository of a small tree, closed cleanly, that may be damaged.
struct Victim {
    scratch: Scratch,
    blobs: Vec<PathBuf>,
    /// How often each exit code was seen, of check and of export.
    codes: std::collections::BTreeMap<(&'static str, i32), u32>,
}

impl Victim {
    fn new(seed: u64) -> Self {
        let scratch = Scratch::new();
        scratch.succeeds(["init", "--no-recovery", "--kdf-time", "1", "--block-size", "64KiB"]);
        let mut numbers = Numbers::new(seed);
        let tree = scratch.path("tree");
        for number in 0..24_u64 {
            let folder = tree.join(format!("folder {}", number % 4));
            fs::create_dir_all(&folder).unwrap();
            let size = [20, 3_000, 30_000, 200_000][usize::try_from(number / 4 % 4).unwrap()];
            fs::write(folder.join(format!("file {number}")), numbers.bytes(size)).unwrap();
        }
        scratch.succeeds(["import", "tree"]);
        scratch.succeeds(["kv", "put", "key", "value"]);
        // Blobs that are made for reading only are made anew as ones that can be written to.
        let repository = scratch.path("repo");
        copy_folder(&repository, &scratch.path("copy"));
        fs::remove_dir_all(&repository).unwrap();
        fs::rename(scratch.path("copy"), &repository).unwrap();
        check_is_clean(&scratch, "before any damage");
        let blobs = blobs(&repository);
        Self { scratch, blobs, codes: std::collections::BTreeMap::new() }
    }

    /// What must hold of a damaged repository.
    fn notices(&mut self, what: &str) {
        let output = self.scratch.run(["check", "--data"]);
        did_not_panic(&output, what);
        let (code, stderr) = (output.status.code().unwrap(), text(&output.stderr));
        // Blocks that are kept back hold nothing: that one is gone is told, and harms nothing.
        let is_spare = what.ends_with("deleted") && stderr.contains("ballast: 1 ");
        assert!(
            matches!(code, 10 | 13) || (code == 0 && is_spare),
            "{what}: check ends with {code}: {}{stderr}",
            text(&output.stdout)
        );
        assert!(!stderr.trim().is_empty(), "{what}: check says nothing");
        *self.codes.entry(("check", code)).or_default() += 1;
        self.exports_what_is_right(what, &["export", "/", "out"], &[0, 10, 13]);
        self.exports_what_is_right(what, &["export", "/", "out", "--partial"], &[0, 3, 10, 13]);
    }

    fn exports_what_is_right(&mut self, what: &str, command: &[&'static str], codes: &[i32]) {
        let output = self.scratch.run(command);
        did_not_panic(&output, what);
        let code = output.status.code().unwrap();
        assert!(codes.contains(&code), "{what}: {command:?} ends with {code}: {}", text(&output.stderr));
        *self.codes.entry((command.last().unwrap(), code)).or_default() += 1;
        let (out, tree) = (self.scratch.path("out"), self.scratch.path("tree"));
        if !out.exists() {
            assert_ne!(code, 0, "{what}: nothing was exported");
            return;
        }
        let mut came = 0;
        for path in list(&out.join("tree")).into_iter().filter(|path| path.is_file()) {
            let original = tree.join(path.strip_prefix(out.join("tree")).unwrap());
            let (right, came_out) = (fs::read(&original).unwrap(), fs::read(&path).unwrap());
            came += 1;
            if code == 3 {
                let wrong = right.iter().zip(&came_out).any(|(right, came)| came != right && *came != 0);
                assert!(right.len() == came_out.len() && !wrong, "{what}: {} has wrong bytes", path.display());
            } else {
                assert!(right == came_out, "{what}: {} is not what went in", path.display());
            }
        }
        assert!(code != 0 || came == 24, "{what}: {came} files came out, and nobody said so");
        fs::remove_dir_all(out).unwrap();
    }
}

fn flip(blob: &Path, offset: u64, bit: u64) {
    let file = File::options().read(true).write(true).open(blob).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    byte[0] ^= 1 << bit;
    file.write_all_at(&byte, offset).unwrap();
}

#[test]
fn every_flipped_bit_is_noticed() {
    let seed = seed();
    let mut victim = Victim::new(seed);
    let mut numbers = Numbers::new(seed ^ 0xf11b);
    for round in 0..scaled(100, 1_000) {
        // Every blob is as long as every other: a place among all stored bytes is a blob and an offset.
        let blob = victim.blobs[usize::try_from(numbers.below(victim.blobs.len() as u64)).unwrap()].clone();
        let (offset, bit) = (numbers.below(blob.metadata().unwrap().len()), numbers.below(8));
        flip(&blob, offset, bit);
        victim.notices(&format!("seed {seed}, round {round}: bit {bit} at {offset} of {}", blob.display()));
        flip(&blob, offset, bit);
    }
    eprintln!("{} blobs: {:?}", victim.blobs.len(), victim.codes);
    check_is_clean(&victim.scratch, "when every bit is as it was");
}

#[test]
fn blobs_that_are_shortened_swapped_or_gone_are_noticed() {
    let seed = seed();
    let mut victim = Victim::new(seed);
    let mut numbers = Numbers::new(seed ^ 0xb10b);
    let mut places: Vec<usize> = (0..victim.blobs.len()).collect();
    // In an order by seed, so that a quick run meets every kind sooner or later.
    for at in 0..places.len() {
        let other = at + usize::try_from(numbers.below((places.len() - at) as u64)).unwrap();
        places.swap(at, other);
    }
    places.truncate(scaled(8, places.len()));
    for place in places {
        let blob = victim.blobs[place].clone();
        let content = fs::read(&blob).unwrap();
        let length = usize::try_from(numbers.below(content.len() as u64)).unwrap();
        fs::write(&blob, &content[..length]).unwrap();
        victim.notices(&format!("seed {seed}: {} cut to {length}", blob.display()));
        fs::write(&blob, [&content[..], b"longer"].concat()).unwrap();
        victim.notices(&format!("seed {seed}: {} made longer", blob.display()));
        fs::remove_file(&blob).unwrap();
        victim.notices(&format!("seed {seed}: {} deleted", blob.display()));

        let step = 1 + usize::try_from(numbers.below(victim.blobs.len() as u64 - 1)).unwrap();
        let other = victim.blobs[(place + step) % victim.blobs.len()].clone();
        let others = fs::read(&other).unwrap();
        fs::write(&blob, &others).unwrap();
        fs::write(&other, &content).unwrap();
        victim.notices(&format!("seed {seed}: {} and {} swapped", blob.display(), other.display()));
        fs::write(&blob, &content).unwrap();
        fs::write(&other, &others).unwrap();
    }
    eprintln!("{} blobs: {:?}", victim.blobs.len(), victim.codes);
    check_is_clean(&victim.scratch, "when every blob is back");
}

#[test]
fn a_folder_without_anything_of_a_repository_in_it_is_none() {
    let mut victim = Victim::new(seed());
    for blob in victim.blobs.clone() {
        fs::write(blob, vec![0; 64 << 10]).unwrap();
    }
    victim.notices("all zeros");
    for blob in victim.blobs.clone() {
        fs::remove_file(blob).unwrap();
    }
    victim.notices("all gone");
    assert_eq!(victim.scratch.run(["ls"]).status.code(), Some(10));
}

#[test]
fn an_older_copy_of_the_whole_repository_is_noticed_until_it_is_accepted() {
    let scratch = Scratch::with_repository();
    assert!(scratch.feeds(["put", "-", "/kept"], b"kept").status.success());
    let (repository, old) = (scratch.path("repo"), scratch.path("old"));
    copy_folder(&repository, &old);
    assert!(scratch.feeds(["put", "-", "/newer"], b"newer").status.success());
    copy_folder(&repository, &scratch.path("new"));
    fs::remove_dir_all(&repository).unwrap();
    fs::rename(&old, &repository).unwrap();

    let before: BTreeSet<_> = blobs(&repository).into_iter().collect();
    for arguments in [&["ls"][..], &["check", "--data"], &["cat", "/kept"], &["mkdir", "/x"], &["export", "/", "out"]] {
        let line = scratch.fails(13, arguments);
        assert!(line.contains("--accept-rollback") || line.contains("has seen"), "{arguments:?}: {line}");
    }
    assert_eq!(blobs(&repository).into_iter().collect::<BTreeSet<_>>(), before, "a refused repository is left alone");
    assert_eq!(scratch.succeeds(["--accept-rollback", "cat", "/kept"]), b"kept");
    // Accepted once, it is what this device has seen; and work goes on.
    scratch.succeeds(["mkdir", "/x"]);
    check_is_clean(&scratch, "after the rollback was accepted");

    // The newer copy comes back: both have gone on from one state, and this device has seen the other one.
    fs::remove_dir_all(&repository).unwrap();
    fs::rename(scratch.path("new"), &repository).unwrap();
    let output = scratch.run(["check", "--data"]);
    did_not_panic(&output, "the other branch");
    assert_eq!(output.status.code(), Some(13), "{}", text(&output.stderr));
}

/// Takes a blob away, or puts it back.
fn hide(blob: &Path) {
    fs::rename(blob, blob.with_extension("hidden")).unwrap();
}

fn show(blob: &Path) {
    fs::rename(blob.with_extension("hidden"), blob).unwrap();
}

fn opened(scratch: &Scratch) -> strongroom::Result<FsSnapshot> {
    let options = OpenOptions::new(Credentials::password(common::PASSWORD)).read_only(true).without_trusted_state();
    Ok(Repository::open(scratch.path("repo").to_str().unwrap(), options)?.fs().snapshot())
}

/// A blob without which a folder cannot be looked at, and others can, with all that is in them.
fn blob_of_one(scratch: &Scratch, folder: &str, others: &[&str]) -> PathBuf {
    let are_whole = |files: &FsSnapshot| -> strongroom::Result<()> {
        for other in others {
            for entry in files.open_dir(other)? {
                files.read_link([other.as_bytes(), b"/", &entry?.name].concat())?;
            }
        }
        Ok(())
    };
    let is_of_one = |blob: &PathBuf| {
        hide(blob);
        let found = opened(scratch).is_ok_and(|files| files.metadata(folder).is_err() && are_whole(&files).is_ok());
        show(blob);
        found
    };
    let found = blobs(&scratch.path("repo")).into_iter().find(is_of_one);
    found.expect("a block has something of the folder and nothing of the others")
}

#[test]
fn a_damaged_folder_that_is_named_is_told_and_the_others_are_written_out() {
    let scratch = Scratch::new();
    scratch.succeeds(["init", "--no-recovery", "--kdf-time", "1", "--block-size", "4KiB"]);
    let links = 200;
    let mut operations = String::new();
    // What is made one after the other lies together: what is around the folder is nothing of the others.
    for folder in ["/0", "/between", "/1", "/2"] {
        writeln!(operations, r#"{{"op":"mkdir","path":"{folder}"}}"#).unwrap();
        for link in 0..links {
            let target = "t".repeat(200);
            writeln!(operations, r#"{{"op":"ln","link":"{folder}/{link}","target":"{target}","symbolic":true}}"#)
                .unwrap();
        }
    }
    assert!(scratch.feeds(["batch"], operations.as_bytes()).status.success());
    scratch.succeeds(["compact", "--all"]);

    let blob = blob_of_one(&scratch, "/1", &["/0", "/2"]);
    hide(&blob);
    for (more, code) in [(None, 13), (Some("--partial"), 3), (Some("--dry-run"), 13)] {
        let output = scratch.run(["export", "/0", "/1", "/2", "out"].into_iter().chain(more));
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.lines().any(|line| line.starts_with("strongroom: /1: ")), "{said}");
        if more != Some("--dry-run") {
            for folder in ["0", "2"] {
                assert_eq!(fs::read_dir(scratch.path("out").join(folder)).unwrap().count(), links, "{said}");
            }
            fs::remove_dir_all(scratch.path("out")).unwrap();
        }
    }
    show(&blob);
    scratch.succeeds(["export", "/0", "/1", "/2", "out"]);
    assert_eq!(fs::read_dir(scratch.path("out/1")).unwrap().count(), links);
}

#[test]
fn an_import_leaves_out_a_damaged_folder_and_stores_what_is_in_the_others() {
    let scratch = Scratch::new();
    scratch.succeeds(["init", "--no-recovery", "--kdf-time", "1", "--block-size", "4KiB"]);
    let links = 200;
    let tree = scratch.path("tree");
    // What is made one after the other lies together: what is around the folder is nothing of the others.
    for folder in ["0", "0 between", "1", "2"] {
        fs::create_dir_all(tree.join(folder)).unwrap();
        for link in 0..links {
            std::os::unix::fs::symlink("t".repeat(200), tree.join(folder).join(format!("{link}"))).unwrap();
        }
    }
    scratch.succeeds(["import", "tree"]);
    scratch.succeeds(["compact", "--all"]);
    let blob = blob_of_one(&scratch, "/tree/1", &["/tree/0", "/tree/2"]);
    for folder in ["0", "1", "2"] {
        fs::create_dir(tree.join(folder).join("inner")).unwrap();
        fs::write(tree.join(folder).join("new"), folder).unwrap();
        fs::write(tree.join(folder).join("inner/new"), folder).unwrap();
    }
    fs::write(tree.join("z"), "the last").unwrap();
    hide(&blob);
    for more in ["--dry-run", "--delete"] {
        let output = scratch.run(["import", "tree", "--json", more]);
        let said = text(&output.stderr);
        did_not_panic(&output, more);
        assert_eq!(output.status.code(), Some(13), "{more}: {said}");
        let (end, told) =
            said.lines().collect::<Vec<_>>().split_last().map(|(end, told)| (*end, told.to_vec())).unwrap();
        let of_one: Vec<_> = told.iter().filter(|line| line.contains("/tree/1")).collect();
        assert!(of_one.len() == 1 && of_one[0].starts_with("strongroom: /tree/1"), "{more}: {said}");
        assert!(
            !told.iter().any(|line| ["/tree/0/", "/tree/2", "/tree/z"].iter().any(|of| line.contains(of))),
            "{said}"
        );
        assert!(end.contains(" left out") && end.contains("`check`"), "{more}: {said}");
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((&report["files"], &report["removed"]), (&5.into(), &0.into()), "{more}: {report}");
    }
    for (path, content) in
        [("/tree/0/new", "0"), ("/tree/0/inner/new", "0"), ("/tree/2/inner/new", "2"), ("/tree/z", "the last")]
    {
        assert_eq!(text(&scratch.succeeds(["cat", path])), content, "{path}");
    }
    show(&blob);
    scratch.succeeds(["import", "tree"]);
    scratch.succeeds(["export", "/tree", "out"]);
    assert_eq!(common::compare_trees(&tree, &scratch.path("out/tree")), Vec::<String>::new());
    check_is_clean(&scratch, "after all");
}

#[test]
fn without_dedup_an_import_that_has_to_look_at_what_is_damaged_stores_it_anew() {
    let scratch = Scratch::new();
    scratch.succeeds(["init", "--no-recovery", "--kdf-time", "1", "--dedup", "off"]);
    fs::create_dir(scratch.path("tree")).unwrap();
    let file = scratch.path("tree/file");
    fs::write(&file, Numbers::new(1).bytes(600_000)).unwrap();
    scratch.succeeds(["import", "tree"]);
    let is_of_the_file = |blob: &PathBuf| {
        hide(blob);
        let found = opened(&scratch)
            .is_ok_and(|files| files.metadata("/tree/file").is_ok() && files.read("/tree/file").is_err());
        show(blob);
        found
    };
    let blob = blobs(&scratch.path("repo")).into_iter().find(is_of_the_file);
    hide(&blob.expect("a block has some of the file alone"));
    scratch.fails(13, ["cat", "/tree/file"]);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    scratch.succeeds(["import", "tree"]);
    assert!(scratch.succeeds(["cat", "/tree/file"]) == fs::read(&file).unwrap());
}

#[test]
fn a_sample_opens_its_share_of_the_blocks_others_each_time_and_finds_what_lies_in_them() {
    let scratch = Scratch::new();
    scratch.succeeds(["init", "--no-recovery", "--kdf-time", "1", "--block-size", "64KiB"]);
    fs::create_dir(scratch.path("tree")).unwrap();
    fs::write(scratch.path("tree/file"), Numbers::new(5).bytes(3 << 20)).unwrap();
    scratch.succeeds(["import", "tree"]);
    scratch.succeeds(["snapshot", "create", "kept"]);
    let check = |more: &[&str]| {
        let output = scratch.run(["check", "--json"].iter().chain(more));
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        (output.status.code().unwrap(), report, text(&output.stderr))
    };
    let opened = |more: &[&str]| check(more).1["blocks_opened"].as_u64().unwrap();
    let (none, all) = (opened(&[]), opened(&["--data"]));
    assert!(none == 0 && all > 48, "{all} blocks");
    for (percent, count) in [("1", 1), ("10", all.div_ceil(10)), ("99", (all * 99).div_ceil(100)), ("100", all)] {
        let (code, report, said) = check(&["--sample", percent]);
        assert_eq!((code, report["blocks_opened"].as_u64(), said.as_str()), (0, Some(count), ""), "{percent} %");
        assert_eq!(report["sample_percent"].to_string(), percent);
    }
    let kept = opened(&["--at", "kept", "--data"]);
    assert_eq!(opened(&["--at", "kept", "--sample", "50"]), kept.div_ceil(2));
    let said = text(&scratch.succeeds(["check", "--sample", "10"]));
    assert!(said.contains("a sample of 10 %") && said.contains("no damage found in the sample"), "{said}");

    // A bit in one block, which only opening it shows.
    let mut blobs = blobs(&scratch.path("repo")).into_iter();
    loop {
        let blob = blobs.next().expect("a block of the file");
        let flip = || {
            let mut bytes = fs::read(&blob).unwrap();
            bytes[30_000] ^= 1;
            fs::set_permissions(&blob, fs::Permissions::from_mode(0o600)).unwrap();
            fs::write(&blob, bytes).unwrap();
        };
        flip();
        // Not ballast, nor a block of rows.
        let (code, report, _) = check(&["--data"]);
        if (check(&[]).0, code) == (0, 13) && report["findings"].to_string().contains("/tree/file") {
            break;
        }
        flip();
    }
    assert_eq!(check(&["--sample", "100"]).0, 13);
    let codes: BTreeSet<i32> = (0..64)
        .map(|_| {
            let (code, report, said) = check(&["--sample", "50"]);
            assert_eq!(code == 13, report["damaged"].as_u64().unwrap() > 0);
            assert!(code == 0 || report["findings"].to_string().contains("/tree/file"), "{report}");
            assert!(code == 0 || said.contains("check --data --repair"), "{said}");
            code
        })
        .collect();
    assert_eq!(codes, BTreeSet::from([0, 13]), "of 64 halves some have it, and some have not");
}
