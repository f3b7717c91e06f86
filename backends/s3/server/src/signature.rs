//! Whether a request was signed by who has the key: version 4 of the signatures of AWS, with the body's hash in them.

use std::collections::BTreeMap;

use aws_lc_rs::{digest, hmac};
use http::request::Parts;

use crate::text::{hex, pairs};

/// One key pair that is let in.
#[derive(Clone, Debug)]
pub(crate) struct KeyPair {
    pub(crate) access_key: String,
    pub(crate) secret_key: String,
}

/// Why a request is refused: a code and a message.
pub(crate) type Refused = (&'static str, String);

impl KeyPair {
    /// Checks a request with this body.
    pub(crate) fn check(&self, parts: &Parts, body: &[u8]) -> Result<(), Refused> {
        let unsigned = || ("AccessDenied", "Access Denied".to_owned());
        let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
        let authorization = header("authorization").and_then(|value| value.strip_prefix("AWS4-HMAC-SHA256 "));
        let fields: BTreeMap<_, _> =
            authorization.ok_or_else(unsigned)?.split(',').filter_map(|field| field.trim().split_once('=')).collect();
        let field = |name: &str| fields.get(name).copied().ok_or_else(unsigned);
        let (access_key, scope) = field("Credential")?.split_once('/').ok_or_else(unsigned)?;
        if access_key != self.access_key {
            // With the key in the message, as servers do: nobody must show it.
            let message = format!("The access key {access_key} does not exist in our records.");
            return Err(("InvalidAccessKeyId", message));
        }
        let body_hash = header("x-amz-content-sha256").ok_or_else(unsigned)?;
        if body_hash != "UNSIGNED-PAYLOAD" && body_hash != hex(digest::digest(&digest::SHA256, body).as_ref()) {
            return Err(("XAmzContentSHA256Mismatch", "The body is another one.".to_owned()));
        }
        let mut query: Vec<_> = pairs(parts.uri.query().unwrap_or_default())
            .map(|(name, value)| format!("{}={}", encoded(&name), encoded(&value)))
            .collect();
        query.sort_unstable();
        let signed = field("SignedHeaders")?;
        let headers: String =
            signed.split(';').map(|name| format!("{name}:{}\n", header(name).unwrap_or_default())).collect();
        let canonical =
            format!("{}\n{}\n{}\n{headers}\n{signed}\n{body_hash}", parts.method, parts.uri.path(), query.join("&"),);
        let canonical = hex(digest::digest(&digest::SHA256, canonical.as_bytes()).as_ref());
        let to_sign = format!("AWS4-HMAC-SHA256\n{}\n{scope}\n{canonical}", header("x-amz-date").ok_or_else(unsigned)?);
        let mut key = format!("AWS4{}", self.secret_key).into_bytes();
        for part in scope.split('/').chain([to_sign.as_str()]) {
            key = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), part.as_bytes()).as_ref().to_vec();
        }
        if hex(&key) != field("Signature")? {
            let message = format!("The signature is another one; the string to sign was {to_sign}");
            return Err(("SignatureDoesNotMatch", message));
        }
        Ok(())
    }
}

/// As RFC 3986 has it.
fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;
    use crate::text::decoded;

    // The example of the AWS documentation, "GET Bucket (List Objects)".
    #[test]
    fn the_example_of_the_documentation_is_let_in_and_any_change_to_it_is_not() {
        let keys = KeyPair {
            access_key: "AKIAIOSFODNN7EXAMPLE".to_owned(),
            secret_key: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".to_owned(),
        };
        let request = |query: &str| {
            let request = Request::get(format!("http://examplebucket.s3.amazonaws.com/?{query}"))
                .header("host", "examplebucket.s3.amazonaws.com")
                .header("x-amz-date", "20130524T000000Z")
                .header("x-amz-content-sha256", hex(digest::digest(&digest::SHA256, b"").as_ref()))
                .header(
                    "authorization",
                    "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,\
                     SignedHeaders=host;x-amz-content-sha256;x-amz-date,\
                     Signature=34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
                );
            request.body(()).unwrap().into_parts().0
        };
        keys.check(&request("max-keys=2&prefix=J"), b"").unwrap();
        assert_eq!(keys.check(&request("max-keys=3&prefix=J"), b"").unwrap_err().0, "SignatureDoesNotMatch");
        assert_eq!(keys.check(&request("max-keys=2&prefix=J"), b"x").unwrap_err().0, "XAmzContentSHA256Mismatch");
        let others = KeyPair { access_key: "AKIAOTHER".to_owned(), ..keys };
        assert_eq!(others.check(&request("max-keys=2&prefix=J"), b"").unwrap_err().0, "InvalidAccessKeyId");
        assert_eq!(decoded("a%2Fb+c"), "a/b c");
    }
}
