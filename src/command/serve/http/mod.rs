//! Connections: accepted up to a bound, each with its time limits, answered by a function from request to response.

mod reply;
mod timed;

pub(super) use reply::{Reply, json, text};

use super::Limits;
use super::metrics::Metrics;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use timed::Timed;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

/// Where nothing can be accepted, say for want of file descriptors, the time to the next attempt.
const PAUSE: Duration = Duration::from_millis(50);

/// Bytes of a request's head, and of what is read or written at once.
const BUFFER: usize = 64 << 10;

/// What is answered to a connection above the bound.
const BUSY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\n\
Connection: close\r\nContent-Length: 126\r\n\r\n\
{\"error\":{\"message\":\"too many connections; try again later\",\"type\":\"server_error\",\"param\":null,\"code\":\
\"too_many_connections\"}}";

/// Serves until `stop` is done; then waits for requests under way, up to `limits.grace`.
pub(super) async fn serve<A, F>(
    listener: TcpListener,
    answer: A,
    limits: &Limits,
    metrics: Arc<Metrics>,
    stop: impl Future<Output = ()>,
) where
    A: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Response<Reply>> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(limits.connections));
    let (closing, closed) = watch::channel(false);
    tokio::pin!(stop);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stop => break,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            metrics.turned_away();
            let _ = stream.try_write(BUSY); // nobody waits for a client that reads nothing
            continue;
        };
        let connection = connection(stream, answer.clone(), limits, closed.clone());
        let metrics = metrics.clone();
        tokio::spawn(async move {
            let _place = place;
            let _connected = metrics.connected();
            connection.await;
        });
    }
    drop(listener);
    let _ = closing.send(true);
    // All places are free when the last connection has ended.
    let _ = tokio::time::timeout(limits.grace, places.acquire_many(limits.connections as u32)).await;
}

/// One connection to its end.
fn connection<A, F>(
    stream: TcpStream,
    answer: A,
    limits: &Limits,
    mut closed: watch::Receiver<bool>,
) -> impl Future<Output = ()> + Send + 'static
where
    A: Fn(Request<Incoming>) -> F + Send + 'static,
    F: Future<Output = Response<Reply>> + Send + 'static,
{
    let _ = stream.set_nodelay(true); // a token is sent when it is drawn
    let io = TokioIo::new(Timed::new(stream, limits.write_timeout));
    let service = service_fn(move |request| {
        let response = answer(request);
        async move { Ok::<_, Infallible>(response.await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.read_timeout)
        .max_buf_size(BUFFER)
        .serve_connection(io, service);
    async move {
        tokio::pin!(connection);
        let mut is_closing = false;
        loop {
            tokio::select! {
                _ = connection.as_mut() => break, // how a client ends is its own affair
                _ = closed.wait_for(|closed| *closed), if !is_closing => {
                    is_closing = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_answer_above_the_bound_has_the_length_that_it_says() {
        let text = std::str::from_utf8(super::BUSY).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{}", body.len());
        serde_json::from_str::<serde_json::Value>(body).unwrap();
    }
}
