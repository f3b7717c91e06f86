use std::fmt;

/// The name of a blob: 16 opaque bytes, so that a backend cannot leak anything through it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name([u8; Name::BYTES]);

impl Name {
    /// The length of every name.
    pub const BYTES: usize = 16;

    /// A name from its bytes; any bytes are a name.
    #[must_use]
    pub const fn new(bytes: [u8; Name::BYTES]) -> Self {
        Self(bytes)
    }

    /// The bytes of the name.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; Name::BYTES] {
        &self.0
    }

    /// Thirty-two lower-case hexadecimal digits.
    #[must_use]
    pub fn to_hex(&self) -> String {
        // On the path of every call of some storages, so without the formatter.
        let digit = |value: u8| char::from(if value < 10 { b'0' + value } else { b'a' + value - 10 });
        let mut text = String::with_capacity(2 * Self::BYTES);
        for byte in self.0 {
            text.push(digit(byte >> 4));
            text.push(digit(byte & 15));
        }
        text
    }

    /// Reads what [`Name::to_hex`] wrote; anything else (upper case too) is `None`, so that each name has one spelling.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        if digits.len() != 32 {
            return None;
        }
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let mut bytes = [0; Name::BYTES];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let &[high, low] = pair else { return None };
            *byte = digit(high)? << 4 | digit(low)?;
        }
        Some(Self(bytes))
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.to_hex())
    }
}

impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.to_hex())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_round_trips_and_has_one_spelling() {
        let name = Name::new([0x0f; 16]);
        assert_eq!(Name::from_hex(&name.to_hex()), Some(name));
        assert_eq!(Name::from_hex(&name.to_hex().to_uppercase()), None);
        assert_eq!(Name::from_hex("0f"), None);
    }
}
