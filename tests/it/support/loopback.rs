//! A small HTTP server on the loopback interface, in place of the network.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// What the server does with a request.
pub(crate) enum Answer {
    /// The whole file.
    File(Vec<u8>),
    /// Announces the whole file and closes half-way.
    Short(Vec<u8>),
    /// More bytes than anybody wants, without a length.
    Endless,
    /// The whole file, a byte now and then.
    Drip(Vec<u8>),
    /// Nothing at all.
    Silence,
    /// This as the packed form of a file.
    Gzip(Vec<u8>),
    /// Another path on this server, or an address.
    Redirect(&'static str),
}

/// Serves paths until the test's process ends.
pub(crate) struct Server {
    /// `http://127.0.0.1:PORT`.
    pub(crate) address: String,
    requests: Arc<AtomicUsize>,
}

impl Server {
    /// Starts to serve; every other path is 404.
    pub(crate) fn start(files: Vec<(&'static str, Answer)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(AtomicUsize::new(0));
        let count = requests.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                count.fetch_add(1, Ordering::Relaxed);
                let _ = answer(stream, &files); // the client may leave early
            }
        });
        Self { address, requests }
    }

    /// How many requests came so far.
    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }
}

fn answer(mut stream: TcpStream, files: &[(&'static str, Answer)]) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let path = request.split(' ').nth(1).unwrap_or("");
    let head = |status: &str, rest: String| format!("HTTP/1.1 {status}\r\nConnection: close\r\n{rest}\r\n");
    let length = |bytes: &[u8]| format!("Content-Length: {}\r\n", bytes.len());
    match files.iter().find(|(name, _)| *name == path).map(|(_, answer)| answer) {
        Some(Answer::File(bytes)) => {
            stream.write_all(head("200 OK", length(bytes)).as_bytes())?;
            stream.write_all(bytes)
        }
        Some(Answer::Short(bytes)) => {
            stream.write_all(head("200 OK", length(bytes)).as_bytes())?;
            stream.write_all(&bytes[..bytes.len() / 2])
        }
        Some(Answer::Endless) => {
            stream.write_all(head("200 OK", String::new()).as_bytes())?;
            loop {
                stream.write_all(&[b'x'; 4096])?;
            }
        }
        Some(Answer::Drip(bytes)) => {
            stream.write_all(head("200 OK", length(bytes)).as_bytes())?;
            for byte in bytes {
                std::thread::sleep(Duration::from_millis(50));
                stream.write_all(&[*byte])?;
            }
            Ok(())
        }
        Some(Answer::Silence) => {
            std::thread::sleep(Duration::from_secs(3));
            Ok(())
        }
        Some(Answer::Gzip(bytes)) => {
            stream.write_all(head("200 OK", "Content-Encoding: gzip\r\n".into()).as_bytes())?;
            stream.write_all(bytes)
        }
        Some(Answer::Redirect(to)) => {
            stream.write_all(head("302 Found", format!("Location: {to}\r\nContent-Length: 0\r\n")).as_bytes())
        }
        None => stream.write_all(head("404 Not Found", "Content-Length: 0\r\n".into()).as_bytes()),
    }
}
