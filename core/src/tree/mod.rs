//! The copy-on-write B+tree: an ordered map from keys to values whose nodes are immutable records.
//!
//! # Shape
//!
//! An empty tree is no root at all. Otherwise a [`TreeRoot`] names the root node and the height: the number of levels,
//! 1 to [`HEIGHT_MAX`](crate::format::node::HEIGHT_MAX). Leaves are level 0 and hold keys with values; a node of level
//! *n* holds *separators* with pointers to nodes of level *n* − 1; the root has level height − 1. The bytes of a node
//! are described in [`crate::format::node`].
//!
//! # Invariants
//!
//! 1. A node has at least one entry; its keys, or separators, ascend strictly, compared as bytes.
//! 2. Every key below entry *i* of an inner node is at or above separator *i*, and below separator *i* + 1 where there is
//!    one. Hence each node has a *fence*: the separator that leads to it, and the next separator to its right on the
//!    way down. All of its own keys, or separators, lie within.
//! 3. A separator is any key that obeys this, not necessarily one that is stored: writers use the shortest one between
//!    the last key on its left and the first on its right; for the first leaf of a new tree, the empty key.
//! 4. No node is longer than the repository's `node_bytes_max`; keys and entries obey
//!    [`key_bytes_max`](crate::format::node::key_bytes_max) and
//!    [`leaf_entry_bytes_max`](crate::format::node::leaf_entry_bytes_max).
//!
//! # Search
//!
//! At an inner node follow the entry with the last separator that is not above the key; where every separator is above
//! it, the key is absent. At the leaf, look for the key itself. A reader checks at each step that the child has the
//! level it must have and that its first and last key lie within its fence; so it ends after at most height steps,
//! whatever it is given, and a node in the wrong place is [`Error::Damaged`], not a wrong answer.
//!
//! # Change
//!
//! [`apply()`] takes a sorted batch and writes new nodes for the changed leaves and for all nodes above them. Every other
//! node stays where it is and is shared by the old tree and the new one. It returns the nodes that only the old tree
//! has, and those that only the new one has. Since nodes never change, whoever holds an old root can read on.
//!
//! [`Relocation`] copies nodes elsewhere, as they are but for the places of their children, in several trees at once, so that
//! what these share stays shared.
//!
//! How full nodes are is the writer's business. This one keeps a node over a third full unless it is the last of its
//! level or stands beside big entries, and fills nodes completely where keys are appended.

mod apply;
mod cursor;
mod diff;
mod merge;
mod merged_diff;
mod overlay;
mod packer;
mod read;
mod relocate;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

pub use apply::{Applied, Dead, apply, rebuild};
pub use cursor::{Cursor, Direction, KeyRange};
pub use diff::{Diff, Difference};
pub use merge::MergedCursor;
pub use merged_diff::{Layered, MergedDiff};
pub use overlay::{Change, Overlay};
pub use read::{Visit, get, walk, walk_pointers, walk_where};
pub use relocate::Relocation;

use crate::error::{Error, Result};
use crate::format::Pointer;
use crate::format::node::Node;
use crate::storage::MaybeSendSync;

/// Where the nodes of trees live.
#[cfg_attr(not(target_family = "wasm"), async_trait)]
#[cfg_attr(target_family = "wasm", async_trait(?Send))]
pub trait NodeStore: MaybeSendSync {
    /// The node if it is at hand without waiting. A look-up that hits allocates nothing.
    fn cached(&self, _pointer: &Pointer) -> Option<Arc<Node>> {
        None
    }

    /// The node that a pointer names; nodes written here but not yet stored included.
    ///
    /// # Errors
    /// [`Error::Damaged`] where what is stored is no valid node (see [`decode_node`]), and what storage raises.
    async fn read(&self, pointer: &Pointer) -> Result<Arc<Node>>;

    /// Stores a node and answers its place, which no earlier node has had.
    ///
    /// # Errors
    /// What storage raises.
    async fn write(&self, node: &[u8], level: u8) -> Result<Pointer>;

    /// The longest node that may be written, in bytes: 1,024 to 4,096.
    fn node_bytes_max(&self) -> usize;
}

/// Lets whoever holds a store by reference or by `Arc` pass that on.
macro_rules! forward_node_store {
    ($(($($generics:tt)*) $holder:ty),*) => {$(
        #[cfg_attr(not(target_family = "wasm"), async_trait)]
        #[cfg_attr(target_family = "wasm", async_trait(?Send))]
        impl<$($generics)*> NodeStore for $holder {
            fn cached(&self, pointer: &Pointer) -> Option<Arc<Node>> {
                (**self).cached(pointer)
            }

            async fn read(&self, pointer: &Pointer) -> Result<Arc<Node>> {
                (**self).read(pointer).await
            }

            async fn write(&self, node: &[u8], level: u8) -> Result<Pointer> {
                (**self).write(node, level).await
            }

            fn node_bytes_max(&self) -> usize {
                (**self).node_bytes_max()
            }
        }
    )*};
}

forward_node_store!((S: NodeStore + ?Sized) &S, (S: NodeStore + ?Sized) Arc<S>);

/// The root of a tree that is not empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TreeRoot {
    /// The root node.
    pub pointer: Pointer,
    /// The number of levels, at least 1: the root node has level `height` − 1.
    pub height: u8,
}

/// Checks the bytes of a node, for implementors of [`NodeStore`].
///
/// # Errors
/// [`Error::Damaged`] with the rule that is broken.
pub fn decode_node(bytes: Bytes) -> Result<Arc<Node>> {
    Node::decode(bytes).map(Arc::new).map_err(|error| Error::damaged("tree node", None, error.reason))
}
