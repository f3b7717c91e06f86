//! What writers leave behind goes, once it is known that nobody can come to name it; or where somebody says so.

use async_trait::async_trait;
use strongroom::storage::{
    Error as StorageError, ErrorKind, OpenContext, Operation, Registry, Result as StorageResult, Storage,
    StorageConstructor, Stray,
};

use super::*;

/// Work that is not committed: so many contents, each of which takes a few blocks.
async fn put(transaction: &mut core::engine::Transaction, dice: &mut Dice, count: usize) {
    for _ in 0..count {
        transaction.put_chunk(None, noise(dice, 10_000).into()).await.unwrap();
    }
}

/// A writer that is killed amid its work; which blocks it leaves.
pub(super) async fn killed(device: &Device, keys: &Keys, dice: &mut Dice) -> Vec<PathBuf> {
    let before = blocks(&device.folder, keys);
    let repository = device.open().await.unwrap();
    put(&mut repository.engine().begin(), dice, 100).await;
    drop(repository);
    let left: Vec<_> = blocks(&device.folder, keys)
        .into_iter()
        .filter(|(id, _)| !before.contains_key(id))
        .map(|(_, path)| path)
        .collect();
    assert!(left.len() > 100);
    left
}

fn still_there(device: &Device, left: &[PathBuf]) -> usize {
    left.iter().filter(|path| device.folder.join(path).is_file()).count()
}

pub(super) async fn compact(device: &Device, end_other_writers: bool) -> Result<(), Error> {
    let repository = device.open().await?;
    let options = CompactOptions { thorough: true, end_other_writers, ..CompactOptions::default() };
    repository.compact(options).await?;
    repository.close().await
}

/// How many blobs a check says to be nobody's.
async fn unclaimed(device: &Device) -> u64 {
    let repository = Repository::open(device.place(), device.options().read_only(true)).await.unwrap();
    let report = repository.check(CheckOptions { data: true }, |finding| panic!("{finding:?}")).await.unwrap();
    let said = report.notices.iter().find(|notice| notice.contains("left over"));
    said.map_or(0, |notice| notice.split(' ').next().unwrap().parse().unwrap())
}

/// Within, a sweep cannot remove one of these.
struct Stuck(PathBuf);

impl Stuck {
    fn at(device: &Device, left: &[PathBuf]) -> Self {
        let there = left.iter().filter(|path| device.folder.join(path).is_file());
        let mut names: Vec<_> = there.map(|path| (path.file_name().unwrap(), path)).collect();
        names.sort();
        let path = device.folder.join(names[names.len() / 2].1);
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        fs::write(path.join("in the way"), b"").unwrap();
        Self(path)
    }
}

impl Drop for Stuck {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn what_a_writer_puts_after_it_was_taken_for_dead_goes_when_it_has_died() {
    let (root, dice) = (scratch(), &mut Dice::new(1));
    block_on(async {
        let ([desk, _], _) = two(root.path(), dice).await;
        let at_rest = client::read(&desk.folder).len();
        let slow = desk.open().await.unwrap();
        let mut transaction = slow.engine().begin();
        put(&mut transaction, dice, 100).await;
        compact(&desk, true).await.unwrap();
        put(&mut transaction, dice, 100).await;
        assert!(client::read(&desk.folder).len() > at_rest + 100);
        // Beside the one who may still go on, it waits.
        compact(&desk, false).await.unwrap();
        drop((transaction, slow));
        desk.open().await.unwrap().close().await.unwrap();
        assert_eq!(unclaimed(&desk).await, 0);
        compact(&desk, false).await.unwrap();
        let left = client::read(&desk.folder).len();
        assert!(left < at_rest + 20, "{left} files, {at_rest} before");
    });
}

#[test]
fn a_sweep_that_is_cut_short_is_done_again_by_who_opens_next() {
    let (root, dice) = (scratch(), &mut Dice::new(2));
    block_on(async {
        let ([desk, mut laptop], mut client) = two(root.path(), dice).await;
        let keys = desk.open().await.unwrap().engine().keys().clone();
        let left = killed(&desk, &keys, dice).await;
        client.finish(dice);
        let (env, clock) = Env::manual(3);
        clock.advance(Duration::from_millis(2_000_000_000_000));
        laptop.env = env;
        for cut_short in 0..3 {
            let stuck = Stuck::at(&laptop, &left);
            match cut_short {
                // Somebody says that the other has died.
                0 => assert!(compact(&laptop, true).await.is_err()),
                // It is known to have ended, and nothing is known of it for long.
                _ => drop(laptop.open().await.unwrap().close().await),
            }
            let there = still_there(&laptop, &left);
            assert!(there > 0 && there < left.len(), "{there} of {}", left.len());
            drop(stuck);
        }
        laptop.open().await.unwrap().close().await.unwrap();
        assert_eq!(still_there(&laptop, &left), 0);
        assert_eq!(unclaimed(&laptop).await, 0);
    });
}

#[test]
fn a_sweep_after_a_month_of_silence_that_is_cut_short_is_done_again() {
    let (root, dice) = (scratch(), &mut Dice::new(4));
    block_on(async {
        let ([desk, mut laptop], mut client) = two(root.path(), dice).await;
        let keys = desk.open().await.unwrap().engine().keys().clone();
        let left = killed(&desk, &keys, dice).await;
        client.finish(dice);
        let (env, clock) = Env::manual(5);
        clock.advance(Duration::from_millis(2_000_000_000_000));
        laptop.env = env;
        // From what is committed here on, for clocks elsewhere say nothing.
        let first = laptop.open().await.unwrap();
        first.fs().write("/first", b"here").await.unwrap();
        first.close().await.unwrap();
        drop(first);
        assert_eq!(still_there(&laptop, &left), left.len());
        clock.advance(Duration::from_secs(31 * 24 * 60 * 60));
        let stuck = Stuck::at(&laptop, &left);
        laptop.open().await.unwrap().fs().write("/goes on", b"all the same").await.unwrap();
        let there = still_there(&laptop, &left);
        assert!(there > 0 && there < left.len(), "{there} of {}", left.len());
        drop(stuck);
        laptop.open().await.unwrap().close().await.unwrap();
        assert_eq!(still_there(&laptop, &left), 0);
    });
}

#[test]
fn a_side_that_was_given_up_goes_when_somebody_says_so() {
    let mut settled = 0;
    for seed in 0..8 {
        let (root, dice) = (scratch(), &mut Dice::new(seed));
        block_on(async {
            let (devices, mut client) = two(root.path(), dice).await;
            let [desk, _] = &devices;
            for (device, label) in devices.iter().zip(["desk", "laptop"]) {
                let repository = device.open().await.unwrap();
                repository.fs().write(&format!("/{label}"), &noise(dice, 600_000)).await.unwrap();
                repository.close().await.unwrap();
            }
            client.finish(dice);
            // It can be that the sides are mixed, and neither can be opened.
            let Ok(repository) = Repository::open(desk.place(), desk.options().accept_rollback(true)).await else {
                return;
            };
            if repository.fs().write("/goes on", b"here").await.is_err() {
                return;
            }
            repository.close().await.unwrap();
            drop(repository);
            for stray in desk.strays().await {
                fs::remove_file(desk.folder.join(stray.called)).unwrap();
            }
            compact(desk, false).await.unwrap();
            let kept = unclaimed(desk).await;
            assert!(kept > 140, "{kept}");
            compact(desk, true).await.unwrap();
            assert_eq!(unclaimed(desk).await, 0);
            let clone = root.path().join("clone");
            let whole = desk.open().await.unwrap();
            whole.clone_to(clone.to_str().unwrap(), strongroom::CloneOptions::default()).await.unwrap();
            whole.close().await.unwrap();
            let [own, cloned] = [&desk.folder, &clone].map(|folder| client::read(folder).len());
            // Ballast, and a few commits.
            assert!(own < cloned + 20, "{own} files, {cloned} in a clone");
            settled += 1;
        });
    }
    assert!(settled > 0);
}

#[test]
fn a_commit_that_cannot_be_read_stops_no_writer_and_goes_when_somebody_says_so() {
    let (root, dice) = (scratch(), &mut Dice::new(6));
    block_on(async {
        let ([desk, _], _) = two(root.path(), dice).await;
        // Whoever reads keeps the commits of before from being deleted.
        let reader = Repository::open(desk.place(), desk.options().read_only(true)).await.unwrap();
        let writer = desk.open().await.unwrap();
        let keys = writer.engine().keys().clone();
        let obsolete = desk.folder.join(commit(writer.info().await.unwrap().sequence, &keys));
        write(&writer, dice, "desk").await.unwrap();
        writer.engine().checkpoint().await.unwrap();
        writer.close().await.unwrap();
        drop((reader, writer));
        fs::remove_file(&obsolete).unwrap();
        fs::create_dir(&obsolete).unwrap();
        desk.open().await.unwrap().close().await.unwrap();
        compact(&desk, false).await.unwrap();
        fs::remove_dir(&obsolete).unwrap();
        fs::write(&obsolete, b"cut short").unwrap();
        compact(&desk, false).await.unwrap();
        assert!(obsolete.exists(), "it is not known whose it is");
        assert_eq!(unclaimed(&desk).await, 1);
        compact(&desk, true).await.unwrap();
        assert!(!obsolete.exists());
        assert_eq!(unclaimed(&desk).await, 0);
    });
}

#[test]
fn where_there_is_one_place_its_lock_tells_of_all_epochs_that_a_clone_has_from_a_folder() {
    let (root, dice) = (scratch(), &mut Dice::new(9));
    block_on(async {
        let ([desk, _], _) = two(root.path(), dice).await;
        let at_work = desk.open().await.unwrap();
        write(&at_work, dice, "desk").await.unwrap();
        let clone = format!("sqlite:{}", root.path().join("clone").display());
        at_work.clone_to(clone.as_str(), strongroom::CloneOptions::default()).await.unwrap();
        let open = async || Repository::open(clone.as_str(), desk.options()).await.unwrap();
        let repository = open().await;
        repository.fs().write("/goes on", b"in the clone").await.unwrap();
        let options = CompactOptions { thorough: true, ..CompactOptions::default() };
        let report = repository.compact(options).await.unwrap();
        assert_eq!(report.other_writers, 0);
        repository.close().await.unwrap();
        drop(repository);
        assert!(open().await.engine().open_epochs().await.unwrap().is_empty());
    });
}

#[test]
fn what_was_open_without_a_place_may_be_anybodys_and_waits_for_a_month() {
    let (root, dice) = (scratch(), &mut Dice::new(12));
    block_on(async {
        let ([mut desk, _], _) = two(root.path(), dice).await;
        let (env, clock) = Env::manual(9);
        clock.advance(Duration::from_millis(2_000_000_000_000));
        desk.env = env;
        let create = CreateOptions::new(password()).kdf(KdfParameters::MINIMUM).block_bytes(4096).env(desk.env.clone());
        let source = format!("sqlite:{}", root.path().join("source").display());
        let at_work = Repository::create(source.as_str(), create.without_trusted_state()).await.unwrap();
        write(&at_work, dice, "at work").await.unwrap();
        let left = at_work.engine().own_epochs();
        desk.folder = root.path().join("clone");
        at_work.clone_to(desk.place(), strongroom::CloneOptions::default()).await.unwrap();
        let open_epochs = async |options| {
            let repository = Repository::open(desk.place(), options).await.unwrap();
            let own = repository.engine().own_epochs();
            let mut open = repository.engine().open_epochs().await.unwrap();
            open.retain(|epoch| !own.contains(epoch));
            repository.fs().write("/written", &[1]).await.unwrap();
            repository.close().await.unwrap();
            open
        };
        for days in [0, 29] {
            clock.advance(Duration::from_secs(days * 24 * 60 * 60));
            for _ in 0..3 {
                assert_eq!(open_epochs(desk.options().without_trusted_state()).await, left);
                assert_eq!(open_epochs(desk.options()).await, left);
            }
        }
        clock.advance(Duration::from_secs(2 * 24 * 60 * 60));
        assert!(open_epochs(desk.options()).await.is_empty());
    });
}

#[test]
fn a_writer_that_commits_now_and_then_is_not_taken_for_gone_elsewhere() {
    let (root, dice) = (scratch(), &mut Dice::new(14));
    block_on(async {
        let ([mut desk, mut laptop], mut client) = two(root.path(), dice).await;
        let (env, clock) = Env::manual(10);
        clock.advance(Duration::from_millis(2_000_000_000_000));
        (desk.env, laptop.env) = (env.clone(), env);
        let at_work = desk.open().await.unwrap();
        for day in 0..50 {
            at_work.fs().write("/diary", &[day]).await.unwrap();
            clock.advance(Duration::from_secs(20 * 60 * 60));
        }
        let own = at_work.engine().own_epochs();
        let mut transaction = at_work.engine().begin();
        put(&mut transaction, dice, 20).await;
        client.finish(dice);
        let keys = at_work.engine().keys().clone();
        let before = blocks(&laptop.folder, &keys);
        let elsewhere = laptop.open().await.unwrap();
        elsewhere.fs().write("/elsewhere", &noise(dice, 9000)).await.unwrap();
        assert!(elsewhere.engine().open_epochs().await.unwrap().is_superset(&own));
        assert!(before.values().all(|path| laptop.folder.join(path).exists()));
        // But of one of which nothing was heard for as long, nobody waits for more.
        clock.advance(Duration::from_secs(31 * 24 * 60 * 60));
        elsewhere.close().await.unwrap();
        drop(elsewhere);
        let elsewhere = laptop.open().await.unwrap();
        elsewhere.fs().write("/elsewhere", &noise(dice, 9000)).await.unwrap();
        assert!(elsewhere.engine().open_epochs().await.unwrap().is_disjoint(&own));
    });
}

/// With a clock that is so many days late after years.
fn at_day(day: u64, seed: u64) -> Env {
    let (env, clock) = Env::manual(seed);
    clock.advance(Duration::from_secs((50 * 365 + day) * 24 * 60 * 60));
    env
}

#[test]
fn a_clock_that_is_wrong_ends_no_writer_elsewhere_early() {
    // Of the writer, and of who opens elsewhere first and next.
    for (seed, days) in [[7_000, 0, 7_000], [0, 40, 40], [0, 40, 0], [40, 40, 0], [40, 0, 40]].into_iter().enumerate() {
        let (root, dice) = (scratch(), &mut Dice::new(16));
        block_on(async {
            let ([mut desk, mut laptop], mut client) = two(root.path(), dice).await;
            desk.env = at_day(days[0], 20 + seed as u64);
            let at_work = desk.open().await.unwrap();
            at_work.fs().write("/claims", b"small").await.unwrap();
            let own = at_work.engine().own_epochs();
            put(&mut at_work.engine().begin(), dice, 20).await;
            client.finish(dice);
            let before = blocks(&laptop.folder, at_work.engine().keys());
            for (turn, day) in days[1..].iter().enumerate() {
                laptop.env = at_day(*day, 40 + 10 * turn as u64 + seed as u64);
                let elsewhere = laptop.open().await.unwrap();
                elsewhere.fs().write("/elsewhere", &[turn as u8]).await.unwrap();
                assert!(elsewhere.engine().open_epochs().await.unwrap().is_superset(&own), "{days:?}");
                elsewhere.close().await.unwrap();
            }
            assert!(before.values().all(|path| laptop.folder.join(path).exists()), "{days:?}");
        });
    }
}

#[test]
fn what_a_crash_left_while_the_clock_was_ahead_gives_up_nothing_that_was_left_later() {
    let (root, dice) = (scratch(), &mut Dice::new(17));
    block_on(async {
        let ([mut desk, _], _) = two(root.path(), dice).await;
        let keys = desk.open().await.unwrap().engine().keys().clone();
        desk.env = at_day(365, 70);
        killed_and_forgetful(&desk, &keys, dice).await;
        desk.env = at_day(0, 71);
        let left = killed_and_forgetful(&desk, &keys, dice).await;
        for seed in 0..3 {
            desk.env = at_day(1, 72 + seed);
            let forgetful = desk.options().without_trusted_state();
            Repository::open(desk.place(), forgetful).await.unwrap().close().await.unwrap();
            assert_eq!(still_there(&desk, &left), left.len());
        }
    });
}

#[test]
fn who_ends_other_writers_is_known_by_its_lock_again_though_another_has_disowned_it() {
    let (root, dice) = (scratch(), &mut Dice::new(15));
    block_on(async {
        let ([desk, laptop], mut client) = two(root.path(), dice).await;
        let keys = desk.open().await.unwrap().engine().keys().clone();
        let at_work = desk.open().await.unwrap();
        write(&at_work, dice, "claims").await.unwrap();
        client.finish(dice);
        let elsewhere = laptop.open().await.unwrap();
        write(&elsewhere, dice, "laptop").await.unwrap();
        elsewhere.close().await.unwrap();
        client.finish(dice);
        at_work.refresh().await.unwrap();
        let options = CompactOptions { end_other_writers: true, ..CompactOptions::default() };
        at_work.compact(options).await.unwrap();
        let before = blocks(&desk.folder, &keys);
        put(&mut at_work.engine().begin(), dice, 100).await;
        drop(at_work);
        let made = blocks(&desk.folder, &keys).into_iter().filter(|(id, _)| !before.contains_key(id));
        let left: Vec<_> = made.map(|(_, path)| path).collect();
        assert!(left.len() > 100);
        desk.open().await.unwrap().close().await.unwrap();
        assert_eq!(still_there(&desk, &left), 0);
    });
}

/// A folder in which one may not look about.
struct Hidden(Registry);

#[async_trait]
impl StorageConstructor for Hidden {
    async fn open(&self, uri: &StorageUri, context: &OpenContext) -> StorageResult<Arc<dyn Storage>> {
        self.0.open(uri, context).await
    }

    async fn strays(&self, _: &StorageUri, _: StraysSought, _: &OpenContext) -> StorageResult<Vec<Stray>> {
        Err(StorageError::new(ErrorKind::PermissionDenied, Operation::List, "a sub-folder"))
    }
}

#[test]
fn no_other_writer_is_ended_while_something_arrives_or_where_that_cannot_be_seen() {
    let (root, dice) = (scratch(), &mut Dice::new(10));
    block_on(async {
        let ([desk, laptop], mut client) = two(root.path(), dice).await;
        let keys = desk.open().await.unwrap().engine().keys().clone();
        let left = killed(&desk, &keys, dice).await;
        client.look(dice);
        client.go(100, dice);
        let there = still_there(&laptop, &left);
        let unfinished = laptop.strays().await;
        assert!(there > 0 && unfinished.iter().any(|stray| !stray.is_copy));
        let refused = compact(&laptop, true).await;
        assert!(matches!(refused, Err(Error::Core(core::Error::Invalid(_)))), "{refused:?}");
        client.finish(dice);
        for stray in laptop.strays().await {
            fs::remove_file(laptop.folder.join(stray.called)).unwrap();
        }
        let mut registry = Registry::default();
        registry.register("file", Hidden(strongroom::registry::default()));
        let hidden = Repository::open(laptop.place(), laptop.options().registry(registry)).await.unwrap();
        let options = CompactOptions { end_other_writers: true, ..CompactOptions::default() };
        let refused = hidden.compact(options).await;
        assert!(matches!(refused, Err(Error::Core(core::Error::Storage(_)))), "{refused:?}");
        drop(hidden);
        assert_eq!(still_there(&laptop, &left), left.len());
        compact(&laptop, true).await.unwrap();
        assert_eq!(still_there(&laptop, &left), 0);
    });
}

#[test]
fn what_ended_here_waits_for_who_has_not_followed_the_history_though_nothing_can_be_disowned_yet() {
    let (root, dice) = (scratch(), &mut Dice::new(13));
    block_on(async {
        let ([desk, laptop], mut client) = two(root.path(), dice).await;
        let keys = desk.open().await.unwrap().engine().keys().clone();
        let at_laptop = laptop.open().await.unwrap();
        let slow = desk.open().await.unwrap();
        let mut transaction = slow.engine().begin();
        put(&mut transaction, dice, 100).await;
        compact(&desk, true).await.unwrap();
        let before = blocks(&desk.folder, &keys);
        put(&mut transaction, dice, 100).await;
        let made = blocks(&desk.folder, &keys).into_iter().filter(|(id, _)| !before.contains_key(id));
        let left: Vec<_> = made.map(|(_, path)| path).collect();
        assert!(left.len() > 100);
        client.finish(dice);
        // Another device has written, and left the row as it was.
        let credentials = Credentials::password("of a guest");
        at_laptop.add_slot(&NewSlot { credentials: &credentials, label: "" }).await.unwrap();
        client.finish(dice);
        let forgetful = desk.options().without_trusted_state();
        let repository = Repository::open(desk.place(), forgetful).await.unwrap();
        repository.compact(CompactOptions::default()).await.unwrap();
        assert_eq!(still_there(&desk, &left), left.len());
        drop((repository, transaction, slow, at_laptop));
        compact(&desk, true).await.unwrap();
        assert_eq!(still_there(&desk, &left), 0);
    });
}

/// As [`killed`], of a program that remembers nothing of the folder.
async fn killed_and_forgetful(device: &Device, keys: &Keys, dice: &mut Dice) -> Vec<PathBuf> {
    let before = blocks(&device.folder, keys);
    let repository = Repository::open(device.place(), device.options().without_trusted_state()).await.unwrap();
    put(&mut repository.engine().begin(), dice, 100).await;
    drop(repository);
    let made = blocks(&device.folder, keys).into_iter().filter(|(id, _)| !before.contains_key(id));
    made.map(|(_, path)| path).collect()
}

#[test]
fn who_remembers_nothing_of_a_folder_that_nobody_else_has_written_to_leaves_what_the_last_crashes_left() {
    let (root, dice) = (scratch(), &mut Dice::new(11));
    block_on(async {
        let (devices, mut client) = two(root.path(), dice).await;
        let [desk, laptop] = &devices;
        let keys = desk.open().await.unwrap().engine().keys().clone();
        let (mut left, mut files) = (Vec::new(), Vec::new());
        for crash in 0..8 {
            left.push(killed_and_forgetful(desk, &keys, dice).await);
            files.push(client::read(&desk.folder).len());
            // The one before, and one more that it has met.
            for (number, left) in left.iter().enumerate() {
                let kept = if number + 2 >= crash { left.len() } else { 0 };
                assert_eq!(still_there(desk, left), kept, "{number} after {crash}");
            }
        }
        assert!(files[7] < files[2] + 20, "{files:?}");
        let mut left: Vec<_> = left.into_iter().skip(5).flatten().collect();
        // From another device's first commit on no lock here tells of what it may bring back.
        client.finish(dice);
        laptop.write(dice, "laptop").await.unwrap();
        client.finish(dice);
        for _ in 0..2 {
            let again = killed_and_forgetful(desk, &keys, dice).await;
            assert_eq!(still_there(desk, &left), left.len());
            left.extend(again);
        }
        // Until somebody says that nothing is on its way, and nobody writes elsewhere.
        let forgetful = || desk.options().without_trusted_state();
        let repository = Repository::open(desk.place(), forgetful()).await.unwrap();
        let options = CompactOptions { end_other_writers: true, ..CompactOptions::default() };
        repository.compact(options).await.unwrap();
        repository.close().await.unwrap();
        drop(repository);
        assert_eq!(still_there(desk, &left), 0);
        let left = killed_and_forgetful(desk, &keys, dice).await;
        for _ in 0..3 {
            killed_and_forgetful(desk, &keys, dice).await;
        }
        assert_eq!(still_there(desk, &left), 0);
    });
}
