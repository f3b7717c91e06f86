use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::{join, join_all};

use super::Credentials;
use super::header::{HEADER, Header, refused};
use super::slots::{Attempt, SlotId};
use crate::crypto::RootSecret;
use crate::env::Env;
use crate::format::header::HeaderError;
use crate::format::limits::{HEADER_BYTES, HEADER_COPIES_COUNT, HEADER_GENERATION_MIN};
use crate::format::well_known::{HeaderId, MAGIC, is_hint_name};
use crate::storage::{self, ErrorKind, Name, Put, Storage, StorageExt};
use crate::{Error, Result};

/// How many generations are looked at, the newest first. One or two are there; more is a storage that plants names.
const GENERATIONS_MAX: usize = 16;

/// How many hints are read with the headers. One or two are there.
const HINTS_MAX: usize = 4;

/// How often one call derives keys: before and after a rotation, and one in reserve. More salts than that are planted.
const KDF_RUNS_MAX: usize = 3;

/// How often the headers are listed anew because they change while they are read.
const LOOKS_MAX: usize = 8;

/// What a copy of a header is found to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopyState {
    /// Every byte is what was put.
    Intact,
    /// It is not there.
    Missing,
    /// It is something else.
    Damaged {
        /// What was seen.
        detail: String,
    },
}

/// A copy of a header that is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyFault {
    /// The blob.
    pub name: Name,
    /// Which copy of which generation.
    pub id: HeaderId,
    /// What it is.
    pub state: CopyState,
}

/// The headers found in a storage: at least one, the newest generation first. There are several where a change of slots
/// was interrupted, and even several of one generation where two processes raced; the one that a commit names counts.
#[derive(Clone, Debug)]
pub struct HeaderSet {
    headers: Vec<Header>,
    faults: Vec<CopyFault>,
    named: BTreeSet<u64>,
    /// The beginnings of the hints that lay beside them: nobody could read them yet.
    hints: BTreeMap<Name, Bytes>,
}

impl HeaderSet {
    /// The headers, the newest generation first, none twice.
    #[must_use]
    pub fn headers(&self) -> &[Header] {
        &self.headers
    }

    /// Whether the newest is that of a copy that did not come to its end.
    #[must_use]
    pub fn is_unfinished_copy(&self) -> bool {
        self.headers.first().is_some_and(|header| header.features().is_unfinished_copy())
    }

    /// The header that a commit names.
    #[must_use]
    pub fn find(&self, generation: u64, hash: &[u8; 32]) -> Option<&Header> {
        self.headers.iter().find(|header| header.generation() == generation && header.hash() == hash)
    }

    /// The copies that are damaged or missing, as far as their first 4 KiB tell; see [`verify_copy`] for the rest.
    #[must_use]
    pub fn faults(&self) -> &[CopyFault] {
        &self.faults
    }

    /// The generation for a new header: above every name that is there, a stray's and a damaged one's included, so that
    /// what a crash left behind blocks nobody.
    #[must_use]
    pub fn next_generation(&self) -> u64 {
        self.named.last().copied().unwrap_or_default().saturating_add(1)
    }

    /// The generations that have a name in storage and are older than this one, whole or not: once it is in force, nothing
    /// needs them. As many as one call looks at.
    pub(crate) fn older_than(&self, generation: u64) -> impl Iterator<Item = u64> {
        self.named.range(..generation).rev().take(GENERATIONS_MAX).copied()
    }

    /// The beginnings of hints, as they were when the headers were read; some may be left out.
    pub(crate) fn hints(&self) -> &BTreeMap<Name, Bytes> {
        &self.hints
    }

    /// Whether both looks found the same.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        self.named == other.named && self.headers.iter().map(Header::hash).eq(other.headers.iter().map(Header::hash))
    }

    /// Opens the newest header that these credentials open. Headers of one lineage share salt and cost, so one run of the
    /// key derivation serves them all. The caller then checks that a commit names this header.
    ///
    /// # Errors
    /// As [`super::unlock`]; damage is reported where some header is damaged and none opens.
    pub async fn unlock(&self, env: &Env, credentials: &Credentials) -> Result<(&Header, RootSecret)> {
        let (header, root, _) = self.unlock_slot(env, credentials).await?;
        Ok((header, root))
    }

    /// As [`HeaderSet::unlock`], and the slot that opened.
    pub(crate) async fn unlock_slot(
        &self,
        env: &Env,
        credentials: &Credentials,
    ) -> Result<(&Header, RootSecret, SlotId)> {
        let material = credentials.material()?;
        let mut attempt: Option<Attempt> = None;
        let mut runs = 0;
        let mut failure = Error::WrongCredentials;
        for header in &self.headers {
            let current = match attempt.take().filter(|attempt| attempt.serves(header)) {
                Some(attempt) => attempt,
                None if runs == KDF_RUNS_MAX => break,
                None => {
                    runs += 1;
                    Attempt::run(env, material.duplicate(), header.kdf(), header.fields.salt).await?
                }
            };
            match current.open(header) {
                Ok((root, slot)) => return Ok((header, root, slot)),
                Err(Error::WrongCredentials) => {}
                Err(error) => failure = error,
            }
            attempt = Some(current);
        }
        Err(failure)
    }
}

/// Reads every header of a storage: lists, and reads both copies of each generation, the newest first.
///
/// # Errors
/// [`Error::NotARepository`] where no name is a header's or a hint's; otherwise as [`read_headers_among`].
pub async fn read_headers(storage: &Arc<dyn Storage>) -> Result<HeaderSet> {
    let mut names = storage.list_all(&MAGIC).await?;
    for _ in 0..LOOKS_MAX {
        let found = read_headers_among(storage, &names).await;
        // A change of slots deletes what it has put out of force: what was listed and is gone is no damage, if something
        // else is there now.
        let gone = match &found {
            Ok(set) => set.faults.iter().any(|fault| fault.state == CopyState::Missing && names.contains(&fault.name)),
            Err(error) => matches!(error, Error::NotARepository | Error::Damaged(_)),
        };
        if !gone {
            return found;
        }
        let again = storage.list_all(&MAGIC).await?;
        if again == names {
            return found;
        }
        names = again;
    }
    read_headers_among(storage, &names).await
}

/// As [`read_headers`], for one who has listed already what starts with [`MAGIC`].
///
/// # Errors
/// [`Error::NotARepository`] where no name is a header's or a hint's; [`Error::Damaged`] where no copy of any is intact;
/// [`Error::NewerFormat`] where an intact one is of a version, or has an incompatible feature, that is not known; what
/// the storage raises, unless the other copy could be read.
pub async fn read_headers_among(storage: &Arc<dyn Storage>, names: &BTreeSet<Name>) -> Result<HeaderSet> {
    let generations: BTreeSet<u64> =
        names.iter().filter_map(|name| HeaderId::from_name(name.as_bytes())).map(|id| id.generation).collect();
    let mut set =
        HeaderSet { headers: Vec::new(), faults: Vec::new(), named: generations.clone(), hints: BTreeMap::new() };
    // Whoever opens a repository needs them next: asked for now, they take no time of their own.
    let mut hints: Vec<Name> =
        names.iter().filter(|name| is_hint_name(name.as_bytes())).take(HINTS_MAX).copied().collect();
    for generation in generations.into_iter().rev().take(GENERATIONS_MAX) {
        let copy = |copy| read_copy(storage, HeaderId { generation, copy });
        let hints = join_all(std::mem::take(&mut hints).into_iter().map(|name| read_hint(storage, name)));
        let ((first, second), hints) = join(join(copy(0), copy(1)), hints).await;
        set.hints.extend(hints.into_iter().flatten());
        let mut unreachable = None;
        let mut found = false;
        for outcome in [first, second] {
            match outcome {
                Ok(header) => {
                    found = true;
                    if !set.headers.iter().any(|known| known.hash() == header.hash()) {
                        set.headers.push(header);
                    }
                }
                Err(Unread::Fault(fault)) => set.faults.push(fault),
                Err(Unread::Storage(error)) => unreachable = Some(error),
                Err(Unread::Newer(error)) => return Err(error),
            }
        }
        if let (false, Some(error)) = (found, unreachable) {
            return Err(error);
        }
    }
    if set.headers.is_empty() {
        return Err(match set.faults.iter().find(|fault| fault.state != CopyState::Missing) {
            Some(CopyFault { name, state: CopyState::Damaged { detail }, .. }) => {
                Error::damaged(HEADER, Some(*name), format!("no copy is intact: {detail}"))
            }
            _ if names.iter().any(|name| is_hint_name(name.as_bytes())) => Error::damaged(
                HEADER,
                None,
                "there is none, though there is a repository: import one that was exported",
            ),
            _ => Error::NotARepository,
        });
    }
    Ok(set)
}

/// The beginning of a hint; `None` where there is none, or none that can be read: it is asked for again then.
async fn read_hint(storage: &Arc<dyn Storage>, name: Name) -> Option<(Name, Bytes)> {
    let read = storage.get(name, Some(0..HEADER_BYTES as u64), HEADER_BYTES as u64).await;
    read.ok().map(|beginning| (name, beginning))
}

/// Why a copy gave no header.
enum Unread {
    Fault(CopyFault),
    Newer(Error),
    Storage(Error),
}

async fn read_copy(storage: &Arc<dyn Storage>, id: HeaderId) -> std::result::Result<Header, Unread> {
    let name = name_of(id).map_err(Unread::Storage)?;
    let fault = |state| Unread::Fault(CopyFault { name, id, state });
    let damaged = |detail: String| fault(CopyState::Damaged { detail });
    let content = match storage.get(name, Some(0..HEADER_BYTES as u64), HEADER_BYTES as u64).await {
        Ok(content) => content,
        Err(error) => {
            return Err(match state_of(&error) {
                Some(state) => fault(state),
                None => Unread::Storage(error.into()),
            });
        }
    };
    let header = match Header::from_content(&content) {
        Ok(header) => header,
        Err(HeaderError::Damaged(error)) => return Err(damaged(error.reason)),
        Err(newer) => return Err(Unread::Newer(refused(newer, Some(name)))),
    };
    if header.generation() != id.generation {
        return Err(damaged(format!("is of generation {}, named {}", header.generation(), id.generation)));
    }
    Ok(header)
}

/// Checks every byte of a copy of an unlocked header, its fill and its length included.
///
/// # Errors
/// What the storage raises other than absence and wrong length, which are states.
pub async fn verify_copy(
    storage: &Arc<dyn Storage>,
    header: &Header,
    root: &RootSecret,
    copy: u8,
) -> Result<(Name, CopyState)> {
    let name = name_of(HeaderId { generation: header.generation(), copy })?;
    let state = match storage.get_all(name, u64::from(header.block_bytes())).await {
        Ok(blob) if blob == header.blob(root, copy) => CopyState::Intact,
        Ok(blob) => CopyState::Damaged { detail: difference(&blob, header) },
        Err(error) => match state_of(&error) {
            Some(state) => state,
            None => return Err(error.into()),
        },
    };
    Ok((name, state))
}

/// Puts a copy of an unlocked header again, in the place of one that is damaged or missing. The caller has found the
/// other copy intact ([`verify_copy`]), or has exported the header: in between, this copy is absent.
///
/// # Errors
/// What the storage raises; as [`write_header`] where someone else put something there meanwhile.
pub async fn repair_copy(storage: &Arc<dyn Storage>, header: &Header, root: &RootSecret, copy: u8) -> Result<()> {
    let name = name_of(HeaderId { generation: header.generation(), copy })?;
    storage.delete(name).await?;
    put_copy(storage, header, root, copy).await
}

/// Takes back the copies of a header that no commit names and none will: those with these very bytes, since another header
/// may have the same generation.
///
/// # Errors
/// What the storage raises.
pub(crate) async fn take_back(storage: &Arc<dyn Storage>, header: &Header, root: &RootSecret) -> Result<()> {
    for copy in 0..HEADER_COPIES_COUNT {
        if let (name, CopyState::Intact) = verify_copy(storage, header, root, copy).await? {
            storage.delete(name).await?;
        }
    }
    Ok(())
}

/// Writes both copies of a header, durably. Where a copy is there already with these very bytes, that is success.
///
/// # Errors
/// Where another header has this generation: [`Error::AlreadyExists`] for the first, [`Error::Conflict`] for later ones;
/// what the storage raises.
pub async fn write_header(storage: &Arc<dyn Storage>, header: &Header, root: &RootSecret) -> Result<()> {
    header.check_mac(root)?;
    for copy in 0..HEADER_COPIES_COUNT {
        put_copy(storage, header, root, copy).await?;
    }
    Ok(())
}

/// Deletes both copies of a generation: one that a commit has superseded, or a stray that lost its race.
///
/// # Errors
/// What the storage raises.
pub async fn delete_header(storage: &Arc<dyn Storage>, generation: u64) -> Result<()> {
    for copy in 0..HEADER_COPIES_COUNT {
        storage.delete(name_of(HeaderId { generation, copy })?).await?;
    }
    Ok(())
}

pub(super) async fn refuse_existing(storage: &Arc<dyn Storage>) -> Result<()> {
    // A hint without a header is a repository too: its header may have been exported.
    let names = storage.list_all(&MAGIC).await?;
    let taken = |name: &Name| HeaderId::from_name(name.as_bytes()).is_some() || is_hint_name(name.as_bytes());
    if names.iter().any(taken) { Err(Error::AlreadyExists) } else { Ok(()) }
}

/// Puts one copy, durably; that it is there already is success.
///
/// # Errors
/// As [`write_header`].
pub(crate) async fn put_copy(storage: &Arc<dyn Storage>, header: &Header, root: &RootSecret, copy: u8) -> Result<()> {
    let name = name_of(HeaderId { generation: header.generation(), copy })?;
    let blob = Bytes::from(header.blob(root, copy));
    if storage.put_durable(name, blob.clone()).await? == Put::Created {
        return Ok(());
    }
    let taken = || if header.generation() == HEADER_GENERATION_MIN { Error::AlreadyExists } else { Error::Conflict };
    // It is ours where an earlier attempt took effect and its answer was lost; then only durability is missing.
    match storage.get_all(name, u64::from(header.block_bytes())).await {
        Ok(there) if there == blob => Ok(storage.persist(&[name]).await?),
        Ok(_) => Err(taken()),
        Err(error) if error.kind() == ErrorKind::LimitExceeded => Err(taken()),
        Err(error) => Err(error.into()),
    }
}

fn name_of(id: HeaderId) -> Result<Name> {
    id.name().map(Name::new).ok_or_else(|| Error::Invalid(format!("no header has copy {}", id.copy)))
}

/// What an error says of the blob, where it says something of the blob.
fn state_of(error: &storage::Error) -> Option<CopyState> {
    let detail = match error.kind() {
        ErrorKind::NotFound => return Some(CopyState::Missing),
        ErrorKind::RangeInvalid => "shorter than a header",
        ErrorKind::LimitExceeded => "longer than it should be",
        ErrorKind::Corrupt => "storage answers nonsense",
        _ => return None,
    };
    Some(CopyState::Damaged { detail: detail.to_owned() })
}

fn difference(blob: &[u8], header: &Header) -> String {
    if blob.len() as u64 != u64::from(header.block_bytes()) {
        format!("{} bytes long, not {}", blob.len(), header.block_bytes())
    } else if blob.starts_with(header.content()) {
        "fill differs".to_owned()
    } else {
        "content differs".to_owned()
    }
}
