//! `s3://bucket/prefix?region=…&endpoint=…`

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use strongroom_core::storage::{
    Error, ErrorKind, OpenContext, OpenMode, Operation, Registry, Result, SchemeInfo, Storage, StorageConstructor,
    StorageUri,
};

use crate::connect::endpoint_of;
use crate::credentials::S3Credentials;
use crate::storage::{CAPABILITIES, S3Storage};

/// The scheme of this storage.
const SCHEME: &str = "s3";

/// How many requests are under way at once, unless said otherwise.
const REQUESTS_MAX: NonZeroUsize = NonZeroUsize::MIN.saturating_add(31);

/// For how long nothing may move, unless said otherwise.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The longest: the engine gives up a call after five minutes, and more for what is large.
const TIMEOUT_SECONDS_MAX: u64 = 240;

const PARAMETERS: [&str; 8] =
    ["region", "endpoint", "profile", "addressing", "allow-http", "conditional-put", "requests-max", "timeout"];

/// Adds `s3:` to a registry.
pub fn register(registry: &mut Registry) {
    registry.register(SCHEME, S3Constructor::default());
}

/// How a name is put that must not be taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ConditionalPut {
    /// By the server, for all clients (`If-None-Match: *`).
    #[default]
    Native,
    /// By looking first and putting then, which only holds among the handles of one process. Whoever chooses this promises
    /// that no other process writes: what two write at once is lost, without a word.
    SingleWriter,
}

/// Where a storage is, and how it is reached.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct S3Options {
    /// The bucket.
    pub bucket: String,
    /// What the names of all objects begin with, without slashes at its ends; may be empty.
    pub prefix: String,
    /// The region; by default of the environment or the profile, or `us-east-1`.
    pub region: Option<String>,
    /// The address of a server other than those of AWS: `https://host:port`; by default of the environment or the profile.
    pub endpoint: Option<String>,
    /// The profile of the AWS tools that the keys are taken from, before those of the environment.
    pub profile: Option<String>,
    /// Keys; by default those of the profile, the environment, the default profile, or the machine.
    pub credentials: Option<S3Credentials>,
    /// Whether the bucket is part of the host's name; by default with AWS alone.
    pub virtual_hosts: Option<bool>,
    /// Whether an endpoint without TLS may be elsewhere than on this machine.
    pub allow_http: bool,
    /// How a name is put that must not be taken.
    pub conditional_put: ConditionalPut,
    /// How many requests are under way at once.
    pub requests_max: NonZeroUsize,
    /// How long a request waits while nothing moves; how long it takes is as the line is. What is large waits longer for its
    /// answer: a second more each 16 KiB.
    pub timeout: Duration,
}

impl S3Options {
    /// A bucket, all else by default.
    #[must_use]
    pub fn new(bucket: impl Into<String>) -> Self {
        Self {
            bucket: bucket.into(),
            prefix: String::new(),
            region: None,
            endpoint: None,
            profile: None,
            credentials: None,
            virtual_hosts: None,
            allow_http: false,
            conditional_put: ConditionalPut::Native,
            requests_max: REQUESTS_MAX,
            timeout: TIMEOUT,
        }
    }

    /// What a URI says.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for a URI that makes no sense.
    pub fn from_uri(uri: &StorageUri) -> Result<Self> {
        uri.allow_parameters(&PARAMETERS)?;
        let bucket = uri.authority().ok_or_else(|| invalid("it names no bucket: `s3://bucket/prefix`"))?;
        let mut options = Self::new(bucket);
        uri.path_text()?.trim_matches('/').clone_into(&mut options.prefix);
        for (name, value) in uri.parameters() {
            let refused = |choice: &str| Err(invalid(format!("`{name}` is {choice}")));
            match name.as_str() {
                "region" => options.region = Some(value.clone()),
                "endpoint" => options.endpoint = Some(value.clone()),
                "profile" => options.profile = Some(value.clone()),
                "addressing" => {
                    options.virtual_hosts = match value.as_str() {
                        "path" => Some(false),
                        "virtual" => Some(true),
                        _ => return refused("`path` or `virtual`"),
                    }
                }
                "allow-http" => {
                    options.allow_http = match value.as_str() {
                        "true" => true,
                        "false" => false,
                        _ => return refused("`true` or `false`"),
                    }
                }
                "conditional-put" => {
                    options.conditional_put = match value.as_str() {
                        "native" => ConditionalPut::Native,
                        "none" => ConditionalPut::SingleWriter,
                        _ => return refused("`native`, or `none` for a single writer"),
                    }
                }
                "requests-max" => match value.parse() {
                    Ok(requests) if requests <= NonZeroUsize::MIN.saturating_add(1023) => {
                        options.requests_max = requests;
                    }
                    _ => return refused("a number from 1 to 1024"),
                },
                _ => match value.parse() {
                    Ok(seconds @ 1..=TIMEOUT_SECONDS_MAX) => options.timeout = Duration::from_secs(seconds),
                    _ => return refused("a number of seconds from 1 to 240"),
                },
            }
        }
        Ok(options)
    }
}

/// A variable of the environment.
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

pub(crate) fn invalid(reason: impl Into<String>) -> Error {
    Error::new(ErrorKind::Invalid, Operation::Open, "the storage URI").with_source(reason.into())
}

/// Opens buckets.
#[derive(Clone, Debug, Default)]
pub struct S3Constructor {
    credentials: Option<S3Credentials>,
}

impl S3Constructor {
    /// Opens buckets with these keys, rather than with those of the environment.
    #[must_use]
    pub fn with_credentials(credentials: S3Credentials) -> Self {
        Self { credentials: Some(credentials) }
    }

    fn options(&self, uri: &StorageUri) -> Result<S3Options> {
        Ok(S3Options { credentials: self.credentials.clone(), ..S3Options::from_uri(uri)? })
    }
}

#[async_trait]
impl StorageConstructor for S3Constructor {
    async fn open(&self, uri: &StorageUri, context: &OpenContext) -> Result<Arc<dyn Storage>> {
        Ok(Arc::new(S3Storage::open(&self.options(uri)?, context).await?))
    }

    fn info(&self) -> SchemeInfo {
        SchemeInfo::new("a bucket of S3, or of what speaks it")
            .form("s3://bucket/prefix?region=eu-central-1")
            .form("s3://bucket?endpoint=https://host:9000")
            .parameter("region", "of the bucket; by default of the environment or profile")
            .parameter("endpoint", "of a server other than those of AWS")
            .parameter("profile", "of ~/.aws, whose keys are used")
            .parameter("addressing", "`path` or `virtual`: where the bucket stands in addresses")
            .parameter("allow-http", "`true`: no TLS, also to other machines")
            .parameter("conditional-put", "`none`: the server has none, and one process alone writes")
            .parameter("requests-max", "requests at once, 32 by default")
            .parameter("timeout", "seconds that a request waits while nothing moves, 60 by default")
            .capabilities(CAPABILITIES)
    }

    /// None, whatever the bucket is called.
    fn local_paths(&self, _: &StorageUri) -> Vec<PathBuf> {
        Vec::new()
    }

    /// With the endpoint of the environment or the profile: the same bucket of another server is another place.
    fn location(&self, uri: &StorageUri) -> StorageUri {
        let place = uri.with_parameters_of(&[]);
        let Ok(options) = S3Options::from_uri(uri) else { return place };
        // Slashes at its ends say nothing.
        let path = if options.prefix.is_empty() { String::new() } else { format!("/{}", options.prefix) };
        let place = place.with_path(path).unwrap_or(place);
        let Some(endpoint) = endpoint_of(&options, &variable) else { return place };
        let encoded = endpoint.bytes().map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b':' | b'/' | b'.' | b'-' | b'_' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        });
        // An endpoint that no URI may hold opens no storage either.
        StorageUri::parse(&format!("{place}?endpoint={}", encoded.collect::<String>())).unwrap_or(place)
    }

    async fn scratch(&self, uri: &StorageUri, name: &str, _: &OpenContext) -> Result<Option<StorageUri>> {
        S3Options::from_uri(uri)?;
        uri.with_path(format!("{}/{name}", uri.path_text()?.trim_end_matches('/'))).map(Some)
    }

    async fn remove_scratch(&self, uri: &StorageUri, context: &OpenContext) -> Result<()> {
        let context = context.clone().with_mode(OpenMode::Existing);
        S3Storage::remove_empty(&self.options(uri)?, &context).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<S3Options> {
        S3Options::from_uri(&StorageUri::parse(text).unwrap())
    }

    #[test]
    fn a_uri_says_where_and_how() {
        let options = of("s3://b/a/c/?region=r&endpoint=http://h:1&profile=p&addressing=virtual&allow-http=true\
                          &conditional-put=none&requests-max=7&timeout=9")
        .unwrap();
        assert_eq!((options.bucket.as_str(), options.prefix.as_str()), ("b", "a/c"));
        assert_eq!(options.endpoint.as_deref(), Some("http://h:1"));
        assert_eq!((options.virtual_hosts, options.allow_http), (Some(true), true));
        assert_eq!(options.conditional_put, ConditionalPut::SingleWriter);
        assert_eq!((options.requests_max.get(), options.timeout), (7, Duration::from_secs(9)));
        assert_eq!(of("s3://b").unwrap().prefix, "");
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_what_would() {
        for (uri, told) in [
            ("s3:x", "bucket"),
            ("s3://b?regoin=x", "region"),
            ("s3://b?addressing=x", "virtual"),
            ("s3://b?allow-http=yes", "true"),
            ("s3://b?conditional-put=off", "none"),
            ("s3://b?requests-max=0", "1024"),
            ("s3://b?requests-max=1025", "1024"),
            ("s3://b?timeout=300", "240"),
        ] {
            let error = of(uri).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.to_string().contains(told), "{error}");
        }
    }

    #[test]
    fn a_place_has_one_location_however_it_is_spelt() {
        let of = |uri: &str| S3Constructor::default().location(&StorageUri::parse(uri).unwrap()).to_string();
        for other in ["s3://b/x/", "s3://b//x", "s3://b/x?timeout=9"] {
            assert_eq!(of(other), of("s3://b/x"), "{other}");
        }
        assert_eq!(of("s3://b/"), of("s3://b"));
        assert_eq!(of("s3://b?endpoint=https://H:443/"), of("s3://b?endpoint=https://h"));
        assert_ne!(of("s3://b/x"), of("s3://b/X"));
    }

    #[test]
    fn no_bucket_is_a_folder_of_this_machine() {
        let uri = StorageUri::parse("s3://localhost/home").unwrap();
        assert_eq!(S3Constructor::default().local_paths(&uri), Vec::<PathBuf>::new());
    }
}
