//! The `strongroom` program, with one more storage: `cargo run -p strongroom-cli --example own_scheme -- backends`.

// Yours is a crate: `use my_storage as shelf;`
#[path = "../../conformance/examples/shelf/storage.rs"]
#[allow(unreachable_pub)]
mod shelf;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut registry = strongroom::registry::default();
    shelf::register(&mut registry);
    strongroom_cli::run(registry)
}
