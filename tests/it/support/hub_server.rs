//! A loopback server that stands for the hub: answers with a file, its hash and its commit, or misbehaves.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// A commit as the hub names one.
pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What the server says and sends for one file.
#[derive(Clone)]
pub(crate) struct Reply {
    pub(crate) body: Vec<u8>,
    /// The length that is announced.
    pub(crate) length: usize,
    /// The body ends here, whatever was announced.
    pub(crate) sent: usize,
    pub(crate) etag: String,
    pub(crate) commit: String,
    /// The body lies with another host, as large files do.
    pub(crate) elsewhere: bool,
    /// The answer is a redirect to this.
    pub(crate) leads_to: Option<&'static str>,
    /// The body comes a byte now and then.
    pub(crate) drips: bool,
}

impl Reply {
    /// An honest one.
    pub(crate) fn new(body: Vec<u8>, etag: &str) -> Self {
        let length = body.len();
        Self {
            body,
            length,
            sent: length,
            etag: etag.into(),
            commit: COMMIT.into(),
            elsewhere: false,
            leads_to: None,
            drips: false,
        }
    }
}

/// The files by name, whatever the revision; and a log of the request lines, each with ` +key` if it came with one.
pub(crate) struct HubServer {
    pub(crate) endpoint: String,
    pub(crate) files: Arc<Mutex<BTreeMap<String, Reply>>>,
    pub(crate) requests: Arc<Mutex<Vec<String>>>,
}

impl HubServer {
    pub(crate) fn start(files: BTreeMap<String, Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let (files, requests) = (Arc::new(Mutex::new(files)), Arc::new(Mutex::new(Vec::new())));
        let server = Self { endpoint, files: files.clone(), requests: requests.clone() };
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                // A client that hangs up is its own affair.
                let _ = stream.and_then(|stream| answer(stream, &files, &requests));
            }
        });
        server
    }
}

fn answer(
    mut stream: TcpStream,
    files: &Mutex<BTreeMap<String, Reply>>,
    requests: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let mut request = lines.next().unwrap_or_else(|| Ok(String::new()))?;
    let mut ranged = false;
    for line in lines {
        let line = line?.to_lowercase();
        ranged |= line == "range: bytes=0-0";
        if line.starts_with("authorization: bearer ") {
            request.push_str(" +key");
        }
        if line.is_empty() {
            break;
        }
    }
    requests.lock().unwrap().push(request.clone());
    let path = request.split(' ').nth(1).unwrap_or_default();
    let name = path.rsplit('/').next().unwrap_or_default();
    let Some(reply) = files.lock().unwrap().get(name).cloned() else {
        return stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    };
    if reply.elsewhere && !path.starts_with("/elsewhere/") {
        let port = stream.local_addr()?.port();
        let head = format!(
            "HTTP/1.1 302 Found\r\nLocation: http://localhost:{port}/elsewhere/{name}\r\nContent-Length: 0\r\n\
             X-Linked-ETag: \"{}\"\r\nX-Repo-Commit: {}\r\nConnection: close\r\n\r\n",
            reply.etag, reply.commit
        );
        return stream.write_all(head.as_bytes());
    }
    if let Some(to) = reply.leads_to {
        let head =
            format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        return stream.write_all(head.as_bytes());
    }
    let (status, length, body) = if ranged {
        let range = format!("206 Partial Content\r\nContent-Range: bytes 0-0/{}", reply.length);
        (range, 1, &reply.body[..1])
    } else {
        ("200 OK".to_string(), reply.length, &reply.body[..reply.sent])
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nETag: \"{}\"\r\nX-Repo-Commit: {}\r\nConnection: close\r\n\r\n",
        reply.etag, reply.commit
    );
    stream.write_all(head.as_bytes())?;
    if !reply.drips || ranged {
        return stream.write_all(body);
    }
    for byte in body {
        std::thread::sleep(std::time::Duration::from_millis(50));
        stream.write_all(&[*byte])?;
    }
    Ok(())
}
