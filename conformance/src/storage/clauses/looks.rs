//! What others see of a blob while it is put: nothing of it, or all.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use bytes::Bytes;
use futures_lite::future::{block_on, yield_now};
use futures_util::future::join;
use strongroom_core::storage::{ErrorKind, Name, Operation, Put, Storage};

use crate::storage::outcome::{Answer as _, Breach, difference, ensure, ensure_eq, whole};
use crate::storage::{Place, open, sample_bytes, sample_name};

/// So many blobs are put under the eyes of others; half of them where tasks take turns.
const BLOBS: u64 = 8;
/// Long enough that writing one takes a while.
const BLOB_BYTES: u32 = 1 << 20;
/// How many look at once.
const LOOKERS: u64 = 3;

/// Puts large blobs, and looks at each all the while: from other threads, and from a task that takes turns with the put.
pub(super) async fn never_seen_in_part(place: &dyn Place, operation: Operation) -> Result<(), Breach> {
    let (writer, other) = (open(place).await?, open(place).await?);
    let max_bytes = writer.capabilities().block_bytes_max;
    let length = BLOB_BYTES.min(max_bytes - max_bytes / 4) as usize;
    let blob = |number| (blob_name(number), sample_bytes(number, length));

    for number in 0..BLOBS / 2 {
        let (name, bytes) = blob(number);
        let is_over = Cell::new(false);
        look(&*other, name, &bytes).await?;
        let putting = async {
            let outcome = put(&*writer, operation, name, bytes.clone()).await;
            is_over.set(true);
            outcome
        };
        let looking = async {
            while !is_over.get() {
                look(&*other, name, &bytes).await?;
                yield_now().await;
            }
            look(&*other, name, &bytes).await
        };
        let (put, looked) = join(putting, looking).await;
        put.and(looked)?;
    }

    let (at, is_over) = (AtomicU64::new(BLOBS / 2), AtomicBool::new(false));
    let look_on = |storage: Arc<dyn Storage>| {
        while !is_over.load(Ordering::SeqCst) {
            let (name, bytes) = blob(at.load(Ordering::SeqCst));
            // Until the writer is at the next one.
            while !is_over.load(Ordering::SeqCst) && name == blob_name(at.load(Ordering::SeqCst)) {
                block_on(look(&*storage, name, &bytes))?;
            }
        }
        Ok::<(), Breach>(())
    };
    thread::scope(|scope| {
        let lookers: Vec<_> = (0..LOOKERS)
            .map(|looker| {
                let storage = if looker == 0 { writer.clone() } else { other.clone() };
                let look_on = &look_on;
                scope.spawn(move || look_on(storage))
            })
            .collect();
        let put_all = || {
            for number in BLOBS / 2..BLOBS {
                at.store(number, Ordering::SeqCst);
                let (name, bytes) = blob(number);
                block_on(put(&*writer, operation, name, bytes))?;
            }
            Ok(())
        };
        // Whatever happens, those who look must be told.
        let ends = Ends(&is_over);
        let put = put_all();
        drop(ends);
        let looked = lookers
            .into_iter()
            .map(|looker| looker.join().unwrap_or_else(|_| Err(Breach::new("a task panicked"))))
            .collect::<Result<Vec<()>, Breach>>();
        put.and(looked.map(drop))
    })?;
    for number in 0..BLOBS {
        writer.delete(blob_name(number)).await.answers("a delete")?;
    }
    Ok(())
}

struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn blob_name(number: u64) -> Name {
    sample_name(0x6c6f_6f6b + number)
}

async fn put(storage: &dyn Storage, operation: Operation, name: Name, bytes: Bytes) -> Result<(), Breach> {
    let outcome = match operation {
        Operation::PutDurable => storage.put_durable(name, bytes).await,
        _ => storage.put(name, bytes).await,
    };
    ensure_eq!(outcome.answers("a put under the eyes of others")?, Put::Created, "a put under the eyes of others");
    Ok(())
}

async fn look(storage: &dyn Storage, name: Name, bytes: &Bytes) -> Result<(), Breach> {
    match storage.size(name).await {
        Ok(size) => ensure_eq!(size, bytes.len() as u64, "the size of {name} while it is put"),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(Breach::new(format!("the size of {name} while it is put failed: {error}"))),
    }
    let found = whole(storage, name).await?;
    let is_whole = found.as_ref().is_none_or(|found| found == bytes);
    ensure!(is_whole, "while it is put, {name} is {}", difference(found.as_ref(), Some(bytes)));
    Ok(())
}
