//! Appends of 1 KiB to one file, a durable commit each: the rate in the first and last tenth of a ladder, which must not
//! fall, and the most that was stored meanwhile.

use std::io::Write as _;

use strongroom::fs::OpenOptions;
use strongroom_benches::figures::{Recorder, random_bytes, timed};

use crate::place::Place;
use crate::{Outcome, Scale};

pub(crate) fn run(recorder: &mut Recorder, place: &Place, scale: &Scale) -> Outcome {
    let content = random_bytes(6, 1024);
    let (repository, store) = place.repository(true)?;
    let mut file =
        repository.fs().open_file_with("/log", OpenOptions::new().read(false).write(true).append(true).create(true))?;
    let rung = scale.appends / 10;
    let mut peak = 0;
    for (tenth, step) in (0..10).zip(["first", "", "", "", "", "", "", "", "", "last"]) {
        let tracing = store.trace(&repository)?;
        let (took, appended) = timed(|| -> Outcome {
            for _ in 0..rung {
                file.write_all(&content)?;
                file.flush()?;
            }
            Ok(())
        });
        appended?;
        let trace = tracing.end(&repository, rung, 1)?;
        if !step.is_empty() {
            let row = format!("{}/append/{step} tenth of {}", place.name(), scale.appends);
            recorder.rate(&row, rung, took, Some(trace))?;
        }
        peak = peak.max(store.stored_bytes()?);
        let expected = (tenth + 1) * rung * 1024;
        assert_eq!(repository.fs().metadata("/log")?.size, expected, "what was acknowledged is there");
    }
    let row = format!("{}/append/peak stored of {}", place.name(), scale.appends);
    recorder.note(&row, "MB", peak as f64 / 1e6)?;
    drop(file);
    repository.close()?;
    Ok(())
}
