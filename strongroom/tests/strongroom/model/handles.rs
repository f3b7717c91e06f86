//! Open files beside the model's: what was written and is not committed, who took part in it, and who must hear that it is lost.

use std::collections::BTreeMap;

use strongroom::core::env::UnixMillis;
use strongroom::fs::File;

use crate::model::compare::{self, Difference, same};
use crate::model::world::{Answer, Content, Touched, World};

pub(crate) struct Handle {
    file: Option<File>,
    pub(crate) inode: usize,
    pub(crate) writes: bool,
    pub(crate) appends: bool,
    /// It wrote to what is pending now.
    took_part: bool,
    /// What it wrote is lost, and it has not been told by a flush.
    lost: bool,
}

/// What was written to a file and is not committed.
struct Pending {
    content: Vec<u8>,
    /// The file as it was before.
    base: BTreeMap<u64, Content>,
    /// When the first of it was written.
    since: UnixMillis,
    /// The content was changed by a path since.
    contested: Option<Touched>,
}

impl Handle {
    pub(crate) fn file(&self) -> &File {
        self.file.as_ref().unwrap()
    }

    /// To be closed; the handle goes with [`Handles::remove`].
    pub(crate) fn take(&mut self) -> File {
        self.file.take().unwrap()
    }
}

#[derive(Default)]
pub(crate) struct Handles {
    pub(crate) open: Vec<Handle>,
    pending: BTreeMap<usize, Pending>,
}

impl Handles {
    pub(crate) fn add(&mut self, file: File, inode: usize, writes: bool, appends: bool) {
        self.open.push(Handle { file: Some(file), inode, writes, appends, took_part: false, lost: false });
    }

    pub(crate) fn has(&self, inode: usize) -> bool {
        self.open.iter().any(|handle| handle.inode == inode)
    }

    pub(crate) fn is_written(&self, inode: usize) -> bool {
        self.pending.contains_key(&inode)
    }

    /// What a handle shows.
    pub(crate) fn shown<'h>(&'h self, world: &'h World, inode: usize) -> &'h [u8] {
        match self.pending.get(&inode) {
            Some(pending) => &pending.content,
            None => world.inodes[&inode].content(),
        }
    }

    /// What a write answers; where it is accepted, it is done.
    pub(crate) fn write(&mut self, world: &World, handle: usize, write: impl FnOnce(&mut Vec<u8>)) -> Answer {
        let handle = &mut self.open[handle];
        if !handle.writes {
            return Err("access");
        }
        if handle.lost {
            return Err("conflict");
        }
        handle.took_part = true;
        let pending = self.pending.entry(handle.inode).or_insert_with(|| {
            let inode = &world.inodes[&handle.inode];
            Pending {
                content: inode.content().to_vec(),
                base: inode.versions.clone(),
                since: world.now,
                contested: None,
            }
        });
        write(&mut pending.content);
        Ok(())
    }

    /// A file that is written to is opened anew, and emptied by that.
    pub(crate) fn empty(&mut self, inode: usize) {
        if let Some(pending) = self.pending.get_mut(&inode) {
            pending.content.clear();
        }
    }

    /// Somebody changed contents by their paths.
    pub(crate) fn contest(&mut self, touched: &[(usize, Touched)]) {
        for (inode, touched) in touched {
            if let Some(pending) = self.pending.get_mut(inode)
                && pending.contested != Some(Touched::Changed)
            {
                pending.contested = Some(*touched);
            }
        }
    }

    /// What a flush answered must be what it may answer; then that happens.
    pub(crate) fn flushed(&mut self, world: &mut World, handle: usize, answer: Answer) -> Result<(), Difference> {
        let Handle { inode, writes, .. } = self.open[handle];
        if !writes {
            same!(answer, Ok(()), "flush of a handle that reads");
            return Ok(());
        }
        if std::mem::take(&mut self.open[handle].lost) {
            same!(answer, Err("conflict"), "flush of a handle whose writes are lost");
            return Ok(());
        }
        self.settle(world, inode, Some(handle), answer)
    }

    /// What is pending is committed, or lost.
    pub(crate) fn settle(
        &mut self,
        world: &mut World,
        inode: usize,
        told: Option<usize>,
        answer: Answer,
    ) -> Result<(), Difference> {
        let Some(Pending { content, base, since, mut contested }) = self.pending.remove(&inode) else {
            same!(answer, Ok(()), "flush of nothing");
            return Ok(());
        };
        if contested == Some(Touched::Changed) && world.inodes[&inode].versions == base {
            // Changed back, by a snapshot that was restored, it may be the very same.
            contested = Some(Touched::Perhaps);
        }
        match (contested, answer) {
            (None | Some(Touched::Perhaps), Ok(())) => {
                world.touch_since(inode, content, since);
                world.settle();
            }
            (Some(_), Err("conflict")) => {}
            _ => return Err(format!("flush answers {answer:?}, contested {contested:?}")),
        }
        for (number, handle) in self.open.iter_mut().enumerate() {
            if handle.inode == inode {
                handle.lost |= handle.took_part && answer.is_err() && told != Some(number);
                handle.took_part = false;
            }
        }
        Ok(())
    }

    /// The handle is gone; with the last one of its file goes what was not committed.
    pub(crate) fn remove(&mut self, handle: usize) {
        let inode = self.open.remove(handle).inode;
        if !self.has(inode) {
            self.pending.remove(&inode);
        }
    }

    /// The process is gone.
    pub(crate) fn clear(&mut self) {
        self.open.clear();
        self.pending.clear();
    }

    /// Every handle shows what it should.
    pub(crate) async fn compare(&self, world: &World) -> Result<(), Difference> {
        for handle in &self.open {
            let expected = self.shown(world, handle.inode);
            same!(handle.file().len().await.unwrap(), expected.len() as u64, "length by handle");
            let mut found = vec![0; expected.len() + 1];
            let read = handle.file().read_at(0, &mut found).await.unwrap();
            compare::content(&found[..read], expected, "content by handle")?;
        }
        Ok(())
    }
}
