//! What can go wrong with a storage, in one table: on every scheme, through the program. Each ends with its exit code and one line, which
//! names the place and what to do, and gives no secret away, with `-v` neither.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use strongroom::storage::{Effect, ErrorKind, OpenContext, OpenMode, StorageUri};
use strongroom_conformance::storage::{sample_bytes, sample_name};

use crate::common::acceptance::{check_is_clean, did_not_panic, text};
use crate::common::{DATABASES, Numbers, PASSWORD, Scratch, mounts};
use crate::{Holding, init, on};

const LOOKS: &[&str] = &["ls"];
const CHANGES: &[&str] = &["mkdir", "/new"];
const CREATES: &[&str] = &["init", "--no-recovery", "--kdf-time", "1"];

/// What no line may show.
const PLANTED: &str = "planted-secret";
const SESSION: &str = "planted-session-token";

const FULL: &[&str] = &["storage is full", "free some space there"];
const DENIED: &[&str] = &["permission denied", "check who may read and write there"];
const READ_ONLY: &[&str] = &["storage is read-only", "make it writable, or only read from it"];
const NO_SECRETS: &[&str] = &["secrets do not belong in a URI", "pass them in the environment"];

/// The storages of this machine.
fn schemes() -> impl Iterator<Item = &'static str> {
    ["file"].into_iter().chain(DATABASES)
}

/// How the program is called.
struct Call<'s> {
    scratch: &'s Scratch,
    address: String,
    password: &'s str,
    environment: Vec<(&'static str, String)>,
    /// What runs it.
    runner: Option<&'s dyn Fn(&Path) -> Command>,
}

impl<'s> Call<'s> {
    fn new(scratch: &'s Scratch) -> Self {
        let environment = Vec::new();
        Self { scratch, address: scratch.repository(), password: &scratch.password, environment, runner: None }
    }

    fn at(scratch: &'s Scratch, address: impl Into<String>) -> Self {
        Self { address: address.into(), ..Self::new(scratch) }
    }

    /// As a program that obeys the permissions of files.
    fn humble(scratch: &'s Scratch, address: impl Into<String>) -> Self {
        Self { runner: Some(&mounts::humble), ..Self::at(scratch, address) }
    }

    fn run(&self, arguments: &[&str]) -> std::process::Output {
        let mut command = match self.runner {
            Some(run) => run(Path::new(env!("CARGO_BIN_EXE_strongroom"))),
            None => self.scratch.command(),
        };
        command
            .current_dir(self.scratch.root.path())
            .stdin(std::process::Stdio::null())
            .env("XDG_STATE_HOME", self.scratch.path("state"))
            .env("STRONGROOM_REPO", &self.address)
            .env("STRONGROOM_PASSWORD", self.password)
            .env("AWS_SESSION_TOKEN", SESSION)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .args(arguments)
            .output()
            .unwrap()
    }

    /// It ends so, and says this; with `-v` too.
    #[track_caller]
    fn refused(&self, arguments: &[&str], code: i32, says: &[&str]) -> String {
        let loud = self.run(&[&["-v"], arguments].concat());
        self.is_quiet_about_secrets(arguments, &loud);
        assert_eq!(loud.status.code(), Some(code), "-v {arguments:?} at {}: {}", self.address, text(&loud.stderr));
        self.refused_once(arguments, code, says)
    }

    /// The same, for what takes long.
    #[track_caller]
    fn refused_once(&self, arguments: &[&str], code: i32, says: &[&str]) -> String {
        let output = self.run(arguments);
        let said = text(&output.stderr);
        let what = format!("{arguments:?} at {}: {said}", self.address);
        self.is_quiet_about_secrets(arguments, &output);
        did_not_panic(&output, &what);
        assert_eq!(output.status.code(), Some(code), "{what}");
        assert_eq!(said.lines().count(), 1, "{what}");
        assert!(said.starts_with("strongroom: ") && said.len() < 700, "{what}");
        for part in says {
            assert!(said.contains(part), "{part}: {what}");
        }
        said
    }

    /// Refused, and it is told where: by its address, but for parameters.
    #[track_caller]
    fn refused_there(&self, arguments: &[&str], code: i32, says: &[&str]) {
        let said = self.refused(arguments, code, says);
        assert!(said.contains(self.place()), "{} is not named: {said}", self.place());
    }

    /// Where it is, as it is called in messages.
    fn place(&self) -> &str {
        let address = self.address.split_once('?').map_or(&*self.address, |(address, _)| address);
        // A path is shown from the root on, with two slashes or three.
        address.split_once(':').map_or(address, |(_, path)| path)
    }

    #[track_caller]
    fn is_quiet_about_secrets(&self, arguments: &[&str], output: &std::process::Output) {
        let said = text(&output.stdout) + &text(&output.stderr);
        let given = [PASSWORD, PLANTED, SESSION, self.password].into_iter();
        let keys = [strongroom_s3_server::ACCESS_KEY, strongroom_s3_server::SECRET_KEY];
        for secret in given.chain(keys).chain(self.environment.iter().map(|(_, value)| &**value)) {
            assert!(!said.contains(secret), "{secret} is given away by {arguments:?} at {}: {said}", self.address);
        }
    }

    #[track_caller]
    fn succeeds(&self, arguments: &[&str]) {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?} at {}: {}", self.address, text(&output.stderr));
    }
}

#[test]
fn an_address_that_makes_no_sense_is_told_with_what_makes_sense_instead() {
    let scratch = Scratch::new();
    let mut schemes: Vec<_> =
        schemes().map(|scheme| (scheme, format!("{scheme}:place"), "takes no parameters")).collect();
    if cfg!(feature = "s3") {
        schemes.push(("s3", "s3://bucket/place".to_owned(), "it has region, endpoint, profile"));
    }
    let refused = |address: String, says: &[&str]| {
        for command in [LOOKS, CHANGES, CREATES, &["conformance", &address]] {
            Call::at(&scratch, &address).refused(command, 2, says);
        }
    };
    for (scheme, place, instead) in schemes {
        refused(format!("{place}?speed=1"), &["`speed`", instead]);
        for secret in ["token", "secret-access-key", "password"] {
            refused(format!("{place}?{secret}={PLANTED}"), NO_SECRETS);
        }
        refused(format!("{scheme}://user:{PLANTED}@host/place"), NO_SECRETS);
        refused(format!("{scheme}:%{PLANTED}"), &["two hexadecimal digits", "%25"]);
    }
    refused("nowhere://place".to_owned(), &["`nowhere:`", "unknown scheme; available: ", "file, "]);
    refused(format!("nowhere://user:{PLANTED}@place"), NO_SECRETS);
    for (scheme, is_on) in [("sled", cfg!(feature = "sled")), ("s3", cfg!(feature = "s3"))] {
        if !is_on {
            refused(format!("{scheme}://place"), &["turn on the feature", &format!("`{scheme}`")]);
        }
    }
    // Of what was made there is nothing but what this device remembers.
    assert!(fs::read_dir(scratch.root.path()).unwrap().all(|entry| entry.unwrap().file_name() == "state"));
}

#[test]
fn wrong_credentials_are_told_and_not_shown() {
    for scheme in schemes() {
        let scratch = Scratch::with_repository_on(scheme);
        let call = Call { password: PLANTED, ..Call::new(&scratch) };
        for command in [LOOKS, CHANGES, &["check"], &["destroy", "--yes"]] {
            call.refused_there(command, 12, &["wrong credentials", "key file is missing"]);
        }
        check_is_clean(&scratch, scheme);
    }
}

#[test]
fn where_nothing_is_it_is_told_how_something_comes_there() {
    for scheme in schemes() {
        let scratch = on(scheme);
        let call = Call::new(&scratch);
        for command in [LOOKS, CHANGES] {
            call.refused_there(command, 10, &["no repository here", "create one with `init`", "check the address"]);
        }
        // Whole ways are made only where a folder is to be.
        let deep = format!("{scheme}:{}", scratch.path("no/such/place").display());
        if matches!(scheme, "sqlite" | "redb") {
            Call::at(&scratch, deep).refused_there(CREATES, 1, &["its folder is not there", "create that first"]);
        } else {
            Call::at(&scratch, deep).succeeds(CREATES);
        }
        init(&scratch);
        call.refused_there(CREATES, 1, &["a repository is here already", "open it, or choose another place"]);
    }
}

fn set_modes(paths: &[impl AsRef<Path>], mode: u32) {
    for path in paths {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
}

#[test]
fn who_may_not_read_or_write_there_is_told_to_look_at_the_permissions() {
    for scheme in schemes() {
        let scratch = Scratch::new();
        let folder = scratch.path("folder");
        fs::create_dir(&folder).unwrap();
        let address = |name: &str| format!("{scheme}:{}", folder.join(name).display());
        let (here, new) = (address("repo"), address("another"));
        Call::at(&scratch, &here).succeeds(CREATES);
        let call = Call::humble(&scratch, &here);

        set_modes(&[&folder], 0o000);
        for command in [LOOKS, CHANGES, CREATES, &["check"]] {
            call.refused_there(command, 1, DENIED);
        }
        set_modes(&[&folder], 0o755);

        let all = crate::common::list(&folder);
        let repository = &all[1..];
        set_modes(&[folder.join("repo")], 0o000);
        for command in [LOOKS, CHANGES, CREATES] {
            call.refused_there(command, 1, DENIED);
        }
        set_modes(&[folder.join("repo")], 0o755);

        set_modes(repository, 0o555);
        set_modes(&[&folder], 0o555);
        // sled writes to what it opens.
        if scheme == "sled" {
            call.refused_there(LOOKS, 1, DENIED);
        } else {
            call.succeeds(LOOKS);
        }
        let says = if matches!(scheme, "sqlite" | "redb") { READ_ONLY } else { DENIED };
        call.refused_there(CHANGES, 1, says);
        Call::humble(&scratch, &new).refused_there(CREATES, 1, DENIED);
        set_modes(&all, 0o755);
        Call::at(&scratch, &here).succeeds(&["check", "--data"]);
    }
}

const HELD: &[&str] = &["held by another process", "try again when it has ended"];

#[test]
fn a_database_for_one_process_is_told_to_be_held_by_another() {
    for scheme in DATABASES.into_iter().filter(|scheme| *scheme != "sqlite") {
        let scratch = Scratch::with_repository_on(scheme);
        fs::write(scratch.path("held"), Numbers::new(1).bytes(4 << 20)).unwrap();
        scratch.succeeds(["import", "held"]);
        let holding = Holding::new(&scratch);
        let call = Call::new(&scratch);
        // Each waits a second.
        for said in [LOOKS, CHANGES, CREATES].map(|command| call.refused_once(command, 11, HELD)) {
            assert!(said.contains(call.place()), "{said}");
        }
        holding.let_go();
        call.succeeds(CHANGES);
        check_is_clean(&scratch, scheme);
    }
}

/// It takes ten seconds, for so long is waited for the other one.
#[test]
fn a_database_that_another_program_writes_to_is_told_to_be_held() {
    let scratch = Scratch::with_repository_on("sqlite");
    let call = Call::new(&scratch);
    let writer = rusqlite::Connection::open(scratch.path("repo")).unwrap();
    writer.execute_batch("BEGIN IMMEDIATE").unwrap();
    call.succeeds(LOOKS);
    let said = call.refused_once(CHANGES, 11, HELD);
    assert!(said.contains(call.place()), "{said}");
    drop(writer);
    call.succeeds(CHANGES);
    check_is_clean(&scratch, "after a writer");
}

#[test]
fn a_full_disk_is_told_and_nothing_is_lost() {
    if !mounts::inside("refusals::a_full_disk_is_told_and_nothing_is_lost") {
        return;
    }
    for scheme in schemes() {
        let scratch = Scratch::new();
        let disk = scratch.path(format!("disk of {scheme}"));
        mounts::small_disk(&disk, 16 << 10);
        let address = |name: &str| format!("{scheme}:{}", disk.join(name).display()).replace(' ', "%20");
        let call = Call::at(&scratch, address("repo"));
        call.succeeds(CREATES);
        fs::write(scratch.path("large"), Numbers::new(2).bytes(20 << 20)).unwrap();
        fs::write(scratch.path("kept"), "Dear Anna").unwrap();
        call.succeeds(&["put", "kept", "/kept"]);
        let said = call.refused_once(&["put", "large", "/large"], 1, FULL);
        assert!(said.contains(call.place()), "{said}");

        let filler = mounts::fill(&disk);
        Call::at(&scratch, address("another")).refused_there(CREATES, 1, FULL);
        // redb has room in its file, which that made longer before it failed.
        let change = if scheme == "redb" { &["put", "large", "/large"] } else { CHANGES };
        call.refused_there(change, 1, FULL);
        // SQLite makes the index of its log, and sled writes to what it opens.
        if matches!(scheme, "file" | "redb") {
            call.succeeds(&["cat", "/kept"]);
        } else {
            call.refused_there(LOOKS, 1, FULL);
        }
        fs::remove_file(filler).unwrap();
        mounts::remount(&disk, "size=64m");
        call.succeeds(&["cat", "/kept"]);
        call.succeeds(CHANGES);
        call.succeeds(&["check", "--data"]);
    }
}

/// redb takes no more calls after one that failed, and says only that.
#[test]
fn a_database_that_was_on_a_full_disk_says_so_until_it_is_opened_anew() {
    if !mounts::inside("refusals::a_database_that_was_on_a_full_disk_says_so_until_it_is_opened_anew") {
        return;
    }
    let scratch = Scratch::new();
    let disk = scratch.path("disk");
    mounts::small_disk(&disk, 8 << 10);
    let context = OpenContext::new(strongroom::env::system().unwrap()).with_mode(OpenMode::CreateIfMissing);
    let uri = StorageUri::parse(&format!("redb:{}", disk.join("blobs").display())).unwrap();
    strongroom_conformance::block_on(async {
        let storage = strongroom::registry::default().open(&uri, &context).await.unwrap();
        let full = async |number| storage.put_durable(sample_name(number), sample_bytes(number, 1 << 20)).await.err();
        let mut number = 0;
        while full(number).await.is_none() {
            number += 1;
        }
        for number in [number, number + 1] {
            let error = full(number).await.unwrap();
            assert_eq!((error.kind(), error.effect()), (ErrorKind::Full, Effect::Unknown), "{error}");
            assert!(error.to_string().contains("open it anew"), "{error}");
        }
        drop(storage);
        mounts::remount(&disk, "size=64m");
        let storage = strongroom::registry::default().open(&uri, &context).await.unwrap();
        assert!(storage.get(sample_name(0), None, 1 << 20).await.unwrap() == sample_bytes(0, 1 << 20));
        storage.put_durable(sample_name(number), sample_bytes(number, 1 << 20)).await.unwrap();
    });
}

/// How many blobs are removed one by one at most.
#[cfg(feature = "sled")]
const DELETIONS_MAX: u64 = 300;

/// Where it has no room sled waits for ever, so it must not come to that: by blobs in its log and beside it, deletions or closing.
#[cfg(feature = "sled")]
#[test]
fn a_full_disk_is_told_before_sled_waits_for_it() {
    use std::sync::mpsc;

    if !mounts::inside("refusals::a_full_disk_is_told_before_sled_waits_for_it") {
        return;
    }
    let scratch = Scratch::new();
    let context = OpenContext::new(strongroom::env::system().unwrap()).with_mode(OpenMode::CreateIfMissing);
    for bytes in [3_000, 60_000, 200_000, 1 << 20] {
        let disk = scratch.path(bytes.to_string());
        mounts::small_disk(&disk, 40 << 10);
        let uri = StorageUri::parse(&format!("sled:{}", disk.join("blobs").display())).unwrap();
        let context = context.clone();
        let (done, is_done) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            strongroom_conformance::block_on(async {
                let registry = strongroom::registry::default();
                let storage = registry.open(&uri, &context).await.unwrap();
                let mut count = 0;
                let error = loop {
                    match storage.put(sample_name(count), sample_bytes(count, bytes)).await {
                        Ok(_) => count += 1,
                        Err(error) => break error,
                    }
                };
                assert_eq!((error.kind(), error.effect()), (ErrorKind::Full, Effect::None), "{error}");
                assert!(count > 2, "{bytes}: it was full after {count} blobs");
                storage.sync().await.unwrap();
                // To remove takes room, too, but not of the last that is left. Of small ones there are thousands.
                for number in 1..count.min(DELETIONS_MAX) {
                    match storage.delete(sample_name(number)).await {
                        Ok(()) => storage.sync().await.unwrap(),
                        Err(error) if number > 1 && error.kind() == ErrorKind::Full => break,
                        Err(error) => panic!("{bytes}, {number}: {error}"),
                    }
                }
                drop(storage);
                let storage = registry.open(&uri, &context).await.unwrap();
                assert_eq!(storage.size(sample_name(0)).await.unwrap(), bytes as u64);
                let filler = mounts::fill(&disk);
                let put = storage.put(sample_name(count), sample_bytes(count, bytes)).await;
                for refusal in [put.map(drop), storage.delete(sample_name(0)).await, storage.sync().await] {
                    assert_eq!(refusal.err().map(|error| error.kind()), Some(ErrorKind::Full));
                }
                // It cannot be closed, and this process is told that and not that another one has it; when there is room, it goes on.
                drop(storage);
                let refused = registry.open(&uri, &context).await.unwrap_err();
                assert_eq!(refused.kind(), ErrorKind::Full, "{refused}");
                fs::remove_file(filler).unwrap();
                let storage = registry.open(&uri, &context).await.unwrap();
                assert_eq!(storage.size(sample_name(0)).await.unwrap(), bytes as u64);
                storage.sync().await.unwrap();
            });
            done.send(()).unwrap();
        });
        // Where the thread failed it has hung up, and says why. Of the small ones there are thousands, on a machine with much to do.
        match is_done.recv_timeout(std::time::Duration::from_secs(300)) {
            Ok(()) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => std::panic::resume_unwind(thread.join().unwrap_err()),
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("{bytes}: it waits for ever"),
        }
    }
}

#[test]
fn a_cache_that_cannot_be_had_is_told_and_one_that_fails_is_none() {
    if !mounts::inside("refusals::a_cache_that_cannot_be_had_is_told_and_one_that_fails_is_none") {
        return;
    }
    let scratch = Scratch::with_repository();
    fs::write(scratch.path("large"), Numbers::new(2).bytes(1 << 20)).unwrap();
    scratch.succeeds(["put", "large", "/large"]);
    let folder = scratch.path("denied");
    fs::create_dir(&folder).unwrap();
    set_modes(&[&folder], 0o000);
    let call = Call::humble(&scratch, scratch.repository());
    call.refused(
        &["cat", "/large", "--cache", "denied/cache"],
        1,
        &[&["the cache in", "denied/cache"], DENIED].concat(),
    );

    let disk = scratch.path("disk");
    mounts::small_disk(&disk, 64);
    let filler = mounts::fill(&disk);
    let cached = ["cat", "/large", "--cache", "disk/cache"];
    Call::new(&scratch).refused(&cached, 1, &[&["the cache in", "disk/cache"], FULL].concat());
    // There is room to begin it, and then none.
    fs::remove_file(filler).unwrap();
    assert!(scratch.succeeds(cached) == fs::read(scratch.path("large")).unwrap());
}

/// Whichever of the two places fails, and whenever: until a copy was told to have failed that is not there, and one that is, because
/// it failed in what is done when the copy is whole.
#[cfg(feature = "faulty")]
#[test]
fn of_a_copy_that_fails_the_place_is_told_in_which_it_failed() {
    let scratch = Scratch::with_repository();
    fs::write(scratch.path("letter"), Numbers::new(3).bytes(300_000)).unwrap();
    scratch.succeeds(["put", "letter", "/letter"]);
    let (mut of_source, mut unmade, mut whole) = (0, 0, 0);
    let mut seed = 0;
    while of_source < 5 || unmade < 5 || whole == 0 {
        seed += 1;
        assert!(seed < 400, "{of_source} of the source, {unmade} that were not made, {whole} that were");
        for fails_in_copy in [false, true] {
            let place = |path: &Path, faulty| match faulty {
                true => format!("faulty+file://{}?seed={seed}&refusals=0.02", path.display()),
                false => format!("file://{}", path.display()),
            };
            let (source, copy) = (scratch.path("repo"), scratch.path(format!("copy{seed}")));
            let mut call = Call::at(&scratch, place(&source, !fails_in_copy));
            call.environment = vec![("STRONGROOM_NEW_PASSWORD", PLANTED.to_owned())];
            let output = call.run(&["copy", &place(&copy, fails_in_copy), "--no-recovery", "--kdf-time", "1"]);
            let said = text(&output.stderr);
            if !output.status.success() {
                let (named, other) = if fails_in_copy { (&copy, &source) } else { (&source, &copy) };
                let why = said.lines().last().unwrap_or_default();
                assert!(why.contains(&format!("file://{}", named.display())), "seed {seed}: {said}");
                assert!(!why.contains(&format!("file://{}", other.display())), "seed {seed}: {said}");
                let made = Call { password: PLANTED, ..Call::at(&scratch, place(&copy, false)) }.run(LOOKS);
                match (fails_in_copy, made.status.success()) {
                    (false, _) => of_source += 1,
                    (true, false) => unmade += 1,
                    (true, true) => whole += 1,
                }
            }
            let _ = fs::remove_dir_all(&copy);
        }
    }
}

#[cfg(feature = "s3")]
mod s3 {
    use strongroom_s3_server::{ACCESS_KEY, Fault, SECRET_KEY, Server, ServerOptions};

    use super::*;

    fn with_keys<'s>(call: Call<'s>, access: &str, secret: &str) -> Call<'s> {
        let keys = [("AWS_ACCESS_KEY_ID", access), ("AWS_SECRET_ACCESS_KEY", secret)];
        Call { environment: keys.map(|(name, value)| (name, value.to_owned())).into(), ..call }
    }

    #[test]
    fn what_a_server_refuses_is_told_with_its_remedy() {
        let (scratch, server) = (Scratch::new(), Server::start(ServerOptions::default()).unwrap());
        let address = |place: &str| format!("s3://{place}?endpoint={}", server.endpoint());
        let call = |place: &str| with_keys(Call::at(&scratch, address(place)), ACCESS_KEY, SECRET_KEY);
        let all = [LOOKS, CHANGES, CREATES];
        call("bucket/repo").succeeds(CREATES);

        let keys = &["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"];
        for command in all {
            call("nowhere/repo").refused_there(
                command,
                1,
                &["there is no such bucket", "create it, or check its name"],
            );
            let there = || Call::at(&scratch, address("bucket/repo"));
            with_keys(there(), ACCESS_KEY, PLANTED).refused_there(command, 12, keys);
            with_keys(there(), PLANTED, SECRET_KEY).refused_there(command, 12, keys);
        }
        let wrong = Call { password: PLANTED, ..call("bucket/repo") };
        wrong.refused_there(LOOKS, 12, &["wrong credentials"]);
        call("bucket/other").refused_there(LOOKS, 10, &["no repository here", "create one with `init`"]);
        for (fault, code, says) in [
            (Fault::Refused(403, "AccessDenied"), 1, ["permission denied", "the key needs s3:ListBucket"]),
            (Fault::Refused(403, "RequestTimeTooSkewed"), 1, ["the clock of this device is wrong", "set it"]),
            (Fault::Refused(400, "ExpiredToken"), 12, ["they have expired", "sign in again"]),
            (Fault::Refused(507, "XMinioStorageFull"), 1, ["storage is full", "free some space there"]),
            (Fault::Refused(301, "PermanentRedirect"), 2, ["in another region", "check `region` and `endpoint`"]),
        ] {
            server.faults().always(&[], fault);
            for command in all {
                call("bucket/repo").refused_there(command, code, &says);
            }
            server.faults().clear();
        }
        call("bucket/repo").succeeds(&["check", "--data"]);
    }

    /// A program that sees no network at all; where the machine does not allow that, the test fails and says what it needs.
    fn apart(program: &Path) -> Command {
        let ways: [&[&str]; 2] = [&["--net"], &["--user", "--map-root-user", "--net"]];
        let works = |way: &&&[&str]| {
            let probe = Command::new("unshare").args(**way).arg("true").output();
            probe.is_ok_and(|probe| probe.status.success())
        };
        let way =
            ways.iter().find(works).expect("needs `unshare` (util-linux) and the right to make network namespaces");
        let mut command = Command::new("unshare");
        command.args(*way).arg(program);
        mounts::bare(command)
    }

    #[test]
    fn without_a_network_or_a_server_it_is_told_what_to_check() {
        let scratch = Scratch::new();
        for (endpoint, runner, says) in [
            (
                "http://127.0.0.1:9",
                None,
                "nothing listens at the endpoint: check `endpoint`, and whether the server runs",
            ),
            ("http://127.0.0.1:9000", Some(&apart as &dyn Fn(&Path) -> Command), "check `endpoint`"),
            ("https://192.0.2.1", Some(&apart), "check `endpoint` and the network"),
            ("https://s3.example.org", Some(&apart), "and the network"),
        ] {
            let call = Call::at(&scratch, format!("s3://bucket/repo?region=eu-west-1&endpoint={endpoint}"));
            let call = Call { runner, ..with_keys(call, PLANTED, PLANTED) };
            for command in [LOOKS, CREATES] {
                let said = call.refused_once(command, 1, &["storage does not answer", says]);
                assert!(said.contains("s3://bucket/repo"), "{said}");
            }
        }
    }
}
