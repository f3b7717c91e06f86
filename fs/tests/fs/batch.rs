//! Changes as values.

use futures_lite::future::{block_on, poll_once};
use strongroom_conformance::crash::CrashOptions;
use strongroom_core::env::Env;
use strongroom_fs::{AttributeChange, Error, Follow, Op, Options, Settings, XattrMode};

use super::support::{Bed, assert_sound};

fn bytes(text: &str) -> Vec<u8> {
    text.into()
}

#[test]
fn a_thousand_changes_are_one_commit() {
    block_on(async {
        let (bed, fs) = Bed::new(128 << 10).await;
        fs.create_dir("d").await.unwrap();
        let ops: Vec<_> = (0..1_000)
            .map(|number| Op::Write {
                path: bytes(&format!("d/{number}")),
                content: bytes(&format!("content {number}")),
            })
            .collect();
        let (before, sequence) = (bed.storage.calls(), fs.snapshot().sequence());
        let commit = fs.apply(&ops).await.unwrap();
        let after = bed.storage.calls();
        assert_eq!(commit.sequence, sequence + 1);
        // The payloads fit the commit or a few blocks beside it; a commit each would have been a thousand of both.
        let (mutating, all) = (after.mutating() - before.mutating(), after.all() - before.all());
        println!("1,000 operations: {mutating} requests that change, {all} in all");
        assert!(mutating <= 6 && all <= 12, "{mutating} {all}");
        assert_eq!(fs.read_dir("d").await.unwrap().len(), 1_000);
        assert_eq!(fs.read("d/999").await.unwrap(), b"content 999");
        assert_sound(&fs).await;
    });
}

#[test]
fn every_change_has_its_value_and_does_what_its_method_does() {
    block_on(async {
        let (_bed, fs) = Bed::new(4096).await;
        let (yes, no) = (Follow::Yes, Follow::No);
        let change = |uid| AttributeChange { uid: Some(uid), ..AttributeChange::default() };
        let set = XattrMode::Set;
        let ops = [
            Op::CreateDir { path: bytes("d") },
            Op::CreateDirAll { path: bytes("d/e/f") },
            Op::Write { path: bytes("d/a"), content: bytes("0123456789") },
            Op::WriteAt { path: bytes("d/a"), offset: 2, bytes: bytes("xx") },
            Op::Append { path: bytes("d/a"), bytes: bytes("tail") },
            Op::SetLen { path: bytes("d/a"), size: 12 },
            Op::PunchHole { path: bytes("d/a"), offset: 0, length: 1 },
            Op::Rename { from: bytes("d/a"), to: bytes("d/b"), replace: false },
            Op::Write { path: bytes("d/c"), content: bytes("c") },
            Op::Exchange { one: bytes("d/b"), other: bytes("d/c") },
            Op::Rename { from: bytes("d/c"), to: bytes("d/b"), replace: true },
            Op::Symlink { target: bytes("b"), link: bytes("d/l") },
            Op::HardLink { existing: bytes("d/b"), link: bytes("d/h") },
            Op::Copy { from: bytes("d/b"), to: bytes("d/copy") },
            Op::CopyRange { from: bytes("d/b"), from_offset: 1, to: bytes("d/copy"), to_offset: 20, length: 3 },
            Op::SetAttributes { path: bytes("d/l"), change: change(7), follow: yes },
            Op::SetAttributes { path: bytes("d/l"), change: change(8), follow: no },
            Op::SetSettings { path: bytes("d/b"), settings: Settings { dedup: Some(false), ..Settings::default() } },
            Op::SetXattr { path: bytes("d/b"), name: bytes("n"), value: bytes("v"), mode: set, follow: yes },
            Op::SetXattr { path: bytes("d/b"), name: bytes("m"), value: bytes("v"), mode: set, follow: yes },
            Op::RemoveXattr { path: bytes("d/b"), name: bytes("m"), follow: yes },
            Op::CopyAll { from: bytes("d"), to: bytes("t") },
            Op::RemoveFile { path: bytes("d/h") },
            Op::RemoveDir { path: bytes("d/e/f") },
            Op::RemoveAll { path: bytes("d/e") },
        ];
        let sequence = fs.snapshot().sequence();
        fs.apply(&ops).await.unwrap();
        assert!(fs.snapshot().sequence() <= sequence + 2, "the claim of an epoch, and the commit");
        assert_eq!(fs.read("d/b").await.unwrap(), b"\x001xx456789ta");
        assert_eq!(fs.read("d/copy").await.unwrap(), b"\x001xx456789ta\0\0\0\0\0\0\0\x001xx");
        assert_eq!((fs.metadata("d/l").await.unwrap().uid, fs.symlink_metadata("d/l").await.unwrap().uid), (7, 8));
        assert_eq!(fs.settings("t/b").await.unwrap().dedup, Some(false));
        assert_eq!(fs.xattrs("t/b", yes).await.unwrap(), [b"n"]);
        let names: Vec<_> = fs.read_dir("t").await.unwrap().into_iter().map(|entry| entry.name).collect();
        assert_eq!(names, ["b", "copy", "e", "h", "l"].map(bytes));
        let names: Vec<_> = fs.read_dir("d").await.unwrap().into_iter().map(|entry| entry.name).collect();
        assert_eq!(names, ["b", "copy", "l"].map(bytes));
        assert_sound(&fs).await;
    });
}

#[test]
fn a_batch_with_one_change_that_is_refused_changes_nothing_and_says_which() {
    block_on(async {
        let (_bed, fs) = Bed::new(4096).await;
        let ops = [
            Op::CreateDir { path: bytes("d") },
            Op::Write { path: bytes("d/f"), content: bytes("x") },
            Op::RemoveDir { path: bytes("d") },
        ];
        match fs.apply(&ops).await {
            Err(Error::InBatch { index: 2, error }) => assert!(matches!(*error, Error::NotEmpty { .. })),
            other => panic!("{other:?}"),
        }
        assert!(fs.read_dir("/").await.unwrap().is_empty());
        let sequence = fs.snapshot().sequence();
        fs.apply(&[]).await.unwrap();
        assert_eq!(fs.snapshot().sequence(), sequence);
    });
}

#[test]
fn batches_that_come_together_share_commits() {
    block_on(async {
        let crash = CrashOptions::default();
        let (_bed, fs) = Bed::with(1, 64 << 10, Options::default(), crash, Env::deterministic).await;
        fs.write("warm", b"").await.unwrap();
        let batches: Vec<Vec<Op>> = (0..16)
            .map(|batch| {
                let path = |file| bytes(&format!("{batch}-{file}"));
                (0..10).map(|file| Op::Write { path: path(file), content: bytes("content") }).collect()
            })
            .collect();
        let sequence = fs.snapshot().sequence();
        // All of them on one thread, each as far as it gets while storage takes its time.
        let mut running: Vec<_> = batches.iter().map(|ops| Box::pin(fs.apply(ops))).collect();
        while !running.is_empty() {
            let mut left = Vec::new();
            for mut batch in running {
                match poll_once(batch.as_mut()).await {
                    Some(result) => drop(result.unwrap()),
                    None => left.push(batch),
                }
            }
            running = left;
        }
        let commits = fs.snapshot().sequence() - sequence;
        assert!(commits <= 4, "{commits} commits for 16 batches");
        assert_eq!(fs.read_dir("/").await.unwrap().len(), 161);
        assert_sound(&fs).await;
    });
}
