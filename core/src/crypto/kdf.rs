use argon2::{Algorithm, Argon2, Block, Params, Version};
use zeroize::Zeroizing;

use super::{CryptoError, Secret};

/// The cost of one attempt at a password: Argon2id (RFC 9106), version 0x13. They stand in the header in the clear, so
/// they are checked before anything is allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KdfParameters {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes over the memory.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
}

impl KdfParameters {
    /// The least memory, in KiB: 8 MiB.
    pub const MEMORY_KIB_MIN: u32 = 8 << 10;
    /// The most memory, in KiB: 1 GiB. A hostile header cannot make an opener allocate more.
    pub const MEMORY_KIB_MAX: u32 = 1 << 20;
    /// The most passes.
    pub const PASSES_MAX: u32 = 16;
    /// The most lanes.
    pub const LANES_MAX: u32 = 8;

    /// The floor: for tests, and for high-entropy secrets on constrained devices.
    pub const MINIMUM: Self = Self { memory_kib: Self::MEMORY_KIB_MIN, passes: 1, lanes: 1 };
    /// The memory and passes of the second choice of RFC 9106. One lane: lanes are computed one after the other here, so
    /// that more of them would help an attacker alone.
    pub const DEFAULT: Self = Self { memory_kib: 64 << 10, passes: 3, lanes: 1 };

    /// Checks floors and ceilings.
    ///
    /// # Errors
    /// [`CryptoError::KdfOutOfBounds`], naming the first parameter that is outside.
    pub fn validate(&self) -> Result<(), CryptoError> {
        let bounds = [
            ("memory_kib", self.memory_kib, Self::MEMORY_KIB_MIN, Self::MEMORY_KIB_MAX),
            ("passes", self.passes, 1, Self::PASSES_MAX),
            ("lanes", self.lanes, 1, Self::LANES_MAX),
        ];
        for (what, value, minimum, maximum) in bounds {
            if !(minimum..=maximum).contains(&value) {
                return Err(CryptoError::KdfOutOfBounds { what, value, minimum, maximum });
            }
        }
        Ok(())
    }

    /// Argon2id of the password and the salt, 32 bytes. Takes the memory and the time that the parameters say: run it on
    /// a worker.
    ///
    /// # Errors
    /// [`CryptoError::KdfOutOfBounds`] before anything is allocated; [`CryptoError::KdfFailed`] where the memory is not to
    /// be had.
    pub fn run(&self, password: &[u8], salt: &[u8; 32]) -> Result<Secret, CryptoError> {
        self.validate()?;
        let parameters = Params::new(self.memory_kib, self.passes, self.lanes, Some(Secret::BYTES))
            .map_err(|_| CryptoError::KdfFailed)?;
        // Erased like the output, which is one hash away from the last of these blocks: an allocator may keep them.
        let mut memory: Zeroizing<Vec<Block>> = Zeroizing::default();
        memory.try_reserve_exact(parameters.block_count()).map_err(|_| CryptoError::KdfFailed)?;
        memory.resize(parameters.block_count(), Block::new());
        let mut output = Zeroizing::new([0; Secret::BYTES]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, parameters)
            .hash_password_into_with_memory(password, salt, output.as_mut(), memory.as_mut_slice())
            .map_err(|_| CryptoError::KdfFailed)?;
        Ok(Secret::from_bytes(*output))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_parameter_has_a_floor_and_a_ceiling() {
        for parameters in [KdfParameters::MINIMUM, KdfParameters::DEFAULT] {
            assert_eq!(parameters.validate(), Ok(()));
        }
        let good = KdfParameters::MINIMUM;
        for bad in [
            KdfParameters { memory_kib: 0, ..good },
            KdfParameters { memory_kib: KdfParameters::MEMORY_KIB_MIN - 1, ..good },
            KdfParameters { memory_kib: KdfParameters::MEMORY_KIB_MAX + 1, ..good },
            KdfParameters { memory_kib: u32::MAX, ..good },
            KdfParameters { passes: 0, ..good },
            KdfParameters { passes: 17, ..good },
            KdfParameters { lanes: 0, ..good },
            KdfParameters { lanes: 9, ..good },
            KdfParameters { lanes: u32::MAX, ..good },
        ] {
            assert!(matches!(bad.run(b"", &[0; 32]), Err(CryptoError::KdfOutOfBounds { .. })), "{bad:?}");
        }
    }

    #[test]
    fn password_salt_and_every_parameter_change_the_output() {
        let good = KdfParameters::MINIMUM;
        let output = good.run(b"password", &[1; 32]).unwrap();
        assert!(output == good.run(b"password", &[1; 32]).unwrap());
        assert!(output != good.run(b"passwore", &[1; 32]).unwrap());
        assert!(output != good.run(b"password", &[2; 32]).unwrap());
        for other in [
            KdfParameters { memory_kib: good.memory_kib + 1024, ..good },
            KdfParameters { passes: 2, ..good },
            KdfParameters { lanes: 2, ..good },
        ] {
            assert!(output != other.run(b"password", &[1; 32]).unwrap());
        }
    }
}
