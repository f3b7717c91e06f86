//! Workloads on one repository, beside the limits of the machine in the same run; medians of several rounds.

use std::io::{Read, Seek, SeekFrom, Write};
use std::time::Duration;

use strongroom::blocking::Repository;
use strongroom::{CreateOptions, Credentials, KdfParameters};
use strongroom_benches::{median, megabytes_per_second, random_bytes, timed};

struct Scale {
    rounds: usize,
    file_bytes: usize,
    commits: usize,
    reads: usize,
}

const FULL: Scale = Scale { rounds: 3, file_bytes: 256 << 20, commits: 2000, reads: 20_000 };
const SMOKE: Scale = Scale { rounds: 1, file_bytes: 2 << 20, commits: 64, reads: 50 };

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome {
    let smoke = std::env::args().any(|argument| argument == "--smoke");
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    let scale = if smoke { SMOKE } else { FULL };
    let runs = |name: &str| name.contains(&filter);
    if runs("limits") {
        limits(&scale);
    }
    for (name, dedup) in [("mem, dedup on", true), ("mem, dedup off", false)] {
        if runs(name) {
            sequential(name, &scale, || Ok(("mem://bench".to_owned(), None)), dedup)?;
        }
    }
    if runs("file") {
        let place = || {
            let folder = tempfile::tempdir()?;
            Ok((folder.path().join("repository").display().to_string(), Some(folder)))
        };
        plain_file(&scale)?;
        sequential("file, dedup on", &scale, place, true)?;
        small_files("file", &scale, place)?;
    }
    if runs("mem, small files") {
        small_files("mem", &scale, || Ok(("mem://bench".to_owned(), None)))?;
    }
    Ok(())
}

fn options(dedup: bool) -> CreateOptions {
    CreateOptions::new(Credentials::password("bench")).kdf(KdfParameters::MINIMUM).dedup(dedup).without_trusted_state()
}

fn report(name: &str, bytes: u64, rounds: Vec<Duration>) {
    println!("{name:<44} {:>10.0} MB/s", megabytes_per_second(bytes, median(rounds)));
}

fn rate(name: &str, count: usize, rounds: Vec<Duration>) {
    println!("{name:<44} {:>10.0} /s", count as f64 / median(rounds).as_secs_f64().max(1e-9));
}

fn limits(scale: &Scale) {
    let source = random_bytes(1, scale.file_bytes);
    let mut target = vec![0; source.len()];
    let copy = (0..scale.rounds).map(|_| timed(|| target.copy_from_slice(&source)).0).collect();
    report("limit: memcpy", source.len() as u64, copy);
    let hash = (0..scale.rounds)
        .map(|_| {
            timed(|| {
                source.chunks(64 << 10).for_each(|chunk| {
                    std::hint::black_box(blake3::keyed_hash(&[7; 32], chunk));
                })
            })
            .0
        })
        .collect();
    report("limit: BLAKE3 keyed, 64 KiB, one core", source.len() as u64, hash);
}

fn plain_file(scale: &Scale) -> Outcome {
    let source = random_bytes(2, scale.file_bytes);
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("plain");
    let mut writes = Vec::new();
    let mut reads = Vec::new();
    for _ in 0..scale.rounds {
        let (duration, result) = timed(|| -> std::io::Result<()> {
            let mut file = std::fs::File::create(&path)?;
            for part in source.chunks(64 << 10) {
                file.write_all(part)?;
            }
            file.sync_all()
        });
        result?;
        writes.push(duration);
        let (duration, read) = timed(|| std::fs::read(&path));
        read?;
        reads.push(duration);
    }
    report("plain file, write + fsync", source.len() as u64, writes);
    report("plain file, read, cached", source.len() as u64, reads);
    Ok(())
}

type Kept = Option<tempfile::TempDir>;

fn sequential(name: &str, scale: &Scale, place: impl Fn() -> Outcome<(String, Kept)>, dedup: bool) -> Outcome {
    let source = random_bytes(3, scale.file_bytes);
    let (mut writes, mut reads, mut randoms) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..scale.rounds {
        let (uri, _kept) = place()?;
        let repository = Repository::create(uri.as_str(), options(dedup))?;
        let fs = repository.fs();
        let (duration, result) = timed(|| -> Outcome {
            let mut file = fs.create_file("/large")?;
            for part in source.chunks(64 << 10) {
                file.write_all(part)?;
            }
            file.close()?;
            Ok(())
        });
        result?;
        writes.push(duration);
        let mut buffer = vec![0; 64 << 10];
        let (duration, result) = timed(|| -> Outcome<u64> {
            let mut file = fs.open_file("/large")?;
            let mut total = 0;
            loop {
                match file.read(&mut buffer)? {
                    0 => return Ok(total),
                    read => total += read as u64,
                }
            }
        });
        assert_eq!(result?, source.len() as u64);
        reads.push(duration);
        let mut file = fs.open_file("/large")?;
        let mut page = [0; 4096];
        let (duration, result) = timed(|| -> Outcome {
            let mut at = 1_u64;
            for _ in 0..scale.reads {
                at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                file.seek(SeekFrom::Start((at >> 20) % (source.len() as u64 - 4096)))?;
                file.read_exact(&mut page)?;
            }
            Ok(())
        });
        result?;
        randoms.push(duration);
        repository.close()?;
    }
    report(&format!("{name}: write, durable"), source.len() as u64, writes);
    report(&format!("{name}: read"), source.len() as u64, reads);
    rate(&format!("{name}: random 4 KiB reads"), scale.reads, randoms);
    Ok(())
}

fn small_files(name: &str, scale: &Scale, place: impl Fn() -> Outcome<(String, Kept)>) -> Outcome {
    let content = random_bytes(4, 1024);
    for threads in [1, 32] {
        let mut rounds = Vec::new();
        for _ in 0..scale.rounds {
            let (uri, _kept) = place()?;
            let repository = Repository::create(uri.as_str(), options(true))?;
            let fs = repository.fs();
            fs.write("/first", b"")?;
            let (duration, ()) = timed(|| {
                std::thread::scope(|scope| {
                    for thread in 0..threads {
                        let (fs, content) = (&fs, &content);
                        scope.spawn(move || {
                            for number in 0..scale.commits / threads {
                                if let Err(error) = fs.write(format!("/{thread}-{number}"), content) {
                                    eprintln!("thread {thread}: {error}");
                                    std::process::exit(1);
                                }
                            }
                        });
                    }
                });
            });
            rounds.push(duration);
            repository.close()?;
        }
        rate(&format!("{name}: create 1 KiB, {threads} threads"), scale.commits / threads * threads, rounds);
    }
    Ok(())
}
