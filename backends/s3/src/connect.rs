//! From options and environment to a client.

use std::path::PathBuf;

use http::Uri;
use http::uri::Scheme;
use hyper_util::client::proxy::matcher::Matcher;
use object_store::RetryConfig;
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey, S3ConditionalPut};
use strongroom_core::storage::{Error, ErrorKind, Operation, Result};

use crate::client::Connector;
use crate::config::{S3Options, invalid};
use crate::credentials::{Lookup, Profile, S3Credentials, Told};
use crate::network::{LINK_LOCAL, Network, NetworkOptions, is_link_local};

/// What else of the environment is obeyed: the ways to credentials of machines, and what buckets may ask for.
const ENVIRONMENT: [(&str, &str); 12] = [
    ("AWS_WEB_IDENTITY_TOKEN_FILE", "aws_web_identity_token_file"),
    ("AWS_ROLE_ARN", "aws_role_arn"),
    ("AWS_ROLE_SESSION_NAME", "aws_role_session_name"),
    ("AWS_ENDPOINT_URL_STS", "aws_endpoint_url_sts"),
    ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "aws_container_credentials_relative_uri"),
    ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "aws_container_credentials_full_uri"),
    ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "aws_container_authorization_token_file"),
    ("AWS_EC2_METADATA_SERVICE_ENDPOINT", "aws_metadata_endpoint"),
    ("AWS_REQUEST_PAYER", "aws_request_payer"),
    ("AWS_SERVER_SIDE_ENCRYPTION", "aws_server_side_encryption"),
    ("AWS_SSE_KMS_KEY_ID", "aws_sse_kms_key_id"),
    ("AWS_SSE_BUCKET_KEY_ENABLED", "aws_sse_bucket_key_enabled"),
];

/// A client of one bucket, and where that is.
pub(crate) fn connect(options: &S3Options, variable: Lookup<'_>) -> Result<(AmazonS3, Place)> {
    let is_name = |text: &str, also: &[u8]| {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || also.contains(&byte))
    };
    if !is_name(&options.bucket, b".-_") {
        return Err(invalid("the bucket's name is of letters, digits, dots and hyphens"));
    }
    let given = |name: &str| variable(name).filter(|value| !value.is_empty());
    // A profile that was asked for goes before the environment, as with the AWS tools.
    let environment = S3Credentials::from_environment(variable).filter(|_| options.profile.is_none());
    let is_complete = options.credentials.is_some() || environment.is_some();
    let profile = match Profile::read(variable, options.profile.as_deref()) {
        Ok(profile) => profile,
        // It is not there, and not needed for keys. One that cannot be read may say where the bucket is.
        Err(error) if is_complete && error.kind() == ErrorKind::Credentials => Profile::default(),
        Err(error) => return Err(error),
    };
    let region = options
        .region
        .clone()
        .or_else(|| given("AWS_REGION"))
        .or_else(|| given("AWS_DEFAULT_REGION"))
        .or(profile.region)
        .unwrap_or_else(|| "us-east-1".to_owned());
    if !is_name(&region, b"-") {
        return Err(invalid("the region is of letters, digits and hyphens: `eu-central-1`"));
    }
    let endpoint = endpoint(options, variable, profile.endpoint);
    let address = Address::of(endpoint.as_deref(), &region, options)?;
    let place = Place { endpoint: address.endpoint.clone(), bucket: options.bucket.clone() };

    let mut proxies = Matcher::builder();
    if let Some(proxy) = proxy(&address, &given) {
        let excludes = given("NO_PROXY").or_else(|| given("no_proxy")).unwrap_or_default();
        // Without TLS a service that gives credentials is not asked through a proxy, which would read them.
        proxies = if address.is_plain { proxies.http(proxy) } else { proxies.https(proxy) };
        proxies = proxies.no(format!("{excludes},{LINK_LOCAL}"));
    }
    let network = Network::new(NetworkOptions {
        patience: options.timeout,
        proxies: proxies.build(),
        kept_max: options.requests_max.get(),
        needs_certificates: !address.is_plain,
    });
    let network = network.map_err(|_| unmade())?;
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(&options.bucket)
        .with_region(region)
        .with_endpoint(&address.url)
        .with_virtual_hosted_style_request(address.is_virtual)
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        // A put that was repeated here would take its own first try for another's. Who may repeat what, the layers above know.
        .with_retry(RetryConfig { max_retries: 0, ..RetryConfig::default() })
        // One name at a time: what comes next may depend on it.
        .with_disable_bulk_delete(true)
        .with_http_connector(Connector { authority: address.authority, network });
    for (name, key) in ENVIRONMENT {
        if let (Some(value), Ok(key)) = (given(name), key.parse::<AmazonS3ConfigKey>()) {
            builder = builder.with_config(key, value);
        }
    }
    let keys = match options.credentials.clone().or(environment) {
        Some(keys) => Some(keys),
        None => profile.credentials?,
    };
    let build = |builder: AmazonS3Builder| builder.build().map_err(|_| unmade());
    let client = match keys {
        Some(keys) => {
            keys.check()?;
            builder = builder.with_access_key_id(keys.access_key_id).with_secret_access_key(keys.secret_access_key);
            if let Some(token) = keys.session_token {
                builder = builder.with_token(token);
            }
            build(builder)
        }
        None => {
            let token_file = service(&given)?;
            // Made once to see which provider it chooses.
            let chosen = build(builder.clone())?.credentials().clone();
            build(builder.with_credentials(Told::over(chosen, token_file)))
        }
    };
    Ok((client?, place))
}

/// That the service which keys are asked for can be: of the ways that the environment names, `object_store` takes the first of
/// these, and takes it for granted that it makes sense. Answers the file that it reads for each request and sends as it is.
fn service(given: &dyn Fn(&str) -> Option<String>) -> Result<Option<PathBuf>> {
    let address = |name: &str, text: &str| {
        let uri = text.parse::<Uri>().ok().filter(|uri| uri.authority().is_some());
        let scheme = uri.as_ref().and_then(Uri::scheme_str).map(str::to_owned);
        match (uri, scheme.as_deref()) {
            (Some(uri), Some("http" | "https")) => Ok(uri),
            _ => Err(unfit(format!("the variable {name} is no address such as `http://169.254.170.23/v1`"))),
        }
    };
    if given("AWS_WEB_IDENTITY_TOKEN_FILE").is_some() && given("AWS_ROLE_ARN").is_some() {
        let name = "AWS_ENDPOINT_URL_STS";
        if let Some(text) = given(name)
            && address(name, &text)?.scheme() != Some(&Scheme::HTTPS)
        {
            return Err(unfit("AWS_ENDPOINT_URL_STS is without TLS, and keys would come from there: say `https`"));
        }
        return Ok(None);
    }
    let name = "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI";
    if let Some(text) = given(name) {
        let is_path = text.starts_with('/') && format!("http://169.254.170.2{text}").parse::<Uri>().is_ok();
        return if is_path { Ok(None) } else { Err(unfit(format!("the variable {name} is no path such as `/v2/x`"))) };
    }
    let name = "AWS_CONTAINER_CREDENTIALS_FULL_URI";
    if let Some(text) = given(name) {
        let uri = address(name, &text)?;
        if uri.scheme() != Some(&Scheme::HTTPS) && !is_here(&uri) && !is_link_local(&uri) {
            return Err(unfit(format!("the variable {name} is without TLS and of another machine: say `https`")));
        }
        let Some(file) = given("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE") else {
            return Err(unfit(format!("the variable {name} wants AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE beside it")));
        };
        return Ok(Some(file.into()));
    }
    let name = "AWS_EC2_METADATA_SERVICE_ENDPOINT";
    given(name).map_or(Ok(()), |text| address(name, &text).map(drop))?;
    Ok(None)
}

fn unfit(reason: impl Into<String>) -> Error {
    Error::new(ErrorKind::Invalid, Operation::Open, "the environment").with_source(reason.into())
}

fn unmade() -> Error {
    Error::new(ErrorKind::Other, Operation::Open, "the S3 client").with_source(
        "it cannot be made: check the certificates of the system (package `ca-certificates`), the proxy, and the variables \
         AWS_… of the environment",
    )
}

/// The address that was said, or that the environment or the profile says; `None` for AWS itself.
fn endpoint(options: &S3Options, variable: Lookup<'_>, of_profile: Option<String>) -> Option<String> {
    let given = |name: &str| variable(name).filter(|value| !value.is_empty());
    let said = options.endpoint.clone();
    said.or_else(|| given("AWS_ENDPOINT_URL_S3")).or_else(|| given("AWS_ENDPOINT_URL")).or(of_profile)
}

/// What [`endpoint`] says, where the profile is not read yet.
pub(crate) fn endpoint_of(options: &S3Options, variable: Lookup<'_>) -> Option<String> {
    let profile = Profile::read(variable, options.profile.as_deref()).unwrap_or_default();
    endpoint(options, variable, profile.endpoint).map(|endpoint| one_spelling(&endpoint))
}

/// Hosts are the same in upper and lower case, and a slash at the end and the scheme's own port say nothing.
fn one_spelling(endpoint: &str) -> String {
    match endpoint.parse::<Uri>() {
        Ok(uri) if uri.scheme().is_some() && uri.authority().is_some() => {
            let (scheme, authority) = (uri.scheme_str().unwrap_or_default(), uri.authority());
            let authority = authority.map(ToString::to_string).unwrap_or_default().to_ascii_lowercase();
            let port = if scheme == "https" { ":443" } else { ":80" };
            let authority = authority.strip_suffix(port).unwrap_or(&authority);
            format!("{scheme}://{authority}{}", uri.path().trim_end_matches('/'))
        }
        _ => endpoint.to_owned(),
    }
}

/// Which server, and what of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) endpoint: String,
    pub(crate) bucket: String,
}

/// Whether an address is of this machine.
fn is_here(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback())
}

/// Where requests go.
#[derive(Debug, PartialEq, Eq)]
struct Address {
    /// As it was said, without the bucket.
    endpoint: String,
    url: String,
    authority: String,
    is_virtual: bool,
    is_plain: bool,
    is_here: bool,
}

impl Address {
    fn of(endpoint: Option<&str>, region: &str, options: &S3Options) -> Result<Self> {
        let is_aws = endpoint.is_none();
        let endpoint = endpoint.map_or_else(
            || {
                let china = if region.starts_with("cn-") { ".cn" } else { "" };
                format!("https://s3.{region}.amazonaws.com{china}")
            },
            str::to_owned,
        );
        let unfit = || invalid("the endpoint is an address such as `https://host:9000`");
        let uri: Uri = endpoint.parse().map_err(|_| unfit())?;
        let (Some(scheme @ ("http" | "https")), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(unfit());
        };
        if authority.as_str().contains('@') || uri.query().is_some() {
            return Err(unfit());
        }
        let is_here = is_here(&uri);
        let is_plain = scheme == "http";
        if is_plain && !is_here && !options.allow_http {
            return Err(invalid(
                "the endpoint is on another machine and without TLS, so that whoever is between can delete: say `https`, or \
                 `allow-http=true`",
            ));
        }
        // Hosts know no capitals: a bucket that has some would become another one. Old ones do.
        let is_host = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
        let is_host = options.bucket.bytes().all(is_host);
        if options.virtual_hosts == Some(true) && !is_host {
            return Err(invalid(
                "a bucket with capitals or `_` cannot stand in the host's name: say `addressing=path`",
            ));
        }
        // The certificates of AWS are for one label before `.s3`.
        let is_virtual = options.virtual_hosts.unwrap_or(is_aws && is_host && !options.bucket.contains('.'));
        // As it is signed.
        let authority = authority.as_str().to_ascii_lowercase();
        let authority = if is_virtual { format!("{}.{authority}", options.bucket) } else { authority };
        let path = uri.path().trim_end_matches('/');
        Ok(Self {
            endpoint: one_spelling(&endpoint),
            url: format!("{scheme}://{authority}{path}"),
            authority,
            is_virtual,
            is_plain,
            is_here,
        })
    }
}

/// The proxy that the environment names for this address.
fn proxy(address: &Address, given: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    if address.is_here {
        return None;
    }
    // In upper case that of HTTP can be set by whoever calls a CGI program.
    let names: &[&str] =
        if address.is_plain { &["http_proxy"] } else { &["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] };
    names.iter().find_map(|name| given(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(endpoint: Option<&str>, bucket: &str, change: impl FnOnce(&mut S3Options)) -> Result<Address> {
        let mut options = S3Options::new(bucket);
        change(&mut options);
        Address::of(endpoint, "eu-west-1", &options)
    }

    #[test]
    fn aws_has_the_bucket_in_the_host_and_others_have_it_in_the_path() {
        let of = |endpoint, bucket| address(endpoint, bucket, |_| ()).unwrap();
        assert_eq!(of(None, "b").url, "https://b.s3.eu-west-1.amazonaws.com");
        for bucket in ["b.c", "Backups", "a_b"] {
            assert_eq!(of(None, bucket).url, "https://s3.eu-west-1.amazonaws.com", "{bucket}");
        }
        assert_eq!(of(Some("https://h:9/x/"), "b").url, "https://h:9/x");
        assert_eq!(of(Some("https://Host:9/X"), "b").url, "https://host:9/X");
        let virtual_hosts = address(Some("https://h:9"), "b", |options| options.virtual_hosts = Some(true)).unwrap();
        assert_eq!((virtual_hosts.url.as_str(), virtual_hosts.is_virtual), ("https://b.h:9", true));
        for bucket in ["Backups", "a_b"] {
            let error = address(None, bucket, |options| options.virtual_hosts = Some(true)).unwrap_err();
            assert!(error.to_string().contains("addressing=path"), "{error}");
        }
    }

    #[test]
    fn an_endpoint_has_one_spelling() {
        for endpoint in ["https://Host", "https://host/", "https://host:443"] {
            assert_eq!(one_spelling(endpoint), "https://host");
        }
        assert_eq!(one_spelling("http://host:80"), "http://host");
        assert_eq!(one_spelling("https://host:80"), "https://host:80");
    }

    /// What a client is made of.
    fn connected(options: &S3Options, home: &std::path::Path, variables: &[(&str, &str)]) -> Result<Place> {
        let home = home.to_str().unwrap().to_owned();
        let lookup = |name: &str| match name {
            "HOME" => Some(home.clone()),
            _ => variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned()),
        };
        connect(options, &lookup).map(|(_, place)| place)
    }

    #[test]
    fn a_profile_without_usable_keys_still_says_where_the_bucket_is() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join(".aws")).unwrap();
        let profile = "[profile corp]\nsso_session=x\nendpoint_url=http://localhost:7\n";
        std::fs::write(home.path().join(".aws/config"), profile).unwrap();
        let corp = ("AWS_PROFILE", "corp");
        let keys = [corp, ("AWS_ACCESS_KEY_ID", "A"), ("AWS_SECRET_ACCESS_KEY", "S")];
        let place = connected(&S3Options::new("b"), home.path(), &keys).unwrap();
        assert_eq!(place.endpoint, "http://localhost:7");
        let error = connected(&S3Options::new("b"), home.path(), &[corp]).unwrap_err();
        assert!(error.to_string().contains("export-credentials"), "{error}");
    }

    #[test]
    fn keys_that_no_request_can_carry_are_refused_and_not_shown() {
        let home = tempfile::tempdir().unwrap();
        let mut options = S3Options::new("b");
        options.endpoint = Some("http://localhost:7".to_owned());
        let good = S3Credentials::new("AKIA", "SECRET");
        let bad = [
            S3Credentials::new("AKIA\n", "SECRET"),
            S3Credentials::new("AKIA", "SEC\nRET"),
            S3Credentials::new("", "SECRET"),
            good.clone().with_session_token("TÖKEN"),
        ];
        for keys in bad {
            options.credentials = Some(keys);
            let error = connected(&options, home.path(), &[]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Credentials);
            assert!(!error.to_string().contains("SECRET") && !error.to_string().contains("AKIA"), "{error}");
        }
        options.credentials = Some(good);
        connected(&options, home.path(), &[]).unwrap();
        // A line end at the end is that of a file.
        options.credentials = None;
        let keys = [("AWS_ACCESS_KEY_ID", "AKIA\n"), ("AWS_SECRET_ACCESS_KEY", "SECRET\r\n")];
        connected(&options, home.path(), &keys).unwrap();
    }

    #[test]
    fn what_names_a_service_of_keys_must_make_sense() {
        let home = tempfile::tempdir().unwrap();
        let mut options = S3Options::new("b");
        options.endpoint = Some("http://localhost:7".to_owned());
        let (relative, full, file) = (
            "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
            "AWS_CONTAINER_CREDENTIALS_FULL_URI",
            ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "/token"),
        );
        let web = [("AWS_WEB_IDENTITY_TOKEN_FILE", "/web"), ("AWS_ROLE_ARN", "arn:x")];
        let metadata = "AWS_EC2_METADATA_SERVICE_ENDPOINT";
        let with = |more: &[(&'static str, &'static str)]| [&web[..], more].concat();
        for variables in [
            vec![(relative, "v2/x")],
            vec![(relative, "/a b")],
            vec![(full, "not an address"), file],
            vec![(full, "/v1"), file],
            vec![(full, "ftp://localhost/v1"), file],
            vec![(full, "http://elsewhere/v1"), file],
            vec![(full, "http://localhost/v1")],
            vec![(metadata, "localhost")],
            vec![(metadata, "http://a b")],
            with(&[("AWS_ENDPOINT_URL_STS", "http://localhost")]),
            with(&[("AWS_ENDPOINT_URL_STS", "sts")]),
        ] {
            let error = connected(&options, home.path(), &variables).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{variables:?}: {error}");
            let (name, _) = variables[variables.len() - 1 - usize::from(variables.last() == Some(&file))];
            assert!(error.to_string().contains(name), "{variables:?}: {error}");
        }
        for variables in [
            vec![(relative, "/v2/x?y=z")],
            vec![(full, "http://[::1]:9/v1"), file],
            vec![(full, "https://elsewhere/v1"), file],
            vec![(full, "http://169.254.170.23/v1"), file],
            vec![(metadata, "http://[fd00:ec2::254]")],
            with(&[("AWS_ENDPOINT_URL_STS", "https://sts"), (relative, "none")]),
        ] {
            connected(&options, home.path(), &variables).unwrap();
        }
    }

    #[test]
    fn without_tls_it_must_be_here_or_be_said() {
        for here in ["http://localhost:1", "http://127.0.0.1", "http://[::1]:7"] {
            assert!(address(Some(here), "b", |_| ()).unwrap().is_plain);
        }
        let error = address(Some("http://host:1"), "b", |_| ()).unwrap_err();
        assert!(error.to_string().contains("allow-http=true"), "{error}");
        assert!(address(Some("http://host:1"), "b", |options| options.allow_http = true).is_ok());
        for unfit in ["host:9", "ftp://host", "https://", "https://host?x", "/path"] {
            assert_eq!(address(Some(unfit), "b", |_| ()).unwrap_err().kind(), ErrorKind::Invalid, "{unfit}");
        }
    }

    #[test]
    fn a_proxy_is_for_other_machines() {
        let given = |name: &str| matches!(name, "HTTPS_PROXY" | "http_proxy").then(|| format!("http://{name}"));
        let of =
            |endpoint: &str| proxy(&address(Some(endpoint), "b", |options| options.allow_http = true).unwrap(), &given);
        assert_eq!(of("https://h").as_deref(), Some("http://HTTPS_PROXY"));
        assert_eq!(of("http://h").as_deref(), Some("http://http_proxy"));
        assert_eq!(of("http://localhost"), None);
    }
}
