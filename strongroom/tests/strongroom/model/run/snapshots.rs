//! Steps on snapshots.

use super::*;

impl Run {
    pub(super) async fn snapshot(&mut self, kind: Kind, dice: &mut Dice) -> Outcome {
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
                compare::keys(&self.repository.keys_at(&name).await.unwrap(), &then.keys).await?;
                compare::keys(&self.repository.table_at(&name, TABLE).await.unwrap(), &then.rows).await?;
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

    /// What became of files since a snapshot: all of that is told, and nothing else. Of attributes it is only known here what must
    /// be told: setting what is set already is a change, too.
    async fn diff(&self, state: &FsSnapshot, then: &World) -> Result<(), Difference> {
        let now = &self.world;
        let mut told: BTreeMap<String, Vec<Fate>> = BTreeMap::new();
        for change in self.fs().snapshot().changes_since(state).await.unwrap() {
            let path = String::from_utf8(change.path).unwrap();
            // Of one path, there may be told what went and what came.
            let whose = if change.fate == Fate::Removed { then } else { now };
            let path = if path == "/" { String::new() } else { path };
            let Some(inode) = whose.at(&path) else {
                return Err(format!("{:?} is told of {path}, which there is not", change.fate));
            };
            let kind = match inode.kind {
                ModelKind::File => FsKind::File,
                ModelKind::Directory => FsKind::Directory,
                ModelKind::Symlink(_) => FsKind::Symlink,
            };
            same!(change.kind, kind, "what {path} is, of which {:?} is told", change.fate);
            told.entry(path).or_default().push(change.fate);
        }
        let all_told = format!("{told:?}");
        let (names_then, names_now) = (then.entries(), now.entries());
        let numbers: BTreeSet<_> = names_then.keys().chain(names_now.keys()).chain([&now.names[""]]).copied().collect();
        let (nowhere, mut removed) = (BTreeMap::new(), BTreeSet::<String>::new());
        for number in numbers {
            let before = names_then.get(&number).unwrap_or(&nowhere);
            let after = names_now.get(&number).unwrap_or(&nowhere);
            let paths = |of: &Entries, but: &Entries| {
                of.iter().filter(|(entry, _)| !but.contains_key(*entry)).map(|(_, path)| path.clone()).collect()
            };
            let (mut gone, mut come): (BTreeSet<String>, BTreeSet<String>) =
                (paths(before, after), paths(after, before));
            // In another directory that has the path of the one before: what is told of those says it.
            for path in gone.intersection(&come).cloned().collect::<Vec<_>>() {
                gone.remove(&path);
                come.remove(&path);
            }
            let both =
                then.inodes.get(&number).filter(|_| number == 0 || !before.is_empty()).zip(now.inodes.get(&number));
            let is_other = both.is_some_and(|(then, now)| then.content() != now.content());
            let may_be_other = both.is_some_and(|(then, now)| then.edited != now.edited) || is_other;
            // Names that came into a directory, and went, are its content.
            let may_be_told = may_be_other || both.is_some_and(|(_, now)| now.is_directory());
            let renamed_count = gone.len().min(come.len());
            let mut from: Vec<String> = Vec::new();
            for path in &come {
                let fate = take(&mut told, path, |fate| matches!(fate, Fate::Added | Fate::Renamed { .. }));
                match fate {
                    Some(Fate::Renamed { from: earlier, is_changed })
                        if (is_other..=may_be_told).contains(&is_changed) =>
                    {
                        from.push(String::from_utf8(earlier).unwrap());
                    }
                    Some(Fate::Added) => {}
                    other => return Err(format!("of {path}, a new name, is told {other:?}; of all {all_told}")),
                }
            }
            let earlier: BTreeSet<_> = from.iter().cloned().collect();
            if from.len() != renamed_count || earlier.len() != renamed_count || !earlier.is_subset(&gone) {
                return Err(format!("from {gone:?} to {come:?}, renamed from {from:?}; of all {all_told}"));
            }
            removed.extend(gone.difference(&earlier).cloned());
            let Some((inode_then, inode_now)) = both else { continue };
            let has_other_attributes = (inode_then.mode, inode_then.owner, &inode_then.xattrs)
                != (inode_now.mode, inode_now.owner, &inode_now.xattrs);
            let root = (number == 0).then(String::new);
            for path in after.values().cloned().chain(root) {
                if come.contains(&path) {
                    continue;
                }
                let is_right = match take(&mut told, &path, |fate| *fate != Fate::Removed) {
                    Some(Fate::Changed) => may_be_other,
                    Some(Fate::Attributes) => !is_other,
                    None => !is_other && !has_other_attributes,
                    Some(_) => false,
                };
                if !is_right {
                    return Err(format!("of {path}, which kept its name, is told something else: {all_told}"));
                }
            }
        }
        for path in removed {
            if take(&mut told, &path, |fate| *fate == Fate::Removed).is_none() {
                return Err(format!("of {path}, which is gone, is told {all_told}"));
            }
        }
        told.retain(|_, fates| !fates.is_empty());
        if told.is_empty() { Ok(()) } else { Err(format!("told besides: {told:?}")) }
    }
}

/// Takes what is told of a path.
fn take(told: &mut BTreeMap<String, Vec<Fate>>, path: &str, is_wanted: impl Fn(&Fate) -> bool) -> Option<Fate> {
    let fates = told.get_mut(path)?;
    Some(fates.remove(fates.iter().position(is_wanted)?))
}
