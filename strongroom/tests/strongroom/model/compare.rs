//! A state of the repository beside the model's.

use std::collections::BTreeMap;

use strongroom::fs::{Follow, FsSnapshot, Kind as FsKind, Metadata};
use strongroom::kv::KvSnapshot;
use strongroom::{Repository, check};

use crate::model::world::{Content, Kind, TABLE, World};

/// What differs, in words.
pub(crate) type Difference = String;

/// Asks for equality, and says what is not.
macro_rules! same {
    ($left:expr, $right:expr, $($what:tt)+) => {{
        let (left, right) = (&$left, &$right);
        if left != right {
            return Err(format!("{}: {} has {left:?}, the model {right:?}", format!($($what)+), stringify!($left)));
        }
    }};
}
pub(crate) use same;

/// Whether files and directories are as the model says. Where a version more is as good as none, the model learns which it is.
pub(crate) async fn files(state: &FsSnapshot, world: &mut World) -> Result<(), Difference> {
    // Which inode is which of the model's.
    let mut inodes = BTreeMap::new();
    let mut todo = vec![String::new()];
    let mut seen = Vec::new();
    while let Some(directory) = todo.pop() {
        for entry in state.read_dir(format!("{directory}/")).await.unwrap() {
            let path = format!("{directory}/{}", entry.name_str().unwrap());
            if entry.kind == FsKind::Directory {
                todo.push(path.clone());
            }
            seen.push((path, entry));
        }
    }
    seen.sort_by(|(one, _), (other, _)| one.cmp(other));
    let paths: Vec<_> = seen.iter().map(|(path, _)| path).collect();
    let expected: Vec<_> = world.names.keys().filter(|path| !path.is_empty()).collect();
    same!(paths, expected, "the tree");
    for (path, entry) in seen {
        let number = world.names[&path];
        same!(*inodes.entry(entry.inode).or_insert(number), number, "the inode of {path}");
        inode(state, world, &path, number).await?;
    }
    let distinct: std::collections::BTreeSet<_> = world.names.values().filter(|number| **number != 0).collect();
    same!(inodes.len(), distinct.len(), "inodes");
    times(world, "", world.names[""], &state.symlink_metadata("/").await.unwrap())
}

fn times(world: &mut World, path: &str, number: usize, found: &Metadata) -> Result<(), Difference> {
    let now = world.time.now();
    let known = &mut world.inodes.get_mut(&number).unwrap().times;
    known.look(found, now).map_err(|difference| format!("of {path:?}, {difference}"))
}

async fn inode(state: &FsSnapshot, world: &mut World, path: &str, number: usize) -> Result<(), Difference> {
    let metadata = state.symlink_metadata(path).await.unwrap();
    times(world, path, number, &metadata)?;
    if world.inodes[&number].kind == Kind::File && world.perhaps.remove(&number) {
        let history = state.history(path).await.unwrap();
        if history.last().unwrap().number != world.inodes[&number].current() {
            world.counted(number);
        }
    }
    let inode = &world.inodes[&number];
    let is_kind = match (&inode.kind, metadata.kind) {
        (Kind::File, FsKind::File) | (Kind::Directory, FsKind::Directory) => true,
        (Kind::Symlink(target), FsKind::Symlink) => *target.as_bytes() == state.read_link(path).await.unwrap(),
        _ => false,
    };
    if !is_kind {
        return Err(format!("{path} is {metadata:?}, in the model {:?}", inode.kind));
    }
    same!(metadata.mode, inode.mode, "mode of {path}");
    same!((metadata.uid, metadata.gid), inode.owner, "owner of {path}");
    same!(metadata.has_xattrs, !inode.xattrs.is_empty(), "whether {path} has attributes");
    if let Some(atime) = inode.atime {
        same!(metadata.atime, atime, "access time of {path}");
    }
    let mut xattrs = BTreeMap::new();
    for name in state.xattrs(path, Follow::No).await.unwrap() {
        let value = state.xattr(path, &name, Follow::No).await.unwrap().unwrap();
        xattrs.insert(name, Content::new(value));
    }
    if xattrs != inode.xattrs {
        return Err(format!("attributes of {path}: {:?}, in the model {:?}", xattrs.keys(), inode.xattrs.keys()));
    }
    if inode.kind == Kind::Directory {
        let below = world.listed(path).into_iter();
        let directories = below.filter(|name| world.at(&format!("{path}/{name}")).unwrap().is_directory()).count();
        same!(metadata.nlink, 2 + directories as u64, "links of {path}");
        return Ok(());
    }
    same!(metadata.nlink, world.nlink(number), "links of {path}");
    if inode.kind == Kind::File {
        same!(state.settings(path).await.unwrap(), inode.settings, "settings of {path}");
        same!(metadata.size, inode.content().len() as u64, "length of {path}");
        let history = state.history(path).await.unwrap();
        let numbers: Vec<_> = history.iter().map(|version| version.number).collect();
        let expected: Vec<_> = inode.versions.keys().copied().collect();
        same!(numbers, expected, "versions of {path}");
        same!(metadata.versions, history.len() as u64 - 1, "count of versions of {path}");
        content(&state.read(path).await.unwrap(), inode.content(), path)?;
        for (number, expected) in inode.versions.iter().rev().skip(1) {
            content(
                &state.read_version(path, *number).await.unwrap(),
                expected,
                &format!("version {number} of {path}"),
            )?;
        }
    }
    Ok(())
}

/// Says where contents differ, and does not print them.
pub(crate) fn content(found: &[u8], expected: &[u8], what: &str) -> Result<(), Difference> {
    if found == expected {
        return Ok(());
    }
    let at = found.iter().zip(expected).position(|(one, other)| one != other);
    Err(format!("{what}: {} bytes, in the model {}; differ at {at:?}", found.len(), expected.len()))
}

/// Whether keys and values are as the model says.
pub(crate) async fn keys(state: &KvSnapshot, expected: &BTreeMap<Vec<u8>, Content>) -> Result<(), Difference> {
    let (mut scan, mut found) = (state.scan(..), Vec::new());
    while let Some((key, value)) = scan.next().await.unwrap() {
        found.push((key.to_vec(), value.to_vec()));
    }
    let names = |pairs: &[(Vec<u8>, Vec<u8>)]| pairs.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>();
    let expected: Vec<_> = expected.iter().map(|(key, value)| (key.clone(), value.to_vec())).collect();
    same!(names(&found), names(&expected), "keys");
    if found == expected { Ok(()) } else { Err("values differ".into()) }
}

/// Files, keys and the list of snapshots.
pub(crate) async fn all(
    repository: &Repository,
    world: &mut World,
    snapshots: &[(String, World)],
) -> Result<(), Difference> {
    files(&repository.fs().snapshot(), world).await?;
    keys(&repository.kv().snapshot(), &world.keys).await?;
    keys(&repository.table(TABLE).unwrap().snapshot(), &world.rows).await?;
    let kept: Vec<_> = repository.snapshots().await.unwrap().into_iter().map(|info| info.name).collect();
    let expected: Vec<_> = snapshots.iter().map(|(name, _)| name.clone()).collect();
    same!(kept, expected, "snapshots");
    Ok(())
}

/// Everything that a check can find is in order.
pub(crate) async fn assert_sound(repository: &Repository, data: bool) {
    let mut findings = Vec::new();
    let report = repository.check(check::CheckOptions { data }, |finding| findings.push(finding)).await.unwrap();
    assert!(findings.is_empty() && report.findings == 0, "{findings:#?}");
}
