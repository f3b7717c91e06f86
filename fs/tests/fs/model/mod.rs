//! Random histories with crashes, against a file system of maps in memory.

mod apply;
mod state;
mod step;

use futures_lite::future::block_on;
use proptest::prelude::*;
use strongroom_conformance::crash::{CrashOptions, Fault};
use strongroom_core::env::Env;
use strongroom_fs::{Error, File, FileSystem, Follow, OpenOptions, Options, XattrMode};

use super::support::{Bed, assert_sound, noise, shown};

pub(crate) use apply::together;
pub(crate) use state::{Model, Shown, kind};
pub(crate) use step::Change;

use apply::{apply_all, count, report};
use state::write_at;
use step::{DIRECTORIES, End, FILES, Step, step};

const BLOCK_BYTES: u32 = 4096;

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
        let seen = shown(fs).await.unwrap();
        self.0.retain(|model| model.seen() == seen);
        assert!(!self.0.is_empty(), "saw what was not expected");
        self.0.truncate(1);
    }
}

/// Writes through two handles in turn, and reads through both before and after the flush.
async fn through_handles(files: [&File; 2], expected: &mut Vec<u8>, writes: &[(u64, u64, usize)], size: Option<u64>) {
    for (turn, (offset, seed, length)) in writes.iter().enumerate() {
        let bytes = noise(*seed, *length);
        files[turn % 2].write_at(*offset, &bytes).await.unwrap();
        write_at(expected, *offset, &bytes);
        assert_content(files[0], expected).await;
        assert_content(files[1], expected).await;
    }
    let [file, other] = files;
    if let Some(size) = size {
        file.set_len(size).await.unwrap();
        expected.resize(size as usize, 0);
        file.append(b"end").await.unwrap();
        expected.extend_from_slice(b"end");
        assert_content(file, expected).await;
    }
    other.flush().await.unwrap();
    assert_content(file, expected).await;
    file.flush().await.unwrap();
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
    // Something to work on.
    let mut begin = Vec::from(DIRECTORIES.map(|path| Change::CreateDir(path.into())));
    begin.extend(FILES.map(|path| Change::Write(path.into(), 1, 3_000)));
    begin.extend(FILES.map(|path| Change::SetXattr(path.into(), 0, 1, 50, XattrMode::Create, Follow::No)));
    let result = fs.transact(async |transaction| apply_all(transaction, &begin).await).await;
    expected.answered(&begin, result);
    for step in steps {
        let mut reopen = false;
        if !matches!(step, Step::Change(_) | Step::Together(_) | Step::Faulty(..) | Step::CutOff(..)) {
            count(&step, true);
        }
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
                        let other = fs.open_file(&path, OpenOptions::new().write(true)).await.unwrap();
                        let number = model.file(&path).unwrap();
                        through_handles([&file, &other], &mut model.inodes[number].content, &writes, size).await;
                    }
                    Err(error) => assert_eq!(model.file(&path).err(), kind(&error), "{error}"),
                }
            }
            Step::Removed(path, writes, end) => {
                if expected.0.len() > 1 {
                    expected.settled(&fs).await;
                }
                match fs.open_file(&path, OpenOptions::new().write(true)).await {
                    Ok(file) => {
                        let number = expected.0[0].file(&path).unwrap();
                        let changes = [Change::RemoveFile(path)];
                        let result = together(&fs, &changes).await;
                        expected.answered(&changes, result);
                        let content = &mut expected.0[0].inodes[number].content;
                        through_handles([&file, &file], content, &writes, None).await;
                        assert_sound(&fs).await;
                        match end {
                            End::Close => file.close().await.unwrap(),
                            End::Drop => drop(file),
                            End::Crash(seed) => {
                                bed.storage.crash(seed);
                                reopen = true;
                            }
                        }
                    }
                    Err(error) => assert_eq!(expected.0[0].file(&path).err(), kind(&error), "{error}"),
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
    report();
}

fn cases() -> u32 {
    std::env::var("STRONGROOM_CASES")
        .ok()
        .and_then(|cases| cases.parse().ok())
        .unwrap_or_else(|| super::medium::cases(256))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 2000, ..ProptestConfig::default() })]

    #[test]
    fn a_history_with_crashes_on_files_equals_the_model(seed: u64, steps in proptest::collection::vec(step(), 1..50)) {
        block_on(run(seed, CrashOptions::default(), Options::default(), steps));
    }

    #[test]
    fn a_history_with_crashes_on_an_object_store_equals_the_model(seed: u64, steps in proptest::collection::vec(step(), 1..50)) {
        let options = Options { dedup: false, versions: 2, ..Options::default() };
        block_on(run(seed, CrashOptions::object_store(), options, steps));
    }
}
