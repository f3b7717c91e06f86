//! Where the clauses are tried: a store, and what can be done to it from outside.

use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use strongroom_core::storage::{Name, Reach, Result, Storage};

use super::{sample_bytes, sample_name, visitor};

/// A store that was empty when it was made, and goes away with this value.
///
/// Only [`Place::open`] must be written. The other methods are hooks: what a place cannot do is not tested, and the
/// verdict of the clause says so.
#[async_trait]
pub trait Place: Send + Sync {
    /// Opens one more handle, as another process would, as far as the reach of the storage allows.
    ///
    /// # Errors
    /// What the storage raises: the suite takes it for a failure.
    async fn open(&self) -> Result<Arc<dyn Storage>>;

    /// Opens a handle that can change what those of [`Place::open`] can only read. Where there is one, the suite puts and deletes
    /// through it, does everything else through the others, and tries that these refuse every change. `None` where they
    /// change it themselves.
    ///
    /// # Errors
    /// As [`Place::open`].
    async fn open_writer(&self) -> Result<Option<Arc<dyn Storage>>> {
        Ok(None)
    }

    /// How far apart the handles are that [`Place::open`] gives: [`Reach::Process`] unless this says otherwise, which is right
    /// where they share anything in the process. S2 and S5 are proved so far, and no further. Handles that share nothing in
    /// the process, such as a connection each to a server, may be called as far apart as those of other hosts.
    fn reach(&self) -> Reach {
        Reach::Process
    }

    /// Whether the handles that [`Place::open`] gives are all of one process: then `sync` on one of them covers what was put
    /// through the others (S9). False for a place that opens each in another process, or plays that it does.
    fn is_one_process(&self) -> bool {
        true
    }

    /// How long the suite waits for what must come, such as the answer to who waits for an exclusive guard that was
    /// dropped; then it takes for certain that it never comes. Half a minute, which is for a slow network too.
    fn patience(&self) -> Duration {
        Duration::from_secs(30)
    }

    /// Cuts the power, where the place is a double that can; false where it cannot.
    ///
    /// What every barrier that answered covers stays. Of the rest any part may be lost, torn, zeroed or out of order, as
    /// far as the storage says that it may, and as the seed decides: another seed, another loss. It answers `true` where
    /// the power was cut, even if nothing was lost. For a log it is enough to shorten the file after the last fsync. The
    /// handles that were open may be dead after it, or connect again: the suite uses new ones.
    fn power_loss(&self, seed: u64) -> bool {
        let _ = seed;
        false
    }

    /// Lets another process open this place and do [`work_until_killed`], kills it in the middle after `rounds` rounds or
    /// more, and answers how many it acknowledged; [`kill_after`] does most of this. `None` where the place cannot.
    ///
    /// The suite also calls this in a thread of its own, to have another process beside this one (S2, S14) until its first
    /// round: the process is met through the storage, by what [`work_until_killed`] does first. In S10 a handle stays open while
    /// the process dies, where the storage reaches further than one process; it may be dead afterwards.
    ///
    /// Where a server holds the data, both can die: the client in one place, and in another the server, under
    /// [`work_until_killed`] in this process, to be started again before this answers.
    fn process_death(&self, rounds: u64) -> Option<u64> {
        let _ = rounds;
        None
    }

    /// From now the first call that changes something takes effect, and its reply is lost: it fails. False where the place
    /// cannot arrange that.
    ///
    /// `put`, `put_durable` and `delete` count. Whether `apply`, `sync` and `persist` do is up to the place: where such a call
    /// succeeds all the same, the loss waits for the next one.
    fn lose_next_reply(&self) -> bool {
        false
    }

    /// Texts that no error may show, such as the password that this place is opened with.
    fn secrets(&self) -> Vec<String> {
        Vec::new()
    }
}

/// The blobs that one round of [`work_until_killed`] puts.
pub(super) const ROUND_PUTS: u64 = 3;

/// A blob of [`work_until_killed`].
pub(super) fn work_blob(number: u64, storage: &dyn Storage) -> (Name, Bytes) {
    let length = 20_000.min(storage.capabilities().block_bytes_max as usize);
    (sample_name(0x6469_6500 + number), sample_bytes(number, length))
}

/// What the process does that [`Place::process_death`] kills: puts, plain and durable, and a `sync` at the end of each
/// round, which is acknowledged then. Returns only when a call fails, as in a process that is dead already.
///
/// Before that, where a blob in the storage asks for it, it stays a while, so that the suite meets another process.
///
/// # Errors
/// What the storage raises.
pub async fn work_until_killed(storage: &dyn Storage, mut acknowledge: impl FnMut()) -> Result<()> {
    visitor::visit(storage).await?;
    for round in 0.. {
        for number in ROUND_PUTS * round..ROUND_PUTS * (round + 1) {
            let (name, bytes) = work_blob(number, storage);
            match number % ROUND_PUTS {
                1 => storage.put_durable(name, bytes).await?,
                _ => storage.put(name, bytes).await?,
            };
        }
        storage.sync().await?;
        acknowledge();
    }
    Ok(())
}

/// What the child of [`kill_after`] prints for each round.
const ACKNOWLEDGEMENT: &str = "strongroom-conformance: a round is acknowledged";

/// To be called by the child after each round, as `acknowledge` of [`work_until_killed`]: it writes a line to standard output,
/// past the capture of the test harness.
pub fn acknowledge_to_parent() {
    let mut stdout = io::stdout().lock();
    // A parent that is gone cannot be told.
    let _ = writeln!(stdout, "{ACKNOWLEDGEMENT}").and_then(|()| stdout.flush());
}

/// Starts a child that does [`work_until_killed`] with [`acknowledge_to_parent`], kills it after `rounds` rounds, and
/// answers how many it acknowledged. The acknowledgements come over the child's standard output, which is a pipe.
///
/// The child can be the test program itself, with one test that does nothing unless it is told to. `--nocapture` is not needed.
///
/// ```no_run
/// # use std::{path::Path, process::Command, sync::Arc};
/// # use strongroom_conformance::{block_on, storage::{acknowledge_to_parent, kill_after, work_until_killed}};
/// # use strongroom_core::storage::{Error, ErrorKind, Operation, Result, Storage};
/// # async fn open_at(folder: &Path) -> Result<Arc<dyn Storage>> {
/// #     Err(Error::new(ErrorKind::NotFound, Operation::Open, folder.display().to_string()))
/// # }
/// # struct MyPlace { folder: std::path::PathBuf }
/// const WORK_IN: &str = "MY_STORAGE_WORK_IN";
///
/// # impl MyPlace {
/// // In `impl Place for MyPlace`:
/// fn process_death(&self, rounds: u64) -> Option<u64> {
///     let mut child = Command::new(std::env::current_exe().unwrap());
///     // The whole name, with the modules that it is in: `inline::works_until_killed`.
///     child.args(["works_until_killed", "--exact"]).env(WORK_IN, &self.folder);
///     Some(kill_after(&mut child, rounds).unwrap())
/// }
/// # }
///
/// # /*
/// #[test]
/// # */
/// fn works_until_killed() {
///     let Some(folder) = std::env::var_os(WORK_IN) else { return };
///     block_on(async {
///         let storage = open_at(folder.as_ref()).await.unwrap();
///         work_until_killed(&*storage, acknowledge_to_parent).await.unwrap();
///     });
/// }
/// ```
///
/// # Errors
/// Where it cannot be started, or ends by itself before that.
pub fn kill_after(command: &mut Command, rounds: u64) -> io::Result<u64> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let stdout = child.stdout.take().ok_or_else(|| io::Error::other("the child has no stdout"))?;
    let mut acknowledged = 0;
    let mut was_killed = false;
    for line in BufReader::new(stdout).lines() {
        // Not `==`: the harness of a test may have begun the line.
        acknowledged += u64::from(line?.ends_with(ACKNOWLEDGEMENT));
        if acknowledged >= rounds && !was_killed {
            child.kill()?;
            was_killed = true;
        }
    }
    let status = child.wait()?;
    if !was_killed || status.success() {
        return Err(io::Error::other(format!("the child ended by itself, after {acknowledged} rounds: {status}")));
    }
    Ok(acknowledged)
}

/// The place that a process works at until it is killed.
const WORK_AT: &str = "STRONGROOM_CONFORMANCE_WORK_AT";

/// As [`kill_after`], where the process that dies is this test program, with the test of that name alone: the whole name, with the
/// modules that it is in. That test must begin with [`work_if_told_to`], to which the text `place` goes: a path, a URI.
///
/// # Errors
/// As [`kill_after`].
pub fn kill_this_program(test: &str, place: impl AsRef<OsStr>, rounds: u64) -> io::Result<u64> {
    let mut child = Command::new(std::env::current_exe()?);
    kill_after(child.args(["--exact", "--include-ignored", test]).env(WORK_AT, place), rounds)
}

/// In the process that [`kill_this_program`] begins: opens the place, and works there until it is killed. In all others it does
/// nothing. To be called before anything is made that nobody would remove then.
///
/// # Errors
/// What the storage raises.
pub fn work_if_told_to<F: Future<Output = Result<Arc<dyn Storage>>>>(open: impl FnOnce(OsString) -> F) -> Result<()> {
    let Some(place) = std::env::var_os(WORK_AT) else { return Ok(()) };
    crate::block_on(async {
        let storage = open(place).await?;
        work_until_killed(&*storage, acknowledge_to_parent).await
    })
}
