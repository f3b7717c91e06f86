//! Random histories by seed on the flaky and the hostile double, against the file system of maps.
//!
//! `STRONGROOM_CASES=N` runs so many, `STRONGROOM_SEED=N` this one alone: a failure prints it.

use std::sync::Arc;

use futures_lite::future::block_on;
use strongroom_conformance::Dice;
use strongroom_conformance::crash::{CrashOptions, CrashingStorage};
use strongroom_conformance::flaky::{FlakyOptions, FlakyStorage, Rate, Rates};
use strongroom_conformance::hostile::{HostileOptions, HostileStorage};
use strongroom_conformance::simulate;
use strongroom_core::crypto::{KdfParameters, RootSecret, Suite};
use strongroom_core::engine::keyring::Credentials;
use strongroom_core::engine::{self, CreateOptions, Engine, Unlock};
use strongroom_core::env::Env;
use strongroom_core::storage::Storage;
use strongroom_fs::{Error, FileSystem, Follow, Options, Result, XattrMode};

use crate::model::{Change, Expected, Model, kind, together};
use crate::support::{assert_sound, shown, tuning};

fn path(dice: &mut Dice) -> String {
    (0..1 + dice.below(5) / 2).map(|_| ["/a", "/b", "/c"][dice.below(3) as usize]).collect()
}

fn change(dice: &mut Dice) -> Change {
    let seed = dice.below(3);
    let (length, offset) =
        ([600, 9_000, 70_000][dice.below(3) as usize], [600, 9_000, 100_000][dice.below(3) as usize]);
    let (length, offset) = (dice.below(length) as usize, dice.below(offset));
    match dice.below(18) {
        0..3 => Change::Write(path(dice), seed, length),
        3..5 => Change::WriteAt(path(dice), offset, seed, length),
        5 => Change::SetLen(path(dice), offset),
        6..8 => Change::CreateDir(path(dice)),
        8 => Change::RemoveFile(path(dice)),
        9 => Change::RemoveAll(path(dice)),
        10 => Change::Rename(path(dice), path(dice)),
        11 => Change::Exchange(path(dice), path(dice)),
        12 => Change::Copy(path(dice), path(dice)),
        13 => Change::CopyRange(path(dice), offset, path(dice), dice.below(9_000), length as u64),
        14 => Change::CopyAll(path(dice), path(dice)),
        15 => Change::SetXattr(path(dice), 0, seed, length.min(20_000), XattrMode::Set, Follow::No),
        16 => Change::PunchHole(path(dice), offset, length as u64),
        _ => Change::HardLink(path(dice), path(dice)),
    }
}

fn changes(dice: &mut Dice) -> Vec<Change> {
    (0..1 + dice.below(3)).map(|_| change(dice)).collect()
}

/// A repository on a crashing medium, reached through a wrapper.
struct Bed<W> {
    medium: CrashingStorage,
    wrapper: W,
    over: fn(&W, Arc<dyn Storage>) -> Arc<dyn Storage>,
    root: RootSecret,
    seed: u64,
}

impl<W> Bed<W> {
    async fn new(
        seed: u64,
        wrap: impl FnOnce(Arc<dyn Storage>) -> W,
        over: fn(&W, Arc<dyn Storage>) -> Arc<dyn Storage>,
    ) -> (Self, FileSystem) {
        let medium = CrashingStorage::new(CrashOptions { yields: false, ..CrashOptions::object_store() });
        let wrapper = wrap(Arc::new(medium.another()));
        let credentials = Credentials::password("correct horse");
        let create = CreateOptions {
            credentials: &credentials,
            recovery: None,
            suite: Suite::Aes256Gcm,
            block_bytes: 4096,
            kdf: KdfParameters::MINIMUM,
            trusted: None,
            tuning: tuning(),
        };
        let storage = over(&wrapper, Arc::new(medium.another()));
        let engine = Engine::create(storage, Env::deterministic(seed), create).await.unwrap();
        let root = engine.root_secret();
        let fs = FileSystem::create(engine, Options::default()).await.unwrap();
        (Self { medium, wrapper, over, root, seed }, fs)
    }

    async fn open(&mut self) -> Result<FileSystem> {
        self.seed = self.seed.wrapping_add(1);
        let mut options = engine::OpenOptions::new(Unlock::Root(&self.root));
        options.tuning = tuning();
        let storage = (self.over)(&self.wrapper, Arc::new(self.medium.reopen()));
        let engine = Engine::open(storage, Env::deterministic(self.seed.wrapping_mul(0x9e37_79b9)), options).await?;
        FileSystem::open(engine).await
    }
}

/// Nothing that a flaky medium does is damage.
fn assert_no_alarm(error: &Error) {
    use strongroom_core::Error as Core;
    let alarm = matches!(
        error,
        Error::Core(
            Core::Damaged(_)
                | Core::RolledBack { .. }
                | Core::Missing { .. }
                | Core::WrongCredentials
                | Core::NotARepository
                | Core::WorkerLost
        )
    );
    assert!(!alarm, "a fault of the medium looks like damage: {error}");
}

async fn assert_expected(fs: &FileSystem, expected: &Expected) -> Result<()> {
    let seen = shown(fs).await?;
    assert!(expected.0.iter().any(|model| model.seen() == seen), "what is seen was not expected");
    Ok(())
}

async fn flaky_run(seed: u64, rates: Rates, is_lawful: bool) {
    let mut dice = Dice::new(seed);
    let over = |wrapper: &FlakyStorage, inner| -> Arc<dyn Storage> { Arc::new(wrapper.over(inner)) };
    let options = FlakyOptions { seed: dice.roll(), ..FlakyOptions::default() };
    let (mut bed, mut fs) = Bed::new(dice.roll(), |inner| FlakyStorage::new(inner, options), over).await;
    let mut expected = Expected(vec![Model::default()]);
    let judge = |error: &Error| {
        if is_lawful {
            assert_no_alarm(error);
        }
    };
    for _ in 0..4 + dice.below(24) {
        bed.wrapper.set_rates(rates);
        let mut reopen = expected.0.len() > 16;
        match dice.below(14) {
            0 => {
                let _ = fs.engine().checkpoint().await.map_err(|error| judge(&error.into()));
            }
            1 => {
                let _ = fs.engine().close().await;
                reopen = true;
            }
            2 => {
                bed.medium.process_kill();
                reopen = true;
            }
            3 => {
                bed.wrapper.forget();
                bed.medium.crash(dice.roll());
                reopen = true;
            }
            4 => {
                let _ = assert_expected(&fs, &expected).await.map_err(|error| judge(&error));
            }
            _ => {
                let changes = changes(&mut dice);
                match together(&fs, &changes).await {
                    Err(error) if kind(&error).is_none() => {
                        judge(&error);
                        expected.maybe(&changes);
                    }
                    result => expected.answered(&changes, result),
                }
            }
        }
        if reopen {
            match bed.open().await {
                Ok(opened) => {
                    let _ = assert_expected(&opened, &expected).await.map_err(|error| judge(&error));
                }
                Err(error) => judge(&error),
            }
            bed.wrapper.clear_faults();
            bed.wrapper.deliver().await;
            fs = bed.open().await.unwrap();
            expected.observed(&fs).await;
            assert_sound(&fs).await;
        }
    }
    bed.wrapper.clear_faults();
    bed.wrapper.deliver().await;
    expected.settled(&fs).await;
    fs.engine().close().await.unwrap();
    let fs = bed.open().await.unwrap();
    expected.observed(&fs).await;
    assert_sound(&fs).await;
}

#[test]
fn histories_on_a_flaky_storage_equal_the_model() {
    let rate = Rate::per_mille(10);
    let rates = Rates {
        errors: rate,
        refusals: rate,
        timeouts: rate,
        ambiguous: rate,
        late: rate,
        slow: rate,
        ..Rates::default()
    };
    simulate(150, |seed| block_on(flaky_run(seed, rates, true)));
}

#[test]
fn histories_on_a_storage_that_repeats_puts_and_lists_the_past_lose_nothing() {
    let rate = Rate::per_mille(15);
    let rates = Rates { duplicates: rate, stale_lists: Rate::per_mille(200), ambiguous: rate, ..Rates::default() };
    simulate(75, |seed| block_on(flaky_run(seed, rates, false)));
}

/// Reads everything under attack: each path shows what it holds, or an error.
async fn hostile_run(seed: u64) {
    let mut dice = Dice::new(seed);
    let over = |wrapper: &HostileStorage, inner| -> Arc<dyn Storage> { Arc::new(wrapper.over(inner)) };
    let options = HostileOptions { seed: dice.roll(), ..HostileOptions::default() };
    let (mut bed, fs) = Bed::new(dice.roll(), |inner| HostileStorage::new(inner, options), over).await;
    let mut states = vec![Model::default()];
    for _ in 0..4 + dice.below(12) {
        let mut after = Expected(vec![states.last().unwrap().clone()]);
        let changes = changes(&mut dice);
        let result = together(&fs, &changes).await;
        after.answered(&changes, result);
        states.extend(after.0);
        if dice.below(5) == 0 {
            fs.engine().checkpoint().await.unwrap();
        }
    }
    let honest = bed.wrapper.image().await.unwrap();
    let names: Vec<_> = honest.keys().copied().collect();
    let was = |seen| states.iter().any(|state| state.seen() == seen);
    for _ in 0..6 {
        bed.wrapper.set_rate(Rate::per_mille([10, 50, 300][dice.below(3) as usize]));
        // One who has it open sees its own state, or an error.
        if let Ok(seen) = shown(&fs).await {
            assert!(seen == states.last().unwrap().seen(), "an open file system shows something else");
        }
        // One who opens it, and remembers nothing, sees some state that was.
        if let Ok(opened) = bed.open().await
            && let Ok(seen) = shown(&opened).await
        {
            assert!(was(seen), "what was opened never was");
        }
        bed.wrapper.set_rate(Rate::NEVER);
        let any = |dice: &mut Dice| names[dice.below(names.len() as u64) as usize];
        for _ in 0..1 + dice.below(2) {
            match dice.below(4) {
                0 => bed.wrapper.flip(any(&mut dice), dice.below(8 * 4096)).await.unwrap(),
                1 => bed.wrapper.resize(any(&mut dice), dice.below(9000) as usize).await.unwrap(),
                2 => bed.wrapper.swap(any(&mut dice), any(&mut dice)).await.unwrap(),
                _ => bed.wrapper.withhold(any(&mut dice)),
            }
        }
        if let Ok(opened) = bed.open().await
            && let Ok(seen) = shown(&opened).await
        {
            assert!(was(seen), "what was opened never was");
        }
        bed.wrapper.give_back();
        bed.wrapper.roll_back(&honest).await.unwrap();
    }
    let opened = bed.open().await.unwrap();
    assert!(shown(&opened).await.unwrap() == states.last().unwrap().seen());
    assert_sound(&opened).await;
}

#[test]
fn files_in_hostile_hands_read_rightly_or_not_at_all() {
    simulate(75, |seed| block_on(hostile_run(seed)));
}
