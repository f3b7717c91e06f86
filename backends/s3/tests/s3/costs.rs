//! What is done in a bucket costs requests and bytes, and those cost money: the table of `docs/backends.md` is what a server counts.

use crate::common::{registry, uri_at};
use strongroom::blocking::Repository;
use strongroom::{CreateOptions, Credentials, KdfParameters, OpenOptions};
use strongroom_conformance::storage::sample_bytes;
use strongroom_core::storage::StorageUri;
use strongroom_s3_server::{Server, ServerOptions, Verb};

const TABLE: &str = include_str!("../../../../docs/backends.md");

/// What something took of a server, as a provider bills it.
#[derive(Debug, PartialEq, Eq)]
struct Bill {
    /// Puts and lists, which cost ten times as much as reads.
    writes: u64,
    reads: u64,
    received: u64,
    sent: u64,
}

struct Meter {
    server: Server,
    wrong: Vec<String>,
}

impl Meter {
    /// Counts what is done, and compares it with the row of that name: the table says no less, and not twice as much.
    fn counts<T>(&mut self, what: &str, work: impl FnOnce() -> T) -> T {
        self.server.take_seen();
        self.server.take_traffic();
        let done = work();
        let (seen, traffic) = (self.server.take_seen(), self.server.take_traffic());
        let count = |verbs: &[Verb]| seen.iter().filter(|seen| verbs.contains(&seen.verb)).count() as u64;
        let bill = Bill {
            writes: count(&[Verb::Put, Verb::List, Verb::Other]),
            reads: count(&[Verb::Get, Verb::Head]),
            received: traffic.received,
            sent: traffic.sent,
        };
        println!("{what}: {bill:?}, {} deletions", count(&[Verb::Delete]));
        let stated = stated(what);
        for (name, stated, counted) in [
            ("puts and lists", stated.writes, bill.writes),
            ("reads", stated.reads, bill.reads),
            // In the table they are rounded to kilobytes.
            ("bytes up", stated.received, bill.received),
            ("bytes down", stated.sent, bill.sent),
        ] {
            let slack = if name.starts_with("bytes") { 4_000 } else { 2 };
            if counted > stated || stated > counted * 2 + slack {
                self.wrong.push(format!("{what}: the table says {stated} {name}, and it took {counted}"));
            }
        }
        done
    }
}

/// A row of the table.
fn stated(what: &str) -> Bill {
    let row = TABLE.lines().find_map(|line| line.strip_prefix(&format!("| {what} |")));
    let row = row.unwrap_or_else(|| panic!("the table has no row of {what:?}"));
    let numbers: Vec<u64> = row.split('|').take(4).map(|cell| cell.trim().replace(',', "").parse().unwrap()).collect();
    Bill { writes: numbers[0], reads: numbers[1], received: numbers[2] * 1_000, sent: numbers[3] * 1_000 }
}

#[test]
fn the_table_of_costs_is_what_a_server_counts() {
    const BYTES: usize = 16 << 20;
    let server = Server::start(ServerOptions::default()).unwrap();
    let uri = uri_at(&server, "p", "");
    let mut meter = Meter { server, wrong: Vec::new() };

    let create = CreateOptions::new(Credentials::password("test")).kdf(KdfParameters::MINIMUM).without_trusted_state();
    let repository =
        meter.counts("create a repository", || Repository::create(uri.clone(), create.registry(registry())).unwrap());
    let content = sample_bytes(1, BYTES);
    meter.counts("store 16 MiB", || repository.fs().write("/large", &content).unwrap());
    meter.counts("store the same again", || repository.fs().write("/again", &content).unwrap());
    meter.counts("1,000 files of 1 KiB in one transaction", || {
        repository.fs().create_dir("/small").unwrap();
        let files = |changes: &mut strongroom::blocking::FsTransaction| {
            (0..1_000_u64)
                .try_for_each(|number| changes.write(format!("/small/{number}"), sample_bytes(number + 7, 1 << 10)))
        };
        repository.fs().transact(files).unwrap();
    });
    meter.counts("a small commit", || repository.kv().put("key", "value").unwrap());
    // So many that closing makes a checkpoint: what is opened then is read from nodes.
    (0..70_u64).for_each(|number| repository.kv().put(number.to_le_bytes(), "value").unwrap());
    meter.counts("close", || repository.close().unwrap());

    let repository = meter.counts("open", || open(&uri));
    meter.counts("read 4 KiB of a file", || {
        let file = repository.fs().open_file("/large").unwrap();
        file.read_exact_at(10_000_000, &mut [0; 4096]).unwrap();
    });
    meter.counts("list a folder of 1,000", || {
        assert_eq!(repository.fs().read_dir("/small").unwrap().len(), 1_000);
    });
    meter.counts("the first commit of a process", || repository.kv().put("key", "other").unwrap());
    let other = open(&uri);
    repository.kv().put("key", "third").unwrap();
    meter.counts("see the commit of another process", || other.refresh().unwrap());
    assert_eq!(other.kv().get("key").unwrap().as_deref(), Some(&b"third"[..]));
    drop(other);
    meter.counts("read 16 MiB", || {
        assert!(repository.fs().read("/large").unwrap() == content);
    });
    repository.close().unwrap();
    assert!(meter.wrong.is_empty(), "{}", meter.wrong.join("\n"));
}

fn open(uri: &StorageUri) -> Repository {
    let options = OpenOptions::new(Credentials::password("test")).without_trusted_state();
    Repository::open(uri.clone(), options.registry(registry())).unwrap()
}
