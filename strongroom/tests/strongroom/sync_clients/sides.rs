//! What of the other side is gone, and how a side comes out whole all the same, or is said not to.

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
                found.push(take(side, OpenOptions::new(password()), &folder).await.unwrap());
            }
            assert!(expected.iter().all(|tree| found.contains(tree)));
        }
    });
}
