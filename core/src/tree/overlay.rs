use std::borrow::Borrow;
use std::cmp::Ordering;

use bytes::Bytes;
use imbl::OrdSet;
use imbl::ordset::ConsumingIter;

use super::KeyRange;

/// How large the pieces of memory are that rows put together share. One that is kept for the sake of a single row costs no more
/// than a tree node.
const PIECE_BYTES_MAX: usize = 4 << 10;

/// A change: a key, and its value from then on, or `None` where it is deleted.
pub type Change = (Bytes, Option<Bytes>);

/// Changes that are not in the tree yet, by key. A copy shares everything with the original until one of them is changed. Rows are
/// copied then, and so each is one handle: on its bytes alone, or on a part of a piece that many share.
#[derive(Clone, Debug, Default)]
pub struct Overlay {
    rows: OrdSet<Row>,
}

/// A key with its value behind it. Rows are ordered, and equal, by their keys.
#[derive(Clone, Debug)]
struct Row {
    bytes: Bytes,
    key_bytes: u32,
    is_deleted: bool,
}

impl Row {
    /// `None` for a key that is too long for any tree by far.
    fn new(bytes: Bytes, key_bytes: usize, is_deleted: bool) -> Option<Self> {
        Some(Self { bytes, key_bytes: u32::try_from(key_bytes).ok()?, is_deleted })
    }

    fn key(&self) -> &[u8] {
        self.bytes.get(..self.key_bytes as usize).unwrap_or_default()
    }

    fn value(&self) -> Option<Bytes> {
        (!self.is_deleted).then(|| self.bytes.slice(self.key().len()..))
    }

    fn change(&self) -> Change {
        (self.bytes.slice(..self.key().len()), self.value())
    }

    fn is_same(&self, other: &Self) -> bool {
        self.key_bytes == other.key_bytes && self.is_deleted == other.is_deleted && self.bytes == other.bytes
    }
}

impl Borrow<[u8]> for Row {
    fn borrow(&self) -> &[u8] {
        self.key()
    }
}

impl PartialEq for Row {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Row {}

impl PartialOrd for Row {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Row {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(other.key())
    }
}

impl Overlay {
    /// No changes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// How many keys are changed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Changes a key, and answers the change as it is kept: whoever needs it too shares its memory.
    pub fn insert(&mut self, key: &[u8], value: Option<&[u8]>) -> Change {
        let bytes = Bytes::from([key, value.unwrap_or_default()].concat());
        let change = (bytes.slice(..key.len()), value.map(|_| bytes.slice(key.len()..)));
        self.put(bytes, key.len(), value.is_none());
        change
    }

    /// Changes many keys, whose rows share few pieces of memory.
    pub fn insert_all<'r>(&mut self, rows: impl IntoIterator<Item = (&'r [u8], Option<&'r [u8]>)>) {
        let (mut piece, mut spans) = (Vec::new(), Vec::new());
        for (key, value) in rows {
            let bytes = key.len() + value.map_or(0, <[u8]>::len);
            if piece.len() + bytes > PIECE_BYTES_MAX {
                self.put_piece(&mut piece, &mut spans);
            }
            piece.extend_from_slice(key);
            piece.extend_from_slice(value.unwrap_or_default());
            spans.push((bytes, key.len(), value.is_none()));
        }
        self.put_piece(&mut piece, &mut spans);
    }

    fn put_piece(&mut self, piece: &mut Vec<u8>, spans: &mut Vec<(usize, usize, bool)>) {
        let mut rest = Bytes::copy_from_slice(piece);
        piece.clear();
        for (bytes, key_bytes, is_deleted) in spans.drain(..) {
            self.put(rest.split_to(bytes), key_bytes, is_deleted);
        }
    }

    fn put(&mut self, bytes: Bytes, key_bytes: usize, is_deleted: bool) {
        if let Some(row) = Row::new(bytes, key_bytes, is_deleted) {
            self.rows.insert(row);
        }
    }

    /// What a key was changed to: `Some(None)` where it was deleted, `None` where it was not changed.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<Option<Bytes>> {
        self.rows.get(key).map(Row::value)
    }

    /// The changes, in the order of their keys.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Change> + '_ {
        self.rows.iter().map(Row::change)
    }

    /// The changes of a range of keys, in their order. A range that ends before it starts has none.
    pub fn range(&self, range: &KeyRange) -> impl DoubleEndedIterator<Item = Change> + '_ {
        let bounds = (range.0.as_ref().map(|key| &**key), range.1.as_ref().map(|key| &**key));
        let rows = (!super::merge::is_empty(range)).then(|| self.rows.range::<_, [u8]>(bounds));
        rows.into_iter().flatten().map(Row::change)
    }

    /// The keys that another overlay does not change in the same way, of both.
    #[must_use]
    pub fn differing_keys(&self, other: &Self) -> Vec<Bytes> {
        let (mut ours, mut theirs) = (self.rows.iter().peekable(), other.rows.iter().peekable());
        let mut keys = Vec::new();
        loop {
            let order = match (ours.peek(), theirs.peek()) {
                (Some(one), Some(two)) => one.cmp(two),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => return keys,
            };
            let one = if order.is_le() { ours.next() } else { None };
            let two = if order.is_ge() { theirs.next() } else { None };
            match (one, two) {
                (Some(one), Some(two)) if one.is_same(two) => {}
                (Some(row), _) | (None, Some(row)) => keys.push(row.change().0),
                (None, None) => {}
            }
        }
    }
}

impl<K: AsRef<[u8]>, V: AsRef<[u8]>> FromIterator<(K, Option<V>)> for Overlay {
    fn from_iter<I: IntoIterator<Item = (K, Option<V>)>>(changes: I) -> Self {
        let mut overlay = Self::new();
        for (key, value) in changes {
            overlay.insert(key.as_ref(), value.as_ref().map(V::as_ref));
        }
        overlay
    }
}

impl IntoIterator for Overlay {
    type Item = Change;
    type IntoIter = IntoIter;

    fn into_iter(self) -> IntoIter {
        IntoIter(self.rows.into_iter())
    }
}

/// The changes of an overlay, in the order of their keys.
pub struct IntoIter(ConsumingIter<Row, imbl::shared_ptr::DefaultSharedPtr>);

impl std::fmt::Debug for IntoIter {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("IntoIter").finish_non_exhaustive()
    }
}

impl Iterator for IntoIter {
    type Item = Change;

    fn next(&mut self) -> Option<Change> {
        self.0.next().map(|row| row.change())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    type Map = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

    fn map(seed: u32) -> Map {
        (0..2_000_u32)
            .map(|number| {
                let value = match (number ^ seed) % 5 {
                    0 => None,
                    1 => Some(Vec::new()),
                    2 => Some(vec![7; (number % 700) as usize * 9]),
                    _ => Some(number.to_le_bytes().to_vec()),
                };
                ((number * (1 + seed % 3)).to_be_bytes()[..].to_vec(), value)
            })
            .collect()
    }

    fn rows(map: &Map) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        map.iter().map(|(key, value)| (key.as_slice(), value.as_deref()))
    }

    fn changes(map: &Map) -> Vec<Change> {
        rows(map).map(|(key, value)| (Bytes::copy_from_slice(key), value.map(Bytes::copy_from_slice))).collect()
    }

    #[test]
    fn rows_come_out_as_they_went_in_together_or_one_by_one() {
        let map = map(0);
        let mut together = Overlay::new();
        together.insert_all(rows(&map));
        let mut single = Overlay::new();
        for (key, value) in rows(&map) {
            let kept = single.insert(key, value);
            assert_eq!(kept, (Bytes::copy_from_slice(key), value.map(Bytes::copy_from_slice)));
        }
        for overlay in [together, single] {
            assert_eq!(overlay.iter().collect::<Vec<_>>(), changes(&map));
            assert!(map.iter().all(|(key, value)| overlay.get(key) == Some(value.clone().map(Bytes::from))));
            assert_eq!(overlay.get(b"none"), None);
            assert_eq!(overlay.len(), map.len());
            assert_eq!(overlay.into_iter().collect::<Vec<_>>(), changes(&map));
        }
        let mut none = Overlay::new();
        none.insert_all([]);
        assert!(none.is_empty());
    }

    #[test]
    fn a_change_takes_the_place_of_the_one_before_and_of_no_copy() {
        let mut overlay: Overlay = [(b"a", Some(b"1")), (b"b", None)].into_iter().collect();
        let copy = overlay.clone();
        overlay.insert(b"a", None);
        overlay.insert(b"b", Some(b"2"));
        overlay.insert(b"b", Some(b""));
        assert_eq!((overlay.get(b"a"), overlay.get(b"b")), (Some(None), Some(Some(Bytes::new()))));
        assert_eq!((copy.get(b"a"), copy.get(b"b")), (Some(Some(Bytes::from_static(b"1"))), Some(None)));
        assert_eq!(overlay.len(), 2);
    }

    #[test]
    fn keys_differ_where_the_maps_do() {
        let maps = [map(0), map(1), map(2), Map::new()];
        for (one, other) in maps.iter().flat_map(|one| maps.iter().map(move |other| (one, other))) {
            let expected: Vec<Bytes> = (one.keys().chain(other.keys()).collect::<std::collections::BTreeSet<_>>())
                .into_iter()
                .filter(|key| one.get(*key) != other.get(*key))
                .map(|key| Bytes::copy_from_slice(key))
                .collect();
            let overlay = |map: &Map| changes(map).into_iter().collect::<Overlay>();
            assert_eq!(overlay(one).differing_keys(&overlay(other)), expected);
        }
    }
}
