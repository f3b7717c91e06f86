/// Bytes that are not what the format says; for the one who asked, damage.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{structure}: {reason}")]
pub struct FormatError {
    /// The structure, in the words of `docs/format.md`: "header", "tree node", "commit".
    pub structure: &'static str,
    /// What is wrong with it.
    pub reason: String,
}

impl FormatError {
    /// An error of a structure.
    pub fn new(structure: &'static str, reason: impl Into<String>) -> Self {
        Self { structure, reason: reason.into() }
    }
}
