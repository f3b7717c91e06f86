//! Where the password comes from. It is never an argument, never printed, and erased from memory after use.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{IsTerminal as _, Read};
use std::path::Path;
use std::process::{Command, Stdio};

use zeroize::Zeroizing;

use crate::arguments::Global;
use crate::context::Age;
use crate::exit::Failure;

/// Over this many bytes a password is refused; the buffer is as large from the start, so that it is never moved and
/// nothing is left behind by a move.
const PASSWORD_BYTES_MAX: usize = 64 * 1024;

const NO_SOURCE: &str = "no password: set STRONGROOM_PASSWORD_FILE, STRONGROOM_PASSWORD_COMMAND or STRONGROOM_PASSWORD, \
    or pass --password-file, --password-command or --password-fd (there is no terminal to ask on)";

/// Where the password of a slot that is made comes from, where no flag says so.
const NEW_PASSWORD: &str = "STRONGROOM_NEW_PASSWORD";

/// A password; erased on drop.
pub(crate) type Password = Zeroizing<Vec<u8>>;

/// The password of a repository that exists.
pub(crate) fn existing(global: &Global, repository: &str) -> Result<Password, Failure> {
    match given(global)? {
        Some(password) => Ok(password),
        None => ask(global, &format!("Password for {repository}: ")),
    }
}

/// The password of a new repository: asked for twice.
pub(crate) fn new(global: &Global, repository: &str) -> Result<Password, Failure> {
    if let Some(password) = given(global)? {
        return Ok(password);
    }
    let first = ask(global, &format!("New password for {repository}: "))?;
    let second = ask(global, "The same again: ")?;
    if *first != *second {
        return Err(Failure::usage("the two passwords differ: run it again"));
    }
    Ok(first)
}

/// The password that goes with a key file, which may be the only factor: an answer without a password says so.
pub(crate) fn beside_key_file(global: &Global, repository: &str, age: Age) -> Result<Option<Password>, Failure> {
    if let Some(password) = given(global)? {
        return Ok(Some(password));
    }
    if !can_ask(global) {
        return Ok(None);
    }
    let first = prompt(&format!("Password for {repository}, beside the key file (Enter for none): "))?;
    if age == Age::New && *first != *prompt("The same again: ")? {
        return Err(Failure::usage("the two passwords differ: run it again"));
    }
    Ok((!first.is_empty()).then_some(first))
}

/// Whether the flags or the environment name credentials.
pub(crate) fn is_given(global: &Global) -> bool {
    global.password_file.is_some()
        || global.password_command.is_some()
        || global.password_fd.is_some()
        || global.key_file.is_some()
        || global.recovery_key.is_some()
        || ["PASSWORD_FILE", "PASSWORD_COMMAND", "PASSWORD", "KEY_FILE"]
            .iter()
            .any(|name| variable(&format!("STRONGROOM_{name}")).is_some())
}

/// Whether the environment has the password of a slot that is made.
pub(crate) fn is_new_in_environment() -> bool {
    variable(NEW_PASSWORD).is_some()
}

/// Whether there is someone to ask.
pub(crate) fn can_ask(global: &Global) -> bool {
    // The prompt goes to the terminal itself. Where neither end of this process is one, a person is not expected.
    !global.no_input && (std::io::stdin().is_terminal() || std::io::stderr().is_terminal())
}

/// The flags that say where a password comes from: at most one of them.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(crate) file: Option<&'a Path>,
    pub(crate) command: Option<&'a OsStr>,
    pub(crate) descriptor: Option<u32>,
}

impl Source<'_> {
    fn read(self) -> Result<Option<Password>, Failure> {
        match self {
            Self { file: Some(path), .. } => from_file(path).map(Some),
            Self { command: Some(command), .. } => from_command(command).map(Some),
            Self { descriptor: Some(number), .. } => from_descriptor(number).map(Some),
            _ => Ok(None),
        }
    }
}

/// The password that a slot is to get. Beside a key file there may be none; else there must be one.
pub(crate) fn for_slot(
    global: &Global,
    source: Source<'_>,
    repository: &str,
    beside_key_file: bool,
) -> Result<Option<Password>, Failure> {
    if let Some(password) = source.read()? {
        return Ok(Some(password));
    }
    if let Some(text) = variable(NEW_PASSWORD) {
        return accept(Zeroizing::new(text.into_encoded_bytes()), NEW_PASSWORD).map(Some);
    }
    let missing = "no new password: pass --new-password-file, --new-password-command or --new-password-fd, or a new key file, \
        or set STRONGROOM_NEW_PASSWORD";
    if !can_ask(global) {
        return if beside_key_file { Ok(None) } else { Err(Failure::usage(missing)) };
    }
    let beside = if beside_key_file { ", beside the key file (Enter for none)" } else { "" };
    let first = prompt(&format!("New password for {repository}{beside}: "))?;
    if *first != *prompt("The same again: ")? {
        return Err(Failure::usage("the two passwords differ: run it again"));
    }
    match (first.is_empty(), beside_key_file) {
        (false, _) => Ok(Some(first)),
        (true, true) => Ok(None),
        (true, false) => Err(Failure::usage("the password in what was typed is empty")),
    }
}

/// A recovery key, typed by someone who has it on paper.
pub(crate) fn recovery_key(global: &Global) -> Result<Password, Failure> {
    if !can_ask(global) {
        return Err(Failure::usage(
            "no recovery key: pass --recovery-key with the file that holds it (there is no terminal to ask on)",
        ));
    }
    prompt("Recovery key, as it is written down: ")
}

/// From the flags; else from the environment: file, command, and the password itself.
fn given(global: &Global) -> Result<Option<Password>, Failure> {
    let flags = Source {
        file: global.password_file.as_deref(),
        command: global.password_command.as_deref(),
        descriptor: global.password_fd,
    };
    if let Some(password) = flags.read()? {
        return Ok(Some(password));
    }
    if let Some(path) = variable("STRONGROOM_PASSWORD_FILE") {
        return from_file(Path::new(&path)).map(Some);
    }
    if let Some(command) = variable("STRONGROOM_PASSWORD_COMMAND") {
        return from_command(&command).map(Some);
    }
    match variable("STRONGROOM_PASSWORD") {
        Some(text) => accept(Zeroizing::new(text.into_encoded_bytes()), "STRONGROOM_PASSWORD").map(Some),
        None => Ok(None),
    }
}

fn variable(name: &str) -> Option<std::ffi::OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

fn from_file(path: &Path) -> Result<Password, Failure> {
    let shown = format!("the password file {}", path.display());
    let file = File::open(path).map_err(|error| Failure::usage(format!("cannot read {shown}: {error}")))?;
    first_line(file, &shown)
}

fn from_descriptor(number: u32) -> Result<Password, Failure> {
    let shown = format!("file descriptor {number}");
    let failed = |error| Failure::usage(format!("cannot read the password from {shown}: {error}"));
    if number == 0 {
        return first_line(stdin().map_err(failed)?, &shown);
    }
    first_line(File::open(format!("/dev/fd/{number}")).map_err(failed)?, &shown)
}

/// Past the buffer of the standard library, which would keep what was read as long as the process lives.
#[cfg(unix)]
fn stdin() -> std::io::Result<impl Read> {
    use std::os::fd::AsFd as _;
    std::io::stdin().as_fd().try_clone_to_owned().map(File::from)
}

#[cfg(not(unix))]
fn stdin() -> std::io::Result<impl Read> {
    Ok(std::io::stdin().lock())
}

fn from_command(command: &OsStr) -> Result<Password, Failure> {
    let failed = |why: String| Failure::usage(format!("the password command failed: {why}"));
    let mut shell = if cfg!(windows) { Command::new("cmd") } else { Command::new("/bin/sh") };
    let mut child = shell
        .arg(if cfg!(windows) { "/C" } else { "-c" })
        .arg(command)
        // Nothing that it starts needs the password that it is asked for.
        .env_remove("STRONGROOM_PASSWORD")
        .env_remove(NEW_PASSWORD)
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    let output = child.stdout.take().ok_or_else(|| failed("it has no output".to_owned()))?;
    let password = first_line(output, "the password command");
    let status = child.wait().map_err(|error| failed(error.to_string()))?;
    // A command that failed may have printed an error where the password belongs.
    if !status.success() {
        return Err(failed(status.to_string()));
    }
    password
}

/// The first line of what is read; all of it is read, so that a command never meets a closed pipe.
fn first_line(reader: impl Read, shown: &str) -> Result<Password, Failure> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(PASSWORD_BYTES_MAX + 1));
    let limit = u64::try_from(PASSWORD_BYTES_MAX + 1).unwrap_or(u64::MAX);
    reader
        .take(limit)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::usage(format!("cannot read the password from {shown}: {error}")))?;
    if bytes.len() > PASSWORD_BYTES_MAX {
        return Err(Failure::usage(format!("{shown} holds more than 64KiB: that is no password")));
    }
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    bytes.truncate(end);
    if bytes.last() == Some(&b'\r') {
        bytes.pop();
    }
    accept(bytes, shown)
}

fn ask(global: &Global, prompt: &str) -> Result<Password, Failure> {
    if !can_ask(global) {
        return Err(Failure::usage(NO_SOURCE));
    }
    accept(self::prompt(prompt)?, "what was typed")
}

fn prompt(text: &str) -> Result<Password, Failure> {
    let typed = rpassword::prompt_password(text)
        .map_err(|error| Failure::usage(format!("cannot ask for the password: {error}; {NO_SOURCE}")))?;
    Ok(Zeroizing::new(typed.into_bytes()))
}

fn accept(password: Password, shown: &str) -> Result<Password, Failure> {
    if password.is_empty() {
        return Err(Failure::usage(format!("the password in {shown} is empty")));
    }
    Ok(password)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_is_the_first_line_without_its_end() {
        for (bytes, password) in [
            (&b"secret"[..], &b"secret"[..]),
            (b"secret\n", b"secret"),
            (b"secret\r\nnotes\n", b"secret"),
            (b" spaces stay \n", b" spaces stay "),
            (b"\xff\xfe\n", b"\xff\xfe"),
        ] {
            assert_eq!(**first_line(bytes, "test").unwrap(), *password);
        }
        assert!(first_line(&b"\nsecond line"[..], "test").is_err());
        assert!(first_line(std::io::repeat(b'x'), "test").is_err());
    }

    #[cfg(unix)]
    #[test]
    fn a_password_command_that_fails_gives_no_password() {
        assert_eq!(**from_command(OsStr::new("echo secret")).unwrap(), *b"secret");
        assert!(from_command(OsStr::new("echo secret; exit 3")).is_err());
    }
}
