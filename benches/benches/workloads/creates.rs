//! Files of 1 KiB, a durable commit each: by one writer, and by many at once, who share barriers.

use std::sync::Mutex;

use strongroom_benches::figures::{Recorder, random_bytes, timed};

use crate::place::Place;
use crate::{Outcome, Scale};

pub(crate) fn run(recorder: &mut Recorder, place: &Place, scale: &Scale, writers: u64) -> Outcome {
    let content = random_bytes(4, 1024);
    let (repository, store) = place.repository(true)?;
    let fs = repository.fs();
    fs.write("/first", b"")?;
    let each = scale.commits / writers;
    let tracing = store.trace(&repository)?;
    let failure = Mutex::new(None);
    let (took, ()) = timed(|| {
        std::thread::scope(|scope| {
            for writer in 0..writers {
                let (fs, content, failure) = (&fs, &content, &failure);
                scope.spawn(move || {
                    for number in 0..each {
                        if let Err(error) = fs.write(format!("/{writer}-{number}"), content) {
                            *failure.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(error);
                            return;
                        }
                    }
                });
            }
        });
    });
    if let Some(error) = failure.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner()) {
        return Err(error.into());
    }
    let trace = tracing.end(&repository, each * writers, writers)?;
    recorder.rate(&format!("{}/create/{writers}", place.name()), each * writers, took, Some(trace))?;
    repository.close()?;
    Ok(())
}
