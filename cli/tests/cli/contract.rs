//! What scripts rely on: exit codes, one-line errors, where passwords come from, JSON with a schema.

use std::fs;

use crate::common::{self, Numbers, PASSWORD, Scratch, bare_command};

fn json_lines(bytes: &[u8]) -> Vec<serde_json::Value> {
    String::from_utf8(bytes.to_vec()).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn each_failure_has_its_exit_code_and_one_line() {
    let mut scratch = Scratch::new();
    for (code, arguments) in [
        (10, &["ls"][..]),
        (10, &["import", "."]),
        (10, &["info"]),
        (2, &["rm", "--at", "yesterday", "/letter"]),
        (2, &["--repo", "nowhere://x", "ls"]),
        (2, &["--repo", "file:x?token=1", "ls"]),
        (2, &["init", "--block-size", "5000"]),
    ] {
        let stderr = scratch.fails(code, arguments);
        assert_eq!(stderr.lines().count(), 1, "{arguments:?}: {stderr}");
        assert!(stderr.starts_with("strongroom: "), "{stderr}");
    }
    assert_eq!(scratch.run(["no-such-command"]).status.code(), Some(2));
    assert_eq!(scratch.run(["ls", "--no-such-flag"]).status.code(), Some(2));

    scratch.succeeds(["init", "--no-recovery", "--kdf-time", "1"]);
    let stderr = scratch.fails(1, ["init"]);
    assert!(stderr.contains("already"), "{stderr}");
    for arguments in [&["cat", "/absent"][..], &["ls", "/absent"], &["get", "/absent", "x"], &["kv", "get", "absent"]] {
        let stderr = scratch.fails(1, arguments);
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
    scratch.password = "wrong".to_owned();
    let stderr = scratch.fails(12, ["ls"]);
    assert!(stderr.contains("wrong credentials") && !stderr.contains("correct horse"), "{stderr}");
}

/// How often the storage was asked for a blob or a part of one.
fn gets(stderr: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(stderr);
    let (_, rest) = text.split_once("Get ").unwrap_or_default();
    rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap_or_else(|_| panic!("{text}"))
}

#[test]
fn a_cache_in_a_folder_is_there_the_next_time_whoever_names_it() {
    let scratch = Scratch::with_repository();
    let content = Numbers::new(5).bytes(600_000);
    fs::write(scratch.path("large"), &content).unwrap();
    scratch.succeeds(["put", "large", "/a"]);
    let folder = scratch.path("near/cache");
    let folder = folder.to_str().unwrap();
    let by_flag = ["-v", "cat", "/a", "--cache", folder, "--cache-size", "8MiB"];
    let first = scratch.run(by_flag);
    let second = scratch.run(by_flag);
    let without = scratch.run(["-v", "cat", "/a", "--cache", "none"]);
    let uri = format!("{}?cache={folder}&cache-size={}", scratch.repository(), 8 << 20);
    let by_address = scratch.run(["-v", "-r", &uri, "cat", "/a"]);
    for output in [&first, &second, &without, &by_address] {
        assert!(output.status.success() && output.stdout == content, "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert!(gets(&first.stderr) <= gets(&without.stderr));
    assert!(gets(&second.stderr) < gets(&first.stderr), "{} of {}", gets(&second.stderr), gets(&first.stderr));
    assert_eq!(gets(&by_address.stderr), gets(&second.stderr));
    assert!(fs::metadata(format!("{folder}/blocks")).unwrap().len() <= 8 << 20);
    // Whatever is in it, what comes out is right.
    fs::write(format!("{folder}/blocks"), "letters").unwrap();
    let refused = scratch.fails(2, ["cat", "/a", "--cache", folder, "--cache-size", "8MiB"]);
    assert!(refused.contains("left alone") && refused.lines().count() == 1, "{refused}");
    fs::remove_file(format!("{folder}/blocks")).unwrap();
    assert_eq!(scratch.succeeds(["cat", "/a", "--cache", folder, "--cache-size", "8MiB"]), content);
    let in_the_way = scratch.path("large");
    let refused = scratch.run(["ls", "--cache", in_the_way.to_str().unwrap()]);
    let refused = String::from_utf8(refused.stderr).unwrap();
    assert!(refused.contains("the cache in") && refused.lines().count() == 1, "{refused}");
}

#[test]
fn the_way_to_the_storage_is_chosen_by_flags() {
    let scratch = Scratch::with_repository();
    fs::write(scratch.path("small"), [7; 3000]).unwrap();
    let small = scratch.path("small");
    let small = small.to_str().unwrap();
    scratch.succeeds(["put", small, "/a", "--limit-upload", "100MiB/s", "--limit-download", "1GiB/s"]);
    scratch.succeeds(["put", small, "/b", "--cache", "none"]);
    assert_eq!(scratch.succeeds(["cat", "/a", "--cache-size", "1MiB"]), [7; 3000]);

    for (arguments, says) in [
        (&["ls", "--cache", "none", "--cache-size", "1MiB"][..], "--cache-size"),
        (&["ls", "--limit-upload", "0/s"], "--limit-upload"),
        (&["ls", "--limit-download", "0KiB/s"], "--limit-download"),
    ] {
        let stderr = scratch.fails(2, arguments);
        assert!(stderr.contains(says) && stderr.lines().count() == 1, "{arguments:?}: {stderr}");
    }
    assert_eq!(scratch.run(["ls", "--limit-upload", "fast"]).status.code(), Some(2));

    let output = scratch.run(["-v", "cat", "/a"]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.stdout, [7; 3000]);
    assert!(stderr.contains("storage: ") && stderr.contains("requests (") && stderr.contains("Get "), "{stderr}");
    let quiet = scratch.run(["cat", "/a"]);
    assert!(!String::from_utf8(quiet.stderr).unwrap().contains("requests"));
}

#[test]
fn without_a_password_and_without_a_terminal_it_says_what_to_set() {
    let scratch = Scratch::with_repository();
    for arguments in [&["ls"][..], &["--no-input", "ls"]] {
        let output = scratch.command().env_remove("STRONGROOM_PASSWORD").args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.contains("STRONGROOM_PASSWORD_FILE") && stderr.lines().count() == 1, "{stderr}");
    }
}

#[test]
fn a_password_comes_from_file_command_descriptor_or_environment() {
    let scratch = Scratch::with_repository();
    fs::write(scratch.path("password"), format!("{PASSWORD}\nnot this line\n")).unwrap();
    let without = || {
        let mut command = scratch.command();
        command.env_remove("STRONGROOM_PASSWORD");
        command
    };
    let command = format!("printf '%s\\n' '{PASSWORD}'");
    for arguments in [
        &["--password-file", "password", "ls"][..],
        &["--password-command", &command, "ls"],
        &["--password-command", "cat password", "ls"],
    ] {
        let output = without().args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert!(without().env("STRONGROOM_PASSWORD_FILE", "password").arg("ls").status().unwrap().success());
    assert!(without().env("STRONGROOM_PASSWORD_COMMAND", &command).arg("ls").status().unwrap().success());
    let output = scratch.feeds(["--password-fd", "0", "ls"], PASSWORD.as_bytes());
    assert!(output.status.success());
    // A flag wins over the environment.
    let output = without().env("STRONGROOM_PASSWORD", "wrong").args(["--password-file", "password", "ls"]).output();
    assert!(output.unwrap().status.success());
    let conflict = without().args(["--password-file", "password", "--password-fd", "0", "ls"]).output().unwrap();
    assert_eq!(conflict.status.code(), Some(2));
}

#[test]
fn a_key_file_is_a_factor_of_its_own_or_a_second_one() {
    let scratch = Scratch::new();
    fs::write(scratch.path("key"), "some key material, long enough to be one").unwrap();
    fs::write(scratch.path("other"), "other key material").unwrap();
    scratch.succeeds(["--key-file", "key", "init", "--no-recovery", "--kdf-time", "1"]);
    scratch.succeeds(["--key-file", "key", "ls"]);
    scratch.fails(12, ["ls"]);
    scratch.fails(12, ["--key-file", "other", "ls"]);
    let alone = scratch.command().env_remove("STRONGROOM_PASSWORD").args(["--key-file", "key", "ls"]).output().unwrap();
    assert_eq!(alone.status.code(), Some(12));
}

#[test]
fn info_shows_the_clear_header_to_anyone_and_more_to_the_owner() {
    let scratch = Scratch::with_repository();
    let output = scratch.command().env_remove("STRONGROOM_PASSWORD").args(["info", "--json"]).output().unwrap();
    assert!(output.status.success());
    let clear: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(clear["schema"], "strongroom/info/1");
    assert!(clear["block_bytes"].as_u64().unwrap() >= 4096);
    assert!(clear.get("inside").is_none());
    let inside: serde_json::Value = serde_json::from_slice(&scratch.succeeds(["info", "--json"])).unwrap();
    assert_eq!(inside["repository"], clear["repository"]);
    assert!(inside["inside"]["commit"].as_u64().unwrap() > 0);
}

#[test]
fn every_json_document_says_its_schema() {
    let scratch = Scratch::new();
    fs::create_dir(scratch.path("tree")).unwrap();
    fs::write(scratch.path("tree").join(common::os(b"\xff name")), "x").unwrap();
    for arguments in [
        &["init", "--no-recovery", "--kdf-time", "1"][..],
        &["import", "tree"],
        &["ls", "-R"],
        &["tree"],
        &["find"],
        &["du"],
        &["stat", "/tree"],
        &["export", "/", "out"],
        &["check"],
        &["info"],
        &["mkdir", "/made"],
        &["mv", "/made", "/moved"],
        &["cp", "-r", "/moved", "/copied"],
        &["ln", "-s", "/moved", "/linked"],
        &["batch", "/dev/null"],
        &["rm", "-r", "/moved", "/copied", "/linked"],
        &["kv", "put", "key", "value"],
        &["kv", "scan"],
        &["kv", "del", "key"],
    ] {
        let stdout = scratch.succeeds(arguments.iter().chain(&["--json"]));
        let documents = json_lines(&stdout);
        assert!(!documents.is_empty(), "{arguments:?}");
        for document in documents {
            assert!(document["schema"].as_str().unwrap().starts_with("strongroom/"), "{document}");
        }
    }
    let entries = json_lines(&scratch.succeeds(["ls", "-R", "--json"]));
    assert_eq!(entries[1]["name_bytes"], "747265652fff206e616d65");
}

#[test]
fn import_with_init_needs_one_command_and_no_questions() {
    let scratch = Scratch::new();
    fs::create_dir(scratch.path("docs")).unwrap();
    fs::write(scratch.path("docs/page"), "page").unwrap();
    fs::write(scratch.path("README.md"), "readme").unwrap();
    scratch.succeeds(["import", "--init", "README.md", "docs"]);
    scratch.succeeds(["import", "--init", "README.md", "docs"]);
    assert_eq!(scratch.succeeds(["cat", "/README.md", "/docs/page"]), b"readmepage");
}

#[test]
fn completions_and_help_need_no_repository() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = bare_command().args(["completions", shell]).output().unwrap();
        assert!(output.status.success());
        assert!(String::from_utf8(output.stdout).unwrap().contains("import"), "{shell}");
    }
    for arguments in [&["--help"][..], &["--version"], &["import", "--help"]] {
        assert!(bare_command().args(arguments).output().unwrap().status.success());
    }
}

#[test]
fn the_flag_for_the_repository_works_before_and_after_every_command() {
    let scratch = Scratch::with_repository();
    let run = |arguments: &[&str]| {
        let status = scratch.command().env_remove("STRONGROOM_REPO").args(arguments).status().unwrap();
        assert!(status.success(), "{arguments:?}");
    };
    run(&["-r", "repo", "mkdir", "-p", "/a/b", "/c/d"]);
    run(&["ls", "-r", "repo"]);
    // `rm -r` means folders.
    run(&["-r", "repo", "rm", "-r", "/a"]);
    run(&["rm", "--repo", "repo", "-r", "/c"]);
    assert_eq!(scratch.succeeds(["ls"]), b"");
}

#[test]
fn where_no_state_can_be_kept_it_works_and_says_so() {
    let scratch = Scratch::with_repository();
    fs::write(scratch.path("not a folder"), "").unwrap();
    let output = scratch.command().env("XDG_STATE_HOME", scratch.path("not a folder")).arg("ls").output().unwrap();
    assert!(output.status.success());
    assert!(String::from_utf8(output.stderr).unwrap().contains("rollback"));
}

#[test]
fn a_reader_that_goes_away_ends_it_quietly() {
    let scratch = Scratch::with_repository();
    fs::write(scratch.path("big"), vec![7; 4 << 20]).unwrap();
    scratch.succeeds(["put", "big", "/big"]);
    let mut child = scratch
        .command()
        .args(["cat", "/big"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_recovery_key_opens_the_repository_alone_and_is_never_overwritten() {
    use std::os::unix::fs::PermissionsExt as _;
    let scratch = Scratch::new();
    let key = scratch.path("recovery");
    scratch.succeeds(["init", "--kdf-time", "1", "--new-recovery-key", key.to_str().unwrap()]);
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    let text = fs::read_to_string(&key).unwrap();
    assert!(text.starts_with("SRK1-"), "the printed form");
    let alone = |path: &std::path::Path| {
        let mut command = scratch.command();
        command.env_remove("STRONGROOM_PASSWORD").arg("--recovery-key").arg(path).arg("ls").output().unwrap()
    };
    assert_eq!(alone(&key).status.code(), Some(0));
    let slip = scratch.path("slip");
    fs::write(&slip, text.replacen(|digit: char| digit.is_ascii_digit(), "Z", 3)).unwrap();
    assert_eq!(alone(&slip).status.code(), Some(2), "a slip of the pen is told from a wrong key");

    let stderr = scratch.fails(2, ["--repo", "file:other", "init", "--new-recovery-key", key.to_str().unwrap()]);
    assert!(stderr.contains("recovery key"), "{stderr}");
    assert_eq!(fs::read_to_string(&key).unwrap(), text);
}
