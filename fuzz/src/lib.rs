//! What each fuzz target checks. The property of those that decode: no bytes make a decoder panic, and what a decoder accepts
//! encodes to the very bytes that it read, where the format gives each value one spelling. That of [`engine`]: no history
//! loses what was answered, or shows what was not committed.
//!
//! The targets in `fuzz_targets/` call these functions; so does `tests/corpus.rs`, which replays the committed corpus
//! without a fuzzer.

mod block;
mod engine;

use bytes::Bytes;
use strongroom_core::crypto::SecretBytes;
use strongroom_core::engine::keyring;
use strongroom_core::format::commit::{self, CommitHead, Hint, SpilledBody};
use strongroom_core::format::header::{self, HEADER_AUTHENTICATED_BYTES};
use strongroom_core::format::node::{InnerBuilder, LeafBuilder, NODE_BYTES_MAX, Node};
use strongroom_core::format::rows::{self, ChunkRow, EpochRow, SnapshotRow};
use strongroom_core::format::slot::{SLOT_DIRECTORY_BYTES, SLOT_PAYLOAD_BYTES, SlotDirectory, SlotPayload};
use strongroom_core::format::well_known::{HeaderId, is_hint_name};
use strongroom_core::format::{BlockId, CloneMark, Pointer};
use strongroom_core::storage::StorageUri;
use strongroom_fs::format::{ContentRow, EntryRow, Extent, InodeRow, OptionsRow, VersionRow, XattrRow};

pub use block::block;
pub use engine::engine;

/// The content of a header: as it is, and under a checksum that fits, so that what lies behind the checksum is reached.
pub fn header(bytes: &[u8]) {
    let decode = |content: &[u8]| {
        if let Ok((header, mac)) = header::Header::decode(content) {
            assert_eq!(header::Header::complete(header.encode(), &mac), content);
        }
        let _ = keyring::Header::from_content(content);
    };
    decode(bytes);
    let mut authenticated = bytes.to_vec();
    authenticated.resize(HEADER_AUTHENTICATED_BYTES, 0);
    decode(&header::Header::complete(authenticated, &[7; 32]));
}

/// What slots and their directory seal, the text of a recovery key, and key files.
pub fn slot(bytes: &[u8]) {
    if let Some(payload) = bytes.first_chunk::<SLOT_PAYLOAD_BYTES>()
        && let Ok(decoded) = SlotPayload::decode(payload)
    {
        assert_eq!(*decoded.encode(), *payload);
    }
    if let Some(directory) = bytes.first_chunk::<SLOT_DIRECTORY_BYTES>()
        && let Ok(decoded) = SlotDirectory::decode(directory)
    {
        assert_eq!(decoded.encode().expect("it came from bytes"), *directory);
    }
    recovery(bytes);
    key_file(bytes);
}

/// The text of a recovery key: what is read is printed in one spelling, and one wrong digit more is told.
fn recovery(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(key) = keyring::RecoveryKey::from_text(text) else { return };
    let printed = key.to_text();
    let again = keyring::RecoveryKey::from_text(&printed).expect("it was printed");
    assert_eq!(again.to_text(), printed);
    let at = 5 + usize::from(bytes[0]) % (printed.len() - 5);
    let mut slipped = printed.to_string().into_bytes();
    if slipped[at] != b'-' {
        slipped[at] = if slipped[at] == b'7' { b'8' } else { b'7' };
        let slipped = String::from_utf8(slipped).expect("it is ASCII");
        assert!(keyring::RecoveryKey::from_text(&slipped).is_err(), "a slip went through");
    }
}

/// A key file: any bytes within the limits, and no others.
fn key_file(bytes: &[u8]) {
    let length = bytes.len();
    let credentials = keyring::Credentials::key_file(SecretBytes::new(bytes.to_vec()));
    assert_eq!(credentials.factors().is_ok(), (1..=keyring::CREDENTIAL_BYTES_MAX).contains(&length));
    let range = keyring::KEY_FILE_BYTES_MIN..=keyring::CREDENTIAL_BYTES_MAX;
    assert_eq!(credentials.check_strength().is_ok(), range.contains(&length));
}

/// A tree node: what decodes can be searched, and built again no longer than it was.
pub fn node(bytes: &[u8]) {
    let Ok(node) = Node::decode(Bytes::copy_from_slice(bytes)) else { return };
    let keys: Vec<Bytes> = (0..node.count()).map(|index| node.key_bytes(index).expect("it decoded")).collect();
    for (index, key) in keys.iter().enumerate() {
        assert_eq!(node.search(key), Ok(index));
        assert_eq!(node.child_index(key), Some(index));
    }
    let _ = node.search(bytes);
    let built = if node.is_leaf() {
        let values: Vec<Bytes> = (0..node.count()).map(|index| node.value(index).expect("it is a leaf")).collect();
        let mut builder = LeafBuilder::leaf().born(node.birth());
        assert!(keys.iter().zip(&values).all(|(key, value)| builder.push(key, value, NODE_BYTES_MAX)));
        builder.build()
    } else {
        let children: Vec<Pointer> = (0..node.count()).map(|index| node.child(index).expect("it is inner")).collect();
        let mut builder = InnerBuilder::inner(node.level()).born(node.birth());
        assert!(keys.iter().zip(&children).all(|(key, child)| builder.push(key, child, NODE_BYTES_MAX)));
        builder.build()
    };
    let built = built.expect("what decodes is within the limits");
    assert!(built.len() <= bytes.len(), "sharing the longest prefix makes no node longer");
    let again = Node::decode(built.into()).expect("it was built");
    assert_eq!(again.birth(), node.birth());
    assert!((0..node.count()).all(|index| again.key(index) == node.key(index)));
    assert!((0..node.count()).all(|index| again.value(index) == node.value(index)));
    assert!((0..node.count()).all(|index| again.child(index) == node.child(index)));
}

/// A commit's head, deltas and spilled body, a checkpoint hint, and a clone's mark in one.
pub fn commit(bytes: &[u8]) {
    if let Ok(head) = CommitHead::decode(bytes) {
        assert_eq!(head.encode(), bytes);
    }
    if let Ok(deltas) = commit::decode_deltas(&Bytes::copy_from_slice(bytes)) {
        let encoded = commit::encode_deltas(deltas.iter().map(|(key, value)| (key, value)));
        assert_eq!(encoded.expect("it came from bytes"), bytes);
    }
    if let Ok(body) = SpilledBody::decode(bytes) {
        assert_eq!(body.encode(), bytes);
    }
    if let Ok(hint) = Hint::decode(bytes) {
        assert_eq!(hint.encode(), bytes);
    }
    if let Ok(mark) = CloneMark::decode(bytes) {
        assert_eq!(mark.encode(), bytes);
    }
}

/// Rows and keys of the space tables. The callers of key decoders have found the table byte already.
pub fn rows(bytes: &[u8]) {
    if let Ok(row) = ChunkRow::decode(&Bytes::copy_from_slice(bytes)) {
        assert_eq!(row.encode(), bytes);
    }
    if let Ok(row) = EpochRow::decode(bytes) {
        assert_eq!(*row.encode(), *bytes);
    }
    if let Ok(row) = SnapshotRow::decode(bytes) {
        assert_eq!(row.encode(), bytes);
    }
    if let Ok((death, number)) = rows::decode_parked_chunk_key(bytes) {
        assert_eq!(rows::parked_chunk_key(death, number)[1..], bytes[1..]);
    }
    if let Ok((death, pointer)) = rows::decode_parked_node_key(bytes) {
        assert_eq!(rows::parked_node_key(death, &pointer)[1..], bytes[1..]);
    }
    if let Ok((sequence, block)) = rows::decode_condemned_key(bytes) {
        assert_eq!(rows::condemned_key(sequence, block)[1..], bytes[1..]);
    }
    if let Ok(block) = rows::decode_block_key(bytes) {
        assert_eq!(rows::usage_key(block)[1..], bytes[1..]);
    }
    let _ = rows::decode_number_key(bytes);
    let _ = rows::decode_count(bytes);
}

/// Rows of the file system.
pub fn files(bytes: &[u8]) {
    if let Ok(row) = OptionsRow::decode(bytes) {
        assert_eq!(row.encode(), bytes);
    }
    if let Ok(row) = InodeRow::decode(bytes) {
        assert_eq!(row.encode(), bytes);
    }
    if let Ok(row) = EntryRow::decode(bytes) {
        assert_eq!(row.encode(), bytes);
    }
    if let Ok(row) = Extent::decode(bytes) {
        assert_eq!(row.encode(), bytes);
    }
    if let Ok(row) = VersionRow::decode(bytes) {
        assert_eq!(row.encode(), bytes);
    }
    if let Ok(row) = XattrRow::decode(bytes) {
        assert_eq!(row.encode(), bytes);
    }
    if let Ok(row) = ContentRow::decode(bytes) {
        // A directory's row has no size.
        assert!(row.encode().starts_with(bytes));
    }
}

/// Pointers and names.
pub fn pointer(bytes: &[u8]) {
    if let Some(pointer) = Pointer::decode(bytes) {
        assert_eq!(pointer.encode(), bytes);
        assert_eq!(BlockId::decode(&pointer.block_id().encode()), Some(pointer.block_id()));
    }
    if let Some(id) = BlockId::decode(bytes) {
        assert_eq!(id.encode(), bytes);
    }
    if let Some(name) = bytes.first_chunk::<16>()
        && let Some(id) = HeaderId::from_name(name)
    {
        assert_eq!(id.name().as_ref(), Some(name));
        assert!(!is_hint_name(name));
    }
}

/// A storage URI: what is read reads back equal from its canonical form, and nothing that is refused is repeated.
pub fn uri(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let _ = StorageUri::redact(text);
    if let Ok(uri) = StorageUri::parse(text) {
        assert_eq!(StorageUri::parse(&uri.to_string()).expect("the canonical form is a URI"), uri);
        let _ = uri.local_path();
    }
}
