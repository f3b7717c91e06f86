//! The doubles are storages themselves: they pass what they help to test, power loss included.

#![allow(clippy::unwrap_used)] // a test may

mod medium;

use medium::Medium;
use strongroom_conformance::crash::CrashOptions;
use strongroom_conformance::storage::{self, Verdict};

mod like_a_folder {
    use super::*;
    strongroom_conformance::storage_conformance!(Medium::new(CrashOptions::default()), limited: [8]);
}

mod like_a_database {
    use super::*;
    strongroom_conformance::storage_conformance!(Medium::new(CrashOptions::atomic()), limited: []);
}

mod like_an_object_store {
    use super::*;
    // Its batches are sequential, and it cannot lock.
    strongroom_conformance::storage_conformance!(Medium::new(CrashOptions::object_store()), limited: [8, 14]);
}

#[test]
fn what_was_not_tested_is_said() {
    let medium = Medium::new(CrashOptions::default());
    let verdict = strongroom_conformance::block_on(storage::s8_a_batch_is_its_changes_in_order(&medium));
    assert!(matches!(&verdict, Ok(Verdict::Limited(reasons)) if reasons.len() == 1), "{verdict:?}");
}

#[test]
#[should_panic(expected = "S8 is limited: batches are sequential")]
fn a_limit_that_nobody_expected_fails_the_test() {
    let medium = Medium::new(CrashOptions::default());
    storage::conclude("s8_a_batch_is_its_changes_in_order", Some(&[]), &medium);
}

#[test]
#[should_panic(expected = "S4 is fully tested")]
fn a_limit_that_is_none_any_more_fails_the_test() {
    let medium = Medium::new(CrashOptions::default());
    storage::conclude("s4_absent_names_are_not_found", Some(&[4]), &medium);
}

#[test]
#[should_panic(expected = "S9 is broken: ")]
fn barriers_that_lie_are_found_out() {
    let medium = Medium::new(CrashOptions::default());
    medium.double().lying_sync(true);
    storage::conclude("s9_barriers_protect_what_was_acknowledged", None, &medium);
}
