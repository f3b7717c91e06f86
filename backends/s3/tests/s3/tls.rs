//! TLS, by a certificate whose authority is trusted or not, and buckets that are hosts.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;

use strongroom_s3_server::{ACCESS_KEY, SECRET_KEY, Server, ServerOptions, Tls};

/// What a process says that opens a storage in this environment, trusting this authority alone.
fn opened(uri: &str, trusted: &Tls, variables: &[(&str, &str)]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("authorities.pem");
    std::fs::write(&file, trusted.authority_pem()).unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "faults::opens_with_the_environment", "--include-ignored", "--nocapture"])
        .env_clear()
        .env("HOME", "/nonexistent")
        .env("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        .env("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
        .env("SSL_CERT_FILE", &file)
        .env("OPEN", uri)
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn server(tls: &Tls) -> Server {
    let virtual_host = Some("s3.test".to_owned());
    Server::start(ServerOptions { tls: Some(tls.clone()), virtual_host, ..ServerOptions::default() }).unwrap()
}

#[test]
fn a_server_is_asked_by_tls_where_its_authority_is_trusted_and_the_certificate_is_its_own() {
    let (here, elsewhere) = (Tls::new(&["127.0.0.1"]).unwrap(), Tls::new(&["elsewhere.test"]).unwrap());
    for (shown, trusted, is_open) in [(&here, &here, true), (&here, &elsewhere, false), (&elsewhere, &elsewhere, false)]
    {
        let server = server(shown);
        assert!(server.endpoint().starts_with("https://127.0.0.1:"));
        let text = opened(&format!("s3://bucket/p?endpoint={}", server.endpoint()), trusted, &[]);
        if is_open {
            assert!(text.contains("it is open"), "{text}");
            assert_eq!(server.keys("bucket"), ["p/strongroom-storage"]);
        } else {
            assert!(text.contains("Other: ") && text.contains("certificate of the endpoint is not trusted"), "{text}");
            assert!(server.take_seen().is_empty());
        }
    }
}

/// A proxy that lets connections through to a server, whatever host they ask for; answers where it is, and what was asked for.
fn tunnel(server: &Server) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (to, asked) = (server.endpoint().replace("https://", ""), Arc::<Mutex<Vec<String>>>::default());
    let asked_of_it = asked.clone();
    // Ends with the process. A connection that ends early is its client's affair.
    thread::spawn(move || {
        for near in listener.incoming().flatten() {
            let (to, asked) = (to.clone(), asked_of_it.clone());
            thread::spawn(move || carry(near, &to, &asked));
        }
    });
    (address, asked)
}

/// One connection, from the request for a way there on.
fn carry(mut near: TcpStream, to: &str, asked: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut far = TcpStream::connect(to)?;
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        near.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let line = String::from_utf8_lossy(&head).lines().next().unwrap_or_default().to_owned();
    asked.lock().unwrap().push(line);
    near.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
    let (mut back, mut forth) = (far.try_clone()?, near.try_clone()?);
    thread::spawn(move || {
        let _ = std::io::copy(&mut back, &mut near);
        let _ = near.shutdown(Shutdown::Both);
    });
    let _ = std::io::copy(&mut forth, &mut far);
    far.shutdown(Shutdown::Both)
}

#[test]
fn a_bucket_that_is_a_host_is_asked_under_its_own_name() {
    let tls = Tls::new(&["bucket.s3.test"]).unwrap();
    let server = server(&tls);
    // Nobody knows that name: it is a proxy that is asked for the way there.
    let (proxy, asked) = tunnel(&server);
    let uri = "s3://bucket/p?endpoint=https://s3.test&addressing=virtual";
    let text = opened(uri, &tls, &[("HTTPS_PROXY", &proxy)]);
    assert!(text.contains("it is open"), "{text}");
    assert_eq!(server.keys("bucket"), ["p/strongroom-storage"]);
    let seen = server.take_seen();
    assert!(seen.len() > 100 && seen.iter().all(|seen| seen.host == "bucket.s3.test"), "{seen:?}");
    assert!(seen.iter().all(|seen| seen.path == "/" || seen.path.starts_with("/p/")), "{seen:?}");
    let asked = std::mem::take(&mut *asked.lock().unwrap());
    assert!(!asked.is_empty() && asked.iter().all(|line| line == "CONNECT bucket.s3.test:443 HTTP/1.1"), "{asked:?}");
    // By the path the same certificate is another host's.
    let text = opened("s3://bucket/p?endpoint=https://s3.test&addressing=path", &tls, &[("HTTPS_PROXY", &proxy)]);
    assert!(text.contains("certificate of the endpoint is not trusted"), "{text}");
}
