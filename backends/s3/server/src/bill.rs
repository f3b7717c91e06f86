//! What requests and bytes cost: counted at a server, and stated in a table.

use crate::faults::Verb;
use crate::server::{Seen, Traffic};

/// What was taken of a server, as a provider bills it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bill {
    /// Requests that put.
    pub puts: u64,
    /// Requests that list; one is a page.
    pub lists: u64,
    /// Requests that read, or look whether something is there.
    pub gets: u64,
    /// Requests that delete.
    pub deletions: u64,
    /// Bytes to the server.
    pub received: u64,
    /// Bytes from it.
    pub sent: u64,
}

/// Dollars.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prices {
    /// For a thousand puts or lists.
    pub thousand_puts: f64,
    /// For a thousand reads.
    pub thousand_gets: f64,
    /// For each GB (10⁹ bytes) that leaves.
    pub gigabyte_sent: f64,
}

impl Prices {
    /// S3 standard in us-east-1, as of 2025: deletions and what comes in are free, and so are the first 100 GB of a month that leave.
    pub const AWS: Self = Self { thousand_puts: 0.005, thousand_gets: 0.0004, gigabyte_sent: 0.09 };

    /// What the requests of a bill cost.
    #[must_use]
    #[allow(clippy::cast_precision_loss)] // fifty-three bits fit
    pub fn requests(&self, bill: &Bill) -> f64 {
        ((bill.puts + bill.lists) as f64 * self.thousand_puts + bill.gets as f64 * self.thousand_gets) / 1e3
    }

    /// What it costs that bytes leave.
    #[must_use]
    #[allow(clippy::cast_precision_loss)] // likewise
    pub fn traffic(&self, bill: &Bill) -> f64 {
        bill.sent as f64 * self.gigabyte_sent / 1e9
    }
}

impl Bill {
    pub(crate) fn of(seen: &[Seen], traffic: Traffic) -> Self {
        let count = |verbs: &[Verb]| seen.iter().filter(|seen| verbs.contains(&seen.verb)).count() as u64;
        Self {
            puts: count(&[Verb::Put, Verb::Other]),
            lists: count(&[Verb::List]),
            gets: count(&[Verb::Get, Verb::Head]),
            deletions: count(&[Verb::Delete]),
            received: traffic.received,
            sent: traffic.sent,
        }
    }

    /// What a table states in its row of that name, and what that costs: `| name | puts | lists | gets | deletions | kB up | kB
    /// down | $ for a million times | $ for bytes out |`. `None` where there is no such row, or something else in it.
    #[must_use]
    pub fn stated(table: &str, name: &str) -> Option<(Self, [f64; 2])> {
        let row = table.lines().find_map(|line| line.strip_prefix(&format!("| {name} |")))?;
        let mut cells = row.split('|').map(|cell| cell.trim().replace(',', ""));
        let mut number = || cells.next()?.parse::<u64>().ok();
        let bill = Self {
            puts: number()?,
            lists: number()?,
            gets: number()?,
            deletions: number()?,
            received: number()?.checked_mul(1_000)?,
            sent: number()?.checked_mul(1_000)?,
        };
        Some((bill, [cells.next()?.parse().ok()?, cells.next()?.parse().ok()?]))
    }

    /// Each count with what it is of, in the order of the table.
    #[must_use]
    pub fn counts(&self) -> [(&'static str, u64); 6] {
        [
            ("puts", self.puts),
            ("lists", self.lists),
            ("gets", self.gets),
            ("deletions", self.deletions),
            ("bytes up", self.received),
            ("bytes down", self.sent),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_a_table_reads_back_and_is_worth_what_the_prices_say() {
        let table = "| what | puts |\n|---|---|\n| store it | 1,000 | 20 | 3 | 4 | 5,000 | 6 | 5.10 | 0.54 |\n";
        let (bill, dollars) = Bill::stated(table, "store it").unwrap();
        let expected = Bill { puts: 1000, lists: 20, gets: 3, deletions: 4, received: 5_000_000, sent: 6_000 };
        assert_eq!((bill, dollars), (expected, [5.10, 0.54]));
        assert_eq!(Bill::stated(table, "store"), None);
        let prices = Prices { thousand_puts: 1.0, thousand_gets: 100.0, gigabyte_sent: 1000.0 };
        assert!((prices.requests(&bill) - 1.32).abs() < 1e-9);
        assert!((prices.traffic(&bill) - 0.006).abs() < 1e-9);
    }
}
