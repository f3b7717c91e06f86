use super::{BlockKey, NameCipher, Secret, Suite, derive, keyed_hash};

// The contexts are format: changing one letter makes every repository unreadable.
const BLOCK: &str = "Strongroom 2026 epoch secret: block keys";
const HEADER_MAC: &str = "Strongroom 2026 epoch secret: header MAC";
const HEADER_FILL: &str = "Strongroom 2026 epoch secret: header fill";
const SLOT_DIRECTORY: &str = "Strongroom 2026 epoch secret: slot directory";
const NAME: &str = "Strongroom 2026 lifetime secret: names";
const IDENTITY: &str = "Strongroom 2026 lifetime secret: chunk identity";
const BOUNDARY: &str = "Strongroom 2026 lifetime secret: chunk boundaries";
const COMMIT: &str = "Strongroom 2026 lifetime secret: commit hashes";

/// What a slot unwraps: everything else derives from it.
pub struct RootSecret {
    /// The number of the newest key epoch.
    pub key_epoch: u16,
    /// Its 32 random bytes; older epochs are sealed under it.
    pub epoch: Secret,
    /// Made once, kept for life: names, chunk identities and chunk boundaries derive from it.
    pub lifetime: Secret,
}

impl RootSecret {
    /// A second copy, made on purpose.
    #[must_use]
    pub const fn duplicate(&self) -> Self {
        Self { key_epoch: self.key_epoch, epoch: self.epoch.duplicate(), lifetime: self.lifetime.duplicate() }
    }

    /// The key of the header MAC.
    #[must_use]
    pub fn header_mac_key(&self) -> Secret {
        derive(HEADER_MAC, &self.epoch)
    }

    /// The key of the stream that fills a header up to the block size.
    #[must_use]
    pub fn header_fill_key(&self) -> Secret {
        derive(HEADER_FILL, &self.epoch)
    }

    /// The key from which, with a salt of its own, each sealing of a header's slot directory derives its key.
    #[must_use]
    pub fn slot_directory_key(&self) -> Secret {
        derive(SLOT_DIRECTORY, &self.epoch)
    }
}

impl PartialEq for RootSecret {
    fn eq(&self, other: &Self) -> bool {
        // `&`, not `&&`: both comparisons run.
        (self.key_epoch == other.key_epoch) & (self.epoch == other.epoch) & (self.lifetime == other.lifetime)
    }
}

impl Eq for RootSecret {}

/// Every key of an open repository.
///
/// Block keys derive from the secret of their epoch; names, identities, boundaries and commit hashes from the lifetime
/// secret, so that they stay the same across rotation.
pub struct Keys {
    suite: Suite,
    repository: [u8; 16],
    name: NameCipher,
    identity: Secret,
    boundary_seed: u64,
    commit: Secret,
    header_mac: Secret,
    epochs: Vec<(u16, Secret)>,
}

impl Keys {
    /// The keys of a repository from its lifetime secret and the secrets of its epochs, the newest last.
    #[must_use]
    pub fn new(suite: Suite, repository: [u8; 16], lifetime: &Secret, epochs: &[(u16, Secret)]) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = *derive(BOUNDARY, lifetime).expose();
        // Without any epoch nothing can be sealed or opened; the MAC key is a secret all the same.
        let newest = epochs.last().map_or(lifetime, |(_, secret)| secret);
        Self {
            suite,
            repository,
            name: NameCipher::new(&derive(NAME, lifetime)),
            identity: derive(IDENTITY, lifetime),
            boundary_seed: u64::from_le_bytes([a, b, c, d, e, f, g, h]),
            commit: derive(COMMIT, lifetime),
            header_mac: derive(HEADER_MAC, newest),
            epochs: epochs.iter().map(|(epoch, secret)| (*epoch, derive(BLOCK, secret))).collect(),
        }
    }

    /// The keys from what a slot unwrapped; `older` are the epochs before it, oldest first.
    #[must_use]
    pub fn from_root(suite: Suite, repository: [u8; 16], root: &RootSecret, older: &[(u16, Secret)]) -> Self {
        let epochs: Vec<(u16, Secret)> = older
            .iter()
            .map(|(epoch, secret)| (*epoch, secret.duplicate()))
            .chain([(root.key_epoch, root.epoch.duplicate())])
            .collect();
        Self::new(suite, repository, &root.lifetime, &epochs)
    }

    /// The suite that everything is sealed with.
    #[must_use]
    pub const fn suite(&self) -> Suite {
        self.suite
    }

    /// The random id of the repository, part of all associated data.
    #[must_use]
    pub const fn repository(&self) -> &[u8; 16] {
        &self.repository
    }

    /// The epoch that new blocks are sealed under.
    #[must_use]
    pub fn newest_epoch(&self) -> u16 {
        self.epochs.last().map_or(0, |(epoch, _)| *epoch)
    }

    /// The key of one sealing of one block: keyed BLAKE3, under the epoch's block secret, of
    /// `suite u8 ‖ key epoch u16 ‖ name 16 ‖ salt 16`. `None` for an epoch that is not at hand.
    #[must_use]
    pub fn block_key(&self, key_epoch: u16, name: &[u8; 16], salt: &[u8; 16]) -> Option<BlockKey> {
        let (_, secret) = self.epochs.iter().rev().find(|(epoch, _)| *epoch == key_epoch)?;
        let input: [&[u8]; 4] = [&[self.suite.code()], &key_epoch.to_le_bytes(), name, salt];
        Some(BlockKey::new(self.suite, &Secret::from_bytes(keyed_hash(secret, &input))))
    }

    /// The name, in storage, of a name plaintext.
    #[must_use]
    pub fn encrypt_name(&self, plaintext: [u8; 16]) -> [u8; 16] {
        self.name.encrypt(plaintext)
    }

    /// The plaintext of a name in storage; the caller checks whether it means anything.
    #[must_use]
    pub fn decrypt_name(&self, name: [u8; 16]) -> [u8; 16] {
        self.name.decrypt(name)
    }

    /// The identity of a chunk: keyed BLAKE3 of its plaintext. Equal content has equal identity in this repository, and no
    /// one without the key can test a guess.
    #[must_use]
    pub fn identity(&self, plaintext: &[u8]) -> [u8; 32] {
        keyed_hash(&self.identity, &[plaintext])
    }

    /// The seed of the chunker: it makes chunk boundaries, hence chunk lengths, differ between repositories.
    #[must_use]
    pub const fn boundary_seed(&self) -> u64 {
        self.boundary_seed
    }

    /// The hash by which a commit is named in its successor: keyed BLAKE3 of the parts (see [`keyed_hash`]).
    #[must_use]
    pub fn commit_hash(&self, parts: &[&[u8]]) -> [u8; 32] {
        keyed_hash(&self.commit, parts)
    }

    /// The key of the header MAC, from the newest epoch.
    #[must_use]
    pub const fn header_mac_key(&self) -> &Secret {
        &self.header_mac
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(key: &BlockKey) -> [u8; 16] {
        key.seal(0, b"", &mut [0; 8]).unwrap()
    }

    #[test]
    fn epoch_name_salt_and_suite_each_change_the_block_key() {
        let lifetime = Secret::from_bytes([1; 32]);
        let epochs = [(1, Secret::from_bytes([2; 32])), (2, Secret::from_bytes([2; 32]))];
        let keys = Keys::new(Suite::Aes256Gcm, [0; 16], &lifetime, &epochs);
        assert_eq!(keys.newest_epoch(), 2);
        let key = |epoch, name, salt| sealed(&keys.block_key(epoch, &[name; 16], &[salt; 16]).unwrap());
        assert_eq!(key(1, 3, 4), key(1, 3, 4));
        assert_ne!(key(1, 3, 4), key(2, 3, 4));
        assert_ne!(key(1, 3, 4), key(1, 5, 4));
        assert_ne!(key(1, 3, 4), key(1, 3, 5));
        assert!(keys.block_key(3, &[3; 16], &[4; 16]).is_none());
    }

    #[test]
    fn names_identities_and_commit_hashes_outlive_rotation_and_the_header_mac_key_does_not() {
        let root = |epoch| RootSecret {
            key_epoch: u16::from(epoch),
            epoch: Secret::from_bytes([epoch; 32]),
            lifetime: Secret::from_bytes([9; 32]),
        };
        let before = Keys::from_root(Suite::Aes256Gcm, [0; 16], &root(1), &[]);
        let after = Keys::from_root(Suite::Aes256Gcm, [0; 16], &root(2), &[(1, Secret::from_bytes([1; 32]))]);
        assert_eq!(before.encrypt_name([5; 16]), after.encrypt_name([5; 16]));
        assert_eq!(before.identity(b"x"), after.identity(b"x"));
        assert_eq!(before.boundary_seed(), after.boundary_seed());
        assert_eq!(before.commit_hash(&[b"x"]), after.commit_hash(&[b"x"]));
        assert!(before.header_mac_key() != after.header_mac_key());
        assert!(*after.header_mac_key() == root(2).header_mac_key());
        let old_block = |keys: &Keys| sealed(&keys.block_key(1, &[0; 16], &[0; 16]).unwrap());
        assert_eq!(old_block(&before), old_block(&after));
        assert_ne!(before.identity(b"x"), before.commit_hash(&[b"x"]), "each purpose has its own key");
    }
}
