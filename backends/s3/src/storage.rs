//! The handle: what the clauses ask for, as requests.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt as _;
use futures_util::future::try_join_all;
use object_store::aws::AmazonS3;
use object_store::list::{PaginatedListOptions, PaginatedListStore as _};
use object_store::path::Path;
use object_store::{
    GetOptions, GetRange, GetResult, ObjectStore as _, ObjectStoreExt as _, PutMode, PutOptions, PutPayload,
};
use strongroom_core::env::Env;
use strongroom_core::layer::{Retry, RetryPolicy};
use strongroom_core::storage::bounds::{check_blob_bytes, check_range, not_found};
use strongroom_core::storage::probe::{PutIfAbsent, put_if_absent};
use strongroom_core::storage::{
    BatchSupport, Capabilities, Durability, Effect, Error, ErrorKind, ListOrder, Name, OpenContext, OpenMode,
    Operation, Put, RangeReads, Reach, Result, Retry as Advice, Storage, StorageExt as _, Torn,
};
use tokio::sync::{OnceCell, Semaphore};
use tokio::time::{sleep, timeout};

use crate::config::{ConditionalPut, S3Options, invalid, variable};
use crate::connect::{Place, connect};
use crate::error::{corrupt, cut_short, failed, is_unreachable, refusal};
use crate::marker::{self, Marker};
use crate::single::Alone;
use crate::threads::Threads;

pub(crate) const CAPABILITIES: Capabilities = Capabilities {
    reach: Reach::Everywhere,
    durability: Durability::Power,
    torn: Torn::Never,
    batch: BatchSupport::Sequential,
    list_order: ListOrder::Ascending,
    range_reads: RangeReads::Native,
    block_bytes_best: 1024 * 1024,
    block_bytes_max: 4 * 1024 * 1024,
};

/// Blobs of a probe lie in a sub-folder of their own, that begins so.
const PROBE: &str = "probe-";

/// Whoever opens a storage does not wait longer than this to hear that its server does not answer; and not longer than for two
/// requests in which nothing moves.
const OPENING_MAX: Duration = Duration::from_secs(30);

/// How often opening tries what can succeed later.
const OPENING: RetryPolicy = RetryPolicy {
    attempts_max: 5,
    delay_first: Duration::from_millis(100),
    delay_max: Duration::from_secs(2),
    total_max: Duration::from_secs(15),
};

/// A probe sends as many requests at once as it needs to, whatever is set for the rest: one after the other they race for nothing.
const PROBE_REQUESTS_MAX: usize = 16;

/// A handle on a prefix of a bucket.
pub struct S3Storage {
    pub(crate) requests: Requests,
    threads: Arc<Threads>,
    standing: Standing,
    /// That the server keeps conditions, now: looked at once, before the first put.
    looked: OnceCell<()>,
}

/// What is known of the server before the first put.
#[derive(Debug)]
enum Standing {
    /// It is a probe's handle.
    Exempt,
    /// Conditions are not relied on.
    Alone,
    /// It was tried, as the marker says.
    Tried(Marker),
    /// It was not, though there may be a marker that speaks of others.
    Untried(Option<Marker>),
}

/// What makes requests; cheap to clone, so that each call has one of its own on its thread.
#[derive(Clone)]
pub(crate) struct Requests {
    client: AmazonS3,
    /// Empty, or ending with a slash.
    prefix: Arc<str>,
    /// As messages name it.
    pub(crate) shown: Arc<str>,
    pub(crate) permits: Arc<Semaphore>,
    conditional_put: ConditionalPut,
    pub(crate) place: Arc<Place>,
    timeout: Duration,
    pub(crate) env: Env,
    pub(crate) alone: Alone,
    /// That this handle is of the writer, as the marker names it.
    pub(crate) claim: Arc<OnceLock<String>>,
}

impl S3Storage {
    /// Opens a prefix of a bucket, which must be there.
    ///
    /// With [`OpenMode::CreateIfMissing`], where nothing is there yet, it is tried whether the server keeps conditional puts,
    /// on names of its own beside the blobs, and what was found is written down. That is evidence, and no proof. Where it was
    /// found out about another server, as of what was copied to this one, the first put tries this one.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] where no storage was created there, [`ErrorKind::Other`] without such a bucket, which opening
    /// does not make; [`ErrorKind::Unsupported`] where
    /// the server keeps no conditional puts, or where what is there is of a later version; [`ErrorKind::Invalid`] for options
    /// that make no sense, and for another [`ConditionalPut`] than it was created with; [`ErrorKind::Credentials`]; what the
    /// server raises.
    pub async fn open(options: &S3Options, context: &OpenContext) -> Result<Self> {
        let mut storage = Self::connect(options, context)?;
        match storage.marker().await? {
            Some(marker) if marker.conditional_put == options.conditional_put => storage.stand_on(Some(marker)),
            Some(marker) => return Err(made_otherwise(&marker)),
            None if context.mode == OpenMode::CreateIfMissing => {
                storage.create().await?;
                if options.conditional_put == ConditionalPut::SingleWriter {
                    storage.standing = Standing::Alone;
                }
            }
            // Blobs that were brought from elsewhere, without what lies beside them.
            None if storage.holds_blobs().await? => storage.stand_on(None),
            None => {
                return Err(Error::new(ErrorKind::NotFound, Operation::Open, &*storage.requests.shown)
                    .with_source("nothing was created there"));
            }
        }
        Ok(storage)
    }

    fn stand_on(&mut self, marker: Option<Marker>) {
        self.standing = match (self.requests.conditional_put, marker) {
            (ConditionalPut::SingleWriter, _) => Standing::Alone,
            (ConditionalPut::Native, Some(marker)) if marker.is_of(&self.requests.place) => Standing::Tried(marker),
            (ConditionalPut::Native, marker) => Standing::Untried(marker),
        };
    }

    fn connect(options: &S3Options, context: &OpenContext) -> Result<Self> {
        let threads = Threads::shared().map_err(|error| Error::from_io(Operation::Open, "the threads", error))?;
        let (client, place) = connect(options, &variable)?;
        let prefix = options.prefix.trim_matches('/');
        Path::parse(prefix).map_err(|_| invalid("the prefix has an empty part, or `.` or `..` as one"))?;
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        let requests = Requests {
            client,
            shown: format!("s3://{}/{prefix}", options.bucket).into(),
            prefix: prefix.into(),
            permits: Arc::new(Semaphore::new(options.requests_max.get())),
            conditional_put: options.conditional_put,
            place: Arc::new(place),
            timeout: options.timeout,
            env: context.env.clone(),
            alone: Alone::shared(),
            claim: Arc::default(),
        };
        Ok(Self { requests, threads, standing: Standing::Exempt, looked: OnceCell::new() })
    }

    async fn run<T: Send + 'static, F: Future<Output = Result<T>> + Send + 'static>(
        &self,
        operation: Operation,
        call: impl FnOnce(Requests) -> F,
    ) -> Result<T> {
        self.threads.run(operation, call(self.requests.clone())).await
    }

    /// A call of opening, which no layer repeats. Where nothing listens it is told at once, and where nothing answers soon.
    async fn opening<T: Send + 'static, F: Future<Output = Result<T>> + Send + 'static>(
        &self,
        call: impl Fn(Requests) -> F + Send + 'static,
    ) -> Result<T> {
        self.run(Operation::Open, |requests| async move {
            let (shown, limit) = (requests.shown.clone(), requests.timeout.saturating_mul(2).min(OPENING_MAX));
            let tried = timeout(limit, async move {
                let mut delay = OPENING.delay_first;
                for _ in 1..OPENING.attempts_max {
                    match call(requests.clone()).await {
                        Err(error) if error.retry() == Advice::CanHelp && !is_unreachable(&error) => {}
                        answer => return answer,
                    }
                    sleep(delay).await;
                    delay = delay.saturating_mul(2).min(OPENING.delay_max);
                }
                call(requests).await
            });
            tried.await.unwrap_or_else(|_| {
                Err(Error::new(ErrorKind::Unavailable, Operation::Open, &*shown).with_source(format!(
                    "no answer within {} seconds: check `endpoint`, and whether the server runs",
                    limit.as_secs()
                )))
            })
        })
        .await
    }

    /// What a call met that was part of another.
    fn within(&self, operation: Operation, error: &Error) -> Error {
        let what = std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string);
        Error::new(error.kind(), operation, &*self.requests.shown).with_retry(error.retry()).with_source(what)
    }

    pub(crate) async fn marker(&self) -> Result<Option<Marker>> {
        let found = self.opening(|requests| async move {
            let context = requests.shown.to_string();
            requests.read(Operation::Open, &requests.key(marker::NAME), &context, None, marker::BYTES_MAX).await
        });
        let bytes = match found.await {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Ok(None),
            Err(error) if error.kind() == ErrorKind::LimitExceeded => Bytes::new(),
            Err(error) => return Err(error),
        };
        Marker::read(&bytes).map(Some).map_err(|marker::Unknown| {
            Error::new(ErrorKind::Unsupported, Operation::Open, &*self.requests.shown)
                .with_source(format!("`{}` there is of a later version, or of another program", marker::NAME))
        })
    }

    async fn holds_blobs(&self) -> Result<bool> {
        let names = self.opening(|requests| async move { requests.list(Operation::Open, &[], None).await });
        Ok(!names.await?.0.is_empty())
    }

    /// Finds out what the server keeps, and writes it down. Nothing stays where it does not keep enough.
    async fn create(&self) -> Result<()> {
        // A server that cannot list is of no use to a single writer either.
        self.holds_blobs().await?;
        match self.requests.conditional_put {
            ConditionalPut::SingleWriter => {
                self.claim().await?;
                // This handle has said that it writes; and a second time it must not.
                let _ = self.looked.set(());
                Ok(())
            }
            ConditionalPut::Native => {
                let marker = self.try_server(None).await?;
                self.put_marker(&marker, PutMode::Create).await?;
                // Where another was quicker, it found the same; unless it came for a single writer, who would write over what is put here.
                if let Some(marker) = self.marker().await?
                    && marker.conditional_put != ConditionalPut::Native
                {
                    return Err(made_otherwise(&marker));
                }
                // It has just been looked at.
                let _ = self.looked.set(());
                Ok(())
            }
        }
    }

    /// Races puts, in a sub-folder of their own.
    async fn try_server(&self, before: Option<&Marker>) -> Result<Marker> {
        let env = &self.requests.env;
        let random = env.random::<8>();
        let random =
            random.map_err(|error| Error::new(ErrorKind::Other, Operation::Open, "a probe").with_source(error))?;
        let folder = format!("{}{PROBE}{:016x}/", self.requests.prefix, u64::from_le_bytes(random));
        let permits = Arc::new(Semaphore::new(PROBE_REQUESTS_MAX));
        let requests = Requests { prefix: folder.into(), permits, ..self.requests.clone() };
        let beside: Arc<dyn Storage> = Arc::new(Self {
            requests,
            threads: self.threads.clone(),
            standing: Standing::Exempt,
            looked: OnceCell::new(),
        });
        let patient = Retry::new(beside, env.clone(), OPENING);
        let found = put_if_absent(&patient, env).await;
        match found.map_err(|error| self.within(Operation::Open, &error))? {
            PutIfAbsent::Kept(evidence) => Ok(Marker::proven(&evidence.to_string(), &self.requests.place, before)),
            PutIfAbsent::Broken(what) => Err(self.broken(&what)),
        }
    }

    fn broken(&self, what: &str) -> Error {
        Error::new(ErrorKind::Unsupported, Operation::Open, &*self.requests.shown).with_source(format!(
            "this server keeps no conditional puts: {what}; use another, or say `conditional-put=none` and see to it that only \
             one process ever writes"
        ))
    }

    pub(crate) async fn put_marker(&self, marker: &Marker, mode: PutMode) -> Result<Put> {
        let bytes = Bytes::from(marker.to_string());
        self.opening(move |requests| {
            let (bytes, mode) = (bytes.clone(), mode.clone());
            async move {
                let (key, shown) = (requests.key(marker::NAME), requests.shown.to_string());
                requests.send(Operation::Open, &key, &shown, mode, bytes).await
            }
        })
        .await
    }

    /// Before the first put: the server must refuse to write over the marker, which is there. That is one request, and finds
    /// those who ignore conditions, such as what the blobs were copied to, or what a server became with another version of it.
    async fn look_before_putting(&self, operation: Operation) -> Result<()> {
        let looked = self.looked.get_or_try_init(|| async {
            match &self.standing {
                Standing::Exempt => Ok(()),
                Standing::Alone => self.claim().await,
                Standing::Tried(marker) => {
                    // It may have been removed meanwhile; then it is there now.
                    for _ in 0..2 {
                        if self.put_marker(marker, PutMode::Create).await? == Put::Exists {
                            return Ok(());
                        }
                    }
                    Err(self.broken("a put of a name that is taken replaces what is there"))
                }
                Standing::Untried(before) => {
                    let marker = self.try_server(before.as_ref()).await?;
                    self.put_marker(&marker, PutMode::Overwrite).await.map(drop)
                }
            }
        });
        looked.await.copied().map_err(|error| self.within(operation, &error).with_effect(Effect::None))
    }

    /// Removes what `open` left, where there is nothing else.
    pub(crate) async fn remove_empty(options: &S3Options, context: &OpenContext) -> Result<()> {
        let storage = Self::connect(options, context)?;
        if !storage.list_all(&[]).await.map_err(|error| storage.within(Operation::Open, &error))?.is_empty() {
            return Err(Error::new(ErrorKind::Other, Operation::Open, &*storage.requests.shown)
                .with_source("blobs are in it: nothing was removed"));
        }
        storage
            .opening(|requests| async move {
                for key in requests.leftovers().await? {
                    requests.delete(Operation::Open, &key, &requests.shown).await?;
                }
                requests.delete(Operation::Open, &requests.key(marker::NAME), &requests.shown).await
            })
            .await
    }
}

/// It is for more writers than who opens it now, or for fewer.
pub(crate) fn made_otherwise(marker: &Marker) -> Error {
    invalid(match marker.conditional_put {
        ConditionalPut::SingleWriter => {
            "this storage was made for a single writer: say `conditional-put=none`, and see to it that only one process writes"
        }
        ConditionalPut::Native => {
            "this storage is for several writers, and `conditional-put=none` would write over what they wrote: leave it out"
        }
    })
}

impl fmt::Debug for S3Storage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("S3Storage").field(&self.requests.shown).finish()
    }
}

impl Requests {
    pub(crate) fn key(&self, name: &str) -> Path {
        // The prefix was parsed, and names are hexadecimal or ours.
        Path::parse(format!("{}{name}", self.prefix)).unwrap_or_default()
    }

    /// `None` where there is no such object. A request with a range that begins behind its end is refused.
    async fn begin_get(
        &self,
        operation: Operation,
        key: &Path,
        context: &str,
        options: GetOptions,
    ) -> Result<Option<GetResult>> {
        match self.client.get_opts(key, options).await {
            Ok(result) => Ok(Some(result)),
            Err(error) => match refusal(&error) {
                Some(refusal) if refusal.code() == "NoSuchKey" => Ok(None),
                Some(refusal) if refusal.status.as_u16() == 416 => {
                    Err(Error::new(ErrorKind::RangeInvalid, operation, context).with_source("the blob is shorter"))
                }
                _ => Err(failed(operation, context, &error)),
            },
        }
    }

    /// An object or a part of it, of at least one byte; `None` where it is absent.
    pub(crate) async fn read(
        &self,
        operation: Operation,
        key: &Path,
        context: &str,
        range: Option<Range<u64>>,
        max_bytes: u64,
    ) -> Result<Option<Bytes>> {
        let _permit = self.permits.acquire().await;
        let options = GetOptions { range: range.clone().map(GetRange::Bounded), ..GetOptions::default() };
        let Some(result) = self.begin_get(operation, key, context, options).await? else { return Ok(None) };
        let announced = result.range.clone();
        if let Some(range) = range
            && announced != range
        {
            return Err(Error::new(ErrorKind::RangeInvalid, operation, context)
                .with_source(format!("{}..{} of {} bytes", range.start, range.end, result.meta.size)));
        }
        let length = announced.end.saturating_sub(announced.start);
        if length > max_bytes {
            return Err(Error::new(ErrorKind::LimitExceeded, operation, context)
                .with_source(format!("a reply of {length} bytes, at most {max_bytes} are wanted")));
        }
        let mut parts = result.into_stream();
        let mut bytes = BytesMut::new();
        while let Some(part) = parts.try_next().await.map_err(|error| failed(operation, context, &error))? {
            if bytes.len() as u64 + part.len() as u64 > length {
                return Err(corrupt(operation, context, "its answer is longer than announced"));
            }
            if bytes.is_empty() && part.len() as u64 == length {
                return Ok(Some(part));
            }
            // At most what the caller takes.
            bytes.reserve(usize::try_from(length).unwrap_or_default().saturating_sub(bytes.len()));
            bytes.extend_from_slice(&part);
        }
        if (bytes.len() as u64) < length {
            return Err(cut_short(operation, context));
        }
        Ok(Some(bytes.freeze()))
    }

    async fn get(&self, name: Name, range: Option<Range<u64>>, max_bytes: u64) -> Result<Bytes> {
        let hex = name.to_hex();
        if let Some(range) = &range
            && (range.start >= range.end
                || range.end - range.start > max_bytes
                || range.end > u64::from(CAPABILITIES.block_bytes_max))
        {
            // No request says this; and whether the blob is there, and so long, comes first.
            let blob_bytes = self.size(Operation::Get, name).await?;
            let wanted = check_range(name, Some(range.clone()), blob_bytes, max_bytes)?;
            if wanted.is_empty() {
                return Ok(Bytes::new());
            }
        }
        let found = self.read(Operation::Get, &self.key(&hex), &hex, range, max_bytes).await?;
        found.ok_or_else(|| not_found(Operation::Get, name))
    }

    /// Asked for with one byte of it: the answer to HEAD has no room to say what is wrong.
    pub(crate) async fn size(&self, operation: Operation, name: Name) -> Result<u64> {
        let (hex, _permit) = (name.to_hex(), self.permits.acquire().await);
        let options = GetOptions { range: Some(GetRange::Bounded(0..1)), ..GetOptions::default() };
        match self.begin_get(operation, &self.key(&hex), &hex, options).await {
            Ok(Some(result)) => {
                let bytes = result.meta.size;
                // Read to its end the connection can be used again.
                let _ = result.into_stream().try_next().await;
                Ok(bytes)
            }
            Ok(None) => Err(not_found(operation, name)),
            // An empty one has no first byte.
            Err(error) if error.kind() == ErrorKind::RangeInvalid => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Puts a blob.
    async fn put(&self, operation: Operation, name: Name, bytes: Bytes) -> Result<Put> {
        let hex = name.to_hex();
        let key = self.key(&hex);
        match self.conditional_put {
            ConditionalPut::Native => self.send(operation, &key, &hex, PutMode::Create, bytes).await,
            ConditionalPut::SingleWriter => self.put_alone(operation, &key, name, bytes).await,
        }
    }

    /// One request.
    pub(crate) async fn send(
        &self,
        operation: Operation,
        key: &Path,
        context: &str,
        mode: PutMode,
        bytes: Bytes,
    ) -> Result<Put> {
        let _permit = self.permits.acquire().await;
        let options = PutOptions { mode, ..PutOptions::default() };
        match self.client.put_opts(key, PutPayload::from(bytes), options).await {
            Ok(_) => Ok(Put::Created),
            Err(error) => match refusal(&error) {
                Some(refusal) if refusal.status.as_u16() == 412 => Ok(Put::Exists),
                _ => Err(failed(operation, context, &error)),
            },
        }
    }

    async fn delete(&self, operation: Operation, key: &Path, context: &str) -> Result<()> {
        let _permit = self.permits.acquire().await;
        match self.client.delete(key).await {
            Ok(()) => Ok(()),
            Err(error) => match refusal(&error) {
                Some(refusal) if refusal.code() == "NoSuchKey" => Ok(()),
                _ => Err(failed(operation, context, &error)),
            },
        }
    }

    /// One answer to a listing of what begins with `prefix`: keys, and how to go on.
    async fn page(
        &self,
        operation: Operation,
        prefix: &str,
        options: PaginatedListOptions,
    ) -> Result<(Vec<Path>, Option<String>)> {
        let _permit = self.permits.acquire().await;
        let prefix = (!prefix.is_empty()).then_some(prefix);
        let page = self.client.list_paginated(prefix, options).await;
        let page = page.map_err(|error| failed(operation, &*self.shown, &error))?;
        Ok((page.result.objects.into_iter().map(|object| object.location).collect(), page.page_token))
    }

    /// A page that holds something, or nothing at all; and whether it is the last one.
    async fn list(&self, operation: Operation, prefix: &[u8], after: Option<Name>) -> Result<(Vec<Name>, bool)> {
        if prefix.len() > Name::BYTES {
            return Ok((Vec::new(), true));
        }
        let digits: String = prefix.iter().map(|byte| format!("{byte:02x}")).collect();
        let wanted = format!("{}{digits}", self.prefix);
        let mut options = PaginatedListOptions {
            offset: after.map(|after| format!("{}{after}", self.prefix)),
            // What lies in sub-folders is not ours.
            delimiter: Some("/".into()),
            ..PaginatedListOptions::default()
        };
        // Pages may hold nothing of ours, and an empty one would end the listing.
        loop {
            let (keys, next) = self.page(operation, &wanted, options.clone()).await?;
            let name = |key: &Path| Name::from_hex(key.as_ref().strip_prefix(&*self.prefix)?);
            // A server that does not know where to begin begins anew.
            let mut names: Vec<_> =
                keys.iter().filter_map(name).filter(|name| after.is_none_or(|after| *name > after)).collect();
            names.sort_unstable();
            if !names.is_empty() || next.is_none() {
                return Ok((names, next.is_none()));
            }
            if next == options.page_token {
                return Err(corrupt(operation, &*self.shown, "its listing does not go on"));
            }
            options.page_token = next;
        }
    }

    /// What probes left that were cut short.
    async fn leftovers(&self) -> Result<Vec<Path>> {
        let (mut keys, mut options) = (Vec::new(), PaginatedListOptions::default());
        loop {
            let (page, next) = self.page(Operation::Open, &format!("{}{PROBE}", self.prefix), options.clone()).await?;
            keys.extend(page.into_iter().filter(|key| self.is_of_a_probe(key)));
            if next.is_none() || next == options.page_token {
                return Ok(keys);
            }
            options.page_token = next;
        }
    }

    fn is_of_a_probe(&self, key: &Path) -> bool {
        let rest = key.as_ref().strip_prefix(&*self.prefix).and_then(|rest| rest.strip_prefix(PROBE));
        rest.and_then(|rest| rest.split_once('/')).is_some_and(|(number, name)| {
            number.len() == 16 && number.bytes().all(|byte| byte.is_ascii_hexdigit()) && Name::from_hex(name).is_some()
        })
    }
}

#[async_trait]
impl Storage for S3Storage {
    fn capabilities(&self) -> Capabilities {
        match self.requests.conditional_put {
            ConditionalPut::Native => CAPABILITIES,
            ConditionalPut::SingleWriter => Capabilities { reach: Reach::Process, ..CAPABILITIES },
        }
    }

    fn is_remote(&self) -> bool {
        true
    }

    async fn put(&self, name: Name, bytes: Bytes) -> Result<Put> {
        self.put_as(Operation::Put, name, bytes).await
    }

    async fn put_durable(&self, name: Name, bytes: Bytes) -> Result<Put> {
        self.put_as(Operation::PutDurable, name, bytes).await
    }

    async fn get(&self, name: Name, range: Option<Range<u64>>, max_bytes: u64) -> Result<Bytes> {
        self.run(Operation::Get, |requests| async move { requests.get(name, range, max_bytes).await }).await
    }

    async fn size(&self, name: Name) -> Result<u64> {
        self.run(Operation::Size, |requests| async move { requests.size(Operation::Size, name).await }).await
    }

    async fn delete(&self, name: Name) -> Result<()> {
        self.run(Operation::Delete, |requests| async move {
            let hex = name.to_hex();
            requests.delete(Operation::Delete, &requests.key(&hex), &hex).await
        })
        .await
    }

    async fn list(&self, prefix: &[u8], after: Option<Name>) -> Result<Vec<Name>> {
        Ok(self.list_page(prefix, after).await?.0)
    }

    async fn list_page(&self, prefix: &[u8], after: Option<Name>) -> Result<(Vec<Name>, bool)> {
        let prefix = prefix.to_vec();
        self.run(Operation::List, |requests| async move { requests.list(Operation::List, &prefix, after).await }).await
    }

    /// What was acknowledged is durable.
    async fn sync(&self) -> Result<()> {
        Ok(())
    }

    /// What is there is durable; and of a single writer it stays.
    async fn persist(&self, names: &[Name]) -> Result<()> {
        let names = names.to_vec();
        self.run(Operation::Persist, |requests| async move {
            let looks = names.into_iter().map(|name| requests.size(Operation::Persist, name));
            // Nothing is changed by looking.
            try_join_all(looks).await.map_err(|error| error.with_effect(Effect::None))?;
            requests.is_still_alone(Operation::Persist, &requests.shown).await
        })
        .await
    }
}

impl S3Storage {
    async fn put_as(&self, operation: Operation, name: Name, bytes: Bytes) -> Result<Put> {
        check_blob_bytes(operation, name, bytes.len(), CAPABILITIES.block_bytes_max)?;
        self.look_before_putting(operation).await?;
        self.run(operation, |requests| async move { requests.put(operation, name, bytes).await }).await
    }
}

#[cfg(test)]
mod tests {
    use strongroom_conformance::block_on;
    use strongroom_s3_server::{ACCESS_KEY, SECRET_KEY, Server, ServerOptions};

    use super::*;
    use crate::credentials::S3Credentials;

    #[test]
    fn who_finds_that_a_single_writer_was_quicker_is_refused() {
        let server = Server::start(ServerOptions::default()).unwrap();
        let mut options = S3Options::new("bucket");
        options.endpoint = Some(server.endpoint());
        options.credentials = Some(S3Credentials::new(ACCESS_KEY, SECRET_KEY));
        let context = OpenContext::new(strongroom::env::system().unwrap()).with_mode(OpenMode::CreateIfMissing);
        let alone = S3Options { conditional_put: ConditionalPut::SingleWriter, ..options.clone() };
        block_on(async {
            // It has looked, found nothing, and goes on when the other one has written.
            let late = S3Storage::connect(&options, &context).unwrap();
            S3Storage::open(&alone, &context).await.unwrap();
            let error = late.create().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.to_string().contains("conditional-put=none"), "{error}");
            S3Storage::open(&alone, &context).await.unwrap();
        });
    }
}
