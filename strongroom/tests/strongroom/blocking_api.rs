//! The blocking API does what the async one does: every method has its counterpart, and what looks back in time works.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use strongroom::blocking::{self, Repository};
use strongroom::check::CheckOptions;
use strongroom::core::env::Env;
use strongroom::fs::{Attributes, Fate, Follow, Op as FsOp, Timestamp, XattrMode};
use strongroom::kv::prefix;
use strongroom::storage::Registry;
use strongroom::{CreateOptions, Credentials, Error, HeaderOptions, KdfParameters, Op, OpenOptions};

/// The async type, and the name that it has in `blocking`.
const COUNTERPARTS: [(&str, &str); 14] = [
    ("Repository", "Repository"),
    ("Transaction", "RepositoryTransaction"),
    ("FileSystem", "FileSystem"),
    ("FsTransaction", "FsTransaction"),
    ("FsTransaction", "TransactionFiles"),
    ("FileWriter", "FileWriter"),
    ("FsSnapshot", "FsSnapshot"),
    ("ReadDir", "ReadDir"),
    ("DirStream", "DirStream"),
    ("File", "File"),
    ("Kv", "Kv"),
    ("KvSnapshot", "KvSnapshot"),
    ("KvRows", "TransactionKeys"),
    ("Scan", "Scan"),
];

/// What needs no counterpart: the way down to the engine is by `asynchronous`, the rest is as `std` has it.
const EXCEPTIONS: [(&str, &str); 14] = [
    ("Repository", "engine"),
    ("FileSystem", "engine"),
    ("FileSystem", "within"),
    ("FileSystem", "fill"),
    ("FileSystem", "create"),
    ("FileSystem", "open"),
    ("FileSystem", "open_with"),
    ("FsTransaction", "engine"),
    ("TransactionFiles", "engine"),
    ("TransactionFiles", "commit"), // the whole transaction's to say
    ("ReadDir", "collect"),         // an iterator's
    ("File", "flush"),              // of `std::io::Write`
    ("Kv", "new"),
    ("Kv", "at"),
];

fn sources(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found
}

/// The public methods by type, of sources in the one style that `cargo fmt` leaves.
fn methods(paths: &[PathBuf]) -> BTreeMap<String, BTreeSet<String>> {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for path in paths {
        let text = std::fs::read_to_string(path).unwrap();
        let (mut types, mut is_trait) = (Vec::new(), false);
        for line in text.lines() {
            if line.starts_with("#[cfg(test)]") {
                break;
            }
            if let Some(head) = line.strip_prefix("impl") {
                let head = if head.starts_with('<') { head.split_once("> ").unwrap().1 } else { head.trim_start() };
                is_trait = head.contains(" for ");
                let name = head.rsplit(" for ").next().unwrap();
                types = vec![name.split(|c: char| !c.is_alphanumeric()).next().unwrap().to_owned()];
            } else if line.starts_with("changes! {") || line.starts_with("on_both! {") {
                (types, is_trait) = (vec!["FsTransaction".to_owned(), "TransactionFiles".to_owned()], false);
            } else if line == "}" {
                types.clear();
            }
            let line = line.trim_start();
            let after = line.strip_prefix("pub async fn ").or_else(|| line.strip_prefix("pub fn "));
            let after = if is_trait { line.strip_prefix("fn ") } else { after };
            // A line of a macro: the name, its arguments.
            let after = after.or_else(|| {
                let name = line.split_once('(')?.0;
                let is_name =
                    !name.is_empty() && name != "pub" && name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
                (is_name && (line.ends_with(';') && line.contains(") -> ") || line.ends_with('('))).then_some(line)
            });
            let Some(after) = after else { continue };
            let name: String = after.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            for kind in &types {
                found.entry(kind.clone()).or_default().insert(name.clone());
            }
        }
    }
    found
}

#[test]
fn every_method_of_the_async_api_has_a_blocking_counterpart() {
    let (blocking, own): (Vec<_>, Vec<_>) =
        sources("src").into_iter().partition(|path| path.components().any(|part| part.as_os_str() == "blocking"));
    let blocking = methods(&blocking);
    let (own, files) = (methods(&own), methods(&sources("../fs/src")));
    let mut missing = Vec::new();
    let mut compared = 0;
    for (name, counterpart) in COUNTERPARTS {
        // `Transaction` is of `strongroom`, beside one of keys alone, in the same words.
        let wanted = own.get(name).or_else(|| files.get(name)).unwrap_or_else(|| panic!("no methods of {name}"));
        let given = blocking.get(counterpart).unwrap_or_else(|| panic!("no methods of blocking {counterpart}"));
        for method in wanted {
            if method == "fmt" {
                continue;
            }
            compared += 1;
            let is_excepted = EXCEPTIONS.contains(&(counterpart, method.as_str()));
            let is_there =
                given.contains(method) || (name == "Transaction" && blocking["Transaction"].contains(method));
            if !is_there && !is_excepted {
                missing.push(format!("{counterpart}::{method}"));
            }
        }
    }
    assert!(compared > 150, "only {compared} methods were found: the sources are written otherwise now");
    assert_eq!(missing, [""; 0]);
    let functions = ["destroy", "clear_header", "import_header"];
    let source = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/blocking/mod.rs")).unwrap();
    assert!(functions.iter().all(|name| source.contains(&format!("\npub fn {name}("))));
}

fn options() -> CreateOptions {
    CreateOptions::new(Credentials::password("test")).kdf(KdfParameters::MINIMUM).without_trusted_state()
}

fn assert_sound(repository: &Repository) {
    repository.check(CheckOptions { data: true }, |finding| panic!("{finding:?}")).unwrap();
}

#[test]
fn a_snapshot_is_looked_into_compared_and_brought_back_in_part() {
    let repository = Repository::create("mem://blocking-snapshots", options().versions(3)).unwrap();
    let (fs, kv) = (repository.fs(), repository.kv());
    fs.create_dir_all("/letters/old").unwrap();
    fs.write("/letters/anna", "Dear Anna").unwrap();
    fs.write("/letters/anna", "Dear Anna,").unwrap();
    fs.set_xattr("/letters/anna", "sent", "no", XattrMode::Set, Follow::Yes).unwrap();
    fs.symlink("anna", "/letters/link").unwrap();
    kv.put("theme", "dark").unwrap();
    let taken = repository.create_snapshot("monday").unwrap();
    fs.write("/letters/anna", "Dear Berta").unwrap();
    fs.write("/letters/new", "new").unwrap();
    fs.remove_dir("/letters/old").unwrap();
    kv.put("theme", "light").unwrap();
    kv.put("user/1", "x").unwrap();

    let monday = repository.files_at("monday").unwrap();
    assert_eq!((monday.sequence(), monday.read("/letters/anna").unwrap()), (taken.sequence, b"Dear Anna,".to_vec()));
    let mut text = String::new();
    monday.open_file("/letters/link").unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "Dear Anna,");
    assert_eq!(monday.read_link("/letters/link").unwrap(), b"anna");
    let names = |dir: blocking::ReadDir| dir.map(|entry| entry.unwrap().name).collect::<Vec<_>>();
    assert_eq!(names(monday.open_dir("/letters").unwrap()), [&b"anna"[..], b"link", b"old"]);
    assert_eq!(names(fs.open_dir("/letters").unwrap()), [&b"anna"[..], b"link", b"new"]);
    let after = strongroom::fs::DirCursor::after("anna");
    assert_eq!(names(monday.open_dir_at("/letters", &after).unwrap()).len(), 2);
    assert_eq!(monday.read_dir("/letters").unwrap().len(), 3);
    assert_eq!(monday.usage("/").unwrap().logical_bytes, 10);
    assert!(!monday.exists("/letters/new").unwrap());
    assert_eq!(monday.xattr("/letters/anna", "sent", Follow::Yes).unwrap().as_deref(), Some(&b"no"[..]));
    assert_eq!(monday.history("/letters/anna").unwrap().len(), 2);
    assert_eq!(monday.read_version("/letters/anna", 1).unwrap(), b"Dear Anna");
    let metadata = monday.metadata("/letters/anna").unwrap();
    assert_eq!(monday.inode_metadata(metadata.inode).unwrap(), metadata);
    assert_eq!(monday.check(strongroom::fs::CheckOptions { data: true }, |found| panic!("{found}")).unwrap().files, 1);

    let changes = fs.snapshot().changes_since(&monday).unwrap();
    let changes: Vec<_> = changes.iter().map(|change| (&change.path[..], &change.fate)).collect();
    let expected: [(&[u8], &Fate); 3] =
        [(b"/letters/anna", &Fate::Changed), (b"/letters/new", &Fate::Added), (b"/letters/old", &Fate::Removed)];
    assert_eq!(changes, expected);

    let keys = repository.keys_at("monday").unwrap();
    assert_eq!((keys.sequence(), keys.get("theme").unwrap().as_deref()), (taken.sequence, Some(&b"dark"[..])));
    assert_eq!(keys.scan(..).map(|row| row.unwrap().0).collect::<Vec<_>>(), ["theme"]);
    assert_eq!(kv.snapshot().scan_reverse(..).next_key().unwrap().unwrap(), ("user/1".into(), 1));

    fs.restore_from(&monday, "/letters/old").unwrap();
    fs.transact(|transaction| {
        transaction.restore_from(&monday, "/letters/anna")?;
        transaction.copy_from(&monday, "/letters", "/monday")
    })
    .unwrap();
    assert_eq!(fs.read("/letters/anna").unwrap(), b"Dear Anna,");
    assert_eq!(fs.read("/letters/new").unwrap(), b"new");
    assert_eq!(fs.read_dir("/monday").unwrap().len(), 3);
    assert_eq!(kv.get("theme").unwrap().as_deref(), Some(&b"light"[..]));
    assert!(matches!(
        repository.files_at("tuesday").err(),
        Some(Error::Core(strongroom::core::Error::NoSnapshot { .. }))
    ));
    assert!(repository.keys_at("tuesday").is_err());
    assert_sound(&repository);
}

#[test]
fn the_files_of_a_moment_are_those_of_the_newest_snapshot_that_is_not_younger() {
    let (env, clock) = Env::manual(1);
    let repository = Repository::create("mem://blocking-moments", options().env(env)).unwrap();
    assert_eq!(repository.snapshot_at_time(Timestamp { seconds: i64::MAX, nanos: 0 }).unwrap(), None);
    let mut taken = Vec::new();
    for name in ["one", "two", "three"] {
        repository.fs().write("/file", name).unwrap();
        taken.push(repository.create_snapshot(name).unwrap());
        clock.advance(Duration::from_millis(1_500));
    }
    let found = |moment| repository.files_at_time(moment).unwrap().map(|files| files.read("/file").unwrap());
    let nanos = |index: usize| taken[index].time_millis * 1_000_000;
    let at = |nanos| found(Timestamp::from_nanos(nanos));
    assert_eq!(nanos(1) - nanos(0), 1_500_000_000);
    assert_eq!(found(Timestamp { seconds: -1, nanos: 0 }), None);
    assert_eq!(at(nanos(0) - 1), None);
    for (index, content) in ["one", "two", "three"].into_iter().enumerate() {
        let content = Some(content.as_bytes().to_vec());
        assert_eq!((at(nanos(index)), at(nanos(index) + 1_499_999_999)), (content.clone(), content));
    }
    assert_eq!(found(Timestamp { seconds: i64::MAX, nanos: 0 }).as_deref(), Some(&b"three"[..]));
    repository.remove_snapshot("two").unwrap();
    assert_eq!(at(nanos(2) - 1).as_deref(), Some(&b"one"[..]));
    let info = repository.snapshot_at_time(Timestamp::from_nanos(nanos(2))).unwrap();
    assert_eq!(info.as_ref(), taken.last());
}

#[test]
fn a_transaction_streams_scans_and_takes_lists_as_the_async_one_does() {
    let repository = Repository::create("mem://blocking-transactions", options()).unwrap();
    repository
        .transact(|transaction| {
            let mut files = transaction.fs();
            let mut writer = files.write_file("/large", Attributes::file())?;
            writer.write(b"head")?;
            writer.hole(1 << 20)?;
            writer.write_from(&mut &b"tail"[..])?;
            assert_eq!(writer.finish()?, (1 << 20) + 8);
            let ops = [FsOp::Write { path: b"/small".to_vec(), content: b"x".to_vec() }];
            transaction.fs().apply_all(&ops)?;
            transaction.apply_all(&[
                Op::Put { key: b"a/1".to_vec(), value: b"1".to_vec() },
                Op::Put { key: b"a/2".to_vec(), value: b"2".to_vec() },
            ])?;
            assert_eq!(transaction.kv().scan(prefix(b"a/"))?.len(), 2);
            assert_eq!(transaction.kv().scan_reverse(prefix(b"a/"))?[0].0, "a/2");
            assert!(transaction.pending_bytes() > 0);
            Ok::<_, Error>(())
        })
        .unwrap();
    let file = repository.fs().open_file("/large").unwrap();
    let mut tail = [0; 4];
    file.read_exact_at((1 << 20) + 4, &mut tail).unwrap();
    assert_eq!((&tail, file.inode()), (b"tail", repository.fs().metadata("/large").unwrap().inode));
    assert!(file.read_exact_at(1 << 20, &mut [0; 9]).is_err());
    assert_sound(&repository);
}

#[test]
fn a_repository_is_looked_at_from_outside_and_destroyed() {
    let registry = strongroom::registry::default();
    let open = |registry: &Registry| OpenOptions::new(Credentials::password("test")).registry(registry.clone());
    let place = "mem://blocking-destroyed";
    let repository = Repository::create(place, options().registry(registry.clone())).unwrap();
    assert_eq!(repository.uri().unwrap().to_string(), place);
    assert!(!repository.remembers());
    let id = repository.info().unwrap().repository;
    repository.close().unwrap();
    drop(repository);
    let header = HeaderOptions { registry: Some(registry.clone()), ..HeaderOptions::default() };
    assert_eq!(blocking::clear_header(place, &header).unwrap().repository, id);
    assert!(blocking::destroy(place, open(&registry)).unwrap().deleted_count > 0);
    assert!(Repository::open(place, open(&registry)).is_err());
}
