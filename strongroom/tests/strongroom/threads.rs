//! Sixty-four threads on one repository: each has a subtree and keys of its own, which become exactly what its own model
//! says, and all count together in files and keys that they share, of which no count is lost. They exchange and replace names
//! under each other's eyes, and append to one file through one handle. The defragmenter works beside them.
//!
//! `STRONGROOM_ACCEPTANCE=full` goes on for a minute; `STRONGROOM_ACCEPTANCE_SEED=N` takes another seed.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use strongroom::blocking::{File, FileSystem, Repository};
use strongroom::check::CheckOptions;
use strongroom::core::engine::CompactOptions;
use strongroom::fs::{Follow, Kind, OpenOptions, XattrMode};
use strongroom::{CreateOptions, Credentials, DefragmentOptions, Error, KdfParameters};

const THREADS: u64 = 64;
const NAMES: u64 = 5;
/// Of how many files, keys and names several threads share each.
const SHARED: u64 = 8;
/// What is appended at once: who, and the how manieth of his it is.
const RECORD_BYTES: usize = 16;
/// Far longer than any operation takes, on any machine: only a deadlock lasts so long.
const STUCK: Duration = Duration::from_secs(120);

/// A generator of numbers that is the same everywhere for one seed (splitmix64).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }

    /// Small mostly, and at times larger than a chunk. Few, so that threads share chunks.
    fn content(&mut self) -> Vec<u8> {
        let length = [10, 1_000, 20_000, 200_000][usize::try_from(self.below(6).saturating_sub(2)).unwrap()];
        let mut bytes = Numbers(self.below(4));
        (0..length).map(|_| u8::try_from(bytes.below(256)).unwrap()).collect()
    }
}

/// An inode of the model by number, so that names can share one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Inode {
    content: Vec<u8>,
    xattr: Option<Vec<u8>>,
}

/// One of the threads, with what it knows to be there.
struct Worker {
    id: u64,
    repository: Repository,
    fs: FileSystem,
    numbers: Numbers,
    names: BTreeMap<String, usize>,
    inodes: Vec<Inode>,
    keys: BTreeMap<Vec<u8>, Vec<u8>>,
    /// How often it counted in the shared file, and in the shared key.
    counted: u64,
    /// The one handle of all to the file that they append to, and how often it did.
    log: Arc<File>,
    appended: u64,
    snapshot: Option<(String, BTreeMap<String, Inode>)>,
}

impl Worker {
    fn new(id: u64, seed: u64, repository: &Repository, log: Arc<File>) -> Self {
        let fs = repository.fs();
        fs.create_dir(format!("/{id}")).unwrap();
        Self {
            id,
            repository: repository.clone(),
            fs,
            numbers: Numbers(seed.wrapping_mul(THREADS) + id),
            names: BTreeMap::new(),
            inodes: Vec::new(),
            keys: BTreeMap::new(),
            counted: 0,
            log,
            appended: 0,
            snapshot: None,
        }
    }

    fn path(&mut self) -> String {
        format!("/{}/{}", self.id, self.numbers.below(NAMES))
    }

    /// A file that is there, and its inode.
    fn there(&mut self) -> Option<(String, usize)> {
        let path = self.path();
        let inode = *self.names.get(&path)?;
        Some((path, inode))
    }

    fn set(&mut self, path: String, content: Vec<u8>) {
        if let Some(&inode) = self.names.get(&path) {
            self.inodes[inode].content = content;
        } else {
            self.inodes.push(Inode { content, xattr: None });
            self.names.insert(path, self.inodes.len() - 1);
        }
    }

    fn shown(&self) -> BTreeMap<String, Inode> {
        self.names.iter().map(|(path, &inode)| (path.clone(), self.inodes[inode].clone())).collect()
    }

    fn step(&mut self) {
        match self.numbers.below(37) {
            0..5 => {
                let (path, content) = (self.path(), self.numbers.content());
                self.fs.write(&path, &content).unwrap();
                self.set(path, content);
            }
            5..8 => self.write_at(),
            8..10 => {
                let Some((path, inode)) = self.there() else { return };
                let content = self.numbers.content();
                let file = self.fs.open_file_with(&path, OpenOptions::new().append(true)).unwrap();
                assert_eq!(file.append(&content).unwrap(), self.inodes[inode].content.len() as u64);
                file.close().unwrap();
                self.inodes[inode].content.extend(content);
            }
            10..15 => {
                let path = self.path();
                match self.names.get(&path) {
                    Some(&inode) => assert!(self.fs.read(&path).unwrap() == self.inodes[inode].content, "{path}"),
                    None => assert!(!self.fs.exists(&path).unwrap(), "{path}"),
                }
            }
            15..17 => {
                let Some((from, inode)) = self.there() else { return };
                let to = self.path();
                self.fs.rename(&from, &to).unwrap();
                // Two names of one file stay.
                if self.names.get(&to) != Some(&inode) {
                    self.names.remove(&from);
                    self.names.insert(to, inode);
                }
            }
            17 => {
                let Some((existing, inode)) = self.there() else { return };
                let link = self.path();
                let made = self.fs.hard_link(&existing, &link);
                match self.names.entry(link) {
                    Entry::Occupied(_) => {
                        assert!(matches!(made, Err(strongroom::fs::Error::AlreadyExists { .. })), "{made:?}");
                    }
                    Entry::Vacant(free) => {
                        made.unwrap();
                        free.insert(inode);
                    }
                }
            }
            18 => {
                let Some((path, _)) = self.there() else { return };
                self.fs.remove_file(&path).unwrap();
                self.names.remove(&path);
            }
            19..21 => {
                let Some((from, inode)) = self.there() else { return };
                let to = self.path();
                self.fs.copy(&from, &to).unwrap();
                let content = self.inodes[inode].content.clone();
                self.set(to, content);
            }
            21 => {
                let Some((path, inode)) = self.there() else { return };
                let value = self.numbers.below(1_000).to_string().into_bytes();
                self.fs.set_xattr(&path, "user.note", &value, XattrMode::Set, Follow::No).unwrap();
                self.inodes[inode].xattr = Some(value);
            }
            22..24 => self.key(),
            24..27 => self.count(),
            27..29 => self.several(),
            29 => self.snapshot(),
            30 if self.numbers.below(8) == 0 => {
                self.repository.compact(CompactOptions::default()).unwrap();
            }
            32 => self.exchange(),
            33 => self.replace(),
            34..36 => self.append(),
            _ => {
                let (id, names) = (self.id, self.names.len());
                assert_eq!(self.fs.read_dir(format!("/{id}")).unwrap().len(), names);
            }
        }
    }

    /// Through a handle of its own, in pieces that are flushed together.
    fn write_at(&mut self) {
        let Some((path, inode)) = self.there() else { return };
        let file = self.fs.open_file_with(&path, OpenOptions::new().read(true).write(true)).unwrap();
        for _ in 0..3 {
            let bytes = self.numbers.content();
            let at = usize::try_from(self.numbers.below(100_000)).unwrap();
            file.write_at(at as u64, &bytes).unwrap();
            let content = &mut self.inodes[inode].content;
            content.resize(content.len().max(at + bytes.len()), 0);
            content[at..at + bytes.len()].copy_from_slice(&bytes);
            let mut out = vec![0; bytes.len()];
            read_all_at(&file, at as u64, &mut out);
            assert!(out == bytes, "a handle reads what it wrote to {path}");
        }
        file.close().unwrap();
    }

    fn key(&mut self) {
        let key = format!("own/{}/{}", self.id, self.numbers.below(NAMES)).into_bytes();
        let kv = self.repository.kv();
        assert_eq!(kv.get(&key).unwrap().map(Vec::from), self.keys.get(&key).cloned());
        if self.numbers.below(3) == 0 {
            assert_eq!(kv.delete(&key).unwrap(), self.keys.remove(&key).is_some());
        } else {
            let value = self.numbers.content();
            kv.put(&key, &value).unwrap();
            self.keys.insert(key, value);
        }
    }

    /// One more in a file and in a key that several threads share, in one transaction.
    fn count(&mut self) {
        let shared = self.id % SHARED;
        self.repository
            .transact(|transaction| {
                let path = format!("/shared/{shared}");
                let key = format!("shared/{shared}");
                let text = String::from_utf8(transaction.fs().read(&path)?).unwrap();
                let row = transaction.kv().get(&key)?;
                assert_eq!(row.unwrap(), text, "file and key were counted together");
                let next = (text.parse::<u64>().unwrap() + 1).to_string();
                transaction.fs().write(&path, &next)?;
                transaction.kv().put(&key, &next)?;
                Ok::<_, Error>(())
            })
            .unwrap_or_else(|error| panic!("counting: {error}"));
        self.counted += 1;
    }

    /// Two shared names change places. In every state each has the content of the one or of the other, and never both the same.
    fn exchange(&mut self) {
        let shared = self.id % SHARED;
        let (one, other) = (format!("/shared/one {shared}"), format!("/shared/other {shared}"));
        self.fs.exchange(&one, &other).unwrap();
        let state = self.fs.snapshot();
        let contents = [state.read(&one).unwrap(), state.read(&other).unwrap()];
        assert!(is_either_way(&contents, shared), "what thread {} finds under {one} and {other}", self.id);
        // Each by itself is read whole, whatever comes between.
        let content = self.fs.read(&one).unwrap();
        assert!(content == of_one(shared) || content == of_other(shared), "{one}");
    }

    /// A file of its own takes the place of the one that has a shared name: who reads that finds one of them, and all of it.
    fn replace(&mut self) {
        let shared = self.id % SHARED;
        let (own, place) = (format!("/shared/of {}", self.id), format!("/shared/place {shared}"));
        let round = self.numbers.below(1_000);
        self.fs.write(&own, of_place(self.id, round)).unwrap();
        self.fs.rename(&own, &place).unwrap();
        assert!(!self.fs.exists(&own).unwrap());
        assert_whole(&self.fs.read(&place).unwrap(), &place);
        // Through a handle, though the name may be another file's meanwhile.
        let file = self.fs.open_file(&place).unwrap();
        let mut content = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
        read_all_at(&file, 0, &mut content);
        assert_whole(&content, &place);
    }

    fn append(&mut self) {
        let record = [self.id.to_le_bytes(), self.appended.to_le_bytes()].concat();
        let at = self.log.append(&record).unwrap();
        self.appended += 1;
        if self.numbers.below(4) == 0 {
            self.log.sync().unwrap();
        }
        let mut found = vec![0; RECORD_BYTES];
        read_all_at(&self.log, at, &mut found);
        assert_eq!(found, record, "what was appended at {at}");
    }

    /// Several files at once, or none.
    fn several(&mut self) {
        let writes: Vec<_> = (0..3).map(|_| (self.path(), self.numbers.content())).collect();
        let gives_up = self.numbers.below(3) == 0;
        let result = self.repository.transact(|transaction| {
            for (path, content) in &writes {
                transaction.fs().write(path, content)?;
                assert!(transaction.fs().read(path)? == *content);
            }
            if gives_up { Err(Error::Stale) } else { Ok(()) }
        });
        assert_eq!(result.is_err(), gives_up);
        if !gives_up {
            for (path, content) in writes {
                self.set(path, content);
            }
        }
    }

    /// Takes a snapshot, or looks at the one that it took and removes it.
    fn snapshot(&mut self) {
        match self.snapshot.take() {
            None => {
                let name = format!("of {}", self.id);
                self.repository.create_snapshot(&name).unwrap();
                self.snapshot = Some((name, self.shown()));
            }
            Some((name, expected)) => {
                let state = strongroom::blocking::block_on(self.repository.asynchronous().files_at(&name)).unwrap();
                for (path, inode) in expected {
                    let content = strongroom::blocking::block_on(state.read(&path)).unwrap();
                    assert!(content == inode.content, "{path} in the snapshot");
                }
                self.repository.remove_snapshot(&name).unwrap();
            }
        }
    }

    /// What it finds is what it did, and nothing else.
    fn assert_holds(&self) {
        let mut found = BTreeMap::new();
        for entry in self.fs.read_dir(format!("/{}", self.id)).unwrap() {
            assert_eq!(entry.kind, Kind::File);
            let path = format!("/{}/{}", self.id, entry.name_str().unwrap());
            let xattr = self.fs.xattr(&path, "user.note", Follow::No).unwrap();
            found.insert(path.clone(), Inode { content: self.fs.read(&path).unwrap(), xattr });
        }
        assert!(found == self.shown(), "thread {} finds {:?}", self.id, found.keys());
        for number in 0..NAMES {
            let key = format!("own/{}/{number}", self.id).into_bytes();
            assert_eq!(self.repository.kv().get(&key).unwrap().map(Vec::from), self.keys.get(&key).cloned());
        }
    }
}

/// Larger than a chunk.
fn pattern(seed: u64) -> Vec<u8> {
    let mut numbers = Numbers(seed);
    (0..15_000).flat_map(|_| numbers.below(u64::MAX).to_le_bytes()).collect()
}

fn of_one(shared: u64) -> Vec<u8> {
    pattern(2 * shared)
}

fn of_other(shared: u64) -> Vec<u8> {
    pattern(2 * shared + 1)
}

fn is_either_way(contents: &[Vec<u8>; 2], shared: u64) -> bool {
    let either = [of_one(shared), of_other(shared)];
    *contents == either || (contents[0] == either[1] && contents[1] == either[0])
}

/// It says whose it is, and the rest follows from that.
fn of_place(id: u64, round: u64) -> Vec<u8> {
    [&id.to_le_bytes()[..], &round.to_le_bytes(), &pattern(1_000 + id * 1_000 + round)].concat()
}

fn assert_whole(content: &[u8], place: &str) {
    let (id, round) = (number_at(content, 0), number_at(content, 8));
    assert!(id <= THREADS && content == of_place(id, round), "{place} holds no content that it was given");
}

fn number_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// Without pause, as far as it may disturb others.
fn eager() -> DefragmentOptions {
    DefragmentOptions {
        start_percent: 3,
        stop_percent: 1,
        garbage_bytes_min: 0,
        bytes_per_second: u64::MAX,
        busy_percent: 100,
        delay: Duration::ZERO,
        ..DefragmentOptions::default()
    }
}

fn read_all_at(file: &File, offset: u64, out: &mut [u8]) {
    let mut filled = 0;
    while filled < out.len() {
        let count = file.read_at(offset + filled as u64, &mut out[filled..]).unwrap();
        assert!(count > 0, "the file ends at {}", offset + filled as u64);
        filled += count;
    }
}

#[test]
fn sixty_four_threads_of_mixed_work_lose_nothing_and_never_wait_for_each_other_for_ever() {
    let is_full = std::env::var_os("STRONGROOM_ACCEPTANCE").is_some_and(|size| size == "full");
    let seed = std::env::var("STRONGROOM_ACCEPTANCE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    println!("STRONGROOM_ACCEPTANCE_SEED={seed}");
    let options = CreateOptions::new(Credentials::password("test"))
        .kdf(KdfParameters::MINIMUM)
        .block_bytes(64 << 10)
        .defragment(eager())
        .without_trusted_state();
    let repository = Repository::create("mem://sixty-four-threads", options).unwrap();
    let fs = repository.fs();
    fs.create_dir("/shared").unwrap();
    for shared in 0..SHARED {
        fs.write(format!("/shared/{shared}"), "0").unwrap();
        repository.kv().put(format!("shared/{shared}"), "0").unwrap();
        fs.write(format!("/shared/one {shared}"), of_one(shared)).unwrap();
        fs.write(format!("/shared/other {shared}"), of_other(shared)).unwrap();
        fs.write(format!("/shared/place {shared}"), of_place(THREADS, 0)).unwrap();
    }
    let to_append = OpenOptions::new().read(true).append(true).create(true);
    let log = Arc::new(fs.open_file_with("/shared/log", to_append).unwrap());
    #[expect(clippy::disallowed_methods, reason = "the full run is as long as a minute")]
    let begin = Instant::now();
    // How many steps each has done.
    let progress: &'static [AtomicU64] = Vec::leak((0..THREADS).map(|_| AtomicU64::new(0)).collect());
    let (done, ended) = channel();
    for id in 0..THREADS {
        let (repository, done, log) = (repository.clone(), done.clone(), log.clone());
        // Not scoped: a scope would wait for those that are stuck.
        std::thread::spawn(move || {
            let mut worker = Worker::new(id, seed, &repository, log);
            while if is_full { begin.elapsed() < Duration::from_secs(60) } else { progress_of(progress, id) < 40 } {
                worker.step();
                progress[usize::try_from(id).unwrap()].fetch_add(1, Ordering::Relaxed);
            }
            let _ = done.send(worker);
        });
    }
    drop(done);
    let mut workers = Vec::new();
    let total = || progress.iter().map(|steps| steps.load(Ordering::Relaxed)).sum::<u64>();
    let mut before = total();
    loop {
        match ended.recv_timeout(STUCK) {
            Ok(worker) => workers.push(worker),
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                let now = total();
                assert!(now > before, "no thread did anything for {STUCK:?}; seed {seed}; steps of each: {progress:?}");
                before = now;
            }
        }
    }
    assert_eq!(workers.len() as u64, THREADS, "the others failed, as they say above; seed {seed}");
    println!("{} operations", total());
    let status = repository.defragment_status().unwrap();
    println!("{status:?}");
    // In a brief run there may not have been enough to move.
    assert!(!is_full || status.moved_bytes > 0, "the defragmenter moved nothing beside them: {status:?}");
    for shared in 0..SHARED {
        let counted: u64 =
            workers.iter().filter(|worker| worker.id % SHARED == shared).map(|worker| worker.counted).sum();
        assert_eq!(fs.read(format!("/shared/{shared}")).unwrap(), counted.to_string().as_bytes());
        assert_eq!(repository.kv().get(format!("shared/{shared}")).unwrap().unwrap(), counted.to_string().as_bytes());
        let contents = ["one", "other"].map(|name| fs.read(format!("/shared/{name} {shared}")).unwrap());
        assert!(is_either_way(&contents, shared), "of the shared names {shared}");
        let place = format!("/shared/place {shared}");
        assert_whole(&fs.read(&place).unwrap(), &place);
    }
    log.sync().unwrap();
    let mut appended = vec![0; usize::try_from(THREADS).unwrap()];
    for record in fs.read("/shared/log").unwrap().chunks(RECORD_BYTES) {
        let count = &mut appended[usize::try_from(number_at(record, 0)).unwrap()];
        assert_eq!(number_at(record, 8), *count, "each thread's records are there once, and in their order");
        *count += 1;
    }
    workers.iter().for_each(|worker| assert_eq!(worker.appended, appended[usize::try_from(worker.id).unwrap()]));
    assert_eq!(
        repository.snapshots().unwrap().len(),
        workers.iter().filter(|worker| worker.snapshot.is_some()).count()
    );
    workers.iter().for_each(Worker::assert_holds);
    repository.check(CheckOptions { data: true }, |finding| panic!("{finding:?}")).unwrap();
    drop((workers, log));
    repository.compact(CompactOptions::default()).unwrap();
    repository.check(CheckOptions { data: true }, |finding| panic!("{finding:?}")).unwrap();
    repository.close().unwrap();
}

fn progress_of(progress: &[AtomicU64], id: u64) -> u64 {
    progress[usize::try_from(id).unwrap()].load(Ordering::Relaxed)
}
