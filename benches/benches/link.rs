//! A repository in a bucket at the end of a line: every answer comes 30 ms later, and bodies share 100 MB/s each way.
//!
//! The server is in this process and shares its cores. `-- --help` lists the flags.

use std::io::{Read as _, Write as _};
use std::time::Duration;

use strongroom::blocking::{Repository, block_on};
use strongroom::fs::{FsSnapshot, Kind};
use strongroom::storage::{Name, OpenContext, Registry, StorageExt as _, StorageUri};
use strongroom::{CreateOptions, Credentials, KdfParameters, OpenOptions};
use strongroom_benches::figures::{Recorder, random_bytes, timed};
use strongroom_benches::settings::{HELP, Settings};
use strongroom_s3::{S3Constructor, S3Credentials};
use strongroom_s3_server::{ACCESS_KEY, SECRET_KEY, Server, ServerOptions, Verb};

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

const LATENCY: Duration = Duration::from_millis(30);
const BYTES_PER_SECOND: u64 = 100_000_000;

/// How much is done.
struct Scale {
    file_bytes: usize,
    /// Folders, and files in each.
    tree: (u64, u64),
    /// Files of 4 KiB that are read one after the other.
    small_files: u64,
}

const FULL: Scale = Scale { file_bytes: 256 << 20, tree: (200, 99), small_files: 1_000 };
const SMOKE: Scale = Scale { file_bytes: 3 << 20, tree: (3, 9), small_files: 10 };

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
    let scale = if settings.smoke { &SMOKE } else { &FULL };
    let mut recorder = Recorder::new("strongroom", settings.json.as_deref())?;
    recorder.block_bytes = Some(1 << 20);
    for round in 1..=settings.rounds {
        for (name, workload) in
            [("s3/file", file as fn(&mut Recorder, &Scale) -> Outcome), ("s3/ls -lR", tree), ("s3/small files", small)]
        {
            if settings.list {
                println!("{name}");
            } else if settings.wants(name) {
                eprintln!("round {round}: {name}");
                workload(&mut recorder, scale)?;
            }
        }
        if settings.list {
            return Ok(());
        }
    }
    print!("{}", recorder.table());
    Ok(())
}

/// A bucket, near until it is moved away.
struct Bucket {
    server: Server,
    uri: StorageUri,
}

impl Bucket {
    fn new() -> Outcome<Self> {
        let server = Server::start(ServerOptions::default())?;
        let uri = StorageUri::parse(&format!("s3://bucket/p?endpoint={}", server.endpoint()))?;
        Ok(Self { server, uri })
    }

    fn move_away(&self) {
        self.server.faults().latency(LATENCY);
        self.server.faults().link(BYTES_PER_SECOND);
    }

    fn create(&self) -> Outcome<Repository> {
        let options = CreateOptions::new(credentials()).kdf(KdfParameters::MINIMUM).without_trusted_state();
        Ok(Repository::create(self.uri.clone(), options.registry(registry()))?)
    }

    fn open(&self, uri: &StorageUri) -> Outcome<Repository> {
        let options = OpenOptions::new(credentials()).without_trusted_state();
        Ok(Repository::open(uri.clone(), options.registry(registry()))?)
    }

    /// Notes the requests that `verbs` made since the last call.
    fn note_requests(&self, recorder: &mut Recorder, row: &str, verb: Verb) -> Outcome {
        let count = self.server.take_seen().iter().filter(|seen| seen.verb == verb).count();
        Ok(recorder.note(row, if verb == Verb::Put { "puts" } else { "gets" }, count as f64)?)
    }
}

fn credentials() -> Credentials {
    Credentials::password("bench")
}

fn registry() -> Registry {
    let mut registry = Registry::new();
    registry.register("s3", S3Constructor::with_credentials(S3Credentials::new(ACCESS_KEY, SECRET_KEY)));
    registry
}

/// One large file: stored, and read back in order by who opened the repository anew.
fn file(recorder: &mut Recorder, scale: &Scale) -> Outcome {
    let bucket = Bucket::new()?;
    let content = random_bytes(3, scale.file_bytes);
    let length = content.len() as u64;
    let repository = bucket.create()?;
    bucket.move_away();
    bucket.server.take_seen();
    let (took, written) = timed(|| -> Outcome {
        let mut file = repository.fs().create_file("/large")?;
        for piece in content.chunks(1 << 20) {
            file.write_all(piece)?;
        }
        Ok(file.close()?)
    });
    written?;
    recorder.throughput("s3/import", length, took)?;
    bucket.note_requests(recorder, "s3/import, requests", Verb::Put)?;
    repository.close()?;
    limit(recorder, &bucket)?;
    for piece_bytes in [64 << 10, 1 << 20] {
        let repository = bucket.open(&bucket.uri)?;
        let mut file = repository.fs().open_file("/large")?;
        let mut piece = vec![0; piece_bytes];
        bucket.server.take_seen();
        let (took, read) = timed(|| -> Outcome {
            let mut rest = content.as_slice();
            loop {
                let read = file.read(&mut piece)?;
                let (head, tail) = rest.split_at(read);
                assert_eq!(piece.get(..read), Some(head));
                rest = tail;
                if read == 0 {
                    assert!(rest.is_empty());
                    return Ok(());
                }
            }
        });
        read?;
        let row = format!("s3/read, {} KiB at a time", piece_bytes >> 10);
        recorder.throughput(&row, length, took)?;
        bucket.note_requests(recorder, &format!("{row}, requests"), Verb::Get)?;
        repository.close()?;
    }
    Ok(())
}

/// What the line gives to who asks for whole blobs and looks at none of them.
fn limit(recorder: &mut Recorder, bucket: &Bucket) -> Outcome {
    const AT_ONCE: usize = 8;
    let context = OpenContext::new(strongroom::env::system()?);
    let storage = block_on(registry().open(&bucket.uri, &context))?;
    let names: Vec<Name> = block_on(storage.list_all(&[]))?.into_iter().collect();
    let share = names.len().div_ceil(AT_ONCE).max(1);
    let read = |names: &[Name]| -> strongroom::storage::Result<u64> {
        names.iter().try_fold(0, |sum, name| Ok(sum + block_on(storage.get(*name, None, 1 << 20))?.len() as u64))
    };
    let read = &read;
    let (took, read) = timed(|| {
        std::thread::scope(|scope| {
            let threads: Vec<_> = names.chunks(share).map(|names| scope.spawn(move || read(names))).collect();
            threads.into_iter().map(|thread| thread.join()).collect::<Vec<_>>()
        })
    });
    let mut bytes = 0;
    for read in read {
        bytes += read.map_err(|_| "a reader died")??;
    }
    Ok(recorder.throughput("limit/s3/whole blobs, 8 at once", bytes, took)?)
}

/// All names of a tree with their attributes, opening included: with nothing at hand, and with a cache of an earlier run.
fn tree(recorder: &mut Recorder, scale: &Scale) -> Outcome {
    let bucket = Bucket::new()?;
    let repository = bucket.create()?;
    let (folders, files) = scale.tree;
    for folder in 0..folders {
        repository.fs().transact(|changes| -> strongroom::Result<()> {
            changes.create_dir(format!("/{folder}"))?;
            (0..files).try_for_each(|file| changes.write(format!("/{folder}/a file of some name {file}"), b"little"))
        })?;
    }
    let entries = folders * (files + 1);
    repository.close()?;
    drop(repository);
    bucket.move_away();
    let folder = tempfile::tempdir()?;
    let cached = format!("{}&cache={}", bucket.uri, folder.path().display());
    let cached = StorageUri::parse(&cached)?;
    for row in ["s3/ls -lR, cold", "s3/ls -lR, warm cache"] {
        bucket.server.take_seen();
        let (took, listed) = timed(|| -> Outcome<u64> {
            let repository = bucket.open(&cached)?;
            let snapshot = repository.asynchronous().fs().snapshot();
            let count = block_on(list(&snapshot, "/".to_owned()))?;
            repository.close()?;
            Ok(count)
        });
        assert_eq!(listed?, entries);
        recorder.note(row, "s", took.as_secs_f64())?;
        bucket.note_requests(recorder, &format!("{row}, requests"), Verb::Get)?;
    }
    Ok(())
}

async fn list(snapshot: &FsSnapshot, root: String) -> strongroom::Result<u64> {
    let (mut count, mut folders) = (0, vec![root]);
    while let Some(folder) = folders.pop() {
        let mut names = snapshot.open_dir(&folder).await?;
        while let Some(entry) = names.next().await? {
            let metadata = snapshot.inode_metadata(entry.inode).await?;
            count += 1;
            if metadata.kind == Kind::Directory {
                folders.push(format!("{folder}/{}", String::from_utf8_lossy(&entry.name)));
            }
        }
    }
    Ok(count)
}

/// Small files one after the other, as an export reads them.
fn small(recorder: &mut Recorder, scale: &Scale) -> Outcome {
    let bucket = Bucket::new()?;
    let repository = bucket.create()?;
    let content = |number: u64| random_bytes(number, 4 << 10);
    repository.fs().transact(|changes| -> strongroom::Result<()> {
        (0..scale.small_files).try_for_each(|number| changes.write(format!("/{number:06}"), content(number)))
    })?;
    repository.close()?;
    bucket.move_away();
    let repository = bucket.open(&bucket.uri)?;
    bucket.server.take_seen();
    let (took, read) = timed(|| -> Outcome {
        for number in 0..scale.small_files {
            assert!(repository.fs().read(format!("/{number:06}"))? == content(number));
        }
        Ok(())
    });
    read?;
    recorder.rate("s3/small files, read in order", scale.small_files, took, None)?;
    bucket.note_requests(recorder, "s3/small files, requests", Verb::Get)?;
    Ok(repository.close()?)
}
