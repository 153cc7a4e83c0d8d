//! Where something lies on the hub: `hf://OWNER/NAME[@REVISION]` is a model,
//! `hf://datasets/OWNER/NAME[@REVISION]/FILE` a file of a data set.

use crate::error::{Error, Result};
use std::fmt;

/// What every address on the hub begins with.
pub const SCHEME: &str = "hf://";

const DATASETS: &str = "datasets/";

/// What lies at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// All files of a checkpoint.
    Model,
    /// One file of a data set: its path there.
    DatasetFile(String),
}

/// A repository on the hub at one revision; every part is safe as a part of a path and of an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// What lies there.
    pub kind: Kind,
    /// `owner/name`.
    pub repository: String,
    /// A branch, a tag or a commit; `main` unless given.
    pub revision: String,
}

impl Address {
    /// Reads the address of a model. Fails if a part is missing or could lead out of the cache.
    pub fn model(text: &str) -> Result<Self> {
        let wrong =
            |what: &str| Error::checkpoint(text, format!("{what}; wanted hf://owner/name[@revision]"));
        let rest = text.strip_prefix(SCHEME).ok_or_else(|| wrong("is no address on the hub"))?;
        let (repository, revision) = rest.split_once('@').unwrap_or((rest, "main"));
        Self::new(Kind::Model, repository, revision).map_err(wrong)
    }

    /// Reads the address of a file of a data set. Fails if a part is missing or could lead out of the cache.
    pub fn dataset_file(text: &str) -> Result<Self> {
        let wrong = || Error::data(text, "wanted hf://datasets/OWNER/NAME[@REVISION]/FILE");
        let rest =
            text.strip_prefix(SCHEME).and_then(|rest| rest.strip_prefix(DATASETS)).ok_or_else(wrong)?;
        let [owner, name, file] = rest.splitn(3, '/').collect::<Vec<_>>().try_into().map_err(|_| wrong())?;
        let (name, revision) = name.split_once('@').unwrap_or((name, "main"));
        if !file.split('/').all(is_file_name) {
            return Err(wrong());
        }
        let kind = Kind::DatasetFile(file.into());
        Self::new(kind, &format!("{owner}/{name}"), revision).map_err(|_| wrong())
    }

    fn new(kind: Kind, repository: &str, revision: &str) -> std::result::Result<Self, &'static str> {
        let parts: Vec<&str> = repository.split('/').collect();
        if parts.len() != 2 || !parts.iter().all(|part| is_name(part)) {
            return Err("names no repository");
        }
        if revision.len() > 200 || !revision.split('/').all(is_name) {
            return Err("names no revision");
        }
        Ok(Self { kind, repository: repository.into(), revision: revision.into() })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { repository, revision, .. } = self;
        match &self.kind {
            Kind::Model => write!(f, "{SCHEME}{repository}@{revision}"),
            Kind::DatasetFile(file) if revision == "main" => {
                write!(f, "{SCHEME}{DATASETS}{repository}/{file}")
            }
            Kind::DatasetFile(file) => write!(f, "{SCHEME}{DATASETS}{repository}@{revision}/{file}"),
        }
    }
}

/// Letters, digits, `-`, `_` and `.`, with neither `.` nor `-` in front, and no `..` anywhere.
fn is_name(part: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=96).contains(&part.len())
        && part.bytes().all(known)
        && !part.starts_with(['.', '-'])
        && !part.contains("..")
}

/// A file's or folder's name in a data set, which may also have spaces and plus signs, and begin with a dot.
fn is_file_name(part: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"._-+ ".contains(&byte);
    (1..=255).contains(&part.len()) && part.bytes().all(known) && part != "." && !part.contains("..")
}

#[cfg(test)]
mod tests {
    use super::{Address, Kind};

    #[test]
    fn a_models_address_names_a_repository_and_a_revision() {
        let plain = Address::model("hf://zilly/rhn-ptb").unwrap();
        assert_eq!((plain.repository.as_str(), plain.revision.as_str()), ("zilly/rhn-ptb", "main"));
        assert_eq!(Address::model("hf://zilly/rhn-ptb@refs/pr/5").unwrap().revision, "refs/pr/5");
    }

    #[test]
    fn an_address_that_could_leave_the_cache_is_refused() {
        for text in [
            "hf://",
            "hf://a",
            "hf://a/b/c",
            "hf:///b",
            "hf://a/..",
            "hf://../b",
            "hf://a/b@",
            "hf://a/b@..",
            "hf://a/b@../../x",
            "hf://a/b@/etc",
            "hf://a/b@x//y",
            "hf://a/b@x\\y",
            "hf://a/b?x=1",
            "hf://a/b#c",
            "hf://a/b@c@d",
            "hf://a/.b",
            "hf://a/b@%2e%2e",
            "hf://a/b c",
            "hf://a/b\n",
            "hf://ä/b",
        ] {
            assert_eq!(Address::model(text).unwrap_err().exit_code(), 4, "{text}");
        }
    }

    #[test]
    fn a_dataset_files_address_has_owner_name_revision_and_file() {
        let address = Address::dataset_file("hf://datasets/some/text@v1/raw/train.txt").unwrap();
        assert_eq!((address.repository.as_str(), address.revision.as_str()), ("some/text", "v1"));
        assert_eq!(address.kind, Kind::DatasetFile("raw/train.txt".into()));
        assert_eq!(address.to_string(), "hf://datasets/some/text@v1/raw/train.txt");
        assert_eq!(Address::dataset_file("hf://datasets/some/text/a.txt").unwrap().revision, "main");
    }

    #[test]
    fn a_dataset_files_address_that_leads_elsewhere_is_refused() {
        for rest in [
            "../b/c",
            "a/../c",
            "a/b/../../c",
            "a/b/",
            "a/b",
            "a/b//c",
            "a/b@/c",
            "a/b@../c",
            "a/b/c\\..\\d",
            ".a/b/c",
            "-a/b/c",
            "a/b/c\n",
        ] {
            let error = Address::dataset_file(&format!("hf://datasets/{rest}")).unwrap_err();
            assert_eq!(error.exit_code(), 3, "{rest}");
        }
        assert!(Address::dataset_file("hf://models/a/b/c").is_err());
    }
}
