//! The steps of a history, and how often each is tried.

use proptest::prelude::*;
use strongroom_conformance::crash::Fault;
use strongroom_core::storage::ErrorKind;
use strongroom_fs::{Compression, Follow, Settings, XattrMode};

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
    Append(String, u64, usize),
    PunchHole(String, u64, u64),
    RenameNew(String, String),
    Exchange(String, String),
    Copy(String, String),
    CopyRange(String, u64, String, u64, u64),
    CopyAll(String, String),
    SetMode(String, u32),
    SetXattr(String, u8, u64, usize, XattrMode, Follow),
    RemoveXattr(String, u8, Follow),
    SetSettings(String, Settings),
}

#[derive(Clone, Debug)]
pub(super) enum Step {
    Change(Change),
    /// Several, all or nothing.
    Together(Vec<Change>),
    /// Through two open handles of a file in turn, with a flush at the end.
    Handle(String, Vec<(u64, u64, usize)>, Option<u64>),
    /// Through the handle of a file that is removed meanwhile; then it is closed, dropped, or the power fails.
    Removed(String, Vec<(u64, u64, usize)>, End),
    Faulty(Change, u64, Fault),
    /// Everything fails from the n-th call on, then the machine loses power.
    CutOff(Vec<Change>, u64, u64),
    Checkpoint,
    Close,
    Kill,
    Crash(u64),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    Close,
    Drop,
    Crash(u64),
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

/// What every history begins with.
pub(super) const DIRECTORIES: [&str; 3] = ["/a", "/a/b", "/c"];
pub(super) const FILES: [&str; 4] = ["/b", "/a/a", "/a/c", "/c/b"];

fn one_of(paths: &'static [&'static str]) -> impl Strategy<Value = String> {
    proptest::sample::select(paths).prop_map(String::from)
}

/// Where probably a file is.
fn file() -> impl Strategy<Value = String> {
    prop_oneof![4 => one_of(&FILES), 1 => path()]
}

/// Where probably something is.
fn there() -> impl Strategy<Value = String> {
    prop_oneof![3 => one_of(&FILES), 2 => one_of(&DIRECTORIES), 2 => path(), 1 => free()]
}

/// Where probably nothing is, and something can be.
fn free() -> impl Strategy<Value = String> {
    prop_oneof![3 => one_of(&["/d", "/e", "/f", "/a/d", "/a/e", "/c/d", "/c/e"]), 1 => path()]
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        5 => (path(), seed(), length()).prop_map(|(path, seed, length)| Change::Write(path, seed, length)),
        4 => (file(), offset(), seed(), length()).prop_map(|(p, offset, seed, length)| Change::WriteAt(p, offset, seed, length)),
        2 => (file(), offset()).prop_map(|(path, size)| Change::SetLen(path, size)),
        3 => path().prop_map(Change::CreateDir),
        2 => there().prop_map(Change::RemoveFile),
        2 => path().prop_map(Change::RemoveDir),
        1 => path().prop_map(Change::RemoveAll),
        3 => (there(), path()).prop_map(|(from, to)| Change::Rename(from, to)),
        1 => (there(), free()).prop_map(|(from, to)| Change::Rename(from, to)),
        2 => (there(), free()).prop_map(|(target, link)| Change::Symlink(target, link)),
        2 => (there(), free()).prop_map(|(existing, link)| Change::HardLink(existing, link)),
        2 => (file(), seed(), length()).prop_map(|(path, seed, length)| Change::Append(path, seed, length)),
        2 => (file(), offset(), offset()).prop_map(|(path, offset, length)| Change::PunchHole(path, offset, length)),
        2 => (there(), free()).prop_map(|(from, to)| Change::RenameNew(from, to)),
        2 => (there(), there()).prop_map(|(one, other)| Change::Exchange(one, other)),
        2 => (file(), there()).prop_map(|(from, to)| Change::Copy(from, to)),
        3 => (file(), offset(), file(), offset(), offset())
            .prop_map(|(from, at, to, offset, length)| Change::CopyRange(from, at, to, offset, length)),
        2 => (there(), free()).prop_map(|(from, to)| Change::CopyAll(from, to)),
        1 => (there(), 0..0o1000_u32).prop_map(|(path, mode)| Change::SetMode(path, mode)),
        3 => (there(), 0..2_u8, seed(), prop_oneof![3 => 0..100_usize, 1 => 0..30_000_usize], mode(), follow())
            .prop_map(|(path, name, seed, length, mode, follow)| Change::SetXattr(path, name, seed, length, mode, follow)),
        3 => (there(), 0..2_u8, follow()).prop_map(|(path, name, follow)| Change::RemoveXattr(path, name, follow)),
        2 => (file(), any::<Option<bool>>(), any::<bool>()).prop_map(|(path, dedup, plain)| {
            let compression = plain.then_some(Compression::None);
            Change::SetSettings(path, Settings { dedup, compression, ..Settings::default() })
        }),
    ]
}

fn mode() -> impl Strategy<Value = XattrMode> {
    prop_oneof![2 => Just(XattrMode::Set), 1 => Just(XattrMode::Create), 1 => Just(XattrMode::Replace)]
}

fn follow() -> impl Strategy<Value = Follow> {
    prop_oneof![Just(Follow::Yes), Just(Follow::No)]
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        Just(Fault::Refused(ErrorKind::Full)),
        Just(Fault::Refused(ErrorKind::Unavailable)),
        Just(Fault::LostRequest),
        Just(Fault::LostReply),
    ]
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    let writes = || proptest::collection::vec((offset(), seed(), length()), 1..5);
    prop_oneof![
        20 => change().prop_map(Step::Change),
        4 => proptest::collection::vec(change(), 1..5).prop_map(Step::Together),
        4 => (file(), writes(), proptest::option::of(offset())).prop_map(|(path, writes, size)| Step::Handle(path, writes, size)),
        2 => (file(), writes(), prop_oneof![Just(End::Close), Just(End::Drop), any::<u64>().prop_map(End::Crash)])
            .prop_map(|(path, writes, end)| Step::Removed(path, writes, end)),
        2 => (change(), 1..10_u64, fault()).prop_map(|(change, call, fault)| Step::Faulty(change, call, fault)),
        2 => (proptest::collection::vec(change(), 1..4), 0..8_u64, any::<u64>())
            .prop_map(|(changes, calls, seed)| Step::CutOff(changes, calls, seed)),
        1 => Just(Step::Checkpoint),
        1 => Just(Step::Close),
        1 => Just(Step::Kill),
        1 => any::<u64>().prop_map(Step::Crash),
    ]
}
