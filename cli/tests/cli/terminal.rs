//! The program at a terminal, with someone who types.

#![cfg(target_os = "linux")] // elsewhere there is no `setsid --ctty`

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::process::{Child, Command, Stdio};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};

use crate::common::{Numbers, PASSWORD, Scratch};

/// A run of the program whose terminal this is.
struct Terminal {
    /// What is typed goes in here, and what is shown comes out.
    screen: File,
    child: Child,
    shown: String,
}

impl Terminal {
    /// Without the password: it is asked for.
    fn start(scratch: &Scratch, arguments: &[&str]) -> Self {
        Self::start_where(scratch, arguments, |name| name != "STRONGROOM_PASSWORD")
    }

    /// With the password, so that nothing is asked for.
    fn start_let_in(scratch: &Scratch, arguments: &[&str]) -> Self {
        Self::start_where(scratch, arguments, |_| true)
    }

    fn start_where(scratch: &Scratch, arguments: &[&str], is_kept: impl Fn(&OsStr) -> bool) -> Self {
        let screen = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&screen).unwrap();
        unlockpt(&screen).unwrap();
        let name = ptsname(&screen, Vec::new()).unwrap().into_string().unwrap();
        let end = || Stdio::from(File::options().read(true).write(true).open(&name).unwrap());
        let program = scratch.command();
        let mut command = Command::new("setsid");
        command.args(["--ctty", "--wait"]).arg(program.get_program()).args(arguments).current_dir(scratch.root.path());
        for (name, value) in program.get_envs() {
            match value.filter(|_| is_kept(name)) {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        Self { screen: screen.into(), child, shown: String::new() }
    }

    /// Waits until this is shown, and answers what was shown before it; both are forgotten.
    fn waits_for(&mut self, text: &str) -> String {
        let mut piece = [0; 1024];
        loop {
            if let Some(at) = self.shown.find(text) {
                let rest = self.shown.split_off(at + text.len());
                let mut before = std::mem::replace(&mut self.shown, rest);
                before.truncate(at);
                return before;
            }
            // Once nobody has the other end open, reading fails.
            let count = self.screen.read(&mut piece).unwrap_or(0);
            assert!(count > 0, "it ended before it showed {text:?}: {:?}", self.shown);
            self.shown.push_str(&String::from_utf8_lossy(&piece[..count]));
        }
    }

    fn types(&mut self, line: &str) {
        writeln!(self.screen, "{line}").unwrap();
    }

    /// As [`Self::types`], once the terminal no longer shows what is typed.
    fn types_unseen(&mut self, line: &str) {
        while tcgetattr(&self.screen).unwrap().local_modes.contains(LocalModes::ECHO) {
            std::thread::yield_now();
        }
        self.types(line);
    }

    /// What it ended with, and what was shown since.
    fn ends(mut self) -> (Option<i32>, String) {
        let mut piece = [0; 1024];
        while let Ok(count) = self.screen.read(&mut piece) {
            if count == 0 {
                break;
            }
            self.shown.push_str(&String::from_utf8_lossy(&piece[..count]));
        }
        (self.child.wait().unwrap().code(), self.shown)
    }
}

#[test]
fn a_new_password_is_asked_for_twice_and_never_shown() {
    let scratch = Scratch::new();
    let init = ["init", "--no-recovery", "--kdf-time", "1"];
    let mut terminal = Terminal::start(&scratch, &init);
    terminal.waits_for("New password for ");
    terminal.waits_for(": ");
    terminal.types_unseen(PASSWORD);
    terminal.waits_for("The same again: ");
    terminal.types_unseen("something else");
    let (code, shown) = terminal.ends();
    assert!(code == Some(2) && shown.contains("the two passwords differ"), "{code:?}: {shown}");
    assert!(!shown.contains("something else"), "{shown}");
    assert!(!scratch.path("repo").exists());

    let mut terminal = Terminal::start(&scratch, &init);
    terminal.waits_for("New password for ");
    terminal.waits_for(": ");
    terminal.types_unseen(PASSWORD);
    terminal.waits_for("The same again: ");
    terminal.types_unseen(PASSWORD);
    let (code, shown) = terminal.ends();
    assert!(code == Some(0) && !shown.contains(PASSWORD), "{code:?}: {shown}");
    // It is the password that was typed.
    scratch.succeeds(["ls"]);

    let mut terminal = Terminal::start(&scratch, &["ls"]);
    terminal.waits_for("Password for ");
    terminal.waits_for(": ");
    terminal.types_unseen("not this one");
    let (code, shown) = terminal.ends();
    assert!(code == Some(12) && !shown.contains("not this one"), "{code:?}: {shown}");
}

#[test]
fn a_repository_is_destroyed_once_its_name_is_typed() {
    let scratch = Scratch::with_repository();
    let mut terminal = Terminal::start(&scratch, &["destroy"]);
    terminal.waits_for("All that is in ");
    let name = terminal.waits_for(" will be lost.");
    assert!(name.ends_with("/repo"), "{name}");
    terminal.types("no");
    assert_eq!(terminal.ends().0, Some(1));
    for wrong in ["", "yes", "file:repo", &name[..name.len() - 1]] {
        let mut terminal = Terminal::start(&scratch, &["destroy"]);
        terminal.waits_for("Type this name to destroy it: ");
        terminal.types(wrong);
        let (code, shown) = terminal.ends();
        assert!(code == Some(1) && shown.contains("nothing was deleted"), "{wrong:?}: {code:?}: {shown}");
        scratch.succeeds(["ls"]);
    }

    let mut terminal = Terminal::start(&scratch, &["destroy"]);
    terminal.waits_for(&format!("All that is in {name} will be lost."));
    terminal.waits_for("Type this name to destroy it: ");
    terminal.types(&name);
    terminal.waits_for("Password for ");
    terminal.waits_for(": ");
    terminal.types_unseen("wrong");
    assert_eq!(terminal.ends().0, Some(12));
    scratch.succeeds(["ls"]);

    let mut terminal = Terminal::start(&scratch, &["destroy"]);
    terminal.waits_for("Type this name to destroy it: ");
    terminal.types(&name);
    terminal.waits_for("Password for ");
    terminal.waits_for(": ");
    terminal.types_unseen(PASSWORD);
    let (code, shown) = terminal.ends();
    assert!(code == Some(0) && shown.contains(&format!("destroyed {name}")), "{code:?}: {shown}");
    scratch.fails(10, ["ls"]);
}

#[test]
fn an_import_tells_at_a_terminal_how_fast_it_goes_and_how_long_the_rest_takes() {
    let scratch = Scratch::with_repository();
    fs::write(scratch.path("large"), Numbers::new(12).bytes(36 << 20)).unwrap();
    // What may be under way at once counts as done, 20 MiB of it: beyond that it goes no faster than this.
    let terminal = Terminal::start_let_in(&scratch, &["import", "large", "--limit-upload", "8MiB/s"]);
    let (code, shown) = terminal.ends();
    assert_eq!(code, Some(0), "{shown:?}");
    let tells = |line: &str| line.contains("/36.00 MiB ") && line.contains("B/s, ") && line.contains("s left");
    assert!(shown.split('\r').any(tells), "{shown:?}");
}

#[test]
fn progress_is_shown_where_someone_looks_and_wants_it() {
    let scratch = Scratch::with_repository();
    fs::write(scratch.path("small"), Numbers::new(13).bytes(1 << 20)).unwrap();
    // A bar is drawn over itself.
    let draws = |shown: &str| shown.contains("\x1b[2K");
    let at_a_terminal = |flags: &[&'static str]| {
        let terminal = Terminal::start_let_in(&scratch, &[&["import", "small", "--to", "/in"], flags].concat());
        let (code, shown) = terminal.ends();
        assert_eq!(code, Some(0), "{flags:?}: {shown:?}");
        shown
    };
    let shown = at_a_terminal(&[]);
    assert!(draws(&shown), "{shown:?}");
    for flags in [&["--no-progress"][..], &["--quiet"], &["--json"]] {
        fs::write(scratch.path("small"), flags[0]).unwrap();
        let shown = at_a_terminal(flags);
        assert!(!draws(&shown) && !shown.contains("s left"), "{flags:?}: {shown:?}");
    }
    let piped = scratch.run(["import", "small", "--to", "/elsewhere"]);
    let said = String::from_utf8(piped.stderr).unwrap();
    assert!(piped.status.success() && !draws(&said) && !said.contains('\r'), "{said:?}");
}
