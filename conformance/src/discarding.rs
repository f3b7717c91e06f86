//! **A storage that forgets file data**: a wrapper for tests at a scale that memory does not hold.
//!
//! Storage sees equal blocks and cannot know which of them the engine lives on. So the test says it, for it holds the
//! keys: [`file_data_of`] turns a block's name around, opens its trailer, which states the class, and lets go what is
//! file data. Of a block let go, name and length stay: it is listed, has its size, cannot be put again, and reads as
//! zeros, which the engine reports as damage, never as content.
//!
//! What is in the medium is real, save for file data: everything but reading files works, `check` without data too.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use strongroom_core::crypto::Keys;
use strongroom_core::format::{BlockClass, BlockId, RecordKind, SALT_BYTES, SEAL_BYTES, TRAILER_INDEX, Trailer, aad};
use strongroom_core::storage::bounds::{check_blob_bytes, check_range};
use strongroom_core::storage::{
    Capabilities, Change, ErrorKind, ExclusiveGuard, Name, Operation, Put, Result, Storage, StorageExt as _,
};

/// What happens to a blob that is put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// It is stored.
    Content,
    /// Only that it is there, and how long it is.
    Length,
}

/// Says of each blob that is put whether its content is kept.
pub type Decider = Arc<dyn Fn(&Name, &Bytes) -> Keep + Send + Sync>;

/// Lets go the content of data blocks: those whose name is a number and whose trailer opens and says so. Whatever these
/// keys do not open is kept.
///
/// Small chunks may lie in rows, and so in metadata; they stay.
#[must_use]
pub fn file_data_of(keys: Arc<Keys>) -> Decider {
    Arc::new(move |name, bytes| match class(&keys, name, bytes) {
        Some(BlockClass::Data) => Keep::Length,
        _ => Keep::Content,
    })
}

fn class(keys: &Keys, name: &Name, bytes: &Bytes) -> Option<BlockClass> {
    let id = BlockId::decode(&keys.decrypt_name(*name.as_bytes()))?;
    let salt: &[u8; SALT_BYTES] = bytes.first_chunk()?;
    let sealed = bytes.get(bytes.len().checked_sub(Trailer::SEALED_BYTES)?..)?;
    let (trailer, tag) = sealed.split_last_chunk::<SEAL_BYTES>()?;
    let mut trailer = trailer.to_vec();
    let aad = aad(keys.repository(), name.as_bytes(), TRAILER_INDEX, RecordKind::Trailer);
    keys.block_key(id.key_epoch(), name.as_bytes(), salt)?.open(TRAILER_INDEX, &aad, &mut trailer, tag).ok()?;
    Trailer::decode(&trailer).ok().map(|trailer| trailer.class)
}

/// How much is there, and how much of it was let go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Discarded {
    /// Blobs of which only the length is left.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What the medium within holds in the place of a blob that was let go, before its length.
const MARK: &[u8; 16] = b"discarded, bytes";
const MARK_BYTES: u64 = MARK.len() as u64 + 4;

/// A handle on a medium that forgets.
///
/// Of a blob that it lets go, the medium within holds a mark of 20 bytes: so names, races, crashes and durability are its
/// own. A blob of a test that is itself such a mark would be misread; blocks are longer.
pub struct DiscardingStorage {
    inner: Arc<dyn Storage>,
    decider: Decider,
}

impl DiscardingStorage {
    /// A handle that asks `decider` about each blob.
    #[must_use]
    pub fn new(inner: Arc<dyn Storage>, decider: Decider) -> Self {
        Self { inner, decider }
    }

    /// What is let go now.
    ///
    /// # Errors
    /// What the medium raises.
    pub async fn discarded(&self) -> Result<Discarded> {
        let mut sum = Discarded::default();
        for name in self.inner.list_all(&[]).await? {
            if let Some(length) = self.length(name).await? {
                sum.blobs += 1;
                sum.bytes += u64::from(length);
            }
        }
        Ok(sum)
    }

    /// What is stored of a blob.
    fn kept(&self, name: &Name, bytes: Bytes) -> Bytes {
        match ((self.decider)(name, &bytes), u32::try_from(bytes.len())) {
            (Keep::Length, Ok(length)) => [&MARK[..], &length.to_le_bytes()].concat().into(),
            _ => bytes,
        }
    }

    /// The length of a blob that was let go; `None` for one that was kept, or is not there.
    async fn length(&self, name: Name) -> Result<Option<u32>> {
        match self.inner.size(name).await {
            Ok(MARK_BYTES) => {}
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => return Ok(None),
        }
        match self.inner.get(name, None, MARK_BYTES).await {
            Ok(mark) => {
                let length = mark.strip_prefix(MARK).and_then(|length| length.first_chunk());
                Ok(length.map(|length| u32::from_le_bytes(*length)))
            }
            // Deleted meanwhile.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl fmt::Debug for DiscardingStorage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("DiscardingStorage").field("inner", &self.inner).finish_non_exhaustive()
    }
}

#[async_trait]
impl Storage for DiscardingStorage {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn is_remote(&self) -> bool {
        self.inner.is_remote()
    }

    async fn put(&self, name: Name, bytes: Bytes) -> Result<Put> {
        check_blob_bytes(Operation::Put, name, bytes.len(), self.capabilities().block_bytes_max)?;
        self.inner.put(name, self.kept(&name, bytes)).await
    }

    async fn put_durable(&self, name: Name, bytes: Bytes) -> Result<Put> {
        check_blob_bytes(Operation::PutDurable, name, bytes.len(), self.capabilities().block_bytes_max)?;
        self.inner.put_durable(name, self.kept(&name, bytes)).await
    }

    async fn get(&self, name: Name, range: Option<Range<u64>>, max_bytes: u64) -> Result<Bytes> {
        let Some(length) = self.length(name).await? else {
            return self.inner.get(name, range, max_bytes).await;
        };
        let range = check_range(name, range, length.into(), max_bytes)?;
        // Within a blob, so within usize.
        Ok(vec![0; (range.end - range.start) as usize].into())
    }

    async fn size(&self, name: Name) -> Result<u64> {
        match self.length(name).await? {
            Some(length) => Ok(length.into()),
            None => self.inner.size(name).await,
        }
    }

    async fn delete(&self, name: Name) -> Result<()> {
        self.inner.delete(name).await
    }

    async fn list(&self, prefix: &[u8], after: Option<Name>) -> Result<Vec<Name>> {
        self.inner.list(prefix, after).await
    }

    async fn apply(&self, batch: Vec<Change>) -> Result<Vec<Put>> {
        let mut kept = Vec::with_capacity(batch.len());
        for change in batch {
            kept.push(match change {
                Change::Put(name, bytes) => {
                    check_blob_bytes(Operation::Apply, name, bytes.len(), self.capabilities().block_bytes_max)?;
                    Change::Put(name, self.kept(&name, bytes))
                }
                Change::Delete(name) => Change::Delete(name),
            });
        }
        self.inner.apply(kept).await
    }

    async fn sync(&self) -> Result<()> {
        self.inner.sync().await
    }

    async fn persist(&self, names: &[Name]) -> Result<()> {
        self.inner.persist(names).await
    }
    fn occupancy(&self) -> Option<std::sync::Arc<strongroom_core::storage::Occupancy>> {
        self.inner.occupancy()
    }

    async fn try_exclusive(&self) -> Result<Option<Box<dyn ExclusiveGuard>>> {
        self.inner.try_exclusive().await
    }

    async fn available_bytes(&self) -> Result<Option<u64>> {
        self.inner.available_bytes().await
    }
}
