//! Names in the model: where they go, and whose times change with them.

use std::collections::BTreeMap;

use super::{Answer, Kind, World, parent};

impl World {
    fn touch_parent(&mut self, place: &str) {
        let (directory, now) = (self.names[parent(place)], self.now);
        self.times(directory).changes(now);
    }

    pub(super) fn put_name(&mut self, place: String, number: usize) {
        self.touch_parent(&place);
        self.names.insert(place, number);
    }

    /// Takes a name away, and with it the way to what is in it.
    pub(super) fn remove_name(&mut self, place: &str) -> Option<usize> {
        let number = self.names.remove(place)?;
        self.touch_parent(place);
        let now = self.now;
        self.times(number).status.changes(now);
        for inside in self.inside(place).collect::<Vec<_>>() {
            let number = self.names.remove(&inside).unwrap();
            self.times(number).status.changes(now);
        }
        Some(number)
    }

    /// Copies a tree, of this state or of another one.
    pub(super) fn copy_from(&mut self, state: Option<&Self>, from: &str, to: &str) -> Answer {
        let here = self.clone();
        let state_or_here = state.unwrap_or(&here);
        let from = state_or_here.resolve(from, false)?;
        let top = state_or_here.at(&from).ok_or("not found")?;
        let to = self.free(to)?;
        if state.is_none() && top.is_directory() && to.starts_with(&format!("{from}/")) {
            return Err("into itself");
        }
        let mut copies = BTreeMap::new();
        for path in [from.clone()].into_iter().chain(state_or_here.inside(&from)) {
            let number = state_or_here.names[&path];
            let place = format!("{to}{}", &path[from.len()..]);
            match copies.get(&number) {
                Some(copy) => self.put_name(place, *copy),
                None => {
                    let copy = self.make(place, state_or_here.inodes[&number].copied(self.now));
                    copies.insert(number, copy);
                }
            }
        }
        // Names that came into it do not count.
        for (number, copy) in copies {
            self.times(copy).content = state_or_here.inodes[&number].times.content;
        }
        Ok(())
    }

    /// Puts what is at a path in another state in place of what is there; no link leads there, then or now.
    pub(crate) fn restore_from(&mut self, state: &Self, path: &str) -> Answer {
        let above: Vec<&str> = path.match_indices('/').skip(1).map(|(end, _)| &path[..end]).collect();
        for place in &above {
            match state.at(place).map(|inode| &inode.kind) {
                Some(Kind::Directory) => {}
                Some(Kind::Symlink(_)) => return Err("invalid"),
                Some(_) => return Err("not a directory"),
                None => return Err("not found"),
            }
        }
        state.at(path).ok_or("not found")?;
        let mut made = Vec::new();
        for place in above {
            match self.at(place).map(|inode| &inode.kind) {
                Some(Kind::Directory) => {}
                Some(Kind::Symlink(_)) => return Err("invalid"),
                Some(_) => return Err("not a directory"),
                None => {
                    let inode = state.at(place).unwrap();
                    made.push((self.make(place.to_owned(), inode.copied(self.now)), inode.times.content));
                }
            }
        }
        self.remove_name(path);
        self.copy_from(Some(state), path, path)?;
        for (directory, time) in made {
            self.times(directory).content = time;
        }
        Ok(())
    }

    pub(super) fn exchange(&mut self, one: &str, other: &str) -> Answer {
        let (one, other) = (self.resolve(one, false)?, self.resolve(other, false)?);
        let left = *self.names.get(&one).ok_or("not found")?;
        let right = *self.names.get(&other).ok_or("not found")?;
        if left == right {
            return Ok(());
        }
        if other.starts_with(&format!("{one}/")) || one.starts_with(&format!("{other}/")) {
            return Err("into itself");
        }
        let mut moved = Vec::new();
        for (from, to) in [(&one, &other), (&other, &one)] {
            for old in [from.clone()].into_iter().chain(self.inside(from).collect::<Vec<_>>()) {
                moved.push((format!("{to}{}", &old[from.len()..]), self.names.remove(&old).unwrap()));
            }
        }
        self.names.extend(moved);
        self.note_move([left, right], [&one, &other]);
        Ok(())
    }

    pub(super) fn rename(&mut self, from: &str, to: &str, replaces: bool) -> Answer {
        let from = self.resolve(from, false)?;
        let moved = *self.names.get(&from).ok_or("not found")?;
        let to = self.resolve(to, false)?;
        let directory = self.inodes[&moved].is_directory();
        if directory && (parent(&to) == from || parent(&to).starts_with(&format!("{from}/"))) {
            return Err("into itself");
        }
        if let Some(replaced) = self.names.get(&to) {
            if !replaces {
                return Err("already exists");
            }
            if *replaced == moved {
                return Ok(());
            }
            match (directory, self.inodes[replaced].is_directory()) {
                (true, false) => return Err("not a directory"),
                (false, true) => return Err("is a directory"),
                (true, true) if self.inside(&to).next().is_some() => return Err("not empty"),
                _ => {}
            }
        }
        self.remove_name(&to);
        let inside: Vec<String> = self.inside(&from).collect();
        self.names.remove(&from);
        self.names.insert(to.clone(), moved);
        for old in inside {
            let number = self.names.remove(&old).unwrap();
            self.names.insert(format!("{to}{}", &old[from.len()..]), number);
        }
        self.note_move([moved], [&from, &to]);
        Ok(())
    }

    /// Names changed in the directories of these places, and what has them is elsewhere.
    fn note_move<const N: usize>(&mut self, moved: [usize; N], places: [&str; 2]) {
        let now = self.now;
        for number in moved {
            self.times(number).status.changes(now);
        }
        places.into_iter().for_each(|place| self.touch_parent(place));
    }
}
