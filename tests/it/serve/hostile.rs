//! Clients that send too much, too little, nothing, or leave.

use super::served;
use super::server::read;
use crate::support::run::wait_until;
use serde_json::json;
use std::io::{Read, Write};
use std::time::{Duration, Instant};

const JSON: &str = "Content-Type: application/json\r\n";

#[test]
fn bodies_that_are_no_json_object_are_refused() {
    let (_run, server) = served("char", &[]);
    let deep = "[".repeat(100_000);
    for body in [
        "",
        "{",
        "[]",
        "7",
        "\"x\"",
        "null",
        "{\"prompt\": \"a\"} x",
        "{\"prompt\": \"a\", \"text\": \"a\", \"n\": 1, \"n\": 2}",
        "{\"prompt\": \"\\ud800\"}",
        deep.as_str(),
    ] {
        let answer = server.send("POST", "/v1/completions", JSON, body);
        assert_eq!(answer.status, 400, "{body:.40}: {answer:?}");
        answer.error();
        assert_eq!(server.send("POST", "/v1/score", JSON, body).status, 400);
    }
    let bytes = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n\
                  Content-Length: 14\r\n\r\n{\"prompt\":\"\xff\"}";
    assert_eq!(server.raw(bytes).status, 400);
    for kind in ["", "Content-Type: text/plain\r\n", "Content-Type: application/x-www-form-urlencoded\r\n"] {
        let answer = server.send("POST", "/v1/completions", kind, "{}");
        assert_eq!(
            (answer.status, &answer.error()["code"]),
            (415, &json!("unsupported_media_type")),
            "{kind}"
        );
    }
    let packed = format!("{JSON}Content-Encoding: gzip\r\n");
    assert_eq!(server.send("POST", "/v1/completions", &packed, "{}").status, 415);
    let charset = "Content-Type: Application/JSON; charset=utf-8\r\n";
    assert_eq!(server.send("POST", "/v1/completions", charset, "{}").status, 200);
    assert_eq!(server.raw(b"GARBAGE\r\n\r\n").status, 400);
    let long = server.raw(format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(200_000)).as_bytes());
    assert!([414, 431].contains(&long.status), "{long:?}");
    assert_eq!(server.get("/health").status, 200);
}

#[test]
fn a_body_above_the_bound_is_not_read() {
    let (_run, server) = served("char", &["--max-body", "5000"]);
    let announced = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 99999999999\r\n\r\n";
    let answer = server.raw(announced.as_bytes());
    assert_eq!((answer.status, &answer.error()["code"]), (413, &json!("body_too_large")));
    let head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunks = format!("1000\r\n{}\r\n", " ".repeat(0x1000)).repeat(2);
    assert_eq!(server.raw((head.to_string() + &chunks).as_bytes()).status, 413);
    let fits = json!({"prompt": "x".repeat(4900), "max_tokens": 1});
    assert_eq!(server.complete(&fits)["usage"]["prompt_tokens"], 4900);
}

#[test]
fn half_a_request_and_a_slow_one_are_given_up() {
    let (_run, server) = served("char", &["--read-timeout", "1"]);
    let half = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{\"prompt\":";
    let answer = server.raw(half.as_bytes()); // the connection stays open
    assert_eq!((answer.status, &answer.error()["code"]), (408, &json!("body_timeout")));
    let start = Instant::now();
    let mut slow = server.connect();
    slow.write_all(b"POST /v1/completions HTTP/1.1\r\nHo").unwrap();
    let mut rest = Vec::new();
    let _ = slow.read_to_end(&mut rest);
    assert!(start.elapsed() < Duration::from_secs(20));
    let mut silent = server.connect();
    silent.read_to_end(&mut rest).unwrap();
    drop(server.connect()); // leaves at once
    wait_until("all connections are closed", || server.metric("rhn_connections") == 1);
}

#[test]
fn who_leaves_is_computed_for_no_longer() {
    let (_run, server) = served("char", &["--max-tokens", "1000000", "--max-request-tokens", "100000000"]);
    for stream in [true, false] {
        let body = json!({"prompt": "To", "max_tokens": 1_000_000, "n": 4, "stream": stream}).to_string();
        let mut client = server.connect();
        let head = format!(
            "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n{JSON}Content-Length: {}\r\n\r\n",
            body.len()
        );
        client.write_all((head + &body).as_bytes()).unwrap();
        wait_until("it runs", || server.metric("rhn_choices_running") == 4);
        if stream {
            let mut some = [0; 2000];
            client.read_exact(&mut some).unwrap();
        }
        drop(client);
        wait_until("nothing runs", || server.metric("rhn_choices_running") == 0);
    }
}

#[test]
fn who_reads_nothing_holds_up_nobody_and_is_left_after_a_while() {
    let (_run, server) = served("char", &["--write-timeout", "1"]);
    let body =
        json!({"prompt": "To", "max_tokens": 4000, "n": 10, "stream": true, "logprobs": 5}).to_string();
    let mut client = server.connect();
    let head = format!(
        "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n{JSON}Content-Length: {}\r\n\r\n",
        body.len()
    );
    client.write_all((head + &body).as_bytes()).unwrap();
    wait_until("it runs", || server.metric("rhn_choices_running") == 10);
    assert_eq!(server.complete(&json!({"prompt": "To", "max_tokens": 5}))["usage"]["completion_tokens"], 5);
    wait_until("its connection is closed", || server.metric("rhn_connections") == 1);
    let answer = read(client); // what was on its way
    assert!(!answer.body.contains("[DONE]"));
}

#[test]
fn a_long_prompt_holds_up_others_for_a_window_only() {
    let (_run, server) = served("char", &[]);
    let long = json!({"prompt": "To be ".repeat(10_000), "max_tokens": 1});
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| {
            server.complete(&long);
            Instant::now()
        });
        wait_until("it is read", || server.metric("rhn_choices_running") == 1);
        server.complete(&json!({"prompt": "To", "max_tokens": 10}));
        let quick = Instant::now();
        assert!(quick < slow.join().unwrap());
    });
}

#[test]
fn more_than_may_wait_are_told_to_come_again() {
    let flags = ["--batch", "1", "--queue", "1", "--request-timeout", "2", "--max-tokens", "10000000"];
    let (_run, server) = served("char", &[&flags[..], &["--max-request-tokens", "100000000"]].concat());
    let endless = json!({"prompt": "To", "max_tokens": 10_000_000});
    std::thread::scope(|scope| {
        let first = scope.spawn(|| server.post("/v1/completions", &endless));
        wait_until("one runs", || server.metric("rhn_choices_running") == 1);
        let second = scope.spawn(|| server.post("/v1/completions", &endless));
        wait_until("one waits", || server.metric("rhn_choices_waiting") == 1);
        let third = server.post("/v1/completions", &endless);
        assert_eq!((third.status, &third.error()["code"]), (429, &json!("queue_full")));
        assert!(third.head.contains("retry-after: 1"), "{third:?}");
        for answer in [first.join().unwrap(), second.join().unwrap()] {
            assert_eq!((answer.status, &answer.error()["code"]), (503, &json!("timeout")));
        }
    });
    let mut stream = endless.clone();
    stream["stream"] = json!(true);
    let last = server.post("/v1/completions", &stream).events().pop().unwrap();
    assert!(last.contains("\"timeout\""), "{last}");
    wait_until("nothing runs", || server.metric("rhn_choices_running") == 0);
}

#[test]
fn connections_above_the_bound_are_answered_and_closed() {
    let (_run, server) = served("char", &["--connections", "2"]);
    let mut held = [server.connect(), server.connect()];
    for client in &mut held {
        client.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        client.read_exact(&mut [0; 12]).unwrap(); // it is served, and stays
    }
    let answer = server.get("/health");
    assert_eq!((answer.status, &answer.error()["code"]), (503, &json!("too_many_connections")));
    drop(held);
    wait_until("there is a place", || server.get("/health").status == 200);
}

#[test]
fn a_name_that_is_made_to_lead_here_is_not_answered_to() {
    let (_run, server) = served("char", &[]);
    let ask = |host: &str, path: &str| {
        server.raw(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").as_bytes())
    };
    for path in ["/v1/models", "/metrics", "/page/runs"] {
        let answer = ask("attacker.example:8080", path);
        assert_eq!((answer.status, &answer.error()["code"]), (421, &json!("unknown_host")), "{path}");
        for host in ["127.0.0.1:8080", "localhost", "[::1]:9", "rhn.localhost:1"] {
            assert_eq!(ask(host, path).status, 200, "{host} {path}");
        }
    }
}
