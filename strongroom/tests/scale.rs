//! Directories, trees, holes and paths larger than anyone's, on a real folder: all of it works, checks clean, and takes no
//! more memory than small ones do.
//!
//! `STRONGROOM_ACCEPTANCE=full` runs the full size, and `--nocapture` shows what time and memory each part took:
//! of the heap, and on Linux of all that is resident, with the allocator that the program has. Both are judged.
//!
//! It stands alone because it counts what is allocated, which is a matter of the whole process: its allocator is that of the
//! crate, and each test runs in a process of its own, so that they need not wait for each other.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)] // a test may

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::io::{BufRead as _, BufReader, Cursor, Read};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use mimalloc::MiMalloc;
use strongroom::blocking::{File, FileSystem, Repository};
use strongroom::check::CheckOptions;
use strongroom::fs::{Attributes, Error, Kind, OpenOptions};
use strongroom::{CloneOptions, CreateOptions, Credentials, KdfParameters, Tuning};
use strongroom_conformance::storage::sample_bytes;
use tempfile::TempDir;

/// The program's allocator, with what is allocated counted: what the system says of a process is also the allocator's habits.
struct Heap {
    bytes: AtomicUsize,
    peak: AtomicUsize,
}

#[global_allocator]
static HEAP: Heap = Heap { bytes: AtomicUsize::new(0), peak: AtomicUsize::new(0) };

impl Heap {
    fn change(&self, old_bytes: usize, new_bytes: usize) {
        let before = self.bytes.fetch_add(new_bytes.wrapping_sub(old_bytes), Ordering::Relaxed);
        self.peak.fetch_max(before.wrapping_add(new_bytes).wrapping_sub(old_bytes), Ordering::Relaxed);
    }

    fn reset_peak(&self) {
        self.peak.store(self.bytes.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

#[expect(unsafe_code, reason = "every call is passed on as it came, to the same allocator")]
// SAFETY: all memory is that of `MiMalloc`, which keeps what `GlobalAlloc` promises.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.change(0, layout.size());
        // SAFETY: the caller's promises are those that are asked for.
        unsafe { MiMalloc.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        self.change(0, layout.size());
        // SAFETY: as in `alloc`.
        unsafe { MiMalloc.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        self.change(layout.size(), 0);
        // SAFETY: as in `alloc`.
        unsafe { MiMalloc.dealloc(pointer, layout) }
    }

    // `realloc` is the one of the trait: new, copied, old freed, so that both count while they are there.
}

/// What a repository may take beyond the key derivation, whatever its size.
const MEMORY_BYTES_MAX: usize = 96 << 20;
/// What storing one content may take, whatever its length.
const CONTENT_BYTES_MAX: usize = 24 << 20;
/// How many changes one transaction makes.
const TOGETHER: u64 = 1_000;

fn size(full: u64, brief: u64) -> u64 {
    if std::env::var_os("STRONGROOM_ACCEPTANCE").is_some_and(|size| size == "full") { full } else { brief }
}

const ALONE: &str = "STRONGROOM_TEST_IN_A_PROCESS_OF_ITS_OWN";

/// Whether this process runs the test of this name and no other. If not, one that does has run, and has passed.
fn is_alone(test: &str) -> bool {
    if std::env::var_os(ALONE).is_some_and(|name| name == test) {
        return true;
    }
    let mut run = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(ALONE, test)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut has_passed = false;
    // Told as it comes: at full size, a part takes minutes.
    for line in BufReader::new(run.stdout.take().unwrap()).lines().map(Result::unwrap) {
        has_passed |= line.contains("1 passed");
        println!("{line}");
    }
    let status = run.wait().unwrap();
    assert!(status.success(), "{test}, in a process of its own: {status}");
    assert!(has_passed, "no test is called {test}");
    false
}

/// A repository, and what memory was in use when it stood.
struct Bed {
    repository: Repository,
    name: &'static str,
    /// Bytes of the start.
    before: usize,
    /// The most bytes of any part that is over.
    highest: Cell<usize>,
    /// The same of what is resident, where the system says it.
    resident_before: Option<usize>,
    resident_highest: Cell<Option<usize>>,
    since: Cell<Instant>,
    _folder: TempDir,
}

/// For people to read: nothing depends on it.
#[expect(clippy::disallowed_methods, reason = "how long a part took is told, and not judged")]
fn now() -> Instant {
    Instant::now()
}

fn mebibytes(bytes: usize) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Bytes that the system says of this process, on Linux: pages of the program too, and what the allocator keeps of what was
/// freed.
fn resident(what: &str) -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(':'))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<usize>().ok()? << 10)
}

/// From here on the most that is resident is counted anew; where that cannot be, the figure is that of the whole process.
fn reset_resident_peak() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

impl Bed {
    fn new(name: &'static str) -> Self {
        Self::with(name, Tuning::default())
    }

    fn with(name: &'static str, tuning: Tuning) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = CreateOptions::new(Credentials::password("test"))
            .kdf(KdfParameters::MINIMUM)
            .without_trusted_state()
            .tuning(tuning);
        let repository = Repository::create(&*format!("file:{}", folder.path().join("r").display()), options).unwrap();
        HEAP.reset_peak();
        reset_resident_peak();
        Self {
            repository,
            name,
            before: HEAP.bytes.load(Ordering::Relaxed),
            highest: Cell::default(),
            resident_before: resident("VmRSS"),
            resident_highest: Cell::default(),
            since: Cell::new(now()),
            _folder: folder,
        }
    }

    fn fs(&self) -> FileSystem {
        self.repository.fs()
    }

    /// Nothing that a check of structure finds, and so many files and directories.
    fn assert_holds(&self, files: u64, directories: u64) {
        let report = self.repository.check(CheckOptions { data: false }, |finding| panic!("{finding:?}")).unwrap();
        assert_eq!((report.files, report.directories), (files, directories + 1));
    }

    /// Applies something to each number in order, many in one transaction.
    fn each(&self, numbers: impl Iterator<Item = u64>, mut change: impl FnMut(&mut Changes, u64) -> Result<(), Error>) {
        let mut numbers = numbers.peekable();
        while numbers.peek().is_some() {
            let together: Vec<u64> = numbers.by_ref().take(usize::try_from(TOGETHER).unwrap()).collect();
            self.fs().transact(|changes| together.iter().try_for_each(|&number| change(changes, number))).unwrap();
        }
    }

    /// Tells what a part took, that is over now.
    fn part(&self, part: &str) {
        let peak = HEAP.peak.load(Ordering::Relaxed).saturating_sub(self.before);
        let seconds = self.since.replace(now()).elapsed().as_secs_f64();
        let resident = resident("VmHWM").zip(self.resident_before).map(|(peak, before)| peak.saturating_sub(before));
        let shown = resident.map_or_else(String::new, |bytes| format!(", resident {:.1} MiB", mebibytes(bytes)));
        println!("{}, {part}: {seconds:.1} s, {:.1} MiB{shown}", self.name, mebibytes(peak));
        self.highest.set(self.highest.get().max(peak));
        self.resident_highest.set(self.resident_highest.get().max(resident));
        HEAP.reset_peak();
        reset_resident_peak();
    }

    /// It closes without an error, and took no more memory than any.
    fn end(self) {
        self.repository.close().unwrap();
        self.part("close");
        let highest = self.highest.get();
        if let Some(resident) = self.resident_highest.get() {
            println!("{}: at most {:.1} MiB resident beyond the start", self.name, mebibytes(resident));
            assert!(resident <= MEMORY_BYTES_MAX, "{}: {resident} bytes resident beyond the start", self.name);
        }
        assert!(highest <= MEMORY_BYTES_MAX, "{}: {highest} bytes beyond the start", self.name);
    }
}

type Changes = strongroom::blocking::FsTransaction;

fn content(number: u64) -> Vec<u8> {
    let words = 1 + number % 40;
    (0..words).flat_map(|word| (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ word).to_le_bytes()).collect()
}

/// So many bytes that nothing shrinks and that no chunk has twice: made as they are read, and the same each time.
struct Stream {
    left: u64,
    /// Of one noise, which each time differs a little in every page.
    piece: Cursor<Vec<u8>>,
    pieces: u64,
}

impl Stream {
    fn new(bytes: u64) -> Self {
        Self { left: bytes, piece: Cursor::new(sample_bytes(bytes, 1 << 20).to_vec()), pieces: 0 }
    }
}

impl Read for Stream {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        if self.piece.position() == self.piece.get_ref().len() as u64 {
            self.pieces += 1;
            for page in self.piece.get_mut().chunks_mut(4096) {
                page[..8].copy_from_slice(&self.pieces.to_le_bytes());
            }
            self.piece.set_position(0);
        }
        let length = self.piece.by_ref().take(self.left).read(out)?;
        self.left -= length as u64;
        Ok(length)
    }
}

/// The names of a directory, one by one.
fn for_each_name(fs: &FileSystem, path: &str, mut see: impl FnMut(&str, Kind)) -> u64 {
    let mut count = 0;
    for entry in fs.stream_dir(path).unwrap() {
        let entry = entry.unwrap();
        see(entry.name_str().unwrap(), entry.kind);
        count += 1;
    }
    count
}

fn read_all_at(file: &File, offset: u64, out: &mut [u8]) {
    let mut filled = 0;
    while filled < out.len() {
        let count = file.read_at(offset + filled as u64, &mut out[filled..]).unwrap();
        assert!(count > 0, "the file ends at {}", offset + filled as u64);
        filled += count;
    }
}

#[test]
fn a_directory_of_a_million_names_is_made_listed_renamed_and_emptied() {
    if !is_alone("a_directory_of_a_million_names_is_made_listed_renamed_and_emptied") {
        return;
    }
    let bed = Bed::new("directory");
    let (fs, count) = (bed.fs(), size(1_000_000, 50_000));
    fs.create_dir("/d").unwrap();
    // In an order that no name sorts in.
    let scattered = |index: u64| index * 7_919 % count;
    bed.each((0..count).map(scattered), |changes, number| changes.write(format!("/d/{number:07}"), number.to_string()));
    bed.part("create");
    bed.assert_holds(count, 1);
    bed.part("check");
    let mut next = 0;
    let listed = for_each_name(&fs, "/d", |name, kind| {
        assert_eq!((name, kind), (&*format!("{next:07}"), Kind::File));
        next += 1;
    });
    assert_eq!(listed, count);
    bed.part("list");
    for index in 0..1_000 {
        let number = scattered(index * 31 % count);
        let path = format!("/d/{number:07}");
        assert_eq!(fs.metadata(&path).unwrap().size, number.to_string().len() as u64);
        assert_eq!(fs.read(&path).unwrap(), number.to_string().as_bytes());
    }
    assert!(!fs.exists(format!("/d/{count:07}")).unwrap());
    bed.part("stat and read 1,000");

    bed.each((0..count).step_by(50), |changes, number| {
        changes.rename(format!("/d/{number:07}"), format!("/d/r{number:07}"))
    });
    fs.rename("/d", "/e").unwrap();
    assert_eq!(fs.read("/e/r0000050").unwrap(), b"50");
    assert!(!fs.exists("/e/0000050").unwrap());
    bed.part("rename one in 50, and the directory");
    bed.each((0..count).filter(|number| number % 50 != 0 && number % 2 == 0), |changes, number| {
        changes.remove_file(format!("/e/{number:07}"))
    });
    bed.part("remove half by name");
    let left = for_each_name(&fs, "/e", |_, _| {});
    assert_eq!(left, count / 2 + count / 50);
    bed.assert_holds(left, 1);
    bed.part("list and check the rest");
    fs.remove_all("/e").unwrap();
    bed.part("remove the rest at once");
    bed.assert_holds(0, 0);
    bed.end();
}

#[test]
fn a_tree_of_a_million_small_files_is_made_walked_moved_and_removed() {
    if !is_alone("a_tree_of_a_million_small_files_is_made_walked_moved_and_removed") {
        return;
    }
    let bed = Bed::new("tree");
    let (fs, count) = (bed.fs(), size(1_000_000, 50_000));
    let directory = |number: u64| format!("/t/{}/{}", number / 10_000, number / 100 % 100);
    bed.each(0..count, |changes, number| {
        if number % 100 == 0 {
            changes.create_dir_all(directory(number))?;
        }
        changes.write(format!("{}/{number}", directory(number)), content(number))
    });
    bed.part("create");
    let (middle, leaves) = (count / 10_000, count / 100);
    bed.assert_holds(count, 1 + middle + leaves);
    bed.part("check");
    let mut files = 0;
    for branch in 0..middle {
        for leaf in 0..100 {
            files += for_each_name(&fs, &format!("/t/{branch}/{leaf}"), |_, kind| assert_eq!(kind, Kind::File));
        }
    }
    assert_eq!(files, count);
    let usage = fs.usage("/t").unwrap();
    assert_eq!(usage.files, count);
    bed.part("list all, and sum up");
    for number in (0..count).step_by(97).take(2_000) {
        let path = format!("{}/{number}", directory(number));
        assert_eq!(fs.metadata(&path).unwrap().size, content(number).len() as u64);
        assert_eq!(fs.read(&path).unwrap(), content(number));
    }
    bed.part("stat and read 2,000");
    fs.rename("/t/1", "/moved").unwrap();
    assert_eq!(fs.read("/moved/23/12345").unwrap(), content(12_345));
    bed.part("rename a directory of 10,000");
    fs.remove_all("/t/0").unwrap();
    bed.part("remove 10,000");
    bed.assert_holds(count - 10_000, middle + leaves - 100);
    fs.remove_all("/t").unwrap();
    bed.part("check, and remove the rest");
    bed.assert_holds(10_000, 101);
    assert_eq!(fs.read("/moved/99/19999").unwrap(), content(19_999));
    fs.remove_all("/moved").unwrap();
    bed.assert_holds(0, 0);
    bed.end();
}

#[test]
fn a_sparse_file_of_64_gib_holds_ten_thousand_islands() {
    if !is_alone("a_sparse_file_of_64_gib_holds_ten_thousand_islands") {
        return;
    }
    const FILE_BYTES: u64 = 64 << 30;
    let bed = Bed::new("sparse");
    // As many at any size: so large a file is what it is about.
    let (fs, count) = (bed.fs(), 10_000);
    let spacing = FILE_BYTES / count;
    // Off the ends of pages, blocks and chunks, and each with a length of its own.
    let offset = |number: u64| number * spacing + number * 37 % 5_000;
    let file = fs.open_file_with("/sparse", OpenOptions::new().read(true).write(true).create(true)).unwrap();
    file.set_len(FILE_BYTES).unwrap();
    for index in 0..count {
        let number = index * 7_919 % count;
        file.write_at(offset(number), &content(number)).unwrap();
    }
    file.close().unwrap();
    bed.part("write");
    bed.assert_holds(1, 0);
    bed.part("check");
    assert_eq!(fs.metadata("/sparse").unwrap().size, FILE_BYTES);

    fs.rename("/sparse", "/renamed").unwrap();
    let islands = |end: u64| {
        let file = fs.open_file("/renamed").unwrap();
        let (mut at, mut found) = (0, 0);
        while let Some(data) = file.seek_data(at).unwrap() {
            let expected = content(found);
            assert!(data <= offset(found), "island {found} begins before its data");
            at = file.seek_hole(data).unwrap().unwrap();
            assert!(at >= offset(found) + expected.len() as u64, "island {found} ends after its data");
            assert!(at - data < 64 << 10, "island {found} is about as large as its data");
            let mut out = vec![1; usize::try_from(at - data).unwrap()];
            read_all_at(&file, data, &mut out);
            let begin = usize::try_from(offset(found) - data).unwrap();
            assert_eq!(out[begin..begin + expected.len()], expected);
            assert!(out[..begin].iter().chain(&out[begin + expected.len()..]).all(|&byte| byte == 0));
            found += 1;
        }
        assert_eq!(file.len().unwrap(), end);
        found
    };
    assert_eq!(islands(FILE_BYTES), count);
    bed.part("find and read the islands");
    fs.copy("/renamed", "/copy").unwrap();
    fs.punch_hole("/copy", 0, FILE_BYTES).unwrap();
    assert_eq!(fs.open_file("/copy").unwrap().seek_data(0).unwrap(), None);
    let half = spacing * (count / 2);
    fs.set_len("/renamed", half).unwrap();
    assert_eq!(islands(half), count / 2);
    bed.part("copy, punch, truncate");
    bed.assert_holds(2, 0);
    fs.remove_file("/renamed").unwrap();
    fs.remove_file("/copy").unwrap();
    bed.assert_holds(0, 0);
    bed.end();
}

#[test]
fn bytes_scattered_over_a_file_are_written_back_in_parts() {
    if !is_alone("bytes_scattered_over_a_file_are_written_back_in_parts") {
        return;
    }
    const FILE_BYTES: u64 = 128 << 20;
    // Less than a chunk, so that what lies between is cut anew with them; and all of them gather.
    const SPACING: u64 = 16 << 10;
    let bed = Bed::new("scattered");
    let fs = bed.fs();
    let file = fs.open_file_with("/f", OpenOptions::new().read(true).write(true).create(true)).unwrap();
    file.set_len(FILE_BYTES).unwrap();
    for offset in (0..FILE_BYTES).step_by(SPACING as usize) {
        file.write_at(offset, &[1]).unwrap();
    }
    bed.part("write");
    file.close().unwrap();
    bed.part("write back");
    let highest = bed.highest.get();
    assert!(highest <= CONTENT_BYTES_MAX, "{highest} bytes beyond the start");
    let file = fs.open_file("/f").unwrap();
    let (mut out, mut expected) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    expected.iter_mut().step_by(SPACING as usize).for_each(|byte| *byte = 1);
    for offset in (0..FILE_BYTES).step_by(out.len()) {
        file.read_exact_at(offset, &mut out).unwrap();
        assert!(out == expected, "in the MiB at {offset}");
    }
    bed.part("read");
    bed.end();
}

type Store = dyn Fn(&mut Changes, Stream) -> Result<u64, Error>;

/// The most memory that storing a content in one transaction takes; it comes out again as it went in.
fn peak_of_streaming(name: &'static str, bytes: u64, store: &Store) -> usize {
    // The medium may be fast or slow: what is under way to it is much the same then.
    let bed = Bed::with(name, Tuning { in_flight_bytes_max: 4 << 20, ..Tuning::default() });
    let fs = bed.fs();
    let length = fs.transact(|changes| store(changes, Stream::new(bytes))).unwrap();
    bed.part("store");
    let peak = bed.highest.get();
    assert_eq!((length, fs.metadata("/f").unwrap().size), (bytes, bytes));
    let (file, mut expected) = (fs.open_file("/f").unwrap(), Stream::new(bytes));
    let (mut out, mut piece) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    for offset in (0..bytes).step_by(out.len()) {
        file.read_exact_at(offset, &mut out).unwrap();
        expected.read_exact(&mut piece).unwrap();
        assert!(out == piece, "in the MiB at {offset}");
    }
    drop(file);
    bed.part("read");
    bed.end();
    peak
}

#[test]
fn a_content_streamed_into_a_transaction_takes_no_more_memory_than_any_may_whatever_its_length() {
    if !is_alone("a_content_streamed_into_a_transaction_takes_no_more_memory_than_any_may_whatever_its_length") {
        return;
    }
    let create =
        |changes: &mut Changes, mut stream: Stream| changes.create_file_from("/f", Attributes::file(), &mut stream);
    // Over a file that is there, and piece by piece.
    let write = |changes: &mut Changes, mut stream: Stream| {
        changes.write("/f", "before")?;
        let mut writer = changes.write_file("/f", Attributes::file())?;
        let mut piece = vec![0; 100_000];
        loop {
            match stream.read(&mut piece).map_err(|error| Error::Source(error.into()))? {
                0 => return writer.finish(),
                length => writer.write(&piece[..length])?,
            }
        }
    };
    let ways: [(&str, &Store); 2] = [("create_file_from", &create), ("write_file", &write)];
    for (name, store) in ways {
        // How much of a short content is in memory at once is chance; a long one has time to fill all that may be.
        let peaks = [16_u64, 128].map(|mebibytes| peak_of_streaming(name, mebibytes << 20, store));
        assert!(peaks.iter().all(|&peak| peak <= CONTENT_BYTES_MAX), "{name}: {peaks:?} bytes for 16 and 128 MiB");
    }
}

#[test]
fn a_path_of_two_hundred_levels_is_made_moved_and_removed() {
    if !is_alone("a_path_of_two_hundred_levels_is_made_moved_and_removed") {
        return;
    }
    const LEVELS: usize = 200;
    let bed = Bed::new("deep");
    let fs = bed.fs();
    let paths: Vec<String> = (1..=LEVELS)
        .scan(String::new(), |path, level| {
            path.push_str(&format!("/level {level:03}"));
            Some(path.clone())
        })
        .collect();
    for path in &paths {
        fs.create_dir(path).unwrap();
        fs.write(format!("{path}/file"), path).unwrap();
    }
    bed.assert_holds(LEVELS as u64, LEVELS as u64);
    for path in &paths {
        assert_eq!(fs.read(format!("{path}/file")).unwrap(), path.as_bytes());
        let (directory, file) = (fs.metadata(path).unwrap(), fs.metadata(format!("{path}/file")).unwrap());
        assert_eq!((directory.kind, file.kind, file.size), (Kind::Directory, Kind::File, path.len() as u64));
        assert!(!fs.exists(format!("{path}/nothing")).unwrap());
        let names = fs.read_dir(path).unwrap().len();
        assert_eq!(names, if path == paths.last().unwrap() { 1 } else { 2 });
    }
    bed.part("create, check, list, stat and read");
    // The lower half goes to the top, and the upper half below it.
    let (upper, lower) = (&paths[0], &paths[LEVELS / 2]);
    fs.rename(lower, "/lower").unwrap();
    let bottom = format!("/lower{}", &paths[LEVELS - 1][lower.len()..]);
    let refused = fs.rename("/lower", format!("{bottom}/under itself"));
    assert!(matches!(refused, Err(Error::IntoItself { .. })), "{refused:?}");
    fs.rename(upper, format!("{bottom}/upper")).unwrap();
    let deepest = format!("{bottom}/upper{}/file", &paths[LEVELS / 2 - 1][upper.len()..]);
    assert_eq!(fs.read(&deepest).unwrap(), paths[LEVELS / 2 - 1].as_bytes());
    assert_eq!(fs.metadata(&deepest).unwrap().size, paths[LEVELS / 2 - 1].len() as u64);
    fs.copy_all("/lower", "/copy").unwrap();
    bed.assert_holds(2 * LEVELS as u64, 2 * LEVELS as u64);
    fs.remove_all("/lower").unwrap();
    assert_eq!(fs.read(deepest.replacen("/lower", "/copy", 1)).unwrap(), paths[LEVELS / 2 - 1].as_bytes());
    bed.part("move and copy");
    fs.remove_all("/copy").unwrap();
    bed.assert_holds(0, 0);
    bed.end();
}

/// What it takes to bring a clone up to date after ten small changes, of a repository with so many bytes in small blocks.
fn peak_of_an_update(name: &str, bytes: u64) -> usize {
    let registry = strongroom::registry::default();
    let (home, away) = (format!("mem://{name}-home"), format!("mem://{name}-away"));
    let password = || Credentials::password("test");
    let options = CreateOptions::new(password())
        .kdf(KdfParameters::MINIMUM)
        .without_trusted_state()
        .block_bytes(4096)
        .registry(registry.clone());
    let repository = Repository::create(&*home, options).unwrap();
    let store = |changes: &mut Changes| changes.create_file_from("/f", Attributes::file(), &mut Stream::new(bytes));
    repository.fs().transact(store).unwrap();
    let mirror = || CloneOptions::default().prune(true).without_trusted_state().registry(registry.clone());
    // Once more, so that the last checkpoint is not the one that has written every node.
    for number in 0..2 {
        repository.fs().write(format!("/first {number}"), content(number)).unwrap();
        repository.clone_to(&*away, mirror()).unwrap();
    }
    for number in 0..10 {
        repository.fs().write(format!("/{number}"), content(number)).unwrap();
    }
    repository.close().unwrap();
    let options = strongroom::OpenOptions::new(password()).without_trusted_state().registry(registry.clone());
    let repository = Repository::open(&*home, options).unwrap();
    let before = HEAP.bytes.load(Ordering::Relaxed);
    HEAP.reset_peak();
    let cloned = repository.clone_to(&*away, mirror()).unwrap();
    let peak = HEAP.peak.load(Ordering::Relaxed).saturating_sub(before);
    assert!(cloned.blocks > bytes / 4096 && cloned.sent_blocks < 200, "{cloned:?}");
    repository.close().unwrap();
    peak
}

#[test]
fn a_clone_of_twice_as_many_blocks_is_brought_up_to_date_in_the_same_memory() {
    if !is_alone("a_clone_of_twice_as_many_blocks_is_brought_up_to_date_in_the_same_memory") {
        return;
    }
    let bytes = size(2 << 30, 64 << 20);
    let (one, two) = (peak_of_an_update("one", bytes), peak_of_an_update("two", 2 * bytes));
    println!("up to date: {:.2} MiB, of twice as many blocks {:.2} MiB", mebibytes(one), mebibytes(two));
    // Less than a byte for each block more.
    assert!(two <= one + usize::try_from(bytes / 4096).unwrap(), "{one} bytes, and {two} of twice as many blocks");
}
