//! Compaction: everything that nothing needs any more is given back, and what is left is packed.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::checkpoint::Trees;
use super::defragment::Emptied;
use super::place::Claimant;
use super::shared::{Shared, lock};
use super::transaction::{Transaction, Work};
use crate::format::rows;
use crate::storage::StorageExt;
use crate::{Error, Result};

/// How often one compaction writes the trees anew, where others commit meanwhile.
const REBUILDS_MAX: u32 = 2;

/// How far a compaction goes.
#[derive(Default)]
pub struct CompactOptions<'a> {
    /// Empty every block that can be saved, rather than leave one in a hundred.
    pub thorough: bool,
    /// Take every other writer that has not ended for dead. What such a writer has not committed is lost to it; what it has
    /// committed is not. Where the blobs may be at several places ([`crate::storage::Occupancy::at`]), that is said of what was
    /// written elsewhere, too: nothing of it may be on its way, and what a history that was given up has left here goes. The engine
    /// cannot see whether files are arriving, and refuses nothing for it: who opens a storage by itself, and not by its address,
    /// sees to that.
    pub end_other_writers: bool,
    /// Hears how many bytes were moved so far, after each commit, and says whether to go on.
    pub progress: Option<&'a mut (dyn FnMut(u64) -> bool + Send)>,
}

/// What a compaction did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompactReport {
    /// Blobs in storage before.
    pub blobs_before: u64,
    /// Blobs in storage after.
    pub blobs_after: u64,
    /// Bytes of live payloads that were moved.
    pub moved_bytes: u64,
    /// Blocks that were to be emptied, and cannot be read: they stay as they are, with what lies in them. A check says what.
    pub damaged: u64,
    /// Blobs that nothing in the newest state needs, and that wait until readers of older states have had their time.
    pub waiting: u64,
    /// Other writers that have not ended; what they leave behind is not given back before they do.
    pub other_writers: u64,
}

pub(super) async fn run(shared: &Arc<Shared>, options: CompactOptions<'_>) -> Result<CompactReport> {
    shared.check_writable()?;
    // What this process knows may be long gone: others compact, too.
    shared.catch_up_as_writer().await?;
    let blobs_before = shared.storage().list_all(&[]).await?.len() as u64;
    let epoch = shared.hold_epoch_for(true).await?;
    if options.end_other_writers {
        end_others(shared, epoch).await?;
    }
    give_back(shared).await?;
    shared.sweep(options.end_other_writers).await?;
    let turn = shared.snapshots.lock().await;
    shared.finish_removals().await?;
    drop(turn);
    // First of all what is still in rows gets its place.
    let mut leader = shared.leader.lock().await;
    shared.checkpoint(&mut leader, Trees::Change).await?;
    drop(leader);
    give_back(shared).await?;
    let plan = shared.plan(options.thorough).await?;
    let mut progress = options.progress;
    let emptied = shared.defragment(&plan, |moved| progress.as_mut().is_none_or(|hear| hear(moved))).await?;
    let with_space = !plan.rebuild;
    let goes_on = || progress.as_mut().is_none_or(|hear| hear(emptied.bytes));
    shared.gather_nodes(options.thorough, with_space, goes_on).await?;
    for attempt in 0..shared.tuning.attempts_max {
        // A race that is lost leaves all that was written behind: a steady writer elsewhere is not worth every node again
        // and again, and the next compaction may find it at rest.
        let trees = if plan.rebuild && attempt < REBUILDS_MAX { Trees::Rebuild } else { Trees::Change };
        let mut leader = shared.leader.lock().await;
        if shared.checkpoint(&mut leader, trees).await? {
            break;
        }
        drop(leader);
        shared.hold_epoch_for(true).await?;
    }
    give_back(shared).await?;
    let (root, _pin) = shared.pin();
    let (view, blobs) = (Transaction::new(shared), shared.storage().list_all(&[]).await?);
    let own = shared.own_epochs();
    let other_writers = shared.open_epochs(&view).await?.keys().filter(|other| !own.contains(other)).count() as u64;
    let blobs_after = blobs.len() as u64;
    // Rows of what is deleted already stand until the next commit.
    let condemned = shared.condemned(&root).await?;
    let commits = (root.oldest.max(1)..root.base).filter(|sequence| blobs.contains(&shared.chain.name(*sequence)));
    let waiting = condemned.iter().filter(|block| blobs.contains(&shared.block_name(**block))).count() as u64
        + commits.count() as u64;
    shared.remember().await?;
    let Emptied { bytes: moved_bytes, damaged } = emptied;
    Ok(CompactReport { blobs_before, blobs_after, moved_bytes, damaged, waiting, other_writers })
}

/// Deletes what needs no more than deleting.
pub(super) async fn give_back(shared: &Arc<Shared>) -> Result<()> {
    let mut leader = shared.leader.lock().await;
    shared.settle(&mut leader).await?;
    let guard = shared.try_alone().await?;
    let root = shared.root();
    shared.drop_unreferenced(&root, false).await?;
    shared.delete_condemned(&root, guard.is_some()).await?;
    shared.delete_commits(&root, guard.is_some()).await?;
    drop(guard);
    Ok(())
}

async fn end_others(shared: &Arc<Shared>, own: u32) -> Result<()> {
    for _ in 0..shared.tuning.attempts_max {
        let mut transaction = Transaction::new(shared);
        let lasting = lock(&shared.lasting).clone();
        let is_own = |epoch: &u32| *epoch == own || lasting.contains(epoch);
        let (mut ours, others): (BTreeMap<_, _>, BTreeMap<_, _>) =
            shared.open_epochs(&transaction).await?.into_iter().partition(|(epoch, _)| is_own(epoch));
        // Those that others have disowned are of this place again, as all is.
        ours.retain(|epoch, row| Claimant::of(row) != shared.own_claimant(*epoch));
        let is_told = shared.is_written_here_alone(&transaction).await?;
        if others.is_empty() && ours.is_empty() && is_told {
            return Ok(());
        }
        for (epoch, row) in ours {
            let row = shared.own_claimant(epoch).row(row.time.max(shared.env().now()));
            transaction.put_own(rows::epoch_key(epoch), Some(row.encode()));
        }
        // Nothing is on its way from elsewhere: from here on a lock tells of all again, until another place writes.
        if let Some((key, here)) = shared.only_here() {
            transaction.put_own(key, Some(here));
        }
        for (epoch, row) in others {
            // They are swept after at once; who is still there puts more, and that is for who comes next.
            transaction.put_own(rows::epoch_key(epoch), row.ended().map(|row| row.encode()));
            lock(&shared.abandoned).remove(&epoch);
        }
        match shared.submit(Work { urgent: true, ..transaction.into_work() }).await {
            Err(Error::Conflict) => shared.catch_up_as_writer().await?,
            done => return done.map(|_| ()),
        }
    }
    Err(Error::Conflict)
}
