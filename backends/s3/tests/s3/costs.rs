//! What is done in a bucket costs requests and bytes, and those cost money: the table of `docs/backends.md` is what a server counts.

use crate::common::{registry, uri_at};
use strongroom::blocking::Repository;
use strongroom::{CreateOptions, Credentials, KdfParameters, OpenOptions};
use strongroom_conformance::storage::sample_bytes;
use strongroom_core::storage::StorageUri;
use strongroom_s3_server::{Bill, Prices, Server, ServerOptions};

const TABLE: &str = include_str!("../../../../docs/backends.md");

struct Meter {
    server: Server,
    wrong: Vec<String>,
}

impl Meter {
    /// Counts what is done, and compares it with the row of that name: the table says no less, and not twice as much.
    fn counts<T>(&mut self, what: &str, work: impl FnOnce() -> T) -> T {
        self.server.take_bill();
        let done = work();
        let bill = self.server.take_bill();
        println!("{what}: {bill:?}");
        let (stated, dollars) = stated(what);
        for ((name, stated), (_, counted)) in stated.counts().into_iter().zip(bill.counts()) {
            // In the table they are rounded to kilobytes.
            let slack = if name.starts_with("bytes") { 4_000 } else { 2 };
            if counted > stated || stated > counted * 2 + slack {
                self.wrong.push(format!("{what}: the table says {stated} {name}, and it took {counted}"));
            }
        }
        let worth = [Prices::AWS.requests(&stated) * 1e6, Prices::AWS.traffic(&stated) * 1e6];
        if worth.map(|dollars| format!("{dollars:.2}")) != dollars.map(|dollars| format!("{dollars:.2}")) {
            self.wrong.push(format!("{what}: the table says {dollars:?} dollars, and its counts cost {worth:?}"));
        }
        done
    }
}

/// A row of the table: what it counts, and what it says that this costs.
fn stated(what: &str) -> (Bill, [f64; 2]) {
    Bill::stated(TABLE, what).unwrap_or_else(|| panic!("the table has no such row of {what:?}"))
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
