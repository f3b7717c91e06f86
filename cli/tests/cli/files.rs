//! What is done to files inside a repository: find, du, cp, batch.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::{Duration, SystemTime};

use crate::common::acceptance::{check_is_clean, text};
use crate::common::{self, Scratch};

fn tree() -> Scratch {
    let scratch = Scratch::with_repository();
    let tree = scratch.path("tree");
    fs::create_dir_all(tree.join("docs/old")).unwrap();
    for (name, bytes, age) in
        [("docs/a.txt", 10, 0), ("docs/B.TXT", 70_000, 0), ("docs/old/c.txt", 3_000, 1_000), ("image.png", 500, 10)]
    {
        fs::write(tree.join(name), vec![7; bytes]).unwrap();
        #[allow(clippy::disallowed_methods)] // what is found is younger or older than now
        let time = SystemTime::now() - Duration::from_secs(age * 3_600);
        fs::File::open(tree.join(name)).unwrap().set_modified(time).unwrap();
    }
    fs::hard_link(tree.join("image.png"), tree.join("docs/same.png")).unwrap();
    symlink("docs", tree.join("link")).unwrap();
    scratch.succeeds(["import", "tree"]);
    scratch
}

fn found(scratch: &Scratch, arguments: &[&str]) -> String {
    let paths = text(&scratch.succeeds(["find"].iter().chain(arguments)));
    paths.lines().map(|path| path.strip_prefix("/tree").unwrap_or(path)).collect::<Vec<_>>().join(" ")
}

#[test]
fn find_tells_files_apart_by_name_kind_size_time_and_depth() {
    let scratch = tree();
    let all = "/  /docs /docs/B.TXT /docs/a.txt /docs/old /docs/old/c.txt /docs/same.png /image.png /link";
    for (arguments, expected) in [
        (&[][..], all),
        (&["/tree/docs", "--depth", "1"], "/docs /docs/B.TXT /docs/a.txt /docs/old /docs/same.png"),
        (&["/tree", "--depth", "0"], ""),
        (&["--name", "*.txt"], "/docs/a.txt /docs/old/c.txt"),
        (&["--iname", "*.txt"], "/docs/B.TXT /docs/a.txt /docs/old/c.txt"),
        (&["--path", "/tree/*/*.txt"], "/docs/a.txt"),
        (&["--path", "/tree/**/*.txt"], "/docs/a.txt /docs/old/c.txt"),
        (&["--type", "folder", "/tree"], " /docs /docs/old"),
        (&["--type", "l"], "/link"),
        (&["--size", "+1KiB"], "/docs/B.TXT /docs/old/c.txt"),
        (&["--size", "-100"], "/docs/a.txt"),
        (&["--size", "500", "--name", "i*"], "/image.png"),
        (&["--size", "+100", "--size", "-1KiB"], "/docs/same.png /image.png"),
        (&["--linked"], "/docs/same.png /image.png"),
        (&["--older", "30d"], "/docs/old/c.txt"),
        (&["--type", "f", "--newer", "30d", "--older", "5h"], "/docs/same.png /image.png"),
        (&["--newer", "2100-01-01"], ""),
        (&["/tree/image.png", "/tree/link"], "/image.png /link"),
        (&["--name", "nothing"], ""),
    ] {
        assert_eq!(found(&scratch, arguments), expected, "{arguments:?}");
    }
    assert_eq!(scratch.succeeds(["find", "--type", "l", "-0"]), b"/tree/link\0");
    assert!(text(&scratch.succeeds(["find", "-l", "--type", "l"])).contains("/tree/link -> docs"));
    let entry: serde_json::Value =
        serde_json::from_slice(&scratch.succeeds(["find", "--type", "l", "--json"])).unwrap();
    assert_eq!((&entry["schema"], &entry["name"]), (&"strongroom/entry/1".into(), &"/tree/link".into()));
    for arguments in [["--name", "a["], ["--size", "many"], ["--newer", "yesterday"], ["--type", "device"]] {
        scratch.fails(2, ["find"].iter().chain(&arguments));
    }
}

#[test]
fn du_counts_what_is_below_and_each_file_once() {
    let scratch = tree();
    let shown = |arguments: &[&str]| text(&scratch.succeeds(["du", "-b"].iter().chain(arguments)));
    let all = "3000      /tree/docs/old\n73510     /tree/docs\n73510     /tree\n73510     /\n";
    assert_eq!(shown(&[]), all);
    assert_eq!(shown(&["-s", "/tree"]), "73510     /tree\n");
    assert_eq!(
        shown(&["--depth", "1", "/tree", "/tree/image.png"]),
        "73510     /tree/docs\n73510     /tree\n0         /tree/image.png\n"
    );
    assert_eq!(text(&scratch.succeeds(["du", "-s", "/tree/docs/old"])), "2.9KiB    /tree/docs/old\n");
    let total: serde_json::Value = serde_json::from_slice(&scratch.succeeds(["du", "-s", "--json"])).unwrap();
    let counted = ["bytes", "files", "folders", "links"].map(|name| total[name].as_u64().unwrap());
    assert_eq!(counted, [73_510, 4, 4, 1]);
}

#[test]
fn one_path_that_leads_nowhere_does_not_keep_the_others_from_being_shown() {
    let scratch = tree();
    scratch.succeeds(["ln", "-s", "two", "/one"]);
    scratch.succeeds(["ln", "-s", "one", "/two"]);
    let long = format!("/{}", "n".repeat(300));
    for (command, shown) in [("du", 1), ("find", 1), ("stat", 12)] {
        let output = scratch.run([command, "/gone", "/one/x", "/tree/image.png", "/tree/image.png/in", "", &long]);
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(3), "{command}: {stderr}");
        assert_eq!(stdout.lines().count(), shown, "{command}: {stdout}");
        assert!(stdout.contains("/tree/image.png"), "{command}: {stdout}");
        let lines: Vec<&str> = stderr.lines().collect();
        assert_eq!(lines.len(), 6, "{command}: {stderr}");
        assert!(lines[0].contains("/gone") && lines[1].contains("/one/x"), "{command}: {stderr}");
        assert!(lines[5].contains("5 paths left out, listed above"), "{command}: {stderr}");
        // Where nothing was shown, nothing was done in part.
        scratch.fails(1, [command, "/gone", "/away"]);
        // Alone, it is the one line.
        let stderr = scratch.fails(1, [command, "/gone"]);
        assert!(stderr.lines().count() == 1 && stderr.contains("/gone"), "{command}: {stderr}");
    }
}

#[test]
fn cp_shares_what_it_copies_and_keeps_all_or_nothing() {
    let scratch = tree();
    let large = common::Numbers::new(7).bytes(8 << 20);
    fs::write(scratch.path("tree/docs/large"), &large).unwrap();
    scratch.succeeds(["import", "tree"]);
    let before = common::acceptance::stored_bytes(&scratch.path("repo"));
    // Three copies of what does not compress: each is a few blocks of rows, and none of it is read.
    let output = scratch.run(["cp", "-v", "/tree/docs/large", "/large"]);
    let said = text(&output.stderr);
    assert!(output.status.success(), "{said}");
    for way in [" bytes up", " bytes down"] {
        let (counted, _) = said.split_once(way).expect("what went to the storage");
        let bytes: u64 = counted.rsplit(' ').next().unwrap().parse().unwrap();
        assert!(bytes < 2 << 20, "{said}");
    }
    scratch.succeeds(["cp", "/tree/docs/B.TXT", "/copy"]);
    scratch.succeeds(["cp", "-r", "/tree", "/again"]);
    scratch.succeeds(["mkdir", "/into"]);
    scratch.succeeds(["cp", "/tree/docs/a.txt", "/tree/image.png", "/into"]);
    scratch.succeeds(["cp", "-r", "/tree/link", "/tree/docs", "/into"]);
    assert_eq!(scratch.succeeds(["cat", "/copy"]), vec![7; 70_000]);
    scratch.succeeds(["export", "/again", "out"]);
    assert_eq!(common::compare_trees(&scratch.path("tree"), &scratch.path("out/again")), Vec::<String>::new());
    assert_eq!(text(&scratch.succeeds(["ls", "/into"])), "a.txt\ndocs\nimage.png\nlink\n");
    assert!(scratch.succeeds(["cat", "/large"]) == large && scratch.succeeds(["cat", "/into/docs/large"]) == large);
    let more = common::acceptance::stored_bytes(&scratch.path("repo")) - before;
    assert!(more < 4 << 20, "{more}");
    // What one is changed to, the other is not.
    assert!(scratch.feeds(["put", "-", "/copy"], b"changed").status.success());
    assert_eq!(scratch.succeeds(["cat", "/tree/docs/B.TXT"]), vec![7; 70_000]);

    scratch.succeeds(["ln", "-s", "tree/docs/a.txt", "/to a.txt"]);
    let list = scratch.succeeds(["ls", "-R"]);
    assert!(scratch.fails(1, ["cp", "/tree", "/x"]).contains("-r"));
    for (from, to) in
        [("/copy", "/copy"), ("copy", "/./copy"), ("/copy", "/"), ("/tree/image.png", "/tree/docs/same.png")]
    {
        for command in ["cp", "mv"] {
            let said = scratch.fails(1, [command, from, to]);
            assert!(said.contains("are the same file"), "{command} {from} {to}: {said}");
        }
    }
    let behind_a_link = scratch.fails(1, ["cp", "/tree/docs/a.txt", "/to a.txt"]);
    assert!(behind_a_link.contains("are the same file"), "{behind_a_link}");
    assert!(scratch.fails(1, ["cp", "/tree/docs/a.txt", "/absent", "/into"]).contains("/absent"));
    assert!(scratch.fails(1, ["cp", "/tree/docs/a.txt", "/copy", "/neither"]).contains("not a folder"));
    scratch.fails(1, ["cp", "-r", "/tree", "/tree/docs/inside"]);
    scratch.fails(1, ["cp", "-r", "/tree/docs", "/into"]);
    assert_eq!(scratch.succeeds(["ls", "-R"]), list);
    check_is_clean(&scratch, "after copies");
}

#[test]
fn a_batch_is_one_commit_or_nothing() {
    let scratch = tree();
    let ops = r#"
        {"op":"mkdir","path":"/new/deep","parents":true}
        {"op":"write","path":"/new/a","content":"one"}
        {"op":"append","path":"/new/a","content":" two"}
        {"op":"write-at","path":"/new/a","offset":0,"content":"ONE"}

        {"op":"write","path":{"hex":"2f6e65772fff"},"content":{"hex":"00ff"}}
        {"op":"cp","from":"/new/a","to":"/new/copy"}
        {"op":"ln","target":"/new/a","link":"/new/hard"}
        {"op":"ln","target":"a","link":"/new/soft","symbolic":true}
        {"op":"mv","from":"/new/deep","to":"/new/moved"}
        {"op":"truncate","path":"/new/copy","size":3}
        {"op":"set","path":"/new/copy","mode":"0600","uid":7,"mtime":"2001-02-03T04:05:06Z"}
        {"op":"setxattr","path":"/new/a","name":"user.x","value":"y"}
        {"op":"rmxattr","path":"/new/a","name":"user.x"}
        {"op":"exchange","one":"/new/copy","other":"/new/a"}
        {"op":"rm","path":"/tree/docs","recursive":true}
        {"op":"rm","path":"/tree/image.png"}
        {"op":"rmdir","path":"/new/moved"}
        {"op":"kv-put","key":"letters","value":"2"}
        {"op":"kv-put","key":{"hex":"ff"},"value":{"hex":"fe"}}
        {"op":"kv-put","key":"gone","value":"soon"}
        {"op":"kv-del","key":"gone"}
        {"op":"kv-put","key":"own","value":"1","table":1}
        {"op":"kv-del","key":"own","table":1}
        {"op":"kv-del","key":"own","table":1,"force":true}
        {"op":"set","path":"/new/hard","atime":"2002-02-03T04:05:06Z"}
    "#;
    let output = scratch.feeds(["batch", "--json"], ops.as_bytes());
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["schema"], &report["operations"]), (&"strongroom/batch/1".into(), &25.into()));
    assert_eq!(scratch.succeeds(["cat", "/new/a", "/new/copy", "/new/hard"]), b"ONEONE twoONE two");
    assert_eq!(scratch.succeeds(["ls", "/tree"]), b"link\n");
    assert_eq!(scratch.succeeds(["ls", "/new"]), b"a\ncopy\nhard\nsoft\n\xff\n");
    let entry = text(&scratch.succeeds(["ls", "-l", "/new/a"]));
    assert!(entry.starts_with("-rw-------     7:") && entry.contains("2001-02-03T04:05:06Z"), "{entry}");

    let said = text(&scratch.succeeds(["stat", "/new/hard"]));
    assert!(said.contains("accessed  2002-02-03T04:05:06Z +0ns"), "{said}");
    let whole: serde_json::Value = serde_json::from_slice(&scratch.succeeds(["stat", "/new/hard", "--json"])).unwrap();
    assert_eq!((&whole["atime"], &whole["atime_nanos"]), (&"2002-02-03T04:05:06Z".into(), &0.into()));
    for time in ["ctime", "btime"] {
        assert!(whole[time].is_string() && whole[format!("{time}_nanos")].is_number(), "{whole}");
    }
    let keys = scratch.succeeds(["kv", "scan", "--values"]);
    assert_eq!(text(&keys), "letters\t2\n\\xff\t\\xfe\n");

    let list = scratch.succeeds(["ls", "-R"]);
    for (code, ops, says) in [
        (
            1,
            "{\"op\":\"kv-put\",\"key\":\"k\",\"value\":\"v\"}\n{\"op\":\"kv-del\",\"key\":\"absent\"}",
            "absent: no such key",
        ),
        (1, r#"{"op":"kv-put","key":"k","value":"v","table":64}"#, "line 1: "),
        (2, r#"{"op":"kv-put","key":"k","value":"v","table":256}"#, "line 1: "),
        (1, "{\"op\":\"mkdir\",\"path\":\"/x\"}\n\n{\"op\":\"rm\",\"path\":\"/absent\"}", "line 3: /absent"),
        (1, "{\"op\":\"mkdir\",\"path\":\"/new\"}", "line 1: "),
        (2, "{\"op\":\"mkdir\",\"path\":\"/x\"}\nnonsense", "line 2: "),
        (2, "{\"op\":\"mkdir\",\"path\":\"/x\",\"mode\":1}", "mode"),
        (2, "{\"op\":\"format\"}", "format"),
        (2, "{\"op\":\"rm\",\"path\":{\"hex\":\"f\"}}", "hexadecimal"),
        (2, "{\"op\":\"set\",\"path\":\"/new\",\"mode\":\"9\"}", "mode"),
    ] {
        let output = scratch.feeds(["batch"], ops.as_bytes());
        let said = text(&output.stderr);
        assert_eq!((output.status.code(), said.lines().count()), (Some(code), 1), "{said}");
        assert!(said.contains(says), "{said}");
        assert_eq!(scratch.succeeds(["ls", "-R"]), list);
        assert_eq!(scratch.succeeds(["kv", "scan", "--values"]), keys);
    }
    check_is_clean(&scratch, "after batches");
}

#[test]
fn a_batch_removes_everything_only_when_it_says_so() {
    let scratch = tree();
    let list = scratch.succeeds(["ls", "-R"]);
    for root in [r#""/""#, r#""//""#, r#"{"hex":"2f"}"#] {
        let ops = format!("{{\"op\":\"mkdir\",\"path\":\"/x\"}}\n{{\"op\":\"rm\",\"path\":{root},\"recursive\":true}}");
        let output = scratch.feeds(["batch"], ops.as_bytes());
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("line 2: /") && said.contains("is all that there is"), "{said}");
        assert_eq!(scratch.succeeds(["ls", "-R"]), list);
    }
    let output = scratch.feeds(["batch"], br#"{"op":"rm","path":"/","recursive":true,"force":true}"#);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(scratch.succeeds(["ls", "-R"]), b"");
}

#[test]
fn what_is_not_there_is_no_error_for_a_batch_that_forces_it_away() {
    let scratch = tree();
    let ops = r#"
        {"op":"mkdir","path":"/new"}
        {"op":"rm","path":"/absent","force":true}
        {"op":"rm","path":"/no/such/folder","recursive":true,"force":true}
        {"op":"rm","path":"/new","recursive":true,"force":true}
        {"op":"rm","path":"/new","recursive":true,"force":true}
        {"op":"rm","path":"/tree/image.png","force":true}
    "#;
    let output = scratch.feeds(["batch", "--json"], ops.as_bytes());
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["operations"], 6);
    let list = scratch.succeeds(["ls", "-R"]);
    let said = text(&list);
    assert!(!said.contains("new") && !said.contains("image.png") && said.contains("tree/docs"), "{said}");
    // A folder is not removed as a file, nor what is missing by one that does not say so.
    for (op, says) in [
        (r#"{"op":"rm","path":"/tree/docs","force":true}"#, "line 2: /tree/docs"),
        (r#"{"op":"rm","path":"/absent","recursive":true}"#, "line 2: /absent"),
    ] {
        let output = scratch.feeds(["batch"], format!("{{\"op\":\"mkdir\",\"path\":\"/x\"}}\n{op}").as_bytes());
        let said = text(&output.stderr);
        assert!(output.status.code() == Some(1) && said.contains(says), "{said}");
        assert_eq!(scratch.succeeds(["ls", "-R"]), list);
    }
}

#[test]
fn a_thousand_operations_are_one_commit_and_few_requests() {
    let scratch = Scratch::with_repository();
    let ops: String =
        (0..1_000).map(|n| format!("{{\"op\":\"write\",\"path\":\"/f{n}\",\"content\":\"{n}\"}}\n")).collect();
    fs::write(scratch.path("ops"), ops).unwrap();
    let before: serde_json::Value = serde_json::from_slice(&scratch.succeeds(["info", "--json"])).unwrap();
    let output = scratch.run(["batch", "ops", "-v"]);
    let said = text(&output.stderr);
    assert!(output.status.success(), "{said}");
    let (count, _) = said.split_once(" requests (").expect("what went to the storage");
    let requests: u64 = count.rsplit(' ').next().unwrap().parse().unwrap();
    // Opening and closing, and one commit with what it carries.
    assert!(requests < 60, "{said}");
    let sequence = before["inside"]["commit"].as_u64().unwrap();
    assert!(text(&output.stdout).starts_with("1000 operations in commit "));
    let commit: u64 = text(&output.stdout).trim().rsplit(' ').next().unwrap().parse().unwrap();
    assert_eq!(commit, sequence + 2, "the claim of an epoch, and the commit");
    assert_eq!(scratch.succeeds(["cat", "/f0", "/f999"]), b"0999");
}
