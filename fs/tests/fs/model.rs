//! Random histories with crashes, against a file system of maps in memory.

use std::collections::BTreeMap;

use futures_lite::future::block_on;
use proptest::prelude::*;
use strongroom_conformance::crash::{CrashOptions, Fault};
use strongroom_core::env::Env;
use strongroom_core::storage::ErrorKind;
use strongroom_fs::{Error, File, FileSystem, FsTransaction, OpenOptions, Options};

use crate::support::{Bed, Seen, assert_sound, noise, tree};

const BLOCK_BYTES: u32 = 4096;

/// One operation. Paths are few, so that they meet.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Write(String, u64, usize),
    WriteAt(String, u64, u64, usize),
    SetLen(String, u64),
    CreateDir(String),
    RemoveFile(String),
    RemoveDir(String),
    RemoveAll(String),
    Rename(String, String),
    Symlink(String, String),
    HardLink(String, String),
}

#[derive(Clone, Debug)]
enum Step {
    Change(Change),
    /// Several, all or nothing.
    Together(Vec<Change>),
    /// Through an open file, with a flush at the end.
    Handle(String, Vec<(u64, u64, usize)>, Option<u64>),
    Faulty(Change, u64, Fault),
    /// Everything fails from the n-th call on, then the machine loses power.
    CutOff(Vec<Change>, u64, u64),
    Checkpoint,
    Close,
    Kill,
    Crash(u64),
}

/// A file or link by number, so that names can share one.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    File(usize),
    Directory,
    Symlink(usize, String),
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    nodes: BTreeMap<String, Node>,
    files: Vec<Vec<u8>>,
}

fn path() -> impl Strategy<Value = String> {
    let name = || prop_oneof![Just("a"), Just("b"), Just("c")];
    prop_oneof![
        3 => name().prop_map(|name| format!("/{name}")),
        3 => (name(), name()).prop_map(|(one, two)| format!("/{one}/{two}")),
        1 => (name(), name(), name()).prop_map(|(one, two, three)| format!("/{one}/{two}/{three}")),
    ]
}

fn length() -> impl Strategy<Value = usize> {
    prop_oneof![3 => 0..600_usize, 2 => 0..9_000_usize, 1 => 0..70_000_usize]
}

fn offset() -> impl Strategy<Value = u64> {
    prop_oneof![3 => 0..600_u64, 2 => 0..9_000_u64, 1 => 0..100_000_u64]
}

/// Few seeds, so that content repeats.
fn seed() -> impl Strategy<Value = u64> {
    0..3_u64
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        5 => (path(), seed(), length()).prop_map(|(path, seed, length)| Change::Write(path, seed, length)),
        4 => (path(), offset(), seed(), length()).prop_map(|(p, offset, seed, length)| Change::WriteAt(p, offset, seed, length)),
        2 => (path(), offset()).prop_map(|(path, size)| Change::SetLen(path, size)),
        4 => path().prop_map(Change::CreateDir),
        2 => path().prop_map(Change::RemoveFile),
        2 => path().prop_map(Change::RemoveDir),
        1 => path().prop_map(Change::RemoveAll),
        4 => (path(), path()).prop_map(|(from, to)| Change::Rename(from, to)),
        1 => (path(), path()).prop_map(|(target, link)| Change::Symlink(target, link)),
        2 => (path(), path()).prop_map(|(existing, link)| Change::HardLink(existing, link)),
    ]
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        Just(Fault::Refused(ErrorKind::Full)),
        Just(Fault::Refused(ErrorKind::Unavailable)),
        Just(Fault::LostRequest),
        Just(Fault::LostReply),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let writes = || proptest::collection::vec((offset(), seed(), length()), 1..5);
    prop_oneof![
        12 => change().prop_map(Step::Change),
        3 => proptest::collection::vec(change(), 1..5).prop_map(Step::Together),
        4 => (path(), writes(), proptest::option::of(offset())).prop_map(|(path, writes, size)| Step::Handle(path, writes, size)),
        2 => (change(), 1..10_u64, fault()).prop_map(|(change, call, fault)| Step::Faulty(change, call, fault)),
        2 => (proptest::collection::vec(change(), 1..4), 0..8_u64, any::<u64>())
            .prop_map(|(changes, calls, seed)| Step::CutOff(changes, calls, seed)),
        1 => Just(Step::Checkpoint),
        1 => Just(Step::Close),
        1 => Just(Step::Kill),
        1 => any::<u64>().prop_map(Step::Crash),
    ]
}

fn parent(path: &str) -> &str {
    &path[..path.rfind('/').unwrap()]
}

/// Refusals by name alone.
pub(crate) type Refused = &'static str;

pub(crate) fn kind(error: &Error) -> Option<Refused> {
    Some(match error {
        Error::NotFound { .. } => "not found",
        Error::AlreadyExists { .. } => "already exists",
        Error::NotADirectory { .. } => "not a directory",
        Error::IsADirectory { .. } => "is a directory",
        Error::NotEmpty { .. } => "not empty",
        Error::IntoItself { .. } => "into itself",
        Error::SymlinkLoop { .. } => "loop",
        _ => return None,
    })
}

impl Model {
    /// Where a path leads: the place of its last name, links on the way followed, and at the end where asked.
    fn resolve(&self, path: &str, follow: bool) -> Result<String, Refused> {
        let mut todo: Vec<String> = path[1..].rsplit('/').map(String::from).collect();
        let (mut at, mut links) = (String::new(), 0);
        while let Some(name) = todo.pop() {
            let next = format!("{at}/{name}");
            match self.nodes.get(&next) {
                Some(Node::Symlink(_, target)) if follow || !todo.is_empty() => {
                    links += 1;
                    if links > 40 {
                        return Err("loop");
                    }
                    at.clear();
                    todo.extend(target[1..].rsplit('/').map(String::from));
                }
                _ if todo.is_empty() => return Ok(next),
                None => return Err("not found"),
                Some(Node::Directory) => at = next,
                Some(_) => return Err("not a directory"),
            }
        }
        unreachable!("targets are never the root")
    }

    fn file(&self, path: &str) -> Result<usize, Refused> {
        match self.nodes.get(&self.resolve(path, true)?) {
            Some(Node::File(file)) => Ok(*file),
            Some(Node::Directory) => Err("is a directory"),
            _ => Err("not found"),
        }
    }

    fn inside<'m>(&'m self, path: &str) -> impl Iterator<Item = String> + use<'m> {
        let prefix = format!("{path}/");
        self.nodes.keys().filter(move |other| other.starts_with(&prefix)).cloned()
    }

    fn free(&self, path: &str) -> Result<String, Refused> {
        let place = self.resolve(path, false)?;
        if self.nodes.contains_key(&place) { Err("already exists") } else { Ok(place) }
    }

    fn apply(&mut self, change: &Change) -> Result<(), Refused> {
        match change {
            Change::Write(path, seed, length) => {
                let place = self.resolve(path, true)?;
                let file = match self.nodes.get(&place) {
                    Some(Node::File(file)) => *file,
                    Some(_) => return Err("is a directory"),
                    None => {
                        self.files.push(Vec::new());
                        self.nodes.insert(place, Node::File(self.files.len() - 1));
                        self.files.len() - 1
                    }
                };
                self.files[file] = noise(*seed, *length);
            }
            Change::WriteAt(path, offset, seed, length) => {
                let file = self.file(path)?;
                write_at(&mut self.files[file], *offset, &noise(*seed, *length));
            }
            Change::SetLen(path, size) => {
                let file = self.file(path)?;
                self.files[file].resize(*size as usize, 0);
            }
            Change::CreateDir(path) => {
                let place = self.free(path)?;
                self.nodes.insert(place, Node::Directory);
            }
            Change::Symlink(target, link) => {
                let place = self.free(link)?;
                self.files.push(Vec::new());
                self.nodes.insert(place, Node::Symlink(self.files.len() - 1, target.clone()));
            }
            Change::HardLink(existing, link) => {
                let node = self.nodes.get(&self.resolve(existing, false)?).ok_or("not found")?.clone();
                if node == Node::Directory {
                    return Err("is a directory");
                }
                let place = self.free(link)?;
                self.nodes.insert(place, node);
            }
            Change::RemoveFile(path) => {
                let place = self.resolve(path, false)?;
                if *self.nodes.get(&place).ok_or("not found")? == Node::Directory {
                    return Err("is a directory");
                }
                self.nodes.remove(&place);
            }
            Change::RemoveDir(path) => {
                let place = self.resolve(path, false)?;
                if *self.nodes.get(&place).ok_or("not found")? != Node::Directory {
                    return Err("not a directory");
                }
                if self.inside(&place).next().is_some() {
                    return Err("not empty");
                }
                self.nodes.remove(&place);
            }
            Change::RemoveAll(path) => {
                let place = self.resolve(path, false)?;
                self.nodes.remove(&place).ok_or("not found")?;
                for inside in self.inside(&place).collect::<Vec<_>>() {
                    self.nodes.remove(&inside);
                }
            }
            Change::Rename(from, to) => return self.rename(from, to),
        }
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<(), Refused> {
        let from = self.resolve(from, false)?;
        let moved = self.nodes.get(&from).ok_or("not found")?.clone();
        let to = self.resolve(to, false)?;
        let directory = moved == Node::Directory;
        if directory && (parent(&to) == from || parent(&to).starts_with(&format!("{from}/"))) {
            return Err("into itself");
        }
        if let Some(replaced) = self.nodes.get(&to) {
            if from == to || (!directory && *replaced == moved) {
                return Ok(());
            }
            match (directory, *replaced == Node::Directory) {
                (true, false) => return Err("not a directory"),
                (false, true) => return Err("is a directory"),
                (true, true) if self.inside(&to).next().is_some() => return Err("not empty"),
                _ => {}
            }
        }
        let inside: Vec<String> = self.inside(&from).collect();
        self.nodes.remove(&from);
        self.nodes.insert(to.clone(), moved);
        for old in inside {
            let node = self.nodes.remove(&old).unwrap();
            self.nodes.insert(format!("{to}{}", &old[from.len()..]), node);
        }
        Ok(())
    }

    fn together(&mut self, changes: &[Change]) -> Result<(), Refused> {
        let mut next = self.clone();
        for change in changes {
            next.apply(change)?;
        }
        *self = next;
        Ok(())
    }

    pub(crate) fn seen(&self) -> BTreeMap<String, Seen> {
        let seen = |node: &Node| match node {
            Node::File(file) => Seen::File(self.files[*file].clone()),
            Node::Directory => Seen::Directory,
            Node::Symlink(_, target) => Seen::Symlink(target.clone().into_bytes()),
        };
        self.nodes.iter().map(|(path, node)| (path.clone(), seen(node))).collect()
    }
}

fn write_at(content: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    let end = offset as usize + bytes.len();
    content.resize(content.len().max(end), 0);
    content[offset as usize..end].copy_from_slice(bytes);
}

async fn apply(transaction: &mut FsTransaction, change: &Change) -> Result<(), Error> {
    match change {
        Change::Write(path, seed, length) => transaction.write(path, noise(*seed, *length)).await,
        Change::WriteAt(path, offset, seed, length) => transaction.write_at(path, *offset, noise(*seed, *length)).await,
        Change::SetLen(path, size) => transaction.set_len(path, *size).await,
        Change::CreateDir(path) => transaction.create_dir(path).await,
        Change::RemoveFile(path) => transaction.remove_file(path).await,
        Change::RemoveDir(path) => transaction.remove_dir(path).await,
        Change::RemoveAll(path) => transaction.remove_all(path).await,
        Change::Rename(from, to) => transaction.rename(from, to).await,
        Change::Symlink(target, link) => transaction.symlink(target, link).await,
        Change::HardLink(existing, link) => transaction.hard_link(existing, link).await,
    }
}

pub(crate) async fn together(fs: &FileSystem, changes: &[Change]) -> Result<(), Error> {
    fs.transact(async |transaction| {
        for change in changes {
            apply(transaction, change).await?;
        }
        Ok(())
    })
    .await
}

/// The states that may be: one, unless a commit's fate is open.
pub(crate) struct Expected(pub(crate) Vec<Model>);

impl Expected {
    pub(crate) fn maybe(&mut self, changes: &[Change]) {
        let mut more = self.0.clone();
        more.retain_mut(|model| model.together(changes).is_ok());
        self.0.extend(more);
    }

    /// What was answered must be what some state answers. A commit leaves only those that allow it. A refusal leaves all:
    /// it committed nothing, so it was told by the state that this process knows, and what is in the air may yet come.
    pub(crate) fn answered(&mut self, changes: &[Change], result: Result<(), Error>) {
        let result = result.map_err(|error| kind(&error).unwrap_or_else(|| panic!("{changes:?} fails: {error}")));
        let before: Vec<_> = self.0.iter().map(Model::seen).collect();
        let mut after = self.0.clone();
        after.retain_mut(|model| model.together(changes) == result);
        assert!(!after.is_empty(), "{changes:?} answers {result:?} in {before:?}");
        if result.is_ok() {
            self.0 = after;
        }
    }

    /// What is in the air is settled by the next commit.
    pub(crate) async fn settled(&mut self, fs: &FileSystem) {
        for change in [Change::CreateDir("/settled".into()), Change::RemoveDir("/settled".into())] {
            let result = together(fs, std::slice::from_ref(&change)).await;
            self.answered(&[change], result);
        }
        self.observed(fs).await;
    }

    pub(crate) async fn observed(&mut self, fs: &FileSystem) {
        let seen = tree(fs).await;
        self.0.retain(|model| model.seen() == seen);
        assert!(!self.0.is_empty(), "saw what was not expected");
        self.0.truncate(1);
    }
}

/// Writes through a handle, reads through it before and after the flush.
async fn through_a_handle(file: &File, expected: &mut Vec<u8>, writes: &[(u64, u64, usize)], size: Option<u64>) {
    for (offset, seed, length) in writes {
        let bytes = noise(*seed, *length);
        file.write_at(*offset, &bytes).await.unwrap();
        write_at(expected, *offset, &bytes);
        assert_content(file, expected).await;
    }
    if let Some(size) = size {
        file.set_len(size).await.unwrap();
        expected.resize(size as usize, 0);
        file.append(b"end").await.unwrap();
        expected.extend_from_slice(b"end");
        assert_content(file, expected).await;
    }
    file.flush().await.unwrap();
    assert_content(file, expected).await;
}

async fn assert_content(file: &File, expected: &[u8]) {
    let mut out = vec![0; expected.len() + 100];
    assert_eq!(file.read_at(0, &mut out).await.unwrap(), expected.len());
    assert!(out[..expected.len()] == *expected);
    let middle = expected.len() / 2;
    let read = file.read_at(middle as u64, &mut out[..100]).await.unwrap();
    assert!(out[..read] == expected[middle..(middle + 100).min(expected.len())]);
}

async fn run(seed: u64, crash: CrashOptions, options: Options, steps: Vec<Step>) {
    let (mut bed, mut fs) = Bed::with(seed, BLOCK_BYTES, options, crash, Env::deterministic).await;
    let mut expected = Expected(vec![Model::default()]);
    for step in steps {
        let mut reopen = false;
        match step {
            Step::Change(change) => {
                let changes = [change];
                let result = together(&fs, &changes).await;
                expected.answered(&changes, result);
            }
            Step::Together(changes) => {
                let result = together(&fs, &changes).await;
                expected.answered(&changes, result);
            }
            Step::Handle(path, writes, size) => {
                if expected.0.len() > 1 {
                    expected.settled(&fs).await;
                }
                let model = &mut expected.0[0];
                match fs.open_file(&path, OpenOptions::new().write(true)).await {
                    Ok(file) => {
                        let number = model.file(&path).unwrap();
                        through_a_handle(&file, &mut model.files[number], &writes, size).await;
                    }
                    Err(error) => assert_eq!(model.file(&path).err(), kind(&error), "{error}"),
                }
            }
            Step::Faulty(change, call, fault) => {
                bed.storage.fail_call(call, fault);
                let changes = [change];
                match together(&fs, &changes).await {
                    Err(Error::Core(strongroom_core::Error::Damaged(damage))) => panic!("a fault looks like {damage}"),
                    Err(error) if kind(&error).is_none() => expected.maybe(&changes),
                    result => expected.answered(&changes, result),
                }
                bed.storage.clear_faults();
            }
            Step::CutOff(changes, calls, seed) => {
                bed.storage.cut_off_after(calls, Fault::LostRequest);
                match together(&fs, &changes).await {
                    Err(error) if kind(&error).is_none() => expected.maybe(&changes),
                    result => expected.answered(&changes, result),
                }
                bed.storage.crash(seed);
                reopen = true;
            }
            Step::Checkpoint => fs.engine().checkpoint().await.unwrap(),
            Step::Close => {
                fs.engine().close().await.unwrap();
                reopen = true;
            }
            Step::Kill => {
                bed.storage.process_kill();
                reopen = true;
            }
            Step::Crash(seed) => {
                bed.storage.crash(seed);
                reopen = true;
            }
        }
        if reopen {
            bed.storage.clear_faults();
            fs = bed.open().await.unwrap();
            expected.observed(&fs).await;
            assert_sound(&fs).await;
        }
    }
    expected.settled(&fs).await;
    fs.engine().close().await.unwrap();
    let fs = bed.open().await.unwrap();
    expected.observed(&fs).await;
    assert_sound(&fs).await;
}

fn cases() -> u32 {
    std::env::var("STRONGROOM_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(256)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 2000, ..ProptestConfig::default() })]

    #[test]
    fn a_history_with_crashes_on_files_equals_the_model(seed: u64, steps in proptest::collection::vec(step(), 1..50)) {
        block_on(run(seed, CrashOptions::default(), Options::default(), steps));
    }

    #[test]
    fn a_history_with_crashes_on_an_object_store_equals_the_model(seed: u64, steps in proptest::collection::vec(step(), 1..50)) {
        let options = Options { dedup: false, ..Options::default() };
        block_on(run(seed, CrashOptions::object_store(), options, steps));
    }

    #[test]
    fn a_history_with_crashes_equals_the_model_where_versions_are_kept(seed: u64, steps in proptest::collection::vec(step(), 1..50)) {
        block_on(run(seed, CrashOptions::default(), Options { versions: 2, ..Options::default() }, steps));
    }
}
