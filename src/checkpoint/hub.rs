//! `hf://owner/name[@revision]` wherever a checkpoint is expected.

use super::address::{Address, SCHEME};
use crate::error::Result;
use std::path::PathBuf;

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
    super::fetch::fetch(address, &crate::net::Settings::from_env()?)
}

#[cfg(not(feature = "hub"))]
fn fetched(address: &Address) -> Result<PathBuf> {
    let what = "this build cannot reach the hub: build with `cargo build --release --features hub`, \
                or download the files and name their directory";
    Err(crate::error::Error::checkpoint(format!("{SCHEME}{}", address.repository), what))
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
