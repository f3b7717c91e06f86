//! Content that is compared with bytes of elsewhere.

use std::io;

use futures_lite::future::block_on;
use strongroom_conformance::crash::CrashOptions;
use strongroom_core::env::Env;
use strongroom_fs::format::EXTENT;
use strongroom_fs::{Comparand, Error, FileSystem, OpenOptions, Options};

use super::support::{Bed, noise};

/// Bytes in memory, and how often they were asked for.
struct Bytes<'b> {
    bytes: &'b [u8],
    read: usize,
}

impl Comparand for Bytes<'_> {
    fn read_exact_at(&mut self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(offset).unwrap();
        let bytes = self.bytes.get(start..start + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(bytes);
        self.read += out.len();
        Ok(())
    }

    fn next_data(&mut self, offset: u64) -> io::Result<Option<u64>> {
        let start = usize::try_from(offset).unwrap();
        let next = self.bytes.iter().skip(start).position(|byte| *byte != 0);
        Ok(next.map(|next| offset + next as u64))
    }
}

async fn has(fs: &FileSystem, path: &str, bytes: &[u8]) -> bool {
    let other = &mut Bytes { bytes, read: 0 };
    fs.begin().has_content(path, bytes.len() as u64, other).await.unwrap()
}

async fn bed(dedup: bool) -> (Bed, FileSystem) {
    let crash = CrashOptions { yields: false, ..CrashOptions::default() };
    Bed::with(1, 4096, Options { dedup, ..Options::default() }, crash, Env::deterministic).await
}

#[test]
fn content_is_the_same_byte_by_byte_however_it_is_stored() {
    for dedup in [true, false] {
        block_on(async {
            let (_bed, fs) = bed(dedup).await;
            let mut content = noise(1, 200_000);
            fs.write("f", &content).await.unwrap();
            assert!(has(&fs, "f", &content).await);
            assert!(!has(&fs, "f", &content[..199_999]).await && !has(&fs, "f", &[&content[..], b"x"].concat()).await);
            for at in [0, 100_000, 199_999] {
                content[at] ^= 1;
                assert!(!has(&fs, "f", &content).await, "{at}, dedup {dedup}");
                content[at] ^= 1;
            }
            // Parts of chunks, and chunks cut elsewhere than a writer from the start would.
            fs.transact(async |transaction| transaction.write_at("f", 70_001, b"in the middle").await).await.unwrap();
            content[70_001..70_014].copy_from_slice(b"in the middle");
            fs.transact(async |transaction| transaction.copy_range("f", 3_333, "f", 150_000, 20_001).await)
                .await
                .unwrap();
            content.copy_within(3_333..23_334, 150_000);
            assert!(has(&fs, "f", &content).await, "dedup {dedup}");
            content[160_000] ^= 1;
            assert!(!has(&fs, "f", &content).await, "dedup {dedup}");
            // Zeros are zeros.
            fs.set_len("f", 300_000).await.unwrap();
            content[160_000] ^= 1;
            content.resize(300_000, 0);
            assert!(has(&fs, "f", &content).await);
            fs.write("written zeros", &content).await.unwrap();
            assert!(has(&fs, "written zeros", &content).await);
            content[299_999] = 1;
            assert!(!has(&fs, "f", &content).await && !has(&fs, "written zeros", &content).await);
            fs.write("empty", b"").await.unwrap();
            assert!(has(&fs, "empty", b"").await && !has(&fs, "empty", b"x").await);
        });
    }
}

#[test]
fn what_a_transaction_wrote_is_compared_too_and_what_it_looks_up_leaves_nothing() {
    block_on(async {
        let (_bed, fs) = bed(true).await;
        let (content, other) = (noise(1, 50_000), noise(2, 50_000));
        fs.write("f", &content).await.unwrap();
        let mut transaction = fs.begin();
        transaction.write("f", &other).await.unwrap();
        let bytes = &mut Bytes { bytes: &other, read: 0 };
        assert!(transaction.has_content("f", 50_000, bytes).await.unwrap());
        let bytes = &mut Bytes { bytes: &content, read: 0 };
        assert!(!transaction.has_content("f", 50_000, bytes).await.unwrap());
        transaction.commit().await.unwrap();
        super::support::assert_sound(&fs).await;
    });
}

#[test]
fn a_comparison_stops_at_the_first_difference_and_says_what_failed() {
    struct Broken;
    impl Comparand for Broken {
        fn read_exact_at(&mut self, _: u64, _: &mut [u8]) -> io::Result<()> {
            Err(io::Error::other("broken"))
        }
        fn next_data(&mut self, _: u64) -> io::Result<Option<u64>> {
            Err(io::Error::other("broken"))
        }
    }
    block_on(async {
        let (_bed, fs) = bed(true).await;
        let mut content = noise(1, 1 << 20);
        fs.write("f", &content).await.unwrap();
        content[0] ^= 1;
        let mut bytes = Bytes { bytes: &content, read: 0 };
        assert!(!fs.begin().has_content("f", 1 << 20, &mut bytes).await.unwrap());
        assert!(bytes.read < 1 << 18, "{} bytes", bytes.read);
        // The end came earlier than was said.
        let mut short = Bytes { bytes: &content[..10], read: 0 };
        assert!(!fs.begin().has_content("f", 1 << 20, &mut short).await.unwrap());
        assert!(matches!(fs.begin().has_content("f", 1 << 20, &mut Broken).await, Err(Error::Source(_))));
        fs.open_file("hole", OpenOptions::new().write(true).create(true)).await.unwrap();
        fs.set_len("hole", 1 << 30).await.unwrap();
        assert!(matches!(fs.begin().has_content("hole", 1 << 30, &mut Broken).await, Err(Error::Source(_))));
        assert!(matches!(fs.begin().has_content("/", 0, &mut Broken).await, Err(Error::IsADirectory { .. })));
    });
}

#[test]
fn a_file_whose_end_is_lost_is_damaged_and_not_the_same() {
    block_on(async {
        let (_bed, fs) = bed(true).await;
        let content = noise(1, 20_000);
        fs.write("f", &content).await.unwrap();
        // Two stretches, of which the second is lost.
        fs.transact(async |transaction| transaction.punch_hole("f", 8_000, 12_000).await).await.unwrap();
        let inode = fs.metadata("f").await.unwrap().inode.to_be_bytes();
        let mut transaction = fs.engine().begin();
        transaction.delete(EXTENT, &[inode, 8_000_u64.to_be_bytes()].concat()).unwrap();
        transaction.commit().await.unwrap();
        let mut bytes = Bytes { bytes: &content, read: 0 };
        let compared = fs.begin().has_content("f", 20_000, &mut bytes).await;
        assert!(matches!(&compared, Err(Error::Core(strongroom_core::Error::Damaged(_)))), "{compared:?}");
    });
}
