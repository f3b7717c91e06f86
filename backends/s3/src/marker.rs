//! The object beside the blobs that says that here is a storage, and what was found out when it was created.
//!
//! Like everything in the bucket it is believed for convenience alone: one that lies makes people be asked, and nothing else.

use std::fmt;

use strongroom_core::storage::probe::Evidence;

use crate::config::ConditionalPut;

/// Its name, after the prefix.
pub(crate) const NAME: &str = "strongroom-storage";

/// It is a few lines.
pub(crate) const BYTES_MAX: u64 = 4096;

const FIRST_LINE: &str = "strongroom storage 1";
const NATIVE: &str = "conditional-put native";
const NONE: &str = "conditional-put none";

/// What is written there.
#[derive(Debug)]
pub(crate) struct Marker {
    pub(crate) conditional_put: ConditionalPut,
    /// What stands behind it: for people to read.
    evidence: String,
}

/// It is of another program, or of a later version.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unknown;

impl Marker {
    pub(crate) fn proven(evidence: Evidence) -> Self {
        Self { conditional_put: ConditionalPut::Native, evidence: evidence.to_string() }
    }

    pub(crate) fn single_writer() -> Self {
        Self {
            conditional_put: ConditionalPut::SingleWriter,
            evidence: "one process alone may write here, as whoever made it promised".to_owned(),
        }
    }

    pub(crate) fn read(bytes: &[u8]) -> Result<Self, Unknown> {
        let text = std::str::from_utf8(bytes).map_err(|_| Unknown)?;
        let mut lines = text.lines();
        if lines.next() != Some(FIRST_LINE) {
            return Err(Unknown);
        }
        let conditional_put = match lines.next() {
            Some(NATIVE) => ConditionalPut::Native,
            Some(NONE) => ConditionalPut::SingleWriter,
            _ => return Err(Unknown),
        };
        Ok(Self { conditional_put, evidence: lines.collect() })
    }
}

impl fmt::Display for Marker {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let conditional_put = match self.conditional_put {
            ConditionalPut::Native => NATIVE,
            ConditionalPut::SingleWriter => NONE,
        };
        writeln!(formatter, "{FIRST_LINE}\n{conditional_put}\n{}", self.evidence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back_and_other_files_are_not_taken_for_it() {
        let read = |text: &str| Marker::read(text.as_bytes()).map(|marker| marker.conditional_put);
        assert_eq!(read(&Marker::single_writer().to_string()), Ok(ConditionalPut::SingleWriter));
        assert_eq!(read(&format!("{FIRST_LINE}\n{NATIVE}\nsince then\n")), Ok(ConditionalPut::Native));
        for text in ["", "strongroom storage 2\n", FIRST_LINE, "<html>"] {
            assert_eq!(read(text), Err(Unknown), "{text}");
        }
        assert!(Marker::single_writer().to_string().len() < 4096);
    }
}
