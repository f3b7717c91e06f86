//! Random histories of a file's versions, with crashes, against a map.

use std::collections::BTreeMap;
use std::ops::Range;

use futures_lite::future::block_on;
use proptest::prelude::*;
use strongroom_conformance::crash::CrashOptions;
use strongroom_core::env::Env;
use strongroom_fs::format::{PAST, VERSION};
use strongroom_fs::{Error, FileSystem, FsTransaction, OpenOptions, Options, Version};

use super::super::support::{Bed, assert_sound, noise};
use super::{keeping, kinds_of, numbers, only, rows};

/// What one step of a history does to one of two files, each of which may go by the other's name.
#[derive(Clone, Debug)]
enum Step {
    Write(Vec<Edit>),
    /// Through a handle.
    Handle(Vec<Edit>),
    Restore(u64),
    Limit(Option<u32>),
    Prune,
    Rename,
    Link,
    Remove,
    Reopen,
    Crash(u64),
    /// The machine loses power in the middle of a change.
    CutOff(Vec<Edit>, u64, u64),
    Checkpoint,
}

#[derive(Clone, Debug)]
enum Edit {
    Whole(u64, usize),
    At(u64, u64, usize),
    Append(u64, usize),
    Length(u64),
}

fn edit() -> impl Strategy<Value = Edit> {
    let offset = || prop_oneof![2 => 0..600_u64, 2 => 0..9_000_u64, 1 => 0..60_000_u64];
    let length = || prop_oneof![2 => 0..600_usize, 2 => 0..9_000_usize, 1 => 0..40_000_usize];
    let seed = || 0..4_u64;
    prop_oneof![
        2 => (seed(), length()).prop_map(|(seed, length)| Edit::Whole(seed, length)),
        4 => (offset(), seed(), length()).prop_map(|(offset, seed, length)| Edit::At(offset, seed, length)),
        3 => (seed(), length()).prop_map(|(seed, length)| Edit::Append(seed, length)),
        3 => offset().prop_map(Edit::Length),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let edits = || proptest::collection::vec(edit(), 1..4);
    prop_oneof![
        8 => edits().prop_map(Step::Write),
        8 => edits().prop_map(Step::Handle),
        4 => (0..8_u64).prop_map(Step::Restore),
        2 => proptest::option::of(0..5_u32).prop_map(Step::Limit),
        1 => Just(Step::Prune),
        1 => Just(Step::Rename),
        1 => Just(Step::Link),
        1 => Just(Step::Remove),
        1 => Just(Step::Reopen),
        1 => any::<u64>().prop_map(Step::Crash),
        2 => (edits(), 0..8_u64, any::<u64>()).prop_map(|(edits, calls, seed)| Step::CutOff(edits, calls, seed)),
        1 => Just(Step::Checkpoint),
    ]
}

/// A file as it should be: every content that it had, from a number on, and how many of them are kept.
#[derive(Clone, Debug, PartialEq)]
struct Model {
    contents: BTreeMap<u64, Vec<u8>>,
    limit: Option<u32>,
    names: Vec<&'static str>,
}

const KEPT: u32 = 3;

impl Model {
    fn new(content: Vec<u8>) -> Self {
        Self { contents: BTreeMap::from([(1, content)]), limit: None, names: vec!["f"] }
    }

    fn current(&self) -> &Vec<u8> {
        self.contents.last_key_value().unwrap().1
    }

    fn evict(&mut self) {
        while self.contents.len() > self.limit.unwrap_or(KEPT) as usize + 1 {
            self.contents.pop_first();
        }
    }

    fn push(&mut self, content: Vec<u8>) {
        let number = *self.contents.last_key_value().unwrap().0 + 1;
        self.contents.insert(number, content);
        self.evict();
    }

    /// Edits may come to nothing, and then there may be a version or not: answers whether there certainly is one.
    fn edited(&self, edits: &[Edit]) -> (Vec<u8>, bool) {
        let mut content = self.current().clone();
        for edit in edits {
            match edit {
                Edit::Whole(seed, length) => content = noise(*seed, *length),
                Edit::At(offset, seed, length) if *length > 0 => {
                    let end = *offset as usize + length;
                    content.resize(content.len().max(end), 0);
                    content[*offset as usize..end].copy_from_slice(&noise(*seed, *length));
                }
                Edit::At(..) => {}
                Edit::Append(seed, length) => content.extend_from_slice(&noise(*seed, *length)),
                Edit::Length(size) => content.resize(*size as usize, 0),
            }
        }
        let certain = content != *self.current();
        (content, certain)
    }
}

async fn through(transaction: &mut FsTransaction, path: &str, edits: &[Edit]) -> Result<(), Error> {
    for edit in edits {
        match edit {
            Edit::Whole(seed, length) => transaction.write(path, noise(*seed, *length)).await?,
            Edit::At(offset, seed, length) => transaction.write_at(path, *offset, noise(*seed, *length)).await?,
            Edit::Append(seed, length) => {
                let size = transaction.metadata(path).await?.size;
                transaction.write_at(path, size, noise(*seed, *length)).await?;
            }
            Edit::Length(size) => transaction.set_len(path, *size).await?,
        }
    }
    Ok(())
}

async fn edit_together(fs: &FileSystem, path: &str, edits: &[Edit]) -> Result<(), Error> {
    fs.transact(async |transaction| through(transaction, path, edits).await).await
}

async fn edit_by_handle(fs: &FileSystem, path: &str, edits: &[Edit]) {
    let file = fs.open_file(path, OpenOptions::new().write(true)).await.unwrap();
    for edit in edits {
        match edit {
            Edit::Whole(seed, length) => {
                file.set_len(0).await.unwrap();
                file.write_at(0, &noise(*seed, *length)).await.unwrap();
            }
            Edit::At(offset, seed, length) => file.write_at(*offset, &noise(*seed, *length)).await.unwrap(),
            Edit::Append(seed, length) => {
                file.append(&noise(*seed, *length)).await.unwrap();
            }
            Edit::Length(size) => file.set_len(*size).await.unwrap(),
        }
    }
    file.close().await.unwrap();
}

/// Whether the file is as the model says: every version, and what differs between neighbours.
async fn matches(fs: &FileSystem, model: &Model) -> bool {
    let path = model.names[0];
    let history = fs.history(path).await.unwrap();
    if !history.iter().map(|version| version.number).eq(model.contents.keys().copied()) {
        return false;
    }
    for Version { number, size, .. } in &history {
        let expected = &model.contents[number];
        if *size != expected.len() as u64 || fs.read_version(path, *number).await.unwrap() != *expected {
            return false;
        }
    }
    fs.read(path).await.unwrap() == *model.current()
}

async fn assert_matches(fs: &FileSystem, model: &Model) {
    assert!(matches(fs, model).await, "{:?}", fs.history(model.names[0]).await.unwrap());
    let (first, last) = (*model.contents.first_key_value().unwrap().0, *model.contents.last_key_value().unwrap().0);
    let (one, other) = (&model.contents[&first], &model.contents[&last]);
    let differing = fs.diff_versions(model.names[0], first, last).await.unwrap();
    assert!(differing.windows(2).all(|pair| pair[0].end < pair[1].start), "{differing:?}");
    let (mut at, longest) = (0, one.len().max(other.len()));
    for range in differing.iter().cloned().chain(only(longest as u64..longest as u64)) {
        let (start, end) = (range.start as usize, range.end as usize);
        assert!(
            end <= longest && part(one, at..start) == part(other, at..start),
            "{at}..{start} differs: {differing:?}"
        );
        at = end;
    }
}

fn part(content: &[u8], range: Range<usize>) -> &[u8] {
    &content[range.start.min(content.len())..range.end.min(content.len())]
}

async fn run(seed: u64, options: Options, steps: Vec<Step>) {
    let (mut bed, mut fs) = Bed::with(seed, 4096, options, CrashOptions::default(), Env::deterministic).await;
    fs.write("f", b"").await.unwrap();
    let mut model = Model::new(Vec::new());
    for step in steps {
        let path = model.names[0];
        match step {
            Step::Write(edits) | Step::Handle(edits) if edits.is_empty() => {}
            Step::Write(edits) => {
                edit_together(&fs, path, &edits).await.unwrap();
                settle(&fs, &mut model, &edits).await;
            }
            Step::Handle(edits) => {
                edit_by_handle(&fs, path, &edits).await;
                settle(&fs, &mut model, &edits).await;
            }
            Step::Restore(back) => {
                let last = *model.contents.last_key_value().unwrap().0;
                let number = last.saturating_sub(back);
                let result = fs.restore_version(path, number).await;
                match model.contents.get(&number).cloned() {
                    None => assert_eq!(kinds_of(&result.unwrap_err()), "no such version"),
                    Some(content) => {
                        result.unwrap();
                        // That of a version which is the same in all may be none.
                        if number != last && numbers(&fs, path).await.last() != Some(&last) {
                            model.push(content);
                        } else {
                            assert!(content == *model.current());
                        }
                    }
                }
            }
            Step::Limit(limit) => {
                fs.set_version_limit(path, limit).await.unwrap();
                model.limit = limit;
            }
            Step::Prune => {
                fs.prune_versions(path).await.unwrap();
                model.evict();
            }
            Step::Rename => {
                let other = if path == "f" { "g" } else { "f" };
                if model.names.len() == 1 {
                    fs.rename(path, other).await.unwrap();
                    model.names = vec![other];
                }
            }
            Step::Link => {
                let other = if path == "f" { "g" } else { "f" };
                if model.names.len() == 1 {
                    fs.hard_link(path, other).await.unwrap();
                    model.names.push(other);
                }
            }
            Step::Remove => {
                fs.remove_file(path).await.unwrap();
                model.names.remove(0);
                if model.names.is_empty() {
                    assert_eq!((rows(&fs, VERSION).await, rows(&fs, PAST).await), (0, 0));
                    assert_eq!(fs.engine().info().await.unwrap().chunks, 0);
                    fs.write("f", b"new").await.unwrap();
                    model = Model::new(b"new".to_vec());
                }
            }
            Step::Reopen => {
                fs.engine().close().await.unwrap();
                fs = bed.open().await.unwrap();
            }
            Step::Crash(seed) => {
                bed.storage.crash(seed);
                fs = bed.open().await.unwrap();
            }
            Step::CutOff(edits, calls, seed) => {
                bed.storage.cut_off_after(calls, strongroom_conformance::crash::Fault::LostRequest);
                let result = edit_together(&fs, path, &edits).await;
                bed.storage.crash(seed);
                bed.storage.clear_faults();
                fs = bed.open().await.unwrap();
                let untouched = matches(&fs, &model).await;
                if !untouched {
                    settle(&fs, &mut model, &edits).await;
                } else if result.is_ok() {
                    assert!(!model.edited(&edits).1, "what was answered is lost");
                }
            }
            Step::Checkpoint => fs.engine().checkpoint().await.unwrap(),
        }
        assert_matches(&fs, &model).await;
    }
    assert_sound(&fs).await;
    for name in model.names {
        fs.remove_file(name).await.unwrap();
    }
    assert_eq!(fs.engine().info().await.unwrap().chunks, 0);
    assert_sound(&fs).await;
}

/// The model after edits that were committed: a version more, unless they came to nothing.
async fn settle(fs: &FileSystem, model: &mut Model, edits: &[Edit]) {
    let (content, certain) = model.edited(edits);
    let last = *model.contents.last_key_value().unwrap().0;
    if certain || numbers(fs, model.names[0]).await.last() != Some(&last) {
        model.push(content);
    }
}

fn cases() -> u32 {
    std::env::var("STRONGROOM_CASES")
        .ok()
        .and_then(|cases| cases.parse().ok())
        .unwrap_or_else(|| super::super::medium::cases(256))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 2000, ..ProptestConfig::default() })]

    #[test]
    fn the_versions_of_a_file_equal_the_model(seed: u64, dedup: bool, steps in proptest::collection::vec(step(), 1..40)) {
        block_on(run(seed, Options { dedup, ..keeping(KEPT) }, steps));
    }
}
