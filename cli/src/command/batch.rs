//! `batch < ops.jsonl`: many operations, one transaction.
//!
//! One JSON object a line, of which `op` names the operation; blank lines are passed over. The whole list is read before
//! anything is done, since a transaction that loses a race is run again.

use std::ffi::OsString;
use std::io::Read as _;
use std::path::Path;

use clap::Args;
use serde::{Deserialize, Serialize};
use strongroom::fs::{AttributeChange, Follow, Op as FileOp, Timestamp, XattrMode};
use strongroom::{Op, Transaction};

use crate::command::mv::refuse_dots;
use crate::context::{Access, Context, transact_all};
use crate::exit::{Failure, of_folder};
use crate::local::own::Own;
use crate::output::shown;
use crate::units;

/// The longest list that is taken.
const INPUT_BYTES_MAX: usize = 256 << 20;
/// Read at once.
const PIECE_BYTES: usize = 64 << 10;

#[derive(Debug, Args)]
#[command(after_help = HELP, after_long_help = HELP)]
pub(crate) struct Arguments {
    /// A file of operations, one JSON object a line; `-` is stdin
    #[arg(default_value = "-")]
    file: OsString,
}

// A paragraph is a line: the help is broken to the width of where it is shown.
const HELP: &str = "\
A line reads {\"op\": \"mkdir\", \"path\": \"/a/b\", \"parents\": true}. Operations and their fields, those in brackets at will:

mkdir: path, [parents]
rm: path, [recursive], [force]
rmdir: path
mv: from, to, [replace]
exchange: one, other
cp: from, to, [recursive]
ln: target, link, [symbolic]
write: path, content
append: path, content
write-at: path, offset, content
truncate: path, size
punch: path, offset, length
set: path, [mode], [uid], [gid], [mtime], [atime], [follow]
setxattr: path, name, value, [follow]
rmxattr: path, name, [follow]
kv-put: key, value, [table]
kv-del: key, [table], [force]

With \"force\": true what is not there is no error for rm and kv-del, and rm can name \"/\" and remove all that is in it. mv takes the \
place of what is there, but with \"replace\": false. mode, mtime and atime are strings: \"0644\", \
\"2026-01-31T23:59:59Z\", to the second. All that can be true is false where it is \
not given, but for replace and follow. Keys are those of the command kv, but with the number of a table of an application's own.

A path, name, key, value or content is a string, or {\"hex\": \"00ff\"} for bytes that are no text.";

/// A path or content: text, or any bytes in hexadecimal.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Bytes {
    Text(String),
    Hexadecimal(Hexadecimal),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Hexadecimal {
    hex: String,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case", deny_unknown_fields)]
enum Line {
    Mkdir {
        path: Bytes,
        #[serde(default)]
        parents: bool,
    },
    Rm {
        path: Bytes,
        #[serde(default)]
        recursive: bool,
        /// What is not there is no error; the root folder is emptied too.
        #[serde(default)]
        force: bool,
    },
    Rmdir {
        path: Bytes,
    },
    Mv {
        from: Bytes,
        to: Bytes,
        #[serde(default = "yes")]
        replace: bool,
    },
    Exchange {
        one: Bytes,
        other: Bytes,
    },
    Cp {
        from: Bytes,
        to: Bytes,
        #[serde(default)]
        recursive: bool,
    },
    Ln {
        target: Bytes,
        link: Bytes,
        #[serde(default)]
        symbolic: bool,
    },
    Write {
        path: Bytes,
        content: Bytes,
    },
    Append {
        path: Bytes,
        content: Bytes,
    },
    WriteAt {
        path: Bytes,
        offset: u64,
        content: Bytes,
    },
    Truncate {
        path: Bytes,
        size: u64,
    },
    Punch {
        path: Bytes,
        offset: u64,
        length: u64,
    },
    Set {
        path: Bytes,
        mode: Option<String>,
        uid: Option<u32>,
        gid: Option<u32>,
        mtime: Option<String>,
        atime: Option<String>,
        #[serde(default = "yes")]
        follow: bool,
    },
    Setxattr {
        path: Bytes,
        name: Bytes,
        value: Bytes,
        #[serde(default = "yes")]
        follow: bool,
    },
    Rmxattr {
        path: Bytes,
        name: Bytes,
        #[serde(default = "yes")]
        follow: bool,
    },
    KvPut {
        key: Bytes,
        value: Bytes,
        table: Option<u8>,
    },
    KvDel {
        key: Bytes,
        table: Option<u8>,
        /// A key that is not there is no error.
        #[serde(default)]
        force: bool,
    },
}

fn yes() -> bool {
    true
}

#[derive(Serialize)]
struct Report {
    operations: usize,
    /// The number of the commit.
    commit: u64,
}

pub(crate) async fn run(arguments: Arguments, context: &mut Context) -> Result<(), Failure> {
    let from_stdin = arguments.file == "-";
    // A file is read before anyone is asked for a password, stdin after: the password may come from it.
    let early = if from_stdin { None } else { Some(parse(&read(Path::new(&arguments.file), context.own())?)?) };
    let repository = context.open(Access::Write).await?;
    let operations = match early {
        Some(parsed) => parsed,
        None => parse(&read_stdin(context)?)?,
    };
    let at_once = context.interrupt.stops_at_once()?;
    let commit = transact_all(&repository, async |transaction| {
        for operation in &operations {
            let done = operation.apply(transaction).await;
            done.map_err(|failure| failure.on(format!("line {}", operation.line)))?;
        }
        Ok(())
    })
    .await?;
    drop(at_once);
    repository.close().await?;
    let report = Report { operations: operations.len(), commit: commit.sequence };
    if context.output.json() {
        return context.output.document("strongroom/batch/1", &report);
    }
    context.output.summary(&format!("{} operations in commit {}", report.operations, report.commit))
}

fn read(path: &Path, own: &Own) -> Result<Vec<u8>, Failure> {
    let failed = |error| Failure::failed(format!("{}: cannot read: {error}", path.display()));
    own.refuse_reading(path).map_err(failed)?;
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut input = Vec::new();
    file.take(u64::try_from(INPUT_BYTES_MAX).unwrap_or(u64::MAX) + 1).read_to_end(&mut input).map_err(failed)?;
    refuse_long(&input)?;
    Ok(input)
}

fn read_stdin(context: &Context) -> Result<Vec<u8>, Failure> {
    let mut stdin = std::io::stdin().lock();
    let (mut input, mut piece) = (Vec::new(), vec![0; PIECE_BYTES]);
    loop {
        context.interrupt.wait_for_stdin()?;
        match stdin.read(&mut piece) {
            Ok(0) => return Ok(input),
            Ok(read) => input.extend_from_slice(piece.get(..read).unwrap_or_default()),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Failure::failed(format!("cannot read stdin: {error}"))),
        }
        refuse_long(&input)?;
    }
}

fn refuse_long(input: &[u8]) -> Result<(), Failure> {
    if input.len() <= INPUT_BYTES_MAX {
        return Ok(());
    }
    let most = units::size(u64::try_from(INPUT_BYTES_MAX).unwrap_or(u64::MAX));
    Err(Failure::failed(format!("more than {most} of operations: store large contents with `put` or `import`")))
}

/// Something to do.
struct Operation {
    op: Op,
    /// The number of the line that says so.
    line: usize,
    /// What is not there need not be removed.
    is_forced: bool,
}

impl Operation {
    async fn apply(&self, transaction: &mut Transaction) -> Result<(), Failure> {
        let (key, was_there) = match &self.op {
            Op::File(FileOp::RemoveFile { path } | FileOp::RemoveAll { path })
                if self.is_forced
                    && matches!(
                        transaction.fs().symlink_metadata(path).await,
                        Err(strongroom::Error::NotFound { .. })
                    ) =>
            {
                return Ok(());
            }
            Op::Delete { key } => (key, transaction.kv().delete(key).await?),
            Op::DeleteIn { table, key } => (key, transaction.table(*table)?.delete(key).await?),
            op => return transaction.apply(op).await.map_err(|error| refused(op, error)),
        };
        if was_there || self.is_forced {
            return Ok(());
        }
        Err(Failure::failed(format!("{}: no such key", shown(key))))
    }
}

/// What could not be done, and what can be.
fn refused(op: &Op, error: strongroom::Error) -> Failure {
    use strongroom::Error as E;
    let is_of = |path: &[u8], told: &str| String::from_utf8_lossy(path) == told;
    let Op::File(op) = op else { return error.into() };
    let instead = match (op, &error) {
        (FileOp::RemoveFile { .. }, E::IsADirectory { .. }) => {
            ": say \"recursive\": true to remove it with all that is in it, or rmdir where it is empty"
        }
        (FileOp::Copy { from, .. }, E::IsADirectory { path }) if is_of(from, path) => {
            ": say \"recursive\": true to copy it"
        }
        (FileOp::HardLink { existing, .. }, E::IsADirectory { path }) if is_of(existing, path) => {
            ", and has one name only: say \"symbolic\": true"
        }
        (FileOp::RemoveDir { .. }, E::NotEmpty { path }) => {
            let what = "is not empty: rm with \"recursive\": true removes it with all that is in it";
            return Failure::failed(format!("{path}: {what}"));
        }
        (FileOp::RemoveDir { .. }, E::NotADirectory { path }) => {
            return Failure::failed(format!(
                "{path}: is not a folder, and neither is anything in it: rm removes files"
            ));
        }
        _ => return error.into(),
    };
    of_folder(instead)(error)
}

fn parse(input: &[u8]) -> Result<Vec<Operation>, Failure> {
    let mut operations = Vec::new();
    for (text, line) in input.split(|byte| *byte == b'\n').zip(1..) {
        if text.trim_ascii().is_empty() {
            continue;
        }
        let refused = |reason: String| Failure::usage(format!("line {line}: {reason}"));
        let parsed: Line = serde_json::from_slice(text).map_err(|error| {
            // Where in the line it is, without the line of the parser, which is always the first.
            refused(format!("makes no sense: {error}").replace(" at line 1 column ", " at column "))
        })?;
        let is_forced = matches!(parsed, Line::Rm { force: true, .. } | Line::KvDel { force: true, .. });
        let op = parsed.op().map_err(refused)?;
        refuse_slip(&op, is_forced).map_err(|failure| failure.on(format!("line {line}")))?;
        operations.push(Operation { op, line, is_forced });
    }
    Ok(operations)
}

/// What `rm` and `mv` refuse, too.
fn refuse_slip(op: &Op, is_forced: bool) -> Result<(), Failure> {
    let Op::File(op) = op else { return Ok(()) };
    match op {
        FileOp::RemoveAll { path } if !is_forced && !path.is_empty() && path.iter().all(|byte| *byte == b'/') => {
            let what = "is all that there is: say \"force\": true to remove everything in it";
            Err(Failure::failed(format!("{}: {what}", shown(path))))
        }
        FileOp::RemoveAll { path } | FileOp::RemoveFile { path } | FileOp::Rename { from: path, .. } => {
            refuse_dots(path)
        }
        _ => Ok(()),
    }
}

impl Bytes {
    fn get(self) -> Result<Vec<u8>, String> {
        match self {
            Self::Text(text) => Ok(text.into_bytes()),
            Self::Hexadecimal(Hexadecimal { hex }) => bytes(&hex).ok_or_else(|| format!("`{hex}` is not hexadecimal")),
        }
    }
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    let digits = hex.as_bytes();
    if !digits.len().is_multiple_of(2) || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    digits.chunks(2).map(byte).collect()
}

impl Line {
    fn op(self) -> Result<Op, String> {
        let followed = |follow: bool| if follow { Follow::Yes } else { Follow::No };
        Ok(Op::File(match self {
            Self::KvPut { key, value, table } => {
                let (key, value) = (key.get()?, value.get()?);
                return Ok(match table {
                    None => Op::Put { key, value },
                    Some(table) => Op::PutIn { table, key, value },
                });
            }
            Self::KvDel { key, table, .. } => {
                let key = key.get()?;
                return Ok(match table {
                    None => Op::Delete { key },
                    Some(table) => Op::DeleteIn { table, key },
                });
            }
            Self::Mkdir { path, parents: false } => FileOp::CreateDir { path: path.get()? },
            Self::Mkdir { path, parents: true } => FileOp::CreateDirAll { path: path.get()? },
            Self::Rm { path, recursive: false, .. } => FileOp::RemoveFile { path: path.get()? },
            Self::Rm { path, recursive: true, .. } => FileOp::RemoveAll { path: path.get()? },
            Self::Rmdir { path } => FileOp::RemoveDir { path: path.get()? },
            Self::Mv { from, to, replace } => FileOp::Rename { from: from.get()?, to: to.get()?, replace },
            Self::Exchange { one, other } => FileOp::Exchange { one: one.get()?, other: other.get()? },
            Self::Cp { from, to, recursive: false } => FileOp::Copy { from: from.get()?, to: to.get()? },
            Self::Cp { from, to, recursive: true } => FileOp::CopyAll { from: from.get()?, to: to.get()? },
            Self::Ln { target, link, symbolic: false } => {
                FileOp::HardLink { existing: target.get()?, link: link.get()? }
            }
            Self::Ln { target, link, symbolic: true } => FileOp::Symlink { target: target.get()?, link: link.get()? },
            Self::Write { path, content } => FileOp::Write { path: path.get()?, content: content.get()? },
            Self::Append { path, content } => FileOp::Append { path: path.get()?, bytes: content.get()? },
            Self::WriteAt { path, offset, content } => {
                FileOp::WriteAt { path: path.get()?, offset, bytes: content.get()? }
            }
            Self::Truncate { path, size } => FileOp::SetLen { path: path.get()?, size },
            Self::Punch { path, offset, length } => FileOp::PunchHole { path: path.get()?, offset, length },
            Self::Set { path, mode, uid, gid, mtime, atime, follow } => {
                let mode = mode.map(|text| parse_mode(&text)).transpose()?;
                let (mtime, atime) = (parse_time(mtime)?, parse_time(atime)?);
                let change = AttributeChange { mode, uid, gid, mtime, atime };
                FileOp::SetAttributes { path: path.get()?, change, follow: followed(follow) }
            }
            Self::Setxattr { path, name, value, follow } => FileOp::SetXattr {
                path: path.get()?,
                name: name.get()?,
                value: value.get()?,
                mode: XattrMode::Set,
                follow: followed(follow),
            },
            Self::Rmxattr { path, name, follow } => {
                FileOp::RemoveXattr { path: path.get()?, name: name.get()?, follow: followed(follow) }
            }
        }))
    }
}

fn parse_time(text: Option<String>) -> Result<Option<Timestamp>, String> {
    let seconds = text.map(|text| units::parse_moment(&text)).transpose()?;
    Ok(seconds.and_then(|seconds| Timestamp::new(seconds, 0)))
}

fn parse_mode(text: &str) -> Result<u32, String> {
    let octal = text.bytes().all(|byte| matches!(byte, b'0'..=b'7')).then(|| u32::from_str_radix(text, 8).ok());
    let mode = octal.flatten().filter(|mode| *mode <= crate::local::MODE_BITS);
    mode.ok_or_else(|| format!("`{text}` is not a mode: write it as 0644"))
}
