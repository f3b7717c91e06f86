//! The clauses C1 to C6 of [`Cache`], one function each.
//!
//! The maker of a cache proves all of them in one line:
//!
//! ```ignore
//! strongroom_conformance::cache_conformance!(MyPlace::new());
//! ```
//!
//! where `MyPlace` is a [`CachePlace`]: an empty cache that can be opened more than once.

mod clauses;

use std::sync::Arc;

use async_trait::async_trait;
use strongroom_core::cache::Cache;

pub use clauses::*;

/// A cache that was empty when it was made, and goes away with this value.
#[async_trait]
pub trait CachePlace: Send + Sync {
    /// Opens a handle. Where a cache outlives its handles, each of them is on the same content.
    async fn open(&self) -> Arc<dyn Cache>;

    /// How many bytes it may hold at most.
    fn bytes_max(&self) -> u64;

    /// Makes whatever the cache rests on fail from now on; false where it rests on nothing that can.
    fn break_down(&self) -> bool {
        false
    }
}

/// Runs every clause, each on a fresh place; `begin` hears its name first.
///
/// # Panics
/// Where the cache breaks a clause.
pub async fn run_all<P: CachePlace>(fresh: impl Fn() -> P, mut begin: impl FnMut(&'static str)) {
    macro_rules! run {
        ({} $($clause:ident)*) => {$(
            begin(stringify!($clause));
            clauses::$clause(&fresh()).await;
        )*};
    }
    crate::each_cache_clause!({ run } {});
}

/// The one list of the clause functions, given to another macro after what else that one needs.
#[doc(hidden)]
#[macro_export]
macro_rules! each_cache_clause {
    ({ $($then:tt)* } $with:tt) => {
        $($then)*! {
            $with
            c1_a_failure_is_a_miss
            c2_what_is_returned_was_inserted_under_that_name
            c3_usage_never_exceeds_the_bound
            c4_one_load_serves_concurrent_misses
            c5_it_holds_only_what_storage_gave
            c6_it_may_forget_at_any_time
        }
    };
}

/// Makes a test of every clause. The expression is evaluated for each, and gives a [`CachePlace`](crate::cache::CachePlace).
#[macro_export]
macro_rules! cache_conformance {
    ($place:expr) => {
        $crate::each_cache_clause!({ $crate::cache_conformance_tests } { $place });
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! cache_conformance_tests {
    ({ $place:expr } $($clause:ident)*) => {$(
        #[test]
        fn $clause() {
            $crate::block_on($crate::cache::$clause(&$place));
        }
    )*};
}

#[cfg(test)]
mod tests {
    /// The numbers in a text that stand after a `C`, as clauses are cited.
    fn cited(text: &str) -> Vec<u32> {
        let mut numbers: Vec<u32> = text
            .split("**C")
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
        let tests: Vec<&str> = crate::each_cache_clause!({ names } {});
        let tested: Vec<u32> =
            tests.iter().filter_map(|test| test.strip_prefix('c')?.split_once('_')?.0.parse().ok()).collect();
        assert_eq!(tested, (1..=6).collect::<Vec<_>>());
        assert_eq!(cited(include_str!("../../../core/src/cache/mod.rs")), tested);
        assert_eq!(cited(include_str!("clauses.rs")), tested);
    }
}
