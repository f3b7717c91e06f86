//! What each step could do alone: the bounds beside the figures of the same round.

use std::hint::black_box;
use std::io::{Read as _, Write as _};

use strongroom::Suite;
use strongroom::core::crypto::{BlockKey, Secret};
use strongroom_benches::figures::{Recorder, random_bytes, timed};
use strongroom_benches::settings::Settings;

use crate::place::{Kind, Place, forget_pages};
use crate::{Outcome, Scale};

const PIECE: usize = 64 << 10;

pub(crate) fn run(recorder: &mut Recorder, settings: &Settings, scale: &Scale) -> Outcome {
    processor(recorder, scale)?;
    plain_file(recorder, &Place::new(Kind::File, None, settings), scale)
}

fn processor(recorder: &mut Recorder, scale: &Scale) -> Outcome {
    let source = random_bytes(1, scale.file_bytes);
    let mut target = vec![1; source.len()];
    let length = source.len() as u64;
    let (took, ()) = timed(|| target.copy_from_slice(&source));
    recorder.throughput("limit/memcpy", length, took)?;
    let secret = Secret::from_bytes([7; 32]);
    let keys = [
        (Suite::Aes256Gcm.to_string(), BlockKey::new(Suite::Aes256Gcm, &secret)),
        (format!("{}, portable", Suite::Aes256Gcm), BlockKey::portable(Suite::Aes256Gcm, &secret)),
        (Suite::XChaCha20Poly1305.to_string(), BlockKey::new(Suite::XChaCha20Poly1305, &secret)),
    ];
    for (name, key) in keys {
        let seal = || -> Result<(), strongroom::core::crypto::CryptoError> {
            for (index, piece) in (0..).zip(target.chunks_mut(PIECE)) {
                key.seal(index, b"associated", piece)?;
            }
            Ok(())
        };
        let (took, sealed) = timed(seal);
        sealed?;
        recorder.throughput(&format!("limit/seal {name}, 64 KiB"), length, took)?;
    }
    let (took, ()) = timed(|| {
        for piece in source.chunks(PIECE) {
            black_box(blake3::keyed_hash(&[7; 32], piece));
        }
    });
    recorder.throughput("limit/BLAKE3 keyed, 64 KiB", length, took)?;
    let (took, cut) = timed(|| fastcdc::v2020::FastCDC::new(&source, 32 << 10, 64 << 10, 256 << 10).count());
    black_box(cut);
    recorder.throughput("limit/fastcdc 32/64/256 KiB", length, took)?;
    let mut compressed = vec![0; lz4_flex::block::get_maximum_output_size(PIECE)];
    let (took, compressing) = timed(|| -> Result<usize, lz4_flex::block::CompressError> {
        source.chunks(PIECE).map(|piece| lz4_flex::block::compress_into(piece, &mut compressed)).sum()
    });
    black_box(compressing?);
    recorder.throughput("limit/LZ4 on random data, 64 KiB", length, took)?;
    Ok(())
}

fn plain_file(recorder: &mut Recorder, place: &Place, scale: &Scale) -> Outcome {
    let source = random_bytes(2, scale.file_bytes);
    let length = source.len() as u64;
    let folder = place.folder()?;
    let path = folder.path().join("plain");
    let (took, written) = timed(|| -> std::io::Result<()> {
        let mut file = std::fs::File::create(&path)?;
        for part in source.chunks(PIECE) {
            file.write_all(part)?;
        }
        file.sync_all()
    });
    written?;
    recorder.throughput("limit/plain file, write + fsync", length, took)?;
    let mut buffer = vec![0; PIECE];
    for temperature in ["warm", "cold"] {
        if temperature == "cold" {
            forget_pages(folder.path())?;
        }
        let (took, read) = timed(|| -> std::io::Result<u64> {
            let mut file = std::fs::File::open(&path)?;
            let mut total = 0;
            loop {
                match file.read(&mut buffer)? {
                    0 => return Ok(total),
                    read => total += read as u64,
                }
            }
        });
        assert_eq!(read?, length);
        recorder.throughput(&format!("limit/plain file, {temperature} read"), length, took)?;
    }
    let mut file = std::fs::File::create(folder.path().join("log"))?;
    let appends = scale.commits.min(512);
    let (took, appended) = timed(|| -> std::io::Result<()> {
        for piece in source.chunks(PIECE).cycle().take(usize::try_from(appends).unwrap_or(usize::MAX)) {
            file.write_all(piece)?;
            file.sync_data()?;
        }
        Ok(())
    });
    appended?;
    recorder.rate("limit/64 KiB append + fdatasync", appends, took, None)?;
    Ok(())
}
