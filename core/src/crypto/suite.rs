use std::fmt;
use std::str::FromStr;

use super::CryptoError;

/// The AEAD that a repository is sealed with; chosen at creation, for life. Either opens everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Suite {
    /// AES-256-GCM (NIST SP 800-38D), 96-bit nonce: the faster one where the CPU has AES instructions.
    Aes256Gcm = 1,
    /// XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03), 192-bit nonce: fast, and constant-time, on any CPU.
    XChaCha20Poly1305 = 2,
}

impl Suite {
    /// Both suites.
    pub const ALL: [Self; 2] = [Self::Aes256Gcm, Self::XChaCha20Poly1305];

    /// The suite of a code in the byte format; `None` for one that this version does not know.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Aes256Gcm),
            2 => Some(Self::XChaCha20Poly1305),
            _ => None,
        }
    }

    /// The code in the byte format.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The name that users see and give.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Aes256Gcm => "aes-256-gcm",
            Self::XChaCha20Poly1305 => "xchacha20-poly1305",
        }
    }

    /// The suite for a new repository on this CPU: AES where it has instructions for AES and for GHASH.
    #[must_use]
    pub fn preferred() -> Self {
        if cpu_has_aes() { Self::Aes256Gcm } else { Self::XChaCha20Poly1305 }
    }
}

#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
fn cpu_has_aes() -> bool {
    std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq")
}

#[cfg(target_arch = "aarch64")]
fn cpu_has_aes() -> bool {
    std::arch::is_aarch64_feature_detected!("aes") && std::arch::is_aarch64_feature_detected!("pmull")
}

#[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
fn cpu_has_aes() -> bool {
    false
}

impl fmt::Display for Suite {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for Suite {
    type Err = CryptoError;

    fn from_str(name: &str) -> Result<Self, CryptoError> {
        Self::ALL.into_iter().find(|suite| suite.name() == name).ok_or(CryptoError::UnknownSuite)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_names_round_trip_and_others_are_refused() {
        for suite in Suite::ALL {
            assert_eq!(Suite::from_code(suite.code()), Some(suite));
            assert_eq!(suite.name().parse(), Ok(suite));
        }
        for code in (0..=u8::MAX).filter(|code| !matches!(code, 1 | 2)) {
            assert_eq!(Suite::from_code(code), None);
        }
        assert_eq!("aes".parse::<Suite>(), Err(CryptoError::UnknownSuite));
        assert!(Suite::ALL.contains(&Suite::preferred()));
    }
}
