//! How full the storage is, told at a cost that does not grow with what is stored.

use strongroom::blocking::Repository;
use strongroom::layer::Metrics;
use strongroom::storage::Operation;
use strongroom::{CreateOptions, Credentials, KdfParameters};

const BLOCK_BYTES: u32 = 16 << 10;

fn options() -> CreateOptions {
    let options = CreateOptions::new(Credentials::password("test")).kdf(KdfParameters::MINIMUM).without_trusted_state();
    options.block_bytes(BLOCK_BYTES)
}

/// That what is used is what the storage holds, within a few blocks.
#[track_caller]
fn assert_is_what_is_there(repository: &Repository) -> u64 {
    let (told, counted) = (repository.fs().statfs().unwrap(), repository.info().unwrap());
    assert_eq!(told.live_bytes, counted.live_bytes);
    // Beside it there may be a block that is being filled and one that waits to be deleted; of commits, one that is deleted.
    assert!(counted.blobs.abs_diff(told.blocks_used) <= 8, "{told:?}: {counted:?}");
    told.blocks_used
}

#[test]
fn what_is_used_grows_with_what_is_stored_and_shrinks_with_what_is_given_back() {
    let repository = Repository::create("mem://statfs-used", options()).unwrap();
    let fs = repository.fs();
    let empty = assert_is_what_is_there(&repository);
    let content: Vec<u8> = (0..1_u32 << 18).flat_map(|number| number.wrapping_mul(0x9e37_79b9).to_le_bytes()).collect();
    fs.write("/large", &content).unwrap();
    futures_lite::future::block_on(repository.asynchronous().engine().checkpoint()).unwrap();
    let told = fs.statfs().unwrap();
    let full = assert_is_what_is_there(&repository);
    let stored = content.len() as u64 / u64::from(BLOCK_BYTES);
    assert!((stored..stored + 16).contains(&(full - empty)), "{empty} to {full}: {stored}");
    assert_eq!((told.block_bytes, told.name_bytes_max), (BLOCK_BYTES, 255));
    // Nobody knows how much memory there is.
    assert_eq!((told.blocks_free, told.blocks), (None, None));

    fs.remove_file("/large").unwrap();
    repository.compact(strongroom::CompactOptions::default()).unwrap();
    let left = assert_is_what_is_there(&repository);
    assert!(left < empty + 16, "{empty}, {full}, {left}");
    // Opened anew, all is counted anew.
    let told = fs.statfs().unwrap();
    fs.drop_caches();
    assert_eq!(fs.statfs().unwrap().live_bytes, told.live_bytes);
    repository.close().unwrap();
}

#[test]
fn a_folder_says_how_much_room_there_is() {
    let scratch = tempfile::tempdir().unwrap();
    let place = format!("file:{}", scratch.path().join("repo").display());
    let repository = Repository::create(&*place, options()).unwrap();
    let told = repository.fs().statfs().unwrap();
    let free = told.blocks_free.expect("a disk that says how much is free");
    assert!(free > 0 && told.blocks == Some(free + told.blocks_used), "{told:?}");
    repository.close().unwrap();
}

#[test]
fn asking_again_costs_what_has_changed_and_never_a_listing() {
    let metrics = Metrics::new();
    let repository = Repository::create("mem://statfs-cost", options().metrics(metrics.clone())).unwrap();
    let fs = repository.fs();
    for number in 0..200_u32 {
        let content: Vec<u8> =
            (0..2_000_u32).flat_map(|at| (at * 31 + number).wrapping_mul(0x85eb_ca6b).to_le_bytes()).collect();
        fs.write(format!("/{number}"), content).unwrap();
    }
    let checkpoint = || futures_lite::future::block_on(repository.asynchronous().engine().checkpoint()).unwrap();
    checkpoint();
    let cost = || {
        // What was decoded before is of no help.
        repository.drop_caches();
        let before = metrics.snapshot();
        let told = fs.statfs().unwrap();
        let since = metrics.snapshot().since(&before);
        assert_eq!(since.of(Operation::List).calls, 0);
        (told, since.of(Operation::Get).calls)
    };
    let (first, counted) = cost();
    let (again, nothing) = cost();
    assert_eq!(first, again);
    // Ballast is looked up, which memory has none of: the way down one tree.
    assert!(nothing < 4 && nothing <= counted, "{counted}, then {nothing}");
    fs.write("/one more", [7; 20_000]).unwrap();
    checkpoint();
    let (after, changed) = cost();
    assert!(after.live_bytes > again.live_bytes);
    assert!(changed <= 24, "{counted} at first, {changed} after a change");
    repository.close().unwrap();
}
