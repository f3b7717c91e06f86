use std::sync::Arc;

use super::edit::NewSlot;
use super::header::Header;
use super::slots::{Candidate, seal_directory, unused_slot};
use super::store;
use crate::crypto::{KdfParameters, RootSecret, Secret, Suite};
use crate::env::Env;
use crate::format::header::{self, Features, KdfCost};
use crate::format::limits::{HEADER_GENERATION_MIN, SLOTS_COUNT, check_block_bytes};
use crate::format::slot::{SLOT_DIRECTORY_BYTES, SlotDirectory, SlotEntry};
use crate::storage::Storage;
use crate::{Error, Result};

/// What a new repository's first header says.
pub struct CreateHeader<'a> {
    /// What everything is sealed with.
    pub suite: Suite,
    /// The size of every blob, in bytes.
    pub block_bytes: u32,
    /// The cost of one attempt.
    pub kdf: KdfParameters,
    /// Features; this version must know them.
    pub features: Features,
    /// The ways in: at least one.
    pub slots: &'a [NewSlot<'a>],
}

/// Makes a fresh root secret and the first header of a repository, and writes nothing.
///
/// # Errors
/// [`Error::Invalid`] or [`Error::LimitExceeded`] for options outside their limits, before anything costly is done.
pub async fn build_header(env: &Env, options: &CreateHeader<'_>) -> Result<(Header, RootSecret)> {
    check_block_bytes(options.block_bytes).map_err(|error| Error::Invalid(error.to_string()))?;
    if options.features.unknown() != Features::default() {
        return Err(Error::Invalid("features that this version does not know".to_owned()));
    }
    let root = RootSecret {
        key_epoch: 0,
        epoch: Secret::from_bytes(env.random()?),
        lifetime: Secret::from_bytes(env.random()?),
    };
    let mut draft = Draft::new(env, options.suite, options.block_bytes, options.kdf)?;
    draft.fields.features = options.features;
    let header = draft.finish(env, &root, options.slots).await?;
    Ok((header, root))
}

/// Makes a fresh root secret and writes the first header of a repository, both copies, durably.
///
/// # Errors
/// [`Error::AlreadyExists`] where a header is there; otherwise as [`build_header`], and what the storage raises.
pub async fn create_header(
    storage: &Arc<dyn Storage>,
    env: &Env,
    options: &CreateHeader<'_>,
) -> Result<(Header, RootSecret)> {
    store::refuse_existing(storage).await?;
    let (header, root) = build_header(env, options).await?;
    store::write_header(storage, &header, &root).await?;
    Ok((header, root))
}

/// A header whose slots are all yet to be sealed.
pub(super) struct Draft {
    pub(super) fields: header::Header,
    suite: Suite,
    kdf: KdfParameters,
}

impl Draft {
    pub(super) fn new(env: &Env, suite: Suite, block_bytes: u32, kdf: KdfParameters) -> Result<Self> {
        kdf.validate().map_err(|error| Error::Invalid(error.to_string()))?;
        let unused = || unused_slot(env);
        let fields = header::Header {
            suite: suite.code(),
            block_bytes,
            features: Features::default(),
            kdf: KdfCost { memory_kib: kdf.memory_kib, passes: kdf.passes, lanes: kdf.lanes },
            salt: env.random()?,
            repository: env.random()?,
            generation: HEADER_GENERATION_MIN,
            previous: [0; 32],
            directory_salt: [0; 32],
            directory: [0; SLOT_DIRECTORY_BYTES],
            directory_tag: [0; 16],
            slots: [unused()?, unused()?, unused()?, unused()?, unused()?, unused()?, unused()?, unused()?],
        };
        Ok(Self { fields, suite, kdf })
    }

    /// Seals the slots from the first on, the directory, and the whole.
    pub(super) async fn finish(mut self, env: &Env, root: &RootSecret, slots: &[NewSlot<'_>]) -> Result<Header> {
        if slots.is_empty() {
            return Err(Error::Invalid("a repository without credentials could never be opened".to_owned()));
        }
        if slots.len() > SLOTS_COUNT {
            let (value, limit) = (slots.len() as u64, SLOTS_COUNT as u64);
            return Err(Error::LimitExceeded { what: "slots_count", value, limit });
        }
        for slot in slots {
            slot.check()?;
        }
        let mut directory = SlotDirectory::default();
        for ((index, new), entry) in (0..).zip(slots).zip(&mut directory.0) {
            let mut candidate = Candidate::new(new)?;
            let (slot, factors) = candidate.seal(env, &self.fields, (self.suite, self.kdf), root, index).await?;
            if let Some(place) = self.fields.slots.get_mut(usize::from(index)) {
                *place = slot;
            }
            *entry = Some(SlotEntry { factors, created: env.now(), label: new.label.to_owned() });
        }
        seal_directory(env, &mut self.fields, self.suite, root, &directory)?;
        Header::from_fields(&self.fields, root)
    }
}
