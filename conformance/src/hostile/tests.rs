use futures_lite::future::block_on;
use strongroom_core::storage::{ErrorKind, StorageExt as _};

use super::*;
use crate::crash::{CrashOptions, CrashingStorage};

const A: Name = Name::new([0xaa; 16]);
const B: Name = Name::new([0xbb; 16]);

async fn fresh() -> HostileStorage {
    let options = CrashOptions { yields: false, ..CrashOptions::default() };
    let storage = HostileStorage::new(Arc::new(CrashingStorage::new(options)), HostileOptions::default());
    storage.put(A, "first of a".into()).await.unwrap();
    storage.put_durable(B, "first of b".into()).await.unwrap();
    storage
}

async fn get(storage: &HostileStorage, name: Name) -> Bytes {
    storage.get(name, None, 100).await.unwrap()
}

#[test]
fn what_is_stored_is_changed_for_good() {
    block_on(async {
        let storage = fresh().await;
        let before = storage.image().await.unwrap();
        storage.flip(A, 5).await.unwrap();
        assert_eq!(get(&storage, A).await, flipped(b"first of a", 5));
        storage.flip(A, 5).await.unwrap();
        storage.resize(A, 5).await.unwrap();
        assert_eq!(get(&storage, A).await, "first");
        storage.resize(A, 7).await.unwrap();
        assert_eq!(get(&storage, A).await, "first\0\0");
        storage.swap(A, B).await.unwrap();
        assert_eq!(get(&storage, A).await, "first of b");
        assert_eq!(get(&storage, B).await, "first\0\0");

        storage.delete(A).await.unwrap();
        storage.put(A, "second of a".into()).await.unwrap();
        assert_eq!(storage.past(A), ["first of a", "second of a"]);
        storage.replay(A, 0).await.unwrap();
        assert_eq!(get(&storage, A).await, "first of a");
        storage.replay(A, 9).await.unwrap();
        assert_eq!(get(&storage, A).await, "first of a");

        storage.put(Name::new([0xcc; 16]), "new".into()).await.unwrap();
        storage.delete(B).await.unwrap();
        storage.roll_back(&before).await.unwrap();
        assert_eq!(storage.image().await.unwrap(), before);
    });
}

#[test]
fn what_is_withheld_is_nowhere_until_it_is_given_back() {
    block_on(async {
        let storage = fresh().await;
        storage.withhold(A);
        assert_eq!(storage.get(A, None, 100).await.unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(storage.size(A).await.unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(storage.list_all(&[]).await.unwrap(), [B].into());
        assert_eq!(storage.put(A, "again".into()).await.unwrap(), Put::Exists);
        storage.give_back();
        assert_eq!(get(&storage, A).await, "first of a");
    });
}

#[test]
fn every_attack_changes_an_answer_and_nothing_that_is_stored() {
    block_on(async {
        for attack in Attack::ALL {
            let storage = fresh().await;
            storage.delete(A).await.unwrap();
            storage.put(A, "second of a".into()).await.unwrap();
            let honest = (storage.get(A, Some(0..4), 4).await.ok(), storage.list(&[], None).await.unwrap());
            let image = storage.image().await.unwrap();
            storage.set_attacks(&[attack]);
            storage.set_rate(Rate::ALWAYS);
            let mut differ = 0;
            for _ in 0..20 {
                let got = storage.get(A, Some(0..4), 4).await.ok();
                differ += u64::from(got != honest.0) + u64::from(storage.list(&[], None).await.unwrap() != honest.1);
            }
            assert!(differ > 0, "{attack:?}");
            assert!(storage.forged() >= 40);
            storage.set_rate(Rate::NEVER);
            assert_eq!(storage.image().await.unwrap(), image);
            assert_eq!(get(&storage, A).await, "second of a");
        }
    });
}

#[test]
fn distortions_all_differ_from_the_blob() {
    let mut dice = Dice::new(1);
    for blob in [Bytes::from(vec![7; 4096]), Bytes::from(vec![0; 100]), Bytes::new()] {
        let distorted = distortions(&blob, 10, &mut dice);
        assert!(distorted.iter().all(|(_, bytes)| *bytes != blob));
        assert!(distorted.len() > blob.len().min(15) || blob.is_empty());
    }
}
