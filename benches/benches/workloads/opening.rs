//! A repository that holds many files in one folder: what an entry costs to make, to look up, to list; and what opening it
//! costs, the key derivation aside.

use strongroom::blocking::block_on;
use strongroom::core::engine::{Engine, OpenOptions, Unlock};
use strongroom::fs::FileSystem;
use strongroom_benches::figures::{Recorder, picks, timed};

use crate::place::Place;
use crate::{Outcome, Scale};

const BATCH: u64 = 5_000;

pub(crate) fn run(recorder: &mut Recorder, place: &Place, scale: &Scale) -> Outcome {
    let (repository, store) = place.repository(true)?;
    let (name, entries) = (place.name(), scale.entries);
    let fs = repository.fs();
    fs.create_dir("/folder")?;
    let path = |number: u64| format!("/folder/{number}");
    let (took, made) = timed(|| -> strongroom::Result<()> {
        for start in (0..entries).step_by(usize::try_from(BATCH).unwrap_or(1)) {
            fs.transact(|transaction| -> strongroom::Result<()> {
                (start..entries.min(start + BATCH)).try_for_each(|number| transaction.write(path(number), b""))
            })?;
        }
        Ok(())
    });
    made?;
    recorder.rate(&format!("{name}/folder of {entries}/create"), entries, took, None)?;
    let count = scale.reads;
    let (took, found) = timed(|| -> Outcome {
        for number in picks(17, entries).take(usize::try_from(count)?) {
            fs.metadata(path(number))?;
        }
        Ok(())
    });
    found?;
    let each = took.as_secs_f64() * 1e6 / count as f64;
    recorder.note(&format!("{name}/folder of {entries}/look up"), "µs", each)?;
    let (took, listed) = timed(|| fs.read_dir("/folder"));
    assert_eq!(listed?.len() as u64, entries);
    recorder.rate(&format!("{name}/folder of {entries}/list"), entries, took, None)?;

    let root = repository.asynchronous().engine().root_secret();
    repository.close()?;
    drop((fs, repository));
    let before = store.storage.counts();
    let (took, opened) = timed(|| -> Outcome<(Engine, FileSystem)> {
        let options = OpenOptions::new(Unlock::Root(&root));
        let engine = block_on(Engine::open(store.shared(), store.env.clone(), options))?;
        let fs = block_on(FileSystem::open(engine.clone()))?;
        block_on(fs.metadata(path(entries / 2)))?;
        Ok((engine, fs))
    });
    let (engine, _fs) = opened?;
    let after = store.storage.counts();
    recorder.note(&format!("{name}/open/{entries} files"), "ms", took.as_secs_f64() * 1e3)?;
    let requests = after.gets - before.gets + after.lists - before.lists;
    recorder.note(&format!("{name}/open/requests, {entries} files"), "gets", requests as f64)?;
    block_on(engine.close())?;
    Ok(())
}
