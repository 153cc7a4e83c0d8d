//! The two requests to the hub: what a file is, and its bytes.
//!
//! hf-hub asks the first too, but shows the key to whatever host a redirect names, and panics on answers
//! that it does not expect.

use super::settings::Settings;
use std::io::Read;
use std::time::Duration;
use ureq::http::header::{CONTENT_RANGE, ETAG, LOCATION};
use ureq::http::{HeaderMap, HeaderName, Response};
use ureq::{Agent, Body};

const COMMIT: HeaderName = HeaderName::from_static("x-repo-commit");
const LINKED_ETAG: HeaderName = HeaderName::from_static("x-linked-etag");
const LINKED_SIZE: HeaderName = HeaderName::from_static("x-linked-size");
const MAX_REDIRECTS: usize = 5;

/// What the hub says of a file.
#[derive(Clone, Debug, Default)]
pub(super) struct Remote {
    /// Its name in the cache: for large files the SHA-256 of its content.
    pub(super) etag: String,
    /// The commit that the revision names now.
    pub(super) commit: String,
    /// Its length.
    pub(super) bytes: u64,
}

/// Asks the hub and shows the key to nobody else.
pub(super) struct Client {
    agent: Agent,
    origin: String,
    key: Option<String>,
}

impl Client {
    pub(super) fn new(settings: &Settings) -> Self {
        let agent = Agent::config_builder()
            .max_redirects(0)
            .timeout_connect(Some(Duration::from_secs(30)))
            .timeout_recv_response(Some(Duration::from_secs(60)))
            .build()
            .into();
        let key = settings.token.as_ref().map(|token| format!("Bearer {token}"));
        Self { agent, origin: origin(&settings.endpoint).into(), key }
    }

    /// What the hub says of the file at `url`; `None` if there is none.
    pub(super) fn ask(&self, url: &str) -> Result<Option<Remote>, String> {
        let mut url = url.to_string();
        let mut said = Said::default();
        for _ in 0..MAX_REDIRECTS {
            let response = match self.get(&url, true) {
                Err(ureq::Error::StatusCode(404)) => return Ok(None),
                response => response.map_err(|error| error.to_string())?,
            };
            said.hear(response.headers(), origin(&url) == self.origin);
            if let Some(remote) = said.all() {
                return Ok(Some(remote));
            }
            url = redirected(&url, &response).ok_or("the answer lacks a length, a hash or a commit")?;
        }
        Err("it redirects too often".into())
    }

    /// The bytes of the file at `url`, at most `limit`.
    pub(super) fn body(&self, url: &str, limit: u64) -> Result<Vec<u8>, String> {
        let mut url = url.to_string();
        for _ in 0..MAX_REDIRECTS {
            let response = self.get(&url, false).map_err(|error| error.to_string())?;
            if let Some(next) = redirected(&url, &response) {
                url = next;
                continue;
            }
            let mut bytes = Vec::new();
            let mut reader = response.into_body().into_reader().take(limit);
            return reader.read_to_end(&mut bytes).map(|_| bytes).map_err(|error| error.to_string());
        }
        Err("it redirects too often".into())
    }

    fn get(&self, url: &str, only_head: bool) -> Result<Response<Body>, ureq::Error> {
        let mut request = self.agent.get(url);
        if only_head {
            request = request.header("Range", "bytes=0-0"); // the answer then tells the whole length
        }
        if let Some(key) = self.key.as_ref().filter(|_| origin(url) == self.origin) {
            request = request.header("Authorization", key);
        }
        request.call()
    }
}

/// What the answers so far said; the first redirect of a large file already says all.
#[derive(Default)]
struct Said {
    etag: Option<String>,
    commit: Option<String>,
    bytes: Option<u64>,
}

impl Said {
    /// Another host may tell the length; what the file is called is the hub's to say.
    fn hear(&mut self, headers: &HeaderMap, from_hub: bool) {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        if from_hub {
            let etag = text(LINKED_ETAG).or_else(|| text(ETAG));
            let plain = |etag: &str| etag.trim_start_matches("W/").trim_matches('"').to_string();
            self.etag = self.etag.take().filter(|_| text(LINKED_ETAG).is_none()).or_else(|| etag.map(plain));
            self.commit = self.commit.take().or_else(|| text(COMMIT).map(str::to_string));
            self.bytes = self.bytes.or_else(|| text(LINKED_SIZE)?.parse().ok());
        }
        let whole = || text(CONTENT_RANGE)?.rsplit('/').next()?.parse().ok();
        self.bytes = self.bytes.or_else(whole);
    }

    fn all(&self) -> Option<Remote> {
        Some(Remote { etag: self.etag.clone()?, commit: self.commit.clone()?, bytes: self.bytes? })
    }
}

/// Where a redirect leads; `None` if the response is none, or leads nowhere that is understood.
fn redirected(url: &str, response: &Response<Body>) -> Option<String> {
    if !response.status().is_redirection() {
        return None;
    }
    let location = response.headers().get(LOCATION)?.to_str().ok()?;
    if location.starts_with('/') && !location.starts_with("//") {
        return Some(format!("{}{location}", origin(url)));
    }
    let open = !url.starts_with("https://"); // what began encrypted stays so
    (location.starts_with("https://") || open && location.starts_with("http://"))
        .then(|| location.to_string())
}

/// `https://host:port` of an address.
fn origin(url: &str) -> &str {
    let host = url.find("://").map_or(0, |end| end + 3);
    let end = url[host..].find(['/', '?', '#']).map_or(url.len(), |end| host + end);
    &url[..end]
}

#[cfg(test)]
mod tests {
    use super::origin;

    #[test]
    fn the_origin_of_an_address_ends_with_its_host() {
        assert_eq!(origin("https://hub.test/a/b"), "https://hub.test");
        assert_eq!(origin("https://hub.test:8080"), "https://hub.test:8080");
        assert_eq!(origin("https://hub.test?x=/y"), "https://hub.test");
        assert_ne!(origin("https://hub.test.evil.test/"), origin("https://hub.test/"));
        assert_ne!(origin("http://hub.test/"), origin("https://hub.test/"));
        assert_ne!(origin("https://hub.test@evil.test/"), origin("https://hub.test/"));
    }
}
