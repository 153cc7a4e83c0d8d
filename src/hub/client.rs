//! The two requests to the hub: what a file is, and its bytes.

use super::cache::is_hash;
use super::settings::Settings;
use super::timeouts::Timeouts;
use crate::error::{Error, Result};
use std::io::Read;
use ureq::http::header::{CONTENT_RANGE, ETAG, LOCATION};
use ureq::http::{HeaderMap, HeaderName, Response};
use ureq::{Agent, Body};

const COMMIT: HeaderName = HeaderName::from_static("x-repo-commit");
const LINKED_ETAG: HeaderName = HeaderName::from_static("x-linked-etag");
const LINKED_SIZE: HeaderName = HeaderName::from_static("x-linked-size");
const MAX_REDIRECTS: usize = 5;

/// The hub's record of a file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Remote {
    /// Its name in the cache: for large files the SHA-256 of its content.
    pub(crate) etag: String,
    /// The commit that the revision names now.
    pub(crate) commit: String,
    pub(crate) bytes: u64,
}

/// Asks the hub and shows the key to nobody else.
pub(crate) struct Client {
    agent: Agent,
    origin: String,
    key: Option<String>,
    timeouts: Timeouts,
}

impl Client {
    pub(crate) fn new(settings: &Settings) -> Self {
        let key = settings.token.as_ref().map(|token| format!("Bearer {token}"));
        let agent = agent(&settings.timeouts, 0);
        let origin = origin(&settings.endpoint).into();
        Self { agent, origin, key, timeouts: settings.timeouts }
    }

    /// The hub's record of the file at `url`; `None` if there is none.
    pub(crate) fn ask(&self, url: &str) -> std::result::Result<Option<Remote>, String> {
        let mut url = url.to_string();
        let mut answers = Answers::default();
        for _ in 0..MAX_REDIRECTS {
            let response = match self.get(&url, None) {
                Err(ureq::Error::StatusCode(404)) => return Ok(None),
                response => response.map_err(|error| error.to_string())?,
            };
            answers.observe(response.headers(), origin(&url) == self.origin);
            if let Some(remote) = answers.all() {
                let plain = is_hash(&remote.etag) && is_hash(&remote.commit);
                return if plain { Ok(Some(remote)) } else { Err("the hub's name for it is no hash".into()) };
            }
            url = redirected(&url, &response).ok_or("the answer lacks a length, a hash or a commit")?;
        }
        Err("it redirects too often".into())
    }

    /// The file at `url`, of which `bytes` are expected; one byte more shows that there are too many.
    pub(crate) fn body(&self, url: &str, bytes: u64) -> std::result::Result<impl Read + use<>, String> {
        let mut url = url.to_string();
        for _ in 0..MAX_REDIRECTS {
            let response = self.get(&url, Some(bytes)).map_err(|error| error.to_string())?;
            if let Some(next) = redirected(&url, &response) {
                url = next;
                continue;
            }
            return match response.status().is_success() {
                true => Ok(response.into_body().into_reader().take(bytes.saturating_add(1))),
                false => Err(format!("the answer is {}, and leads nowhere", response.status())),
            };
        }
        Err("it redirects too often".into())
    }

    /// Asks for a body of so many bytes, or only for its headers.
    fn get(&self, url: &str, bytes: Option<u64>) -> std::result::Result<Response<Body>, ureq::Error> {
        let mut request = self.agent.get(url);
        if bytes.is_none() {
            request = request.header("Range", "bytes=0-0"); // the answer then has the whole length
        }
        if let Some(key) = self.key.as_ref().filter(|_| origin(url) == self.origin) {
            request = request.header("Authorization", key);
        }
        let time = self.timeouts.for_body(bytes.unwrap_or(0));
        request.config().timeout_recv_body(Some(time)).build().call()
    }
}

/// Opens a plain http address: the length that the server announces, and the body, of which `bytes` are expected.
pub(crate) fn open(url: &str, bytes: u64, timeouts: &Timeouts) -> Result<(Option<u64>, impl Read)> {
    let request = agent(timeouts, bytes).get(url).config().max_redirects(MAX_REDIRECTS as u32).build();
    let body = request.call().map_err(|error| Error::data(url, error.to_string()))?.into_body();
    Ok((body.content_length(), body.into_reader()))
}

/// Follows no redirect by itself, and waits no longer than `timeouts` has it for a body of so many bytes.
fn agent(timeouts: &Timeouts, bytes: u64) -> Agent {
    Agent::config_builder()
        .timeout_resolve(Some(timeouts.connect))
        .timeout_connect(Some(timeouts.connect))
        .timeout_recv_response(Some(timeouts.answer))
        .timeout_recv_body(Some(timeouts.for_body(bytes)))
        .max_redirects(0)
        .accept_encoding("identity") // sizes are those of the file itself
        .user_agent(concat!("rhn/", env!("CARGO_PKG_VERSION")))
        .build()
        .into()
}

/// What the answers so far contain; the first redirect of a large file already has all.
#[derive(Default)]
struct Answers {
    etag: Option<String>,
    commit: Option<String>,
    bytes: Option<u64>,
}

impl Answers {
    /// Takes an answer's headers. Another host may report the length; only the hub names the file.
    fn observe(&mut self, headers: &HeaderMap, from_hub: bool) {
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
