//! Keys and values, through the async API on an executor of your choice; here the smallest there is.
//!
//! `cargo run -p strongroom --example kv [FOLDER]`

use strongroom::kv::prefix;
use strongroom::{CreateOptions, Credentials, Repository, Result};

fn main() -> Result<()> {
    futures_lite::future::block_on(run())
}

async fn run() -> Result<()> {
    let place = std::env::args().nth(1).unwrap_or_else(|| "mem://example".to_owned());
    let options = CreateOptions::new(Credentials::password("correct horse battery staple"));
    let repository = Repository::create(place, options).await?;
    let kv = repository.kv();

    for (name, mail) in [("anna", "anna@example.org"), ("ben", "ben@example.org"), ("carla", "carla@example.org")] {
        kv.put(format!("user/{name}").as_bytes(), mail.as_bytes()).await?;
    }
    kv.put(b"picture", &vec![7; 1 << 20]).await?;
    kv.delete(b"user/ben").await?;

    // In the order of the keys, as they are now: later changes do not show in a scan.
    let mut scan = kv.scan(prefix(b"user/"));
    while let Some((key, value)) = scan.next().await? {
        println!("{} = {}", String::from_utf8_lossy(&key), String::from_utf8_lossy(&value));
    }
    println!("picture: {} bytes", kv.get(b"picture").await?.map_or(0, |picture| picture.len()));
    repository.close().await
}
