//! `hf://owner/name[@revision]` wherever a checkpoint is expected.

use crate::error::{Error, Result};
use std::path::PathBuf;

const SCHEME: &str = "hf://";

/// A repository on the hub at one revision; both are safe as parts of a path and of an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// `owner/name`.
    pub repository: String,
    /// A branch, a tag or a commit.
    pub revision: String,
}

impl Address {
    /// Reads `hf://owner/name[@revision]`; the revision is `main` unless given.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong =
            |what: &str| Error::checkpoint(text, format!("{what}; wanted hf://owner/name[@revision]"));
        let rest = text.strip_prefix(SCHEME).ok_or_else(|| wrong("is no address on the hub"))?;
        let (repository, revision) = rest.split_once('@').unwrap_or((rest, "main"));
        let parts: Vec<&str> = repository.split('/').collect();
        if parts.len() != 2 || !parts.iter().all(|part| is_name(part)) {
            return Err(wrong("names no repository"));
        }
        if revision.len() > 200 || !revision.split('/').all(is_name) {
            return Err(wrong("names no revision"));
        }
        Ok(Self { repository: repository.into(), revision: revision.into() })
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

/// The directory that a CHECKPOINT argument means; what lies on the hub is fetched into the hub's usual cache.
pub fn resolve(argument: &str) -> Result<PathBuf> {
    if argument.starts_with(SCHEME) {
        fetched(&Address::parse(argument)?)
    } else {
        Ok(PathBuf::from(argument))
    }
}

#[cfg(feature = "hub")]
fn fetched(address: &Address) -> Result<PathBuf> {
    super::fetch::fetch(address, &super::fetch::Settings::from_env()?)
}

#[cfg(not(feature = "hub"))]
fn fetched(address: &Address) -> Result<PathBuf> {
    let what = "this build cannot reach the hub: build with `cargo build --release --features hub`, \
                or download the files and name their directory";
    Err(Error::checkpoint(format!("{SCHEME}{}", address.repository), what))
}

#[cfg(test)]
mod tests {
    use super::{Address, resolve};
    use std::path::Path;

    #[test]
    fn an_address_names_a_repository_and_a_revision() {
        let plain = Address::parse("hf://zilly/rhn-ptb").unwrap();
        assert_eq!((plain.repository.as_str(), plain.revision.as_str()), ("zilly/rhn-ptb", "main"));
        assert_eq!(Address::parse("hf://zilly/rhn-ptb@refs/pr/5").unwrap().revision, "refs/pr/5");
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
            assert_eq!(Address::parse(text).unwrap_err().exit_code(), 4, "{text}");
        }
    }

    #[test]
    fn anything_else_is_a_directory() {
        assert_eq!(resolve("checkpoints/x").unwrap(), Path::new("checkpoints/x"));
    }
}
