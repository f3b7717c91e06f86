//! What the buckets hold: maps under one lock, so that every operation is atomic.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

/// After so many changes the names that a stale listing shows are taken anew.
const STALE_CHANGES: u64 = 8;

/// How a conditional create is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Conditional {
    /// Exactly one wins.
    #[default]
    Exact,
    /// The condition is read and forgotten: every put replaces.
    Ignored,
    /// Looked for first and put then, without a lock: of those that come at once several win.
    Racy,
    /// Refused with `NotImplemented`, as some servers do.
    Refused,
}

/// The buckets.
#[derive(Debug, Default)]
pub(crate) struct World {
    buckets: Mutex<BTreeMap<String, Bucket>>,
    late: Mutex<Vec<Late>>,
}

/// A put that is on its way.
#[derive(Debug)]
struct Late {
    bucket: String,
    key: String,
    bytes: Bytes,
    only_new: bool,
}

#[derive(Debug, Default)]
struct Bucket {
    objects: BTreeMap<String, Bytes>,
    changes: u64,
    /// The names of a while ago, oldest first.
    earlier: VecDeque<BTreeSet<String>>,
}

/// No bucket of that name.
#[derive(Debug)]
pub(crate) struct NoBucket;

/// What a put found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Stored {
    Done,
    Taken,
}

/// One page of a listing.
#[derive(Debug, Default)]
pub(crate) struct Page {
    /// Names and lengths.
    pub(crate) objects: Vec<(String, usize)>,
    pub(crate) common_prefixes: Vec<String>,
    /// What the next page comes after, where there is one.
    pub(crate) next: Option<String>,
}

impl World {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Bucket>> {
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, bucket: &str, look: impl FnOnce(&mut Bucket) -> T) -> Result<T, NoBucket> {
        self.lock().get_mut(bucket).map(look).ok_or(NoBucket)
    }

    pub(crate) fn create_bucket(&self, bucket: &str) {
        self.lock().entry(bucket.to_owned()).or_default();
    }

    pub(crate) fn remove_bucket(&self, bucket: &str) {
        self.lock().remove(bucket);
    }

    pub(crate) fn has_bucket(&self, bucket: &str) -> bool {
        self.lock().contains_key(bucket)
    }

    pub(crate) fn get(&self, bucket: &str, key: &str) -> Result<Option<Bytes>, NoBucket> {
        self.with(bucket, |bucket| bucket.objects.get(key).cloned())
    }

    pub(crate) fn put(&self, bucket: &str, key: &str, bytes: Bytes, only_new: bool) -> Result<Stored, NoBucket> {
        self.with(bucket, |bucket| {
            if only_new && bucket.objects.contains_key(key) {
                return Stored::Taken;
            }
            bucket.objects.insert(key.to_owned(), bytes);
            bucket.changed();
            Stored::Done
        })
    }

    /// Puts it when [`World::deliver`] is called.
    pub(crate) fn put_later(&self, bucket: &str, key: &str, bytes: Bytes, only_new: bool) {
        let late = Late { bucket: bucket.to_owned(), key: key.to_owned(), bytes, only_new };
        self.late.lock().unwrap_or_else(PoisonError::into_inner).push(late);
    }

    /// What was on its way arrives.
    pub(crate) fn deliver(&self) {
        let late = std::mem::take(&mut *self.late.lock().unwrap_or_else(PoisonError::into_inner));
        for Late { bucket, key, bytes, only_new } in late {
            let _ = self.put(&bucket, &key, bytes, only_new);
        }
    }

    pub(crate) fn delete(&self, bucket: &str, key: &str) -> Result<(), NoBucket> {
        self.with(bucket, |bucket| {
            bucket.objects.remove(key);
            bucket.changed();
        })
    }

    pub(crate) fn keys(&self, bucket: &str) -> Vec<String> {
        self.with(bucket, |bucket| bucket.objects.keys().cloned().collect()).unwrap_or_default()
    }

    /// A page of the names that begin with `prefix` and come after `after`; those with the delimiter behind the prefix are
    /// one common prefix.
    pub(crate) fn list(&self, bucket: &str, query: &Query<'_>) -> Result<Page, NoBucket> {
        self.with(bucket, |bucket| {
            if query.stale
                && let Some(earlier) = bucket.earlier.front()
            {
                let objects = earlier.iter().map(|key| (key, bucket.objects.get(key).map_or(0, Bytes::len)));
                return query.page(objects);
            }
            let from = query.after.max(query.prefix).to_owned();
            let range = bucket.objects.range::<String, _>((Bound::Included(from), Bound::Unbounded));
            query.page(range.map(|(key, bytes)| (key, bytes.len())))
        })
    }
}

impl Bucket {
    fn changed(&mut self) {
        self.changes += 1;
        if self.changes.is_multiple_of(STALE_CHANGES) {
            self.earlier.push_back(self.objects.keys().cloned().collect());
            if self.earlier.len() > 2 {
                self.earlier.pop_front();
            }
        }
    }
}

/// What is asked of a listing.
#[derive(Debug)]
pub(crate) struct Query<'a> {
    pub(crate) prefix: &'a str,
    pub(crate) after: &'a str,
    pub(crate) delimiter: Option<&'a str>,
    pub(crate) keys_max: usize,
    pub(crate) stale: bool,
}

impl Query<'_> {
    fn page<'a>(&self, objects: impl Iterator<Item = (&'a String, usize)>) -> Page {
        let mut page = Page::default();
        let mut last = None;
        for (key, length) in objects {
            let Some(rest) = key.strip_prefix(self.prefix) else {
                if key.as_str() > self.prefix { break } else { continue }
            };
            let folder = self.delimiter.and_then(|delimiter| {
                rest.split_once(delimiter).map(|(name, _)| format!("{}{name}{delimiter}", self.prefix))
            });
            let shown = folder.as_deref().unwrap_or(key);
            if shown <= self.after || page.common_prefixes.last().is_some_and(|common| common == shown) {
                continue;
            }
            if page.objects.len() + page.common_prefixes.len() >= self.keys_max {
                page.next = last;
                return page;
            }
            last = Some(shown.to_owned());
            match folder {
                Some(folder) => page.common_prefixes.push(folder),
                None => page.objects.push((key.clone(), length)),
            }
        }
        page
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query<'a>(prefix: &'a str, after: &'a str, keys_max: usize) -> Query<'a> {
        Query { prefix, after, delimiter: Some("/"), keys_max, stale: false }
    }

    #[test]
    fn a_listing_has_each_name_once_and_sub_folders_as_one() {
        let world = World::default();
        world.create_bucket("b");
        for key in ["p/a", "p/b/1", "p/b/2", "p/c", "p/d", "q"] {
            assert_eq!(world.put("b", key, Bytes::new(), true).unwrap(), Stored::Done);
        }
        let (mut names, mut folders, mut after) = (Vec::new(), Vec::new(), String::new());
        loop {
            let page = world.list("b", &query("p/", &after, 2)).unwrap();
            names.extend(page.objects.into_iter().map(|(key, _)| key));
            folders.extend(page.common_prefixes);
            match page.next {
                Some(next) => after = next,
                None => break,
            }
        }
        assert_eq!(names, ["p/a", "p/c", "p/d"]);
        assert_eq!(folders, ["p/b/"]);
    }

    #[test]
    fn a_conditional_put_leaves_what_is_there() {
        let world = World::default();
        assert!(world.get("b", "k").is_err());
        world.create_bucket("b");
        world.put("b", "k", Bytes::from_static(b"1"), true).unwrap();
        assert_eq!(world.put("b", "k", Bytes::from_static(b"2"), true).unwrap(), Stored::Taken);
        assert_eq!(world.get("b", "k").unwrap().unwrap(), "1");
        world.delete("b", "k").unwrap();
        assert_eq!(world.put("b", "k", Bytes::from_static(b"2"), true).unwrap(), Stored::Done);
    }
}
