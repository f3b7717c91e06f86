//! `strongroom-s3-server [ADDRESS [BUCKET…]]`: the server of the tests, until it is killed. Its first line says where it listens.

use std::error::Error;
use std::io::Write as _;

use strongroom_s3_server::{ACCESS_KEY, SECRET_KEY, Server, ServerOptions};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut options = ServerOptions::default();
    if let Some(address) = arguments.next() {
        options.address =
            address.parse().map_err(|error| format!("{address} is no address such as 127.0.0.1:9000: {error}"))?;
    }
    let buckets: Vec<String> = arguments.collect();
    if !buckets.is_empty() {
        options.buckets = buckets;
    }
    let buckets = options.buckets.join(", ");
    let server = Server::start(options)?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", server.endpoint())?;
    writeln!(out, "buckets {buckets}; AWS_ACCESS_KEY_ID={ACCESS_KEY} AWS_SECRET_ACCESS_KEY={SECRET_KEY}")?;
    out.flush()?;
    loop {
        std::thread::park();
    }
}
