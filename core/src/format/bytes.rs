use super::FormatError;

/// Reads a structure from front to back. Nothing is read past the end, nothing is allocated, and [`Reader::finish`] refuses
/// what is left over, so that each value has one spelling.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    structure: &'static str,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader; `structure` names what is read, for errors.
    #[must_use]
    pub const fn new(structure: &'static str, bytes: &'a [u8]) -> Self {
        Self { structure, rest: bytes }
    }

    /// The next `length` bytes.
    ///
    /// # Errors
    /// [`FormatError`] where fewer are left.
    pub fn bytes(&mut self, length: usize) -> Result<&'a [u8], FormatError> {
        let (bytes, rest) = self.rest.split_at_checked(length).ok_or_else(|| self.short(length))?;
        self.rest = rest;
        Ok(bytes)
    }

    /// The next `N` bytes.
    ///
    /// # Errors
    /// As [`Reader::bytes`].
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or_else(|| self.short(N))?;
        self.rest = rest;
        Ok(*bytes)
    }

    /// One byte.
    ///
    /// # Errors
    /// As [`Reader::bytes`].
    pub fn u8(&mut self) -> Result<u8, FormatError> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    /// Two bytes, little-endian.
    ///
    /// # Errors
    /// As [`Reader::bytes`].
    pub fn u16(&mut self) -> Result<u16, FormatError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    /// Four bytes, little-endian.
    ///
    /// # Errors
    /// As [`Reader::bytes`].
    pub fn u32(&mut self) -> Result<u32, FormatError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// Six bytes, little-endian.
    ///
    /// # Errors
    /// As [`Reader::bytes`].
    pub fn u48(&mut self) -> Result<u64, FormatError> {
        let [a, b, c, d, e, f] = self.array()?;
        Ok(u64::from_le_bytes([a, b, c, d, e, f, 0, 0]))
    }

    /// Eight bytes, little-endian.
    ///
    /// # Errors
    /// As [`Reader::bytes`].
    pub fn u64(&mut self) -> Result<u64, FormatError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// Eight bytes, little-endian, two's complement.
    ///
    /// # Errors
    /// As [`Reader::bytes`].
    pub fn i64(&mut self) -> Result<i64, FormatError> {
        Ok(i64::from_le_bytes(self.array()?))
    }

    /// `length` bytes that must be zero: reserved, or padding.
    ///
    /// # Errors
    /// [`FormatError`] where one is not, or fewer are left.
    pub fn zeros(&mut self, length: usize) -> Result<(), FormatError> {
        if self.bytes(length)?.iter().any(|byte| *byte != 0) {
            return Err(self.error("reserved bytes are not zero"));
        }
        Ok(())
    }

    /// How many bytes are left.
    #[must_use]
    pub const fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Everything that is left.
    #[must_use]
    pub const fn take_rest(&mut self) -> &'a [u8] {
        let rest = self.rest;
        self.rest = &[];
        rest
    }

    /// The end: nothing may be left.
    ///
    /// # Errors
    /// [`FormatError`] where something is.
    pub fn finish(self) -> Result<(), FormatError> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.error(format!("{} bytes too many", self.rest.len()))) }
    }

    /// An error of this structure.
    #[must_use]
    pub fn error(&self, reason: impl Into<String>) -> FormatError {
        FormatError::new(self.structure, reason)
    }

    #[cold]
    fn short(&self, wanted: usize) -> FormatError {
        self.error(format!("{wanted} bytes wanted, {} left", self.rest.len()))
    }
}

/// Writes a structure from front to back, into one buffer.
#[derive(Clone, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// A writer with room for `capacity` bytes; it grows where that is not enough.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        Self { bytes: Vec::with_capacity(capacity) }
    }

    /// Bytes as they are.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// One byte.
    pub fn u8(&mut self, value: u8) -> &mut Self {
        self.bytes(&[value])
    }

    /// Two bytes, little-endian.
    pub fn u16(&mut self, value: u16) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    /// Four bytes, little-endian.
    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    /// Six bytes, little-endian: the low 48 bits. The caller has checked that there are no others.
    pub fn u48(&mut self, value: u64) -> &mut Self {
        debug_assert!(value < 1 << 48);
        let [a, b, c, d, e, f, ..] = value.to_le_bytes();
        self.bytes(&[a, b, c, d, e, f])
    }

    /// Eight bytes, little-endian.
    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    /// Eight bytes, little-endian, two's complement.
    pub fn i64(&mut self, value: i64) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    /// `length` zero bytes.
    pub fn zeros(&mut self, length: usize) -> &mut Self {
        self.bytes.resize(self.bytes.len() + length, 0);
        self
    }

    /// How many bytes were written.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing was written.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// What was written so far.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes
    }

    /// What was written.
    #[must_use]
    pub fn into_vec(self) -> Vec<u8> {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_written_reads_back(a: u8, b: u16, c: u32, d in 0..1_u64 << 48, e: u64, f: i64, g: [u8; 5]) {
            let mut writer = Writer::default();
            writer.u8(a).u16(b).u32(c).u48(d).u64(e).i64(f).zeros(3).bytes(&g);
            prop_assert_eq!(writer.len(), 1 + 2 + 4 + 6 + 8 + 8 + 3 + 5);
            let bytes = writer.into_vec();
            let mut reader = Reader::new("test", &bytes);
            prop_assert_eq!(reader.u8().unwrap(), a);
            prop_assert_eq!(reader.u16().unwrap(), b);
            prop_assert_eq!(reader.u32().unwrap(), c);
            prop_assert_eq!(reader.u48().unwrap(), d);
            prop_assert_eq!(reader.u64().unwrap(), e);
            prop_assert_eq!(reader.i64().unwrap(), f);
            reader.zeros(3).unwrap();
            prop_assert_eq!(reader.array::<5>().unwrap(), g);
            reader.finish().unwrap();
        }
    }

    #[test]
    fn integers_are_little_endian() {
        let mut writer = Writer::default();
        writer.u16(0x0201).u32(0x0605_0403).u48(0x0c0b_0a09_0807);
        assert_eq!(writer.as_slice(), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
    }

    #[test]
    fn too_short_too_long_and_not_zero_are_refused_and_named() {
        let mut reader = Reader::new("test", &[1, 2, 3]);
        assert_eq!(reader.u32(), Err(FormatError::new("test", "4 bytes wanted, 3 left")));
        assert!(reader.bytes(usize::MAX).is_err());
        assert!(reader.clone().zeros(3).is_err());
        assert_eq!(reader.u16(), Ok(0x0201), "a refusal takes nothing");
        assert_eq!(reader.finish(), Err(FormatError::new("test", "1 bytes too many")));
    }
}
