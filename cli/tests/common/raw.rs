//! What whoever runs the storage sees: blobs of one size and names, all of them noise.

use std::collections::HashMap;
use std::fs;

use super::acceptance::{check_is_clean, seed};
use super::{Numbers, PASSWORD, Scratch, list, os};
use strongroom::blocking::Repository;
use strongroom::storage::{OpenContext, Registry, StorageExt as _, StorageUri};
use strongroom::{CreateOptions, Credentials, KdfParameters};

/// 255 degrees of freedom: mean 255, deviation 22.6. Noise leaves these bounds once in a hundred million blobs.
const CHI_SQUARE: std::ops::Range<f64> = 140.0..400.0;
/// The name of a header or of a hint begins with this.
const MAGIC: &[u8] = b"strongr";
/// A header is readable up to here.
const HEADER_BYTES: usize = 4096;

/// What is stored, each with its name.
pub type Blobs = Vec<(Vec<u8>, Vec<u8>)>;

/// Letters and digits, so that every way to write them down is as long as it can be.
fn word(numbers: &mut Numbers, length: usize) -> Vec<u8> {
    let letters = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
    (0..length).map(|_| letters[usize::try_from(numbers.below(62)).unwrap()]).collect()
}

fn chi_square(counts: &[u64; 256]) -> f64 {
    #[allow(clippy::cast_precision_loss)] // far below 2^52
    let (expected, counts) = (counts.iter().sum::<u64>() as f64 / 256.0, counts.map(|count| count as f64));
    counts.iter().map(|count| (count - expected).powi(2) / expected).sum()
}

fn count(bytes: &[u8], counts: &mut [u64; 256]) {
    for byte in bytes {
        counts[usize::from(*byte)] += 1;
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn base64(bytes: &[u8]) -> Vec<u8> {
    let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |group: &[u8]| {
        let joined = u32::from(group[0]) << 16 | u32::from(group[1]) << 8 | u32::from(group[2]);
        [18, 12, 6, 0].map(|shift| letters[(joined >> shift & 63) as usize])
    };
    // A rest that does not fill a group depends on what follows.
    bytes.chunks_exact(3).flat_map(group).collect()
}

/// A secret in every way in which it might be written down.
fn spellings(secret: &[u8]) -> Vec<Vec<u8>> {
    let wide = |place: usize| secret.iter().flat_map(|byte| if place == 0 { [*byte, 0] } else { [0, *byte] }).collect();
    let mut reversed = secret.to_vec();
    reversed.reverse();
    let mut all = vec![
        secret.to_vec(),
        reversed,
        hex(secret).into_bytes(),
        hex(secret).to_uppercase().into_bytes(),
        wide(0),
        wide(1),
    ];
    all.extend((0..3).map(|skip| base64(&secret[skip..])));
    all
}

/// Finds many needles at once, by the eight bytes they begin with.
struct Needles {
    by_start: HashMap<u64, Vec<Vec<u8>>>,
    /// Which pairs of bytes begin a needle, so that the map is seldom asked.
    pairs: Vec<bool>,
}

impl Needles {
    fn new(needles: impl Iterator<Item = Vec<u8>>) -> Self {
        let (mut by_start, mut pairs) = (HashMap::<u64, Vec<_>>::new(), vec![false; 1 << 16]);
        for needle in needles {
            pairs[usize::from(u16::from_le_bytes([needle[0], needle[1]]))] = true;
            by_start.entry(u64::from_le_bytes(needle[..8].try_into().unwrap())).or_default().push(needle);
        }
        Self { by_start, pairs }
    }

    fn find_in<'a>(&'a self, hay: &'a [u8]) -> Option<&'a [u8]> {
        hay.windows(8).enumerate().find_map(|(at, start)| {
            if !self.pairs[usize::from(u16::from_le_bytes([start[0], start[1]]))] {
                return None;
            }
            let needles = self.by_start.get(&u64::from_le_bytes(start.try_into().unwrap()))?;
            needles.iter().find(|needle| hay[at..].starts_with(needle)).map(Vec::as_slice)
        })
    }
}

/// Every blob with its name, as the storage holds it.
fn stored(registry: &Registry, uri: &str) -> Blobs {
    let uri = StorageUri::parse(uri).unwrap();
    let context = OpenContext::new(strongroom::env::system().unwrap());
    strongroom_conformance::block_on(async {
        let storage = registry.open(&uri, &context).await.unwrap();
        let mut blobs = Vec::new();
        for name in storage.list_all(&[]).await.unwrap() {
            blobs.push((name.as_bytes().to_vec(), storage.get_all(name, u64::MAX).await.unwrap().to_vec()));
        }
        blobs
    })
}

/// Of the file of a cache all that is used is noise, save the header and the directories of its two sets.
fn is_ciphertext(file: &[u8]) {
    let (mut noise, mut other) = (0, 0);
    for unit in file.chunks(4096).filter(|unit| unit.iter().any(|byte| *byte != 0)) {
        let mut counts = [0; 256];
        count(unit, &mut counts);
        *if CHI_SQUARE.contains(&chi_square(&counts)) { &mut noise } else { &mut other } += 1;
    }
    assert!(noise > 40 && other <= 1 + 2 * 4, "{noise} units of noise, {other} others");
}

/// Fills a repository, and answers what may be seen nowhere.
fn plant(scratch: &Scratch, numbers: &mut Numbers, planted: usize) -> Vec<Vec<u8>> {
    let (mut secrets, mut folder) = (Vec::new(), scratch.path("tree"));
    for number in 0..planted {
        let (name, content) = (word(numbers, 24), word(numbers, 24));
        if number % 20 == 0 {
            let name = word(numbers, 24);
            folder = scratch.path("tree").join(os(&name));
            fs::create_dir_all(&folder).unwrap();
            secrets.push(name);
        }
        // From what lies in a commit to what fills blocks; some of it compresses to nearly nothing.
        let size = [10, 2_000, 40_000, 300_000][number % 4];
        let mut bytes = content.clone();
        while bytes.len() < size {
            match number % 3 {
                0 => bytes.extend_from_slice(&content),
                1 => bytes.extend(numbers.bytes(1_000)),
                _ => bytes.extend_from_slice(&[0; 1_000]),
            }
        }
        bytes.extend_from_slice(&content);
        if number % 10 == 9 {
            std::os::unix::fs::symlink(os(&content), folder.join(os(&name))).unwrap();
        } else {
            fs::write(folder.join(os(&name)), bytes).unwrap();
        }
        secrets.extend([name, content]);
    }
    scratch.succeeds(["import", "tree"]);
    // Names and content pass through every structure: rows that change, moves, keys and values.
    for number in 0..4 {
        let (name, content) = (word(numbers, 24), word(numbers, 24));
        let path = os(&[b"/", name.as_slice()].concat());
        assert!(scratch.feeds([std::ffi::OsStr::new("put"), "-".as_ref(), &path], &content).status.success());
        if number % 2 == 0 {
            scratch.succeeds([std::ffi::OsStr::new("rm"), &path]);
        }
        secrets.extend([name, content]);
    }
    secrets.push(PASSWORD.as_bytes().to_vec());
    secrets
}

/// All blobs are of one size, and noise, and so are their names.
fn blobs_are_noise(scheme: &str, blobs: &[(Vec<u8>, Vec<u8>)]) {
    let block = blobs[0].1.len();
    assert!(block.is_power_of_two() && blobs.len() > 10, "{} blobs of {block} bytes", blobs.len());
    let (mut of_names, mut of_bytes) = ([0; 256], [0; 256]);
    let (mut raw, mut packed, mut extremes) = (0, 0, (f64::MAX, 0_f64));
    for (name, bytes) in blobs {
        let shown = hex(name);
        assert_eq!(bytes.len(), block, "{scheme}: {shown}");
        let is_header = name.starts_with(MAGIC) && name[7] == b'H';
        if !name.starts_with(MAGIC) {
            count(name, &mut of_names);
        }
        let noise = if is_header { &bytes[HEADER_BYTES..] } else { &bytes[..] };
        let mut counts = [0; 256];
        count(noise, &mut counts);
        count(noise, &mut of_bytes);
        let chi_square = chi_square(&counts);
        extremes = (extremes.0.min(chi_square), extremes.1.max(chi_square));
        assert!(CHI_SQUARE.contains(&chi_square), "{scheme}: {shown}: χ² {chi_square}");
        raw += noise.len();
        packed += lz4_flex::block::compress(noise).len();
    }
    let (names, bytes) = (chi_square(&of_names), chi_square(&of_bytes));
    eprintln!(
        "{scheme}: {} blobs of {block} bytes: χ² {:.0}..{:.0} each, {bytes:.0} of all bytes, {names:.0} of the names; LZ4 makes {raw} bytes {packed}",
        blobs.len(),
        extremes.0,
        extremes.1,
    );
    assert!(CHI_SQUARE.contains(&names), "names: χ² {names}");
    assert!(CHI_SQUARE.contains(&bytes), "all bytes: χ² {bytes}");
    assert!(packed * 100 >= raw * 99, "{raw} bytes compress to {packed}");
}

/// Plants names and content in a repository, and looks for them in all that whoever runs the storage has.
pub fn is_noise(scratch: &Scratch, planted: usize) {
    looks_like_noise(scratch, planted, || {
        (stored(&strongroom::registry::default(), &scratch.repository()), Vec::new())
    });
}

/// The same where the files of the storage are elsewhere: `seen` gives the blobs with their names, and what else there is, with its name.
pub fn looks_like_noise(scratch: &Scratch, planted: usize, seen: impl FnOnce() -> (Blobs, Blobs)) {
    let seed = seed();
    let mut numbers = Numbers::new(seed);
    let secrets = plant(scratch, &mut numbers, planted);
    check_is_clean(scratch, "after the import");

    // A cache in a folder holds what the storage gave, and is looked through with it.
    let cache = scratch.path("repo-cache");
    let cached = ["--cache", cache.to_str().unwrap(), "--cache-size", "8MiB"];
    scratch.succeeds([&["export", "/tree", "-"][..], &cached].concat());
    is_ciphertext(&fs::read(cache.join("blocks")).unwrap());

    let needles = Needles::new(secrets.iter().flat_map(|secret| spellings(secret)));
    // Whatever the storage makes of them in its own files.
    for path in list(scratch.root.path()) {
        let is_stored = path.is_file() && path.to_str().is_some_and(|path| path.contains("/repo"));
        if is_stored {
            assert_eq!(
                needles.find_in(&fs::read(&path).unwrap()),
                None,
                "seed {seed}: {} holds what was planted",
                path.display()
            );
        }
    }
    let (blobs, others) = seen();
    for (name, bytes) in blobs.iter().chain(&others) {
        assert_eq!(needles.find_in(name), None, "seed {seed}: {}", String::from_utf8_lossy(name));
        assert_eq!(needles.find_in(bytes), None, "seed {seed}: {}", String::from_utf8_lossy(name));
    }
    blobs_are_noise(scratch.scheme, &blobs);
    let repository = scratch.path("repo");
    let own = repository.exists().then(|| list(&repository));
    for path in own.into_iter().flatten().chain(list(&scratch.path("state"))) {
        let shown = path.strip_prefix(scratch.root.path()).unwrap().as_os_str().as_encoded_bytes();
        assert_eq!(needles.find_in(shown), None, "{}", path.display());
        if path.is_file() && path.starts_with(scratch.path("state")) {
            assert_eq!(needles.find_in(&fs::read(&path).unwrap()), None, "{}", path.display());
        }
    }

    // The search itself works: in the tree that went in, it finds what was planted.
    let source = list(&scratch.path("tree")).into_iter().find(|path| path.is_file()).unwrap();
    assert!(needles.find_in(&fs::read(source).unwrap()).is_some());
}

/// As [`is_noise`], of a store that only this process has.
pub fn is_noise_in_memory(planted: usize) {
    const URI: &str = "mem://noise";
    let (mut numbers, registry, mut secrets) = (Numbers::new(seed()), strongroom::registry::default(), Vec::new());
    let options = CreateOptions::new(Credentials::password(PASSWORD)).kdf(KdfParameters::MINIMUM);
    let repository = Repository::create(URI, options.registry(registry.clone()).without_trusted_state()).unwrap();
    for number in 0..planted {
        let (name, content) = (word(&mut numbers, 24), word(&mut numbers, 24));
        let bytes = content.repeat([1, 100, 2_000, 12_000][number % 4]);
        repository.fs().write(String::from_utf8(name.clone()).unwrap(), bytes).unwrap();
        repository.kv().put(&content, &name).unwrap();
        secrets.extend([name, content]);
    }
    repository.fs().write("/noise", numbers.bytes(3 << 20)).unwrap();
    repository.close().unwrap();
    let needles = Needles::new(secrets.iter().flat_map(|secret| spellings(secret)));
    let blobs = stored(&registry, URI);
    assert!(blobs.iter().all(|(name, bytes)| needles.find_in(name).or(needles.find_in(bytes)).is_none()));
    blobs_are_noise("mem", &blobs);
    assert!(needles.find_in(&secrets.concat()).is_some());
}
