//! Trees go in and come out as they were.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

use crate::common::{self, Numbers, Scratch, compare_trees, generate_tree};

#[test]
fn an_odd_tree_comes_back_with_all_its_metadata() {
    let scratch = Scratch::with_repository();
    let (tree, out) = (scratch.path("tree"), scratch.path("out"));
    generate_tree(&tree, 1, 24 << 20, 400);
    scratch.succeeds(["import", "tree"]);
    scratch.succeeds(["export", "/", "out"]);
    assert_eq!(compare_trees(&tree, &out.join("tree")), Vec::<String>::new());
    let (sparse, back) = (tree.join("sparse").metadata().unwrap(), out.join("tree/sparse").metadata().unwrap());
    assert!(back.blocks() * 512 < back.len() / 2, "{} blocks, {} in the source", back.blocks(), sparse.blocks());
    scratch.succeeds(["check", "--data"]);

    // Exported over itself, it is the same.
    scratch.succeeds(["export", "/tree", "out"]);
    assert_eq!(compare_trees(&tree, &out.join("tree")), Vec::<String>::new());
}

#[test]
fn a_second_import_sends_only_what_changed() {
    let scratch = Scratch::with_repository();
    let tree = scratch.path("tree");
    generate_tree(&tree, 2, 4 << 20, 100);
    scratch.succeeds(["import", "tree"]);
    let report = json(&scratch.succeeds(["import", "tree", "--json"]));
    assert_eq!((&report["files"], &report["folders"], &report["links"]), (&0.into(), &0.into(), &0.into()));
    assert!(report["unchanged"].as_u64().unwrap() > 110);

    fs::write(tree.join("empty"), "no longer").unwrap();
    fs::write(tree.join("bare/new"), "new").unwrap();
    fs::set_permissions(tree.join("zeros"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::remove_file(tree.join("links/file")).unwrap();
    symlink("elsewhere", tree.join("links/file")).unwrap();
    // A folder in place of a file, and a file in place of a link.
    fs::remove_file(tree.join("hard 1")).unwrap();
    fs::create_dir(tree.join("hard 1")).unwrap();
    fs::remove_file(tree.join("links/dangling")).unwrap();
    fs::write(tree.join("links/dangling"), "a file now").unwrap();
    let report = json(&scratch.succeeds(["import", "tree", "--json"]));
    assert_eq!((&report["files"], &report["links"]), (&3.into(), &1.into()));
    scratch.succeeds(["export", "/tree", "out"]);
    assert_eq!(compare_trees(&tree, &scratch.path("out/tree")), Vec::<String>::new());
}

#[test]
fn a_change_whose_time_was_set_back_is_seen() {
    let scratch = Scratch::with_repository();
    let file = scratch.path("file");
    fs::write(&file, "one").unwrap();
    scratch.succeeds(["import", "file"]);
    assert_eq!(json(&scratch.succeeds(["import", "file", "--json"]))["files"], 0);
    let time = file.metadata().unwrap().modified().unwrap();
    fs::write(&file, "two").unwrap();
    fs::File::options().write(true).open(&file).unwrap().set_modified(time).unwrap();
    assert_eq!(json(&scratch.succeeds(["import", "file", "--json"]))["files"], 1);
    assert_eq!(scratch.succeeds(["cat", "/file"]), b"two");
    assert_eq!(json(&scratch.succeeds(["import", "file", "--json"]))["files"], 0);
}

#[test]
fn import_goes_where_it_is_told_and_leaves_out_what_it_is_told() {
    let scratch = Scratch::with_repository();
    let tree = scratch.path("tree");
    for path in ["a/keep.txt", "a/drop.o", "a/target/x", "b/keep.o.txt", "b/cache/CACHEDIR.TAG", "b/cache/big"] {
        let path = tree.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "Signature: 8a477f597d28d172789f06886806bc55").unwrap();
    }
    fs::write(scratch.path("patterns"), "# comment\n\ntree/*/target\n").unwrap();
    scratch.succeeds([
        "import",
        "tree/a",
        "tree/b",
        "--to",
        "/deep/down",
        "--exclude",
        "*.o",
        "--exclude-caches",
        "--dry-run",
    ]);
    assert_eq!(scratch.succeeds(["ls"]), b"");
    scratch.succeeds(["import", "tree", "--to", "/deep/down", "--exclude", "*.o", "--exclude-file", "patterns"]);
    let list = String::from_utf8(scratch.succeeds(["ls", "-R", "/deep/down"])).unwrap();
    let expected = "tree\ntree/a\ntree/a/keep.txt\ntree/b\ntree/b/cache\ntree/b/cache/CACHEDIR.TAG\ntree/b/cache/big\ntree/b/keep.o.txt\n";
    assert_eq!(list, expected);
    let line = scratch.fails(2, ["import", "tree/a", "tree/../tree/a"]);
    assert!(line.contains("both arrive"), "{line}");
}

#[test]
fn patterns_that_cannot_match_are_refused_and_those_that_matched_nothing_are_told() {
    let scratch = Scratch::with_repository();
    for path in ["ex/a/b/file", "ex/c/file"] {
        let path = scratch.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "content").unwrap();
    }
    let here = scratch.root.path().canonicalize().unwrap();
    let absolute = |path: &str| here.join(path).to_str().unwrap().to_owned();
    for (pattern, says) in [
        ("./a", "write `ex/a`"),
        ("./ex/a", "write `ex/a`"),
        ("../a/*", "write `ex/a/*`"),
        (&absolute("ex/a"), "write `ex/a`"),
        (&absolute("ex/*/b"), "write `ex/*/b`"),
        (&absolute("ex"), "SRC itself"),
        ("", "leave it out"),
        ("/", "leave it out"),
    ] {
        let said = scratch.fails(2, ["import", "ex", "--exclude", pattern]);
        assert!(said.contains(says) && said.lines().count() == 1, "{pattern}: {said}");
        fs::write(scratch.path("patterns"), format!("# first\n{pattern}\n")).unwrap();
        if !pattern.is_empty() {
            let said = scratch.fails(2, ["import", "ex", "--exclude-file", "patterns"]);
            assert!(said.contains(says), "{pattern}: {said}");
        }
    }
    assert_eq!(scratch.succeeds(["ls"]), b"");

    let patterns = ["--exclude", "ex", "--exclude", "/a/b/", "--exclude", "/ex/c/", "--exclude", "b"];
    let output = scratch.run(["import", "ex"].iter().chain(&patterns));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}");
    let told: Vec<&str> = said.lines().filter(|line| line.contains("nothing was left out")).collect();
    assert!(told.len() == 1 && told[0].ends_with("nothing was left out for `ex`, `/a/b/`"), "{said}");
    let report = json(&scratch.succeeds(["import", "ex", "--json"].iter().chain(&patterns)));
    assert_eq!(report["unmatched_patterns"], serde_json::json!(["ex", "/a/b/"]));
    // A file of patterns may be for other trees, too.
    fs::write(scratch.path("patterns"), "*.o\n/ex/c/\n*.tmp\n").unwrap();
    let shared = ["--exclude-file", "patterns", "--exclude", "b", "--exclude", "none"];
    for (more, told) in [(None, &["`none`"][..]), (Some("-v"), &["2 of the patterns in files", "`none`"])] {
        let output = scratch.run(["import", "ex"].iter().chain(&shared).chain(more.iter()));
        let said = String::from_utf8(output.stderr).unwrap();
        let lines: Vec<&str> = said.lines().filter(|line| line.contains("nothing was left out for ")).collect();
        assert_eq!(lines.len(), told.len(), "{said}");
        assert!(lines.iter().zip(told).all(|(line, told)| line.ends_with(told)), "{said}");
    }
    let report = json(&scratch.succeeds(["import", "ex", "--json"].iter().chain(&shared)));
    assert_eq!(
        (&report["unmatched_patterns"], &report["unmatched_in_files"]),
        (&serde_json::json!(["none"]), &2.into())
    );
    assert_eq!(String::from_utf8(scratch.succeeds(["ls", "-R"])).unwrap(), "ex\nex/a\n");
    // What lies there under the name that it arrives by.
    let all = format!("/{}", here.components().nth(1).unwrap().as_os_str().to_str().unwrap());
    let output = scratch.run(["import", &all, "--to", "/all", "--exclude", &format!("{all}/*"), "--json"]);
    assert_eq!(json(&output.stdout)["unmatched_patterns"], serde_json::json!([]));
}

#[test]
fn what_is_named_twice_is_stored_once_and_two_of_one_name_are_refused() {
    let scratch = Scratch::with_repository();
    for folder in ["one", "two"] {
        fs::create_dir(scratch.path(folder)).unwrap();
        fs::write(scratch.path(folder).join("file"), folder).unwrap();
    }
    for (sources, says) in [
        (["one/file", "two/file"], "one/file and two/file would both arrive as file"),
        (["one/file", "two/../one/file"], "one/file and two/../one/file would both arrive as file"),
        (["one", "one/"], "one and one/ would both arrive as one"),
    ] {
        let said = scratch.fails(2, ["import", sources[0], sources[1]]);
        assert!(said.contains(says), "{said}");
    }
    let output = scratch.run(["import", "one", "two/file", "one", "two/file", "--json"]);
    assert_eq!((output.status.code(), String::from_utf8(output.stderr).unwrap()), (Some(0), String::new()));
    let report = json(&output.stdout);
    assert_eq!((&report["files"], &report["folders"], &report["unchanged"]), (&2.into(), &1.into(), &0.into()));
    assert_eq!(scratch.succeeds(["ls", "-R"]), b"file\none\none/file\n");
}

#[test]
fn the_repository_is_not_stored_into_itself() {
    let scratch = Scratch::with_repository();
    fs::write(scratch.path("file"), "content").unwrap();
    for _ in 0..2 {
        scratch.succeeds(["import", ".", "--exclude", "state"]);
    }
    let name = scratch.root.path().file_name().unwrap().to_str().unwrap();
    assert_eq!(String::from_utf8(scratch.succeeds(["ls", "-R"])).unwrap(), format!("{name}\n{name}/file\n"));
}

#[test]
fn what_cannot_be_stored_is_listed_and_the_rest_is_stored() {
    let scratch = Scratch::with_repository();
    let tree = scratch.path("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("good"), "good").unwrap();
    let socket = std::os::unix::net::UnixListener::bind(tree.join("socket")).unwrap();
    let output = scratch.run(["import", "tree"]);
    // Special files alone are a notice.
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8(output.stderr).unwrap().contains("socket"));
    drop(socket);

    let stderr = scratch.fails(3, ["import", "tree", "no such file"]);
    assert!(stderr.contains("no such file: cannot be read"), "{stderr}");
    // A file where the repository has a folder.
    fs::create_dir(scratch.path("other")).unwrap();
    fs::write(scratch.path("other/tree"), "a file").unwrap();
    let stderr = scratch.fails(3, ["import", "other/tree"]);
    assert!(stderr.contains("a folder of that name"), "{stderr}");
    assert_eq!(scratch.succeeds(["cat", "/tree/good"]), b"good");
}

#[test]
fn a_large_file_goes_in_over_several_commits() {
    let scratch = Scratch::new();
    scratch.succeeds(["init", "--no-recovery", "--kdf-time", "1", "--block-size", "16KiB"]);
    let tree = scratch.path("tree");
    fs::create_dir(&tree).unwrap();
    // Beyond the size from which files take their own way; mostly holes, so that the test is quick.
    let file = fs::File::create(tree.join("large")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &Numbers::new(3).bytes(6 << 20), 100 << 20).unwrap();
    file.set_len(300 << 20).unwrap();
    drop(file);
    let commits = || json(&scratch.succeeds(["info", "--json"]))["inside"]["commit"].as_u64().unwrap();
    let before = commits();
    scratch.succeeds(["import", "tree"]);
    // One each 1.25 MiB, beside those in which it is begun and put in its place.
    let made = commits() - before;
    assert!(made >= 6, "{made} commits");
    assert_eq!(scratch.succeeds(["ls", "-R"]), b"tree\ntree/large\n");
    assert_eq!(json(&scratch.succeeds(["import", "tree", "--json"]))["files"], 0);
    scratch.succeeds(["export", "/", "out"]);
    assert_eq!(compare_trees(&tree, &scratch.path("out/tree")), Vec::<String>::new());
    assert!(scratch.path("out/tree/large").metadata().unwrap().blocks() < 16 << 10);
}

#[test]
fn export_never_writes_through_a_link() {
    let scratch = Scratch::with_repository();
    for path in ["tree/folder/file", "outside/file"] {
        let path = scratch.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, path.to_str().unwrap()).unwrap();
    }
    scratch.succeeds(["import", "tree"]);
    fs::create_dir_all(scratch.path("out/tree")).unwrap();
    symlink(scratch.path("outside"), scratch.path("out/tree/folder")).unwrap();
    let stderr = scratch.fails(3, ["export", "/", "out"]);
    assert!(stderr.contains("in the way"), "{stderr}");
    let outside = scratch.path("outside/file");
    assert_eq!(fs::read(&outside).unwrap(), outside.to_str().unwrap().as_bytes());
    fs::remove_file(scratch.path("out/tree/folder")).unwrap();
    fs::create_dir(scratch.path("out/tree/folder")).unwrap();
    symlink(&outside, scratch.path("out/tree/folder/file")).unwrap();
    scratch.succeeds(["export", "/", "out"]);
    assert_eq!(fs::read(&outside).unwrap(), outside.to_str().unwrap().as_bytes());
    assert!(scratch.path("out/tree/folder/file").symlink_metadata().unwrap().is_file());
}

#[test]
fn damage_is_named_by_path_and_the_intact_rest_is_rescued() {
    let scratch = Scratch::with_repository();
    let tree = scratch.path("tree");
    fs::create_dir(&tree).unwrap();
    let mut numbers = Numbers::new(4);
    for name in ["one", "two", "three"] {
        fs::write(tree.join(name), numbers.bytes(3 << 20)).unwrap();
    }
    scratch.succeeds(["import", "tree"]);
    scratch.succeeds(["check", "--data"]);
    // One bit in the middle of one blob that holds data: found among the blobs by what check says then.
    let mut blobs: Vec<_> = common::list(&scratch.path("repo")).into_iter().filter(|path| path.is_file()).collect();
    blobs.retain(|path| path.metadata().unwrap().len() > 4096);
    let damaged = blobs.iter().find_map(|blob| {
        let before = fs::read(blob).unwrap();
        let mut flipped = before.clone();
        let middle = flipped.len() / 2;
        flipped[middle] ^= 1;
        let mode = blob.metadata().unwrap().permissions();
        fs::set_permissions(blob, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(blob, &flipped).unwrap();
        let output = scratch.run(["check", "--data"]);
        let stderr = String::from_utf8(output.stderr).unwrap();
        if output.status.code() == Some(13) && stderr.contains("/tree/") {
            return Some(stderr);
        }
        fs::write(blob, before).unwrap();
        fs::set_permissions(blob, mode).unwrap();
        None
    });
    let findings = damaged.expect("some blob holds file data");
    let name = ["one", "two", "three"].into_iter().find(|name| findings.contains(&format!("/tree/{name}"))).unwrap();

    scratch.fails(13, ["export", "/", "out"]);
    assert!(!scratch.path("out/tree").join(name).exists());
    assert_eq!(compare_trees(&tree, &scratch.path("out/tree")).len(), 1);
    let stderr = scratch.fails(3, ["export", "/", "rescued", "--partial"]);
    assert!(stderr.contains("are lost"), "{stderr}");
    let (whole, rescued) =
        (fs::read(tree.join(name)).unwrap(), fs::read(scratch.path("rescued/tree").join(name)).unwrap());
    assert_eq!(whole.len(), rescued.len());
    let same = whole.iter().zip(&rescued).filter(|(a, b)| a == b).count();
    assert!(same > whole.len() / 2 && same < whole.len(), "{same} of {}", whole.len());
}

fn json(bytes: &[u8]) -> serde_json::Value {
    serde_json::from_slice(bytes).unwrap()
}
