//! `recovery new|verify`: a key for paper, and the proof that what is on the paper opens the repository.

use std::io::IsTerminal as _;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde::Serialize;
use strongroom::{Credentials, Factors, NewSlot, RecoveryKey};
use zeroize::Zeroizing;

use super::key::{JsonSlot, check_label, report, revokes_nothing, settle};
use crate::context::{Access, Age, Context, recovery_key};
use crate::exit::Failure;
use crate::local::own::Own;
use crate::password;
use crate::secret_file::Written;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a recovery key; one that was made before opens nothing any more
    New(New),
    /// Prove that a recovery key opens the repository; nothing is changed
    Verify,
}

#[derive(Debug, Args)]
pub(crate) struct New {
    /// Write it to a new file rather than to the terminal
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// What to call its slot, at most 48 bytes
    #[arg(long, default_value = "recovery")]
    label: String,
}

#[derive(Serialize)]
struct Verified<'a> {
    #[serde(flatten)]
    slot: &'a JsonSlot,
}

pub(crate) async fn run(command: Command, context: &mut Context) -> Result<(), Failure> {
    match command {
        Command::New(arguments) => new(&arguments, context).await,
        Command::Verify => verify(context).await,
    }
}

async fn new(arguments: &New, context: &mut Context) -> Result<(), Failure> {
    check_label(&arguments.label)?;
    if arguments.output.is_none() && (context.output.json() || !std::io::stdout().is_terminal()) {
        return Err(Failure::usage(
            "the recovery key is shown on a terminal alone: pass --output with a file to write it to",
        ));
    }
    let repository = context.open(Access::Write).await?;
    let mut old = repository.slots().await?;
    old.retain(|slot| slot.factors == Factors::RECOVERY);
    if old.len() > 1 {
        return Err(Failure::usage("there are several recovery keys: remove all but one with `key rm`"));
    }
    let key = RecoveryKey::generate(repository.engine().env())?;
    // Before it counts: whatever happens then, whoever has the repository has the key.
    let mut written = None;
    match &arguments.output {
        Some(path) => written = Some(write(path, &key, context.own())?),
        None => show(key.to_text(), context)?,
    }
    let credentials = Credentials::recovery(&key);
    let slot = NewSlot { credentials: &credentials, label: &arguments.label };
    let done = match old.first() {
        Some(old) => repository.replace_slot(old, &slot).await,
        None => repository.add_slot(&slot).await,
    };
    settle(written, &done, context);
    let slots = match done {
        Ok(slots) => slots,
        Err(error) => {
            if arguments.output.is_none() {
                context.output.notice("the key shown above may open nothing: try it with `recovery verify`");
            }
            return Err(error.into());
        }
    };
    repository.close().await?;
    let index = old.first().map(|old| old.index);
    let made = slots.iter().filter(|slot| slot.factors == Factors::RECOVERY);
    let made = made.max_by_key(|slot| (Some(slot.index) == index, slot.created));
    report("recovery new", if index.is_some() { "replaced" } else { "added" }, made, context)?;
    if let Some(path) = &arguments.output {
        let path = path.display();
        context
            .output
            .notice(&format!("the recovery key is in {path}: keep it elsewhere, it opens the repository alone"));
    }
    if index.is_some() {
        revokes_nothing(context);
    }
    Ok(())
}

async fn verify(context: &mut Context) -> Result<(), Failure> {
    let uri = context.uri()?;
    context.refuse_absent(&uri).await?;
    let credentials = if context.global.recovery_key.is_some() {
        context.credentials(&uri, Age::Existing)?
    } else {
        Credentials::recovery(&recovery_key(&password::recovery_key(&context.global)?)?)
    };
    let repository = context.open_with(&uri, credentials, Access::Read).await?;
    let slot = repository.slot_in_use().await?;
    repository.close().await?;
    // Removed by another process since it opened.
    let slot = slot.ok_or(strongroom::core::Error::WrongCredentials)?;
    let slot = JsonSlot::new(&slot, Some(&slot));
    if context.output.json() {
        return context.output.document("strongroom/recovery-verify/1", &Verified { slot: &slot });
    }
    context.output.summary(&format!("the recovery key opens {uri}: {}", slot.line()))
}

/// Writes it to a new file for its owner alone.
pub(crate) fn write(path: &std::path::Path, key: &RecoveryKey, own: &Own) -> Result<Written, Failure> {
    let mut text = key.to_text();
    // There is room for it: nothing is moved.
    text.push('\n');
    Written::new(path, "a recovery key", text.as_bytes(), own)
}

/// Shows it on the terminal, once.
pub(crate) fn show(mut key: Zeroizing<String>, context: &mut Context) -> Result<(), Failure> {
    // There is room for it: nothing is moved.
    key.push('\n');
    let output = &mut context.output;
    output.line("The recovery key, shown this once. Write it down, and keep it where nobody else looks:")?;
    output.line("")?;
    output.secret_line(&key)?;
    output.line("")?;
    output.line("It opens the repository alone. Try what you wrote down with `recovery verify`.")?;
    output.flush()
}
