//! Several records at once: by how many requests, and what a hostile answer to one of them does to the others.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures_lite::future::block_on;
use proptest::prelude::*;

use super::sealed_blocks::put;
use crate::block::run::{GAP_BYTES_MAX, RUN_BYTES_MAX};
use crate::block::testing::{TestStorage, Twist, World};
use crate::block::{BlockContext, BlockReader, BlockStore, BlockWriter, READ_ALIGNMENT_BYTES, WriterOptions};
use crate::cache::{Cache as _, MemoryCache, Part};
use crate::crypto::Suite;
use crate::format::{BlockClass, Pointer, RecordKind};
use crate::layer::Cached;
use crate::storage::{Error as StorageError, ErrorKind, Operation};
use crate::{Error, Result};

const KIND: RecordKind = RecordKind::ChunkData;
const RECORD_BYTES: usize = 60_000;

/// A block of 1 MiB, and what is in it.
fn full() -> (World, BlockReader, Vec<Pointer>, Vec<Vec<u8>>) {
    full_of(17, RECORD_BYTES)
}

fn full_of(count: u8, record_bytes: usize) -> (World, BlockReader, Vec<Pointer>, Vec<Vec<u8>>) {
    let world = World::new(Suite::Aes256Gcm, 1 << 20);
    let payloads: Vec<Vec<u8>> = (0..count).map(|number| vec![number; record_bytes]).collect();
    let records: Vec<_> = payloads.iter().map(|payload| (KIND, payload.clone())).collect();
    let pointers = put(&world, &records);
    assert_eq!(pointers.len(), usize::from(count), "all of them fit");
    let reader = BlockReader::new(world.context.clone());
    (world, reader, pointers, payloads)
}

fn requests(storage: &TestStorage) -> Vec<std::ops::Range<u64>> {
    let ranges = std::mem::take(&mut *storage.ranges.lock().unwrap());
    ranges.into_iter().map(|range| range.unwrap_or(0..1 << 20)).collect()
}

fn payloads(read: Vec<Result<Bytes>>) -> Vec<Bytes> {
    read.into_iter().map(|payload| payload.unwrap()).collect()
}

#[test]
fn neighbours_come_by_one_request_in_the_order_that_was_asked_for() {
    let (world, reader, pointers, content) = full();
    let all = block_on(reader.read_many(&pointers, KIND));
    assert_eq!(payloads(all), content);
    assert_eq!(requests(&world.storage).len(), 1);
    // Backwards, and one of them twice.
    let wanted: Vec<usize> = (3..9).rev().chain([5]).collect();
    let some: Vec<Pointer> = wanted.iter().map(|number| pointers[*number]).collect();
    let some = payloads(block_on(reader.read_many(&some, KIND)));
    assert!(some.iter().zip(&wanted).all(|(payload, number)| *payload == content[*number]));
    assert_eq!(requests(&world.storage).len(), 1);
    assert!(block_on(reader.read_many(&[], KIND)).is_empty() && requests(&world.storage).is_empty());
}

#[test]
fn what_lies_far_apart_comes_by_requests_of_its_own() {
    let (world, reader, pointers, content) = full();
    // One record between is more than the bound, as it is more than half of what a part of it would be.
    let apart = [pointers[0], pointers[1], pointers[4], pointers[5], pointers[16]];
    let read = payloads(block_on(reader.read_many(&apart, KIND)));
    assert!(read.iter().zip([0, 1, 4, 5, 16]).all(|(payload, number)| *payload == content[number]));
    let asked = requests(&world.storage);
    assert_eq!(asked.len(), 3, "{asked:?}");
    // A short one between is not.
    let world = World::new(Suite::Aes256Gcm, 1 << 20);
    let records = [RECORD_BYTES, 20_000, RECORD_BYTES].map(|length| (KIND, vec![1; length]));
    let pointers = put(&world, &records);
    let reader = BlockReader::new(world.context.clone());
    payloads(block_on(reader.read_many(&[pointers[0], pointers[2]], KIND)));
    assert_eq!(requests(&world.storage).len(), 1);
}

#[test]
fn a_damaged_record_is_named_and_those_around_it_are_read() {
    let (world, reader, pointers, content) = full();
    let (name, blob) = world.storage.only();
    let mut blob = blob.to_vec();
    blob[pointers[7].offset as usize + 100] ^= 1;
    world.storage.set(name, blob);
    for (number, read) in block_on(reader.read_many(&pointers, KIND)).into_iter().enumerate() {
        match read {
            Ok(payload) => assert!(number != 7 && payload == content[number]),
            Err(Error::Damaged(damage)) => assert!(number == 7 && damage.blob == Some(name)),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn of_a_blob_that_was_cut_short_what_is_left_is_read() {
    let (world, reader, pointers, content) = full();
    let (name, blob) = world.storage.only();
    world.storage.set(name, blob.slice(..pointers[7].offset as usize + 100));
    for (number, read) in block_on(reader.read_many(&pointers, KIND)).into_iter().enumerate() {
        // The record before the cut lies in the same part of 16 KiB.
        match read {
            Ok(payload) => assert!(number <= 6 && payload == content[number]),
            Err(error) => assert!(number >= 6 && matches!(error, Error::Damaged(_)), "{number}: {error}"),
        }
    }
}

#[test]
fn an_answer_of_another_length_than_was_asked_for_is_not_believed_and_each_record_asked_for_alone() {
    let twists: [Twist; 4] = [
        |range, bytes| Ok(if is_wide(range) { bytes.slice(..bytes.len() - 1) } else { bytes }),
        |range, bytes| Ok(if is_wide(range) { [&bytes[..], &[0]].concat().into() } else { bytes }),
        |range, bytes| Ok(if is_wide(range) { Bytes::new() } else { bytes }),
        |range, bytes| match is_wide(range) {
            true => Err(StorageError::new(ErrorKind::Other, Operation::Get, "a bad sector")),
            false => Ok(bytes),
        },
    ];
    for twist in twists {
        let (world, reader, pointers, content) = full();
        *world.storage.twist.lock().unwrap() = Some(twist);
        assert_eq!(payloads(block_on(reader.read_many(&pointers, KIND))), content);
        assert_eq!(requests(&world.storage).len(), 1 + pointers.len());
    }
    // Bytes from elsewhere, and bytes of nothing, are no record at all.
    let twists: [Twist; 2] =
        [|_, bytes| Ok([&bytes[1..], &[0]].concat().into()), |_, bytes| Ok(vec![0; bytes.len()].into())];
    for twist in twists {
        let (world, reader, pointers, _) = full();
        *world.storage.twist.lock().unwrap() = Some(twist);
        let read = block_on(reader.read_many(&pointers, KIND));
        assert!(read.iter().all(|read| matches!(read, Err(Error::Damaged(_)))));
    }
}

#[test]
fn records_that_are_asked_for_alone_are_all_asked_for_at_once() {
    let twists: [Twist; 2] = [
        |range, bytes| if is_wide(range) { Ok(Bytes::new()) } else { Ok(bytes) },
        // So that both ends tell that the rest is worth asking for.
        |range, bytes| match is_wide(range) {
            true => Err(StorageError::new(ErrorKind::Unavailable, Operation::Get, "too long")),
            false => Ok(bytes),
        },
    ];
    for (twist, at_once) in twists.into_iter().zip([17, 15]) {
        let (world, reader, pointers, content) = full();
        *world.storage.twist.lock().unwrap() = Some(twist);
        world.storage.reads_wait.store(true, Ordering::SeqCst);
        assert_eq!(payloads(block_on(reader.read_many(&pointers, KIND))), content);
        assert_eq!(world.storage.reading_most.load(Ordering::SeqCst), at_once);
    }
}

#[test]
fn of_many_small_records_that_are_asked_for_alone_a_bounded_number_is_asked_for_at_once() {
    let (world, reader, pointers, content) = full_of(200, 5_000);
    *world.storage.twist.lock().unwrap() = Some(|range, bytes| Ok(if is_wide(range) { Bytes::new() } else { bytes }));
    world.storage.reads_wait.store(true, Ordering::SeqCst);
    assert_eq!(payloads(block_on(reader.read_many(&pointers, KIND))), content);
    assert_eq!(world.storage.reading_most.load(Ordering::SeqCst), 32);
}

fn is_wide(range: &Option<std::ops::Range<u64>>) -> bool {
    range.as_ref().is_none_or(|range| range.end - range.start > 200_000)
}

#[test]
fn what_every_request_would_meet_is_met_once() {
    let (world, reader, pointers, _) = full();
    let (name, _) = world.storage.only();
    *world.storage.twist.lock().unwrap() =
        Some(|_, _| Err(StorageError::new(ErrorKind::Unavailable, Operation::Get, "overloaded")));
    // That it is so for all, those at both ends tell.
    let read = block_on(reader.read_many(&pointers, KIND));
    assert!(read.len() == 17 && read.iter().all(|read| matches!(read, Err(Error::Storage(_)))));
    assert_eq!(requests(&world.storage).len(), 3);
    *world.storage.twist.lock().unwrap() =
        Some(|_, _| Err(StorageError::new(ErrorKind::PermissionDenied, Operation::Get, "no right")));
    let read = block_on(reader.read_many(&pointers, KIND));
    assert!(read.len() == 17 && read.iter().all(|read| matches!(read, Err(Error::Storage(_)))));
    assert_eq!(requests(&world.storage).len(), 1);
    world.storage.blobs.lock().unwrap().clear();
    let read = block_on(reader.read_many(&pointers, KIND));
    assert!(read.iter().all(|read| matches!(read, Err(Error::Missing { blob, .. }) if *blob == name)));
    assert_eq!(requests(&world.storage).len(), 1);
}

/// As a gateway answers that cannot read a place of its disk, or a proxy that cuts what is long.
#[test]
fn a_place_that_a_server_fails_at_each_time_hides_no_record_beside_it() {
    for (place, lost) in [(500_000, vec![8]), (10, vec![0]), (1_000_000, vec![16])] {
        let (world, reader, pointers, content) = full();
        let twists: [(u64, Twist); 3] = [
            (10, |range, bytes| fails_at(10, range, bytes)),
            (500_000, |range, bytes| fails_at(500_000, range, bytes)),
            (1_000_000, |range, bytes| fails_at(1_000_000, range, bytes)),
        ];
        *world.storage.twist.lock().unwrap() = twists.into_iter().find(|(at, _)| *at == place).map(|(_, twist)| twist);
        let read = block_on(reader.read_many(&pointers, KIND));
        let failed: Vec<usize> = (0..read.len()).filter(|number| read[*number].is_err()).collect();
        assert_eq!(failed, lost, "at {place}");
        assert!(
            read.iter()
                .zip(&content)
                .all(|(read, content)| read.as_ref().is_ok_and(|read| read == content) || read.is_err())
        );
    }
}

fn fails_at(
    place: u64,
    range: &Option<std::ops::Range<u64>>,
    bytes: Bytes,
) -> std::result::Result<Bytes, StorageError> {
    match range.as_ref().is_none_or(|range| range.contains(&place)) {
        true => Err(StorageError::new(ErrorKind::Unavailable, Operation::Get, "it failed")),
        false => Ok(bytes),
    }
}

#[test]
fn a_pointer_to_where_no_record_can_be_spoils_no_other() {
    let (_, reader, pointers, content) = full();
    let wrong = Pointer { offset: u32::MAX, ..pointers[1] };
    let other = Pointer { salt: [9; 16], ..pointers[2] };
    let mut read = block_on(reader.read_many(&[pointers[0], wrong, other, pointers[3]], KIND)).into_iter();
    let mut next = || read.next().unwrap();
    assert_eq!(next().unwrap(), content[0]);
    assert!(matches!(next(), Err(Error::Damaged(_))) && matches!(next(), Err(Error::Damaged(_))));
    assert_eq!(next().unwrap(), content[3]);
}

#[test]
fn what_a_cache_holds_wrongly_comes_from_storage() {
    let (world, _, pointers, content) = full();
    let (name, blob) = world.storage.only();
    let cache = Arc::new(MemoryCache::new(8 << 20));
    let storage = Arc::new(Cached::new(world.storage.clone(), cache.clone()));
    let reader = BlockReader::new(Arc::new(BlockContext { storage, ..(*world.context).clone() }));
    let mut wrong = blob.to_vec();
    wrong[pointers[2].offset as usize] ^= 1;
    for wrong in [wrong, vec![0; blob.len()]] {
        block_on(cache.insert(name, Part::Whole, wrong.into()));
        assert_eq!(payloads(block_on(reader.read_many(&pointers, KIND))), content);
    }
    // And what is damaged in storage too is.
    world.storage.blobs.lock().unwrap().insert(name, vec![0; 1 << 20].into());
    block_on(cache.remove(name));
    assert!(block_on(reader.read_many(&pointers, KIND)).iter().all(|read| matches!(read, Err(Error::Damaged(_)))));
}

#[test]
fn what_is_on_its_way_into_storage_is_read_beside_what_is_there() {
    let world = World::new(Suite::Aes256Gcm, 64 << 10);
    let writer = BlockWriter::new(world.context.clone(), WriterOptions::default());
    writer.set_epoch(1);
    let store = BlockStore { reader: BlockReader::new(world.context.clone()), writer: Arc::new(writer) };
    block_on(async {
        let (mut pointers, mut content) = (Vec::new(), Vec::new());
        for number in 0..20_u8 {
            let payload = vec![number; 5_000];
            pointers.extend(store.writer.append(BlockClass::Data, KIND, number.into(), &payload).await.unwrap());
            content.extend(payload);
            if number == 9 {
                store.writer.flush().await.unwrap();
            }
        }
        pointers.reverse();
        let mut read = payloads(store.read_many(&pointers, KIND).await);
        read.reverse();
        assert!(read.concat() == content);
        // Those that are stored lie in one block, and those that are not take no request.
        assert_eq!(requests(&world.storage).len(), 1);
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_records_in_any_order_are_what_they_are_alone_and_no_more_is_fetched_than_is_stated(
        shift in 14..=22_u32, lengths in proptest::collection::vec(0..70_000_usize, 1..60),
        wanted in proptest::collection::vec(any::<proptest::sample::Index>(), 0..40),
    ) {
        let world = World::new(Suite::Aes256Gcm, 1 << shift);
        let mut content: Vec<_> = lengths.iter().enumerate().map(|(number, length)| (KIND, vec![number as u8; *length])).collect();
        let pointers = put(&world, &content);
        prop_assume!(!pointers.is_empty());
        content.truncate(pointers.len());
        let wanted: Vec<usize> = wanted.iter().map(|wanted| wanted.index(pointers.len())).collect();
        let asked: Vec<Pointer> = wanted.iter().map(|number| pointers[*number]).collect();
        let reader = BlockReader::new(world.context.clone());
        let read = payloads(block_on(reader.read_many(&asked, KIND)));
        for (payload, number) in read.iter().zip(&wanted) {
            prop_assert_eq!(&payload[..], &content[*number].1[..]);
        }
        prop_assert_eq!(read.len(), wanted.len());
        let alignment = u64::from(READ_ALIGNMENT_BYTES).min(1 << shift);
        let requests: Vec<_> = std::mem::take(&mut *world.storage.ranges.lock().unwrap());
        let requests: Vec<_> = requests.into_iter().map(|range| range.unwrap_or(0..1 << shift)).collect();
        let part = |pointer: &Pointer| {
            let (start, end) = (u64::from(pointer.offset), u64::from(pointer.offset + pointer.length));
            start / alignment * alignment..end.next_multiple_of(alignment)
        };
        let mut needed: Vec<u64> = asked.iter().flat_map(|pointer| part(pointer).step_by(alignment as usize)).collect();
        needed.sort_unstable();
        needed.dedup();
        let fetched: u64 = requests.iter().map(|range| range.end - range.start).sum();
        // Where two requests meet, both may bring the part between.
        let twice = requests.len() as u64 * alignment;
        prop_assert!(fetched <= 2 * needed.len() as u64 * alignment + twice, "{requests:?}");
        for range in &requests {
            prop_assert!(range.start % alignment == 0 && range.end % alignment == 0);
            prop_assert!(range.end - range.start <= u64::from(RUN_BYTES_MAX));
        }
        for pair in needed.windows(2) {
            let gap = pair[1] - pair[0] - alignment;
            let split = requests.iter().all(|range| range.end <= pair[1] || range.start > pair[0]);
            prop_assert!(gap <= u64::from(GAP_BYTES_MAX) || split);
        }
    }
}
