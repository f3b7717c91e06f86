//! The file workloads of `benches/benches/workloads/` on ZboxFS 0.9.2: same bytes, same calls as far as it has them, same
//! figures. It has no transaction over many files, and no barrier: nothing here is durable against power loss.

// Shared by inclusion, so that this crate needs nothing of ours built.
#[path = "../../../src/figures.rs"]
#[allow(dead_code)]
mod figures;
#[path = "../../../src/settings.rs"]
#[allow(dead_code)]
mod settings;

use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use figures::{Recorder, picks, random_bytes, timed};
use settings::Settings;
use zbox::{Cipher, MemLimit, OpenOptions, OpsLimit, Repo, RepoOpener};

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

const PIECE: usize = 64 << 10;

/// How much is done: less than on ours where it would take minutes.
struct Scale {
    file_bytes: usize,
    reads: u64,
    commits: u64,
    appends: u64,
    files: u64,
}

const FULL: Scale = Scale { file_bytes: 256 << 20, reads: 300, commits: 300, appends: 500, files: 1_000 };
const LONG: Scale = Scale { files: 5_000, ..FULL };
const SMOKE: Scale = Scale { file_bytes: 2 << 20, reads: 20, commits: 10, appends: 10, files: 20 };

fn main() -> Outcome {
    let settings = Settings::parse(std::env::args().skip(1)).unwrap_or_else(|message| {
        eprintln!("{message}");
        std::process::exit(2);
    });
    let scale = match (settings.smoke, settings.long) {
        (true, _) => &SMOKE,
        (_, true) => &LONG,
        _ => &FULL,
    };
    zbox::init_env();
    let mut recorder = Recorder::new("zbox", settings.json.as_deref())?;
    for round in 1..=settings.rounds {
        for on in ["mem", "file"] {
            for (name, workload) in WORKLOADS {
                let full_name = format!("{on}/{name}");
                if !settings.wants(&full_name) {
                    continue;
                }
                if settings.list {
                    println!("{full_name}");
                    continue;
                }
                eprintln!("round {round}: {full_name}");
                let folder = match &settings.dir {
                    Some(parent) => tempfile::tempdir_in(parent)?,
                    None => tempfile::tempdir()?,
                };
                let uri = match on {
                    "mem" => format!("mem://{name}-{round}"),
                    _ => format!("file://{}", folder.path().join("repository").display()),
                };
                workload(&mut recorder, &Place { on, uri, folder: folder.path() }, scale)?;
            }
        }
    }
    print!("{}", recorder.table());
    Ok(())
}

struct Place<'a> {
    on: &'a str,
    uri: String,
    folder: &'a Path,
}

type Workload = fn(&mut Recorder, &Place, &Scale) -> Outcome;

const WORKLOADS: [(&str, Workload); 6] = [
    ("sequential/dedup-on", |recorder, place, scale| sequential(recorder, place, scale, true)),
    ("sequential/dedup-off", |recorder, place, scale| sequential(recorder, place, scale, false)),
    ("random-reads", random_reads),
    ("create/1", creates),
    ("append", appends),
    ("many-files", many_files),
];

fn repository(place: &Place, dedup: bool) -> Outcome<Repo> {
    let mut opener = RepoOpener::new();
    opener
        .create(true)
        .cipher(Cipher::Aes)
        .ops_limit(OpsLimit::Interactive)
        .mem_limit(MemLimit::Interactive)
        .version_limit(1)
        .dedup_chunk(dedup);
    Ok(opener.open(&place.uri, "bench")?)
}

fn sequential(recorder: &mut Recorder, place: &Place, scale: &Scale, dedup: bool) -> Outcome {
    let source = random_bytes(3, scale.file_bytes);
    let length = source.len() as u64;
    let mut repository = repository(place, dedup)?;
    let (took, written) = timed(|| -> Outcome {
        let mut file = OpenOptions::new().create(true).dedup_chunk(dedup).open(&mut repository, "/large")?;
        for part in source.chunks(PIECE) {
            file.write_all(part)?;
        }
        file.finish()?;
        Ok(())
    });
    written?;
    let variant = if dedup { "dedup-on" } else { "dedup-off" };
    recorder.throughput(&format!("{}/write/{variant}", place.on), length, took)?;
    if !dedup {
        return Ok(());
    }
    let read_all = |repository: &mut Repo| -> Outcome<u64> {
        let mut buffer = vec![0; PIECE];
        let mut file = repository.open_file("/large")?;
        let mut total = 0;
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(total),
                read => total += read as u64,
            }
        }
    };
    let (took, read) = timed(|| read_all(&mut repository));
    assert_eq!(read?, length);
    recorder.throughput(&format!("{}/read/warm", place.on), length, took)?;
    if place.on == "file" {
        drop(repository);
        forget_pages(place.folder)?;
        let mut repository = self::repository(place, dedup)?;
        let (took, read) = timed(|| read_all(&mut repository));
        assert_eq!(read?, length);
        recorder.throughput("file/read/cold", length, took)?;
    }
    Ok(())
}

fn random_reads(recorder: &mut Recorder, place: &Place, scale: &Scale) -> Outcome {
    let source = random_bytes(5, scale.file_bytes / 4);
    let mut repository = repository(place, true)?;
    let mut file = OpenOptions::new().create(true).dedup_chunk(true).open(&mut repository, "/file")?;
    file.write_all(&source)?;
    file.finish()?;
    let mut page = [0; 4096];
    let (took, read) = timed(|| -> Outcome {
        for offset in picks(7, source.len() as u64 - 4096).take(scale.reads as usize) {
            file.seek(SeekFrom::Start(offset))?;
            file.read_exact(&mut page)?;
            assert_eq!(page[..], source[offset as usize..][..4096]);
        }
        Ok(())
    });
    read?;
    recorder.rate(&format!("{}/random-reads/cache-default", place.on), scale.reads, took, None)?;
    Ok(())
}

fn creates(recorder: &mut Recorder, place: &Place, scale: &Scale) -> Outcome {
    let content = random_bytes(4, 1024);
    let mut repository = repository(place, true)?;
    let (took, made) = timed(|| -> Outcome {
        for number in 0..scale.commits {
            repository.create_file(format!("/{number}"))?.write_once(&content)?;
        }
        Ok(())
    });
    made?;
    recorder.rate(&format!("{}/create/1", place.on), scale.commits, took, None)?;
    Ok(())
}

fn appends(recorder: &mut Recorder, place: &Place, scale: &Scale) -> Outcome {
    let content = random_bytes(6, 1024);
    let mut repository = repository(place, true)?;
    let mut file = OpenOptions::new().create(true).append(true).open(&mut repository, "/log")?;
    let rung = scale.appends / 10;
    for tenth in 0..10 {
        let (took, appended) = timed(|| -> Outcome {
            for _ in 0..rung {
                file.write_once(&content)?;
            }
            Ok(())
        });
        appended?;
        let step = match tenth {
            0 => "first",
            9 => "last",
            _ => continue,
        };
        recorder.rate(&format!("{}/append/{step} tenth of {}", place.on, scale.appends), rung, took, None)?;
    }
    Ok(())
}

fn many_files(recorder: &mut Recorder, place: &Place, scale: &Scale) -> Outcome {
    let mut repository = repository(place, true)?;
    let contents: Vec<Vec<u8>> =
        (1..=scale.files).zip(picks(9, 3073)).map(|(seed, more)| random_bytes(seed, 1024 + more as usize)).collect();
    let logical: usize = contents.iter().map(Vec::len).sum();
    let (took, made) = timed(|| -> Outcome {
        for (number, content) in contents.iter().enumerate() {
            repository.create_file(format!("/{number}"))?.write_once(content)?;
        }
        Ok(())
    });
    made?;
    recorder.note(&format!("{}/many-files/{}", place.on, scale.files), "s", took.as_secs_f64())?;
    drop(repository);
    if place.on == "file" {
        let ratio = stored_bytes(place.folder)? as f64 / logical as f64;
        recorder.note("file/many-files/stored:logical", "×", ratio)?;
    }
    Ok(())
}

fn files(folder: &Path) -> std::io::Result<Vec<std::path::PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => found.extend(files(&entry.path())?),
            false => found.push(entry.path()),
        }
    }
    Ok(found)
}

fn stored_bytes(folder: &Path) -> std::io::Result<u64> {
    files(folder)?.iter().map(|path| Ok(path.metadata()?.len())).sum()
}

fn forget_pages(folder: &Path) -> Outcome {
    for path in files(folder)? {
        let file = std::fs::File::open(path)?;
        file.sync_all()?;
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
    }
    Ok(())
}
