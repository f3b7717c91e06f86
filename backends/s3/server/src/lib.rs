//! An S3 server in memory, for tests: exact conditional puts, verified signatures, pages, ranges, and faults when it is told to.
//!
//! ```
//! use strongroom_s3_server::{Fault, Server, ServerOptions, Verb};
//!
//! let mut server = Server::start(ServerOptions::default())?;
//! server.faults().next(&[Verb::Put], Fault::LostReply); // the next put takes effect, and is not answered
//! server.restart()?; // same port, same buckets
//! assert!(server.endpoint().starts_with("http://127.0.0.1:"));
//! assert!(server.keys("bucket").is_empty());
//! # Ok::<(), std::io::Error>(())
//! ```

mod bill;
mod faults;
mod server;
mod service;
mod signature;
mod text;
mod tls;
mod under_way;
mod world;

pub use bill::{Bill, Prices};
pub use faults::{Fault, Faults, Verb};
pub use server::{ACCESS_KEY, SECRET_KEY, Seen, Server, ServerOptions, Traffic};
pub use tls::Tls;
pub use world::Conditional;
