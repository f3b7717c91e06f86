use bech32::primitives::checksum::Engine;
use bech32::{Bech32m, Fe32};
use zeroize::Zeroizing;

use crate::crypto::Secret;
use crate::env::Env;
use crate::{Error, Result};

/// Crockford's base 32: no I, L, O, U, so that what is read aloud or copied by hand comes back right.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// What it is, and the version of the spelling.
const PREFIX: &[u8; 4] = b"SRK1";
/// 256 bits in digits of 5, the last 4 bits zero.
const KEY_DIGITS: usize = 52;
const CHECK_DIGITS: usize = 6;
const GROUP_DIGITS: usize = 4;
/// Prefix, 13 groups of four, and the check, with hyphens between them.
const TEXT_BYTES: usize = PREFIX.len() + KEY_DIGITS / GROUP_DIGITS * (1 + GROUP_DIGITS) + 1 + CHECK_DIGITS;

/// A recovery key: 256 random bits, for paper. Written as `SRK1-`, thirteen groups of four letters and digits, and a check of
/// six: the checksum of Bech32m (BIP 350), which is sure to tell up to four wrong characters, two that were swapped among
/// them, so that a slip of the pen is told from a wrong key before a slot is tried.
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
        let digits = digits_of(&self.0);
        // And the end of a line: what grows is moved, and leaves a copy behind.
        let mut text = Zeroizing::new(String::with_capacity(TEXT_BYTES + 1));
        text.extend(PREFIX.iter().map(|digit| char::from(*digit)));
        let mut checksum = checksum_of(digits.as_ref());
        checksum.input_target_residue();
        let check = (0..CHECK_DIGITS).rev().map(|at| u8::try_from(*checksum.residue() >> (5 * at) & 31).unwrap_or(0));
        let check: Zeroizing<Vec<u8>> = Zeroizing::new(check.collect());
        for group in digits.chunks(GROUP_DIGITS).chain([check.as_slice()]) {
            text.push('-');
            for value in group {
                text.push(ALPHABET.get(usize::from(*value)).map_or('0', |digit| char::from(*digit)));
            }
        }
        text
    }

    /// Reads what was printed; case, spaces, hyphens, and the look-alikes O, I and L do not matter.
    ///
    /// # Errors
    /// [`Error::Invalid`] for anything that is not a recovery key, one with a slip in it included.
    pub fn from_text(text: &str) -> Result<Self> {
        let invalid = |why: &str| Error::Invalid(format!("not a recovery key: {why}"));
        let mut values = Zeroizing::new([0; PREFIX.len() + KEY_DIGITS + CHECK_DIGITS]);
        let mut places = values.iter_mut();
        for character in text.chars().filter(|character| !character.is_whitespace() && *character != '-') {
            let place = places.next().ok_or_else(|| invalid("it is too long"))?;
            *place = u8::try_from(character)
                .ok()
                .and_then(value_of)
                .ok_or_else(|| invalid("it has a character that none has: look at it again"))?;
        }
        if places.next().is_some() {
            return Err(invalid("it is too short: thirteen groups of four and one of six follow SRK1"));
        }
        let (prefix, rest) = values.split_at_checked(PREFIX.len()).unwrap_or_default();
        if !prefix.iter().copied().map(Some).eq(PREFIX.iter().map(|digit| value_of(*digit))) {
            return Err(invalid("it starts with SRK1"));
        }
        let slip = || invalid("a letter or digit is not what was printed, or two are swapped: look at it again");
        if *checksum_of(rest).residue() != <Bech32m as bech32::Checksum>::TARGET_RESIDUE {
            return Err(slip());
        }
        let mut bytes = Zeroizing::new([0; Secret::BYTES]);
        let mut places = bytes.iter_mut();
        let (mut pending, mut bits) = (0_u32, 0);
        for value in rest.iter().take(KEY_DIGITS) {
            pending = pending << 5 | u32::from(*value);
            bits += 5;
            if bits >= 8 {
                bits -= 8;
                if let Some(place) = places.next() {
                    *place = u8::try_from(pending >> bits & 0xff).unwrap_or(0);
                }
            }
            pending &= (1 << bits) - 1;
        }
        // Each key has one spelling.
        if pending != 0 {
            return Err(slip());
        }
        Ok(Self(Secret::from_bytes(*bytes)))
    }
}

/// The key in digits, most significant first, the last filled up with zeros.
fn digits_of(key: &Secret) -> Zeroizing<[u8; KEY_DIGITS]> {
    let mut digits = Zeroizing::new([0; KEY_DIGITS]);
    let mut places = digits.iter_mut();
    let (mut pending, mut bits) = (0_u32, 0);
    for byte in key.expose().iter().copied().chain([0]) {
        pending = pending << 8 | u32::from(byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            if let Some(place) = places.next() {
                *place = u8::try_from(pending >> bits & 31).unwrap_or(0);
            }
        }
        pending &= (1 << bits) - 1;
    }
    digits
}

/// The checksum of the prefix and these digits.
fn checksum_of(digits: &[u8]) -> Engine<Bech32m> {
    let mut engine = Engine::new();
    for value in PREFIX.iter().filter_map(|digit| value_of(*digit)).chain(digits.iter().copied()) {
        // Every value is below 32.
        engine.input_fe(Fe32::try_from(value).unwrap_or(Fe32::Q));
    }
    engine
}

fn value_of(digit: u8) -> Option<u8> {
    let digit = match digit.to_ascii_uppercase() {
        b'O' => b'0',
        b'I' | b'L' => b'1',
        other => other,
    };
    ALPHABET.iter().position(|of_alphabet| *of_alphabet == digit).and_then(|at| u8::try_from(at).ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample() -> Zeroizing<String> {
        RecoveryKey::generate(&Env::deterministic(1)).unwrap().to_text()
    }

    fn reads(text: &[u8]) -> bool {
        RecoveryKey::from_text(std::str::from_utf8(text).unwrap()).is_ok()
    }

    #[test]
    fn it_is_printed_in_groups_that_a_person_can_copy() {
        let text = sample();
        assert_eq!(text.len(), TEXT_BYTES);
        let groups: Vec<usize> = text.split('-').map(str::len).collect();
        assert_eq!(groups, [&[4; 14][..], &[6]].concat());
        assert!(text.starts_with("SRK1-"));
        assert!(text.bytes().all(|byte| byte == b'-' || ALPHABET.contains(&byte)));
    }

    #[test]
    fn every_single_wrong_character_is_told() {
        let text = sample();
        for at in (0..text.len()).filter(|at| text.as_bytes()[*at] != b'-') {
            for other in ALPHABET.iter().filter(|other| **other != text.as_bytes()[at]) {
                let mut slipped = text.as_bytes().to_vec();
                slipped[at] = *other;
                assert!(!reads(&slipped), "{} at {at}", char::from(*other));
            }
        }
    }

    #[test]
    fn every_swap_is_told_whether_of_neighbours_or_of_groups() {
        let text = sample();
        for (one, a) in text.bytes().enumerate() {
            for (other, b) in text.bytes().enumerate().skip(one + 1) {
                let mut swapped = text.as_bytes().to_vec();
                swapped.swap(one, other);
                let same = a == b || a == b'-' || b == b'-';
                assert!(same || !reads(&swapped), "{one} and {other}");
            }
        }
        let groups: Vec<&str> = text.split('-').collect();
        for at in 1..13 {
            let mut swapped = groups.clone();
            swapped.swap(at, at + 1);
            assert!(!reads(swapped.join("-").as_bytes()), "group {at}");
        }
    }

    #[test]
    fn what_is_no_recovery_key_is_refused_with_a_reason() {
        let text = sample();
        let too_long = format!("{}0", *text);
        for (bad, reason) in [
            ("", "too short"),
            ("SRK1", "too short"),
            ("SRK2-0000", "too short"),
            (&text.replace("SRK1", "SRK2"), "starts with"),
            (&text.replace('-', "\u{fc}"), "character"),
            (&text.replace('-', "_"), "character"),
            (&text[..text.len() - 1], "too short"),
            (&too_long, "too long"),
        ] {
            let Err(Error::Invalid(message)) = RecoveryKey::from_text(bad) else { panic!("{bad}") };
            assert!(message.contains(reason), "{bad}: {message}");
            assert!(bad.len() < 20 || !message.contains(&bad[10..20]), "it is not repeated: {message}");
        }
    }

    #[test]
    fn a_key_has_one_spelling() {
        // The last digit of the key holds one bit of it: the other four are zero.
        let text = sample();
        let at = text.len() - CHECK_DIGITS - 2;
        let digit = value_of(text.as_bytes()[at]).unwrap();
        assert_eq!(digit & 15, 0);
        let mut digits = digits_of(&RecoveryKey::from_text(&text).unwrap().0);
        digits[KEY_DIGITS - 1] |= 1;
        let mut checksum = checksum_of(digits.as_ref());
        checksum.input_target_residue();
        let check = (0..CHECK_DIGITS).rev().map(|at| (*checksum.residue() >> (5 * at) & 31) as u8);
        let other: String =
            digits.iter().copied().chain(check).map(|value| char::from(ALPHABET[usize::from(value)])).collect();
        assert!(!reads(format!("SRK1{other}").as_bytes()));
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

        #[test]
        fn up_to_four_wrong_characters_are_told(bytes: [u8; 32], slips in proptest::collection::vec((4_usize..62, 1_u8..32), 1..=4)) {
            let compact: Vec<u8> = RecoveryKey(Secret::from_bytes(bytes)).to_text().bytes().filter(|byte| *byte != b'-').collect();
            let mut slipped = compact.clone();
            for (at, by) in slips {
                slipped[at] = ALPHABET[usize::from(value_of(slipped[at]).unwrap() ^ by)];
            }
            prop_assume!(slipped != compact);
            prop_assert!(!reads(&slipped));
        }
    }
}
