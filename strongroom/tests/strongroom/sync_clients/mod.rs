//! A folder that a sync client keeps alike on two devices: what arrives out of order, and what comes of it where both wrote.

mod client;
mod left_over;
mod own_side;
mod sides;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use client::Client;
use futures_lite::future::block_on;
use strongroom::check::CheckOptions;
use strongroom::core::crypto::Keys;
use strongroom::core::env::Env;
use strongroom::core::format::BlockId;
use strongroom::storage::{Name, StorageUri, StraysSought};
use strongroom::trust::LocalTrust;
use strongroom::{
    CompactOptions, CreateOptions, Credentials, Error, HeaderOptions, KdfParameters, NewSlot, OpenOptions, Repository,
    Side, Tuning, core,
};
use strongroom_conformance::Dice;

fn password() -> Credentials {
    Credentials::password("correct horse")
}

type Tree = BTreeMap<String, Vec<u8>>;

/// A folder of its own, and a memory of its own of what it has seen there.
struct Device {
    folder: PathBuf,
    trust: Arc<LocalTrust>,
    env: Env,
}

impl Device {
    fn place(&self) -> &str {
        self.folder.to_str().unwrap()
    }

    fn options(&self) -> OpenOptions {
        // Little is on its way at a time, so that blocks come into the folder before the commit that names them.
        let tuning = Tuning { in_flight_bytes_max: 64 << 10, ..Tuning::default() };
        OpenOptions::new(password()).trusted_state(self.trust.clone()).env(self.env.clone()).tuning(tuning)
    }

    async fn open(&self) -> Result<Repository, Error> {
        Repository::open(self.place(), self.options()).await
    }

    async fn read(&self) -> Result<Tree, Error> {
        let repository = Repository::open(self.place(), self.options().read_only(true)).await?;
        read(&repository).await
    }

    /// A session that changes something, and is closed, or killed.
    async fn write(&self, dice: &mut Dice, label: &str) -> Result<(), Error> {
        let repository = self.open().await?;
        write(&repository, dice, label).await?;
        if dice.below(4) > 0 { repository.close().await } else { Ok(()) }
    }

    async fn sides(&self) -> Vec<Side> {
        strongroom::sides(self.place(), Vec::new(), self.options()).await.unwrap()
    }

    async fn strays(&self) -> Vec<strongroom::storage::Stray> {
        let uri = StorageUri::parse(self.place()).unwrap();
        strongroom::strays(&uri, StraysSought::All, &HeaderOptions::default()).await.unwrap()
    }
}

fn noise(dice: &mut Dice, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|_| dice.roll() as u8).collect()
}

async fn read(repository: &Repository) -> Result<Tree, Error> {
    let mut tree = Tree::new();
    for entry in repository.fs().read_dir("/").await? {
        let name = String::from_utf8(entry.name.to_vec()).unwrap();
        let content = repository.fs().read(&format!("/{name}")).await?;
        tree.insert(name, content);
    }
    Ok(tree)
}

/// A few files, small and large: some in rows, some in blocks.
async fn write(repository: &Repository, dice: &mut Dice, label: &str) -> Result<(), Error> {
    for number in 0..1 + dice.roll() % 4 {
        let bytes = 1 + (dice.roll() % [200, 9000, 60_000][(dice.roll() % 3) as usize]) as usize;
        repository.fs().write(&format!("/{label}-{number}"), &noise(dice, bytes)).await?;
    }
    Ok(())
}

/// Two devices, both with the same repository of a few files.
async fn two(root: &Path, dice: &mut Dice) -> ([Device; 2], Client) {
    let mut device = |name: &str| {
        let folder = root.join(name);
        fs::create_dir_all(&folder).unwrap();
        let trust = Arc::new(LocalTrust::in_folder(root.join(format!("{name}-state")), "here"));
        Device { folder, trust, env: Env::deterministic(dice.roll()) }
    };
    let devices = [device("desk"), device("laptop")];
    let create = CreateOptions::new(password()).kdf(KdfParameters::MINIMUM).block_bytes(4096);
    let create = create.trusted_state(devices[0].trust.clone()).env(devices[0].env.clone());
    let repository = Repository::create(devices[0].place(), create).await.unwrap();
    write(&repository, dice, "common").await.unwrap();
    let keys = repository.engine().keys().clone();
    repository.close().await.unwrap();
    let mut client = Client::new([devices[0].folder.clone(), devices[1].folder.clone()], keys);
    client.finish(dice);
    // The other device looks at it once, and so knows it.
    assert_eq!(devices[0].read().await.unwrap(), devices[1].read().await.unwrap());
    (devices, client)
}

/// In memory where there is such a folder: what is acknowledged is made durable, and there are hundreds of sessions.
fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// Every seed is a history of its own; one that failed is run alone by its number.
fn for_each_seed(count: u64, run: impl AsyncFn(&Path, &mut Dice)) {
    let only = std::env::var("SYNC_SEED").ok().map(|seed| seed.parse().unwrap());
    for seed in only.map_or(0..count, |seed: u64| seed..seed + 1) {
        let root = scratch();
        eprintln!("SYNC_SEED={seed}");
        block_on(run(root.path(), &mut Dice::new(seed)));
    }
}

/// A session that gives somebody a way in.
async fn let_in(device: &Device, label: &str) -> Result<(), Error> {
    let repository = device.open().await?;
    let credentials = Credentials::password(format!("of the {label}"));
    repository.add_slot(&NewSlot { credentials: &credentials, label: "" }).await?;
    repository.close().await
}

/// A session that gives up much of what was there before.
async fn tidy(device: &Device, dice: &mut Dice, label: &str) -> Result<(), Error> {
    let repository = device.open().await?;
    write(&repository, dice, label).await?;
    match dice.below(3) {
        0 => repository.create_snapshot(label).await.map(drop)?,
        1 => repository.engine().checkpoint().await?,
        _ => repository.compact(CompactOptions { thorough: true, ..CompactOptions::default() }).await.map(drop)?,
    }
    let names: Vec<String> = read(&repository).await?.into_keys().collect();
    repository.fs().remove_file(&format!("/{}", names[dice.below(names.len() as u64) as usize])).await?;
    repository.close().await
}

/// What is not there yet is said to be missing, and nothing is said to be damaged, or of another time.
fn assert_is_missing(error: &Error) {
    let is_missing = match error {
        Error::Core(core::Error::Missing { .. }) => true,
        // Of a state that was opened, a part.
        Error::Core(core::Error::Damaged(damage)) => damage.detail == "missing from storage, or not brought there yet",
        _ => false,
    };
    assert!(is_missing, "{error}");
}

#[test]
fn what_arrives_out_of_order_is_read_or_missing_and_never_wrong() {
    for_each_seed(24, async |root, dice| {
        let ([desk, laptop], mut client) = two(root, dice).await;
        let before = desk.read().await.unwrap();
        desk.write(dice, "desk").await.unwrap();
        let after = desk.read().await.unwrap();
        loop {
            let left = client.look(dice);
            if left == 0 {
                break;
            }
            client.go(1 + dice.roll() as usize % left, dice);
            match laptop.read().await {
                Ok(tree) => {
                    for (name, content) in &tree {
                        assert!(after.get(name) == Some(content) || before.get(name) == Some(content));
                    }
                }
                Err(error) => assert_is_missing(&error),
            }
        }
        assert_eq!(laptop.read().await.unwrap(), after);
        let repository = laptop.open().await.unwrap();
        repository.check(CheckOptions { data: true }, |finding| panic!("{finding:?}")).await.unwrap();
        repository.close().await.unwrap();
    });
}

/// What there is on each side, of those that can be opened.
async fn trees(sides: &[Side]) -> Vec<Tree> {
    let mut trees = Vec::new();
    for side in sides.iter().filter(|side| side.missing().is_none()) {
        let repository = side.open(OpenOptions::new(password())).await.unwrap();
        trees.push(read(&repository).await.unwrap());
    }
    trees
}

fn contains(tree: &Tree, part: &Tree) -> bool {
    part.iter().all(|(name, content)| tree.get(name) == Some(content))
}

/// Both sides as they were, whichever device looks.
async fn assert_both(devices: &[Device; 2], expected: &[Tree; 2]) {
    for device in devices {
        let sides = device.sides().await;
        assert_eq!(sides.len(), 2, "{sides:?}");
        let found = trees(&sides).await;
        assert!(expected.iter().all(|tree| found.contains(tree)));
    }
}

#[test]
fn where_both_wrote_apart_both_sides_are_read_after_the_folders_were_merged() {
    for_each_seed(24, async |root, dice| {
        let (devices, mut client) = two(root, dice).await;
        let are_headers_two = dice.below(3) == 0;
        for (device, label) in devices.iter().zip(["desk", "laptop"]) {
            for session in 0..1 + dice.roll() % 3 {
                device.write(dice, &format!("{label}-{session}")).await.unwrap();
            }
            if are_headers_two {
                let_in(device, label).await.unwrap();
            }
        }
        let expected = [devices[0].read().await.unwrap(), devices[1].read().await.unwrap()];
        client.finish(dice);
        for device in &devices {
            let strays = device.strays().await;
            assert!(strays.iter().any(|stray| stray.is_copy), "{strays:?}");
        }
        assert_both(&devices, &expected).await;
    });
}

#[test]
fn who_goes_on_with_the_other_side_where_its_own_lies_takes_nothing_from_that() {
    for_each_seed(24, async |root, dice| {
        let (devices, mut client) = two(root, dice).await;
        for (device, label) in devices.iter().zip(["desk", "laptop"]) {
            for session in 0..1 + dice.below(3) {
                device.write(dice, &format!("{label}-{session}")).await.unwrap();
            }
        }
        let expected = [devices[0].read().await.unwrap(), devices[1].read().await.unwrap()];
        client.finish(dice);
        for (device, label) in devices.iter().zip(["again", "and again"]) {
            for session in 0..3 {
                let options = device.options().accept_rollback(true);
                // Where the sides are mixed, it cannot be opened; and one with commits of the other behind it cannot be written to.
                let Ok(repository) = Repository::open(device.place(), options).await else { break };
                let written = write(&repository, dice, &format!("{label}-{session}")).await;
                if session == 1 && written.is_ok() {
                    continue; // Killed.
                }
                let closed = repository.close().await;
                assert!(written.is_err() || closed.is_ok());
            }
            let found = trees(&device.sides().await).await;
            for tree in &expected {
                assert!(found.iter().any(|side| contains(side, tree)));
            }
        }
    });
}

#[test]
fn what_one_side_gives_up_is_there_for_the_other_where_deleted_blobs_are_kept() {
    for_each_seed(24, async |root, dice| {
        let (devices, mut client) = two(root, dice).await;
        for device in &devices {
            fs::create_dir(device.folder.join("deleted")).unwrap();
        }
        for (device, label) in devices.iter().zip(["desk", "laptop"]) {
            for session in 0..1 + dice.below(3) {
                tidy(device, dice, &format!("{label}-{session}")).await.unwrap();
            }
            if dice.below(3) == 0 {
                let_in(device, label).await.unwrap();
            }
        }
        let expected = [devices[0].read().await.unwrap(), devices[1].read().await.unwrap()];
        client.finish(dice);
        assert_both(&devices, &expected).await;
    });
}

/// Which blobs of data a folder has, by epoch and counter.
fn blocks(folder: &Path, keys: &Keys) -> BTreeMap<(u32, u64), PathBuf> {
    let id = |path: &Path| {
        let name = Name::from_hex(path.file_name()?.to_str()?)?;
        match BlockId::decode(&keys.decrypt_name(*name.as_bytes())) {
            Some(BlockId::Data { writer_epoch, counter, .. }) => Some((writer_epoch, counter)),
            _ => None,
        }
    };
    client::read(folder).into_keys().filter_map(|path| Some((id(&path)?, path))).collect()
}

/// Where a commit lies in a folder.
fn commit(sequence: u64, keys: &Keys) -> PathBuf {
    let id = BlockId::Commit { key_epoch: 0, sequence };
    let hex = Name::new(keys.encrypt_name(id.encode())).to_hex();
    PathBuf::from(&hex[..2]).join(hex)
}

#[test]
fn blocks_that_came_before_their_commit_outlast_writers_crashes_and_compactions_for_a_month() {
    let dice = &mut Dice::new(1);
    let root = tempfile::tempdir().unwrap();
    block_on(async {
        let ([mut desk, mut laptop], mut client) = two(root.path(), dice).await;
        let clocks = [&mut desk, &mut laptop].map(|device| {
            let (env, clock) = Env::manual(dice.roll());
            // Later than all that was done so far.
            clock.advance(Duration::from_millis(2_000_000_000_000));
            device.env = env;
            clock
        });
        let at_desk = desk.open().await.unwrap();
        let keys = at_desk.engine().keys().clone();
        let before = blocks(&desk.folder, &keys);
        let claim = at_desk.info().await.unwrap().sequence + 1;
        at_desk.fs().write("/desk", &noise(dice, 100_000)).await.unwrap();
        // Their claim has come, and they, and not the commits that name them.
        let came: BTreeMap<_, _> =
            blocks(&desk.folder, &keys).into_iter().filter(|(id, _)| !before.contains_key(id)).collect();
        assert!(came.len() > 20);
        let carry = |path: &Path| {
            fs::create_dir_all(laptop.folder.join(path).parent().unwrap()).unwrap();
            fs::copy(desk.folder.join(path), laptop.folder.join(path)).unwrap();
        };
        carry(&commit(claim, &keys));
        came.values().for_each(|path| carry(path));
        let are_all_there = || came.values().all(|path| laptop.folder.join(path).exists());
        for session in 0..4 {
            let repository = laptop.open().await.unwrap();
            repository.fs().write(&format!("/laptop-{session}"), &noise(dice, 30_000)).await.unwrap();
            match session {
                0 => {}
                1 => repository
                    .compact(CompactOptions { thorough: true, ..CompactOptions::default() })
                    .await
                    .map(drop)
                    .unwrap(),
                _ => repository.close().await.unwrap(),
            }
            assert!(are_all_there(), "session {session}");
            clocks[1].advance(Duration::from_secs(7 * 24 * 60 * 60));
        }
        assert_eq!(laptop.read().await.unwrap().len() - desk.read().await.unwrap().len(), 3);
        // What a writer that was killed has left here goes at once; what came from elsewhere when it has been silent for long.
        let left: Vec<_> = {
            let repository = laptop.open().await.unwrap();
            repository.fs().write("/killed", b"in time").await.unwrap();
            let known = blocks(&laptop.folder, &keys);
            let mut transaction = repository.engine().begin();
            for _ in 0..200 {
                transaction.put_chunk(None, noise(dice, 10_000).into()).await.unwrap();
            }
            let put = blocks(&laptop.folder, &keys);
            put.into_iter().filter(|(id, _)| !known.contains_key(id)).map(|(_, path)| path).collect()
        };
        assert!(!left.is_empty());
        laptop.open().await.unwrap().close().await.unwrap();
        assert!(left.iter().all(|path| !laptop.folder.join(path).exists()));
        assert!(are_all_there());
        clocks[1].advance(Duration::from_secs(3 * 24 * 60 * 60));
        laptop.open().await.unwrap().close().await.unwrap();
        assert!(!came.values().any(|path| laptop.folder.join(path).exists()));
        let _ = (client.look(dice), at_desk);
    });
}

#[test]
fn who_writes_before_all_has_arrived_takes_nothing_from_what_arrives_later() {
    for_each_seed(24, async |root, dice| {
        let (devices, mut client) = two(root, dice).await;
        let [desk, laptop] = &devices;
        desk.write(dice, "desk").await.unwrap();
        let at_desk = desk.read().await.unwrap();
        let left = client.look(dice);
        client.go(dice.roll() as usize % left, dice);
        let written = laptop.write(dice, "laptop").await;
        if let Err(error) = &written {
            assert_is_missing(error);
        }
        let at_laptop = laptop.read().await;
        client.finish(dice);
        let found = trees(&laptop.sides().await).await;
        // It may have built on all that the other had written.
        let has = |tree: &Tree| found.iter().any(|side| contains(side, tree));
        assert!(has(&at_desk), "what was written at the desk is gone");
        assert!(at_laptop.is_err() || has(&at_laptop.unwrap()), "what was written at the laptop is gone");
    });
}
