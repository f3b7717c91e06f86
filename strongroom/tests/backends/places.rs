//! The backends, and fresh places of theirs. One more joins by a line of `backends!`.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use strongroom::core::env::Env;
use strongroom::core::layer::Cached;
use strongroom::core::storage::{Blocking, BlockingMode, OpenContext, OpenMode, Registry, Result, Storage, StorageUri};
use strongroom_conformance::local::memory;
use strongroom_file_cache::FileCache;
use strongroom_s3::{S3Constructor, S3Credentials};
use strongroom_s3_server::{ACCESS_KEY, SECRET_KEY, Server, ServerOptions};
use tempfile::TempDir;

/// Which backend the tests of this process run on; the first one where it is not set.
const CHOICE: &str = "STRONGROOM_BACKEND";

struct Backend {
    name: &'static str,
    register: fn(&mut Registry),
    /// The address of a fresh place, in a folder of its own or of this name.
    address: fn(&Path, &str) -> String,
    cache: Cache,
    /// What is not as these tests, named by how their paths begin, suppose.
    differs: &'static [&'static str],
    /// Tests that take too long for every day.
    slow: &'static [&'static str],
}

/// What is between a process and the backend.
#[derive(PartialEq, Eq)]
enum Cache {
    None,
    File,
}

/// The backends, and for each but the first a test that runs those of the other modules on it, in a process of its own.
macro_rules! backends {
    ($($name:ident: $register:expr, $address:expr, $cache:expr, $differs:expr, $slow:expr;)+) => {
        const BACKENDS: &[Backend] = &[$(Backend {
            name: stringify!($name),
            register: $register,
            address: $address,
            cache: $cache,
            differs: $differs,
            slow: $slow,
        }),+];
        backends!(@on_each $($name)+);
    };
    (@on_each $first:ident $($name:ident)+) => {
        mod on_each {
            $(#[test]
            fn $name() {
                super::run_on(stringify!($name));
            })+
        }
    };
}

backends! {
    file: strongroom_file::register, |folder, _| in_folder("file", folder), Cache::None, &[], &[];
    memory: strongroom_memory::register, |_, name| format!("mem://{name}"), Cache::None, NO_BALLAST, SWEEPS;
    sqlite: strongroom_sqlite::register, |folder, _| in_folder("sqlite", folder), Cache::None, &[], SWEEPS;
    redb: strongroom_redb::register, |folder, _| in_folder("redb", folder), Cache::None, &[], SWEEPS;
    sled: strongroom_sled::register, |folder, _| in_folder("sled", folder), Cache::None, &[], SWEEPS;
    s3: register_s3, |_, name| bucket(name), Cache::None, FAR_AWAY, REQUESTS;
    s3_behind_a_cache: register_s3, |_, name| bucket(name), Cache::File, FAR_AWAY, REQUESTS_AGAIN;
}

/// Where nothing is kept back for a full disk, which it cannot be.
const NO_BALLAST: &[&str] = &[
    "engine::basics::missing_ballast_is_told",
    "engine::space::a_full_storage_fails_the_commit",
    "engine::space::a_process_that_comes_to_a_full_storage",
];

/// Nor can anyone tell, there, who else has it open; and a call is not done in so many polls.
const FAR_AWAY: &[&str] = &[
    "engine::basics::missing_ballast_is_told",
    "engine::basics::what_a_transaction_keeps_goes",
    "engine::destroy::without_the_right",
    "engine::space",
    "files::dropped",
    "files::remains",
    "files::unlinked::after_a_crash_the_next_writer_gives",
];

/// What makes each of many calls the last, or very many calls.
const SWEEPS: &[&str] = &[
    "engine::clones::a_clone_that_dies_anywhere",
    "engine::snapshots::a_snapshot_and_its_removal_write_no_more",
    "engine::space::a_compaction_of_a_full_storage",
    "engine::space::compaction_leaves_what_a_fresh",
    "files::copies::a_copy_of_what_has_several_names",
    "files::copies::a_large_tree",
    "files::dropped",
    "files::fsx::a_large_file",
    "files::remains::removing_a_file_takes_no_more_memory",
    "files::remains::whenever_a_removal_is_cut_short",
];

/// What takes minutes where each call is a request.
const REQUESTS: &[&str] = &[
    "engine::clones",
    "engine::destroy",
    "engine::model",
    "engine::snapshots",
    "files::check",
    "files::copies::a_copy_of_what_has_several_names",
    "files::copies::a_large_tree",
    "files::fsx",
    "files::handles",
    "files::mend",
    "files::unlinked",
];

/// And where the same requests were made once without a cache.
const REQUESTS_AGAIN: &[&str] = &[
    "engine::",
    "files::check",
    "files::content",
    "files::copies::a_copy_of_what_has_several_names",
    "files::copies::a_large_tree",
    "files::fsx",
    "files::handles",
    "files::mend",
    "files::unlinked",
    "files::versions",
];

fn in_folder(scheme: &str, folder: &Path) -> String {
    format!("{scheme}:{}", folder.join("place").display())
}

static SERVER: LazyLock<Server> =
    LazyLock::new(|| Server::start(ServerOptions { page_keys_max: 100, ..ServerOptions::default() }).unwrap());

fn register_s3(registry: &mut Registry) {
    registry.register("s3", S3Constructor::with_credentials(S3Credentials::new(ACCESS_KEY, SECRET_KEY)));
}

fn bucket(name: &str) -> String {
    SERVER.create_bucket(name);
    format!("s3://{name}/prefix?endpoint={}", SERVER.endpoint())
}

fn chosen() -> &'static Backend {
    let name = std::env::var(CHOICE).unwrap_or_else(|_| BACKENDS[0].name.to_owned());
    let known = || BACKENDS.iter().map(|backend| backend.name).collect::<Vec<_>>().join(", ");
    BACKENDS.iter().find(|backend| backend.name == name).unwrap_or_else(|| panic!("{CHOICE} is one of {}", known()))
}

/// One place that nobody else has, gone with the last who uses it.
pub(crate) struct Ground {
    backend: &'static Backend,
    registry: Registry,
    uri: StorageUri,
    name: String,
    folder: TempDir,
}

impl Ground {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = format!("place-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let (backend, mut registry) = (chosen(), Registry::new());
        (backend.register)(&mut registry);
        let folder = TempDir::new_in(memory()).unwrap();
        let uri = StorageUri::parse(&(backend.address)(folder.path(), &name)).unwrap();
        Self { backend, registry, uri, name, folder }
    }

    /// As a process opens it.
    pub(crate) async fn open(&self) -> Result<Arc<dyn Storage>> {
        let storage = self.open_bare().await?;
        if self.backend.cache == Cache::None {
            return Ok(storage);
        }
        let blocking = Blocking::new(BlockingMode::Inline, Env::deterministic(1));
        let cache = FileCache::open(&self.folder.path().join("cache"), 1 << 20, blocking).await?;
        Ok(Arc::new(Cached::new(storage, Arc::new(cache))))
    }

    /// Without the cache.
    pub(crate) async fn open_bare(&self) -> Result<Arc<dyn Storage>> {
        // Time is real here: who waits until a lock is let go must not have waited in no time.
        static ENV: LazyLock<Env> = LazyLock::new(|| strongroom::env::system().unwrap());
        let context = OpenContext::new(ENV.clone()).with_mode(OpenMode::CreateIfMissing);
        self.registry.open(&self.uri, &context.with_blocking(BlockingMode::Inline)).await
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        if self.uri.scheme() == "s3" {
            SERVER.remove_bucket(&self.name);
        }
    }
}

/// Whether `STRONGROOM_ACCEPTANCE=full` asks for every test and every case.
pub(crate) fn is_full() -> bool {
    std::env::var_os("STRONGROOM_ACCEPTANCE").is_some_and(|size| size == "full")
}

/// Runs every test of the other modules on this backend.
fn run_on(name: &str) {
    let backend = BACKENDS.iter().find(|backend| backend.name == name).unwrap();
    let slow: &[&str] = if is_full() { &[] } else { backend.slow };
    let program = || {
        let mut command = Command::new(std::env::current_exe().unwrap());
        for skipped in backend.differs.iter().chain(slow).chain(&["on_each::"]) {
            command.args(["--skip", skipped]);
        }
        command.env(CHOICE, name);
        command
    };
    let listed = program().arg("--list").output().unwrap();
    let listed = String::from_utf8_lossy(&listed.stdout).lines().filter(|line| line.ends_with(": test")).count();
    let output = program().output().unwrap();
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "on {name}:\n{said}\n{errors}");
    assert!(listed > 50 && said.contains(&format!("test result: ok. {listed} passed")), "on {name}: {listed}\n{said}");
}
