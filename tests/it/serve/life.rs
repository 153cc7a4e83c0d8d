//! How a server starts and ends.

use super::served;
use super::server::{Server, read};
use crate::cli::Run;
use crate::support::run::{assert_fails, signal, wait_until};
use serde_json::json;
use std::io::Write;
use std::net::{TcpListener, TcpStream};

/// A stream of so many tokens, sent and not read.
fn stream(server: &Server, tokens: usize) -> TcpStream {
    let body = json!({"prompt": "To", "max_tokens": tokens, "stream": true}).to_string();
    let mut client = server.connect();
    let head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json";
    client.write_all(format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).as_bytes()).unwrap();
    wait_until("it runs", || server.metric("rhn_choices_running") == 1);
    client
}

#[test]
fn a_signal_lets_what_runs_end_and_then_the_server_with_zero() {
    let (_run, mut server) = served("char", &["--max-tokens", "6000"]);
    let client = stream(&server, 6_000);
    let mut idle = server.connect();
    idle.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap(); // and stays
    signal(&server.child, "TERM");
    wait_until("nobody listens", || TcpStream::connect(&server.address).is_err());
    let events = read(client).events();
    assert_eq!(events.last().map(String::as_str), Some("[DONE]"));
    assert_eq!(server.wait().code(), Some(0), "{}", server.errors());
}

#[test]
fn what_takes_longer_than_it_may_is_left() {
    let flags = ["--max-tokens", "10000000", "--max-request-tokens", "10000000", "--grace", "1"];
    let (_run, mut server) = served("char", &flags);
    let client = stream(&server, 9_000_000);
    signal(&server.child, "TERM");
    assert_eq!(server.wait().code(), Some(0), "{}", server.errors());
    assert_ne!(read(client).events().last().map(String::as_str), Some("[DONE]"));
}

#[test]
fn what_cannot_be_served_is_said_at_once() {
    let run = Run::new("char", 0.5);
    let fails = |args: &[&str], code: i32, parts: &[&str]| assert_fails(&run.rhn("serve", args), code, parts);
    fails(&["--host", "0.0.0.0"], 2, &["--token-file"]);
    fails(&["--host", "no such host"], 2, &["has no address"]);
    fails(&["--token-file", "/nowhere/token"], 1, &["/nowhere/token"]);
    std::fs::write(run.path("token"), "two tokens\n").unwrap();
    fails(&["--token-file", run.path("token").to_str().unwrap()], 2, &["one token"]);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    fails(&["--port", &port], 1, &[&port]);
    std::fs::write(run.path("run/model.safetensors"), "no").unwrap();
    fails(&[], 4, &["model.safetensors"]);
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_rhn")).arg("serve").output().unwrap();
    assert_fails(&output, 2, &["needs a CHECKPOINT, or --runs DIR"]);
    let nothing = tempfile::tempdir().unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_rhn"))
        .args(["serve", "--runs", nothing.path().to_str().unwrap()])
        .output()
        .unwrap();
    assert_fails(&output, 3, &["no checkpoint"]);
}
