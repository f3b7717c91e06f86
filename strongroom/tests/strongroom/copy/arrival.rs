//! What arrives: every state, each content once, and nothing that is not the repository's.

use futures_lite::future::block_on;
use strongroom::fs::OpenOptions as FileOptions;
use strongroom::{CopyOptions, Repository, Suite, blocking, check, core};

use super::contents::{Numbers, change, fill_and_keep, noise, write_at};
use super::states::{assert_clean, assert_same, content, names, rows};
use super::stores::{Stores, close, core_error};

#[test]
fn every_state_arrives_under_other_keys_another_cipher_and_another_block_size() {
    block_on(async {
        let stores = Stores::new("everything");
        let source = stores.furnished_source().await;
        for (suite, block_bytes) in [(Suite::XChaCha20Poly1305, 64 << 10), (Suite::Aes256Gcm, 1 << 20)] {
            let place = stores.beside(&block_bytes.to_string());
            let new = stores.create("new").cipher(suite).block_bytes(block_bytes);
            let (copy, copied) = source.copy(place.as_str(), new, CopyOptions::default()).await.unwrap();
            assert_eq!((copied.snapshots, copied.left_behind), (3, None));
            assert_same(&source, &copy, &place).await;
            let (before, after) = (source.info().await.unwrap(), copy.info().await.unwrap());
            assert_eq!((after.suite, after.block_bytes), (suite, block_bytes));
            assert_ne!(before.repository, after.repository);
            assert_eq!((after.chunks, after.chunk_bytes), (copied.chunks, copied.chunk_bytes));
            assert_eq!(copy.fs().options(), source.fs().options());
            assert_eq!(copy.fs().version_limit("/a/versions").await.unwrap(), Some(7));
            copy.close().await.unwrap();
            drop(copy);
            let again = Repository::open(place.as_str(), stores.open("new")).await.unwrap();
            assert_same(&source, &again, &place).await;
            again.close().await.unwrap();
            let old = Repository::open(place.as_str(), stores.open("old")).await;
            assert!(matches!(core_error(old), core::Error::WrongCredentials));
        }
        source.close().await.unwrap();
    });
}

#[test]
fn chunks_of_large_blocks_are_in_pieces_in_small_ones_and_live_on_there() {
    block_on(async {
        let stores = Stores::new("pieces");
        let options = stores.create("old").versions(3).block_bytes(1 << 20);
        let source = Repository::create(stores.source(), options).await.unwrap();
        fill_and_keep(&source).await;
        for block_bytes in [16 << 10, 32 << 10] {
            let place = stores.beside(&block_bytes.to_string());
            let new = stores.create("new").block_bytes(block_bytes);
            let (copy, _) = source.copy(place.as_str(), new, CopyOptions::default()).await.unwrap();
            assert_same(&source, &copy, &place).await;
            // Blocks die in part, and what is left of them moves.
            for number in 0..24 {
                write_at(&copy, "/a/large", number * 50_000, &noise(100 + number, 9_000)).await.unwrap();
            }
            copy.remove_snapshot("first").await.unwrap();
            copy.compact(strongroom::CompactOptions { thorough: true, ..Default::default() }).await.unwrap();
            assert_clean(&copy).await;
            let expected = content(&copy, None).await;
            copy.close().await.unwrap();
            drop(copy);
            let again = Repository::open(place.as_str(), stores.open("new")).await.unwrap();
            assert!(content(&again, None).await == expected, "{place}");
            // And into large ones again.
            let back = stores.beside(&format!("{block_bytes} back"));
            let new = stores.create("new").block_bytes(128 << 10);
            let (back, _) = again.copy(back.as_str(), new, CopyOptions::default()).await.unwrap();
            assert_same(&again, &back, "back in large ones").await;
            close([back, again]).await;
        }
        source.close().await.unwrap();
    });
}

#[test]
fn what_is_stored_once_is_stored_once_and_is_found_when_it_is_stored_again() {
    block_on(async {
        let stores = Stores::new("shared");
        let source = stores.furnished_source().await;
        let (copy, copied) = stores.copied(&source).await;
        source.compact(strongroom::CompactOptions::default()).await.unwrap();
        let (before, after) = (source.info().await.unwrap(), copy.info().await.unwrap());
        assert_eq!((before.chunks, before.chunk_bytes), (after.chunks, after.chunk_bytes));
        assert_eq!(before.snapshot_chunk_bytes, after.snapshot_chunk_bytes);
        assert!(after.live_bytes <= before.live_bytes + before.live_bytes / 50, "{before:?} {after:?}");
        assert!(copied.chunk_bytes < 7 << 20, "{copied:?}");
        // Each as often as the first time, under names of its own: compressed, and not.
        copy.fs().write("/again", &noise(1, 1_200_000)).await.unwrap();
        copy.fs().write("/text again", &b"all work and no play ".repeat(20_000)).await.unwrap();
        let again = copy.info().await.unwrap();
        assert_eq!((again.chunks, again.chunk_bytes), (after.chunks, after.chunk_bytes));
        assert_clean(&copy).await;
        // What only a snapshot needs goes with it.
        for name in ["first", "second", "the same again"] {
            copy.remove_snapshot(name).await.unwrap();
        }
        copy.fs().remove_all("/").await.unwrap();
        for key in [b"large".as_slice(), b"very large"] {
            copy.kv().delete(key).await.unwrap();
        }
        assert_eq!(copy.info().await.unwrap().chunks, 0);
        assert_clean(&copy).await;
        close([copy, source]).await;
    });
}

#[test]
fn a_copy_lives_on_by_itself_and_never_meets_a_number_of_the_source() {
    block_on(async {
        let stores = Stores::new("numbers");
        let source = stores.furnished_source().await;
        let (copy, _) = stores.copied(&source).await;
        let known = rows(&copy.engine().snapshot()).await;
        let largest = known.keys().filter(|(table, _)| *table == 0x11).map(|(_, key)| key.clone()).max().unwrap();
        copy.fs().write("/new", &noise(9, 200_000)).await.unwrap();
        let inode = copy.fs().metadata("/new").await.unwrap().inode;
        assert!(inode.to_be_bytes().as_slice() > largest.as_slice());
        copy.restore_snapshot("first").await.unwrap();
        assert!(content(&copy, None).await == content(&source, Some("first")).await);
        assert_clean(&copy).await;
        copy.close().await.unwrap();
        // A copy of the copy.
        let copy = stores.open_copy().await.unwrap();
        let new = stores.create("newer");
        let (second, _) = copy.copy(stores.beside("copy-2"), new, CopyOptions::default()).await.unwrap();
        assert_same(&copy, &second, "second copy").await;
        close([second, copy, source]).await;
    });
}

#[test]
fn the_source_is_as_it_was() {
    block_on(async {
        let stores = Stores::new("unchanged");
        let source = stores.furnished_source().await;
        let (rows_before, names_before) = (rows(&source.engine().snapshot()).await, names(&source).await);
        let (copy, _) = stores.copied(&source).await;
        assert!(rows(&source.engine().snapshot()).await == rows_before);
        assert_eq!(names(&source).await, names_before);
        assert_clean(&source).await;
        close([copy, source]).await;
    });
}

#[test]
fn whatever_happened_to_the_source_its_states_arrive() {
    for seed in 0..24 {
        block_on(async {
            let mut numbers = Numbers(seed);
            let stores = Stores::new("history");
            let block_bytes = [4 << 10, 16 << 10, 128 << 10][seed as usize % 3];
            let options = stores.create("old").block_bytes(block_bytes).versions(seed as u32 % 4);
            let source = Repository::create(stores.source(), options.dedup(seed % 5 != 4)).await.unwrap();
            for folder in 0..3 {
                source.fs().create_dir(format!("/d{folder}")).await.unwrap();
            }
            let mut kept = 0;
            for _ in 0..numbers.below(120) {
                change(&source, &mut numbers).await;
                match numbers.below(20) {
                    0 => {
                        kept += 1;
                        source.create_snapshot(&format!("s{kept}")).await.unwrap();
                    }
                    1 => {
                        let _ = source.remove_snapshot(&format!("s{}", 1 + numbers.below(5))).await;
                    }
                    2 => {
                        let _ = source.restore_snapshot(&format!("s{}", 1 + numbers.below(5))).await;
                    }
                    _ => {}
                }
            }
            // Into smaller ones too, as long as a tree node is no smaller in them.
            let to =
                if block_bytes < 16 << 10 { block_bytes } else { 16 << 10 } << [0, 1, 2, 6][numbers.below(4) as usize];
            let new = stores.create("new").block_bytes(to);
            let (copy, _) = source.copy(stores.copy(), new, CopyOptions::default()).await.unwrap();
            assert_same(&source, &copy, &format!("seed {seed}")).await;
            for name in names(&copy).await {
                copy.remove_snapshot(&name.0).await.unwrap();
            }
            assert!(content(&source, None).await == content(&copy, None).await, "seed {seed}");
            assert_clean(&copy).await;
            close([copy, source]).await;
        });
    }
}

#[test]
fn more_rows_than_one_commit_holds_arrive() {
    block_on(async {
        let stores = Stores::new("many");
        let source = stores.empty_source().await;
        for part in 0..8 {
            let mut transaction = source.kv().begin();
            for number in 0..5_000 {
                transaction.put(format!("{part}/{number}").as_bytes(), &noise(number, 100)).await.unwrap();
            }
            transaction.commit().await.unwrap();
        }
        let (copy, copied) = stores.copied(&source).await;
        assert!(copied.rows >= 40_000);
        assert_same(&source, &copy, "many").await;
        close([copy, source]).await;
    });
}

#[test]
fn a_file_without_a_name_that_a_process_has_open_does_not_stay_in_the_copy() {
    block_on(async {
        let stores = Stores::new("orphan");
        let source = stores.empty_source().await;
        source.fs().write("/open", &noise(1, 500_000)).await.unwrap();
        let file = source.fs().open_file("/open", FileOptions::new().write(true)).await.unwrap();
        source.fs().remove_file("/open").await.unwrap();
        assert_eq!(source.fs().content_bytes().await.unwrap().file_bytes, 500_000);
        let (copy, copied) = stores.copied(&source).await;
        assert!(copied.chunk_bytes >= 500_000);
        assert_eq!(copy.fs().content_bytes().await.unwrap().file_bytes, 0);
        assert_eq!(copy.info().await.unwrap().chunks, 0);
        assert_clean(&copy).await;
        // Here it is still somebody's.
        let mut bytes = vec![0; 500_000];
        file.read_exact_at(0, &mut bytes).await.unwrap();
        assert!(bytes == noise(1, 500_000));
        file.close().await.unwrap();
        close([copy, source]).await;
    });
}

#[test]
fn a_source_that_is_read_only_is_copied_and_so_is_what_a_snapshot_keeps() {
    block_on(async {
        let stores = Stores::new("looked-at");
        close([stores.furnished_source().await]).await;
        let source = Repository::open(stores.source(), stores.open("old").read_only(true)).await.unwrap();
        let (copy, _) = stores.copied(&source).await;
        assert_same(&source, &copy, "read-only").await;
        copy.close().await.unwrap();
        let options = CopyOptions { at: Some("second"), ..CopyOptions::default() };
        let (copy, copied) = stores.copy_to(&stores.beside("then"), &source, options).await.unwrap();
        assert_eq!(copied.snapshots, 2);
        assert_eq!(names(&copy).await, names(&source).await[..2]);
        assert!(content(&copy, None).await == content(&source, Some("second")).await);
        assert!(content(&copy, Some("first")).await == content(&source, Some("first")).await);
        assert_clean(&copy).await;
        copy.close().await.unwrap();
        let options = CopyOptions { at: Some("never"), ..CopyOptions::default() };
        let absent = stores.copy_to(&stores.beside("never"), &source, options).await;
        assert!(matches!(core_error(absent), core::Error::NoSnapshot { .. }));
        source.close().await.unwrap();
    });
}

#[test]
fn an_empty_repository_is_copied() {
    let stores = Stores::new("empty");
    let source = blocking::Repository::create(stores.source(), stores.create("old")).unwrap();
    let (copy, copied) = source.copy(stores.copy(), stores.create("new"), CopyOptions::default()).unwrap();
    assert_eq!((copied.chunks, copied.snapshots), (0, 0));
    copy.fs().write("/first", "first").unwrap();
    copy.check(check::CheckOptions { data: true }, |finding| panic!("{finding:?}")).unwrap();
    copy.close().unwrap();
    source.close().unwrap();
}
