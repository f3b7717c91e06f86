//! What a check remembers of the identities of chunks, in a few bytes each.

/// How many marks room is made for at once: a list that grew by doubling would take twice what is in it.
const MARKS_AHEAD: usize = 128 << 10;

/// Which identities chunks have, by number in ascending order: four bytes of each. They are to find mistakes, not enemies: all
/// that is here was authenticated.
#[derive(Default)]
pub(super) struct Identities {
    marks: Vec<u32>,
    /// Numbers that follow one another: the first, and where its mark is.
    runs: Vec<(u64, usize)>,
    /// The number that would lengthen the last run.
    next: Option<u64>,
}

impl Identities {
    /// In ascending order.
    pub(super) fn push(&mut self, number: u64, identity: &[u8]) {
        if self.next != Some(number) {
            self.runs.push((number, self.marks.len()));
        }
        if self.marks.len() == self.marks.capacity() {
            self.marks.reserve_exact(MARKS_AHEAD);
        }
        self.marks.push(mark(identity));
        self.next = number.checked_add(1);
    }

    pub(super) fn has(&self, number: u64, identity: &[u8]) -> bool {
        let after = self.runs.partition_point(|(first, _)| *first <= number);
        let Some((first, place)) = after.checked_sub(1).and_then(|run| self.runs.get(run)) else { return false };
        let end = self.runs.get(after).map_or(self.marks.len(), |(_, place)| *place);
        let place = usize::try_from(number - first).ok().and_then(|offset| place.checked_add(offset));
        let known = place.filter(|place| *place < end).and_then(|place| self.marks.get(place));
        identity.len() == 32 && known == Some(&mark(identity))
    }

    /// In memory.
    pub(super) fn bytes(&self) -> u64 {
        (size_of_val(self.marks.as_slice()) + size_of_val(self.runs.as_slice())) as u64
    }

    pub(super) fn clear(&mut self) {
        self.marks.clear();
        self.runs.clear();
        self.next = None;
    }
}

fn mark(identity: &[u8]) -> u32 {
    let (words, _) = identity.as_chunks();
    words.iter().fold(0, |all: u32, word| all.rotate_left(7) ^ u32::from_le_bytes(*word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_are_those_of_a_map() {
        let identity = |number: u64| *blake3::hash(&number.to_le_bytes()).as_bytes();
        let numbers: Vec<u64> = (3..20).chain([22, 40]).chain(50..90).chain(u64::MAX - 2..=u64::MAX).collect();
        let mut identities = Identities::default();
        for _ in 0..2 {
            numbers.iter().for_each(|&number| identities.push(number, &identity(number)));
            for number in (0..100).chain(u64::MAX - 5..=u64::MAX) {
                assert_eq!(identities.has(number, &identity(number)), numbers.contains(&number), "{number}");
                assert!(!identities.has(number, &identity(number ^ 1)), "{number}");
            }
            assert!(!identities.has(3, &identity(3)[..31]));
            assert_eq!(identities.bytes(), numbers.len() as u64 * 4 + 5 * 16);
            identities.clear();
            assert!(!identities.has(3, &identity(3)));
        }
    }
}
