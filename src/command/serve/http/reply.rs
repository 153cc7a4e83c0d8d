//! The body of an answer: whole, or a stream of parts.

use hyper::body::{Body, Bytes, Frame, SizeHint};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::sync::mpsc::Receiver;

/// The body of an answer.
pub(in crate::command::serve) enum Reply {
    /// Everything, until it is taken.
    Whole(Option<Bytes>),
    /// Parts as they come; the sender sees when the client has left.
    Parts(Receiver<Bytes>),
}

impl Body for Reply {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let part = match self.get_mut() {
            Self::Whole(bytes) => bytes.take(),
            Self::Parts(parts) => ready!(parts.poll_recv(context)),
        };
        Poll::Ready(part.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Parts(_) => SizeHint::default(),
        }
    }
}

/// An answer in JSON.
pub(in crate::command::serve) fn json(status: StatusCode, value: &impl Serialize) -> Response<Reply> {
    let body = serde_json::to_vec(value).unwrap_or_default(); // maps with string keys alone
    whole(status, "application/json", body.into())
}

/// An answer of this kind.
pub(in crate::command::serve) fn text(kind: &'static str, body: impl Into<Bytes>) -> Response<Reply> {
    whole(StatusCode::OK, kind, body.into())
}

fn whole(status: StatusCode, kind: &'static str, body: Bytes) -> Response<Reply> {
    let mut response = Response::new(Reply::Whole(Some(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
