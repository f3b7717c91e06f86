//! Each clause is broken on purpose, in each of its halves: then its test fails, and no other but those that are declared
//! to depend on it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a test may

mod defects;
#[path = "../medium/mod.rs"]
mod medium;
mod storage;

use std::collections::BTreeSet;

use defects::{Defect, TABLE};
use medium::Medium;
use storage::Breaking;
use strongroom_conformance::block_on;
use strongroom_conformance::storage::clauses;

fn place(defect: Defect) -> Medium {
    Medium::wrapped(defect.options(), Breaking::new(defect))
}

/// The clauses that fail, with what they say.
fn failing(defect: Defect) -> Vec<(u32, String)> {
    let mut failing = Vec::new();
    for clause in clauses() {
        if let Err(breach) = block_on(clause.run(&place(defect))) {
            failing.push((clause.number(), breach.to_string()));
        }
    }
    failing
}

fn check(clause: u32) {
    let rows: Vec<_> = TABLE.iter().filter(|row| row.clause == clause).collect();
    assert!(!rows.is_empty(), "nothing breaks S{clause}");
    for row in rows {
        let failing = failing(row.defect);
        let numbers: BTreeSet<u32> = failing.iter().map(|(number, _)| *number).collect();
        let mut wanted: BTreeSet<u32> = row.dependents.iter().copied().collect();
        wanted.insert(clause);
        assert_eq!(numbers, wanted, "{:?}: {failing:#?}", row.defect);
        for (number, breach) in failing {
            println!("{:?} breaks S{number}: {breach}", row.defect);
        }
    }
}

macro_rules! each {
    ($($test:ident $clause:literal)*) => {
        $(#[test]
        fn $test() {
            check($clause);
        })*

        #[test]
        fn every_clause_is_broken() {
            let numbers: Vec<u32> = clauses().iter().map(|clause| clause.number()).collect();
            assert_eq!(numbers, [$($clause),*]);
        }
    };
}

each! {
    a_storage_that_breaks_s1_is_found_out 1
    a_storage_that_breaks_s2_is_found_out 2
    a_storage_that_breaks_s3_is_found_out 3
    a_storage_that_breaks_s4_is_found_out 4
    a_storage_that_breaks_s5_is_found_out 5
    a_storage_that_breaks_s6_is_found_out 6
    a_storage_that_breaks_s7_is_found_out 7
    a_storage_that_breaks_s8_is_found_out 8
    a_storage_that_breaks_s9_is_found_out 9
    a_storage_that_breaks_s10_is_found_out 10
    a_storage_that_breaks_s11_is_found_out 11
    a_storage_that_breaks_s12_is_found_out 12
    a_storage_that_breaks_s13_is_found_out 13
    a_storage_that_breaks_s14_is_found_out 14
}

#[test]
fn without_a_defect_nothing_fails() {
    assert_eq!(failing(Defect::None), []);
}

#[test]
fn each_defect_stands_in_the_table_once() {
    let text = include_str!("defects.rs");
    let listed = text.split_once("pub(crate) enum Defect {").unwrap().1.split_once("\n}").unwrap().0;
    let names: BTreeSet<&str> = listed
        .lines()
        .filter_map(|line| line.trim().strip_suffix(','))
        .filter(|line| !line.starts_with("//") && *line != "None")
        .collect();
    let mut rows: Vec<String> = TABLE.iter().map(|row| format!("{:?}", row.defect)).collect();
    rows.sort();
    assert_eq!(rows, names.into_iter().collect::<Vec<_>>());
}

#[test]
fn a_sync_that_lies_is_not_taken_for_a_batch_that_was_cut_in_half() {
    let failing = failing(Defect::SyncLiesInALog);
    let of_batches: Vec<_> = failing.iter().filter(|(number, _)| *number == 8).collect();
    assert!(matches!(of_batches[..], [(_, breach)] if breach.contains("S9 is broken")), "{failing:#?}");
}
