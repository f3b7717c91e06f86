//! Everything has a limit, stated here and in `docs/format.md`, and checked on both sides of the boundary.

use super::FormatError;

/// The version of the format. 0 is unstable: it becomes 1 when the format is frozen.
pub const FORMAT_VERSION: u16 = 0;

/// The smallest block, in bytes: what a header's content takes.
pub const BLOCK_BYTES_MIN: u32 = 4 << 10;
/// The largest block, in bytes.
pub const BLOCK_BYTES_MAX: u32 = 4 << 20;

/// The longest payload of a chunk, in bytes; less in the smallest blocks.
pub const CHUNK_BYTES_MAX: usize = 256 << 10;

/// The content of a header, in bytes; the rest of its block is fill.
pub const HEADER_BYTES: usize = 4 << 10;
/// Copies of each header.
pub const HEADER_COPIES_COUNT: u8 = 2;
/// The generation of the first header.
pub const HEADER_GENERATION_MIN: u64 = 1;
/// The largest generation of a header: seven bytes of its name.
pub const HEADER_GENERATION_MAX: u64 = (1 << 56) - 1;
/// Slots in a header.
pub const SLOTS_COUNT: usize = 8;
/// The longest label of a slot, in bytes of UTF-8.
pub const SLOT_LABEL_BYTES_MAX: usize = 48;

/// Checks a block size: a power of two, 4 KiB to 4 MiB.
///
/// # Errors
/// [`FormatError`] for anything else.
pub fn check_block_bytes(block_bytes: u32) -> Result<(), FormatError> {
    if block_bytes.is_power_of_two() && (BLOCK_BYTES_MIN..=BLOCK_BYTES_MAX).contains(&block_bytes) {
        return Ok(());
    }
    Err(FormatError::new(
        "block size",
        format!("{block_bytes} bytes, allowed are powers of two from {BLOCK_BYTES_MIN} to {BLOCK_BYTES_MAX}"),
    ))
}

/// The largest tree node, in bytes, in blocks of a (checked) size.
#[must_use]
pub const fn node_bytes_max(block_bytes: u32) -> u32 {
    if block_bytes / 4 < 4096 { block_bytes / 4 } else { 4096 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_sizes_are_powers_of_two_from_4_kib_to_4_mib() {
        for shift in 0..32 {
            assert_eq!(check_block_bytes(1 << shift).is_ok(), (12..=22).contains(&shift));
        }
        for bad in [0, 4095, 4097, 12 << 10, u32::MAX] {
            assert!(check_block_bytes(bad).is_err());
        }
        assert_eq!(node_bytes_max(4 << 10), 1 << 10);
        assert_eq!(node_bytes_max(1 << 20), 4 << 10);
    }
}
