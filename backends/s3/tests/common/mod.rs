//! What the suites share: keys, places, registries.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)] // each suite uses a part; a test may

use strongroom_core::storage::{Registry, StorageUri};
use strongroom_s3::{S3Constructor, S3Credentials};
use strongroom_s3_server::{ACCESS_KEY, SECRET_KEY, Server};

pub fn keys() -> S3Credentials {
    S3Credentials::new(ACCESS_KEY, SECRET_KEY)
}

/// With the keys of the server in this process.
pub fn registry() -> Registry {
    let mut registry = Registry::new();
    registry.register("s3", S3Constructor::with_credentials(keys()));
    registry
}

/// With the keys of the environment.
pub fn plain_registry() -> Registry {
    let mut registry = Registry::new();
    strongroom_s3::register(&mut registry);
    registry
}

pub fn uri_at(server: &Server, path: &str, parameters: &str) -> StorageUri {
    StorageUri::parse(&format!("s3://bucket/{path}?endpoint={}{parameters}", server.endpoint())).unwrap()
}
