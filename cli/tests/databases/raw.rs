//! What whoever runs a database or a bucket sees: as little as of a folder, in a cache before it too.

use crate::common::raw::is_noise;
use crate::common::{DATABASES, Scratch};

#[test]
fn stored_bytes_and_names_are_noise_in_every_database() {
    for scheme in DATABASES {
        is_noise(&Scratch::with_repository_on(scheme), 60);
    }
}

/// But for the marker, which says what was found out about the server.
#[cfg(feature = "s3")]
#[test]
fn objects_and_their_keys_are_noise_in_a_bucket() {
    use crate::buckets::Bucket;
    use crate::common::raw::looks_like_noise;

    const MARKER: &str = "data/strongroom-storage";
    let bucket = Bucket::new(strongroom_s3_server::ServerOptions::default());
    let scratch = Scratch::with_repository_in(bucket.uri("bucket/data?"));
    looks_like_noise(&scratch, 60, || {
        let object = |key: &str| bucket.server.object("bucket", key).unwrap().to_vec();
        let (mut blobs, mut others) = (Vec::new(), Vec::new());
        for key in bucket.server.keys("bucket") {
            if key == MARKER {
                others.push((key.clone().into_bytes(), object(&key)));
            } else {
                blobs.push((name(&key), object(&key)));
            }
        }
        assert_eq!(others.len(), 1);
        assert!(others[0].1.is_ascii() && others[0].1.len() < 1000, "{others:?}");
        (blobs, others)
    });
}

/// The name that the last part of a key is, in hex.
#[cfg(feature = "s3")]
fn name(key: &str) -> Vec<u8> {
    let hex = key.rsplit('/').next().unwrap();
    assert_eq!(hex.len(), 32, "{key}");
    (0..16).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()).collect()
}

/// A store in memory is gone with its process, so it is looked at in this one.
#[test]
fn blobs_in_memory_are_noise() {
    crate::common::raw::is_noise_in_memory(60);
}
