//! Removes what is no longer in the sources, once all that is there is stored.

use std::path::Path;

use strongroom::fs::FsSnapshot;

use crate::exit::Failure;
use crate::local::source::{self, Emptied, Entry, Kind, SourceFile};
use crate::local::{bytes_of, name_of};
use crate::walk::join;

use super::batch::Step;
use super::gone::{Doom, Doomed, Lacking};
use super::store::{Import, split};

impl Import<'_> {
    /// Notes what the folder that is gone through has no longer, among what the repository has in it before a name. `here`:
    /// its path; `relative`: from the name of the SRC on.
    pub(super) async fn note_gone(
        &mut self,
        here: &Path,
        relative: &[u8],
        before: Option<&[u8]>,
    ) -> Result<(), Failure> {
        let Some(folder) = self.folders.last_mut() else { return Ok(()) };
        let Some(identity) = folder.here else { return Ok(()) };
        while let Some(name) = folder.known.passed(before).await? {
            let excluded = self.limits.exclude.matches(&join(relative, &name));
            if !excluded && source::is_gone(&here.join(name_of(&name))) {
                self.gone.lacks(here, identity, relative, name);
            }
        }
        Ok(())
    }

    /// Notes what the repository has where the source now has something of a kind that is not stored.
    pub(super) fn note_replaced(&mut self, entry: &Entry) {
        let folder = self.folders.last().and_then(|folder| folder.here);
        if let (Some(identity), Some(here)) = (folder, entry.path.parent()) {
            let (relative, name) = split(&entry.relative);
            self.gone.lacks(here, identity, relative, name.to_vec());
        }
    }

    /// Removes what is gone, and then stores what it was in the way of.
    pub(super) async fn remove_gone(&mut self) -> Result<(), Failure> {
        if self.gone.is_empty() {
            return Ok(());
        }
        if self.report.left_out.len() as u64 > self.report.stored_even_so {
            let what = "nothing was removed, as not everything could be stored: see above";
            self.progress.aside(|| self.context.output.notice(what));
            return Ok(());
        }
        let snapshot = self.repository.fs().snapshot();
        let (folders, blocked) = self.gone.take();
        for Lacking { folder, identity, relative, names } in folders {
            self.stop_if_asked().await?;
            let emptied = match Emptied::open(&folder, identity) {
                Ok(emptied) => emptied,
                Err(error) => {
                    let reason = format!("cannot be read any more: nothing in it was removed: {error}");
                    self.left_out(bytes_of(folder.as_os_str()), reason);
                    continue;
                }
            };
            for name in names.iter().filter(|name| emptied.lacks(name)) {
                self.remove(&join(&relative, name), &snapshot).await?;
            }
            self.renew_folder(&folder, relative).await?;
        }
        for entry in blocked {
            self.stop_if_asked().await?;
            let path = self.path(&entry);
            let readable = match entry.kind {
                Kind::File { .. } => SourceFile::open(&entry.path, self.context.own()).map(drop),
                _ => source::entry_at(&entry.path, Vec::new()).map(drop),
            };
            if let Err(error) = readable {
                self.left_out(bytes_of(entry.path.as_os_str()), format!("cannot be read: {error}"));
            } else if self.remove(&entry.relative, &snapshot).await? {
                let (folder, relative) = (entry.path.parent().map(Path::to_owned), split(&entry.relative).0.to_vec());
                self.store_leaf(entry, None, &snapshot).await?;
                if let Some(folder) = folder {
                    self.renew_folder(&folder, relative).await?;
                }
            } else {
                self.left_out(
                    &path,
                    "a folder of that name is in the repository, with something that stays".to_owned(),
                );
            }
        }
        if self.gone.forgotten() > 0 {
            let what = format!("{} more are to be removed: run it again for the rest", self.gone.forgotten());
            self.progress.aside(|| self.context.output.notice(&what));
        }
        Ok(())
    }

    /// Removes what is at a path, save for what is excluded; answers whether all is gone.
    async fn remove(&mut self, relative: &[u8], snapshot: &FsSnapshot) -> Result<bool, Failure> {
        let path = join(&self.to, relative);
        let mut doom = Doom::at(snapshot, &path, relative).await?;
        while let Some(doomed) = doom.next(&self.limits.exclude).await {
            self.stop_if_asked().await?;
            match doomed {
                Doomed::Leaf(path) | Doomed::Folder(path) => {
                    self.report.removed += 1;
                    self.tell("would remove", "removed", &path);
                    self.take(Step::Remove { path }).await?;
                }
                Doomed::Unreadable(path, failure) => self.left_out(&path, failure.to_string()),
            }
        }
        Ok(!doom.kept_any())
    }

    /// The time of a folder of the repository changed with what is in it.
    async fn renew_folder(&mut self, folder: &Path, relative: Vec<u8>) -> Result<(), Failure> {
        if relative.is_empty() {
            return Ok(());
        }
        match source::entry_at(folder, relative) {
            Ok(Entry { attributes, relative, .. }) => {
                self.take(Step::Attributes { path: join(&self.to, &relative), attributes, inode: None }).await
            }
            Err(_) => Ok(()),
        }
    }
}
