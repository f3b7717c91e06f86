/// Where a storage is (in work).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageUri;
