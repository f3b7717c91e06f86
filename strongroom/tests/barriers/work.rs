//! What a watched process does.

use std::fs::{self, File};
use std::os::unix::fs::{OpenOptionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use strongroom::blocking::Repository;
use strongroom::core::storage::{
    BlockingMode, Change, Name, OpenContext, OpenMode, Registry, Storage, StorageExt as _, StorageUri,
};
use strongroom::{CreateOptions, Credentials, KdfParameters};
use strongroom_conformance::block_on;
use strongroom_conformance::storage::{sample_bytes, sample_name};

use crate::watched::Task;

pub(crate) const ROUNDS: usize = 12;

/// So many blobs are put before one barrier.
pub(crate) const MANY: usize = 100;

pub(crate) const COMMITS: usize = 30;

const BLOB_BYTES: usize = 9000;
const BLOCK_BYTES: u32 = 16 << 10;

/// At least so many blocks has what is committed at once.
pub(crate) const BLOCKS: usize = 20;

/// The blob that is durable from the beginning.
const KEPT: u64 = 0;

pub(crate) fn do_as_told() {
    let Some(mut task) = Task::given() else { return };
    match task.does() {
        "calls" => block_on(calls(&mut task)),
        "persist what is there" => block_on(persist_what_is_there(&mut task)),
        "commits" => commits(&mut task),
        "all kinds of changes" => all_kinds_of_changes(&mut task),
        "writes that wait" => writes_that_wait(&mut task),
        other => panic!("nobody knows how to do {other}"),
    }
}

fn registry() -> Registry {
    let mut registry = Registry::new();
    strongroom_file::register(&mut registry);
    strongroom_redb::register(&mut registry);
    strongroom_sled::register(&mut registry);
    strongroom_sqlite::register(&mut registry);
    registry
}

async fn open(task: &mut Task) -> Arc<dyn Storage> {
    task.step("open");
    let context = OpenContext::new(strongroom::env::system().unwrap());
    let context = context.with_mode(OpenMode::CreateIfMissing).with_blocking(BlockingMode::Inline);
    registry().open(&StorageUri::parse(&task.address()).unwrap(), &context).await.unwrap()
}

fn blob(number: u64) -> (Name, Bytes) {
    (sample_name(number), sample_bytes(number, BLOB_BYTES))
}

/// Where a storage in a folder has the blob that is kept.
pub(crate) fn kept_in(place: &Path) -> PathBuf {
    let name = sample_name(KEPT).to_hex();
    place.join(&name[..2]).join(name)
}

/// Each call of a storage.
async fn calls(task: &mut Task) {
    let storage = open(task).await;
    // What is begun once, such as a log, is begun here.
    task.step("begin");
    let (kept, bytes) = blob(KEPT);
    storage.put_durable(kept, bytes).await.unwrap();
    let mut blobs = (KEPT + 1..).map(blob);
    for _ in 0..ROUNDS {
        let [durable, synced, persisted, one, other] = std::array::from_fn(|_| blobs.next().unwrap());
        task.step("durable put");
        storage.put_durable(durable.0, durable.1).await.unwrap();
        task.step("put");
        storage.put(synced.0, synced.1).await.unwrap();
        task.step("sync");
        storage.sync().await.unwrap();
        task.step("idle sync");
        storage.sync().await.unwrap();
        task.step("put");
        storage.put(persisted.0, persisted.1).await.unwrap();
        task.step("persist");
        storage.persist(&[persisted.0]).await.unwrap();
        task.step("delete");
        storage.delete(persisted.0).await.unwrap();
        task.step("sync");
        storage.sync().await.unwrap();
        task.step("batch");
        storage.apply(vec![Change::Put(one.0, one.1), Change::Put(other.0, other.1)]).await.unwrap();
        task.step("sync of two");
        storage.sync().await.unwrap();
        task.step("reading");
        assert_eq!(storage.get_all(kept, BLOB_BYTES as u64).await.unwrap().len(), BLOB_BYTES);
        assert_eq!(storage.size(kept).await.unwrap(), BLOB_BYTES as u64);
        assert!(storage.list_all(&[]).await.unwrap().contains(&kept));
    }
    for (name, bytes) in blobs.take(MANY) {
        task.step("put");
        storage.put(name, bytes).await.unwrap();
    }
    task.step("sync of many");
    storage.sync().await.unwrap();
    task.ends();
}

/// Of a process that was not told by the one before how far that came.
async fn persist_what_is_there(task: &mut Task) {
    let storage = open(task).await;
    task.step("persist");
    storage.persist(&[sample_name(KEPT)]).await.unwrap();
    task.ends();
}

/// With the calls that none of the storages may make today.
fn all_kinds_of_changes(task: &mut Task) {
    let folder = task.place();
    let place = |name: &str| folder.join(name);
    task.step("changes");
    fs::create_dir(&folder).unwrap();
    fs::write(place("made"), "content").unwrap();
    File::options().write(true).create(true).truncate(false).open(place("made")).unwrap();
    File::open(place("made")).unwrap();
    fs::write(place("made"), "other content").unwrap();
    fs::copy(place("made"), place("copied")).unwrap();
    symlink("made", place("linked")).unwrap();
    fs::create_dir(place("inner")).unwrap();
    fs::remove_dir(place("inner")).unwrap();
    task.ends();
}

/// What `O_DSYNC` says, for each write.
fn writes_that_wait(task: &mut Task) {
    const DSYNC: i32 = 0o10_000;
    task.step("open");
    drop(File::options().append(true).create(true).custom_flags(DSYNC).open(task.place()));
    task.ends();
}

fn commits(task: &mut Task) {
    let options = CreateOptions::new(Credentials::password("test")).kdf(KdfParameters::MINIMUM);
    let options = options.without_trusted_state().block_bytes(BLOCK_BYTES).registry(registry());
    task.step("create");
    let repository = Repository::create(&*task.address(), options).unwrap();
    // What a writer does once comes with its first commit.
    task.step("first commit");
    repository.kv().put("key", "value").unwrap();
    for number in 0..COMMITS {
        task.step("commit");
        repository.kv().put(format!("key {number}"), "value").unwrap();
    }
    let content = sample_bytes(1, BLOCKS * BLOCK_BYTES as usize);
    task.step("large commit");
    repository.fs().write("/large", &content).unwrap();
    task.step("reading");
    assert!(repository.fs().read("/large").unwrap() == content);
    task.step("removal");
    repository.fs().remove_file("/large").unwrap();
    task.ends();
}
