//! What this device remembers of each repository, so that a storage that goes back in time is noticed.
//!
//! One small file a (repository, location): the newest durable commit that was seen there, as its sequence number and
//! hash. It is written whole, synced, and renamed into place, so that it is never half there. It holds nothing secret. An empty
//! one beside it says that what this device has left behind there is of that history.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use strongroom_core::engine::TrustedState;
use strongroom_core::storage::{self, Operation};
use strongroom_core::{Error, Result};

/// The first line of the file; a later version has another.
const MAGIC: &str = "strongroom trusted state 2";
/// What begins its last line, before the BLAKE3 of all lines above.
const CHECKSUM: &str = "checksum ";
/// No such file is longer; one that is was not written by us.
const FILE_BYTES_MAX: u64 = 16 * 1024;

/// The newest durable commit seen: its sequence number and its hash.
pub type Seen = (u64, [u8; 32]);

/// Trusted state in a folder of this device, for one location (one copy) of a repository.
///
/// The location is part of the key because a mirror may rightly lag behind its original.
#[derive(Clone, Debug)]
pub struct LocalTrust {
    folder: PathBuf,
    location: String,
}

impl LocalTrust {
    /// In this user's state folder: `$XDG_STATE_HOME/strongroom` (else `~/.local/state/strongroom`), on macOS
    /// `~/Library/Application Support/strongroom`, on Windows `%LOCALAPPDATA%\strongroom`. `None` where the system
    /// names no such folder.
    #[must_use]
    pub fn for_user(location: impl Into<String>) -> Option<Self> {
        Some(Self::in_folder(state_folder()?, location))
    }

    /// In a folder of the caller's choice; it is created when the first state is stored.
    #[must_use]
    pub fn in_folder(folder: impl Into<PathBuf>, location: impl Into<String>) -> Self {
        Self { folder: folder.into(), location: location.into() }
    }

    /// Whether the folder is there or can be made.
    #[must_use]
    pub fn is_possible(&self) -> bool {
        create_private_folder(&self.folder).is_ok()
    }

    /// What was stored last, `None` where nothing was.
    ///
    /// # Errors
    /// What reading raises; a file that makes no sense is [`io::ErrorKind::InvalidData`], because taking it for "never
    /// seen" would let anyone who damages it hide a rollback.
    pub fn load(&self, repository: &[u8; 16]) -> io::Result<Option<Seen>> {
        let path = self.path(repository);
        let mut bytes = Vec::new();
        match File::open(&path) {
            Ok(file) => file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        match std::str::from_utf8(&bytes).ok().and_then(parse) {
            Some(seen) => Ok(Some(seen)),
            None => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("trusted state {} makes no sense: delete it to trust what is stored now", path.display()),
            )),
        }
    }

    /// Replaces what was stored, atomically and durably.
    ///
    /// # Errors
    /// What writing raises; the old state is kept then.
    pub fn store(&self, repository: &[u8; 16], seen: &Seen) -> io::Result<()> {
        create_private_folder(&self.folder)?;
        let path = self.path(repository);
        // A name of its own for each writer, so that two of them never write into one file.
        static WRITERS: AtomicU64 = AtomicU64::new(0);
        let writer = WRITERS.fetch_add(1, Ordering::Relaxed);
        let draft = path.with_extension(format!("{}-{writer}.new", std::process::id()));
        let written = write_synced(&draft, &self.compose(seen)).and_then(|()| fs::rename(&draft, &path));
        if written.is_err() {
            let _ = fs::remove_file(&draft);
        }
        written?;
        sync_folder(&self.folder)
    }

    /// Stores it unless a newer one is stored; of several processes that do so at once the newest wins.
    ///
    /// # Errors
    /// As [`LocalTrust::load`] and [`LocalTrust::store`].
    pub fn advance(&self, repository: &[u8; 16], seen: &Seen) -> io::Result<()> {
        create_private_folder(&self.folder)?;
        // Until the end of this function. Where a folder cannot be locked, two processes may still overtake each other.
        let folder = File::open(&self.folder);
        let _ = folder.as_ref().map(File::lock);
        match self.load(repository)? {
            Some((known, _)) if known >= seen.0 => Ok(()),
            _ => self.store(repository, seen),
        }
    }

    /// Whether [`LocalTrust::set_settled`] said so last.
    ///
    /// # Errors
    /// What reading raises.
    pub fn is_settled(&self, repository: &[u8; 16]) -> io::Result<bool> {
        self.settled_path(repository).try_exists()
    }

    /// Remembers whether what this device has left behind there is of the history that is remembered. A crash may take back that
    /// it is, and not that it is not.
    ///
    /// # Errors
    /// What writing raises.
    pub fn set_settled(&self, repository: &[u8; 16], is_settled: bool) -> io::Result<()> {
        let path = self.settled_path(repository);
        if is_settled {
            create_private_folder(&self.folder)?;
            return File::create(path).map(drop);
        }
        match fs::remove_file(path) {
            Ok(()) => sync_folder(&self.folder),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn settled_path(&self, repository: &[u8; 16]) -> PathBuf {
        self.path(repository).with_extension("settled")
    }

    fn path(&self, repository: &[u8; 16]) -> PathBuf {
        let mut hasher = blake3::Hasher::new();
        hasher.update(repository);
        hasher.update(self.location.as_bytes());
        let mut place = [0; 16];
        hasher.finalize_xof().fill(&mut place);
        self.folder.join(format!("{}-{}", to_hex(repository), to_hex(&place)))
    }

    fn compose(&self, (sequence, hash): &Seen) -> String {
        // The location is there for the person who looks; it is escaped so that it stays one line.
        let body = format!("{MAGIC}\nsequence {sequence}\nhash {}\nlocation {:?}\n", to_hex(hash), self.location);
        let checksum = to_hex(blake3::hash(body.as_bytes()).as_bytes());
        format!("{body}{CHECKSUM}{checksum}\n")
    }
}

#[async_trait]
impl TrustedState for LocalTrust {
    // A few hundred bytes of a local file: not worth a hop to another thread.
    async fn load(&self, repository: &[u8; 16]) -> Result<Option<Seen>> {
        self.load(repository).map_err(|error| refused(Operation::Get, error))
    }

    async fn store(&self, repository: &[u8; 16], sequence: u64, hash: [u8; 32]) -> Result<()> {
        self.store(repository, &(sequence, hash)).map_err(|error| refused(Operation::Put, error))
    }

    async fn advance(&self, repository: &[u8; 16], sequence: u64, hash: [u8; 32]) -> Result<()> {
        self.advance(repository, &(sequence, hash)).map_err(|error| refused(Operation::Put, error))
    }

    async fn is_settled(&self, repository: &[u8; 16]) -> Result<bool> {
        self.is_settled(repository).map_err(|error| refused(Operation::Get, error))
    }

    async fn set_settled(&self, repository: &[u8; 16], is_settled: bool) -> Result<()> {
        self.set_settled(repository, is_settled).map_err(|error| refused(Operation::Put, error))
    }
}

fn refused(operation: Operation, error: io::Error) -> Error {
    storage::Error::from_io(operation, "the trusted state of this device", error).into()
}

fn parse(text: &str) -> Option<Seen> {
    // A digit that rotted would be another sequence: a rollback unnoticed, or a false alarm.
    let (body, checksum) = text.rsplit_once(CHECKSUM)?;
    if from_hex(checksum.strip_suffix('\n')?)? != *blake3::hash(body.as_bytes()).as_bytes() {
        return None;
    }
    let mut lines = body.lines();
    if lines.next()? != MAGIC {
        return None;
    }
    let sequence = lines.next()?.strip_prefix("sequence ")?.parse().ok()?;
    let hash = from_hex(lines.next()?.strip_prefix("hash ")?)?;
    Some((sequence, hash))
}

fn write_synced(path: &Path, text: &str) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(unix)]
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(not(unix))]
fn sync_folder(_: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(unix)]
fn create_private_folder(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

#[cfg(not(unix))]
fn create_private_folder(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)
}

fn state_folder() -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    // The XDG variable wins everywhere: whoever sets it means it.
    let base = absolute("XDG_STATE_HOME").or_else(|| {
        if cfg!(windows) {
            absolute("LOCALAPPDATA")
        } else if cfg!(target_os = "macos") {
            Some(absolute("HOME")?.join("Library/Application Support"))
        } else {
            Some(absolute("HOME")?.join(".local/state"))
        }
    })?;
    Some(base.join("strongroom"))
}

fn to_hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn from_hex(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let &[high, low] = pair else { return None };
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        *byte = digit(high)? << 4 | digit(low)?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPOSITORY: [u8; 16] = [7; 16];

    #[test]
    fn what_was_stored_last_is_loaded_and_locations_are_apart() {
        let folder = tempfile::tempdir().unwrap();
        let here = LocalTrust::in_folder(folder.path().join("state"), "file:///here");
        assert_eq!(here.load(&REPOSITORY).unwrap(), None);
        here.store(&REPOSITORY, &(1, [1; 32])).unwrap();
        here.store(&REPOSITORY, &(2, [0xa2; 32])).unwrap();
        assert_eq!(here.load(&REPOSITORY).unwrap(), Some((2, [0xa2; 32])));
        assert_eq!(here.load(&[8; 16]).unwrap(), None);
        let mirror = LocalTrust::in_folder(folder.path().join("state"), "file:///mirror");
        assert_eq!(mirror.load(&REPOSITORY).unwrap(), None);
        // No drafts are left behind.
        assert_eq!(fs::read_dir(folder.path().join("state")).unwrap().count(), 1);
    }

    #[test]
    fn what_is_settled_is_kept_for_each_location_until_it_is_taken_back() {
        let folder = tempfile::tempdir().unwrap();
        let here = LocalTrust::in_folder(folder.path().join("state"), "file:///here");
        let there = LocalTrust::in_folder(folder.path().join("state"), "file:///there");
        let settled = || [&here, &there].map(|trust| trust.is_settled(&REPOSITORY).unwrap());
        assert_eq!(settled(), [false; 2]);
        here.set_settled(&REPOSITORY, false).unwrap();
        here.set_settled(&REPOSITORY, true).unwrap();
        assert_eq!(settled(), [true, false]);
        here.set_settled(&REPOSITORY, true).unwrap();
        here.store(&REPOSITORY, &(1, [1; 32])).unwrap();
        assert_eq!((settled(), here.load(&REPOSITORY).unwrap()), ([true, false], Some((1, [1; 32]))));
        here.set_settled(&REPOSITORY, false).unwrap();
        assert_eq!(settled(), [false; 2]);
    }

    #[test]
    fn of_those_who_store_at_once_the_newest_wins() {
        let folder = tempfile::tempdir().unwrap();
        let trust = LocalTrust::in_folder(folder.path().join("state"), "file:///here");
        std::thread::scope(|scope| {
            for writer in 0..4_u64 {
                let trust = &trust;
                scope.spawn(move || {
                    for sequence in 0..25 {
                        let seen = sequence * 4 + writer;
                        trust.advance(&REPOSITORY, &(seen, [1; 32])).unwrap();
                        assert!(trust.load(&REPOSITORY).unwrap().unwrap().0 >= seen);
                    }
                });
            }
        });
        assert_eq!(trust.load(&REPOSITORY).unwrap().unwrap().0, 99);
        trust.store(&REPOSITORY, &(3, [1; 32])).unwrap();
        assert_eq!(trust.load(&REPOSITORY).unwrap().unwrap().0, 3, "its owner may go back");
    }

    #[test]
    fn a_damaged_or_cut_state_is_an_error_and_not_a_first_visit() {
        let folder = tempfile::tempdir().unwrap();
        let trust = LocalTrust::in_folder(folder.path(), "file:///here\nhash");
        trust.store(&REPOSITORY, &(5, [3; 32])).unwrap();
        let path = trust.path(&REPOSITORY);
        let whole = fs::read(&path).unwrap();
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            assert_eq!(trust.load(&REPOSITORY).unwrap_err().kind(), io::ErrorKind::InvalidData, "{length} bytes");
        }
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, &flipped).unwrap();
            // The digits of the checksum have two spellings.
            if !flipped.eq_ignore_ascii_case(&whole) {
                assert_eq!(trust.load(&REPOSITORY).unwrap_err().kind(), io::ErrorKind::InvalidData, "bit {bit}");
            }
        }
    }
}
