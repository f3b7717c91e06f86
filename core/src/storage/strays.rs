use super::Name;

/// Something that lies among the blobs under a name which is a blob's and more, as what carries files from one machine to another
/// leaves it: what had lost where two machines had put one name, or what has not come whole. It is no blob, whatever it holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stray {
    /// The blob that it is named after.
    pub name: Name,
    /// What it is called, for people.
    pub called: String,
    /// Whether it may be another content of that blob, whole; else it is what was only begun.
    pub is_copy: bool,
}

/// How far strays are looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StraysSought {
    /// All of them.
    All,
    /// Those beside these blobs, and in a few other places, which are others each time: at a cost that does not grow with the
    /// storage.
    Near(Vec<Name>),
}
