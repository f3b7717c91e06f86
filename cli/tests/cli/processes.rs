//! Many processes at once: no update is lost, readers see whole states, and a writer that slept wakes up harmless.

#![allow(clippy::disallowed_methods)] // how long a command takes bounds when it is stopped

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::common::acceptance::{check_is_clean, did_not_panic, scaled, seed, text};
use crate::common::{self, Numbers, Scratch};
use strongroom::blocking::Repository;
use strongroom::{Credentials, OpenOptions, Tuning};

/// Runs a command until it does not lose a race; answers its exit code and how many it lost. Others than these fail.
fn persists(scratch: &Scratch, arguments: &[&str], input: Option<&[u8]>, codes: &[i32]) -> (i32, u64) {
    let mut lost = 0;
    loop {
        let output = match input {
            Some(input) => scratch.feeds(arguments, input),
            None => scratch.run(arguments),
        };
        did_not_panic(&output, &format!("{arguments:?}"));
        match output.status.code().unwrap() {
            11 if lost < 1_000 => lost += 1,
            code if codes.contains(&code) => return (code, lost),
            code => panic!("{arguments:?} ends with {code}: {}", text(&output.stderr)),
        }
    }
}

fn names(scratch: &Scratch, folder: &str) -> BTreeSet<String> {
    text(&scratch.succeeds(["ls", folder])).lines().map(str::to_owned).collect()
}

#[test]
fn writers_at_once_lose_no_update() {
    let seed = seed();
    let scratch = Scratch::with_repository();
    scratch.succeeds(["mkdir", "/shared", "/tokens", "/won"]);
    let (writers, rounds) = scaled((4, 6), (8, 40));
    for round in 0..rounds {
        persists(&scratch, &["put", "-", &format!("/tokens/{round}")], Some(b"token"), &[0]);
    }
    let (lost, expected, won) = (AtomicU64::new(0), Mutex::new(BTreeSet::new()), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for writer in 0..writers {
            let (scratch, lost, expected, won) = (&scratch, &lost, &expected, &won);
            scope.spawn(move || {
                let mut numbers = Numbers::new(seed ^ writer << 32);
                for round in 0..rounds {
                    let name = format!("{writer}-{round}");
                    let path = format!("/shared/{name}");
                    // Its own name in a folder that all write to, kept or taken away again.
                    let size = usize::try_from(numbers.below(200_000)).unwrap();
                    let mut again = persists(scratch, &["put", "-", &path], Some(&numbers.bytes(size)), &[0]).1;
                    if round % 3 == 1 {
                        again += persists(scratch, &["rm", &path], None, &[0]).1;
                    } else {
                        expected.lock().unwrap().insert(name);
                    }
                    again += persists(scratch, &["mkdir", "-p", &format!("/shared/all/{round}")], None, &[0]).1;
                    // All want the same file: one gets it.
                    let (from, to) = (format!("/tokens/{round}"), format!("/won/{writer}-{round}"));
                    let (code, races) = persists(scratch, &["mv", &from, &to], None, &[0, 1]);
                    won.fetch_add(u64::from(code == 0), Ordering::Relaxed);
                    lost.fetch_add(again + races, Ordering::Relaxed);
                }
            });
        }
    });
    eprintln!("{} of the commands lost a race and were run again", lost.into_inner());
    check_is_clean(&scratch, &format!("after all writers, seed {seed}"));
    let mut expected = expected.into_inner().unwrap();
    expected.insert("all".to_owned());
    assert_eq!(names(&scratch, "/shared"), expected);
    assert_eq!(names(&scratch, "/shared/all").len() as u64, rounds);
    assert_eq!(names(&scratch, "/tokens"), BTreeSet::new());
    assert_eq!(won.into_inner(), rounds, "each token was won once");
    let rounds_won =
        names(&scratch, "/won").iter().map(|name| name.split('-').nth(1).unwrap().to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(rounds_won.len() as u64, rounds);
    for writer in 0..writers {
        let mut numbers = Numbers::new(seed ^ writer << 32);
        for round in 0..rounds {
            let size = usize::try_from(numbers.below(200_000)).unwrap();
            let content = numbers.bytes(size);
            if round % 3 != 1 {
                assert!(scratch.succeeds(["cat", &format!("/shared/{writer}-{round}")]) == content, "{writer}-{round}");
            }
        }
    }
}

#[test]
fn of_many_that_put_the_same_path_at_once_the_last_one_wins_and_all_are_kept_as_versions() {
    let scratch = Scratch::new();
    scratch.succeeds(["init", "--no-recovery", "--kdf-time", "1", "--versions", "100"]);
    let (writers, rounds) = scaled((8, 2), (16, 8));
    for writer in 0..writers {
        std::fs::write(scratch.path(format!("{writer}")), state(writer)).unwrap();
    }
    std::thread::scope(|scope| {
        for writer in 0..writers {
            let scratch = &scratch;
            scope.spawn(move || {
                for round in 0..rounds {
                    let output = match (writer + round) % 2 {
                        0 => scratch.run(["put", &format!("{writer}"), "/same"]),
                        _ => scratch.feeds(["put", "-", "/same"], &state(writer)),
                    };
                    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
                }
            });
        }
    });
    let contents: BTreeSet<Vec<u8>> = (0..writers).map(state).collect();
    assert!(contents.contains(&scratch.succeeds(["cat", "/same"])));
    let versions = text(&scratch.succeeds(["history", "/same"]));
    // The one that was first replaced nothing.
    assert_eq!(versions.lines().count() as u64, writers * rounds, "{versions}");
    let mut seen = BTreeSet::new();
    for number in 1..=writers * rounds {
        seen.insert(scratch.succeeds(["cat", "--version", &format!("{number}"), "/same"]));
    }
    assert!(seen == contents, "{} of {writers} contents are among the versions, or others", seen.len());
    check_is_clean(&scratch, "after all");
}

/// A content that tells whether it is whole: all of it follows from its first eight bytes.
fn state(number: u64) -> Vec<u8> {
    let mut numbers = Numbers::new(number);
    let size = usize::try_from(numbers.below(400_000)).unwrap();
    [number.to_le_bytes().to_vec(), numbers.bytes(size)].concat()
}

#[test]
fn ten_readers_beside_a_writer_see_whole_states_only() {
    let seed = seed();
    let scratch = Scratch::with_repository();
    scratch.succeeds(["mkdir", "/pair"]);
    persists(&scratch, &["put", "-", "/pair/a"], Some(b"moved"), &[0]);
    persists(&scratch, &["put", "-", "/state"], Some(&state(0)), &[0]);
    let (done, newest, looks) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..10 {
            let (scratch, done, newest, looks) = (&scratch, &done, &newest, &looks);
            scope.spawn(move || {
                let mut last = 0;
                while !done.load(Ordering::SeqCst) {
                    let acknowledged = newest.load(Ordering::SeqCst);
                    let seen = scratch.succeeds(["cat", "/state"]);
                    let number = u64::from_le_bytes(seen[..8].try_into().unwrap());
                    assert!(seen == state(number), "a mixture that begins like state {number}");
                    assert!(
                        number >= acknowledged.max(last),
                        "state {number} after {last}, {acknowledged} acknowledged"
                    );
                    last = number;
                    let pair = names(scratch, "/pair");
                    assert!(pair.len() == 1, "a file under two names or none: {pair:?}");
                    looks.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let writes = std::panic::catch_unwind(|| {
            for number in 1..=scaled(10, 150) {
                persists(&scratch, &["put", "-", "/state"], Some(&state(number)), &[0]);
                newest.store(number, Ordering::SeqCst);
                let (from, to) = if number % 2 == 1 { ("/pair/a", "/pair/b") } else { ("/pair/b", "/pair/a") };
                persists(&scratch, &["mv", from, to], None, &[0]);
            }
        });
        done.store(true, Ordering::SeqCst);
        writes.unwrap();
    });
    eprintln!("{} looks", looks.into_inner());
    check_is_clean(&scratch, &format!("after all, seed {seed}"));
}

/// So that others delete at once what a sleeper still stands on.
fn restless(scratch_state: &std::path::Path, place: &str) -> Repository {
    let tuning = Tuning { reader_grace_millis: 0, checkpoint_commits: 4, close_commits: 1, ..Tuning::default() };
    let trust = strongroom::trust::LocalTrust::in_folder(scratch_state, place);
    let options = OpenOptions::new(Credentials::password(common::PASSWORD))
        .tuning(tuning)
        .trusted_state(std::sync::Arc::new(trust));
    Repository::open(place, options).unwrap()
}

fn written_by(who: &str, round: u64, number: u64) -> (String, Vec<u8>) {
    let mut numbers = Numbers::new(round << 20 ^ number << 8 ^ u64::from(who.as_bytes()[0]));
    let size = usize::try_from(numbers.below(120_000)).unwrap();
    (format!("/{who}/{round}-{number}"), numbers.bytes(size))
}

/// Run as a process of its own, by the test below, writes file after file, and says which are acknowledged; else nothing.
#[test]
fn a_writer_that_the_next_test_stops() {
    let Ok(place) = std::env::var("SLEEPER_PLACE") else { return };
    let round: u64 = std::env::var("SLEEPER_ROUND").unwrap().parse().unwrap();
    let state = std::env::var_os("SLEEPER_STATE").unwrap();
    let repository = restless(state.as_ref(), &place);
    let mut out = std::io::stdout();
    for number in 0..6 {
        let (path, content) = written_by("sleeper", round, number);
        // Now and then it takes something back, so that its space is given back, too.
        let written = match number % 3 {
            2 => repository.fs().transact(|transaction| {
                transaction.remove_file(written_by("sleeper", round, number - 1).0)?;
                transaction.write(&path, &content)
            }),
            _ => repository.fs().write(&path, &content),
        };
        match written {
            Ok(()) => writeln!(out, "sleeper done {number}").unwrap(),
            Err(error) if error.is_conflict() => writeln!(out, "sleeper lost {number}").unwrap(),
            // It takes back what it never wrote: it lost that race.
            Err(strongroom::Error::NotFound { .. }) if number % 3 == 2 => {
                writeln!(out, "sleeper lost {number}").unwrap()
            }
            Err(error) => writeln!(out, "sleeper failed {number}: {error}").unwrap(),
        }
        out.flush().unwrap();
    }
    match repository.close() {
        Ok(()) => writeln!(out, "sleeper closed").unwrap(),
        Err(error) if error.is_conflict() => writeln!(out, "sleeper closed").unwrap(),
        Err(error) => writeln!(out, "sleeper failed to close: {error}").unwrap(),
    }
}

fn signal(child: &std::process::Child, name: &str) {
    let kill = format!("kill {name} {}", child.id());
    let sent = Command::new("sh").args(["-c", &kill]).stderr(Stdio::null()).status().unwrap();
    // It may have ended already.
    let _ = sent;
}

#[test]
fn a_writer_stopped_while_others_commit_checkpoint_and_delete_loses_nothing_of_theirs() {
    let seed = seed();
    let scratch = Scratch::with_repository();
    scratch.succeeds(["mkdir", "/sleeper", "/other"]);
    let place = scratch.path("repo").to_str().unwrap().to_owned();
    // Never alone: what keeps writers apart is the chain of commits, not a lock of the system.
    let witness = restless(&scratch.path("witness's state"), &place);
    let mut numbers = Numbers::new(seed);
    let (mut done, mut lost, mut whole) = (0, 0, Duration::from_millis(300));
    for round in 0..scaled(10, 100) {
        let start = std::time::Instant::now();
        let mut sleeper = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture", "processes::a_writer_that_the_next_test_stops"])
            .env("SLEEPER_PLACE", &place)
            .env("SLEEPER_ROUND", round.to_string())
            .env("SLEEPER_STATE", scratch.path("sleeper's state"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let delay = Duration::from_micros(numbers.below(u64::try_from(whole.as_micros()).unwrap()));
        std::thread::sleep(delay);
        signal(&sleeper, "-STOP");
        let stopped = start.elapsed();
        let when = format!("seed {seed}, round {round}, stopped after {delay:?}");
        let others = 4 + numbers.below(12);
        {
            let other = restless(&scratch.path("other's state"), &place);
            for number in 0..others {
                let (path, content) = written_by("other", round, number);
                other.fs().write(&path, &content).unwrap_or_else(|error| panic!("{when}: {error}"));
                if number % 4 == 3 {
                    other.fs().remove_file(written_by("other", round, number - 1).0).unwrap();
                }
            }
            other.close().unwrap_or_else(|error| panic!("{when}: close: {error}"));
        }
        let slept = start.elapsed() - stopped;
        signal(&sleeper, "-CONT");
        let mut stdout = BufReader::new(sleeper.stdout.take().unwrap());
        let (mut lines, mut line) = (Vec::new(), String::new());
        while stdout.read_line(&mut line).unwrap() > 0 {
            if let Some(at) = line.find("sleeper ") {
                lines.push(line[at..].trim().to_owned());
            }
            line.clear();
        }
        let mut stderr = String::new();
        sleeper.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        assert!(sleeper.wait().unwrap().success(), "{when}: {lines:?} {stderr}");
        whole = (whole + start.elapsed().saturating_sub(slept)) / 2;
        assert_eq!(lines.last().map(String::as_str), Some("sleeper closed"), "{when}: {lines:?}");
        assert!(!lines.iter().any(|line| line.contains("failed")), "{when}: {lines:?}");

        check_is_clean(&scratch, &when);
        let there = restless(&scratch.path("third state"), &place);
        for number in 0..others {
            let (path, content) = written_by("other", round, number);
            let removed = number % 4 == 2 && number + 1 < others;
            match there.fs().read(&path) {
                Ok(read) => assert!(!removed && read == content, "{when}: {path} of the other"),
                Err(error) => assert!(removed, "{when}: {path} of the other: {error}"),
            }
        }
        let acknowledged = |number: u64| lines.contains(&format!("sleeper done {number}"));
        for number in 0..6 {
            let (path, content) = written_by("sleeper", round, number);
            let removed = number % 3 == 1 && acknowledged(number + 1);
            if acknowledged(number) && !removed {
                done += 1;
                assert!(there.fs().read(&path).unwrap() == content, "{when}: {path} of the sleeper");
            } else {
                lost += u32::from(!removed);
                assert!(!there.fs().exists(&path).unwrap(), "{when}: {path} was not acknowledged: {lines:?}");
            }
        }
        there.close().unwrap();
    }
    witness.close().unwrap();
    eprintln!("of the writer that slept, {done} were done and {lost} lost a race; it takes {whole:?}");
}
