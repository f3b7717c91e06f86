//! The way into storage: packing, waiting, failing, being dropped.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures_lite::future::block_on;
use proptest::prelude::*;

use crate::block::testing::{Fate, World};
use crate::block::writer::Step;
use crate::block::{BlockReader, BlockStore, BlockWriter, Geometry, SHARED_BYTES_MIN, WriterOptions};
use crate::crypto::Suite;
use crate::format::{BlockClass, BlockId, Pointer, RecordKind};
use crate::storage::ErrorKind;
use crate::{Error, Result};

fn store_of(world: &World, in_flight_blocks: usize) -> BlockStore {
    let in_flight_bytes_max = in_flight_blocks * world.context.geometry.block_bytes() as usize;
    let writer = BlockWriter::new(world.context.clone(), WriterOptions { in_flight_bytes_max });
    writer.set_epoch(1);
    BlockStore { reader: BlockReader::new(world.context.clone()), writer: Arc::new(writer) }
}

fn small() -> (World, BlockStore) {
    let world = World::new(Suite::Aes256Gcm, 4096);
    let store = store_of(&world, 4);
    (world, store)
}

async fn chunk(store: &BlockStore, payload: &[u8]) -> Result<Vec<Pointer>> {
    let payload = Bytes::copy_from_slice(payload);
    store.writer.append_since((0, 0), BlockClass::Data, RecordKind::ChunkData, 1, &payload).await
}

async fn node(store: &BlockStore, payload: &[u8]) -> Result<Pointer> {
    let pointers = store.writer.append(BlockClass::Metadata, RecordKind::Node, 0, payload).await?;
    assert_eq!(pointers.len(), 1, "a node is never cut");
    Ok(pointers[0])
}

async fn whole(store: &BlockStore, pointers: &[Pointer]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for pointer in pointers {
        let read = store.read(pointer, RecordKind::ChunkData).await.unwrap();
        let mut into = vec![1; read.len()];
        store.read_into(pointer, RecordKind::ChunkData, &mut into).await.unwrap();
        assert!(into == read, "both ways of reading give the same");
        bytes.extend_from_slice(&read);
    }
    bytes
}

fn poll_once<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn a_long_payload_is_shared_until_its_block_is_sealed_and_a_short_one_copied() {
    let world = World::new(Suite::Aes256Gcm, 128 << 10);
    let store = store_of(&world, 4);
    block_on(async {
        for (length, is_shared) in [(SHARED_BYTES_MIN, true), (SHARED_BYTES_MIN - 1, false)] {
            let payload = Bytes::from(vec![7; length]);
            let append = store.writer.append_since((0, 0), BlockClass::Data, RecordKind::ChunkData, 1, &payload);
            let pointer = append.await.unwrap()[0];
            let pending = store.read(&pointer, RecordKind::ChunkData).await.unwrap();
            assert_eq!(pending, payload);
            assert_eq!(pending.as_ptr() == payload.as_ptr(), is_shared);
            drop(pending);
            store.writer.flush().await.unwrap();
            assert!(payload.is_unique(), "nothing holds on to it any more");
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn chunks_and_nodes_read_back_at_every_moment(
        shift in 12..17_u32, bound in 1..5_usize,
        records in proptest::collection::vec((any::<bool>(), any::<u8>(), 0..20_000_usize, any::<bool>()), 1..60),
    ) {
        let world = World::new(Suite::Aes256Gcm, 1 << shift);
        let store = store_of(&world, bound);
        block_on(async {
            let mut written = Vec::new();
            for (is_chunk, byte, length, flush) in records {
                if is_chunk {
                    let payload = vec![byte; length];
                    written.push((chunk(&store, &payload).await.unwrap(), RecordKind::ChunkData, payload));
                } else {
                    let payload = vec![byte; length % world.context.geometry.node_bytes_max()];
                    written.push((vec![node(&store, &payload).await.unwrap()], RecordKind::Node, payload));
                }
                if flush {
                    store.writer.flush().await.unwrap();
                }
                for (pointers, kind, payload) in written.iter().rev().take(10) {
                    let mut read = Vec::new();
                    for pointer in pointers {
                        read.extend_from_slice(&store.read(pointer, *kind).await.unwrap());
                    }
                    assert!(read == *payload);
                }
            }
            store.writer.flush().await.unwrap();
            for (pointers, kind, payload) in &written {
                let mut read = Vec::new();
                for pointer in pointers {
                    assert!(store.writer.pending(pointer, *kind).unwrap().is_none());
                    read.extend_from_slice(&store.reader.read(pointer, *kind).await.unwrap());
                }
                assert!(read == *payload);
            }
            for (name, blob) in world.storage.blobs.lock().unwrap().iter() {
                assert_eq!(blob.len(), 1 << shift, "all blobs are of one size");
                assert!(store.reader.open_whole(*name, 4, blob.clone()).is_ok());
            }
        });
    }

    #[test]
    fn a_future_dropped_anywhere_loses_nothing_and_wedges_nothing(
        steps in proptest::collection::vec((0..9000_usize, 0..6_usize, any::<bool>()), 1..30), bound in 1..4_usize,
    ) {
        let world = World::new(Suite::Aes256Gcm, 4096);
        let store = store_of(&world, bound);
        *world.storage.usual.lock().unwrap() = Some(Fate::Slow(3));
        let mut kept = Vec::new();
        for (length, polls, flush) in steps {
            let payload = vec![length as u8; length];
            {
                let mut appending = pin!(chunk(&store, &payload));
                for _ in 0..=polls {
                    if let Poll::Ready(pointers) = poll_once(appending.as_mut()) {
                        kept.push((pointers.unwrap(), payload.clone()));
                        break;
                    }
                }
            }
            if flush {
                let mut flushing = pin!(store.writer.flush());
                for _ in 0..polls {
                    if poll_once(flushing.as_mut()).is_ready() {
                        break;
                    }
                }
            }
        }
        block_on(async {
            store.writer.flush().await.unwrap();
            for (pointers, payload) in &kept {
                for pointer in pointers {
                    assert!(store.writer.pending(pointer, RecordKind::ChunkData).unwrap().is_none());
                }
                assert!(whole(&store, pointers).await == *payload);
            }
        });
    }
}

#[test]
fn packing_a_long_stream_of_chunks_loses_at_most_two_percent() {
    for shift in [14, 17, 20] {
        let world = World::new(Suite::Aes256Gcm, 1 << shift);
        let store = store_of(&world, 8);
        let mut payload_bytes = 0_u64;
        let chunk_max = (256 << 10).min(4 << shift);
        block_on(async {
            let mut state = 12345_u64;
            while payload_bytes < (300 << shift).min(40 << 20) {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let length = chunk_max / 8 + (state >> 33) as usize % (chunk_max * 7 / 8);
                chunk(&store, &vec![1; length]).await.unwrap();
                payload_bytes += length as u64;
            }
            store.writer.flush().await.unwrap();
        });
        // The last block is not full; it is not what packing lost.
        let stored = (world.storage.blobs.lock().unwrap().len() as u64 - 1) << shift;
        let loss = 1.0 - payload_bytes as f64 / stored as f64;
        assert!(loss <= 0.02, "blocks of 2^{shift} bytes lose {loss}");
    }
}

#[test]
fn a_chunk_fills_the_block_and_goes_on_in_the_next() {
    let (world, store) = small();
    block_on(async {
        let payload: Vec<u8> = (0..10_000_u32).map(|number| number as u8).collect();
        let pointers = chunk(&store, &payload).await.unwrap();
        assert_eq!(pointers.len(), 3);
        assert_eq!(pointers[0].length as usize - 16, world.context.geometry.record_capacity());
        assert_eq!(whole(&store, &pointers).await, payload);
        let next = chunk(&store, b"small").await.unwrap();
        assert_eq!((next.len(), next[0].counter), (1, pointers[2].counter), "small things share a block");
        assert_eq!(chunk(&store, b"").await.unwrap().len(), 1, "an empty chunk is a record too");
    });
}

#[test]
fn a_chunk_is_in_no_more_pieces_than_its_row_names_whoever_writes_beside_it() {
    for shift in 12..=17 {
        let world = World::new(Suite::Aes256Gcm, 1 << shift);
        let store = store_of(&world, 1_000);
        let geometry = world.context.geometry;
        let put = |payload: &Bytes, pieces_left| {
            let kind = RecordKind::ChunkData;
            match store.writer.put_record((0, 0), BlockClass::Data, kind, 1, payload, pieces_left).unwrap() {
                Step::Placed(pointer, bytes) => (pointer, bytes),
                Step::NoRoom => panic!("there is room for all on the way"),
            }
        };
        // Leaves room for the smallest piece, in whatever block a piece goes to.
        let room = Geometry::RECORD_OVERHEAD_BYTES + geometry.piece_bytes_min();
        let beside = Bytes::from(vec![7; geometry.record_capacity() - room - 1]);
        let payload: Bytes = (0..geometry.chunk_bytes_max()).map(|at| (at % 251) as u8).collect();
        let (mut pointers, mut placed) = (Vec::new(), 0);
        while placed < payload.len() {
            put(&beside, usize::MAX);
            let pieces_left = geometry.pieces_max().saturating_sub(pointers.len());
            let (pointer, bytes) = put(&payload.slice(placed..), pieces_left);
            pointers.push(pointer);
            placed += bytes;
        }
        assert!(pointers.len() <= geometry.pieces_max(), "{} pieces in blocks of {} bytes", pointers.len(), 1 << shift);
        assert!(block_on(whole(&store, &pointers)) == payload);
    }
}

#[test]
fn data_and_metadata_share_no_block() {
    let (world, store) = small();
    block_on(async {
        let data = chunk(&store, b"data").await.unwrap();
        let metadata = node(&store, b"node").await.unwrap();
        assert_ne!(data[0].counter, metadata.counter);
        let ids = store.writer.flush().await.unwrap();
        assert_eq!(ids.len(), 2);
        let classes: Vec<BlockClass> = {
            let blobs = world.storage.blobs.lock().unwrap().clone();
            blobs.into_iter().map(|(name, blob)| store.reader.open_whole(name, 4, blob).unwrap().class).collect()
        };
        assert!(classes.contains(&BlockClass::Data) && classes.contains(&BlockClass::Metadata));
        assert_eq!(store.writer.flush().await.unwrap(), [], "each block is told once");
    });
}

#[test]
fn what_has_no_place_here_is_refused_and_breaks_nothing() {
    let (world, store) = small();
    let fresh = BlockWriter::new(world.context.clone(), WriterOptions::default());
    block_on(async {
        let append = |class, kind, payload| store.writer.append(class, kind, 0, payload);
        assert!(matches!(append(BlockClass::Commit, RecordKind::Node, b"").await, Err(Error::Invalid(_))));
        assert!(matches!(append(BlockClass::Data, RecordKind::Trailer, b"").await, Err(Error::Invalid(_))));
        let large = vec![0; world.context.geometry.record_capacity() + 1];
        assert!(matches!(append(BlockClass::Data, RecordKind::Node, &large).await, Err(Error::LimitExceeded { .. })));
        let largest = &large[1..];
        assert!(append(BlockClass::Data, RecordKind::Node, largest).await.is_ok());
        let early = fresh.append(BlockClass::Data, RecordKind::Node, 0, b"").await;
        assert!(matches!(early, Err(Error::Invalid(_))), "no epoch yet");
        store.writer.flush().await.unwrap();
    });
}

#[test]
fn epochs_number_their_own_blocks_and_the_same_epoch_goes_on_counting() {
    let (_, store) = small();
    block_on(async {
        let first = node(&store, b"1").await.unwrap();
        store.writer.set_epoch(1);
        let second = node(&store, b"2").await.unwrap();
        assert_eq!((second.writer_epoch, second.counter, second.index), (1, 0, 1));
        store.writer.set_epoch(2);
        let third = node(&store, b"3").await.unwrap();
        assert_eq!((third.writer_epoch, third.counter), (2, 0));
        let ids: BTreeSet<BlockId> = store.writer.flush().await.unwrap().into_iter().collect();
        assert_eq!(ids, BTreeSet::from([first.block_id(), third.block_id()]));
        for (pointer, payload) in [(first, "1"), (second, "2"), (third, "3")] {
            assert_eq!(store.read(&pointer, RecordKind::Node).await.unwrap(), payload);
        }
    });
}

#[test]
fn a_pending_record_opens_only_as_itself_before_and_after_sealing() {
    let world = World::new(Suite::Aes256Gcm, 4096);
    let store = store_of(&world, 4);
    let check = |pointer: Pointer| {
        let pending = |pointer: &Pointer, kind| store.writer.pending(pointer, kind);
        assert_eq!(pending(&pointer, RecordKind::Node).unwrap().unwrap(), "node");
        assert!(pending(&pointer, RecordKind::ChunkData).is_err());
        assert!(pending(&Pointer { offset: 17, ..pointer }, RecordKind::Node).is_err());
        assert!(pending(&Pointer { index: 1, ..pointer }, RecordKind::Node).is_err());
        assert!(pending(&Pointer { length: u32::MAX, ..pointer }, RecordKind::Node).is_err());
        assert!(pending(&Pointer { salt: [0; 16], ..pointer }, RecordKind::Node).unwrap().is_none());
        assert!(pending(&Pointer { counter: 9, ..pointer }, RecordKind::Node).unwrap().is_none());
    };
    let pointer = block_on(node(&store, b"node")).unwrap();
    check(pointer);
    world.storage.plan(&[Fate::Slow(2)]);
    {
        let mut flushing = pin!(store.writer.flush());
        assert!(poll_once(flushing.as_mut()).is_pending());
        assert_eq!(world.storage.sent.lock().unwrap().len(), 1, "sealed and on its way");
        check(pointer);
    }
    block_on(store.writer.flush()).unwrap();
    assert!(store.writer.pending(&pointer, RecordKind::Node).unwrap().is_none());
}

#[test]
fn what_may_help_is_tried_again_with_the_same_bytes() {
    for fates in [
        [Fate::Busy, Fate::Good].as_slice(),
        &[Fate::ReplyLost],
        &[Fate::ReplyLost, Fate::Good],
        &[Fate::Busy, Fate::ReplyLost, Fate::Good],
    ] {
        let (world, store) = small();
        world.storage.plan(fates);
        block_on(async {
            let pointer = node(&store, b"node").await.unwrap();
            assert_eq!(store.writer.flush().await.unwrap(), [pointer.block_id()]);
            assert_eq!(store.reader.read(&pointer, RecordKind::Node).await.unwrap(), "node");
        });
        let sent = world.storage.sent.lock().unwrap();
        assert!(sent.len() > 1 && sent.iter().all(|put| *put == sent[0]), "{fates:?}");
    }
}

#[test]
fn a_failure_is_reported_until_it_is_taken_and_then_the_block_is_put_after_all() {
    let (world, store) = small();
    world.storage.plan(&[Fate::Refused]);
    let full = |error: &Error| error.storage_kind() == Some(ErrorKind::Full);
    block_on(async {
        let pointer = node(&store, b"node").await.unwrap();
        assert!(full(&store.writer.flush().await.unwrap_err()));
        assert!(full(&store.writer.flush().await.unwrap_err()));
        assert!(full(&node(&store, b"more").await.unwrap_err()));
        assert_eq!(store.read(&pointer, RecordKind::Node).await.unwrap(), "node", "still readable");
        assert!(full(&store.writer.take_failure().unwrap()));
        assert!(store.writer.take_failure().is_none());
        let more = node(&store, b"more").await.unwrap();
        let ids: BTreeSet<BlockId> = store.writer.flush().await.unwrap().into_iter().collect();
        assert_eq!(ids, BTreeSet::from([pointer.block_id(), more.block_id()]));
        assert_eq!(store.reader.read(&pointer, RecordKind::Node).await.unwrap(), "node");
        let sent = world.storage.sent.lock().unwrap();
        assert_eq!(sent[0], sent[1], "sealed once, put twice");
    });
}

#[test]
fn a_flush_that_waits_does_not_miss_a_block_whose_failure_another_took() {
    let world = World::with_threads(4096, 2);
    let store = store_of(&world, 4);
    world.storage.plan(&[Fate::Held, Fate::HeldAndRefused]);
    let written = block_on(async {
        chunk(&store, b"data").await.unwrap();
        node(&store, b"node").await.unwrap()
    });
    let mut flushing = pin!(store.writer.flush());
    assert!(poll_once(flushing.as_mut()).is_pending());
    world.storage.release.store(true, Ordering::SeqCst);
    while store.writer.take_failure().is_none() {
        std::thread::yield_now();
    }
    assert_eq!(block_on(flushing).unwrap().len(), 2);
    assert_eq!(block_on(store.reader.read(&written, RecordKind::Node)).unwrap(), "node");
}

#[test]
fn other_content_under_our_name_is_damage_and_is_left_alone() {
    let (world, store) = small();
    block_on(async {
        let pointer = node(&store, b"node").await.unwrap();
        let name = store.reader.name(&pointer.block_id());
        for foreign in [vec![0; 4096], vec![0; 5000], vec![]] {
            world.storage.set(name, foreign.clone());
            let error = store.writer.flush().await.unwrap_err();
            assert!(matches!(error, Error::Damaged(damage) if damage.blob == Some(name)));
            assert_eq!(world.storage.only().1, foreign);
            store.writer.take_failure();
        }
    });
}

#[test]
fn what_is_discarded_is_forgotten_and_the_writer_goes_on() {
    let (world, store) = small();
    world.storage.plan(&[Fate::Refused]);
    block_on(async {
        let lost = node(&store, b"lost").await.unwrap();
        assert!(store.writer.flush().await.is_err());
        store.writer.discard();
        assert!(store.writer.pending(&lost, RecordKind::Node).unwrap().is_none());
        let pointer = node(&store, b"node").await.unwrap();
        assert_ne!(pointer.counter, lost.counter, "a number is used once");
        assert_eq!(store.writer.flush().await.unwrap(), [pointer.block_id()]);
        assert!(matches!(store.read(&lost, RecordKind::Node).await, Err(Error::Missing { .. })));
        assert_eq!(store.read(&pointer, RecordKind::Node).await.unwrap(), "node");
        assert_eq!(world.storage.only().0, store.reader.name(&pointer.block_id()));
    });
}

#[test]
fn a_worker_that_dies_is_reported_and_the_block_is_not_lost() {
    let world = World::with_threads(4096, 2);
    let store = store_of(&world, 4);
    world.storage.plan(&[Fate::Panics]);
    block_on(async {
        let pointer = node(&store, b"node").await.unwrap();
        assert!(matches!(store.writer.flush().await, Err(Error::WorkerLost)));
        assert!(matches!(store.writer.take_failure(), Some(Error::WorkerLost)));
        assert_eq!(store.writer.flush().await.unwrap(), [pointer.block_id()]);
        assert_eq!(store.reader.read(&pointer, RecordKind::Node).await.unwrap(), "node");
    });
}

#[test]
fn no_more_than_the_bound_is_on_its_way() {
    for (world, bound) in [(World::with_threads(4096, 4), 2), (World::new(Suite::Aes256Gcm, 4096), 3)] {
        let store = store_of(&world, bound);
        *world.storage.usual.lock().unwrap() = Some(Fate::Slow(20));
        block_on(async {
            for _ in 0..60 {
                chunk(&store, &[1; 3000]).await.unwrap();
                let pending = world.storage.sent.lock().unwrap().len();
                assert!(pending <= 60);
            }
            store.writer.flush().await.unwrap();
        });
        assert!(world.storage.running_most.load(Ordering::SeqCst) <= bound);
    }
}

#[test]
fn many_tasks_append_read_and_flush_at_once() {
    let world = World::with_threads(16 << 10, 3);
    let store = store_of(&world, 3);
    let put: Vec<BlockId> = std::thread::scope(|scope| {
        let tasks: Vec<_> = (0..4_u8)
            .map(|task| {
                let store = store.clone();
                scope.spawn(move || {
                    block_on(async {
                        let mut written = Vec::new();
                        let mut put = Vec::new();
                        for step in 0..80_usize {
                            let payload = vec![task ^ step as u8; 500 + step * 97 % 9000];
                            written.push((chunk(&store, &payload).await.unwrap(), payload));
                            let small = [task, step as u8].repeat(100);
                            let pointer = node(&store, &small).await.unwrap();
                            assert!(store.read(&pointer, RecordKind::Node).await.unwrap() == small);
                            let (pointers, payload) = &written[step / 2];
                            assert!(whole(&store, pointers).await == *payload);
                            if step % 20 == 19 {
                                put.extend(store.writer.flush().await.unwrap());
                                for (pointers, payload) in &written {
                                    let stored = |pointer| store.writer.pending(pointer, RecordKind::ChunkData);
                                    assert!(pointers.iter().all(|pointer| stored(pointer).unwrap().is_none()));
                                    assert!(whole(&store, pointers).await == *payload);
                                }
                            }
                        }
                        put
                    })
                })
            })
            .collect();
        tasks.into_iter().flat_map(|task| task.join().unwrap()).collect()
    });
    let blobs = world.storage.blobs.lock().unwrap();
    let names: BTreeSet<_> = put.iter().map(|id| store.reader.name(id)).collect();
    assert_eq!(names.len(), put.len(), "each block is told once");
    assert_eq!(names, blobs.keys().copied().collect());
    assert!(world.storage.sent.lock().unwrap().len() == blobs.len(), "each block is put once");
}

#[test]
fn a_block_that_holds_nothing_is_never_noted_with_the_salt_of_another_one() {
    let (world, store) = small();
    // Another that took itself for alone, and claimed the same epoch.
    let other = store_of(&world, 4);
    block_on(async {
        let mut put = Vec::new();
        for store in [&store, &other, &store, &other] {
            put.push(store.writer.put_empty().await.unwrap());
        }
        let names: BTreeSet<_> = put.iter().map(|(id, _)| store.reader.name(id)).collect();
        assert_eq!(names.len(), put.len());
        for (id, salt) in put {
            assert_eq!(store.reader.read_whole(store.reader.name(&id)).await.unwrap().salt, salt);
        }
    });
}
