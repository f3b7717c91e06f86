//! What `statfs` asks for, of a repository that holds many small files: while nodes are in memory, and when nothing is.

use strongroom_benches::figures::{Recorder, timed};

use crate::place::Place;
use crate::{Outcome, Scale};

const BATCH: u64 = 5_000;
/// Files in one folder.
const TOGETHER: u64 = 100;

pub(crate) fn run(recorder: &mut Recorder, place: &Place, scale: &Scale) -> Outcome {
    let (repository, _store) = place.repository(true)?;
    let (name, files) = (place.name(), scale.entries);
    let fs = repository.fs();
    for start in (0..files).step_by(usize::try_from(BATCH)?) {
        fs.transact(|transaction| -> strongroom::Result<()> {
            (start..files.min(start + BATCH)).try_for_each(|number| {
                let folder = number / TOGETHER;
                if number % TOGETHER == 0 {
                    transaction.create_dir(format!("/{folder}"))?;
                }
                transaction.write(format!("/{folder}/{number}"), number.to_le_bytes().repeat(32))
            })
        })?;
    }
    let expected = fs.usage("/")?;
    assert_eq!((expected.files, expected.logical_bytes), (files, files * 256));
    for (state, is_dropped) in [("", false), (", nothing in memory", true)] {
        if is_dropped {
            repository.drop_caches();
        }
        let (took, summary) = timed(|| fs.summary());
        assert_eq!(summary?.usage, expected);
        recorder.note(&format!("{name}/summary of {files} files{state}"), "ms", took.as_secs_f64() * 1e3)?;
    }
    repository.close()?;
    Ok(())
}
