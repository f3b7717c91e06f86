//! What sources are filled with, and how it changes.

use strongroom::fs::{Attributes, Compression, Follow, OpenOptions as FileOptions, XattrMode};
use strongroom::{Error, Repository};

/// The state of the numbers that the same seed always gives (splitmix64).
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count.div_ceil(8)).flat_map(|_| self.next().to_le_bytes()).take(count).collect()
    }
}

pub(crate) fn noise(seed: u64, count: usize) -> Vec<u8> {
    Numbers(seed).bytes(count)
}

/// A repository with something of everything.
async fn fill(repository: &Repository) {
    let (fs, kv) = (repository.fs(), repository.kv());
    fs.create_dir_all("/a/b/c").await.unwrap();
    fs.write("/a/small", b"small").await.unwrap();
    fs.write("/a/large", &noise(1, 1_200_000)).await.unwrap();
    fs.write("/a/text", &b"all work and no play ".repeat(20_000)).await.unwrap();
    fs.write("/a/twin", &noise(1, 1_200_000)).await.unwrap();
    fs.hard_link("/a/small", "/a/b/second name").await.unwrap();
    fs.symlink("../small", "/a/b/link").await.unwrap();
    fs.set_mode("/a/small", 0o4640).await.unwrap();
    fs.set_owner("/a/small", 7, 8).await.unwrap();
    fs.set_xattr("/a/small", "user.short", "x", XattrMode::Set, Follow::Yes).await.unwrap();
    fs.set_xattr("/a/small", "user.long", noise(2, 60_000), XattrMode::Set, Follow::Yes).await.unwrap();
    let mut transaction = fs.begin();
    let mut sparse = transaction.write_file("/sparse", Attributes::file()).await.unwrap();
    sparse.hole(5 << 20).await.unwrap();
    sparse.write(b"behind the hole").await.unwrap();
    sparse.finish().await.unwrap();
    transaction.commit().await.unwrap();
    let own = FileOptions::new().write(true).create(true).dedup(false).compression(Compression::None);
    let own = fs.open_file("/a/own settings", own).await.unwrap();
    own.append(&noise(1, 300_000)).await.unwrap();
    own.close().await.unwrap();
    for number in 0..5 {
        fs.write("/a/versions", &noise(number, 20_000)).await.unwrap();
    }
    fs.set_version_limit("/a/versions", Some(7)).await.unwrap();
    kv.put(b"small", b"value").await.unwrap();
    kv.put(b"empty", b"").await.unwrap();
    kv.put(b"large", &noise(3, 700_000)).await.unwrap();
    kv.put(b"very large", &noise(4, 3 << 20)).await.unwrap();
}

pub(crate) async fn write_at(repository: &Repository, path: &str, offset: u64, bytes: &[u8]) -> Result<(), Error> {
    let mut transaction = repository.fs().begin();
    transaction.write_at(path, offset, bytes).await?;
    transaction.commit().await.map(drop)
}

/// Fills it, and takes snapshots between changes.
pub(crate) async fn fill_and_keep(repository: &Repository) {
    fill(repository).await;
    repository.create_snapshot("first").await.unwrap();
    repository.fs().remove_all("/a/b").await.unwrap();
    write_at(repository, "/a/large", 1 << 19, &noise(5, 50_000)).await.unwrap();
    repository.kv().delete(b"large").await.unwrap();
    repository.create_snapshot("second").await.unwrap();
    repository.create_snapshot("the same again").await.unwrap();
    // Only the first has it, the newest state has it again.
    repository.fs().remove_file("/sparse").await.unwrap();
    repository.kv().put(b"large", &noise(3, 700_000)).await.unwrap();
}

/// Changes something, as the numbers say.
pub(crate) async fn change(repository: &Repository, numbers: &mut Numbers) {
    let (fs, kv) = (repository.fs(), repository.kv());
    let path = format!("/d{}/f{}", numbers.below(3), numbers.below(6));
    let other = format!("/d{}/f{}", numbers.below(3), numbers.below(6));
    let length = [0, 10, 3_000, 40_000, 150_000][numbers.below(5) as usize];
    // From few seeds, so that much of it is stored already.
    let bytes = noise(numbers.below(6), length);
    // What is not there, or there already, is refused: as good as anything.
    let _ = match numbers.below(14) {
        0..=3 => fs.write(&path, &bytes).await,
        4 => write_at(repository, &path, numbers.below(100_000), &bytes).await,
        5 => fs.set_len(&path, numbers.below(200_000)).await,
        6 => fs.remove_file(&path).await,
        7 => fs.hard_link(&path, &other).await,
        8 => fs.rename(&path, &other).await,
        9 => fs.copy(&path, &other).await.map(drop),
        10 => fs.set_xattr(&path, "user.x", &bytes[..bytes.len().min(50_000)], XattrMode::Set, Follow::Yes).await,
        11 => kv.delete(format!("k{}", numbers.below(8)).as_bytes()).await.map(drop).map_err(Error::from),
        _ => {
            let times = 1 + numbers.below(30) as usize;
            let key = format!("k{}", numbers.below(8));
            kv.put(key.as_bytes(), &bytes.repeat(times)).await.map_err(Error::from)
        }
    };
}
