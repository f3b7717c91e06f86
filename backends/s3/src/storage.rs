//! The handle: what the clauses ask for, as requests.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

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
use strongroom_core::layer::{Retry, RetryPolicy};
use strongroom_core::storage::bounds::{check_blob_bytes, check_range, not_found};
use strongroom_core::storage::probe::{PutIfAbsent, put_if_absent};
use strongroom_core::storage::{
    BatchSupport, Capabilities, Durability, Effect, Error, ErrorKind, ListOrder, Name, OpenContext, OpenMode,
    Operation, Put, RangeReads, Reach, Result, Retry as Advice, Storage, StorageExt as _, Torn,
};
use tokio::sync::Semaphore;

use crate::config::{ConditionalPut, S3Options, invalid};
use crate::connect::connect;
use crate::error::{corrupt, cut_short, failed, is_unreachable, refusal};
use crate::marker::{self, Marker};
use crate::threads::{Threads, Turns};

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

/// How often opening tries what can succeed later.
const OPENING: RetryPolicy = RetryPolicy {
    attempts_max: 5,
    delay_first: std::time::Duration::from_millis(100),
    delay_max: std::time::Duration::from_secs(2),
    total_max: std::time::Duration::from_secs(15),
};

/// A handle on a prefix of a bucket.
pub struct S3Storage {
    requests: Requests,
    threads: Arc<Threads>,
}

/// What makes requests; cheap to clone, so that each call has one of its own on its thread.
#[derive(Clone)]
struct Requests {
    client: AmazonS3,
    /// Empty, or ending with a slash.
    prefix: Arc<str>,
    /// As messages name it.
    shown: Arc<str>,
    permits: Arc<Semaphore>,
    conditional_put: ConditionalPut,
    turns: Turns,
}

impl S3Storage {
    /// Opens a prefix of a bucket, which must be there.
    ///
    /// With [`OpenMode::CreateIfMissing`], where nothing is there yet, it is tried whether the server keeps conditional puts,
    /// on names of its own beside the blobs, and what was found is written down. That is evidence, and no proof.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] without such a bucket, and where no storage was created there; [`ErrorKind::Unsupported`] where
    /// the server keeps no conditional puts, or where what is there is of a later version; [`ErrorKind::Invalid`] for options
    /// that make no sense, and for another [`ConditionalPut`] than it was created with; [`ErrorKind::Credentials`]; what the
    /// server raises.
    pub async fn open(options: &S3Options, context: &OpenContext) -> Result<Self> {
        let storage = Self::connect(options)?;
        match storage.marker(context).await? {
            Some(marker) if marker.conditional_put == options.conditional_put => {}
            Some(marker) => {
                return Err(invalid(match marker.conditional_put {
                    ConditionalPut::SingleWriter => {
                        "this storage was made for a single writer: say `conditional-put=none`, and see to it that only one \
                         process writes"
                    }
                    ConditionalPut::Native => {
                        "this storage is for several writers, and `conditional-put=none` would write over what they wrote: \
                         leave it out"
                    }
                }));
            }
            None if context.mode == OpenMode::CreateIfMissing => storage.create(context).await?,
            // Blobs that were brought from elsewhere, without what lies beside them.
            None if storage.holds_blobs(context).await? => {}
            None => {
                return Err(Error::new(ErrorKind::NotFound, Operation::Open, &*storage.requests.shown)
                    .with_source("nothing was created there"));
            }
        }
        Ok(storage)
    }

    fn connect(options: &S3Options) -> Result<Self> {
        let threads = Threads::shared().map_err(|error| Error::from_io(Operation::Open, "the threads", error))?;
        let client = connect(options, &|name| std::env::var(name).ok())?;
        let prefix = options.prefix.trim_matches('/');
        Path::parse(prefix).map_err(|_| invalid("the prefix has an empty part, or `.` or `..` as one"))?;
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        let requests = Requests {
            client,
            shown: format!("s3://{}/{prefix}", options.bucket).into(),
            prefix: prefix.into(),
            permits: Arc::new(Semaphore::new(options.requests_max.get())),
            conditional_put: options.conditional_put,
            turns: threads.turns().clone(),
        };
        Ok(Self { requests, threads })
    }

    async fn run<T: Send + 'static, F: Future<Output = Result<T>> + Send + 'static>(
        &self,
        operation: Operation,
        call: impl FnOnce(Requests) -> F,
    ) -> Result<T> {
        self.threads.run(operation, call(self.requests.clone())).await
    }

    /// A call of opening, which no layer repeats. Where nothing listens it is told at once.
    async fn opening<T: Send + 'static, F: Future<Output = Result<T>> + Send + 'static>(
        &self,
        context: &OpenContext,
        call: impl Fn(Requests) -> F,
    ) -> Result<T> {
        let mut delay = OPENING.delay_first;
        for _ in 1..OPENING.attempts_max {
            match self.run(Operation::Open, &call).await {
                Err(error) if error.retry() == Advice::CanHelp && !is_unreachable(&error) => {}
                answer => return answer,
            }
            context.env.sleep(delay).await;
            delay = delay.saturating_mul(2).min(OPENING.delay_max);
        }
        self.run(Operation::Open, &call).await
    }

    /// What a call met that was part of opening.
    fn while_opening(&self, error: &Error) -> Error {
        let what = std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string);
        Error::new(error.kind(), Operation::Open, &*self.requests.shown).with_retry(error.retry()).with_source(what)
    }

    async fn marker(&self, context: &OpenContext) -> Result<Option<Marker>> {
        let found = self.opening(context, |requests| async move {
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

    async fn holds_blobs(&self, context: &OpenContext) -> Result<bool> {
        let names = self.opening(context, |requests| async move { requests.list(Operation::Open, &[], None).await });
        Ok(!names.await?.is_empty())
    }

    /// Finds out what the server keeps, and writes it down. Nothing stays where it does not keep enough.
    async fn create(&self, context: &OpenContext) -> Result<()> {
        let marker = match self.requests.conditional_put {
            ConditionalPut::SingleWriter => Marker::single_writer(),
            ConditionalPut::Native => {
                let random = context
                    .env
                    .random::<8>()
                    .map_err(|error| Error::new(ErrorKind::Other, Operation::Open, "a probe").with_source(error))?;
                let folder = format!("{}{PROBE}{:016x}/", self.requests.prefix, u64::from_le_bytes(random));
                let requests = Requests { prefix: folder.into(), ..self.requests.clone() };
                let beside: Arc<dyn Storage> = Arc::new(Self { requests, threads: self.threads.clone() });
                let patient = Retry::new(beside, context.env.clone(), OPENING);
                match put_if_absent(&patient, &context.env).await.map_err(|error| self.while_opening(&error))? {
                    PutIfAbsent::Kept(evidence) => Marker::proven(evidence),
                    PutIfAbsent::Broken(what) => {
                        return Err(Error::new(ErrorKind::Unsupported, Operation::Open, &*self.requests.shown)
                            .with_source(format!(
                                "this server keeps no conditional puts: {what}; use another, or say `conditional-put=none` \
                                 and see to it that only one process ever writes"
                            )));
                    }
                }
            }
        };
        let bytes = Bytes::from(marker.to_string());
        self.opening(context, move |requests| {
            let bytes = bytes.clone();
            async move {
                let (key, shown) = (requests.key(marker::NAME), requests.shown.to_string());
                // Where another was quicker, it found the same.
                requests.put(Operation::Open, &key, &shown, None, bytes).await.map(drop)
            }
        })
        .await
    }

    /// Removes what `open` left, where there is nothing else.
    pub(crate) async fn remove_empty(options: &S3Options, context: &OpenContext) -> Result<()> {
        let storage = Self::connect(options)?;
        if !storage.list_all(&[]).await.map_err(|error| storage.while_opening(&error))?.is_empty() {
            return Err(Error::new(ErrorKind::Other, Operation::Open, &*storage.requests.shown)
                .with_source("blobs are in it: nothing was removed"));
        }
        storage
            .opening(context, |requests| async move {
                for key in requests.leftovers().await? {
                    requests.delete(Operation::Open, &key, &requests.shown).await?;
                }
                requests.delete(Operation::Open, &requests.key(marker::NAME), &requests.shown).await
            })
            .await
    }
}

impl fmt::Debug for S3Storage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("S3Storage").field(&self.requests.shown).finish()
    }
}

impl Requests {
    fn key(&self, name: &str) -> Path {
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
    async fn read(
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

    async fn size(&self, operation: Operation, name: Name) -> Result<u64> {
        let (hex, _permit) = (name.to_hex(), self.permits.acquire().await);
        let key = self.key(&hex);
        let error = match self.client.head(&key).await {
            Ok(meta) => return Ok(meta.size),
            Err(error) => error,
        };
        if refusal(&error).is_none_or(|refusal| refusal.status.as_u16() != 404) {
            return Err(failed(operation, hex, &error));
        }
        // The answer to HEAD has no room to say whether the blob is absent, or the bucket.
        match self.begin_get(operation, &key, &hex, GetOptions::default()).await? {
            // It came meanwhile. What is left of the answer is not waited for.
            Some(result) => Ok(result.meta.size),
            None => Err(not_found(operation, name)),
        }
    }

    /// `name` takes its turn where the server does not decide.
    async fn put(
        &self,
        operation: Operation,
        key: &Path,
        context: &str,
        name: Option<Name>,
        bytes: Bytes,
    ) -> Result<Put> {
        let _turn = match (self.conditional_put, name) {
            (ConditionalPut::SingleWriter, Some(name)) => self.turns.take(name).await,
            _ => None,
        };
        let mode = match (self.conditional_put, name) {
            (ConditionalPut::Native, _) => PutMode::Create,
            (ConditionalPut::SingleWriter, None) => PutMode::Overwrite,
            (ConditionalPut::SingleWriter, Some(name)) => match self.size(operation, name).await {
                Ok(_) => return Ok(Put::Exists),
                Err(error) if error.kind() == ErrorKind::NotFound => PutMode::Overwrite,
                // Nothing was put yet.
                Err(error) => return Err(error.with_effect(Effect::None)),
            },
        };
        let _permit = self.permits.acquire().await;
        let options = PutOptions { mode, ..PutOptions::default() };
        match self.client.put_opts(key, PutPayload::from(bytes), options).await {
            Ok(_) => Ok(Put::Created),
            Err(error) => match refusal(&error) {
                Some(refusal) if matches!(refusal.status.as_u16(), 304 | 412) => Ok(Put::Exists),
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

    async fn list(&self, operation: Operation, prefix: &[u8], after: Option<Name>) -> Result<Vec<Name>> {
        if prefix.len() > Name::BYTES {
            return Ok(Vec::new());
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
                return Ok(names);
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
        let prefix = prefix.to_vec();
        self.run(Operation::List, |requests| async move { requests.list(Operation::List, &prefix, after).await }).await
    }

    /// What was acknowledged is durable.
    async fn sync(&self) -> Result<()> {
        Ok(())
    }

    /// What is there is durable.
    async fn persist(&self, names: &[Name]) -> Result<()> {
        let names = names.to_vec();
        self.run(Operation::Persist, |requests| async move {
            let looks = names.into_iter().map(|name| requests.size(Operation::Persist, name));
            // Nothing is changed by looking.
            try_join_all(looks).await.map(drop).map_err(|error| error.with_effect(Effect::None))
        })
        .await
    }
}

impl S3Storage {
    async fn put_as(&self, operation: Operation, name: Name, bytes: Bytes) -> Result<Put> {
        check_blob_bytes(operation, name, bytes.len(), CAPABILITIES.block_bytes_max)?;
        self.run(operation, |requests| async move {
            let hex = name.to_hex();
            requests.put(operation, &requests.key(&hex), &hex, Some(name), bytes).await
        })
        .await
    }
}
