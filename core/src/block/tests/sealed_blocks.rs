//! What a block shows, and what it refuses.

use std::sync::Arc;

use bytes::Bytes;
use futures_lite::future::block_on;
use proptest::prelude::*;

use crate::Error;
use crate::block::sealing::Sealing;
use crate::block::testing::{World, keys};
use crate::block::{BlockBuilder, BlockReader, Place, READ_ALIGNMENT_BYTES};
use crate::crypto::Suite;
use crate::format::{
    BlockClass, BlockId, DIRECTORY_INDEX, DirectoryEntry, Pointer, RecordKind, TRAILER_INDEX, Trailer, Writer,
};
use crate::storage::Name;

const ID: BlockId = BlockId::Data { key_epoch: 4, writer_epoch: 9, counter: 5 };

fn pointer(place: Place, salt: [u8; 16]) -> Pointer {
    let Place { index, offset, length } = place;
    Pointer { key_epoch: 4, writer_epoch: 9, counter: 5, index, offset, length, salt }
}

fn is_damaged<T>(result: crate::Result<T>) -> bool {
    matches!(result, Err(Error::Damaged(damage)) if damage.blob.is_some())
}

/// Puts one block of these records and gives their pointers.
pub(super) fn put(world: &World, records: &[(RecordKind, Vec<u8>)]) -> Vec<Pointer> {
    let mut builder = BlockBuilder::new(&world.context, BlockClass::Data, &ID).unwrap();
    let salt = *builder.salt();
    let pointers = records
        .iter()
        .enumerate()
        .map_while(|(id, (kind, payload))| builder.append(*kind, id as u64, payload))
        .map(|place| pointer(place, salt))
        .collect();
    let sealed = builder.seal(&world.context.keys).unwrap();
    world.storage.set(sealed.name, sealed.bytes);
    pointers
}

fn two_records(world: &World) -> Vec<Pointer> {
    put(world, &[(RecordKind::Node, b"first record".to_vec()), (RecordKind::Node, b"other record".to_vec())])
}

fn suites() -> impl Strategy<Value = Suite> {
    prop_oneof![Just(Suite::Aes256Gcm), Just(Suite::XChaCha20Poly1305)]
}

fn record() -> impl Strategy<Value = (RecordKind, Vec<u8>)> {
    let payload = prop_oneof![
        4 => proptest::collection::vec(any::<u8>(), 0..2000),
        1 => (any::<u8>(), 0..100_000_usize).prop_map(|(byte, length)| vec![byte; length]),
    ];
    (proptest::sample::select(RecordKind::LISTED.as_slice()), payload)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_records_come_back_one_by_one_and_all_together(
        suite in suites(), shift in 12..=22_u32, records in proptest::collection::vec(record(), 0..40),
    ) {
        let world = World::new(suite, 1 << shift);
        let pointers = put(&world, &records);
        let reader = BlockReader::new(world.context.clone());
        for (pointer, (kind, payload)) in pointers.iter().zip(&records) {
            prop_assert_eq!(&block_on(reader.read(pointer, *kind)).unwrap(), payload);
        }
        let (name, blob) = world.storage.only();
        prop_assert_eq!(blob.len(), 1 << shift);
        let whole = block_on(reader.read_whole(name)).unwrap();
        prop_assert_eq!((whole.id, whole.class), (Some(ID), BlockClass::Data));
        prop_assert_eq!(whole.records.len(), pointers.len());
        for (number, (entry, payload)) in whole.records.iter().enumerate() {
            prop_assert_eq!((entry.kind, entry.id), (records[number].0, number as u64));
            prop_assert_eq!(pointer(entry.into(), whole.salt), pointers[number]);
            prop_assert_eq!(payload, &records[number].1);
        }
    }

    #[test]
    fn a_block_takes_what_remains_and_not_a_byte_more(lengths in proptest::collection::vec(0..900_usize, 0..8)) {
        let world = World::new(Suite::Aes256Gcm, 4096);
        let mut builder = BlockBuilder::new(&world.context, BlockClass::Data, &ID).unwrap();
        for length in lengths {
            let room = builder.remaining();
            let placed = builder.append(RecordKind::Node, 0, &vec![1; length]);
            prop_assert_eq!(placed.is_some(), length <= room);
        }
        let room = builder.remaining();
        prop_assert!(builder.append(RecordKind::Node, 0, &vec![1; room + 1]).is_none());
        if room > 0 {
            prop_assert!(builder.append(RecordKind::Node, 0, &vec![1; room]).is_some());
            prop_assert_eq!(builder.remaining(), 0);
        }
        prop_assert_eq!(builder.seal(&world.context.keys).unwrap().bytes.len(), 4096);
    }

    #[test]
    fn a_directory_and_a_trailer_of_anything_are_refused_or_read_without_a_panic(
        trailer in prop_oneof![any::<[u8; 9]>(), Just([1, 0, 0, 1, 0, 40, 0, 0, 0])],
        offset in 0..5000_u16, directory in proptest::collection::vec(any::<u8>(), 0..100),
    ) {
        let world = World::new(Suite::Aes256Gcm, 4096);
        let name = Name::new(world.context.keys.encrypt_name(ID.encode()));
        let key = world.context.keys.block_key(4, name.as_bytes(), &[0; 16]).unwrap();
        let sealing = Sealing { key: &key, repository: world.context.keys.repository(), name };
        let mut trailer = trailer.to_vec();
        trailer[0] %= 3;
        trailer[1..3].fill(0);
        trailer[3] %= 4;
        trailer[4] = 0;
        trailer[5..7].copy_from_slice(&offset.to_le_bytes());
        trailer.resize(Trailer::SEALED_BYTES, 0);
        sealing.seal(TRAILER_INDEX, RecordKind::Trailer, &mut trailer).unwrap();
        let mut block = vec![0; 4096 - trailer.len()];
        if let Some(sealed) = block.get_mut(usize::from(offset)..).filter(|sealed| sealed.len() >= 16) {
            let length = directory.len().min(sealed.len());
            sealed[..length].copy_from_slice(&directory[..length]);
            sealing.seal(DIRECTORY_INDEX, RecordKind::Directory, sealed).unwrap();
        }
        block.extend(trailer);
        let _ = BlockReader::new(world.context.clone()).open_whole(name, 4, block.into());
    }

    #[test]
    fn a_pointer_of_anything_is_an_error_that_names_the_blob(bytes: [u8; 19], more: [u8; 19], near: bool) {
        let world = World::new(Suite::Aes256Gcm, 4096);
        let good = two_records(&world)[0];
        let mut pointer = Pointer::decode(&[bytes, more].concat()).unwrap();
        if near {
            pointer = Pointer { index: pointer.index % 3, offset: pointer.offset % 5000, length: pointer.length % 5000, ..good };
        }
        prop_assume!(pointer != good);
        let reader = BlockReader::new(world.context.clone());
        let result = block_on(reader.read(&pointer, RecordKind::Node));
        prop_assert!(matches!(&result, Err(Error::Damaged(_) | Error::Missing { .. })), "{result:?}");
    }
}

#[test]
fn every_flipped_bit_of_a_block_is_detected() {
    for suite in [Suite::Aes256Gcm, Suite::XChaCha20Poly1305] {
        let world = World::new(suite, 4096);
        two_records(&world);
        let reader = BlockReader::new(world.context.clone());
        let (name, blob) = world.storage.only();
        reader.open_whole(name, 4, blob.clone()).unwrap();
        for bit in 0..blob.len() * 8 {
            let mut flipped = blob.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(is_damaged(reader.open_whole(name, 4, flipped.into())), "bit {bit}");
        }
    }
}

#[test]
fn a_record_opens_only_as_itself() {
    let world = World::new(Suite::Aes256Gcm, 32 << 10);
    let [first, second] = two_records(&world)[..] else { panic!() };
    let reader = BlockReader::new(world.context.clone());
    assert_eq!(block_on(reader.read(&first, RecordKind::Node)).unwrap(), "first record");
    let refused = |pointer: Pointer, kind| assert!(is_damaged(block_on(reader.read(&pointer, kind))), "{pointer:?}");
    refused(first, RecordKind::ChunkData);
    refused(Pointer { index: second.index, ..first }, RecordKind::Node);
    refused(Pointer { offset: second.offset, ..first }, RecordKind::Node);
    refused(Pointer { length: first.length - 1, ..first }, RecordKind::Node);
    refused(Pointer { salt: [0; 16], ..first }, RecordKind::Node);
    refused(Pointer { key_epoch: 40, ..first }, RecordKind::Node);

    // Moved within the block: the ciphertexts change places.
    let (name, blob) = world.storage.only();
    let [a, b] = [first, second].map(|pointer| pointer.offset as usize..(pointer.offset + pointer.length) as usize);
    let mut moved = blob.to_vec();
    moved[a.clone()].copy_from_slice(&blob[b.clone()]);
    moved[b].copy_from_slice(&blob[a]);
    world.storage.set(name, moved);
    refused(first, RecordKind::Node);
    refused(second, RecordKind::Node);

    // Moved to another name: under the salt that belongs to the bytes, too.
    let other = Pointer { counter: 6, ..first };
    world.storage.set(reader.name(&other.block_id()), blob.clone());
    refused(other, RecordKind::Node);
    assert!(is_damaged(block_on(reader.read_whole(reader.name(&other.block_id())))));

    // In another repository with the same keys.
    world.storage.set(name, blob);
    let elsewhere = BlockReader::new(world.rekeyed(keys(Suite::Aes256Gcm, 8)));
    assert!(is_damaged(block_on(elsewhere.read(&first, RecordKind::Node))));
    assert_eq!(block_on(reader.read(&first, RecordKind::Node)).unwrap(), "first record");
}

#[test]
fn two_sealings_under_one_name_do_not_pass_for_each_other() {
    let world = World::new(Suite::Aes256Gcm, 4096);
    let old = two_records(&world)[0];
    let (name, old_blob) = world.storage.only();
    let new = two_records(&world)[0];
    let (_, new_blob) = world.storage.only();
    assert_ne!(old.salt, new.salt, "a salt is drawn for each sealing");
    assert_ne!(old_blob, new_blob);
    assert_eq!(Pointer { salt: old.salt, ..new }, old, "all else is equal");
    let reader = BlockReader::new(world.context.clone());
    assert!(block_on(reader.read(&new, RecordKind::Node)).is_ok());
    assert!(is_damaged(block_on(reader.read(&old, RecordKind::Node))));
    world.storage.set(name, old_blob.clone());
    assert!(block_on(reader.read(&old, RecordKind::Node)).is_ok());
    assert!(is_damaged(block_on(reader.read(&new, RecordKind::Node))));

    // The records of one sealing behind the salt of the other.
    let mut mixed = old_blob.to_vec();
    mixed[..16].copy_from_slice(&new_blob[..16]);
    world.storage.set(name, mixed);
    assert!(is_damaged(block_on(reader.read(&new, RecordKind::Node))));
    assert!(is_damaged(block_on(reader.read_whole(name))));
}

#[test]
fn a_missing_block_is_told_apart_from_a_damaged_one() {
    let world = World::new(Suite::Aes256Gcm, 32 << 10);
    let pointer = two_records(&world)[0];
    let (name, blob) = world.storage.only();
    let reader = BlockReader::new(world.context.clone());
    world.storage.blobs.lock().unwrap().clear();
    let missing = |error: Error| matches!(error, Error::Missing { blob, .. } if blob == name);
    assert!(missing(block_on(reader.read(&pointer, RecordKind::Node)).unwrap_err()));
    assert!(missing(block_on(reader.read_whole(name)).unwrap_err()));

    for cut in [0, 1, 15, 16, 1000, blob.len() - 1] {
        world.storage.set(name, blob.slice(..cut));
        assert!(is_damaged(block_on(reader.read_whole(name))), "{cut} bytes");
    }
    world.storage.set(name, blob.slice(..1000));
    assert!(is_damaged(block_on(reader.read(&pointer, RecordKind::Node))));
    world.storage.set(name, [&blob[..], &[0]].concat());
    assert!(is_damaged(block_on(reader.read_whole(name))), "a longer blob");
}

#[test]
fn a_foreign_name_is_no_block() {
    let world = World::new(Suite::Aes256Gcm, 4096);
    assert!(is_damaged(block_on(BlockReader::new(world.context.clone()).read_whole(Name::new([5; 16])))));
    assert!(world.storage.ranges.lock().unwrap().is_empty(), "it is not even read");
}

#[test]
fn pointers_to_where_no_record_can_be_are_refused_before_storage_is_asked() {
    let world = World::new(Suite::Aes256Gcm, 4096);
    let good = two_records(&world)[0];
    let reader = BlockReader::new(world.context.clone());
    for bad in [
        Pointer { offset: 15, ..good },
        Pointer { length: 15, ..good },
        Pointer { length: u32::MAX, ..good },
        Pointer { offset: u32::MAX, length: u32::MAX, ..good },
        Pointer { offset: 4096, ..good },
        Pointer { index: u16::MAX, ..good },
        Pointer { counter: 1 << 48, ..good },
    ] {
        assert!(is_damaged(block_on(reader.read(&bad, RecordKind::Node))), "{bad:?}");
    }
    assert!(world.storage.ranges.lock().unwrap().is_empty());
}

#[test]
fn reads_ask_for_aligned_parts_only() {
    let world = World::new(Suite::Aes256Gcm, 128 << 10);
    let records: Vec<_> = (1..40).map(|number| (RecordKind::Node, vec![7; number * 150])).collect();
    let pointers = put(&world, &records);
    assert_eq!(pointers.len(), records.len());
    let reader = BlockReader::new(world.context.clone());
    for (pointer, (kind, payload)) in pointers.iter().zip(&records) {
        assert_eq!(&block_on(reader.read(pointer, *kind)).unwrap(), payload);
        let range = world.storage.ranges.lock().unwrap().pop().unwrap().unwrap();
        assert_eq!(range.start % u64::from(READ_ALIGNMENT_BYTES), 0);
        assert_eq!(range.end % u64::from(READ_ALIGNMENT_BYTES), 0);
        assert!(range.end - range.start <= u64::from(pointer.length).next_multiple_of(16 << 10) + (16 << 10));
    }
}

#[test]
fn salvage_gives_what_still_opens_and_lists_what_does_not() {
    let world = World::new(Suite::Aes256Gcm, 4096);
    let pointers = two_records(&world);
    let (name, blob) = world.storage.only();
    let mut damaged = blob.to_vec();
    damaged[pointers[0].offset as usize] ^= 1;
    world.storage.set(name, damaged);
    let reader = BlockReader::new(world.context.clone());
    assert!(is_damaged(block_on(reader.read_whole(name))));
    let salvage = block_on(reader.read_salvage(name)).unwrap();
    assert_eq!(salvage.records.len(), 1);
    assert_eq!(salvage.records[0].1, "other record");
    assert_eq!(salvage.damaged.len(), 1);
    assert_eq!(Place::from(&salvage.damaged[0]), Place::from(&pointers[0]));
}

/// Seals by hand what no writer makes: authentic, and wrong all the same.
fn forged(world: &World, class: BlockClass, id: &BlockId, change: fn(&mut Vec<DirectoryEntry>, &mut Trailer)) -> bool {
    let name = Name::new(world.context.keys.encrypt_name(id.encode()));
    let key = world.context.keys.block_key(4, name.as_bytes(), &[9; 16]).unwrap();
    let sealing = Sealing { key: &key, repository: world.context.keys.repository(), name };
    let mut entries = vec![DirectoryEntry { kind: RecordKind::Node, index: 0, offset: 16, length: 100, id: 0 }];
    let mut trailer = Trailer { class, records: 1, directory_offset: 116 };
    change(&mut entries, &mut trailer);
    let mut block = vec![9; 16];
    block.resize(116, 0);
    sealing.seal(0, RecordKind::Node, &mut block[16..116]).unwrap();
    let mut directory = Writer::default();
    entries.iter().for_each(|entry| entry.encode(&mut directory));
    block.extend(directory.into_vec());
    block.resize(4096 - Trailer::SEALED_BYTES, 0);
    sealing.seal(DIRECTORY_INDEX, RecordKind::Directory, &mut block[116..]).unwrap();
    block.extend(trailer.encode());
    block.resize(4096, 0);
    sealing.seal(TRAILER_INDEX, RecordKind::Trailer, &mut block[4096 - Trailer::SEALED_BYTES..]).unwrap();
    world.storage.set(name, block);
    let result = block_on(BlockReader::new(world.context.clone()).read_whole(name));
    assert!(result.is_ok() || is_damaged(result.clone()), "{result:?}");
    result.is_ok()
}

#[test]
fn a_block_whose_trailer_and_directory_disagree_is_refused() {
    let world = World::new(Suite::Aes256Gcm, 4096);
    let commit = BlockId::Commit { key_epoch: 4, sequence: 1 };
    assert!(forged(&world, BlockClass::Data, &ID, |_, _| {}));
    assert!(forged(&world, BlockClass::Metadata, &ID, |_, _| {}));
    assert!(forged(&world, BlockClass::Commit, &commit, |_, _| {}));
    assert!(!forged(&world, BlockClass::Commit, &ID, |_, _| {}));
    assert!(!forged(&world, BlockClass::Data, &commit, |_, _| {}));
    assert!(!forged(&world, BlockClass::Data, &ID, |_, trailer| trailer.records = 0));
    assert!(!forged(&world, BlockClass::Data, &ID, |_, trailer| trailer.records = 2));
    assert!(!forged(&world, BlockClass::Data, &ID, |_, trailer| trailer.directory_offset = 117));
    assert!(!forged(&world, BlockClass::Data, &ID, |_, trailer| trailer.directory_offset = u32::MAX));
    assert!(!forged(&world, BlockClass::Data, &ID, |entries, _| entries[0].length = 99));
    assert!(!forged(&world, BlockClass::Data, &ID, |entries, _| entries[0].offset = 17));
}

#[test]
fn a_commit_opens_by_its_beginning() {
    let world = World::new(Suite::Aes256Gcm, 128 << 10);
    let id = BlockId::Commit { key_epoch: 4, sequence: 77 };
    let mut builder = BlockBuilder::new(&world.context, BlockClass::Commit, &id).unwrap();
    let place = builder.append(RecordKind::CommitHead, 77, b"head").unwrap();
    let sealed = builder.seal(&world.context.keys).unwrap();
    let reader = BlockReader::new(world.context.clone());
    assert_eq!(reader.block_id(sealed.name), Some(id));
    let open = |beginning: &[u8], kind| reader.open_record(sealed.name, 4, beginning, &place, kind);
    assert_eq!(open(&sealed.bytes[..200], RecordKind::CommitHead).unwrap(), "head");
    assert!(is_damaged(open(&sealed.bytes[..20], RecordKind::CommitHead)));
    assert!(is_damaged(open(&[], RecordKind::CommitHead)));
    assert!(is_damaged(open(&sealed.bytes[..200], RecordKind::CommitBody)));
    let whole = reader.open_whole(sealed.name, 4, sealed.bytes).unwrap();
    assert_eq!(whole.class, BlockClass::Commit);
}

#[test]
fn a_block_with_a_name_that_is_no_number_opens_under_its_key_epoch() {
    let world = World::new(Suite::Aes256Gcm, 4096);
    let name = Name::new(*b"strongrc12345678");
    let mut builder = BlockBuilder::named(&world.context, BlockClass::Hint, name, 3).unwrap();
    builder.append(RecordKind::Hint, 0, b"hint").unwrap();
    let bytes = builder.seal(&world.context.keys).unwrap().bytes;
    let reader = BlockReader::new(world.context.clone());
    assert_eq!(reader.open_whole(name, 3, bytes.clone()).unwrap().records[0].1, "hint");
    assert!(is_damaged(reader.open_whole(name, 4, bytes)));
}

#[test]
fn records_of_directory_and_trailer_cannot_be_appended() {
    let world = World::new(Suite::Aes256Gcm, 4096);
    let mut builder = BlockBuilder::new(&world.context, BlockClass::Data, &ID).unwrap();
    assert!(builder.append(RecordKind::Directory, 0, b"").is_none());
    assert!(builder.append(RecordKind::Trailer, 0, b"").is_none());
    assert!(builder.is_empty());
}

#[test]
fn as_many_tiny_records_as_an_index_can_count_fit_the_largest_block() {
    let world = World::new(Suite::Aes256Gcm, 4 << 20);
    let mut builder = BlockBuilder::new(&world.context, BlockClass::Data, &ID).unwrap();
    let mut count = 0;
    while builder.append(RecordKind::Node, 0, b"").is_some() {
        count += 1;
    }
    assert_eq!(count, usize::from(u16::MAX) - 1);
    assert_eq!(builder.remaining(), 0);
    let sealed = builder.seal(&world.context.keys).unwrap();
    let whole = BlockReader::new(world.context.clone()).open_whole(sealed.name, 4, sealed.bytes).unwrap();
    assert_eq!(whole.records.len(), count);
}

/// Each byte value should come about equally often: the statistic has 255 degrees of freedom, mean 255, deviation 23.
#[test]
fn sealed_blocks_look_uniform() {
    for suite in [Suite::Aes256Gcm, Suite::XChaCha20Poly1305] {
        let world = World::new(suite, 1 << 20);
        put(&world, &[(RecordKind::ChunkData, vec![0; 60_000]), (RecordKind::Node, vec![b'a'; 3000])]);
        let (_, blob) = world.storage.only();
        let mut counts = [0_f64; 256];
        blob.iter().for_each(|byte| counts[usize::from(*byte)] += 1.0);
        let expected = blob.len() as f64 / 256.0;
        let statistic: f64 = counts.iter().map(|count| (count - expected).powi(2) / expected).sum();
        assert!((130.0..400.0).contains(&statistic), "{statistic}");
    }
}

#[test]
fn an_opened_record_does_not_keep_what_was_fetched_around_it() {
    let world = World::new(Suite::Aes256Gcm, 16 << 10);
    let pointer = two_records(&world)[0];
    let payload: Bytes = block_on(BlockReader::new(world.context.clone()).read(&pointer, RecordKind::Node)).unwrap();
    let capacity = payload.try_into_mut().unwrap().capacity();
    assert!(capacity < 1000, "{capacity}");
    assert_eq!(Arc::strong_count(&world.context), 1);
}
