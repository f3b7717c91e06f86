//! From what went wrong with a request to an error that says what to do.

use std::error::Error as StdError;
use std::io;

use object_store::client::{HttpError, HttpErrorKind};
use strongroom_core::storage::{Effect, Error, ErrorKind, Operation, Retry};

use crate::client::TooLong;
use crate::credentials::NoCredentials;
use crate::listing::FirstVersion;
use crate::refusal::Refusal;

/// The first of this kind among an error and its causes.
pub(crate) fn cause<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    std::iter::successors(Some(error), |&error| error.source()).find_map(|error| error.downcast_ref())
}

/// What a server said, if it was the server.
pub(crate) fn refusal(error: &object_store::Error) -> Option<&Refusal> {
    cause(error)
}

/// A failed request. What is shown is of our making: the client's own words repeat addresses and what the server said.
pub(crate) fn failed(operation: Operation, context: impl Into<String>, error: &object_store::Error) -> Error {
    let context = context.into();
    if let Some(missing) = cause::<NoCredentials>(error) {
        return missing.error(operation, context);
    }
    if let Some(refusal) = refusal(error) {
        return refused(operation, context, refusal);
    }
    if let Some(first) = cause::<FirstVersion>(error) {
        return Error::new(ErrorKind::Unsupported, operation, context).with_source(first.to_string());
    }
    if cause::<TooLong>(error).is_some() {
        return corrupt(operation, context, &TooLong.to_string());
    }
    match cause::<HttpError>(error) {
        Some(http) => unanswered(operation, context, http),
        None => corrupt(operation, context, "its answer lacks a length, a range or what else S3 answers with"),
    }
}

/// There was no connection.
#[derive(Debug)]
struct Unreachable(&'static str);

impl std::fmt::Display for Unreachable {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.0)
    }
}

impl StdError for Unreachable {}

/// Whether there was no connection at all.
pub(crate) fn is_unreachable(error: &Error) -> bool {
    cause::<Unreachable>(error).is_some()
}

/// The server answers what it must not.
pub(crate) fn corrupt(operation: Operation, context: impl Into<String>, what: &str) -> Error {
    Error::new(ErrorKind::Corrupt, operation, context)
        .with_effect(operation.effect_if_lost())
        .with_source(format!("{what}: is the endpoint one of S3?"))
}

/// A body that ended early.
pub(crate) fn cut_short(operation: Operation, context: impl Into<String>) -> Error {
    Error::new(ErrorKind::Unavailable, operation, context)
        .with_source("the connection ended in the middle of the answer")
}

/// No answer came, or not all of it.
fn unanswered(operation: Operation, context: String, http: &HttpError) -> Error {
    let lost = operation.effect_if_lost();
    let error = |kind, effect, what: &str| {
        Error::new(kind, operation, context.clone()).with_effect(effect).with_source(what.to_owned())
    };
    let io = std::iter::successors(Some(http as &(dyn StdError + 'static)), |&error| error.source())
        .find_map(|error| error.downcast_ref::<io::Error>())
        .map(io::Error::kind);
    match http.kind() {
        HttpErrorKind::Connect => {
            // Nothing was sent.
            let text = chain(http);
            if text.contains("certificate") || text.contains("UnknownIssuer") {
                let what = "the certificate of the endpoint is not trusted: add its authority to those of the system, or \
                            check the endpoint";
                return error(ErrorKind::Other, Effect::None, what);
            }
            let what = if text.contains("dns") || text.contains("lookup") {
                "the name of the endpoint is not known: check `endpoint` and `region`, and the network"
            } else if io == Some(io::ErrorKind::ConnectionRefused) {
                "nothing listens at the endpoint: check `endpoint`, and whether the server runs"
            } else if text.contains("proxy") || text.contains("tunnel") {
                "the proxy of the environment does not lead there: check HTTPS_PROXY, which is to be `http://host:port`, and NO_PROXY"
            } else if io == Some(io::ErrorKind::TimedOut) {
                "the endpoint does not answer: check `endpoint`, the network and whether a proxy is needed"
            } else {
                "the endpoint cannot be reached: check `endpoint` and the network"
            };
            Error::new(ErrorKind::Unavailable, operation, context.clone()).with_source(Unreachable(what))
        }
        HttpErrorKind::Timeout => error(ErrorKind::Unavailable, lost, "nothing moved any more: no answer in time"),
        HttpErrorKind::Request | HttpErrorKind::Interrupted | HttpErrorKind::Decode => {
            error(ErrorKind::Unavailable, lost, "the connection was lost")
        }
        _ => error(ErrorKind::Unavailable, lost, "the request failed on its way"),
    }
}

/// All that an error and its causes say: to look into, not to show.
fn chain(error: &(dyn StdError + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |&error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// The server answered, and does not do it.
fn refused(operation: Operation, context: String, refusal: &Refusal) -> Error {
    let lost = operation.effect_if_lost();
    let (kind, effect, remedy) = match (refusal.code(), refusal.status.as_u16()) {
        // No creation makes one: it is not told as a place where nothing is yet.
        ("NoSuchBucket", _) if operation == Operation::Open => (
            ErrorKind::Other,
            Effect::None,
            "there is no such bucket: create it, or check its name, `region` and `endpoint`".to_owned(),
        ),
        ("NoSuchBucket", _) => (ErrorKind::Other, Effect::None, "the bucket is gone".to_owned()),
        (
            "InvalidAccessKeyId"
            | "SignatureDoesNotMatch"
            | "InvalidToken"
            | "InvalidSecurity"
            | "NotSignedUp"
            | "AuthFailure"
            | "InvalidClientTokenId"
            | "MissingAuthenticationToken",
            _,
        )
        | (_, 401) => (
            ErrorKind::Credentials,
            Effect::None,
            "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the profile".to_owned(),
        ),
        ("ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired", _) => {
            (ErrorKind::Credentials, Effect::None, "they have expired: sign in again".to_owned())
        }
        ("RequestTimeTooSkewed" | "RequestExpired", _) => (
            ErrorKind::Other,
            Effect::None,
            "the clock of this device is wrong by more than the server allows: set it".to_owned(),
        ),
        // Before what 403 means in general: Ceph says it so.
        ("QuotaExceeded" | "XMinioStorageFull" | "XMinioAdminBucketQuotaExceeded", _) | (_, 507) => {
            (ErrorKind::Full, Effect::None, "the server has no room left".to_owned())
        }
        ("AccessDenied", _) | (_, 403) => (
            ErrorKind::PermissionDenied,
            Effect::None,
            "the key needs s3:ListBucket, s3:GetObject, s3:PutObject and s3:DeleteObject on the bucket".to_owned(),
        ),
        (
            "PermanentRedirect"
            | "TemporaryRedirect"
            | "AuthorizationHeaderMalformed"
            | "IllegalLocationConstraintException",
            _,
        )
        // No redirect is followed: what answers there did not do what was asked for here.
        | (_, 301 | 302 | 303 | 307 | 308) => (
            ErrorKind::Invalid,
            Effect::None,
            match &refusal.region {
                Some(region) => format!("the bucket is in another region: say `region={region}`"),
                None => "the bucket is in another region, or elsewhere: check `region` and `endpoint`".to_owned(),
            },
        ),
        ("InvalidBucketName", _) => (ErrorKind::Invalid, Effect::None, "the bucket cannot be called that".to_owned()),
        ("SlowDown" | "TooManyRequests" | "RequestLimitExceeded" | "Throttling" | "ThrottlingException", _)
        | (_, 429) => (
            ErrorKind::Unavailable,
            Effect::None,
            "the server asks for fewer requests: lower `requests-max` if it goes on".to_owned(),
        ),
        // Two changes of one name met: S3 says that none of it was done, and that it is to be asked again.
        ("ConditionalRequestConflict" | "OperationAborted", _) => {
            (ErrorKind::Unavailable, Effect::None, "another request was changing the same name".to_owned())
        }
        // Others have words of their own for that, and promise less.
        (_, 409) => (ErrorKind::Unavailable, lost, "another request was changing the same name".to_owned()),
        ("EntityTooLarge", _) => (ErrorKind::LimitExceeded, Effect::None, "the server takes no such size".to_owned()),
        ("NotImplemented", _) | (_, 501) => (
            ErrorKind::Unsupported,
            Effect::None,
            "the server lacks what this needs; for a single writer `conditional-put=none` needs less".to_owned(),
        ),
        ("RequestTimeout" | "IncompleteBody" | "BadDigest" | "XAmzContentSHA256Mismatch", _) | (_, 408) => {
            (ErrorKind::Unavailable, lost, "the request was cut off or changed on its way".to_owned())
        }
        (_, 500..=599) => (ErrorKind::Unavailable, lost, "the server failed".to_owned()),
        _ => (ErrorKind::Other, lost, "the server refuses it".to_owned()),
    };
    // A server that fails says of what it did only what it knows: a proxy before it may have given up on what goes on behind it.
    let effect = if refusal.status.is_server_error() { lost } else { effect };
    let error = Error::new(kind, operation, context).with_effect(effect).with_source(format!("{remedy}; {refusal}"));
    if kind == ErrorKind::Unavailable { error } else { error.with_retry(Retry::Useless) }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    fn of(operation: Operation, status: u16, code: &str) -> Error {
        let refusal = Refusal {
            status: StatusCode::from_u16(status).unwrap(),
            code: (!code.is_empty()).then(|| code.to_owned()),
            region: Some("eu-west-1".to_owned()),
        };
        refused(operation, "a blob".to_owned(), &refusal)
    }

    #[test]
    fn what_a_server_refuses_has_no_effect_and_what_it_fails_at_may_have_one() {
        for (status, code, kind, effect) in [
            (403, "InvalidAccessKeyId", ErrorKind::Credentials, Effect::None),
            (401, "", ErrorKind::Credentials, Effect::None),
            (400, "ExpiredToken", ErrorKind::Credentials, Effect::None),
            (403, "AccessDenied", ErrorKind::PermissionDenied, Effect::None),
            (403, "", ErrorKind::PermissionDenied, Effect::None),
            (403, "RequestTimeTooSkewed", ErrorKind::Other, Effect::None),
            (403, "QuotaExceeded", ErrorKind::Full, Effect::None),
            (301, "PermanentRedirect", ErrorKind::Invalid, Effect::None),
            (303, "", ErrorKind::Invalid, Effect::None),
            (304, "", ErrorKind::Other, Effect::Unknown),
            (404, "NoSuchBucket", ErrorKind::Other, Effect::None),
            (503, "SlowDown", ErrorKind::Unavailable, Effect::Unknown),
            (503, "", ErrorKind::Unavailable, Effect::Unknown),
            (429, "", ErrorKind::Unavailable, Effect::None),
            (500, "InternalError", ErrorKind::Unavailable, Effect::Unknown),
            (409, "ConditionalRequestConflict", ErrorKind::Unavailable, Effect::None),
            (507, "XMinioStorageFull", ErrorKind::Full, Effect::Unknown),
            (501, "NotImplemented", ErrorKind::Unsupported, Effect::Unknown),
            (400, "RequestTimeout", ErrorKind::Unavailable, Effect::Unknown),
            (418, "", ErrorKind::Other, Effect::Unknown),
        ] {
            let error = of(Operation::PutDurable, status, code);
            assert_eq!((error.kind(), error.effect()), (kind, effect), "{status} {code}");
            assert_eq!(error.retry() == Retry::CanHelp, kind == ErrorKind::Unavailable, "{status} {code}");
            assert_eq!(of(Operation::Get, status, code).effect(), Effect::None);
        }
        let missing = of(Operation::Open, 404, "NoSuchBucket");
        assert!(missing.kind() == ErrorKind::Other && missing.to_string().contains("no such bucket"), "{missing}");
        assert!(of(Operation::Open, 400, "AuthorizationHeaderMalformed").to_string().contains("region=eu-west-1"));
    }
}
