//! `key list|add|rm|passwd`: the slots, each a way to open the repository.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde::Serialize;
use strongroom::{Credentials, Factors, NewSlot, Repository, SlotInfo};

use crate::context::{Access, Context, secret};
use crate::exit::Failure;
use crate::output::shown;
use crate::password::{self, Source};
use crate::secret_file::{self, Written};
use crate::units;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the slots
    List,
    /// Give other credentials a way in
    Add(Add),
    /// Take a slot away
    Rm(Rm),
    /// Change the password or key file of a slot, by default of the one that opens
    Passwd(Passwd),
    /// Encrypt what is written later with a fresh key
    #[command(hide = true)]
    Rotate,
}

#[derive(Debug, Args)]
pub(crate) struct Add {
    #[command(flatten)]
    new: NewSecret,
    /// What to call it, at most 48 bytes
    #[arg(long, default_value = "", hide_default_value = true)]
    label: String,
}

#[derive(Debug, Args)]
pub(crate) struct Rm {
    /// The slot: its number or its label, as `key list` shows them
    slot: String,
}

#[derive(Debug, Args)]
pub(crate) struct Passwd {
    #[command(flatten)]
    new: NewSecret,
    /// Another slot than the one that opens: its number or its label
    #[arg(long)]
    slot: Option<String>,
    /// What to call it from now on
    #[arg(long)]
    label: Option<String>,
}

/// Where the credentials of a slot come from; asked for on the terminal where nothing is said.
#[derive(Debug, Args)]
pub(crate) struct NewSecret {
    /// Read the new password from the first line of a file
    #[arg(long, value_name = "FILE", conflicts_with_all = ["new_password_command", "new_password_fd"])]
    new_password_file: Option<PathBuf>,
    /// Read the new password from the output of a shell command
    #[arg(long, value_name = "COMMAND", conflicts_with = "new_password_fd")]
    new_password_command: Option<OsString>,
    /// Read the new password from an open file descriptor (or set STRONGROOM_NEW_PASSWORD)
    #[arg(long, value_name = "N")]
    new_password_fd: Option<u32>,
    /// Make a key file, as the second factor or the only one
    #[arg(long, value_name = "FILE", conflicts_with = "with_key_file")]
    new_key_file: Option<PathBuf>,
    /// Take a file that is there already (32 bytes to 1MiB) as the key file
    #[arg(long, value_name = "FILE")]
    with_key_file: Option<PathBuf>,
}

impl NewSecret {
    fn names_password(&self) -> bool {
        self.new_password_file.is_some()
            || self.new_password_command.is_some()
            || self.new_password_fd.is_some()
            || password::is_new_in_environment()
    }

    fn names_key_file(&self) -> bool {
        self.new_key_file.is_some() || self.with_key_file.is_some()
    }

    fn source(&self) -> Source<'_> {
        Source {
            file: self.new_password_file.as_deref(),
            command: self.new_password_command.as_deref(),
            descriptor: self.new_password_fd,
        }
    }

    /// The credentials, and the key file that was made for them. `kept` is a key file that stays a factor.
    pub(crate) fn credentials(
        &self,
        context: &Context,
        repository: &str,
        kept: Option<PathBuf>,
    ) -> Result<(Credentials, Option<Written>), Failure> {
        let beside = self.names_key_file() || kept.is_some();
        // Typed at leisure: until it is, Ctrl-C ends the command at once.
        let ask = || password::for_slot(&context.global, self.source(), repository, beside);
        let password = context.interrupt.while_waiting(ask)?;
        let mut credentials = password.map(|password| Credentials::password(secret(password))).unwrap_or_default();
        let mut written = None;
        let content = match (&self.new_key_file, self.with_key_file.clone().or(kept)) {
            (Some(path), _) => {
                let (file, content) = Written::new_key_file(path, context.own())?;
                written = Some(file);
                Some(content)
            }
            (None, Some(path)) => Some(secret_file::read(&path, "the key file", context.own())?),
            (None, None) => None,
        };
        if let Some(content) = content {
            credentials = credentials.and_key_file(secret(content));
        }
        Ok((credentials, written))
    }
}

/// A slot in JSON.
#[derive(Serialize)]
pub(crate) struct JsonSlot {
    slot: u8,
    kind: String,
    needs: Vec<&'static str>,
    label: String,
    created: String,
    in_use: bool,
}

impl JsonSlot {
    pub(crate) fn new(slot: &SlotInfo, in_use: Option<&SlotInfo>) -> Self {
        Self {
            slot: slot.index,
            kind: slot.factors.to_string(),
            needs: needs(slot.factors),
            label: slot.label.clone(),
            created: created(slot),
            in_use: in_use == Some(slot),
        }
    }

    /// For a person.
    pub(crate) fn line(&self) -> String {
        let label = if self.label.is_empty() { String::new() } else { format!(", {}", shown(self.label.as_bytes())) };
        format!("slot {}, {}{label}", self.slot, self.kind)
    }
}

#[derive(Serialize)]
struct List {
    slots: Vec<JsonSlot>,
}

#[derive(Serialize)]
struct Changed<'a> {
    command: &'static str,
    #[serde(flatten)]
    slot: &'a JsonSlot,
}

pub(crate) async fn run(command: Command, context: &mut Context) -> Result<(), Failure> {
    match command {
        Command::List => list(context).await,
        Command::Add(arguments) => add(&arguments, context).await,
        Command::Rm(arguments) => remove(&arguments, context).await,
        Command::Passwd(arguments) => change(&arguments, context).await,
        Command::Rotate => Err(Failure::usage(
            "key rotate is not supported yet: to shut someone out for good, `copy` this repository into a new one, and destroy it",
        )),
    }
}

async fn list(context: &mut Context) -> Result<(), Failure> {
    let repository = context.open(Access::Read).await?;
    let (slots, in_use) = (repository.slots().await?, repository.slot_in_use().await?);
    repository.close().await?;
    let slots: Vec<JsonSlot> = slots.iter().map(|slot| JsonSlot::new(slot, in_use.as_ref())).collect();
    if context.output.json() {
        return context.output.document("strongroom/key-list/1", &List { slots });
    }
    for JsonSlot { slot, kind, label, created, in_use, .. } in slots {
        let mark = if in_use { '*' } else { ' ' };
        let line = format!("{slot}{mark} {kind:<21}  {created}  {}", shown(label.as_bytes()));
        context.output.line(line.trim_end())?;
    }
    Ok(())
}

async fn add(arguments: &Add, context: &mut Context) -> Result<(), Failure> {
    check_label(&arguments.label)?;
    let repository = context.open(Access::Write).await?;
    let (credentials, written) = arguments.new.credentials(context, &context.uri()?.to_string(), None)?;
    let before = repository.slots().await?;
    let done = repository.add_slot(&NewSlot { credentials: &credentials, label: &arguments.label }).await;
    settle(written, &done, context);
    let slots = done?;
    repository.close().await?;
    let added = slots.iter().find(|slot| !before.contains(slot) && slot.label == arguments.label);
    report("key add", "added", added, context)?;
    if let Some(added) = added {
        tell_needs(&format!("slot {}", added.index), added.factors, context);
    }
    Ok(())
}

async fn remove(arguments: &Rm, context: &mut Context) -> Result<(), Failure> {
    let repository = context.open(Access::Write).await?;
    let slot = find(&repository, &arguments.slot).await?;
    let in_use = repository.slot_in_use().await?;
    repository.remove_slot(&slot).await?;
    repository.close().await?;
    report("key rm", "removed", Some(&slot), context)?;
    if in_use.as_ref() == Some(&slot) {
        context
            .output
            .notice("it was the slot of the credentials given here: they do not open this repository any more");
    }
    revokes_nothing(context);
    Ok(())
}

async fn change(arguments: &Passwd, context: &mut Context) -> Result<(), Failure> {
    arguments.label.as_deref().map_or(Ok(()), check_label)?;
    let repository = context.open(Access::Write).await?;
    let in_use = repository.slot_in_use().await?;
    let slot = match (&arguments.slot, &in_use) {
        (Some(named), _) => find(&repository, named).await?,
        (None, Some(in_use)) if in_use.factors.contains(Factors::RECOVERY) => {
            return Err(Failure::usage(
                "opened with the recovery key: name the slot to change with --slot (see `key list`), \
                or make a new recovery key with `recovery new`",
            ));
        }
        (None, Some(in_use)) => in_use.clone(),
        (None, None) => return Err(Failure::from(strongroom::core::Error::Conflict)),
    };
    let same = in_use.as_ref() == Some(&slot);
    // The key file at hand stays the second factor of the slot that it is of.
    let has_key_file = slot.factors.contains(Factors::KEY_FILE);
    let kept = context.key_file().filter(|_| same && has_key_file);
    // Of another slot it is not at hand: a second factor must not be lost by the way.
    if has_key_file && kept.is_none() && !arguments.new.names_key_file() {
        return Err(Failure::usage(format!(
            "slot {} takes a key file: pass --with-key-file or --new-key-file too; a way in without one is another slot, \
            see `key add` and `key rm`",
            slot.index
        )));
    }
    // Nor by saying nothing of it: at a terminal the question says that there may be none.
    let has_password = slot.factors.contains(Factors::PASSWORD);
    let is_silent = !arguments.new.names_password() && !password::can_ask(&context.global);
    if is_silent && (has_password || !arguments.new.names_key_file()) {
        return Err(Failure::usage(format!(
            "no new password for slot {}: pass --new-password-file, --new-password-command or --new-password-fd; a way in \
            with a key file alone is another slot, see `key add` and `key rm`",
            slot.index
        )));
    }
    let (credentials, written) = arguments.new.credentials(context, &context.uri()?.to_string(), kept)?;
    let label = arguments.label.as_deref().unwrap_or(&slot.label);
    let done = repository.replace_slot(&slot, &NewSlot { credentials: &credentials, label }).await;
    settle(written, &done, context);
    let slots = done?;
    repository.close().await?;
    let changed = slots.iter().find(|changed| changed.index == slot.index);
    report("key passwd", "changed", changed, context)?;
    if let Some(changed) = changed {
        tell_needs(&format!("slot {}", changed.index), changed.factors, context);
    }
    revokes_nothing(context);
    Ok(())
}

/// A number as a label would be taken for a slot's.
pub(crate) fn check_label(label: &str) -> Result<(), Failure> {
    if label.parse::<u8>().is_ok() {
        return Err(Failure::usage(format!("a slot cannot be called {label}: numbers are those of slots")));
    }
    Ok(())
}

/// The slot of this number, or of this label where only one has it.
async fn find(repository: &Repository, named: &str) -> Result<SlotInfo, Failure> {
    // Not the one without a label: a variable of a script that is not set must not choose a slot.
    if named.is_empty() {
        return Err(Failure::usage("no slot is named: give its number or its label, as `key list` shows them"));
    }
    let slots = repository.slots().await?;
    let mut found = slots.iter().filter(|slot| slot.index.to_string() == named || slot.label == named);
    match (found.next(), found.next()) {
        (Some(slot), None) => Ok(slot.clone()),
        (Some(_), Some(_)) => {
            Err(Failure::usage(format!("several slots are called {}: give the number", shown(named.as_bytes()))))
        }
        (None, _) => Err(Failure::usage(format!("no slot {}: `key list` shows them", shown(named.as_bytes())))),
    }
}

/// Keeps the key file where it is a slot's, or may be.
pub(crate) fn settle<T>(written: Option<Written>, done: &Result<T, strongroom::Error>, context: &Context) {
    let Some(written) = written else { return };
    if let (Some(path), true) = (written.keep_if(done), done.is_err()) {
        context.output.notice(&format!("{} is kept: it may be of use, see `key list`", path.display()));
    }
}

/// Says what was done with which slot.
pub(crate) fn report(
    command: &'static str,
    done: &str,
    slot: Option<&SlotInfo>,
    context: &mut Context,
) -> Result<(), Failure> {
    if let Some(slot) = slot {
        let slot = JsonSlot::new(slot, None);
        if context.output.json() {
            context.output.document("strongroom/key-slot/1", &Changed { command, slot: &slot })?;
        }
        context.output.summary(&format!("{done} {}", slot.line()))?;
    }
    context.output.notice("a header that was exported before is out of date: export it again");
    Ok(())
}

/// The names of factors that are needed together.
pub(crate) fn needs(factors: Factors) -> Vec<&'static str> {
    let names = [(Factors::PASSWORD, "password"), (Factors::KEY_FILE, "key file"), (Factors::RECOVERY, "recovery key")];
    names.into_iter().filter(|(factor, _)| factors.contains(*factor)).map(|(_, name)| name).collect()
}

/// Says of what was made that it opens with several factors together: one of them may come from a variable, unnoticed.
pub(crate) fn tell_needs(what: &str, factors: Factors, context: &Context) {
    let needs = needs(factors);
    if needs.len() > 1 {
        context.output.notice(&format!("{what} needs the {}: neither opens it alone", needs.join(" and the ")));
    }
}

pub(crate) fn revokes_nothing(context: &Context) {
    context.output.notice(
        "who kept a copy of the old header can still open this repository with the old credentials; \
        `key rotate`, which will protect what is written later, is not there yet",
    );
}

fn created(slot: &SlotInfo) -> String {
    units::moment(i64::try_from(slot.created / 1000).unwrap_or(i64::MAX))
}
