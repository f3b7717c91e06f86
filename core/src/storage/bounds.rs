//! The checks that every storage owes its caller, in one place so that all answer alike.

use std::ops::Range;

use super::{Error, ErrorKind, Name, Operation, Result};

/// Refuses a blob of over `block_bytes_max` bytes (clause S13).
///
/// # Errors
/// [`ErrorKind::LimitExceeded`].
pub fn check_blob_bytes(operation: Operation, name: Name, blob_bytes: usize, block_bytes_max: u32) -> Result<()> {
    if u32::try_from(blob_bytes).is_ok_and(|bytes| bytes <= block_bytes_max) {
        return Ok(());
    }
    Err(Error::new(ErrorKind::LimitExceeded, operation, name.to_hex())
        .with_source(format!("{blob_bytes} bytes, at most {block_bytes_max} are allowed")))
}

/// The part of a blob of `blob_bytes` bytes that a `get` answers (clause S3). A range that is wrong in itself is so whatever
/// the maximum; that the blob is absent comes before both.
///
/// # Errors
/// [`ErrorKind::RangeInvalid`] for a range that is backwards or past the end; [`ErrorKind::LimitExceeded`] where the
/// reply would be over `max_bytes`.
pub fn check_range(name: Name, range: Option<Range<u64>>, blob_bytes: u64, max_bytes: u64) -> Result<Range<u64>> {
    let range = range.unwrap_or(0..blob_bytes);
    if range.start > range.end || range.end > blob_bytes {
        return Err(Error::new(ErrorKind::RangeInvalid, Operation::Get, name.to_hex())
            .with_source(format!("{}..{} of {blob_bytes} bytes", range.start, range.end)));
    }
    let reply_bytes = range.end - range.start;
    if reply_bytes > max_bytes {
        return Err(Error::new(ErrorKind::LimitExceeded, Operation::Get, name.to_hex())
            .with_source(format!("a reply of {reply_bytes} bytes, at most {max_bytes} are wanted")));
    }
    Ok(range)
}

/// The answer for a name that is absent (clause S4).
#[must_use]
pub fn not_found(operation: Operation, name: Name) -> Error {
    Error::new(ErrorKind::NotFound, operation, name.to_hex())
}

/// Where the names that start with `prefix` and come after `after` begin and end, both inclusive; `None` where there
/// are none, as for a prefix of over 16 bytes. For storages that keep their names in order.
#[must_use]
pub fn name_range(prefix: &[u8], after: Option<Name>) -> Option<(Name, Name)> {
    let (mut first, mut last) = ([0; Name::BYTES], [u8::MAX; Name::BYTES]);
    first.get_mut(..prefix.len())?.copy_from_slice(prefix);
    last.get_mut(..prefix.len())?.copy_from_slice(prefix);
    if let Some(after) = after {
        let next = u128::from_be_bytes(*after.as_bytes()).checked_add(1)?.to_be_bytes();
        first = first.max(next);
    }
    (first <= last).then_some((Name::new(first), Name::new(last)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: Name = Name::new([7; 16]);

    #[test]
    fn ranges_are_checked_before_the_limit() {
        assert_eq!(check_range(NAME, None, 5, 5).unwrap(), 0..5);
        assert_eq!(check_range(NAME, Some(5..5), 5, 0).unwrap(), 5..5);
        for range in [4..6, 6..6, u64::MAX - 1..u64::MAX] {
            assert_eq!(check_range(NAME, Some(range), 5, 9).unwrap_err().kind(), ErrorKind::RangeInvalid);
        }
        #[allow(clippy::reversed_empty_ranges)]
        let backwards = 3..2;
        assert_eq!(check_range(NAME, Some(backwards), 5, 9).unwrap_err().kind(), ErrorKind::RangeInvalid);
        assert_eq!(check_range(NAME, None, 5, 4).unwrap_err().kind(), ErrorKind::LimitExceeded);
    }

    #[test]
    fn the_largest_blob_passes_and_one_byte_more_does_not() {
        assert!(check_blob_bytes(Operation::Put, NAME, 10, 10).is_ok());
        let error = check_blob_bytes(Operation::Put, NAME, 11, 10).unwrap_err();
        assert_eq!((error.kind(), error.operation()), (ErrorKind::LimitExceeded, Operation::Put));
    }

    #[test]
    fn name_ranges_end_where_the_prefix_ends() {
        let (first, last) = name_range(b"ab", None).unwrap();
        assert_eq!((&first.as_bytes()[..3], &last.as_bytes()[..3]), (&b"ab\0"[..], &b"ab\xff"[..]));
        assert_eq!(name_range(b"ab", Some(last)), None);
        assert_eq!(name_range(b"", Some(Name::new([u8::MAX; 16]))), None);
        assert_eq!(name_range(NAME.as_bytes(), None), Some((NAME, NAME)));
        assert_eq!(name_range(&[0; 17], None), None);
    }
}
