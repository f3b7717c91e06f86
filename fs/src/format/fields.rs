use strongroom_core::{Error, Result};

/// Takes fixed-width little-endian fields off the front of a row.
pub(super) struct Fields<'a> {
    structure: &'static str,
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(super) fn new(structure: &'static str, row: &'a [u8]) -> Self {
        Self { structure, rest: row }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or_else(|| self.damaged("row too short"))?;
        self.rest = rest;
        Ok(*head)
    }

    pub(super) fn u8(&mut self) -> Result<u8> {
        self.take::<1>().map(u8::from_le_bytes)
    }

    pub(super) fn u16(&mut self) -> Result<u16> {
        self.take().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32> {
        self.take().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64> {
        self.take().map(u64::from_le_bytes)
    }

    pub(super) fn i64(&mut self) -> Result<i64> {
        self.take().map(i64::from_le_bytes)
    }

    pub(super) fn rest(self) -> &'a [u8] {
        self.rest
    }

    pub(super) fn done(self) -> Result<()> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.damaged("row too long")) }
    }

    pub(super) fn damaged(&self, detail: impl Into<String>) -> Error {
        Error::damaged(self.structure, None, detail)
    }
}
