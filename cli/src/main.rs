//! The `strongroom` program, with the storages of its features.

use std::process::ExitCode;

fn main() -> ExitCode {
    strongroom_cli::run(strongroom::registry::default())
}
