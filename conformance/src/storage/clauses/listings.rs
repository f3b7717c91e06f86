//! S7: pages of names.

use std::collections::BTreeSet;

use bytes::Bytes;
use strongroom_core::storage::{ListOrder, Name, Storage};

use crate::storage::outcome::{Answer as _, Breach, Outcome, Verdict, ensure, ensure_eq};
use crate::storage::{Place, open, sample_name};

/// Follows the pages as the clause says; `between` runs after each.
async fn follow(
    storage: &dyn Storage,
    prefix: &[u8],
    mut between: impl AsyncFnMut() -> Result<(), Breach>,
) -> Result<Vec<Name>, Breach> {
    let mut names: Vec<Name> = Vec::new();
    let mut seen = BTreeSet::new();
    loop {
        let after = names.last().copied();
        // A page that is told to be the last is taken at its word: what comes after it is missed then, and that is told.
        let (page, is_last) = storage.list_page(prefix, after).await.answers("a page of names")?;
        between().await?;
        if page.is_empty() {
            return Ok(names);
        }
        for name in page {
            // Told at once, because a listing that repeats itself may never end.
            ensure!(seen.insert(name), "{name} is listed twice");
            ensure!(name.as_bytes().starts_with(prefix), "{name} is listed under another prefix");
            names.push(name);
        }
        if is_last || storage.capabilities().list_order == ListOrder::Unordered {
            return Ok(names);
        }
    }
}

/// **S7** Following the pages gives every name that stays exactly once, those with the prefix alone, while others come
/// and go.
///
/// # Errors
/// As all here.
pub async fn s7_list_gives_each_name_once(place: &dyn Place) -> Outcome {
    const STAYING: u64 = 1500;
    let mut verdict = Verdict::Passed;
    let storage = open(place).await?;
    let is_ordered = storage.capabilities().list_order == ListOrder::Ascending;
    if !is_ordered {
        verdict.limit("the storage does not order its names: pages were not followed");
    }
    ensure!(storage.list(&[], None).await.answers("a listing")?.is_empty(), "an empty storage lists names");
    let staying: BTreeSet<Name> = (0..STAYING).map(sample_name).collect();
    for name in &staying {
        storage.put(*name, Bytes::new()).await.answers("a put of no bytes")?;
    }
    let mut coming = STAYING;
    storage.put(sample_name(coming), Bytes::new()).await.answers("a put")?;
    let listed = follow(&*storage, &[], async || {
        coming += 1;
        storage.put(sample_name(coming), Bytes::new()).await.answers("a put while listing")?;
        storage.delete(sample_name(coming - 1)).await.answers("a delete while listing")
    })
    .await?;
    ensure!(!is_ordered || listed.is_sorted(), "names are not ascending, as the storage says that they are");
    let listed: BTreeSet<Name> = listed.into_iter().collect();
    let missed = staying.difference(&listed).count();
    ensure!(missed == 0, "{missed} of {STAYING} names that were there throughout are not listed");
    let foreign: Vec<_> = listed.iter().filter(|name| !staying.contains(*name)).collect();
    let come = (STAYING..=coming).map(sample_name).collect::<BTreeSet<_>>();
    ensure!(foreign.iter().all(|name| come.contains(*name)), "names are listed that nobody put: {foreign:?}");
    storage.delete(sample_name(coming)).await.answers("a delete")?;

    let some = staying.iter().nth(700).copied().unwrap_or(sample_name(0));
    for length in [1, 2, 15, 16] {
        let prefix = some.as_bytes().get(..length).unwrap_or_default();
        let wanted: Vec<Name> = staying.iter().copied().filter(|name| name.as_bytes().starts_with(prefix)).collect();
        let mut listed = follow(&*storage, prefix, async || Ok(())).await?;
        listed.sort_unstable();
        ensure_eq!(listed, wanted, "what is listed under a prefix of {length} bytes");
    }
    if is_ordered {
        let wanted: Vec<Name> = staying.range(some..).skip(1).copied().collect();
        let page = storage.list(&[], Some(some)).await.answers("a page from the middle")?;
        ensure!(!page.is_empty() && wanted.starts_with(&page), "a page after {some} does not begin right after it");
        let page = storage.list(&[], Some(Name::new([u8::MAX; 16]))).await.answers("a page after the last name")?;
        ensure!(page.is_empty(), "there are names after the last possible one: {page:?}");
    }
    for edge in [Name::new([0; 16]), Name::new([u8::MAX; 16])] {
        storage.put(edge, Bytes::new()).await.answers("a put")?;
        ensure_eq!(follow(&*storage, edge.as_bytes(), async || Ok(())).await?, [edge], "what is listed of one name");
    }
    Ok(verdict)
}
