//! An answer as server-sent events, one for each token.

use super::super::engine::{Event, Reason};
use super::super::failure::Failure;
use super::super::http::Reply;
use super::assembly::Part;
use super::{Head, Running};
use hyper::body::Bytes;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::sync::mpsc::{Sender, channel};
use tokio::time::{Instant, sleep_until};

/// Pieces of a stream that wait for a slow client; what is drawn meanwhile waits before them.
const AHEAD: usize = 16;

/// Events that become one piece, where several are there.
const TOGETHER: usize = 256;

/// From one piece to the next, at least: tokens that are drawn meanwhile go together. Nobody sees so short a time, and a
/// write for each token of many streams would take the model's threads a third of their processors.
const PACE: Duration = Duration::from_millis(5);

impl Head {
    pub(super) fn json(&self) -> Value {
        json!({
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": self.model,
        })
    }
}

/// Begins the stream.
pub(super) fn stream(running: Running) -> Response<Reply> {
    let (sender, parts) = channel(AHEAD);
    tokio::spawn(async move {
        let limit = running.limit;
        if tokio::time::timeout(limit, events(running, &sender)).await.is_err() {
            let _ = sender.try_send(line(&Failure::timeout(limit.as_secs()).json()).into());
        }
    });
    let mut response = Response::new(Reply::Parts(parts));
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

/// Sends all there is, until the client leaves: then the receiver of `running` is dropped, and its rows with it.
async fn events(mut running: Running, sender: &Sender<Bytes>) {
    let mut events = Vec::with_capacity(TOGETHER);
    let mut next = Instant::now();
    while !running.assembly.is_over() {
        let some = async {
            sleep_until(next).await;
            running.events.recv_many(&mut events, TOGETHER).await
        };
        let count = tokio::select! {
            count = some => count,
            () = sender.closed() => return,
        };
        next = Instant::now() + PACE;
        let lines = match count {
            0 => Err("the model's thread has ended".to_string()),
            _ => running.lines(events.drain(..)),
        };
        let (bytes, failed) = match lines {
            Ok(lines) => (lines, false),
            Err(message) => (line(&Failure::internal(message).json()), true),
        };
        if !bytes.is_empty() && sender.send(bytes.into()).await.is_err() || failed {
            return;
        }
    }
    let mut end = String::new();
    if running.include_usage {
        let mut last = running.head.json();
        last["choices"] = json!([]);
        last["usage"] = running.assembly.usage();
        end = line(&last);
    }
    end += "data: [DONE]\n\n";
    let _ = sender.send(end.into()).await;
}

impl Running {
    fn lines(&mut self, events: impl Iterator<Item = Event>) -> Result<String, String> {
        let mut lines = String::new();
        for event in events {
            for part in self.assembly.take(event)? {
                if !part.text.is_empty() || !part.entries.is_empty() || part.reason.is_some() {
                    lines += &line(&self.chunk(&part));
                }
            }
        }
        Ok(lines)
    }

    fn chunk(&self, part: &Part) -> Value {
        let mut chunk = self.head.json();
        chunk["choices"] = json!([{
            "index": part.choice,
            "text": part.text,
            "logprobs": if part.entries.is_empty() { Value::Null } else { self.assembly.logprobs(&part.entries) },
            "finish_reason": part.reason.map(Reason::name),
        }]);
        if self.include_usage {
            chunk["usage"] = Value::Null;
        }
        chunk
    }
}

fn line(value: &Value) -> String {
    format!("data: {value}\n\n")
}
