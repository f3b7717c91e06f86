//! What a person writes on the command line, and it makes no sense.

use std::fs;

use super::{contents, prepare, reads_well};
use crate::common::acceptance::text;
use crate::common::{bare_command, os};

#[test]
fn addresses_that_make_no_sense_are_usage_errors() {
    let scratch = prepare();
    let repository = scratch.restore();
    let before = contents(&repository);
    let (long, deep) = ("n".repeat(300), "n/".repeat(4_000));
    let too_long = "n".repeat(17 << 10);
    for (address, code, says) in [
        ("nowhere://x", 2, "unknown scheme"),
        ("s3://bucket/prefix", 2, "available"),
        ("faulty+mem://x", 2, "`faulty`"),
        ("s3://user:hunter2@bucket/x", 2, "secrets do not belong in a URI"),
        ("s3://bucket/x?secret_key=hunter2", 2, "secrets do not belong in a URI"),
        ("file:repo?token=hunter2", 2, "secrets do not belong in a URI"),
        ("file:repo?speed=1", 2, "takes no parameters"),
        ("file:%zz", 2, "hexadecimal"),
        ("file:%", 2, "hexadecimal"),
        ("file:a%00b", 2, "zero byte"),
        ("file:repo#part", 2, "%23"),
        ("file://host/repo", 2, "another machine"),
        ("file:", 2, "empty"),
        ("file:/dev/null", 2, "it is no folder: name the folder of a repository"),
        ("mem:", 2, "mem:"),
        ("mem://absent", 10, "no repository here"),
        (":::", 10, "no repository here"),
        ("../../../../../../../../../../no/such/../folder", 10, "no repository here"),
        ("repo/../../absent", 10, "no repository here"),
        ("", 2, "no repository named"),
        (&long, 2, "name too long"),
        (&deep, 2, "name too long"),
        (&too_long, 2, "16 KiB"),
    ] {
        for command in [&["ls"][..], &["init", "--no-recovery", "--kdf-time", "1"], &["put", "local", "/x"]] {
            if command[0] == "init" && code == 10 {
                continue; // a good place for a new one
            }
            if address.starts_with("faulty+") && cfg!(feature = "faulty") {
                continue; // not off
            }
            let what = format!("{command:?} at {:.40}", address);
            let mut line = vec!["--repo", address];
            line.extend(command);
            let said = reads_well(&scratch.runs(&line), code, &what);
            assert!(said.to_lowercase().contains(&says.to_lowercase()), "{what}: {said}");
        }
    }
    // Bytes that are no text are a name like any other.
    let output = scratch.command().arg("--repo").arg(os(b"\xff\xfe")).arg("ls").output().unwrap();
    assert!(reads_well(&output, 10, "a name that is no text").contains("no repository here"));
    for place in ["/proc/self/no/such", "/dev/null/x"] {
        let said = reads_well(
            &scratch.runs(&["-r", place, "init", "--no-recovery"]),
            if place.starts_with("/dev") { 2 } else { 1 },
            place,
        );
        assert!(said.contains(place), "{said}");
    }
    for address in ["nowhere://x", "absent", "s3://user:hunter2@bucket/x", "local"] {
        let output = scratch.runs(&["conformance", address]);
        let code = output.status.code().unwrap();
        assert!(matches!(code, 1 | 2 | 10), "{address}: {code}");
        reads_well(&output, code, address);
    }
    assert!(contents(&repository) == before && !scratch.path("host").exists());
}

#[test]
fn sizes_rates_numbers_and_flags_that_make_no_sense_are_usage_errors_of_one_line() {
    let scratch = prepare();
    let (repository, name) = (scratch.restore(), "n".repeat(300));
    let before = contents(&repository);
    let new =
        |size: &'static str| vec!["-r", "absent", "init", "--no-recovery", "--kdf-time", "1", "--block-size", size];
    let mut lines: Vec<(Vec<&str>, &str)> = [
        ("5000", "of two"),
        ("0", "of two"),
        ("1KiB", "of two"),
        ("8MiB", "of two"),
        ("5GiB", "4MiB"),
        ("64XiB", "64KiB"),
        ("-1", "'-1'"),
        ("99999999999999999999", "64KiB"),
        ("16EiB", "64KiB"),
        ("", "--block-size"),
        ("1e3", "64KiB"),
    ]
    .map(|(size, says)| (new(size), says))
    .to_vec();
    lines.extend([
        (vec!["no-such-command"], "strongroom --help"),
        (vec!["lss"], "strongroom --help"),
        (vec!["ls", "--no-such"], "strongroom ls --help"),
        (vec!["-q", "-v", "ls"], "cannot be used with"),
        (vec!["-q"], "strongroom --help"),
        (vec!["kv"], "strongroom kv --help"),
        (vec!["key"], "strongroom key --help"),
        (vec!["key", "no-such"], "strongroom key --help"),
        (vec!["cat"], "strongroom cat --help"),
        (vec!["export", "/"], "strongroom export --help"),
        (vec!["export", "/", "--partial"], "strongroom export --help"),
        (vec!["cp", "/tree"], "strongroom cp --help"),
        (vec!["mv", "/tree", "-v"], "strongroom mv --help"),
        (vec!["ls", "--cache-size", "much"], "64KiB"),
        (vec!["ls", "--limit-upload", "10"], "10MiB/s"),
        (vec!["ls", "--limit-upload", "0/s"], "--limit-upload"),
        (vec!["ls", "--limit-download", "-5KiB/s"], "'-5'"),
        (vec!["ls", "--password-fd", "-1"], "'-1'"),
        (vec!["ls", "--password-fd", "99999999999"], "--password-fd"),
        (vec!["ls", "--password-fd", "x"], "--password-fd"),
        (vec!["-r", "absent", "init", "--kdf-time", "soon"], "90s"),
        (vec!["-r", "absent", "init", "--kdf-time", "-3"], "'-3'"),
        (vec!["-r", "absent", "init", "--cipher", "rot13"], "aes-256-gcm"),
        (vec!["-r", "absent", "init", "--dedup", "maybe"], "on, off"),
        (vec!["-r", "absent", "init", "--versions", "1001"], "at most 1000"),
        (vec!["-r", "absent", "init", "--versions", "-1"], "'-1'"),
        (vec!["history", "/tree/small", "--keep", "some"], "default"),
        (vec!["restore", "/tree/small"], "--version"),
        (vec!["restore", "/tree/small", "--version", "first"], "first"),
        (vec!["kv", "scan", "--limit", "few"], "--limit"),
        (vec!["completions", "tcsh"], "bash"),
        (vec!["rm", "--at", "yesterday", "/tree"], "--at"),
        (vec!["check", "--sample", "0"], "--sample"),
        (vec!["check", "--sample", "101"], "--sample"),
        (vec!["check", "--sample", "5", "--data"], "--sample"),
        (vec!["check", "--sample", "5", "--repair"], "--sample"),
        (vec!["import", "tree", "--exclude", "a["], "a["),
        (vec!["import", "tree", "--exclude-file", "absent"], "absent"),
        (vec!["import", "tree", "tree/../tree"], "both arrive"),
        (vec!["key", "rm", "no such slot"], "key list"),
        (vec!["key", "rm", "99"], "key list"),
        (vec!["recovery", "new"], "--output"),
        (vec!["snapshot", "create", &name], "300 bytes long"),
    ]);
    for (line, says) in lines {
        let said = reads_well(&scratch.runs(&line), 2, &format!("{line:?}"));
        assert!(said.contains(says), "{line:?}: {said}");
    }
    let label = ["key", "add", "--new-password-file", "third password", "--label", &name];
    reads_well(&scratch.runs(&label), 1, "a label that is too long");
    let output = scratch.command().args([os(b"--no\xff"), os(b"ls")]).output().unwrap();
    reads_well(&output, 2, "a flag that is no text");
    assert!(contents(&repository) == before && !scratch.path("absent").exists());

    // Help and version stay as they are.
    for (line, code) in [(&["--help"][..], 0), (&["ls", "--help"], 0), (&["--version"], 0), (&[], 2)] {
        let output = bare_command().args(line).output().unwrap();
        assert_eq!(output.status.code(), Some(code));
        let said = text(&output.stdout) + &text(&output.stderr);
        assert!(!said.starts_with("strongroom: ") && (said.contains("Usage:") || line == ["--version"]), "{said}");
    }
}

#[test]
fn passwords_and_key_files_that_cannot_be_read_are_usage_errors() {
    let scratch = prepare();
    let repository = scratch.restore();
    let before = contents(&repository);
    fs::write(scratch.path("empty"), "").unwrap();
    fs::write(scratch.path("first line empty"), "\nhunter2\n").unwrap();
    fs::write(scratch.path("endless"), vec![b'x'; 2 << 20]).unwrap();
    fs::write(scratch.path("no recovery key"), "hunter2").unwrap();
    fs::write(scratch.path("no text"), b"\xff\xfe").unwrap();
    for (flag, value, says) in [
        ("--password-file", "absent", "absent"),
        ("--password-file", "empty", "empty"),
        ("--password-file", "first line empty", "empty"),
        ("--password-file", "tree", "tree"),
        ("--password-file", "endless", "64KiB"),
        ("--password-file", "/dev/null", "/dev/null"),
        ("--password-fd", "77", "descriptor 77"),
        ("--password-fd", "0", "empty"),
        ("--password-command", "exit 3", "password command"),
        ("--password-command", "echo hunter2; exit 3", "password command"),
        ("--password-command", "true", "empty"),
        ("--password-command", "kill -9 $$", "password command"),
        ("--key-file", "absent", "absent"),
        ("--key-file", "empty", "empty"),
        ("--key-file", "tree", "tree"),
        ("--key-file", "endless", "1MiB"),
        ("--recovery-key", "absent", "absent"),
        ("--recovery-key", "empty", "empty"),
        ("--recovery-key", "tree", "tree"),
        ("--recovery-key", "no recovery key", "recovery key"),
        ("--recovery-key", "no text", "recovery key"),
    ] {
        for command in [&["ls"][..], &["put", "local", "/new"]] {
            let line = [&[flag, value], command].concat();
            let said = reads_well(&scratch.runs(&line), 2, &format!("{line:?}"));
            assert!(said.contains(says), "{line:?}: {said}");
        }
    }
    for (variable, says) in [
        ("STRONGROOM_PASSWORD_FILE", "absent"),
        ("STRONGROOM_KEY_FILE", "absent"),
        ("STRONGROOM_PASSWORD_COMMAND", "password command"),
    ] {
        let mut command = scratch.command();
        // Its own complaint about a command that is not there would be a second line.
        command.env_remove("STRONGROOM_PASSWORD").env(variable, if says == "absent" { "absent" } else { "exit 1" });
        assert!(reads_well(&command.arg("ls").output().unwrap(), 2, variable).contains(says));
    }
    for (line, says) in [
        (&["key", "add", "--new-password-file", "empty"][..], "empty"),
        (&["key", "add", "--new-password-file", "absent"], "absent"),
        (&["key", "add", "--new-key-file", "local"], "kept"),
        (&["key", "passwd", "--new-password-file", "new password", "--with-key-file", "tree"], "tree"),
        (&["recovery", "new", "--output", "local"], "kept"),
        (&["recovery", "new", "--output", "no/such/folder"], "no/such/folder"),
        (&["header", "export", "local"], "kept"),
        (&["header", "import", "absent"], "absent"),
        (&["header", "import", "tree"], "tree"),
    ] {
        let said = reads_well(&scratch.runs(line), 2, &format!("{line:?}"));
        assert!(said.contains(says), "{line:?}: {said}");
    }
    for content in ["empty", "local", "endless", "new password"] {
        let said = reads_well(&scratch.runs(&["header", "import", content]), 13, content);
        assert!(said.contains(content), "{said}");
    }
    assert_eq!(fs::read(scratch.path("local")).unwrap(), b"local");
    assert!(contents(&repository) == before);
}
