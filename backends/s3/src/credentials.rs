//! Who asks: keys that were given, those of the environment, of a profile in the files of the AWS tools, or of the machine.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use object_store::CredentialProvider;
use object_store::aws::{AwsCredential, AwsCredentialProvider};
use strongroom_core::storage::{Error, ErrorKind, Operation, Result};

/// A variable of the environment.
pub(crate) type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// A key pair, and a token where it is a temporary one.
#[derive(Clone)]
pub struct S3Credentials {
    pub(crate) access_key_id: String,
    pub(crate) secret_access_key: String,
    pub(crate) session_token: Option<String>,
}

impl S3Credentials {
    /// A key pair.
    #[must_use]
    pub fn new(access_key_id: impl Into<String>, secret_access_key: impl Into<String>) -> Self {
        Self { access_key_id: access_key_id.into(), secret_access_key: secret_access_key.into(), session_token: None }
    }

    /// Adds the token of a temporary key pair.
    #[must_use]
    pub fn with_session_token(mut self, token: impl Into<String>) -> Self {
        self.session_token = Some(token.into());
        self
    }

    pub(crate) fn from_environment(variable: Lookup<'_>) -> Option<Self> {
        // A line end at the end is that of the file that a variable was set from.
        let key = |name| variable(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        Some(Self {
            access_key_id: key("AWS_ACCESS_KEY_ID")?,
            secret_access_key: key("AWS_SECRET_ACCESS_KEY")?,
            session_token: key("AWS_SESSION_TOKEN"),
        })
    }

    /// That a request can carry them: they stand in its head.
    pub(crate) fn check(&self) -> Result<()> {
        let is_fit = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        let token = self.session_token.as_deref();
        if is_fit(&self.access_key_id) && is_fit(&self.secret_access_key) && token.is_none_or(is_fit) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Credentials, Operation::Open, "the access key, its secret or the session's token")
            .with_source("it is empty, or holds what none holds: a space, a line end, a letter outside ASCII"))
    }
}

impl fmt::Debug for S3Credentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("S3Credentials(..)")
    }
}

/// What a profile of the AWS tools says.
#[derive(Debug)]
pub(crate) struct Profile {
    /// The keys, where it has some; an error where it says that they are to be had by a way that is not gone here.
    pub(crate) credentials: Result<Option<S3Credentials>>,
    pub(crate) region: Option<String>,
    pub(crate) endpoint: Option<String>,
}

impl Default for Profile {
    fn default() -> Self {
        Self { credentials: Ok(None), region: None, endpoint: None }
    }
}

/// Settings of a profile that say that its keys are to be had by ways that are not gone here.
const OTHER_WAYS: [&str; 5] = ["credential_process", "role_arn", "sso_session", "sso_start_url", "login_session"];

impl Profile {
    /// Reads a profile from `~/.aws/credentials` and `~/.aws/config`, or where the environment says that they are; by
    /// default the one of `AWS_PROFILE`, or `default`, which need not be there.
    pub(crate) fn read(variable: Lookup<'_>, named: Option<&str>) -> Result<Self> {
        let chosen = named.map(str::to_owned).or_else(|| variable("AWS_PROFILE").filter(|name| !name.is_empty()));
        let name = chosen.as_deref().unwrap_or("default");
        let file = |name: &str, default: &str| {
            variable(name).map(PathBuf::from).or_else(|| {
                let home = variable("HOME").or_else(|| variable("USERPROFILE"))?;
                Some(Path::new(&home).join(".aws").join(default))
            })
        };
        let keys = read_file(file("AWS_SHARED_CREDENTIALS_FILE", "credentials"))?;
        let settings = read_file(file("AWS_CONFIG_FILE", "config"))?;
        let in_keys = section(&keys, name);
        let in_settings = match name {
            "default" => section(&settings, name).or_else(|| section(&settings, "profile default")),
            _ => section(&settings, &format!("profile {name}")),
        };
        if chosen.is_some() && in_keys.is_none() && in_settings.is_none() {
            return Err(unusable(name, "it is in neither `~/.aws/credentials` nor `~/.aws/config`"));
        }
        let value = |key: &str| {
            [&in_keys, &in_settings]
                .into_iter()
                .flatten()
                .find_map(|section| section.iter().find(|(name, _)| *name == key).map(|(_, value)| (*value).to_owned()))
        };
        let credentials = match (value("aws_access_key_id"), value("aws_secret_access_key")) {
            (Some(access_key_id), Some(secret_access_key)) => {
                Ok(Some(S3Credentials { access_key_id, secret_access_key, session_token: value("aws_session_token") }))
            }
            _ => {
                if chosen.is_some()
                    && let Some(way) = OTHER_WAYS.into_iter().find(|way| value(way).is_some())
                {
                    let what = format!(
                        "its keys come by `{way}`, which is not supported: put them into the environment, as \
                         `aws configure export-credentials --format env` prints them"
                    );
                    Err(unusable(name, &what))
                } else {
                    Ok(None)
                }
            }
        };
        Ok(Self { credentials, region: value("region"), endpoint: value("endpoint_url") })
    }
}

fn unusable(profile: &str, what: &str) -> Error {
    Error::new(ErrorKind::Credentials, Operation::Open, "the AWS profile").with_source(format!("`{profile}`: {what}"))
}

/// The text of a file; nothing where there is none.
fn read_file(path: Option<PathBuf>) -> Result<String> {
    let Some(path) = path else { return Ok(String::new()) };
    match fs::read_to_string(&path) {
        Ok(text) => Ok(text),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(String::new())
        }
        Err(error) => Err(Error::from_io(Operation::Open, path.display().to_string(), error)),
    }
}

/// The settings in a section of an INI file. Indented lines belong to a setting with parts, of which none is needed.
fn section<'a>(text: &'a str, name: &str) -> Option<Vec<(&'a str, &'a str)>> {
    let mut found = None;
    let mut is_inside = false;
    for line in text.lines() {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with(['#', ';']) {
            continue;
        }
        if let Some(header) = trimmed.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            is_inside = header.0.split_whitespace().eq(name.split_whitespace());
            if is_inside {
                found.get_or_insert_with(Vec::new);
            }
        } else if is_inside
            && !line.starts_with([' ', '\t'])
            && let (Some(found), Some((key, value))) = (&mut found, trimmed.split_once('='))
        {
            found.push((key.trim(), value.trim()));
        }
    }
    found
}

/// There are no credentials, or no new ones.
#[derive(Debug)]
pub(crate) struct NoCredentials {
    /// Whether there were some before.
    had_some: bool,
    /// What this machine could say of it itself.
    why: Option<String>,
}

impl NoCredentials {
    pub(crate) fn error(&self, operation: Operation, context: String) -> Error {
        if self.had_some {
            let what = "the service that gives credentials gave no new ones";
            return Error::new(ErrorKind::Unavailable, operation, context).with_source(what);
        }
        Error::new(ErrorKind::Credentials, operation, context).with_source(self.to_string())
    }
}

impl fmt::Display for NoCredentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.why {
            Some(why) => formatter.write_str(why),
            None => formatter.write_str(
                "there are none: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; and no service of this \
                 machine gives any",
            ),
        }
    }
}

impl std::error::Error for NoCredentials {}

/// A provider whose failures can be told from those of the storage.
#[derive(Debug)]
pub(crate) struct Told {
    inner: AwsCredentialProvider,
    /// What is sent along with each request for keys, as it is in that file then.
    token_file: Option<PathBuf>,
    had_some: AtomicBool,
}

impl Told {
    pub(crate) fn over(inner: AwsCredentialProvider, token_file: Option<PathBuf>) -> AwsCredentialProvider {
        Arc::new(Self { inner, token_file, had_some: AtomicBool::new(false) })
    }

    fn none(&self, why: Option<String>) -> object_store::Error {
        let source = Box::new(NoCredentials { had_some: self.had_some.load(Ordering::Relaxed), why });
        object_store::Error::Generic { store: "S3", source }
    }
}

/// Why what a file holds cannot be sent, if it cannot.
fn unsendable(file: &Path) -> Option<String> {
    let why = match fs::read(file) {
        Ok(bytes) if !bytes.is_empty() && bytes.iter().all(u8::is_ascii_graphic) => return None,
        Ok(_) => "it is empty, or holds what no token holds: a line end at its end, a space, a letter outside ASCII"
            .to_owned(),
        Err(error) => format!("it cannot be read: {error}"),
    };
    Some(format!("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE, `{}`: {why}", file.display()))
}

#[async_trait]
impl CredentialProvider for Told {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        // Read there again a moment later, and taken for fit.
        if let Some(why) = self.token_file.as_deref().and_then(unsendable) {
            return Err(self.none(Some(why)));
        }
        match self.inner.get_credential().await {
            Ok(credential) => {
                self.had_some.store(true, Ordering::Relaxed);
                Ok(credential)
            }
            // What it says may repeat a token.
            Err(_) => Err(self.none(None)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(home: &Path, variables: &[(&str, &str)], named: Option<&str>) -> Result<Profile> {
        let home = home.to_str().unwrap().to_owned();
        let variables: Vec<_> =
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let lookup = move |name: &str| match name {
            "HOME" => Some(home.clone()),
            _ => variables.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone()),
        };
        Profile::read(&lookup, named)
    }

    fn home() -> tempfile::TempDir {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join(".aws")).unwrap();
        fs::write(
            home.path().join(".aws/credentials"),
            "# a comment\n[default]\naws_access_key_id = D\naws_secret_access_key=S=/+\n\n[work]\naws_access_key_id=W\n\
             aws_secret_access_key=X\naws_session_token=T\n",
        )
        .unwrap();
        fs::write(
            home.path().join(".aws/config"),
            "[default]\nregion = eu-west-3\n[profile work]\ns3 =\n  region = nested\nregion=us-west-2\n\
             endpoint_url=http://localhost:1\n[profile sso]\nsso_session = x\n",
        )
        .unwrap();
        home
    }

    #[test]
    fn a_profile_is_read_from_both_files() {
        let home = home();
        let default = profile(home.path(), &[], None).unwrap();
        let keys = default.credentials.unwrap().unwrap();
        assert_eq!((keys.access_key_id.as_str(), keys.secret_access_key.as_str()), ("D", "S=/+"));
        assert_eq!(default.region.as_deref(), Some("eu-west-3"));
        for (variables, named) in [(&[("AWS_PROFILE", "work")][..], None), (&[][..], Some("work"))] {
            let work = profile(home.path(), variables, named).unwrap();
            assert_eq!(work.credentials.unwrap().unwrap().session_token.as_deref(), Some("T"));
            assert_eq!(work.region.as_deref(), Some("us-west-2"));
            assert_eq!(work.endpoint.as_deref(), Some("http://localhost:1"));
        }
    }

    #[test]
    fn a_profile_that_was_asked_for_must_be_there_and_have_keys() {
        let home = home();
        for (name, told) in [("absent", "neither"), ("sso", "export-credentials")] {
            let error = profile(home.path(), &[], Some(name)).and_then(|profile| profile.credentials).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Credentials);
            assert!(error.to_string().contains(told), "{error}");
        }
        let empty = tempfile::tempdir().unwrap();
        assert!(profile(empty.path(), &[], None).unwrap().credentials.unwrap().is_none());
    }

    #[test]
    fn keys_are_not_shown() {
        let keys = S3Credentials::new("AKIA", "SECRET").with_session_token("TOKEN");
        assert_eq!(format!("{keys:?}"), "S3Credentials(..)");
    }
}
