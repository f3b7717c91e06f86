use std::fmt::Write as _;

use zeroize::Zeroizing;

use crate::crypto::{Secret, derive_from};
use crate::env::Env;
use crate::{Error, Result};

/// Crockford's base 32: no I, L, O, U, so that what is read aloud or copied by hand comes back right.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const PREFIX: &str = "SRK1";
const CHECK: &str = "Strongroom 2026 recovery key: check";
/// 32 bytes of key and 3 of check are 280 bits: 56 digits of 5 bits, in 14 groups of 4.
const CHECK_BYTES: usize = 3;
const DIGITS: usize = 56;

/// A recovery key: 256 random bits, for paper. Written as `SRK1-` and fourteen groups of four letters and digits, with a
/// check of 24 bits, so that a slip of the pen is told from a wrong key.
pub struct RecoveryKey(Secret);

impl RecoveryKey {
    /// A fresh key.
    ///
    /// # Errors
    /// [`Error::Random`].
    pub fn generate(env: &Env) -> Result<Self> {
        Ok(Self(Secret::from_bytes(env.random()?)))
    }

    pub(super) const fn secret(&self) -> &Secret {
        &self.0
    }

    /// The text to print.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let check = check(&self.0);
        let mut text = Zeroizing::new(String::with_capacity(PREFIX.len() + DIGITS + DIGITS / 4));
        text.push_str(PREFIX);
        let (mut pending, mut bits, mut digits) = (0_u32, 0, 0);
        for byte in self.0.expose().iter().chain(&check) {
            pending = pending << 8 | u32::from(*byte);
            bits += 8;
            while bits >= 5 {
                bits -= 5;
                if digits % 4 == 0 {
                    text.push('-');
                }
                digits += 1;
                let digit = usize::try_from(pending >> bits & 31).ok().and_then(|at| ALPHABET.get(at));
                let _ = text.write_char(digit.map_or('0', |digit| char::from(*digit)));
            }
            pending &= 31;
        }
        text
    }

    /// Reads what was printed; case, spaces, hyphens, and the look-alikes O, I and L do not matter.
    ///
    /// # Errors
    /// [`Error::Invalid`] for anything that is not a recovery key, one with a slip in it included.
    pub fn from_text(text: &str) -> Result<Self> {
        let invalid = |why: &str| Error::Invalid(format!("not a recovery key: {why}"));
        let compact: Zeroizing<Vec<u8>> = Zeroizing::new(
            text.bytes().filter(|byte| !byte.is_ascii_whitespace() && *byte != b'-').take(DIGITS + 8).collect(),
        );
        let (prefix, digits) = compact.split_at_checked(PREFIX.len()).ok_or_else(|| invalid("it is too short"))?;
        if !prefix.iter().map(|byte| value_of(*byte)).eq(PREFIX.bytes().map(value_of)) {
            return Err(invalid("it starts with SRK1"));
        }
        if digits.len() != DIGITS {
            return Err(invalid("fourteen groups of four follow SRK1"));
        }
        let mut bytes = Zeroizing::new(Vec::with_capacity(Secret::BYTES + CHECK_BYTES));
        let (mut pending, mut bits) = (0_u32, 0);
        for digit in digits {
            pending = pending << 5 | value_of(*digit).ok_or_else(|| invalid("it has a character that none has"))?;
            bits += 5;
            if bits >= 8 {
                bits -= 8;
                bytes.push(u8::try_from(pending >> bits & 0xff).unwrap_or(0));
            }
            pending &= (1 << bits) - 1;
        }
        let (secret, stored) = bytes.split_first_chunk().ok_or_else(|| invalid("it is too short"))?;
        let key = Secret::from_bytes(*secret);
        if check(&key) != stored {
            return Err(invalid("a letter or digit differs from what was printed"));
        }
        Ok(Self(key))
    }
}

fn value_of(digit: u8) -> Option<u32> {
    let digit = match digit.to_ascii_uppercase() {
        b'O' => b'0',
        b'I' | b'L' => b'1',
        other => other,
    };
    ALPHABET.iter().position(|of_alphabet| *of_alphabet == digit).and_then(|at| u32::try_from(at).ok())
}

fn check(key: &Secret) -> [u8; CHECK_BYTES] {
    let [a, b, c, ..] = *derive_from(CHECK, &[key.expose()]).expose();
    [a, b, c]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_slip_of_the_pen_is_told() {
        let text = RecoveryKey::generate(&Env::deterministic(1)).unwrap().to_text();
        assert_eq!(text.len(), 4 + 14 * 5);
        for at in 5..text.len() {
            let mut slipped = text.as_bytes().to_vec();
            if slipped[at] == b'-' {
                continue;
            }
            slipped[at] = if slipped[at] == b'7' { b'8' } else { b'7' };
            assert!(RecoveryKey::from_text(std::str::from_utf8(&slipped).unwrap()).is_err(), "at {at}");
        }
        for bad in ["", "SRK1", "SRK2-0000", "SRK1-ü", &text[..text.len() - 1], &format!("{}0", *text)] {
            assert!(matches!(RecoveryKey::from_text(bad), Err(Error::Invalid(_))), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn keys_round_trip_however_they_are_typed(bytes: [u8; 32]) {
            let key = RecoveryKey(Secret::from_bytes(bytes));
            let text = key.to_text();
            let typed = text.to_lowercase().replace('-', " ").replace('0', "o").replace('1', "l");
            prop_assert!(RecoveryKey::from_text(&text).unwrap().0 == key.0);
            prop_assert!(RecoveryKey::from_text(&typed).unwrap().0 == key.0);
        }
    }
}
