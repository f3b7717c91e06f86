//! A tree through the blocking API on storage in memory: what went in comes out, and comes twice at no cost.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};

use strongroom::blocking::Repository;
use strongroom::check::CheckOptions;
use strongroom::fs::{AttributeChange, Kind, Timestamp};
use strongroom::storage::Registry;
use strongroom::{CreateOptions, Credentials, OpenOptions};

/// What is at a path of the tree.
enum Node {
    Directory,
    File(Vec<u8>),
    Symlink(Vec<u8>),
}

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..length).map(|_| next()).collect()
}

/// How many ordinary files: about 60 MB of them, or with `STRONGROOM_ACCEPTANCE=full` over 700 MB.
fn ordinary_files() -> u32 {
    if std::env::var_os("STRONGROOM_ACCEPTANCE").is_some_and(|size| size == "full") { 20_000 } else { 1_500 }
}

/// Odd names, links, empty and large files, a deep path: parents before what is in them, by the order of the map.
fn tree() -> BTreeMap<Vec<u8>, Node> {
    let mut nodes = BTreeMap::new();
    let longest = vec![b'n'; 255];
    for folder in [&b"/odd"[..], b"/odd/empty", b"/files", b"/links"] {
        nodes.insert(folder.to_vec(), Node::Directory);
    }
    for name in [
        &b" spaces "[..],
        b"new\nline",
        b"\xff\xfe not utf-8",
        &longest,
        b"-rf",
        "\u{e4}\u{6f22}".as_bytes(),
        b"...",
        b"empty file",
    ] {
        let length = if name == b"empty file" { 0 } else { name.len() };
        nodes.insert([b"/odd/", name].concat(), Node::File(noise(1, length)));
    }
    nodes.insert(b"/links/dangling".to_vec(), Node::Symlink(b"no/such/target".to_vec()));
    nodes.insert(b"/links/relative".to_vec(), Node::Symlink(b"../odd".to_vec()));
    nodes.insert(b"/links/\xfe".to_vec(), Node::Symlink(b"\xff\xfe".to_vec()));
    for number in 0..ordinary_files() {
        let content = match number % 4 {
            0 => noise(u64::from(number), 200),
            1 => format!("line {number}\n").repeat(3_000).into_bytes(),
            2 => noise(u64::from(number), 50_000),
            _ => vec![0; 70_000],
        };
        nodes.insert(format!("/files/{number:05}").into_bytes(), Node::File(content));
    }
    nodes.insert(b"/files/many megabytes".to_vec(), Node::File(noise(7, 9 << 20)));
    let mut deep = b"/odd".to_vec();
    for level in 0..40 {
        deep.extend_from_slice(format!("/level {level:02} and more").as_bytes());
        nodes.insert(deep.clone(), Node::Directory);
    }
    nodes.insert([&deep, &b"/bottom"[..]].concat(), Node::File(b"deep".to_vec()));
    nodes
}

fn attributes(number: usize) -> AttributeChange {
    let number = u32::try_from(number).unwrap();
    let mtime = Timestamp {
        seconds: i64::from(number) * 100_019 - 100_000_000,
        nanos: number.wrapping_mul(7_654_321) % 1_000_000_000,
    };
    AttributeChange {
        mode: Some([0o644, 0o400, 0o4755, 0o1777][(number % 4) as usize]),
        mtime: Some(mtime),
        ..AttributeChange::default()
    }
}

fn write(repository: &Repository, nodes: &BTreeMap<Vec<u8>, Node>, below: &[u8]) {
    let fs = repository.fs();
    let at = |path: &[u8]| [below, path].concat();
    let bulk: Vec<_> = nodes.iter().collect();
    // As many at once as the program's import takes.
    for group in bulk.chunks(2_000) {
        fs.transact(|transaction| {
            for (path, node) in group {
                match node {
                    Node::Directory => transaction.create_dir(at(path))?,
                    Node::File(content) if content.len() > 1 << 20 => {}
                    Node::File(content) => transaction.write(at(path), content)?,
                    Node::Symlink(target) => transaction.symlink(target, at(path))?,
                }
            }
            Ok::<_, strongroom::Error>(())
        })
        .unwrap();
    }
    // The large one as a program would write it, piece by piece.
    for (path, node) in nodes {
        if let Node::File(content) = node
            && content.len() > 1 << 20
        {
            let mut file = fs.create_file(at(path)).unwrap();
            for piece in content.chunks(1_000_003) {
                file.write_all(piece).unwrap();
            }
            file.close().unwrap();
        }
    }
    fs.transact(|transaction| {
        for (number, (path, node)) in nodes.iter().enumerate() {
            if !matches!(node, Node::Symlink(_)) {
                transaction.set_attributes(at(path), attributes(number))?;
            }
        }
        Ok::<_, strongroom::Error>(())
    })
    .unwrap();
}

fn read_back(repository: &Repository, nodes: &BTreeMap<Vec<u8>, Node>, below: &[u8]) {
    let fs = repository.fs();
    for (number, (path, node)) in nodes.iter().enumerate() {
        let at = [below, path].concat();
        let metadata = fs.symlink_metadata(&at).unwrap();
        match node {
            Node::Directory => assert_eq!(metadata.kind, Kind::Directory),
            Node::Symlink(target) => assert_eq!(fs.read_link(&at).unwrap(), *target),
            Node::File(content) => {
                let mut read = Vec::new();
                fs.open_file(&at).unwrap().read_to_end(&mut read).unwrap();
                assert!(read == *content, "{}", String::from_utf8_lossy(&at));
                assert_eq!(metadata.size, content.len() as u64);
            }
        }
        if metadata.kind != Kind::Symlink {
            let expected = attributes(number);
            assert_eq!((Some(metadata.mode), Some(metadata.mtime)), (expected.mode, expected.mtime));
        }
        if metadata.kind == Kind::Directory {
            let names: Vec<Vec<u8>> = fs.read_dir(&at).unwrap().into_iter().map(|entry| entry.name).collect();
            let prefix = [path.as_slice(), b"/"].concat();
            let expected: Vec<Vec<u8>> = nodes
                .keys()
                .filter_map(|path| path.strip_prefix(prefix.as_slice()))
                .filter(|name| !name.contains(&b'/'))
                .map(<[u8]>::to_vec)
                .collect();
            assert_eq!(names, expected);
        }
    }
}

fn is_undamaged(repository: &Repository) -> u64 {
    let mut findings = Vec::new();
    let report = repository.check(CheckOptions { data: true }, |finding| findings.push(finding)).unwrap();
    assert_eq!(findings, []);
    report.files
}

fn stored_bytes(repository: &Repository) -> u64 {
    let info = repository.info().unwrap();
    info.blobs * u64::from(info.block_bytes)
}

#[test]
fn a_tree_in_memory_comes_back_and_costs_nothing_twice() {
    let registry: Registry = strongroom::registry::default();
    let open = || {
        let options = OpenOptions::new(Credentials::password("in memory")).registry(registry.clone());
        Repository::open("mem://tree", options).unwrap()
    };
    let nodes = tree();
    let create = CreateOptions::new(Credentials::password("in memory")).registry(registry.clone()).kdf_millis(1);
    let repository = Repository::create("mem://tree", create).unwrap();
    write(&repository, &nodes, b"");
    read_back(&repository, &nodes, b"");
    repository.close().unwrap();

    let repository = open();
    read_back(&repository, &nodes, b"");
    let files = is_undamaged(&repository);
    assert_eq!(files, nodes.values().filter(|node| matches!(node, Node::File(_))).count() as u64);
    repository.close().unwrap();
    let repository = open();
    let before = stored_bytes(&repository);
    repository.fs().create_dir("/again").unwrap();
    write(&repository, &nodes, b"/again");
    repository.close().unwrap();

    let repository = open();
    read_back(&repository, &nodes, b"/again");
    assert_eq!(is_undamaged(&repository), 2 * files);
    let more = stored_bytes(&repository).saturating_sub(before);
    let bytes: u64 =
        nodes.values().map(|node| if let Node::File(content) = node { content.len() as u64 } else { 0 }).sum();
    eprintln!("{files} files, {bytes} bytes: {before} stored, {more} more for the second copy");
    // A commit is a block, which only a larger tree outweighs.
    let blocks = if bytes < 500_000_000 { 20 << 17 } else { 0 };
    assert!(more <= bytes / 100 + 512 * files + blocks, "{more} bytes");
    repository.close().unwrap();
}
