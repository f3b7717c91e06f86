//! What an application passes that is no good: each call answers the variant of its error, through both APIs, never a
//! panic, and leaves the repository as it was.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use futures_lite::future::block_on;
use strongroom::check::CheckOptions;
use strongroom::core::Error as CoreError;
use strongroom::kv::VALUE_BYTES_MAX;
use strongroom::storage::{ErrorKind, StorageUri};
use strongroom::{
    CreateOptions, Credentials, Error, HeaderOptions, KdfParameters, OpenOptions, RecoveryKey, Repository, blocking,
    clear_header,
};

const PASSWORD: &str = "hunter2";

fn create() -> CreateOptions {
    CreateOptions::new(Credentials::password(PASSWORD))
        .kdf(KdfParameters::MINIMUM)
        .without_trusted_state()
        .block_bytes(16 << 10)
}

fn open() -> OpenOptions {
    OpenOptions::new(Credentials::password(PASSWORD)).without_trusted_state()
}

/// A repository with a bit of everything.
struct Bed {
    folder: tempfile::TempDir,
}

impl Bed {
    fn new() -> Self {
        let bed = Self { folder: tempfile::tempdir().unwrap() };
        let repository = blocking::Repository::create(bed.place(), create()).unwrap();
        let fs = repository.fs();
        fs.create_dir("/folder").unwrap();
        fs.write("/folder/file", vec![7; 100_000]).unwrap();
        fs.symlink("loop", "/loop").unwrap();
        repository.kv().put("key", "value").unwrap();
        repository.close().unwrap();
        bed
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("repo")
    }

    fn place(&self) -> String {
        self.path().display().to_string()
    }

    fn blobs(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        contents(&self.path())
    }
}

fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                all.insert(path.clone(), std::fs::read(path).unwrap());
            }
        }
    }
    all
}

/// The error of opening a place, which both APIs agree on, as does reading the clear header unless credentials decide.
#[track_caller]
fn refused(place: &str, options: impl Fn() -> OpenOptions) -> Error {
    let error = block_on(Repository::open(place, options())).unwrap_err();
    let other = blocking::Repository::open(place, options()).unwrap_err();
    assert_eq!(error.to_string(), other.to_string());
    assert!(!error.to_string().contains(PASSWORD) && !error.to_string().contains('\n'), "{error}");
    error
}

fn storage_kind(error: &Error) -> Option<ErrorKind> {
    match error {
        Error::Core(error) => error.storage_kind(),
        _ => None,
    }
}

#[test]
fn places_without_a_repository_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::create_dir(path("empty")).unwrap();
    std::fs::create_dir(path("foreign")).unwrap();
    std::fs::write(path("foreign/letter"), "dear reader").unwrap();
    std::fs::write(path("file"), "a file").unwrap();
    for name in ["absent", "empty", "foreign"] {
        let place = path(name);
        assert!(matches!(refused(&place, open), Error::Core(CoreError::NotARepository)), "{name}");
        assert!(matches!(
            block_on(clear_header(&*place, &HeaderOptions::default())),
            Err(Error::Core(CoreError::NotARepository))
        ));
    }
    assert_eq!(storage_kind(&refused(&path("file"), open)), Some(ErrorKind::Invalid));
    assert_eq!(storage_kind(&refused(&path("file/x"), open)), Some(ErrorKind::Invalid));
    let error = block_on(Repository::create(&*path("file"), create())).unwrap_err();
    assert_eq!(storage_kind(&error), Some(ErrorKind::Invalid));
    assert!(!folder.path().join("absent").exists());
    assert_eq!(std::fs::read_dir(path("empty")).unwrap().count(), 0);
    assert_eq!(contents(Path::new(&path("foreign"))).len(), 1);
    assert_eq!(std::fs::read(path("file")).unwrap(), b"a file");
    // What cannot even be made is not called absent.
    let error = block_on(Repository::create("/proc/self/no/such", create())).unwrap_err();
    assert_eq!(storage_kind(&error), Some(ErrorKind::NotFound), "{error}");
}

#[test]
fn addresses_that_make_no_sense_are_refused_by_kind() {
    for (address, kind) in [
        ("", ErrorKind::Invalid),
        ("a\0b", ErrorKind::Invalid),
        ("file:%zz", ErrorKind::Invalid),
        ("file:a%00b", ErrorKind::Invalid),
        ("file:x#y", ErrorKind::Invalid),
        ("file:x?speed=1", ErrorKind::Invalid),
        ("file://host/x", ErrorKind::Invalid),
        ("s3://user:hunter2@bucket/x", ErrorKind::Invalid),
        ("s3://bucket/x?token=hunter2", ErrorKind::Invalid),
        (&"n".repeat(17 << 10), ErrorKind::Invalid),
        (&"n".repeat(300), ErrorKind::Invalid),
        ("nowhere://x", ErrorKind::Unsupported),
    ] {
        assert_eq!(storage_kind(&refused(address, open)), Some(kind), "{address:.40}");
        let created = block_on(Repository::create(address, create())).unwrap_err();
        assert_eq!(storage_kind(&created), Some(kind), "{address:.40}");
    }
    assert_eq!(StorageUri::from_path(Path::new("")).unwrap_err().kind(), ErrorKind::Invalid);
}

#[test]
fn options_that_make_no_sense_are_refused_before_anything_is_made() {
    let folder = tempfile::tempdir().unwrap();
    for bytes in [0, 1, 4095, 5000, 2048, 8 << 20, u32::MAX] {
        let place = folder.path().join(format!("of {bytes}"));
        let error =
            block_on(Repository::create(&*place.display().to_string(), create().block_bytes(bytes))).unwrap_err();
        assert!(matches!(error, Error::Core(CoreError::Invalid(_))), "{bytes}: {error}");
        assert!(!place.exists() || contents(&place).is_empty(), "{bytes}");
    }
    let place = folder.path().join("weak").display().to_string();
    let weak = [Credentials::password(""), Credentials::key_file("abc"), Credentials::default()];
    for credentials in weak {
        let options = CreateOptions::new(credentials).kdf(KdfParameters::MINIMUM).without_trusted_state();
        let error = blocking::Repository::create(&*place, options).unwrap_err();
        assert!(matches!(error, Error::Core(CoreError::Invalid(_))), "{error}");
    }
    assert!(contents_or_nothing(Path::new(&place)).is_empty());
    assert!(RecoveryKey::from_text("hunter2").is_err());
}

fn contents_or_nothing(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    if folder.exists() { contents(folder) } else { BTreeMap::new() }
}

#[test]
fn a_repository_that_is_there_is_never_created_over_and_opens_with_its_credentials_alone() {
    let bed = Bed::new();
    let before = bed.blobs();
    let error = block_on(Repository::create(&*bed.place(), create())).unwrap_err();
    assert!(matches!(error, Error::Core(CoreError::AlreadyExists)));
    let wrong = || OpenOptions::new(Credentials::password("other")).without_trusted_state();
    assert!(matches!(refused(&bed.place(), wrong), Error::Core(CoreError::WrongCredentials)));
    let none = || OpenOptions::new(Credentials::default()).without_trusted_state();
    let error = refused(&bed.place(), none);
    assert!(matches!(error, Error::Core(CoreError::WrongCredentials | CoreError::Invalid(_))), "{error}");
    assert!(bed.blobs() == before);
}

#[test]
fn blobs_that_were_cut_short_are_damage_and_longer_ones_do_no_harm() {
    let bed = Bed::new();
    let good = bed.blobs();
    let is_header = |path: &Path| path.file_name().unwrap().to_str().unwrap().starts_with("7374726f6e677248");
    for length in [0, 1_000, (16 << 10) + 1, (4 << 20) + 1] {
        for headers in [true, false] {
            for (path, bytes) in &good {
                std::fs::remove_file(path).unwrap();
                std::fs::write(path, bytes).unwrap();
                if is_header(path) == headers {
                    std::fs::File::options().write(true).open(path).unwrap().set_len(length).unwrap();
                }
            }
            let before = bed.blobs();
            if length < 16 << 10 {
                let error = refused(&bed.place(), open);
                assert!(matches!(error, Error::Core(CoreError::Damaged(_))), "headers {headers}, {length}: {error}");
            } else {
                // What is read of a blob proves itself; that something follows it, the check alone looks for.
                match blocking::Repository::open(bed.place(), open().read_only(true)) {
                    Ok(repository) => {
                        assert!(repository.fs().read("/folder/file").unwrap() == vec![7; 100_000]);
                        let report = repository.check(CheckOptions { data: true }, |_| {}).unwrap();
                        assert!(report.findings > 0, "headers {headers}, {length}");
                        repository.close().unwrap();
                    }
                    Err(error) => assert!(matches!(error, Error::Core(CoreError::Damaged(_))), "{error}"),
                }
            }
            assert!(bed.blobs() == before);
        }
    }
}

/// Calls on both APIs; each answers the same error.
macro_rules! both {
    ($repository:ident, $part:ident . $method:ident ( $($argument:expr),* ), $($error:tt)+) => {{
        let error = block_on($repository.asynchronous().$part().$method($($argument),*)).map(|_| ()).unwrap_err();
        assert!(matches!(error, $($error)+), "{}: {error:?}", stringify!($method));
        assert!(error.to_string().len() < 600, "{error}");
        let error = $repository.$part().$method($($argument),*).map(|_| ()).unwrap_err();
        assert!(matches!(error, $($error)+), "{}: {error:?}", stringify!($method));
    }};
}

#[test]
fn paths_and_keys_that_make_no_sense_are_told_by_variant_and_change_nothing() {
    let bed = Bed::new();
    let repository = blocking::Repository::open(bed.place(), open()).unwrap();
    let long = format!("/{}", "n".repeat(256));
    let path = "/n".repeat(40_000);
    let sequence = repository.asynchronous().fs().snapshot().sequence();

    both!(repository, fs.read(""), Error::InvalidPath { .. });
    both!(repository, fs.read("/a\0b"), Error::InvalidPath { .. });
    both!(repository, fs.read(&long), Error::NameTooLong { bytes: 256, bytes_max: 255, .. });
    both!(repository, fs.read(&path), Error::NameTooLong { .. });
    both!(repository, fs.read("/absent"), Error::NotFound { .. });
    both!(repository, fs.read(b"/\xff\xfe"), Error::NotFound { .. });
    both!(repository, fs.read("/../../../absent"), Error::NotFound { .. });
    both!(repository, fs.read("/folder"), Error::IsADirectory { .. });
    both!(repository, fs.read("/folder/file/x"), Error::NotADirectory { .. });
    both!(repository, fs.read("/folder/file/"), Error::NotADirectory { .. });
    both!(repository, fs.read("/loop"), Error::SymlinkLoop { .. });
    both!(repository, fs.read_dir("/folder/file"), Error::NotADirectory { .. });
    both!(repository, fs.read_link("/folder"), Error::NotASymlink { .. });
    both!(repository, fs.metadata("/loop"), Error::SymlinkLoop { .. });
    both!(repository, fs.write("/folder", b"x"), Error::IsADirectory { .. });
    both!(repository, fs.write("/absent/x", b"x"), Error::NotFound { .. });
    both!(repository, fs.write(&long, b"x"), Error::NameTooLong { .. });
    both!(repository, fs.write("/a\0b", b"x"), Error::InvalidPath { .. });
    both!(repository, fs.create_dir("/folder"), Error::AlreadyExists { .. });
    both!(repository, fs.create_dir("/"), Error::AlreadyExists { .. });
    both!(repository, fs.create_dir_all("/folder/file/x"), Error::NotADirectory { .. });
    both!(repository, fs.remove_file("/folder"), Error::IsADirectory { .. });
    both!(repository, fs.remove_dir("/folder"), Error::NotEmpty { .. });
    both!(repository, fs.remove_dir("/folder/file"), Error::NotADirectory { .. });
    both!(repository, fs.remove_all("/absent"), Error::NotFound { .. });
    both!(repository, fs.rename("/folder", "/folder/x"), Error::IntoItself { .. });
    both!(repository, fs.rename("/absent", "/x"), Error::NotFound { .. });
    both!(repository, fs.rename("/", "/x"), Error::InvalidPath { .. });
    both!(repository, fs.set_len("/folder/file", u64::MAX), Error::FileTooLarge { .. });
    both!(repository, fs.hard_link("/folder", "/other"), Error::IsADirectory { .. });

    let (key, value) = (vec![b'k'; repository.asynchronous().kv().key_bytes_max() + 1], vec![0; VALUE_BYTES_MAX + 1]);
    both!(repository, kv.put(&key, b"v"), CoreError::LimitExceeded { .. });
    both!(repository, kv.put(b"key", &value), CoreError::LimitExceeded { .. });
    assert_eq!(repository.kv().get(&key).unwrap(), None);

    assert_eq!(repository.asynchronous().fs().snapshot().sequence(), sequence, "nothing was committed");
    let report = repository.check(CheckOptions { data: true }, |finding| panic!("{finding:?}")).unwrap();
    assert_eq!(report.findings, 0);
    repository.close().unwrap();
    both!(repository, fs.write("/x", b"x"), Error::Core(CoreError::Closed));
    both!(repository, kv.put(b"other", b"v"), CoreError::Closed);

    let repository = blocking::Repository::open(bed.place(), open().read_only(true)).unwrap();
    let before = bed.blobs();
    both!(repository, fs.write("/x", b"x"), Error::Core(CoreError::ReadOnly));
    both!(repository, fs.remove_all("/folder"), Error::Core(CoreError::ReadOnly));
    both!(repository, kv.put(b"x", b"x"), CoreError::ReadOnly);
    repository.close().unwrap();
    assert!(bed.blobs() == before);
}
