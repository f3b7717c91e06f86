//! Keys: every kind of slot from its making to its end, the recovery ceremony, the header kept elsewhere.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use crate::common::acceptance::{blobs, check_is_clean, text};
use crate::common::{PASSWORD, Scratch};
use strongroom::core::format::header::{Header, KdfCost};
use strongroom::core::format::limits::HEADER_BYTES;

type Blobs = BTreeMap<PathBuf, Vec<u8>>;

/// Names and bytes of what is stored.
fn stored(scratch: &Scratch) -> Blobs {
    blobs(&scratch.path("repo")).into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

fn restore(scratch: &Scratch, state: &Blobs) {
    for path in blobs(&scratch.path("repo")) {
        fs::remove_file(path).unwrap();
    }
    state.iter().for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
}

/// The blobs of headers: their names start so.
fn headers(scratch: &Scratch) -> Vec<PathBuf> {
    let mut found = blobs(&scratch.path("repo"));
    found.retain(|path| path.file_name().unwrap().to_str().unwrap().starts_with("7374726f6e677248"));
    found
}

/// The program without the password of the environment.
fn without_password(scratch: &Scratch, arguments: &[&str]) -> Output {
    scratch.command().env_remove("STRONGROOM_PASSWORD").args(arguments).output().unwrap()
}

fn json(scratch: &Scratch, arguments: &[&str]) -> serde_json::Value {
    let output = scratch.succeeds([&["--json"], arguments].concat());
    assert_eq!(output.iter().filter(|byte| **byte == b'\n').count(), 1, "one document");
    serde_json::from_slice(&output).unwrap()
}

fn kinds(scratch: &Scratch, arguments: &[&str]) -> Vec<(u64, String, String, bool)> {
    let list = json(scratch, &[arguments, &["key", "list"]].concat());
    assert_eq!(list["schema"], "strongroom/key-list/1");
    let slots = list["slots"].as_array().unwrap().iter();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    slots
        .map(|slot| {
            assert!(text(&slot["created"]).starts_with("20"), "{slot}");
            (slot["slot"].as_u64().unwrap(), text(&slot["kind"]), text(&slot["label"]), slot["in_use"] == true)
        })
        .collect()
}

/// A repository with a slot of each kind: `second` (file `password2`), key file `key`, both (`password3`, `key3`), and the
/// recovery key `paper`.
fn with_every_kind() -> Scratch {
    let scratch = Scratch::with_repository();
    scratch.feeds(["put", "-", "/file"], b"content");
    fs::write(scratch.path("password2"), "second\n").unwrap();
    fs::write(scratch.path("password3"), "third\n").unwrap();
    scratch.succeeds(["key", "add", "--new-password-file", "password2", "--label", "laptop"]);
    scratch.succeeds(["key", "add", "--new-key-file", "key", "--label", "stick"]);
    scratch.succeeds(["key", "add", "--new-key-file", "key3", "--new-password-command", "cat password3"]);
    scratch.succeeds(["recovery", "new", "--output", "paper"]);
    scratch
}

const WAYS: [&[&str]; 4] = [
    &["--password-file", "password2"],
    &["--key-file", "key"],
    &["--key-file", "key3", "--password-file", "password3"],
    &["--recovery-key", "paper"],
];

#[test]
fn every_kind_of_slot_opens_is_listed_is_changed_and_is_removed() {
    let scratch = with_every_kind();
    for way in WAYS {
        let output = without_password(&scratch, &[way, &["cat", "/file"]].concat());
        assert_eq!(text(&output.stdout), "content", "{way:?}: {}", text(&output.stderr));
    }
    for file in ["key", "key3", "paper"] {
        assert_eq!(scratch.path(file).metadata().unwrap().permissions().mode() & 0o777, 0o600, "{file}");
    }
    assert_eq!(
        kinds(&scratch, &[]),
        [
            (0, "password".into(), String::new(), true),
            (1, "password".into(), "laptop".into(), false),
            (2, "key file".into(), "stick".into(), false),
            (3, "password and key file".into(), String::new(), false),
            (4, "recovery key".into(), "recovery".into(), false),
        ]
    );
    // Which factor of the two is wrong is not told.
    fs::write(scratch.path("other"), [7; 64]).unwrap();
    let wrong = [
        &["--password-file", "password3", "ls"][..],
        &["--password-file", "password2", "--key-file", "key3", "ls"],
        &["--password-file", "password3", "--key-file", "other", "ls"],
    ];
    let answers: Vec<String> = wrong.iter().map(|arguments| scratch.fails(12, *arguments)).collect();
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");

    // Both factors stay needed when the password changes, and the label stays.
    fs::write(scratch.path("password4"), "fourth\n").unwrap();
    scratch.succeeds([WAYS[2], &["key", "passwd", "--new-password-file", "password4", "--label", "both"]].concat());
    scratch.fails(12, [WAYS[2], &["ls"]].concat());
    scratch.fails(12, ["--password-file", "password4", "ls"]);
    scratch.succeeds(["--password-file", "password4", "--key-file", "key3", "ls"]);
    assert_eq!(kinds(&scratch, &[])[3], (3, "password and key file".into(), "both".into(), false));
    let changed =
        json(&scratch, &["--password-file", "password2", "key", "passwd", "--new-password-file", "password3"]);
    let expected = [("schema", "strongroom/key-slot/1"), ("command", "key passwd"), ("label", "laptop")];
    assert!(expected.iter().all(|(name, value)| changed[name] == *value), "{changed}");
    scratch.fails(12, ["--password-file", "password2", "ls"]);

    // The one who forgot gets in with the recovery key, and says which slot it is about.
    let stderr = scratch.fails(2, ["--recovery-key", "paper", "key", "passwd", "--new-password-file", "password2"]);
    assert!(stderr.contains("--slot"), "{stderr}");
    scratch.succeeds(["--recovery-key", "paper", "key", "passwd", "--slot", "0", "--new-password-file", "password2"]);
    scratch.fails(12, ["ls"]);
    scratch.succeeds(["--password-file", "password2", "ls"]);

    for slot in ["laptop", "2", "both", "recovery"] {
        let removed = json(&scratch, &["--password-file", "password2", "key", "rm", slot]);
        assert_eq!(removed["command"], "key rm");
    }
    scratch.fails(12, ["--password-file", "password3", "ls"]);
    for way in &WAYS[1..] {
        assert_eq!(without_password(&scratch, &[way, &["ls"][..]].concat()).status.code(), Some(12), "{way:?}");
    }
    let last = scratch.fails(2, ["--password-file", "password2", "key", "rm", "0"]);
    assert!(last.contains("last slot"), "{last}");
    let mut scratch = scratch;
    scratch.password = "second".to_owned();
    check_is_clean(&scratch, "after all changes");
    assert_eq!(headers(&scratch).len(), 2, "older headers are gone");
}

#[test]
fn a_slot_is_chosen_by_what_tells_it_apart_and_by_nothing_else() {
    let scratch = with_every_kind();
    // The variable of a script that is not set: once slot 3 is gone, one slot alone has no label.
    scratch.succeeds(["key", "rm", "3"]);
    let before = stored(&scratch);
    for arguments in [
        &["key", "rm", ""][..],
        &["key", "passwd", "--slot", "", "--new-password-command", "echo new"],
        &["key", "rm", "04"],
        &["key", "rm", "+4"],
        // It would be taken for a number.
        &["key", "add", "--label", "3", "--new-password-command", "echo new"],
        &["key", "passwd", "--label", "03", "--new-password-command", "echo new"],
        &["recovery", "new", "--label", "3", "--output", "paper2"],
    ] {
        scratch.fails(2, arguments);
    }
    assert!(stored(&scratch) == before && !scratch.path("paper2").exists());
}

#[test]
fn a_second_factor_is_not_lost_by_changing_the_password_of_another_slot() {
    let scratch = with_every_kind();
    let before = stored(&scratch);
    let change = ["key", "passwd", "--slot", "3", "--new-password-file", "password2"];
    let stderr = scratch.fails(2, change);
    assert!(stderr.contains("--with-key-file"), "{stderr}");
    // Nor the first, by a script that names a new key file alone, or nothing.
    for arguments in [&["--new-key-file", "made"][..], &[]] {
        let stderr = scratch.fails(2, [WAYS[2], &["key", "passwd"], arguments].concat());
        assert!(stderr.contains("--new-password-file"), "{stderr}");
        let output = without_password(&scratch, &[WAYS[1], &["key", "passwd"], &arguments[..0]].concat());
        assert_eq!(output.status.code(), Some(2), "nothing new is no change: {}", text(&output.stderr));
    }
    assert!(stored(&scratch) == before && !scratch.path("made").exists());
    let output = without_password(&scratch, &[WAYS[1], &["key", "passwd", "--new-key-file", "key5"]].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(kinds(&scratch, &[])[2].1, "key file");
    fs::write(scratch.path("password4"), "fourth\n").unwrap();
    scratch.succeeds(["key", "passwd", "--slot", "3", "--new-password-file", "password4", "--with-key-file", "key3"]);
    assert_eq!(kinds(&scratch, &[])[3].1, "password and key file");
    scratch.fails(12, ["--password-file", "password4", "ls"]);
    scratch.succeeds(["--password-file", "password4", "--key-file", "key3", "ls"]);
}

/// A password that a variable gives is easily forgotten.
#[test]
fn whoever_makes_a_slot_that_needs_two_factors_is_told_so() {
    const SAYS: &str = "needs the password and the key file";
    let scratch = Scratch::new();
    fs::write(scratch.path("photo"), [9; 1000]).unwrap();
    let run = |arguments: &[&str]| {
        let mut command = scratch.command();
        let output = command.env("STRONGROOM_NEW_PASSWORD", "new").args(arguments).arg("--json").output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let said: Vec<_> = text(&output.stderr).lines().filter(|line| line.contains(SAYS)).map(str::to_owned).collect();
        (report["needs"].clone(), said)
    };
    let both = serde_json::json!(["password", "key file"]);
    let copy = ["copy", "--no-recovery", "--kdf-time", "1"];
    for (arguments, what) in [
        (&["init", "--kdf-time", "1", "--new-key-file", "key"][..], Some("repo")),
        (&["--key-file", "key", "key", "add", "--new-key-file", "key1"], Some("slot 1")),
        (&["--key-file", "key", "key", "add", "--with-key-file", "photo"], Some("slot 2")),
        (&["--key-file", "key", "key", "add", "--label", "word"], None),
        (&["--key-file", "key", "key", "passwd", "--slot", "word", "--new-key-file", "key2"], Some("slot 3")),
        (&["--key-file", "key", "key", "passwd"], Some("slot 0")),
        (
            &["--password-command", "echo new", "--key-file", "key", copy[0], "both", "--new-key-file", "key4"],
            Some("both"),
        ),
        (&["--password-command", "echo new", "--key-file", "key", copy[0], "one"], None),
        (&["-r", "other", "init", "--kdf-time", "1"], None),
    ] {
        let arguments = if arguments.contains(&"copy") { [arguments, &copy[1..]].concat() } else { arguments.to_vec() };
        let (needs, said) = run(&arguments);
        match what {
            Some(what) => {
                assert_eq!((&needs, said.len()), (&both, 1), "{arguments:?}: {said:?}");
                assert!(said[0].contains(&format!("{what} {SAYS}")), "{arguments:?}: {said:?}");
            }
            None => assert_eq!((&needs, said.len()), (&serde_json::json!(["password"]), 0), "{arguments:?}: {said:?}"),
        }
    }
    // One that goes needs nothing any more.
    let gone = scratch.run(["--password-command", "echo new", "--key-file", "key", "key", "rm", "1"]);
    assert!(gone.status.success() && !text(&gone.stderr).contains(SAYS), "{}", text(&gone.stderr));
}

#[cfg(target_os = "linux")]
#[test]
fn the_files_that_open_a_repository_stay_where_its_creation_fails_after_it_is_there() {
    let scratch = Scratch::new();
    // A folder in which nobody can write: what this device has seen cannot be remembered, which comes last.
    fs::create_dir(scratch.path("nowhere")).unwrap();
    std::os::unix::fs::symlink("/proc", scratch.path("nowhere/strongroom")).unwrap();
    let output = scratch
        .command()
        .env("XDG_STATE_HOME", scratch.path("nowhere"))
        .env_remove("STRONGROOM_PASSWORD")
        .args(["init", "--kdf-time", "1", "--new-key-file", "key", "--new-recovery-key", "paper"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("is kept"), "{}", text(&output.stderr));
    for way in [["--key-file", "key"], ["--recovery-key", "paper"]] {
        let output = without_password(&scratch, &[&way[..], &["ls"]].concat());
        assert!(output.status.success(), "{way:?}: {}", text(&output.stderr));
    }
    // Where nothing was made, nothing stays.
    fs::write(scratch.path("file"), "").unwrap();
    scratch.fails(2, ["-r", "file", "init", "--kdf-time", "1", "--new-key-file", "key2", "--no-recovery"]);
    assert!(!scratch.path("key2").exists());
}

#[test]
fn removing_says_that_it_revokes_nothing() {
    let scratch = with_every_kind();
    let output = scratch.run(["key", "rm", "0"]);
    assert!(output.status.success());
    let stderr = text(&output.stderr);
    for expected in ["do not open this repository any more", "kept a copy of the old header", "export it again"] {
        assert!(stderr.contains(expected), "{stderr}");
    }
    assert!(scratch.fails(2, ["key", "rotate"]).contains("not supported yet"));
}

#[test]
fn what_fails_leaves_the_repository_and_the_files_as_they_were() {
    let scratch = with_every_kind();
    fs::write(scratch.path("short"), [1; 31]).unwrap();
    fs::write(scratch.path("empty"), "").unwrap();
    fs::write(scratch.path("large"), vec![1; (1 << 20) + 1]).unwrap();
    fs::write(scratch.path("slip"), fs::read_to_string(scratch.path("paper")).unwrap().replacen("SRK1-", "SRK1-0", 1))
        .unwrap();
    scratch.succeeds(["header", "export", "header"]);
    let long = "x".repeat(49);
    let (before, key) = (stored(&scratch), fs::read(scratch.path("key")).unwrap());
    let cases: &[(i32, &[&str], &str)] = &[
        (2, &["key", "add", "--with-key-file", "short"], "32 bytes"),
        (2, &["key", "add", "--with-key-file", "empty"], "empty"),
        (2, &["key", "add", "--with-key-file", "large"], "1MiB"),
        (2, &["key", "add", "--with-key-file", "absent"], "No such file"),
        (2, &["key", "add", "--with-key-file", "."], "directory"),
        (2, &["key", "add", "--new-key-file", "key"], "already"),
        (2, &["key", "add", "--new-key-file", "no/such/folder"], "cannot write"),
        (2, &["key", "add", "--new-password-file", "empty"], "empty"),
        (2, &["key", "add"], "--new-password-file"),
        (2, &["key", "add", "--new-password-file", "password2"], "slot 1 already"),
        (1, &["key", "add", "--new-password-command", "echo new", "--label", &long], "slot_label_bytes"),
        (1, &["key", "add", "--new-key-file", "made", "--label", &long], "slot_label_bytes"),
        (2, &["key", "passwd", "--new-password-file", "password2"], "slot 1 already"),
        (2, &["key", "passwd"], "--new-password-file"),
        (2, &["key", "passwd", "--slot", "7", "--new-password-command", "echo new"], "no slot 7"),
        (2, &["key", "rm", "7"], "no slot 7"),
        (2, &["key", "rm", "nobody"], "no slot nobody"),
        (2, &["key", "rm"], ""),
        (2, &["recovery", "new"], "--output"),
        (2, &["--json", "recovery", "new"], "--output"),
        (2, &["recovery", "new", "--output", "paper"], "already"),
        (2, &["recovery", "verify"], "--recovery-key"),
        (2, &["--recovery-key", "slip", "recovery", "verify"], "not a recovery key"),
        (2, &["--recovery-key", "key", "recovery", "verify"], "not a recovery key"),
        (2, &["header", "export", "key"], "already"),
        (2, &["header", "import", "absent"], "No such file"),
        (2, &["header", "import", "."], "directory"),
        (13, &["header", "import", "empty"], "header"),
        (13, &["header", "import", "large"], "header"),
        (12, &["--password-command", "echo wrong", "header", "import", "header"], "wrong credentials"),
        (12, &["--password-command", "echo wrong", "key", "list"], "wrong credentials"),
        (12, &["--password-command", "echo wrong", "key", "rm", "1"], "wrong credentials"),
        (12, &["--password-command", "echo wrong", "recovery", "new", "--output", "made"], "wrong credentials"),
        (12, &["--password-command", "echo wrong", "header", "export", "made"], "wrong credentials"),
        (10, &["-r", "nowhere", "key", "list"], "no repository"),
        (10, &["-r", "nowhere", "recovery", "verify"], "no repository"),
        (10, &["-r", "nowhere", "header", "import", "header"], "no repository"),
    ];
    for (code, arguments, said) in cases {
        let stderr = scratch.fails(*code, *arguments);
        assert!(stderr.contains(said), "{arguments:?}: {stderr}");
        assert!(said.is_empty() || stderr.lines().count() == 1, "{arguments:?}: {stderr}");
        for secret in [PASSWORD, "second", "third"] {
            assert!(!stderr.contains(secret), "{arguments:?}: {stderr}");
        }
        assert!(stored(&scratch) == before, "{arguments:?} changed what is stored");
        assert!(!scratch.path("made").exists() && !scratch.path("nowhere").exists(), "{arguments:?}");
    }
    assert_eq!(fs::read(scratch.path("key")).unwrap(), key);
    for arguments in
        [&["key", "list"][..], &["header", "export", "again"], &["--recovery-key", "paper", "recovery", "verify"]]
    {
        scratch.succeeds(arguments);
        assert!(stored(&scratch) == before, "{arguments:?} only looks");
    }
    assert_eq!(fs::read(scratch.path("again")).unwrap(), fs::read(scratch.path("header")).unwrap());
}

#[test]
fn a_repository_is_created_with_each_kind_of_credentials() {
    let init = |arguments: &[&str]| {
        let scratch = Scratch::new();
        fs::write(scratch.path("photo"), [9; 1000]).unwrap();
        let arguments = [&["init", "--kdf-time", "1"], arguments].concat();
        let output = scratch.command().env_remove("STRONGROOM_PASSWORD").args(&arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        (scratch, text(&output.stderr))
    };
    let (scratch, said) = init(&["--no-recovery", "--key-file", "photo"]);
    assert!(said.contains("loses the data"), "{said}");
    assert!(without_password(&scratch, &["--key-file", "photo", "ls"]).status.success());
    let (scratch, _) = init(&["--new-key-file", "made", "--password-command", "echo p", "--new-recovery-key", "paper"]);
    for (way, code) in [
        (&["--key-file", "made", "--password-command", "echo p"][..], 0),
        (&["--recovery-key", "paper"], 0),
        (&["--key-file", "made"], 12),
        (&["--password-command", "echo p"], 12),
    ] {
        let output = without_password(&scratch, &[way, &["ls"][..]].concat());
        assert_eq!(output.status.code(), Some(code), "{way:?}: {}", text(&output.stderr));
    }

    // What cannot be is told before anything is made.
    let scratch = Scratch::new();
    fs::write(scratch.path("short"), [9; 31]).unwrap();
    fs::write(scratch.path("there"), "kept").unwrap();
    for arguments in [
        &["--key-file", "short"][..],
        &["--new-key-file", "there"],
        &["--new-recovery-key", "there"],
        &["--recovery-key", "there"],
    ] {
        scratch.fails(2, [&["init"], arguments].concat());
        assert!(scratch.path("repo").metadata().is_err() || headers(&scratch).is_empty(), "{arguments:?}");
    }
    scratch.fails(2, ["init", "--block-size", "5000", "--new-key-file", "made", "--new-recovery-key", "paper"]);
    assert!(!scratch.path("made").exists() && !scratch.path("paper").exists(), "they open nothing");
    assert_eq!(fs::read(scratch.path("there")).unwrap(), b"kept");
}

/// Runs the program on a terminal of its own, with what is typed there.
#[cfg(target_os = "linux")]
fn on_a_terminal(scratch: &Scratch, arguments: &str, typed: &str) -> (i32, String) {
    use std::io::Write as _;
    let program = env!("CARGO_BIN_EXE_strongroom");
    let mut command = Command::new("script");
    let own = scratch.command();
    own.get_envs().for_each(|(name, value)| match value {
        Some(value) => drop(command.env(name, value)),
        None => drop(command.env_remove(name)),
    });
    let mut child = command
        .current_dir(scratch.root.path())
        .args(["-q", "-e", "-c", &format!("{program} {arguments}"), "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("`script`, of every Linux");
    child.stdin.take().unwrap().write_all(typed.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    (output.status.code().unwrap(), text(&output.stdout))
}

#[cfg(target_os = "linux")]
fn recovery_key_in(shown: &str) -> String {
    let found: Vec<&str> = shown.lines().map(str::trim).filter(|line| line.starts_with("SRK1-")).collect();
    assert_eq!(found.len(), 1, "shown once: {shown}");
    found[0].to_owned()
}

#[cfg(target_os = "linux")]
#[test]
fn on_a_terminal_the_recovery_key_is_shown_once_and_verified_from_paper() {
    let scratch = Scratch::new();
    let (code, shown) = on_a_terminal(&scratch, "init --kdf-time 1", "y\n");
    assert_eq!(code, 0, "{shown}");
    let first = recovery_key_in(&shown);
    let (code, shown) = on_a_terminal(&scratch, "recovery verify", &format!("{}\n", first.to_lowercase()));
    assert!(code == 0 && shown.contains("opens"), "{shown}");

    // A slip is another thing than a wrong key.
    let slip = first.replace("SRK1-", "SRK1-0");
    let (code, shown) = on_a_terminal(&scratch, "recovery verify", &format!("{slip}\n"));
    assert!(code == 2 && shown.contains("not a recovery key"), "{shown}");
    let (code, shown) = on_a_terminal(&scratch, "recovery new", "");
    assert_eq!(code, 0, "{shown}");
    let second = recovery_key_in(&shown);
    let (code, shown) = on_a_terminal(&scratch, "recovery verify", &format!("{first}\n"));
    assert!(code == 12 && shown.contains("wrong credentials"), "{shown}");
    assert_eq!(on_a_terminal(&scratch, "recovery verify", &format!("{second}\n")).0, 0);
    assert_eq!(kinds(&scratch, &[]).len(), 2, "replaced, not added");

    let (code, shown) = on_a_terminal(&scratch, "key passwd", "changed\nchanged\n");
    assert_eq!(code, 0, "{shown}");
    scratch.fails(12, ["ls"]);
    let scratch = Scratch { password: "changed".to_owned(), ..scratch };
    let before = stored(&scratch);
    let (code, shown) = on_a_terminal(&scratch, "key add", "one\nother\n");
    assert!(code == 2 && shown.contains("differ"), "{shown}");
    assert!(stored(&scratch) == before);
}

#[cfg(target_os = "linux")]
#[test]
fn whoever_wants_no_recovery_key_gets_none() {
    for (arguments, typed) in [("init --kdf-time 1", "n\n"), ("init --kdf-time 1 --no-input", "")] {
        let scratch = Scratch::new();
        let (code, shown) = on_a_terminal(&scratch, arguments, typed);
        assert!(code == 0 && !shown.contains("SRK1"), "{shown}");
        assert!(shown.contains("loses the data"), "{shown}");
        assert_eq!(kinds(&scratch, &[]).len(), 1);
    }
}

#[test]
fn a_header_comes_back_from_its_export_and_an_older_one_does_not() {
    let scratch = with_every_kind();
    scratch.succeeds(["header", "export", "older"]);
    scratch.succeeds(["key", "rm", "stick"]);
    let export = json(&scratch, &["header", "export", "newest"]);
    assert_eq!((&export["schema"], &export["bytes"]), (&"strongroom/header-export/1".into(), &4096.into()));
    assert_eq!(scratch.path("newest").metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let whole = stored(&scratch);
    let [first, second]: [PathBuf; 2] = headers(&scratch).try_into().unwrap();
    let damage = |path: &PathBuf| {
        let mut bytes = fs::read(path).unwrap();
        bytes[300] ^= 1;
        fs::write(path, bytes).unwrap();
    };
    let remove = |path: &PathBuf| fs::remove_file(path).unwrap();
    type Change<'a> = &'a dyn Fn(&PathBuf);
    let changes: [(Option<Change<'_>>, Option<Change<'_>>, u64, i32); 6] = [
        (None, None, 0, 0),
        (Some(&damage), None, 1, 0),
        (None, Some(&remove), 1, 0),
        (Some(&remove), Some(&damage), 2, 13),
        (Some(&damage), Some(&damage), 2, 13),
        (Some(&remove), Some(&remove), 2, 13),
    ];
    for (number, (one, other, repaired, opens)) in changes.into_iter().enumerate() {
        one.iter().for_each(|change| change(&first));
        other.iter().for_each(|change| change(&second));
        let kept = stored(&scratch);
        let stderr = scratch.fails(13, ["header", "import", "older"]);
        assert!(stderr.contains("rolled back") && !stderr.contains("--accept-rollback"), "{stderr}");
        // The slot that was removed is not revived by the header that still has it.
        assert_eq!(
            without_password(&scratch, &["--key-file", "key", "header", "import", "older"]).status.code(),
            Some(13)
        );
        assert!(stored(&scratch) == kept, "case {number}");
        assert_eq!(scratch.run(["ls"]).status.code(), Some(opens), "case {number}");
        restore(&scratch, &kept);
        let import = json(&scratch, &["--recovery-key", "paper", "header", "import", "newest"]);
        assert_eq!((&import["schema"], &import["repaired"]), (&"strongroom/header-import/1".into(), &repaired.into()));
        assert!(stored(&scratch) == whole, "case {number}");
        check_is_clean(&scratch, &format!("case {number}"));
    }
    // A copy of a header's blob does as well as an export; one of another repository does not.
    fs::copy(&first, scratch.path("blob")).unwrap();
    remove(&first);
    scratch.succeeds(["header", "import", "blob"]);
    let other = Scratch::with_repository();
    other.succeeds(["header", "export", "header"]);
    let foreign = other.path("header");
    let stderr = scratch.fails(2, ["header", "import", foreign.to_str().unwrap()]);
    assert!(stderr.contains("another repository"), "{stderr}");
    assert!(stored(&scratch) == whole);
}

#[test]
fn a_header_that_asks_for_too_much_memory_is_refused_before_it_gets_any() {
    let scratch = Scratch::with_repository();
    for path in headers(&scratch) {
        let mut blob = fs::read(&path).unwrap();
        let (mut header, mac) = Header::decode(&blob[..HEADER_BYTES]).unwrap();
        header.kdf = KdfCost { memory_kib: u32::MAX, ..header.kdf };
        blob[..HEADER_BYTES].copy_from_slice(&Header::complete(header.encode(), &mac));
        fs::write(path, blob).unwrap();
    }
    for arguments in [&["key", "list"][..], &["ls"], &["info"]] {
        let stderr = scratch.fails(13, arguments);
        assert!(stderr.contains("memory_kib"), "{stderr}");
    }
}

#[test]
fn processes_that_change_slots_at_once_lose_no_change() {
    let scratch = Scratch::with_repository();
    let spawn = |arguments: &[&str]| {
        let mut command = scratch.command();
        command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let labels = ["one", "two", "three", "four", "five"];
    let children: Vec<_> = labels
        .iter()
        .map(|label| spawn(&["key", "add", "--new-password-command", &format!("echo {label}"), "--label", label]))
        .collect();
    let mut added = Vec::new();
    for (child, label) in children.into_iter().zip(labels) {
        let output = child.wait_with_output().unwrap();
        match output.status.code() {
            Some(0) => added.push(label),
            Some(11) => {}
            code => panic!("{code:?}: {}", text(&output.stderr)),
        }
    }
    assert!(!added.is_empty());
    let mut listed: Vec<String> = kinds(&scratch, &[]).into_iter().skip(1).map(|(_, _, label, _)| label).collect();
    listed.sort();
    added.sort_unstable();
    assert_eq!(listed, added);
    for label in labels {
        let opens = scratch.run(["--password-command", &format!("echo {label}"), "ls"]).status.success();
        assert_eq!(opens, added.contains(&label), "{label}");
    }

    // Of several who change one password, one wins; the others are told, and have changed nothing.
    let children: Vec<_> = (0..3)
        .map(|number| spawn(&["key", "passwd", "--new-password-command", &format!("echo new-{number}")]))
        .collect();
    let codes: Vec<i32> =
        children.into_iter().map(|child| child.wait_with_output().unwrap().status.code().unwrap()).collect();
    let won: Vec<usize> = (0..3).filter(|number| codes[*number] == 0).collect();
    assert_eq!(won.len(), 1, "{codes:?}");
    // Who came so late that the old password was gone already has the wrong one.
    assert!(codes.iter().all(|code| [0, 11, 12, 13].contains(code)), "{codes:?}");
    for number in 0..3 {
        let opens = scratch.run(["--password-command", &format!("echo new-{number}"), "ls"]).status.success();
        assert_eq!(opens, won.contains(&number));
    }
    let scratch = Scratch { password: format!("new-{}", won[0]), ..scratch };
    check_is_clean(&scratch, "after all of them");
    assert_eq!(headers(&scratch).len(), 2);
}
