//! The kinds of steps, and how often each is tried.

use proptest::prelude::*;

macro_rules! kinds {
    ($($weight:literal $kind:ident,)*) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) enum Kind { $($kind,)* }

        impl Kind {
            pub(crate) const ALL: &[Self] = &[$(Self::$kind,)*];

            fn weight(self) -> u32 {
                match self { $(Self::$kind => $weight,)* }
            }
        }
    };
}

// A history shrinks towards the first ones. The weights make up for what is refused, and hold back what takes long.
kinds! {
    // Looking.
    10 Read,
    10 Metadata,
    10 SymlinkMetadata,
    10 ReadLink,
    10 ReadDir,
    10 ListAfterCursor,
    14 StreamDirUnderChange,
    10 Usage,
    10 Summary,
    10 GetXattr,
    10 ListXattrs,
    10 HoldState,
    10 ReadHeldState,
    // Files and their names, by path.
    20 Write,
    12 WriteAt,
    12 Append,
    12 Shorten,
    12 Lengthen,
    12 PunchHole,
    16 CreateDir,
    16 CreateDirAll,
    16 Symlink,
    14 HardLink,
    12 RemoveFile,
    16 RemoveDir,
    10 RemoveAll,
    16 Rename,
    16 RenameOver,
    16 RenameNew,
    18 Exchange,
    14 Copy,
    16 CopyRange,
    14 CopyAll,
    10 SetMode,
    10 SetOwner,
    10 SetTimes,
    12 SetSymlinkAttributes,
    10 SetXattr,
    14 CreateXattr,
    20 ReplaceXattr,
    20 RemoveXattr,
    10 SetSettings,
    // Handles.
    22 OpenToWrite,
    10 OpenToRead,
    10 OpenCreate,
    16 OpenCreateNew,
    12 OpenTruncate,
    12 OpenAppend,
    12 OpenWithSettings,
    30 HandleWrite,
    14 HandleAppend,
    14 HandleSetLen,
    9 HandleRead,
    9 HandleSeekData,
    9 HandleSeekHole,
    9 HandleMetadata,
    14 HandleFlush,
    12 HandleSync,
    10 HandleClose,
    8 HandleDrop,
    14 RemoveWhileOpen,
    14 RenameOverWhileOpen,
    // Several at once.
    14 Transaction,
    10 TransactionDropped,
    12 TransactionConflict,
    12 TransactionRefused,
    14 Batch,
    12 BatchRefused,
    // Versions.
    14 LimitVersions,
    10 PruneVersions,
    10 History,
    14 ReadVersion,
    14 DiffVersions,
    18 RestoreVersion,
    // Snapshots.
    18 CreateSnapshot,
    10 ListSnapshots,
    12 ReadSnapshot,
    12 DiffSnapshot,
    18 RestorePath,
    12 RestoreSnapshot,
    12 RemoveSnapshot,
    // Keys.
    14 PutKey,
    10 GetKey,
    10 DeleteKey,
    10 ScanKeys,
    12 KeysAndFiles,
    12 PutInTable,
    12 DeleteInTable,
    // Upkeep, and what goes wrong.
    10 Checkpoint,
    10 Compact,
    10 CompactThorough,
    10 CompactCutShort,
    12 Defragment,
    10 DefragmentBeside,
    14 DefragmentCutOff,
    10 Check,
    10 Reopen,
    10 ReopenCold,
    10 DropCaches,
    10 Kill,
    10 PowerCut,
    12 PowerCutWithin,
    10 ReadBeside,
    12 WriteBeside,
}

/// One step: what its numbers mean is its kind's to say.
#[derive(Clone, Copy)]
pub(crate) struct Step {
    pub(crate) kind: Kind,
    pub(crate) dice: [u16; 6],
}

impl std::fmt::Debug for Step {
    /// On one line: there are many in what a failure prints.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let dice = self.dice.map(|number| number.to_string()).join(" ");
        write!(formatter, "{:?}({dice})", self.kind)
    }
}

/// A step as it is printed.
pub(crate) fn parse(text: &str) -> Option<Step> {
    let (name, dice) = text.strip_suffix(')')?.split_once('(')?;
    let kind = Kind::ALL.iter().copied().find(|kind| format!("{kind:?}") == name)?;
    let dice: Vec<u16> = dice.split(' ').map(|number| number.parse().ok()).collect::<Option<_>>()?;
    Some(Step { kind, dice: dice.try_into().ok()? })
}

pub(crate) fn step() -> impl Strategy<Value = Step> {
    // Not by weight of a union: that would shrink to whatever is lighter.
    let all: Vec<Kind> = Kind::ALL.iter().flat_map(|kind| (0..kind.weight()).map(|_| *kind)).collect();
    (proptest::sample::select(all), any::<[u16; 6]>()).prop_map(|(kind, dice)| Step { kind, dice })
}
