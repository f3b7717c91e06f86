/// Scheme -> constructor (in work).
#[derive(Default)]
pub struct Registry;
/// (in work)
pub trait StorageConstructor {}
/// Whether `open` may create the place itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// It must be there already.
    Existing,
    /// It is created where it is absent (the folder, file or bucket prefix; not a repository in it).
    CreateIfMissing,
}
