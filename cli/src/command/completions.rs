//! `completions SHELL`: the script that completes this program's commands and flags.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use crate::context::Context;
use crate::exit::Failure;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The shell
    shell: Shell,
}

pub(crate) fn run(arguments: &Arguments, context: &mut Context) -> Result<(), Failure> {
    let mut script = Vec::new();
    let mut program = crate::arguments::Arguments::command();
    clap_complete::generate(arguments.shell, &mut program, "strongroom", &mut script);
    context.output.bytes(&script)
}
