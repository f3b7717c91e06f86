//! The clauses S1 to S14 of [`Storage`], one function each.
//!
//! A backend proves all of them in one line, which becomes a test a clause:
//!
//! ```
//! # use std::sync::Arc;
//! # use strongroom_conformance::{crash::{CrashOptions, CrashingStorage}, storage::Place};
//! # use strongroom_core::storage::{Result, Storage};
//! # struct MyPlace(CrashingStorage);
//! # impl MyPlace {
//! #     fn new() -> Self { Self(CrashingStorage::new(CrashOptions::default())) }
//! # }
//! # #[async_trait::async_trait]
//! # impl Place for MyPlace {
//! #     async fn open(&self) -> Result<Arc<dyn Storage>> { Ok(Arc::new(self.0.reopen())) }
//! # }
//! strongroom_conformance::storage_conformance!(MyPlace::new());
//! ```
//!
//! where `MyPlace` is a [`Place`]: a fresh store that can be opened more than once. `docs/backends.md` shows all of it.
//!
//! What is tested follows what the storage says that it can do ([`Storage::capabilities`]) and what the place can do to it
//! (the hooks of [`Place`]). The rest is not skipped in silence: a clause answers [`Verdict::Limited`], with a sentence for
//! each thing that was not tested, which its test prints. With the numbers of the clauses that are limited,
//!
//! ```
//! # use std::sync::Arc;
//! # use strongroom_conformance::{crash::{CrashOptions, CrashingStorage}, storage::Place};
//! # use strongroom_core::storage::{Result, Storage};
//! # struct MyPlace(CrashingStorage);
//! # impl MyPlace {
//! #     fn new() -> Self { Self(CrashingStorage::new(CrashOptions::default())) }
//! # }
//! # #[async_trait::async_trait]
//! # impl Place for MyPlace {
//! #     async fn open(&self) -> Result<Arc<dyn Storage>> { Ok(Arc::new(self.0.reopen())) }
//! # }
//! strongroom_conformance::storage_conformance!(MyPlace::new(), limited: [9, 10]);
//! ```
//!
//! a test fails too where its clause is limited unexpectedly, or is on the list and passes in full.

mod apart;
mod clauses;
mod constructor;
mod outcome;
mod place;
mod visitor;

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt as _;
use strongroom_core::storage::{Name, Storage};

pub use clauses::*;
pub use constructor::check_constructor;
pub use outcome::{Breach, Outcome, Verdict};
pub use place::{Place, acknowledge_to_parent, kill_after, kill_this_program, work_if_told_to, work_until_killed};

use outcome::Answer as _;

type Running<'a> = Pin<Box<dyn Future<Output = Outcome> + 'a>>;

/// One clause, and how it is tried.
#[derive(Clone, Copy)]
pub struct Clause {
    name: &'static str,
    run: for<'a> fn(&'a dyn Place) -> Running<'a>,
}

impl Clause {
    /// The number: 7 of S7.
    #[must_use]
    pub fn number(&self) -> u32 {
        let digits = self.name.strip_prefix('s').and_then(|rest| rest.split_once('_')).map(|(digits, _)| digits);
        digits.and_then(|digits| digits.parse().ok()).unwrap_or_default()
    }

    /// The name of its function, and of its test.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// What it says, in a few words.
    #[must_use]
    pub fn title(&self) -> String {
        self.name.split_once('_').map(|(_, title)| title.replace('_', " ")).unwrap_or_default()
    }

    /// Tries it on a fresh place. A storage that panics has broken it.
    ///
    /// # Errors
    /// How the storage broke it.
    pub async fn run(&self, place: &dyn Place) -> Outcome {
        let outcome = AssertUnwindSafe((self.run)(place)).catch_unwind().await;
        outcome.unwrap_or_else(|panic| Err(Breach::new(format!("a panic: {}", panic_text(&*panic)))))
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a text")
}

/// Every clause, in order.
#[must_use]
pub fn clauses() -> Vec<Clause> {
    macro_rules! list {
        ({} $($clause:ident)*) => {
            vec![$(Clause { name: stringify!($clause), run: |place| Box::pin(clauses::$clause(place)) }),*]
        };
    }
    crate::each_storage_clause!({ list } {})
}

/// Ends a test as its clause ended: prints what was not tested.
///
/// # Panics
/// Where the clause was broken, or where `limited` is given and does not say rightly whether it was limited.
#[doc(hidden)]
#[allow(clippy::panic)] // a test ends so
pub fn conclude(name: &str, limited: Option<&[u32]>, place: &dyn Place) {
    let Some(clause) = clauses().into_iter().find(|clause| clause.name == name) else {
        panic!("no clause is called {name}");
    };
    let number = clause.number();
    let verdict = match crate::block_on(clause.run(place)) {
        Ok(verdict) => verdict,
        Err(breach) => panic!("S{number} is broken: {breach}"),
    };
    for limit in verdict.limits() {
        println!("S{number}, not tested: {limit}");
    }
    match limited.map(|limited| limited.contains(&number)) {
        Some(true) if verdict == Verdict::Passed => panic!("S{number} is fully tested: take it from the list"),
        Some(false) if verdict != Verdict::Passed => panic!("S{number} is limited: {}", verdict.limits().join("; ")),
        _ => {}
    }
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
        }
    };
}

/// Makes a test of every clause. The expression is evaluated for each, and gives a [`Place`](crate::storage::Place);
/// `limited` lists the clauses that are known not to be tested in full.
///
/// The tests have the names of the clause functions, so two suites in one file need a `mod` each.
#[macro_export]
macro_rules! storage_conformance {
    ($place:expr $(,)?) => {
        $crate::each_storage_clause!({ $crate::storage_conformance_tests } { $place, None });
    };
    ($place:expr, limited: [$($number:literal),* $(,)?] $(,)?) => {
        $crate::each_storage_clause!({ $crate::storage_conformance_tests } { $place, Some(&[$($number),*]) });
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! storage_conformance_tests {
    ({ $place:expr, $limited:expr } $($clause:ident)*) => {$(
        #[test]
        fn $clause() {
            $crate::storage::conclude(stringify!($clause), $limited, &$place);
        }
    )*};
}

async fn open(place: &dyn Place) -> Result<Arc<dyn Storage>, Breach> {
    let storage = place.open().await.answers("opening the place")?;
    Ok(match open_writer(place).await? {
        Some(writer) => Arc::new(apart::Apart { reader: storage, writer }),
        None => storage,
    })
}

async fn open_writer(place: &dyn Place) -> Result<Option<Arc<dyn Storage>>, Breach> {
    place.open_writer().await.answers("opening the place to change it")
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
