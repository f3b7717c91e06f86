use std::collections::HashMap;

/// Numbers that lie in one page.
const PAGE_COUNT: usize = 16;

/// How often each of many numbers was counted, in a few bytes each: numbers come in runs, and most counts are small.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pages: HashMap<u64, [u8; PAGE_COUNT]>,
    /// Counts that no byte holds; the byte is full then.
    large: HashMap<u64, u64>,
    /// How many numbers were counted at all.
    length: usize,
}

impl Counts {
    /// How often this number was counted.
    #[must_use]
    pub fn get(&self, number: u64) -> u64 {
        let (page, place) = split(number);
        match self.pages.get(&page).and_then(|page| page.get(place)) {
            Some(&u8::MAX) => self.large.get(&number).copied().unwrap_or(u8::MAX.into()),
            Some(&count) => count.into(),
            None => 0,
        }
    }

    /// Counts a number as often as this from now on.
    pub fn set(&mut self, number: u64, count: u64) {
        let (page, place) = split(number);
        let Some(byte) = self.pages.entry(page).or_default().get_mut(place) else { return };
        self.length += usize::from(count > 0);
        self.length -= usize::from(*byte > 0);
        *byte = u8::try_from(count).unwrap_or(u8::MAX);
        if *byte == u8::MAX {
            self.large.insert(number, count);
        } else {
            self.large.remove(&number);
        }
    }

    /// Counts a number once more, and answers how often that is.
    pub fn add(&mut self, number: u64) -> u64 {
        let count = self.get(number).saturating_add(1);
        self.set(number, count);
        count
    }

    /// How often a number was counted; from now on, never.
    pub fn take(&mut self, number: u64) -> u64 {
        let count = self.get(number);
        if count > 0 {
            self.set(number, 0);
        }
        count
    }

    /// How many numbers were counted.
    #[must_use]
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether none was.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The numbers that were counted, and how often, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let numbers = self
            .pages
            .keys()
            .flat_map(|page| (0..PAGE_COUNT as u64).map(move |place| page * PAGE_COUNT as u64 + place));
        numbers.map(|number| (number, self.get(number))).filter(|(_, count)| *count > 0)
    }
}

fn split(number: u64) -> (u64, usize) {
    let count = PAGE_COUNT as u64;
    (number / count, usize::try_from(number % count).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_those_of_a_map() {
        let (mut counts, mut map) = (Counts::default(), HashMap::<u64, u64>::new());
        let mut state = 1_u64;
        for step in 0..30_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let number = if step % 3 == 0 { u64::MAX - (state >> 60) } else { state >> 57 };
            if step % 50 == 0 {
                let count = [0, 1, 254, 255, 256, u64::MAX][(state >> 32) as usize % 6];
                counts.set(number, count);
                map.insert(number, count);
                continue;
            }
            let entry = map.entry(number).or_default();
            *entry = entry.saturating_add(1);
            assert_eq!(counts.add(number), *entry);
        }
        map.retain(|_, count| *count > 0);
        assert_eq!((counts.len(), counts.is_empty()), (map.len(), false));
        assert!(map.iter().all(|(&number, &count)| counts.get(number) == count));
        assert_eq!(counts.iter().collect::<HashMap<_, _>>(), map);
        assert_eq!((counts.get(1 << 40), counts.take(1 << 40)), (0, 0));
        for (number, count) in map {
            assert_eq!((counts.take(number), counts.get(number)), (count, 0));
        }
        assert!(counts.is_empty() && counts.large.is_empty() && counts.iter().next().is_none());
    }
}
