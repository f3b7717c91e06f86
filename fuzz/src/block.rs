use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use strongroom_core::block::{BlockContext, BlockReader, Geometry};
use strongroom_core::crypto::{BlockKey, Keys, Secret, Suite};
use strongroom_core::env::Env;
use strongroom_core::format::{
    BlockId, DIRECTORY_INDEX, RecordKind, SALT_BYTES, SEAL_BYTES, TRAILER_INDEX, Trailer, aad, decode_directory,
};
use strongroom_core::storage::Name;
use strongroom_memory::MemoryStorage;

const BLOCK_BYTES: usize = 4096;
const TRAILER_AT: usize = BLOCK_BYTES - Trailer::SEALED_BYTES;
const REPOSITORY: [u8; 16] = [1; 16];

struct Bed {
    reader: BlockReader,
    name: Name,
    key: BlockKey,
}

fn bed() -> &'static Bed {
    static BED: OnceLock<Bed> = OnceLock::new();
    BED.get_or_init(|| {
        let epochs = [(0, Secret::from_bytes([2; 32]))];
        let keys = Keys::new(Suite::Aes256Gcm, REPOSITORY, &Secret::from_bytes([3; 32]), &epochs);
        let name = keys.encrypt_name(BlockId::Data { key_epoch: 0, writer_epoch: 1, counter: 0 }.encode());
        let key = keys.block_key(0, &name, &[0; SALT_BYTES]).expect("the epoch is at hand");
        let context = BlockContext {
            storage: Arc::new(MemoryStorage::new()),
            env: Env::deterministic(0),
            keys: Arc::new(keys),
            geometry: Geometry::new(BLOCK_BYTES as u32).expect("a block size"),
        };
        Bed { reader: BlockReader::new(Arc::new(context)), name: Name::new(name), key }
    })
}

/// Trailer, directory and a whole block: as they are, and sealed by a key holder who writes nonsense.
///
/// The input is the plaintext of a trailer, then that of the directory; the records are zeros.
pub fn block(bytes: &[u8]) {
    if let Ok(trailer) = Trailer::decode(bytes) {
        assert_eq!(trailer.encode(), bytes);
    }
    let bed = bed();
    assert!(bed.reader.open_whole(bed.name, 0, Bytes::copy_from_slice(bytes)).is_err(), "nobody sealed it");

    let (trailer, directory) = bytes.split_at(bytes.len().min(Trailer::BYTES));
    let mut block = vec![0; BLOCK_BYTES];
    block[TRAILER_AT..][..trailer.len()].copy_from_slice(trailer);
    let decoded = Trailer::decode(&block[TRAILER_AT..][..Trailer::BYTES]);
    seal(&mut block[TRAILER_AT..], TRAILER_INDEX, RecordKind::Trailer);
    if let Ok(Trailer { records, directory_offset, .. }) = decoded {
        let start = directory_offset as usize;
        if start + SEAL_BYTES <= TRAILER_AT {
            let room = TRAILER_AT - start - SEAL_BYTES;
            let length = directory.len().min(room);
            block[start..][..length].copy_from_slice(&directory[..length]);
            if let Ok(entries) = decode_directory(&block[start..][..room], records, directory_offset) {
                for entry in entries {
                    let record = &mut block[entry.offset as usize..][..entry.length as usize];
                    seal(record, entry.index.into(), entry.kind);
                }
            }
            seal(&mut block[start..TRAILER_AT], DIRECTORY_INDEX, RecordKind::Directory);
        }
    }
    if let Ok(whole) = bed.reader.open_whole(bed.name, 0, block.into()) {
        assert!(whole.damaged.is_empty());
        assert!(whole.records.iter().all(|(_, payload)| payload.iter().all(|byte| *byte == 0)));
    }
}

fn seal(record: &mut [u8], index: u64, kind: RecordKind) {
    let bed = bed();
    let (plaintext, tag) = record.split_last_chunk_mut::<SEAL_BYTES>().expect("room for a tag");
    let aad = aad(&REPOSITORY, bed.name.as_bytes(), index, kind);
    *tag = bed.key.seal(index, &aad, plaintext).expect("a short record");
}
