//! Where a checkpoint lies on the hub: `hf://owner/name[@revision]`.

use crate::error::{Error, Result};

/// What an address begins with.
pub(super) const SCHEME: &str = "hf://";

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
