//! Random histories by seed on the flaky and the hostile double, against the in-memory model.
//!
//! `STRONGROOM_CASES=N` runs so many, `STRONGROOM_SEED=N` this one alone: a failure prints it.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures_lite::future::block_on;
use strongroom_conformance::Dice;
use strongroom_conformance::crash::{CrashOptions, CrashingStorage, Fault};
use strongroom_conformance::flaky::{FlakyOptions, FlakyStorage, Rate, Rates};
use strongroom_conformance::hostile::{HostileOptions, HostileStorage};
use strongroom_conformance::simulate;
use strongroom_core::crypto::{KdfParameters, RootSecret, Suite};
use strongroom_core::engine::keyring::Credentials;
use strongroom_core::engine::{CompactOptions, CreateOptions, Engine, OpenOptions, TrustedState, Unlock};
use strongroom_core::env::Env;
use strongroom_core::storage::{Effect, ErrorKind, Operation, Storage};
use strongroom_core::{Error, Result};

use crate::model::{Change, Expected, Model, apply, assert_sound, observe, try_observe};
use crate::support::tuning;

fn change(dice: &mut Dice) -> Change {
    let (key, byte) = (dice.below(24) as u8, dice.below(4) as u8);
    match dice.below(9) {
        0..4 => Change::Put(key, vec![dice.roll() as u8; dice.below(200) as usize]),
        4..6 => Change::Delete(key),
        6..8 => Change::PutChunk(key / 2, byte, dice.below(14_000) as usize),
        _ => Change::DeleteChunk(key / 2),
    }
}

fn changes(dice: &mut Dice) -> Vec<Change> {
    (0..1 + dice.below(5)).map(|_| change(dice)).collect()
}

/// A repository on a crashing medium, reached through a wrapper.
struct Bed<W> {
    medium: CrashingStorage,
    wrapper: W,
    over: fn(&W, Arc<dyn Storage>) -> Arc<dyn Storage>,
    root: RootSecret,
    trusted: Option<Arc<dyn TrustedState>>,
    seed: u64,
}

impl<W> Bed<W> {
    async fn new(
        seed: u64,
        options: CrashOptions,
        wrap: impl FnOnce(Arc<dyn Storage>) -> W,
        over: fn(&W, Arc<dyn Storage>) -> Arc<dyn Storage>,
        trusted: Option<Arc<dyn TrustedState>>,
    ) -> (Self, Engine) {
        let medium = CrashingStorage::new(CrashOptions { yields: false, ..options });
        let wrapper = wrap(Arc::new(medium.another()));
        let credentials = Credentials::password("correct horse");
        let create = CreateOptions {
            credentials: &credentials,
            recovery: None,
            suite: Suite::Aes256Gcm,
            block_bytes: 4096,
            kdf: KdfParameters::MINIMUM,
            trusted: trusted.clone(),
            tuning: tuning(),
        };
        let storage = over(&wrapper, Arc::new(medium.another()));
        let engine = Engine::create(storage, Env::deterministic(seed), create).await.unwrap();
        let root = engine.root_secret();
        (Self { medium, wrapper, over, root, trusted, seed }, engine)
    }

    async fn open(&mut self) -> Result<Engine> {
        self.seed = self.seed.wrapping_add(1);
        let mut options = OpenOptions::new(Unlock::Root(&self.root));
        options.tuning = tuning();
        options.trusted = self.trusted.clone();
        let storage = (self.over)(&self.wrapper, Arc::new(self.medium.reopen()));
        Engine::open(storage, Env::deterministic(self.seed.wrapping_mul(0x9e37_79b9)), options).await
    }
}

/// What a failed commit may have done, by what it says.
fn may_have_happened(error: &Error) -> bool {
    match error {
        Error::CommitUnknown { .. } => true,
        Error::Storage(error) => error.effect() == Effect::Unknown,
        _ => false,
    }
}

/// Nothing that a flaky medium does is damage.
fn assert_no_alarm(error: &Error) {
    let alarm = matches!(
        error,
        Error::Damaged(_)
            | Error::RolledBack { .. }
            | Error::Missing { .. }
            | Error::WrongCredentials
            | Error::NotARepository
            | Error::WorkerLost
    );
    assert!(!alarm, "a fault of the medium looks like damage: {error}");
}

/// What is said of the flaky medium of one run.
#[derive(Clone, Copy)]
struct Weather {
    rates: Rates,
    /// Whether it keeps the clauses: otherwise an error may be any.
    is_lawful: bool,
    medium: fn() -> CrashOptions,
}

async fn flaky_run(seed: u64, weather: Weather) {
    let mut dice = Dice::new(seed);
    let over = |wrapper: &FlakyStorage, inner| -> Arc<dyn Storage> { Arc::new(wrapper.over(inner)) };
    let options = FlakyOptions { seed: dice.roll(), ..FlakyOptions::default() };
    let wrap = |inner| FlakyStorage::new(inner, options);
    let (mut bed, mut engine) = Bed::new(dice.roll(), (weather.medium)(), wrap, over, None).await;
    let mut expected = Expected(vec![Model::default()]);
    let judge = |error: &Error| {
        if weather.is_lawful {
            assert_no_alarm(error);
        }
    };
    for _ in 0..4 + dice.below(30) {
        bed.wrapper.set_rates(weather.rates);
        let mut reopen = expected.0.len() > 32;
        match dice.below(21) {
            0 => {
                if let Err(error) = engine.checkpoint().await {
                    judge(&error);
                }
            }
            1 => {
                if let Err(error) = engine.refresh().await {
                    judge(&error);
                }
            }
            2 => {
                let _ = engine.close().await;
                reopen = true;
            }
            16 | 17 => {
                let (thorough, end_other_writers) = (dice.below(2) == 0, dice.below(2) == 0);
                let options = CompactOptions { thorough, end_other_writers, progress: None };
                if let Err(error) = engine.compact(options).await {
                    judge(&error);
                }
            }
            18 | 19 => {
                // Given up, with blocks on their way.
                let mut transaction = engine.begin();
                for byte in 0..1 + dice.below(4) {
                    let payload = vec![byte as u8; dice.below(14_000) as usize];
                    if let Err(error) = transaction.put_chunk(None, payload.into()).await {
                        judge(&error);
                    }
                }
            }
            20 if weather.is_lawful => {
                let room = dice.below(24);
                let blobs = bed.medium.snapshot_blobs().len() as u64;
                bed.medium.set_capacity((room > 6).then(|| 4096 * (blobs + room - 7)));
            }
            3 => {
                bed.medium.process_kill();
                reopen = true;
            }
            4 => {
                bed.wrapper.forget();
                bed.medium.crash(dice.roll());
                reopen = true;
            }
            5 => match try_observe(&engine.snapshot()).await {
                Ok(seen) => assert!(expected.0.contains(&seen), "saw {seen:?}, expected one of {:?}", expected.0),
                Err(error) => judge(&error),
            },
            _ => {
                let changes = changes(&mut dice);
                match apply(&engine, &changes).await {
                    Ok(()) => expected.certainly(&changes),
                    Err(error) => {
                        judge(&error);
                        if may_have_happened(&error) {
                            expected.maybe(&changes);
                        }
                    }
                }
            }
        }
        if reopen {
            // Under faults opening may fail, and must not mislead.
            for _ in 0..3 {
                match bed.open().await {
                    Ok(opened) => match try_observe(&opened.snapshot()).await {
                        Ok(seen) => assert!(expected.0.contains(&seen), "opened {seen:?} of {:?}", expected.0),
                        Err(error) => judge(&error),
                    },
                    Err(error) => judge(&error),
                }
            }
            bed.wrapper.clear_faults();
            bed.wrapper.deliver().await;
            engine = bed.open().await.unwrap();
            expected.observed(observe(&engine.snapshot()).await);
            assert_sound(&engine).await;
        }
    }
    bed.wrapper.clear_faults();
    bed.wrapper.deliver().await;
    bed.medium.set_capacity(None);
    let last = [Change::Put(200, vec![1])];
    apply(&engine, &last).await.unwrap();
    expected.certainly(&last);
    expected.observed(observe(&engine.snapshot()).await);
    engine.close().await.unwrap();
    let mut engine = bed.open().await.unwrap();
    expected.observed(observe(&engine.snapshot()).await);
    assert_sound(&engine).await;
    if !weather.is_lawful || !seed.is_multiple_of(8) {
        return;
    }
    // Whatever happened, the space of what is gone comes back, when readers have had their time.
    for turn in 1..4 {
        for _ in 0..turn * 2 * tuning().reader_grace_millis {
            let _ = engine.env().now();
        }
        let options = CompactOptions { end_other_writers: true, ..CompactOptions::default() };
        engine.compact(options).await.unwrap();
        engine.close().await.unwrap();
        engine = bed.open().await.unwrap();
    }
    let info = engine.info().await.unwrap();
    assert!(info.blobs <= info.live_bytes / 3000 + 24, "{info:?}");
    expected.observed(observe(&engine.snapshot()).await);
    assert_sound(&engine).await;
}

fn lawful_rates() -> Rates {
    let rate = Rate::per_mille(12);
    Rates { errors: rate, refusals: rate, timeouts: rate, ambiguous: rate, late: rate, slow: rate, ..Rates::default() }
}

#[test]
fn histories_on_a_flaky_folder_equal_the_model() {
    let weather = Weather { rates: lawful_rates(), is_lawful: true, medium: CrashOptions::default };
    simulate(250, |seed| block_on(flaky_run(seed, weather)));
}

#[test]
fn histories_on_a_flaky_object_store_equal_the_model() {
    let weather = Weather { rates: lawful_rates(), is_lawful: true, medium: CrashOptions::object_store };
    simulate(250, |seed| block_on(flaky_run(seed, weather)));
}

/// The medium breaks S1, S2, S6 and S7: no success is owed, and still nothing is lost or wrong.
#[test]
fn histories_on_a_medium_that_repeats_puts_and_lists_the_past_lose_nothing() {
    let rate = Rate::per_mille(15);
    let rates = Rates { duplicates: rate, stale_lists: Rate::per_mille(200), ambiguous: rate, ..Rates::default() };
    let weather = Weather { rates, is_lawful: false, medium: CrashOptions::object_store };
    simulate(250, |seed| block_on(flaky_run(seed, weather)));
}

/// What this device remembers, in memory.
#[derive(Default)]
struct Remembered(Mutex<Option<(u64, [u8; 32])>>);

#[async_trait]
impl TrustedState for Remembered {
    async fn load(&self, _: &[u8; 16]) -> Result<Option<(u64, [u8; 32])>> {
        Ok(*self.0.lock().unwrap())
    }

    async fn store(&self, _: &[u8; 16], sequence: u64, hash: [u8; 32]) -> Result<()> {
        *self.0.lock().unwrap() = Some((sequence, hash));
        Ok(())
    }
}

/// Errors that say something else than what an operator can cause.
fn assert_fitting(error: &Error) {
    let misleading = matches!(
        error,
        Error::WrongCredentials | Error::AlreadyExists | Error::ReadOnly | Error::Closed | Error::WorkerLost
    );
    assert!(!misleading, "an attack is answered with {error:?}");
}

async fn hostile_run(seed: u64, remembers: bool) {
    let mut dice = Dice::new(seed);
    let over = |wrapper: &HostileStorage, inner| -> Arc<dyn Storage> { Arc::new(wrapper.over(inner)) };
    let options = HostileOptions { seed: dice.roll(), ..HostileOptions::default() };
    let trusted = remembers.then(|| -> Arc<dyn TrustedState> { Arc::new(Remembered::default()) });
    let wrap = |inner| HostileStorage::new(inner, options);
    let (mut bed, mut engine) = Bed::new(dice.roll(), CrashOptions::object_store(), wrap, over, trusted).await;
    // Every state that ever was or may have been, the newest last: any of them may be shown to one who remembers nothing,
    // and to one who remembers, what was from `newest` on.
    let mut states = vec![Model::default()];
    let mut newest = 0;
    let mut images = Vec::new();
    for _ in 0..4 + dice.below(24) {
        bed.wrapper.set_rate(Rate::per_mille([0, 20, 200][dice.below(3) as usize]));
        match dice.below(12) {
            0 => {
                let _ = engine.checkpoint().await.map_err(|error| assert_fitting(&error));
            }
            1 => {
                let _ = engine.refresh().await.map_err(|error| assert_fitting(&error));
            }
            2..5 => {
                // What this engine reads is its own state, or an error.
                match try_observe(&engine.snapshot()).await {
                    Ok(seen) => assert!(states.contains(&seen), "saw {seen:?}"),
                    Err(error) => assert_fitting(&error),
                }
            }
            5 => {
                images.push(bed.wrapper.image().await.unwrap());
                if dice.below(2) == 0 {
                    break;
                }
            }
            6 => match bed.open().await {
                Ok(opened) => match try_observe(&opened.snapshot()).await {
                    Ok(seen) => {
                        let from = if remembers { newest } else { 0 };
                        assert!(states[from..].contains(&seen), "opened {seen:?}");
                        engine = opened;
                    }
                    Err(error) => assert_fitting(&error),
                },
                Err(error) => assert_fitting(&error),
            },
            _ => {
                let changes = changes(&mut dice);
                let mut after: Vec<Model> = states.iter().map(|state| state.after(&changes)).collect();
                let result = apply(&engine, &changes).await;
                if let Err(error) = &result {
                    assert_fitting(error);
                    // What an operator answers may turn into any error, and the commit stand all the same.
                    states.extend(after);
                } else {
                    bed.wrapper.set_rate(Rate::NEVER);
                    // Now nothing is in the air: look, honestly, what it was built on.
                    if let Ok(seen) = try_observe(&engine.snapshot()).await {
                        assert!(after.contains(&seen), "committed to {seen:?}");
                        after = vec![seen];
                        if engine.flush().await.is_ok() {
                            newest = states.len();
                        }
                    }
                    states.extend(after);
                }
                if states.len() > 2000 {
                    break;
                }
            }
        }
    }
    drop(engine);
    // In the end something is done for good.
    bed.wrapper.set_rate(Rate::NEVER);
    let names: Vec<_> = bed.wrapper.image().await.unwrap().into_keys().collect();
    let any = |dice: &mut Dice| names[dice.below(names.len() as u64) as usize];
    match dice.below(7) {
        0 => bed.wrapper.flip(any(&mut dice), dice.below(8 * 4096)).await.unwrap(),
        1 => bed.wrapper.resize(any(&mut dice), dice.below(9000) as usize).await.unwrap(),
        2 => bed.wrapper.swap(any(&mut dice), any(&mut dice)).await.unwrap(),
        3 => bed.wrapper.replay(any(&mut dice), dice.below(3) as usize).await.unwrap(),
        4 => bed.wrapper.withhold(any(&mut dice)),
        5 => {
            for image in &images {
                for (name, blob) in image.iter().filter(|_| dice.below(3) == 0) {
                    bed.wrapper.overwrite(*name, blob.clone()).await.unwrap();
                }
            }
        }
        _ => {
            if let Some(image) = images.first() {
                bed.wrapper.roll_back(image).await.unwrap();
            }
        }
    }
    match bed.open().await {
        Ok(opened) => match try_observe(&opened.snapshot()).await {
            Ok(seen) => {
                let from = if remembers { newest } else { 0 };
                assert!(states[from..].contains(&seen), "opened {seen:?} at last");
            }
            Err(error) => assert_fitting(&error),
        },
        Err(error) => assert_fitting(&error),
    }
}

#[test]
fn histories_in_hostile_hands_read_rightly_or_not_at_all() {
    simulate(200, |seed| block_on(hostile_run(seed, false)));
}

#[test]
fn histories_in_hostile_hands_never_go_back_for_one_who_remembers() {
    simulate(200, |seed| block_on(hostile_run(seed, true)));
}

/// Closing drops what no commit names; a checkpoint that was put, and whose fate was not learnt, names what it wrote.
#[test]
fn closing_after_a_checkpoint_of_unknown_fate_keeps_its_nodes() {
    block_on(async {
        for call in 1..12 {
            let options = CrashOptions { yields: false, ..CrashOptions::object_store() };
            let (mut bed, engine) = crate::support::Bed::new(call, 4096, Suite::Aes256Gcm, options).await;
            for key in 0..9_u8 {
                apply(&engine, &[Change::PutChunk(key, key, 5000)]).await.unwrap();
            }
            let before = observe(&engine.snapshot()).await;
            bed.storage.fail_operation(Operation::Get, call, Fault::Refused(ErrorKind::Unavailable));
            let _ = engine.close().await;
            bed.storage.process_kill();
            bed.storage.clear_faults();
            let engine = bed.open().await.unwrap();
            assert_eq!(observe(&engine.snapshot()).await, before, "call {call}");
            assert_sound(&engine).await;
        }
    });
}
