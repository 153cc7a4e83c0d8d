//! Single files of data sets on the Hugging Face hub: `hf://datasets/OWNER/NAME[@REVISION]/FILE`.

use crate::error::{Error, Result};
use std::path::PathBuf;

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

    /// The file in the hub's cache on this machine, fetched first if it is not there.
    ///
    /// # Errors
    /// If it cannot be had, or this program was built without the hub.
    #[cfg(feature = "hub")]
    pub fn get(&self) -> Result<PathBuf> {
        use hf_hub::{Cache, Repo, RepoType, api::sync::ApiBuilder};
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let refuse =
            |what: String| Error::data(format!("hf://datasets/{}/{}", self.repository, self.file), what);
        let cache = set("HF_HUB_CACHE").map_or_else(Cache::from_env, |dir| Cache::new(dir.into()));
        let repo = Repo::with_revision(self.repository.clone(), RepoType::Dataset, self.revision.clone());
        if let Some(path) = cache.repo(repo.clone()).get(&self.file) {
            return Ok(path);
        }
        if set("HF_HUB_OFFLINE").is_some_and(|value| value != "0") {
            return Err(refuse("is not in the hub's cache, and HF_HUB_OFFLINE forbids to fetch it".into()));
        }
        // hf-hub shows a key to every host that an answer redirects to: public data sets only, without one.
        let builder = ApiBuilder::from_cache(cache).with_token(None).with_progress(true);
        let builder = match set("HF_ENDPOINT") {
            Some(endpoint) => builder.with_endpoint(endpoint),
            None => builder,
        };
        let api = builder.build().map_err(|error| refuse(error.to_string()))?;
        api.repo(repo).get(&self.file).map_err(|error| refuse(format!("cannot be fetched: {error}")))
    }

    /// Without the hub there is nothing to get.
    ///
    /// # Errors
    /// Always.
    #[cfg(not(feature = "hub"))]
    pub fn get(&self) -> Result<PathBuf> {
        let what = "this program was built without the feature `hub`";
        Err(Error::data(format!("hf://datasets/{}/{}", self.repository, self.file), what))
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
