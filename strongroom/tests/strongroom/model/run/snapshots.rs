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
}
