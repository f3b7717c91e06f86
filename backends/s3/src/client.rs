//! Between `object_store` and the network: answers are bounded, and refusals are read before anyone else sees them.
//!
//! `object_store` takes every 409 of a put for "it exists", which S3 also answers where two puts met and neither is decided;
//! and its errors repeat what the server said. So refusals become errors of ours here.

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt as _;
use http::Method;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody, HttpService,
};

use crate::listing;
use crate::network::Network;
use crate::refusal::Refusal;

/// The longest answer that is kept in memory: a page of a listing is at most 1,000 names of 1 KiB, escaped.
const ANSWER_BYTES_MAX: usize = 8 << 20;

/// Of a refusal nothing more is read.
const REFUSAL_BYTES_MAX: usize = 64 << 10;

/// What a service of the machine says in one word: a session, or the name of a role.
const WORD_BYTES_MAX: usize = 4096;

/// Makes clients whose requests to one host are watched; those of credentials go elsewhere.
#[derive(Debug)]
pub(crate) struct Connector {
    pub(crate) authority: String,
    pub(crate) network: Network,
}

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(Watched { network: self.network.clone(), authority: self.authority.clone() }))
    }
}

#[derive(Debug)]
struct Watched {
    network: Network,
    authority: String,
}

#[async_trait]
impl HttpService for Watched {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let uri = request.uri();
        let is_ours = uri.authority().is_some_and(|authority| authority.as_str() == self.authority);
        let is_listing = uri.query().is_some_and(|query| query.contains("list-type="));
        let is_blob = request.method() == Method::GET && !is_listing;
        let is_word = uri.path().ends_with("/latest/api/token") || uri.path().ends_with("/security-credentials/");
        let response = self.network.call(request).await?;
        if is_ours && is_blob && response.status().is_success() {
            return Ok(response);
        }
        let (parts, body) = response.into_parts();
        if !is_ours {
            let bytes = match read_at_most(body, REFUSAL_BYTES_MAX).await? {
                (bytes, _) if is_word && parts.status.is_success() => word(&bytes)?,
                (bytes, true) => bytes,
                (_, false) => return Err(HttpError::new(HttpErrorKind::Decode, TooLong)),
            };
            return Ok(HttpResponse::from_parts(parts, bytes.into()));
        }
        if parts.status.is_success() {
            return match read_at_most(body, ANSWER_BYTES_MAX).await? {
                (page, true) if is_listing => match listing::readable(page) {
                    Ok(page) => Ok(HttpResponse::from_parts(parts, page.into())),
                    Err(error) => Err(HttpError::new(HttpErrorKind::Decode, error)),
                },
                (bytes, true) => Ok(HttpResponse::from_parts(parts, bytes.into())),
                (_, false) => Err(HttpError::new(HttpErrorKind::Decode, TooLong)),
            };
        }
        let bytes = match read_at_most(body, REFUSAL_BYTES_MAX).await {
            Ok((bytes, _)) => bytes,
            // Where its text is lost on the way, some say enough by their status. The rest do not: that a blob is absent is known
            // by the code alone.
            Err(_) if parts.status.is_server_error() || matches!(parts.status.as_u16(), 412 | 416 | 429) => {
                Bytes::new()
            }
            Err(error) => return Err(error),
        };
        Err(HttpError::new(HttpErrorKind::Unknown, Refusal::read(parts.status, &parts.headers, &bytes)))
    }
}

/// The body, and whether that is all of it.
async fn read_at_most(body: HttpResponseBody, bytes_max: usize) -> Result<(Bytes, bool), HttpError> {
    let mut stream = body.bytes_stream();
    let mut read = BytesMut::new();
    while let Some(part) = stream.try_next().await? {
        let room = bytes_max.saturating_sub(read.len());
        if part.len() > room {
            read.extend_from_slice(part.get(..room).unwrap_or_default());
            return Ok((read.freeze(), false));
        }
        read.extend_from_slice(&part);
    }
    Ok((read.freeze(), true))
}

/// What goes into the next request as it stands, where `object_store` takes it for granted that it can: whatever listens at that
/// address may say something else.
fn word(bytes: &Bytes) -> Result<Bytes, HttpError> {
    let word = bytes.trim_ascii();
    let is_one = |byte: &u8| byte.is_ascii_alphanumeric() || b"+=,.@-_/~:".contains(byte);
    if word.is_empty() || word.len() > WORD_BYTES_MAX || !word.iter().all(is_one) {
        return Err(HttpError::new(HttpErrorKind::Decode, NoWord));
    }
    Ok(bytes.slice_ref(word))
}

/// Not what a service of a machine answers.
#[derive(Debug)]
struct NoWord;

impl std::fmt::Display for NoWord {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("its answer is not the name of a role, or a session")
    }
}

impl std::error::Error for NoWord {}

/// An answer that does not end.
#[derive(Debug)]
pub(crate) struct TooLong;

impl std::fmt::Display for TooLong {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("its answer is longer than any of S3 is")
    }
}

impl std::error::Error for TooLong {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_stand_in_a_request_is_a_word() {
        assert_eq!(word(&Bytes::from_static(b"my-role_1@x\n")).unwrap(), "my-role_1@x");
        assert_eq!(word(&Bytes::from_static(b"AQAEAMt+/8=")).unwrap(), "AQAEAMt+/8=");
        for other in [&b""[..], b" \n", b"two words", b"<html>", b"two\nlines", b"r\xffle", b"a?b", b"a#b", b"a%0"] {
            assert!(word(&Bytes::copy_from_slice(other)).is_err(), "{other:?}");
        }
        assert!(word(&Bytes::from(vec![b'a'; WORD_BYTES_MAX + 1])).is_err());
    }
}
