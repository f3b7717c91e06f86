//! What one commit takes, without and with a defragmenter at work beside it: the median and the slowest in a hundred.

use std::time::Duration;

use strongroom::blocking::{FileSystem, block_on};
use strongroom::{DefragmentOptions, DefragmentState};
use strongroom_benches::figures::{Recorder, random_bytes, timed};

use crate::place::Place;
use crate::{Outcome, Scale};

const FILE_BYTES: usize = 16 << 10;

pub(crate) fn run(recorder: &mut Recorder, place: &Place, scale: &Scale) -> Outcome {
    let (repository, _store) = place.undisturbed_repository()?;
    let fs = repository.fs();
    // An eighth is left, all of it in sparse blocks.
    for first in (0..scale.files).step_by(100) {
        fs.transact(|transaction| {
            (first..scale.files.min(first + 100))
                .try_for_each(|file| transaction.write(format!("/{file}"), random_bytes(file, FILE_BYTES)))
        })?;
    }
    fs.transact(|transaction| {
        (0..scale.files).filter(|file| file % 8 > 0).try_for_each(|file| transaction.remove_file(format!("/{file}")))
    })?;
    let commits = (scale.commits / 4).max(16);
    note(recorder, &format!("{}/beside/nothing", place.name()), latencies(&fs, "quiet", commits)?)?;
    // With its usual budget, and at once.
    let options = DefragmentOptions { garbage_bytes_min: 0, delay: Duration::ZERO, ..DefragmentOptions::default() };
    let defragmenter = repository.asynchronous().engine().defragmenter(options)?;
    let beside = latencies(&fs, "beside", commits)?;
    if defragmenter.status().state != DefragmentState::Working && !place.smoke {
        return Err("the defragmenter was done before the commits were".into());
    }
    block_on(defragmenter.stop());
    note(recorder, &format!("{}/beside/defragmenter", place.name()), beside)?;
    repository.close()?;
    Ok(())
}

fn latencies(fs: &FileSystem, prefix: &str, commits: u64) -> Outcome<Vec<Duration>> {
    let content = random_bytes(5, 1024);
    let mut took = Vec::new();
    for number in 0..commits {
        let (duration, written) = timed(|| fs.write(format!("/{prefix}-{number}"), &content));
        written?;
        took.push(duration);
    }
    took.sort_unstable();
    Ok(took)
}

fn note(recorder: &mut Recorder, row: &str, sorted: Vec<Duration>) -> Outcome {
    let micros = |percent: usize| sorted.get(sorted.len() * percent / 100).map_or(0.0, |took| took.as_secs_f64() * 1e6);
    recorder.note(&format!("{row}/median"), "µs", micros(50))?;
    recorder.note(&format!("{row}/99th"), "µs", micros(99))?;
    Ok(())
}
