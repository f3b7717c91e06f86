//! A server that listens: begins, ends and begins again at the same port with the same buckets.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Body as _, Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use s3s::service::{S3Service, S3ServiceBuilder};
use tokio::runtime::Runtime;

use crate::faults::{Fault, Faults, Verb};
use crate::service::{KeyPair, Service, Stale};
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
}

#[derive(Debug, Default)]
struct Shared {
    world: Arc<World>,
    faults: Faults,
    seen: Mutex<Vec<Seen>>,
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

    /// Where it listens, as `http://127.0.0.1:port`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.options.address)
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

    /// The names in a bucket, ascending.
    #[must_use]
    pub fn keys(&self, bucket: &str) -> Vec<String> {
        self.shared.world.keys(bucket)
    }

    /// Puts an object as somebody else would, past all faults. Without such a bucket nothing happens.
    pub fn put_object(&self, bucket: &str, key: &str, bytes: &'static [u8]) {
        let _ = self.shared.world.put(bucket, key, Bytes::from_static(bytes), false);
    }

    /// Removes an object as somebody else would.
    pub fn remove_object(&self, bucket: &str, key: &str) {
        let _ = self.shared.world.delete(bucket, key);
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
        let mut builder = S3ServiceBuilder::new(Service {
            world: self.shared.world.clone(),
            conditional: self.options.conditional,
            page_keys_max: self.options.page_keys_max,
        });
        builder.set_auth(KeyPair {
            access_key: self.options.access_key.clone(),
            secret_key: self.options.secret_key.as_str().into(),
        });
        let (service, shared) = (builder.build(), self.shared.clone());
        let listener = {
            let _inside = runtime.enter();
            tokio::net::TcpListener::from_std(listener)?
        };
        runtime.spawn(async move {
            loop {
                // A connection that failed to come is its client's affair.
                if let Ok((stream, _)) = listener.accept().await {
                    let _ = stream.set_nodelay(true);
                    tokio::spawn(serve(TokioIo::new(stream), service.clone(), shared.clone()));
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

async fn serve(stream: TokioIo<tokio::net::TcpStream>, service: S3Service, shared: Arc<Shared>) {
    let answer = service_fn(move |request| answer(request, service.clone(), shared.clone()));
    // How it ended is for the client to see.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(stream, answer).await;
}

type Answer = Response<UnsyncBoxBody<Bytes, io::Error>>;

/// The connection ends here.
fn hang_up() -> io::Error {
    io::ErrorKind::ConnectionAborted.into()
}

async fn answer(mut request: Request<Incoming>, service: S3Service, shared: Arc<Shared>) -> io::Result<Answer> {
    let verb = verb_of(&request);
    let path = request.uri().path().to_owned();
    shared.seen.lock().unwrap_or_else(PoisonError::into_inner).push(Seen { verb, path });
    let fault = shared.faults.draw(verb);
    let sent = request.body().size_hint().exact().unwrap_or_default();
    tokio::time::sleep(shared.faults.delay(sent)).await;
    match fault {
        Some(Fault::Hang) => std::future::pending().await,
        Some(Fault::InternalError) => return refusal(500, "InternalError"),
        Some(Fault::SlowDown) => return refusal(503, "SlowDown"),
        Some(Fault::Refused(status, code)) => return refusal(status, code),
        Some(Fault::StaleList) => {
            request.extensions_mut().insert(Stale);
        }
        _ => {}
    }
    let response = service.call(request.map(s3s::Body::from)).await.map_err(|_| hang_up())?;
    match fault {
        Some(Fault::LostReply) => return Err(hang_up()),
        Some(Fault::InternalErrorAfter) => return refusal(500, "InternalError"),
        _ => {}
    }
    let (mut parts, body) = response.into_parts();
    let bytes = body.collect().await.map_err(|_| hang_up())?.to_bytes();
    tokio::time::sleep(shared.faults.delay(bytes.len() as u64).saturating_sub(shared.faults.delay(0))).await;
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
        _ => Full::new(bytes).map_err(|never| match never {}).boxed_unsync(),
    };
    Ok(Response::from_parts(parts, body))
}

fn refusal(status: u16, code: &str) -> io::Result<Answer> {
    let text =
        format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>As the test wants it</Message></Error>");
    let mut response = Response::new(Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = StatusCode::from_u16(status).map_err(io::Error::other)?;
    Ok(response)
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
