//! Changes on the file system itself, and how often each kind of operation was accepted.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use strongroom_core::engine::Table;
use strongroom_fs::{AttributeChange, Error, FileSystem, FsTransaction};

use super::super::support::noise;
use super::cases;
use super::step::Change;

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
        Change::Append(path, seed, length) => transaction.append(path, noise(*seed, *length)).await.map(|_| ()),
        Change::PunchHole(path, offset, length) => transaction.punch_hole(path, *offset, *length).await,
        Change::RenameNew(from, to) => transaction.rename_new(from, to).await,
        Change::Exchange(one, other) => transaction.exchange(one, other).await,
        Change::Copy(from, to) => transaction.copy(from, to).await.map(|_| ()),
        Change::CopyRange(from, from_offset, to, to_offset, length) => {
            transaction.copy_range(from, *from_offset, to, *to_offset, *length).await.map(|_| ())
        }
        Change::CopyAll(from, to) => transaction.copy_all(from, to).await,
        Change::SetMode(path, mode) => {
            let change = AttributeChange { mode: Some(*mode), ..AttributeChange::default() };
            transaction.set_attributes(path, change).await
        }
        Change::SetXattr(path, name, seed, length, mode, follow) => {
            transaction.set_xattr(path, [*name + 1], noise(*seed, *length), *mode, *follow).await
        }
        Change::RemoveXattr(path, name, follow) => transaction.remove_xattr(path, [*name + 1], *follow).await,
        Change::SetSettings(path, settings) => transaction.set_settings(path, *settings).await,
    }
}

pub(super) async fn apply_all(transaction: &mut FsTransaction, changes: &[Change]) -> Result<(), Error> {
    for change in changes {
        apply(transaction, change).await?;
    }
    Ok(())
}

pub(crate) async fn together(fs: &FileSystem, changes: &[Change]) -> Result<(), Error> {
    fs.transact(async |transaction| {
        for change in changes {
            let result = apply(transaction, change).await;
            count(change, result.is_ok());
            result?;
        }
        // What changes nothing would not be committed, and would settle nothing that is in the air.
        transaction.engine().put(Table(0x90), b"commit", b"").map_err(Error::from)
    })
    .await
}

/// How often each kind of operation was accepted, and refused.
static KINDS: Mutex<BTreeMap<String, (u64, u64)>> = Mutex::new(BTreeMap::new());
static CASES_DONE: AtomicU32 = AtomicU32::new(0);

pub(super) fn count(operation: &impl std::fmt::Debug, accepted: bool) {
    let name = format!("{operation:?}");
    let name = name.split(|next: char| !next.is_alphanumeric()).next().unwrap_or_default().to_owned();
    let mut kinds = KINDS.lock().unwrap();
    let (yes, no) = kinds.entry(name).or_default();
    *(if accepted { yes } else { no }) += 1;
}

/// Printed once all cases have run (`--nocapture` shows it): no kind may be rare among what was accepted.
pub(super) fn report() {
    let done = CASES_DONE.fetch_add(1, Ordering::Relaxed) + 1;
    if done != 2 * cases() || done < 400 {
        return;
    }
    let kinds = KINDS.lock().unwrap().clone();
    let all: u64 = kinds.values().map(|(accepted, _)| accepted).sum();
    let mut rare = Vec::new();
    for (name, (accepted, refused)) in &kinds {
        let share = 100.0 * *accepted as f64 / all as f64;
        println!("{name:14} {share:5.2} % ({accepted} accepted, {refused} refused)");
        if share < 0.5 {
            rare.push(name);
        }
    }
    assert!(rare.is_empty(), "rare: {rare:?}");
}
