//! The slots of an open repository: listed, added, replaced, removed, each time against the header in force, so that of
//! two changes at once none is lost.

use super::Engine;
use super::keyring::{self, Candidate, Header, HeaderEdit, NewSlot, SlotInfo};
use super::shared::lock;
use crate::{Error, Result};

impl Engine {
    /// The slots in use, as storage has them now.
    ///
    /// # Errors
    /// What learning of other processes' commits raises; [`Error::Damaged`] where the header is not authentic.
    pub async fn slots(&self) -> Result<Vec<SlotInfo>> {
        self.refresh().await?;
        keyring::slots(&self.header().await?, &self.secrets.root)
    }

    /// The slot that this repository was opened with; `None` where it was opened without credentials, or where the slot has
    /// been replaced or removed since.
    ///
    /// # Errors
    /// As [`Engine::slots`].
    pub async fn slot_in_use(&self) -> Result<Option<SlotInfo>> {
        let Some(id) = *lock(&self.secrets.slot) else { return Ok(None) };
        Ok(self.slots().await?.into_iter().find(|slot| slot.is(id)))
    }

    /// Gives other credentials a way in, and answers the slots then.
    ///
    /// # Errors
    /// [`Error::LimitExceeded`] where all slots are in use, or for a label or factor that is too long; [`Error::Invalid`] for
    /// credentials that open a slot already, make no sense, or could be guessed; [`Error::Conflict`] after
    /// [`super::Tuning::attempts_max`] attempts; as [`Engine::change_header`].
    pub async fn add_slot(&self, new: &NewSlot<'_>) -> Result<Vec<SlotInfo>> {
        let mut candidate = Candidate::new(new)?;
        self.edit_slots(async |edit: &HeaderEdit<'_>| edit.add_candidate(&mut candidate).await).await
    }

    /// Gives a slot other credentials in one step, and answers the slots then. This handle counts as opened with the slot
    /// if it was before.
    ///
    /// # Errors
    /// [`Error::Conflict`] where the slot is not any more what `old` says; as [`Engine::add_slot`].
    pub async fn replace_slot(&self, old: &SlotInfo, new: &NewSlot<'_>) -> Result<Vec<SlotInfo>> {
        let mut candidate = Candidate::new(new)?;
        let slots = self
            .edit_slots(async |edit: &HeaderEdit<'_>| {
                still(edit, old)?;
                edit.replace_candidate(old.index, &mut candidate).await
            })
            .await?;
        let mut in_use = lock(&self.secrets.slot);
        if in_use.is_some_and(|id| old.is(id)) {
            *in_use = slots.iter().find(|slot| slot.index == old.index).map(SlotInfo::id);
        }
        drop(in_use);
        Ok(slots)
    }

    /// Takes a slot away, and answers the slots then. It revokes nothing against someone who kept a copy of the older
    /// header and has the slot's credentials: see [`HeaderEdit`].
    ///
    /// # Errors
    /// [`Error::Invalid`] for the last slot; [`Error::Conflict`] where the slot is not any more what `old` says; as
    /// [`Engine::change_header`].
    pub async fn remove_slot(&self, old: &SlotInfo) -> Result<Vec<SlotInfo>> {
        self.edit_slots(async |edit: &HeaderEdit<'_>| {
            still(edit, old)?;
            edit.remove(old.index).await
        })
        .await
    }

    /// Makes a header of the one in force and puts it in force, again where another process was faster.
    pub(super) async fn edit_slots(
        &self,
        mut edit: impl AsyncFnMut(&HeaderEdit<'_>) -> Result<Header>,
    ) -> Result<Vec<SlotInfo>> {
        self.shared.check_writable()?;
        let mut attempt = 0;
        loop {
            attempt += 1;
            self.refresh().await?;
            let header = self.header().await?;
            let generation = keyring::read_headers(self.shared.storage()).await?.next_generation();
            let next =
                edit(&HeaderEdit { env: self.env(), header: &header, root: &self.secrets.root, generation }).await?;
            match self.change_header(&next).await {
                Err(Error::Conflict) if attempt < self.shared.tuning.attempts_max => {}
                done => {
                    done?;
                    return keyring::slots(&next, &self.secrets.root);
                }
            }
        }
    }
}

/// Whoever chose the slot meant what it was then.
fn still(edit: &HeaderEdit<'_>, old: &SlotInfo) -> Result<()> {
    let known = keyring::slots(edit.header, edit.root)?;
    if known.iter().any(|slot| slot.is(old.id())) { Ok(()) } else { Err(Error::Conflict) }
}
