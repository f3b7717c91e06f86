//! The `strongroom` program as a library, for programs that are the same with storages of their own:
//!
//! ```no_run
//! let mut registry = strongroom::registry::default();
//! // my_storage::register(&mut registry);
//! strongroom_cli::run(registry);
//! ```
//!
//! `docs/backends.md` shows a whole one. Nothing but [`run`] is public: what scripts rely on is the command line.

mod arguments;
mod command;
mod context;
mod entry;
mod exit;
mod first_name;
mod interrupt;
mod layers;
mod local;
mod named;
mod output;
mod password;
mod progress;
mod retention;
mod secret_file;
mod strays;
mod transfer;
mod units;
mod usage;
mod walk;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser as _;
use strongroom::storage::Registry;

use crate::arguments::{Arguments, Command};
use crate::context::Context;
use crate::exit::Failure;

/// Runs the program on the arguments of this process, with the storages of this registry; answers how it ended, for `main`.
#[must_use]
pub fn run(registry: Registry) -> ExitCode {
    let given: Vec<OsString> = std::env::args_os().collect();
    let arguments = match Arguments::try_parse_from(&given) {
        Ok(arguments) => arguments,
        // Called without anything it shows what it can do.
        Err(error) if given.len() < 2 => error.exit(),
        Err(error) => return ended(usage::refused(&error, &given)),
    };
    let mut context = Context::new(arguments.global, registry);
    let done = strongroom::blocking::block_on(async {
        let done = dispatch(arguments.command, &mut context).await;
        match done {
            Ok(()) => Ok(()),
            Err(failure) => Err(match context.tidy().await {
                Some(opened) => failure.at_unnamed(&opened),
                None => failure,
            }),
        }
    });
    context.tell_requests();
    // What was found before it failed is shown before the error is.
    let done = match context.output.flush() {
        Err(failure) if done.is_ok() => Err(failure),
        _ => done,
    };
    ended(done)
}

/// Says why, where it failed.
fn ended(done: Result<(), Failure>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.is_quiet() {
                output::complain(&failure.to_string());
            }
            ExitCode::from(failure.exit().code())
        }
    }
}

async fn dispatch(command: Command, context: &mut Context) -> Result<(), Failure> {
    context.global.refuse_at_where_nothing_is_looked_at(&command)?;
    context.layers()?;
    context.own().refuse_stdout()?;
    match command {
        Command::Init(arguments) => command::init::run(arguments, context).await,
        Command::Import(arguments) => command::import::run(arguments, context).await,
        Command::Export(arguments) => command::export::run(arguments, context).await,
        Command::Ls(arguments) => command::ls::run(arguments, context).await,
        Command::Tree(arguments) => command::tree::run(arguments, context).await,
        Command::Find(arguments) => command::find::run(arguments, context).await,
        Command::Du(arguments) => command::du::run(arguments, context).await,
        Command::Stat(arguments) => command::stat::run(arguments, context).await,
        Command::Cat(arguments) => command::cat::run(arguments, context).await,
        Command::Put(arguments) => command::put::run(arguments, context).await,
        Command::Get(arguments) => command::get::run(arguments, context).await,
        Command::Mkdir(arguments) => command::mkdir::run(arguments, context).await,
        Command::Rm(arguments) => command::rm::run(arguments, context).await,
        Command::Mv(arguments) => command::mv::run(arguments, context).await,
        Command::Cp(arguments) => command::cp::run(arguments, context).await,
        Command::Ln(arguments) => command::ln::run(arguments, context).await,
        Command::Batch(arguments) => command::batch::run(arguments, context).await,
        Command::History(arguments) => command::history::run(arguments, context).await,
        Command::Restore(arguments) => command::restore::run(arguments, context).await,
        Command::Info(arguments) => command::info::run(arguments, context).await,
        Command::Check(arguments) => command::check::run(arguments, context).await,
        Command::Compact(arguments) => command::compact::run(arguments, context).await,
        Command::Snapshot(command) => command::snapshot::run(command, context).await,
        Command::Key(command) => command::key::run(command, context).await,
        Command::Recovery(command) => command::recovery::run(command, context).await,
        Command::Header(command) => command::header::run(command, context).await,
        Command::Clone(arguments) => command::clone::run(arguments, context).await,
        Command::Fork(command) => command::fork::run(command, context).await,
        Command::Copy(arguments) => command::copy::run(arguments, context).await,
        Command::Destroy(arguments) => command::destroy::run(arguments, context).await,
        Command::Kv(command) => command::kv::run(command, context).await,
        Command::Man(arguments) => command::man::run(&arguments, context),
        Command::Backends(arguments) => command::backends::run(&arguments, context),
        Command::Conformance(arguments) => command::conformance::run(arguments, context).await,
        Command::Completions(arguments) => command::completions::run(&arguments, context),
    }
}
