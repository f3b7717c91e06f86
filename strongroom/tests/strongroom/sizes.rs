//! From what applications see to what the storage holds: each step of it counted.

use strongroom::blocking::Repository;
use strongroom::fs::{Follow, XattrMode};
use strongroom::{CompactOptions, CreateOptions, Credentials, KdfParameters, Sizes};

fn repository(name: &str) -> Repository {
    let options = CreateOptions::new(Credentials::password("test")).kdf(KdfParameters::MINIMUM).without_trusted_state();
    Repository::create(&*format!("mem://{name}"), options.block_bytes(16 << 10).versions(4)).unwrap()
}

/// Bytes that no compressor makes smaller.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..length).map(|_| next()).collect()
}

/// That each step takes away what it says, and nothing else.
#[track_caller]
fn assert_steps(sizes: &Sizes, unique: u64, compressed: u64) {
    assert_eq!((sizes.unique_bytes, sizes.compressed_bytes), (unique, compressed), "{sizes:?}");
    assert_eq!(sizes.stored_bytes, sizes.engine.blobs * (16 << 10));
    assert!(sizes.stored_bytes > sizes.compressed_bytes, "{sizes:?}");
}

#[test]
fn what_is_stored_once_counts_once_and_holes_count_nothing() {
    let repository = repository("sizes-unique");
    let (fs, kv) = (repository.fs(), repository.kv());
    assert_steps(&repository.sizes().unwrap(), 0, 0);
    let content = noise(1, 300_000);
    fs.write("/one", &content).unwrap();
    fs.write("/equal", &content).unwrap();
    fs.copy("/one", "/copy").unwrap();
    fs.hard_link("/one", "/link").unwrap();
    fs.symlink("one", "/symlink").unwrap();
    fs.set_len("/one", 1 << 40).unwrap();
    let sizes = repository.sizes().unwrap();
    assert_eq!((sizes.file_bytes, sizes.hole_bytes), (600_000 + (1 << 40), (1 << 40) - 300_000));
    assert_eq!((sizes.value_bytes, sizes.version_bytes, sizes.snapshot_bytes), (0, 0, 0));
    assert_steps(&sizes, 300_000, 300_000);

    // Beside its key, in chunks, in chunks that are listed in a chunk; and a long attribute.
    for (key, length) in [("a", 100), ("b", 100_000), ("c", 12 << 20)] {
        kv.put(key, noise(length, usize::try_from(length).unwrap())).unwrap();
    }
    fs.set_xattr("/copy", "long", noise(3, 60_000), XattrMode::Set, Follow::Yes).unwrap();
    let sizes = repository.sizes().unwrap();
    let values = 100_100 + (12 << 20);
    assert_eq!((sizes.value_bytes, sizes.logical_bytes()), (values, values + 600_000 + (1 << 40)));
    assert!(sizes.unique_bytes - 300_000 - 60_000 - values < 16 << 10, "a list of chunks: {sizes:?}");
    assert_steps(&sizes, sizes.unique_bytes, sizes.unique_bytes);
}

#[test]
fn compression_versions_and_snapshots_are_told_apart() {
    let repository = repository("sizes-kinds");
    let fs = repository.fs();
    fs.write("/text", "line of text\n".repeat(40_000)).unwrap();
    let sizes = repository.sizes().unwrap();
    assert_eq!(sizes.file_bytes, 520_000);
    assert!(sizes.unique_bytes <= 520_000 && sizes.compressed_bytes < sizes.unique_bytes / 10, "{sizes:?}");
    fs.remove_file("/text").unwrap();

    fs.write("/file", noise(1, 100_000)).unwrap();
    fs.write("/file", noise(2, 50_000)).unwrap();
    let sizes = repository.sizes().unwrap();
    assert_eq!((sizes.file_bytes, sizes.version_bytes), (50_000, 100_000));
    assert_steps(&sizes, 150_000, 150_000);

    repository.create_snapshot("then").unwrap();
    assert_eq!(repository.sizes().unwrap().snapshot_bytes, 0);
    fs.remove_file("/file").unwrap();
    fs.write("/other", noise(3, 10_000)).unwrap();
    let sizes = repository.sizes().unwrap();
    assert_eq!((sizes.engine.snapshots, sizes.snapshot_bytes, sizes.file_bytes), (1, 150_000, 10_000));
    assert_steps(&sizes, 10_000, 10_000);
    repository.remove_snapshot("then").unwrap();
    repository.compact(CompactOptions::default()).unwrap();
    let sizes = repository.sizes().unwrap();
    assert_eq!((sizes.engine.snapshots, sizes.snapshot_bytes), (0, 0));
    assert_steps(&sizes, 10_000, 10_000);
}

#[test]
fn of_a_chunk_whose_end_nobody_needs_the_end_is_not_counted() {
    let repository = repository("sizes-ends");
    let fs = repository.fs();
    fs.set_version_limit("/file", Some(0)).unwrap_err();
    fs.write("/file", noise(1, 5_000)).unwrap();
    fs.set_version_limit("/file", Some(0)).unwrap();
    fs.set_len("/file", 1_000).unwrap();
    let sizes = repository.sizes().unwrap();
    assert_eq!((sizes.file_bytes, sizes.unique_bytes), (1_000, 1_000));
    assert!(sizes.compressed_bytes >= 1_000, "{sizes:?}");
}
