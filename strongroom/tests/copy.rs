//! A copy of a repository has all that the repository has, under other keys; and is one only when it is whole.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)] // a test may

use std::collections::BTreeMap;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_lite::future::block_on;
use strongroom::core::engine::{Direction, Snapshot, Table, View};
use strongroom::fs::{Attributes, Compression, Follow, OpenOptions as FileOptions, XattrMode};
use strongroom::storage::{OpenContext, OpenMode, Registry, Storage, StorageUri};
use strongroom::{
    Copied, CopyOptions, CreateOptions, Credentials, Error, HeaderOptions, KdfParameters, OpenOptions, Repository,
    SnapshotInfo, Suite, blocking, check, core,
};
use strongroom_conformance::flaky::{FlakyOptions, FlakyStorage, Rate, Rates};

/// The state of the numbers that the same seed always gives (splitmix64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count.div_ceil(8)).flat_map(|_| self.next().to_le_bytes()).take(count).collect()
    }
}

fn noise(seed: u64, count: usize) -> Vec<u8> {
    Numbers(seed).bytes(count)
}

fn create(password: &str, registry: &Registry) -> CreateOptions {
    let options = CreateOptions::new(Credentials::password(password)).kdf(KdfParameters::MINIMUM);
    options.registry(registry.clone()).without_trusted_state().without_defragmenting()
}

fn open(password: &str, registry: &Registry) -> OpenOptions {
    let options = OpenOptions::new(Credentials::password(password)).registry(registry.clone());
    options.without_trusted_state().without_defragmenting()
}

type Rows = BTreeMap<(u8, Vec<u8>), Vec<u8>>;

/// All rows of a state but the settings, which also say where content is cut: what a copy must have byte by byte.
async fn rows(state: &Snapshot) -> Rows {
    let mut rows = Rows::new();
    for table in 0x11..=Table::LAST {
        let mut scan = state.scan(Table(table), (Bound::Unbounded, Bound::Unbounded), Direction::Ascending);
        while let Some((key, value)) = scan.next().await.unwrap() {
            rows.insert((table, key.to_vec()), value.to_vec());
        }
    }
    rows
}

/// What is in the files of a state, by path, and in its keys.
async fn content(repository: &Repository, at: Option<&str>) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let (files, keys) = match at {
        Some(at) => (repository.files_at(at).await.unwrap(), repository.keys_at(at).await.unwrap()),
        None => (repository.fs().snapshot(), repository.kv().snapshot()),
    };
    let mut content = BTreeMap::new();
    let mut folders = vec![b"/".to_vec()];
    while let Some(folder) = folders.pop() {
        for entry in files.read_dir(&folder).await.unwrap() {
            let path = [&folder, &b"/"[..], &entry.name].concat();
            let metadata = files.symlink_metadata(&path).await.unwrap();
            let mut bytes = format!("{metadata:?}").into_bytes();
            for name in files.xattrs(&path, Follow::No).await.unwrap() {
                bytes.extend(files.xattr(&path, &name, Follow::No).await.unwrap().unwrap());
            }
            match metadata.kind {
                strongroom::fs::Kind::Directory => folders.push(path.clone()),
                strongroom::fs::Kind::Symlink => bytes.extend(files.read_link(&path).await.unwrap()),
                strongroom::fs::Kind::File => {
                    for version in files.history(&path).await.unwrap() {
                        bytes.extend(format!("{version:?}").into_bytes());
                        bytes.extend(files.read_version(&path, version.number).await.unwrap());
                    }
                }
            }
            content.insert(path, bytes);
        }
    }
    let mut scan = keys.scan(..);
    while let Some((key, value)) = scan.next().await.unwrap() {
        content.insert([b"key ", &key[..]].concat(), value.to_vec());
    }
    content
}

async fn assert_clean(repository: &Repository) {
    let options = check::CheckOptions { data: true };
    let report = repository.check(options, |finding| panic!("{finding:?}")).await.unwrap();
    assert_eq!(report.findings, 0);
}

async fn names(repository: &Repository) -> Vec<(String, u64)> {
    repository.snapshots().await.unwrap().into_iter().map(|info| (info.name, info.time_millis)).collect()
}

/// Every state of both is the same, and the copy is sound.
async fn assert_same(source: &Repository, copy: &Repository, when: &str) {
    assert_eq!(names(source).await, names(copy).await, "{when}");
    for (name, _) in names(source).await {
        let (ours, theirs) = (source.engine().open_snapshot(&name), copy.engine().open_snapshot(&name));
        assert!(rows(&ours.await.unwrap()).await == rows(&theirs.await.unwrap()).await, "{when}: rows of {name}");
        assert!(content(source, Some(&name)).await == content(copy, Some(&name)).await, "{when}: content of {name}");
    }
    assert!(rows(&source.engine().snapshot()).await == rows(&copy.engine().snapshot()).await, "{when}: rows");
    assert!(content(source, None).await == content(copy, None).await, "{when}: content");
    assert_clean(copy).await;
}

/// A repository with something of everything.
async fn furnish(repository: &Repository) {
    let (fs, kv) = (repository.fs(), repository.kv());
    fs.create_dir_all("/a/b/c").await.unwrap();
    fs.write("/a/small", b"small").await.unwrap();
    fs.write("/a/large", &noise(1, 1_200_000)).await.unwrap();
    fs.write("/a/text", &b"all work and no play ".repeat(20_000)).await.unwrap();
    fs.write("/a/twin", &noise(1, 1_200_000)).await.unwrap();
    fs.hard_link("/a/small", "/a/b/second name").await.unwrap();
    fs.symlink("../small", "/a/b/link").await.unwrap();
    fs.set_mode("/a/small", 0o4640).await.unwrap();
    fs.set_owner("/a/small", 7, 8).await.unwrap();
    fs.set_xattr("/a/small", "user.short", "x", XattrMode::Set, Follow::Yes).await.unwrap();
    fs.set_xattr("/a/small", "user.long", noise(2, 60_000), XattrMode::Set, Follow::Yes).await.unwrap();
    let mut transaction = fs.begin();
    let mut sparse = transaction.write_file("/sparse", Attributes::file()).await.unwrap();
    sparse.hole(5 << 20).await.unwrap();
    sparse.write(b"behind the hole").await.unwrap();
    sparse.finish().await.unwrap();
    transaction.commit().await.unwrap();
    let own = FileOptions::new().write(true).create(true).dedup(false).compression(Compression::None);
    let own = fs.open_file("/a/own settings", own).await.unwrap();
    own.append(&noise(1, 300_000)).await.unwrap();
    own.close().await.unwrap();
    for number in 0..5 {
        fs.write("/a/versions", &noise(number, 20_000)).await.unwrap();
    }
    fs.set_version_limit("/a/versions", Some(7)).await.unwrap();
    kv.put(b"small", b"value").await.unwrap();
    kv.put(b"empty", b"").await.unwrap();
    kv.put(b"large", &noise(3, 700_000)).await.unwrap();
    kv.put(b"very large", &noise(4, 3 << 20)).await.unwrap();
}

async fn write_at(repository: &Repository, path: &str, offset: u64, bytes: &[u8]) -> Result<(), Error> {
    let mut transaction = repository.fs().begin();
    transaction.write_at(path, offset, bytes).await?;
    transaction.commit().await.map(drop)
}

async fn furnished(registry: &Registry, place: &str) -> Repository {
    let repository = Repository::create(place, create("old", registry).versions(3)).await.unwrap();
    furnish(&repository).await;
    repository.create_snapshot("first").await.unwrap();
    repository.fs().remove_all("/a/b").await.unwrap();
    write_at(&repository, "/a/large", 1 << 19, &noise(5, 50_000)).await.unwrap();
    repository.kv().delete(b"large").await.unwrap();
    repository.create_snapshot("second").await.unwrap();
    repository.create_snapshot("the same again").await.unwrap();
    // Only the first has it, the newest state has it again.
    repository.fs().remove_file("/sparse").await.unwrap();
    repository.kv().put(b"large", &noise(3, 700_000)).await.unwrap();
    repository
}

fn core_error<T>(result: Result<T, Error>) -> core::Error {
    match result {
        Err(Error::Core(error)) => error,
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it worked"),
    }
}

#[test]
fn every_state_arrives_under_other_keys_another_cipher_and_another_block_size() {
    block_on(async {
        let registry = strongroom::registry::default();
        let source = furnished(&registry, "mem://everything").await;
        for (suite, block_bytes) in [(Suite::XChaCha20Poly1305, 64 << 10), (Suite::Aes256Gcm, 1 << 20)] {
            let place = format!("mem://everything-{block_bytes}");
            let new = create("new", &registry).cipher(suite).block_bytes(block_bytes);
            let (copy, copied) = source.copy(place.as_str(), new, CopyOptions::default()).await.unwrap();
            assert_eq!((copied.snapshots, copied.left_behind), (3, None));
            assert_same(&source, &copy, &place).await;
            let (before, after) = (source.info().await.unwrap(), copy.info().await.unwrap());
            assert_eq!((after.suite, after.block_bytes), (suite, block_bytes));
            assert_ne!(before.repository, after.repository);
            assert_eq!((after.chunks, after.chunk_bytes), (copied.chunks, copied.chunk_bytes));
            assert_eq!(copy.fs().options(), source.fs().options());
            assert_eq!(copy.fs().version_limit("/a/versions").await.unwrap(), Some(7));
            copy.close().await.unwrap();
            drop(copy);
            let again = Repository::open(place.as_str(), open("new", &registry)).await.unwrap();
            assert_same(&source, &again, &place).await;
            again.close().await.unwrap();
            let old = Repository::open(place.as_str(), open("old", &registry)).await;
            assert!(matches!(core_error(old), core::Error::WrongCredentials));
        }
        source.close().await.unwrap();
    });
}

#[test]
fn what_is_stored_once_is_stored_once_and_is_found_when_it_is_stored_again() {
    block_on(async {
        let registry = strongroom::registry::default();
        let source = furnished(&registry, "mem://shared").await;
        let options = CopyOptions::default();
        let (copy, copied) = source.copy("mem://shared-copy", create("new", &registry), options).await.unwrap();
        source.compact(strongroom::CompactOptions::default()).await.unwrap();
        let (before, after) = (source.info().await.unwrap(), copy.info().await.unwrap());
        assert_eq!((before.chunks, before.chunk_bytes), (after.chunks, after.chunk_bytes));
        assert_eq!(before.snapshot_chunk_bytes, after.snapshot_chunk_bytes);
        assert!(after.live_bytes <= before.live_bytes + before.live_bytes / 50, "{before:?} {after:?}");
        assert!(copied.chunk_bytes < 7 << 20, "{copied:?}");
        // Each as often as the first time, under names of its own: compressed, and not.
        copy.fs().write("/again", &noise(1, 1_200_000)).await.unwrap();
        copy.fs().write("/text again", &b"all work and no play ".repeat(20_000)).await.unwrap();
        let again = copy.info().await.unwrap();
        assert_eq!((again.chunks, again.chunk_bytes), (after.chunks, after.chunk_bytes));
        assert_clean(&copy).await;
        // What only a snapshot needs goes with it.
        for name in ["first", "second", "the same again"] {
            copy.remove_snapshot(name).await.unwrap();
        }
        copy.fs().remove_all("/").await.unwrap();
        for key in [b"large".as_slice(), b"very large"] {
            copy.kv().delete(key).await.unwrap();
        }
        assert_eq!(copy.info().await.unwrap().chunks, 0);
        assert_clean(&copy).await;
        copy.close().await.unwrap();
        source.close().await.unwrap();
    });
}

#[test]
fn a_copy_lives_on_by_itself_and_never_meets_a_number_of_the_source() {
    block_on(async {
        let registry = strongroom::registry::default();
        let source = furnished(&registry, "mem://numbers").await;
        let options = CopyOptions::default();
        let (copy, _) = source.copy("mem://numbers-copy", create("new", &registry), options).await.unwrap();
        let known = rows(&copy.engine().snapshot()).await;
        let largest = known.keys().filter(|(table, _)| *table == 0x11).map(|(_, key)| key.clone()).max().unwrap();
        copy.fs().write("/new", &noise(9, 200_000)).await.unwrap();
        let inode = copy.fs().metadata("/new").await.unwrap().inode;
        assert!(inode.to_be_bytes().as_slice() > largest.as_slice());
        copy.restore_snapshot("first").await.unwrap();
        assert!(content(&copy, None).await == content(&source, Some("first")).await);
        assert_clean(&copy).await;
        copy.close().await.unwrap();
        // A copy of the copy.
        let copy = Repository::open("mem://numbers-copy", open("new", &registry)).await.unwrap();
        let options = CopyOptions::default();
        let (second, _) = copy.copy("mem://numbers-copy-2", create("newer", &registry), options).await.unwrap();
        assert_same(&copy, &second, "second copy").await;
        second.close().await.unwrap();
        copy.close().await.unwrap();
        source.close().await.unwrap();
    });
}

#[test]
fn the_source_is_as_it_was() {
    block_on(async {
        let registry = strongroom::registry::default();
        let source = furnished(&registry, "mem://unchanged").await;
        let (rows_before, names_before) = (rows(&source.engine().snapshot()).await, names(&source).await);
        let options = CopyOptions::default();
        let (copy, _) = source.copy("mem://unchanged-copy", create("new", &registry), options).await.unwrap();
        assert!(rows(&source.engine().snapshot()).await == rows_before);
        assert_eq!(names(&source).await, names_before);
        assert_clean(&source).await;
        copy.close().await.unwrap();
        source.close().await.unwrap();
    });
}

/// Changes something, as the numbers say.
async fn change(repository: &Repository, numbers: &mut Numbers) {
    let (fs, kv) = (repository.fs(), repository.kv());
    let path = format!("/d{}/f{}", numbers.below(3), numbers.below(6));
    let other = format!("/d{}/f{}", numbers.below(3), numbers.below(6));
    let length = [0, 10, 3_000, 40_000, 150_000][numbers.below(5) as usize];
    // From few seeds, so that much of it is stored already.
    let bytes = noise(numbers.below(6), length);
    // What is not there, or there already, is refused: as good as anything.
    let _ = match numbers.below(14) {
        0..=3 => fs.write(&path, &bytes).await,
        4 => write_at(repository, &path, numbers.below(100_000), &bytes).await,
        5 => fs.set_len(&path, numbers.below(200_000)).await,
        6 => fs.remove_file(&path).await,
        7 => fs.hard_link(&path, &other).await,
        8 => fs.rename(&path, &other).await,
        9 => fs.copy(&path, &other).await.map(drop),
        10 => fs.set_xattr(&path, "user.x", &bytes[..bytes.len().min(50_000)], XattrMode::Set, Follow::Yes).await,
        11 => kv.delete(format!("k{}", numbers.below(8)).as_bytes()).await.map(drop).map_err(Error::from),
        _ => {
            let times = 1 + numbers.below(30) as usize;
            let key = format!("k{}", numbers.below(8));
            kv.put(key.as_bytes(), &bytes.repeat(times)).await.map_err(Error::from)
        }
    };
}

#[test]
fn whatever_happened_to_the_source_its_states_arrive() {
    for seed in 0..24 {
        block_on(async {
            let mut numbers = Numbers(seed);
            let registry = strongroom::registry::default();
            let block_bytes = [4 << 10, 16 << 10, 128 << 10][seed as usize % 3];
            let options = create("old", &registry).block_bytes(block_bytes).versions(seed as u32 % 4);
            let source = Repository::create("mem://history", options.dedup(seed % 5 != 4)).await.unwrap();
            for folder in 0..3 {
                source.fs().create_dir(format!("/d{folder}")).await.unwrap();
            }
            let mut kept = 0;
            for _ in 0..numbers.below(120) {
                change(&source, &mut numbers).await;
                match numbers.below(20) {
                    0 => {
                        kept += 1;
                        source.create_snapshot(&format!("s{kept}")).await.unwrap();
                    }
                    1 => {
                        let _ = source.remove_snapshot(&format!("s{}", 1 + numbers.below(5))).await;
                    }
                    2 => {
                        let _ = source.restore_snapshot(&format!("s{}", 1 + numbers.below(5))).await;
                    }
                    _ => {}
                }
            }
            let new = create("new", &registry).block_bytes(block_bytes << numbers.below(3));
            let (copy, _) = source.copy("mem://history-copy", new, CopyOptions::default()).await.unwrap();
            assert_same(&source, &copy, &format!("seed {seed}")).await;
            for name in names(&copy).await {
                copy.remove_snapshot(&name.0).await.unwrap();
            }
            assert!(content(&source, None).await == content(&copy, None).await, "seed {seed}");
            assert_clean(&copy).await;
            copy.close().await.unwrap();
            source.close().await.unwrap();
        });
    }
}

#[test]
fn more_rows_than_one_commit_holds_arrive() {
    block_on(async {
        let registry = strongroom::registry::default();
        let source = Repository::create("mem://many", create("old", &registry)).await.unwrap();
        for part in 0..8 {
            let mut transaction = source.kv().begin();
            for number in 0..5_000 {
                transaction.put(format!("{part}/{number}").as_bytes(), &noise(number, 100)).await.unwrap();
            }
            transaction.commit().await.unwrap();
        }
        let (copy, copied) =
            source.copy("mem://many-copy", create("new", &registry), CopyOptions::default()).await.unwrap();
        assert!(copied.rows >= 40_000);
        assert_same(&source, &copy, "many").await;
        copy.close().await.unwrap();
        source.close().await.unwrap();
    });
}

#[test]
fn a_file_without_a_name_that_a_process_has_open_does_not_stay_in_the_copy() {
    block_on(async {
        let registry = strongroom::registry::default();
        let source = Repository::create("mem://orphan", create("old", &registry)).await.unwrap();
        source.fs().write("/open", &noise(1, 500_000)).await.unwrap();
        let file = source.fs().open_file("/open", FileOptions::new().write(true)).await.unwrap();
        source.fs().remove_file("/open").await.unwrap();
        assert_eq!(source.fs().content_bytes().await.unwrap().file_bytes, 500_000);
        let options = CopyOptions::default();
        let (copy, copied) = source.copy("mem://orphan-copy", create("new", &registry), options).await.unwrap();
        assert!(copied.chunk_bytes >= 500_000);
        assert_eq!(copy.fs().content_bytes().await.unwrap().file_bytes, 0);
        assert_eq!(copy.info().await.unwrap().chunks, 0);
        assert_clean(&copy).await;
        // Here it is still somebody's.
        let mut bytes = vec![0; 500_000];
        file.read_exact_at(0, &mut bytes).await.unwrap();
        assert!(bytes == noise(1, 500_000));
        file.close().await.unwrap();
        copy.close().await.unwrap();
        source.close().await.unwrap();
    });
}

#[test]
fn blocks_that_are_too_small_are_refused_before_anything_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let registry = strongroom::registry::default();
    let source = blocking::Repository::create("mem://blocks", create("old", &registry).block_bytes(128 << 10)).unwrap();
    let place = folder.path().join("copy").display().to_string();
    let small = create("new", &registry).block_bytes(32 << 10);
    let refused = core_error(source.copy(place.as_str(), small, CopyOptions::default()));
    assert!(
        matches!(refused, core::Error::BlocksTooSmall { block_bytes: 32_768, block_bytes_min: 65_536 }),
        "{refused}"
    );
    assert!(!folder.path().join("copy").exists());
    assert_eq!(source.snapshots().unwrap(), []);
    let fits = create("new", &registry).block_bytes(64 << 10);
    let (copy, _) = source.copy(place.as_str(), fits, CopyOptions::default()).unwrap();
    copy.close().unwrap();
    source.close().unwrap();
}

#[test]
fn a_place_that_holds_a_repository_is_refused_and_left_alone() {
    block_on(async {
        let registry = strongroom::registry::default();
        let source = furnished(&registry, "mem://taken").await;
        let other = Repository::create("mem://taken-other", create("other", &registry)).await.unwrap();
        other.fs().write("/other", b"other").await.unwrap();
        for place in ["mem://taken-other", "mem://taken"] {
            let refused = source.copy(place, create("new", &registry), CopyOptions::default()).await;
            assert!(matches!(core_error(refused), core::Error::AlreadyExists));
        }
        assert_eq!(other.fs().read("/other").await.unwrap(), b"other");
        assert_clean(&other).await;
        assert_clean(&source).await;
        assert_eq!(names(&source).await.len(), 3);
        other.close().await.unwrap();
        source.close().await.unwrap();
    });
}

#[test]
fn one_that_is_stopped_leaves_nothing_behind() {
    block_on(async {
        let registry = strongroom::registry::default();
        let source = furnished(&registry, "mem://stopped").await;
        for calls in [0, 1, 40] {
            let mut left = calls;
            let mut progress = |_| {
                left -= 1;
                left >= 0
            };
            let options = CopyOptions { progress: Some(&mut progress), ..CopyOptions::default() };
            let stopped = source.copy("mem://stopped-copy", create("new", &registry), options).await;
            assert!(matches!(core_error(stopped), core::Error::Stopped));
            let opened = Repository::open("mem://stopped-copy", open("new", &registry)).await;
            assert!(matches!(core_error(opened), core::Error::NotARepository));
            assert_eq!(names(&source).await.len(), 3);
        }
        let (copy, _) =
            source.copy("mem://stopped-copy", create("new", &registry), CopyOptions::default()).await.unwrap();
        assert_same(&source, &copy, "after it was stopped").await;
        assert_eq!(copy.engine().check(Default::default()).await.unwrap().notices, Vec::<String>::new());
        copy.close().await.unwrap();
        source.close().await.unwrap();
    });
}

/// Copies until the progress was told so often, and dies there.
fn killed(source: &Repository, place: &str, registry: &Registry, calls: u32) {
    let mut left = calls;
    let mut progress = |_| {
        left -= 1;
        if left == 0 {
            resume_unwind(Box::new("killed"));
        }
        true
    };
    let options = CopyOptions { progress: Some(&mut progress), ..CopyOptions::default() };
    let new = create("new", registry);
    assert!(
        catch_unwind(AssertUnwindSafe(
            || block_on(source.copy(place, new, options)).map(|(_, copied): (_, Copied)| copied)
        ))
        .is_err()
    );
}

#[test]
fn what_is_left_of_one_that_was_killed_passes_for_no_repository() {
    let registry = strongroom::registry::default();
    let source = block_on(furnished(&registry, "mem://killed"));
    let place = "mem://killed-copy";
    killed(&source, place, &registry, 30);
    block_on(async {
        let unfinished = |error| assert!(matches!(error, core::Error::UnfinishedCopy), "{error}");
        unfinished(core_error(Repository::open(place, open("new", &registry)).await));
        unfinished(core_error(Repository::open(place, open("new", &registry).read_only(true)).await));
        unfinished(core_error(Repository::create(place, create("new", &registry)).await));
        let options = CopyOptions::default();
        unfinished(core_error(source.copy(place, create("new", &registry), options).await));
        let wrong = Repository::open(place, open("old", &registry)).await;
        assert!(matches!(core_error(wrong), core::Error::WrongCredentials));
        let options = HeaderOptions { registry: Some(registry.clone()), ..HeaderOptions::default() };
        assert!(strongroom::clear_header(place, &options).await.unwrap().is_unfinished_copy);
        assert!(strongroom::destroy(place, open("new", &registry)).await.unwrap().deleted_count > 0);
        let (copy, _) = source.copy(place, create("new", &registry), CopyOptions::default()).await.unwrap();
        assert!(!strongroom::clear_header(place, &options).await.unwrap().is_unfinished_copy);
        copy.close().await.unwrap();
        source.close().await.unwrap();
    });
}

#[test]
fn what_a_copy_that_died_kept_in_the_source_goes_with_the_next_and_what_a_living_one_keeps_stays() {
    let registry = strongroom::registry::default();
    let source = block_on(furnished(&registry, "mem://held"));
    killed(&source, "mem://held-killed", &registry, 20);
    block_on(async {
        assert_eq!(names(&source).await.len(), 4);
        // Its process lives, for all that can be known.
        let (copy, copied) =
            source.copy("mem://held-1", create("new", &registry), CopyOptions::default()).await.unwrap();
        assert_eq!((copied.snapshots, names(&source).await.len()), (3, 4));
        copy.close().await.unwrap();
        source.close().await.unwrap();
        drop(source);
        let source = Repository::open("mem://held", open("old", &registry)).await.unwrap();
        let (copy, copied) =
            source.copy("mem://held-2", create("new", &registry), CopyOptions::default()).await.unwrap();
        assert_eq!((copied.snapshots, names(&source).await.len()), (3, 3));
        assert_same(&source, &copy, "after a copy died").await;
        copy.close().await.unwrap();
        source.close().await.unwrap();
    });
}

#[test]
fn a_source_that_is_read_only_is_copied_and_so_is_what_a_snapshot_keeps() {
    block_on(async {
        let registry = strongroom::registry::default();
        furnished(&registry, "mem://looked-at").await.close().await.unwrap();
        let source = Repository::open("mem://looked-at", open("old", &registry).read_only(true)).await.unwrap();
        let options = CopyOptions::default();
        let (copy, _) = source.copy("mem://looked-at-copy", create("new", &registry), options).await.unwrap();
        assert_same(&source, &copy, "read-only").await;
        copy.close().await.unwrap();
        let options = CopyOptions { at: Some("second"), ..CopyOptions::default() };
        let (copy, copied) = source.copy("mem://looked-at-then", create("new", &registry), options).await.unwrap();
        assert_eq!(copied.snapshots, 2);
        assert_eq!(names(&copy).await, names(&source).await[..2]);
        assert!(content(&copy, None).await == content(&source, Some("second")).await);
        assert!(content(&copy, Some("first")).await == content(&source, Some("first")).await);
        assert_clean(&copy).await;
        copy.close().await.unwrap();
        let options = CopyOptions { at: Some("never"), ..CopyOptions::default() };
        let absent = source.copy("mem://looked-at-never", create("new", &registry), options).await;
        assert!(matches!(core_error(absent), core::Error::NoSnapshot { .. }));
        source.close().await.unwrap();
    });
}

/// Copies a repository while another process removes everything and compacts, which gives readers no time.
fn copied_beside_another(place: &str, read_only: bool, registry: &Registry) -> Result<(), Error> {
    let source = block_on(Repository::create(place, create("old", registry))).unwrap();
    block_on(async {
        // Half of each block dies, so that the other half moves.
        let mut transaction = source.fs().begin();
        for number in 0..450_u64 {
            for kind in ["kept", "gone"] {
                let bytes = noise(number * 2 + u64::from(kind == "kept"), 30_000);
                transaction.write(format!("/{kind} {number}"), &bytes).await.unwrap();
            }
        }
        transaction.commit().await.unwrap();
        for number in 0..450 {
            source.fs().remove_file(format!("/gone {number}")).await.unwrap();
        }
        if !read_only {
            source.create_snapshot("monday").await.unwrap();
        }
        source.close().await.unwrap();
    });
    drop(source);
    let source = block_on(Repository::open(place, open("old", registry).read_only(read_only))).unwrap();
    let tuning = strongroom::Tuning { reader_grace_millis: 0, ..strongroom::Tuning::default() };
    let other = blocking::Repository::open(place, open("old", registry).tuning(tuning)).unwrap();
    let (mut calls, moved) = (0, AtomicU64::new(0));
    let mut progress = |_| {
        calls += 1;
        if calls % 100 == 1 {
            other.fs().remove_all("/").unwrap();
            other.fs().write("/other", noise(calls, 300_000)).unwrap();
            let thorough = || strongroom::CompactOptions { thorough: true, ..Default::default() };
            // Once to move, and once to delete where it was.
            moved.fetch_add(other.compact(thorough()).unwrap().moved_bytes, Ordering::Relaxed);
            other.compact(thorough()).unwrap();
        }
        true
    };
    block_on(async {
        let expected = content(&source, None).await;
        let options = CopyOptions { progress: Some(&mut progress), ..CopyOptions::default() };
        let to = format!("{place}-copy");
        let done = source.copy(to.as_str(), create("new", registry), options).await;
        // What nobody keeps does not move: it goes.
        assert!(read_only || moved.load(Ordering::Relaxed) > 6 << 20, "{moved:?}");
        let Ok((copy, copied)) = done else {
            let opened = Repository::open(to.as_str(), open("new", registry)).await;
            assert!(matches!(core_error(opened), core::Error::NotARepository));
            return done.map(drop);
        };
        assert_eq!((copied.left_behind, copied.snapshots), (None, 1));
        assert!(content(&copy, None).await == expected);
        assert!(content(&copy, Some("monday")).await == expected);
        source.refresh().await.unwrap();
        assert_eq!(names(&source).await, names(&copy).await);
        assert_clean(&copy).await;
        copy.close().await.unwrap();
        source.close().await
    })
}

#[test]
fn what_moves_while_it_is_read_is_found_where_it_is() {
    let registry = strongroom::registry::default();
    copied_beside_another("mem://moving", false, &registry).unwrap();
}

#[test]
fn where_nobody_keeps_what_is_read_a_copy_says_that_it_is_gone() {
    let registry = strongroom::registry::default();
    let gone = copied_beside_another("mem://moving-and-read-only", true, &registry);
    assert!(matches!(core_error(gone), core::Error::Expired));
}

/// A name tells nothing: what another process takes under that of a snapshot is another state.
#[test]
fn no_other_snapshot_of_the_same_name_is_copied_for_one_that_is_gone() {
    let registry = strongroom::registry::default();
    let place = "mem://taken-again";
    block_on(async {
        let source = Repository::create(place, create("old", &registry)).await.unwrap();
        let mut transaction = source.fs().begin();
        for number in 0..900_u64 {
            transaction.write(format!("/{number}"), &noise(number, 30_000)).await.unwrap();
        }
        transaction.commit().await.unwrap();
        source.create_snapshot("latest").await.unwrap();
        source.fs().remove_all("/").await.unwrap();
        source.fs().write("/newest", b"here").await.unwrap();
        source.close().await.unwrap();
    });
    let source = block_on(Repository::open(place, open("old", &registry))).unwrap();
    let tuning = strongroom::Tuning { reader_grace_millis: 0, ..strongroom::Tuning::default() };
    let other = blocking::Repository::open(place, open("old", &registry).tuning(tuning)).unwrap();
    let mut calls = 0;
    let mut progress = |_| {
        calls += 1;
        if calls == 1 {
            other.refresh().unwrap();
            let hold =
                other.snapshots().unwrap().into_iter().find(SnapshotInfo::is_hold).expect("one keeps what is copied");
            let refused = other.create_snapshot(&hold.name.replace('0', "1"));
            assert!(matches!(core_error(refused), core::Error::Invalid(_)));
            other.remove_snapshot("latest").unwrap();
            other.fs().write("/newest", "and again").unwrap();
            other.create_snapshot("latest").unwrap();
            for _ in 0..2 {
                other.compact(strongroom::CompactOptions { thorough: true, ..Default::default() }).unwrap();
            }
        }
        true
    };
    let options = CopyOptions { progress: Some(&mut progress), ..CopyOptions::default() };
    let copied = block_on(source.copy("mem://taken-again-copy", create("new", &registry), options));
    assert!(matches!(core_error(copied.map(drop)), core::Error::Expired));
    // The source is as the other left it.
    block_on(source.refresh()).unwrap();
    let kept = block_on(source.snapshots()).unwrap();
    assert_eq!(kept.iter().map(|info| info.name.as_str()).collect::<Vec<_>>(), ["latest"]);
    block_on(source.close()).unwrap();
}

/// What keeps a source costs space in it: nobody is left to guess that it is still there.
#[test]
fn where_the_source_stays_kept_whoever_copies_is_told_though_the_copy_fails() {
    block_on(async {
        let registry = strongroom::registry::default();
        let uri = StorageUri::parse("mem://kept-on").unwrap();
        let context = OpenContext::new(strongroom::env::system().unwrap()).with_mode(OpenMode::CreateIfMissing);
        let storage = Arc::new(FlakyStorage::new(
            registry.open(&uri, &context).await.unwrap(),
            FlakyOptions { seed: 1, ..FlakyOptions::default() },
        ));
        let place: Arc<dyn Storage> = storage.clone();
        let new = || create("new", &registry);
        for goes_on in [false, true] {
            let opened = Repository::open(place.clone(), open("old", &registry).without_retry()).await;
            let source = match opened {
                Ok(source) => source,
                Err(_) => {
                    let source =
                        Repository::create(place.clone(), create("old", &registry).without_retry()).await.unwrap();
                    source.fs().write("/file", noise(1, 300_000)).await.unwrap();
                    source
                }
            };
            let mut progress = |_| {
                // Of calls that change something.
                storage.set_rates(Rates { timeouts: Rate::ALWAYS, ..Rates::default() });
                goes_on
            };
            let mut left_behind = None;
            let options = CopyOptions {
                progress: Some(&mut progress),
                left_behind: Some(&mut left_behind),
                ..CopyOptions::default()
            };
            let to = format!("mem://kept-on-{goes_on}");
            let done = source.copy(to.as_str(), new(), options).await;
            storage.clear_faults();
            match done {
                Ok((copy, copied)) => {
                    assert!(goes_on);
                    assert_eq!(copied.left_behind, left_behind);
                    copy.close().await.unwrap();
                }
                Err(error) => assert!(!goes_on && matches!(error, Error::Core(core::Error::Stopped)), "{error}"),
            }
            source.refresh().await.unwrap();
            let kept = names(&source).await;
            assert_eq!(kept.iter().map(|(name, _)| Some(name.clone())).collect::<Vec<_>>(), [left_behind]);
            source.close().await.unwrap();
        }
        // The next copy removes it.
        let source = Repository::open(place, open("old", &registry)).await.unwrap();
        let mut left_behind = None;
        let options = CopyOptions { left_behind: Some(&mut left_behind), ..CopyOptions::default() };
        let (copy, copied) = source.copy("mem://kept-on-last", new(), options).await.unwrap();
        assert_eq!((copied.left_behind, left_behind), (None, None));
        assert_eq!(names(&source).await, []);
        copy.close().await.unwrap();
        source.close().await.unwrap();
    });
}

/// Whatever fails, and whenever: what stays in the source is what was told.
#[test]
fn of_a_source_on_a_storage_that_fails_at_any_moment_nothing_stays_kept_unsaid() {
    block_on(async {
        let registry = strongroom::registry::default();
        let context = OpenContext::new(strongroom::env::system().unwrap()).with_mode(OpenMode::CreateIfMissing);
        let (mut told, mut failed) = (0, 0);
        for seed in 0..40 {
            let uri = StorageUri::parse(&format!("mem://unsaid-{seed}")).unwrap();
            let inner = registry.open(&uri, &context).await.unwrap();
            let storage = Arc::new(FlakyStorage::new(inner, FlakyOptions { seed, ..FlakyOptions::default() }));
            let place: Arc<dyn Storage> = storage.clone();
            let source = Repository::create(place, create("old", &registry).without_retry()).await.unwrap();
            source.fs().write("/file", noise(1, 300_000)).await.unwrap();
            storage.set_rates(Rates {
                refusals: Rate::per_mille(60),
                ambiguous: Rate::per_mille(60),
                ..Rates::default()
            });
            let mut left_behind = None;
            let options = CopyOptions { left_behind: Some(&mut left_behind), ..CopyOptions::default() };
            let to = format!("mem://unsaid-{seed}-copy");
            failed += u64::from(source.copy(to.as_str(), create("new", &registry), options).await.is_err());
            storage.clear_faults();
            source.refresh().await.unwrap();
            let kept = names(&source).await;
            assert!(kept.iter().all(|(name, _)| Some(name) == left_behind.as_ref()), "seed {seed}: {kept:?}");
            told += u64::from(left_behind.is_some());
        }
        eprintln!("{told} told, {failed} failed");
        assert!(told > 0 && failed > 0, "{told} told, {failed} failed");
    });
}

#[test]
fn an_empty_repository_is_copied() {
    let registry = strongroom::registry::default();
    let source = blocking::Repository::create("mem://empty", create("old", &registry)).unwrap();
    let (copy, copied) = source.copy("mem://empty-copy", create("new", &registry), CopyOptions::default()).unwrap();
    assert_eq!((copied.chunks, copied.snapshots), (0, 0));
    copy.fs().write("/first", "first").unwrap();
    copy.check(check::CheckOptions { data: true }, |finding| panic!("{finding:?}")).unwrap();
    copy.close().unwrap();
    source.close().unwrap();
}
