//! **A storage whose operator is the enemy**: a wrapper around any other, deterministic by seed.
//!
//! By [`HostileOptions::attacks`] single answers are forged while what is stored stays as it is: so a test can stop the
//! attack and look what is left. The methods change what is stored, for good: flip, cut, lengthen, swap, replay, roll
//! back, invent, withhold. All that the engine may do about either is to answer rightly or with an error.
//!
//! Writes are honest: an operator who throws away what he acknowledged is one who withholds it afterwards.
//!
//! ```
//! # use std::sync::Arc;
//! # use strongroom_conformance::crash::{CrashOptions, CrashingStorage};
//! # use strongroom_conformance::hostile::{HostileOptions, HostileStorage};
//! # use strongroom_core::storage::{Name, Storage as _};
//! # futures_lite::future::block_on(async {
//! let medium = Arc::new(CrashingStorage::new(CrashOptions::default()));
//! let storage = HostileStorage::new(medium, HostileOptions::default());
//! let name = Name::new([1; 16]);
//! storage.put(name, "first".into()).await.unwrap();
//! storage.delete(name).await.unwrap();
//! storage.put(name, "second".into()).await.unwrap();
//!
//! storage.replay(name, 0).await.unwrap(); // the oldest content of that name
//! assert_eq!(storage.get(name, None, 100).await.unwrap(), "first");
//! # });
//! ```

mod forge;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use strongroom_core::storage::bounds::not_found;
use strongroom_core::storage::{
    Capabilities, Change, ExclusiveGuard, Name, Operation, Put, Result, Storage, StorageExt as _,
};

use crate::Dice;
use crate::flaky::Rate;

pub use forge::{distortions, flipped};

/// How an answer is forged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Attack {
    /// One bit of what is read is another.
    Flip,
    /// Less is read than was asked for.
    UnderReply,
    /// More is read than was asked for, more than the caller wanted at most too (**breaks S3**).
    OverReply,
    /// Another blob is read.
    Swap,
    /// What the name held earlier is read.
    Replay,
    /// The blob is not found, or missing from a listing.
    Withhold,
    /// A listing holds names that nobody put, and such as were deleted; a size is another.
    Invent,
    /// A listing is out of order, and holds names twice and names that were not asked for.
    Disorder,
}

impl Attack {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Flip,
        Self::UnderReply,
        Self::OverReply,
        Self::Swap,
        Self::Replay,
        Self::Withhold,
        Self::Invent,
        Self::Disorder,
    ];
}

/// What the operator does by himself.
#[derive(Clone, Debug)]
pub struct HostileOptions {
    /// Decides which answers are forged, and how.
    pub seed: u64,
    /// How many of the answers to `get`, `size` and `list` are forged.
    pub rate: Rate,
    /// In which ways.
    pub attacks: Vec<Attack>,
}

impl Default for HostileOptions {
    /// Every attack is known, and none happens by itself.
    fn default() -> Self {
        Self { seed: 0, rate: Rate::NEVER, attacks: Attack::ALL.to_vec() }
    }
}

/// A handle on a medium in hostile hands.
pub struct HostileStorage {
    inner: Arc<dyn Storage>,
    world: Arc<Mutex<World>>,
}

struct World {
    dice: Dice,
    rate: Rate,
    attacks: Vec<Attack>,
    /// Everything that each name ever held, the oldest first.
    past: BTreeMap<Name, Vec<Bytes>>,
    withheld: BTreeSet<Name>,
    forged: u64,
}

impl HostileStorage {
    /// A handle in hostile hands.
    #[must_use]
    pub fn new(inner: Arc<dyn Storage>, options: HostileOptions) -> Self {
        let world = World {
            dice: Dice::new(options.seed),
            rate: options.rate,
            attacks: options.attacks,
            past: BTreeMap::new(),
            withheld: BTreeSet::new(),
            forged: 0,
        };
        Self { inner, world: Arc::new(Mutex::new(world)) }
    }

    /// Wraps another handle on the same medium: the operator is the same.
    #[must_use]
    pub fn over(&self, inner: Arc<dyn Storage>) -> Self {
        Self { inner, world: self.world.clone() }
    }

    /// From now on so many answers are forged.
    pub fn set_rate(&self, rate: Rate) {
        self.lock().rate = rate;
    }

    /// From now on answers are forged in these ways.
    pub fn set_attacks(&self, attacks: &[Attack]) {
        self.lock().attacks = attacks.to_vec();
    }

    /// How many answers were forged.
    #[must_use]
    pub fn forged(&self) -> u64 {
        self.lock().forged
    }

    /// Everything that the name ever held, the oldest first.
    #[must_use]
    pub fn past(&self, name: Name) -> Vec<Bytes> {
        self.lock().past.get(&name).cloned().unwrap_or_default()
    }

    /// The blob is this from now on, whatever was there: so it is flipped, cut, lengthened, invented.
    ///
    /// # Errors
    /// What the medium raises.
    pub async fn overwrite(&self, name: Name, bytes: Bytes) -> Result<()> {
        self.inner.delete(name).await?;
        self.inner.put_durable(name, bytes).await.map(drop)
    }

    /// One bit of the blob is another from now on.
    ///
    /// # Errors
    /// What the medium raises, `NotFound` among it.
    pub async fn flip(&self, name: Name, bit: u64) -> Result<()> {
        let blob = self.read(name).await?;
        self.overwrite(name, flipped(&blob, bit)).await
    }

    /// The blob has this length from now on: cut, or with zeros behind it.
    ///
    /// # Errors
    /// As [`HostileStorage::flip`].
    pub async fn resize(&self, name: Name, bytes: usize) -> Result<()> {
        let mut blob = self.read(name).await?.to_vec();
        blob.resize(bytes, 0);
        self.overwrite(name, blob.into()).await
    }

    /// Each of two names holds what the other held.
    ///
    /// # Errors
    /// As [`HostileStorage::flip`].
    pub async fn swap(&self, one: Name, other: Name) -> Result<()> {
        let (first, second) = (self.read(one).await?, self.read(other).await?);
        self.overwrite(one, second).await?;
        self.overwrite(other, first).await
    }

    /// The name holds again what it held earlier: `age` 0 is the oldest content of it that was put through this medium.
    /// Nothing happens where there was no such content.
    ///
    /// # Errors
    /// What the medium raises.
    pub async fn replay(&self, name: Name, age: usize) -> Result<()> {
        match self.past(name).get(age) {
            Some(blob) => self.overwrite(name, blob.clone()).await,
            None => Ok(()),
        }
    }

    /// Everything that is stored, for [`HostileStorage::roll_back`].
    ///
    /// # Errors
    /// What the medium raises.
    pub async fn image(&self) -> Result<BTreeMap<Name, Bytes>> {
        let mut image = BTreeMap::new();
        for name in self.inner.list_all(&[]).await? {
            image.insert(name, self.read(name).await?);
        }
        Ok(image)
    }

    /// The whole storage is what it was.
    ///
    /// # Errors
    /// What the medium raises.
    pub async fn roll_back(&self, image: &BTreeMap<Name, Bytes>) -> Result<()> {
        for name in self.inner.list_all(&[]).await? {
            if !image.contains_key(&name) {
                self.inner.delete(name).await?;
            }
        }
        for (name, blob) in image {
            if self.read(*name).await.ok().as_ref() != Some(blob) {
                self.overwrite(*name, blob.clone()).await?;
            }
        }
        Ok(())
    }

    /// The blob is not found and not listed, until [`HostileStorage::give_back`]; it is stored all the same.
    pub fn withhold(&self, name: Name) {
        self.lock().withheld.insert(name);
    }

    /// Withholds nothing any more.
    pub fn give_back(&self) {
        self.lock().withheld.clear();
    }

    async fn read(&self, name: Name) -> Result<Bytes> {
        self.inner.get(name, None, u64::from(self.inner.capabilities().block_bytes_max)).await
    }

    fn lock(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, name: Name, bytes: Bytes) {
        let mut world = self.lock();
        let past = world.past.entry(name).or_default();
        if past.last() != Some(&bytes) {
            past.push(bytes);
        }
    }

    fn is_withheld(&self, name: Name) -> bool {
        self.lock().withheld.contains(&name)
    }

    /// Whether the next answer is forged, how, and by which throw.
    fn attack(&self) -> Option<(Attack, Dice)> {
        let mut world = self.lock();
        let World { dice, rate, attacks, .. } = &mut *world;
        if !rate.happens(dice) {
            return None;
        }
        let attack = attacks.get(usize::try_from(dice.below(attacks.len() as u64)).ok()?).copied()?;
        let throw = Dice::new(dice.roll());
        world.forged += 1;
        Some((attack, throw))
    }

    /// The content of another name, or of the same earlier.
    fn other_content(&self, name: Name, attack: Attack, dice: &mut Dice) -> Option<Bytes> {
        let world = self.lock();
        let of = |name: Name, dice: &mut Dice| {
            let past = world.past.get(&name)?;
            past.get(usize::try_from(dice.below(past.len() as u64)).ok()?).cloned()
        };
        if attack == Attack::Replay {
            return of(name, dice);
        }
        let place = usize::try_from(dice.below(world.past.len() as u64)).ok()?;
        of(*world.past.keys().nth(place)?, dice)
    }

    fn forge_list(&self, mut page: Vec<Name>, prefix: &[u8], attack: Attack, dice: &mut Dice) -> Vec<Name> {
        match attack {
            Attack::Withhold | Attack::UnderReply => page.retain(|_| dice.below(2) == 0),
            Attack::Invent | Attack::OverReply | Attack::Replay => {
                let mut invented = [0; Name::BYTES];
                for part in invented.chunks_mut(8) {
                    let roll = dice.roll().to_le_bytes();
                    part.copy_from_slice(roll.get(..part.len()).unwrap_or_default());
                }
                if let Some(start) = invented.get_mut(..prefix.len()) {
                    start.copy_from_slice(prefix);
                }
                page.push(Name::new(invented));
                let world = self.lock();
                page.extend(world.past.keys().filter(|name| name.as_bytes().starts_with(prefix)));
                drop(world);
                page.sort_unstable();
                page.dedup();
            }
            Attack::Disorder | Attack::Flip | Attack::Swap => {
                page.extend_from_within(..page.len().min(2));
                page.extend(self.lock().past.keys().take(2));
                page.reverse();
            }
        }
        page
    }
}

impl fmt::Debug for HostileStorage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("HostileStorage").field("inner", &self.inner).finish_non_exhaustive()
    }
}

#[async_trait]
impl Storage for HostileStorage {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn is_remote(&self) -> bool {
        self.inner.is_remote()
    }

    async fn put(&self, name: Name, bytes: Bytes) -> Result<Put> {
        let put = self.inner.put(name, bytes.clone()).await?;
        if put == Put::Created {
            self.remember(name, bytes);
        }
        Ok(put)
    }

    async fn put_durable(&self, name: Name, bytes: Bytes) -> Result<Put> {
        let put = self.inner.put_durable(name, bytes.clone()).await?;
        if put == Put::Created {
            self.remember(name, bytes);
        }
        Ok(put)
    }

    async fn get(&self, name: Name, range: Option<Range<u64>>, max_bytes: u64) -> Result<Bytes> {
        if self.is_withheld(name) {
            return Err(not_found(Operation::Get, name));
        }
        let Some((attack, mut dice)) = self.attack() else {
            return self.inner.get(name, range, max_bytes).await;
        };
        match attack {
            Attack::Withhold => Err(not_found(Operation::Get, name)),
            Attack::Swap | Attack::Replay => match self.other_content(name, attack, &mut dice) {
                Some(blob) => Ok(forge::part(&blob, range)),
                None => self.inner.get(name, range, max_bytes).await,
            },
            _ => Ok(forge::reply(&self.inner.get(name, range, max_bytes).await?, attack, &mut dice)),
        }
    }

    async fn size(&self, name: Name) -> Result<u64> {
        if self.is_withheld(name) {
            return Err(not_found(Operation::Size, name));
        }
        match self.attack() {
            None => self.inner.size(name).await,
            Some((Attack::Withhold, _)) => Err(not_found(Operation::Size, name)),
            Some((_, mut dice)) => Ok(match dice.below(3) {
                0 => 0,
                1 => u64::MAX,
                _ => dice.roll(),
            }),
        }
    }

    async fn delete(&self, name: Name) -> Result<()> {
        self.inner.delete(name).await
    }

    async fn list(&self, prefix: &[u8], after: Option<Name>) -> Result<Vec<Name>> {
        let mut page = self.inner.list(prefix, after).await?;
        // An end that never comes is a matter for time limits, not for authentication.
        if !page.is_empty()
            && let Some((attack, mut dice)) = self.attack()
        {
            page = self.forge_list(page, prefix, attack, &mut dice);
        }
        let world = self.lock();
        page.retain(|name| !world.withheld.contains(name));
        Ok(page)
    }

    async fn apply(&self, batch: Vec<Change>) -> Result<Vec<Put>> {
        let outcomes = self.inner.apply(batch.clone()).await?;
        let puts = batch.into_iter().filter_map(|change| match change {
            Change::Put(name, bytes) => Some((name, bytes)),
            Change::Delete(_) => None,
        });
        for ((name, bytes), put) in puts.zip(&outcomes) {
            if *put == Put::Created {
                self.remember(name, bytes);
            }
        }
        Ok(outcomes)
    }

    async fn sync(&self) -> Result<()> {
        self.inner.sync().await
    }

    async fn persist(&self, names: &[Name]) -> Result<()> {
        self.inner.persist(names).await
    }
    fn occupancy(&self) -> Option<std::sync::Arc<strongroom_core::storage::Occupancy>> {
        self.inner.occupancy()
    }

    async fn try_exclusive(&self) -> Result<Option<Box<dyn ExclusiveGuard>>> {
        self.inner.try_exclusive().await
    }

    async fn available_bytes(&self) -> Result<Option<u64>> {
        self.inner.available_bytes().await
    }

    async fn vacate(&self) -> Result<()> {
        self.inner.vacate().await
    }
}
