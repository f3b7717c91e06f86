//! A command line that makes no sense, told as every other failure is: in one line.

use std::ffi::{OsStr, OsString};

use clap::error::{Error, ErrorKind};
use clap::{ArgAction, Command, CommandFactory as _};

use crate::arguments::Arguments;
use crate::exit::Failure;
use crate::output::stdout_failed;

/// What to do about a command line that was not taken: help and version are printed, all else is a failure.
pub(crate) fn refused(error: &Error, given: &[OsString]) -> Result<(), Failure> {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => error.print().map_err(stdout_failed),
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let program = Arguments::command();
            let (path, command) = named(&program, given);
            let names: Vec<&str> =
                command.get_subcommands().filter(|inner| !inner.is_hide_set()).map(Command::get_name).collect();
            Err(Failure::usage(format!("no command: name one of {}; see '{path} --help'", names.join(", "))))
        }
        _ => Err(Failure::usage(format!("{}; see '{} --help'", told(error), named(&Arguments::command(), given).0))),
    }
}

/// What clap has to say, without what it repeats below: the usage and where the help is.
fn told(error: &Error) -> String {
    let text = error.to_string();
    let ends = ["\nUsage:", "\nFor more information"];
    let end = ends.iter().filter_map(|end| text.rfind(end)).min().unwrap_or(text.len());
    let mut told = String::new();
    for line in text.get(..end).unwrap_or(&text).lines().map(str::trim).filter(|line| !line.is_empty()) {
        let separator = match (told.is_empty(), line.starts_with("tip: ")) {
            (true, _) => "",
            (false, true) => "; ",
            (false, false) => " ",
        };
        told.push_str(separator);
        told.push_str(line);
    }
    told.strip_prefix("error: ").unwrap_or(&told).to_owned()
}

/// The command that a command line names, as far as it can be followed.
fn named<'a>(program: &'a Command, given: &[OsString]) -> (String, &'a Command) {
    let (mut path, mut command) = (program.get_name().to_owned(), program);
    let mut given = given.iter().skip(1);
    while let Some(word) = given.next() {
        if word.as_encoded_bytes().starts_with(b"-") {
            if takes_the_next(program, command, word) {
                given.next();
            }
        } else if let Some(inner) = command.find_subcommand(word) {
            command = inner;
            path = format!("{path} {}", inner.get_name());
        } else {
            break;
        }
    }
    (path, command)
}

/// Whether a flag's value is the word behind it.
fn takes_the_next(program: &Command, command: &Command, word: &OsStr) -> bool {
    let Some(word) = word.to_str() else { return false };
    command.get_arguments().chain(program.get_arguments()).any(|argument| {
        let takes_values = matches!(argument.get_action(), ArgAction::Set | ArgAction::Append);
        let long = || argument.get_long().is_some_and(|long| word.strip_prefix("--") == Some(long));
        // Of several short ones together, the last may.
        let short = || {
            let last = (!word.starts_with("--")).then(|| word.chars().next_back()).flatten();
            argument.get_short().is_some_and(|short| last == Some(short))
        };
        takes_values && (long() || short())
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::exit::Exit;

    fn failure(line: &[&str]) -> Failure {
        let given: Vec<OsString> = std::iter::once("strongroom").chain(line.iter().copied()).map(Into::into).collect();
        refused(&Arguments::try_parse_from(&given).unwrap_err(), &given).unwrap_err()
    }

    #[test]
    fn a_wrong_command_line_is_one_line_that_says_where_the_help_is() {
        for (line, says, help) in [
            (&["no-such"][..], "unrecognized subcommand 'no-such'", "strongroom"),
            (&["ls", "--no-such"], "unexpected argument '--no-such' found", "strongroom ls"),
            (&["-r", "ls", "kv", "get"], "required arguments were not provided: <KEY>", "strongroom kv get"),
            (&["-qr", "ls", "kv", "--json", "put", "k"], "<VALUE>", "strongroom kv put"),
            (&["kv"], "no command: name one of get, put, del, scan", "strongroom kv"),
            (&["init", "--dedup", "maybe"], "[possible values: on, off]", "strongroom init"),
            (&["init", "--block-size", "64XiB"], "64KiB or 1.5GiB", "strongroom init"),
            (&["history", "f", "--keep", "-1"], "`-1` is not a number of versions", "strongroom history"),
            (&["history", "f", "--keep", "5000"], "versions of a file are kept: choose fewer", "strongroom history"),
            (&["init", "--versions", "-1"], "`-1` is not a number of versions", "strongroom init"),
            (&["snapshot", "prune", "--keep-last", "-1"], "invalid value '-1'", "strongroom snapshot prune"),
            (&["cat", "--version", "-1", "f"], "invalid value '-1'", "strongroom cat"),
            (&["restore", "--version", "-1", "f"], "invalid value '-1'", "strongroom restore"),
            (&["ls", "a\n\nUsage: b", "c"], "unexpected argument 'c' found", "strongroom ls"),
            (&["--password-fd", "1", "--password-file", "f", "rm", "x"], "cannot be used with", "strongroom rm"),
        ] {
            let failure = failure(line);
            let text = failure.to_string();
            assert_eq!((failure.exit(), text.lines().count()), (Exit::Usage, 1), "{text}");
            assert!(text.contains(says) && text.ends_with(&format!("; see '{help} --help'")), "{line:?}: {text}");
            assert!(!text.contains("error: ") && !text.contains("  "), "{text}");
        }
    }
}
