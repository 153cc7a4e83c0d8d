//! `hf://owner/name[@revision]` wherever a checkpoint is expected.

use crate::error::Result;
use crate::hub::{Address, SCHEME};
use std::path::{Path, PathBuf};

/// The directory that a CHECKPOINT argument means; what lies on the hub is fetched into the hub's usual cache. Fails if
/// an address on the hub is wrong or cannot be fetched.
pub fn resolve(argument: &Path) -> Result<PathBuf> {
    let Some(address) = argument.to_str().filter(|argument| argument.starts_with(SCHEME)) else {
        return Ok(argument.to_path_buf());
    };
    let address = Address::model(address)?;
    #[cfg(feature = "hub")]
    return super::fetch::fetch(&address, &crate::hub::Settings::from_env()?);
    #[cfg(not(feature = "hub"))]
    {
        let what = "this build cannot reach the hub: build with `cargo build --release --features hub`, \
                    or download the files and name their directory";
        Err(crate::error::Error::checkpoint(address.to_string(), what))
    }
}

#[cfg(test)]
mod tests {
    use super::resolve;
    use std::path::Path;

    #[test]
    fn what_is_no_address_is_a_directory() {
        assert_eq!(resolve(Path::new("checkpoints/x")).unwrap(), Path::new("checkpoints/x"));
        assert_eq!(resolve(Path::new("hf://a")).unwrap_err().exit_code(), 4);
    }
}
