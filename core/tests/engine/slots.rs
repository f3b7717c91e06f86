//! Changes of slots: two at once, cut off at every call, and beside handles that stay open.

use std::pin::pin;
use std::sync::Arc;

use futures_lite::future::{block_on, poll_once};
use strongroom_conformance::Dice;
use strongroom_conformance::crash::{CrashOptions, CrashingStorage, Fault, Loss};
use strongroom_core::crypto::{SecretBytes, Suite};
use strongroom_core::engine::keyring::{self, CopyState, Credentials, Header, NewSlot, RecoveryKey, SlotInfo};
use strongroom_core::engine::{Engine, OpenOptions, Unlock};
use strongroom_core::env::Env;
use strongroom_core::format::slot::Factors;
use strongroom_core::format::well_known::HeaderId;
use strongroom_core::storage::{ErrorKind, Name, Storage};
use strongroom_core::{Error, Result};

use crate::support::{Bed, assert_clean, get, put};

const OLD: &str = "correct horse";

fn password(text: &str) -> Credentials {
    Credentials::password(text)
}

async fn open_at(storage: CrashingStorage, credentials: &Credentials, read_only: bool) -> Result<Engine> {
    let mut options = OpenOptions::new(Unlock::Credentials(credentials));
    options.read_only = read_only;
    Engine::open(Arc::new(storage), Env::deterministic(77), options).await
}

async fn open(bed: &Bed, credentials: &Credentials) -> Result<Engine> {
    open_at(bed.storage.reopen(), credentials, false).await
}

async fn add(engine: &Engine, text: &str) -> Result<Vec<SlotInfo>> {
    engine.add_slot(&NewSlot { credentials: &password(text), label: text }).await
}

fn header_generations(bed: &Bed) -> Vec<u64> {
    let blobs = bed.storage.snapshot_blobs();
    let mut generations: Vec<u64> =
        blobs.keys().filter_map(|name| HeaderId::from_name(name.as_bytes())).map(|id| id.generation).collect();
    generations.dedup();
    generations
}

fn name(generation: u64, copy: u8) -> Name {
    Name::new(HeaderId { generation, copy }.name().unwrap())
}

#[test]
fn every_kind_of_slot_is_added_opens_is_listed_and_is_removed() {
    block_on(async {
        let (bed, engine) = Bed::new(1, 4096, Suite::Aes256Gcm, CrashOptions::default()).await;
        put(&engine, b"a", b"1").await.unwrap();
        let file = |byte: u8| SecretBytes::new(vec![byte; 32]);
        let recovery = RecoveryKey::generate(&Env::deterministic(5)).unwrap();
        let kinds = [
            (password("second"), Factors::PASSWORD),
            (Credentials::key_file(file(1)), Factors::KEY_FILE),
            (password("with a file").and_key_file(file(2)), Factors::PASSWORD.and(Factors::KEY_FILE)),
            (Credentials::recovery(&recovery), Factors::RECOVERY),
        ];
        for (credentials, factors) in &kinds {
            let slots = engine.add_slot(&NewSlot { credentials, label: &factors.to_string() }).await.unwrap();
            let last = slots.last().unwrap();
            assert_eq!((last.factors, last.label.clone()), (*factors, factors.to_string()));
        }
        for (credentials, factors) in &kinds {
            let other = open(&bed, credentials).await.unwrap();
            assert_eq!(get(&other, b"a").await.unwrap().unwrap(), "1");
            let slot = other.slot_in_use().await.unwrap().unwrap();
            assert_eq!(slot.factors, *factors);
            assert_eq!(other.slots().await.unwrap(), engine.slots().await.unwrap());
            other.remove_slot(&slot).await.unwrap();
            assert!(matches!(open(&bed, credentials).await, Err(Error::WrongCredentials)));
            assert_eq!(other.slot_in_use().await.unwrap(), None);
            assert_clean(&other).await;
        }
        let [only] = engine.slots().await.unwrap().try_into().unwrap();
        assert!(matches!(engine.remove_slot(&only).await, Err(Error::Invalid(_))));
        assert!(open(&bed, &password(OLD)).await.is_ok());
        assert_eq!(header_generations(&bed).len(), 1);
    });
}

#[test]
fn what_gets_no_slot_is_refused_and_changes_nothing() {
    block_on(async {
        let (bed, engine) = Bed::new(2, 4096, Suite::Aes256Gcm, CrashOptions::default()).await;
        add(&engine, "second").await.unwrap();
        let before = bed.storage.snapshot_blobs();
        let short = Credentials::key_file(SecretBytes::new(vec![1; 31]));
        let label = "x".repeat(49);
        let slots = engine.slots().await.unwrap();
        for (refused, what) in [
            (engine.add_slot(&NewSlot { credentials: &password("second"), label: "" }).await, "opens a slot already"),
            (
                engine.replace_slot(&slots[0], &NewSlot { credentials: &password("second"), label: "" }).await,
                "likewise",
            ),
            (engine.add_slot(&NewSlot { credentials: &short, label: "" }).await, "short"),
            (engine.add_slot(&NewSlot { credentials: &Credentials::default(), label: "" }).await, "nothing"),
        ] {
            assert!(matches!(refused, Err(Error::Invalid(_))), "{what}: {refused:?}");
        }
        let long = engine.add_slot(&NewSlot { credentials: &password("third"), label: &label }).await;
        assert!(matches!(long, Err(Error::LimitExceeded { what: "slot_label_bytes", .. })));
        assert_eq!(bed.storage.snapshot_blobs(), before);

        for number in 2..8 {
            add(&engine, &number.to_string()).await.unwrap();
        }
        let before = bed.storage.snapshot_blobs();
        assert!(matches!(add(&engine, "ninth").await, Err(Error::LimitExceeded { what: "slots_count", .. })));
        assert_eq!(bed.storage.snapshot_blobs(), before);
    });
}

#[test]
fn whoever_chose_a_slot_means_what_it_was_then() {
    block_on(async {
        let (bed, engine) = Bed::new(3, 4096, Suite::Aes256Gcm, CrashOptions::default()).await;
        let other = open(&bed, &password(OLD)).await.unwrap();
        let chosen = other.slot_in_use().await.unwrap().unwrap();
        let same = engine.slots().await.unwrap().remove(0);
        engine.replace_slot(&same, &NewSlot { credentials: &password("theirs"), label: "" }).await.unwrap();
        let mine = other.replace_slot(&chosen, &NewSlot { credentials: &password("mine"), label: "" }).await;
        assert!(matches!(mine, Err(Error::Conflict)), "another process's change of password would be lost");
        assert!(matches!(other.remove_slot(&chosen).await, Err(Error::Conflict)));
        assert_eq!(other.slot_in_use().await.unwrap(), None);
        assert!(open(&bed, &password("theirs")).await.is_ok());
    });
}

#[test]
fn a_handle_that_stays_open_goes_on_after_others_changed_the_slots() {
    block_on(async {
        let (bed, engine) = Bed::new(4, 4096, Suite::Aes256Gcm, CrashOptions::default()).await;
        let reader = open_at(bed.storage.reopen(), &password(OLD), true).await.unwrap();
        let other = open(&bed, &password(OLD)).await.unwrap();
        add(&other, "second").await.unwrap();
        let slot = other.slot_in_use().await.unwrap().unwrap();
        other.remove_slot(&slot).await.unwrap();
        // Neither has learnt of it: the header that they know is gone, and that is no damage.
        assert_clean(&reader).await;
        assert_clean(&engine).await;
        put(&engine, b"a", b"1").await.unwrap();
        add(&engine, "third").await.unwrap();
        assert_clean(&engine).await;
        let calls = bed.storage.calls().mutating();
        assert_eq!(reader.slots().await.unwrap().len(), 2);
        assert!(matches!(add(&reader, "fourth").await, Err(Error::ReadOnly)));
        assert_eq!(bed.storage.calls().mutating(), calls, "reading the slots writes nothing");
        for (text, opens) in [(OLD, false), ("second", true), ("third", true)] {
            assert_eq!(open(&bed, &password(text)).await.is_ok(), opens, "{text}");
        }
    });
}

/// Polls two futures in an order that the seed decides, until both are done.
async fn interleave<T>(seed: u64, one: impl Future<Output = T>, two: impl Future<Output = T>) -> (T, T) {
    let (mut one, mut two, mut dice) = (pin!(one), pin!(two), Dice::new(seed));
    let (mut first, mut second) = (None, None);
    while first.is_none() || second.is_none() {
        if second.is_some() || (first.is_none() && dice.below(2) == 0) {
            first = poll_once(one.as_mut()).await;
        } else {
            second = poll_once(two.as_mut()).await;
        }
    }
    (first.unwrap(), second.unwrap())
}

#[test]
fn two_changes_at_once_both_end_up_in_the_header() {
    block_on(async {
        for seed in 0..24 {
            let options = CrashOptions { yields: true, ..CrashOptions::default() };
            let (bed, engine) = Bed::new(seed, 4096, Suite::Aes256Gcm, options).await;
            let other = open(&bed, &password(OLD)).await.unwrap();
            let (one, two) = interleave(seed, add(&engine, "one"), add(&other, "two")).await;
            one.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            two.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            assert_clean(&engine).await;
            drop((engine, other));
            for text in [OLD, "one", "two"] {
                let engine = open(&bed, &password(text)).await.unwrap_or_else(|error| panic!("{seed} {text}: {error}"));
                assert_eq!(engine.slots().await.unwrap().len(), 3);
            }
            assert_eq!(header_generations(&bed).len(), 1, "seed {seed}");
        }
    });
}

#[test]
fn opening_while_slots_change_is_neither_rollback_nor_damage() {
    block_on(async {
        for seed in 0..24 {
            let options = CrashOptions { yields: true, ..CrashOptions::default() };
            let (bed, engine) = Bed::new(seed, 4096, Suite::Aes256Gcm, options).await;
            let (storage, credentials) = (bed.storage.reopen(), password(OLD));
            let changes = async {
                for text in ["one", "two", "three"] {
                    add(&engine, text).await?;
                }
                Ok(engine.clone())
            };
            let opens = open_at(storage, &credentials, seed % 2 == 0);
            let (changed, opened) = interleave(seed, changes, opens).await;
            changed.unwrap();
            let opened = opened.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            assert_eq!(opened.slots().await.unwrap().len(), 4);
            assert_clean(&opened).await;
        }
    });
}

#[derive(Clone, Copy, Debug)]
enum Change {
    Add,
    Replace,
    Remove,
}

impl Change {
    async fn run(self, engine: &Engine) -> Result<()> {
        let new = password("new");
        let new = NewSlot { credentials: &new, label: "" };
        let slots = engine.slots().await?;
        match self {
            Self::Add => engine.add_slot(&new).await,
            Self::Replace => engine.replace_slot(&slots[0], &new).await,
            Self::Remove => engine.remove_slot(&slots[0]).await,
        }
        .map(|_| ())
    }

    /// Which of the credentials (the old one, the new one) open before and after it; a third opens always.
    const fn opens(self) -> [[bool; 2]; 2] {
        match self {
            Self::Add => [[true, false], [true, true]],
            Self::Replace => [[true, false], [false, true]],
            Self::Remove => [[true, false], [false, false]],
        }
    }
}

/// Which of old and new credentials open, and whether everything is as it must be whichever do.
async fn state(bed: &Bed, when: &str) -> [bool; 2] {
    let mut opens = [false; 2];
    // As the first one after a crash may find it: a stray header beside the one in force.
    for (opens, text) in opens.iter_mut().zip([OLD, "new"]) {
        *opens = match open_at(bed.storage.reopen(), &password(text), true).await {
            Ok(engine) => {
                assert_eq!(get(&engine, b"a").await.unwrap().unwrap(), "1", "{when}");
                true
            }
            Err(Error::WrongCredentials | Error::RolledBack { .. }) => false,
            Err(error) => panic!("{when}: {error}"),
        };
    }
    let writer = open(bed, &password("always")).await.unwrap_or_else(|error| panic!("{when}: {error}"));
    assert_clean(&writer).await;
    // A writer cleans up: no older header is left that a removed credential opens.
    let in_force = writer.header().await.unwrap().generation();
    assert!(header_generations(bed).iter().all(|generation| *generation >= in_force), "{when}");
    for (opens, text) in opens.iter().zip([OLD, "new"]) {
        let now = open_at(bed.storage.reopen(), &password(text), true).await;
        assert_eq!(now.is_ok(), *opens, "{when}");
        assert!(*opens || matches!(now, Err(Error::WrongCredentials)), "{when}: {:?}", now.err());
    }
    opens
}

#[test]
fn a_change_that_is_cut_off_at_any_call_leaves_old_or_new_never_neither() {
    block_on(async {
        for change in [Change::Add, Change::Replace, Change::Remove] {
            for fault in [Fault::LostRequest, Fault::LostReply, Fault::NotDurable] {
                let (mut seen, mut calls) = ([0, 0], 0);
                loop {
                    let (bed, engine) = Bed::new(9, 4096, Suite::Aes256Gcm, CrashOptions::default()).await;
                    put(&engine, b"a", b"1").await.unwrap();
                    add(&engine, "always").await.unwrap();
                    engine.close().await.unwrap();
                    let dying = bed.storage.reopen();
                    let engine = open_at(dying.another(), &password("always"), false).await.unwrap();
                    dying.cut_off_after(calls, fault);
                    let done = change.run(&engine).await.is_ok();
                    let alive = !dying.is_dead() && done;
                    bed.storage.crash(calls);
                    let when = format!("{change:?}, {fault:?} after {calls} calls");
                    let opens = state(&bed, &when).await;
                    let after = change.opens().iter().position(|expected| *expected == opens);
                    let after = after.unwrap_or_else(|| panic!("{when}: {opens:?}"));
                    assert!(!done || after == 1, "{when}: it was answered and is lost");
                    seen[after] += 1;
                    calls += 1;
                    if alive {
                        break;
                    }
                }
                assert!(seen[0] > 0 && seen[1] > 0, "{change:?} {fault:?}: {seen:?}");
            }
        }
    });
}

#[test]
fn the_old_header_goes_only_after_the_commit_that_replaced_it_is_durable() {
    block_on(async {
        let mut reached = false;
        for seed in 0..48 {
            let (bed, engine) = Bed::new(10, 4096, Suite::Aes256Gcm, CrashOptions::default()).await;
            put(&engine, b"a", b"1").await.unwrap();
            add(&engine, "always").await.unwrap();
            engine.close().await.unwrap();
            // The one who changes the slots dies when its commit is visible and not durable.
            let dying = bed.storage.reopen();
            let engine = open_at(dying.another(), &password("always"), false).await.unwrap();
            dying.cut_off_after(2, Fault::NotDurable);
            assert!(Change::Replace.run(&engine).await.is_err());
            // The next one tidies up after it, and dies too; then the power fails.
            let next = bed.storage.reopen();
            next.cut_off_after(seed % 8, Fault::LostReply);
            reached |= open_at(next.another(), &password("always"), false).await.is_ok();
            bed.storage.crash(seed);
            let opens = state(&bed, &format!("seed {seed}")).await;
            assert!(Change::Replace.opens().contains(&opens), "seed {seed}: {opens:?}");
        }
        assert!(reached);
    });
}

#[test]
fn a_change_that_fails_at_any_call_leaves_nothing_behind_and_can_be_tried_again() {
    block_on(async {
        for fault in [Fault::Refused(ErrorKind::Full), Fault::LostRequest, Fault::LostReply] {
            let mut call = 0;
            loop {
                call += 1;
                let (bed, engine) = Bed::new(11, 4096, Suite::Aes256Gcm, CrashOptions::default()).await;
                put(&engine, b"a", b"1").await.unwrap();
                add(&engine, "always").await.unwrap();
                let (before, calls) = (header_generations(&bed), bed.storage.calls().all());
                bed.storage.fail_call(call, fault);
                let changed = Change::Replace.run(&engine).await;
                let spent = bed.storage.calls().all() - calls;
                bed.storage.clear_faults();
                let when = format!("{fault:?} at call {call}");
                match changed {
                    Ok(()) => {}
                    Err(Error::CommitUnknown { .. }) => engine.flush().await.unwrap(),
                    Err(Error::Damaged(damage)) => panic!("{when}: a fault looks like damage: {damage}"),
                    Err(_) => assert_eq!(header_generations(&bed), before, "{when}"),
                }
                assert_clean(&engine).await;
                let in_force = engine.slots().await.unwrap();
                engine
                    .replace_slot(&in_force[0], &NewSlot { credentials: &password("last"), label: "" })
                    .await
                    .unwrap();
                for (text, opens) in [(OLD, false), ("new", false), ("last", true), ("always", true)] {
                    assert_eq!(open(&bed, &password(text)).await.is_ok(), opens, "{when}: {text}");
                }
                assert_eq!(header_generations(&bed).len(), 1, "{when}");
                if call > spent {
                    break;
                }
            }
        }
    });
}

async fn import(bed: &Bed, header: &Header, text: &str) -> Result<Vec<CopyState>> {
    let credentials = password(text);
    let options = OpenOptions::new(Unlock::Credentials(&credentials));
    let storage: Arc<dyn Storage> = Arc::new(bed.storage.reopen());
    let import = Engine::import_header(storage, Env::deterministic(3), header, options).await?;
    assert_eq!(import.generation, header.generation());
    Ok(import.found)
}

#[test]
fn an_exported_header_repairs_what_is_lost_or_damaged_and_leaves_the_rest() {
    block_on(async {
        let (bed, engine) = Bed::new(12, 8192, Suite::Aes256Gcm, CrashOptions::default()).await;
        put(&engine, b"a", b"1").await.unwrap();
        add(&engine, "second").await.unwrap();
        let header = Header::from_content(engine.header().await.unwrap().content()).unwrap();
        engine.close().await.unwrap();
        let whole = bed.storage.snapshot_blobs();
        for case in 0..16_u64 {
            // Each copy: intact, missing, damaged in its content, damaged in its fill.
            for copy in 0..2_u8 {
                let name = name(header.generation(), copy);
                let mut blob = whole[&name].to_vec();
                match case >> (2 * copy) & 3 {
                    0 => continue,
                    1 => bed.storage.remove(name),
                    damage => {
                        blob[if damage == 2 { 200 } else { 6000 }] ^= 1;
                        bed.storage.overwrite(name, blob.into());
                    }
                }
            }
            let kept = bed.storage.snapshot_blobs();
            for wrong in ["wrong", ""] {
                assert!(import(&bed, &header, wrong).await.is_err());
            }
            assert_eq!(bed.storage.snapshot_blobs(), kept, "who cannot open it changes nothing");
            let found = import(&bed, &header, OLD).await.unwrap_or_else(|error| panic!("case {case}: {error}"));
            for (copy, state) in found.iter().enumerate() {
                assert_eq!(*state == CopyState::Intact, case >> (2 * copy) & 3 == 0, "case {case} copy {copy}");
            }
            assert_eq!(bed.storage.snapshot_blobs(), whole, "case {case}");
            let engine = open(&bed, &password("second")).await.unwrap();
            assert_clean(&engine).await;
            drop(engine);
            bed.storage.restore(whole.clone());
        }
    });
}

#[test]
fn a_header_that_is_not_in_force_is_not_imported() {
    block_on(async {
        let (bed, engine) = Bed::new(13, 4096, Suite::Aes256Gcm, CrashOptions::default()).await;
        let first = engine.header().await.unwrap();
        let slot = engine.slots().await.unwrap().remove(0);
        engine.replace_slot(&slot, &NewSlot { credentials: &password("new"), label: "" }).await.unwrap();
        let second = engine.header().await.unwrap();
        engine.close().await.unwrap();
        for lost in [false, true] {
            if lost {
                (0..2).for_each(|copy| bed.storage.remove(name(second.generation(), copy)));
            }
            let before = bed.storage.snapshot_blobs();
            // Replayed: it would revive a password that was changed.
            assert!(matches!(import(&bed, &first, OLD).await, Err(Error::RolledBack { .. })));
            assert!(matches!(import(&bed, &second, OLD).await, Err(Error::WrongCredentials)));
            // Of another repository.
            let (_, theirs) = Bed::new(14, 4096, Suite::Aes256Gcm, CrashOptions::default()).await;
            let foreign = import(&bed, &theirs.header().await.unwrap(), OLD).await;
            assert!(matches!(foreign, Err(Error::Invalid(_) | Error::Damaged(_))), "{foreign:?}");
            assert_eq!(bed.storage.snapshot_blobs(), before);
        }
        assert_eq!(import(&bed, &second, "new").await.unwrap(), [CopyState::Missing, CopyState::Missing]);
        assert!(open(&bed, &password("new")).await.is_ok());

        // Written by a change that died: no commit names it.
        let engine = open(&bed, &password("new")).await.unwrap();
        let (env, root) = (Env::deterministic(4), engine.root_secret());
        let header = engine.header().await.unwrap();
        let edit = keyring::HeaderEdit { env: &env, header: &header, root: &root, generation: 9 };
        let stray = edit.add(&NewSlot { credentials: &password("stray"), label: "" }).await.unwrap();
        assert!(matches!(import(&bed, &stray, "stray").await, Err(Error::RolledBack { .. })));

        let empty = CrashingStorage::new(CrashOptions::default());
        let (credentials, storage): (_, Arc<dyn Storage>) = (password("new"), Arc::new(empty.another()));
        let options = OpenOptions::new(Unlock::Credentials(&credentials));
        let nowhere = Engine::import_header(storage, Env::deterministic(3), &second, options).await;
        assert!(matches!(nowhere, Err(Error::NotARepository)));
    });
}

#[test]
fn an_import_that_is_cut_off_at_any_call_can_be_repeated() {
    block_on(async {
        let (bed, engine) = Bed::new(15, 4096, Suite::Aes256Gcm, CrashOptions::default()).await;
        let header = engine.header().await.unwrap();
        engine.close().await.unwrap();
        let whole = bed.storage.snapshot_blobs();
        let mut done = false;
        for calls in 0.. {
            bed.storage.remove(name(1, 0));
            let mut blob = whole[&name(1, 1)].to_vec();
            blob[100] ^= 1;
            bed.storage.overwrite(name(1, 1), blob.into());
            let dying = bed.storage.reopen();
            dying.cut_off_after(calls, Fault::NotDurable);
            let credentials = password(OLD);
            let options = OpenOptions::new(Unlock::Credentials(&credentials));
            let storage: Arc<dyn Storage> = Arc::new(dying.another());
            done |= Engine::import_header(storage, Env::deterministic(3), &header, options).await.is_ok();
            bed.storage.crash(calls);
            import(&bed, &header, OLD).await.unwrap();
            assert_eq!(bed.storage.snapshot_blobs(), whole);
            if done {
                assert!(calls > 2);
                break;
            }
        }
    });
}

#[test]
fn an_import_that_meets_a_change_deletes_nothing_that_power_loss_can_put_in_force_again() {
    block_on(async {
        let mut met = 0;
        for seed in 0..96 {
            let options = CrashOptions { yields: true, ..CrashOptions::default() };
            let (bed, engine) = Bed::new(16, 4096, Suite::Aes256Gcm, options).await;
            put(&engine, b"a", b"1").await.unwrap();
            add(&engine, "always").await.unwrap();
            let header = engine.header().await.unwrap();
            engine.close().await.unwrap();
            let dying = bed.storage.reopen();
            let engine = open_at(dying.another(), &password("always"), false).await.unwrap();
            dying.cut_off_after(2, Fault::NotDurable);
            let change = async { Change::Replace.run(&engine).await.map(|()| Vec::new()) };
            let (changed, imported) = interleave(seed, change, import(&bed, &header, "always")).await;
            assert!(changed.is_err());
            met += u32::from(matches!(imported, Err(Error::Conflict)));
            bed.storage.crash_with(if seed % 2 == 0 { Loss::Everything } else { Loss::Seeded(seed) });
            let opens = state(&bed, &format!("seed {seed}")).await;
            assert!(Change::Replace.opens().contains(&opens), "seed {seed}: {opens:?}");
        }
        assert!(met > 0);
    });
}
