//! Small file systems that fill up or become read-only, in mounts of one test's own: they end with its process.
//!
//! A test that needs them begins with `if !mounts::inside("its_module::its_name") { return; }`. The first call runs
//! the test again in a process that may mount; where the machine does not allow that, the test fails and says what it needs.

#![allow(dead_code, unreachable_pub)] // each suite uses a part
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)] // a test may

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

const INSIDE: &str = "STRONGROOM_TEST_IN_MOUNTS_OF_ITS_OWN";

/// Whether this process may mount. If not, the test of this name has been run in one that may, and has passed there.
pub fn inside(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some_and(|name| name == test) {
        return true;
    }
    let ways: [&[&str]; 2] = [&["--mount"], &["--user", "--map-root-user", "--mount"]];
    let program = std::env::current_exe().unwrap();
    for way in ways {
        let probe = Command::new("unshare").args(way).args(["mount", "-t", "tmpfs", "none", "/mnt"]).output();
        if !probe.is_ok_and(|probe| probe.status.success()) {
            continue;
        }
        let run = Command::new("unshare")
            .args(way)
            .arg(program)
            .args(["--exact", test, "--nocapture", "--test-threads=1"])
            .env(INSIDE, test)
            .output()
            .unwrap();
        let (out, err) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
        assert!(run.status.success(), "{test}, in mounts of its own:\n{out}{err}");
        assert!(out.contains("1 passed"), "no test is called {test}: {out}");
        return false;
    }
    panic!(
        "this test mounts small file systems: it needs `unshare` and `mount` (util-linux) and the right to make mount \
        namespaces, as root (in a container: CAP_SYS_ADMIN) or by unprivileged user namespaces"
    );
}

fn mount(arguments: &[&OsStr]) {
    let output = Command::new("mount").args(arguments).output().unwrap();
    assert!(output.status.success(), "mount {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A new file system of so many KiB in this folder, which is made.
pub fn small_disk(folder: &Path, kib: u64) {
    fs::create_dir_all(folder).unwrap();
    let size = format!("size={kib}k");
    mount(&["-t".as_ref(), "tmpfs".as_ref(), "-o".as_ref(), size.as_ref(), "none".as_ref(), folder.as_ref()]);
}

/// Changes a file system: `ro`, `rw`, `size=…`.
pub fn remount(folder: &Path, options: &str) {
    let options = format!("remount,{options}");
    mount(&["-o".as_ref(), options.as_ref(), folder.as_ref()]);
}

/// Fills a file system to the last byte; answers the file that does.
pub fn fill(folder: &Path) -> std::path::PathBuf {
    let path = folder.join("filler");
    let mut file = File::options().create(true).append(true).open(&path).unwrap();
    for piece in [1 << 20, 1 << 12, 1] {
        let bytes = vec![1; piece];
        while file.write_all(&bytes).is_ok() {}
    }
    path
}

/// Runs a program that obeys the permissions of files even where the tests are run by root.
pub fn humble(program: &Path) -> Command {
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        return bare(Command::new(program));
    }
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set=-dac_override,-dac_read_search,-fowner", "--inh-caps=-all"]).arg(program);
    bare(command)
}

/// Runs a program without what this process's environment tells it: settings of its own, and what leads its requests elsewhere or with
/// other keys.
pub fn bare(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os() {
        let is_heard = |name: &str| {
            let name = name.to_ascii_uppercase();
            name.starts_with("STRONGROOM_") || name.starts_with("AWS_") || name.ends_with("_PROXY")
        };
        if name.to_str().is_some_and(is_heard) {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    command
}
