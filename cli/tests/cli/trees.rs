//! Real trees go in and come out bit for bit, whatever the repository is made with, and cost nothing when they come again.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::acceptance::{check_is_clean, measure, scaled, seed, stored_bytes, text};
use crate::common::{self, Numbers, Scratch, compare_trees, generate_tree};

/// What import and export promise of a tree: it comes back the same, nothing is damaged, and the same tree under
/// another name adds next to nothing.
fn goes_in_comes_out_and_costs_nothing_twice(scratch: &Scratch, tree: &Path) {
    let name = tree.file_name().unwrap();
    let source = tree.to_str().unwrap();
    scratch.succeeds(["import", source]);
    check_is_clean(scratch, "after the import");
    scratch.succeeds(["export", "/", "out"]);
    assert_eq!(compare_trees(tree, &scratch.path("out").join(name)), Vec::<String>::new());
    fs::remove_dir_all(scratch.path("out")).unwrap();

    let before = stored_bytes(&scratch.path("repo"));
    scratch.succeeds(["import", source, "--to", "/again"]);
    let more = stored_bytes(&scratch.path("repo")).saturating_sub(before);
    let (files, bytes) = measure(tree);
    eprintln!("{files} files, {bytes} bytes: {before} stored, {more} more for the second copy");
    // A commit is a block or a few, which only a tree of some size outweighs.
    assert!(
        bytes < 32 << 20 || more <= bytes / 100 + 512 * files,
        "{more} bytes for a copy of {files} files with {bytes} bytes"
    );
    check_is_clean(scratch, "after the second import");
    scratch.succeeds(["export", "/again", "out"]);
    assert_eq!(compare_trees(tree, &scratch.path("out/again").join(name)), Vec::<String>::new());
}

#[test]
fn an_odd_tree_comes_back_bit_for_bit_and_costs_nothing_twice() {
    let seed = seed();
    let scratch = Scratch::with_repository();
    let tree = scratch.path("tree");
    generate_tree(&tree, seed, 40 << 20, 1_500);
    fs::write(tree.join("many megabytes"), Numbers::new(seed ^ 1).bytes(20 << 20)).unwrap();
    let deep: PathBuf = (0..60).map(|level| format!("{level:02} {}", "d".repeat(40))).collect();
    fs::create_dir_all(tree.join(&deep)).unwrap();
    fs::write(tree.join(&deep).join("bottom"), "deep").unwrap();
    goes_in_comes_out_and_costs_nothing_twice(&scratch, &tree);
}

/// A tree that nobody made for a test: the folder of the Rust toolchain, or a small part of it.
#[test]
fn the_folder_of_a_toolchain_comes_back_bit_for_bit() {
    let asked =
        Command::new("rustc").args(["--print", "sysroot"]).output().expect("cargo runs this, so rustc is there");
    let sysroot = PathBuf::from(text(&asked.stdout).trim());
    let tree = scaled(sysroot.join("lib/rustlib/etc"), sysroot);
    if !tree.is_dir() {
        return;
    }
    let (files, bytes) = measure(&tree);
    eprintln!("{}: {files} files, {bytes} bytes", tree.display());
    let scratch = Scratch::with_repository();
    goes_in_comes_out_and_costs_nothing_twice(&scratch, &tree);
}

/// One factor at a time: the tree, and what the factor must leave as it is, are the same.
#[test]
fn an_odd_tree_comes_back_from_a_repository_of_every_make() {
    let seed = seed();
    for factor in [
        ["--block-size", "4KiB"],
        ["--block-size", "1MiB"],
        ["--cipher", "aes-256-gcm"],
        ["--cipher", "xchacha20-poly1305"],
        ["--dedup", "off"],
        ["--compress", "none"],
    ] {
        let scratch = Scratch::new();
        scratch.succeeds(["init", "--no-recovery", "--kdf-time", "1"].iter().chain(&factor));
        let tree = scratch.path("tree");
        generate_tree(&tree, seed, 2 << 20, 60);
        scratch.succeeds(["import", "tree"]);
        let report = check_is_clean(&scratch, &factor.join(" "));
        // A file with several names is one file.
        let files = common::list(&tree).into_iter().map(|path| path.symlink_metadata().unwrap());
        let files: BTreeSet<u64> = files.filter(|file| file.is_file()).map(|file| file.ino()).collect();
        assert_eq!(report["files"], files.len(), "{factor:?}");
        scratch.succeeds(["export", "/", "out"]);
        assert_eq!(compare_trees(&tree, &scratch.path("out/tree")), Vec::<String>::new(), "{factor:?}");
    }
}

/// It would take weeks to read them.
#[test]
fn a_file_of_holes_goes_out_as_quickly_as_it_came_in() {
    use std::os::unix::fs::FileExt as _;

    const LENGTH: u64 = 1 << 40;
    let scratch = Scratch::with_repository();
    let file = fs::File::create_new(scratch.path("holes")).unwrap();
    file.set_len(LENGTH).unwrap();
    for (offset, text) in [(5 << 20, b"island"), (LENGTH / 2 + 7, b"middle"), (LENGTH - 6, b"at end")] {
        file.write_all_at(text, offset).unwrap();
    }
    scratch.succeeds(["import", "holes"]);
    scratch.succeeds(["export", "/holes", "out"]);
    let out = fs::File::open(scratch.path("out/holes")).unwrap();
    let metadata = out.metadata().unwrap();
    assert_eq!(metadata.len(), LENGTH);
    assert!(metadata.blocks() * 512 < 1 << 20, "{} blocks", metadata.blocks());
    for (offset, text) in [(5 << 20, b"island"), (LENGTH / 2 + 7, b"middle"), (LENGTH - 6, b"at end")] {
        let mut read = [0; 6];
        out.read_exact_at(&mut read, offset).unwrap();
        assert_eq!(read, *text, "at {offset}");
    }
}

/// Runs an import of this file and stops it while it reads: between its first look at the file and its last. Nothing where it was
/// done with it before.
#[cfg(target_os = "linux")]
fn stopped_while_it_reads(scratch: &Scratch, name: &str) -> Option<std::process::Child> {
    use std::process::Stdio;

    use rustix::process::{Pid, Signal, WaitOptions};

    let mut import = scratch.command();
    import.args(["import", "--json", name]).stdout(Stdio::piped()).stderr(Stdio::piped());
    #[allow(clippy::zombie_processes)] // it has been waited for, or is given to who does
    let mut import = import.spawn().unwrap();
    let (pid, process) = (Pid::from_child(&import), PathBuf::from(format!("/proc/{}", import.id())));
    let path = scratch.path(name);
    let has_it_open = || {
        let opened = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
        opened.map(|opened| fs::read_link(opened.path())).any(|opened| opened.is_ok_and(|opened| opened == path))
    };
    let read = || {
        let counters = fs::read_to_string(process.join("io")).unwrap_or_default();
        let read = counters.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap_or("0");
        read.parse::<u64>().unwrap()
    };
    let mut before = None;
    while before.is_none_or(|before| read() <= before) {
        if import.try_wait().unwrap().is_some() {
            return None;
        }
        match has_it_open() {
            // It looks before it reads, and again after it.
            true => before = before.or_else(|| Some(read())),
            false => before = None,
        }
        std::thread::yield_now();
    }
    rustix::process::kill_process(pid, Signal::STOP).unwrap();
    let (_, state) = rustix::process::waitpid(Some(pid), WaitOptions::UNTRACED).unwrap().unwrap();
    if state.stopped() && has_it_open() {
        return Some(import);
    }
    if state.stopped() {
        import.kill().unwrap();
        import.wait().unwrap();
    }
    None
}

#[cfg(target_os = "linux")]
#[test]
fn a_file_that_changes_while_it_is_read_is_stored_and_told() {
    use std::io::Write as _;

    use rustix::process::{Pid, Signal};

    for length in [1 << 20, 24 << 20] {
        let (scratch, import) = loop {
            let scratch = Scratch::with_repository();
            fs::write(scratch.path("log"), Numbers::new(1).bytes(length)).unwrap();
            if let Some(import) = stopped_while_it_reads(&scratch, "log") {
                break (scratch, import);
            }
        };
        fs::OpenOptions::new().append(true).open(scratch.path("log")).unwrap().write_all(b".").unwrap();
        rustix::process::kill_process(Pid::from_child(&import), Signal::CONT).unwrap();
        let output = import.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(
            report["left_out"][0]["reason"],
            "changed while it was read, and is stored as it was read: import it again"
        );
        assert_eq!((&report["left_out"][1], &report["files"]), (&serde_json::Value::Null, &1.into()));
        assert!(scratch.succeeds(["cat", "/log"]).len() >= length);
        assert_eq!(scratch.run(["import", "log"]).status.code(), Some(0));
    }
}

/// A path of twice what one call takes: nobody can name what is there, and yet it is there.
#[test]
fn a_tree_that_is_deeper_than_paths_can_be_long_goes_in_and_comes_out() {
    use std::io::{Read as _, Write as _};
    use std::os::fd::OwnedFd;

    use rustix::fs::{AtFlags, Mode, OFlags, XattrFlags};

    const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY);
    let name = "n".repeat(200);
    let open =
        |folder: &OwnedFd, name: &str, flags| rustix::fs::openat(folder, name, flags, Mode::RUSR | Mode::WUSR).unwrap();
    let bottom = |root: PathBuf| {
        let root = rustix::fs::open(root, FOLDER, Mode::empty()).unwrap();
        (0..40).fold(root, |folder, _| open(&folder, &name, FOLDER))
    };
    let scratch = Scratch::with_repository();
    fs::create_dir(scratch.path("tree")).unwrap();
    let mut folder = rustix::fs::open(scratch.path("tree"), FOLDER, Mode::empty()).unwrap();
    for _ in 0..40 {
        rustix::fs::mkdirat(&folder, &name, Mode::RWXU).unwrap();
        folder = open(&folder, &name, FOLDER);
    }
    let write = |name: &str, content: &[u8]| {
        let mut file = fs::File::from(open(&folder, name, OFlags::WRONLY | OFlags::CREATE));
        file.write_all(content).unwrap();
        file
    };
    let (small, large) = (b"deep".to_vec(), Numbers::new(seed()).bytes(24 << 20));
    let attributed = rustix::fs::fsetxattr(write("small", &small), "user.deep", b"too", XattrFlags::empty()).is_ok();
    write("large", &large);
    rustix::fs::symlinkat("nowhere", &folder, "link").unwrap();
    rustix::fs::mkdirat(&folder, "cache", Mode::RWXU).unwrap();
    write("cache/CACHEDIR.TAG", b"Signature: 8a477f597d28d172789f06886806bc55");

    let report = |arguments: &[&str]| -> serde_json::Value {
        serde_json::from_slice(&scratch.succeeds(["import", "tree", "--json"].iter().chain(arguments))).unwrap()
    };
    let first = report(&["--exclude-caches"]);
    assert_eq!((&first["files"], &first["folders"], &first["links"]), (&2.into(), &42.into(), &1.into()), "{first}");
    assert_eq!(report(&[])["files"], 1);
    assert_eq!(report(&[])["files"], 0);
    check_is_clean(&scratch, "after the import");
    scratch.succeeds(["export", "/tree", "out"]);
    let out = bottom(scratch.path("out/tree"));
    for (name, content) in [("small", &small), ("large", &large)] {
        let mut read = Vec::new();
        fs::File::from(open(&out, name, OFlags::RDONLY)).read_to_end(&mut read).unwrap();
        assert!(read == *content, "{name}");
    }
    assert_eq!(rustix::fs::readlinkat(&out, "link", Vec::new()).unwrap().as_bytes(), b"nowhere");
    if attributed {
        let mut value = [0; 8];
        let bytes = rustix::fs::fgetxattr(open(&out, "small", OFlags::RDONLY), "user.deep", &mut value[..]).unwrap();
        assert_eq!(&value[..bytes], b"too");
    }

    rustix::fs::unlinkat(&folder, "small", AtFlags::empty()).unwrap();
    rustix::fs::unlinkat(&folder, "cache/CACHEDIR.TAG", AtFlags::empty()).unwrap();
    rustix::fs::unlinkat(&folder, "cache", AtFlags::REMOVEDIR).unwrap();
    assert_eq!(report(&["--delete"])["removed"], 3);
    assert_eq!(report(&["--delete"])["removed"], 0);
    let listed = text(&scratch.succeeds(["ls", "-R"]));
    assert!(listed.lines().any(|path| path.ends_with("/large")) && !listed.contains("/small"));
}
