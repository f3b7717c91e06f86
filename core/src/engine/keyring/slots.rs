use zeroize::Zeroizing;

use super::Credentials;
use super::edit::NewSlot;
use super::header::{HEADER, Header};
use crate::crypto::{BlockKey, CryptoError, KdfParameters, RootSecret, Secret, Suite, derive, equal, keyed_hash};
use crate::env::Env;
use crate::format::header;
use crate::format::slot::{Factors, Slot, SlotDirectory, SlotPayload};
use crate::{Error, Result};

const COMMITMENT: &str = "Strongroom 2026 slot secret: commitment";
const SEAL: &str = "Strongroom 2026 slot secret: payload key";

/// A slot's key seals one payload, and a directory's key one directory.
const ONLY_INDEX: u64 = 0;

/// The outcome of one run of the password-based key derivation: it serves every slot of every header with the same salt
/// and cost.
pub(super) struct Attempt {
    secret: Secret,
    kdf: KdfParameters,
    salt: [u8; 32],
}

impl Attempt {
    pub(super) async fn run(env: &Env, material: Secret, kdf: KdfParameters, salt: [u8; 32]) -> Result<Self> {
        let worker = env.spawn(async move { kdf.run(material.expose(), &salt) });
        let secret = worker.await.ok_or(Error::WorkerLost)?.map_err(|error| match error {
            CryptoError::KdfFailed => {
                Error::Invalid(format!("not enough memory: opening takes {} KiB once", kdf.memory_kib))
            }
            other => Error::Invalid(other.to_string()),
        })?;
        Ok(Self { secret, kdf, salt })
    }

    pub(super) fn serves(&self, header: &Header) -> bool {
        self.kdf == header.kdf() && self.salt == header.fields.salt
    }

    /// The commitment and the key of a slot.
    fn keys_of_slot(&self, suite: Suite, index: u8, slot_salt: &[u8; 32]) -> (Secret, BlockKey) {
        let secret = Secret::from_bytes(keyed_hash(&self.secret, &[&[index], slot_salt]));
        (derive(COMMITMENT, &secret), BlockKey::new(suite, &derive(SEAL, &secret)))
    }

    /// The slot that this opens, by its commitment alone.
    fn slot_of(&self, header: &Header) -> Option<u8> {
        (0..).zip(&header.fields.slots).find_map(|(index, slot)| {
            let (commitment, _) = self.keys_of_slot(header.suite(), index, &slot.salt);
            equal(commitment.expose(), &slot.commitment).then_some(index)
        })
    }

    /// Tries every slot. Every commitment is compared, whichever fits, so that time does not tell which slot it was.
    pub(super) fn open(&self, header: &Header) -> Result<(RootSecret, SlotId)> {
        let mut candidates = Vec::new();
        for (index, slot) in (0..).zip(&header.fields.slots) {
            let (commitment, key) = self.keys_of_slot(header.suite(), index, &slot.salt);
            if equal(commitment.expose(), &slot.commitment) {
                candidates.push((index, slot, key));
            }
        }
        let mut outcome = Err(Error::WrongCredentials);
        for (index, slot, key) in candidates {
            outcome = open_payload(header, index, slot, &key).map(|root| (root, SlotId(slot.salt)));
            if outcome.is_ok() {
                break;
            }
        }
        let (root, slot) = outcome?;
        header.check_mac(&root)?;
        Ok((root, slot))
    }
}

/// One sealing of a slot, by its salt, which stands in the clear. A slot that was replaced is another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SlotId(pub(super) [u8; 32]);

/// Credentials that are to get a slot, with the one costly step done once however often the header has to be made anew.
pub(crate) struct Candidate<'a> {
    new: &'a NewSlot<'a>,
    attempt: Option<Attempt>,
}

impl<'a> Candidate<'a> {
    pub(crate) fn new(new: &'a NewSlot<'a>) -> Result<Self> {
        new.check()?;
        Ok(Self { new, attempt: None })
    }

    pub(super) const fn label(&self) -> &'a str {
        self.new.label
    }

    /// The attempt for headers of this salt and cost.
    async fn attempt(&mut self, env: &Env, kdf: KdfParameters, salt: [u8; 32]) -> Result<&Attempt> {
        let attempt = match self.attempt.take().filter(|attempt| attempt.kdf == kdf && attempt.salt == salt) {
            Some(attempt) => attempt,
            None => Attempt::run(env, self.new.credentials.material()?, kdf, salt).await?,
        };
        Ok(self.attempt.insert(attempt))
    }

    /// Refuses credentials that open another slot of this header: to remove either would leave them a way in.
    pub(super) async fn refuse_twice(&mut self, env: &Env, header: &Header, index: u8) -> Result<()> {
        match self.attempt(env, header.kdf(), header.fields.salt).await?.slot_of(header) {
            Some(other) if other != index => {
                Err(Error::Invalid(format!("these credentials open slot {other} already")))
            }
            _ => Ok(()),
        }
    }

    /// Seals the root secret for these credentials into a slot of the fields: fresh salt, hence fresh key.
    pub(super) async fn seal(
        &mut self,
        env: &Env,
        fields: &header::Header,
        (suite, kdf): (Suite, KdfParameters),
        root: &RootSecret,
        index: u8,
    ) -> Result<(Slot, Factors)> {
        let factors = self.new.credentials.factors()?;
        let salt = env.random()?;
        let attempt = self.attempt(env, kdf, fields.salt).await?;
        let (commitment, key) = attempt.keys_of_slot(suite, index, &salt);
        let payload = SlotPayload {
            factors,
            key_epoch: root.key_epoch,
            epoch: Zeroizing::new(*root.epoch.expose()),
            lifetime: Zeroizing::new(*root.lifetime.expose()),
        };
        let mut sealed = payload.encode();
        let tag = key
            .seal(ONLY_INDEX, &fields.slot_aad(index, &salt), sealed.as_mut())
            .map_err(|error| Error::Invalid(error.to_string()))?;
        Ok((Slot { salt, commitment: *commitment.expose(), sealed: *sealed, tag }, factors))
    }
}

fn open_payload(header: &Header, index: u8, slot: &Slot, key: &BlockKey) -> Result<RootSecret> {
    let mut payload = Zeroizing::new(slot.sealed);
    key.open(ONLY_INDEX, &header.fields.slot_aad(index, &slot.salt), payload.as_mut(), &slot.tag)
        .map_err(|_| Error::damaged(HEADER, None, format!("slot {index} is not authentic")))?;
    let payload = SlotPayload::decode(&payload).map_err(|error| Error::damaged(error.structure, None, error.reason))?;
    Ok(RootSecret {
        key_epoch: payload.key_epoch,
        epoch: Secret::from_bytes(*payload.epoch),
        lifetime: Secret::from_bytes(*payload.lifetime),
    })
}

/// Opens a header with credentials and checks its MAC: the root secret. Takes the time and the memory of
/// [`Header::kdf`], on a worker.
///
/// # Errors
/// [`Error::WrongCredentials`] where no slot's commitment fits; [`Error::Damaged`] where one fits and slot or header are
/// not authentic; [`Error::Invalid`] for credentials that make no sense, or where the memory is not to be had.
pub async fn unlock(env: &Env, header: &Header, credentials: &Credentials) -> Result<RootSecret> {
    Ok(unlock_slot(env, header, credentials).await?.0)
}

/// As [`unlock`], and the slot that opened.
pub(crate) async fn unlock_slot(env: &Env, header: &Header, credentials: &Credentials) -> Result<(RootSecret, SlotId)> {
    let attempt = Attempt::run(env, credentials.material()?, header.kdf(), header.fields.salt).await?;
    attempt.open(header)
}

/// Opens a header with a root secret that is at hand (an agent's, a test's): checks the MAC alone.
///
/// # Errors
/// [`Error::Damaged`] where the MAC is not that of this root.
pub fn unlock_with_root(header: &Header, root: RootSecret) -> Result<RootSecret> {
    header.check_mac(&root)?;
    Ok(root)
}

/// A slot that is not used: random from front to back.
pub(super) fn unused_slot(env: &Env) -> Result<Slot> {
    Ok(Slot { salt: env.random()?, commitment: env.random()?, sealed: env.random()?, tag: env.random()? })
}

/// Seals the slot directory into the fields: fresh salt, hence fresh key.
pub(super) fn seal_directory(
    env: &Env,
    fields: &mut header::Header,
    suite: Suite,
    root: &RootSecret,
    directory: &SlotDirectory,
) -> Result<()> {
    fields.directory_salt = env.random()?;
    fields.directory = directory.encode().map_err(|error| Error::Invalid(error.to_string()))?;
    let aad = fields.directory_aad();
    fields.directory_tag = directory_key(fields, suite, root)
        .seal(ONLY_INDEX, &aad, &mut fields.directory)
        .map_err(|error| Error::Invalid(error.to_string()))?;
    Ok(())
}

/// Opens the slot directory.
pub(super) fn open_directory(header: &Header, root: &RootSecret) -> Result<SlotDirectory> {
    header.check_mac(root)?;
    let fields = &header.fields;
    let mut directory = fields.directory;
    directory_key(fields, header.suite(), root)
        .open(ONLY_INDEX, &fields.directory_aad(), &mut directory, &fields.directory_tag)
        .map_err(|_| Error::damaged("slot directory", None, "not authentic"))?;
    SlotDirectory::decode(&directory).map_err(|error| Error::damaged(error.structure, None, error.reason))
}

fn directory_key(fields: &header::Header, suite: Suite, root: &RootSecret) -> BlockKey {
    BlockKey::new(suite, &Secret::from_bytes(keyed_hash(&root.slot_directory_key(), &[&fields.directory_salt])))
}
