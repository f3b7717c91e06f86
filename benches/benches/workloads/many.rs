//! Thousands of files of 1 to 4 KiB in one transaction, and what they take in storage once all is tidy.

use strongroom::blocking::Repository;
use strongroom_benches::figures::{Recorder, picks, random_bytes, timed};

use crate::place::Place;
use crate::{Outcome, Scale};

pub(crate) fn run(recorder: &mut Recorder, place: &Place, scale: &Scale) -> Outcome {
    let source = random_bytes(8, 64 << 10);
    let contents: Vec<Vec<u8>> = (1..=scale.files)
        .zip(picks(9, 3073))
        .map(|(seed, more)| {
            // Each of its own content: a slice of the noise with its number in front.
            let mut content = source.get(..1024 + more as usize).unwrap_or_default().to_vec();
            content.splice(..8, seed.to_le_bytes());
            content.rotate_left(seed as usize % 1024);
            content.iter_mut().for_each(|byte| *byte ^= seed.wrapping_mul(0x9d) as u8);
            content
        })
        .collect();
    let logical: u64 = contents.iter().map(|content| content.len() as u64).sum();
    let (repository, store) = place.repository(true)?;
    let fs = repository.fs();
    let tracing = store.trace(&repository)?;
    let (took, stored) = timed(|| {
        fs.transact(|transaction| -> strongroom::Result<()> {
            for (number, content) in contents.iter().enumerate() {
                transaction.write(format!("/{number}"), content)?;
            }
            Ok(())
        })
    });
    stored?;
    let trace = tracing.end(&repository, 1, 1)?;
    let name = place.name();
    recorder.note_traced(&format!("{name}/many-files/{}", scale.files), "s", took.as_secs_f64(), Some(trace))?;
    tidy(&repository)?;
    let headers = 2 * u64::from(place.block_bytes()?);
    let stored = store.stored_bytes()?;
    let ratio = stored.saturating_sub(headers) as f64 / logical as f64;
    recorder.note(&format!("{name}/many-files/stored:logical"), "×", ratio)?;
    repository.close()?;
    Ok(())
}

/// Packs what is there, and gives back what nobody needs.
pub(crate) fn tidy(repository: &Repository) -> Outcome {
    repository.compact(strongroom::CompactOptions::default())?;
    repository.close()?;
    Ok(())
}
