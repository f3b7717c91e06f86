//! What is left where the future of an operation is dropped half way: wherever that is, it is whole, and whoever asks again is
//! told the truth.

use futures_lite::future::block_on;
use strongroom_conformance::crash::CrashOptions;
use strongroom_core::env::Env;
use strongroom_fs::{Error, FileSystem, OpenOptions, Options};

use crate::support::{Bed, assert_sound, cut, noise};

fn writing() -> OpenOptions {
    OpenOptions::new().write(true).create(true)
}

/// On storage that takes its time.
async fn slow() -> (Bed, FileSystem) {
    Bed::with(1, 4096, Options::default(), CrashOptions::default(), Env::deterministic).await
}

/// Does something with a longer and longer patience, until it comes to its end: so it is dropped wherever it waits.
fn with_every_patience(mut work: impl AsyncFnMut(u64) -> bool) {
    for polls in 0.. {
        if block_on(work(polls)) {
            assert!(polls > 2, "it never waited");
            return;
        }
    }
}

#[test]
fn a_flush_that_was_dropped_half_way_does_not_say_when_tried_again_that_all_is_well() {
    for is_writer in [true, false] {
        with_every_patience(async |polls| {
            let (_bed, fs) = slow().await;
            fs.write("f", b"before").await.unwrap();
            let open = async || fs.open_file("f", writing()).await.unwrap();
            let (writer, other, bystander) = (open().await, open().await, open().await);
            let content = noise(1, 9_000);
            writer.write_at(0, &content[..4_500]).await.unwrap();
            other.append(&content[4_500..]).await.unwrap();
            let flushing = if is_writer { &writer } else { &bystander };
            let has_ended = cut(polls, flushing.flush()).await.map(Result::unwrap).is_some();
            let again = flushing.flush().await;
            let told = other.flush().await;
            if polls == 0 {
                again.as_ref().unwrap();
            }
            match again {
                Ok(()) => assert!(fs.read("f").await.unwrap() == content, "dropped at {polls}: flushed, and not there"),
                Err(error) => {
                    assert!(matches!(error, Error::Interrupted) && !has_ended, "dropped at {polls}: {error}");
                    assert!(matches!(told, Err(Error::Interrupted)), "dropped at {polls}: {told:?}");
                }
            }
            // The next commit settles what was left in the air, and all handles go on.
            fs.create_dir("settled").await.unwrap();
            let left = fs.read("f").await.unwrap();
            assert!(left == content || left == b"before", "dropped at {polls}: {} bytes", left.len());
            let _ = (writer.flush().await, bystander.flush().await);
            for file in [writer, other, bystander] {
                file.write_at(0, b"again").await.unwrap();
                file.close().await.unwrap();
            }
            assert!(fs.read("f").await.unwrap().starts_with(b"again"));
            assert_sound(&fs).await;
            has_ended
        });
    }
}
