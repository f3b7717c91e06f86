//! An import that is killed again and again does not send again what had arrived.

#![cfg(target_os = "linux")]

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Child, Stdio};

use crate::common::acceptance::{check_is_clean, scaled, seed, text};
use crate::common::{Numbers, Scratch, compare_trees};
use rustix::process::{Pid, Signal, WaitOptions};

/// What a process has written so far, by its own calls: blobs, and next to them little else.
fn written(process: &Child) -> u64 {
    let counters = fs::read_to_string(format!("/proc/{}/io", process.id())).unwrap();
    let written = counters.lines().find_map(|line| line.strip_prefix("wchar: ")).unwrap();
    written.parse().unwrap()
}

/// Runs an import until it has written so much, and stops it there; nothing where it was done before. It sends slowly where there is
/// little to send: who watches it may have to wait for a core.
fn stopped_at(scratch: &Scratch, arguments: &[&str], bytes: u64) -> Option<Child> {
    let mut command = scratch.command();
    command.args(arguments).args(scaled(&["--limit-upload", "8MiB/s"][..], &[]));
    let mut import = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let pid = Pid::from_child(&import);
    while written(&import) < bytes {
        if import.try_wait().unwrap().is_some() {
            return None;
        }
        std::thread::yield_now();
    }
    rustix::process::kill_process(pid, Signal::STOP).unwrap();
    let (_, state) = rustix::process::waitpid(Some(pid), WaitOptions::UNTRACED).unwrap().unwrap();
    state.stopped().then_some(import)
}

/// Runs an import until it has written so much, and kills it there; answers how much that was, or nothing where it was
/// done before.
fn killed_at(scratch: &Scratch, arguments: &[&str], bytes: u64) -> Option<u64> {
    // Stopped first, so that nothing is written between the last look and the end.
    let mut import = stopped_at(scratch, arguments, bytes)?;
    let sent = written(&import);
    import.kill().unwrap();
    import.wait().unwrap();
    Some(sent)
}

/// Runs it to its end; answers what it sent.
fn to_the_end(scratch: &Scratch, arguments: &[&str]) -> u64 {
    let output = scratch.run(arguments.iter().chain(&["-v"]));
    let said = text(&output.stderr);
    assert!(output.status.success(), "{said}");
    let (before, _) = said.split_once(" bytes up").expect("what went to the storage");
    before.rsplit(' ').next().unwrap().parse().unwrap()
}

fn write_random(path: &Path, numbers: &mut Numbers, bytes: u64) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut file = File::create(path).unwrap();
    let mut left = bytes;
    while left > 0 {
        let piece = left.min(1 << 20);
        file.write_all(&numbers.bytes(usize::try_from(piece).unwrap())).unwrap();
        left -= piece;
    }
}

/// Kills an import of random bytes again and again, spread over what there is to send, and lets it end then. Beside what
/// an import sends that is left alone, each kill costs what was sent since the last commit, and nothing else.
fn is_sent_once(size: Size, unique: u64, commits: u64, numbers: &mut Numbers, scratch: &Scratch) {
    let undisturbed = Scratch::new();
    fs::rename(scratch.path("tree"), undisturbed.path("tree")).unwrap();
    size.init(&undisturbed);
    let least = to_the_end(&undisturbed, &["import", "tree"]);
    fs::rename(undisturbed.path("tree"), scratch.path("tree")).unwrap();
    drop(undisturbed);

    size.init(scratch);
    let mut sent = 0;
    for round in 0..size.kills {
        // Each sends its share, and a bit more or less; and leaves half of the rest to those after it.
        let share = unique / (size.kills + 1);
        let share = (share / 2 + numbers.below(share)).min(unique.saturating_sub(sent) / 2);
        let bytes = killed_at(scratch, &["import", "tree"], share);
        let bytes = bytes.unwrap_or_else(|| panic!("round {round}: it was done after less than {share} bytes"));
        sent += bytes;
    }
    sent += to_the_end(scratch, &["import", "tree"]);
    let thousandths = |bytes: u64| bytes * 1_000 / unique;
    eprintln!(
        "{sent} bytes sent for {unique}: {} of a thousand, {} undisturbed",
        thousandths(sent),
        thousandths(least)
    );
    let each = commits * 80 * size.block_bytes + 40 * size.block_bytes;
    assert!(sent <= least + size.kills * each, "{sent} bytes were sent, {least} undisturbed");
    if size.is_full {
        assert!(thousandths(sent) <= 1_050, "{sent} bytes were sent for {unique}");
    }
    check_is_clean(scratch, "after the last run");
    scratch.succeeds(["export", "/tree", "out"]);
    assert_eq!(compare_trees(&scratch.path("tree"), &scratch.path("out/tree")), Vec::<String>::new());
    let list = text(&scratch.succeeds(["ls", "-R"]));
    assert!(!list.contains("unfinished"), "{list}");
}

/// Blocks of the default size for the full size; smaller ones, and so shorter ways between commits, for the quick one.
#[derive(Clone, Copy)]
struct Size {
    is_full: bool,
    bytes: u64,
    kills: u64,
    block_bytes: u64,
}

impl Size {
    fn new() -> Self {
        let quick = Self { is_full: false, bytes: 32 << 20, kills: 4, block_bytes: 16 << 10 };
        scaled(quick, Self { is_full: true, bytes: 4 << 30, kills: 10, block_bytes: 128 << 10 })
    }

    fn init(self, scratch: &Scratch) {
        let size = self.block_bytes.to_string();
        scratch.succeeds(["init", "--no-recovery", "--kdf-time", "1", "--block-size", &size]);
    }
}

#[test]
fn one_very_large_file_is_sent_once_however_often_it_is_killed() {
    let (size, scratch, mut numbers) = (Size::new(), Scratch::new(), Numbers::new(seed()));
    write_random(&scratch.path("tree/large"), &mut numbers, size.bytes);
    is_sent_once(size, size.bytes, 1, &mut numbers, &scratch);
}

#[test]
fn files_of_all_sizes_are_sent_once_however_often_it_is_killed() {
    let (size, scratch, mut numbers) = (Size::new(), Scratch::new(), Numbers::new(seed()));
    let mut unique = 0;
    for number in 0_u64.. {
        if unique >= size.bytes {
            break;
        }
        let most = size.bytes / [4_000, 400, 100, 10][usize::try_from(number % 4).unwrap()];
        let bytes = most / 2 + numbers.below(most / 2);
        write_random(&scratch.path(format!("tree/{}/{number}", number % 7)), &mut numbers, bytes);
        unique += bytes;
    }
    // Files that are not large are committed with what came before them.
    is_sent_once(size, unique, 3, &mut numbers, &scratch);
}

/// Without deduplication nothing finds what is there: where it stopped is all that counts.
#[test]
fn a_large_file_goes_on_where_it_stopped_without_deduplication_too() {
    let (scratch, mut numbers) = (Scratch::new(), Numbers::new(seed()));
    let init = ["init", "--no-recovery", "--kdf-time", "1", "--block-size", "16KiB", "--dedup", "off"];
    scratch.succeeds(init);
    let unique = 24 << 20;
    write_random(&scratch.path("tree/large"), &mut numbers, unique);
    let first = killed_at(&scratch, &["import", "tree"], unique / 2).expect("there is more to send");
    let list = text(&scratch.succeeds(["ls", "/tree"]));
    assert!(list.starts_with(".large.") && list.ends_with(".unfinished\n"), "{list}");
    let rest = to_the_end(&scratch, &["import", "tree"]);
    assert!(first + rest <= unique * 6 / 5, "{first} and {rest} bytes were sent for {unique}");
    // A source that changed begins anew, and what was left of the state before goes.
    killed_at(&scratch, &["import", "tree", "--to", "/other"], unique / 2).expect("there is more to send");
    write_random(&scratch.path("tree/large"), &mut numbers, unique);
    scratch.succeeds(["import", "tree", "--to", "/other"]);
    assert_eq!(scratch.succeeds(["ls", "/other/tree"]), b"large\n");
    assert!(scratch.succeeds(["cat", "/other/tree/large"]) == fs::read(scratch.path("tree/large")).unwrap());
    check_is_clean(&scratch, "after all");
}

/// The name under which an import that was killed half way has left what it stored.
fn left_unfinished(scratch: &Scratch) -> String {
    scratch.succeeds(["init", "--no-recovery", "--kdf-time", "1", "--block-size", "16KiB"]);
    write_random(&scratch.path("tree/large"), &mut Numbers::new(seed()), 8 << 20);
    killed_at(scratch, &["import", "tree"], 4 << 20).expect("there is more to send");
    let list = text(&scratch.succeeds(["ls", "/tree"]));
    assert!(list.starts_with(".large.") && list.ends_with(".unfinished\n"), "{list}");
    list.trim().to_owned()
}

#[test]
fn a_file_that_is_named_like_an_unfinished_one_is_stored_and_stays() {
    let (scratch, mut numbers) = (Scratch::new(), Numbers::new(seed()));
    scratch.succeeds(["init", "--no-recovery", "--kdf-time", "1", "--block-size", "16KiB"]);
    let large = scratch.path("tree/large");
    write_random(&large, &mut numbers, 4 << 20);
    // The very name that it is to have on the way, as well.
    let state = large.metadata().unwrap();
    let nanos = |seconds: i64, nanos: i64| seconds * 1_000_000_000 + nanos;
    let (modified, changed) = (nanos(state.mtime(), state.mtime_nsec()), nanos(state.ctime(), state.ctime_nsec()));
    let exact = format!(".large.{:x}-{modified:x}-{changed:x}-{:x}.unfinished", state.len(), state.ino() ^ state.dev());
    let names = [&exact, ".large.1-2-3-4.unfinished", ".large.1-2-3-4-1.unfinished"];
    for name in names {
        fs::write(scratch.path("tree").join(name), name).unwrap();
    }
    for round in 0..3 {
        let report = scratch.succeeds(["import", "tree", "--json"]);
        let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
        assert_eq!(report["files"], if round == 0 { 4 } else { 1 });
        scratch.succeeds(["export", "/tree", "out"]);
        assert_eq!(compare_trees(&scratch.path("tree"), &scratch.path("out/tree")), Vec::<String>::new(), "{round}");
        fs::remove_dir_all(scratch.path("out")).unwrap();
        write_random(&large, &mut numbers, 4 << 20);
    }
    check_is_clean(&scratch, "after all");
}

#[test]
fn a_file_takes_the_place_of_an_unfinished_one_of_its_name() {
    let scratch = Scratch::new();
    let name = left_unfinished(&scratch);
    // A copy of an unfinished file is a file like others.
    let copy = "/tree/.large.1-2-3-4.unfinished";
    scratch.succeeds(["cp", &format!("/tree/{name}"), copy]);
    fs::write(scratch.path("tree").join(&name), "somebody's").unwrap();
    for round in 0..2 {
        scratch.succeeds(["import", "tree"]);
        assert_eq!(scratch.succeeds(["cat", &format!("/tree/{name}")]), b"somebody's", "round {round}");
        assert!(scratch.succeeds(["cat", "/tree/large"]) == fs::read(scratch.path("tree/large")).unwrap());
        assert_eq!(text(&scratch.succeeds(["ls", "/tree"])).lines().count(), 3);
        write_random(&scratch.path("tree/large"), &mut Numbers::new(seed() ^ 1), 8 << 20);
    }
    scratch.succeeds(["cat", copy]);
    check_is_clean(&scratch, "after all");
}

#[test]
fn what_a_killed_import_left_is_a_file_like_others_once_it_was_exported() {
    let scratch = Scratch::new();
    let name = left_unfinished(&scratch);
    let said = scratch.run(["export", "/tree", "out"]);
    assert!(said.status.success() && !text(&said.stderr).contains("attribute"), "{}", text(&said.stderr));
    fs::copy(scratch.path("tree/large"), scratch.path("out/tree/large")).unwrap();
    scratch.succeeds(["import", "out/tree", "--to", "/again"]);
    scratch.succeeds(["export", "/again/tree", "back"]);
    assert_eq!(compare_trees(&scratch.path("out/tree"), &scratch.path("back/tree")), Vec::<String>::new());
    assert!(scratch.path("back/tree").join(name).exists());
}

/// Lets a stopped import go on, which must end well.
fn goes_on(mut import: Child) {
    rustix::process::kill_process(Pid::from_child(&import), Signal::CONT).unwrap();
    let mut said = String::new();
    std::io::Read::read_to_string(&mut import.stderr.take().unwrap(), &mut said).unwrap();
    assert!(import.wait().unwrap().success(), "{said}");
}

#[test]
fn an_import_that_slept_while_another_stored_the_same_large_file_ends_well() {
    for (versions, kept) in [("0", 1), ("3", 2)] {
        let (scratch, mut numbers) = (Scratch::new(), Numbers::new(seed()));
        let init = ["init", "--no-recovery", "--kdf-time", "1", "--block-size", "16KiB", "--versions", versions];
        scratch.succeeds(init);
        write_random(&scratch.path("tree/large"), &mut numbers, 8 << 20);
        let sleeper = stopped_at(&scratch, &["import", "tree"], 4 << 20).expect("there is more to send");
        scratch.succeeds(["import", "tree"]);
        goes_on(sleeper);
        // The source is another one by the time that it wakes.
        write_random(&scratch.path("tree/large"), &mut numbers, 8 << 20);
        let sleeper = stopped_at(&scratch, &["import", "tree"], 4 << 20).expect("there is more to send");
        let other = scratch.path("tree/other");
        write_random(&other, &mut numbers, 8 << 20);
        fs::rename(other, scratch.path("tree/large")).unwrap();
        scratch.succeeds(["import", "tree"]);
        goes_on(sleeper);
        assert_eq!(scratch.succeeds(["ls", "/tree"]), b"large\n");
        assert!(scratch.succeeds(["cat", "/tree/large"]) == fs::read(scratch.path("tree/large")).unwrap());
        let history = text(&scratch.succeeds(["history", "/tree/large"]));
        assert_eq!(history.lines().count(), kept, "{history}");
        check_is_clean(&scratch, "after all");
    }
}

#[test]
fn imports_of_one_large_file_at_once_all_end_well() {
    let (scratch, mut numbers) = (Scratch::new(), Numbers::new(seed()));
    scratch.succeeds(["init", "--no-recovery", "--kdf-time", "1", "--block-size", "16KiB"]);
    for _ in 0..scaled(2, 20) {
        write_random(&scratch.path("tree/large"), &mut numbers, 8 << 20);
        let imports = [(); 3].map(|()| {
            scratch.command().args(["import", "tree"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
        });
        for import in imports {
            let output = import.wait_with_output().unwrap();
            assert!(output.status.success(), "{}", text(&output.stderr));
        }
        assert_eq!(scratch.succeeds(["ls", "/tree"]), b"large\n");
        assert!(scratch.succeeds(["cat", "/tree/large"]) == fs::read(scratch.path("tree/large")).unwrap());
    }
    check_is_clean(&scratch, "after all");
}
