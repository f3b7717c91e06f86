//! Headers against a hostile storage: whatever is changed, opening gives the same root secret or a typed error.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // in helpers of tests too

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use futures_lite::future::block_on;
use strongroom_core::Error;
use strongroom_core::crypto::{KdfParameters, RootSecret, SecretBytes, Suite};
use strongroom_core::engine::keyring::{
    CopyState, CreateHeader, Credentials, Header, HeaderEdit, HeaderSet, NewSlot, RecoveryKey, build_header,
    create_header, delete_header, read_headers, repair_copy, slots, unlock, unlock_with_root, verify_copy,
    write_header,
};
use strongroom_core::env::Env;
use strongroom_core::format::header::Features;
use strongroom_core::format::slot::Factors;
use strongroom_core::format::well_known::{HeaderId, hint_name};
use strongroom_core::storage::{
    BatchSupport, Capabilities, Durability, ErrorKind, ListOrder, Name, Operation, Put, RangeReads, Reach, Result,
    Storage, Torn,
};

/// A storage whose operator is the test.
#[derive(Debug, Default)]
struct Hostile {
    blobs: Mutex<BTreeMap<Name, Bytes>>,
    unreachable: Mutex<Vec<Name>>,
}

impl Hostile {
    fn new() -> Arc<Self> {
        Arc::default()
    }

    fn edit(&self, name: Name, change: impl FnOnce(&mut Vec<u8>)) {
        let mut blobs = self.blobs.lock().unwrap();
        let mut bytes = blobs[&name].to_vec();
        change(&mut bytes);
        blobs.insert(name, bytes.into());
    }

    fn insert(&self, name: Name, bytes: impl Into<Bytes>) {
        self.blobs.lock().unwrap().insert(name, bytes.into());
    }

    fn blob(&self, name: Name) -> Bytes {
        self.blobs.lock().unwrap()[&name].clone()
    }
}

fn error(kind: ErrorKind, operation: Operation) -> strongroom_core::storage::Error {
    strongroom_core::storage::Error::new(kind, operation, "test")
}

#[async_trait]
impl Storage for Hostile {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            reach: Reach::Process,
            durability: Durability::None,
            torn: Torn::Never,
            batch: BatchSupport::Sequential,
            list_order: ListOrder::Unordered,
            range_reads: RangeReads::Native,
            block_bytes_best: 1 << 17,
            block_bytes_max: 4 << 20,
        }
    }

    async fn put(&self, name: Name, bytes: Bytes) -> Result<Put> {
        let mut blobs = self.blobs.lock().unwrap();
        if blobs.contains_key(&name) {
            return Ok(Put::Exists);
        }
        blobs.insert(name, bytes);
        Ok(Put::Created)
    }

    async fn put_durable(&self, name: Name, bytes: Bytes) -> Result<Put> {
        self.put(name, bytes).await
    }

    async fn get(&self, name: Name, range: Option<Range<u64>>, max_bytes: u64) -> Result<Bytes> {
        if self.unreachable.lock().unwrap().contains(&name) {
            return Err(error(ErrorKind::Unavailable, Operation::Get));
        }
        let blobs = self.blobs.lock().unwrap();
        let blob = blobs.get(&name).ok_or_else(|| error(ErrorKind::NotFound, Operation::Get))?;
        let range = range.unwrap_or(0..blob.len() as u64);
        if range.end > blob.len() as u64 {
            return Err(error(ErrorKind::RangeInvalid, Operation::Get));
        }
        if range.end - range.start > max_bytes {
            return Err(error(ErrorKind::LimitExceeded, Operation::Get));
        }
        Ok(blob.slice(range.start as usize..range.end as usize))
    }

    async fn size(&self, name: Name) -> Result<u64> {
        let blobs = self.blobs.lock().unwrap();
        blobs.get(&name).map(|blob| blob.len() as u64).ok_or_else(|| error(ErrorKind::NotFound, Operation::Size))
    }

    async fn delete(&self, name: Name) -> Result<()> {
        self.blobs.lock().unwrap().remove(&name);
        Ok(())
    }

    async fn list(&self, prefix: &[u8], _: Option<Name>) -> Result<Vec<Name>> {
        let blobs = self.blobs.lock().unwrap();
        Ok(blobs.keys().filter(|name| name.as_bytes().starts_with(prefix)).copied().collect())
    }

    async fn sync(&self) -> Result<()> {
        Ok(())
    }

    async fn persist(&self, _: &[Name]) -> Result<()> {
        Ok(())
    }
}

const HEADER_BYTES: usize = 4096;
const BLOCK_BYTES: u32 = 16 << 10;
const PASSWORD: &str = "correct horse battery staple";

fn name(generation: u64, copy: u8) -> Name {
    Name::new(HeaderId { generation, copy }.name().unwrap())
}

fn as_storage(hostile: &Arc<Hostile>) -> Arc<dyn Storage> {
    hostile.clone()
}

fn options<'a>(slots: &'a [NewSlot<'a>]) -> CreateHeader<'a> {
    CreateHeader {
        suite: Suite::Aes256Gcm,
        block_bytes: BLOCK_BYTES,
        kdf: KdfParameters::MINIMUM,
        features: Features::default(),
        slots,
    }
}

fn create(env: &Env) -> (Arc<Hostile>, Header, RootSecret) {
    let hostile = Hostile::new();
    let slots = [NewSlot { credentials: &Credentials::password(PASSWORD), label: "first" }];
    let (header, root) = block_on(create_header(&as_storage(&hostile), env, &options(&slots))).unwrap();
    (hostile, header, root)
}

fn read(hostile: &Arc<Hostile>) -> strongroom_core::Result<HeaderSet> {
    block_on(read_headers(&as_storage(hostile)))
}

fn open(env: &Env, header: &Header, credentials: &Credentials) -> strongroom_core::Result<RootSecret> {
    block_on(unlock(env, header, credentials))
}

fn fix_checksum(content: &mut [u8]) {
    let (covered, checksum) = content[..HEADER_BYTES].split_at_mut(HEADER_BYTES - 16);
    checksum.copy_from_slice(&blake3::hash(covered).as_bytes()[..16]);
}

/// What an operator can do to both copies: change the content, and make the unkeyed checksum fit again.
fn tamper(hostile: &Hostile, change: impl Fn(&mut [u8])) {
    for copy in 0..2 {
        hostile.edit(name(1, copy), |blob| {
            change(blob);
            fix_checksum(blob);
        });
    }
}

fn is_damaged<T>(result: &strongroom_core::Result<T>) -> bool {
    matches!(result, Err(Error::Damaged(_)))
}

#[test]
fn the_password_opens_and_another_does_not() {
    let env = Env::deterministic(1);
    for suite in Suite::ALL {
        for block_bytes in [4 << 10, 128 << 10] {
            let hostile = Hostile::new();
            let password = Credentials::password(PASSWORD);
            let slots = [NewSlot { credentials: &password, label: "" }];
            let options = CreateHeader { suite, block_bytes, ..options(&slots) };
            let (made, root) = block_on(create_header(&as_storage(&hostile), &env, &options)).unwrap();

            let set = read(&hostile).unwrap();
            let [header] = set.headers() else { panic!("one header") };
            assert_eq!((header.suite(), header.block_bytes(), header.generation()), (suite, block_bytes, 1));
            assert_eq!(header.kdf(), KdfParameters::MINIMUM);
            assert_eq!((header.hash(), header.repository()), (made.hash(), made.repository()));
            assert!(set.faults().is_empty());
            assert_eq!(hostile.blob(name(1, 0)).len(), block_bytes as usize);
            assert!(open(&env, header, &password).unwrap() == root);
            assert!(unlock_with_root(header, root.duplicate()).is_ok());
            for wrong in [Credentials::password("Correct horse battery staple"), Credentials::key_file(PASSWORD)] {
                assert!(matches!(open(&env, header, &wrong), Err(Error::WrongCredentials)));
            }
        }
    }
}

#[test]
fn nothing_recognisable_is_no_repository_and_a_lost_header_is_damage() {
    let hostile = Hostile::new();
    assert!(matches!(read(&hostile), Err(Error::NotARepository)));
    hostile.insert(Name::new([7; 16]), Bytes::from_static(b"foreign"));
    assert!(matches!(read(&hostile), Err(Error::NotARepository)));
    hostile.insert(Name::new(*b"strongrH\x09foreign"), Bytes::from_static(b"foreign"));
    assert!(matches!(read(&hostile), Err(Error::NotARepository)));
    hostile.insert(Name::new(hint_name([1; 8])), Bytes::from_static(b"hint"));
    assert!(is_damaged(&read(&hostile)));
}

#[test]
fn a_place_that_holds_a_repository_is_refused_and_left_alone() {
    let env = Env::deterministic(2);
    let (hostile, header, _) = create(&env);
    let password = Credentials::password("other");
    let slots = [NewSlot { credentials: &password, label: "" }];
    let again = block_on(create_header(&as_storage(&hostile), &env, &options(&slots)));
    assert!(matches!(again, Err(Error::AlreadyExists)));
    assert_eq!(read(&hostile).unwrap().headers()[0].hash(), header.hash());

    let only_hint = Hostile::new();
    only_hint.insert(Name::new(hint_name([1; 8])), Bytes::new());
    let over_hint = block_on(create_header(&as_storage(&only_hint), &env, &options(&slots)));
    assert!(matches!(over_hint, Err(Error::AlreadyExists)));

    // Whoever loses the race to write sees it too, and may repeat a write whose answer was lost.
    let (other, other_root) = block_on(build_header(&env, &options(&slots))).unwrap();
    assert!(matches!(block_on(write_header(&as_storage(&hostile), &other, &other_root)), Err(Error::AlreadyExists)));
    block_on(delete_header(&as_storage(&hostile), 1)).unwrap();
    block_on(write_header(&as_storage(&hostile), &other, &other_root)).unwrap();
    block_on(write_header(&as_storage(&hostile), &other, &other_root)).unwrap();
}

#[test]
fn options_outside_their_limits_are_refused() {
    let env = Env::deterministic(3);
    let build = |options: &CreateHeader<'_>| block_on(build_header(&env, options)).err().unwrap();
    let password = Credentials::password(PASSWORD);
    let good = [NewSlot { credentials: &password, label: "" }];
    for block_bytes in [0, 4095, 2048, 8 << 20, u32::MAX] {
        assert!(matches!(build(&CreateHeader { block_bytes, ..options(&good) }), Error::Invalid(_)));
    }
    for kdf in [
        KdfParameters { memory_kib: u32::MAX, ..KdfParameters::MINIMUM },
        KdfParameters { passes: 0, ..KdfParameters::MINIMUM },
    ] {
        assert!(matches!(build(&CreateHeader { kdf, ..options(&good) }), Error::Invalid(_)));
    }
    let features = Features { incompatible: 2, read_only_compatible: 0 };
    assert!(matches!(build(&CreateHeader { features, ..options(&good) }), Error::Invalid(_)));
    assert!(matches!(build(&options(&[])), Error::Invalid(_)));
    let nothing = Credentials::default();
    assert!(matches!(build(&options(&[NewSlot { credentials: &nothing, label: "" }])), Error::Invalid(_)));
    let label = "x".repeat(49);
    let long = [NewSlot { credentials: &password, label: &label }];
    assert!(matches!(build(&options(&long)), Error::LimitExceeded { what: "slot_label_bytes", .. }));
    let many: Vec<_> = (0..9).map(|_| NewSlot { credentials: &password, label: "" }).collect();
    assert!(matches!(build(&options(&many)), Error::LimitExceeded { what: "slots_count", .. }));
}

#[test]
fn with_any_bit_of_one_copy_flipped_the_other_serves() {
    let env = Env::deterministic(4);
    let (hostile, header, _) = create(&env);
    for copy in 0..2 {
        let name = name(1, copy);
        let whole = hostile.blob(name);
        for bit in 0..HEADER_BYTES * 8 {
            hostile.edit(name, |blob| blob[bit / 8] ^= 1 << (bit % 8));
            let set = read(&hostile).unwrap();
            assert_eq!(set.headers().len(), 1);
            assert_eq!(set.headers()[0].hash(), header.hash());
            let [fault] = set.faults() else { panic!("one fault for bit {bit}") };
            assert_eq!((fault.name, fault.id.copy), (name, copy));
            assert!(matches!(fault.state, CopyState::Damaged { .. }));
            hostile.insert(name, whole.clone());
        }
    }
}

#[test]
fn with_any_bit_of_both_copies_flipped_nothing_opens() {
    let env = Env::deterministic(5);
    let (hostile, header, root) = create(&env);
    for bit in 0..HEADER_BYTES * 8 {
        let mut content = header.content().to_vec();
        content[bit / 8] ^= 1 << (bit % 8);
        assert!(Header::from_content(&content).is_err(), "bit {bit}");
        // Even one who holds the root secret is not fooled by a checksum that fits.
        fix_checksum(&mut content);
        if let Ok(forged) = Header::from_content(&content)
            && forged.content() != header.content()
        {
            assert!(is_damaged(&unlock_with_root(&forged, root.duplicate())), "bit {bit}");
            assert!(is_damaged(&slots(&forged, &root)), "bit {bit}");
        }
    }
    for copy in 0..2 {
        hostile.edit(name(1, copy), |blob| blob[300] ^= 1);
    }
    let Err(Error::Damaged(damage)) = read(&hostile) else { panic!("damage") };
    assert_eq!((damage.structure, damage.blob), ("header", Some(name(1, 0))));
}

#[test]
fn each_clear_field_changed_by_the_operator_gives_its_own_error() {
    type Expected = fn(&strongroom_core::Result<RootSecret>) -> bool;
    let damaged: Expected = |result| is_damaged(result);
    let newer: Expected = |result| matches!(result, Err(Error::NewerFormat { .. }));
    let wrong: Expected = |result| matches!(result, Err(Error::WrongCredentials));
    let env = Env::deterministic(6);
    // Offset, what is exclusive-ored there, what that is, what opening answers.
    let fields: [(usize, u8, &str, Expected); 25] = [
        (0, 1, "magic", damaged),
        (16, 1, "format version", newer),
        (18, 3, "the other suite", damaged),
        (18, 8, "an unknown suite", newer),
        (19, 2, "an unknown key derivation", newer),
        (21, 0xc0, "another block size", damaged),
        (20, 1, "a block size that none is", damaged),
        (24, 1, "the note of an unfinished copy", damaged),
        (24, 2, "an incompatible feature", newer),
        (32, 1, "a read-only-compatible feature", damaged),
        (41, 0x01, "memory", wrong),
        (43, 0x80, "memory out of bounds", damaged),
        (44, 2, "passes", wrong),
        (47, 1, "passes out of bounds", damaged),
        (48, 2, "lanes", wrong),
        (50, 1, "lanes out of bounds", damaged),
        (52, 1, "reserved", damaged),
        (56, 1, "salt", wrong),
        (88, 1, "repository id", damaged),
        (104, 2, "generation", damaged),
        (112, 1, "previous hash", damaged),
        (144, 1, "directory salt", damaged),
        (704, 1, "slot salt", wrong),
        (736, 1, "slot commitment", wrong),
        (768, 1, "slot payload", damaged),
    ];
    for (at, with, what, expected) in fields {
        let (hostile, _, _) = create(&env);
        tamper(&hostile, |blob| blob[at] ^= with);
        let outcome = read(&hostile).and_then(|set| {
            let (_, root) = block_on(set.unlock(&env, &Credentials::password(PASSWORD)))?;
            Ok(root)
        });
        assert!(expected(&outcome), "{what}: {:?}", outcome.err());
    }
}

#[test]
fn costs_out_of_bounds_are_refused_before_anything_is_allocated() {
    let env = Env::deterministic(7);
    let (hostile, _, _) = create(&env);
    tamper(&hostile, |blob| blob[40..52].fill(0xff));
    // Four TiB: allocating would abort.
    let Err(Error::Damaged(damage)) = read(&hostile) else { panic!("damage") };
    assert!(damage.detail.contains("memory_kib"), "{damage}");
}

#[test]
fn slots_of_another_repository_are_refused() {
    let env = Env::deterministic(8);
    let (_, theirs, _) = create(&env);
    let (_, ours, _) = create(&env);
    let password = Credentials::password(PASSWORD);
    let attempt = |ranges: &[Range<usize>]| {
        let mut content = ours.content().to_vec();
        for range in ranges {
            content[range.clone()].copy_from_slice(&theirs.content()[range.clone()]);
        }
        fix_checksum(&mut content);
        open(&env, &Header::from_content(&content).unwrap(), &password)
    };
    let (salt, repository, slots) = (56..88, 88..104, 704..2368);
    assert!(matches!(attempt(std::slice::from_ref(&slots)), Err(Error::WrongCredentials)));
    assert!(is_damaged(&attempt(&[salt.clone(), slots.clone()])), "the repository id is bound");
    assert!(is_damaged(&attempt(&[salt, repository, slots])), "the MAC is bound to the root");

    // The same slot in another place of its own header.
    let mut content = ours.content().to_vec();
    content.copy_within(704..912, 912);
    content[704..912].fill(1);
    fix_checksum(&mut content);
    let moved = open(&env, &Header::from_content(&content).unwrap(), &password);
    assert!(matches!(moved, Err(Error::WrongCredentials)));
}

#[test]
fn every_factor_of_a_slot_is_needed_and_no_other() {
    let env = Env::deterministic(9);
    let key_file = || SecretBytes::new((0..32).collect());
    let recovery = RecoveryKey::generate(&env).unwrap();
    let both = Credentials::password(PASSWORD).and_key_file(key_file());
    let file = Credentials::key_file(SecretBytes::new(vec![9; 64]));
    let paper = Credentials::recovery(&recovery);
    let new = [
        NewSlot { credentials: &both, label: "both" },
        NewSlot { credentials: &file, label: "file" },
        NewSlot { credentials: &paper, label: "paper" },
    ];
    let (header, root) = block_on(build_header(&env, &options(&new))).unwrap();
    let again = Credentials::recovery(&RecoveryKey::from_text(&recovery.to_text()).unwrap());
    for right in [&both, &file, &paper, &again] {
        assert!(open(&env, &header, right).unwrap() == root);
    }
    let paper_and_password = Credentials { password: Some(PASSWORD.into()), ..again };
    for wrong in [
        Credentials::password(PASSWORD),
        Credentials::key_file(key_file()),
        Credentials::password("other").and_key_file(key_file()),
        Credentials::password(PASSWORD).and_key_file("other"),
        paper_and_password,
    ] {
        assert!(matches!(open(&env, &header, &wrong), Err(Error::WrongCredentials)));
    }
    assert!(matches!(open(&env, &header, &Credentials::default()), Err(Error::Invalid(_))));

    let listed: Vec<_> = slots(&header, &root).unwrap().into_iter().map(|slot| (slot.factors, slot.label)).collect();
    let expected =
        [(Factors::PASSWORD.and(Factors::KEY_FILE), "both"), (Factors::KEY_FILE, "file"), (Factors::RECOVERY, "paper")];
    assert_eq!(listed, expected.map(|(factors, label)| (factors, label.to_owned())));
}

#[test]
fn slots_are_added_replaced_and_removed_in_new_generations() {
    let env = Env::deterministic(10);
    let (hostile, first, root) = create(&env);
    let (old, added, changed) =
        (Credentials::password(PASSWORD), Credentials::password("added"), Credentials::password("changed"));

    let edit = HeaderEdit { env: &env, header: &first, root: &root, generation: 2 };
    let second = block_on(edit.add(&NewSlot { credentials: &added, label: "second" })).unwrap();
    assert_eq!((second.generation(), second.previous()), (2, first.hash()));
    assert!(open(&env, &second, &old).unwrap() == root);
    assert!(open(&env, &second, &added).unwrap() == root);

    let edit = HeaderEdit { env: &env, header: &second, root: &root, generation: 3 };
    let third = block_on(edit.replace(0, &NewSlot { credentials: &changed, label: "new" })).unwrap();
    assert!(matches!(open(&env, &third, &old), Err(Error::WrongCredentials)));
    assert!(open(&env, &third, &changed).unwrap() == root);
    assert!(open(&env, &third, &added).unwrap() == root);

    let edit = HeaderEdit { env: &env, header: &third, root: &root, generation: 4 };
    let fourth = block_on(edit.remove(1)).unwrap();
    assert!(matches!(open(&env, &fourth, &added), Err(Error::WrongCredentials)));
    assert_eq!(slots(&fourth, &root).unwrap()[0].label, "new");
    let edit = HeaderEdit { env: &env, header: &fourth, root: &root, generation: 5 };
    assert!(matches!(block_on(edit.remove(0)), Err(Error::Invalid(_))), "the last slot stays");
    assert!(matches!(block_on(edit.remove(1)), Err(Error::Invalid(_))), "it is not in use");
    assert!(matches!(block_on(edit.remove(200)), Err(Error::Invalid(_))));

    // Both are in storage until a commit names the newer and the older is deleted.
    block_on(write_header(&as_storage(&hostile), &fourth, &root)).unwrap();
    let set = read(&hostile).unwrap();
    assert_eq!(set.headers().iter().map(Header::generation).collect::<Vec<_>>(), [4, 1]);
    assert_eq!(set.next_generation(), 5);
    assert_eq!(set.find(1, first.hash()).unwrap().hash(), first.hash());
    assert!(set.find(4, first.hash()).is_none());
    let (opened, _) = block_on(set.unlock(&env, &changed)).unwrap();
    assert_eq!(opened.generation(), 4);
    let (opened, _) = block_on(set.unlock(&env, &old)).unwrap();
    assert_eq!(opened.generation(), 1, "whether it is still in force is for the head to say");
    assert!(matches!(block_on(set.unlock(&env, &added)), Err(Error::WrongCredentials)));
    block_on(delete_header(&as_storage(&hostile), 1)).unwrap();
    assert_eq!(read(&hostile).unwrap().headers().len(), 1);
}

#[test]
fn a_ninth_slot_is_refused() {
    let env = Env::deterministic(11);
    let password = Credentials::password(PASSWORD);
    let eight: Vec<_> = (0..8).map(|_| NewSlot { credentials: &password, label: "" }).collect();
    let (header, root) = block_on(build_header(&env, &options(&eight))).unwrap();
    let edit = HeaderEdit { env: &env, header: &header, root: &root, generation: 2 };
    let ninth = block_on(edit.add(&NewSlot { credentials: &password, label: "" }));
    assert!(matches!(ninth, Err(Error::LimitExceeded { what: "slots_count", value: 9, limit: 8 })));
    let stale = HeaderEdit { env: &env, header: &header, root: &root, generation: 1 };
    assert!(matches!(block_on(stale.remove(3)), Err(Error::Invalid(_))));
}

#[test]
fn rotation_makes_a_fresh_epoch_and_keeps_only_the_slots_at_hand() {
    let env = Env::deterministic(12);
    let (hostile, first, root) = create(&env);
    let password = Credentials::password("after");
    let keep = [NewSlot { credentials: &password, label: "kept" }];
    let edit = HeaderEdit { env: &env, header: &first, root: &root, generation: 2 };
    let (second, next) = block_on(edit.rotate(KdfParameters::MINIMUM, &keep)).unwrap();
    assert_eq!((next.key_epoch, second.generation()), (1, 2));
    assert!(next.lifetime == root.lifetime && next.epoch != root.epoch);
    assert_eq!((second.repository(), second.previous()), (first.repository(), first.hash()));
    assert!(open(&env, &second, &password).unwrap() == next);
    assert!(matches!(open(&env, &second, &Credentials::password(PASSWORD)), Err(Error::WrongCredentials)));
    assert!(is_damaged(&unlock_with_root(&second, root)), "the old root makes no MAC of the new header");

    block_on(write_header(&as_storage(&hostile), &second, &next)).unwrap();
    let set = read(&hostile).unwrap();
    let (opened, root) = block_on(set.unlock(&env, &password)).unwrap();
    assert!(opened.generation() == 2 && root == next);
}

#[test]
fn check_sees_every_byte_of_every_copy_and_repair_restores_it() {
    let env = Env::deterministic(13);
    let (hostile, header, root) = create(&env);
    let storage = as_storage(&hostile);
    let verify = |copy| block_on(verify_copy(&storage, &header, &root, copy)).unwrap();
    assert_eq!(verify(0), (name(1, 0), CopyState::Intact));
    assert_eq!(verify(1), (name(1, 1), CopyState::Intact));
    assert_ne!(hostile.blob(name(1, 0))[HEADER_BYTES..], hostile.blob(name(1, 1))[HEADER_BYTES..]);

    type Change = fn(&mut Vec<u8>);
    let changes: [(Change, &str); 6] = [
        (|blob| blob[0] ^= 1, "content"),
        (|blob| blob[HEADER_BYTES] ^= 1, "fill"),
        (|blob| *blob.last_mut().unwrap() ^= 0x80, "fill"),
        (|blob| blob.truncate(HEADER_BYTES), "4096 bytes long"),
        (|blob| blob.truncate(100), "100 bytes long"),
        (|blob| blob.push(0), "longer"),
    ];
    for (change, detail) in changes {
        hostile.edit(name(1, 1), change);
        let (_, CopyState::Damaged { detail: seen }) = verify(1) else { panic!("{detail}") };
        assert!(seen.contains(detail), "{seen}");
        assert_eq!(read(&hostile).unwrap().headers().len(), 1, "the other copy serves");
        block_on(repair_copy(&storage, &header, &root, 1)).unwrap();
        assert_eq!(verify(1).1, CopyState::Intact);
    }
    block_on(storage.delete(name(1, 0))).unwrap();
    assert_eq!(verify(0).1, CopyState::Missing);
    assert_eq!(read(&hostile).unwrap().faults()[0].state, CopyState::Missing);
    assert!(block_on(verify_copy(&storage, &header, &root, 2)).is_err(), "there are two copies");
}

#[test]
fn a_header_under_another_generations_name_is_damage() {
    let env = Env::deterministic(14);
    let (hostile, header, _) = create(&env);
    hostile.insert(name(2, 0), hostile.blob(name(1, 0)));
    let set = read(&hostile).unwrap();
    assert_eq!(set.headers().len(), 1);
    assert_eq!(set.headers()[0].hash(), header.hash());
    assert_eq!(set.faults().iter().map(|fault| fault.id.generation).collect::<Vec<_>>(), [2, 2]);
    assert_eq!(set.next_generation(), 3);
}

#[test]
fn a_storage_that_does_not_answer_is_not_taken_for_damage() {
    let env = Env::deterministic(15);
    let (hostile, header, _) = create(&env);
    hostile.unreachable.lock().unwrap().push(name(1, 0));
    assert_eq!(read(&hostile).unwrap().headers()[0].hash(), header.hash());
    hostile.unreachable.lock().unwrap().push(name(1, 1));
    assert_eq!(read(&hostile).unwrap_err().storage_kind(), Some(ErrorKind::Unavailable));
}

#[test]
fn two_headers_of_one_generation_are_both_found_for_a_commit_to_choose() {
    let env = Env::deterministic(16);
    let (hostile, first, root) = create(&env);
    let credentials = Credentials::password("racer");
    let edit = HeaderEdit { env: &env, header: &first, root: &root, generation: 2 };
    let racer = || block_on(edit.add(&NewSlot { credentials: &credentials, label: "racer" })).unwrap();
    let (one, other) = (racer(), racer());
    hostile.insert(name(2, 0), one.content().clone());
    hostile.insert(name(2, 1), other.content().clone());
    let set = read(&hostile).unwrap();
    assert_eq!(set.headers().len(), 3);
    assert_eq!(set.find(2, one.hash()).unwrap().hash(), one.hash());
    assert_eq!(set.find(2, other.hash()).unwrap().hash(), other.hash());
    let late = block_on(write_header(&as_storage(&hostile), &other, &root));
    assert!(matches!(late, Err(Error::Conflict)));
}

#[test]
fn planted_headers_are_looked_at_up_to_a_bound() {
    let env = Env::deterministic(17);
    let hostile = Hostile::new();
    let password = Credentials::password(PASSWORD);
    let slots = [NewSlot { credentials: &password, label: "" }];
    let (template, _) = block_on(build_header(&env, &options(&slots))).unwrap();
    for generation in 1..100_u8 {
        let mut content = template.content().to_vec();
        content[56] = generation;
        content[104] = generation;
        fix_checksum(&mut content);
        hostile.insert(name(generation.into(), 0), content);
    }
    let set = read(&hostile).unwrap();
    assert_eq!(set.headers().len(), 16);
    assert!(matches!(block_on(set.unlock(&env, &password)), Err(Error::WrongCredentials)));
}

#[test]
fn an_exported_header_opens_again() {
    let env = Env::deterministic(18);
    let (_, header, root) = create(&env);
    let imported = Header::from_content(header.content()).unwrap();
    let root_again = open(&env, &imported, &Credentials::password(PASSWORD)).unwrap();
    assert!(root == root_again);
    let hostile = Hostile::new();
    block_on(write_header(&as_storage(&hostile), &imported, &root_again)).unwrap();
    assert_eq!(block_on(verify_copy(&as_storage(&hostile), &header, &root, 1)).unwrap().1, CopyState::Intact);
}

#[test]
fn futures_can_move_between_threads() {
    fn sendable<T: Send>(future: T) -> T {
        future
    }
    let env = Env::deterministic(19);
    let (hostile, header, root) = create(&env);
    let storage = as_storage(&hostile);
    let password = Credentials::password(PASSWORD);
    let set = block_on(sendable(read_headers(&storage))).unwrap();
    block_on(sendable(set.unlock(&env, &password))).unwrap();
    block_on(sendable(verify_copy(&storage, &header, &root, 0))).unwrap();
    let edit = HeaderEdit { env: &env, header: &header, root: &root, generation: 2 };
    let added = Credentials::password("added");
    let next = block_on(sendable(edit.add(&NewSlot { credentials: &added, label: "" }))).unwrap();
    block_on(sendable(write_header(&storage, &next, &root))).unwrap();
    let slots = [NewSlot { credentials: &password, label: "" }];
    assert!(block_on(sendable(create_header(&storage, &env, &options(&slots)))).is_err());
}
