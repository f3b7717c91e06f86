//! The way to the network: connections that are kept for the next request, TLS, a proxy. A request is given up where nothing
//! moves any more, not where it takes long: a slow line is no reason to lose what it has carried.
//!
//! No redirect is followed. Whatever stands at its end did not put the blob, and would get the signature and the session's token.

use std::error::Error as StdError;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::{Either, select};
use http::header::{PROXY_AUTHORIZATION, USER_AGENT};
use http::uri::Scheme;
use http::{Extensions, HeaderValue, Uri};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::legacy::connect::{
    CaptureConnection, Connected, Connection, HttpConnector, capture_connection,
};
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use object_store::client::{
    HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse, HttpResponseBody, HttpService,
};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep, timeout};
use tower_service::Service;

/// Nobody waits longer for a connection: for the name, the way there and TLS together.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// The services of machines are next door, or there are none.
const CONNECT_HERE_MAX: Duration = Duration::from_secs(2);

/// Where those services are: never behind a proxy.
pub(crate) const LINK_LOCAL: &str = "169.254.169.254,169.254.170.2,169.254.170.23,fd00:ec2::254,fd00:ec2::23";

pub(crate) fn is_link_local(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    LINK_LOCAL.split(',').any(|known| known == host)
}

/// Servers close connections that are idle for longer; a change sent over one of those would be of unknown effect.
const IDLE_MAX: Duration = Duration::from_secs(15);

/// What was handed to the system waits there unseen, and goes out at least so fast.
const UNSEEN_BYTES_PER_SECOND: u64 = 16 << 10;

/// How often it is looked whether something moves, within what is waited for.
const LOOKS: u32 = 8;

type BoxError = Box<dyn StdError + Send + Sync>;
type Connecting<T> = Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send>>;

/// How requests go out.
#[derive(Debug)]
pub(crate) struct NetworkOptions {
    /// For how long nothing may move.
    pub(crate) patience: Duration,
    /// The proxies that are used, and for whom.
    pub(crate) proxies: Matcher,
    /// How many connections are kept.
    pub(crate) kept_max: usize,
    /// Whether certificates are needed: without TLS it may do without them.
    pub(crate) needs_certificates: bool,
}

/// Makes requests. Cheap to clone, with the same connections.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    client: Client<InTime<HttpsConnector<Dialer>>, HttpRequestBody>,
    proxies: Arc<Matcher>,
    patience: Duration,
}

impl Network {
    pub(crate) fn new(options: NetworkOptions) -> io::Result<Self> {
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(CONNECT_MAX));
        let proxies = Arc::new(options.proxies);
        let dialer = Dialer { tcp, proxies: proxies.clone() };
        let tls = HttpsConnectorBuilder::new()
            .with_tls_config(tls(options.needs_certificates)?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(dialer);
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE_MAX)
            .pool_max_idle_per_host(options.kept_max)
            .pool_timer(TokioTimer::new())
            .build(InTime(tls));
        Ok(Self { client, proxies, patience: options.patience })
    }

    /// How long a request with a body of so many bytes may stand still.
    fn patience_for(&self, body_bytes: usize) -> Duration {
        let unseen = u64::try_from(body_bytes).unwrap_or(u64::MAX) / UNSEEN_BYTES_PER_SECOND;
        self.patience.saturating_add(Duration::from_secs(unseen))
    }
}

/// The library is named: where an application brings another one, too, there would be no default.
fn tls(needs_certificates: bool) -> io::Result<ClientConfig> {
    let builder = || {
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)
    };
    match builder()?.with_native_roots() {
        Ok(config) => Ok(config.with_no_client_auth()),
        Err(_) if !needs_certificates => {
            Ok(builder()?.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
        }
        Err(error) => Err(error),
    }
}

#[async_trait]
impl HttpService for Network {
    async fn call(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let patience = self.patience_for(request.body().content_length());
        let uri = request.uri();
        if uri.scheme() == Some(&Scheme::HTTP)
            && let Some(secret) = self.proxies.intercept(uri).and_then(|proxy| proxy.basic_auth().cloned())
        {
            request.headers_mut().insert(PROXY_AUTHORIZATION, secret);
        }
        request.headers_mut().insert(USER_AGENT, HeaderValue::from_static("strongroom"));
        let connection = capture_connection(&mut request);
        let mut answering = pin!(self.client.request(request));
        let look = patience / LOOKS;
        let (mut before, mut still) = (None, Duration::ZERO);
        let answer = loop {
            match select(answering.as_mut(), pin!(sleep(look))).await {
                Either::Left((answer, _)) => break answer,
                Either::Right(_) => {
                    let now = moved(&connection);
                    still = if now == before { still + look } else { Duration::ZERO };
                    before = now;
                    if still >= patience {
                        return Err(HttpError::new(HttpErrorKind::Timeout, io::Error::from(io::ErrorKind::TimedOut)));
                    }
                }
            }
        };
        let answer = answer.map_err(|error| {
            let kind = if error.is_connect() { HttpErrorKind::Connect } else { HttpErrorKind::Interrupted };
            HttpError::new(kind, error)
        })?;
        let patience = self.patience;
        Ok(answer.map(|body| HttpResponseBody::new(Arriving { body, patience, still: None })))
    }
}

/// What the connection of a request has moved; `None` where there is none yet.
fn moved(connection: &CaptureConnection) -> Option<u64> {
    let mut extras = Extensions::new();
    connection.connection_metadata().as_ref()?.get_extras(&mut extras);
    extras.get().map(|Moved(count)| count.load(Ordering::Relaxed))
}

/// The body of an answer, given up where it stands still.
struct Arriving {
    body: Incoming,
    patience: Duration,
    /// Begun when there was nothing to read.
    still: Option<Pin<Box<Sleep>>>,
}

impl Body for Arriving {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            self.still = None;
            return Poll::Ready(
                frame.map(|frame| frame.map_err(|error| HttpError::new(HttpErrorKind::Interrupted, error))),
            );
        }
        let patience = self.patience;
        let still = self.still.get_or_insert_with(|| Box::pin(sleep(patience)));
        match still.as_mut().poll(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) => {
                let error = HttpError::new(HttpErrorKind::Timeout, io::Error::from(io::ErrorKind::TimedOut));
                Poll::Ready(Some(Err(error)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// How often a connection has moved something: what counts is whether it changes.
#[derive(Clone, Debug, Default)]
struct Moved(Arc<AtomicU64>);

impl Moved {
    fn step(&self, is_step: bool) {
        if is_step {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A connection, below TLS, that tells whether it moves.
#[derive(Debug)]
struct Counted {
    stream: TokioIo<TcpStream>,
    moved: Moved,
    /// It leads to a proxy that forwards requests one by one.
    is_forwarded: bool,
}

impl Connection for Counted {
    fn connected(&self) -> Connected {
        self.stream.connected().proxy(self.is_forwarded).extra(self.moved.clone())
    }
}

impl Read for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.moved.step(polled.is_ready());
        polled
    }
}

impl Write for Counted {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.moved.step(polled.is_ready());
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.moved.step(polled.is_ready());
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Connects, through a proxy where one is to be used.
#[derive(Clone, Debug)]
struct Dialer {
    tcp: HttpConnector,
    proxies: Arc<Matcher>,
}

impl Service<Uri> for Dialer {
    type Response = Counted;
    type Error = BoxError;
    type Future = Connecting<Counted>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.tcp.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let (mut tcp, proxies) = (self.tcp.clone(), self.proxies.clone());
        Box::pin(async move {
            let proxy = proxies.intercept(&to);
            let is_forwarded = proxy.is_some() && to.scheme() == Some(&Scheme::HTTP);
            let stream = match proxy {
                None => tcp.call(to).await?,
                Some(proxy) if proxy.uri().scheme() != Some(&Scheme::HTTP) => {
                    return Err("the proxy of the environment is none of HTTP: `http://host:port`".into());
                }
                Some(proxy) if is_forwarded => tcp.call(proxy.uri().clone()).await?,
                Some(proxy) => {
                    let mut tunnel = Tunnel::new(proxy.uri().clone(), tcp);
                    if let Some(secret) = proxy.basic_auth() {
                        tunnel = tunnel.with_auth(secret.clone());
                    }
                    tunnel.call(to).await?
                }
            };
            Ok(Counted { stream, moved: Moved::default(), is_forwarded })
        })
    }
}

/// Gives up connecting.
#[derive(Clone, Debug)]
struct InTime<C>(C);

impl<C> Service<Uri> for InTime<C>
where
    C: Service<Uri, Error = BoxError>,
    C::Future: Send + 'static,
{
    type Response = C::Response;
    type Error = BoxError;
    type Future = Connecting<C::Response>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let limit = if is_link_local(&to) { CONNECT_HERE_MAX } else { CONNECT_MAX };
        let connecting = self.0.call(to);
        Box::pin(async move {
            let ended = timeout(limit, connecting).await;
            ended.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_large_may_wait_longer_for_its_answer() {
        let options = NetworkOptions {
            patience: Duration::from_secs(60),
            proxies: Matcher::builder().build(),
            kept_max: 1,
            needs_certificates: false,
        };
        let network = Network::new(options).unwrap();
        assert_eq!(network.patience_for(0), Duration::from_secs(60));
        // Thirty-two of a mebibyte at once, over a line of 200 kbit/s.
        assert!(network.patience_for(1 << 20) >= Duration::from_secs(120));
    }
}
