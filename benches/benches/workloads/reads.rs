//! Random reads of 4 KiB, the storage warm, with the cache of decoded chunks off, as it is by default, and large enough.

use std::io::Write as _;

use strongroom::blocking::block_on;
use strongroom::fs::{FileSystem, OpenOptions, Tuning};
use strongroom_benches::figures::{Recorder, picks, random_bytes, timed};

use crate::place::Place;
use crate::{Outcome, Scale};

pub(crate) fn run(recorder: &mut Recorder, place: &Place, scale: &Scale) -> Outcome {
    let source = random_bytes(5, scale.cached_bytes);
    let length = source.len() as u64;
    let (repository, _store) = place.repository(true)?;
    let mut file = repository.fs().create_file("/file")?;
    file.write_all(&source)?;
    file.close()?;
    let engine = repository.asynchronous().engine();
    let cold = Tuning { cache_bytes: 0, ..Tuning::default() };
    let whole = Tuning { cache_bytes: 2 * length, ..Tuning::default() };
    for (variant, tuning) in [("cache-off", cold), ("cache-default", Tuning::default()), ("cache-on", whole)] {
        let fs = block_on(FileSystem::open_with(engine.clone(), tuning))?;
        let file = block_on(fs.open_file("/file", OpenOptions::new()))?;
        let mut page = [0; 4096];
        let mut read = |offset: u64| -> Outcome {
            let got = block_on(file.read_at(offset, &mut page))?;
            let at = usize::try_from(offset)?;
            if page.get(..got) != source.get(at..at + 4096) {
                return Err(format!("other bytes than were written, at {offset}").into());
            }
            Ok(())
        };
        if variant != "cache-off" {
            (0..length - 4095).step_by(4096).try_for_each(&mut read)?;
        }
        let (took, done) = timed(|| {
            let count = usize::try_from(scale.reads)?;
            picks(7, length - 4096).take(count).try_for_each(&mut read)
        });
        done?;
        recorder.rate(&format!("{}/random-reads/{variant}", place.name()), scale.reads, took, None)?;
    }
    repository.close()?;
    Ok(())
}
