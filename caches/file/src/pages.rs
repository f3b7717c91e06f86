//! Parts of blobs as pages in slots: what is found, what is kept, and what goes for it.

use std::collections::HashSet;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use strongroom_core::cache::{Part, Usage};
use strongroom_core::storage::{Name, Result};

use crate::layout::{Entry, Layout, PAGE_BYTES, entries, removals};
use crate::medium::{Medium, Writing};

/// Parts that came into a set last, and count alike.
const LATEST: u32 = 4;
/// Names that could not be removed and are remembered, at most.
const DENIED_MAX: usize = 1 << 16;

/// The pages of a cache.
#[derive(Debug)]
pub(crate) struct Pages {
    medium: Medium,
    bytes_max: u64,
    /// What could not be removed: of this nothing is answered.
    denied: Mutex<HashSet<Name>>,
    /// Set where that is too much to know: then nothing is answered at all.
    is_broken: AtomicBool,
}

/// What a look came to.
#[derive(Debug)]
pub(crate) enum Look {
    Hit(Bytes),
    /// What a load is judged by that begins now.
    Miss(Since),
}

/// How often something was removed from a set before, and from which file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Since {
    generation: u64,
    removals: u64,
}

impl Pages {
    pub(crate) fn open(folder: &Path, bytes_max: u64) -> Result<Self> {
        Ok(Self {
            medium: Medium::open(folder, bytes_max)?,
            bytes_max,
            denied: Mutex::default(),
            is_broken: AtomicBool::new(false),
        })
    }

    fn denied(&self) -> MutexGuard<'_, HashSet<Name>> {
        self.denied.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_denied(&self, name: Name) -> bool {
        self.is_broken.load(Ordering::Acquire) || self.denied().contains(&name)
    }

    /// Looks for a part.
    pub(crate) fn look(&self, name: Name, part: Part) -> Look {
        let layout = self.medium.layout();
        let Some(set) = layout.set_of(name).filter(|_| !self.is_denied(name)) else {
            return Look::Miss(Since::default());
        };
        let generation = self.medium.generation();
        let Ok(directory) = self.medium.read(layout.directory_at(set), layout.directory_bytes()) else {
            return Look::Miss(Since::default());
        };
        let found: Vec<(u64, Entry)> = own_entries(&directory, layout, name).collect();
        match self.gather(set, &found, part) {
            Some((bytes, used)) => {
                self.stamp(set, &used, newest(&directory, layout));
                Look::Hit(bytes)
            }
            None => Look::Miss(Since { generation, removals: removals(&directory) }),
        }
    }

    /// A part of the pages that there are of its blob, and the slots that it came from.
    fn gather(&self, set: u64, found: &[(u64, Entry)], part: Part) -> Option<(Bytes, Vec<(u64, u32)>)> {
        let Range { start, end } = match part {
            Part::Range { start, end } => start..end,
            Part::Whole => {
                let (_, last) = found.iter().find(|(_, entry)| entry.is_last)?;
                0..u64::from(last.page) * PAGE_BYTES + u64::from(last.length)
            }
        };
        let pages = start / PAGE_BYTES..end.div_ceil(PAGE_BYTES);
        if start >= end || pages.end - pages.start > found.len() as u64 {
            return None;
        }
        let layout = self.medium.layout();
        let first = pages.start * PAGE_BYTES;
        let (mut bytes, mut used) = (Vec::with_capacity(usize::try_from(end - first).ok()?), Vec::new());
        for page in pages {
            // Only a file that was meddled with has two of a page: the first is what is put right when it is kept again.
            let (slot, entry) = found.iter().find(|(_, entry)| u64::from(entry.page) == page)?;
            let wanted = (end - page * PAGE_BYTES).min(PAGE_BYTES);
            if u64::from(entry.length) < wanted {
                return None;
            }
            let content = self.medium.read(layout.page_at(set, *slot), entry.length.into()).ok()?;
            if !entry.is_of(&content) {
                return None;
            }
            bytes.extend_from_slice(content.get(..usize::try_from(wanted).ok()?)?);
            used.push((*slot, entry.stamp));
        }
        let bytes = Bytes::from(bytes);
        let from = usize::try_from(start - first).ok()?;
        (from <= bytes.len()).then(|| (bytes.slice(from..), used))
    }

    /// Counts slots among the latest again that are no longer: what is read often, and nothing comes beside it, costs no writes.
    /// No harm where it is lost, or meets another entry.
    fn stamp(&self, set: u64, slots: &[(u64, u32)], newest: u32) {
        let layout = self.medium.layout();
        for (slot, _) in slots.iter().filter(|(_, stamp)| stamp.saturating_add(LATEST) < newest) {
            let _ = self.medium.write_loosely(layout.stamp_at(set, *slot), &newest.to_le_bytes());
        }
    }

    /// Keeps a part, unless something was removed from its set since.
    pub(crate) fn keep(&self, name: Name, part: Part, bytes: &Bytes, since: Option<Since>) {
        if !self.is_denied(name) {
            // A cache that cannot be written, or that another writes to, is one that holds less.
            let _ = self.try_to_keep(name, part, bytes, since);
        }
    }

    fn try_to_keep(&self, name: Name, part: Part, bytes: &Bytes, since: Option<Since>) -> io::Result<()> {
        let layout = self.medium.layout();
        let Some(set) = layout.set_of(name) else { return Ok(()) };
        let pages = pages_of(part, bytes);
        if pages.is_empty() || pages.len() as u64 > layout.slots() {
            return Ok(());
        }
        let Some(writing) = self.medium.try_write()? else { return Ok(()) };
        let directory = writing.read(layout.directory_at(set), layout.directory_bytes())?;
        let now = Since { generation: self.medium.generation(), removals: removals(&directory) };
        if since.is_some_and(|since| since != now) {
            return Ok(());
        }
        let stamp = match newest(&directory, layout).checked_add(1) {
            Some(stamp) => stamp,
            None => {
                forget_stamps(&writing, layout, set)?;
                1
            }
        };
        if let (Part::Whole, Some((end, ..))) = (part, pages.last()) {
            // Of a blob that is known to its end, nothing lies behind that, nor does it end elsewhere.
            for (slot, entry) in own_entries(&directory, layout, name) {
                if entry.page > *end || entry.is_last && entry.page < *end {
                    writing.put(layout.entry_at(set, slot), &Entry::default().encode())?;
                }
            }
        }
        let slots = Slots::new(&directory, layout);
        let mut taken = Vec::with_capacity(pages.len());
        for (page, is_last, content) in pages {
            let entry = Entry { stamp, ..Entry::of(name, page, is_last, &content) };
            let held = own_entries(&directory, layout, name).find(|(_, held)| held.page == page);
            if let Some((slot, held)) = held
                && is_held(&writing, layout.page_at(set, slot), &held, &entry, &content)?
            {
                writing.put(layout.stamp_at(set, slot), &stamp.to_le_bytes())?;
                taken.push(slot);
                continue;
            }
            let Some(slot) = held.map(|(slot, _)| slot).or_else(|| slots.oldest(&taken, name)) else { return Ok(()) };
            taken.push(slot);
            writing.put(layout.page_at(set, slot), &content)?;
            writing.put(layout.entry_at(set, slot), &entry.encode())?;
        }
        Ok(())
    }

    /// Drops all pages of a blob, and refuses what is being loaded of it.
    pub(crate) fn remove(&self, name: Name) {
        if self.try_to_remove(name).is_ok() {
            self.denied().remove(&name);
            return;
        }
        let mut denied = self.denied();
        denied.insert(name);
        if denied.len() > DENIED_MAX {
            self.is_broken.store(true, Ordering::Release);
        }
    }

    fn try_to_remove(&self, name: Name) -> io::Result<()> {
        let layout = self.medium.layout();
        let Some(set) = layout.set_of(name) else { return Ok(()) };
        let writing = self.medium.write()?;
        let directory = writing.read(layout.directory_at(set), layout.directory_bytes())?;
        // First what is there: its blocks are, too, and so this needs no room.
        for (slot, _) in own_entries(&directory, layout, name) {
            writing.put(layout.entry_at(set, slot), &Entry::default().encode())?;
        }
        writing.put(layout.directory_at(set), &removals(&directory).wrapping_add(1).to_le_bytes())
    }

    /// Looks through all directories.
    pub(crate) fn usage(&self) -> Usage {
        let layout = self.medium.layout();
        let mut bytes = if layout.sets().is_empty() { 0 } else { layout.directory_at(0) };
        for set in layout.sets() {
            bytes += layout.directory_bytes();
            let Ok(directory) = self.medium.read(layout.directory_at(set), layout.directory_bytes()) else { continue };
            bytes += entries(&directory, layout.slots()).count() as u64 * PAGE_BYTES;
        }
        Usage { bytes, bytes_max: self.bytes_max }
    }
}

/// Pages of a part, each with its number and whether the blob ends with it. A page is kept from its start on, or not at all.
fn pages_of(part: Part, bytes: &Bytes) -> Vec<(u32, bool, Bytes)> {
    let start = match part {
        Part::Whole => 0,
        Part::Range { start, .. } => start,
    };
    if !part.fits(bytes.len()) {
        return Vec::new();
    }
    let end = start.saturating_add(bytes.len() as u64);
    let mut pages = Vec::new();
    for page in start.div_ceil(PAGE_BYTES)..end.div_ceil(PAGE_BYTES) {
        let (from, to) = (page * PAGE_BYTES, end.min(page.saturating_add(1).saturating_mul(PAGE_BYTES)));
        let is_last = part == Part::Whole && to == end;
        let (Ok(page), Ok(from), Ok(to)) =
            (u32::try_from(page), usize::try_from(from - start), usize::try_from(to - start))
        else {
            return Vec::new();
        };
        pages.push((page, is_last, bytes.slice(from..to)));
    }
    pages
}

/// Whether a slot holds the page already, or more of it.
fn is_held(writing: &Writing<'_>, at: u64, held: &Entry, new: &Entry, content: &[u8]) -> io::Result<bool> {
    if held.length < new.length || new.is_last && !held.is_last {
        return Ok(false);
    }
    let there = writing.read(at, held.length.into())?;
    Ok(held.is_of(&there) && there.starts_with(content) && (!new.is_last || held.length == new.length))
}

fn own_entries(directory: &[u8], layout: Layout, name: Name) -> impl Iterator<Item = (u64, Entry)> {
    entries(directory, layout.slots()).filter(move |(_, entry)| entry.name == *name.as_bytes())
}

fn newest(directory: &[u8], layout: Layout) -> u32 {
    entries(directory, layout.slots()).map(|(_, entry)| entry.stamp).max().unwrap_or(0)
}

/// After so many looks that stamps have come to their end.
fn forget_stamps(writing: &Writing<'_>, layout: Layout, set: u64) -> io::Result<()> {
    (0..layout.slots()).try_for_each(|slot| writing.put(layout.stamp_at(set, slot), &[0; 4]))
}

/// Whose slots go first.
struct Slots {
    /// By stamp; those that hold nothing first.
    by_age: Vec<(u64, Option<[u8; 16]>)>,
}

impl Slots {
    fn new(directory: &[u8], layout: Layout) -> Self {
        let mut held: Vec<Option<Entry>> = (0..layout.slots()).map(|_| None).collect();
        for (slot, entry) in entries(directory, layout.slots()) {
            if let Some(held) = usize::try_from(slot).ok().and_then(|slot| held.get_mut(slot)) {
                *held = Some(entry);
            }
        }
        let mut by_age: Vec<_> = (0..).zip(held).collect();
        by_age.sort_by_key(|(_, entry)| entry.as_ref().map(|entry| entry.stamp));
        Self { by_age: by_age.into_iter().map(|(slot, entry)| (slot, entry.map(|entry| entry.name))).collect() }
    }

    /// The slot to be used next: not one of those, nor of this blob while there are others.
    fn oldest(&self, taken: &[u64], name: Name) -> Option<u64> {
        let free = || self.by_age.iter().filter(|(slot, _)| !taken.contains(slot));
        let others = free().find(|(_, held)| held.as_ref() != Some(name.as_bytes()));
        others.or_else(|| free().next()).map(|(slot, _)| *slot)
    }
}
