//! Which cache of ciphertext stands before a storage, as options and addresses say it.

#[cfg(feature = "file-cache")]
use std::path::PathBuf;
use std::sync::Arc;

use strongroom_core::cache::Cache;
use strongroom_core::storage::{Error, ErrorKind, Operation, Result, StorageUri};

/// The memory that a cache in front of a remote storage takes, unless said otherwise.
pub const CACHE_BYTES_MAX_DEFAULT: u64 = 64 << 20;

/// How large the file of a cache in a folder is, unless said otherwise.
pub const CACHE_FOLDER_BYTES_MAX_DEFAULT: u64 = 1 << 30;

/// The parameters of a URI that say which cache; its storage does not see them.
const PARAMETERS: [&str; 2] = [FOLDER, SIZE];
const FOLDER: &str = "cache";
const SIZE: &str = "cache-size";

/// Which cache.
#[derive(Clone)]
pub(crate) enum Caching {
    None,
    Memory(u64),
    #[cfg(feature = "file-cache")]
    Folder {
        folder: PathBuf,
        bytes_max: u64,
    },
    Given(Arc<dyn Cache>),
}

impl Caching {
    /// What counts of what the options and the address say: a size that the options say is that of the folder in the address.
    pub(crate) fn choose(said: Option<Self>, in_uri: Option<Self>) -> Option<Self> {
        match (said, in_uri) {
            #[cfg(feature = "file-cache")]
            (Some(Self::Memory(bytes_max)), Some(Self::Folder { folder, .. })) if bytes_max > 0 => {
                Some(Self::Folder { folder, bytes_max })
            }
            (said, in_uri) => said.or(in_uri),
        }
    }

    /// Takes `cache=DIR`, `cache=none` and `cache-size=SIZE` out of an address.
    pub(crate) fn take_from(uri: StorageUri) -> Result<(Option<Self>, StorageUri)> {
        let caching = Self::of(uri.parameter(FOLDER), uri.parameter(SIZE))?;
        let rest = uri.within("", &PARAMETERS).unwrap_or(uri);
        Ok((caching, rest))
    }

    fn of(folder: Option<&str>, size: Option<&str>) -> Result<Option<Self>> {
        let size = match size {
            Some(text) => Some(bytes_of(text).ok_or_else(|| {
                invalid(format!(
                    "the parameter `{SIZE}`: write a number of bytes, as in `{SIZE}=1073741824`, or `1GiB`"
                ))
            })?),
            None => None,
        };
        match (folder, size) {
            (None, None) => Ok(None),
            (None, Some(bytes_max)) => Ok(Some(Self::Memory(bytes_max))),
            (Some("none"), None) => Ok(Some(Self::None)),
            (Some("none"), Some(_)) => {
                Err(invalid(format!("the parameter `{SIZE}` beside `{FOLDER}=none`: leave one out")))
            }
            (Some(""), _) => {
                Err(invalid(format!("the parameter `{FOLDER}`, which names no folder: write a path, or `none`")))
            }
            #[cfg(feature = "file-cache")]
            (Some(folder), size) => {
                let bytes_max = size.unwrap_or(CACHE_FOLDER_BYTES_MAX_DEFAULT);
                if bytes_max == 0 {
                    return Ok(Some(Self::None));
                }
                Ok(Some(Self::Folder { folder: folder.into(), bytes_max }))
            }
            #[cfg(not(feature = "file-cache"))]
            (Some(_), _) => Err(Error::new(
                ErrorKind::Unsupported,
                Operation::Open,
                "a cache in a folder in this build: turn on the feature `file-cache`",
            )),
        }
    }
}

/// A number of bytes, or of KiB, MiB, GiB or TiB.
fn bytes_of(text: &str) -> Option<u64> {
    let end = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(end)?;
    let power = match unit {
        "" => 0,
        "KiB" => 1,
        "MiB" => 2,
        "GiB" => 3,
        "TiB" => 4,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << (10 * power))
}

fn invalid(context: String) -> Error {
    Error::new(ErrorKind::Invalid, Operation::Open, context)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(text: &str) -> Result<(Option<Caching>, String)> {
        let (caching, rest) = Caching::take_from(StorageUri::parse(text).unwrap())?;
        Ok((caching, rest.to_string()))
    }

    #[test]
    fn an_address_says_which_cache_and_its_storage_does_not_see_it() {
        assert!(matches!(taken("my://b/p?region=x").unwrap(), (None, rest) if rest == "my://b/p?region=x"));
        let (caching, rest) = taken("my://b/p?cache=none&region=x").unwrap();
        assert!(matches!(caching, Some(Caching::None)) && rest == "my://b/p?region=x");
        assert!(matches!(taken("my://b?cache-size=7").unwrap().0, Some(Caching::Memory(7))));
        assert!(matches!(taken("my://b?cache-size=3MiB").unwrap().0, Some(Caching::Memory(0x30_0000))));
        for (text, bytes) in [("0", 0), ("1KiB", 1 << 10), ("2GiB", 2 << 30), ("1TiB", 1 << 40)] {
            assert_eq!(bytes_of(text), Some(bytes), "{text}");
        }
        for bad in ["", "KiB", "1.5GiB", "1 GiB", "1gib", "-1", "1é", "99999999999TiB", "99999999999999999999"] {
            assert_eq!(bytes_of(bad), None, "{bad}");
        }
        #[cfg(feature = "file-cache")]
        {
            let (caching, rest) = taken("my://b?cache=/a%20b/c&cache-size=4096").unwrap();
            let Some(Caching::Folder { folder, bytes_max: 4096 }) = caching else { panic!() };
            assert_eq!((folder, rest), (PathBuf::from("/a b/c"), "my://b".to_owned()));
            let Some(Caching::Folder { bytes_max, .. }) = taken("my://b?cache=c").unwrap().0 else { panic!() };
            assert_eq!(bytes_max, CACHE_FOLDER_BYTES_MAX_DEFAULT);
        }
        #[cfg(feature = "file-cache")]
        {
            let in_uri = || taken("my://b?cache=c").unwrap().0;
            assert!(matches!(Caching::choose(Some(Caching::Memory(0)), in_uri()), Some(Caching::Memory(0))));
            let sized = Caching::choose(Some(Caching::Memory(9)), in_uri());
            assert!(matches!(sized, Some(Caching::Folder { bytes_max: 9, .. })));
            assert!(matches!(Caching::choose(None, in_uri()), Some(Caching::Folder { .. })));
            assert!(matches!(Caching::choose(Some(Caching::Memory(9)), None), Some(Caching::Memory(9))));
        }
        for bad in ["my://b?cache=none&cache-size=1", "my://b?cache-size=much", "my://b?cache="] {
            assert_eq!(taken(bad).err().unwrap().kind(), ErrorKind::Invalid, "{bad}");
        }
    }
}
