use crate::crypto::{Secret, SecretBytes, derive_from};
use crate::format::slot::Factors;
use crate::{Error, Result};

const PASSWORD: &str = "Strongroom 2026 credential: password";
const KEY_FILE: &str = "Strongroom 2026 credential: key file";
const RECOVERY: &str = "Strongroom 2026 credential: recovery key";
const MATERIAL: &str = "Strongroom 2026 credential: input key material";

/// The longest password or key file, in bytes.
pub const CREDENTIAL_BYTES_MAX: usize = 1 << 20;

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
        let long = SecretBytes::new(vec![1; CREDENTIAL_BYTES_MAX + 1]);
        assert!(matches!(Credentials::key_file(long).factors(), Err(Error::LimitExceeded { .. })));
    }
}
