//! A repair while another process refers to what is repaired: it comes to its end, and overrules nobody.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures_lite::future::block_on;
use strongroom_conformance::between::{Before, Between};
use strongroom_conformance::crash::CrashingStorage;
use strongroom_core::engine::{ChunkNumber, Engine, OpenOptions, Tuning, Unlock, View};
use strongroom_core::env::Env;
use strongroom_core::storage::{Name, Operation, Result as StorageResult};

use crate::repair::{
    CHUNKED, assert_all_reads, assert_sound, bed, blocks_of_chunks, check, number, payload, put_chunk, readable,
    repair, steady, store, store_all_again,
};
use crate::support::Bed;

/// Another process does something whenever this blob is looked for.
#[derive(Debug, Default)]
struct Busy {
    meddles: Mutex<Option<(Name, What, Engine)>>,
    times: AtomicU32,
}

#[derive(Clone, Copy, Debug)]
enum What {
    /// Refers to chunks once more, by a key each time.
    Refers(ChunkNumber),
    /// Puts content with this seed under this key.
    Stores(u8, u8),
    /// Removes this key, and what it had.
    Removes(u8),
}

#[async_trait]
impl Before for Busy {
    async fn before(&self, operation: Operation, name: Option<Name>) -> StorageResult<()> {
        let taken = self.meddles.lock().unwrap().take_if(|(of, ..)| operation == Operation::Get && name == Some(*of));
        let Some((of, what, other)) = taken else { return Ok(()) };
        let time = self.times.fetch_add(1, Ordering::SeqCst);
        match what {
            What::Refers(chunk) => {
                let mut transaction = other.begin();
                transaction.retain_chunk(chunk).unwrap();
                let key = 0x1000 + u16::try_from(time).unwrap();
                transaction.put(CHUNKED, &key.to_be_bytes(), &chunk.0.to_le_bytes()).unwrap();
                transaction.commit().await.unwrap();
            }
            What::Stores(key, seed) => {
                let mut transaction = other.begin();
                put_chunk(&other, &mut transaction, key, seed).await.unwrap();
                transaction.commit().await.unwrap();
            }
            What::Removes(key) => remove(&other, key).await,
        }
        *self.meddles.lock().unwrap() = Some((of, what, other));
        Ok(())
    }
}

async fn remove(engine: &Engine, key: u8) {
    let mut transaction = engine.begin();
    if let Some(row) = transaction.get(CHUNKED, &[key]).await.unwrap() {
        transaction.release_chunk(number(&row)).unwrap();
        transaction.delete(CHUNKED, &[key]).unwrap();
    }
    transaction.commit().await.unwrap();
}

/// One that gives up soon, beside another that does `what` whenever a blob is looked for.
async fn open_beside(bed: &mut Bed, of: Name, what: What) -> (Arc<Between<CrashingStorage, Busy>>, Engine) {
    let other = bed.open().await.unwrap();
    let storage = Arc::new(Between::new(bed.storage.reopen(), Busy::default()));
    let mut options = OpenOptions::new(Unlock::Root(&bed.root));
    options.tuning = Tuning { attempts_max: 3, node_cache_bytes_max: 0, ..bed.tuning };
    let engine = Engine::open(storage.clone(), Env::deterministic(1 << 50), options).await.unwrap();
    *storage.hook().meddles.lock().unwrap() = Some((of, what, other));
    (storage, engine)
}

/// The block that holds the chunk of a key.
async fn block_of(bed: &mut Bed, key: u8) -> (Name, ChunkNumber) {
    let whole = bed.storage.snapshot_blobs();
    let engine = bed.open().await.unwrap();
    let chunk = number(&engine.snapshot().get(CHUNKED, &[key]).await.unwrap().unwrap());
    engine.close().await.unwrap();
    for (name, _) in blocks_of_chunks(bed).await {
        bed.storage.remove(name);
        let engine = bed.open().await.unwrap();
        let report = check(&engine, false).await;
        drop(engine);
        bed.storage.restore(whole.clone());
        if report.findings.iter().any(|finding| finding.chunks.contains(&chunk)) {
            return (name, chunk);
        }
    }
    panic!("no block holds the chunk of {key}");
}

#[test]
fn a_repair_comes_to_its_end_though_others_refer_to_what_it_looks_at() {
    block_on(async {
        let mut bed = bed(steady()).await;
        let (hurt, chunk) = block_of(&mut bed, 7).await;
        bed.storage.remove(hurt);
        let engine = bed.open().await.unwrap();
        let report = check(&engine, true).await;
        engine.close().await.unwrap();
        let (storage, engine) = open_beside(&mut bed, hurt, What::Refers(chunk)).await;
        let repaired = engine.repair(&report).await.unwrap();
        assert!(repaired.damaged > 0, "{repaired:?}");
        let times = storage.hook().times.load(Ordering::SeqCst);
        assert!(times > 0, "nobody was in the way, so this shows nothing");
        let (_, _, other) = storage.hook().meddles.lock().unwrap().take().unwrap();
        other.close().await.unwrap();
        engine.refresh().await.unwrap();
        assert!(engine.damaged_chunks().await.unwrap().contains(&chunk));
        // Healed, it is what all of them see.
        store(&engine, 107, 7).await.unwrap();
        assert_eq!(engine.snapshot().chunk(chunk).await.unwrap(), payload(7));
        for time in 0..u16::try_from(times).unwrap() {
            let mut transaction = engine.begin();
            transaction.release_chunk(chunk).unwrap();
            transaction.delete(CHUNKED, &(0x1000 + time).to_be_bytes()).unwrap();
            transaction.commit().await.unwrap();
        }
        store_all_again(&engine).await;
        assert_sound(&engine).await;
        assert_all_reads(&engine).await;
    });
}

#[test]
fn what_is_removed_while_a_repair_looks_at_it_gets_no_note() {
    block_on(async {
        let mut bed = bed(steady()).await;
        let engine = bed.open().await.unwrap();
        // No snapshot has it, and it has an identity of its own.
        store(&engine, 60, 60).await.unwrap();
        engine.checkpoint().await.unwrap();
        engine.close().await.unwrap();
        let (hurt, chunk) = block_of(&mut bed, 60).await;
        bed.storage.overwrite(hurt, vec![0; bed.storage.snapshot_blobs()[&hurt].len()].into());
        let engine = bed.open().await.unwrap();
        let report = check(&engine, true).await;
        engine.close().await.unwrap();
        let (storage, engine) = open_beside(&mut bed, hurt, What::Removes(60)).await;
        engine.repair(&report).await.unwrap();
        let (_, _, other) = storage.hook().meddles.lock().unwrap().take().unwrap();
        other.close().await.unwrap();
        engine.refresh().await.unwrap();
        assert!(!engine.damaged_chunks().await.unwrap().contains(&chunk));
        // Its identity leads nowhere: what is stored under it is stored.
        store(&engine, 60, 60).await.unwrap();
        assert_eq!(readable(&engine.snapshot()).await[&60], Some(payload(60)));
        remove(&engine, 60).await;
        store_all_again(&engine).await;
        assert_sound(&engine).await;
    });
}

#[test]
fn what_is_stored_again_while_a_repair_looks_at_it_stays_healed() {
    block_on(async {
        let mut bed = bed(steady()).await;
        let (hurt, chunk) = block_of(&mut bed, 9).await;
        bed.storage.remove(hurt);
        let engine = bed.open().await.unwrap();
        let report = check(&engine, true).await;
        repair(&engine).await;
        engine.close().await.unwrap();
        let (storage, engine) = open_beside(&mut bed, hurt, What::Stores(109, 9)).await;
        engine.repair(&report).await.unwrap();
        assert!(storage.hook().times.load(Ordering::SeqCst) > 0);
        let (_, _, other) = storage.hook().meddles.lock().unwrap().take().unwrap();
        other.close().await.unwrap();
        engine.refresh().await.unwrap();
        assert_eq!(engine.snapshot().chunk(chunk).await.unwrap(), payload(9));
        store_all_again(&engine).await;
        assert_all_reads(&engine).await;
        assert_sound(&engine).await;
    });
}

#[test]
fn content_that_is_healed_and_given_up_at_once_leaves_no_identity_behind() {
    block_on(async {
        let mut bed = bed(steady()).await;
        let engine = bed.open().await.unwrap();
        // Two at once: of equal chunks, the identity leads to one.
        let mut transactions = [engine.begin(), engine.begin()];
        for (transaction, key) in transactions.iter_mut().zip([60, 61]) {
            // Too large for a row.
            put_chunk(&engine, transaction, key, 63).await.unwrap();
        }
        for transaction in transactions {
            transaction.commit().await.unwrap();
        }
        engine.checkpoint().await.unwrap();
        engine.close().await.unwrap();
        let (first, second) = (block_of(&mut bed, 60).await, block_of(&mut bed, 61).await);
        assert_ne!(first.1, second.1);
        bed.storage.remove(first.0);
        bed.storage.remove(second.0);
        let engine = bed.open().await.unwrap();
        repair(&engine).await;
        // With the one, its identity goes.
        remove(&engine, 60).await;
        let identity = engine.identity(&payload(63));
        let mut transaction = engine.begin();
        assert_eq!(transaction.find_chunk(&identity).await.unwrap(), None);
        assert!(transaction.heal_chunk(second.1, &identity, payload(63)).await.unwrap());
        transaction.release_chunk(second.1).unwrap();
        transaction.delete(CHUNKED, &[61]).unwrap();
        transaction.commit().await.unwrap();
        let mut transaction = engine.begin();
        assert_eq!(transaction.find_chunk(&identity).await.unwrap(), None);
        drop(transaction);
        store(&engine, 62, 63).await.unwrap();
        assert_eq!(readable(&engine.snapshot()).await[&62], Some(payload(63)));
        remove(&engine, 62).await;
        store_all_again(&engine).await;
        assert_sound(&engine).await;
    });
}

#[test]
fn a_chunk_is_healed_with_nothing_but_its_own_content() {
    block_on(async {
        let mut bed = bed(steady()).await;
        let (hurt, chunk) = block_of(&mut bed, 7).await;
        bed.storage.remove(hurt);
        let engine = bed.open().await.unwrap();
        repair(&engine).await;
        let mut transaction = engine.begin();
        let (own, other) = (engine.identity(&payload(7)), engine.identity(&payload(77)));
        assert!(!transaction.heal_chunk(chunk, &other, payload(77)).await.unwrap());
        assert!(transaction.heal_chunk(chunk, &own, payload(7)).await.unwrap());
        // Healed already by this transaction, it has what it has.
        assert!(!transaction.heal_chunk(chunk, &other, payload(77)).await.unwrap());
        assert!(transaction.heal_chunk(chunk, &own, payload(7)).await.unwrap());
        transaction.commit().await.unwrap();
        assert_eq!(engine.snapshot().chunk(chunk).await.unwrap(), payload(7));
    });
}
