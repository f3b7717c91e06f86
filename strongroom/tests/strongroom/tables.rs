//! Tables of keys and values of an application's own: apart from each other, and part of whatever is done to the whole.

use bytes::Bytes;
use futures_lite::future::block_on;
use strongroom::blocking::Repository;
use strongroom::check::CheckOptions;
use strongroom::core::Error as CoreError;
use strongroom::core::engine::{ChunkNumber, Table, View as _};
use strongroom::kv::TABLE_NUMBER_MAX;
use strongroom::{CompactOptions, CopyOptions, CreateOptions, Credentials, Error, KdfParameters, Op, Suite};
use strongroom_conformance::storage::sample_bytes;

/// Table 0 is that of `kv`.
const TABLES: [u8; 4] = [0, 1, 62, TABLE_NUMBER_MAX];
/// A value that lies beside its key, one in chunks, and in the last table one whose list of chunks does not fit its row.
const LENGTHS: [(&str, usize); 3] = [("small", 10), ("large", 50_000), ("listed", 1_000_000)];

fn lengths(table: u8) -> impl Iterator<Item = (&'static str, usize)> {
    LENGTHS.into_iter().filter(move |(key, _)| *key != "listed" || table == TABLE_NUMBER_MAX)
}

/// Of all tables together.
fn values() -> impl Iterator<Item = usize> {
    TABLES.into_iter().flat_map(lengths).map(|(_, length)| length)
}

fn options() -> CreateOptions {
    let options = CreateOptions::new(Credentials::password("test")).kdf(KdfParameters::MINIMUM);
    options.without_trusted_state().block_bytes(4096)
}

fn value(table: u8, length: usize, version: u64) -> Bytes {
    sample_bytes(version * 100 + u64::from(table), length)
}

/// A file and keys of all tables, in one transaction.
fn fill(repository: &Repository, version: u64) {
    repository
        .transact(|transaction| {
            transaction.fs().write("/file", sample_bytes(version, 30_000))?;
            for table in TABLES {
                let mut keys = transaction.table(table)?;
                for (key, length) in lengths(table) {
                    keys.put(key, value(table, length, version))?;
                }
            }
            Ok::<_, Error>(())
        })
        .unwrap();
}

fn assert_holds(repository: &Repository, version: u64) {
    assert!(repository.fs().read("/file").unwrap() == sample_bytes(version, 30_000));
    for table in TABLES {
        let keys = repository.table(table).unwrap();
        for (key, length) in lengths(table) {
            assert!(keys.get(key).unwrap() == Some(value(table, length, version)), "{key} of table {table}");
        }
        assert_eq!(keys.scan(..).count(), lengths(table).count());
    }
}

fn assert_sound(repository: &Repository) {
    let report = repository.check(CheckOptions { data: true }, |finding| panic!("{finding:?}")).unwrap();
    assert_eq!(report.keys, values().count() as u64);
}

#[test]
fn tables_are_apart_and_there_are_so_many() {
    let repository = Repository::create("mem://tables-apart", options()).unwrap();
    for table in 0..=TABLE_NUMBER_MAX {
        repository.table(table).unwrap().put("key", [table]).unwrap();
    }
    assert_eq!(repository.kv().get("key").unwrap().as_deref(), Some(&[0][..]));
    assert!(repository.table(7).unwrap().delete("key").unwrap());
    for table in 0..=TABLE_NUMBER_MAX {
        let rows: Vec<_> = repository.table(table).unwrap().scan(..).map(Result::unwrap).collect();
        assert_eq!(rows.len(), usize::from(table != 7), "table {table}");
        assert!(rows.iter().all(|(key, value)| key == "key" && **value == [table]));
    }
    let refused = repository.table(TABLE_NUMBER_MAX + 1).err().unwrap();
    assert!(matches!(refused, Error::Core(CoreError::LimitExceeded { value: 64, limit: 63, .. })), "{refused}");
    let mut transaction = repository.begin();
    assert!(transaction.table(u8::MAX).is_err());
    assert!(repository.table_at("none", u8::MAX).is_err());
    // What is refused changes nothing, and the transaction goes on.
    transaction.table(7).unwrap().put("key", "back").unwrap();
    transaction.commit().unwrap();
    assert_eq!(repository.table(7).unwrap().get("key").unwrap().unwrap(), "back");
}

#[test]
fn files_and_tables_change_together_or_not_at_all() {
    let repository = Repository::create("mem://tables-together", options()).unwrap();
    fill(&repository, 1);
    assert_holds(&repository, 1);
    let refused: Result<(), Error> = repository.transact(|transaction| {
        transaction.table(1)?.put("large", "small now")?;
        assert_eq!(transaction.table(1)?.get("large")?.unwrap(), "small now");
        transaction.table(TABLE_NUMBER_MAX)?.delete("listed")?;
        transaction.fs().create_dir("/file")
    });
    assert!(matches!(refused, Err(Error::AlreadyExists { .. })));
    assert_holds(&repository, 1);

    // One who was overtaken in a table runs again, and with it what it does to files.
    let mut runs = 0;
    let seen = repository.transact(|transaction| {
        runs += 1;
        let seen = transaction.table(1)?.get("small")?.unwrap();
        transaction.fs().write("/seen", &seen)?;
        if runs == 1 {
            repository.table(1)?.put("small", "faster")?;
        }
        Ok::<_, Error>(seen)
    });
    assert_eq!((seen.unwrap(), runs), (Bytes::from("faster"), 2));
    assert_eq!(repository.fs().read("/seen").unwrap(), b"faster");

    let key = || b"small".to_vec();
    let ops = [
        Op::PutIn { table: 1, key: key(), value: value(1, 10, 1).to_vec() },
        Op::DeleteIn { table: 2, key: key() },
        Op::Put { key: key(), value: value(0, 10, 1).to_vec() },
    ];
    repository.apply(&ops).unwrap();
    assert_holds(&repository, 1);
    let wrong = [ops[0].clone(), Op::PutIn { table: 64, key: key(), value: key() }];
    assert!(matches!(repository.apply(&wrong), Err(Error::InBatch { index: 1, .. })));
    assert_sound(&repository);
}

#[test]
fn a_snapshot_keeps_all_tables_and_brings_them_back() {
    let repository = Repository::create("mem://tables-snapshot", options()).unwrap();
    fill(&repository, 1);
    repository.create_snapshot("one").unwrap();
    fill(&repository, 2);
    repository
        .transact(|transaction| transaction.table(TABLE_NUMBER_MAX)?.delete("listed").map_err(Error::from))
        .unwrap();
    // What is not kept is gone by then.
    repository.compact(CompactOptions::default()).unwrap();
    for table in TABLES {
        let then = repository.table_at("one", table).unwrap();
        for (key, length) in lengths(table) {
            assert!(then.get(key).unwrap() == Some(value(table, length, 1)), "{key} of table {table}");
        }
    }
    assert!(repository.restore_snapshot("one").unwrap() > 0);
    assert_holds(&repository, 1);
    assert_sound(&repository);
    repository.remove_snapshot("one").unwrap();
    repository.compact(CompactOptions::default()).unwrap();
    assert_holds(&repository, 1);
    assert_sound(&repository);
}

#[test]
fn a_copy_has_all_tables_of_now_and_of_its_snapshots() {
    let repository = Repository::create("mem://tables", options()).unwrap();
    fill(&repository, 1);
    repository.create_snapshot("one").unwrap();
    fill(&repository, 2);
    let create = options().block_bytes(16 << 10).cipher(Suite::XChaCha20Poly1305);
    let (copy, _) = repository.copy("mem://tables-copy", create, CopyOptions::default()).unwrap();
    // Nothing of it is needed any more.
    repository.close().unwrap();
    drop(repository);
    assert_holds(&copy, 2);
    assert_sound(&copy);
    copy.restore_snapshot("one").unwrap();
    assert_holds(&copy, 1);
    assert_sound(&copy);
}

#[test]
fn values_of_tables_are_counted() {
    let repository = Repository::create("mem://tables-sizes", options()).unwrap();
    fill(&repository, 1);
    let sizes = repository.sizes().unwrap();
    assert_eq!((sizes.file_bytes, sizes.value_bytes), (30_000, values().sum::<usize>() as u64));
    assert!(sizes.unique_bytes >= sizes.logical_bytes(), "none is like another, and lists of chunks count: {sizes:?}");
}

/// The engine's tables above: what an application puts there is its own, as long as it is rows.
#[test]
fn rows_of_any_shape_are_copied_and_brought_back_and_chunks_of_theirs_are_told() {
    const RAW: Table = Table(0xc0);
    block_on(async {
        let repository = strongroom::Repository::create("mem://tables-raw", options()).await.unwrap();
        let put = async |value: &[u8]| {
            let mut transaction = repository.begin();
            transaction.fs().engine().put(RAW, b"key", value).unwrap();
            transaction.fs().write("/file", value).await.unwrap();
            transaction.commit().await.unwrap();
        };
        put(b"\xff one").await;
        repository.create_snapshot("one").await.unwrap();
        put(b"\xff two").await;
        let (copy, _) = repository.copy("mem://tables-raw-copy", options(), CopyOptions::default()).await.unwrap();
        for (repository, expected) in [(&copy, &b"\xff two"[..]), (&repository, &b"\xff two"[..])] {
            assert_eq!(repository.engine().snapshot().get(RAW, b"key").await.unwrap().as_deref(), Some(expected));
            repository.restore_snapshot("one").await.unwrap();
            let restored = repository.engine().snapshot().get(RAW, b"key").await.unwrap();
            assert_eq!(restored.as_deref(), Some(&b"\xff one"[..]));
            repository.check(CheckOptions { data: true }, |finding| panic!("{finding:?}")).await.unwrap();
        }

        let mut transaction = repository.begin();
        let engine = transaction.fs().engine();
        let ChunkNumber(number) = engine.put_chunk(None, Bytes::from_static(b"payload")).await.unwrap();
        engine.put(RAW, b"chunk", &number.to_le_bytes()).unwrap();
        transaction.commit().await.unwrap();
        let mut told = Vec::new();
        repository.check(CheckOptions::default(), |finding| told.push(finding.detail)).await.unwrap();
        assert!(told.len() == 1 && told[0].contains("has 1 references, 0 are there"), "{told:?}");
    });
}
