//! Clones into databases and buckets, and out of them.

use std::fs;

use crate::common::acceptance::{scaled, seed, text};
use crate::common::{DATABASES, Scratch, compare_trees, generate_tree};

/// A scratch folder, and the bucket's server, if there is one in this build.
struct Places {
    scratch: Scratch,
    #[cfg(feature = "s3")]
    bucket: crate::buckets::Bucket,
}

impl Places {
    fn new() -> Self {
        Self {
            scratch: Scratch::new(),
            #[cfg(feature = "s3")]
            bucket: crate::buckets::Bucket::new(strongroom_s3_server::ServerOptions::default()),
        }
    }

    /// The addresses of databases and buckets.
    fn all(&self) -> Vec<String> {
        #[allow(unused_mut)] // there is no more where `s3` is off
        let mut all: Vec<String> = DATABASES.map(|scheme| format!("{scheme}:{scheme}-place")).into();
        #[cfg(feature = "s3")]
        all.push(self.bucket.uri("bucket/place?"));
        all
    }

    fn command(&self, place: &str, arguments: &[&str]) -> std::process::Command {
        let mut command = self.scratch.command();
        #[cfg(feature = "s3")]
        crate::buckets::give_keys(&mut command);
        command.args(["-r", place]).args(arguments);
        command
    }

    fn run(&self, place: &str, arguments: &[&str]) -> Vec<u8> {
        let output = self.command(place, arguments).output().unwrap();
        assert!(output.status.success(), "{place} {arguments:?}: {}", text(&output.stderr));
        output.stdout
    }

    fn json(&self, place: &str, arguments: &[&str]) -> serde_json::Value {
        serde_json::from_slice(&self.run(place, arguments)).unwrap()
    }

    /// That a tree is there, and all that is there is sound.
    fn is_whole(&self, place: &str, tree: &str) {
        self.run(place, &["check", "--data"]);
        self.run(place, &["export", tree, "out"]);
        let out = self.scratch.path("out");
        assert_eq!(compare_trees(&self.scratch.path(tree), &out.join(tree)), Vec::<String>::new(), "{place}");
        fs::remove_dir_all(out).unwrap();
    }

    fn tree(&self, name: &str, seed: u64, bytes: u64) {
        generate_tree(&self.scratch.path(name), seed, bytes, bytes / 50_000);
    }
}

#[test]
fn a_mirror_that_many_runs_keep_is_as_small_as_its_source() {
    let places = Places::new();
    for mirror in places.all() {
        let source = format!("file:source-of-{}", mirror.split(':').next().unwrap());
        places.run(&source, &["init", "--no-recovery", "--kdf-time", "1", "--block-size", "64KiB"]);
        let _ = fs::remove_dir_all(places.scratch.path("tree"));
        places.tree("tree", seed(), 1 << 20);
        places.run(&source, &["import", "tree"]);
        places.run(&source, &["clone", &mirror]);
        for round in 0..scaled(3, 20) {
            places.tree("more", seed() ^ (round + 1) << 9, 1 << 20);
            places.run(&source, &["import", "more"]);
            let report = places.json(&source, &["clone", &mirror, "--prune", "--json"]);
            assert!(report["sent_blocks"].as_u64() < report["blocks"].as_u64(), "{mirror}: {report}");
            places.is_whole(&mirror, "more");
            places.run(&source, &["rm", "-r", "/more"]);
            places.run(&source, &["compact"]);
            fs::remove_dir_all(places.scratch.path("more")).unwrap();
        }
        places.run(&source, &["clone", &mirror, "--prune"]);
        let blocks = |place: &str| places.json(place, &["info", "--json"])["inside"]["blocks"].as_u64().unwrap();
        let (there, here) = (blocks(&mirror), blocks(&source));
        assert!(there <= here, "{mirror}: {there} blocks mirror {here}");
        places.is_whole(&mirror, "tree");
    }
}

#[test]
fn a_clone_that_is_taken_while_a_writer_works_is_whole() {
    let places = Places::new();
    places.tree("tree", seed(), 1 << 20);
    places.tree("more", seed() ^ 77, 6 << 20);
    // Where one process at a time is let in, nobody can write beside a clone.
    let is_served = |place: &String| place.starts_with("sqlite:") || place.starts_with("s3:");
    let out_of = places
        .all()
        .into_iter()
        .filter(is_served)
        .map(|place| (place.replace("place", "other"), "file:last".to_owned()));
    let into = places.all().into_iter().map(|place| ("file:first".to_owned(), place));
    for (number, (source, clone)) in into.chain(out_of).enumerate() {
        // Of each pair both are new.
        let (source, clone) =
            (source.replace("first", &format!("first-{number}")), clone.replace("last", &format!("last-{number}")));
        places.run(&source, &["init", "--no-recovery", "--kdf-time", "1"]);
        places.run(&source, &["import", "tree"]);
        let mut writer = places.command(&source, &["import", "more", "-q"]).spawn().unwrap();
        let mut taken = 0;
        while writer.try_wait().unwrap().is_none() || taken < 2 {
            places.run(&source, &["clone", &clone, "--prune"][..if taken % 2 == 0 { 3 } else { 2 }]);
            places.is_whole(&clone, "tree");
            taken += 1;
        }
        assert!(writer.wait().unwrap().success(), "{source}");
        places.run(&source, &["clone", &clone, "--prune"]);
        places.is_whole(&clone, "more");
    }
}
