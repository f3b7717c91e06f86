//! Copying a repository into a new one with other keys, another suite or another size of blocks.
//!
//! Rows are copied, not files: of each state that the source keeps, the oldest first, the rows that differ from the state
//! before it, with the chunks that they refer to and that are not there yet; then the newest state. So what states share in
//! the source they share in the copy, whatever the rows mean.
//!
//! Rows name chunks by number, and callers put other numbers of [`super::Transaction::number`] into them. All stay as they
//! are. So that none is drawn again, the copy begins with a writer epoch above all of the source; and whoever kept the epoch
//! of a writer in a row finds it ended there.
//!
//! What must stay true: a copy that did not come to its end opens for nobody. Its header says so from the beginning, and the
//! commit that puts one in force which does not is the last step. Nor does the source give up what is being read: while it
//! lasts, a snapshot of the newest state is kept there, of a name that tells whose it is.

mod fetching;
mod fill;
mod source;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::difference::References;
use super::keyring::HeaderEdit;
use super::options::{CreateOptions, Unlock};
use super::transaction::Transaction;
use super::{Engine, Table};
use crate::block::Geometry;
use crate::env::Env;
use crate::format::header::Features;
use crate::format::limits::{BLOCK_BYTES_MAX, BLOCK_BYTES_MIN};
use crate::format::rows;
use crate::storage::Storage;
use crate::{Error, Result};

use fill::Filling;
use source::Source;
pub(super) use source::holder;

/// Whoever knows the rows of the content, and what the payloads of chunks stand for.
pub trait Contents: References {
    /// The plaintext of a payload whose chunk has an identity: the identity is the keyed hash of that, and another one in
    /// another repository. It is at most so many bytes long.
    ///
    /// # Errors
    /// [`Error::Damaged`] for a payload that stands for nothing.
    fn plain(&self, payload: &Bytes, plain_bytes_max: usize) -> Result<Bytes>;

    /// What a row of `source` is in a copy of it, which has other keys; by default what it is. It refers to the same chunks.
    ///
    /// # Errors
    /// [`Error::Damaged`] for a row of another shape.
    fn copied_row(&self, source: &Engine, table: Table, key: &[u8], row: Bytes) -> Result<Bytes> {
        let _ = (source, table, key);
        Ok(row)
    }
}

/// What is copied, and who hears of it.
pub struct CopyOptions<'a> {
    /// Knows what the rows refer to.
    pub contents: Arc<dyn Contents>,
    /// Copies what this snapshot keeps as the newest state, and of the snapshots this one and those before it.
    pub at: Option<&'a str>,
    /// Hears how many bytes of payloads are in the copy, and says whether to go on.
    pub progress: Option<&'a mut (dyn FnMut(u64) -> bool + Send)>,
    /// Gets what [`Copied::left_behind`] says, where the copy fails too.
    pub left_behind: Option<&'a mut Option<String>>,
}

/// What was copied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// Snapshots.
    pub snapshots: u64,
    /// Rows that were written, each as often as it changed from one state to the next.
    pub rows: u64,
    /// Chunks.
    pub chunks: u64,
    /// Bytes of their payloads.
    pub chunk_bytes: u64,
    /// The snapshot that was to keep the source as it was, where it could not be removed, or where that is not known: the
    /// next copy does it.
    pub left_behind: Option<String>,
}

impl Engine {
    /// Creates a repository that has all that this one has: the rows of all tables of callers, the chunks that they refer to,
    /// and every snapshot with its name and time. It is whole, and opens, only once this answers; where it fails, what was
    /// made is deleted again, and where it is killed or dropped, what is left answers [`Error::UnfinishedCopy`].
    ///
    /// While it lasts, a snapshot keeps the state that is copied. Where this engine is read-only, or its storage takes
    /// nothing, there is none, and what others do meanwhile may end it with [`Error::Expired`].
    ///
    /// # Errors
    /// [`Error::BlocksTooSmall`] before anything is made; [`Error::Stopped`]; [`Error::NoSnapshot`]; [`Error::Expired`]; as
    /// reading and taking a snapshot here; and of the copy, as [`Error::InCopy`], as [`Engine::create`] and committing, but for
    /// [`Error::AlreadyExists`], [`Error::UnfinishedCopy`] and [`Error::Invalid`], which are of no other.
    pub async fn copy(
        &self,
        storage: Arc<dyn Storage>,
        env: Env,
        create: CreateOptions<'_>,
        mut options: CopyOptions<'_>,
    ) -> Result<(Self, Copied)> {
        let told = options.left_behind.take();
        self.check_copy_fits(create.block_bytes)?;
        let mut left_behind = None;
        let done = match Source::take(self, options.at, &mut left_behind).await {
            Ok(mut source) => {
                let done = copy(&mut source, storage, env, create, options).await;
                left_behind = source.release().await.or(left_behind);
                done
            }
            Err(error) => Err(error),
        };
        if let Some(told) = told {
            told.clone_from(&left_behind);
        }
        done.map(|(engine, copied)| (engine, Copied { left_behind, ..copied }))
    }

    /// Whether a repository with blocks of this size can hold what this one may have.
    ///
    /// # Errors
    /// [`Error::BlocksTooSmall`]; [`Error::Invalid`] for a size that no block has.
    pub fn check_copy_fits(&self, block_bytes: u32) -> Result<()> {
        let ours = self.shared.context.geometry;
        let holds = |geometry: Geometry| {
            geometry.node_bytes_max() >= ours.node_bytes_max() && geometry.chunk_bytes_max() >= ours.chunk_bytes_max()
        };
        if holds(Geometry::new(block_bytes)?) {
            return Ok(());
        }
        let mut block_bytes_min = BLOCK_BYTES_MIN;
        while block_bytes_min < BLOCK_BYTES_MAX && !holds(Geometry::new(block_bytes_min)?) {
            block_bytes_min *= 2;
        }
        Err(Error::BlocksTooSmall { block_bytes, block_bytes_min })
    }

    /// An empty repository that is marked as unfinished, and whose writers begin with this epoch.
    async fn create_unfinished(
        storage: Arc<dyn Storage>,
        env: Env,
        create: CreateOptions<'_>,
        first_epoch: u64,
    ) -> Result<Self> {
        let features = Features { incompatible: Features::UNFINISHED_COPY, ..Features::default() };
        Self::create_having(storage, env, create, features, async |_: &Self, first: &mut Transaction| {
            let epoch = Bytes::copy_from_slice(&first_epoch.to_le_bytes());
            first.put_own(rows::counter_key(rows::NEXT_EPOCH), Some(epoch));
            Ok(())
        })
        .await
    }

    /// Takes the mark away: from the commit that does it on, the copy is a repository.
    async fn finish_copy(&self) -> Result<()> {
        self.edit_slots(async |edit: &HeaderEdit<'_>| edit.finish_copy()).await.map(drop)
    }

    /// Deletes what was made of a copy.
    async fn abandon_copy(self, storage: Arc<dyn Storage>, env: Env) -> Result<()> {
        let root = self.root_secret();
        self.shared.closed.store(true, Ordering::Release);
        let writer = &self.shared.blocks.writer;
        writer.discard();
        // What is under way comes to its end before storage is listed.
        let _ = writer.flush().await;
        drop(self);
        Self::destroy(storage, env, Unlock::Root(&root)).await.map(drop)
    }
}

async fn copy(
    source: &mut Source,
    storage: Arc<dyn Storage>,
    env: Env,
    create: CreateOptions<'_>,
    options: CopyOptions<'_>,
) -> Result<(Engine, Copied)> {
    let first_epoch = source.first_epoch().await?;
    let created = Engine::create_unfinished(storage.clone(), env.clone(), create, first_epoch).await;
    let target = created.map_err(Error::in_copy)?;
    let filled = match fill(source, &target, options).await {
        Ok(copied) => target.finish_copy().await.map(|()| copied).map_err(Error::in_copy),
        failed => failed,
    };
    match filled {
        Ok(copied) => Ok((target, copied)),
        // It may be whole, and then it is not ours to delete.
        Err(Error::InCopy(error)) if matches!(*error, Error::CommitUnknown { .. }) => Err(Error::InCopy(error)),
        Err(error) => {
            if let Err(left) = target.abandon_copy(storage, env).await {
                tracing::warn!(error = %left, "what was made of the copy could not be deleted");
            }
            Err(error)
        }
    }
}

async fn fill(source: &mut Source, target: &Engine, options: CopyOptions<'_>) -> Result<Copied> {
    let mut filling = Filling::new(target, options.contents, options.progress);
    let mut before = None;
    for info in source.snapshots() {
        let mut after = source.state(&info).await?;
        filling.bring(before.as_mut(), &mut after).await?;
        filling.keep(&info).await?;
        before = Some(after);
    }
    filling.bring(before.as_mut(), source.newest()).await?;
    Ok(filling.done())
}
