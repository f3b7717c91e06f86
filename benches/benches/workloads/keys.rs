//! The key-value engine, with keys of 16 bytes.

use strongroom_benches::figures::{Recorder, picks, random_bytes, timed};

use crate::place::Place;
use crate::{Outcome, Scale};

const LARGE: usize = 64 << 10;
const LARGE_BATCH: u64 = 64;
const SMALL: usize = 100;
const SMALL_BATCH: u64 = 1_000;

/// The key of a number: the same numbers in another order than they are put in.
fn key(number: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    key[8..].copy_from_slice(&number.to_be_bytes());
    key
}

/// Values of 64 KiB: put one by one, each durable; in batches; read at random.
pub(crate) fn large(recorder: &mut Recorder, place: &Place, scale: &Scale) -> Outcome {
    let (repository, store) = place.repository(true)?;
    let kv = repository.kv();
    let name = place.name();
    let singles = scale.values / 2;
    let batches = (scale.values / LARGE_BATCH).max(1);
    let held = singles + batches * LARGE_BATCH;
    let values: Vec<Vec<u8>> = (0..held).map(|number| random_bytes(number + 100, LARGE)).collect();
    let numbered = || (0..).zip(&values);
    let tracing = store.trace(&repository)?;
    let (took, put) =
        timed(|| numbered().take(singles as usize).try_for_each(|(number, value)| kv.put(key(number), value)));
    put?;
    let trace = tracing.end(&repository, singles, 1)?;
    recorder.rate(&format!("{name}/kv/put 64 KiB, durable each"), singles, took, Some(trace))?;

    let tracing = store.trace(&repository)?;
    let (took, put) = timed(|| -> strongroom::core::Result<()> {
        let rest: Vec<(u64, &Vec<u8>)> = numbered().skip(singles as usize).collect();
        rest.chunks(LARGE_BATCH as usize).try_for_each(|batch| {
            kv.transact(|transaction| -> strongroom::core::Result<()> {
                batch.iter().try_for_each(|(number, value)| transaction.put(key(*number), value))
            })
        })
    });
    put?;
    let trace = tracing.end(&repository, batches, 1)?;
    let bytes = batches * LARGE_BATCH * LARGE as u64;
    let rate = bytes as f64 / 1e6 / took.as_secs_f64().max(1e-9);
    recorder.note_traced(&format!("{name}/kv/put 64 KiB, batches of 64"), "MB/s", rate, Some(trace))?;

    let count = scale.reads.min(4 * held);
    let (took, got) = timed(|| -> Outcome {
        for number in picks(11, held).take(usize::try_from(count)?) {
            if kv.get(key(number))?.as_deref() != values.get(usize::try_from(number)?).map(Vec::as_slice) {
                return Err(format!("key {number} has another value than was put").into());
            }
        }
        Ok(())
    });
    got?;
    recorder.rate(&format!("{name}/kv/get 64 KiB"), count, took, None)?;
    repository.close()?;
    Ok(())
}

/// Values of 100 bytes in batches of 1,000; then random gets.
pub(crate) fn small(recorder: &mut Recorder, place: &Place, scale: &Scale) -> Outcome {
    let (repository, store) = place.repository(true)?;
    let kv = repository.kv();
    let name = place.name();
    let value = random_bytes(12, SMALL);
    let batches = scale.small_values / SMALL_BATCH;
    let total = batches * SMALL_BATCH;
    let tracing = store.trace(&repository)?;
    let (took, put) = timed(|| -> strongroom::core::Result<()> {
        for batch in 0..batches {
            kv.transact(|transaction| -> strongroom::core::Result<()> {
                for number in 0..SMALL_BATCH {
                    transaction.put(key(batch * SMALL_BATCH + number), &value)?;
                }
                Ok(())
            })?;
        }
        Ok(())
    });
    put?;
    let trace = tracing.end(&repository, batches, 1)?;
    recorder.rate(&format!("{name}/kv/put 100 B, {total} in batches of 1,000"), total, took, Some(trace))?;
    let count = scale.reads;
    let (took, got) = timed(|| -> Outcome {
        for number in picks(13, total).take(usize::try_from(count)?) {
            if kv.get(key(number))?.as_deref() != Some(value.as_slice()) {
                return Err(format!("key {number} has another value than was put").into());
            }
        }
        Ok(())
    });
    got?;
    recorder.rate(&format!("{name}/kv/get 100 B of {total}"), count, took, None)?;
    repository.close()?;
    Ok(())
}
