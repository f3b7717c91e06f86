//! What a sync client does to two folders, as far as it can be told from outside: it carries files in any order, one at a time,
//! and where both have changed one of them wins and the other gets a name of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use strongroom::core::crypto::Keys;
use strongroom::core::format::BlockId;
use strongroom::storage::Name;
use strongroom_conformance::Dice;

fn below(dice: &mut Dice, bound: usize) -> usize {
    dice.roll() as usize % bound
}

fn shuffle<T>(items: &mut [T], dice: &mut Dice) {
    for last in (1..items.len()).rev() {
        items.swap(last, below(dice, last + 1));
    }
}

/// Relative path -> content.
type Files = BTreeMap<PathBuf, Vec<u8>>;

pub(super) fn read(folder: &Path) -> Files {
    let mut files = Files::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(at) = folders.pop() {
        for entry in fs::read_dir(&at).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.insert(path.strip_prefix(folder).unwrap().to_owned(), fs::read(&path).unwrap());
            }
        }
    }
    files
}

/// How clients name the version that lost.
fn conflicted(path: &Path, dice: &mut Dice) -> PathBuf {
    let name = path.file_name().unwrap().to_str().unwrap();
    path.with_file_name(match below(dice, 5) {
        0 => format!("{name} (laptop's conflicted copy 2026-11-30)"),
        1 => format!("{name}.sync-conflict-20261130-101500-ABCDEFG"),
        2 => format!("{name} (1)"),
        3 => format!("{name} 2"),
        _ => format!("{name}-LAPTOP-conflict"),
    })
}

/// How clients name what they have not received whole.
fn unfinished(path: &Path, dice: &mut Dice) -> PathBuf {
    let name = path.file_name().unwrap().to_str().unwrap();
    path.with_file_name(match below(dice, 4) {
        0 => format!(".~{name}"),
        1 => format!(".syncthing.{name}.tmp"),
        2 => format!("{name}.part"),
        _ => format!(".{name}.Xy12Zq"),
    })
}

#[derive(Debug)]
enum Step {
    /// From one folder (0 or 1) to the other.
    Carry(PathBuf, usize),
    /// In one folder, because the other has none any more.
    Remove(PathBuf, usize),
    /// One of both wins.
    Conflict(PathBuf),
}

impl Step {
    fn path(&self) -> &Path {
        match self {
            Self::Carry(path, _) | Self::Remove(path, _) | Self::Conflict(path) => path,
        }
    }
}

/// Keeps two folders alike.
pub(crate) struct Client {
    folders: [PathBuf; 2],
    /// What both had when they were alike.
    alike: Files,
    steps: Vec<Step>,
    keys: Arc<Keys>,
    /// Whose content wins where both have changed; none where that is another's each time.
    pub(super) winner: Option<usize>,
}

impl Client {
    pub(crate) fn new(folders: [PathBuf; 2], keys: Arc<Keys>) -> Self {
        Self { folders, alike: Files::new(), steps: Vec::new(), keys, winner: None }
    }

    /// Where a path stands among others, whatever the folders are called: names of blocks tell where they were made.
    fn order(&self, path: &Path) -> (u64, u64, PathBuf) {
        let name = path.file_name().unwrap().to_str().unwrap();
        let name = name.get(..32).and_then(Name::from_hex).map(|name| self.keys.decrypt_name(*name.as_bytes()));
        match name.and_then(|name| BlockId::decode(&name)) {
            Some(BlockId::Data { writer_epoch, counter, .. }) => {
                (u64::from(writer_epoch), counter & 0xfff_ffff, PathBuf::new())
            }
            Some(BlockId::Commit { sequence, .. }) => (0, sequence, PathBuf::new()),
            None => (0, 0, path.to_owned()),
        }
    }

    /// Sees what has changed in either folder since they were alike; nothing is carried yet.
    pub(crate) fn look(&mut self, dice: &mut Dice) -> usize {
        let now = [read(&self.folders[0]), read(&self.folders[1])];
        let paths: BTreeSet<_> = now.iter().flat_map(Files::keys).chain(self.alike.keys()).cloned().collect();
        self.steps.clear();
        for path in paths {
            let [here, there] = [now[0].get(&path), now[1].get(&path)];
            if here == there {
                continue;
            }
            let before = self.alike.get(&path);
            self.steps.push(match (here, there) {
                (Some(_), _) if there == before => Step::Carry(path, 0),
                (_, Some(_)) if here == before => Step::Carry(path, 1),
                (None, Some(_)) if there == before => Step::Remove(path, 1),
                (Some(_), None) if here == before => Step::Remove(path, 0),
                // Changed here, removed there: what is there wins over what is not.
                (Some(_), None) => Step::Carry(path, 0),
                (None, _) => Step::Carry(path, 1),
                (Some(_), Some(_)) => Step::Conflict(path),
            });
        }
        let mut steps = std::mem::take(&mut self.steps);
        steps.sort_by_cached_key(|step| {
            (self.order(step.path()), matches!(step, Step::Carry(_, 1) | Step::Remove(_, 1)))
        });
        shuffle(&mut steps, dice);
        self.steps = steps;
        self.steps.len()
    }

    /// Takes so many of the steps. What it was at when it stopped is left unfinished.
    pub(crate) fn go(&mut self, count: usize, dice: &mut Dice) {
        for _ in 0..count {
            if let Some(step) = self.steps.pop() {
                self.take(step, dice);
            }
        }
        if let Some(Step::Carry(path, from)) = self.steps.last() {
            let to = self.folders[1 - from].join(unfinished(path, dice));
            let bytes = fs::read(self.folders[*from].join(path)).unwrap_or_default();
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::write(to, &bytes[..bytes.len() / 2]).unwrap();
        }
    }

    /// Goes on until both folders are alike.
    pub(crate) fn finish(&mut self, dice: &mut Dice) {
        while self.look(dice) > 0 {
            for step in std::mem::take(&mut self.steps) {
                self.take(step, dice);
            }
            self.alike = read(&self.folders[0]);
        }
    }

    fn take(&mut self, step: Step, dice: &mut Dice) {
        match step {
            Step::Carry(path, from) => self.carry(&path, &path, from),
            Step::Remove(path, from) => fs::remove_file(self.folders[from].join(path)).unwrap(),
            Step::Conflict(path) => {
                let drawn = below(dice, 2);
                let winner = self.winner.unwrap_or(drawn);
                let lost = conflicted(&path, dice);
                fs::rename(self.folders[1 - winner].join(&path), self.folders[1 - winner].join(&lost)).unwrap();
                self.carry(&path, &path, winner);
                self.carry(&lost, &lost, 1 - winner);
            }
        }
    }

    fn carry(&self, path: &Path, as_path: &Path, from: usize) {
        // It may have gone since it was seen.
        let Ok(bytes) = fs::read(self.folders[from].join(path)) else { return };
        let to = self.folders[1 - from].join(as_path);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::write(to, bytes).unwrap();
    }
}
