//! What the medium holds: the durable image, the live one, and the journal of what stands between them.

use std::collections::BTreeMap;

use bytes::Bytes;
use strongroom_core::storage::{Name, Put, Torn};

use crate::Dice;

/// What power loss does to changes that were not made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Each is kept, dropped or torn, as the seed decides.
    Seeded(u64),
    /// All are lost.
    Everything,
    /// All are kept.
    Nothing,
    /// All are kept, and every put that can be torn is.
    TearAll(u64),
}

pub(super) type Process = u64;
pub(super) type Blobs = BTreeMap<Name, Bytes>;

/// A change that is visible and not durable.
#[derive(Debug)]
struct Entry {
    process: Process,
    name: Name,
    /// The blob put; `None` for a deletion.
    put: Option<Bytes>,
    /// Was durable before it became visible, so power loss can take it away but not tear it.
    whole: bool,
    /// Changes of one atomic batch have the same number.
    batch: u64,
}

/// Invariant: `live` is `durable` with the journal applied in order.
#[derive(Debug, Default)]
pub(super) struct Image {
    pub(super) durable: Blobs,
    pub(super) live: Blobs,
    pub(super) live_bytes: u64,
    journal: Vec<Entry>,
    batches: u64,
    /// An atomic storage keeps one log: what is durable in it is a prefix of batches.
    is_log: bool,
}

impl Image {
    pub(super) fn new(is_log: bool) -> Self {
        Self { is_log, ..Self::default() }
    }

    pub(super) fn unsynced(&self) -> usize {
        self.journal.len()
    }

    /// What follows belongs to a new batch.
    pub(super) fn next_batch(&mut self) {
        self.batches += 1;
    }

    pub(super) fn put(&mut self, process: Process, name: Name, bytes: Bytes, whole: bool) -> Put {
        if self.live.contains_key(&name) {
            return Put::Exists;
        }
        self.live_bytes += bytes.len() as u64;
        self.live.insert(name, bytes.clone());
        self.journal.push(Entry { process, name, put: Some(bytes), whole, batch: self.batches });
        Put::Created
    }

    pub(super) fn delete(&mut self, process: Process, name: Name) {
        if let Some(old) = self.live.remove(&name) {
            self.live_bytes -= old.len() as u64;
            self.journal.push(Entry { process, name, put: None, whole: true, batch: self.batches });
        }
    }

    /// Makes the live state of one name durable.
    pub(super) fn persist(&mut self, name: Name) {
        if self.is_log {
            return self.persist_all();
        }
        self.journal.retain(|entry| entry.name != name);
        set(&mut self.durable, name, self.live.get(&name).cloned());
    }

    /// Makes durable what this process did. What others did to the same names earlier is settled with it; what they did
    /// later, or elsewhere, is not.
    pub(super) fn sync(&mut self, process: Process) {
        if self.is_log {
            return self.persist_all();
        }
        let mut settled = BTreeMap::new();
        for entry in self.journal.iter().rev().filter(|entry| entry.process == process) {
            settled.entry(entry.name).or_insert_with(|| entry.put.clone());
        }
        // An entry of someone else that came after ours stays in the journal.
        let mut last_own = BTreeMap::new();
        for (place, entry) in self.journal.iter().enumerate().filter(|(_, entry)| entry.process == process) {
            last_own.insert(entry.name, place);
        }
        let mut place = 0;
        self.journal.retain(|entry| {
            let keep = last_own.get(&entry.name).is_none_or(|last| *last < place);
            place += 1;
            keep
        });
        for (name, put) in settled {
            set(&mut self.durable, name, put);
        }
    }

    fn persist_all(&mut self) {
        self.journal.clear();
        self.durable.clone_from(&self.live);
    }

    /// A hostile hand at the medium: past every rule, on both images.
    pub(super) fn force(&mut self, name: Name, bytes: Option<Bytes>) {
        self.journal.retain(|entry| entry.name != name);
        set(&mut self.durable, name, bytes.clone());
        set(&mut self.live, name, bytes);
        self.count_bytes();
    }

    pub(super) fn force_all(&mut self, blobs: Blobs) {
        self.journal.clear();
        self.durable.clone_from(&blobs);
        self.live = blobs;
        self.count_bytes();
    }

    pub(super) fn power_loss(&mut self, loss: Loss, torn: Torn) {
        let mut dice = match loss {
            Loss::Seeded(seed) | Loss::TearAll(seed) => Dice::new(seed),
            Loss::Everything | Loss::Nothing => Dice::new(0),
        };
        let journal = std::mem::take(&mut self.journal);
        let log_end = match loss {
            Loss::Seeded(_) if self.is_log => {
                let first = journal.first().map_or(0, |entry| entry.batch);
                let last = journal.last().map_or(0, |entry| entry.batch);
                Some(first + dice.below(last - first + 2))
            }
            _ => None,
        };
        let mut by_name: BTreeMap<Name, Vec<Entry>> = BTreeMap::new();
        for entry in journal {
            by_name.entry(entry.name).or_default().push(entry);
        }
        for (name, entries) in by_name {
            // The states that a name went through can come back only in their order: so a prefix of them is kept.
            let kept = match (loss, log_end) {
                (Loss::Everything, _) => 0,
                (Loss::Nothing | Loss::TearAll(_), _) => entries.len(),
                (Loss::Seeded(_), Some(end)) => entries.iter().take_while(|entry| entry.batch < end).count(),
                (Loss::Seeded(_), None) => dice.below(entries.len() as u64 + 1) as usize,
            };
            let Some(last) = entries.into_iter().take(kept).last() else { continue };
            let tearable = torn == Torn::BeforeSync && !last.whole;
            let tear = tearable
                && match loss {
                    Loss::Seeded(_) => dice.per_mille(400),
                    Loss::TearAll(_) => true,
                    Loss::Everything | Loss::Nothing => false,
                };
            let put = last.put.map(|bytes| if tear { torn_version(&mut dice, &bytes) } else { bytes });
            set(&mut self.durable, name, put);
        }
        self.live.clone_from(&self.durable);
        self.count_bytes();
    }

    fn count_bytes(&mut self) {
        self.live_bytes = self.live.values().map(|blob| blob.len() as u64).sum();
    }
}

fn set(blobs: &mut Blobs, name: Name, bytes: Option<Bytes>) {
    match bytes {
        Some(bytes) => blobs.insert(name, bytes),
        None => blobs.remove(&name),
    };
}

/// What file systems leave of a file that was not synced: its beginning, its length with zeros, or a hole of zeros.
fn torn_version(dice: &mut Dice, bytes: &Bytes) -> Bytes {
    const SECTOR_BYTES: u64 = 512;
    let length = bytes.len() as u64;
    let cut = dice.below(length + 1) as usize;
    match dice.below(4) {
        0 => bytes.slice(..cut),
        1 => Bytes::new(),
        2 => bytes.iter().enumerate().map(|(place, byte)| if place < cut { *byte } else { 0 }).collect(),
        _ => {
            let sector = dice.below(length.div_ceil(SECTOR_BYTES));
            let in_hole = |place: usize| place as u64 / SECTOR_BYTES == sector;
            bytes.iter().enumerate().map(|(place, byte)| if in_hole(place) { 0 } else { *byte }).collect()
        }
    }
}
