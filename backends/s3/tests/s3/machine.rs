//! Keys that a machine or a container gives: asked for at its service, whatever that answers.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::process::Command;
use std::thread;

use strongroom_s3_server::{ACCESS_KEY, SECRET_KEY, Server, ServerOptions};

/// Answers to requests, by method and path; anything else is a 404. Answers where it listens.
fn service(answers: Vec<(&'static str, String)>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    // Ends with the process.
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let (mut first, mut token) = (String::new(), String::new());
            reader.read_line(&mut first).unwrap();
            loop {
                let mut line = String::new();
                if reader.read_line(&mut line).unwrap() <= 2 {
                    break;
                }
                if let Some((name, value)) = line.split_once(": ")
                    && (name.eq_ignore_ascii_case("authorization")
                        || name.eq_ignore_ascii_case("x-aws-ec2-metadata-token"))
                {
                    token = value.trim().to_owned();
                }
            }
            let asked = first.rsplit_once(" HTTP").map_or("", |(asked, _)| asked);
            let asked = if token.is_empty() { asked.to_owned() } else { format!("{asked} with {token}") };
            let answer = answers.iter().find(|(wanted, _)| *wanted == asked);
            let (status, body) = answer.map_or(("404 Not Found", ""), |(_, body)| ("200 OK", body));
            let length = body.len();
            let head = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
            let _ = stream.write_all(format!("{head}{body}").as_bytes());
        }
    });
    address
}

/// Keys, as services give them: good ones, for an hour.
fn keys() -> String {
    format!(
        r#"{{"AccessKeyId":"{ACCESS_KEY}","SecretAccessKey":"{SECRET_KEY}","Token":"session","Expiration":"2099-01-01T00:00:00Z"}}"#
    )
}

/// What a process says that opens a bucket in this environment, on both outputs.
fn opened(server: &Server, variables: &[(&str, &str)]) -> String {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "faults::opens_with_the_environment", "--include-ignored", "--nocapture"])
        .env_clear()
        .env("HOME", "/nonexistent")
        .env("AWS_ENDPOINT_URL_S3", server.endpoint())
        .env("OPEN", "s3://bucket/p")
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(!text.contains("panicked") && !text.contains(SECRET_KEY), "{text}");
    text
}

fn bucket() -> Server {
    Server::start(ServerOptions::default()).unwrap()
}

const TOKEN: &str = "PUT /latest/api/token";
const ROLE: &str = "GET /latest/meta-data/iam/security-credentials/ with once";
const KEYS: &str = "GET /latest/meta-data/iam/security-credentials/backup with once";

#[test]
fn keys_of_a_machine_are_used() {
    let answers = vec![(TOKEN, "once".to_owned()), (ROLE, "backup\n".to_owned()), (KEYS, keys())];
    let text = opened(&bucket(), &[("AWS_EC2_METADATA_SERVICE_ENDPOINT", &service(answers))]);
    assert!(text.contains("it is open"), "{text}");
}

#[test]
fn what_is_no_service_of_a_machine_gives_no_keys_and_ends_nothing() {
    let page = || "<html>\n<p>sign in first".to_owned();
    let endless = || "a".repeat(100_000);
    for answers in [
        vec![(TOKEN, page())],
        vec![(TOKEN, endless())],
        vec![(TOKEN, "once".to_owned()), (ROLE, page())],
        vec![(TOKEN, "once".to_owned()), (ROLE, endless())],
        vec![(TOKEN, "once".to_owned()), (ROLE, "backup".to_owned()), (KEYS, page())],
        vec![],
    ] {
        let said = format!("{answers:.100?}");
        let text = opened(&bucket(), &[("AWS_EC2_METADATA_SERVICE_ENDPOINT", &service(answers))]);
        assert!(
            text.contains("Credentials: ") && text.contains("no service of this machine gives any"),
            "{said}: {text}"
        );
    }
}

#[test]
fn keys_of_a_container_are_used_and_a_token_that_cannot_be_sent_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    let address = format!("{}/v1/keys", service(vec![("GET /v1/keys with granted", keys())]));
    let with = [
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", address.as_str()),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", file.to_str().unwrap()),
    ];
    for (token, told) in [
        (Some("granted"), "it is open"),
        (Some("granted\n"), "a line end at its end"),
        (Some(""), "it is empty"),
        (Some("other"), "no service of this machine gives any"),
        (None, "it cannot be read"),
    ] {
        match token {
            Some(token) => std::fs::write(&file, token).unwrap(),
            None => std::fs::remove_file(&file).unwrap(),
        }
        let text = opened(&bucket(), &with);
        assert!(text.contains(told), "{token:?}: {text}");
        assert!(told == "it is open" || text.contains("Credentials: "), "{token:?}: {text}");
    }
    let text = opened(&bucket(), &with[..1]);
    assert!(text.contains("Invalid: ") && text.contains("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"), "{text}");
}
