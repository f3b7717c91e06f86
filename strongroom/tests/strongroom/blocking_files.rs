//! Files through the blocking API, as large as real ones and as hostile as threads are.

use std::io::{Read, Seek, SeekFrom, Write};
use std::ops::Bound;

use strongroom::blocking::{Repository, Scan};
use strongroom::check::CheckOptions;
use strongroom::fs::{OpenOptions, Timestamp};
use strongroom::{CreateOptions, Credentials, Error, KdfParameters};

/// A generator of numbers that is the same everywhere for one seed (splitmix64).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end.max(1)
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| u8::try_from(self.below(256)).unwrap()).collect()
    }
}

fn repository(name: &str) -> Repository {
    let options = CreateOptions::new(Credentials::password("test")).kdf(KdfParameters::MINIMUM).without_trusted_state();
    Repository::create(&*format!("mem://{name}"), options).unwrap()
}

fn assert_sound(repository: &Repository) {
    let options = CheckOptions { data: true };
    repository.check(options, |finding| panic!("{finding:?}")).unwrap();
}

fn writing() -> OpenOptions {
    OpenOptions::new().read(true).write(true).create(true)
}

#[test]
fn overwrites_and_lengths_around_chunk_ends_read_back_as_in_a_vector() {
    let repository = repository("blocking-overwrites");
    let fs = repository.fs();
    let mut numbers = Numbers(7);
    let mut model = numbers.bytes(600_000);
    fs.create_file("/file").unwrap().write_all(&model).unwrap();
    let file = fs.open_file_with("/file", writing()).unwrap();
    file.write_at(0, &model).unwrap();
    // Ends of blocks, of chunks of every size, and of pages.
    let edges = [4_096, 16_384, 65_536, 131_072 - 120, 131_072, 262_144, 262_144 - 5, 524_288, 600_000, 1_000_000];
    for round in 0..300 {
        let edge = edges[usize::try_from(numbers.below(edges.len() as u64)).unwrap()];
        let at = edge - numbers.below(3).min(edge) + numbers.below(3);
        if numbers.below(4) == 0 {
            file.set_len(at).unwrap();
            model.resize(usize::try_from(at).unwrap(), 0);
        } else {
            let count = usize::try_from(numbers.below(300)).unwrap();
            let bytes = numbers.bytes(count);
            file.write_at(at, &bytes).unwrap();
            let (at, end) = (usize::try_from(at).unwrap(), usize::try_from(at).unwrap() + count);
            if count > 0 && model.len() < end {
                model.resize(end, 0);
            }
            if count > 0 {
                model[at..end].copy_from_slice(&bytes);
            }
        }
        if round % 20 == 0 {
            file.sync().unwrap();
        }
        assert_eq!(file.len().unwrap(), model.len() as u64, "round {round}");
        if round % 10 == 0 {
            let mut out = vec![0; model.len() + 1];
            let mut read = 0;
            while let count @ 1.. = file.read_at(read as u64, &mut out[read..]).unwrap() {
                read += count;
            }
            assert!(out[..read] == model, "round {round}");
        }
    }
    file.close().unwrap();
    let mut back = Vec::new();
    fs.open_file("/file").unwrap().read_to_end(&mut back).unwrap();
    assert!(back == model);
    assert_sound(&repository);
}

#[test]
fn an_open_file_follows_renames_and_stays_when_it_is_replaced() {
    let repository = repository("blocking-names");
    let fs = repository.fs();
    let write = |path: &str, bytes: &[u8]| {
        let mut file = fs.create_file(path).unwrap();
        file.write_all(bytes).unwrap();
        file.close().unwrap();
    };
    let read = |path: &str| {
        let mut bytes = Vec::new();
        fs.open_file(path).unwrap().read_to_end(&mut bytes).unwrap();
        bytes
    };
    write("/a", b"one");
    let file = fs.open_file_with("/a", writing()).unwrap();
    fs.rename("/a", "/b").unwrap();
    file.write_at(3, b" more").unwrap();
    file.sync().unwrap();
    assert_eq!(read("/b"), b"one more");
    assert!(matches!(fs.open_file("/a"), Err(Error::NotFound { .. })));

    // Another takes its name: what is written through the handle goes to the file without one.
    write("/c", b"two");
    fs.rename("/c", "/b").unwrap();
    file.write_at(0, b"ONE").unwrap();
    file.sync().unwrap();
    let mut bytes = [0; 20];
    assert_eq!(file.read_at(0, &mut bytes).unwrap(), 8);
    assert_eq!((&bytes[..8], file.metadata().unwrap().nlink), (&b"ONE more"[..], 0));
    assert_eq!(read("/b"), b"two");
    assert_sound(&repository);
    let chunks = repository.info().unwrap().chunks;
    file.close().unwrap();
    assert!(repository.info().unwrap().chunks < chunks, "it went with its last handle");
    assert_sound(&repository);
}

#[test]
fn what_was_acknowledged_stays_when_handles_and_transactions_are_dropped() {
    let repository = repository("blocking-drops");
    let fs = repository.fs();
    let file = fs.open_file_with("/file", writing()).unwrap();
    file.write_at(0, b"acknowledged").unwrap();
    file.sync().unwrap();
    file.write_at(0, b"never said to be kept").unwrap();
    drop(file);
    let mut transaction = fs.begin();
    transaction.create_dir("/folder").unwrap();
    transaction.rename("/file", "/folder/file").unwrap();
    drop(transaction);
    let mut bytes = Vec::new();
    fs.open_file("/file").unwrap().read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, b"acknowledged");
    assert!(matches!(fs.metadata("/folder"), Err(Error::NotFound { .. })));
    assert_sound(&repository);
}

#[test]
fn threads_on_one_handle_read_what_was_written_and_nothing_between() {
    let repository = repository("blocking-threads");
    let fs = repository.fs();
    let file = fs.open_file_with("/file", writing()).unwrap();
    file.write_at(0, &vec![0; 400_000]).unwrap();
    file.sync().unwrap();
    std::thread::scope(|scope| {
        for writer in 0..4_u64 {
            let file = &file;
            scope.spawn(move || {
                for round in 1..40_u8 {
                    file.write_at(writer * 100_000, &vec![round; 1_000]).unwrap();
                    if round % 10 == 0 {
                        file.sync().unwrap();
                    }
                }
            });
        }
        for reader in 0..4_u64 {
            let file = &file;
            scope.spawn(move || {
                for _ in 0..100 {
                    let mut bytes = vec![0; 1_000];
                    assert_eq!(file.read_at(reader * 100_000, &mut bytes).unwrap(), 1_000);
                    assert!(bytes.iter().all(|byte| *byte == bytes[0]), "half of a write was seen");
                }
            });
        }
    });
    file.close().unwrap();
    let file = fs.open_file("/file").unwrap();
    for writer in 0..4 {
        let mut bytes = vec![0; 1_001];
        file.read_at(writer * 100_000, &mut bytes).unwrap();
        assert_eq!((bytes[0], bytes[999], bytes[1_000]), (39, 39, 0));
    }
    assert_sound(&repository);
}

#[test]
fn scans_of_keys_meet_their_bounds_and_keys_their_limits() {
    let repository = repository("blocking-keys");
    let kv = repository.kv();
    for key in [&b"a"[..], b"a\0", b"ab", b"b", b"\xff", b"\xff\xff"] {
        kv.put(key, key).unwrap();
    }
    let keys = |scan: Scan| -> Vec<Vec<u8>> { scan.map(|row| row.unwrap().0.to_vec()).collect() };
    let bounds = |from: &'static [u8], to: &'static [u8]| (Bound::Excluded(from), Bound::Included(to));
    assert_eq!(keys(kv.scan(bounds(b"a", b"b"))), [&b"a\0"[..], b"ab", b"b"]);
    assert_eq!(keys(kv.scan_reverse(bounds(b"b", b"\xff"))), [b"\xff"]);
    assert_eq!(keys(kv.scan(bounds(b"z", b"a"))), Vec::<Vec<u8>>::new());
    assert_eq!(keys(kv.scan(bounds(b"a", b"a"))), Vec::<Vec<u8>>::new());
    assert!(kv.put(vec![b'k'; 1_323], b"").is_err());
    kv.put(vec![b'k'; 1_319], vec![7; 64 << 10]).unwrap();
    assert_eq!(kv.get(vec![b'k'; 1_319]).unwrap().unwrap(), vec![7; 64 << 10]);
    assert_sound(&repository);
}

#[test]
fn times_arrive_in_the_order_in_which_they_are_given() {
    let repository = repository("blocking-times");
    let fs = repository.fs();
    fs.write("/f", "f").unwrap();
    let (atime, mtime) = (Timestamp::new(1, 2).unwrap(), Timestamp::new(3, 4).unwrap());
    fs.set_times("/f", Some(atime), Some(mtime)).unwrap();
    let metadata = fs.metadata("/f").unwrap();
    assert_eq!((metadata.atime, metadata.mtime), (atime, mtime));
}

#[test]
fn the_position_of_a_handle_that_appends_is_after_what_it_wrote() {
    let repository = repository("blocking-append");
    let fs = repository.fs();
    fs.write("/f", "before ").unwrap();
    let mut file = fs.open_file_with("/f", OpenOptions::new().read(true).append(true)).unwrap();
    assert_eq!(file.stream_position().unwrap(), 0);
    file.write_all(b"first ").unwrap();
    assert_eq!(file.stream_position().unwrap(), 13);
    let other = fs.open_file_with("/f", OpenOptions::new().append(true)).unwrap();
    other.append(b"other ").unwrap();
    file.write_all(b"second").unwrap();
    assert_eq!(file.stream_position().unwrap(), 25);
    file.seek(SeekFrom::Current(-6)).unwrap();
    let mut read = String::new();
    file.read_to_string(&mut read).unwrap();
    assert_eq!(read, "second");
}
