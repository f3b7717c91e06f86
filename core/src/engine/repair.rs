//! Repair: what cannot be read is noted, so that nothing that is stored is taken for it, and what is stored again heals it.
//!
//! Nothing is judged by one look: what a check found damaged is read once more, and only what is missing, or does not
//! authenticate, counts; a storage that does not answer ends the repair. Nothing that was stored is taken away, either: a note
//! is a row beside the chunk's, and a chunk that moves keeps its number; ballast, which goes, held nothing. Each commit is
//! complete in itself, so that a repair can be cut short anywhere, and be run again.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use futures_util::{StreamExt as _, TryStreamExt as _};

use super::check::CheckReport;
use super::compact;
use super::root::Root;
use super::shared::Shared;
use super::transaction::Transaction;
use super::view::table_range;
use super::{ChunkNumber, Direction, Engine};
use crate::format::BlockId;
use crate::format::rows::{self, ChunkRow, DataBlock, Place};
use crate::tree::MergedCursor;
use crate::{Error, Result};

/// Chunks that one commit notes, at most.
const NOTED_AT_ONCE: usize = 256;
/// Chunks that one commit gives another place, at most: of 256 KiB each.
const MOVED_AT_ONCE: usize = 32;
/// Chunks read at once.
const READ_AT_ONCE: usize = 8;

/// What a repair came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Repaired {
    /// Chunks that cannot be read. All of them are noted as that, now or before.
    pub damaged: u64,
    /// Those of them that have no identity, since they were stored without dedup: nothing that is stored heals them.
    pub unidentified: u64,
    /// Chunks that could be read, and were moved out of damaged blocks.
    pub moved: u64,
    /// Chunks that could not be read, and were written anew from others of the same content.
    pub restored: u64,
    /// Chunks that were noted as damaged, and can be read again.
    pub readable: u64,
    /// Blocks of ballast that were not what was put, and were given up; others were put first, where any are wanted.
    pub ballast: u64,
}

/// A chunk that gets another place, with the content of a chunk that can be read: its own, or an equal one.
#[derive(Clone, Copy)]
struct Move {
    number: u64,
    source: u64,
}

/// What looking at chunks once more came to.
#[derive(Default)]
struct Looked {
    repaired: Repaired,
    damaged: Vec<(u64, Option<[u8; 32]>)>,
    /// Chunks that can be read, in blocks that are not whole.
    at_risk: Vec<u64>,
}

impl Engine {
    /// Sees to it that damage neither spreads nor stays for want of asking, after a [`Engine::check`] has found it. Of the
    /// chunks that its findings name, and of those noted before:
    ///
    /// * What cannot be read is **noted**. Content equal to it that is stored from then on is not taken for it, but written
    ///   anew in its place: then it is healed for every row and every snapshot that refers to it.
    /// * What can be read, and lies in a block that is not whole, moves to another.
    /// * What cannot be read, and has the content of a chunk that can, gets that.
    /// * Of the blobs that its findings name, those that keep room for deleting, and hold nothing, are put anew, and those
    ///   that are missing put, where storage has room for that.
    ///
    /// Other writers may be at work beside it. It may be cut short and run again; where nothing is left to do, it commits
    /// nothing.
    ///
    /// # Errors
    /// [`Error::ReadOnly`] and [`Error::Closed`]; what the storage raises: then nothing that it was asked for is taken for
    /// damaged, and what was repaired before that stays so.
    pub async fn repair(&self, report: &CheckReport) -> Result<Repaired> {
        run(&self.shared, report).await
    }

    /// The chunks that repairs have noted as damaged and that nothing has healed since, at the newest state that this
    /// process knows.
    ///
    /// # Errors
    /// [`Error::Damaged`] and [`Error::Expired`]; what the storage raises.
    pub async fn damaged_chunks(&self) -> Result<HashSet<ChunkNumber>> {
        noted(&self.shared).await
    }
}

impl Shared {
    /// Whether a state notes any chunk as damaged: seldom does one.
    pub(super) async fn notes_damage(&self, root: &Root) -> Result<bool> {
        let range = table_range(rows::DAMAGED, (Bound::Unbounded, Bound::Unbounded));
        let overlay = root.space.overlay.clone();
        let mut cursor = MergedCursor::new(self.nodes.clone(), root.space.tree, overlay, range, Direction::Ascending);
        Ok(cursor.next().await?.is_some())
    }

    /// The payload of a chunk, as a state says where it is; `None` where it is missing, or not what was put.
    async fn intact(&self, row: &ChunkRow, sequence: u64) -> Result<Option<Bytes>> {
        let error = match self.chunk_payload(row).await {
            Ok(payload) => return Ok(Some(payload)),
            Err(error) => error,
        };
        match self.explain(error, sequence).await {
            Error::Damaged(_) => Ok(None),
            error => Err(error),
        }
    }
}

async fn run(shared: &Arc<Shared>, report: &CheckReport) -> Result<Repaired> {
    shared.check_writable()?;
    let mut suspects: BTreeSet<u64> =
        report.findings.iter().flat_map(|finding| &finding.chunks).map(|number| number.0).collect();
    match noted(shared).await {
        Ok(noted) => suspects.extend(noted.into_iter().map(|number| number.0)),
        // Rows that cannot be read are findings of their own; the rest is looked at all the same.
        Err(Error::Damaged(_) | Error::Expired) => {}
        Err(error) => return Err(error),
    }
    let suspects: Vec<u64> = suspects.into_iter().collect();
    let hurt = hurt_blocks(shared, report);
    let mut looked = Looked::default();
    for numbers in suspects.chunks(NOTED_AT_ONCE) {
        looked.add(note(shared, numbers, &hurt).await?);
    }
    let Looked { mut repaired, damaged, at_risk } = looked;
    let at_risk: Vec<Move> = at_risk.into_iter().map(|number| Move { number, source: number }).collect();
    for moves in at_risk.chunks(MOVED_AT_ONCE) {
        repaired.moved += give_places(shared, moves).await?;
    }
    for moves in equals(shared, &damaged).await?.chunks(MOVED_AT_ONCE) {
        repaired.restored += give_places(shared, moves).await?;
    }
    repaired.damaged = repaired.damaged.saturating_sub(repaired.restored);
    if repaired.moved + repaired.restored > 0 {
        // What nothing is left of need not be found damaged once more.
        compact::give_back(shared).await?;
    }
    let suspects = report.findings.iter().filter_map(|finding| finding.damage.blob).collect();
    // What could not be done about blocks that hold nothing is found again, and keeps nobody from hearing the rest.
    match shared.renew_ballast(&suspects).await {
        Ok(renewed) => repaired.ballast = renewed,
        Err(error @ Error::Closed) => return Err(error),
        Err(error) => tracing::warn!(%error, "ballast could not be put anew"),
    }
    Ok(repaired)
}

/// The chunks that are noted as damaged.
async fn noted(shared: &Arc<Shared>) -> Result<HashSet<ChunkNumber>> {
    let (root, pin) = shared.pin();
    let all = (Bound::Unbounded, Bound::Unbounded);
    let mut scan = shared.scan_root(&root, &pin, rows::DAMAGED, all, Direction::Ascending);
    let mut numbers = HashSet::new();
    while let Some((key, _)) = scan.next().await? {
        let number = <[u8; 8]>::try_from(key.as_ref())
            .map_err(|_| Error::damaged("note of a damaged chunk", None, "its key has another length"))?;
        numbers.insert(ChunkNumber(u64::from_be_bytes(number)));
    }
    Ok(numbers)
}

/// The blocks that findings say are not whole, and have chunks.
fn hurt_blocks(shared: &Shared, report: &CheckReport) -> HashSet<DataBlock> {
    let with_chunks = report.findings.iter().filter(|finding| !finding.chunks.is_empty());
    let ids = with_chunks.filter_map(|finding| shared.blocks.reader.block_id(finding.damage.blob?));
    ids.filter_map(|id| match id {
        BlockId::Data { key_epoch, writer_epoch, counter } => Some(DataBlock { key_epoch, writer_epoch, counter }),
        BlockId::Commit { .. } => None,
    })
    .collect()
}

impl Looked {
    fn add(&mut self, more: Self) {
        let Looked { repaired, damaged, at_risk } = more;
        self.repaired.damaged += repaired.damaged;
        self.repaired.unidentified += repaired.unidentified;
        self.repaired.readable += repaired.readable;
        self.damaged.extend(damaged);
        self.at_risk.extend(at_risk);
    }
}

/// After an attempt that others were in the way of: learns what they did.
async fn make_way(shared: &Arc<Shared>, error: Error, sequence: u64) -> Result<()> {
    match error {
        Error::Conflict => shared.catch_up_as_writer().await,
        error => {
            let _leader = shared.leader.lock().await;
            shared.move_on(error, sequence).await
        }
    }
}

/// Reads chunks once more, and notes in one commit which of them cannot be read, and which can again.
async fn note(shared: &Arc<Shared>, numbers: &[u64], hurt: &HashSet<DataBlock>) -> Result<Looked> {
    for _ in 0..shared.tuning.attempts_max {
        let sequence = shared.root().sequence;
        match try_to_note(shared, numbers, hurt).await {
            Err(error) => make_way(shared, error, sequence).await?,
            looked => return looked,
        }
    }
    Err(Error::Conflict)
}

async fn try_to_note(shared: &Arc<Shared>, numbers: &[u64], hurt: &HashSet<DataBlock>) -> Result<Looked> {
    let mut transaction = Transaction::new(shared);
    let mut looked = Looked::default();
    let mut chunks = Vec::new();
    // Not counted as read, or a repair would never end beside those who refer to such chunks: a commit judges by the place.
    for &number in numbers {
        match transaction.chunk_row(number).await {
            Ok(Some(row)) => chunks.push((number, row)),
            Ok(None) if transaction.has_row(&rows::damaged_key(number)).await? => {
                transaction.put_own(rows::damaged_key(number), None);
            }
            // Rows that cannot be read are findings of their own.
            Ok(None) | Err(Error::Damaged(_)) => {}
            Err(error) => return Err(error),
        }
    }
    let sequence = transaction.began_at();
    let mut read = stream::iter(chunks)
        .map(|(number, row)| async move {
            let is_intact = shared.intact(&row, sequence).await?.is_some();
            Ok::<_, Error>((number, row, is_intact))
        })
        .buffered(READ_AT_ONCE);
    while let Some((number, row, is_intact)) = read.try_next().await? {
        let is_noted = transaction.has_row(&rows::damaged_key(number)).await?;
        if is_intact {
            if is_noted {
                looked.repaired.readable += 1;
                transaction.put_own(rows::damaged_key(number), None);
            }
            if is_in(&row, hurt) {
                looked.at_risk.push(number);
            }
            continue;
        }
        looked.repaired.damaged += 1;
        looked.repaired.unidentified += u64::from(row.identity.is_none());
        looked.damaged.push((number, row.identity));
        if !is_noted {
            transaction.note_damaged(number, row.place);
        }
    }
    drop(read);
    if !transaction.is_empty() {
        transaction.commit().await?;
    }
    Ok(looked)
}

fn is_in(row: &ChunkRow, blocks: &HashSet<DataBlock>) -> bool {
    match &row.place {
        Place::Inline(_) => false,
        Place::Records(pointers) => pointers.iter().any(|pointer| blocks.contains(&DataBlock::of(pointer))),
    }
}

/// For damaged chunks, others of the same content: two that came at once are stored twice.
async fn equals(shared: &Arc<Shared>, damaged: &[(u64, Option<[u8; 32]>)]) -> Result<Vec<Move>> {
    let mut wanted: HashMap<[u8; 32], Vec<u64>> = HashMap::new();
    for (number, identity) in damaged {
        if let Some(identity) = identity {
            wanted.entry(*identity).or_default().push(*number);
        }
    }
    let mut found = Vec::new();
    if wanted.is_empty() {
        return Ok(found);
    }
    let is_damaged: HashSet<u64> = damaged.iter().map(|(number, _)| *number).collect();
    let (root, pin) = shared.pin();
    let all = (Bound::Unbounded, Bound::Unbounded);
    let mut scan = shared.scan_root(&root, &pin, rows::CHUNK, all, Direction::Ascending);
    loop {
        let (key, value) = match scan.next().await {
            Ok(Some(row)) => row,
            // What cannot be looked through, or was given up by others meanwhile, is found another time.
            Ok(None) | Err(Error::Damaged(_) | Error::Expired) => return Ok(found),
            Err(error) => return Err(error),
        };
        let number = <[u8; 8]>::try_from(key.as_ref()).map(u64::from_be_bytes);
        let (Ok(source), Ok(ChunkRow { identity: Some(identity), .. })) = (number, ChunkRow::decode(&value)) else {
            continue;
        };
        if !is_damaged.contains(&source)
            && let Some(numbers) = wanted.remove(&identity)
        {
            found.extend(numbers.into_iter().map(|number| Move { number, source }));
        }
    }
}

/// Writes chunks anew in one commit; answers how many.
async fn give_places(shared: &Arc<Shared>, moves: &[Move]) -> Result<u64> {
    for _ in 0..shared.tuning.attempts_max {
        let sequence = shared.root().sequence;
        match try_to_give_places(shared, moves).await {
            Err(error) => make_way(shared, error, sequence).await?,
            given => return given,
        }
    }
    Err(Error::Conflict)
}

async fn try_to_give_places(shared: &Arc<Shared>, moves: &[Move]) -> Result<u64> {
    let mut transaction = Transaction::new(shared);
    let sequence = transaction.began_at();
    let mut given = 0;
    for &Move { number, source } in moves {
        let Some(row) = readable_row(&transaction, number).await? else { continue };
        let Place::Records(from) = &row.place else { continue };
        let is_noted = transaction.has_row(&rows::damaged_key(number)).await?;
        let payload = if source == number {
            shared.intact(&row, sequence).await?
        } else {
            // Healed meanwhile, it has no need of another's.
            let equal = readable_row(&transaction, source).await?;
            let equal = equal.filter(|equal| is_noted && equal.identity == row.identity);
            match equal {
                Some(equal) => shared.intact(&equal, sequence).await?,
                None => None,
            }
        };
        let Some(payload) = payload else { continue };
        let to = transaction.copy_record(number, &payload).await?;
        if is_noted {
            transaction.give_content(number, to);
        } else {
            transaction.move_chunk(number, from.clone(), to);
        }
        given += 1;
    }
    if !transaction.is_empty() {
        transaction.commit().await?;
    }
    Ok(given)
}

/// A chunk's row, where it is there and can be read: one that cannot is a finding of its own.
async fn readable_row(transaction: &Transaction, number: u64) -> Result<Option<ChunkRow>> {
    match transaction.chunk_row(number).await {
        Err(Error::Damaged(_)) => Ok(None),
        row => row,
    }
}
