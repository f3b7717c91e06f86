//! The table: each way to break a clause, and which other clauses depend on what it breaks.

use strongroom_conformance::crash::CrashOptions;
use strongroom_core::storage::Torn;

/// One thing that a storage does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Defect {
    /// None: it is correct.
    None,
    /// S1: a put of a taken name replaces what is there, and answers `Exists`.
    ReplacesWhatIsThere,
    /// S1: a put of a taken name answers `Created`.
    CallsTakenCreated,
    /// S1: a durable put of a taken name replaces what is there where the length differs.
    ReplacesOtherLengths,
    /// S1: a put can be seen in halves by other threads, and at no await.
    SeenInHalves,
    /// S2: put-if-absent holds among the puts of one handle only.
    PutIfAbsentByHandle,
    /// S2: put-if-absent holds among the puts of one process only, and more is claimed.
    PutIfAbsentByProcess,
    /// S2: a put looks whether the name is free, and is put a moment later.
    LooksThenPuts,
    /// S3: parts that do not begin at 0 come with a flipped bit.
    WrongBytesInTheMiddle,
    /// S3: a range past the end gives what there is of it.
    RangePastTheEnd,
    /// S3: the maximum of the caller is ignored.
    RepliesOverTheMaximum,
    /// S3: an empty range at the end is refused.
    RefusesTheEmptyRange,
    /// S4: no bytes of an absent blob are no bytes.
    NothingOfNothing,
    /// S4: an absent blob is 0 bytes long.
    AbsentHasSizeZero,
    /// S4: an absent name is persisted.
    PersistsTheAbsent,
    /// S5: a handle remembers the lengths of blobs that another has deleted since.
    RemembersLengths,
    /// S5: a handle does not list what others put after it was opened.
    ListsFromBefore,
    /// S6: an absent name cannot be deleted.
    RefusesToDeleteTheAbsent,
    /// S6: a name that was deleted stays taken.
    NamesStayTaken,
    /// S7: a page begins with the name that it was to begin after.
    ListsTwice,
    /// S7: the first name of every page but the first is missed.
    ListsTooLittle,
    /// S7: the prefix is ignored.
    IgnoresThePrefix,
    /// S7: the names of a page are descending.
    ListsBackwards,
    /// S8: a batch deletes first, then puts.
    DeletesFirst,
    /// S8: there is an outcome for each change, deletions too.
    OutcomesOfDeletions,
    /// S8: a batch that is called atomic does what comes before the failure.
    HalfOfWhatFails,
    /// S8: a batch that is called atomic is several changes to a crash.
    HalfOfWhatCrashes,
    /// S9: `sync` does nothing.
    SyncLies,
    /// S9: `put_durable` is a plain put.
    PutDurableLies,
    /// S9: `persist` only looks.
    PersistLies,
    /// S9: `persist` only looks, where all is one log and any other barrier covers what it should have.
    PersistLiesInALog,
    /// S9: `sync` does nothing, where all is one log.
    SyncLiesInALog,
    /// S9: `sync` covers what was put through its own handle, and nothing of others in its process.
    SyncByHandle,
    /// S9: `sync` does not cover the deletion of a blob that fills a page.
    SyncForgetsDeletions,
    /// S9: a durable put is visible before all of it is there.
    DurableInHalves,
    /// S10: it says that nothing is torn, and power loss tears.
    TornAllTheSame,
    /// S10: the same of a log, whose end alone can be torn.
    TornAtTheEndOfALog,
    /// S10: after power loss that left something torn, what is put stands behind it, and is not found again.
    AppendsBehindATornTail,
    /// S10: the same after a process died.
    AppendsBehindTheDead,
    /// S10: a put is visible before all of it is there.
    VisibleInHalves,
    /// S11: a put whose reply was lost is said to have had no effect.
    ClaimsNoEffect,
    /// S11: a durable put whose reply was lost is said to have had no effect.
    ClaimsNoDurableEffect,
    /// S11: the same of a deletion.
    ClaimsNoDeletion,
    /// S11: the same of barriers.
    ClaimsNoBarrier,
    /// S11: where a reply was lost, a retry is said to be useless.
    GivesUpLostReplies,
    /// S11: a put that is refused for its length takes effect.
    RefusesAndStores,
    /// S11: errors do not say on what.
    NoContext,
    /// S11: errors tell to try again what will never succeed.
    RetriesInVain,
    /// S12: a put that is dropped leaves half a blob.
    DroppedInHalves,
    /// S12: after a put was dropped nothing can be put.
    BusyAfterADrop,
    /// S13: the empty blob is refused.
    RefusesTheEmpty,
    /// S13: a blob of exactly the largest length is refused.
    RefusesTheLargest,
    /// S13: names that look like paths are refused.
    RefusesPaths,
    /// S13: blobs over the largest length are stored.
    StoresTheTooLarge,
    /// S13: blobs far over the largest length break the connection.
    BreaksOnTheFarTooLarge,
    /// S14: a thread that has a call open cannot make another one.
    OneCallAThread,
    /// S14: exclusive access is given to everyone.
    EveryoneIsAlone,
    /// S14: exclusive access does not keep anybody waiting.
    NewcomersDoNotWait,
    /// S14: who waited for a guard counts for nobody afterwards.
    NewcomersDoNotCount,
    /// S14: exclusive access is given to who is alone in its process.
    AloneInItsProcess,
    /// S14: exclusive access does not end with its guard.
    NeverGivesUp,
}

/// What stands in the table for a defect.
pub(crate) struct Row {
    pub(crate) defect: Defect,
    /// The clause that it breaks.
    pub(crate) clause: u32,
    /// The clauses that must fail with it, because they need what it breaks.
    pub(crate) dependents: &'static [u32],
}

const fn row(defect: Defect, clause: u32, dependents: &'static [u32]) -> Row {
    Row { defect, clause, dependents }
}

/// Every defect once.
pub(crate) const TABLE: &[Row] = &[
    row(Defect::ReplacesWhatIsThere, 1, &[2]), // the loser of a race replaces what the winner put
    row(Defect::CallsTakenCreated, 1, &[2]),   // everyone wins a race
    row(Defect::ReplacesOtherLengths, 1, &[]),
    row(Defect::SeenInHalves, 1, &[12]), // a future that is dropped stays there
    row(Defect::PutIfAbsentByHandle, 2, &[]),
    row(Defect::PutIfAbsentByProcess, 2, &[]),
    row(Defect::LooksThenPuts, 2, &[]),
    row(Defect::WrongBytesInTheMiddle, 3, &[]),
    row(Defect::RangePastTheEnd, 3, &[11]),       // S11 looks at this error too
    row(Defect::RepliesOverTheMaximum, 3, &[11]), // and at this one
    row(Defect::RefusesTheEmptyRange, 3, &[]),
    row(Defect::NothingOfNothing, 4, &[]),
    row(Defect::AbsentHasSizeZero, 4, &[1, 5, 9, 11, 13]), // all ask by size whether a blob is there
    row(Defect::PersistsTheAbsent, 4, &[11]),              // S11 looks at this error too
    row(Defect::RemembersLengths, 5, &[]),
    row(Defect::ListsFromBefore, 5, &[]),
    row(Defect::RefusesToDeleteTheAbsent, 6, &[]),
    row(Defect::NamesStayTaken, 6, &[9, 13]), // they put again what they deleted
    row(Defect::ListsTwice, 7, &[]),
    row(Defect::ListsTooLittle, 7, &[]),
    row(Defect::IgnoresThePrefix, 7, &[]),
    row(Defect::ListsBackwards, 7, &[]),
    row(Defect::DeletesFirst, 8, &[]),
    row(Defect::OutcomesOfDeletions, 8, &[]),
    row(Defect::HalfOfWhatFails, 8, &[]),
    row(Defect::HalfOfWhatCrashes, 8, &[]),
    row(Defect::SyncLies, 9, &[]),
    row(Defect::PutDurableLies, 9, &[]),
    row(Defect::PersistLies, 9, &[10]), // what is persisted may not be torn
    row(Defect::PersistLiesInALog, 9, &[]),
    row(Defect::SyncLiesInALog, 9, &[8]), // S8 needs a state that power loss leaves as it is
    row(Defect::SyncByHandle, 9, &[]),
    row(Defect::SyncForgetsDeletions, 9, &[]),
    row(Defect::DurableInHalves, 9, &[12]), // a future that is dropped stays there
    row(Defect::TornAllTheSame, 10, &[]),
    row(Defect::TornAtTheEndOfALog, 10, &[8]), // a batch that is kept is kept whole
    row(Defect::AppendsBehindATornTail, 10, &[]),
    row(Defect::AppendsBehindTheDead, 10, &[9]), // the next one that dies put it there too
    row(Defect::VisibleInHalves, 10, &[1, 9, 12]), // others look meanwhile; a future that is dropped is a small death
    row(Defect::ClaimsNoEffect, 11, &[]),
    row(Defect::ClaimsNoDurableEffect, 11, &[]),
    row(Defect::ClaimsNoDeletion, 11, &[]),
    row(Defect::ClaimsNoBarrier, 11, &[]),
    row(Defect::GivesUpLostReplies, 11, &[]),
    row(Defect::RefusesAndStores, 11, &[13]), // S13 looks whether it is there too
    row(Defect::NoContext, 11, &[]),
    row(Defect::RetriesInVain, 11, &[4]), // S4 looks at effect and retry of its errors too
    row(Defect::DroppedInHalves, 12, &[1, 9]), // what is left half done when dropped is seen so before
    row(Defect::BusyAfterADrop, 12, &[]),
    row(Defect::RefusesTheEmpty, 13, &[1, 7]), // they put empty blobs
    row(Defect::RefusesTheLargest, 13, &[]),
    row(Defect::RefusesPaths, 13, &[]),
    row(Defect::StoresTheTooLarge, 13, &[11]), // S11 looks at this error too
    row(Defect::BreaksOnTheFarTooLarge, 13, &[]),
    row(Defect::OneCallAThread, 14, &[]),
    row(Defect::EveryoneIsAlone, 14, &[]),
    row(Defect::NewcomersDoNotWait, 14, &[]),
    row(Defect::NewcomersDoNotCount, 14, &[]),
    row(Defect::AloneInItsProcess, 14, &[]),
    row(Defect::NeverGivesUp, 14, &[]),
];

impl Defect {
    /// What the correct storage under it is like: small, so that the largest blob is quickly written.
    pub(crate) fn options(self) -> CrashOptions {
        let mut options = match self {
            Self::HalfOfWhatFails | Self::HalfOfWhatCrashes => CrashOptions::atomic(),
            Self::PersistLiesInALog | Self::SyncLiesInALog | Self::TornAtTheEndOfALog => CrashOptions::atomic(),
            _ => CrashOptions::default(),
        };
        if self == Self::TornAtTheEndOfALog {
            options.capabilities.torn = Torn::BeforeSync;
        }
        options.capabilities.block_bytes_max = 256 * 1024;
        options
    }
}
