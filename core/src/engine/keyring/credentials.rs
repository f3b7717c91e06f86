use crate::crypto::{Secret, SecretBytes, derive_from};
use crate::format::slot::Factors;
use crate::{Error, Result};

const PASSWORD: &str = "Strongroom 2026 credential: password";
const KEY_FILE: &str = "Strongroom 2026 credential: key file";
const RECOVERY: &str = "Strongroom 2026 credential: recovery key";
const MATERIAL: &str = "Strongroom 2026 credential: input key material";

/// The longest password or key file, in bytes.
pub const CREDENTIAL_BYTES_MAX: usize = 1 << 20;

/// The shortest key file that a new slot is made with, in bytes: one that is shorter could be guessed.
pub const KEY_FILE_BYTES_MIN: usize = 32;

/// What a user gives to open a repository: every factor that is there is needed. It opens the slots made with exactly
/// these factors. Bytes are taken as they are: normalising what a keyboard gives is the front's.
#[derive(Default)]
pub struct Credentials {
    /// A password.
    pub password: Option<SecretBytes>,
    /// The content of a key file.
    pub key_file: Option<SecretBytes>,
    /// The bytes of a recovery key: see [`super::RecoveryKey`].
    pub recovery: Option<SecretBytes>,
}

impl Credentials {
    /// A password alone.
    pub fn password(password: impl Into<SecretBytes>) -> Self {
        Self { password: Some(password.into()), ..Self::default() }
    }

    /// A key file alone.
    pub fn key_file(content: impl Into<SecretBytes>) -> Self {
        Self { key_file: Some(content.into()), ..Self::default() }
    }

    /// A recovery key alone.
    #[must_use]
    pub fn recovery(key: &super::RecoveryKey) -> Self {
        Self { recovery: Some(SecretBytes::new(key.secret().expose().to_vec())), ..Self::default() }
    }

    /// These and a key file.
    #[must_use]
    pub fn and_key_file(self, content: impl Into<SecretBytes>) -> Self {
        Self { key_file: Some(content.into()), ..self }
    }

    /// The factors that are there.
    ///
    /// # Errors
    /// [`Error::Invalid`] where there is none, or an empty one; [`Error::LimitExceeded`] for one that is too long.
    pub fn factors(&self) -> Result<Factors> {
        let mut code = 0;
        for (factor, value) in self.all() {
            let Some(value) = value else { continue };
            let length = value.expose().len();
            if length == 0 {
                return Err(Error::Invalid(format!("the {factor} is empty")));
            }
            if length > CREDENTIAL_BYTES_MAX {
                let (value, limit) = (length as u64, CREDENTIAL_BYTES_MAX as u64);
                return Err(Error::LimitExceeded { what: "credential_bytes", value, limit });
            }
            code |= factor.code();
        }
        Factors::from_code(code).ok_or_else(|| Error::Invalid("no credentials were given".to_owned()))
    }

    /// The factors, where they may get a slot: what opens one may be weaker, since it was made already.
    ///
    /// # Errors
    /// As [`Credentials::factors`]; [`Error::Invalid`] for a key file under [`KEY_FILE_BYTES_MIN`].
    pub fn check_strength(&self) -> Result<Factors> {
        let factors = self.factors()?;
        match self.key_file.as_ref().map(|content| content.expose().len()) {
            Some(length) if length < KEY_FILE_BYTES_MIN => Err(Error::Invalid(format!(
                "the key file has {length} bytes: it could be guessed, take one of {KEY_FILE_BYTES_MIN} bytes or more"
            ))),
            _ => Ok(factors),
        }
    }

    /// What enters the password-based key derivation: fixed-width, so that no combination of factors can be mistaken for
    /// another.
    pub(super) fn material(&self) -> Result<Secret> {
        let factors = self.factors()?;
        let hash = |context, value: &Option<SecretBytes>| {
            value.as_ref().map_or(Secret::from_bytes([0; 32]), |value| derive_from(context, &[value.expose()]))
        };
        let password = hash(PASSWORD, &self.password);
        let key_file = hash(KEY_FILE, &self.key_file);
        let recovery = hash(RECOVERY, &self.recovery);
        let parts: [&[u8]; 4] = [&[factors.code()], password.expose(), key_file.expose(), recovery.expose()];
        Ok(derive_from(MATERIAL, &parts))
    }

    fn all(&self) -> [(Factors, Option<&SecretBytes>); 3] {
        [
            (Factors::PASSWORD, self.password.as_ref()),
            (Factors::KEY_FILE, self.key_file.as_ref()),
            (Factors::RECOVERY, self.recovery.as_ref()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_combination_of_factors_is_other_material() {
        let of = |text: &str| Some(SecretBytes::from(text));
        let materials: Vec<Secret> = (1..8)
            .map(|code: u8| {
                let present = |bit: u8| if code & bit == 0 { None } else { of("same") };
                let credentials = Credentials { password: present(1), key_file: present(2), recovery: present(4) };
                assert_eq!(credentials.factors().unwrap().code(), code);
                credentials.material().unwrap()
            })
            .collect();
        for (at, left) in materials.iter().enumerate() {
            assert!(materials.iter().skip(at + 1).all(|right| left != right));
        }
    }

    #[test]
    fn no_factor_an_empty_one_and_one_too_long_are_refused() {
        assert!(matches!(Credentials::default().factors(), Err(Error::Invalid(_))));
        assert!(matches!(Credentials::password("").factors(), Err(Error::Invalid(_))));
        assert!(matches!(Credentials::password("p").and_key_file("").factors(), Err(Error::Invalid(_))));
        let file = |bytes| Credentials::key_file(SecretBytes::new(vec![1; bytes]));
        assert!(matches!(file(CREDENTIAL_BYTES_MAX + 1).factors(), Err(Error::LimitExceeded { .. })));
        assert!(file(CREDENTIAL_BYTES_MAX).factors().is_ok());
    }

    #[test]
    fn a_short_key_file_opens_what_it_opened_and_gets_no_new_slot() {
        let file = |bytes| Credentials::key_file(SecretBytes::new(vec![1; bytes]));
        assert!(file(KEY_FILE_BYTES_MIN - 1).factors().is_ok());
        assert!(matches!(file(KEY_FILE_BYTES_MIN - 1).check_strength(), Err(Error::Invalid(_))));
        assert_eq!(file(KEY_FILE_BYTES_MIN).check_strength().unwrap(), Factors::KEY_FILE);
        // Beside a password it is still meant to be a factor of its own.
        assert!(matches!(Credentials::password("p").and_key_file("short").check_strength(), Err(Error::Invalid(_))));
    }
}
