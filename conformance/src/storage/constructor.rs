//! What a constructor owes those who open by URI.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use strongroom_core::storage::{ErrorKind, OpenContext, OpenMode, Operation, Registry, StorageExt as _, StorageUri};

use super::outcome::{Answer as _, Breach, Outcome, Verdict, ensure, ensure_eq, ensure_holds};
use super::{sample_bytes, sample_name};

/// A parameter that no storage has.
const UNKNOWN_PARAMETER: &str = "strongroom-conformance-unknown=1";

/// Tries the constructor of a URI's scheme, as `registry` has it, on a place that is not there yet and can be created:
///
/// * [`OpenMode::Existing`] on nothing is [`ErrorKind::NotFound`], and leaves nothing;
/// * a parameter that it does not know is [`ErrorKind::Invalid`], and leaves nothing;
/// * [`OpenMode::CreateIfMissing`] creates, and changes nothing that is there;
/// * what appears at a local path of the URI, or beside it with more to its name, is told
///   ([`strongroom_core::storage::StorageConstructor::local_paths`]);
/// * scratch places, where it has such: deriving one creates nothing, they share no blob with each other or with what the
///   URI names, one that holds a blob is not removed, and an empty one is.
///
/// The mode of `context` does not matter. The place stays, empty. The verdict is limited where there are no scratch places.
///
/// # Errors
/// What the constructor does otherwise.
pub async fn check_constructor(registry: &Registry, uri: &StorageUri, context: &OpenContext) -> Outcome {
    let mut verdict = Verdict::Passed;
    let found = called_alike(uri);
    let existing = context.clone().with_mode(OpenMode::Existing);
    let creating = context.clone().with_mode(OpenMode::CreateIfMissing);
    for when in ["before it was created", "after that was refused"] {
        absent(registry, uri, &existing, when).await?;
    }
    let separator = if uri.parameters().is_empty() { '?' } else { '&' };
    let misspelt = StorageUri::parse(&format!("{uri}{separator}{UNKNOWN_PARAMETER}")).answers("reading a URI")?;
    let opened = registry.open(&misspelt, &creating).await;
    opened.map(drop).refuses_as(ErrorKind::Invalid, Operation::Open, "opening with an unknown parameter")?;
    absent(registry, uri, &existing, "after an unknown parameter was refused").await?;

    let (name, bytes) = (sample_name(1), sample_bytes(1, 1000));
    let storage = registry.open(uri, &creating).await.answers("opening what may be created")?;
    storage.put(name, bytes.clone()).await.answers("a put")?;
    storage.sync().await.answers("a sync")?;
    for context in [&existing, &creating] {
        let again = registry.open(uri, context).await.answers("opening what is there")?;
        ensure_holds(&*again, name, Some(&bytes), &format!("opened again ({:?})", context.mode)).await?;
    }

    let constructor = registry.constructor(uri).answers("looking for the scheme")?;
    let told: BTreeSet<PathBuf> = constructor.local_paths(uri).iter().map(|path| real(path)).collect();
    for path in called_alike(uri).difference(&found) {
        ensure!(told.contains(path), "{} appeared, and is none of its local paths", path.display());
    }
    // As long as a name may be.
    let names = ['a', 'b'].map(|last| format!("strongroom-conformance-0123456789{last}-{:z<29}", ""));
    let mut places = Vec::new();
    for name in &names {
        let place = constructor.scratch(uri, name, context).await.answers("deriving a scratch place")?;
        places.extend(place);
    }
    let [one, other] = places.as_slice() else {
        ensure!(places.is_empty(), "there is a scratch place of one name and none of another");
        verdict.limit("the scheme has no scratch places");
        storage.delete(name).await.answers("a delete")?;
        return Ok(verdict);
    };
    ensure!(one != other && one != uri && other != uri, "scratch places are not apart: {one}, {other} of {uri}");
    for place in [one, other] {
        absent(registry, place, &existing, "a scratch place that was only derived").await?;
    }
    let scratch = registry.open(one, &creating).await.answers("opening a scratch place")?;
    ensure_holds(&*scratch, name, None, "put beside a scratch place").await?;
    let listed = scratch.list_all(&[]).await.answers("a listing")?;
    ensure!(listed.is_empty(), "a new scratch place holds {listed:?}");
    let kept = sample_name(2);
    scratch.put(kept, bytes.clone()).await.answers("a put")?;
    scratch.sync().await.answers("a sync")?;
    ensure_holds(&*storage, kept, None, "put in a scratch place").await?;
    ensure_eq!(
        storage.list_all(&[]).await.answers("a listing")?,
        [name].into(),
        "what is listed beside a scratch place"
    );
    drop(scratch);

    // It may fail, or do nothing.
    let _ = constructor.remove_scratch(one, context).await;
    let scratch = registry.open(one, &existing).await.answers("opening a scratch place that holds a blob")?;
    ensure_holds(&*scratch, kept, Some(&bytes), "in a scratch place that must not be removed then").await?;
    scratch.delete(kept).await.answers("a delete")?;
    scratch.sync().await.answers("a sync")?;
    drop(scratch);
    constructor.remove_scratch(one, context).await.answers("removing an empty scratch place")?;
    absent(registry, one, &existing, "after a scratch place was removed").await?;
    ensure_holds(&*storage, name, Some(&bytes), "beside a scratch place that was removed").await?;
    storage.delete(name).await.answers("a delete")?;
    Ok(verdict)
}

/// What is at the path of a URI, or beside it with a name that begins with its.
fn called_alike(uri: &StorageUri) -> BTreeSet<PathBuf> {
    let Ok(path) = uri.local_path() else { return BTreeSet::new() };
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return BTreeSet::new() };
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let is_alike = |other: &Path| {
        let other = other.file_name().unwrap_or_default().as_encoded_bytes();
        other.starts_with(name.as_encoded_bytes())
    };
    entries.map(|entry| entry.path()).filter(|path| is_alike(path)).map(|path| real(&path)).collect()
}

fn real(path: &Path) -> PathBuf {
    std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

async fn absent(registry: &Registry, uri: &StorageUri, existing: &OpenContext, when: &str) -> Result<(), Breach> {
    let opened = registry.open(uri, existing).await.map(drop);
    opened.refuses_as(ErrorKind::NotFound, Operation::Open, format_args!("opening {uri}, {when},"))?;
    Ok(())
}
