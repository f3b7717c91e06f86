//! What the command line holds: the flags of every command, and the commands.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::command;
use crate::exit::Failure;
use crate::units;

/// Encrypted, transactional, versioned, deduplicated storage.
#[derive(Debug, Parser)]
#[command(name = "strongroom", version, about, disable_help_subcommand = true, arg_required_else_help = true)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The flags of every command.
#[derive(Debug, Args)]
#[command(next_help_heading = "Flags of every command")]
pub(crate) struct Global {
    /// The repository, as a URI; a bare path is `file:`
    #[arg(short, long, global = true, value_name = "URI", env = "STRONGROOM_REPO", hide_env_values = true)]
    pub(crate) repo: Option<OsString>,

    /// Read the password from the first line of a file [env: STRONGROOM_PASSWORD_FILE]
    #[arg(long, global = true, value_name = "FILE", conflicts_with_all = ["password_command", "password_fd"])]
    pub(crate) password_file: Option<PathBuf>,

    /// Read the password from the output of a shell command [env: STRONGROOM_PASSWORD_COMMAND]
    #[arg(long, global = true, value_name = "COMMAND", conflicts_with = "password_fd")]
    pub(crate) password_command: Option<OsString>,

    /// Read the password from an open file descriptor (or set STRONGROOM_PASSWORD)
    #[arg(long, global = true, value_name = "N")]
    pub(crate) password_fd: Option<u32>,

    /// A key file: the second factor, or the only one [env: STRONGROOM_KEY_FILE]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) key_file: Option<PathBuf>,

    /// A recovery key, instead of password and key file
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) recovery_key: Option<PathBuf>,

    /// A folder in which ciphertext of remote storage is kept for the next time, or `none`; without it, memory
    #[arg(long, global = true, value_name = "DIR|none", env = "STRONGROOM_CACHE", hide_env_values = true)]
    pub(crate) cache: Option<OsString>,

    /// How large that cache may grow: 1GiB in a folder, 64MiB in memory, unless said otherwise
    #[arg(long, global = true, value_name = "N", value_parser = units::parse_size)]
    pub(crate) cache_size: Option<u64>,

    /// Bandwidth to the storage, at most
    #[arg(long, global = true, value_name = "N/s", value_parser = units::parse_rate)]
    pub(crate) limit_upload: Option<u64>,

    /// Bandwidth from the storage, at most
    #[arg(long, global = true, value_name = "N/s", value_parser = units::parse_rate)]
    pub(crate) limit_download: Option<u64>,

    /// Look at a snapshot, or, where none has that name, at the newest one that is not younger than a time:
    /// 2026-01-31T23:59:59Z; 2026-01-31, all of it, in UTC; or 8h, so long ago
    #[arg(long, global = true, value_name = "SNAPSHOT|TIME")]
    pub(crate) at: Option<String>,

    /// Open a repository that is older than what this device has seen
    #[arg(long, global = true)]
    pub(crate) accept_rollback: bool,

    /// Print one JSON document, or JSON lines
    #[arg(long, global = true)]
    pub(crate) json: bool,

    /// Say nothing that was not asked for
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,

    /// Say more
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,

    /// Never ask for anything
    #[arg(long, global = true)]
    pub(crate) no_input: bool,

    /// Show no progress
    #[arg(long, global = true)]
    pub(crate) no_progress: bool,
}

impl Global {
    /// Only what looks at files and keys can look at those of a snapshot, or at what it needs; elsewhere the flag is refused rather than ignored.
    pub(crate) fn refuse_at_where_nothing_is_looked_at(&self, command: &Command) -> Result<(), Failure> {
        if self.at.is_some() && !command.looks() {
            return Err(Failure::usage("--at is for commands that look at files or keys: leave it out"));
        }
        Ok(())
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create a repository
    Init(command::init::Arguments),
    /// Store files and folders with their metadata
    Import(command::import::Arguments),
    /// Write files and folders out with their metadata
    Export(command::export::Arguments),
    /// List a folder
    Ls(command::ls::Arguments),
    /// Show a folder and all below it
    Tree(command::tree::Arguments),
    /// Look for files and folders by name, kind, size and time
    Find(command::find::Arguments),
    /// Show how many bytes are in files, folder by folder
    Du(command::du::Arguments),
    /// Show what is known of a file or folder
    Stat(command::stat::Arguments),
    /// Print files
    Cat(command::cat::Arguments),
    /// Store one file
    Put(command::put::Arguments),
    /// Write one file out
    Get(command::get::Arguments),
    /// Make folders
    Mkdir(command::mkdir::Arguments),
    /// Remove files and folders
    Rm(command::rm::Arguments),
    /// Move or rename
    Mv(command::mv::Arguments),
    /// Copy, sharing what is copied
    Cp(command::cp::Arguments),
    /// Give a file one more name, or make a symbolic link
    Ln(command::ln::Arguments),
    /// Do many operations in one transaction
    Batch(command::batch::Arguments),
    /// Show the versions of a file, and change how many are kept
    History(command::history::Arguments),
    /// Make an older version of a file the current one
    Restore(command::restore::Arguments),
    /// Show what a repository is
    Info(command::info::Arguments),
    /// Look for damage
    Check(command::check::Arguments),
    /// Give space back
    Compact(command::compact::Arguments),
    /// Keep files and keys as they are, and bring them back
    #[command(subcommand)]
    Snapshot(command::snapshot::Command),
    /// Change who can open a repository
    #[command(subcommand)]
    Key(command::key::Command),
    /// Make or try a recovery key
    #[command(subcommand)]
    Recovery(command::recovery::Command),
    /// Keep the header elsewhere, and put it back
    #[command(subcommand)]
    Header(command::header::Command),
    /// Copy everything into a new repository, with other keys, another cipher or another block size
    Copy(command::copy::Arguments),
    /// Keep the same repository in another place too, and bring that up to date
    Clone(command::clone::Arguments),
    /// Read what several wrote apart, as two devices do whose folder a sync client keeps alike
    #[command(subcommand)]
    Fork(command::fork::Command),
    /// Delete a repository, its folder if nothing else is in it, and nothing else
    Destroy(command::destroy::Arguments),
    /// Use the key-value engine
    #[command(subcommand)]
    Kv(command::kv::Command),
    /// Show which storages there are, and what they can do
    Backends(command::backends::Arguments),
    /// Try a storage: whether it keeps what every storage promises
    Conformance(command::conformance::Arguments),
    /// Print the completion script of a shell
    Completions(command::completions::Arguments),
    /// Print the manual page
    Man(command::man::Arguments),
}

impl Command {
    /// Whether it reads files or keys and writes nothing, so that it can be shown an earlier state.
    fn looks(&self) -> bool {
        match self {
            Self::Ls(_)
            | Self::Tree(_)
            | Self::Stat(_)
            | Self::Cat(_)
            | Self::Get(_)
            | Self::Export(_)
            | Self::Find(_)
            | Self::Du(_)
            | Self::Info(_)
            | Self::Check(_)
            | Self::Copy(_) => true,
            Self::History(arguments) => arguments.looks(),
            Self::Kv(command) => command.looks(),
            Self::Snapshot(command) => command.looks(),
            _ => false,
        }
    }
}

/// What was named, each once however often it was: whoever lists the same twice means it once.
pub(crate) fn once<P: AsRef<OsStr> + Clone>(paths: &[P]) -> Vec<P> {
    let mut seen = HashSet::new();
    paths
        .iter()
        .map(|path| (path.as_ref(), path))
        .filter(|(name, _)| seen.insert(*name))
        .map(|(_, path)| path.clone())
        .collect()
}
