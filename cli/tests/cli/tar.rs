//! `export … -`: a stream that the tar of the system takes apart into the same tree.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use crate::common::acceptance::text;
use crate::common::{self, Numbers, Scratch, compare_trees, generate_tree};

/// Sends an export through tar into the folder `out`; answers what the export said.
fn through_tar(scratch: &Scratch, arguments: &[&str]) -> String {
    let out = scratch.path("out");
    fs::create_dir_all(&out).unwrap();
    let mut export = scratch.command();
    export.arg("export").args(arguments).arg("-").stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut export = export.spawn().unwrap();
    let mut tar = Command::new("tar");
    tar.args(["--extract", "--warning=no-timestamp", "--preserve-permissions", "--same-owner", "--directory"]).arg(out);
    let tar = tar.stdin(export.stdout.take().unwrap()).stderr(Stdio::piped()).output().expect("tar is installed");
    let export = export.wait_with_output().unwrap();
    let said = text(&export.stderr);
    assert!(export.status.success(), "{said}");
    assert!(tar.status.success() && tar.stderr.is_empty(), "{}", text(&tar.stderr));
    said
}

#[test]
fn an_odd_tree_goes_through_tar_as_it_is() {
    let scratch = Scratch::with_repository();
    let tree = scratch.path("tree");
    generate_tree(&tree, 11, 2 << 20, 60);
    // What no plain header holds: long paths and targets, odd names in them, names of several, times before the epoch.
    let deep = tree.join("d".repeat(90)).join("\u{e4}".repeat(60)).join(common::os(&[0xff; 120]));
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("file"), "deep down").unwrap();
    fs::hard_link(deep.join("file"), deep.join("same file")).unwrap();
    std::os::unix::fs::symlink("x/".repeat(200), deep.join("long target")).unwrap();
    let old = File::create(tree.join("old")).unwrap();
    old.set_modified(SystemTime::UNIX_EPOCH - Duration::from_millis(1_234_567)).unwrap();
    fs::write(tree.join("one record"), [7; 512]).unwrap();
    std::os::unix::fs::chown(tree.join("one record"), Some(3_000_000), Some(4_000_000_000)).unwrap();
    scratch.succeeds(["import", "tree"]);
    let said = through_tar(&scratch, &["/"]);
    assert!(said.contains("wrote"), "the summary goes to stderr: {said}");
    assert_eq!(compare_trees(&tree, &scratch.path("out/tree")), Vec::<String>::new());
    let inode = |name: &str| scratch.path("out/tree").join(name).metadata().unwrap().ino();
    assert_eq!(inode("hard 1"), inode("hard 2"));

    let output = scratch.run(["export", "/tree", "/tree/old", "-", "-q"]);
    assert!(output.status.success() && output.stderr.is_empty());
    let mut list = Command::new("tar").arg("-t").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut list.stdin.take().unwrap(), &output.stdout).unwrap();
    let list = text(&list.wait_with_output().unwrap().stdout);
    assert!(list.starts_with("tree/\n") && list.ends_with("\nold\n"), "{list}");
}

#[test]
fn a_file_that_no_header_can_tell_the_length_of_has_a_record_that_does() {
    let scratch = Scratch::with_repository();
    let file = File::create(scratch.path("huge")).unwrap();
    file.set_len((8 << 30) + 5).unwrap();
    scratch.succeeds(["import", "huge"]);
    let mut export = scratch.command().args(["export", "/huge", "-"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut start = [0; 4096];
    std::io::Read::read_exact(&mut export.stdout.take().unwrap(), &mut start).unwrap();
    assert!(String::from_utf8_lossy(&start).contains("size=8589934597\n"));
    // The reader is gone.
    assert_eq!(export.wait().unwrap().code(), Some(1));
}

#[test]
fn a_stream_goes_neither_to_a_full_disk_nor_beside_json() {
    let scratch = Scratch::with_repository();
    fs::write(scratch.path("file"), Numbers::new(1).bytes(1 << 20)).unwrap();
    scratch.succeeds(["import", "file"]);
    assert!(scratch.fails(2, ["export", "/", "-", "--json"]).contains("--json"));
    let full = File::options().write(true).open("/dev/full").unwrap();
    let output = scratch.command().args(["export", "/", "-"]).stdout(full).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains("stdout") && said.lines().count() == 1, "{said}");
    // What would be written is told without a stream.
    let output = scratch.run(["export", "/", "-", "--dry-run"]);
    assert!(output.status.success() && text(&output.stdout).starts_with("would write 1 files"));
    assert!(text(&output.stderr).contains("would write /file"));
}

#[test]
fn a_stream_ends_at_damage_unless_what_is_intact_is_asked_for() {
    let scratch = Scratch::with_repository();
    let content = Numbers::new(2).bytes(3 << 20);
    fs::create_dir(scratch.path("tree")).unwrap();
    fs::write(scratch.path("tree/a"), "before").unwrap();
    fs::write(scratch.path("tree/b"), &content).unwrap();
    fs::hard_link(scratch.path("tree/b"), scratch.path("tree/b linked")).unwrap();
    fs::write(scratch.path("tree/c"), "behind").unwrap();
    scratch.succeeds(["import", "tree"]);
    // Of the blocks with nothing but the file's data in them, one in the middle.
    let damaged = common::acceptance::blobs(&scratch.path("repo")).into_iter().any(|blob| {
        let good = fs::read(&blob).unwrap();
        let mode = blob.metadata().unwrap().permissions();
        fs::set_permissions(&blob, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let file = File::options().write(true).open(&blob).unwrap();
        file.write_all_at(&[good[good.len() / 2] ^ 1], (good.len() / 2) as u64).unwrap();
        let output = scratch.run(["check", "--data"]);
        let found = output.status.code() == Some(13) && text(&output.stderr).contains("/tree/b");
        if !found {
            fs::write(&blob, good).unwrap();
            fs::set_permissions(&blob, mode).unwrap();
        }
        found
    });
    assert!(damaged, "some blob holds data of the file");
    let output = scratch.run(["export", "/tree", "-"]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(13), "{said}");
    assert!(said.contains("/tree/b: ") && said.contains("--partial"), "{said}");

    let output = scratch.run(["export", "/tree", "-", "--partial"]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("/tree/b: ") && said.contains("/tree/b linked: ") && said.contains("are lost"), "{said}");
    fs::create_dir(scratch.path("out")).unwrap();
    let mut tar = Command::new("tar").arg("-xC").arg(scratch.path("out")).stdin(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut tar.stdin.take().unwrap(), &output.stdout).unwrap();
    assert!(tar.wait().unwrap().success());
    assert_eq!(fs::read(scratch.path("out/tree/c")).unwrap(), b"behind");
    let rescued = fs::read(scratch.path("out/tree/b")).unwrap();
    let same = content.iter().zip(&rescued).filter(|(a, b)| a == b).count();
    assert!(rescued.len() == content.len() && same > content.len() / 2 && same < content.len());
}
