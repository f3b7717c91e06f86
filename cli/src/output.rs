//! What goes to stdout and stderr: lines for people, JSON for programs, and names that cannot take over a terminal.

use std::io::{self, BufWriter, IsTerminal as _, Write};

use serde::Serialize;

use crate::arguments::Global;
use crate::exit::Failure;
use crate::interrupt::Interrupt;

/// Where results go. Errors of stdout end the command; a reader that went away ends it quietly.
pub(crate) struct Output {
    stdout: BufWriter<io::Stdout>,
    json: bool,
    quiet: bool,
    verbose: bool,
    terminal: bool,
    interrupt: Interrupt,
}

impl Output {
    /// As the flags say.
    pub(crate) fn new(global: &Global, interrupt: Interrupt) -> Self {
        Self {
            stdout: BufWriter::with_capacity(64 * 1024, io::stdout()),
            json: global.json,
            quiet: global.quiet,
            verbose: global.verbose > 0,
            terminal: io::stdout().is_terminal(),
            interrupt,
        }
    }

    /// Whether JSON is wanted.
    pub(crate) fn json(&self) -> bool {
        self.json
    }

    /// Whether results go to a terminal.
    pub(crate) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// One JSON document or line: `schema` first, then the fields of `value`.
    pub(crate) fn document(&mut self, schema: &'static str, value: &impl Serialize) -> Result<(), Failure> {
        #[derive(Serialize)]
        struct Document<'a, T> {
            schema: &'static str,
            #[serde(flatten)]
            value: &'a T,
        }
        let text = serde_json::to_string(&Document { schema, value })
            .map_err(|error| Failure::failed(format!("cannot write JSON: {error}")))?;
        self.line(&escape_json(&text))
    }

    /// One line of a result.
    pub(crate) fn line(&mut self, text: &str) -> Result<(), Failure> {
        self.interrupt.while_waiting(|| writeln!(self.stdout, "{text}")).map_err(stdout_failed)
    }

    /// A line that no buffer keeps: that of stdout lets a whole line through when there is nothing before it.
    pub(crate) fn secret_line(&mut self, text_and_end: &str) -> Result<(), Failure> {
        self.flush()?;
        self.interrupt.while_waiting(|| io::stdout().write_all(text_and_end.as_bytes())).map_err(stdout_failed)
    }

    /// Bytes as they are.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.interrupt.while_asked_for(|| self.stdout.write_all(bytes), stdout_failed)
    }

    /// A name, then the end of the line: escaped on a terminal, as it is in a pipe.
    pub(crate) fn name_line(&mut self, name: &[u8]) -> Result<(), Failure> {
        if self.terminal {
            return self.line(&shown(name));
        }
        self.bytes(name)?;
        self.bytes(b"\n")
    }

    /// What was done, for a person: on stdout, unless `-q` or `--json` is given.
    pub(crate) fn summary(&mut self, text: &str) -> Result<(), Failure> {
        if self.quiet || self.json { Ok(()) } else { self.line(text) }
    }

    /// With `--json`, that a command which has nothing else to say is done.
    pub(crate) fn done(&mut self, command: &'static str) -> Result<(), Failure> {
        #[derive(Serialize)]
        struct Done {
            command: &'static str,
        }
        if self.json { self.document("strongroom/done/1", &Done { command }) } else { Ok(()) }
    }

    /// Something to know, on stderr, unless `-q` is given.
    pub(crate) fn notice(&self, text: &str) {
        if !self.quiet {
            complain(text);
        }
    }

    /// Something to know with `-v`, on stderr.
    pub(crate) fn detail(&self, text: &str) {
        if self.verbose {
            complain(text);
        }
    }

    /// Gives everything out.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        self.interrupt.while_waiting(|| self.stdout.flush()).map_err(stdout_failed)
    }
}

/// One line on stderr. That stderr is gone is no reason to stop.
pub(crate) fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "strongroom: {}", one_line(text));
}

/// A question on stderr, answered behind it.
pub(crate) fn ask(question: &str) {
    let mut stderr = io::stderr();
    let _ = write!(stderr, "{question}").and_then(|()| stderr.flush());
}

/// A name or path as a person may read it: control characters, line ends and bytes that are not UTF-8 escaped, so that
/// no name can act on a terminal or forge a line.
pub(crate) fn shown(name: &[u8]) -> String {
    let mut text = String::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\\' => text.push_str("\\\\"),
                c if acts(c) => text.extend(c.escape_default()),
                c => text.push(c),
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

/// Control characters act on terminals; the marks of direction reorder what is read.
fn acts(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The text without line ends and other characters that act.
pub(crate) fn one_line(text: &str) -> String {
    text.chars().map(|character| if acts(character) { ' ' } else { character }).collect()
}

/// JSON of the same meaning that is safe on a terminal too. What acts stands in strings only, and below U+0020 is
/// escaped already.
fn escape_json(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        if acts(character) {
            safe.push_str(&format!("\\u{:04x}", u32::from(character)));
        } else {
            safe.push(character);
        }
    }
    safe
}

/// A name in JSON: as text where it is UTF-8, else escaped with the exact bytes beside it.
#[derive(Serialize)]
pub(crate) struct JsonName {
    name: String,
    /// Hexadecimal, only where `name` is not exact.
    #[serde(skip_serializing_if = "Option::is_none")]
    name_bytes: Option<String>,
}

impl JsonName {
    pub(crate) fn new(name: &[u8]) -> Self {
        match std::str::from_utf8(name) {
            Ok(text) => Self { name: text.to_owned(), name_bytes: None },
            Err(_) => Self { name: String::from_utf8_lossy(name).into_owned(), name_bytes: Some(hex(name)) },
        }
    }
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A failure of stdout.
pub(crate) fn stdout_failed(error: io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::reader_gone(),
        _ => Failure::failed(format!("cannot write to stdout: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_can_act_on_a_terminal() {
        assert_eq!(shown(b"plain name.txt"), "plain name.txt");
        assert_eq!(shown("ä 漢".as_bytes()), "ä 漢");
        assert_eq!(shown(b"a\nb\x1b[2Jc"), "a\\nb\\u{1b}[2Jc");
        assert_eq!(shown("a\u{202e}b\u{9b}".as_bytes()), "a\\u{202e}b\\u{9b}");
        assert_eq!(shown(b"\xff\xfe\\"), "\\xff\\xfe\\\\");
        assert_eq!(one_line("a\nb\u{202e}c"), "a b c");
        let json = escape_json(&serde_json::to_string("a\n\u{9b}\u{202e}\u{7f}ä").unwrap());
        assert_eq!(json, r#""a\n\u009b\u202e\u007fä""#);
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), "a\n\u{9b}\u{202e}\u{7f}ä");
    }
}
