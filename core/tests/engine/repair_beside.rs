//! A repair while another process refers to what is repaired: it comes to its end, and overrules nobody.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures_lite::future::block_on;
use strongroom_conformance::between::{Before, Between};
use strongroom_conformance::crash::CrashingStorage;
use strongroom_core::engine::{ChunkNumber, DefragmentOptions, Engine, OpenOptions, Tuning, Unlock, View};
use strongroom_core::env::Env;
use strongroom_core::storage::{Name, Operation, Result as StorageResult};

use crate::defragmenter;
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
    /// Once, empties what can be emptied: records go elsewhere, one by one.
    Moves,
    Nothing,
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
            What::Nothing => {}
            What::Moves => {
                let options = DefragmentOptions { start_percent: 2, stop_percent: 1, ..defragmenter::options() };
                let defragmenter = other.defragmenter(options).unwrap();
                defragmenter.idle().await;
                assert!(defragmenter.status().moved_bytes > 0, "nothing was moved");
            }
        }
        let what = if matches!(what, What::Moves) { What::Nothing } else { what };
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

/// Of what is missing a repair learns whether others have moved it; of this it does not.
fn rot(bed: &Bed, name: Name) {
    let length = bed.storage.snapshot_blobs()[&name].len();
    bed.storage.overwrite(name, vec![0; length].into());
}

/// Chunks of which many lie in two blocks, with room around them.
pub(crate) async fn sparse_bed() -> Bed {
    let mut bed = bed(steady()).await;
    let engine = bed.open().await.unwrap();
    let mut transaction = engine.begin();
    for key in 30..90 {
        put_chunk(&engine, &mut transaction, key, key).await.unwrap();
    }
    transaction.commit().await.unwrap();
    for key in (30..90).filter(|key| key % 3 > 0) {
        remove(&engine, key).await;
    }
    engine.checkpoint().await.unwrap();
    engine.close().await.unwrap();
    bed
}

/// The keys whose content cannot be read; each is to be noted.
async fn assert_all_damage_is_noted(engine: &Engine, when: &str) -> usize {
    let noted = engine.damaged_chunks().await.unwrap();
    let mut lost = 0;
    for (key, payload) in readable(&engine.snapshot()).await {
        let chunk = number(&engine.snapshot().get(CHUNKED, &[key]).await.unwrap().unwrap());
        assert_eq!(payload.is_none(), noted.contains(&chunk), "{when}: key {key}");
        lost += usize::from(payload.is_none());
    }
    lost
}

#[test]
fn what_is_moved_while_a_repair_looks_at_it_is_noted_wherever_it_is() {
    block_on(async {
        let mut bed = sparse_bed().await;
        let whole = bed.storage.snapshot_blobs();
        let (mut lost, mut met) = (0, 0);
        for (hurt, _) in blocks_of_chunks(&mut bed).await {
            bed.storage.restore(whole.clone());
            rot(&bed, hurt);
            let engine = bed.open().await.unwrap();
            let report = check(&engine, true).await;
            engine.close().await.unwrap();
            let (storage, engine) = open_beside(&mut bed, hurt, What::Moves).await;
            engine.repair(&report).await.unwrap();
            met += storage.hook().times.load(Ordering::SeqCst);
            let (_, _, other) = storage.hook().meddles.lock().unwrap().take().unwrap();
            other.close().await.unwrap();
            engine.refresh().await.unwrap();
            lost += assert_all_damage_is_noted(&engine, &hurt.to_string()).await;
        }
        assert!(lost > 0 && met > 0, "{lost} chunks lost, {met} times another was in the way");
    });
}

#[test]
fn what_is_moved_while_it_gets_the_content_of_an_equal_chunk_gets_it() {
    block_on(async {
        let mut bed = sparse_bed().await;
        let engine = bed.open().await.unwrap();
        let mut transactions = [engine.begin(), engine.begin()];
        for (transaction, key) in transactions.iter_mut().zip([200, 201]) {
            put_chunk(&engine, transaction, key, 95).await.unwrap();
        }
        for transaction in transactions {
            transaction.commit().await.unwrap();
        }
        engine.checkpoint().await.unwrap();
        engine.close().await.unwrap();
        let whole = bed.storage.snapshot_blobs();
        let blocks = blocks_of_chunks(&mut bed).await;
        let (mut restored, mut met) = (0, 0);
        for (hurt, _) in &blocks {
            for (source, _) in &blocks {
                bed.storage.restore(whole.clone());
                rot(&bed, *hurt);
                let engine = bed.open().await.unwrap();
                let before = readable(&engine.snapshot()).await;
                if hurt == source || before[&200].is_some() == before[&201].is_some() {
                    break;
                }
                let report = check(&engine, true).await;
                engine.close().await.unwrap();
                let (storage, engine) = open_beside(&mut bed, *source, What::Moves).await;
                restored += engine.repair(&report).await.unwrap().restored;
                met += storage.hook().times.load(Ordering::SeqCst);
                let (_, _, other) = storage.hook().meddles.lock().unwrap().take().unwrap();
                other.close().await.unwrap();
                engine.refresh().await.unwrap();
                assert_all_damage_is_noted(&engine, &format!("{hurt} beside {source}")).await;
                let after = readable(&engine.snapshot()).await;
                assert_eq!((after[&200].as_ref(), after[&201].as_ref()), (Some(&payload(95)), Some(&payload(95))));
            }
        }
        assert!(restored > 0 && met > 0, "{restored} chunks restored, {met} times another was in the way");
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
