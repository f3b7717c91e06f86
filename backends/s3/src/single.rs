//! What a single writer needs where the server decides nothing: those of this process who put one name come one after the
//! other; and of a put of unknown effect it is remembered what it put.
//!
//! For such a put may still arrive, from somewhere on the way, and it would write over whatever was put under the name since. So
//! whoever puts something else there finds that the earlier put has taken effect: it is sent again first. A server that keeps
//! conditions would have let one of the two win as well.
//!
//! That another process writes, too, is against what was promised, and is found out where it costs little: whoever begins to write
//! puts a number into the marker, and looks for it before and after each durable put, on which all else rests. Before it: the one
//! that came earlier puts nothing any more. After it: what it put meanwhile is not acknowledged, for the later one looked for that name
//! when it was not there yet. What is left is a put that was on its way when the other one came, and arrives after that one's.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard as Guard, OnceLock, PoisonError};

use bytes::Bytes;
use futures_util::future::join;
use object_store::PutMode;
use object_store::path::Path;
use strongroom_core::storage::{Effect, Error, ErrorKind, Name, Operation, Put, Result, Retry as Advice};
use tokio::sync::MutexGuard;

use crate::marker::{self, Marker};
use crate::storage::{Requests, S3Storage};

/// Among how many locks the names are spread.
const TURNS: usize = 64;

/// So much is remembered of puts that nobody knows the effect of. Most are settled at once, by the retry layer.
const LATE_BYTES_MAX: usize = 64 << 20;

/// Of all storages of this process that are for a single writer.
#[derive(Clone, Debug)]
pub(crate) struct Alone {
    turns: Arc<[tokio::sync::Mutex<()>]>,
    late: Arc<Mutex<VecDeque<Late>>>,
    /// By which numbers this process is known, and where.
    writers: Arc<tokio::sync::Mutex<BTreeMap<String, String>>>,
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
        Self {
            turns: (0..TURNS).map(|_| tokio::sync::Mutex::new(())).collect(),
            late: Arc::default(),
            writers: Arc::default(),
        }
    }

    /// Waits for those who put this name.
    pub(crate) async fn turn(&self, name: Name) -> Option<MutexGuard<'_, ()>> {
        let place = usize::from(name.as_bytes()[0]) % TURNS;
        match self.turns.get(place) {
            Some(turn) => Some(turn.lock().await),
            None => None,
        }
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

    /// It has arrived.
    pub(crate) fn settle(&self, address: &str) {
        self.lock().retain(|late| late.address != address);
    }

    fn lock(&self) -> Guard<'_, VecDeque<Late>> {
        self.late.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl S3Storage {
    /// Says in the marker that this process writes from now on, where it does not say so already.
    pub(crate) async fn claim(&self) -> Result<()> {
        let requests = &self.requests;
        let address = requests.address("");
        let mut writers = requests.alone.writers.lock().await;
        let found = self.marker().await?.and_then(|marker| marker.writer);
        let writer = match found {
            Some(writer) if writers.get(&address) == Some(&writer) => writer,
            _ => {
                let random = self.env.random().map_err(|error| {
                    Error::new(ErrorKind::Other, Operation::Open, &*requests.shown).with_source(error)
                })?;
                let marker = Marker::single_writer(&requests.place, random);
                self.put_marker(&marker, PutMode::Overwrite).await?;
                marker.writer.unwrap_or_default()
            }
        };
        writers.insert(address, writer.clone());
        let _ = requests.claim.set(writer);
        Ok(())
    }
}

impl Requests {
    fn address(&self, key: &str) -> String {
        format!("{} {} {}", self.place.endpoint, self.place.bucket, self.key(key))
    }

    /// That no other process has begun to write since this one did. Whoever only reads is not asked.
    pub(crate) async fn is_still_alone(&self, operation: Operation, context: &str) -> Result<()> {
        let Some(own) = self.claim.get() else { return Ok(()) };
        let found = self.read(operation, &self.key(marker::NAME), context, None, marker::BYTES_MAX).await?;
        let writer = found.and_then(|bytes| Marker::read(&bytes).ok()).and_then(|marker| marker.writer);
        if writer.as_ref() == Some(own) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Busy, operation, context).with_retry(Advice::Useless).with_source(
            "another process has begun to write here, and with `conditional-put=none` only one may: end it, or this one, and open \
             it again",
        ))
    }

    /// Looks first and puts then: for those of this process alone.
    pub(crate) async fn put_alone(&self, operation: Operation, key: &Path, name: Name, bytes: Bytes) -> Result<Put> {
        let hex = name.to_hex();
        let _turn = self.alone.turn(name).await;
        let address = self.address(&hex);
        // Until something was sent for this call, it has no effect.
        let unsent = |error: Error| error.with_effect(Effect::None);
        let decides = operation == Operation::PutDurable;
        let is_alone = async || if decides { self.is_still_alone(operation, &hex).await } else { Ok(()) };
        let (alone, looked) = join(is_alone(), self.size(operation, name)).await;
        alone.map_err(unsent)?;
        if let Some(earlier) = self.alone.late(&address)
            && earlier != bytes
        {
            self.send(operation, key, &hex, PutMode::Overwrite, earlier).await.map_err(unsent)?;
            self.alone.settle(&address);
            return Ok(Put::Exists);
        }
        match looked {
            Ok(_) => return Ok(Put::Exists),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(unsent(error)),
        }
        // Noted before it is sent: a call that is dropped may have sent it.
        let is_late = self.alone.late(&address).is_some();
        self.alone.note(address.clone(), bytes.clone());
        let answer = self.send(operation, key, &hex, PutMode::Overwrite, bytes).await;
        let is_settled = match &answer {
            Ok(_) => true,
            Err(error) => error.effect() == Effect::None && !is_late,
        };
        if is_settled {
            self.alone.settle(&address);
        }
        if answer.is_ok() {
            is_alone().await.map_err(|error| error.with_effect(Effect::Unknown))?;
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use strongroom_conformance::block_on;
    use strongroom_conformance::storage::{sample_bytes, sample_name};
    use strongroom_core::storage::{OpenContext, OpenMode, Storage as _};
    use strongroom_s3_server::{ACCESS_KEY, Conditional, SECRET_KEY, Server, ServerOptions, Verb};

    use super::*;
    use crate::config::{ConditionalPut, S3Options};
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
            server.take_seen();
            server.faults().latency(Duration::from_millis(500));
            std::thread::scope(|scope| {
                let putting = scope.spawn(|| block_on(one.put_durable(sample_name(2), sample_bytes(1, 100))));
                // Its put is on its way when the other one begins.
                while !server.take_seen().iter().any(|seen| seen.verb == Verb::Put) {
                    std::thread::yield_now();
                }
                let marker = Marker::single_writer(&two.requests.place, [2; 8]);
                server.put_object("bucket", marker::NAME, marker.to_string());
                is_told(&putting.join().unwrap().unwrap_err(), Effect::Unknown);
            });
        });
    }
}
