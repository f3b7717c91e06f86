//! What to run, from the command line. The comparison crates take the same flags.

use std::path::PathBuf;

/// What `--help` says.
pub const HELP: &str = "\
cargo bench -p strongroom-benches --bench workloads -- [FLAGS]
  --filter A,B        only workloads whose name contains one of these (--list names them)
  --rounds N          how often each runs (3); limits and workloads take turns in each round
  --json FILE         append each figure as a line of JSON
  --block-sizes A,B   these block sizes (64KiB) rather than what the storage suggests
  --decision          what docs/decisions/0005 rests on: `file:` with blocks of 16 KiB to 1 MiB
  --dir DIR           where `file:` repositories are made (the folder for temporary files)
  --smoke             each workload once, as small as it can be: that they run
  --long              the long ladders too: 100,000 appends, 1,000,000 files and keys
  --list              name the workloads";

/// The flags.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Substrings of names; none is everything.
    pub filter: Vec<String>,
    /// How often each workload runs.
    pub rounds: usize,
    /// Where figures go.
    pub json: Option<PathBuf>,
    /// Block sizes in bytes; none is the default of the storage.
    pub block_sizes: Vec<u32>,
    /// Whether this is the run for the decision on block sizes.
    pub decision: bool,
    /// Where files are made.
    pub dir: Option<PathBuf>,
    /// Whether it is only to be shown that all runs.
    pub smoke: bool,
    /// Whether the long ladders run.
    pub long: bool,
    /// Whether the names are only listed.
    pub list: bool,
    /// Not for users: be the child that measures memory at this block size.
    pub memory_of: Option<u32>,
}

impl Settings {
    /// From the arguments of the program.
    ///
    /// # Errors
    /// What cannot be understood, in words.
    pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let mut settings = Self { rounds: 3, ..Self::default() };
        let mut arguments = arguments.into_iter();
        while let Some(flag) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{flag} needs a value"));
            match flag.as_str() {
                "--filter" => settings.filter = value()?.split(',').map(str::to_owned).collect(),
                "--rounds" => settings.rounds = value()?.parse().map_err(|_| "--rounds needs a number".to_owned())?,
                "--json" => settings.json = Some(value()?.into()),
                "--block-sizes" => {
                    settings.block_sizes = value()?.split(',').map(size).collect::<Result<_, _>>()?;
                }
                "--dir" => settings.dir = Some(value()?.into()),
                "--memory-of" => settings.memory_of = Some(size(&value()?)?),
                "--decision" => settings.decision = true,
                "--smoke" => settings.smoke = true,
                "--long" => settings.long = true,
                "--list" => settings.list = true,
                "--bench" => {} // from cargo
                _ => return Err(format!("{flag} is no flag\n{HELP}")),
            }
        }
        if settings.smoke {
            settings.rounds = 1;
        }
        if settings.decision && settings.block_sizes.is_empty() {
            settings.block_sizes = [16, 64, 128, 256, 1024].map(|kib| kib << 10).to_vec();
        }
        Ok(settings)
    }

    /// Whether a workload is to run.
    #[must_use]
    pub fn wants(&self, name: &str) -> bool {
        self.filter.is_empty() || self.filter.iter().any(|part| name.contains(part.as_str()))
    }
}

/// `128KiB`, `1MiB` or bytes.
fn size(text: &str) -> Result<u32, String> {
    let (digits, unit) = match (text.strip_suffix("KiB"), text.strip_suffix("MiB")) {
        (Some(digits), _) => (digits, 1 << 10),
        (_, Some(digits)) => (digits, 1 << 20),
        _ => (text, 1),
    };
    let count = digits.parse::<u32>().ok().and_then(|count| count.checked_mul(unit));
    count.ok_or_else(|| format!("`{text}` is no size such as 128KiB"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a test may
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Settings, String> {
        Settings::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn flags_are_read_and_what_is_no_flag_is_refused() {
        let settings = parse("--bench --filter mem,file/create --rounds 5 --block-sizes 64KiB,1MiB,4096").unwrap();
        assert_eq!((settings.rounds, settings.block_sizes.as_slice()), (5, &[64 << 10, 1 << 20, 4096][..]));
        assert!(settings.wants("mem/kv") && settings.wants("file/create/1") && !settings.wants("file/kv"));
        assert_eq!(parse("--smoke --rounds 9").unwrap().rounds, 1);
        assert_eq!(parse("--decision").unwrap().block_sizes.len(), 5);
        for wrong in ["--rounds", "--rounds x", "--block-sizes 5parsecs", "--faster", "mem"] {
            parse(wrong).unwrap_err();
        }
    }
}
