//! Errors as clients of the OpenAI API read them.

use super::engine::Refused;
use super::http::Reply;
use hyper::{Response, StatusCode};
use serde_json::{Value, json};

/// What a request was refused with.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) status: StatusCode,
    message: String,
    /// The field at fault.
    param: Option<String>,
    code: Option<&'static str>,
}

impl Failure {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), param: None, code: Some(code) }
    }

    /// A field that cannot be used.
    pub(super) fn field(param: &str, message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            message: message.into(),
            param: Some(param.into()),
            code: None,
        }
    }

    /// A body that cannot be read.
    pub(super) fn body(message: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, message: message.into(), param: None, code: None }
    }

    /// The model cannot compute, or its thread has ended.
    pub(super) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", message)
    }

    /// The time for one request is over.
    pub(super) fn timeout(seconds: u64) -> Self {
        let message = format!("the request took longer than {seconds} s and was ended");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "timeout", message)
    }

    /// As OpenAI groups errors.
    fn kind(&self) -> &'static str {
        match self.status.as_u16() {
            401 => "authentication_error",
            429 => "rate_limit_error",
            500.. => "server_error",
            _ => "invalid_request_error",
        }
    }

    pub(super) fn json(&self) -> Value {
        json!({"error": {
            "message": self.message,
            "type": self.kind(),
            "param": self.param,
            "code": self.code,
        }})
    }

    pub(super) fn response(&self) -> Response<Reply> {
        let mut response = super::http::json(self.status, &self.json());
        let mut header = |name, value| {
            response.headers_mut().insert(name, hyper::header::HeaderValue::from_static(value));
        };
        match self.status.as_u16() {
            401 => header(hyper::header::WWW_AUTHENTICATE, "Bearer"),
            429 | 503 => header(hyper::header::RETRY_AFTER, "1"),
            408 | 413 => header(hyper::header::CONNECTION, "close"), // the rest of the body is not read
            _ => {}
        }
        response
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Full => Self::new(
                StatusCode::TOO_MANY_REQUESTS,
                "queue_full",
                "too many requests wait already; try again later",
            ),
            Refused::Closed => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "engine_stopped",
                "the model's thread has ended; the server must be started again",
            ),
        }
    }
}
