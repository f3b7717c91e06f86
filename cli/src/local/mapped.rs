//! Which files the programs of this machine can write to through memory.
//!
//! A write through a mapping leaves a trace, a later time of change, only where it is the first of its page since the kernel
//! wrote the page out, which may be half a minute ago: what follows changes the content and nothing else. A mapping that is
//! made later leaves one with its first write. So a file that no program has mapped for writing now, and that did not change
//! since, is one whose every later change shows.

use std::collections::HashSet;
use std::path::Path;

/// What was mapped at a moment.
#[derive(Debug, Default)]
pub(crate) struct Mapped {
    /// In milliseconds since the epoch.
    as_of: u64,
    /// Inodes, whatever their device: some file systems tell another here than of the file itself.
    inodes: HashSet<u64>,
}

impl Mapped {
    /// What is mapped now, as far as this machine tells: what runs for other users is shown to root alone, and what runs on
    /// other machines to nobody. Only Linux tells at all.
    pub(crate) fn look(now_millis: u64) -> Self {
        let mut mapped = Self { as_of: now_millis, inodes: HashSet::new() };
        let Ok(processes) = std::fs::read_dir("/proc") else { return mapped };
        for process in processes.flatten() {
            let is_number = process.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit);
            if is_number {
                mapped.read(&process.path());
            }
        }
        mapped
    }

    #[cfg(test)]
    pub(crate) fn of(as_of: u64, inodes: impl IntoIterator<Item = u64>) -> Self {
        Self { as_of, inodes: inodes.into_iter().collect() }
    }

    /// The mappings of one process. One that has ended has none.
    fn read(&mut self, process: &Path) {
        let Ok(maps) = std::fs::read(process.join("maps")) else { return };
        self.inodes.extend(maps.split(|byte| *byte == b'\n').filter_map(written_to));
    }

    /// Whether each change of a file would show from this moment on, where its last one was certain to show before
    /// `settled_millis`.
    pub(crate) fn shows_changes(&self, inode: u64, settled_millis: u64) -> bool {
        settled_millis < self.as_of && !self.inodes.contains(&inode)
    }
}

/// The inode of a file that a line of `/proc/PID/maps` says can be written to: it reads
/// `7f5d8a000000-7f5d8a008000 rw-s 00000000 fe:00 1234 /path`.
fn written_to(line: &[u8]) -> Option<u64> {
    let mut fields = line.split(|byte| *byte == b' ');
    let permissions = fields.nth(1)?;
    let is_written = permissions.get(1) == Some(&b'w') && permissions.get(3) == Some(&b's');
    // The name behind it need not be text.
    let inode = fields.nth(2).filter(|_| is_written)?;
    std::str::from_utf8(inode).ok()?.parse().ok().filter(|inode| *inode != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shared_and_can_be_written_is_told_from_all_else() {
        for (line, inode) in [
            ("7f5d8a000000-7f5d8a008000 rw-s 00000000 fe:00 1234                       /a b", Some(1234)),
            ("7f5d8a000000-7f5d8a008000 -w-s 00001000 fe:00 1235 /a (deleted)", Some(1235)),
            ("7f5d8a000000-7f5d8a008000 r--s 00000000 fe:00 1234 /a", None),
            ("7f5d8a000000-7f5d8a008000 rw-p 00000000 fe:00 1234 /a", None),
            ("7f5d8a000000-7f5d8a008000 rw-s 00000000 00:00 0", None),
            ("7f5d8a000000-7f5d8a008000", None),
            ("", None),
        ] {
            assert_eq!(written_to(line.as_bytes()), inode, "{line}");
        }
    }

    #[test]
    fn a_name_that_is_no_text_does_not_hide_a_mapping() {
        let line = [&b"7f5d8a000000-7f5d8a008000 rw-s 00000000 fe:00 1234 /"[..], &[0xff, 0xfe], &[b'n'; 300]].concat();
        assert_eq!(written_to(&line), Some(1234));
    }
}
