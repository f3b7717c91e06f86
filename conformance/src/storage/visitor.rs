//! Another process beside this one. The suite knows it only as [`Place::process_death`] starts it, and nothing of how; so the
//! two talk through the storage, by blobs.

use std::thread;
use std::time::Duration;

use bytes::Bytes;
use futures_lite::future::block_on;
use strongroom_core::storage::{ErrorKind, Name, Put, Result, Storage, StorageExt as _};

use super::outcome::{Answer as _, Breach, ensure, ensure_holds};
use super::{Place, sample_bytes, sample_name};

/// Between two looks at what another does.
pub(super) const PAUSE: Duration = Duration::from_millis(1);

/// So many looks a visitor takes for what the suite does, and then goes on: it is not to outlive a suite that died.
const VISITOR_LOOKS: u32 = 60_000;

/// So many names both try to create, once they are seen to be at the same point.
const RACES: u64 = 24;

/// What is in a blob that matters by being there.
const SIGNAL: Bytes = Bytes::from_static(b"here");

/// As long as this is there, the visitor stays.
fn stay() -> Name {
    sample_name(0x7374_6179)
}

/// The visitor is there.
fn here() -> Name {
    sample_name(0x6865_7265)
}

/// Where this is, the visitor is to race with the suite.
fn race() -> Name {
    sample_name(0x7261_6365)
}

/// Both put it.
fn contested(number: u64) -> Name {
    sample_name(0x636f_6e74_0000 + number)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Suite,
    Visitor,
}

impl Side {
    fn other(self) -> Self {
        match self {
            Self::Suite => Self::Visitor,
            Self::Visitor => Self::Suite,
        }
    }

    /// It is at this race.
    fn ready(self, number: u64) -> Name {
        sample_name(0x7265_6164_0000 + 1000 * self as u64 + number)
    }

    /// It was told that it won this race.
    fn won(self, number: u64) -> Name {
        sample_name(0x776f_6e00_0000 + 1000 * self as u64 + number)
    }

    fn bytes(self) -> Bytes {
        sample_bytes(0x7369_6465 + self as u64, 3000)
    }
}

/// By `get`, which is tried most of all.
async fn is_there(storage: &dyn Storage, name: Name) -> Result<bool> {
    match storage.get_all(name, u64::MAX).await {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// What the other process does, if it is asked to.
pub(super) async fn visit(storage: &dyn Storage) -> Result<()> {
    if !is_there(storage, stay()).await? {
        return Ok(());
    }
    let races = is_there(storage, race()).await?;
    storage.put(here(), SIGNAL).await?;
    if races {
        run_races(storage, Side::Visitor).await?;
        // The last one is ended, and told.
        storage.put(Side::Visitor.ready(RACES), SIGNAL).await?;
    }
    for _ in 0..VISITOR_LOOKS {
        if !is_there(storage, stay()).await? {
            break;
        }
        thread::sleep(PAUSE);
    }
    Ok(())
}

/// At each race waits for the other side, so that both begin at once; and ends where the suite gave up.
async fn run_races(storage: &dyn Storage, side: Side) -> Result<()> {
    for number in 0..RACES {
        storage.put(side.ready(number), SIGNAL).await?;
        for look in 0.. {
            if is_there(storage, side.other().ready(number)).await? {
                break;
            }
            if !is_there(storage, stay()).await? || look > VISITOR_LOOKS {
                return Ok(());
            }
            // At first without a pause, to lose no time when the other is there.
            if look < 1000 { thread::yield_now() } else { thread::sleep(PAUSE) }
        }
        let outcome = match number % 2 {
            0 => storage.put(contested(number), side.bytes()).await?,
            _ => storage.put_durable(contested(number), side.bytes()).await?,
        };
        if outcome == Put::Created {
            storage.put(side.won(number), SIGNAL).await?;
        }
    }
    Ok(())
}

/// Whether another process was there: then `look` was called, while it stayed.
///
/// `before` is called when it was started, and may be there or not.
pub(super) async fn beside_another_process(
    place: &dyn Place,
    storage: &dyn Storage,
    before: impl FnOnce() -> std::result::Result<(), Breach>,
    look: impl AsyncFnOnce() -> std::result::Result<(), Breach>,
) -> std::result::Result<bool, Breach> {
    storage.put(stay(), SIGNAL).await.answers("a put")?;
    let came = thread::scope(|scope| {
        let process = scope.spawn(|| place.process_death(1));
        let meeting = block_on(async {
            before()?;
            let came = wait_for(place, storage, here(), || process.is_finished()).await?;
            if came {
                look().await?;
            }
            Ok(came)
        });
        // Whatever was found, it must not wait for us.
        let leaving = block_on(storage.delete(stay())).answers("a delete");
        let end = process.join().map_err(|_| Breach::new("the place panicked when it was to start another process"))?;
        let came = meeting?;
        leaving?;
        Ok((came, end))
    })?;
    match came {
        (true, Some(_)) => Ok(true),
        (false, None) => Ok(false),
        (false, Some(_)) => Err(Breach::new(
            "another process opened this place, and did not see there what this one put, or is not seen: the storage says \
             that it reaches it (or the place does not let it do `work_until_killed`)",
        )),
        (true, None) => Err(Breach::new("the place started another process, and says that it cannot")),
    }
}

/// Whether the blob came; not where the process ended without it, or all patience did.
async fn wait_for(
    place: &dyn Place,
    storage: &dyn Storage,
    name: Name,
    is_over: impl Fn() -> bool,
) -> std::result::Result<bool, Breach> {
    let mut looks_left = looks(place.patience());
    loop {
        // Asked for first: what it put before it ended is there then.
        let is_last = is_over() || looks_left == 0;
        if is_there(storage, name).await.answers("looking for what another process puts")? {
            return Ok(true);
        }
        if is_last {
            return Ok(false);
        }
        looks_left -= 1;
        thread::sleep(PAUSE);
    }
}

/// How many looks fill this time.
pub(super) fn looks(time: Duration) -> u64 {
    u64::try_from(time.as_nanos() / PAUSE.as_nanos()).unwrap_or(u64::MAX)
}

/// Nothing of the other process is there yet.
pub(super) async fn ensure_nobody_came(storage: &dyn Storage, otherwise: &str) -> std::result::Result<(), Breach> {
    ensure!(!is_there(storage, here()).await.answers("looking for what another process puts")?, "{otherwise}");
    Ok(())
}

/// Both put the same names at once; of each pair one must be told that it created it, and that one's bytes are there. False where
/// there is no other process.
pub(super) async fn race_with_another_process(
    place: &dyn Place,
    storage: &dyn Storage,
) -> std::result::Result<bool, Breach> {
    storage.put(race(), SIGNAL).await.answers("a put")?;
    beside_another_process(
        place,
        storage,
        || Ok(()),
        async || {
            run_races(storage, Side::Suite).await.answers("a race with another process")?;
            let ended = wait_for(place, storage, Side::Visitor.ready(RACES), || false).await?;
            ensure!(ended, "another process that puts the names that this one puts does not come to an end");
            for number in 0..RACES {
                let name = contested(number);
                let mut winners = Vec::new();
                for side in [Side::Suite, Side::Visitor] {
                    if is_there(storage, side.won(number)).await.answers("looking for a name")? {
                        winners.push(side);
                    }
                }
                let [winner] = winners.as_slice() else {
                    return Err(Breach::new(format!(
                        "of two processes that put {name} at once, {} created it",
                        winners.len()
                    )));
                };
                let when = "put by two processes at once";
                ensure_holds(storage, name, Some(&winner.bytes()), when).await?;
            }
            Ok(())
        },
    )
    .await
}
