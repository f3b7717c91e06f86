//! `kv get|put|del|scan`: the key-value engine itself.

use std::ffi::{OsStr, OsString};
use std::io::Read as _;

use clap::{Args, Subcommand};
use serde::Serialize;
use strongroom::kv::{KvSnapshot, VALUE_BYTES_MAX, prefix};

use crate::context::{Access, Context};
use crate::exit::Failure;
use crate::local::bytes_of;
use crate::output::{hex, shown};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Print the value of a key, as it is
    Get {
        /// The key
        key: OsString,
    },
    /// Set a key
    Put {
        /// The key
        key: OsString,
        /// The value; `-` reads it from stdin
        #[arg(allow_hyphen_values = true)]
        value: OsString,
    },
    /// Remove keys, all in one transaction
    Del {
        /// The keys
        #[arg(required = true)]
        keys: Vec<OsString>,
    },
    /// List keys in order
    Scan(Scan),
}

#[derive(Debug, Args)]
pub(crate) struct Scan {
    /// Only keys that start so
    prefix: Option<OsString>,
    /// From the last key to the first
    #[arg(long)]
    reverse: bool,
    /// At most so many
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Print the values too
    #[arg(long)]
    values: bool,
}

/// Keys and values are text where they are UTF-8, else hexadecimal.
#[derive(Serialize)]
struct Row {
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_hex: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_hex: Option<String>,
    bytes: u64,
}

impl Command {
    /// Whether it can be shown an earlier state.
    pub(crate) fn looks(&self) -> bool {
        matches!(self, Self::Get { .. } | Self::Scan(_))
    }
}

pub(crate) async fn run(command: Command, context: &mut Context) -> Result<(), Failure> {
    match command {
        Command::Get { key } => get(&key, context).await,
        Command::Put { key, value } => put(&key, &value, context).await,
        Command::Del { keys } => delete(&keys, context).await,
        Command::Scan(arguments) => scan(&arguments, context).await,
    }
}

async fn get(key: &OsStr, context: &mut Context) -> Result<(), Failure> {
    let (repository, keys) = context.look_at_keys().await?;
    let key = bytes_of(key);
    let value = keys.get(key).await?;
    repository.close().await?;
    let value = value.ok_or_else(|| Failure::failed(format!("{}: no such key", shown(key))))?;
    if context.output.json() {
        return context.output.document("strongroom/kv-row/1", &row(key, Some(&value), length(value.len())));
    }
    context.output.bytes(&value)
}

async fn put(key: &OsStr, value: &OsStr, context: &mut Context) -> Result<(), Failure> {
    let value = if value == "-" { read_stdin()? } else { bytes_of(value).to_vec() };
    let repository = context.open(Access::Write).await?;
    repository.kv().put(bytes_of(key), &value).await?;
    repository.close().await?;
    context.output.done("kv put")
}

async fn delete(keys: &[OsString], context: &mut Context) -> Result<(), Failure> {
    let repository = context.open(Access::Write).await?;
    let kv = repository.kv();
    kv.transact(async |transaction| {
        for key in keys {
            if !transaction.delete(bytes_of(key)).await? {
                return Err(Failure::failed(format!("{}: no such key; nothing was removed", shown(bytes_of(key)))));
            }
        }
        Ok(())
    })
    .await?;
    repository.close().await?;
    context.output.done("kv del")
}

async fn scan(arguments: &Scan, context: &mut Context) -> Result<(), Failure> {
    let (repository, keys) = context.look_at_keys().await?;
    print_rows(&keys, arguments, context).await?;
    Ok(repository.close().await?)
}

async fn print_rows(keys: &KvSnapshot, arguments: &Scan, context: &mut Context) -> Result<(), Failure> {
    let range = prefix(arguments.prefix.as_deref().map_or(&[], bytes_of));
    let mut scan = if arguments.reverse { keys.scan_reverse(range) } else { keys.scan(range) };
    let mut left = arguments.limit.unwrap_or(u64::MAX);
    while left > 0 {
        context.interrupt.check()?;
        left -= 1;
        if arguments.values {
            let Some((key, value)) = scan.next().await? else { break };
            if context.output.json() {
                let row = row(&key, Some(&value), length(value.len()));
                context.output.document("strongroom/kv-row/1", &row)?;
            } else {
                context.output.line(&format!("{}\t{}", shown(&key), shown(&value)))?;
            }
        } else {
            let Some((key, bytes)) = scan.next_key().await? else { break };
            if context.output.json() {
                context.output.document("strongroom/kv-row/1", &row(&key, None, bytes))?;
            } else {
                context.output.name_line(&key)?;
            }
        }
    }
    Ok(())
}

fn row(key: &[u8], value: Option<&[u8]>, bytes: u64) -> Row {
    let text = |bytes: &[u8]| std::str::from_utf8(bytes).ok().map(str::to_owned);
    let as_hex = |bytes: &[u8]| std::str::from_utf8(bytes).is_err().then(|| hex(bytes));
    Row { key: text(key), key_hex: as_hex(key), value: value.and_then(text), value_hex: value.and_then(as_hex), bytes }
}

fn read_stdin() -> Result<Vec<u8>, Failure> {
    let mut value = Vec::new();
    // One byte over the limit is enough for the engine to refuse it.
    std::io::stdin()
        .lock()
        .take(length(VALUE_BYTES_MAX) + 1)
        .read_to_end(&mut value)
        .map_err(|error| Failure::failed(format!("cannot read the value from stdin: {error}")))?;
    Ok(value)
}

fn length(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}
