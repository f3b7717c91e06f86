//! `init`: creates a repository.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde::Serialize;
use strongroom::storage::{BlockingMode, Effect, StorageUri};
use strongroom::{Compression, CreateOptions, Credentials, Factors, RecoveryKey, Repository, Suite};
use zeroize::Zeroizing;

use super::{key, recovery};
use crate::context::{Age, Context};
use crate::exit::{Exit, Failure};
use crate::layers::layered;
use crate::secret_file::Written;
use crate::{output, password, units};

/// No block is larger.
const BLOCK_BYTES_MAX: u32 = 4 << 20;

/// What of a new repository is its own, whatever it is to hold.
#[derive(Debug, Default, Args)]
pub(crate) struct Shape {
    /// The cipher, for life [default: what this CPU is fast at]
    #[arg(long, value_name = "aes-256-gcm|xchacha20-poly1305")]
    cipher: Option<Suite>,

    /// The size of every stored block, for life [default: what suits the storage]
    #[arg(long, value_name = "N", value_parser = units::parse_size)]
    block_size: Option<u64>,

    /// What one attempt at a password costs here, in milliseconds; never below a floor
    #[arg(long, value_name = "MS", value_parser = millis)]
    kdf_time: Option<u64>,

    /// Write a recovery key to a new file, as a second way in
    #[arg(long, value_name = "FILE", conflicts_with = "no_recovery")]
    new_recovery_key: Option<PathBuf>,

    /// Make no recovery key: lost credentials are lost data then
    #[arg(long)]
    no_recovery: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    shape: Shape,

    /// How file content is compressed
    #[arg(long, value_enum, default_value = "lz4")]
    compress: Compress,

    /// Whether equal content is stored once
    #[arg(long, value_enum, default_value = "on")]
    dedup: Switch,

    /// Older versions of each file to keep
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = units::parse_versions, allow_negative_numbers = true)]
    versions: u32,

    /// Make a key file, as the second factor or the only one
    #[arg(long, value_name = "FILE", conflicts_with = "key_file")]
    new_key_file: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Compress {
    Lz4,
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Switch {
    On,
    Off,
}

impl Arguments {
    /// As `import --init` creates.
    pub(crate) fn defaults() -> Self {
        Self { shape: Shape::default(), compress: Compress::Lz4, dedup: Switch::On, versions: 0, new_key_file: None }
    }
}

/// A number of milliseconds, or a duration with its unit.
fn millis(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(millis) => Ok(millis),
        Err(_) => units::parse_duration(text).map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
    }
}

#[derive(Serialize)]
pub(crate) struct Report {
    repository: String,
    uri: String,
    cipher: &'static str,
    block_bytes: u32,
    /// What opens it, together.
    needs: Vec<&'static str>,
    recovery_key: bool,
}

pub(crate) async fn run(arguments: Arguments, context: &mut Context) -> Result<(), Failure> {
    let uri = context.uri()?;
    refuse_existing(&uri, context).await?;
    let mut made = Vec::new();
    if let Some(path) = &arguments.new_key_file {
        context.global.key_file = Some(path.clone());
        made.push(Written::new_key_file(path, context.own())?.0);
    }
    let credentials = context.credentials(&uri, Age::New)?;
    let (repository, report) = create(&arguments, &uri, credentials, made, context).await?;
    repository.close().await?;
    if context.output.json() {
        return context.output.document("strongroom/init/1", &report);
    }
    context.output.summary(&report.line())
}

impl Report {
    /// For a person.
    pub(crate) fn line(&self) -> String {
        format!("created {}: {}, blocks of {}", self.uri, self.cipher, units::size(self.block_bytes.into()))
    }
}

/// Says before any question is asked that a repository is there.
pub(crate) async fn refuse_existing(uri: &StorageUri, context: &Context) -> Result<(), Failure> {
    match strongroom::clear_header(uri, &context.header_options()).await {
        Ok(header) if header.is_unfinished_copy => Err(Failure::from(strongroom::core::Error::UnfinishedCopy).on(uri)),
        Ok(_) => Err(Failure::from(strongroom::core::Error::AlreadyExists).on(uri)),
        Err(error) => match Failure::from(error) {
            failure if failure.exit() == Exit::NoRepository => Ok(()),
            failure => Err(failure.on(uri)),
        },
    }
}

/// Creates it, and says that there is no way around the credentials. `made` are the key files that were made for it.
pub(crate) async fn create(
    arguments: &Arguments,
    uri: &StorageUri,
    credentials: Credentials,
    made: Vec<Written>,
    context: &mut Context,
) -> Result<(Repository, Report), Failure> {
    let compression = match arguments.compress {
        Compress::Lz4 => Compression::Lz4,
        Compress::None => Compression::None,
    };
    let (options, ways_in) = prepare(&arguments.shape, credentials, made, context)?;
    let options = options.compression(compression).dedup(arguments.dedup == Switch::On).versions(arguments.versions);
    let created = Repository::create(uri, options).await;
    let Opened { needs, recovery_key } = ways_in.settle(&created, uri, context).await?;
    let repository = created.map_err(|error| Failure::from(error).on(uri))?;
    let info = repository.info().await?;
    let report = Report {
        repository: output::hex(&info.repository),
        uri: uri.to_string(),
        cipher: info.suite.name(),
        block_bytes: info.block_bytes,
        needs,
        recovery_key,
    };
    Ok((repository, report))
}

/// What opens a repository that is being created: files that were made for it, and a recovery key.
pub(crate) struct WaysIn {
    factors: Factors,
    made: Vec<Written>,
    recovery_file: Option<PathBuf>,
    /// One that nobody has seen yet.
    shown: Option<Zeroizing<String>>,
}

/// What opens a repository that was created.
pub(crate) struct Opened {
    /// These together.
    pub(crate) needs: Vec<&'static str>,
    /// And this alone.
    pub(crate) recovery_key: bool,
}

/// How it is created, but for what it is to hold. `made` are the key files that were made for it.
pub(crate) fn prepare(
    shape: &Shape,
    credentials: Credentials,
    mut made: Vec<Written>,
    context: &mut Context,
) -> Result<(CreateOptions, WaysIn), Failure> {
    let factors = credentials.factors().map_err(strongroom::Error::from)?;
    let mut options = layered!(CreateOptions::new(credentials), context.layers()?)
        .registry(context.registry.clone())
        .storage_calls(BlockingMode::Inline);
    if let Some(suite) = shape.cipher {
        options = options.cipher(suite);
    }
    if let Some(bytes) = shape.block_size {
        let fit = u32::try_from(bytes).ok().filter(|bytes| *bytes <= BLOCK_BYTES_MAX);
        let bytes =
            fit.ok_or_else(|| Failure::usage("--block-size is at most 4MiB: choose a power of two from 4KiB to 4MiB"))?;
        options = options.block_bytes(bytes);
    }
    if let Some(millis) = shape.kdf_time {
        options = options.kdf_millis(millis);
    }
    let mut shown = None;
    let wish = wish(shape, context)?;
    if wish != Wish::None {
        let env = strongroom::env::system().map_err(|error| Failure::new(Exit::Failed, error.to_string()))?;
        let key = RecoveryKey::generate(&env).map_err(strongroom::Error::from)?;
        match wish {
            // Before the repository is created, so that no crash leaves one whose key nobody has.
            Wish::File(path) => made.push(recovery::write(path, &key, context.own())?),
            _ => shown = Some(key.to_text()),
        }
        options = options.recovery_key(key);
    }
    Ok((options, WaysIn { factors, made, recovery_file: shape.new_recovery_key.clone(), shown }))
}

impl WaysIn {
    /// Keeps what opens it where it was created, or may have been, and says what there is to know of it; else takes it away.
    pub(crate) async fn settle<T>(
        self,
        created: &Result<T, strongroom::Error>,
        uri: &StorageUri,
        context: &mut Context,
    ) -> Result<Opened, Failure> {
        let Self { factors, made, recovery_file, shown } = self;
        let needs = key::needs(factors);
        match created {
            // What opens it stays, whatever fails from here on.
            Ok(_) => made.into_iter().for_each(Written::keep),
            Err(error) => {
                if may_be_there(error, uri, context).await {
                    for written in made {
                        let path = written.path().display();
                        context.output.notice(&format!("{path} is kept: it may open what is there"));
                        written.keep();
                    }
                }
                return Ok(Opened { needs, recovery_key: false });
            }
        }
        key::tell_needs(&uri.to_string(), factors, context);
        context.tell_durability(uri);
        let recovery_key = recovery_file.is_some() || shown.is_some();
        if let Some(key) = shown {
            recovery::show(key, context)?;
        }
        if let Some(path) = &recovery_file {
            let path = path.display();
            context
                .output
                .notice(&format!("the recovery key is in {path}: keep it elsewhere, it opens the repository alone"));
        }
        if !recovery_key {
            context.output.notice(
                "no recovery key was made: whoever loses the credentials of this repository loses the data in it; \
                `recovery new` makes one",
            );
        }
        Ok(Opened { needs, recovery_key })
    }
}

/// Whether a creation that failed may have left a repository all the same, and ours.
async fn may_be_there(error: &strongroom::Error, uri: &StorageUri, context: &Context) -> bool {
    use strongroom::core::Error as E;
    let error = match error {
        strongroom::Error::Core(E::InCopy(error)) => Some(&**error),
        strongroom::Error::Core(error) => Some(error),
        _ => None,
    };
    let is_unknown = match error {
        Some(E::AlreadyExists | E::UnfinishedCopy) => return false,
        Some(E::CommitUnknown { .. }) => true,
        Some(E::Storage(error)) => error.effect() == Effect::Unknown,
        _ => false,
    };
    match strongroom::clear_header(uri, &context.header_options()).await {
        Ok(_) => true,
        Err(strongroom::Error::Core(E::NotARepository)) => false,
        Err(_) => is_unknown,
    }
}

/// What is wanted as a recovery key.
#[derive(PartialEq, Eq)]
enum Wish<'a> {
    None,
    File(&'a Path),
    Terminal,
}

/// As the flags say; else as someone at the terminal says.
fn wish<'a>(shape: &'a Shape, context: &Context) -> Result<Wish<'a>, Failure> {
    if let Some(path) = &shape.new_recovery_key {
        return Ok(Wish::File(path));
    }
    let terminals = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    if shape.no_recovery || context.output.json() || !terminals || !password::can_ask(&context.global) {
        return Ok(Wish::None);
    }
    output::ask("Lost credentials are lost data. Make a recovery key, to be written down? [Y/n] ");
    let mut answer = String::new();
    std::io::stdin()
        .read_line(&mut answer)
        .map_err(|error| Failure::usage(format!("cannot ask: {error}; pass --new-recovery-key or --no-recovery")))?;
    Ok(match answer.trim().to_lowercase().as_str() {
        "n" | "no" => Wish::None,
        _ => Wish::Terminal,
    })
}
