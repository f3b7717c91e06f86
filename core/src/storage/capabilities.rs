/// How far put-if-absent and visibility (S2, S5) reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// Handles of this process.
    Process,
    /// Every process of this host.
    Host,
    /// Everyone who uses the storage.
    Everywhere,
}

/// What `sync` and `put_durable` protect against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Durability {
    /// Nothing: gone with the process.
    None,
    /// The process dying: the one that calls, and the server's where there is one.
    Process,
    /// Power loss.
    Power,
}

/// Whether a plain put that was not yet synced can be torn by power loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Torn {
    /// It is absent or whole.
    Never,
    /// It may be there with part of its content, or with zeros.
    BeforeSync,
}

/// What a batch promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchSupport {
    /// The changes one after the other.
    Sequential,
    /// All or nothing, across a crash too.
    Atomic,
}

/// The order of a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListOrder {
    /// Ascending by name.
    Ascending,
    /// None.
    Unordered,
}

/// Whether reading a part costs a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeReads {
    /// Only what is asked for is transferred.
    Native,
    /// The whole blob is read and cut.
    Emulated,
}

/// What a storage can promise; enums rather than booleans, so that each answer says what it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Reach of put-if-absent and of visibility.
    pub reach: Reach,
    /// What `sync` and `put_durable` protect against.
    pub durability: Durability,
    /// What power loss does to a plain put not yet synced.
    pub torn: Torn,
    /// What `apply` promises.
    pub batch: BatchSupport,
    /// Order of listings.
    pub list_order: ListOrder,
    /// Whether range reads are native.
    pub range_reads: RangeReads,
    /// The block size in bytes that suits this storage best: over a network about latency times bandwidth.
    pub block_bytes_best: u32,
    /// The largest blob in bytes.
    pub block_bytes_max: u32,
}
