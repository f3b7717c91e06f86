//! Where a storage is: `mem://name`, `file:dir`, `s3://bucket/prefix?region=…`, or a bare path.
//!
//! A URI never holds a secret: what looks like one is refused when it is read, so that a URI can be logged and stored.
//! Escapes are those of RFC 3986; a bare path is taken as it is, without escapes or parameters.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::{Error, ErrorKind, Operation, Result};

/// The scheme of a bare path.
const FILE: &str = "file";

/// Over this many bytes a URI is refused.
const URI_BYTES_MAX: usize = 16 * 1024;

/// A parameter is taken for a secret when its name, without case and punctuation, contains one of these words.
const SECRET_WORDS: [&str; 14] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "credential",
    "accesskey",
    "signature",
    "bearer",
    "authorization",
    "apikey",
    "privatekey",
    "accountkey",
    "sharedkey",
];

/// The same for names that are one of these words.
const SECRET_NAMES: [&str; 7] = ["key", "pass", "pwd", "pw", "pin", "sig", "auth"];

/// Where a storage is: `scheme:[//authority]path[?name=value&…]`, every part decoded.
///
/// `Display` writes the canonical form, which reads back equal, and which holds no secret because no secret gets in.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct StorageUri {
    scheme: String,
    /// Never empty: `file:///x` and `file:/x` are the same.
    authority: Option<String>,
    /// Empty or beginning with `/` where there is an authority. Bytes, because not every path is text.
    path: Vec<u8>,
    parameters: BTreeMap<String, String>,
}

impl StorageUri {
    /// Reads a URI, or a bare path, which is short for `file:`. One letter before a colon is a drive, not a scheme.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for what cannot be read and for secrets; the error says why, and never repeats the text.
    pub fn parse(text: &str) -> Result<Self> {
        if text.is_empty() {
            return Err(invalid("it is empty"));
        }
        if text.len() > URI_BYTES_MAX {
            return Err(invalid("it is longer than 16 KiB"));
        }
        if text.bytes().any(|byte| byte == 0) {
            return Err(invalid("it holds a zero byte"));
        }
        let Some((scheme, rest)) = split_scheme(text) else {
            return Ok(Self::bare(text.as_bytes().to_vec()));
        };
        if rest.contains('#') {
            return Err(invalid("`#` has no meaning here; write %23 for the character"));
        }
        let (place, query) = match rest.split_once('?') {
            Some((place, query)) => (place, Some(query)),
            None => (rest, None),
        };
        let (authority, path) = match place.strip_prefix("//") {
            None => (None, place),
            Some(place) => {
                let end = place.find('/').unwrap_or(place.len());
                let (authority, path) = place.split_at(end);
                (read_authority(authority)?, path)
            }
        };
        let path = decode(path)?;
        if path.contains(&0) {
            return Err(invalid("it holds a zero byte"));
        }
        let parameters = query.map(read_parameters).transpose()?.unwrap_or_default();
        Ok(Self { scheme, authority, path, parameters })
    }

    /// The URI of a folder or file, whatever bytes its name is made of.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for an empty path, and off Unix for one that is not Unicode.
    pub fn from_path(path: &Path) -> Result<Self> {
        let bytes = path_bytes(path)?;
        if bytes.is_empty() {
            return Err(invalid("the path is empty"));
        }
        if bytes.contains(&0) {
            return Err(invalid("the path holds a zero byte"));
        }
        if bytes.len() > URI_BYTES_MAX {
            return Err(invalid("the path is longer than 16 KiB"));
        }
        Ok(Self::bare(bytes))
    }

    /// The text with whatever may be a secret cut out, for showing a URI that could not be read.
    #[must_use]
    pub fn redact(text: &str) -> String {
        match Self::parse(text) {
            Ok(uri) => uri.redacted(),
            Err(_) => match split_scheme(text) {
                Some((scheme, _)) => format!("{scheme}:<hidden>"),
                None => "<hidden>".to_owned(),
            },
        }
    }

    /// A path as errors of the backend of a scheme show it: as its URI; as `otherwise` where it has none.
    #[must_use]
    pub fn show_path(scheme: &str, path: &Path, otherwise: &str) -> String {
        let of_scheme = |uri: Self| Self { scheme: scheme.to_owned(), ..uri };
        Self::from_path(path).map_or_else(|_| otherwise.to_owned(), |uri| of_scheme(uri).redacted())
    }

    /// The URI as it may be shown: the canonical form.
    #[must_use]
    pub fn redacted(&self) -> String {
        self.to_string()
    }

    /// The scheme, in lower case.
    #[must_use]
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// What stands after `//`: a name, a bucket, a host, which may have a port: `host:7`, `[::1]:7`. Never empty.
    #[must_use]
    pub fn authority(&self) -> Option<&str> {
        self.authority.as_deref()
    }

    /// The path, decoded. With an authority it is empty or begins with `/`.
    #[must_use]
    pub fn path(&self) -> &[u8] {
        &self.path
    }

    /// The path as text.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] where it is not UTF-8.
    pub fn path_text(&self) -> Result<&str> {
        std::str::from_utf8(&self.path).map_err(|_| invalid("the path is not UTF-8"))
    }

    /// The path as the name of a file or folder of this machine.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] where the URI names another host, or the path is empty or cannot be a name here.
    pub fn local_path(&self) -> Result<PathBuf> {
        if self.authority.as_deref().is_some_and(|host| !host.eq_ignore_ascii_case("localhost")) {
            return Err(invalid(format!(
                "`{0}://host/…` names another machine; write `{0}:dir`, or `{0}:///dir` with three slashes",
                self.scheme
            )));
        }
        if self.path.is_empty() {
            return Err(invalid("the path is empty"));
        }
        to_path(&self.path)
    }

    /// The value of a parameter.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str)
    }

    /// All parameters.
    #[must_use]
    pub fn parameters(&self) -> &BTreeMap<String, String> {
        &self.parameters
    }

    /// Refuses parameters that the storage does not know, so that a misspelt one does not pass unseen.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`], naming those that are known.
    pub fn allow_parameters(&self, known: &[&str]) -> Result<()> {
        match self.parameters.keys().find(|name| !known.contains(&name.as_str())) {
            None => Ok(()),
            Some(name) if known.is_empty() => {
                Err(invalid(format!("`{}:` takes no parameters, not `{name}`", self.scheme)))
            }
            Some(name) => {
                Err(invalid(format!("`{}:` has no parameter `{name}`; it has {}", self.scheme, known.join(", "))))
            }
        }
    }

    /// The same medium, another path on it; the parameters are kept.
    ///
    /// ```
    /// use strongroom_core::storage::StorageUri;
    /// let uri = StorageUri::parse("my://[::1]:7/data?compress=yes")?;
    /// let scratch = uri.with_path(format!("{}/{}", uri.path_text()?, "scratch-1"))?;
    /// assert_eq!(scratch.to_string(), "my://[::1]:7/data/scratch-1?compress=yes");
    /// # Ok::<(), strongroom_core::storage::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for a path that no URI has: with a zero byte, of over 16 KiB, or beside an authority neither
    /// empty nor beginning with `/`.
    pub fn with_path(&self, path: impl Into<Vec<u8>>) -> Result<Self> {
        let path = path.into();
        if path.contains(&0) {
            return Err(invalid("the path holds a zero byte"));
        }
        if path.len() > URI_BYTES_MAX {
            return Err(invalid("the path is longer than 16 KiB"));
        }
        if self.authority.is_some() && !path.is_empty() && !path.starts_with(b"/") {
            return Err(invalid("the path does not begin with `/`"));
        }
        Ok(Self { path, ..self.clone() })
    }

    /// The same place with these parameters alone, as far as they are there.
    #[must_use]
    pub fn with_parameters_of(&self, names: &[&str]) -> Self {
        let mut uri = self.clone();
        uri.parameters.retain(|name, _| names.contains(&name.as_str()));
        uri
    }

    /// What is left without a wrapper's `prefix` of the scheme and the wrapper's own parameters: `faulty+mem://x?seed=1`
    /// is `mem://x` within `faulty+`. `None` where the scheme does not begin so, or nothing is left of it.
    #[must_use]
    pub fn within(&self, prefix: &str, own: &[&str]) -> Option<Self> {
        let scheme = self.scheme.strip_prefix(prefix).filter(|scheme| !scheme.is_empty())?;
        let mut inner = Self { scheme: scheme.to_owned(), ..self.clone() };
        inner.parameters.retain(|name, _| !own.contains(&name.as_str()));
        Some(inner)
    }

    /// The other way round: this within a wrapper's `prefix`, with the wrapper's own parameters as `like` has them.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] where a parameter of that name is here already, or there would be too many.
    pub fn wrapped(&self, prefix: &str, own: &[&str], like: &Self) -> Result<Self> {
        let mut wrapped = Self { scheme: format!("{prefix}{}", self.scheme), ..self.clone() };
        for (name, value) in like.parameters.iter().filter(|(name, _)| own.contains(&name.as_str())) {
            if wrapped.parameters.insert(name.clone(), value.clone()).is_some() {
                return Err(invalid(format!("the parameter `{name}` is there already")));
            }
        }
        if wrapped.to_string().len() > URI_BYTES_MAX {
            return Err(invalid("it is longer than 16 KiB"));
        }
        Ok(wrapped)
    }

    fn bare(path: Vec<u8>) -> Self {
        Self { scheme: FILE.to_owned(), authority: None, path, parameters: BTreeMap::new() }
    }
}

impl FromStr for StorageUri {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text)
    }
}

impl fmt::Display for StorageUri {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:", self.scheme)?;
        if let Some(authority) = &self.authority {
            formatter.write_str("//")?;
            encode(formatter, authority.as_bytes(), b":[]")?;
        } else if self.path.starts_with(b"/") {
            formatter.write_str("//")?;
        }
        encode(formatter, &self.path, b"/:@+,=")?;
        let mut separator = '?';
        for (name, value) in &self.parameters {
            formatter.write_char(separator)?;
            encode(formatter, name.as_bytes(), b"/:")?;
            formatter.write_char('=')?;
            encode(formatter, value.as_bytes(), b"/:")?;
            separator = '&';
        }
        Ok(())
    }
}

impl fmt::Debug for StorageUri {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "StorageUri({self})")
    }
}

fn invalid(reason: impl Into<String>) -> Error {
    Error::new(ErrorKind::Invalid, Operation::Open, "the storage URI").with_source(reason.into())
}

fn secret(what: &str) -> Error {
    invalid(format!(
        "it holds {what}; secrets do not belong in a URI: pass them in the environment or in the credentials options"
    ))
}

/// The scheme in lower case and what follows the colon; `None` for a bare path.
fn split_scheme(text: &str) -> Option<(String, &str)> {
    let (scheme, rest) = text.split_once(':')?;
    let mut characters = scheme.bytes();
    let first_is_letter = characters.next().is_some_and(|byte| byte.is_ascii_alphabetic());
    let rest_is_fit = characters.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'));
    (scheme.len() >= 2 && first_is_letter && rest_is_fit).then(|| (scheme.to_ascii_lowercase(), rest))
}

fn read_authority(text: &str) -> Result<Option<String>> {
    if text.contains('@') {
        return Err(secret("a user part before `@`"));
    }
    let authority = decode_text(text)?;
    // A password that holds a slash ends the authority early: what stands after a colon must be a port.
    let after_host = authority.rsplit_once(']').map_or(authority.as_str(), |(_, after)| after);
    if let Some((_, port)) = after_host.split_once(':')
        && (port.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit()))
    {
        return Err(secret("something after a colon that is not a port, such as the beginning of a password"));
    }
    if authority.contains('\0') {
        return Err(invalid("it holds a zero byte"));
    }
    Ok((!authority.is_empty()).then_some(authority))
}

fn read_parameters(query: &str) -> Result<BTreeMap<String, String>> {
    let mut parameters = BTreeMap::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (name, value) = (decode_text(name)?, decode_text(value)?);
        if name.is_empty() {
            return Err(invalid("a parameter has no name"));
        }
        if let Some(word) = secret_word(&name) {
            return Err(secret(&format!("a parameter that is named like a secret (`{word}`)")));
        }
        if has_user_part(&value) {
            return Err(secret("an address with a user part before `@` as a parameter"));
        }
        if parameters.insert(name, value).is_some() {
            return Err(invalid("a parameter is given twice"));
        }
    }
    Ok(parameters)
}

/// The word that gives a parameter away; never the name itself, which may hold the secret.
fn secret_word(name: &str) -> Option<&'static str> {
    let plain: String = name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect();
    SECRET_WORDS
        .iter()
        .find(|word| plain.contains(*word))
        .or_else(|| SECRET_NAMES.iter().find(|word| plain == **word))
        .copied()
        .or_else(|| plain.ends_with("key").then_some("key"))
}

fn has_user_part(address: &str) -> bool {
    address.split_once("://").is_some_and(|(_, rest)| rest.contains('@'))
}

fn decode_text(text: &str) -> Result<String> {
    String::from_utf8(decode(text)?).map_err(|_| invalid("an escape is not UTF-8"))
}

fn decode(text: &str) -> Result<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let mut digit = || bytes.next().and_then(|byte| char::from(byte).to_digit(16));
        let (Some(high), Some(low)) = (digit(), digit()) else {
            return Err(invalid("`%` must be followed by two hexadecimal digits; write %25 for the character"));
        };
        decoded.push(u8::try_from(high << 4 | low).unwrap_or_default());
    }
    Ok(decoded)
}

/// Writes what is unreserved in RFC 3986, and `also`, as it is, and escapes the rest.
fn encode(formatter: &mut fmt::Formatter<'_>, bytes: &[u8], also: &[u8]) -> fmt::Result {
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') || also.contains(&byte) {
            formatter.write_char(char::from(byte))?;
        } else {
            write!(formatter, "%{byte:02X}")?;
        }
    }
    Ok(())
}

#[cfg(unix)]
fn path_bytes(path: &Path) -> Result<Vec<u8>> {
    use std::os::unix::ffi::OsStrExt as _;
    Ok(path.as_os_str().as_bytes().to_vec())
}

#[cfg(not(unix))]
fn path_bytes(path: &Path) -> Result<Vec<u8>> {
    path.to_str().map(|text| text.as_bytes().to_vec()).ok_or_else(|| invalid("the path is not Unicode"))
}

#[cfg(unix)]
fn to_path(bytes: &[u8]) -> Result<PathBuf> {
    use std::os::unix::ffi::OsStrExt as _;
    Ok(PathBuf::from(std::ffi::OsStr::from_bytes(bytes)))
}

#[cfg(not(unix))]
fn to_path(bytes: &[u8]) -> Result<PathBuf> {
    let text = std::str::from_utf8(bytes).map_err(|_| invalid("the path is not Unicode"))?;
    Ok(PathBuf::from(without_slash_before_drive(text)))
}

/// `file:///C:/dir` writes a drive after the slash that ends the authority.
#[cfg_attr(unix, allow(dead_code))]
fn without_slash_before_drive(text: &str) -> &str {
    match text.strip_prefix('/') {
        Some(rest) if matches!(rest.as_bytes(), [letter, b':', ..] if letter.is_ascii_alphabetic()) => rest,
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> StorageUri {
        StorageUri::parse(text).unwrap()
    }

    #[test]
    fn a_path_is_shown_as_the_uri_of_its_backend() {
        let path = Path::new("/a b");
        for (scheme, shown) in [("redb", "redb:///a%20b"), ("file", "file:///a%20b")] {
            let uri = StorageUri::show_path(scheme, path, "the place");
            assert_eq!(uri, shown);
            assert_eq!(StorageUri::parse(&uri).unwrap().local_path().unwrap(), path);
        }
        assert_eq!(StorageUri::show_path("redb", Path::new(""), "the place"), "the place");
    }

    #[test]
    fn a_wrapper_takes_its_prefix_and_its_parameters_and_leaves_the_rest() {
        let uri = parse("faulty+mem://name/sub?seed=1&region=here");
        assert_eq!(uri.within("faulty+", &["seed"]), Some(parse("mem://name/sub?region=here")));
        assert_eq!(parse("mem://name").within("faulty+", &[]), None);
        assert_eq!(parse("faulty+:x").within("faulty+", &[]), None);
    }

    #[test]
    fn another_path_on_the_same_medium_keeps_the_rest_and_reads_back() {
        let uri = parse("s3://bucket?region=x");
        assert_eq!(uri.with_path("/a b").unwrap(), parse("s3://bucket/a%20b?region=x"));
        for uri in [uri, parse("file:dir"), parse("mem:a")] {
            for path in ["", "/", "/x", "//x/y"] {
                let other = uri.with_path(path).unwrap();
                assert_eq!(parse(&other.to_string()), other);
            }
            assert!(uri.with_path("/a\0").is_err());
            assert!(uri.with_path("/".repeat(URI_BYTES_MAX + 1)).is_err());
        }
        assert!(parse("s3://bucket").with_path("x").is_err());
        assert_eq!(parse("my://[::1]:7/x").authority(), Some("[::1]:7"));
    }

    fn refusal(text: &str) -> String {
        let error = StorageUri::parse(text).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert_eq!(error.operation(), Operation::Open);
        error.to_string()
    }

    #[test]
    fn every_documented_form_is_read() {
        let uri = parse("mem://name");
        assert_eq!((uri.scheme(), uri.authority(), uri.path()), ("mem", Some("name"), &b""[..]));

        let uri = parse("file:///abs/dir");
        assert_eq!((uri.scheme(), uri.authority(), uri.path()), ("file", None, &b"/abs/dir"[..]));
        assert_eq!(uri.local_path().unwrap(), Path::new("/abs/dir"));
        assert_eq!(parse("file://localhost/abs/dir").local_path().unwrap(), Path::new("/abs/dir"));
        assert_eq!(parse("FILE:/abs/dir"), uri);

        assert_eq!(parse("file:dir").local_path().unwrap(), Path::new("dir"));
        assert_eq!(parse("dir/sub"), parse("file:dir/sub"));
        assert_eq!(parse("redb:a%20b.redb").path(), b"a b.redb");

        let uri = parse("s3://bucket/prefix/x?region=eu-central-1&endpoint=https%3A%2F%2Fhost:9000");
        assert_eq!((uri.scheme(), uri.authority(), uri.path()), ("s3", Some("bucket"), &b"/prefix/x"[..]));
        assert_eq!(uri.parameter("region"), Some("eu-central-1"));
        assert_eq!(uri.parameter("endpoint"), Some("https://host:9000"));
        assert_eq!(parse("s3://bucket?region=x").authority(), Some("bucket"));
    }

    #[test]
    fn a_bare_path_is_taken_as_it_is() {
        for path in
            ["my dir?x=1#2%zz", "./a:b", r"C:\x", "c:/x", r"\\server\share", "/abs", "ä/ö", ":", "1a:b", "//x/y"]
        {
            let uri = parse(path);
            assert_eq!((uri.scheme(), uri.path(), uri.authority()), ("file", path.as_bytes(), None), "{path}");
            assert_eq!(parse(&uri.to_string()), uri);
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_path_that_is_not_text_goes_there_and_back() {
        use std::os::unix::ffi::OsStrExt as _;
        let path = Path::new(std::ffi::OsStr::from_bytes(b"/a\xff/b"));
        let uri = StorageUri::from_path(path).unwrap();
        assert_eq!(uri.to_string(), "file:///a%FF/b");
        assert_eq!(parse(&uri.to_string()).local_path().unwrap(), path);
        assert!(uri.path_text().is_err());
    }

    #[test]
    fn secrets_are_refused_with_the_way_to_pass_them_and_are_not_repeated() {
        for text in [
            "s3://user:hunter2@bucket/x",
            "s3://hunter2@bucket",
            "s3://AKIA:hunter2/abc@bucket",
            "s3://bucket?password=hunter2",
            "s3://bucket?access_key_id=hunter2",
            "s3://bucket?AWS-Secret-Access-Key=hunter2",
            "s3://bucket?key=hunter2",
            "s3://bucket?Session%54oken=hunter2",
            "s3://bucket?hunter2token",
            "s3://bucket?X-Amz-Signature=hunter2",
            "s3://bucket?encryption.key=hunter2",
            "s3://bucket?endpoint=http%3A%2F%2Fuser:hunter2@host",
        ] {
            let shown = refusal(text);
            assert!(!shown.contains("hunter2"), "{shown}");
            assert!(shown.contains("environment") && shown.contains("credentials options"), "{shown}");
            assert!(!StorageUri::redact(text).contains("hunter2"));
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in
            ["", "file:a%", "file:a%4", "file:a%zz", "file:a#b", "s3://b?x=1&x=2", "s3://b?=1", "a\0b", "mem://%00"]
        {
            refusal(text);
        }
        assert!(parse("file://host/dir").local_path().is_err());
        assert!(parse("file:").local_path().is_err());
        assert!(StorageUri::from_path(Path::new("")).is_err());
        refusal(&"x".repeat(URI_BYTES_MAX + 1));
    }

    #[test]
    fn unknown_parameters_are_named() {
        let uri = parse("s3://b?regoin=x");
        assert!(uri.allow_parameters(&["regoin"]).is_ok());
        let shown = uri.allow_parameters(&["region", "endpoint"]).unwrap_err().to_string();
        assert!(shown.contains("regoin") && shown.contains("region, endpoint"), "{shown}");
    }

    #[test]
    fn a_drive_after_three_slashes_loses_the_slash() {
        assert_eq!(without_slash_before_drive("/C:/x"), "C:/x");
        assert_eq!(without_slash_before_drive("/home"), "/home");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_and_what_is_read_reads_back_equal(text in "\\PC{0,40}") {
            if let Ok(uri) = StorageUri::parse(&text) {
                prop_assert_eq!(StorageUri::parse(&uri.to_string()).unwrap(), uri);
            }
            let _ = StorageUri::redact(&text);
        }

        #[test]
        fn uri_like_text_reads_back_equal(text in "[a-z]{1,3}:(//)?[a-c%0-9:@/?&=#.\\\\]{0,30}") {
            if let Ok(uri) = StorageUri::parse(&text) {
                prop_assert_eq!(StorageUri::parse(&uri.to_string()).unwrap(), uri);
            }
        }

        #[cfg(unix)]
        #[test]
        fn any_path_reads_back_equal(bytes in proptest::collection::vec(1u8..=255, 1..40)) {
            use std::os::unix::ffi::OsStrExt as _;
            let path = Path::new(std::ffi::OsStr::from_bytes(&bytes));
            let uri = StorageUri::parse(&StorageUri::from_path(path).unwrap().to_string()).unwrap();
            prop_assert_eq!(uri.local_path().unwrap(), path);
        }
    }
}
