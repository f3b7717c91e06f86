//! Published vectors, and our own frozen ones: the bytes that this code makes and reads are those of the format.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // in helpers of tests too

use std::path::PathBuf;

use futures_lite::future::block_on;
use serde_json::{Value, json};
use strongroom_core::crypto::{
    BlockKey, CryptoError, KdfParameters, Keys, NameCipher, RootSecret, Secret, SecretBytes, Suite, derive, keyed_hash,
    keyed_stream,
};
use strongroom_core::engine::keyring::{Credentials, Header, RecoveryKey, slots, unlock};
use strongroom_core::env::Env;

fn file(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../conformance/vectors").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    assert_eq!(text.len() % 2, 0);
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn field(value: &Value, name: &str) -> Vec<u8> {
    unhex(value[name].as_str().unwrap())
}

/// What makes a key of a suite: each implementation must pass the same vectors.
type New = fn(Suite, &Secret) -> BlockKey;
const IMPLEMENTATIONS: [New; 2] = [BlockKey::new, BlockKey::portable];

fn wycheproof(name: &str, suite: Suite, nonce_bits: u64, new: New) -> (usize, usize) {
    let vectors: Value = serde_json::from_slice(&file(name)).unwrap();
    let (mut valid, mut invalid) = (0, 0);
    for group in vectors["testGroups"].as_array().unwrap() {
        // Other key and tag sizes cannot be expressed; other nonce sizes are refused.
        if group["keySize"] != 256 || group["tagSize"] != 128 {
            continue;
        }
        for test in group["tests"].as_array().unwrap() {
            let id = &test["tcId"];
            let key = new(suite, &Secret::from_bytes(field(test, "key").try_into().unwrap()));
            let (nonce, aad) = (field(test, "iv"), field(test, "aad"));
            let (plaintext, ciphertext) = (field(test, "msg"), field(test, "ct"));
            if group["ivSize"] != nonce_bits {
                let outcome = key.open_with_nonce(&nonce, &aad, &mut ciphertext.clone(), &[0; 16]);
                assert_eq!(outcome, Err(CryptoError::NonceLength), "test {id}");
                continue;
            }
            let tag: [u8; 16] = field(test, "tag").try_into().unwrap();
            let mut opened = ciphertext.clone();
            let outcome = key.open_with_nonce(&nonce, &aad, &mut opened, &tag);
            let mut sealed = plaintext.clone();
            let sealed_tag = key.seal_with_nonce(&nonce, &aad, &mut sealed).unwrap();
            if test["result"] == "valid" {
                valid += 1;
                assert_eq!(outcome, Ok(()), "test {id}");
                assert_eq!(opened, plaintext, "test {id}");
                assert_eq!((sealed, sealed_tag), (ciphertext, tag), "test {id}");
            } else {
                invalid += 1;
                assert_eq!(outcome, Err(CryptoError::Authentication), "test {id}");
                assert!(opened == ciphertext || opened.iter().all(|byte| *byte == 0), "test {id}: no plaintext");
                assert_ne!((sealed, sealed_tag), (ciphertext, tag), "test {id}");
            }
        }
    }
    (valid, invalid)
}

#[test]
fn aes_256_gcm_agrees_with_wycheproof() {
    for new in IMPLEMENTATIONS {
        let (valid, invalid) = wycheproof("wycheproof/aes_gcm_test.json", Suite::Aes256Gcm, 96, new);
        assert_eq!((valid, invalid), (39, 27), "all of them ran");
    }
}

#[test]
fn xchacha20_poly1305_agrees_with_wycheproof() {
    for new in IMPLEMENTATIONS {
        let (valid, invalid) =
            wycheproof("wycheproof/xchacha20_poly1305_test.json", Suite::XChaCha20Poly1305, 192, new);
        assert_eq!((valid, invalid), (246, 60), "all of them ran");
    }
}

#[test]
fn xchacha20_poly1305_agrees_with_its_draft() {
    // draft-irtf-cfrg-xchacha-03, A.3.1
    let key = BlockKey::new(Suite::XChaCha20Poly1305, &Secret::from_bytes(std::array::from_fn(|at| 0x80 + at as u8)));
    let nonce: Vec<u8> = (0x40..0x58).collect();
    let mut text = *b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, \
        sunscreen would be it.";
    let tag = key.seal_with_nonce(&nonce, &unhex("50515253c0c1c2c3c4c5c6c7"), &mut text).unwrap();
    let expected = "bd6d179d3e83d43b9576579493c0e939572a1700252bfaccbed2902c21396cbb731c7f1b0b4aa6440bf3a82f4eda7e39\
        ae64c6708c54c216cb96b72e1213b4522f8c9ba40db5d945b11b69b982c1bb9e3f3fac2bc369488f76b2383565d3fff921f9664c\
        97637da9768812f615c68b13b52e";
    assert_eq!(hex(&text), expected);
    assert_eq!(hex(&tag), "c0875924c1c7987947deafd8780acf49");
}

/// What the code makes of the inputs written in it.
fn ours() -> Value {
    let secret = Secret::from_bytes(std::array::from_fn(|at| at as u8));
    let lifetime = || Secret::from_bytes([0x11; 32]);
    let epochs = || [(0, Secret::from_bytes([0x22; 32])), (1, Secret::from_bytes([0x33; 32]))];
    let [name, salt] = [[0x44; 16], [0x55; 16]];
    let mut stream = [0; 80];
    keyed_stream(&secret, &[b"key", b"ed"], &mut stream);

    let suites: Vec<Value> = Suite::ALL
        .into_iter()
        .map(|suite| {
            let keys = Keys::new(suite, [0x66; 16], &lifetime(), &epochs());
            let sealings: Vec<Value> = [(0, 0), (0, 1), (1, 0), (1, u64::MAX)]
                .into_iter()
                .map(|(key_epoch, index)| {
                    let mut record = *b"a record";
                    let key = keys.block_key(key_epoch, &name, &salt).unwrap();
                    let tag = key.seal(index, b"associated", &mut record).unwrap();
                    json!({ "key_epoch": key_epoch, "index": index, "sealed": hex(&record), "tag": hex(&tag) })
                })
                .collect();
            json!({ "suite": suite.name(), "code": suite.code(), "sealings_of_a_record": sealings })
        })
        .collect();
    let keys = Keys::new(Suite::Aes256Gcm, [0x66; 16], &lifetime(), &epochs());
    let [_, (_, epoch)] = epochs();
    let root = RootSecret { key_epoch: 1, epoch, lifetime: lifetime() };
    let kdf = KdfParameters { memory_kib: 8 << 10, passes: 2, lanes: 2 };

    json!({
        "derive": hex(derive("Strongroom 2026 test vector", &secret).expose()),
        "keyed_hash": hex(&keyed_hash(&secret, &[b"key", b"ed"])),
        "keyed_stream": hex(&stream),
        "argon2id_of_password_8_mib_2_passes_2_lanes": hex(kdf.run(b"password", &[0x77; 32]).unwrap().expose()),
        "name_cipher": hex(&NameCipher::new(&secret).encrypt(name)),
        "block_keys": suites,
        "encrypted_name": hex(&keys.encrypt_name(name)),
        "identity_of_chunk": hex(&keys.identity(b"chunk")),
        "boundary_seed": keys.boundary_seed(),
        "commit_hash_of_commit": hex(&keys.commit_hash(&[b"com", b"mit"])),
        "header_mac_key": hex(keys.header_mac_key().expose()),
        "header_fill_key": hex(root.header_fill_key().expose()),
        "slot_directory_key": hex(root.slot_directory_key().expose()),
    })
}

#[test]
fn our_derivations_are_the_frozen_ones() {
    let frozen: Value = serde_json::from_slice(&file("crypto.json")).unwrap();
    let made = ours();
    assert!(made == frozen["derivations"], "made instead: {made:#}");
}

#[test]
fn the_frozen_header_opens_with_each_of_its_credentials() {
    let frozen: Value = serde_json::from_slice(&file("crypto.json")).unwrap();
    let frozen = &frozen["header"];
    let header = Header::from_content(&file("header.bin")).unwrap();
    assert_eq!(hex(header.hash()), frozen["hash"].as_str().unwrap());
    assert_eq!(hex(header.repository()), frozen["repository"].as_str().unwrap());
    assert_eq!(header.suite().name(), frozen["suite"].as_str().unwrap());
    assert_eq!(json!(header.block_bytes()), frozen["block_bytes"]);
    assert_eq!(json!(header.generation()), frozen["generation"]);

    let env = Env::deterministic(0);
    let password = || frozen["password"].as_str().unwrap();
    let key_file = || SecretBytes::new(field(frozen, "key_file"));
    let recovery = RecoveryKey::from_text(frozen["recovery_key"].as_str().unwrap()).unwrap();
    for credentials in [
        Credentials::password(password()),
        Credentials::key_file(key_file()),
        Credentials::password(password()).and_key_file(key_file()),
        Credentials::recovery(&recovery),
    ] {
        let root = block_on(unlock(&env, &header, &credentials)).unwrap();
        assert_eq!(json!(root.key_epoch), frozen["key_epoch"]);
        assert_eq!(hex(root.epoch.expose()), frozen["epoch_secret"].as_str().unwrap());
        assert_eq!(hex(root.lifetime.expose()), frozen["lifetime_secret"].as_str().unwrap());
        let listed: Vec<Value> = slots(&header, &root)
            .unwrap()
            .iter()
            .map(|slot| json!({ "index": slot.index, "factors": slot.factors.to_string(), "label": slot.label }))
            .collect();
        assert_eq!(json!(listed), frozen["slots"]);
    }
}

/// As long as the format is unstable, `STRONGROOM_WRITE_VECTORS=1 cargo test -p strongroom-core --test vectors` writes what
/// is made now.
#[test]
fn the_header_vector_is_what_is_made_today() {
    use strongroom_core::engine::keyring::{CreateHeader, NewSlot, build_header};
    use strongroom_core::format::header::Features;

    let env = Env::deterministic(2026);
    let (password, key_file) = ("correct horse battery staple", (0xe0..=0xff).collect::<Vec<u8>>());
    let recovery = RecoveryKey::generate(&env).unwrap();
    let content = || SecretBytes::new(key_file.clone());
    let credentials = [
        Credentials::password(password),
        Credentials::key_file(content()),
        Credentials::password(password).and_key_file(content()),
        Credentials::recovery(&recovery),
    ];
    let labels = ["typed", "carried", "both", "päper"];
    let slots: Vec<_> =
        credentials.iter().zip(labels).map(|(credentials, label)| NewSlot { credentials, label }).collect();
    let options = CreateHeader {
        suite: Suite::XChaCha20Poly1305,
        block_bytes: 128 << 10,
        kdf: KdfParameters::MINIMUM,
        features: Features::default(),
        slots: &slots,
    };
    let (header, root) = block_on(build_header(&env, &options)).unwrap();
    let listed: Vec<Value> = strongroom_core::engine::keyring::slots(&header, &root)
        .unwrap()
        .iter()
        .map(|slot| json!({ "index": slot.index, "factors": slot.factors.to_string(), "label": slot.label }))
        .collect();
    let vectors = json!({
        "derivations": ours(),
        "header": {
            "suite": header.suite().name(),
            "block_bytes": header.block_bytes(),
            "generation": header.generation(),
            "repository": hex(header.repository()),
            "hash": hex(header.hash()),
            "password": password,
            "key_file": hex(&key_file),
            "recovery_key": recovery.to_text().as_str(),
            "key_epoch": root.key_epoch,
            "epoch_secret": hex(root.epoch.expose()),
            "lifetime_secret": hex(root.lifetime.expose()),
            "slots": listed,
        },
    });
    if std::env::var_os("STRONGROOM_WRITE_VECTORS").is_some() {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../conformance/vectors");
        std::fs::write(folder.join("header.bin"), header.content()).unwrap();
        std::fs::write(folder.join("crypto.json"), format!("{vectors:#}\n")).unwrap();
    }
    let frozen: Value = serde_json::from_slice(&file("crypto.json")).unwrap();
    assert_eq!(vectors, frozen);
    assert_eq!(file("header.bin"), header.content().as_ref());
}
