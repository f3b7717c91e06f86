//! A repository under random histories, beside one that is kept in maps: files and their handles, links, versions,
//! transactions, snapshots, keys, crashes and upkeep.
//!
//! A history is a list of steps, each a kind and dice. What the dice mean is decided when the step is run, by what is there
//! then, so that most steps have something to work on and a shrunk history stays one; a step that needs an open file or a
//! snapshot makes one where there is none. After each step that can have changed
//! something, everything is compared.
//!
//! The histories are the same in every run: `STRONGROOM_SEED=N` gives others, `STRONGROOM_CASES=N` more of them, and
//! `STRONGROOM_TRACE=1` prints each step in words, and `STRONGROOM_HISTORY=FILE` runs the one history that a failure printed: its
//! seed and profile in the first line, then a step a line. How often each kind was accepted and refused is printed with
//! `--nocapture`, and no kind may be rare.

mod bed;
mod choose;
mod compare;
mod handles;
mod kinds;
mod report;
mod run;
mod times;
mod world;

use std::panic::resume_unwind;

use futures_lite::future::block_on;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestRunner};

use crate::medium;
use crate::model::bed::Profile;
use crate::model::report::Report;

const CASES: u32 = 256;
const STEPS_MAX: usize = 96;
/// Histories run so many at once. A constant: which histories there are must not depend on the machine.
const WORKERS: u64 = 2;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// A history as it was printed.
fn replay(path: &str) {
    let text = std::fs::read_to_string(path).unwrap();
    let mut lines = text.lines().map(|line| line.trim().trim_end_matches(',')).filter(|line| !line.is_empty());
    let (seed, profile) = lines.next().unwrap().split_once(' ').unwrap();
    let profile = [Profile::Files, Profile::Objects].into_iter().find(|known| format!("{known:?}") == profile).unwrap();
    let steps = lines.map(|line| kinds::parse(line).unwrap_or_else(|| panic!("no step: {line}")));
    block_on(run::run(seed.parse().unwrap(), profile, steps.collect(), &Report::default()));
}

#[test]
fn a_history_of_a_repository_equals_that_of_the_model() {
    if let Ok(path) = std::env::var("STRONGROOM_HISTORY") {
        return replay(&path);
    }
    let cases = number("STRONGROOM_CASES").unwrap_or_else(|| medium::cases(CASES).into());
    let seed = number("STRONGROOM_SEED").unwrap_or(1);
    let report = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS)
            .map(|worker| {
                let share = cases / WORKERS + u64::from(worker < cases % WORKERS);
                scope.spawn(move || run_histories(seed.wrapping_add(worker << 32), share))
            })
            .collect();
        let reports = workers.into_iter().map(|worker| worker.join().unwrap_or_else(|panic| resume_unwind(panic)));
        reports.reduce(Report::and).unwrap()
    });
    report.print();
    report.assert_nothing_is_rare(cases);
}

fn run_histories(seed: u64, cases: u64) -> Report {
    let config = ProptestConfig {
        cases: u32::try_from(cases).unwrap(),
        max_shrink_iters: 2_000,
        max_shrink_time: 60_000,
        rng_seed: RngSeed::Fixed(seed),
        source_file: Some(file!()),
        test_name: Some(concat!(module_path!(), "::a_history_of_a_repository_equals_that_of_the_model")),
        ..ProptestConfig::default()
    };
    let histories = (any::<u64>(), any::<Profile>(), vec(kinds::step(), 1..=STEPS_MAX));
    let report = Report::default();
    let result = TestRunner::new(config).run(&histories, |(seed, profile, steps)| {
        block_on(run::run(seed, profile, steps, &report));
        Ok(())
    });
    if let Err(failure) = result {
        panic!("{failure}");
    }
    report
}
