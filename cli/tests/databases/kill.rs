//! What holds of a folder when the program is killed holds of every other place.

#[cfg(feature = "s3")]
use crate::common::acceptance::check_is_clean;
use crate::common::acceptance::scaled;
#[cfg(any(feature = "sled", feature = "s3"))]
use crate::common::kill::imports_are_resumed;
use crate::common::kill::old_or_new;
use crate::common::{DATABASES, Scratch};

#[test]
fn a_put_that_is_killed_leaves_the_old_file_or_the_new_one() {
    for scheme in DATABASES {
        old_or_new(&Scratch::with_repository_on(scheme), scaled(5, 200));
    }
}

#[cfg(feature = "sled")] // once, in the build that has every scheme
#[test]
fn an_import_that_is_killed_is_resumed_by_running_it_again() {
    for scheme in DATABASES {
        imports_are_resumed(&Scratch::with_repository_on(scheme), scaled(5, 200), SIZE);
    }
}

/// Bytes and files.
#[cfg(any(feature = "sled", feature = "s3"))]
const SIZE: (u64, u64) = (2 << 20, 40);

#[cfg(feature = "s3")]
#[test]
fn so_it_is_in_a_bucket() {
    use crate::buckets::Bucket;
    let bucket = Bucket::new(strongroom_s3_server::ServerOptions::default());
    let (puts, imports) = ("bucket/puts?", "bucket/imports?");
    let [puts, imports] = [puts, imports].map(|place| Scratch::with_repository_in(bucket.uri(place)));
    old_or_new(&puts, scaled(5, 200));
    imports_are_resumed(&imports, scaled(5, 200), SIZE);
    for scratch in [puts, imports] {
        scratch.succeeds(["compact", "--end-writers"]);
        let info: serde_json::Value = serde_json::from_slice(&scratch.succeeds(["info", "--json"])).unwrap();
        assert_eq!(info["inside"]["open_writers"], 0);
        check_is_clean(&scratch, "after all of them");
    }
}
