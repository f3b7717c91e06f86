use futures_lite::future::block_on;

use super::value::Value;
use super::*;

#[test]
fn a_prefix_holds_exactly_the_keys_that_start_with_it() {
    let keys: [&[u8]; 8] = [b"", b"a", b"ab", b"ab\0", b"ab\xff\xff", b"ac", b"\xff", b"\xff\xff\x01"];
    for start in [&b""[..], b"a", b"ab", b"ab\xff", b"\xff", b"\xff\xff"] {
        for key in keys {
            assert_eq!(prefix(start).contains(key), key.starts_with(start), "{start:?} {key:?}");
        }
    }
}

fn store(block_bytes: u32) -> Kv {
    use std::sync::Arc;
    use strongroom_core::crypto::{KdfParameters, Suite};
    use strongroom_core::engine::keyring::Credentials;
    use strongroom_core::engine::{CreateOptions, Tuning};
    use strongroom_core::env::Env;

    let options = CreateOptions {
        credentials: &Credentials::password("test"),
        recovery: None,
        suite: Suite::preferred(),
        block_bytes,
        kdf: KdfParameters::MINIMUM,
        trusted: None,
        tuning: Tuning::default(),
    };
    let storage = Arc::new(strongroom_memory::MemoryStorage::new());
    Kv::new(block_on(Engine::create(storage, Env::deterministic(1), options)).unwrap())
}

async fn rows(kv: &Kv, range: impl RangeBounds<[u8]>) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut scan = kv.scan(range);
    let mut rows = Vec::new();
    while let Some((key, value)) = scan.next().await.unwrap() {
        rows.push((key.to_vec(), value.to_vec()));
    }
    rows
}

#[test]
fn values_of_every_size_come_back_from_small_and_large_blocks() {
    for block_bytes in [4 << 10, 128 << 10] {
        let kv = store(block_bytes);
        block_on(async {
            for size in [0, 1, 200, 500, 2_000, 5_000, 70_000, 1 << 20, VALUE_BYTES_MAX] {
                let value: Vec<u8> = (0..size).map(|at| (at * 7 % 251) as u8).collect();
                let key = format!("key {size}");
                kv.put(key.as_bytes(), &value).await.unwrap();
                assert!(kv.get(key.as_bytes()).await.unwrap().unwrap() == value, "{size} in {block_bytes}");
            }
            let too_large = vec![0; VALUE_BYTES_MAX + 1];
            assert!(matches!(kv.put(b"k", &too_large).await, Err(Error::LimitExceeded { .. })));
            let long = vec![b'k'; kv.key_bytes_max() + 1];
            assert!(matches!(kv.put(&long, b"v").await, Err(Error::LimitExceeded { .. })));
            let longest = vec![b'k'; kv.key_bytes_max()];
            kv.put(&longest, &[1; 3_000]).await.unwrap();
            assert!(kv.get(&longest).await.unwrap().unwrap() == vec![1; 3_000]);
        });
    }
}

#[test]
fn overwriting_and_deleting_give_chunks_back() {
    let kv = store(4 << 10);
    block_on(async {
        for fill in 0..3 {
            kv.put(b"large", &vec![fill; 900_000]).await.unwrap();
        }
        let held = kv.engine.info().await.unwrap().chunks;
        kv.put(b"large", b"small now").await.unwrap();
        assert!(kv.delete(b"large").await.unwrap());
        assert!(!kv.delete(b"large").await.unwrap());
        assert_eq!(kv.get(b"large").await.unwrap(), None);
        assert!(held > 50 && kv.engine.info().await.unwrap().chunks == 0, "{held}");
    });
}

#[test]
fn a_scan_shows_its_moment_and_a_transaction_its_own_writes() {
    let kv = store(128 << 10);
    block_on(async {
        for key in ["a", "b/1", "b/2", "c"] {
            kv.put(key.as_bytes(), key.as_bytes()).await.unwrap();
        }
        let mut before = kv.scan(..);
        let mut transaction = kv.begin();
        transaction.put(b"b/3", b"new").await.unwrap();
        transaction.delete(b"b/1").await.unwrap();
        let mut seen = Vec::new();
        let mut scan = transaction.scan_reverse(prefix(b"b/"));
        while let Some((key, _)) = scan.next().await.unwrap() {
            seen.push(key);
        }
        assert_eq!(seen, [&b"b/3"[..], b"b/2"]);
        assert_eq!(kv.get(b"b/3").await.unwrap(), None);
        transaction.commit().await.unwrap();
        assert_eq!(rows(&kv, prefix(b"b/")).await.len(), 2);
        assert_eq!(kv.get(b"b/3").await.unwrap().unwrap(), "new");
        let mut count = 0;
        while before.next_key().await.unwrap().is_some() {
            count += 1;
        }
        assert_eq!(count, 4);
    });
}

#[test]
fn a_scan_tells_of_a_damaged_row_once_and_goes_on_after_it() {
    let kv = store(128 << 10);
    block_on(async {
        for key in [b"a", b"b", b"c"] {
            kv.put(key, key).await.unwrap();
        }
        let mut transaction = kv.engine.begin();
        transaction.put(FIRST, b"b", &[9; 17]).unwrap();
        transaction.commit().await.unwrap();
        let mut scan = kv.scan(..);
        assert_eq!(scan.next().await.unwrap().unwrap().0, "a");
        assert!(matches!(scan.next().await, Err(Error::Damaged(_))));
        assert_eq!(scan.next().await.unwrap().unwrap().0, "c");
        assert_eq!(scan.next().await.unwrap(), None);
    });
}

#[test]
fn a_check_names_each_damaged_value_and_counts_what_the_others_refer_to() {
    let kv = store(4 << 10);
    block_on(async {
        let other = kv.numbered(7).unwrap();
        for kv in [&kv, &other] {
            for key in [b"a", b"b", b"c", b"d"] {
                kv.put(key, &[key[0]; 50_000]).await.unwrap();
            }
        }
        let (mut whole, mut told) = (Counts::default(), Vec::new());
        let keys = kv.snapshot().check(true, &mut whole, &mut |detail| told.push(detail)).await.unwrap();
        assert_eq!((keys, &told[..]), (Some(8), &[][..]));
        // A row that makes no sense, and one whose value is not as long as it says.
        let mut transaction = kv.engine.begin();
        transaction.put(table(0).unwrap(), b"b", &[9; 17]).unwrap();
        let row = transaction.get(table(7).unwrap(), b"c").await.unwrap().unwrap();
        let short = [&row[..1], &49_999_u64.to_le_bytes(), &row[9..]].concat();
        transaction.put(table(7).unwrap(), b"c", &short).unwrap();
        transaction.commit().await.unwrap();
        let (mut counts, mut told) = (Counts::default(), Vec::new());
        let keys = kv.snapshot().check(true, &mut counts, &mut |detail| told.push(detail)).await.unwrap();
        assert_eq!(keys, None);
        assert_eq!(told.len(), 2, "{told:#?}");
        assert!(
            told[0].starts_with("table 0, key \"b\": ") && told[1].starts_with("table 7, key \"c\": "),
            "{told:#?}"
        );
        // Without looking at values, the one is as good as any.
        told.clear();
        kv.snapshot().check(false, &mut Counts::default(), &mut |detail| told.push(detail)).await.unwrap();
        assert_eq!(told.len(), 1, "{told:#?}");
    });
}

#[test]
fn of_two_transactions_on_one_key_the_later_conflicts_and_transact_runs_it_again() {
    let kv = store(128 << 10);
    block_on(async {
        kv.put(b"n", b"0").await.unwrap();
        let (mut one, mut other) = (kv.begin(), kv.begin());
        one.put(b"n", b"1").await.unwrap();
        other.put(b"n", b"2").await.unwrap();
        one.commit().await.unwrap();
        assert!(matches!(other.commit().await, Err(Error::Conflict)));

        let mut runs = 0;
        kv.transact(async |transaction| {
            runs += 1;
            let seen = transaction.get(b"n").await?;
            if runs == 1 {
                kv.put(b"n", b"3").await?;
            }
            transaction.put(b"sum", &seen.unwrap_or_default()).await
        })
        .await
        .unwrap();
        assert_eq!((runs, &kv.get(b"sum").await.unwrap().unwrap()[..]), (2, &b"3"[..]));
    });
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(24))]
    #[test]
    fn it_is_an_ordered_map(
        operations in proptest::collection::vec(
            (proptest::collection::vec(0_u8..3, 0..4), proptest::option::of(0_usize..9_000)),
            1..60,
        ),
    ) {
        let kv = store(4 << 10);
        let mut model = std::collections::BTreeMap::new();
        block_on(async {
            for (at, (key, value)) in operations.into_iter().enumerate() {
                match value {
                    Some(size) => {
                        let value = vec![at as u8; size];
                        kv.put(&key, &value).await.unwrap();
                        model.insert(key, value);
                    }
                    None => assert_eq!(kv.delete(&key).await.unwrap(), model.remove(&key).is_some()),
                }
            }
            for start in [&[][..], &[1], &[2, 0]] {
                let expected: Vec<_> =
                    model.iter().filter(|(key, _)| key.starts_with(start)).map(|(k, v)| (k.clone(), v.clone())).collect();
                assert!(rows(&kv, prefix(start)).await == expected);
            }
        });
    }
}

#[test]
fn rows_that_make_no_sense_are_damage() {
    let long = [&[CHUNKS][..], &u64::MAX.to_le_bytes()].concat();
    let odd = [&[CHUNKS][..], &1_u64.to_le_bytes(), &[0; 7]].concat();
    let listless = [&[LISTED][..], &1_u64.to_le_bytes()].concat();
    for row in [vec![], vec![1], vec![9; 17], long, odd, listless] {
        assert!(matches!(Value::read(&Bytes::from(row)), Err(Error::Damaged(_))));
    }
    assert!(matches!(Value::read(&Bytes::from_static(&[0])), Ok(Value::Inline(value)) if value.is_empty()));
}
