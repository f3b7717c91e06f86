//! What whoever runs the storage sees of a folder.

use crate::common::Scratch;
use crate::common::raw::is_noise;

#[test]
fn stored_bytes_and_names_are_noise_of_one_size_without_a_trace_of_what_is_in_them() {
    is_noise(&Scratch::with_repository(), 200);
}
