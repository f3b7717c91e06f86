//! What waits for the medium, for what, and how often: each storage of this machine and repositories on it, in a process of which the
//! kernel tells every call that changes a file, gives a name or makes durable (`watch.c`, which takes a C compiler and Linux).
//!
//! What a storage promises of power is shown so: when a barrier answers, nothing that the process wrote, and no name that it gave or
//! took, is left that a sync after it has not covered. That the medium keeps what was synced is assumed.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // a test may

mod watched;
mod work;

use std::panic::catch_unwind;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use strongroom::core::storage::Durability;
use watched::{Call, NOT_SEEN, Seen, Step, Unsynced, Watched, watch};
use work::{BLOCKS, COMMITS, MANY, ROUNDS};

/// A storage, and what it may cost, in calls that wait for the medium.
struct Kind {
    scheme: &'static str,
    /// What it says of itself.
    durability: Durability,
    /// Files and folders that need not outlive the power, with all in them.
    needless: &'static [&'static str],
    /// Of a durable put, or the barrier after one put; and for each further blob that a barrier covers, up to what makes all
    /// durable at once.
    one_max: usize,
    further_max: usize,
    /// What it does by itself in all plain calls together, at times: to make its file longer, or to begin its log anew.
    own_max: usize,
    /// Of the first barrier of a process that found what others had put.
    first_max: usize,
    /// Of a small commit.
    commit_max: usize,
    /// Each is watched once, by whichever test is the first to need it.
    seen: OnceLock<Seen>,
}

static KINDS: [Kind; 4] = [
    Kind {
        scheme: "file",
        durability: Durability::Power,
        // What is in there is not finished.
        needless: &["incoming"],
        // The file, the folder that it is in, and once for each of those the one above.
        one_max: 3,
        further_max: 2,
        own_max: 0,
        first_max: 3,
        commit_max: 3,
        seen: OnceLock::new(),
    },
    Kind {
        scheme: "redb",
        durability: Durability::Power,
        needless: &[],
        // The second where it makes its file longer.
        one_max: 2,
        further_max: 0,
        own_max: 5,
        first_max: 1,
        commit_max: 2,
        seen: OnceLock::new(),
    },
    Kind {
        scheme: "sqlite",
        durability: Durability::Power,
        // The index of the log is made from the log; the other two are empty, and for their locks.
        needless: &["place-shm", "place-here", "place-gate"],
        one_max: 1,
        further_max: 0,
        own_max: 5,
        first_max: 6,
        commit_max: 1,
        seen: OnceLock::new(),
    },
    Kind {
        scheme: "sled",
        durability: Durability::Process,
        needless: &[],
        one_max: 2,
        further_max: 0,
        own_max: 20,
        first_max: 2,
        commit_max: 2,
        seen: OnceLock::new(),
    },
];

/// The steps that answer only when what is done is durable.
const BARRIERS: [&str; 6] = ["open", "durable put", "sync", "sync of two", "sync of many", "persist"];
const PLAIN: [&str; 4] = ["put", "delete", "batch", "reading"];

/// In the watched process: what it is told. In the test program this does nothing.
#[test]
fn watched_process() {
    work::do_as_told();
}

#[test]
fn whatever_call_makes_empties_fills_names_or_removes_it_is_seen() {
    let watched = Watched::new();
    let steps = watched.steps("no storage", "all kinds of changes");
    let calls: Vec<_> = named(&steps, "changes").flat_map(|step| &step.calls).collect();
    let mut seen: Vec<_> =
        calls.iter().map(|call| (&*call.name, call.path.strip_prefix(watched.place()).unwrap())).collect();
    // A copy asks again whether there is more; and first for what not every file system or kernel does.
    const COPIES: [&str; 3] = ["copy_file_range", "sendfile", "write"];
    seen.dedup_by(|next, call| {
        next.1 == call.1 && (next.0 == call.0 || [&next, &call].iter().all(|call| COPIES.contains(&call.0)))
    });
    // Of each the names that it has on one machine or another. What is opened and was there stands there only where it is emptied.
    let mut calls = seen.iter();
    for (names, path) in [
        (&["mkdir", "mkdirat"][..], ""),
        (&["open", "openat"], "made"),
        (&["write"], "made"),
        (&["truncate"], "made"),
        (&["write"], "made"),
        (&["open", "openat"], "copied"),
        (&COPIES, "copied"),
        (&["symlink", "symlinkat"], "linked"),
        (&["mkdir", "mkdirat"], "inner"),
        (&["rmdir", "unlinkat"], "inner"),
    ] {
        let call = calls.next().unwrap_or_else(|| panic!("{names:?} is not seen: {seen:?}"));
        assert!(names.contains(&call.0) && call.1 == Path::new(path), "{names:?} of {path}: {seen:?}");
    }
    assert!(calls.next().is_none(), "{seen:?}");
}

/// Else a test would pass because nothing was seen.
#[test]
fn where_not_all_can_be_seen_one_line_says_why() {
    let watched = Watched::new();
    let says = |mut command: Command, why: &str| {
        let output = command.output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(NOT_SEEN), "{said}");
        assert!(said.starts_with("watch: ") && said.contains(why) && said.lines().count() == 1, "{said}");
    };
    // The kernel tells one who watches, and no second one.
    let mut inner = watched.program("log", 60, watch());
    inner.args([watched.place().as_path(), &watched.place().with_file_name("log")]).args(["60", "true"]);
    says(inner, "not tested: the kernel does not tell of calls here");
    let mut sleeps = watched.program("log", 1, Path::new("sleep"));
    sleeps.arg("60");
    says(sleeps, "the program does not come to its end");
    let waiting = catch_unwind(|| Watched::new().steps("no storage", "writes that wait")).unwrap_err();
    let said = waiting.downcast_ref::<String>().unwrap();
    assert!(said.starts_with("watch: not tested: each write") && said.lines().count() == 1, "{said}");
}

impl Kind {
    fn seen(&self) -> &Seen {
        self.seen.get_or_init(|| Seen::of(self.scheme))
    }

    fn is_needless(&self, path: &Path) -> bool {
        path.iter().any(|part| self.needless.iter().any(|needless| part == *needless))
    }

    /// That at the end of the steps with these names nothing is left to be made durable.
    fn covers(&self, steps: &[Step], barriers: &[&str]) {
        let mut unsynced = Unsynced::default();
        for (number, step) in steps.iter().enumerate() {
            step.calls.iter().for_each(|call| unsynced.follow(call));
            if barriers.contains(&&*step.name) {
                let what = format!("{}, step {number}, {}: {:?}", self.scheme, step.name, step.calls);
                assert!(step.barriers() > 0, "it waits for nothing: {what}");
                let left = unsynced.left(|path| self.is_needless(path));
                assert!(left.is_empty(), "left unsynced: {left:?} by {what}");
            }
        }
    }
}

fn kinds(durability: Durability) -> impl Iterator<Item = &'static Kind> {
    KINDS.iter().filter(move |kind| kind.durability == durability)
}

fn of(scheme: &str) -> &'static Kind {
    KINDS.iter().find(|kind| kind.scheme == scheme).unwrap()
}

fn named<'s>(steps: &'s [Step], name: &str) -> impl Iterator<Item = &'s Step> {
    steps.iter().filter(move |step| step.name == name)
}

#[test]
fn when_a_barrier_answers_all_that_was_written_and_named_before_is_synced() {
    for kind in kinds(Durability::Power) {
        kind.covers(&kind.seen().calls, &BARRIERS);
    }
}

#[test]
fn a_durable_put_into_a_folder_is_whole_on_the_medium_before_it_has_its_name() {
    let steps = &of("file").seen().calls;
    let mut unsynced = Unsynced::default();
    let mut named = 0;
    for step in steps {
        for call in &step.calls {
            if step.name == "durable put" && call.gives_a_name() {
                assert!(!unsynced.has_content_of(&call.path), "{step:?}");
                named += 1;
            }
            unsynced.follow(call);
        }
    }
    assert!(named >= ROUNDS, "{named} names");
}

#[test]
fn plain_puts_deletions_batches_and_reading_wait_for_nothing() {
    for kind in &KINDS {
        let steps = &kind.seen().calls;
        let of = |name| named(steps, name).map(Step::barriers).sum::<usize>();
        let own = PLAIN.map(of).iter().sum::<usize>();
        assert!(own <= kind.own_max, "{}: {own} calls in {PLAIN:?}", kind.scheme);
        assert!(named(steps, "put").count() > MANY, "{}", kind.scheme);
        assert!(named(steps, "reading").all(|step| step.calls.is_empty()) || kind.scheme == "sled", "{}", kind.scheme);
        // With nothing to do there is nothing to wait for; sled is not asked what it has to do.
        assert!(of("idle sync") == 0 || kind.scheme == "sled", "{}", kind.scheme);
    }
}

/// redb syncs its file where it makes it longer, and where it does not, it does not.
#[test]
fn what_redb_syncs_by_itself_is_the_length_of_its_file() {
    let steps = &of("redb").seen().calls;
    for step in PLAIN.into_iter().flat_map(|name| named(steps, name)).filter(|step| step.barriers() > 0) {
        let calls: Vec<_> = step.calls.iter().map(|call| &*call.name).collect();
        assert!(calls.starts_with(&["ftruncate", "fdatasync"]) && step.barriers() == 1, "{step:?}");
    }
}

#[test]
fn each_barrier_costs_a_known_number_of_calls() {
    for kind in &KINDS {
        let steps = &kind.seen().calls;
        let more = |blobs: usize| kind.one_max + (blobs - 1) * kind.further_max;
        for (name, count, max) in [
            ("durable put", ROUNDS, kind.one_max),
            ("sync", 2 * ROUNDS, kind.one_max),
            ("persist", ROUNDS, kind.one_max),
            ("sync of two", ROUNDS, more(2)),
            // Where there is no call for all at once, one for each: see below.
            ("sync of many", 1, more(MANY)),
        ] {
            let costs: Vec<_> = named(steps, name).map(Step::barriers).collect();
            assert!(
                costs.len() == count && costs.iter().all(|cost| *cost <= max),
                "{}, {name}: {costs:?}",
                kind.scheme
            );
        }
    }
}

#[test]
fn the_documentation_says_what_is_bounded_here() {
    let page = include_str!("../../../docs/backends.md");
    for Kind { scheme, one_max, further_max, commit_max, .. } in &KINDS {
        let row = format!("\n| `{scheme}:` | {one_max} | {further_max} | {commit_max} |\n");
        assert!(page.contains(&row), "{row}");
    }
}

#[test]
fn many_blobs_in_a_folder_are_synced_by_one_call_where_the_file_system_has_one() {
    let steps = &of("file").seen().calls;
    let of_many: Vec<Call> = named(steps, "sync of many").flat_map(|step| step.calls.clone()).collect();
    let whole: Vec<_> = of_many.iter().filter(|call| call.name == "syncfs").collect();
    if whole.is_empty() {
        eprintln!("not tested: this file system is not synced by one call");
    } else {
        assert!(whole.len() == 1 && of_many.len() == 1, "{of_many:?}");
    }
}

/// What sled calls durable: its log is handed to the kernel, which is asked to write it, and promises nothing.
#[test]
fn barriers_of_sled_write_its_log_and_ask_for_no_more_than_that() {
    let steps = &of("sled").seen().calls;
    for name in ["durable put", "sync", "sync of two", "sync of many", "persist"] {
        for step in named(steps, name) {
            let written = step.calls.iter().rposition(|call| call.name == "pwrite64" && call.path.ends_with("db"));
            let asked = step.calls.iter().rposition(|call| call.is_request() && call.path.ends_with("db"));
            assert!(written.is_some() && written < asked, "{step:?}");
        }
    }
}

#[test]
fn what_another_process_put_is_made_durable_by_persist() {
    for kind in kinds(Durability::Power) {
        let Seen { place, persisted: steps, .. } = kind.seen();
        let synced: Vec<_> = steps.iter().flat_map(|step| &step.calls).filter(|call| call.is_barrier()).collect();
        let persisted = named(steps, "persist").map(Step::barriers).sum::<usize>();
        assert!((1..=kind.first_max).contains(&persisted), "{}: {persisted} calls of {steps:?}", kind.scheme);
        let place = if kind.scheme == "file" { work::kept_in(place) } else { place.clone() };
        for path in [place.as_path(), place.parent().unwrap()] {
            assert!(synced.iter().any(|call| call.path == path), "{}: {} in {synced:?}", kind.scheme, path.display());
        }
    }
}

#[test]
fn a_commit_answers_when_it_is_durable_and_a_small_one_costs_one_barrier() {
    for kind in &KINDS {
        let steps = &kind.seen().commits;
        if kind.durability == Durability::Power {
            kind.covers(steps, &["create", "commit", "large commit", "removal"]);
        }
        let costs: Vec<_> = named(steps, "commit").map(Step::barriers).collect();
        assert_eq!(costs.len(), COMMITS);
        assert!(costs.iter().all(|cost| (1..=kind.commit_max).contains(cost)), "{}: {costs:?}", kind.scheme);
        // Its blocks, and then the commit that refers to them.
        let large = named(steps, "large commit").map(Step::barriers).sum::<usize>();
        let max = 2 * kind.one_max + BLOCKS * kind.further_max + kind.own_max;
        assert!((2..=max).contains(&large), "{}: {large} calls, at most {max}", kind.scheme);
        let reading = named(steps, "reading").map(Step::barriers).sum::<usize>();
        assert_eq!(reading, 0, "{}", kind.scheme);
    }
}
