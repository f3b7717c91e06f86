use super::Credentials;
use super::create::Draft;
use super::header::Header;
use super::slots::{Candidate, SlotId, open_directory, seal_directory, unused_slot};
use crate::crypto::{KdfParameters, RootSecret, Secret};
use crate::env::Env;
use crate::format::header::Features;
use crate::format::limits::{HEADER_GENERATION_MAX, SLOT_LABEL_BYTES_MAX, SLOTS_COUNT};
use crate::format::slot::{Factors, SlotDirectory, SlotEntry};
use crate::{Error, Result};

/// A way in that is to be made.
pub struct NewSlot<'a> {
    /// What will open it.
    pub credentials: &'a Credentials,
    /// What the user calls it, at most 48 bytes.
    pub label: &'a str,
}

impl NewSlot<'_> {
    pub(super) fn check(&self) -> Result<()> {
        self.credentials.check_strength()?;
        let (value, limit) = (self.label.len() as u64, SLOT_LABEL_BYTES_MAX as u64);
        if value > limit {
            return Err(Error::LimitExceeded { what: "slot_label_bytes", value, limit });
        }
        Ok(())
    }
}

/// A way in that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotInfo {
    /// Its place in the header.
    pub index: u8,
    /// What it takes to open it.
    pub factors: Factors,
    /// When it was made, in milliseconds since the Unix epoch.
    pub created: u64,
    /// What the user calls it.
    pub label: String,
    /// Which sealing of the slot this tells of.
    id: SlotId,
}

impl SlotInfo {
    /// Whether this is the slot, as it was sealed then.
    pub(crate) fn is(&self, id: SlotId) -> bool {
        self.id == id
    }

    pub(crate) const fn id(&self) -> SlotId {
        self.id
    }
}

/// The slots in use.
///
/// # Errors
/// [`Error::Damaged`] where header or directory are not authentic.
pub fn slots(header: &Header, root: &RootSecret) -> Result<Vec<SlotInfo>> {
    let directory = open_directory(header, root)?;
    let used = (0..).zip(directory.0).zip(&header.fields.slots).filter_map(|((index, entry), slot)| {
        let SlotEntry { factors, created, label } = entry?;
        Some(SlotInfo { index, factors, created, label, id: SlotId(slot.salt) })
    });
    Ok(used.collect())
}

/// Makes a new generation of the header in force. Nothing is written here: the caller writes the header
/// ([`super::write_header`]) and puts it in force with a commit that names it.
///
/// Taking a slot away revokes nothing against someone who kept a copy of the old header and has its credential: they can
/// still unwrap the old root secret. Only [`HeaderEdit::rotate`] protects what is written later.
pub struct HeaderEdit<'a> {
    /// Clock, randomness, workers.
    pub env: &'a Env,
    /// The header in force.
    pub header: &'a Header,
    /// What it unwraps.
    pub root: &'a RootSecret,
    /// The new generation: [`super::HeaderSet::next_generation`].
    pub generation: u64,
}

impl HeaderEdit<'_> {
    /// One more slot.
    ///
    /// # Errors
    /// [`Error::LimitExceeded`] where all slots are in use; [`Error::Invalid`] for credentials that open a slot already, or
    /// for a key file that is too short; otherwise as [`super::unlock`].
    pub async fn add(&self, new: &NewSlot<'_>) -> Result<Header> {
        self.add_candidate(&mut Candidate::new(new)?).await
    }

    pub(crate) async fn add_candidate(&self, new: &mut Candidate<'_>) -> Result<Header> {
        let directory = open_directory(self.header, self.root)?;
        let index = directory.0.iter().position(Option::is_none);
        let limit = SLOTS_COUNT as u64;
        let index = index.and_then(|index| u8::try_from(index).ok()).ok_or(Error::LimitExceeded {
            what: "slots_count",
            value: limit + 1,
            limit,
        })?;
        self.change(directory, index, Some(new)).await
    }

    /// Other credentials in a slot, in one step: a change of password.
    ///
    /// # Errors
    /// [`Error::Invalid`] where the slot is not in use; otherwise as [`HeaderEdit::add`].
    pub async fn replace(&self, index: u8, new: &NewSlot<'_>) -> Result<Header> {
        self.replace_candidate(index, &mut Candidate::new(new)?).await
    }

    pub(crate) async fn replace_candidate(&self, index: u8, new: &mut Candidate<'_>) -> Result<Header> {
        self.change(self.used(index)?, index, Some(new)).await
    }

    /// One slot less.
    ///
    /// # Errors
    /// [`Error::Invalid`] where the slot is not in use, or is the last one.
    pub async fn remove(&self, index: u8) -> Result<Header> {
        let directory = self.used(index)?;
        if directory.0.iter().flatten().count() == 1 {
            return Err(Error::Invalid("this is the last slot: without it the data would be lost".to_owned()));
        }
        self.change(directory, index, None).await
    }

    /// A fresh key epoch, salt and cost, and only the slots given here: the caller shows the others ([`slots`]) before it
    /// drops them. Returns the new root secret too; the old epoch's is needed until everything is sealed anew, so the
    /// caller seals it under the new one.
    ///
    /// # Errors
    /// As [`super::build_header`], and [`Error::LimitExceeded`] after 65,535 rotations.
    pub async fn rotate(&self, kdf: KdfParameters, keep: &[NewSlot<'_>]) -> Result<(Header, RootSecret)> {
        self.header.check_mac(self.root)?;
        let limit = u64::from(u16::MAX);
        let key_epoch = self.root.key_epoch.checked_add(1).ok_or(Error::LimitExceeded {
            what: "key_epoch",
            value: limit + 1,
            limit,
        })?;
        let epoch = Secret::from_bytes(self.env.random()?);
        let next_root = RootSecret { key_epoch, epoch, lifetime: self.root.lifetime.duplicate() };
        let mut draft = Draft::new(self.env, self.header.suite(), self.header.block_bytes(), kdf)?;
        draft.fields.features = self.header.features();
        draft.fields.repository = *self.header.repository();
        draft.fields.generation = self.checked_generation()?;
        draft.fields.previous = *self.header.hash();
        let next = draft.finish(self.env, &next_root, keep).await?;
        Ok((next, next_root))
    }

    /// The same ways in, and no note any more that this is an unfinished copy.
    pub(crate) fn finish_copy(&self) -> Result<Header> {
        let directory = open_directory(self.header, self.root)?;
        let mut fields = self.header.fields.clone();
        fields.generation = self.checked_generation()?;
        fields.previous = *self.header.hash();
        fields.features.incompatible &= !Features::UNFINISHED_COPY;
        seal_directory(self.env, &mut fields, self.header.suite(), self.root, &directory)?;
        Header::from_fields(&fields, self.root)
    }

    fn used(&self, index: u8) -> Result<SlotDirectory> {
        let directory = open_directory(self.header, self.root)?;
        match directory.0.get(usize::from(index)) {
            Some(Some(_)) => Ok(directory),
            _ => Err(Error::Invalid(format!("slot {index} is not in use"))),
        }
    }

    fn checked_generation(&self) -> Result<u64> {
        if self.generation > HEADER_GENERATION_MAX {
            let (value, limit) = (self.generation, HEADER_GENERATION_MAX);
            return Err(Error::LimitExceeded { what: "header_generation", value, limit });
        }
        if self.generation <= self.header.generation() {
            return Err(Error::Invalid("a new header needs a new generation".to_owned()));
        }
        Ok(self.generation)
    }

    async fn change(&self, mut directory: SlotDirectory, index: u8, new: Option<&mut Candidate<'_>>) -> Result<Header> {
        let Self { env, header, root, .. } = *self;
        let mut fields = header.fields.clone();
        fields.generation = self.checked_generation()?;
        fields.previous = *header.hash();
        let (slot, entry) = match new {
            None => (unused_slot(env)?, None),
            Some(new) => {
                new.refuse_twice(env, header, index).await?;
                let (slot, factors) = new.seal(env, &fields, (header.suite(), header.kdf()), root, index).await?;
                (slot, Some(SlotEntry { factors, created: env.now(), label: new.label().to_owned() }))
            }
        };
        let at = usize::from(index);
        if let (Some(place), Some(named)) = (fields.slots.get_mut(at), directory.0.get_mut(at)) {
            *place = slot;
            *named = entry;
        }
        seal_directory(env, &mut fields, header.suite(), root, &directory)?;
        Header::from_fields(&fields, root)
    }
}
