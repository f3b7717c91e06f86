//! Runs a history on the repository and on the model, and compares.

mod by_handle;
mod defragment;
mod look;
mod snapshots;
mod together;
mod upkeep;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use strongroom::fs::{
    DirCursor, Fate, FileSystem, Follow, FsSnapshot, Kind as FsKind, Op, OpenOptions, Settings, Usage, XattrMode,
};
use strongroom::{CompactOptions, Error, Repository};
use strongroom_conformance::crash::Fault;

use crate::model::bed::{Bed, Memory, Profile};
use crate::model::choose::{self, Dice};
use crate::model::compare::{self, Difference, assert_sound, same};
use crate::model::handles::Handles;
use crate::model::kinds::{Kind, Step};
use crate::model::report::Report;
use crate::model::world::{Answer, Entries, Inode, Kind as ModelKind, TABLE, Touched, World, refusal};

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
    let world = World::new(profile.versions(), bed.time.clone());
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
        self.world.go_on();
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
        self.world.go_on();
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
            | Kind::ReopenCold
            | Kind::DropCaches
            | Kind::Kill
            | Kind::PowerCut
            | Kind::PowerCutWithin
            | Kind::ReadBeside
            | Kind::WriteBeside => self.upkeep(step.kind, dice).await,
            Kind::Defragment | Kind::DefragmentBeside | Kind::DefragmentCutOff => {
                self.defragment(step.kind, dice).await
            }
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
            Kind::PutInTable | Kind::DeleteInTable => {
                let op = choose::change(step.kind, dice, &self.world);
                let found = answer(self.repository.apply(std::slice::from_ref(&op)).await.map(|_| ()));
                same!(found, self.world.together(std::slice::from_ref(&op)), "a change of a table");
                self.committed();
                Ok(found)
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
}

impl Kind {
    /// Whether it leaves everything as it is, so that comparing once more is not worth its time.
    fn looks_only(self) -> bool {
        self < Self::StreamDirUnderChange && self != Self::HoldState
            || matches!(self, Self::History | Self::ReadVersion | Self::DiffVersions | Self::ListSnapshots)
            || matches!(self, Self::GetKey | Self::ScanKeys | Self::HandleRead | Self::HandleMetadata)
    }
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
