//! What is said of files that a sync client has left among the blobs.

use strongroom::storage::Stray;

use crate::output::shown;

/// A command that writes looks for them beside so many of the newest commits, and in a few other places.
pub(crate) const COMMITS_LOOKED_AT: u64 = 4;

/// Files with the name of a blob and more.
#[derive(Debug, Default)]
pub(crate) struct Strays(pub(crate) Vec<Stray>);

impl Strays {
    /// Copies of blobs, if there are any, and what to do.
    pub(crate) fn copies(&self) -> Option<String> {
        let (count, first) = self.some(true)?;
        Some(format!(
            "beside the blobs lie {count} conflicted copies ({first}): a sync client made them, because two devices wrote \
             before each had what the other did; `fork list` shows what came of it, and until it is settled write nothing"
        ))
    }

    /// Blobs that have not come whole, if there are any.
    pub(crate) fn unfinished(&self) -> Option<String> {
        let (count, first) = self.some(false)?;
        Some(format!(
            "beside the blobs lie {count} unfinished files ({first}): if a sync client is at work, wait until it is done"
        ))
    }

    pub(crate) fn count(&self, are_copies: bool) -> usize {
        self.0.iter().filter(|stray| stray.is_copy == are_copies).count()
    }

    fn some(&self, are_copies: bool) -> Option<(usize, String)> {
        let mut of_kind = self.0.iter().filter(|stray| stray.is_copy == are_copies);
        let first = of_kind.next()?;
        Some((1 + of_kind.count(), shown(first.called.as_bytes())))
    }
}
