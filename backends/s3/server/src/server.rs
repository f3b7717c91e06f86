//! A server that listens: begins, ends and begins again at the same port with the same buckets.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Body as _, Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;

use crate::bill::Bill;
use crate::faults::{Fault, Faults, Verb, Way};
use crate::service::{self, Service, Special};
use crate::signature::KeyPair;
use crate::tls::Tls;
use crate::under_way::UnderWay;
use crate::world::{Conditional, World};

/// The access key that a server of [`ServerOptions::default`] knows.
pub const ACCESS_KEY: &str = "AKIATESTTESTTESTTEST";
/// The secret that belongs to [`ACCESS_KEY`].
pub const SECRET_KEY: &str = "not/a+secret/but/it/must/not/be/shown/0123";

/// How a server is.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Where it listens; port 0 is any that is free.
    pub address: SocketAddr,
    /// The key that is let in.
    pub access_key: String,
    /// Its secret: signatures are verified.
    pub secret_key: String,
    /// The buckets that are there at first.
    pub buckets: Vec<String>,
    /// How many names are in a page of a listing, at most 1000.
    pub page_keys_max: usize,
    /// How a conditional create is kept.
    pub conditional: Conditional,
    /// Whether it knows the first version of listings alone, whatever is asked for.
    pub lists_first_version: bool,
    /// How connections are encrypted, where they are.
    pub tls: Option<Tls>,
    /// Buckets are hosts under this one too: `bucket.HOST`.
    pub virtual_host: Option<String>,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            address: (Ipv4Addr::LOCALHOST, 0).into(),
            access_key: ACCESS_KEY.to_owned(),
            secret_key: SECRET_KEY.to_owned(),
            buckets: vec!["bucket".to_owned()],
            page_keys_max: 1000,
            conditional: Conditional::Exact,
            lists_first_version: false,
            tls: None,
            virtual_host: None,
        }
    }
}

/// One request that came, whatever became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// What it asked for.
    pub verb: Verb,
    /// Its path, without the query.
    pub path: String,
    /// The host that it names.
    pub host: String,
}

/// Bytes of bodies, without what HTTP says about them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// To the server.
    pub received: u64,
    /// From the server, whether or not the client took them.
    pub sent: u64,
}

#[derive(Debug, Default)]
struct Shared {
    world: Arc<World>,
    faults: Faults,
    seen: Mutex<Vec<Seen>>,
    under_way: Arc<UnderWay>,
    received: AtomicU64,
    sent: AtomicU64,
}

/// A server, until it is dropped.
#[derive(Debug)]
pub struct Server {
    options: ServerOptions,
    shared: Arc<Shared>,
    /// All connections are tasks of it: they end with it.
    runtime: Option<Runtime>,
}

impl Server {
    /// Keeps conditional creates otherwise from now on, as with another version of itself.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub fn restart_with(&mut self, conditional: Conditional) -> io::Result<()> {
        self.options.conditional = conditional;
        self.restart()
    }

    /// Begins to listen.
    ///
    /// # Errors
    /// Where the port is taken, or there is no thread.
    pub fn start(options: ServerOptions) -> io::Result<Self> {
        let shared = Arc::<Shared>::default();
        for bucket in &options.buckets {
            shared.world.create_bucket(bucket);
        }
        let mut server = Self { options, shared, runtime: None };
        server.restart()?;
        Ok(server)
    }

    /// Where it listens, as `http://127.0.0.1:port`, or with `https:`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        let scheme = if self.options.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.options.address)
    }

    /// What goes wrong.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.shared.faults
    }

    /// The requests since the last call.
    pub fn take_seen(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The bytes since the last call.
    pub fn take_traffic(&self) -> Traffic {
        let take = |counter: &AtomicU64| counter.swap(0, Ordering::Relaxed);
        Traffic { received: take(&self.shared.received), sent: take(&self.shared.sent) }
    }

    /// What a provider would bill for what came since the last call of this, [`Server::take_seen`] or [`Server::take_traffic`].
    pub fn take_bill(&self) -> Bill {
        Bill::of(&self.take_seen(), self.take_traffic())
    }

    /// How many requests were under way at once, at most, since the last call: from when their heads have come until the last of
    /// their answers goes out.
    pub fn take_most_under_way(&self) -> usize {
        self.shared.under_way.take_most()
    }

    /// The names in a bucket, ascending.
    #[must_use]
    pub fn keys(&self, bucket: &str) -> Vec<String> {
        self.shared.world.keys(bucket)
    }

    /// Puts an object as somebody else would, past all faults. Without such a bucket nothing happens.
    pub fn put_object(&self, bucket: &str, key: &str, bytes: impl Into<Bytes>) {
        let _ = self.shared.world.put(bucket, key, bytes.into(), false);
    }

    /// Removes an object as somebody else would.
    pub fn remove_object(&self, bucket: &str, key: &str) {
        let _ = self.shared.world.delete(bucket, key);
    }

    /// What was on its way, by [`Fault::Late`], arrives, in the order in which it was sent.
    pub fn deliver_late(&self) {
        self.shared.world.deliver();
    }

    /// What an object holds.
    #[must_use]
    pub fn object(&self, bucket: &str, key: &str) -> Option<Bytes> {
        self.shared.world.get(bucket, key).ok().flatten()
    }

    /// Makes a bucket where there is none of that name.
    pub fn create_bucket(&self, bucket: &str) {
        self.shared.world.create_bucket(bucket);
    }

    /// Removes a bucket with all that is in it.
    pub fn remove_bucket(&self, bucket: &str) {
        self.shared.world.remove_bucket(bucket);
    }

    /// Ends all connections, in the middle of what they do; nobody is answered any more.
    pub fn stop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
    }

    /// Listens again at the same port, with the same buckets; ends what is running before.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub fn restart(&mut self) -> io::Result<()> {
        self.stop();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("s3-server")
            .enable_all()
            .build()?;
        let listener = TcpListener::bind(self.options.address)?;
        self.options.address = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        let service = Arc::new(Service {
            world: self.shared.world.clone(),
            keys: KeyPair { access_key: self.options.access_key.clone(), secret_key: self.options.secret_key.clone() },
            conditional: self.options.conditional,
            page_keys_max: self.options.page_keys_max,
            lists_first_version: self.options.lists_first_version,
            virtual_host: self.options.virtual_host.clone(),
        });
        let tls = self.options.tls.as_ref().map(Tls::acceptor);
        let shared = self.shared.clone();
        let listener = {
            let _inside = runtime.enter();
            tokio::net::TcpListener::from_std(listener)?
        };
        runtime.spawn(async move {
            loop {
                // A connection that failed to come is its client's affair.
                if let Ok((stream, _)) = listener.accept().await {
                    let _ = stream.set_nodelay(true);
                    tokio::spawn(accept(stream, tls.clone(), service.clone(), shared.clone()));
                }
            }
        });
        self.runtime = Some(runtime);
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn accept(stream: tokio::net::TcpStream, tls: Option<TlsAcceptor>, service: Arc<Service>, shared: Arc<Shared>) {
    match tls {
        None => serve(stream, service, shared).await,
        Some(tls) => {
            // A client that does not like the certificate goes away.
            if let Ok(stream) = tls.accept(stream).await {
                serve(stream, service, shared).await;
            }
        }
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    service: Arc<Service>,
    shared: Arc<Shared>,
) {
    let answer = service_fn(move |request| answer(request, service.clone(), shared.clone()));
    // How it ended is for the client to see.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
}

type Answer = Response<UnsyncBoxBody<Bytes, io::Error>>;

/// The connection ends here.
fn hang_up() -> io::Error {
    io::ErrorKind::ConnectionAborted.into()
}

async fn answer(request: Request<Incoming>, service: Arc<Service>, shared: Arc<Shared>) -> io::Result<Answer> {
    let verb = verb_of(&request);
    let path = request.uri().path().to_owned();
    let host = service::host(request.headers()).to_owned();
    shared.seen.lock().unwrap_or_else(PoisonError::into_inner).push(Seen { verb, path, host });
    let counted = shared.under_way.begin();
    let fault = shared.faults.draw(verb);
    let sent = request.body().size_hint().exact().unwrap_or_default();
    shared.received.fetch_add(sent, Ordering::Relaxed);
    shared.faults.pass(verb).await;
    shared.faults.gather().await;
    tokio::time::sleep(shared.faults.delay(sent)).await;
    if let Some(passed) = shared.faults.passed(Way::Up, sent) {
        tokio::time::sleep_until(passed).await;
    }
    let mut special = Special::default();
    match fault {
        Some(Fault::Hang) => std::future::pending().await,
        Some(Fault::InternalError) => return refusal(500, "InternalError"),
        Some(Fault::SlowDown) => return refusal(503, "SlowDown"),
        Some(Fault::Refused(status, code)) => return refusal(status, code),
        Some(Fault::Redirect(status, to)) => {
            let mut answer = refusal(status, "TemporaryRedirect")?;
            answer.headers_mut().insert(http::header::LOCATION, to.parse().map_err(io::Error::other)?);
            return Ok(answer);
        }
        Some(Fault::StaleList) => special.is_stale = true,
        Some(Fault::Late) => special.is_late = true,
        _ => {}
    }
    let response = service.call(request, special).await.ok_or_else(hang_up)?;
    match fault {
        Some(Fault::LostReply | Fault::Late) => return Err(hang_up()),
        Some(Fault::InternalErrorAfter) => return refusal(500, "InternalError"),
        _ => {}
    }
    let (mut parts, bytes) = response.into_parts();
    let bytes_sent = bytes.len() as u64;
    shared.sent.fetch_add(bytes_sent, Ordering::Relaxed);
    let body = match fault {
        Some(Fault::TruncatedBody) if !bytes.is_empty() => {
            let half = bytes.slice(..bytes.len() / 2);
            StreamBody::new(futures_util::stream::iter([Ok(Frame::data(half)), Err(hang_up())])).boxed_unsync()
        }
        Some(Fault::Endless) => {
            parts.headers.remove(http::header::CONTENT_LENGTH);
            let forever = futures_util::stream::repeat_with(|| Ok(Frame::data(Bytes::from_static(&[b' '; 65536]))));
            StreamBody::new(forever).boxed_unsync()
        }
        _ => match shared.faults.delay(bytes.len() as u64).saturating_sub(shared.faults.delay(0)) {
            Duration::ZERO if shared.faults.passed(Way::Down, 0).is_some() => over_link(bytes, shared.clone()),
            Duration::ZERO => Full::new(bytes).map_err(|never| match never {}).boxed_unsync(),
            takes => slow(bytes, takes),
        },
    };
    Ok(Response::from_parts(parts, counted.until_sent(body, bytes_sent).boxed_unsync()))
}

/// A body that comes bit by bit.
fn slow(bytes: Bytes, takes: Duration) -> UnsyncBoxBody<Bytes, io::Error> {
    const PARTS: u32 = 32;
    let part_bytes = bytes.len().div_ceil(PARTS as usize).max(1);
    let parts = futures_util::stream::unfold(bytes, move |mut rest| async move {
        if rest.is_empty() {
            return None;
        }
        tokio::time::sleep(takes / PARTS).await;
        let part = rest.split_to(part_bytes.min(rest.len()));
        Some((Ok(Frame::data(part)), rest))
    });
    StreamBody::new(parts).boxed_unsync()
}

/// A body that shares the line with others: so much of it has its turn at a time.
fn over_link(bytes: Bytes, shared: Arc<Shared>) -> UnsyncBoxBody<Bytes, io::Error> {
    const TURN_BYTES: usize = 32 << 10;
    let parts = futures_util::stream::unfold((bytes, shared), move |(mut rest, shared)| async move {
        if rest.is_empty() {
            return None;
        }
        let part = rest.split_to(TURN_BYTES.min(rest.len()));
        if let Some(passed) = shared.faults.passed(Way::Down, part.len() as u64) {
            tokio::time::sleep_until(passed).await;
        }
        Some((Ok(Frame::data(part)), (rest, shared)))
    });
    StreamBody::new(parts).boxed_unsync()
}

fn refusal(status: u16, code: &str) -> io::Result<Answer> {
    let status = StatusCode::from_u16(status).map_err(io::Error::other)?;
    let response = service::refusal(status, code, "As the test wants it");
    Ok(response.map(|bytes| Full::new(bytes).map_err(|never| match never {}).boxed_unsync()))
}

fn verb_of(request: &Request<Incoming>) -> Verb {
    let is_list = request.uri().query().is_some_and(|query| query.contains("list-type="));
    match *request.method() {
        Method::GET if is_list => Verb::List,
        Method::GET => Verb::Get,
        Method::PUT => Verb::Put,
        Method::HEAD => Verb::Head,
        Method::DELETE => Verb::Delete,
        _ => Verb::Other,
    }
}
