//! Workloads on one repository, beside the limits of the machine in the same run. `-- --help` lists the flags,
//! `docs/benchmarks.md` says what each row is.

mod appends;
mod beside;
mod creates;
mod keys;
mod limits;
mod many;
mod memory;
mod opening;
mod place;
mod reads;
mod sequential;
mod summary;

use strongroom_benches::figures::Recorder;
use strongroom_benches::settings::{HELP, Settings};

use crate::place::{Kind, Place};

/// What a workload answers.
pub(crate) type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// One workload: measures one round and notes its figures.
type Workload = fn(&mut Recorder, &Place, &Scale) -> Outcome;

/// How much is done.
pub(crate) struct Scale {
    pub(crate) file_bytes: usize,
    /// Content of the files of random reads.
    pub(crate) cached_bytes: usize,
    pub(crate) reads: u64,
    pub(crate) commits: u64,
    pub(crate) appends: u64,
    pub(crate) files: u64,
    pub(crate) values: u64,
    pub(crate) small_values: u64,
    /// Files in the repository that is opened.
    pub(crate) entries: u64,
    pub(crate) streamed_bytes: u64,
}

const FULL: Scale = Scale {
    file_bytes: 256 << 20,
    cached_bytes: 64 << 20,
    reads: 20_000,
    commits: 2_048,
    appends: 10_000,
    files: 5_000,
    values: 1_024,
    small_values: 100_000,
    entries: 100_000,
    streamed_bytes: 1 << 30,
};

const LONG: Scale = Scale { appends: 100_000, small_values: 1_000_000, entries: 1_000_000, ..FULL };

const SMOKE: Scale = Scale {
    file_bytes: 2 << 20,
    cached_bytes: 1 << 20,
    reads: 50,
    commits: 64,
    appends: 100,
    files: 100,
    values: 64,
    small_values: 2_000,
    entries: 500,
    streamed_bytes: 8 << 20,
};

/// Each with the part of its name after the storage's.
const WORKLOADS: [(&str, Workload); 13] = [
    ("sequential/dedup-on", |recorder, place, scale| sequential::run(recorder, place, scale, true)),
    ("sequential/dedup-off", |recorder, place, scale| sequential::run(recorder, place, scale, false)),
    ("random-reads", reads::run),
    ("create/1", |recorder, place, scale| creates::run(recorder, place, scale, 1)),
    ("create/32", |recorder, place, scale| creates::run(recorder, place, scale, 32)),
    ("append", appends::run),
    ("many-files", many::run),
    ("kv/large", keys::large),
    ("kv/small", keys::small),
    ("open", opening::run),
    ("summary", summary::run),
    ("beside", beside::run),
    ("memory", memory::run),
];

/// What the choice of a block size turns on.
const DECISION: [&str; 5] = ["sequential/dedup-on", "random-reads", "create/1", "many-files", "memory"];

fn main() -> Outcome {
    if std::env::args().any(|argument| argument == "--help") {
        println!("{HELP}");
        return Ok(());
    }
    let settings = match Settings::parse(std::env::args().skip(1)) {
        Ok(settings) => settings,
        Err(message) => {
            eprintln!("{message}");
            std::process::exit(2);
        }
    };
    let scale = match (settings.smoke, settings.long) {
        (true, _) => &SMOKE,
        (_, true) => &LONG,
        _ => &FULL,
    };
    if let Some(block_bytes) = settings.memory_of {
        return memory::measure(&Place::new(Kind::File, Some(block_bytes), &settings), scale);
    }
    run(&settings, scale)
}

fn run(settings: &Settings, scale: &Scale) -> Outcome {
    let mut recorder = Recorder::new("strongroom", settings.json.as_deref())?;
    let block_sizes = match settings.block_sizes.as_slice() {
        [] => vec![None],
        sizes => sizes.iter().copied().map(Some).collect(),
    };
    for round in 1..=settings.rounds {
        if settings.wants("limits") && !settings.list {
            eprintln!("round {round}: limits");
            limits::run(&mut recorder, settings, scale)?;
        }
        for block_bytes in &block_sizes {
            for kind in [Kind::Memory, Kind::File] {
                let place = Place::new(kind, *block_bytes, settings);
                for (name, workload) in WORKLOADS {
                    let full_name = format!("{}/{name}", place.name());
                    let chosen = !settings.decision || (kind == Kind::File && DECISION.contains(&name));
                    // How much memory it takes is asked where the storage itself takes none.
                    let sensible = kind == Kind::File || name != "memory";
                    if !(settings.wants(&full_name) && chosen && sensible) {
                        continue;
                    }
                    if settings.list {
                        println!("{full_name}");
                        continue;
                    }
                    eprintln!("round {round}: {full_name}");
                    recorder.block_bytes = Some(place.block_bytes()?);
                    workload(&mut recorder, &place, scale)?;
                }
            }
        }
        if settings.list {
            return Ok(());
        }
    }
    print!("{}", recorder.table());
    Ok(())
}
