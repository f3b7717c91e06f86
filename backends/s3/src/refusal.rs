//! What a server says when it does not do what it was asked for. Of its answer only the code and the region are taken: the
//! rest may repeat keys and signatures.

use std::fmt;

use http::{HeaderMap, StatusCode};

/// An answer other than success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    /// The code of S3, where there is one that looks like one.
    pub(crate) code: Option<String>,
    /// Where the bucket is, where the answer says so.
    pub(crate) region: Option<String>,
}

/// Codes and regions are words.
const WORD_BYTES_MAX: usize = 64;

impl Refusal {
    pub(crate) fn read(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Self {
        let text = String::from_utf8_lossy(body);
        let region = element(&text, "Region")
            .or_else(|| headers.get("x-amz-bucket-region").and_then(|value| value.to_str().ok()).and_then(word));
        Self { status, code: element(&text, "Code"), region }
    }

    /// The code, or nothing.
    pub(crate) fn code(&self) -> &str {
        self.code.as_deref().unwrap_or_default()
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.code {
            Some(code) => write!(formatter, "{} {code}", self.status.as_u16()),
            None => write!(formatter, "HTTP {}", self.status.as_u16()),
        }
    }
}

impl std::error::Error for Refusal {}

fn element(text: &str, name: &str) -> Option<String> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    let (content, _) = rest.split_once("</")?;
    word(content)
}

fn word(text: &str) -> Option<String> {
    let text = text.trim();
    let is_word = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    (is_word && !text.is_empty() && text.len() <= WORD_BYTES_MAX).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_and_the_region_are_read_and_nothing_else() {
        let body = br#"<?xml version="1.0"?><Error><Code>AuthorizationHeaderMalformed</Code>
            <Message>wrong; SECRET</Message><Region>eu-west-1</Region></Error>"#;
        let refusal = Refusal::read(StatusCode::BAD_REQUEST, &HeaderMap::new(), body);
        assert_eq!((refusal.code(), refusal.region.as_deref()), ("AuthorizationHeaderMalformed", Some("eu-west-1")));
        assert_eq!(refusal.to_string(), "400 AuthorizationHeaderMalformed");
    }

    #[test]
    fn what_is_no_word_is_not_repeated() {
        for body in ["", "<Code>", "<Code></Code>", "<Code>a b</Code>", "\u{fffd}<Code>x\ny</Code>", "<html>"] {
            let refusal = Refusal::read(StatusCode::BAD_GATEWAY, &HeaderMap::new(), body.as_bytes());
            assert_eq!(refusal.to_string(), "HTTP 502", "{body}");
        }
        let long = format!("<Code>{}</Code>", "x".repeat(65));
        assert_eq!(Refusal::read(StatusCode::OK, &HeaderMap::new(), long.as_bytes()).code, None);
    }
}
