//! What a state of a repository is, and whether two are the same.

use std::collections::BTreeMap;
use std::ops::Bound;

use strongroom::core::engine::{Direction, Snapshot, Table, View};
use strongroom::fs::Follow;
use strongroom::{Repository, check};

pub(crate) type Rows = BTreeMap<(u8, Vec<u8>), Vec<u8>>;

/// All rows of a state but the settings, which also say where content is cut: what a copy must have byte by byte.
pub(crate) async fn rows(state: &Snapshot) -> Rows {
    let mut rows = Rows::new();
    for table in 0x11..=Table::LAST {
        let mut scan = state.scan(Table(table), (Bound::Unbounded, Bound::Unbounded), Direction::Ascending);
        while let Some((key, value)) = scan.next().await.unwrap() {
            rows.insert((table, key.to_vec()), value.to_vec());
        }
    }
    rows
}

/// What is in the files of a state, by path, and in its keys.
pub(crate) async fn content(repository: &Repository, at: Option<&str>) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let (files, keys) = match at {
        Some(at) => (repository.files_at(at).await.unwrap(), repository.keys_at(at).await.unwrap()),
        None => (repository.fs().snapshot(), repository.kv().snapshot()),
    };
    let mut content = BTreeMap::new();
    let mut folders = vec![b"/".to_vec()];
    while let Some(folder) = folders.pop() {
        for entry in files.read_dir(&folder).await.unwrap() {
            let path = [&folder, &b"/"[..], &entry.name].concat();
            let metadata = files.symlink_metadata(&path).await.unwrap();
            let mut bytes = format!("{metadata:?}").into_bytes();
            for name in files.xattrs(&path, Follow::No).await.unwrap() {
                bytes.extend(files.xattr(&path, &name, Follow::No).await.unwrap().unwrap());
            }
            match metadata.kind {
                strongroom::fs::Kind::Directory => folders.push(path.clone()),
                strongroom::fs::Kind::Symlink => bytes.extend(files.read_link(&path).await.unwrap()),
                strongroom::fs::Kind::File => {
                    for version in files.history(&path).await.unwrap() {
                        bytes.extend(format!("{version:?}").into_bytes());
                        bytes.extend(files.read_version(&path, version.number).await.unwrap());
                    }
                }
            }
            content.insert(path, bytes);
        }
    }
    let mut scan = keys.scan(..);
    while let Some((key, value)) = scan.next().await.unwrap() {
        content.insert([b"key ", &key[..]].concat(), value.to_vec());
    }
    content
}

pub(crate) async fn assert_clean(repository: &Repository) {
    let options = check::CheckOptions { data: true };
    let report = repository.check(options, |finding| panic!("{finding:?}")).await.unwrap();
    assert_eq!(report.findings, 0);
}

pub(crate) async fn names(repository: &Repository) -> Vec<(String, u64)> {
    repository.snapshots().await.unwrap().into_iter().map(|info| (info.name, info.time_millis)).collect()
}

/// Every state of both is the same, and the copy is sound.
pub(crate) async fn assert_same(source: &Repository, copy: &Repository, when: &str) {
    assert_eq!(names(source).await, names(copy).await, "{when}");
    for (name, _) in names(source).await {
        let (ours, theirs) = (source.engine().open_snapshot(&name), copy.engine().open_snapshot(&name));
        assert!(rows(&ours.await.unwrap()).await == rows(&theirs.await.unwrap()).await, "{when}: rows of {name}");
        assert!(content(source, Some(&name)).await == content(copy, Some(&name)).await, "{when}: content of {name}");
    }
    assert!(rows(&source.engine().snapshot()).await == rows(&copy.engine().snapshot()).await, "{when}: rows");
    assert!(content(source, None).await == content(copy, None).await, "{when}: content");
    assert_clean(copy).await;
}
