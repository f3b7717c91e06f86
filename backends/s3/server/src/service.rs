//! The operations of S3 that a storage needs, on the buckets in memory.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt as _;
use s3s::auth::{S3Auth, SecretKey};
use s3s::dto::{
    CommonPrefix, CreateBucketInput, CreateBucketOutput, DeleteObjectInput, DeleteObjectOutput, DeleteObjectsInput,
    DeleteObjectsOutput, DeletedObject, ETag, ETagCondition, GetObjectInput, GetObjectOutput, HeadBucketInput,
    HeadBucketOutput, HeadObjectInput, HeadObjectOutput, ListObjectsV2Input, ListObjectsV2Output, Object,
    PutObjectInput, PutObjectOutput, StreamingBlob, Timestamp,
};
use s3s::{Body, S3, S3Request, S3Response, S3Result, s3_error};

use crate::world::{Conditional, NoBucket, Query, Stored, World};

/// The largest page, as in S3.
const PAGE_KEYS_MAX: usize = 1000;

/// Marks a request whose listing is to be of a while ago.
#[derive(Clone, Copy)]
pub(crate) struct Stale;

#[derive(Clone, Debug)]
pub(crate) struct Service {
    pub(crate) world: Arc<World>,
    pub(crate) conditional: Conditional,
    pub(crate) page_keys_max: usize,
}

/// One key pair that is let in.
pub(crate) struct KeyPair {
    pub(crate) access_key: String,
    pub(crate) secret_key: SecretKey,
}

#[async_trait]
impl S3Auth for KeyPair {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        if access_key == self.access_key {
            return Ok(self.secret_key.clone());
        }
        // With the key in the message, as servers do: nobody must show it.
        Err(s3_error!(InvalidAccessKeyId, "The access key {access_key} does not exist in our records."))
    }
}

fn no_bucket(_: NoBucket) -> s3s::S3Error {
    s3_error!(NoSuchBucket, "The specified bucket does not exist")
}

/// A name for the content: it is compared, and proves nothing.
fn etag(bytes: &Bytes) -> ETag {
    let hash = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3));
    ETag::Strong(format!("{hash:016x}-{}", bytes.len()))
}

/// Nobody asks when: so it is always the same time.
fn modified() -> Timestamp {
    Timestamp::from(UNIX_EPOCH + Duration::from_secs(1_700_000_000))
}

fn length(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[async_trait]
impl S3 for Service {
    async fn create_bucket(&self, request: S3Request<CreateBucketInput>) -> S3Result<S3Response<CreateBucketOutput>> {
        self.world.create_bucket(&request.input.bucket);
        Ok(S3Response::new(CreateBucketOutput::default()))
    }

    async fn head_bucket(&self, request: S3Request<HeadBucketInput>) -> S3Result<S3Response<HeadBucketOutput>> {
        match self.world.has_bucket(&request.input.bucket) {
            true => Ok(S3Response::new(HeadBucketOutput::default())),
            false => Err(no_bucket(NoBucket)),
        }
    }

    async fn put_object(&self, request: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let input = request.input;
        let only_new = matches!(input.if_none_match, Some(ETagCondition::Any));
        let only_new = match self.conditional {
            Conditional::Refused if only_new => {
                return Err(s3_error!(NotImplemented, "A header you provided implies functionality that is not there"));
            }
            Conditional::Ignored => false,
            _ => only_new,
        };
        if self.conditional == Conditional::Racy && only_new {
            // Looked for before the body has come, and put after: whoever looks meanwhile finds nothing either.
            if self.world.get(&input.bucket, &input.key).map_err(no_bucket)?.is_some() {
                return Err(s3_error!(PreconditionFailed, "At least one of the pre-conditions did not hold"));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let mut bytes = BytesMut::new();
        if let Some(mut body) = input.body {
            // Its end says that signature and length are right; what does not end changes nothing.
            while let Some(part) = body.try_next().await.map_err(|error| s3_error!(IncompleteBody, "{error}"))? {
                bytes.extend_from_slice(&part);
            }
        }
        let bytes = bytes.freeze();
        if input.content_length.is_some_and(|announced| announced != length(bytes.len())) {
            return Err(s3_error!(IncompleteBody, "The body is shorter than announced"));
        }
        let only_new = only_new && self.conditional != Conditional::Racy;
        let e_tag = Some(etag(&bytes));
        match self.world.put(&input.bucket, &input.key, bytes, only_new).map_err(no_bucket)? {
            Stored::Done => Ok(S3Response::new(PutObjectOutput { e_tag, ..Default::default() })),
            Stored::Taken => Err(s3_error!(PreconditionFailed, "At least one of the pre-conditions did not hold")),
        }
    }

    async fn get_object(&self, request: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let input = request.input;
        let Some(bytes) = self.world.get(&input.bucket, &input.key).map_err(no_bucket)? else {
            return Err(s3_error!(NoSuchKey, "The specified key does not exist."));
        };
        let e_tag = Some(etag(&bytes));
        let mut content_range = None;
        let mut part = bytes.clone();
        if let Some(range) = input.range {
            let range = range.check(bytes.len() as u64).map_err(|_| s3_error!(InvalidRange))?;
            content_range = Some(format!("bytes {}-{}/{}", range.start, range.end.saturating_sub(1), bytes.len()));
            let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
            part = bytes.slice(place(range.start)..place(range.end));
        }
        Ok(S3Response::new(GetObjectOutput {
            accept_ranges: Some("bytes".to_owned()),
            content_length: Some(length(part.len())),
            content_range,
            e_tag,
            last_modified: Some(modified()),
            body: Some(StreamingBlob::from(Body::from(part))),
            ..Default::default()
        }))
    }

    async fn head_object(&self, request: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        let input = request.input;
        let Some(bytes) = self.world.get(&input.bucket, &input.key).map_err(no_bucket)? else {
            return Err(s3_error!(NoSuchKey, "The specified key does not exist."));
        };
        Ok(S3Response::new(HeadObjectOutput {
            content_length: Some(length(bytes.len())),
            e_tag: Some(etag(&bytes)),
            last_modified: Some(modified()),
            ..Default::default()
        }))
    }

    async fn delete_object(&self, request: S3Request<DeleteObjectInput>) -> S3Result<S3Response<DeleteObjectOutput>> {
        self.world.delete(&request.input.bucket, &request.input.key).map_err(no_bucket)?;
        Ok(S3Response::with_status(DeleteObjectOutput::default(), http::StatusCode::NO_CONTENT))
    }

    async fn delete_objects(
        &self,
        request: S3Request<DeleteObjectsInput>,
    ) -> S3Result<S3Response<DeleteObjectsOutput>> {
        let mut deleted = Vec::new();
        for object in request.input.delete.objects {
            self.world.delete(&request.input.bucket, &object.key).map_err(no_bucket)?;
            deleted.push(DeletedObject { key: Some(object.key), ..Default::default() });
        }
        Ok(S3Response::new(DeleteObjectsOutput { deleted: Some(deleted), ..Default::default() }))
    }

    async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let stale = request.extensions.get::<Stale>().is_some();
        let input = request.input;
        let wanted = input.max_keys.map_or(PAGE_KEYS_MAX, |keys| usize::try_from(keys).unwrap_or(0));
        let query = Query {
            prefix: input.prefix.as_deref().unwrap_or_default(),
            after: input.continuation_token.as_deref().or(input.start_after.as_deref()).unwrap_or_default(),
            delimiter: input.delimiter.as_deref(),
            keys_max: wanted.min(self.page_keys_max).min(PAGE_KEYS_MAX),
            stale,
        };
        let page = self.world.list(&input.bucket, &query).map_err(no_bucket)?;
        let object = |(key, size): (String, usize)| Object {
            key: Some(key),
            size: Some(length(size)),
            last_modified: Some(modified()),
            ..Default::default()
        };
        let common = |prefix| CommonPrefix { prefix: Some(prefix) };
        let count = page.objects.len() + page.common_prefixes.len();
        Ok(S3Response::new(ListObjectsV2Output {
            name: Some(input.bucket.clone()),
            prefix: input.prefix.clone(),
            key_count: i32::try_from(count).ok(),
            max_keys: i32::try_from(query.keys_max).ok(),
            is_truncated: Some(page.next.is_some()),
            contents: Some(page.objects.into_iter().map(object).collect()),
            common_prefixes: Some(page.common_prefixes.into_iter().map(common).collect()),
            next_continuation_token: page.next,
            ..Default::default()
        }))
    }
}
