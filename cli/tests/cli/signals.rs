//! SIGINT and SIGTERM end it cleanly, a second one at once; what was acknowledged is there.
#![cfg(target_os = "linux")]

use std::io::Write as _;
use std::process::{Child, Command, Stdio};

use crate::common::{Scratch, generate_tree};

/// A command that reads stdin, which stays open, once it listens to signals.
fn start(scratch: &Scratch, arguments: &[&str]) -> Child {
    let mut child = scratch
        .command()
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.as_mut().unwrap().write_all(b"some content").unwrap();
    while !listens(&child) {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it was asked to");
        std::thread::yield_now();
    }
    child
}

/// Whether the process listens to signals: it has the thread that tells of them, which it begins last.
fn listens(child: &Child) -> bool {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{}/task", child.id())) else { return false };
    let name = |thread: std::fs::DirEntry| std::fs::read_to_string(thread.path().join("comm")).unwrap_or_default();
    threads.flatten().any(|thread| name(thread).trim() == "signals")
}

fn send(child: &Child, signal: &str) {
    assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
}

#[test]
fn one_signal_stops_what_waits_for_others() {
    let scratch = Scratch::with_repository();
    std::fs::write(scratch.path("large"), vec![7; 4 << 20]).unwrap();
    scratch.succeeds(["put", "large", "/large"]);
    assert!(Command::new("mkfifo").arg(scratch.path("pipe")).status().unwrap().success());
    // A writer that never comes, a reader that never reads, and a reader that never comes.
    for arguments in [&["put", "-", "/new"][..], &["cat", "/large"], &["get", "/large", "pipe"]] {
        for signal in ["-INT", "-TERM"] {
            let mut child = start(&scratch, arguments);
            // Held open until the end: a wait that closed it would race the signal with the end of the input.
            let _stdin = child.stdin.take();
            while !sleeps(&child) {
                std::thread::yield_now();
            }
            send(&child, signal);
            assert_is_stopped(child);
        }
    }
    assert_eq!(scratch.succeeds(["ls"]), b"large\n");
    scratch.succeeds(["check", "--data"]);
}

/// It ended, and said so in one line; what it printed is not read.
fn assert_is_stopped(mut child: Child) {
    let code = child.wait().unwrap().code();
    let said = std::io::read_to_string(child.stderr.take().unwrap()).unwrap();
    assert!(code == Some(1) && said.starts_with("strongroom: interrupted"), "{code:?}: {said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

/// Whether the process waits for something.
fn sleeps(child: &Child) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
    status.lines().any(|line| line.starts_with("State:\tS"))
}

#[test]
fn a_put_that_is_interrupted_leaves_nothing_and_says_so() {
    let scratch = Scratch::with_repository();
    scratch.feeds(["put", "-", "/before"], b"acknowledged");
    for signal in ["-INT", "-TERM"] {
        let mut child = start(&scratch, &["put", "-", "/interrupted"]);
        send(&child, signal);
        let stdin = child.stdin.take();
        let output = child.wait_with_output().unwrap();
        drop(stdin);
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8(output.stderr).unwrap().contains("interrupted"));
    }
    assert_eq!(scratch.succeeds(["ls"]), b"before\n");
    let info: serde_json::Value = serde_json::from_slice(&scratch.succeeds(["info", "--json"])).unwrap();
    assert_eq!(info["inside"]["open_writers"], 0);
    scratch.succeeds(["check", "--data"]);
}

#[test]
fn one_signal_stops_what_has_no_safe_point_before_its_end() {
    let scratch = Scratch::with_repository();
    generate_tree(&scratch.path("tree"), 1, 3 << 20, 30);
    scratch.succeeds(["import", "tree"]);
    for signal in ["-INT", "-TERM"] {
        // Far longer than the test may take, by the limit.
        let child = start(&scratch, &["--limit-download", "16KiB/s", "check", "--data"]);
        while !sleeps(&child) {
            std::thread::yield_now();
        }
        send(&child, signal);
        assert_is_stopped(child);
    }
    scratch.succeeds(["check", "--data"]);
}
