//! The operations of S3 that a storage needs, on the buckets in memory.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use crate::signature::KeyPair;
use crate::text::{decoded, element, pairs};
use crate::world::{Conditional, NoBucket, Query, Stored, World};

/// The largest page, as in S3.
const PAGE_KEYS_MAX: usize = 1000;

/// Nobody asks when: so it is always the same time.
const MODIFIED: &str = "2023-11-14T22:13:20.000Z";
const MODIFIED_IN_A_HEADER: &str = "Tue, 14 Nov 2023 22:13:20 GMT";

#[derive(Clone, Debug)]
pub(crate) struct Service {
    pub(crate) world: Arc<World>,
    pub(crate) keys: KeyPair,
    pub(crate) conditional: Conditional,
    pub(crate) page_keys_max: usize,
    pub(crate) lists_first_version: bool,
    pub(crate) virtual_host: Option<String>,
}

/// What is special about one request.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Special {
    /// Its listing is to be of a while ago.
    pub(crate) is_stale: bool,
    /// What it puts arrives later.
    pub(crate) is_late: bool,
}

/// A refusal of S3.
struct Refusal(StatusCode, &'static str, String);

impl Refusal {
    fn new(status: StatusCode, code: &'static str) -> Self {
        Self(status, code, "As S3 would say".to_owned())
    }
}

impl From<NoBucket> for Refusal {
    fn from(_: NoBucket) -> Self {
        Self::new(StatusCode::NOT_FOUND, "NoSuchBucket")
    }
}

type Answer = Result<Response<Bytes>, Refusal>;

/// An answer without anything special to it.
fn plain(status: StatusCode, body: impl Into<Bytes>) -> Response<Bytes> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response
}

/// What a server says when it does not do something.
pub(crate) fn refusal(status: StatusCode, code: &str, message: &str) -> Response<Bytes> {
    let text = format!("<Error>{}{}</Error>", element("Code", code), element("Message", message));
    plain(status, format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>{text}"))
}

/// A name for the content: it is compared, and proves nothing.
fn etag(bytes: &Bytes) -> String {
    let hash = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3));
    format!("\"{hash:016x}-{}\"", bytes.len())
}

impl Service {
    /// Answers a request; `None` where its body does not come.
    pub(crate) async fn call(&self, request: Request<Incoming>, special: Special) -> Option<Response<Bytes>> {
        let (parts, body) = request.into_parts();
        let mut looked = None;
        if self.conditional == Conditional::Racy && parts.method == Method::PUT {
            // Looked for before the body has come, and put after: whoever looks meanwhile finds nothing either.
            let (bucket, key) = self.address(&parts);
            looked = Some(self.world.get(&bucket, &key).is_ok_and(|found| found.is_some()));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // Its end says that its length is right; what does not end changes nothing.
        let body = body.collect().await.ok()?.to_bytes();
        let answer = match self.keys.check(&parts, &body) {
            Ok(()) => self.answer(&parts, body, looked, special),
            Err((code, message)) => Err(Refusal(StatusCode::FORBIDDEN, code, message)),
        };
        let mut response = answer.unwrap_or_else(|Refusal(status, code, message)| refusal(status, code, &message));
        if parts.method == Method::HEAD {
            let length = response.body().len();
            if !response.headers().contains_key(header::CONTENT_LENGTH) {
                response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
            }
            *response.body_mut() = Bytes::new();
        }
        Some(response)
    }

    /// Bucket and key of a request.
    fn address(&self, parts: &Parts) -> (String, String) {
        let path = parts.uri.path().trim_start_matches('/');
        let of_host =
            self.virtual_host.as_ref().and_then(|above| host(&parts.headers).strip_suffix(above)?.strip_suffix('.'));
        let (bucket, key) = match of_host {
            Some(bucket) => (bucket, path),
            None => path.split_once('/').unwrap_or((path, "")),
        };
        // In paths a plus is a plus.
        (decoded(bucket), decoded(&key.replace('+', "%2B")))
    }

    fn answer(&self, parts: &Parts, body: Bytes, looked: Option<bool>, special: Special) -> Answer {
        let (bucket, key) = self.address(parts);
        let is_bucket = key.is_empty();
        match parts.method {
            Method::PUT if is_bucket => {
                self.world.create_bucket(&bucket);
                Ok(plain(StatusCode::OK, ""))
            }
            Method::PUT => {
                let is_conditional = parts.headers.get(header::IF_NONE_MATCH).is_some_and(|value| value == "*");
                self.put(&bucket, &key, body, is_conditional, looked, special)
            }
            Method::GET if is_bucket => self.list(&bucket, parts, special),
            Method::HEAD if is_bucket => match self.world.has_bucket(&bucket) {
                true => Ok(plain(StatusCode::OK, "")),
                false => Err(NoBucket.into()),
            },
            Method::GET | Method::HEAD => {
                let bytes = self.world.get(&bucket, &key)?;
                let bytes = bytes.ok_or_else(|| Refusal::new(StatusCode::NOT_FOUND, "NoSuchKey"))?;
                read(parts, &bytes)
            }
            Method::DELETE => {
                self.world.delete(&bucket, &key)?;
                Ok(plain(StatusCode::NO_CONTENT, ""))
            }
            _ => Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed")),
        }
    }

    fn put(
        &self,
        bucket: &str,
        key: &str,
        bytes: Bytes,
        is_conditional: bool,
        looked: Option<bool>,
        special: Special,
    ) -> Answer {
        let taken = || Refusal::new(StatusCode::PRECONDITION_FAILED, "PreconditionFailed");
        let only_new = match self.conditional {
            Conditional::Refused if is_conditional => {
                return Err(Refusal::new(StatusCode::NOT_IMPLEMENTED, "NotImplemented"));
            }
            Conditional::Ignored => false,
            Conditional::Racy if is_conditional && looked == Some(true) => return Err(taken()),
            Conditional::Racy => false,
            _ => is_conditional,
        };
        let tag = etag(&bytes);
        if special.is_late {
            self.world.put_later(bucket, key, bytes, only_new);
            return Ok(plain(StatusCode::OK, ""));
        }
        match self.world.put(bucket, key, bytes, only_new)? {
            Stored::Taken => Err(taken()),
            Stored::Done => {
                let mut response = plain(StatusCode::OK, "");
                if let Ok(tag) = tag.parse() {
                    response.headers_mut().insert(header::ETAG, tag);
                }
                Ok(response)
            }
        }
    }

    fn list(&self, bucket: &str, parts: &Parts, special: Special) -> Answer {
        let query: Vec<_> = pairs(parts.uri.query().unwrap_or_default()).collect();
        let parameter = |wanted: &str| {
            query
                .iter()
                .find(|(name, _)| name == wanted)
                .map(|(_, value)| value.as_str())
                .filter(|value| !value.is_empty())
        };
        let wanted = parameter("max-keys").and_then(|keys| keys.parse().ok()).unwrap_or(PAGE_KEYS_MAX);
        let after = match self.lists_first_version {
            true => parameter("marker"),
            false => parameter("continuation-token").or_else(|| parameter("start-after")),
        };
        let page = self.world.list(
            bucket,
            &Query {
                prefix: parameter("prefix").unwrap_or_default(),
                after: after.unwrap_or_default(),
                delimiter: parameter("delimiter"),
                keys_max: wanted.min(self.page_keys_max).min(PAGE_KEYS_MAX),
                stale: special.is_stale,
            },
        )?;
        let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?><ListBucketResult>");
        text += &element("Name", bucket);
        text += &element("IsTruncated", if page.next.is_some() { "true" } else { "false" });
        if self.lists_first_version {
            text += &element("Marker", after.unwrap_or_default());
        } else {
            text += &element("KeyCount", &(page.objects.len() + page.common_prefixes.len()).to_string());
            if let Some(next) = &page.next {
                text += &element("NextContinuationToken", next);
            }
        }
        for (key, size) in &page.objects {
            let _ = write!(
                text,
                "<Contents>{}<LastModified>{MODIFIED}</LastModified><Size>{size}</Size></Contents>",
                element("Key", key),
            );
        }
        for prefix in &page.common_prefixes {
            let _ = write!(text, "<CommonPrefixes>{}</CommonPrefixes>", element("Prefix", prefix));
        }
        Ok(plain(StatusCode::OK, text + "</ListBucketResult>"))
    }
}

/// The host that a request names.
pub(crate) fn host(headers: &http::HeaderMap) -> &str {
    headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default()
}

fn read(parts: &Parts, bytes: &Bytes) -> Answer {
    let length = bytes.len();
    let asked = parts.headers.get(header::RANGE).and_then(|value| value.to_str().ok());
    let (status, part, range) = match asked.and_then(|text| text.strip_prefix("bytes=")) {
        None => (StatusCode::OK, bytes.clone(), None),
        Some(range) => {
            let unfit = || Refusal::new(StatusCode::RANGE_NOT_SATISFIABLE, "InvalidRange");
            let (first, last) = range.split_once('-').ok_or_else(unfit)?;
            let (first, end) = match (first.parse::<usize>(), last.parse::<usize>()) {
                (Ok(first), Ok(last)) => (first, last.saturating_add(1).min(length)),
                (Ok(first), Err(_)) => (first, length),
                (Err(_), Ok(count)) => (length.saturating_sub(count), length),
                (Err(_), Err(_)) => return Err(unfit()),
            };
            if first >= end {
                return Err(unfit());
            }
            (StatusCode::PARTIAL_CONTENT, bytes.slice(first..end), Some(format!("bytes {first}-{}/{length}", end - 1)))
        }
    };
    let part_bytes = part.len();
    let mut response = plain(status, part);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, part_bytes.into());
    headers.insert(header::LAST_MODIFIED, http::HeaderValue::from_static(MODIFIED_IN_A_HEADER));
    if let Ok(tag) = etag(bytes).parse() {
        headers.insert(header::ETAG, tag);
    }
    if let Some(range) = range.and_then(|range| range.parse().ok()) {
        headers.insert(header::CONTENT_RANGE, range);
    }
    Ok(response)
}
