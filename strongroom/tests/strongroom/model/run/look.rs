//! Steps that only look.

use super::*;

impl Run {
    pub(super) async fn look(&mut self, kind: Kind, dice: &mut Dice) -> Outcome {
        let (fs, world) = (self.repository.fs(), &self.world);
        Ok(match kind {
            Kind::Read => {
                let path = choose::file(dice, world);
                let found = answer(fs.read(&path).await);
                let expected = world.file(&path).map(|number| world.inodes[&number].content().to_vec());
                same_content(&found, &expected, &path)?;
                found.map(|_| ())
            }
            Kind::Metadata | Kind::SymlinkMetadata => {
                let path = choose::there(dice, world);
                let follow = kind == Kind::Metadata;
                let found = answer(if follow { fs.metadata(&path).await } else { fs.symlink_metadata(&path).await });
                let expected = world.inode(&path, follow).map(seen);
                same!(found.map(|found| (found.kind, found.mode)), expected, "metadata of {path}");
                if follow {
                    let exists = match expected {
                        Err("not found") => Ok(false),
                        expected => expected.map(|_| true),
                    };
                    same!(answer(fs.exists(&path).await), exists, "whether {path} exists");
                }
                found.map(|_| ())
            }
            Kind::ReadLink => {
                let path = choose::symlink(dice, world);
                let found = answer(fs.read_link(&path).await);
                let expected = world.inode(&path, false).and_then(|inode| match &inode.kind {
                    ModelKind::Symlink(target) => Ok(target.clone().into_bytes()),
                    _ => Err("not a link"),
                });
                same!(found, expected, "link {path}");
                found.map(|_| ())
            }
            Kind::ReadDir => {
                let path = choose::directory(dice, world);
                let found = answer(fs.read_dir(&path).await).map(|entries| {
                    entries.into_iter().map(|entry| String::from_utf8(entry.name).unwrap()).collect::<Vec<_>>()
                });
                let expected = world.directory(&path).map(|place| world.listed(&place));
                same!(found, expected, "names in {path}");
                found.map(|_| ())
            }
            Kind::ListAfterCursor => {
                let path = choose::directory(dice, world);
                let after = ["a", "b", "bb", "d"][dice.below(4) as usize];
                let found = match answer(fs.snapshot().open_dir_at(&path, &DirCursor::after(after)).await) {
                    Ok(listing) => {
                        let entries = listing.collect().await.unwrap().into_iter();
                        Ok(entries.map(|entry| String::from_utf8(entry.name).unwrap()).collect::<Vec<_>>())
                    }
                    Err(refused) => Err(refused),
                };
                let expected = world.directory(&path).map(|place| world.listed(&place)).map(|mut names| {
                    names.retain(|name| name.as_str() > after);
                    names
                });
                same!(found, expected, "names in {path} after {after}");
                found.map(|_| ())
            }
            Kind::Usage => {
                let path = if dice.chance(4) { "/".to_owned() } else { choose::there(dice, world) };
                let found = answer(fs.usage(&path).await).map(|usage| Usage { data_bytes: 0, ..usage });
                same!(found, world.resolve(&path, false).and_then(|place| usage(world, &place)), "usage of {path}");
                found.map(|_| ())
            }
            Kind::Summary => {
                let summary = fs.summary().await.unwrap();
                let found = Usage { data_bytes: 0, ..summary.usage };
                same!(Ok(found), usage(world, ""), "summary");
                let stored = summary.blobs * u64::from(summary.block_bytes);
                same!(summary.stored_bytes, stored, "bytes stored");
                let content = fs.content_bytes().await.unwrap();
                if summary.usage.logical_bytes > content.file_bytes {
                    return Err(format!("{summary:?} does not go with {content:?}"));
                }
                Ok(())
            }
            Kind::GetXattr => {
                let (path, name) = choose::attribute(dice, world);
                let found = answer(fs.xattr(&path, &name, Follow::No).await);
                let expected =
                    world.inode(&path, false).map(|inode| inode.xattrs.get(&name).map(|value| value.to_vec()));
                if found != expected {
                    return Err(format!("attribute {name:?} of {path} differs"));
                }
                found.map(|_| ())
            }
            Kind::ListXattrs => {
                let path = choose::there(dice, world);
                let found = answer(fs.xattrs(&path, Follow::Yes).await);
                let expected = world.inode(&path, true).map(|inode| inode.xattrs.keys().cloned().collect::<Vec<_>>());
                same!(found, expected, "attributes of {path}");
                found.map(|_| ())
            }
            Kind::GetKey => {
                let key = choose::key(dice);
                let found = self.repository.kv().get(&key).await.unwrap();
                if found.as_deref() != world.keys.get(&key).map(|value| value.as_slice()) {
                    return Err(format!("value of {key:?} differs"));
                }
                Ok(())
            }
            Kind::ScanKeys => {
                let (one, other) = (choose::key(dice), choose::key(dice));
                let (low, high) = (one.clone().min(other.clone()), one.max(other));
                let kv = self.repository.kv();
                let is_reverse = dice.chance(2);
                let range = (Bound::Included(low.as_slice()), Bound::Excluded(high.as_slice()));
                let mut scan = if is_reverse { kv.scan_reverse(range) } else { kv.scan(range) };
                let mut found = Vec::new();
                while let Some((key, _)) = scan.next().await.unwrap() {
                    found.push(key.to_vec());
                }
                let mut expected: Vec<_> = world.keys.range(low..high).map(|(key, _)| key.clone()).collect();
                if is_reverse {
                    expected.reverse();
                }
                same!(found, expected, "a scan");
                Ok(())
            }
            Kind::History => {
                let path = choose::file(dice, world);
                let found = answer(fs.history(&path).await).map(|versions| {
                    let seen = versions.iter().map(|version| (version.number, version.size, version.current));
                    seen.collect::<Vec<_>>()
                });
                let expected = world.file(&path).map(|number| {
                    let inode = &world.inodes[&number];
                    let versions = inode.versions.iter();
                    let seen = versions.map(|(n, content)| (*n, content.len() as u64, *n == inode.current()));
                    seen.collect::<Vec<_>>()
                });
                same!(found, expected, "history of {path}");
                found.map(|_| ())
            }
            Kind::ReadVersion => {
                let path = choose::file(dice, world);
                let number = choose::version(dice, world, &path);
                let expected = version(world, &path, number);
                let found = match answer(fs.open_version(&path, number).await) {
                    Ok(file) => {
                        let length = file.len().await.unwrap() as usize;
                        let offset = dice.offset(length);
                        let mut bytes = vec![0; dice.length()];
                        let read = file.read_at(offset, &mut bytes).await.unwrap();
                        let content = expected.clone().unwrap_or_default();
                        let rest = content.get(offset as usize..).unwrap_or_default();
                        compare::content(&bytes[..read], &rest[..rest.len().min(bytes.len())], "a part of a version")?;
                        answer(fs.read_version(&path, number).await)
                    }
                    Err(refused) => Err(refused),
                };
                same_content(&found, &expected, &path)?;
                found.map(|_| ())
            }
            Kind::DiffVersions => {
                let path = choose::file(dice, world);
                let (from, to) = (choose::version(dice, world, &path), choose::version(dice, world, &path));
                let found = answer(fs.diff_versions(&path, from, to).await);
                match (&found, version(world, &path, from), version(world, &path, to)) {
                    (Ok(ranges), Ok(one), Ok(other)) => equal_outside(ranges, &one, &other)?,
                    (Err(found), Err(expected), _) | (Err(found), Ok(_), Err(expected)) => {
                        same!(*found, expected, "diff")
                    }
                    _ => return Err(format!("diff of {path} answers {found:?}")),
                }
                found.map(|_| ())
            }
            Kind::ListSnapshots => {
                let found = self.repository.snapshots().await.unwrap();
                let names: Vec<_> = found.iter().map(|info| info.name.clone()).collect();
                same!(names, self.snapshots.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>(), "snapshots");
                Ok(())
            }
            other => unreachable!("{other:?}"),
        })
    }

    /// A directory read in two pages, with a change between them.
    pub(super) async fn stream_dir(&mut self, dice: &mut Dice) -> Outcome {
        let path = choose::directory(dice, &self.world);
        let expected = self.world.directory(&path);
        let mut stream = match answer(self.fs().stream_dir(&path).await) {
            Ok(stream) => stream,
            Err(refused) => {
                same!(Err(refused), expected, "stream of {path}");
                return Ok(Err(refused));
            }
        };
        let place = expected?;
        let before = self.world.listed(&place);
        let mut seen = Vec::new();
        for _ in 0..dice.below(4) {
            seen.extend(stream.next().await.unwrap().map(|entry| String::from_utf8(entry.name).unwrap()));
        }
        let name = dice.pick(&before).filter(|_| dice.chance(2)).unwrap_or_else(|| "bb".to_owned());
        let target = format!("{place}/{name}").into_bytes();
        if before.contains(&name) {
            self.change(Op::RemoveAll { path: target }).await?.ok();
        } else {
            self.change(Op::Write { path: target, content: dice.bytes() }).await?.ok();
        }
        let cursor = stream.cursor().clone();
        stream.seek(cursor);
        while let Some(entry) = stream.next().await.unwrap() {
            seen.push(String::from_utf8(entry.name).unwrap());
        }
        if !seen.is_sorted_by(|one, other| one < other) {
            return Err(format!("names come in the order {seen:?}"));
        }
        let after = self.world.listed(&place);
        for name in &before {
            if after.contains(name) && !seen.contains(name) {
                return Err(format!("{name} was there throughout, and did not come"));
            }
        }
        for name in &seen {
            if !before.contains(name) && !after.contains(name) {
                return Err(format!("{name} was never there"));
            }
        }
        Ok(Ok(()))
    }
}

pub(super) fn seen(inode: &Inode) -> (FsKind, u32) {
    let kind = match inode.kind {
        ModelKind::File => FsKind::File,
        ModelKind::Directory => FsKind::Directory,
        ModelKind::Symlink(_) => FsKind::Symlink,
    };
    (kind, inode.mode)
}

fn version(world: &World, path: &str, number: u64) -> Answer<Vec<u8>> {
    let inode = &world.inodes[&world.file(path)?];
    inode.versions.get(&number).map(|content| content.to_vec()).ok_or("no version")
}

fn same_content(found: &Answer<Vec<u8>>, expected: &Answer<Vec<u8>>, path: &str) -> Result<(), Difference> {
    match (found, expected) {
        (Ok(found), Ok(expected)) => compare::content(found, expected, path),
        (found, expected) => {
            same!(found.as_ref().err(), expected.as_ref().err(), "{path}");
            Ok(())
        }
    }
}

/// What is not told to differ is equal.
fn equal_outside(ranges: &[std::ops::Range<u64>], one: &[u8], other: &[u8]) -> Result<(), Difference> {
    for at in 0..one.len().max(other.len()) {
        let is_told = ranges.iter().any(|range| range.contains(&(at as u64)));
        if !is_told && one.get(at) != other.get(at) {
            return Err(format!("versions differ at {at}, which is not among {ranges:?}"));
        }
    }
    Ok(())
}

fn usage(world: &World, place: &str) -> Answer<Usage> {
    let mut usage = Usage::default();
    let mut counted = BTreeSet::new();
    let top = world.names.get(place).ok_or("not found")?;
    let below: Vec<_> = world.inside(place).map(|path| world.names[&path]).collect();
    for number in std::iter::once(*top).chain(below) {
        let inode = &world.inodes[&number];
        if !counted.insert(number) {
            continue;
        }
        match inode.kind {
            ModelKind::Directory => usage.directories += 1,
            ModelKind::Symlink(_) => usage.symlinks += 1,
            ModelKind::File => {
                usage.files += 1;
                usage.logical_bytes += inode.content().len() as u64;
            }
        }
    }
    Ok(usage)
}
