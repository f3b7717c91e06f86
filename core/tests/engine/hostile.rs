//! A storage operator who changes, withholds, swaps and replays: what is read is right, or a typed error, and check finds
//! whatever was changed of what is needed.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use futures_lite::future::block_on;
use strongroom_conformance::Dice;
use strongroom_conformance::crash::{CrashOptions, Fault};
use strongroom_core::crypto::Suite;
use strongroom_core::engine::{CheckOptions, ChunkNumber, Engine, View};
use strongroom_core::format::BlockId;
use strongroom_core::storage::{ErrorKind, Name};
use strongroom_core::{Error, Result};

use crate::races::hasty;
use crate::support::{Bed, TABLE, assert_clean, contents, get, put};

type Blobs = BTreeMap<Name, Bytes>;

/// What a repository holds.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Content {
    rows: BTreeMap<Vec<u8>, Vec<u8>>,
    chunks: BTreeMap<ChunkNumber, Bytes>,
}

/// A repository with everything in it: trees, packed, inline and spilled things, a checkpoint and a tail.
struct Victim {
    bed: Bed,
    content: Content,
    blobs: Blobs,
    /// The storage as it was at earlier times.
    earlier: Vec<Blobs>,
    commits: BTreeMap<u64, Name>,
}

fn typed(error: &Error) -> bool {
    matches!(
        error,
        Error::Damaged(_)
            | Error::Missing { .. }
            | Error::RolledBack { .. }
            | Error::Expired
            | Error::NotARepository
            | Error::NewerFormat { .. }
    )
}

async fn chunk(engine: &Engine, byte: u8, bytes: usize) -> (ChunkNumber, Bytes) {
    let payload: Bytes = (0..bytes).map(|place| byte ^ (place as u8)).collect();
    let mut transaction = engine.begin();
    let number = transaction.put_chunk(Some(engine.identity(&payload)), payload.clone()).await.unwrap();
    transaction.put(TABLE, &[0xff, byte], &number.0.to_le_bytes()).unwrap();
    transaction.commit().await.unwrap();
    (number, payload)
}

async fn spilled(engine: &Engine, first: u32) {
    let mut transaction = engine.begin();
    for number in first..first + 60 {
        transaction.put(TABLE, &number.to_be_bytes(), &[number as u8; 90]).unwrap();
    }
    transaction.commit().await.unwrap();
}

impl Victim {
    async fn new(seed: u64) -> Self {
        let options = CrashOptions { yields: false, ..CrashOptions::default() };
        let (mut bed, engine) = Bed::new(seed, 4096, Suite::Aes256Gcm, options).await;
        drop(engine);
        bed.tuning = hasty();
        let engine = bed.open().await.unwrap();
        let mut chunks = BTreeMap::new();
        // Before its epoch is claimed: a branch from here gives the same names to other blocks.
        let mut earlier = vec![bed.storage.snapshot_blobs()];
        put(&engine, b"first", b"1").await.unwrap();
        chunks.extend([chunk(&engine, 1, 9000).await, chunk(&engine, 2, 300).await]);
        spilled(&engine, 0).await;
        earlier.push(bed.storage.snapshot_blobs());
        engine.checkpoint().await.unwrap();
        put(&engine, b"second", b"2").await.unwrap();
        engine.checkpoint().await.unwrap();
        earlier.push(bed.storage.snapshot_blobs());
        put(&engine, b"third", b"3").await.unwrap();
        engine.checkpoint().await.unwrap();
        chunks.extend([chunk(&engine, 3, 7000).await, chunk(&engine, 4, 200).await]);
        earlier.push(bed.storage.snapshot_blobs());
        spilled(&engine, 100).await;
        put(&engine, b"last", b"4").await.unwrap();
        let content = Content { rows: contents(&engine.snapshot()).await.unwrap(), chunks };
        let blobs = bed.storage.snapshot_blobs();
        let commits = blobs
            .keys()
            .filter_map(|name| match BlockId::decode(&engine.keys().decrypt_name(*name.as_bytes())) {
                Some(BlockId::Commit { sequence, .. }) => Some((sequence, *name)),
                _ => None,
            })
            .collect();
        assert_clean(&engine).await;
        Self { bed, content, blobs, earlier, commits }
    }

    /// Opens what the operator presents, reads everything and checks it; answers whether anything was noticed. Fails where
    /// something is wrong and passes for right.
    async fn examine(&mut self, what: &str) -> bool {
        self.examine_against(what, &[]).await
    }

    /// As [`Victim::examine`], where older states may pass, because nothing trusted says that there was a newer one.
    async fn examine_against(&mut self, what: &str, allowed: &[BTreeMap<Vec<u8>, Vec<u8>>]) -> bool {
        let engine = match self.bed.open_with(|options| options.read_only = true).await {
            Ok(engine) => engine,
            Err(error) => {
                assert!(typed(&error), "{what}: {error}");
                return true;
            }
        };
        let mut noticed = false;
        let mut current = false;
        match contents(&engine.snapshot()).await {
            Ok(rows) => {
                current = rows == self.content.rows;
                assert!(current || allowed.contains(&rows), "{what}: wrong rows");
            }
            Err(error) => {
                assert!(typed(&error), "{what}: {error}");
                noticed = true;
            }
        }
        for (number, payload) in &self.content.chunks {
            match engine.snapshot().chunk(*number).await {
                Ok(read) => assert!(read == *payload, "{what}: wrong bytes"),
                Err(error) => {
                    assert!(typed(&error), "{what}: {error}");
                    noticed |= current;
                }
            }
        }
        let found = match engine.check(CheckOptions { data: true, references: None, ..CheckOptions::default() }).await {
            Ok(report) => !report.findings.is_empty(),
            Err(error) => {
                assert!(typed(&error), "{what}: {error}");
                true
            }
        };
        assert!(found || !noticed, "{what}: reading fails, and check finds nothing");
        found
    }

    fn restore(&self) {
        self.bed.storage.restore(self.blobs.clone());
    }

    /// The blobs without which something is missing.
    async fn needed(&mut self) -> BTreeSet<Name> {
        // The newest commit alone can be withheld without a trace.
        let newest = self.commits.values().copied().last();
        let mut needed: BTreeSet<Name> = newest.into_iter().collect();
        for name in self.blobs.keys().copied().filter(|name| Some(*name) != newest).collect::<Vec<_>>() {
            self.bed.storage.remove(name);
            if self.examine(&format!("{name} deleted")).await {
                needed.insert(name);
            }
            self.restore();
        }
        needed
    }
}

fn flipped(blob: &Bytes, bit: u64) -> Bytes {
    let mut bytes = blob.to_vec();
    bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
    bytes.into()
}

fn cases() -> u64 {
    std::env::var("STRONGROOM_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(40)
}

#[test]
fn every_change_of_a_needed_blob_is_found_and_none_gives_wrong_bytes() {
    block_on(async {
        let mut victim = Victim::new(1).await;
        let needed = victim.needed().await;
        // Headers, the hint, every commit from the checkpoint on, trees, chunks and spills.
        assert!(needed.len() >= 12, "{} of {}", needed.len(), victim.blobs.len());
        let mut dice = Dice::new(1);
        let names: Vec<Name> = victim.blobs.keys().copied().collect();
        for name in &names {
            let blob = victim.blobs[name].clone();
            let mut changed = vec![
                ("empty", Bytes::new()),
                ("cut in the salt", blob.slice(..9)),
                ("one byte short", blob.slice(..blob.len() - 1)),
                ("one byte longer", [&blob[..], b"x"].concat().into()),
                ("twice as long", [&blob[..], &blob[..]].concat().into()),
                ("zeros", vec![0; blob.len()].into()),
            ];
            for _ in 0..cases() {
                changed.push(("a bit", flipped(&blob, dice.below(8 * blob.len() as u64))));
            }
            // Where the structures begin: salt, head, body.
            for byte in [0, 16, 200, 300] {
                changed.push(("a bit in the beginning", flipped(&blob, 8 * byte + dice.below(8))));
            }
            changed.push(("a bit at the end", flipped(&blob, 8 * blob.len() as u64 - 1)));
            let other = names[dice.below(names.len() as u64) as usize];
            if victim.blobs[&other] != blob {
                changed.push(("another blob", victim.blobs[&other].clone()));
            }
            for (what, bytes) in changed {
                victim.bed.storage.overwrite(*name, bytes);
                let found = victim.examine(&format!("{name}: {what}")).await;
                assert!(found || !needed.contains(name), "{name}: {what} goes unnoticed");
                victim.restore();
            }
        }
        for _ in 0..10 * cases() {
            let (one, two) =
                (names[dice.below(names.len() as u64) as usize], names[dice.below(names.len() as u64) as usize]);
            // The two copies of a header are one and the same where a block has no room for fill.
            if victim.blobs[&one] == victim.blobs[&two] {
                continue;
            }
            victim.bed.storage.overwrite(one, victim.blobs[&two].clone());
            victim.bed.storage.overwrite(two, victim.blobs[&one].clone());
            let found = victim.examine(&format!("{one} and {two} swapped")).await;
            assert!(found || !needed.contains(&one) && !needed.contains(&two), "{one} and {two} swapped");
            victim.restore();
        }
    });
}

#[test]
fn withheld_commits_are_missed_unless_they_are_the_newest() {
    block_on(async {
        let mut victim = Victim::new(2).await;
        let (&newest, &name) = victim.commits.last_key_value().unwrap();
        let commits: Vec<(u64, Name)> = victim.commits.clone().into_iter().collect();
        // Without trusted state the newest alone can be withheld: then the state before is shown, and it is whole.
        let mut before = victim.content.rows.clone();
        before.remove(b"last".as_slice());
        victim.bed.storage.remove(name);
        victim.examine_against("the newest withheld", &[before]).await;
        victim.restore();
        let report_base = {
            let engine = victim.bed.open_with(|options| options.read_only = true).await.unwrap();
            engine.info().await.unwrap().checkpoint
        };
        for (sequence, name) in commits {
            if sequence < report_base || sequence == newest {
                continue;
            }
            victim.bed.storage.remove(name);
            assert!(victim.examine(&format!("commit {sequence} withheld")).await, "commit {sequence}");
            victim.restore();
        }
        // The checkpoint with everything after it: the hint remembers it.
        for (sequence, name) in victim.commits.clone() {
            if sequence >= report_base {
                victim.bed.storage.remove(name);
            }
        }
        assert!(victim.examine("the checkpoint and its tail withheld").await);
    });
}

#[test]
fn replayed_blobs_change_nothing_or_are_found() {
    block_on(async {
        let mut victim = Victim::new(3).await;
        for (age, earlier) in victim.earlier.clone().into_iter().enumerate() {
            // Deleted things come back, one by one and all together.
            let gone: Vec<_> = earlier.iter().filter(|(name, _)| !victim.blobs.contains_key(*name)).collect();
            for (name, blob) in &gone {
                victim.bed.storage.overwrite(**name, (*blob).clone());
                victim.examine(&format!("{name} of state {age} replayed")).await;
                victim.restore();
            }
            for (name, blob) in &gone {
                victim.bed.storage.overwrite(**name, (*blob).clone());
            }
            victim.examine(&format!("everything of state {age} replayed")).await;
            let engine = victim.bed.open().await.unwrap();
            put(&engine, b"on", b"").await.unwrap();
            assert_eq!(get(&engine, b"last").await.unwrap().unwrap(), "4");
            victim.restore();
        }
    });
}

#[test]
fn forged_and_foreign_blobs_in_the_place_of_the_next_commit_are_damage() {
    block_on(async {
        let mut victim = Victim::new(4).await;
        let engine = victim.bed.open().await.unwrap();
        let sequence = engine.snapshot().sequence() + 1;
        let next = Name::new(
            engine.keys().encrypt_name(BlockId::Commit { key_epoch: engine.keys().newest_epoch(), sequence }.encode()),
        );
        let foreign = victim.blobs[&victim.commits[&(sequence - 1)]].clone();
        for forged in
            [Bytes::new(), Bytes::from(vec![7; 4096]), Bytes::from(vec![0; 100]), Bytes::from(vec![0; 9000]), foreign]
        {
            victim.bed.storage.overwrite(next, forged.clone());
            assert!(victim.examine("a forged successor").await);
            // A writer that is at work says so too, and loses nothing.
            let answer = put(&engine, b"more", b"").await;
            assert!(matches!(answer, Err(Error::Damaged(_) | Error::CommitUnknown { .. })), "{answer:?}");
            assert_eq!(get(&engine, b"last").await.unwrap().unwrap(), "4");
            victim.bed.storage.remove(next);
        }
        // Once it is taken away, the same engine goes on.
        put(&engine, b"more", b"").await.unwrap();
        assert_clean(&engine).await;
    });
}

#[test]
fn blobs_of_another_branch_of_history_are_found_wherever_they_are_put() {
    block_on(async {
        let mut victim = Victim::new(5).await;
        // The operator gave an older copy to somebody, who went on: the same names, sealed anew, every one of them real.
        for (age, earlier) in victim.earlier.clone().into_iter().enumerate() {
            victim.bed.storage.restore(earlier);
            let engine = victim.bed.open().await.unwrap();
            put(&engine, b"branch", &[age as u8]).await.unwrap();
            chunk(&engine, 77, 9000).await;
            spilled(&engine, 500).await;
            engine.checkpoint().await.unwrap();
            chunk(&engine, 78, 9000).await;
            put(&engine, b"branch", b"end").await.unwrap();
            drop(engine);
            let other_branch = victim.bed.storage.snapshot_blobs();
            victim.restore();
            let needed = victim.needed().await;
            let mut both = 0;
            for (name, blob) in &other_branch {
                if victim.blobs.get(name) == Some(blob) {
                    continue;
                }
                both += u64::from(victim.blobs.contains_key(name));
                victim.bed.storage.overwrite(*name, blob.clone());
                let found = victim.examine(&format!("{name} of branch {age}")).await;
                assert!(found || !needed.contains(name), "{name} of branch {age} goes unnoticed");
                victim.restore();
            }
            assert!(both > 0, "branch {age} has no name in common");
        }
    });
}

#[test]
fn a_check_compares_the_storage_with_what_the_engine_knows() {
    block_on(async {
        let mut victim = Victim::new(8).await;
        let engine = victim.bed.open().await.unwrap();
        let before = victim.bed.storage.snapshot_blobs();
        put(&engine, b"sibling", b"1").await.unwrap();
        put(&engine, b"sibling", b"2").await.unwrap();
        let sibling = victim.bed.storage.snapshot_blobs();
        victim.bed.storage.restore(before);
        let engine = victim.bed.open().await.unwrap();
        put(&engine, b"real", b"1").await.unwrap();
        put(&engine, b"real", b"2").await.unwrap();
        let real = victim.bed.storage.snapshot_blobs();
        for (name, blob) in real.iter().filter(|(name, blob)| sibling.get(*name).is_some_and(|other| other != *blob)) {
            victim.bed.storage.overwrite(*name, sibling[name].clone());
            let found =
                match engine.check(CheckOptions { data: true, references: None, ..CheckOptions::default() }).await {
                    Ok(report) => !report.findings.is_empty(),
                    Err(error) => typed(&error),
                };
            assert!(found, "{name} of a sibling goes unnoticed");
            victim.bed.storage.overwrite(*name, blob.clone());
        }
        assert_clean(&engine).await;
    });
}

#[test]
fn hints_that_are_replayed_lead_nowhere_else() {
    block_on(async {
        let mut victim = Victim::new(6).await;
        let is_hint = |name: &Name| name.as_bytes().starts_with(b"strongrc");
        let hints: Vec<Name> = victim.blobs.keys().copied().filter(is_hint).collect();
        for earlier in victim.earlier.clone() {
            for (name, blob) in earlier.iter().filter(|(name, _)| is_hint(name)) {
                victim.bed.storage.overwrite(*name, blob.clone());
                victim.examine("an old hint beside the new one").await;
                for hint in &hints {
                    if hint != name {
                        victim.bed.storage.remove(*hint);
                    }
                }
                victim.examine("an old hint instead of the new one").await;
                let engine = victim.bed.open().await.unwrap();
                assert_eq!(contents(&engine.snapshot()).await.unwrap(), victim.content.rows);
                victim.restore();
            }
        }
        for hint in hints {
            victim.bed.storage.remove(hint);
        }
        let engine = victim.bed.open().await.unwrap();
        assert_eq!(contents(&engine.snapshot()).await.unwrap(), victim.content.rows);
    });
}

#[test]
fn a_full_storage_fails_commits_keeps_what_was_and_lets_go_on() {
    block_on(async {
        for spare in [0, 1, 2, 3, 5, 8] {
            let options = CrashOptions { yields: false, ..CrashOptions::default() };
            let (mut bed, engine) = Bed::new(10 + spare, 4096, Suite::Aes256Gcm, options).await;
            drop(engine);
            bed.tuning = hasty();
            let engine = bed.open().await.unwrap();
            let mut kept = BTreeMap::new();
            for number in 0..5_u8 {
                put(&engine, &[number], b"kept").await.unwrap();
                kept.insert(vec![number], b"kept".to_vec());
            }
            let blocks = bed.storage.snapshot_blobs().len() as u64;
            bed.storage.set_capacity(Some((blocks + spare) * 4096));
            let mut refused = 0;
            for number in 0..20_u8 {
                let mut transaction = engine.begin();
                let result: Result<()> = async {
                    if number % 3 == 0 {
                        transaction.put_chunk(None, Bytes::from(vec![number; 9000])).await?;
                    }
                    transaction.put(TABLE, &[100 + number], b"tried")?;
                    transaction.commit().await.map(|_| ())
                }
                .await;
                match result {
                    Ok(()) => {
                        kept.insert(vec![100 + number], b"tried".to_vec());
                    }
                    Err(error) => {
                        assert_eq!(error.storage_kind(), Some(ErrorKind::Full), "{error:?}");
                        refused += 1;
                    }
                }
                if number % 7 == 0 {
                    let _ = engine.checkpoint().await;
                }
            }
            assert!(refused > 0);
            assert_eq!(contents(&engine.snapshot()).await.unwrap(), kept);
            assert_clean(&engine).await;
            bed.storage.set_capacity(None);
            let (number, payload) = chunk(&engine, 5, 9000).await;
            engine.checkpoint().await.unwrap();
            assert_eq!(engine.snapshot().chunk(number).await.unwrap(), payload);
            assert_clean(&engine).await;
            engine.close().await.unwrap();
            let engine = bed.open().await.unwrap();
            assert_eq!(contents(&engine.snapshot()).await.unwrap().len(), kept.len() + 1);
            assert_clean(&engine).await;
        }
    });
}

#[test]
fn errors_and_debug_output_show_nothing_of_the_content() {
    block_on(async {
        let mut victim = Victim::new(7).await;
        let secret = b"planted secret".as_slice();
        let engine = victim.bed.open().await.unwrap();
        put(&engine, secret, secret).await.unwrap();
        let mut shown = format!("{engine:?}");
        for name in victim.bed.storage.snapshot_blobs().into_keys() {
            let blob = victim.bed.storage.snapshot_blobs()[&name].clone();
            victim.bed.storage.overwrite(name, flipped(&blob, 40));
            if let Err(error) = victim.bed.open().await {
                shown += &format!("{error} {error:?}");
            }
            victim.bed.storage.overwrite(name, blob);
        }
        victim.bed.storage.fail_call(3, Fault::Refused(ErrorKind::Unavailable));
        if let Err(error) = put(&engine, secret, secret).await {
            shown += &format!("{error} {error:?}");
        }
        assert!(!shown.contains("planted secret") && !shown.contains(&format!("{secret:?}")));
    });
}
