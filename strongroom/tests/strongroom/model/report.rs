//! How often each kind of step was accepted and refused.

use std::cell::RefCell;
use std::collections::BTreeMap;

use crate::model::kinds::Kind;

/// Of a hundred steps of all kinds together, at least so many are of each kind, and accepted.
const SHARE_MIN_PERCENT: f64 = 0.5;
/// Fewer cases say nothing of shares.
const CASES_MIN: u64 = 256;
const KINDS_MIN: usize = 60;

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    accepted: u64,
    refused: u64,
}

#[derive(Default)]
pub(crate) struct Report(RefCell<BTreeMap<Kind, Count>>);

impl Report {
    pub(crate) fn count(&self, kind: Kind, accepted: bool) {
        let mut counts = self.0.borrow_mut();
        let Count { accepted: yes, refused: no } = counts.entry(kind).or_default();
        *(if accepted { yes } else { no }) += 1;
    }

    /// Both together.
    pub(crate) fn and(self, other: Self) -> Self {
        for (kind, more) in other.0.into_inner() {
            let mut counts = self.0.borrow_mut();
            let count = counts.entry(kind).or_default();
            count.accepted += more.accepted;
            count.refused += more.refused;
        }
        self
    }

    fn accepted(&self) -> u64 {
        self.0.borrow().values().map(|count| count.accepted).sum()
    }

    pub(crate) fn print(&self) {
        let accepted = self.accepted();
        let refused: u64 = self.0.borrow().values().map(|count| count.refused).sum();
        println!("{} kinds, {accepted} steps accepted, {refused} refused; of those accepted:", self.0.borrow().len());
        for (kind, count) in self.0.borrow().iter() {
            let share = share(count.accepted, accepted);
            let name = format!("{kind:?}");
            println!("{name:22} {share:5.2} % ({} accepted, {} refused)", count.accepted, count.refused);
        }
    }

    /// Refused steps do not count: a kind that is only ever refused would be as good as not there.
    pub(crate) fn assert_nothing_is_rare(&self, cases: u64) {
        if cases < CASES_MIN {
            return;
        }
        let accepted = self.accepted();
        let counts = self.0.borrow();
        let is_rare =
            |kind: &&Kind| share(counts.get(kind).map_or(0, |count| count.accepted), accepted) < SHARE_MIN_PERCENT;
        let rare: Vec<_> = Kind::ALL.iter().filter(is_rare).collect();
        assert!(Kind::ALL.len() >= KINDS_MIN);
        assert!(rare.is_empty(), "rare: {rare:?}");
    }
}

#[allow(clippy::cast_precision_loss)] // far fewer than 2^52
fn share(count: u64, all: u64) -> f64 {
    100.0 * count as f64 / all as f64
}
