//! What of the other side is gone, and how a side comes out whole all the same, or is said not to.

use strongroom::core::format::well_known::HeaderId;

use super::*;

/// A repository of its own, of one side.
async fn take(side: &Side, options: OpenOptions, folder: &Path) -> Result<Tree, Error> {
    let source = side.open(options).await?;
    source.clone_to(folder.to_str().unwrap(), strongroom::CloneOptions::default()).await?;
    let taken = Repository::open(folder.to_str().unwrap(), OpenOptions::new(password())).await?;
    taken.check(CheckOptions { data: true }, |finding| panic!("{finding:?}")).await?;
    taken.fs().write("/goes on", b"here").await?;
    taken.close().await?;
    drop(taken);
    let mut tree = read(&Repository::open(folder.to_str().unwrap(), OpenOptions::new(password())).await?).await?;
    tree.remove("goes on");
    Ok(tree)
}

#[test]
fn a_side_whose_header_the_other_has_deleted_is_taken_with_the_others() {
    for_each_seed(12, async |root, dice| {
        let (devices, mut client) = two(root, dice).await;
        let changes = dice.below(2) as usize;
        for (number, (device, label)) in devices.iter().zip(["desk", "laptop"]).enumerate() {
            for session in 0..1 + dice.below(3) {
                device.write(dice, &format!("{label}-{session}")).await.unwrap();
            }
            // Its header before is deleted by that, and the deletion is carried.
            if number == changes {
                let_in(device, label).await.unwrap();
            }
        }
        let expected = [devices[0].read().await.unwrap(), devices[1].read().await.unwrap()];
        client.finish(dice);
        for device in &devices {
            let sides = device.sides().await;
            assert_eq!(sides.len(), 2, "{sides:?}");
            assert_eq!(sides.iter().filter(|side| side.has_header()).count(), 1, "{sides:?}");
            let mut found = Vec::new();
            for (number, side) in sides.iter().enumerate() {
                let folder = device.folder.with_extension(format!("{number}"));
                let again = device.sides().await.remove(number).open(OpenOptions::new(password())).await.unwrap();
                again.clone_to(folder.to_str().unwrap(), strongroom::CloneOptions::default()).await.unwrap();
                found.push(take(side, OpenOptions::new(password()), &folder).await.unwrap());
            }
            assert!(expected.iter().all(|tree| found.contains(tree)));
        }
    });
}

/// The headers of a folder.
fn headers(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let is_header = |path: &Path| {
        let name = path.file_name().and_then(|name| Name::from_hex(name.to_str()?));
        name.is_some_and(|name| HeaderId::from_name(name.as_bytes()).is_some())
    };
    client::read(folder).into_iter().filter(|(path, _)| is_header(path)).collect()
}

#[test]
fn a_header_that_was_put_back_lets_nobody_in_who_was_let_out_unless_that_is_accepted() {
    let (root, dice) = (scratch(), &mut Dice::new(4));
    let credentials = || Credentials::password("of the guest");
    block_on(async {
        let ([desk, _], _) = two(root.path(), dice).await;
        let_in(&desk, "guest").await.unwrap();
        let before = headers(&desk.folder);
        let repository = desk.open().await.unwrap();
        let guest = repository.slots().await.unwrap().pop().unwrap();
        repository.remove_slot(&guest).await.unwrap();
        repository.fs().write("/secret", b"for one alone").await.unwrap();
        repository.close().await.unwrap();
        drop(repository);
        for path in headers(&desk.folder).keys().filter(|path| !before.contains_key(*path)) {
            fs::remove_file(desk.folder.join(path)).unwrap();
        }
        for (path, bytes) in &before {
            fs::write(desk.folder.join(path), bytes).unwrap();
        }
        let sides = desk.sides().await;
        let [side] = sides.as_slice() else { panic!("{sides:?}") };
        assert!(!side.has_header() && side.is_rolled_back() && side.is_seen(), "{side:?}");
        for credentials in [password(), credentials()] {
            let refused = side.open(OpenOptions::new(credentials)).await;
            assert!(matches!(refused, Err(Error::Core(core::Error::RolledBack { .. }))), "{refused:?}");
        }
        let accepted = side.open(OpenOptions::new(password()).accept_rollback(true)).await.unwrap();
        assert_eq!(accepted.fs().read("/secret").await.unwrap(), b"for one alone");
    });
}

#[test]
fn what_was_seen_and_is_on_no_side_is_told_and_is_given_up_by_nobody_unasked() {
    let (root, dice) = (scratch(), &mut Dice::new(1));
    block_on(async {
        let ([desk, _], _) = two(root.path(), dice).await;
        let before = client::read(&desk.folder);
        let old = desk.read().await.unwrap();
        desk.write(dice, "desk").await.unwrap();
        desk.read().await.unwrap();
        for path in client::read(&desk.folder).keys().filter(|path| !before.contains_key(*path)) {
            fs::remove_file(desk.folder.join(path)).unwrap();
        }
        for (path, bytes) in &before {
            fs::write(desk.folder.join(path), bytes).unwrap();
        }
        let sides = desk.sides().await;
        let [side] = sides.as_slice() else { panic!("{sides:?}") };
        assert!(side.lost() > Some(side.sequence()) && !side.is_seen());
        let refused = side.open(OpenOptions::new(password())).await;
        assert!(matches!(refused, Err(Error::Core(core::Error::RolledBack { .. }))), "{refused:?}");
        let accepted = side.open(OpenOptions::new(password()).accept_rollback(true)).await.unwrap();
        assert_eq!(read(&accepted).await.unwrap(), old);
    });
}

#[test]
fn what_was_seen_is_known_by_the_history_when_its_commit_is_gone() {
    let (root, dice) = (scratch(), &mut Dice::new(2));
    block_on(async {
        let (devices, mut client) = two(root.path(), dice).await;
        let [desk, laptop] = &devices;
        let common = laptop.open().await.unwrap().info().await.unwrap().sequence;
        // Each gives up the commits of before.
        let mut left = Vec::new();
        for (device, label) in [(desk, "desk"), (laptop, "laptop")] {
            let repository = device.open().await.unwrap();
            let keys = repository.engine().keys().clone();
            write(&repository, dice, label).await.unwrap();
            let options = CompactOptions { thorough: true, ..CompactOptions::default() };
            repository.compact(options).await.unwrap();
            repository.close().await.unwrap();
            left.push(device.folder.join(commit(common, &keys)).exists());
            if label == "desk" {
                let sides = desk.sides().await;
                assert!(sides.len() == 1 && sides[0].is_seen() && sides[0].lost().is_none(), "{sides:?}");
                // Somebody who has seen no more than what was before.
                let sides = strongroom::sides(desk.place(), Vec::new(), laptop.options()).await.unwrap();
                assert!(sides.len() == 1 && sides[0].is_seen() && sides[0].lost().is_none(), "{sides:?}");
            }
        }
        assert_eq!(left, [false, false]);
        client.finish(dice);
        for device in &devices {
            let sides = device.sides().await;
            assert_eq!(sides.len(), 2, "{sides:?}");
            assert!(sides.iter().all(|side| side.parted_after() >= Some(common)), "{common} {sides:?}");
            assert_eq!(sides.iter().filter(|side| side.is_seen()).count(), 1);
        }
    });
}

#[test]
fn of_a_block_that_was_cut_short_the_copy_is_read_that_is_whole() {
    let (root, dice) = (scratch(), &mut Dice::new(3));
    block_on(async {
        let ([desk, _], _) = two(root.path(), dice).await;
        let repository = desk.open().await.unwrap();
        repository.fs().write("/large", &noise(dice, 100_000)).await.unwrap();
        let keys = repository.engine().keys().clone();
        let expected = read(&repository).await.unwrap();
        repository.close().await.unwrap();
        drop(repository);
        for path in blocks(&desk.folder, &keys).into_values() {
            let blob = desk.folder.join(&path);
            let whole = fs::read(&blob).unwrap();
            fs::write(desk.folder.join(format!("{} (1)", path.display())), &whole).unwrap();
            fs::write(&blob, &whole[..whole.len() / 2]).unwrap();
        }
        let sides = desk.sides().await;
        let tree = take(&sides[0], OpenOptions::new(password()), &root.path().join("taken")).await.unwrap();
        assert!(tree == expected && tree["large"].len() == 100_000);
    });
}

#[cfg(unix)]
#[test]
fn what_cannot_be_read_is_passed_by_and_keeps_nobody_waiting() {
    let (root, dice) = (scratch(), &mut Dice::new(5));
    block_on(async {
        let ([desk, _], _) = two(root.path(), dice).await;
        // Whoever reads keeps the commits of before from being deleted.
        let reader = Repository::open(desk.place(), desk.options().read_only(true)).await.unwrap();
        let writer = desk.open().await.unwrap();
        let keys = writer.engine().keys().clone();
        let obsolete = commit(writer.info().await.unwrap().sequence, &keys);
        write(&writer, dice, "desk").await.unwrap();
        writer.engine().checkpoint().await.unwrap();
        writer.close().await.unwrap();
        drop((reader, writer));
        let expected = desk.read().await.unwrap();
        assert!(desk.folder.join(&obsolete).is_file());
        fs::remove_file(desk.folder.join(&obsolete)).unwrap();
        fs::create_dir(desk.folder.join(&obsolete)).unwrap();
        let blobs: Vec<_> = client::read(&desk.folder).into_keys().collect();
        for (number, path) in blobs.iter().filter(|path| path.to_str().unwrap().len() == 35).enumerate() {
            let copy = desk.folder.join(format!("{} (9)", path.display()));
            if number % 2 == 0 {
                fs::create_dir(copy).unwrap();
            } else {
                assert!(std::process::Command::new("mkfifo").arg(copy).status().unwrap().success());
            }
        }
        let sides = desk.sides().await;
        assert!(sides.len() == 1 && sides[0].unread() > 2, "{sides:?}");
        assert_eq!(trees(&sides).await, [expected]);
    });
}

#[test]
fn ends_of_one_history_that_lacks_commits_are_no_sides_however_many_they_are() {
    let (root, dice) = (scratch(), &mut Dice::new(6));
    block_on(async {
        let ([desk, _], _) = two(root.path(), dice).await;
        fs::create_dir(desk.folder.join("deleted")).unwrap();
        let writer = desk.open().await.unwrap();
        let keys = writer.engine().keys().clone();
        for number in 0..200 {
            writer.fs().write("/again", format!("{number}").as_bytes()).await.unwrap();
        }
        writer.engine().checkpoint().await.unwrap();
        writer.close().await.unwrap();
        let is_commit = |path: &Path| {
            let name = path.file_name().and_then(|name| Name::from_hex(name.to_str()?.split_once('-')?.1));
            let id = name.and_then(|name| BlockId::decode(&keys.decrypt_name(*name.as_bytes())));
            match id {
                Some(BlockId::Commit { sequence, .. }) => Some(sequence),
                _ => None,
            }
        };
        let mut kept = 0;
        for path in client::read(&desk.folder).into_keys() {
            match is_commit(&path) {
                Some(sequence) if sequence % 2 == 0 => fs::remove_file(desk.folder.join(path)).unwrap(),
                Some(_) => kept += 1,
                None => {}
            }
        }
        assert!(kept > 90, "{kept}");
        let sides = desk.sides().await;
        let [side] = sides.as_slice() else { panic!("{} sides", sides.len()) };
        assert!(side.missing().is_none() && side.is_seen());
    });
}
