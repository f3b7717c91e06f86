//! Many at once.

use std::sync::Arc;

use futures_lite::future::block_on;
use strongroom_fs::{FileSystem, OpenOptions, Options};

use super::support::{Bed, assert_sound, noise};

fn assert_send<T: Send>(value: T) -> T {
    value
}

#[test]
fn handles_and_futures_go_from_thread_to_thread() {
    block_on(async {
        fn shared<T: Send + Sync>(_: &T) {}
        let (_bed, fs) = Bed::new(4096).await;
        shared(&fs);
        assert_send(fs.create_dir("d")).await.unwrap();
        assert_send(fs.write("f", b"1")).await.unwrap();
        let file = assert_send(fs.open_file("f", OpenOptions::new().write(true))).await.unwrap();
        shared(&file);
        assert_send(file.write_at(0, b"2")).await.unwrap();
        assert_send(file.read_at(0, &mut [0])).await.unwrap();
        assert_send(file.set_len(1)).await.unwrap();
        assert_send(file.close()).await.unwrap();
        assert_send(fs.rename("f", "g")).await.unwrap();
        assert_send(fs.remove_all("g")).await.unwrap();
        let mut transaction = fs.begin();
        assert_send(transaction.create_file_from("h", strongroom_fs::Attributes::file(), &mut &b"x"[..]))
            .await
            .unwrap();
        assert_send(transaction.commit()).await.unwrap();
        assert_send(fs.check(Default::default(), |_| {})).await.unwrap();
    });
}

#[test]
fn disjoint_creates_in_one_directory_do_not_conflict() {
    block_on(async {
        let (_bed, fs) = Bed::new(4096).await;
        fs.create_dir("d").await.unwrap();
        let mut transactions = Vec::new();
        for index in 0..5 {
            let mut transaction = fs.begin();
            transaction.write(format!("d/{index}"), b"x").await.unwrap();
            transaction.create_dir(format!("d/dir{index}")).await.unwrap();
            transactions.push(transaction);
        }
        fs.set_mode("d", 0o700).await.unwrap();
        for transaction in transactions {
            transaction.commit().await.unwrap();
        }
        assert_eq!(fs.read_dir("d").await.unwrap().len(), 10);
        assert_eq!(fs.metadata("d").await.unwrap().nlink, 7);
        assert_sound(&fs).await;
    });
}

#[test]
fn creating_in_a_directory_that_is_removed_is_a_conflict() {
    block_on(async {
        let (_bed, fs) = Bed::new(4096).await;
        fs.create_dir("d").await.unwrap();
        let mut creating = fs.begin();
        creating.write("d/f", b"x").await.unwrap();
        let mut removing = fs.begin();
        removing.remove_dir("d").await.unwrap();
        removing.commit().await.unwrap();
        assert!(creating.commit().await.unwrap_err().is_conflict());

        fs.create_dir("e").await.unwrap();
        let mut removing = fs.begin();
        removing.remove_dir("e").await.unwrap();
        fs.write("e/f", b"x").await.unwrap();
        assert!(removing.commit().await.unwrap_err().is_conflict());
        assert_sound(&fs).await;
    });
}

#[test]
fn two_moves_that_together_make_a_cycle_conflict() {
    block_on(async {
        let (_bed, fs) = Bed::new(4096).await;
        fs.create_dir("a").await.unwrap();
        fs.create_dir("b").await.unwrap();
        let (mut one, mut two) = (fs.begin(), fs.begin());
        one.rename("a", "b/a").await.unwrap();
        two.rename("b", "a/b").await.unwrap();
        one.commit().await.unwrap();
        assert!(two.commit().await.unwrap_err().is_conflict());
        assert_sound(&fs).await;
    });
}

#[test]
fn operations_run_again_until_they_win() {
    let (_bed, fs) = block_on(Bed::threaded(4096, Options::default()));
    block_on(fs.write("count", b"0")).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let fs = fs.clone();
            scope.spawn(move || {
                for _ in 0..10 {
                    block_on(count_up(&fs));
                }
            });
        }
    });
    assert_eq!(block_on(fs.read("count")).unwrap(), b"40");
    block_on(assert_sound(&fs));
}

async fn count_up(fs: &FileSystem) {
    fs.transact(async |transaction| {
        let count: u32 = String::from_utf8(transaction.read("count").await?).unwrap().parse().unwrap();
        transaction.write("count", (count + 1).to_string()).await
    })
    .await
    .unwrap();
}

#[test]
fn many_read_one_handle_while_another_writes_the_file() {
    let (_bed, fs) = block_on(Bed::threaded(4096, Options::default()));
    let versions: Vec<_> = (0..8).map(|version| noise(version, 60_000)).collect();
    block_on(fs.write("f", &versions[0])).unwrap();
    let file = Arc::new(block_on(fs.open_file("f", OpenOptions::new())).unwrap());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let (file, versions) = (file.clone(), &versions);
            scope.spawn(move || {
                let mut out = vec![0; 60_000];
                for _ in 0..20 {
                    block_on(file.read_exact_at(0, &mut out)).unwrap();
                    assert!(versions.contains(&out), "a mixture of versions");
                }
            });
        }
        for version in &versions {
            block_on(fs.write("f", version)).unwrap();
        }
    });
}
