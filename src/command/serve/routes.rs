//! From a request to its answer: token, path, method, kind and size of the body.

use super::App;
use super::completion::complete;
use super::failure::Failure;
use super::http::{Reply, json, text};
use super::page;
use super::score::score;
use crate::digest::sha256;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{ALLOW, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::json;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

/// The description of what is here.
pub(super) const OPENAPI: &str = include_str!("openapi.json");

/// Everything that is here, as the description has it.
const ROUTES: [(&str, &str); 7] = [
    ("GET", "/health"),
    ("GET", "/metrics"),
    ("GET", "/openapi.json"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/{model}"),
    ("POST", "/v1/completions"),
    ("POST", "/v1/score"),
];

/// What counters call everything else.
const ELSEWHERE: &str = "other";

/// Answers a request.
pub(super) async fn answer(app: Arc<App>, request: Request<Incoming>) -> Response<Reply> {
    let start = Instant::now();
    let route = route_of(request.uri().path());
    let metrics = app.metrics.clone();
    let response = match dispatch(app, route, request).await {
        Ok(response) => response,
        Err(failure) => failure.response(),
    };
    metrics.answered(route.map_or(ELSEWHERE, |(_, path)| path), response.status().as_u16(), start.elapsed());
    response
}

fn route_of(path: &str) -> Option<(&'static str, &'static str)> {
    let of_model = path.strip_prefix("/v1/models/").is_some_and(|name| !name.is_empty());
    let path = if of_model { "/v1/models/{model}" } else { path };
    ROUTES.into_iter().chain(page::ROUTES).find(|(_, known)| *known == path)
}

async fn dispatch(
    app: Arc<App>,
    route: Option<(&'static str, &'static str)>,
    request: Request<Incoming>,
) -> Result<Response<Reply>, Failure> {
    if route.is_none_or(|(_, path)| path != "/health" && !page::is_file(path)) {
        authorize(&app, &request)?;
    }
    let Some((method, path)) = route else {
        let message = "there is nothing here: GET /openapi.json describes what is";
        return Err(Failure::new(StatusCode::NOT_FOUND, "not_found", message));
    };
    let is_get = method == "GET" && (request.method() == Method::GET || request.method() == Method::HEAD);
    if !is_get && request.method().as_str() != method {
        let failure = Failure::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            format!("{path} is asked for by {method}"),
        );
        let mut response = failure.response();
        let allowed = if method == "GET" { "GET, HEAD" } else { method };
        response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
        return Ok(response);
    }
    match path {
        "/health" => Ok(health(&app)),
        "/metrics" => Ok(text("text/plain; version=0.0.4; charset=utf-8", app.metrics.text())),
        "/openapi.json" => Ok(text("application/json", OPENAPI)),
        "/v1/models" => Ok(json(StatusCode::OK, &app.models.list())),
        "/v1/completions" => complete(app.clone(), body(&app, request).await?).await,
        "/v1/score" => score(app.clone(), body(&app, request).await?).await,
        path if page::is_here(path) => Ok(page::answer(&app, path, request).await),
        _ => {
            let name = request.uri().path().trim_start_matches("/v1/models/");
            Ok(json(StatusCode::OK, &app.models.describe(&decoded(name))?))
        }
    }
}

fn health(app: &App) -> Response<Reply> {
    match app.models.are_alive() {
        true => json(StatusCode::OK, &json!({"status": "ok"})),
        false => json(StatusCode::SERVICE_UNAVAILABLE, &json!({"status": "a model's thread has ended"})),
    }
}

/// Where a token is asked for, the request must bring it.
fn authorize(app: &App, request: &Request<Incoming>) -> Result<(), Failure> {
    let Some(wanted) = &app.token else { return check_host(request.headers().get(HOST)) };
    let header = request.headers().get(AUTHORIZATION).map(HeaderValue::as_bytes).unwrap_or_default();
    let (kind, found) = header.split_at(header.len().min(7));
    // Of hashes, all of whose characters are compared: the time says nothing about the token.
    let found = sha256(found);
    let differs = found.bytes().zip(wanted.bytes()).fold(0, |differs, (a, b)| differs | (a ^ b));
    if kind.eq_ignore_ascii_case(b"bearer ") && differs == 0 {
        return Ok(());
    }
    let message = "wanted the header Authorization: Bearer TOKEN with this server's token";
    Err(Failure::new(StatusCode::UNAUTHORIZED, "invalid_api_key", message))
}

/// Without a token the server is for this machine alone: a page elsewhere whose name is made to lead here still sends that
/// name, so names other than localhost are refused.
fn check_host(host: Option<&HeaderValue>) -> Result<(), Failure> {
    let host = host.map_or("localhost", |host| host.to_str().unwrap_or_default());
    if is_here(host) {
        return Ok(());
    }
    let message = "the header Host has a name other than localhost, which a server without --token-file does not answer to";
    Err(Failure::new(StatusCode::MISDIRECTED_REQUEST, "unknown_host", message))
}

/// Whether `host`, with or without a port, is an address or localhost.
fn is_here(host: &str) -> bool {
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    let name = match host.rsplit_once(':') {
        Some((name, port)) if is_port(port) && (!name.contains(':') || name.ends_with(']')) => name,
        _ => host,
    };
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    let name = name.to_ascii_lowercase();
    address.parse::<IpAddr>().is_ok() || name == "localhost" || name.ends_with(".localhost")
}

/// The body of a request, if it is JSON, comes in time and is not too large.
pub(super) async fn body(app: &App, request: Request<Incoming>) -> Result<Bytes, Failure> {
    let headers = request.headers();
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    let unsupported =
        |message: &str| Failure::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message);
    if !kind.eq_ignore_ascii_case("application/json") {
        return Err(unsupported("wanted the header Content-Type: application/json"));
    }
    if headers.get(CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
        return Err(unsupported("the body has a Content-Encoding, wanted none"));
    }
    let most = app.limits.body;
    let too_large = || {
        let message = format!("the body has more than {most} bytes");
        Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
    };
    let body = request.into_body();
    if body.size_hint().lower() > most as u64 {
        return Err(too_large());
    }
    match tokio::time::timeout(app.limits.read_timeout, Limited::new(body, most).collect()).await {
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(Failure::body("the body is not complete")),
        Err(_) => {
            let message = "the body did not come in time";
            Err(Failure::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", message))
        }
    }
}

/// A part of a path without its percent signs.
pub(super) fn decoded(path: &str) -> String {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let [first, after @ ..] = rest {
        let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = &after[2..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::{OPENAPI, ROUTES, decoded, is_here, route_of};
    use serde_json::Value;
    use std::collections::BTreeSet;

    #[test]
    fn addresses_and_localhost_are_here() {
        for host in ["localhost", "LocalHost:80", "127.0.0.1", "127.0.0.1:8080", "[::1]", "[::1]:8080", "::1"]
        {
            assert!(is_here(host), "{host}");
        }
        for host in
            ["example.com", "localhost.example.com:80", "127.0.0.1.example.com", "", ":80", "notlocalhost"]
        {
            assert!(!is_here(host), "{host}");
        }
    }

    #[test]
    fn the_description_has_what_is_there_and_no_more() {
        let description: Value = serde_json::from_str(OPENAPI).unwrap();
        let mut described = BTreeSet::new();
        for (path, methods) in description["paths"].as_object().unwrap() {
            for method in methods.as_object().unwrap().keys() {
                described.insert((method.to_uppercase(), path.clone()));
            }
        }
        let there = ROUTES.map(|(method, path)| (method.to_string(), path.to_string()));
        assert_eq!(described, BTreeSet::from(there));
    }

    #[test]
    fn every_reference_of_the_description_leads_somewhere() {
        let description: Value = serde_json::from_str(OPENAPI).unwrap();
        let references = OPENAPI.split("\"#").skip(1).filter_map(|rest| rest.split('"').next());
        for reference in references {
            assert!(description.pointer(reference).is_some(), "{reference}");
        }
    }

    #[test]
    fn names_of_models_may_have_slashes_and_percent_signs() {
        assert_eq!(route_of("/v1/models/a/b").unwrap().1, "/v1/models/{model}");
        assert_eq!(route_of("/v1/models/"), None);
        assert_eq!(decoded("a%2Fb%2"), "a/b%2");
    }
}
