//! `man [COMMAND… | --all DIR]`: the manual pages of the program and its commands.

use std::path::{Path, PathBuf};

use clap::{Args, CommandFactory as _};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};

use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::output::JsonName;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Print the page of this command rather than that of the program
    command: Vec<String>,
    /// Write the pages of the program and of every command into a folder, for `man` to find
    #[arg(long, value_name = "DIR", conflicts_with = "command")]
    all: Option<PathBuf>,
}

/// What it exits with, as `cli/src/exit.rs` has it.
const EXIT_STATUS: [(u8, &str); 8] = [
    (0, "Done."),
    (Exit::Failed.code(), "Failed."),
    (Exit::Usage.code(), "The command line, or what it names, makes no sense."),
    (Exit::Partial.code(), "Done in part; what was left out is listed."),
    (Exit::NoRepository.code(), "No repository is there."),
    (Exit::Busy.code(), "Held by another process, or a commit race lost."),
    (Exit::Credentials.code(), "Wrong credentials."),
    (Exit::Damaged.code(), "Damaged, rolled back, or an unfinished copy."),
];

/// What is read from the environment.
const ENVIRONMENT: [(&str, &str); 7] = [
    ("STRONGROOM_REPO", "The repository, where --repo is not given."),
    (
        "STRONGROOM_PASSWORD",
        "The password. Other processes of the same user can read it: a file or a command is better.",
    ),
    ("STRONGROOM_PASSWORD_FILE", "As --password-file."),
    ("STRONGROOM_PASSWORD_COMMAND", "As --password-command."),
    ("STRONGROOM_KEY_FILE", "As --key-file."),
    ("STRONGROOM_NEW_PASSWORD", "The password of a slot that is made: as --new-password-fd."),
    ("XDG_STATE_HOME", "Where this device remembers what it has seen (~/.local/state)."),
];

pub(crate) fn run(arguments: &Arguments, context: &mut Context) -> Result<(), Failure> {
    let mut program = crate::arguments::Arguments::command();
    program.build();
    match &arguments.all {
        None => {
            let page = page(find(&program, &arguments.command)?)?;
            context.output.bytes(&page)
        }
        Some(folder) => {
            std::fs::create_dir_all(folder).map_err(|error| cannot_write(folder, &error))?;
            let mut files = Vec::new();
            write_all(&program, folder, &mut files)?;
            for file in &files {
                if context.output.json() {
                    let name = JsonName::new(crate::local::bytes_of(file.as_os_str()));
                    context.output.document("strongroom/man/1", &name)?;
                } else {
                    context.output.summary(&file.display().to_string())?;
                }
            }
            Ok(())
        }
    }
}

fn find<'a>(program: &'a clap::Command, path: &[String]) -> Result<&'a clap::Command, Failure> {
    path.iter().try_fold(program, |command, name| {
        command.find_subcommand(name).ok_or_else(|| {
            Failure::usage(format!(
                "there is no command `{}`: --help lists them",
                crate::output::shown(name.as_bytes())
            ))
        })
    })
}

/// One page a command, as deep as they go: `strongroom.1`, `strongroom-kv.1`, `strongroom-kv-get.1`.
fn write_all(command: &clap::Command, folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), Failure> {
    let file = folder.join(format!("{}.1", name(command)));
    std::fs::write(&file, page(command)?).map_err(|error| cannot_write(&file, &error))?;
    files.push(file);
    // What the help does not show is refused so far.
    let mut shown = command.get_subcommands().filter(|inner| !inner.is_hide_set());
    shown.try_for_each(|command| write_all(command, folder, files))
}

/// `strongroom-kv-get`, where the command knows where it belongs.
fn name(command: &clap::Command) -> String {
    command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned()
}

fn page(command: &clap::Command) -> Result<Vec<u8>, Failure> {
    let man = Man::new(command.clone()).source(concat!("strongroom ", env!("CARGO_PKG_VERSION")));
    let mut page = Vec::new();
    let mut environment = Roff::new();
    list(&mut environment, "ENVIRONMENT", ENVIRONMENT.map(|(name, text)| (name.to_owned(), text)));
    list(&mut environment, "EXIT STATUS", EXIT_STATUS.map(|(code, text)| (code.to_string(), text)));
    let mut render = || -> std::io::Result<()> {
        man.render(&mut page)?;
        environment.to_writer(&mut page)
    };
    render().map_err(|error| Failure::failed(format!("cannot make the manual page: {error}")))?;
    Ok(page)
}

fn list<const N: usize>(roff: &mut Roff, heading: &str, entries: [(String, &str); N]) {
    roff.control("SH", [heading]);
    for (term, text) in entries {
        roff.control("TP", []);
        roff.text([clap_mangen::roff::bold(term)]);
        roff.text([roman(text)]);
    }
}

fn cannot_write(path: &Path, error: &std::io::Error) -> Failure {
    Failure::failed(format!("cannot write {}: {error}", crate::output::shown(path.as_os_str().as_encoded_bytes())))
}
