//! What a device has written itself, and goes on without: its own lock proves nothing of that.

use std::sync::Mutex;

use async_trait::async_trait;
use strongroom::core::engine::TrustedState;

use super::*;

/// How the writer at the desk ends that had its epoch open when the devices parted.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Closed,
    Killed,
}

/// The desk writes, what it has claimed comes to the laptop, and from then on both write apart; the laptop's content wins. What the
/// desk had then.
async fn part(devices: &[Device; 2], client: &mut Client, dice: &mut Dice, end: End) -> Tree {
    let [desk, laptop] = devices;
    let at_desk = desk.open().await.unwrap();
    write(&at_desk, dice, "claims").await.unwrap();
    client.finish(dice);
    for number in 0..4 {
        at_desk.fs().write(&format!("/desk-{number}"), &noise(dice, 60_000)).await.unwrap();
    }
    let tree = read(&at_desk).await.unwrap();
    if end == End::Closed {
        at_desk.close().await.unwrap();
    }
    drop(at_desk);
    for session in 0..8 {
        let repository = laptop.open().await.unwrap();
        write(&repository, dice, &format!("laptop-{session}")).await.unwrap();
        repository.close().await.unwrap();
    }
    client.winner = Some(1);
    client.finish(dice);
    tree
}

/// The desk's side as a repository of its own: all that it had is there.
async fn assert_is_whole(desk: &Device, tree: &Tree, target: &Path) {
    let sides = desk.sides().await;
    for side in sides.iter().filter(|side| side.missing().is_none()) {
        let source = side.open(OpenOptions::new(password())).await.unwrap();
        if !contains(&read(&source).await.unwrap_or_default(), tree) {
            continue;
        }
        source.clone_to(target.to_str().unwrap(), strongroom::CloneOptions::default()).await.unwrap();
        let clone = Repository::open(target.to_str().unwrap(), OpenOptions::new(password())).await.unwrap();
        clone.check(CheckOptions { data: true }, |finding| panic!("{finding:?}")).await.unwrap();
        return;
    }
    panic!("the side of the desk is damaged: {sides:?}");
}

/// Goes on with the laptop's side, at the desk.
async fn go_on(desk: &Device, dice: &mut Dice, options: OpenOptions) {
    let repository = Repository::open(desk.place(), options).await.unwrap();
    write(&repository, dice, "goes on").await.unwrap();
    repository.close().await.unwrap();
    // And is known there from then on.
    for session in 0..2 {
        desk.write(dice, &format!("later-{session}")).await.unwrap();
    }
}

fn for_each_end(run: impl AsyncFn(&Path, &mut Dice, End)) {
    for (seed, end) in [(1, End::Closed), (2, End::Killed), (3, End::Closed), (4, End::Killed)] {
        let (root, dice) = (scratch(), &mut Dice::new(seed));
        block_on(run(root.path(), dice, end));
    }
}

#[test]
fn who_gives_up_its_own_side_deletes_nothing_of_it_though_its_epoch_was_open_when_they_parted() {
    for_each_end(async |root, dice, end| {
        let (devices, mut client) = two(root, dice).await;
        let tree = part(&devices, &mut client, dice, end).await;
        go_on(&devices[0], dice, devices[0].options().accept_rollback(true)).await;
        assert_is_whole(&devices[0], &tree, &root.join("taken")).await;
    });
}

#[test]
fn who_looks_at_the_other_side_first_and_then_writes_deletes_nothing_of_its_own() {
    for_each_end(async |root, dice, end| {
        let (devices, mut client) = two(root, dice).await;
        let tree = part(&devices, &mut client, dice, end).await;
        let desk = &devices[0];
        let looks = desk.options().accept_rollback(true).read_only(true);
        Repository::open(desk.place(), looks).await.unwrap().close().await.unwrap();
        go_on(desk, dice, desk.options()).await;
        assert_is_whole(desk, &tree, &root.join("taken")).await;
    });
}

#[test]
fn a_device_that_has_forgotten_what_it_saw_deletes_nothing_that_it_wrote() {
    for_each_end(async |root, dice, end| {
        let (mut devices, mut client) = two(root, dice).await;
        let tree = part(&devices, &mut client, dice, end).await;
        let looks_first = dice.below(2) == 0;
        devices[0].trust = Arc::new(LocalTrust::in_folder(root.join("another state"), "here"));
        if looks_first {
            devices[0].read().await.unwrap();
        }
        go_on(&devices[0], dice, devices[0].options()).await;
        assert_is_whole(&devices[0], &tree, &root.join("taken")).await;
    });
}

#[test]
fn a_program_that_remembers_nothing_deletes_nothing_that_was_written_from_here() {
    for_each_end(async |root, dice, end| {
        let (devices, mut client) = two(root, dice).await;
        let tree = part(&devices, &mut client, dice, end).await;
        for session in 0..2 {
            let options = devices[0].options().without_trusted_state();
            let repository = Repository::open(devices[0].place(), options).await.unwrap();
            write(&repository, dice, &format!("forgetful-{session}")).await.unwrap();
            repository.close().await.unwrap();
        }
        assert_is_whole(&devices[0], &tree, &root.join("taken")).await;
    });
}

#[test]
fn who_remembers_nothing_after_the_claim_deletes_nothing_that_was_committed_since() {
    let (root, dice) = (scratch(), &mut Dice::new(5));
    block_on(async {
        let (devices, mut client) = two(root.path(), dice).await;
        // Killed, so that what it remembers is older than where they parted: nothing contradicts it.
        let tree = part(&devices, &mut client, dice, End::Killed).await;
        go_on(&devices[0], dice, devices[0].options()).await;
        assert_is_whole(&devices[0], &tree, &root.path().join("taken")).await;
    });
}

#[test]
fn what_another_device_has_disowned_stays_so_though_its_writer_goes_on_a_while() {
    let (root, dice) = (scratch(), &mut Dice::new(9));
    block_on(async {
        let (devices, mut client) = two(root.path(), dice).await;
        let [desk, laptop] = &devices;
        let at_desk = desk.open().await.unwrap();
        write(&at_desk, dice, "claims").await.unwrap();
        client.finish(dice);
        let at_laptop = laptop.open().await.unwrap();
        write(&at_laptop, dice, "claims, too").await.unwrap();
        client.finish(dice);
        // Its row is written anew by that, and what it remembers is of now.
        at_desk.engine().refresh().await.unwrap();
        at_desk.engine().checkpoint().await.unwrap();
        client.finish(dice);
        at_laptop.engine().refresh().await.unwrap();
        for number in 0..4 {
            at_desk.fs().write(&format!("/desk-{number}"), &noise(dice, 60_000)).await.unwrap();
        }
        let tree = read(&at_desk).await.unwrap();
        for number in 0..8 {
            at_laptop.fs().write(&format!("/laptop-{number}"), &noise(dice, 9_000)).await.unwrap();
        }
        at_laptop.close().await.unwrap();
        drop((at_desk, at_laptop));
        client.winner = Some(1);
        client.finish(dice);
        go_on(desk, dice, desk.options()).await;
        assert_is_whole(desk, &tree, &root.path().join("taken")).await;
    });
}

/// How the laptop goes on over what the desk has claimed, without claiming anything itself.
#[derive(Clone, Copy, Debug)]
enum Goes {
    /// It had its epoch before the desk had.
    AsAWriterOfBefore,
    /// Without one.
    LettingPeopleIn,
}

#[test]
fn who_goes_on_over_a_claim_and_claims_nothing_leaves_its_blocks_to_the_other_side() {
    for goes in [Goes::AsAWriterOfBefore, Goes::LettingPeopleIn] {
        let (root, dice) = (scratch(), &mut Dice::new(10));
        block_on(async {
            let (devices, mut client) = two(root.path(), dice).await;
            let [desk, laptop] = &devices;
            let mut at_laptop = laptop.open().await.unwrap();
            if matches!(goes, Goes::AsAWriterOfBefore) {
                write(&at_laptop, dice, "claims").await.unwrap();
            }
            client.finish(dice);
            let at_desk = desk.open().await.unwrap();
            write(&at_desk, dice, "claims later").await.unwrap();
            client.finish(dice);
            for number in 0..2 {
                at_desk.fs().write(&format!("/desk-{number}"), &noise(dice, 60_000)).await.unwrap();
            }
            let tree = read(&at_desk).await.unwrap();
            let parted = at_desk.info().await.unwrap().sequence;
            drop(at_desk);
            loop {
                let sequence = at_laptop.info().await.unwrap().sequence;
                if sequence >= parted + 2 {
                    break;
                }
                match goes {
                    Goes::AsAWriterOfBefore => {
                        at_laptop.fs().write("/laptop", &noise(dice, 9_000)).await.unwrap();
                    }
                    Goes::LettingPeopleIn => {
                        at_laptop.close().await.unwrap();
                        let_in(laptop, &format!("guest {sequence}")).await.unwrap();
                        at_laptop = laptop.open().await.unwrap();
                    }
                }
            }
            at_laptop.close().await.unwrap();
            drop(at_laptop);
            client.winner = Some(1);
            client.finish(dice);
            go_on(desk, dice, desk.options()).await;
            assert_is_whole(desk, &tree, &root.path().join("taken")).await;
        });
    }
}

/// A memory that notes which commit it remembers when it hears that all here is of the history that it remembers.
struct Noting {
    inner: Arc<LocalTrust>,
    noted: Mutex<Vec<u64>>,
}

#[async_trait]
impl TrustedState for Noting {
    async fn load(&self, repository: &[u8; 16]) -> core::Result<Option<(u64, [u8; 32])>> {
        TrustedState::load(&*self.inner, repository).await
    }

    async fn store(&self, repository: &[u8; 16], sequence: u64, hash: [u8; 32]) -> core::Result<()> {
        TrustedState::store(&*self.inner, repository, sequence, hash).await
    }

    async fn is_settled(&self, repository: &[u8; 16]) -> core::Result<bool> {
        TrustedState::is_settled(&*self.inner, repository).await
    }

    async fn set_settled(&self, repository: &[u8; 16], is_settled: bool) -> core::Result<()> {
        if is_settled {
            let remembered = TrustedState::load(self, repository).await?.unwrap().0;
            self.noted.lock().unwrap().push(remembered);
        }
        TrustedState::set_settled(&*self.inner, repository, is_settled).await
    }
}

#[test]
fn what_was_disowned_is_remembered_before_it_is_relied_on() {
    let (root, dice) = (scratch(), &mut Dice::new(11));
    block_on(async {
        let ([mut desk, _], _) = two(root.path(), dice).await;
        let writer = desk.open().await.unwrap();
        write(&writer, dice, "killed").await.unwrap();
        drop(writer);
        desk.trust = Arc::new(LocalTrust::in_folder(root.path().join("another state"), "here"));
        let looks = Repository::open(desk.place(), desk.options().read_only(true)).await.unwrap();
        let before = looks.info().await.unwrap().sequence;
        looks.close().await.unwrap();
        let noting = Arc::new(Noting { inner: desk.trust.clone(), noted: Mutex::default() });
        let repository = Repository::open(desk.place(), desk.options().trusted_state(noting.clone())).await.unwrap();
        write(&repository, dice, "goes on").await.unwrap();
        // Else, were it killed between the two, a history without that commit would be taken for one that has it.
        let noted = noting.noted.lock().unwrap().clone();
        assert!(noted.len() == 1 && noted[0] > before, "{noted:?} after {before}");
    });
}

#[test]
fn what_comes_back_into_the_folder_after_all_was_emptied_finds_its_blocks_again() {
    let (root, dice) = (scratch(), &mut Dice::new(6));
    block_on(async {
        let ([mut desk, _], _) = two(root.path(), dice).await;
        let writer = desk.open().await.unwrap();
        let keys = writer.engine().keys().clone();
        let claim = writer.info().await.unwrap().sequence + 1;
        for number in 0..6 {
            writer.fs().write(&format!("/desk-{number}"), &noise(dice, 60_000)).await.unwrap();
        }
        let newest = writer.info().await.unwrap().sequence;
        drop(writer);
        let tree = desk.read().await.unwrap();
        // The client fills the folder again, the commits last; and what was known of them is gone.
        let late: Vec<_> = (claim + 1..=newest).map(|sequence| commit(sequence, &keys)).collect();
        let kept: Vec<_> = late.iter().map(|path| fs::read(desk.folder.join(path)).unwrap()).collect();
        late.iter().for_each(|path| fs::remove_file(desk.folder.join(path)).unwrap());
        desk.trust = Arc::new(LocalTrust::in_folder(root.path().join("another state"), "here"));
        let before = blocks(&desk.folder, &keys);
        for session in 0..2 {
            let repository = desk.open().await.unwrap();
            repository.fs().write(&format!("/too-early-{session}"), b"small").await.unwrap();
            repository.close().await.unwrap();
        }
        assert!(before.values().all(|path| desk.folder.join(path).exists()));
        for (path, bytes) in late.iter().zip(&kept) {
            let lost = if desk.folder.join(path).exists() { " (1)" } else { "" };
            fs::write(desk.folder.join(format!("{}{lost}", path.display())), bytes).unwrap();
        }
        assert_is_whole(&desk, &tree, &root.path().join("taken")).await;
    });
}

/// How somebody opens a folder whose newest commits are still to come.
#[derive(Clone, Copy, Debug)]
enum Opens {
    Forgetful,
    Accepting,
}

#[test]
fn what_was_closed_here_and_gone_on_with_elsewhere_is_kept_though_the_end_of_it_is_still_to_come() {
    for opens in [Opens::Forgetful, Opens::Accepting] {
        let (root, dice) = (scratch(), &mut Dice::new(12));
        block_on(async {
            let ([mut desk, laptop], mut client) = two(root.path(), dice).await;
            let at_hour = |hour: u64, seed| {
                let (env, clock) = Env::manual(seed);
                clock.advance(Duration::from_secs((500_000 + hour) * 60 * 60));
                (env, clock)
            };
            let clock;
            (desk.env, clock) = at_hour(1, 30);
            // Two at once, both closed in order.
            let writers = [desk.open().await.unwrap(), desk.open().await.unwrap()];
            let keys = writers[0].engine().keys().clone();
            for (number, writer) in writers.iter().enumerate() {
                writer.fs().write(&format!("/claims-{number}"), b"small").await.unwrap();
                clock.advance(Duration::from_secs(60));
            }
            writers[0].refresh().await.unwrap();
            let claimed = writers[0].info().await.unwrap().sequence;
            for number in 0..4 {
                writers[number % 2].fs().write(&format!("/desk-{number}"), &noise(dice, 60_000)).await.unwrap();
            }
            for writer in writers {
                writer.close().await.unwrap();
            }
            client.finish(dice);
            let at_laptop = laptop.open().await.unwrap();
            write(&at_laptop, dice, "laptop").await.unwrap();
            at_laptop.close().await.unwrap();
            drop(at_laptop);
            client.finish(dice);
            // That is known here, too.
            let looks = Repository::open(desk.place(), desk.options().read_only(true)).await.unwrap();
            let (tree, newest) = (read(&looks).await.unwrap(), looks.info().await.unwrap().sequence);
            looks.close().await.unwrap();
            drop(looks);
            // The folder is emptied and filled again, and what is there says of no other device that it has written.
            let late: Vec<_> = (claimed + 1..=newest).map(|sequence| commit(sequence, &keys)).collect();
            let kept: Vec<_> = late.iter().map(|path| fs::read(desk.folder.join(path)).unwrap()).collect();
            late.iter().for_each(|path| fs::remove_file(desk.folder.join(path)).unwrap());
            let before = blocks(&desk.folder, &keys);
            // The clock is set back, too.
            desk.env = at_hour(0, 31).0;
            for session in 0..4 {
                let options = match opens {
                    Opens::Forgetful => desk.options().without_trusted_state(),
                    Opens::Accepting => desk.options().accept_rollback(session == 0),
                };
                let repository = Repository::open(desk.place(), options).await.unwrap();
                if session == 0 {
                    assert!(!read(&repository).await.unwrap().contains_key("desk-0"));
                }
                repository.fs().write(&format!("/too-early-{session}"), b"small").await.unwrap();
                repository.close().await.unwrap();
            }
            assert!(before.values().all(|path| desk.folder.join(path).exists()), "{opens:?}");
            for (path, bytes) in late.iter().zip(&kept) {
                let lost = if desk.folder.join(path).exists() { " (1)" } else { "" };
                fs::write(desk.folder.join(format!("{}{lost}", path.display())), bytes).unwrap();
            }
            assert_is_whole(&desk, &tree, &root.path().join("taken")).await;
        });
    }
}

#[test]
fn what_was_disowned_more_than_once_waits_where_the_device_remembers_by_now() {
    let (root, dice) = (scratch(), &mut Dice::new(13));
    block_on(async {
        let ([mut desk, _], _) = two(root.path(), dice).await;
        let keys = desk.open().await.unwrap().engine().keys().clone();
        let mut left = Vec::new();
        for home in 0..2 {
            left.extend(left_over::killed(&desk, &keys, dice).await);
            desk.trust = Arc::new(LocalTrust::in_folder(root.path().join(format!("home {home}")), "here"));
            for _ in 0..2 {
                desk.open().await.unwrap().close().await.unwrap();
                assert!(left.iter().all(|path| desk.folder.join(path).is_file()), "{home}");
            }
        }
    });
}

#[test]
fn what_was_disowned_goes_when_somebody_says_so_and_after_a_month() {
    for is_said in [true, false] {
        let (root, dice) = (scratch(), &mut Dice::new(7));
        block_on(async {
            let ([mut desk, _], _) = two(root.path(), dice).await;
            let (env, clock) = Env::manual(8);
            clock.advance(Duration::from_millis(2_000_000_000_000));
            desk.env = env;
            let keys = desk.open().await.unwrap().engine().keys().clone();
            let left = left_over::killed(&desk, &keys, dice).await;
            desk.trust = Arc::new(LocalTrust::in_folder(root.path().join("another state"), "here"));
            let there = || left.iter().filter(|path| desk.folder.join(path).is_file()).count();
            for days in [0, 29] {
                clock.advance(Duration::from_secs(days * 24 * 60 * 60));
                desk.open().await.unwrap().close().await.unwrap();
                assert_eq!(there(), left.len(), "{days} days");
            }
            if is_said {
                left_over::compact(&desk, true).await.unwrap();
            } else {
                clock.advance(Duration::from_secs(2 * 24 * 60 * 60));
                desk.open().await.unwrap().close().await.unwrap();
            }
            assert_eq!(there(), 0);
            // Known here now: what a crash leaves from now on goes at once.
            let left = left_over::killed(&desk, &keys, dice).await;
            desk.open().await.unwrap().close().await.unwrap();
            assert!(left.iter().all(|path| !desk.folder.join(path).is_file()));
        });
    }
}
