//! A server that is started for a test of its page, and what it answers.

use crate::support::run::Place;
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};

/// `rhn serve` in a place, ended with the test.
pub(super) struct Server {
    child: Child,
    address: String,
}

pub(super) struct Answer {
    pub(super) status: u16,
    /// In lower case.
    pub(super) head: String,
    pub(super) body: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    pub(super) fn start(place: &Place, args: &str) -> Self {
        let mut command = place.command(&format!("serve {args} --port 0 --device cpu --threads 2"));
        let mut child = command.stdout(Stdio::null()).spawn().unwrap();
        let mut errors = BufReader::new(child.stderr.take().unwrap());
        let mut text = String::new();
        let address = loop {
            let start = text.len();
            assert!(errors.read_line(&mut text).unwrap() > 0, "no server: {text}");
            if let Some((_, address)) = text[start..].trim().split_once("http://") {
                break address.to_string();
            }
        };
        std::thread::spawn(move || std::io::copy(&mut errors, &mut std::io::sink()));
        Self { child, address }
    }

    pub(super) fn send(&self, method: &str, target: &str, headers: &str, body: &str) -> Answer {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let length = body.len();
        let request = format!(
            "{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head: head.to_lowercase(), body: body.into() }
    }

    pub(super) fn get(&self, target: &str) -> Answer {
        self.send("GET", target, "", "")
    }

    pub(super) fn gates(&self, body: &Value) -> Answer {
        self.send("POST", "/page/gates", "Content-Type: application/json\r\n", &body.to_string())
    }
}

impl Answer {
    #[track_caller]
    pub(super) fn json(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.body);
        serde_json::from_str(&self.body).unwrap()
    }

    /// The status, and a part of the error's message.
    #[track_caller]
    pub(super) fn is_error(&self, status: u16, part: &str) {
        assert_eq!(self.status, status, "{}", self.body);
        let body: Value = serde_json::from_str(&self.body).unwrap();
        let message = body["error"]["message"].as_str().unwrap();
        assert!(message.contains(part), "{message}, wanted {part}");
    }

    /// The headers that bind a browser.
    #[track_caller]
    pub(super) fn is_bound(&self) {
        for part in [
            "content-security-policy: default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
             connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\n",
            "x-content-type-options: nosniff",
            "referrer-policy: no-referrer",
            "cache-control: no-store",
        ] {
            assert!(self.head.contains(part), "{part}: {}", self.head);
        }
    }
}
