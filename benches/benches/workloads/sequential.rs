//! One large file: written in 64 KiB pieces and durable at the end, then read back.

use std::io::{Read as _, Write as _};

use strongroom::blocking::FileSystem;
use strongroom_benches::figures::{Recorder, random_bytes, timed};

use crate::place::{Place, forget_pages};
use crate::{Outcome, Scale};

const PIECE: usize = 64 << 10;

pub(crate) fn run(recorder: &mut Recorder, place: &Place, scale: &Scale, dedup: bool) -> Outcome {
    let source = random_bytes(3, scale.file_bytes);
    let length = source.len() as u64;
    let variant = if dedup { "dedup-on" } else { "dedup-off" };
    let name = place.name();
    let (repository, store) = place.repository(dedup)?;
    let tracing = store.trace(&repository)?;
    let fs = repository.fs();
    let (took, written) = timed(|| -> Outcome {
        let mut file = fs.create_file("/large")?;
        for part in source.chunks(PIECE) {
            file.write_all(part)?;
        }
        file.close()?;
        Ok(())
    });
    written?;
    let trace = tracing.end(&repository, 1, 1)?;
    let rate = length as f64 / 1e6 / took.as_secs_f64().max(1e-9);
    recorder.note_traced(&format!("{name}/write/{variant}"), "MB/s", rate, Some(trace))?;
    if !dedup {
        return Ok(()); // it is read the same way
    }
    let (took, read) = timed(|| read_all(&fs));
    assert_eq!(read?, length);
    recorder.throughput(&format!("{name}/read/warm"), length, took)?;
    if place.is_file() {
        repository.close()?;
        forget_pages(store.path())?;
        let repository = store.open()?;
        let fs = repository.fs();
        let (took, read) = timed(|| read_all(&fs));
        assert_eq!(read?, length);
        recorder.throughput(&format!("{name}/read/cold"), length, took)?;
        repository.close()?;
    }
    Ok(())
}

fn read_all(fs: &FileSystem) -> Outcome<u64> {
    let mut buffer = vec![0; PIECE];
    let mut file = fs.open_file("/large")?;
    let mut total = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(total),
            read => total += read as u64,
        }
    }
}
