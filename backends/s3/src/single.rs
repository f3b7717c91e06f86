//! What a single writer needs where the server decides nothing: those of this process who put one name come one after the
//! other; and of a put of unknown effect it is remembered what it put.
//!
//! For such a put may still arrive, from somewhere on the way, and it would write over whatever was put under the name since. So
//! whoever puts something else there finds that the earlier put has taken effect: it is sent again first. A server that keeps
//! conditions would have let one of the two win as well. That goes for durable puts: other names are drawn, and nobody ever puts
//! anything else under them.
//!
//! That another process writes, too, is against what was promised, and is found out where it costs little: whoever begins to write
//! puts a number into the marker, and looks for it before and after each durable put, on which all else rests. Before it: the one
//! that came earlier puts nothing any more. After it: what it put meanwhile is not acknowledged, for the later one looked for that name
//! when it was not there yet. What is left is a put whose look was over when the other one came, and that arrives after that one's. So
//! between look and put nothing waits in line, and a look that is [`LOOK_MAX`] old is made again.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard as Guard, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join;
use object_store::PutMode;
use object_store::path::Path;
use strongroom_core::storage::{Effect, Error, ErrorKind, Name, Operation, Put, Result, Retry as Advice};
use tokio::sync::{MutexGuard, Semaphore};

use crate::config::ConditionalPut;
use crate::marker::{self, Marker};
use crate::storage::{Requests, S3Storage, made_otherwise};

/// Among how many locks the names at an address are spread.
const TURNS: usize = 64;

/// So much is remembered of durable puts that nobody knows the effect of. Most are settled at once, by the retry layer.
const LATE_BYTES_MAX: usize = 64 << 20;

/// What was looked at before so long, the time that the machine slept included, is looked at again before anything is put.
const LOOK_MAX: Duration = Duration::from_secs(20);

/// Where not even the last of so many looks is new enough, nothing is put.
const LOOKS_COUNT_MAX: usize = 3;

/// Of all storages of this process that are for a single writer.
#[derive(Clone, Debug)]
pub(crate) struct Alone {
    late: Arc<Mutex<VecDeque<Late>>>,
    addresses: Arc<Mutex<BTreeMap<String, Arc<Beside>>>>,
}

/// What those of this process who write to one address share: a server that does not answer keeps nobody from writing to others.
#[derive(Debug)]
pub(crate) struct Beside {
    turns: Vec<tokio::sync::Mutex<()>>,
    /// The number by which this process is known there, once it is; held while that is found out.
    writer: tokio::sync::Mutex<Option<String>>,
}

impl Beside {
    fn new() -> Self {
        Self { turns: (0..TURNS).map(|_| tokio::sync::Mutex::new(())).collect(), writer: tokio::sync::Mutex::default() }
    }

    /// Waits for those who put this name.
    async fn turn(&self, name: Name) -> Option<MutexGuard<'_, ()>> {
        let place = usize::from(name.as_bytes()[0]) % TURNS;
        match self.turns.get(place) {
            Some(turn) => Some(turn.lock().await),
            None => None,
        }
    }
}

#[derive(Debug)]
struct Late {
    /// The whole address of the object.
    address: String,
    bytes: Bytes,
}

impl Alone {
    /// That of this process, for as long as it lives: whoever closes a storage after an error and opens it again is still threatened
    /// by what it had sent.
    pub(crate) fn shared() -> Self {
        static SHARED: OnceLock<Alone> = OnceLock::new();
        SHARED.get_or_init(Self::new).clone()
    }

    fn new() -> Self {
        Self { late: Arc::default(), addresses: Arc::default() }
    }

    /// What may still arrive at an address.
    pub(crate) fn late(&self, address: &str) -> Option<Bytes> {
        self.lock().iter().find(|late| late.address == address).map(|late| late.bytes.clone())
    }

    /// Nobody knows whether this arrived.
    pub(crate) fn note(&self, address: String, bytes: Bytes) {
        let mut all = self.lock();
        all.retain(|late| late.address != address);
        all.push_back(Late { address, bytes });
        let mut sum: usize = all.iter().map(|late| late.bytes.len()).sum();
        while sum > LATE_BYTES_MAX {
            let Some(oldest) = all.pop_front() else { break };
            sum -= oldest.bytes.len();
        }
    }

    /// Those who write to an address.
    fn beside(&self, address: String) -> Arc<Beside> {
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        addresses.entry(address).or_insert_with(|| Arc::new(Beside::new())).clone()
    }

    /// It has arrived.
    pub(crate) fn settle(&self, address: &str) {
        self.lock().retain(|late| late.address != address);
    }

    fn lock(&self) -> Guard<'_, VecDeque<Late>> {
        self.late.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl S3Storage {
    /// Says in the marker that this process writes from now on, where it does not say so already. A handle says so once: where
    /// another process came since, it is not the later one.
    pub(crate) async fn claim(&self) -> Result<()> {
        let requests = &self.requests;
        let beside = requests.alone.beside(requests.address(""));
        let mut known = beside.writer.lock().await;
        let found = self.marker().await?;
        if let Some(marker) = found.as_ref().filter(|marker| marker.conditional_put != ConditionalPut::SingleWriter) {
            return Err(made_otherwise(marker));
        }
        if let Some(own) = requests.claim.get() {
            return is_of(own, found.as_ref()).map_err(|error| taken_over(Operation::Open, &requests.shown, error));
        }
        let writer = match found.and_then(|marker| marker.writer) {
            Some(writer) if known.as_ref() == Some(&writer) => writer,
            _ => {
                let random = requests.env.random().map_err(|error| {
                    Error::new(ErrorKind::Other, Operation::Open, &*requests.shown).with_source(error)
                })?;
                let marker = Marker::single_writer(&requests.place, random);
                self.put_marker(&marker, PutMode::Overwrite).await?;
                marker.writer.unwrap_or_default()
            }
        };
        *known = Some(writer.clone());
        let _ = requests.claim.set(writer);
        Ok(())
    }
}

/// Whether the marker names this writer; else what it is instead.
fn is_of(own: &String, found: Option<&Marker>) -> std::result::Result<(), &'static str> {
    match found {
        Some(Marker { writer: Some(writer), .. }) if writer == own => Ok(()),
        Some(Marker { conditional_put: ConditionalPut::SingleWriter, .. }) => Err(
            "another process has begun to write here, and with `conditional-put=none` only one may: end it, or this one, and open \
             it again",
        ),
        Some(_) => Err(
            "`strongroom-storage` says by now that several may write here: open it again, without `conditional-put=none`",
        ),
        None => Err(
            "`strongroom-storage`, where it stands that this process writes, is gone or is not ours any more: see to it that no other \
             process writes here, and open it again",
        ),
    }
}

fn taken_over(operation: Operation, context: &str, found: &'static str) -> Error {
    Error::new(ErrorKind::Busy, operation, context).with_retry(Advice::Useless).with_source(found)
}

impl Requests {
    fn address(&self, key: &str) -> String {
        format!("{} {} {}", self.place.endpoint, self.place.bucket, self.key(key))
    }

    /// That no other process has begun to write since this one did. Whoever only reads is not asked.
    pub(crate) async fn is_still_alone(&self, operation: Operation, context: &str) -> Result<()> {
        let Some(own) = self.claim.get() else { return Ok(()) };
        let found = self.read(operation, &self.key(marker::NAME), context, None, marker::BYTES_MAX).await?;
        let found = found.and_then(|bytes| Marker::read(&bytes).ok());
        is_of(own, found.as_ref()).map_err(|found| taken_over(operation, context, found))
    }

    /// Looks first and puts then: for those of this process alone.
    pub(crate) async fn put_alone(&self, operation: Operation, key: &Path, name: Name, bytes: Bytes) -> Result<Put> {
        let hex = name.to_hex();
        let beside = self.alone.beside(self.address(""));
        let _turn = beside.turn(name).await;
        let decides = operation == Operation::PutDurable;
        // Taken before the look and kept until the put is answered: in line behind others the put would be sent long after the look.
        let _permit = self.permits.acquire().await;
        let second = if decides { self.permits.try_acquire().ok() } else { None };
        let mut within = self.clone();
        within.permits = Arc::new(Semaphore::new(1 + usize::from(second.is_some())));
        // Until something was sent for this call, it has no effect.
        let unsent = |error: Error| error.with_effect(Effect::None);
        // Where something is there by now, another process may have been told that it is safe: nothing is sent, neither this nor what
        // may arrive late.
        if within.is_there(operation, name, &hex, decides).await.map_err(unsent)? {
            return Ok(Put::Exists);
        }
        if !decides {
            // What arrives late is what is there. And blocks are many: among their notes those of commits would be lost.
            return within.send(operation, key, &hex, PutMode::Overwrite, bytes).await;
        }
        let address = self.address(&hex);
        if let Some(earlier) = self.alone.late(&address)
            && earlier != bytes
        {
            within.send(operation, key, &hex, PutMode::Overwrite, earlier).await.map_err(unsent)?;
            self.alone.settle(&address);
            return Ok(Put::Exists);
        }
        // Noted before it is sent: a call that is dropped may have sent it.
        let is_late = self.alone.late(&address).is_some();
        self.alone.note(address.clone(), bytes.clone());
        let answer = within.send(operation, key, &hex, PutMode::Overwrite, bytes).await;
        let is_settled = match &answer {
            Ok(_) => true,
            Err(error) => error.effect() == Effect::None && !is_late,
        };
        if is_settled {
            self.alone.settle(&address);
        }
        if answer.is_ok() {
            let alone = within.is_still_alone(operation, &hex).await;
            alone.map_err(|error| error.with_effect(Effect::Unknown))?;
        }
        answer
    }

    /// Whether a blob is there, and where that `decides`, that this process is still the one that writes; as of now.
    async fn is_there(&self, operation: Operation, name: Name, hex: &str, decides: bool) -> Result<bool> {
        let is_alone = async || if decides { self.is_still_alone(operation, hex).await } else { Ok(()) };
        let now = || (self.env.now(), self.env.monotonic_nanos());
        for _ in 0..LOOKS_COUNT_MAX {
            // A machine that sleeps stops the one clock, and people set the other.
            let begun = now();
            let (alone, looked) = join(is_alone(), self.size(operation, name)).await;
            alone?;
            let ended = now();
            let took = Duration::from_millis(ended.0.saturating_sub(begun.0))
                .max(Duration::from_nanos(ended.1.saturating_sub(begun.1)));
            match looked {
                Ok(_) => return Ok(true),
                Err(error) if error.kind() == ErrorKind::NotFound && (took <= LOOK_MAX || !decides) => {
                    return Ok(false);
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::new(ErrorKind::Unavailable, operation, hex).with_source(
            "the server takes too long to say whether another process writes here: try again when the network is quicker",
        ))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use futures_util::FutureExt as _;
    use strongroom_conformance::block_on;
    use strongroom_conformance::storage::{sample_bytes, sample_name};
    use strongroom_core::env::{Clock, Env, Random, RandomUnavailable, UnixMillis};
    use strongroom_core::storage::{OpenContext, OpenMode, Storage as _};
    use strongroom_s3_server::{ACCESS_KEY, Conditional, Fault, SECRET_KEY, Seen, Server, ServerOptions, Verb};

    use super::*;
    use crate::config::S3Options;
    use crate::credentials::S3Credentials;

    #[test]
    fn what_may_arrive_late_is_remembered_until_it_has_within_a_bound() {
        let alone = Alone::new();
        let bytes = Bytes::from(vec![0; 4 << 20]);
        alone.note("a".to_owned(), Bytes::from_static(b"1"));
        assert_eq!(alone.late("a").unwrap(), "1");
        assert_eq!(alone.late("b"), None);
        alone.settle("a");
        assert_eq!(alone.late("a"), None);
        for number in 0..17 {
            alone.note(number.to_string(), bytes.clone());
            alone.note(number.to_string(), bytes.clone());
        }
        assert_eq!(alone.lock().len(), 16);
        assert!(alone.late("0").is_none() && alone.late("16").is_some());
    }

    /// A server that keeps no conditions, and two handles on a place there, as of two processes.
    async fn two_processes() -> (Server, S3Storage, S3Storage) {
        let conditional = Conditional::Ignored;
        let server = Server::start(ServerOptions { conditional, ..ServerOptions::default() }).unwrap();
        let (one, mut two) = (open(&server).await, open(&server).await);
        two.requests.alone = Alone::new();
        (server, one, two)
    }

    async fn open(server: &Server) -> S3Storage {
        let mut options = S3Options::new("bucket");
        options.endpoint = Some(server.endpoint());
        options.credentials = Some(S3Credentials::new(ACCESS_KEY, SECRET_KEY));
        options.conditional_put = ConditionalPut::SingleWriter;
        let context = OpenContext::new(strongroom::env::system().unwrap()).with_mode(OpenMode::CreateIfMissing);
        S3Storage::open(&options, &context).await.unwrap()
    }

    fn is_told(error: &Error, effect: Effect) {
        assert_eq!(
            (error.kind(), error.effect(), error.retry()),
            (ErrorKind::Busy, effect, Advice::Useless),
            "{error}"
        );
        assert!(error.to_string().contains("another process"), "{error}");
    }

    #[test]
    fn a_writer_that_another_process_comes_after_is_told_before_it_puts_anything_more() {
        block_on(async {
            let (server, one, two) = two_processes().await;
            let (first, second) = (sample_bytes(1, 100), sample_bytes(2, 100));
            assert_eq!(one.put_durable(sample_name(1), first.clone()).await.unwrap(), Put::Created);
            assert_eq!(two.put_durable(sample_name(1), second.clone()).await.unwrap(), Put::Exists);
            assert_eq!(two.put_durable(sample_name(2), second.clone()).await.unwrap(), Put::Created);
            for name in [sample_name(2), sample_name(3)] {
                is_told(&one.put_durable(name, first.clone()).await.unwrap_err(), Effect::None);
            }
            // What it had not yet heard of is not taken for settled either.
            is_told(&one.persist(&[sample_name(1)]).await.unwrap_err(), Effect::None);
            let object = |number| server.object("bucket", &sample_name(number).to_hex());
            assert_eq!([object(1), object(2), object(3)], [Some(first.clone()), Some(second), None]);
            // Opened again it is the later one.
            let again = open(&server).await;
            assert_eq!(again.put_durable(sample_name(3), first.clone()).await.unwrap(), Put::Created);
            is_told(&two.put_durable(sample_name(4), first).await.unwrap_err(), Effect::None);
        });
    }

    #[test]
    fn what_was_put_while_another_process_came_is_not_acknowledged() {
        block_on(async {
            let (server, one, two) = two_processes().await;
            one.put_durable(sample_name(1), sample_bytes(1, 100)).await.unwrap();
            server.faults().hold(&[Verb::Put]);
            std::thread::scope(|scope| {
                let putting = scope.spawn(|| block_on(one.put_durable(sample_name(2), sample_bytes(1, 100))));
                // Its put is on its way when the other one begins.
                while server.faults().held() == 0 && !putting.is_finished() {
                    std::thread::sleep(Duration::from_millis(1));
                }
                let marker = Marker::single_writer(&two.requests.place, [2; 8]);
                server.put_object("bucket", marker::NAME, marker.to_string());
                server.faults().release();
                is_told(&putting.join().unwrap().unwrap_err(), Effect::Unknown);
            });
        });
    }

    #[test]
    fn what_may_arrive_late_is_not_sent_over_what_another_process_put() {
        block_on(async {
            let (server, one, two) = two_processes().await;
            one.put_durable(sample_name(1), sample_bytes(1, 100)).await.unwrap();
            server.faults().next(&[Verb::Put], Fault::Late);
            let error = one.put_durable(sample_name(2), sample_bytes(1, 100)).await.unwrap_err();
            assert_eq!(error.effect(), Effect::Unknown, "{error}");
            drop(one);
            // Opened before the other one writes, and writes after it.
            let again = open(&server).await;
            let kept = sample_bytes(2, 100);
            assert_eq!(two.put_durable(sample_name(2), kept.clone()).await.unwrap(), Put::Created);
            assert_eq!(again.put_durable(sample_name(2), sample_bytes(3, 100)).await.unwrap(), Put::Exists);
            assert_eq!(server.object("bucket", &sample_name(2).to_hex()), Some(kept));
        });
    }

    #[test]
    fn who_created_it_and_comes_late_to_its_first_put_is_told_and_the_other_one_goes_on() {
        block_on(async {
            let (server, one, two) = two_processes().await;
            assert_eq!(two.put_durable(sample_name(1), sample_bytes(2, 100)).await.unwrap(), Put::Created);
            let marker = server.object("bucket", marker::NAME);
            is_told(&one.put_durable(sample_name(2), sample_bytes(1, 100)).await.unwrap_err(), Effect::None);
            is_told(&one.put_durable(sample_name(2), sample_bytes(1, 100)).await.unwrap_err(), Effect::None);
            assert_eq!(server.object("bucket", marker::NAME), marker);
            assert_eq!(two.put_durable(sample_name(2), sample_bytes(2, 100)).await.unwrap(), Put::Created);
        });
    }

    #[test]
    fn two_handles_of_one_process_write_side_by_side() {
        block_on(async {
            let (server, one, _) = two_processes().await;
            let other = open(&server).await;
            for (number, handle) in [&one, &other, &one, &other].into_iter().enumerate() {
                let put = handle.put_durable(sample_name(number as u64), sample_bytes(1, 100)).await;
                assert_eq!(put.unwrap(), Put::Created);
            }
        });
    }

    #[test]
    fn a_storage_that_is_for_several_writers_by_now_is_not_claimed_for_one() {
        block_on(async {
            let (server, one, two) = two_processes().await;
            let native = Marker::proven("tried", &one.requests.place, None).to_string();
            server.put_object("bucket", marker::NAME, native.clone());
            let error = two.put(sample_name(1), sample_bytes(1, 100)).await.unwrap_err();
            assert_eq!((error.kind(), error.effect()), (ErrorKind::Invalid, Effect::None), "{error}");
            assert!(error.to_string().contains("leave it out"), "{error}");
            // The one that said so before it was.
            let error = one.put_durable(sample_name(1), sample_bytes(1, 100)).await.unwrap_err();
            assert_eq!((error.kind(), error.effect()), (ErrorKind::Busy, Effect::None), "{error}");
            assert!(error.to_string().contains("several may write"), "{error}");
            // And where nobody says anything any more, that is what is told.
            server.remove_object("bucket", marker::NAME);
            let error = one.put_durable(sample_name(1), sample_bytes(1, 100)).await.unwrap_err();
            assert_eq!((error.kind(), error.effect()), (ErrorKind::Busy, Effect::None), "{error}");
            assert!(error.to_string().contains("is gone") && !error.to_string().contains("has begun"), "{error}");
            server.put_object("bucket", marker::NAME, native.clone());
            assert_eq!(server.keys("bucket"), [marker::NAME]);
            assert_eq!(server.object("bucket", marker::NAME).unwrap(), native);
        });
    }

    #[test]
    fn between_the_look_and_the_put_nothing_waits_in_line() {
        block_on(async {
            let (server, mut one, two) = two_processes().await;
            one.requests.permits = Arc::new(Semaphore::new(2));
            one.put_durable(sample_name(1), sample_bytes(1, 100)).await.unwrap();
            server.faults().hold(&[Verb::Get]);
            std::thread::scope(|scope| {
                let putting = scope.spawn(|| block_on(one.put_durable(sample_name(2), sample_bytes(1, 100))));
                while server.faults().held() < 2 && !putting.is_finished() {
                    std::thread::sleep(Duration::from_millis(1));
                }
                // While it looks, others come into the line; and once it has looked, another process.
                let mut others = std::pin::pin!(one.requests.permits.acquire_many(2));
                assert!(others.as_mut().now_or_never().is_none());
                server.faults().release();
                let others = block_on(others).unwrap();
                let other = block_on(two.put_durable(sample_name(2), sample_bytes(2, 100))).unwrap();
                drop(others);
                let put = putting.join().unwrap();
                let told = if other == Put::Created { sample_bytes(2, 100) } else { sample_bytes(1, 100) };
                assert_eq!(put.ok(), Some(Put::Created), "it had looked, and its put went at once");
                assert_eq!(server.object("bucket", &sample_name(2).to_hex()), Some(told));
            });
        });
    }

    /// Each look at the clock finds it so much later, so many times; then it stands still.
    struct Leaping {
        system: Env,
        leaps: AtomicU64,
    }

    impl Clock for Leaping {
        fn now(&self) -> UnixMillis {
            let left = self.leaps.load(Ordering::Relaxed);
            self.leaps.store(left.saturating_sub(1), Ordering::Relaxed);
            u64::MAX / 2 - left * 60_000
        }

        fn monotonic_nanos(&self) -> u64 {
            0
        }
    }

    impl Random for Leaping {
        fn fill(&self, bytes: &mut [u8]) -> std::result::Result<(), RandomUnavailable> {
            self.system.fill_random(bytes)
        }
    }

    #[test]
    fn what_was_looked_at_before_the_machine_slept_is_looked_at_again() {
        block_on(async {
            let (server, mut one, _) = two_processes().await;
            let leaping = Arc::new(Leaping { system: one.requests.env.clone(), leaps: AtomicU64::new(0) });
            one.requests.env = Env::new(leaping.clone(), leaping.clone(), None);
            let looks = |seen: Vec<Seen>, key: &str| {
                seen.iter().filter(|seen| seen.verb == Verb::Get && seen.path == format!("/bucket/{key}")).count()
            };
            for (number, leaps, wanted) in [(1, 0, 1), (2, 1, 2), (3, 3, 3)] {
                server.take_seen();
                leaping.leaps.store(leaps, Ordering::Relaxed);
                one.put_durable(sample_name(number), sample_bytes(1, 100)).await.unwrap();
                assert_eq!(looks(server.take_seen(), &sample_name(number).to_hex()), wanted, "{leaps}");
            }
            leaping.leaps.store(1000, Ordering::Relaxed);
            let error = one.put_durable(sample_name(4), sample_bytes(1, 100)).await.unwrap_err();
            assert_eq!(
                (error.kind(), error.effect(), error.retry()),
                (ErrorKind::Unavailable, Effect::None, Advice::CanHelp)
            );
            assert!(!server.keys("bucket").contains(&sample_name(4).to_hex()));
        });
    }

    #[test]
    fn a_server_that_does_not_answer_keeps_nobody_from_writing_to_another() {
        block_on(async {
            let (hanging, ..) = two_processes().await;
            let (_well, well_handle, _) = two_processes().await;
            let stuck = open(&hanging).await;
            hanging.faults().hold(&[Verb::Get]);
            std::thread::scope(|scope| {
                let waiting = scope.spawn(|| block_on(stuck.put_durable(sample_name(1), sample_bytes(1, 100))));
                while hanging.faults().held() == 0 && !waiting.is_finished() {
                    std::thread::sleep(Duration::from_millis(1));
                }
                let put = block_on(well_handle.put_durable(sample_name(1), sample_bytes(1, 100)));
                assert_eq!(put.unwrap(), Put::Created);
                assert!(!waiting.is_finished());
                hanging.faults().release();
                waiting.join().unwrap().unwrap();
            });
        });
    }

    /// Headers, for one, have names that begin alike wherever they are.
    #[test]
    fn who_takes_a_turn_at_one_server_keeps_nobody_waiting_for_the_same_name_at_another() {
        block_on(async {
            let (hanging, stuck, _) = two_processes().await;
            let (_well, well_handle, _) = two_processes().await;
            for handle in [&stuck, &well_handle] {
                handle.put_durable(sample_name(1), sample_bytes(1, 100)).await.unwrap();
            }
            hanging.faults().hold(&[Verb::Get]);
            std::thread::scope(|scope| {
                let waiting = scope.spawn(|| block_on(stuck.put_durable(sample_name(2), sample_bytes(1, 100))));
                while hanging.faults().held() == 0 && !waiting.is_finished() {
                    std::thread::sleep(Duration::from_millis(1));
                }
                let put = block_on(well_handle.put_durable(sample_name(2), sample_bytes(1, 100)));
                assert_eq!(put.unwrap(), Put::Created);
                assert!(!waiting.is_finished());
                hanging.faults().release();
                waiting.join().unwrap().unwrap();
            });
        });
    }
}
