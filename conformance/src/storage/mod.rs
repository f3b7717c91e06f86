//! The clauses S1 to S14 of [`Storage`], one function each.
//!
//! A backend proves all of them in one line:
//!
//! ```ignore
//! strongroom_conformance::storage_conformance!(MyPlace::new());
//! ```
//!
//! where `MyPlace` is a [`Place`]: a fresh store that can be opened more than once.

mod clauses;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use strongroom_core::storage::{Name, Result, Storage};

pub use clauses::*;

/// A store that was empty when it was made, and goes away with this value.
#[async_trait]
pub trait Place: Send + Sync {
    /// Opens one more handle, as another process would, as far as the reach of the storage allows.
    ///
    /// # Errors
    /// What the storage raises: the suite takes it for a failure.
    async fn open(&self) -> Result<Arc<dyn Storage>>;

    /// Cuts the power, where the place is a double that can; false where it cannot. The handles are dead after it.
    fn power_loss(&self, seed: u64) -> bool {
        let _ = seed;
        false
    }
}

/// Runs every clause, each on a fresh place; `begin` hears its name first.
///
/// # Panics
/// Where the storage breaks a clause.
pub async fn run_all<P: Place>(fresh: impl Fn() -> P, mut begin: impl FnMut(&'static str)) {
    macro_rules! run {
        ({} $($clause:ident)*) => {$(
            begin(stringify!($clause));
            clauses::$clause(&fresh()).await;
        )*};
    }
    crate::each_storage_clause!({ run } {});
}

/// The one list of the clause functions, given to another macro after what else that one needs.
#[doc(hidden)]
#[macro_export]
macro_rules! each_storage_clause {
    ({ $($then:tt)* } $with:tt) => {
        $($then)*! {
            $with
            s1_put_stores_all_and_never_replaces
            s2_of_concurrent_puts_exactly_one_creates
            s3_get_returns_exactly_what_was_put
            s4_absent_names_are_not_found
            s5_every_handle_sees_what_was_answered
            s6_delete_frees_the_name
            s7_list_gives_each_name_once
            s8_a_batch_is_its_changes_in_order
            s9_barriers_protect_what_was_acknowledged
            s10_a_crash_leaves_blobs_absent_or_whole
            s11_errors_say_what_happened
            s12_a_dropped_future_leaves_blobs_absent_or_whole
            s13_any_name_and_any_length_within_the_limit
            s14_handles_serve_many_tasks_at_once
            exclusive_access_is_proved_or_denied
        }
    };
}

/// Makes a test of every clause. The expression is evaluated for each, and gives a [`Place`](crate::storage::Place).
#[macro_export]
macro_rules! storage_conformance {
    ($place:expr) => {
        $crate::each_storage_clause!({ $crate::storage_conformance_tests } { $place });
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! storage_conformance_tests {
    ({ $place:expr } $($clause:ident)*) => {$(
        #[test]
        fn $clause() {
            $crate::block_on($crate::storage::$clause(&$place));
        }
    )*};
}

/// Bytes that depend on the seed alone.
#[must_use]
pub fn sample_bytes(seed: u64, length: usize) -> Bytes {
    let mut dice = crate::Dice::new(seed);
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        bytes.extend_from_slice(&dice.roll().to_le_bytes());
    }
    bytes.truncate(length);
    bytes.into()
}

/// A name that depends on the seed alone, spread as the names of a repository are.
#[must_use]
pub fn sample_name(seed: u64) -> Name {
    let mut dice = crate::Dice::new(seed ^ 0x6e61_6d65);
    let (first, second) = (u128::from(dice.roll()), u128::from(dice.roll()));
    Name::new((first << 64 | second).to_le_bytes())
}

#[cfg(test)]
mod tests {
    /// The numbers in a text that stand after an `S`, as clauses are cited.
    fn cited(text: &str) -> Vec<u32> {
        let mut numbers: Vec<u32> = text
            .split("**S")
            .skip(1)
            .filter_map(|rest| rest.split_once("**").and_then(|(number, _)| number.parse().ok()))
            .collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    }

    #[test]
    fn every_clause_of_the_trait_has_a_test_and_every_test_a_clause() {
        macro_rules! names {
            ({} $($clause:ident)*) => { vec![$(stringify!($clause)),*] };
        }
        let tests: Vec<&str> = crate::each_storage_clause!({ names } {});
        let tested: Vec<u32> =
            tests.iter().filter_map(|test| test.strip_prefix('s')?.split_once('_')?.0.parse().ok()).collect();
        assert_eq!(tested, (1..=14).collect::<Vec<_>>());
        assert_eq!(cited(include_str!("../../../core/src/storage/mod.rs")), tested);
        assert_eq!(cited(include_str!("clauses.rs")), tested);
    }
}
