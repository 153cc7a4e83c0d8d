//! Where the hub and its cache are, as other tools read it from the environment.

use super::timeouts::Timeouts;
use crate::error::{Error, Result};
use std::path::{Path, PathBuf};

/// Where the hub is, where its cache is, and how to enter.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The hub's address.
    pub endpoint: String,
    /// The cache's directory.
    pub cache: PathBuf,
    /// The key to private repositories.
    pub token: Option<String>,
    /// Use only what the cache holds.
    pub offline: bool,
    /// How long a transfer may take.
    pub timeouts: Timeouts,
}

impl Settings {
    /// As other tools read them: HF_ENDPOINT, HF_HUB_CACHE, HF_HOME, HF_TOKEN, HF_HUB_OFFLINE.
    pub fn from_env() -> Result<Self> {
        Self::from_variables(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let below = |name: &str, rest: &str| variable(name).map(|directory| Path::new(&directory).join(rest));
        let home = below("HF_HOME", "")
            .or_else(|| below("XDG_CACHE_HOME", "huggingface"))
            .or_else(|| std::env::home_dir().map(|home| home.join(".cache/huggingface")))
            .ok_or_else(|| Error::config("no home directory for the hub's cache; set HF_HOME"))?;
        let saved_token = || std::fs::read_to_string(home.join("token")).ok();
        let token = variable("HF_TOKEN").or_else(saved_token).map(|token| token.trim().to_string());
        let endpoint = variable("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".into());
        let yes = |value: String| ["1", "on", "yes", "true"].contains(&value.to_lowercase().as_str());
        Ok(Self {
            endpoint: endpoint.trim_end_matches('/').to_string(),
            cache: below("HF_HUB_CACHE", "").unwrap_or_else(|| home.join("hub")),
            token: token.filter(|token| !token.is_empty()),
            offline: variable("HF_HUB_OFFLINE").is_some_and(yes),
            timeouts: Timeouts::default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Settings;
    use std::path::Path;

    fn settings(variables: &[(&str, &str)]) -> Settings {
        let value = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.to_string())
        };
        Settings::from_variables(value).unwrap()
    }

    #[test]
    fn the_usual_variables_are_honoured() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("token"), "from-file\n").unwrap();
        let home_text = home.path().to_str().unwrap();
        let plain = settings(&[("HF_HOME", home_text)]);
        assert_eq!(plain.cache, home.path().join("hub"));
        assert_eq!(plain.token.as_deref(), Some("from-file"));
        assert_eq!((plain.endpoint.as_str(), plain.offline), ("https://huggingface.co", false));
        let all = settings(&[
            ("HF_HOME", home_text),
            ("HF_HUB_CACHE", "/cache"),
            ("HF_TOKEN", "secret"),
            ("HF_ENDPOINT", "https://mirror/"),
            ("HF_HUB_OFFLINE", "1"),
        ]);
        assert_eq!(all.cache, Path::new("/cache"));
        assert_eq!(all.token.as_deref(), Some("secret"));
        assert_eq!((all.endpoint.as_str(), all.offline), ("https://mirror", true));
    }
}
