//! Tree nodes as records, with a cache of decoded ones bounded by bytes.

use std::sync::Arc;

use async_trait::async_trait;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::block::BlockStore;
use crate::format::node::Node;
use crate::format::{BlockClass, Pointer, RecordKind};
use crate::tree::NodeStore;
use crate::{Error, Result};

#[derive(Clone)]
struct NodeWeight;

impl Weighter<Pointer, Arc<Node>> for NodeWeight {
    fn weight(&self, _: &Pointer, node: &Arc<Node>) -> u64 {
        node.bytes().len() as u64 + 128
    }
}

/// Where the engine's trees keep their nodes.
pub(crate) struct Nodes {
    blocks: Arc<BlockStore>,
    cache: Cache<Pointer, Arc<Node>, NodeWeight>,
    node_bytes_max: usize,
}

impl Nodes {
    pub(crate) fn new(blocks: Arc<BlockStore>, cache_bytes_max: u64) -> Self {
        let node_bytes_max = blocks.reader.context().geometry.node_bytes_max();
        let items = usize::try_from(cache_bytes_max / node_bytes_max.max(1) as u64).unwrap_or(usize::MAX).max(64);
        Self { blocks, cache: Cache::with_weighter(items, cache_bytes_max, NodeWeight), node_bytes_max }
    }

    /// Forgets all decoded nodes; whoever looks at one keeps it for as long.
    pub(crate) fn forget(&self) {
        self.cache.clear();
    }
}

#[cfg_attr(not(target_family = "wasm"), async_trait)]
#[cfg_attr(target_family = "wasm", async_trait(?Send))]
impl NodeStore for Nodes {
    fn cached(&self, pointer: &Pointer) -> Option<Arc<Node>> {
        self.cache.get(pointer)
    }

    async fn read(&self, pointer: &Pointer) -> Result<Arc<Node>> {
        if let Some(node) = self.cache.get(pointer) {
            return Ok(node);
        }
        let bytes = self.blocks.read(pointer, RecordKind::Node).await?;
        let name = || self.blocks.reader.name(&pointer.block_id());
        let node = Node::decode(bytes).map_err(|error| Error::damaged("tree node", Some(name()), error.reason))?;
        let node = Arc::new(node);
        self.cache.insert(*pointer, node.clone());
        Ok(node)
    }

    async fn write(&self, node: &[u8], level: u8) -> Result<Pointer> {
        let pointers =
            self.blocks.writer.append(BlockClass::Metadata, RecordKind::Node, u64::from(level), node).await?;
        pointers.first().copied().ok_or_else(|| Error::Invalid("a node that no block holds".into()))
    }

    fn node_bytes_max(&self) -> usize {
        self.node_bytes_max
    }
}
