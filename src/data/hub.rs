//! Single files of data sets on the Hugging Face hub: `hf://datasets/OWNER/NAME[@REVISION]/FILE`.

use crate::error::{Error, Result};
#[cfg(feature = "hub")]
use crate::net::{
    Settings,
    cache::{Repository, is_hash},
    client::{Client, Remote},
};
#[cfg(feature = "hub")]
use hf_hub::RepoType;
use std::fmt;
#[cfg(feature = "hub")]
use std::io::Read;
#[cfg(feature = "hub")]
use std::path::Path;
use std::path::PathBuf;

/// A text is held in memory whole; no larger file is fetched.
#[cfg(feature = "hub")]
const MOST_BYTES: u64 = 64 << 30;

/// What such an address begins with.
pub const SCHEME: &str = "hf://";

/// A file of a data set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubFile {
    /// `OWNER/NAME`.
    pub repository: String,
    /// A branch, tag or commit.
    pub revision: String,
    /// The file's path in the data set.
    pub file: String,
}

impl HubFile {
    /// Reads an address.
    ///
    /// # Errors
    /// If a part is missing, or could lead out of the cache.
    pub fn parse(address: &str) -> Result<Self> {
        let wrong = || Error::data(address, "wanted hf://datasets/OWNER/NAME[@REVISION]/FILE");
        let rest =
            address.strip_prefix(SCHEME).and_then(|rest| rest.strip_prefix("datasets/")).ok_or_else(wrong)?;
        let [owner, name, file] = rest.splitn(3, '/').collect::<Vec<_>>().try_into().map_err(|_| wrong())?;
        let (name, revision) = name.split_once('@').unwrap_or((name, "main"));
        if [owner, name, revision].into_iter().chain(file.split('/')).all(is_plain) {
            let repository = format!("{owner}/{name}");
            return Ok(Self { repository, revision: revision.into(), file: file.into() });
        }
        Err(wrong())
    }

    /// The file in the hub's cache on this machine, fetched first if it is not there. Public data sets only: no key
    /// is sent.
    ///
    /// # Errors
    /// If it cannot be had, or this program was built without the hub.
    #[cfg(feature = "hub")]
    pub fn get(&self) -> Result<PathBuf> {
        self.fetch(&Settings { token: None, ..Settings::from_env()? })
    }

    /// As [`HubFile::get`], from this hub into this cache.
    #[cfg(feature = "hub")]
    pub fn fetch(&self, settings: &Settings) -> Result<PathBuf> {
        let cache = Repository::new(settings, RepoType::Dataset, &self.repository, &self.revision);
        let held = cache.last_snapshot().map(|snapshot| snapshot.join(&self.file));
        if let Some(path) = held.filter(|path| path.is_file()) {
            return Ok(path);
        }
        if settings.offline {
            return Err(self.refuse("is not in the hub's cache, and HF_HUB_OFFLINE forbids to fetch it"));
        }
        let client = Client::new(settings);
        let explain = |error: String| self.refuse(format!("cannot be fetched: {error}"));
        let remote = client.ask(&self.url(settings, &self.revision)).map_err(explain)?;
        let remote = remote.ok_or_else(|| self.refuse("is not on the hub"))?;
        self.check(&remote)?;
        let body = client.body(&self.url(settings, &remote.commit), remote.bytes).map_err(explain)?;
        self.store(body, &remote, &cache.blob(&remote.etag))?;
        let path = cache.place(&remote.etag, &remote.commit, &self.file)?;
        cache.point_to(&remote.commit)?;
        Ok(path)
    }

    /// Refuses names that are no hashes, and more than a text can have.
    #[cfg(feature = "hub")]
    fn check(&self, remote: &Remote) -> Result<()> {
        if !is_hash(&remote.etag) || !is_hash(&remote.commit) {
            return Err(self.refuse("is named by the hub by something that is no hash"));
        }
        if remote.bytes > MOST_BYTES {
            let what = format!("has {} bytes, at most {MOST_BYTES} are fetched", remote.bytes);
            return Err(self.refuse(what));
        }
        Ok(())
    }

    /// Keeps the body as the blob if it has the length that the hub says, and the hash if that is one of content.
    #[cfg(feature = "hub")]
    fn store(&self, body: impl Read, remote: &Remote, blob: &Path) -> Result<()> {
        let name = self.to_string();
        let content = (remote.etag.len() == 64).then_some(remote.etag.as_str());
        super::fetch::store(&mut { body }, &name, remote.bytes, content, blob)
    }

    #[cfg(feature = "hub")]
    fn url(&self, settings: &Settings, revision: &str) -> String {
        let (endpoint, repository) = (&settings.endpoint, &self.repository);
        format!("{endpoint}/datasets/{repository}/resolve/{revision}/{}", self.file.replace(' ', "%20"))
    }

    fn refuse(&self, what: impl Into<String>) -> Error {
        Error::data(self.to_string(), what)
    }

    /// Without the hub there is nothing to get.
    ///
    /// # Errors
    /// Always.
    #[cfg(not(feature = "hub"))]
    pub fn get(&self) -> Result<PathBuf> {
        let what = "this program was built without the feature `hub`";
        Err(self.refuse(what))
    }
}

impl fmt::Display for HubFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}datasets/{}/{}", self.repository, self.file)
    }
}

/// A name that stays where it is put.
fn is_plain(part: &str) -> bool {
    let letter = |char: char| char.is_ascii_alphanumeric() || "-_.+ ".contains(char);
    !part.is_empty() && part != "." && !part.contains("..") && part.chars().all(letter)
}

#[cfg(test)]
mod tests {
    use super::HubFile;

    #[test]
    fn an_address_has_owner_name_revision_and_file() {
        let file = HubFile::parse("hf://datasets/some/text@v1/raw/train.txt").unwrap();
        let parts = (file.repository.as_str(), file.revision.as_str(), file.file.as_str());
        assert_eq!(parts, ("some/text", "v1", "raw/train.txt"));
        assert_eq!(HubFile::parse("hf://datasets/some/text/a.txt").unwrap().revision, "main");
    }

    #[test]
    fn an_address_that_leads_elsewhere_is_refused() {
        for rest in
            ["../b/c", "a/../c", "a/b/../../c", "a/b/", "a/b", "a/b//c", "a/b@/c", "a/b@../c", "a/b/c\\..\\d"]
        {
            assert!(HubFile::parse(&format!("hf://datasets/{rest}")).is_err(), "{rest}");
        }
        assert!(HubFile::parse("hf://models/a/b/c").is_err());
    }
}
