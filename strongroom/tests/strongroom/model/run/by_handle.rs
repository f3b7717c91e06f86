//! Steps on open files.

use super::look::seen;
use super::*;

impl Run {
    /// A path of a file that is open.
    pub(super) fn open_path(&self, dice: &mut Dice) -> Option<String> {
        let open = self.world.names.iter().filter(|(_, inode)| self.handles.has(**inode));
        dice.pick(&open.map(|(path, _)| path.clone()).collect::<Vec<_>>())
    }

    pub(super) async fn open(&mut self, kind: Kind, dice: &mut Dice) -> Outcome {
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

    pub(super) async fn by_handle(&mut self, kind: Kind, dice: &mut Dice, handle: usize) -> Outcome {
        let inode = self.handles.open[handle].inode;
        let appends = self.handles.open[handle].appends;
        let shown = self.handles.shown(&self.world, inode).to_vec();
        let file = self.handles.open[handle].file();
        Ok(match kind {
            Kind::HandleWrite => {
                let (offset, bytes) = (dice.offset(shown.len()), dice.bytes());
                let found = answer(file.write_at(offset, &bytes).await);
                let offset = if appends { shown.len() as u64 } else { offset };
                let write = |content: &mut Vec<u8>| crate::model::world::write_at(content, offset, &bytes);
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
}
