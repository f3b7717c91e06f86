//! Runs a history on the repository and on the model, and compares.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use strongroom::fs::{
    DirCursor, Fate, FileSystem, Follow, FsSnapshot, Kind as FsKind, Op, OpenOptions, Settings, Usage, XattrMode,
};
use strongroom::{CompactOptions, Error, Repository};
use strongroom_conformance::crash::Fault;

use crate::bed::{Bed, Memory, Profile};
use crate::choose::{self, Dice};
use crate::compare::{self, Difference, assert_sound, same};
use crate::handles::Handles;
use crate::kinds::{Kind, Step};
use crate::report::Report;
use crate::world::{Answer, Inode, Kind as ModelKind, Touched, World, refusal};

/// What a step answers, unless repository and model differ.
type Outcome = Result<Answer, Difference>;

const HANDLES_MAX: usize = 6;
const SNAPSHOT_NAMES: [&str; 5] = ["one", "two", "three", "four", "five"];
/// What has nothing to work on is refused, too.
const NOTHING_THERE: Answer = Err("nothing there");

pub(crate) struct Run {
    bed: Bed,
    repository: Repository,
    pub(crate) world: World,
    handles: Handles,
    snapshots: Vec<(String, World)>,
    held: Option<(FsSnapshot, World)>,
}

pub(crate) async fn run(seed: u64, profile: Profile, steps: Vec<Step>, report: &Report) {
    let is_traced = std::env::var_os("STRONGROOM_TRACE").is_some();
    let (bed, repository) = Bed::create(seed, profile).await;
    let world = World::new(profile.versions());
    let mut run = Run { bed, repository, world, handles: Handles::default(), snapshots: Vec::new(), held: None };
    run.begin().await;
    for (index, step) in steps.iter().enumerate() {
        if is_traced {
            println!("{index}: {step:?}");
        }
        let outcome = match run.step(*step).await {
            Ok(answer) => run.compare(step.kind).await.map(|()| answer),
            different => different,
        };
        match outcome {
            Ok(answer) => report.count(step.kind, answer.is_ok()),
            Err(difference) => panic!("after step {index}, {:?}: {difference}", step.kind),
        }
    }
    run.end().await;
}

/// What was answered, where it is an answer and not a failure.
fn answer<T>(result: Result<T, Error>) -> Answer<T> {
    result.map_err(|error| refusal(&error).unwrap_or_else(|| panic!("fails: {error}")))
}

impl Run {
    fn fs(&self) -> &FileSystem {
        self.repository.fs()
    }

    /// Something to work on.
    async fn begin(&mut self) {
        let mut dice = Dice::new([9, 700, 30_001, 5, 12_345, 2]);
        let mut ops = Vec::new();
        for path in ["/a", "/a/b", "/c", "/d"] {
            ops.push(Op::CreateDir { path: path.into() });
        }
        for path in ["/b", "/a/a", "/a/b/a", "/c/b", "/e"] {
            ops.push(Op::Write { path: path.into(), content: dice.bytes() });
            let (name, value, mode) = ("user.0".into(), dice.bytes(), XattrMode::Create);
            ops.push(Op::SetXattr { path: path.into(), name, value, mode, follow: Follow::No });
        }
        ops.push(Op::Symlink { target: "/a/a".into(), link: "/f".into() });
        ops.push(Op::Symlink { target: "/a/b".into(), link: "/c/c".into() });
        let ops: Vec<_> = ops.into_iter().map(strongroom::Op::File).collect();
        answer(self.repository.apply(&ops).await).unwrap();
        self.world.together(&ops).unwrap();
        self.committed();
    }

    async fn end(mut self) {
        assert_sound(&self.repository, false).await;
        self.handles.clear();
        self.held = None;
        self.repository.close().await.unwrap();
        self.repository = self.bed.open(Memory::Warm).await;
        if let Err(difference) = self.compare(Kind::Reopen).await {
            panic!("at the end: {difference}");
        }
        assert_sound(&self.repository, true).await;
    }

    /// The model took a change that is committed.
    fn committed(&mut self) {
        let touched = self.world.settle();
        self.handles.contest(&touched);
        self.world.collect(|inode| self.handles.has(inode));
    }

    async fn compare(&mut self, kind: Kind) -> Result<(), Difference> {
        self.world.collect(|inode| self.handles.has(inode));
        if kind.looks_only() {
            return Ok(());
        }
        compare::all(&self.repository, &mut self.world, &self.snapshots).await?;
        self.handles.compare(&self.world).await
    }

    async fn step(&mut self, step: Step) -> Outcome {
        let dice = &mut Dice::new(step.dice);
        match step.kind {
            Kind::Read
            | Kind::Metadata
            | Kind::SymlinkMetadata
            | Kind::ReadLink
            | Kind::ReadDir
            | Kind::ListAfterCursor
            | Kind::Usage
            | Kind::Summary
            | Kind::GetXattr
            | Kind::ListXattrs
            | Kind::GetKey
            | Kind::ScanKeys
            | Kind::History
            | Kind::ReadVersion
            | Kind::DiffVersions
            | Kind::ListSnapshots => self.look(step.kind, dice).await,
            Kind::HoldState => {
                self.held = Some((self.fs().snapshot(), self.world.clone()));
                Ok(Ok(()))
            }
            Kind::ReadHeldState => {
                let (state, world) =
                    self.held.get_or_insert_with(|| (self.repository.fs().snapshot(), self.world.clone()));
                compare::files(state, world).await.map(Ok)
            }
            Kind::StreamDirUnderChange => self.stream_dir(dice).await,
            Kind::OpenToWrite
            | Kind::OpenToRead
            | Kind::OpenCreate
            | Kind::OpenCreateNew
            | Kind::OpenTruncate
            | Kind::OpenAppend
            | Kind::OpenWithSettings => self.open(step.kind, dice).await,
            Kind::HandleWrite
            | Kind::HandleAppend
            | Kind::HandleSetLen
            | Kind::HandleRead
            | Kind::HandleSeekData
            | Kind::HandleSeekHole
            | Kind::HandleMetadata
            | Kind::HandleFlush
            | Kind::HandleSync
            | Kind::HandleClose
            | Kind::HandleDrop => {
                if self.handles.open.is_empty() && self.open(Kind::OpenCreate, dice).await?.is_err() {
                    return Ok(NOTHING_THERE);
                }
                let handle = dice.below(self.handles.open.len() as u64) as usize;
                self.by_handle(step.kind, dice, handle).await
            }
            Kind::RemoveWhileOpen | Kind::RenameOverWhileOpen => {
                if self.handles.open.is_empty() {
                    self.open(Kind::OpenToWrite, dice).await?.ok();
                }
                let Some(path) = self.open_path(dice).map(String::into_bytes) else { return Ok(NOTHING_THERE) };
                let op = if step.kind == Kind::RemoveWhileOpen {
                    Op::RemoveFile { path }
                } else {
                    Op::Rename { from: choose::file(dice, &self.world).into(), to: path, replace: true }
                };
                self.change(op).await
            }
            Kind::Transaction | Kind::TransactionDropped | Kind::TransactionRefused => {
                self.transaction(step.kind, dice).await
            }
            Kind::TransactionConflict => self.conflict(dice).await,
            Kind::Batch | Kind::BatchRefused => self.batch(step.kind, dice).await,
            Kind::KeysAndFiles => self.keys_and_files(dice).await,
            Kind::LimitVersions => {
                let path = choose::file(dice, &self.world);
                let limit = [None, Some(0), Some(1), Some(2), Some(4)][dice.below(5) as usize];
                let found = answer(self.fs().set_version_limit(&path, limit).await);
                let expected = self.world.file(&path).map(|number| {
                    self.world.inodes.get_mut(&number).unwrap().settings.versions = limit;
                });
                same!(found, expected, "limit of {path}");
                Ok(found)
            }
            Kind::PruneVersions => {
                let path = choose::file(dice, &self.world);
                let found = answer(self.fs().prune_versions(&path).await);
                same!(found, self.world.prune(&path), "pruning {path}");
                Ok(found)
            }
            Kind::CreateSnapshot
            | Kind::ReadSnapshot
            | Kind::DiffSnapshot
            | Kind::RestorePath
            | Kind::RestoreSnapshot
            | Kind::RemoveSnapshot => self.snapshot(step.kind, dice).await,
            Kind::Checkpoint
            | Kind::Compact
            | Kind::CompactThorough
            | Kind::CompactCutShort
            | Kind::Check
            | Kind::Reopen
            | Kind::DropCaches
            | Kind::Kill
            | Kind::PowerCut
            | Kind::PowerCutWithin
            | Kind::ReadBeside
            | Kind::WriteBeside => self.upkeep(step.kind, dice).await,
            Kind::PutKey => {
                let (key, value) = (choose::key(dice), dice.bytes());
                self.repository.kv().put(&key, &value).await.unwrap();
                self.world.apply(&strongroom::Op::Put { key, value }).unwrap();
                Ok(Ok(()))
            }
            Kind::DeleteKey => {
                let key = choose::key(dice);
                let was_there = self.repository.kv().delete(&key).await.unwrap();
                same!(was_there, self.world.keys.remove(&key).is_some(), "deleting a key");
                Ok(Ok(()))
            }
            kind => match choose::change(kind, dice, &self.world) {
                strongroom::Op::File(op) => self.change(op).await,
                other => unreachable!("{other:?}"),
            },
        }
    }

    /// One change by a path, by the method that it has.
    async fn change(&mut self, op: Op) -> Outcome {
        let found = answer(by_path(self.fs(), &op).await);
        let op = strongroom::Op::File(op);
        let expected = self.world.together(std::slice::from_ref(&op));
        if found != expected {
            return Err(format!("{op:?} answers {found:?}, in the model {expected:?}"));
        }
        self.committed();
        Ok(found)
    }

    async fn look(&mut self, kind: Kind, dice: &mut Dice) -> Outcome {
        let (fs, world) = (self.repository.fs(), &self.world);
        Ok(match kind {
            Kind::Read => {
                let path = choose::file(dice, world);
                let found = answer(fs.read(&path).await);
                let expected = world.file(&path).map(|number| world.inodes[&number].content().to_vec());
                same_content(&found, &expected, &path)?;
                found.map(|_| ())
            }
            Kind::Metadata | Kind::SymlinkMetadata => {
                let path = choose::there(dice, world);
                let follow = kind == Kind::Metadata;
                let found = answer(if follow { fs.metadata(&path).await } else { fs.symlink_metadata(&path).await });
                let expected = world.inode(&path, follow).map(seen);
                same!(found.map(|found| (found.kind, found.mode)), expected, "metadata of {path}");
                if follow {
                    let exists = match expected {
                        Err("not found") => Ok(false),
                        expected => expected.map(|_| true),
                    };
                    same!(answer(fs.exists(&path).await), exists, "whether {path} exists");
                }
                found.map(|_| ())
            }
            Kind::ReadLink => {
                let path = choose::symlink(dice, world);
                let found = answer(fs.read_link(&path).await);
                let expected = world.inode(&path, false).and_then(|inode| match &inode.kind {
                    ModelKind::Symlink(target) => Ok(target.clone().into_bytes()),
                    _ => Err("not a link"),
                });
                same!(found, expected, "link {path}");
                found.map(|_| ())
            }
            Kind::ReadDir => {
                let path = choose::directory(dice, world);
                let found = answer(fs.read_dir(&path).await).map(|entries| {
                    entries.into_iter().map(|entry| String::from_utf8(entry.name).unwrap()).collect::<Vec<_>>()
                });
                let expected = world.directory(&path).map(|place| world.listed(&place));
                same!(found, expected, "names in {path}");
                found.map(|_| ())
            }
            Kind::ListAfterCursor => {
                let path = choose::directory(dice, world);
                let after = ["a", "b", "bb", "d"][dice.below(4) as usize];
                let found = match answer(fs.snapshot().open_dir_at(&path, &DirCursor::after(after)).await) {
                    Ok(listing) => {
                        let entries = listing.collect().await.unwrap().into_iter();
                        Ok(entries.map(|entry| String::from_utf8(entry.name).unwrap()).collect::<Vec<_>>())
                    }
                    Err(refused) => Err(refused),
                };
                let expected = world.directory(&path).map(|place| world.listed(&place)).map(|mut names| {
                    names.retain(|name| name.as_str() > after);
                    names
                });
                same!(found, expected, "names in {path} after {after}");
                found.map(|_| ())
            }
            Kind::Usage => {
                let path = if dice.chance(4) { "/".to_owned() } else { choose::there(dice, world) };
                let found = answer(fs.usage(&path).await).map(|usage| Usage { data_bytes: 0, ..usage });
                same!(found, world.resolve(&path, false).and_then(|place| usage(world, &place)), "usage of {path}");
                found.map(|_| ())
            }
            Kind::Summary => {
                let summary = fs.summary().await.unwrap();
                let found = Usage { data_bytes: 0, ..summary.usage };
                same!(Ok(found), usage(world, ""), "summary");
                let stored = summary.blobs * u64::from(summary.block_bytes);
                same!(summary.stored_bytes, stored, "bytes stored");
                let content = fs.content_bytes().await.unwrap();
                if summary.usage.logical_bytes > content.file_bytes {
                    return Err(format!("{summary:?} does not go with {content:?}"));
                }
                Ok(())
            }
            Kind::GetXattr => {
                let (path, name) = choose::attribute(dice, world);
                let found = answer(fs.xattr(&path, &name, Follow::No).await);
                let expected =
                    world.inode(&path, false).map(|inode| inode.xattrs.get(&name).map(|value| value.to_vec()));
                if found != expected {
                    return Err(format!("attribute {name:?} of {path} differs"));
                }
                found.map(|_| ())
            }
            Kind::ListXattrs => {
                let path = choose::there(dice, world);
                let found = answer(fs.xattrs(&path, Follow::Yes).await);
                let expected = world.inode(&path, true).map(|inode| inode.xattrs.keys().cloned().collect::<Vec<_>>());
                same!(found, expected, "attributes of {path}");
                found.map(|_| ())
            }
            Kind::GetKey => {
                let key = choose::key(dice);
                let found = self.repository.kv().get(&key).await.unwrap();
                if found.as_deref() != world.keys.get(&key).map(|value| value.as_slice()) {
                    return Err(format!("value of {key:?} differs"));
                }
                Ok(())
            }
            Kind::ScanKeys => {
                let (one, other) = (choose::key(dice), choose::key(dice));
                let (low, high) = (one.clone().min(other.clone()), one.max(other));
                let kv = self.repository.kv();
                let is_reverse = dice.chance(2);
                let range = (Bound::Included(low.as_slice()), Bound::Excluded(high.as_slice()));
                let mut scan = if is_reverse { kv.scan_reverse(range) } else { kv.scan(range) };
                let mut found = Vec::new();
                while let Some((key, _)) = scan.next().await.unwrap() {
                    found.push(key.to_vec());
                }
                let mut expected: Vec<_> = world.keys.range(low..high).map(|(key, _)| key.clone()).collect();
                if is_reverse {
                    expected.reverse();
                }
                same!(found, expected, "a scan");
                Ok(())
            }
            Kind::History => {
                let path = choose::file(dice, world);
                let found = answer(fs.history(&path).await).map(|versions| {
                    let seen = versions.iter().map(|version| (version.number, version.size, version.current));
                    seen.collect::<Vec<_>>()
                });
                let expected = world.file(&path).map(|number| {
                    let inode = &world.inodes[&number];
                    let versions = inode.versions.iter();
                    let seen = versions.map(|(n, content)| (*n, content.len() as u64, *n == inode.current()));
                    seen.collect::<Vec<_>>()
                });
                same!(found, expected, "history of {path}");
                found.map(|_| ())
            }
            Kind::ReadVersion => {
                let path = choose::file(dice, world);
                let number = choose::version(dice, world, &path);
                let expected = version(world, &path, number);
                let found = match answer(fs.open_version(&path, number).await) {
                    Ok(file) => {
                        let length = file.len().await.unwrap() as usize;
                        let offset = dice.offset(length);
                        let mut bytes = vec![0; dice.length()];
                        let read = file.read_at(offset, &mut bytes).await.unwrap();
                        let content = expected.clone().unwrap_or_default();
                        let rest = content.get(offset as usize..).unwrap_or_default();
                        compare::content(&bytes[..read], &rest[..rest.len().min(bytes.len())], "a part of a version")?;
                        answer(fs.read_version(&path, number).await)
                    }
                    Err(refused) => Err(refused),
                };
                same_content(&found, &expected, &path)?;
                found.map(|_| ())
            }
            Kind::DiffVersions => {
                let path = choose::file(dice, world);
                let (from, to) = (choose::version(dice, world, &path), choose::version(dice, world, &path));
                let found = answer(fs.diff_versions(&path, from, to).await);
                match (&found, version(world, &path, from), version(world, &path, to)) {
                    (Ok(ranges), Ok(one), Ok(other)) => equal_outside(ranges, &one, &other)?,
                    (Err(found), Err(expected), _) | (Err(found), Ok(_), Err(expected)) => {
                        same!(*found, expected, "diff")
                    }
                    _ => return Err(format!("diff of {path} answers {found:?}")),
                }
                found.map(|_| ())
            }
            Kind::ListSnapshots => {
                let found = self.repository.snapshots().await.unwrap();
                let names: Vec<_> = found.iter().map(|info| info.name.clone()).collect();
                same!(names, self.snapshots.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>(), "snapshots");
                Ok(())
            }
            other => unreachable!("{other:?}"),
        })
    }

    /// A directory read in two pages, with a change between them.
    async fn stream_dir(&mut self, dice: &mut Dice) -> Outcome {
        let path = choose::directory(dice, &self.world);
        let expected = self.world.directory(&path);
        let mut stream = match answer(self.fs().stream_dir(&path).await) {
            Ok(stream) => stream,
            Err(refused) => {
                same!(Err(refused), expected, "stream of {path}");
                return Ok(Err(refused));
            }
        };
        let place = expected?;
        let before = self.world.listed(&place);
        let mut seen = Vec::new();
        for _ in 0..dice.below(4) {
            seen.extend(stream.next().await.unwrap().map(|entry| String::from_utf8(entry.name).unwrap()));
        }
        let name = dice.pick(&before).filter(|_| dice.chance(2)).unwrap_or_else(|| "bb".to_owned());
        let target = format!("{place}/{name}").into_bytes();
        if before.contains(&name) {
            self.change(Op::RemoveAll { path: target }).await?.ok();
        } else {
            self.change(Op::Write { path: target, content: dice.bytes() }).await?.ok();
        }
        let cursor = stream.cursor().clone();
        stream.seek(cursor);
        while let Some(entry) = stream.next().await.unwrap() {
            seen.push(String::from_utf8(entry.name).unwrap());
        }
        if !seen.is_sorted_by(|one, other| one < other) {
            return Err(format!("names come in the order {seen:?}"));
        }
        let after = self.world.listed(&place);
        for name in &before {
            if after.contains(name) && !seen.contains(name) {
                return Err(format!("{name} was there throughout, and did not come"));
            }
        }
        for name in &seen {
            if !before.contains(name) && !after.contains(name) {
                return Err(format!("{name} was never there"));
            }
        }
        Ok(Ok(()))
    }

    /// A path of a file that is open.
    fn open_path(&self, dice: &mut Dice) -> Option<String> {
        let open = self.world.names.iter().filter(|(_, inode)| self.handles.has(**inode));
        dice.pick(&open.map(|(path, _)| path.clone()).collect::<Vec<_>>())
    }

    async fn open(&mut self, kind: Kind, dice: &mut Dice) -> Outcome {
        if self.handles.open.len() >= HANDLES_MAX {
            let handle = dice.below(HANDLES_MAX as u64) as usize;
            self.handles.remove(handle);
        }
        let write = OpenOptions::new().write(true);
        let settings = choose::settings(dice);
        let some_path = |dice: &mut Dice, world: &World| {
            if dice.chance(2) { choose::free(dice, world) } else { choose::file(dice, world) }
        };
        let (path, options) = match kind {
            Kind::OpenToRead => (choose::file(dice, &self.world), OpenOptions::new()),
            Kind::OpenCreate => (some_path(dice, &self.world), write.create(true)),
            Kind::OpenCreateNew => {
                let path =
                    if dice.chance(6) { choose::file(dice, &self.world) } else { choose::free(dice, &self.world) };
                (path, write.create_new(true))
            }
            Kind::OpenTruncate => (choose::file(dice, &self.world), write.truncate(true)),
            Kind::OpenAppend => (choose::file(dice, &self.world), OpenOptions::new().append(true)),
            Kind::OpenWithSettings => {
                let Settings { versions, dedup, compression } = settings;
                let mut options = write.create(true);
                options = versions.map_or(options, |versions| options.versions(versions));
                options = dedup.map_or(options, |dedup| options.dedup(dedup));
                options = compression.map_or(options, |compression| options.compression(compression));
                (some_path(dice, &self.world), options)
            }
            _ => (choose::file(dice, &self.world), write),
        };
        // One more handle of a file that is open already is what handles share anything for.
        let is_any = matches!(kind, Kind::OpenToRead | Kind::OpenToWrite | Kind::OpenAppend | Kind::OpenTruncate);
        let path = self.open_path(dice).filter(|_| is_any && dice.chance(2)).unwrap_or(path);
        let opened = self.fs().open_file(&path, options).await;
        let found = answer(opened.as_ref().map(|_| ()).map_err(Clone::clone));
        let settings = if kind == Kind::OpenWithSettings { settings } else { Settings::default() };
        let creates = matches!(kind, Kind::OpenCreate | Kind::OpenWithSettings);
        let number = self.world.prepare(&path, creates, kind == Kind::OpenCreateNew, settings);
        if let (Kind::OpenTruncate, Ok(number)) = (kind, number) {
            if self.handles.is_written(number) {
                self.handles.empty(number);
                self.handles.settle(&mut self.world, number, None, found)?;
                if found.is_err() {
                    return Ok(found);
                }
            } else if !self.world.inodes[&number].content().is_empty() {
                self.world.touch(number, Vec::new());
            }
        }
        same!(found, number.map(|_| ()), "opening {path}");
        self.committed();
        if let (Ok(file), Ok(number)) = (opened, number) {
            let writes = kind != Kind::OpenToRead;
            self.handles.add(file, number, writes, kind == Kind::OpenAppend);
        }
        Ok(found)
    }

    async fn by_handle(&mut self, kind: Kind, dice: &mut Dice, handle: usize) -> Outcome {
        let inode = self.handles.open[handle].inode;
        let appends = self.handles.open[handle].appends;
        let shown = self.handles.shown(&self.world, inode).to_vec();
        let file = self.handles.open[handle].file();
        Ok(match kind {
            Kind::HandleWrite => {
                let (offset, bytes) = (dice.offset(shown.len()), dice.bytes());
                let found = answer(file.write_at(offset, &bytes).await);
                let offset = if appends { shown.len() as u64 } else { offset };
                let write = |content: &mut Vec<u8>| crate::world::write_at(content, offset, &bytes);
                same!(found, self.handles.write(&self.world, handle, write), "writing by handle");
                found
            }
            Kind::HandleAppend => {
                let bytes = dice.bytes();
                let found = answer(file.append(&bytes).await);
                if let Ok(at) = found {
                    same!(at, shown.len() as u64, "where it was appended");
                }
                let expected = self.handles.write(&self.world, handle, |content| content.extend(&bytes));
                same!(found.map(|_| ()), expected, "appending by handle");
                found.map(|_| ())
            }
            Kind::HandleSetLen => {
                let size = dice.offset(shown.len());
                let found = answer(file.set_len(size).await);
                let expected = self.handles.write(&self.world, handle, |content| content.resize(size as usize, 0));
                same!(found, expected, "setting the length by handle");
                found
            }
            Kind::HandleRead => {
                let (offset, mut bytes) = (dice.offset(shown.len()), vec![0; dice.length()]);
                let read = file.read_at(offset, &mut bytes).await.unwrap();
                let rest = shown.get(offset as usize..).unwrap_or_default();
                compare::content(&bytes[..read], &rest[..rest.len().min(bytes.len())], "a part by handle")?;
                Ok(())
            }
            Kind::HandleSeekData => {
                let offset = dice.offset(shown.len()) as usize;
                let found = file.seek_data(offset as u64).await.unwrap();
                let end = found.map_or(shown.len(), |found| found as usize);
                let passed = shown.get(offset..end).unwrap_or_default();
                if found.is_some_and(|found| found < offset as u64 || found >= shown.len() as u64)
                    || passed.iter().any(|byte| *byte != 0)
                {
                    return Err(format!("data after {offset} found at {found:?}"));
                }
                Ok(())
            }
            Kind::HandleSeekHole => {
                let offset = dice.offset(shown.len()) as usize;
                let found = file.seek_hole(offset as u64).await.unwrap();
                same!(found.is_none(), offset >= shown.len(), "whether there is a hole after {offset}");
                if let Some(found) = found {
                    let is_hole = shown.get(found as usize).is_none_or(|byte| *byte == 0);
                    if found < offset as u64 || found > shown.len() as u64 || !is_hole {
                        return Err(format!("a hole after {offset} found at {found}"));
                    }
                }
                Ok(())
            }
            Kind::HandleMetadata => {
                let metadata = file.metadata().await.unwrap();
                same!(metadata.size, shown.len() as u64, "length by handle");
                same!(metadata.nlink, self.world.nlink(inode), "links by handle");
                same!((metadata.kind, metadata.mode), seen(&self.world.inodes[&inode]), "metadata by handle");
                Ok(())
            }
            Kind::HandleFlush | Kind::HandleSync => {
                let found = answer(if kind == Kind::HandleFlush { file.flush().await } else { file.sync().await });
                self.handles.flushed(&mut self.world, handle, found)?;
                found
            }
            Kind::HandleClose => {
                let found = answer(self.handles.open[handle].take().close().await);
                self.handles.flushed(&mut self.world, handle, found)?;
                self.handles.remove(handle);
                found
            }
            Kind::HandleDrop => {
                self.handles.remove(handle);
                Ok(())
            }
            other => unreachable!("{other:?}"),
        })
    }

    /// A transaction of several changes, of which some may be refused; it sees its own, and others do not.
    async fn transaction(&mut self, kind: Kind, dice: &mut Dice) -> Outcome {
        let mut trial = self.world.clone();
        let mut ops = choose::changes(dice, &trial, kind == Kind::Transaction);
        if kind == Kind::TransactionRefused {
            let refused = Op::CreateDir { path: choose::there(dice, &trial).into() };
            ops.insert(dice.below(ops.len() as u64 + 1) as usize, strongroom::Op::File(refused));
        }
        let mut transaction = self.repository.begin();
        let mut refused = 0;
        for op in &ops {
            let found = answer(transaction.apply(op).await);
            let before = trial.clone();
            let expected = trial.apply(op);
            if expected.is_err() {
                // What is refused changes nothing.
                trial = before;
                refused += 1;
            }
            if found != expected {
                return Err(format!("{op:?} in a transaction answers {found:?}, in the model {expected:?}"));
            }
        }
        for path in trial.paths(|inode| inode.kind == ModelKind::File) {
            let found = transaction.fs().read(path).await.unwrap();
            compare::content(&found, trial.at(path).unwrap().content(), &format!("{path} in a transaction"))?;
        }
        compare::files(&self.fs().snapshot(), &mut self.world).await?;
        if kind == Kind::TransactionDropped {
            drop(transaction);
            return Ok(Ok(()));
        }
        answer(transaction.commit().await.map(|_| ())).map_err(str::to_owned)?;
        self.world = trial;
        self.committed();
        Ok(if kind == Kind::TransactionRefused && refused == 0 { NOTHING_THERE } else { Ok(()) })
    }

    /// Two transactions change one file: the one that commits first wins.
    async fn conflict(&mut self, dice: &mut Dice) -> Outcome {
        let path = choose::file(dice, &self.world);
        if self.world.file(&path).is_err() {
            return Ok(NOTHING_THERE);
        }
        let (mut one, mut other) = (self.repository.begin(), self.repository.begin());
        let ops =
            [(); 2].map(|()| strongroom::Op::File(Op::Write { path: path.clone().into(), content: dice.bytes() }));
        answer(one.apply(&ops[0]).await).map_err(str::to_owned)?;
        answer(other.apply(&ops[1]).await).map_err(str::to_owned)?;
        answer(one.commit().await).map_err(str::to_owned)?;
        self.world.together(&ops[..1]).map_err(str::to_owned)?;
        self.committed();
        let found = answer(other.commit().await.map(|_| ()));
        // Emptying what is empty already changes nothing.
        let is_nothing =
            |op: &strongroom::Op| matches!(op, strongroom::Op::File(Op::Write { content, .. }) if content.is_empty());
        if found != Err("conflict") && !ops.iter().any(is_nothing) {
            return Err(format!("the later of two transactions answers {found:?}"));
        }
        if found.is_ok() {
            self.world.together(&ops[1..]).map_err(str::to_owned)?;
            self.committed();
        }
        Ok(Ok(()))
    }

    /// Changes as a list: all of them, or none.
    async fn batch(&mut self, kind: Kind, dice: &mut Dice) -> Outcome {
        let mut ops = choose::changes(dice, &self.world, true);
        if kind == Kind::BatchRefused {
            let mut after = self.world.clone();
            after.together(&ops).map_err(str::to_owned)?;
            let refused = Op::CreateDir { path: choose::there(dice, &after).into() };
            ops.push(strongroom::Op::File(refused));
        }
        let result = self.repository.apply(&ops).await;
        if let Err(Error::InBatch { index, .. }) = &result {
            same!(*index, ops.len() - 1, "the number of what was refused");
        }
        let found = answer(result.map(|_| ()));
        let expected = self.world.together(&ops);
        if found != expected {
            return Err(format!("{ops:?} answer {found:?}, in the model {expected:?}"));
        }
        self.committed();
        Ok(if (kind == Kind::BatchRefused) == found.is_err() { Ok(()) } else { NOTHING_THERE })
    }

    async fn keys_and_files(&mut self, dice: &mut Dice) -> Outcome {
        let path = choose::free(dice, &self.world);
        let (key, gone, value) = (choose::key(dice), choose::key(dice), dice.bytes());
        let ops = [
            strongroom::Op::Delete { key: gone.clone() },
            strongroom::Op::Put { key: key.clone(), value: value.clone() },
            strongroom::Op::File(Op::Write { path: path.clone().into(), content: value.clone() }),
        ];
        let result = self.repository.transact(async |transaction| {
            transaction.kv().delete(&gone).await?;
            transaction.kv().put(&key, &value).await?;
            assert!(transaction.kv().get(&key).await?.as_deref() == Some(value.as_slice()));
            transaction.fs().write(&path, &value).await?;
            Ok::<_, Error>(())
        });
        let found = answer(result.await);
        same!(found, self.world.together(&ops), "a key and {path}");
        self.committed();
        Ok(found)
    }

    async fn snapshot(&mut self, kind: Kind, dice: &mut Dice) -> Outcome {
        if kind != Kind::CreateSnapshot && self.snapshots.is_empty() {
            let name = SNAPSHOT_NAMES[0];
            answer(self.repository.create_snapshot(name).await).map_err(str::to_owned)?;
            self.snapshots.push((name.to_owned(), self.world.clone()));
        }
        let kept: Vec<_> = self.snapshots.iter().map(|(name, _)| name.clone()).collect();
        let free: Vec<_> =
            SNAPSHOT_NAMES.iter().map(|name| (*name).to_owned()).filter(|name| !kept.contains(name)).collect();
        let takes_free = (kind == Kind::CreateSnapshot) != dice.chance(12);
        let name = dice.pick(if takes_free { &free } else { &kept }).unwrap_or_else(|| SNAPSHOT_NAMES[0].to_owned());
        let there = self.snapshots.iter().position(|(kept, _)| *kept == name);
        if kind == Kind::CreateSnapshot {
            let found = answer(self.repository.create_snapshot(&name).await.map(|_| ()));
            same!(found, if there.is_some() { Err("snapshot exists") } else { Ok(()) }, "snapshot {name}");
            if found.is_ok() {
                self.snapshots.push((name, self.world.clone()));
            }
            return Ok(found);
        }
        if kind == Kind::RemoveSnapshot {
            let found = answer(self.repository.remove_snapshot(&name).await);
            same!(found.is_ok(), there.is_some(), "removing snapshot {name}");
            there.map(|there| self.snapshots.remove(there));
            return Ok(found);
        }
        let state = answer(self.repository.files_at(&name).await);
        let (Ok(state), Some(there)) = (&state, there) else {
            same!(state.err(), there.is_none().then_some("no snapshot"), "snapshot {name}");
            if kind == Kind::RestoreSnapshot {
                same!(answer(self.repository.restore_snapshot(&name).await), Err("no snapshot"), "snapshot {name}");
            }
            return Ok(Err("no snapshot"));
        };
        let mut then = self.snapshots[there].1.clone();
        match kind {
            Kind::ReadSnapshot => {
                compare::files(state, &mut then).await?;
                compare::keys(&self.repository.keys_at(&name).await.unwrap(), &then).await?;
            }
            Kind::DiffSnapshot => self.diff(state, &then).await?,
            Kind::RestorePath => {
                let path = choose::there(dice, &then);
                let found = answer(self.fs().restore_from(state, &path).await);
                let mut after = self.world.clone();
                let expected = after.restore_from(&then, &path);
                same!(found, expected, "restoring {path}");
                if found.is_ok() {
                    self.world = after;
                }
                self.committed();
                return Ok(found);
            }
            Kind::RestoreSnapshot => {
                answer(self.repository.restore_snapshot(&name).await).map_err(str::to_owned)?;
                let before = self.world.clone();
                self.world.become_again(&then, |inode| self.handles.has(inode));
                let mut touched = Vec::new();
                for (number, inode) in &self.world.inodes {
                    let Some(earlier) = before.inodes.get(number) else { continue };
                    if earlier.versions != inode.versions {
                        touched.push((*number, Touched::Changed));
                    } else if then.nlink(*number) > 0 {
                        touched.push((*number, Touched::Perhaps));
                    }
                }
                self.handles.contest(&touched);
            }
            other => unreachable!("{other:?}"),
        }
        Ok(Ok(()))
    }

    /// What became of files since a snapshot.
    async fn diff(&self, state: &FsSnapshot, then: &World) -> Result<(), Difference> {
        let changes = self.fs().snapshot().changes_since(state).await.unwrap();
        // Of one path, there may be told what went and what came.
        let mut told: BTreeMap<String, Vec<&Fate>> = BTreeMap::new();
        for change in &changes {
            told.entry(String::from_utf8(change.path.clone()).unwrap()).or_default().push(&change.fate);
        }
        let is_told = |path: &String, is_wanted: fn(&Fate) -> bool| {
            told.get(path).is_some_and(|fates| fates.iter().any(|fate| is_wanted(fate)))
        };
        let before: BTreeSet<_> = then.names.values().copied().collect();
        for (path, number) in &self.world.names {
            let inode = &self.world.inodes[number];
            let is_right = if !before.contains(number) {
                is_told(path, |fate| *fate == Fate::Added)
            } else if then.names.get(path) == Some(number)
                && inode.kind == ModelKind::File
                && then.inodes[number].content() != inode.content()
            {
                is_told(path, |fate| *fate == Fate::Changed)
            } else {
                true
            };
            if !is_right {
                return Err(format!("of {path} is told {:?}", told.get(path)));
            }
        }
        for (path, number) in &then.names {
            if self.world.nlink(*number) == 0 && !is_told(path, |fate| *fate == Fate::Removed) {
                return Err(format!("of {path}, which is gone, is told {:?}", told.get(path)));
            }
        }
        Ok(())
    }

    async fn upkeep(&mut self, kind: Kind, dice: &mut Dice) -> Outcome {
        match kind {
            Kind::Checkpoint => self.repository.engine().checkpoint().await.unwrap(),
            Kind::Compact | Kind::CompactThorough | Kind::CompactCutShort => {
                let mut stop = |_| false;
                let options = CompactOptions {
                    thorough: kind == Kind::CompactThorough,
                    end_other_writers: dice.chance(2),
                    progress: if kind == Kind::CompactCutShort { Some(&mut stop) } else { None },
                };
                self.repository.compact(options).await.unwrap();
            }
            Kind::Check => assert_sound(&self.repository, dice.chance(2)).await,
            Kind::Reopen | Kind::DropCaches => {
                self.gone();
                self.repository.close().await.unwrap();
                let memory = if kind == Kind::Reopen { Memory::Warm } else { Memory::Cold };
                self.repository = self.bed.open(memory).await;
            }
            Kind::Kill => {
                self.bed.storage.process_kill();
                self.gone();
                self.repository = self.bed.open(Memory::Warm).await;
            }
            Kind::PowerCut => {
                self.bed.storage.crash(dice.roll());
                self.gone();
                self.repository = self.bed.open(Memory::Warm).await;
            }
            Kind::PowerCutWithin => return self.power_cut_within(dice).await,
            Kind::ReadBeside => {
                let beside = self.bed.open_beside(true).await;
                compare::all(&beside, &mut self.world, &self.snapshots).await?;
                beside.close().await.unwrap();
            }
            Kind::WriteBeside => {
                let kinds = [Kind::Write, Kind::WriteAt, Kind::Append, Kind::CreateDir, Kind::PutKey, Kind::SetMode];
                let change = dice.pick(&kinds).unwrap();
                let op = choose::change(change, dice, &self.world);
                let beside = self.bed.open_beside(false).await;
                let found = answer(beside.apply(std::slice::from_ref(&op)).await.map(|_| ()));
                let expected = self.world.together(std::slice::from_ref(&op));
                same!(found, expected, "a change of another process");
                beside.close().await.unwrap();
                drop(beside);
                self.repository.refresh().await.unwrap();
                self.committed();
                return Ok(found);
            }
            other => unreachable!("{other:?}"),
        }
        Ok(Ok(()))
    }

    /// The process ends, and with it what it had open.
    fn gone(&mut self) {
        self.handles.clear();
        self.held = None;
        self.world.collect(|_| false);
    }

    /// The power fails while changes are committed: they are all there then, or none is.
    async fn power_cut_within(&mut self, dice: &mut Dice) -> Outcome {
        let ops = choose::changes(dice, &self.world, true);
        self.bed.storage.cut_off_after(dice.below(8), Fault::LostRequest);
        let result = self.repository.apply(&ops).await;
        self.bed.storage.crash(dice.roll());
        self.bed.storage.clear_faults();
        self.gone();
        self.repository = self.bed.open(Memory::Warm).await;
        let mut after = self.world.clone();
        after.together(&ops).map_err(str::to_owned)?;
        after.settle();
        after.collect(|_| false);
        let is_there = match compare::all(&self.repository, &mut after, &self.snapshots).await {
            Ok(()) => true,
            Err(difference) if result.is_ok() => return Err(format!("what was answered is lost: {difference}")),
            Err(_) => false,
        };
        if is_there {
            self.world = after;
        }
        Ok(Ok(()))
    }
}

impl Kind {
    /// Whether it leaves everything as it is, so that comparing once more is not worth its time.
    fn looks_only(self) -> bool {
        self < Self::StreamDirUnderChange && self != Self::HoldState
            || matches!(self, Self::History | Self::ReadVersion | Self::DiffVersions | Self::ListSnapshots)
            || matches!(self, Self::GetKey | Self::ScanKeys | Self::HandleRead | Self::HandleMetadata)
    }
}

fn seen(inode: &Inode) -> (FsKind, u32) {
    let kind = match inode.kind {
        ModelKind::File => FsKind::File,
        ModelKind::Directory => FsKind::Directory,
        ModelKind::Symlink(_) => FsKind::Symlink,
    };
    (kind, inode.mode)
}

fn version(world: &World, path: &str, number: u64) -> Answer<Vec<u8>> {
    let inode = &world.inodes[&world.file(path)?];
    inode.versions.get(&number).map(|content| content.to_vec()).ok_or("no version")
}

fn same_content(found: &Answer<Vec<u8>>, expected: &Answer<Vec<u8>>, path: &str) -> Result<(), Difference> {
    match (found, expected) {
        (Ok(found), Ok(expected)) => compare::content(found, expected, path),
        (found, expected) => {
            same!(found.as_ref().err(), expected.as_ref().err(), "{path}");
            Ok(())
        }
    }
}

/// What is not told to differ is equal.
fn equal_outside(ranges: &[std::ops::Range<u64>], one: &[u8], other: &[u8]) -> Result<(), Difference> {
    for at in 0..one.len().max(other.len()) {
        let is_told = ranges.iter().any(|range| range.contains(&(at as u64)));
        if !is_told && one.get(at) != other.get(at) {
            return Err(format!("versions differ at {at}, which is not among {ranges:?}"));
        }
    }
    Ok(())
}

fn usage(world: &World, place: &str) -> Answer<Usage> {
    let mut usage = Usage::default();
    let mut counted = BTreeSet::new();
    let top = world.names.get(place).ok_or("not found")?;
    let below: Vec<_> = world.inside(place).map(|path| world.names[&path]).collect();
    for number in std::iter::once(*top).chain(below) {
        let inode = &world.inodes[&number];
        if !counted.insert(number) {
            continue;
        }
        match inode.kind {
            ModelKind::Directory => usage.directories += 1,
            ModelKind::Symlink(_) => usage.symlinks += 1,
            ModelKind::File => {
                usage.files += 1;
                usage.logical_bytes += inode.content().len() as u64;
            }
        }
    }
    Ok(usage)
}

/// A change by a path, as a call of its own.
async fn by_path(fs: &FileSystem, op: &Op) -> Result<(), Error> {
    match op {
        Op::CreateDir { path } => fs.create_dir(path).await,
        Op::CreateDirAll { path } => fs.create_dir_all(path).await,
        Op::Write { path, content } => fs.write(path, content).await,
        Op::SetLen { path, size } => fs.set_len(path, *size).await,
        Op::PunchHole { path, offset, length } => fs.punch_hole(path, *offset, *length).await,
        Op::Rename { from, to, replace: true } => fs.rename(from, to).await,
        Op::Rename { from, to, replace: false } => fs.rename_new(from, to).await,
        Op::Exchange { one, other } => fs.exchange(one, other).await,
        Op::RemoveFile { path } => fs.remove_file(path).await,
        Op::RemoveDir { path } => fs.remove_dir(path).await,
        Op::RemoveAll { path } => fs.remove_all(path).await,
        Op::Symlink { target, link } => fs.symlink(target, link).await,
        Op::HardLink { existing, link } => fs.hard_link(existing, link).await,
        Op::Copy { from, to } => fs.copy(from, to).await.map(|_| ()),
        Op::CopyRange { from, from_offset, to, to_offset, length } => {
            fs.copy_range(from, *from_offset, to, *to_offset, *length).await.map(|_| ())
        }
        Op::CopyAll { from, to } => fs.copy_all(from, to).await,
        Op::SetAttributes { path, change, follow: Follow::Yes } => fs.set_attributes(path, *change).await,
        Op::SetAttributes { path, change, follow: Follow::No } => fs.set_symlink_attributes(path, *change).await,
        Op::SetSettings { path, settings } => fs.set_settings(path, *settings).await,
        Op::RestoreVersion { path, number } => fs.restore_version(path, *number).await,
        Op::SetXattr { path, name, value, mode, follow } => fs.set_xattr(path, name, value, *mode, *follow).await,
        Op::RemoveXattr { path, name, follow } => fs.remove_xattr(path, name, *follow).await,
        // Those that have no method of the file system's own.
        op => fs.apply(std::slice::from_ref(op)).await.map(|_| ()),
    }
}
