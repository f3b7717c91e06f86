//! Whether a storage keeps put-if-absent (S2): tried, because nothing that a storage says of itself proves it.
//!
//! Servers that speak a protocol with conditional puts may ignore the condition, or look first and put then. On both, two
//! writers would take each other's commits for their own. A few races show most of these; that they show nothing is evidence,
//! and no proof.

use std::fmt;

use bytes::Bytes;
use futures_util::future::join_all;

use super::{Error, ErrorKind, Name, Operation, Put, Result, Storage};
use crate::env::Env;

/// How often so many put one name at once.
const ROUNDS: usize = 6;
const PUTS: usize = 16;

/// Long enough that a put takes a moment.
const BLOB_BYTES: usize = 4096;

/// How many put one name at once, once more, of what takes long to arrive: who looks when a put begins, and puts when it has arrived,
/// is seldom found out by small ones.
const LARGE_PUTS: usize = 4;
const LARGE_BLOB_BYTES: usize = 1 << 20;

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PutIfAbsent {
    /// Each time one put won, and what it put stayed.
    Kept(Evidence),
    /// It is not kept; what happened, in words.
    Broken(String),
}

/// What was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Evidence {
    /// How many names were put.
    pub rounds: usize,
    /// How many puts of each there were at once, at most.
    pub puts: usize,
}

impl fmt::Display for Evidence {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "tried with {} names, each put up to {} times at once: one put won each time",
            self.rounds, self.puts
        )
    }
}

/// Puts random names several times at once, and once more when they are there; deletes them again. For the constructor of a
/// storage that reaches [`super::Reach::Everywhere`], when it creates one; preferably apart from where blobs lie.
///
/// Give it the storage under [`crate::layer::Retry`]: a call that fails is an error here, and says nothing either way.
///
/// # Errors
/// What the storage raises.
pub async fn put_if_absent(storage: &dyn Storage, env: &Env) -> Result<PutIfAbsent> {
    let large_bytes = LARGE_BLOB_BYTES.min(storage.capabilities().block_bytes_max as usize);
    let rounds = std::iter::repeat_n((PUTS, BLOB_BYTES), ROUNDS).chain([(LARGE_PUTS, large_bytes)]);
    let mut evidence = Evidence { rounds: 0, puts: PUTS };
    for (puts, blob_bytes) in rounds {
        let random = env.random::<{ Name::BYTES }>();
        let name = Name::new(
            random.map_err(|error| Error::new(ErrorKind::Other, Operation::Put, "a probe").with_source(error))?,
        );
        let found = race(storage, name, puts, blob_bytes).await;
        let deleted = storage.delete(name).await;
        if let Some(broken) = found? {
            return Ok(PutIfAbsent::Broken(broken));
        }
        deleted?;
        evidence.rounds += 1;
    }
    Ok(PutIfAbsent::Kept(evidence))
}

/// What is wrong with puts of one name.
async fn race(storage: &dyn Storage, name: Name, puts: usize, blob_bytes: usize) -> Result<Option<String>> {
    let content = |number: usize| Bytes::from(vec![u8::try_from(number).unwrap_or(u8::MAX); blob_bytes]);
    let outcomes = join_all((0..puts).map(|number| storage.put(name, content(number)))).await;
    let mut winners = Vec::new();
    for (number, outcome) in outcomes.into_iter().enumerate() {
        if outcome? == Put::Created {
            winners.push(number);
        }
    }
    let [winner] = winners.as_slice() else {
        return Ok(Some(format!(
            "of {puts} puts of one name at once {} were told that they created it",
            winners.len()
        )));
    };
    let holds = async || Ok::<_, Error>(storage.get(name, None, blob_bytes as u64).await? == content(*winner));
    if !holds().await? {
        return Ok(Some("what is there is not what the put put that was told that it created it".to_owned()));
    }
    if storage.put(name, content(puts)).await? == Put::Created || !holds().await? {
        return Ok(Some("a put of a name that is taken replaces what is there".to_owned()));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::ops::Range;
    use std::sync::Mutex;

    use async_trait::async_trait;
    use futures_lite::future::{block_on, yield_now};

    use super::*;
    use crate::storage::bounds::not_found;
    use crate::storage::{BatchSupport, Capabilities, Durability, ListOrder, RangeReads, Reach, Torn};

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Kind {
        Exact,
        /// Of those who come at once, two are let in.
        TwoWinners,
        /// Looks, and puts then.
        Racy,
        /// The same, but so soon after that what is small is never between the two.
        RacyWhileItArrives,
        IgnoresConditions,
        /// Says that it did, and did not.
        SaysExistsAndReplaces,
        Fails,
    }

    #[derive(Debug)]
    struct Fake {
        kind: Kind,
        blobs: Mutex<BTreeMap<Name, (Bytes, usize)>>,
    }

    #[async_trait]
    impl Storage for Fake {
        fn capabilities(&self) -> Capabilities {
            Capabilities {
                reach: Reach::Everywhere,
                durability: Durability::Power,
                torn: Torn::Never,
                batch: BatchSupport::Sequential,
                list_order: ListOrder::Ascending,
                range_reads: RangeReads::Native,
                block_bytes_best: 4096,
                block_bytes_max: 4 << 20,
            }
        }

        async fn put(&self, name: Name, bytes: Bytes) -> Result<Put> {
            let was_there = self.blobs.lock().unwrap().contains_key(&name);
            if self.kind == Kind::Racy || (self.kind == Kind::RacyWhileItArrives && bytes.len() > 100_000) {
                yield_now().await;
            }
            let mut blobs = self.blobs.lock().unwrap();
            let puts = blobs.get(&name).map_or(0, |(_, puts)| *puts) + 1;
            let is_taken = match self.kind {
                Kind::Fails => return Err(Error::new(ErrorKind::Unavailable, Operation::Put, "the test")),
                Kind::Exact => puts > 1,
                Kind::TwoWinners => puts > 2,
                Kind::Racy | Kind::RacyWhileItArrives => was_there,
                Kind::IgnoresConditions => false,
                Kind::SaysExistsAndReplaces => {
                    blobs.insert(name, (bytes, puts));
                    return Ok(if puts == 1 { Put::Created } else { Put::Exists });
                }
            };
            if is_taken {
                return Ok(Put::Exists);
            }
            blobs.insert(name, (bytes, puts));
            Ok(Put::Created)
        }

        async fn put_durable(&self, name: Name, bytes: Bytes) -> Result<Put> {
            self.put(name, bytes).await
        }

        async fn get(&self, name: Name, _: Option<Range<u64>>, _: u64) -> Result<Bytes> {
            let blobs = self.blobs.lock().unwrap();
            blobs.get(&name).map(|(bytes, _)| bytes.clone()).ok_or_else(|| not_found(Operation::Get, name))
        }

        async fn size(&self, name: Name) -> Result<u64> {
            Ok(self.get(name, None, u64::MAX).await?.len() as u64)
        }

        async fn delete(&self, name: Name) -> Result<()> {
            self.blobs.lock().unwrap().remove(&name);
            Ok(())
        }

        async fn list(&self, _: &[u8], _: Option<Name>) -> Result<Vec<Name>> {
            Ok(Vec::new())
        }

        async fn sync(&self) -> Result<()> {
            Ok(())
        }

        async fn persist(&self, _: &[Name]) -> Result<()> {
            Ok(())
        }
    }

    fn probe(kind: Kind) -> Result<PutIfAbsent> {
        let fake = Fake { kind, blobs: Mutex::default() };
        let found = block_on(put_if_absent(&fake, &Env::deterministic(1)));
        assert!(fake.blobs.lock().unwrap().is_empty(), "{kind:?} leaves something behind");
        found
    }

    #[test]
    fn a_storage_that_keeps_it_passes() {
        assert!(matches!(probe(Kind::Exact).unwrap(), PutIfAbsent::Kept(Evidence { rounds: 7, puts: PUTS })));
    }

    #[test]
    fn storages_that_do_not_keep_it_are_found_out() {
        for (kind, told) in [
            (Kind::TwoWinners, "2 were told"),
            (Kind::Racy, "16 were told"),
            (Kind::RacyWhileItArrives, "of 4 puts of one name at once 4 were told"),
            (Kind::IgnoresConditions, "16 were told"),
            (Kind::SaysExistsAndReplaces, "is not what the put put"),
        ] {
            match probe(kind).unwrap() {
                PutIfAbsent::Broken(what) => assert!(what.contains(told), "{kind:?}: {what}"),
                kept => panic!("{kind:?}: {kept:?}"),
            }
        }
    }

    #[test]
    fn a_storage_that_fails_is_not_judged() {
        assert_eq!(probe(Kind::Fails).unwrap_err().kind(), ErrorKind::Unavailable);
    }
}
