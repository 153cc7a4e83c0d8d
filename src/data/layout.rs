//! How a corpus of text lies there, which decides which settings of `[corpus]` it reads.

use super::data_directories::DataDirectories;
use super::directory;
use super::registry::Entry;
use super::shards::ShardedCorpus;
use crate::config::CorpusConfig;
use crate::error::Result;
use std::path::Path;

/// How the text of a corpus lies there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// One text, which is cut into splits.
    OneText,
    /// A folder of texts, which are put together and cut into splits.
    Documents,
    /// Splits of its own.
    Splits,
    /// Many files a split, read from disk.
    Shards,
}

impl Layout {
    /// The layout of the corpus that `config` names, whether or not it can be read.
    ///
    /// # Errors
    /// If its shards cannot be told.
    pub(crate) fn of(config: &CorpusConfig, directories: &DataDirectories) -> Result<Self> {
        let path = Path::new(&config.name);
        Ok(match directories.registry.get(&config.name) {
            Some(entry) => of_known(entry, directories),
            None if ShardedCorpus::find(config, directories)?.is_some() => Self::Shards,
            None if !path.is_dir() => Self::OneText,
            None if directory::has_documents(path) => Self::Documents,
            None => Self::Splits,
        })
    }

    /// The keys that not all layouts read.
    pub(crate) const KEYS: [&str; 4] = ["corpus.split", "corpus.boundary", "corpus.shuffle", "corpus.cache"];

    /// Whether a setting of this key, one of [`Layout::KEYS`], has a meaning here.
    pub(crate) fn reads(self, key: &str) -> bool {
        match key {
            "corpus.shuffle" | "corpus.boundary" => self == Self::Documents,
            "corpus.cache" => self == Self::Shards,
            _ => matches!(self, Self::OneText | Self::Documents),
        }
    }

    /// What a corpus of this layout is, as the end of a sentence about it.
    pub(crate) fn describe(self) -> &'static str {
        match self {
            Self::OneText => "is one text",
            Self::Documents => "is a folder of documents",
            Self::Splits => "has splits of its own",
            Self::Shards => "is a corpus of shards",
        }
    }
}

fn of_known(entry: &Entry, directories: &DataDirectories) -> Layout {
    let words = entry.characters_of.as_ref().and_then(|words| directories.registry.get(words));
    match words {
        Some(words) => of_known(words, directories),
        None if entry.files.len() > 1 || entry.split_bytes.is_some() => Layout::Splits,
        None => Layout::OneText,
    }
}

#[cfg(test)]
mod tests {
    use super::Layout;
    use crate::config::Resolved;
    use crate::data::DataDirectories;

    #[test]
    fn a_setting_is_read_by_the_layouts_that_it_is_for() {
        let folder = tempfile::tempdir().unwrap();
        let place = |name: &str| folder.path().join(name).display().to_string();
        for (name, files) in [
            ("documents", &["a.txt", "b.txt"][..]),
            ("splits", &["train.txt", "valid.txt"]),
            ("shards", &["train/1.txt", "train/2.txt", "valid/1.txt"]),
        ] {
            for file in files {
                let path = folder.path().join(name).join(file);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, "a b\n").unwrap();
            }
        }
        std::fs::write(place("one.txt"), "a b\n").unwrap();
        let layout = |name: &str| {
            let mut config = Resolved::new("text", &[]).unwrap().recipe.corpus;
            config.name = name.into();
            Layout::of(&config, &DataDirectories::new(None).unwrap()).unwrap()
        };
        for (name, wanted) in [
            ("shakespeare", Layout::OneText),
            ("ptb", Layout::Splits),
            ("ptb-char", Layout::Splits),
            ("enwik8", Layout::Splits),
            ("-", Layout::OneText),
        ] {
            assert_eq!(layout(name), wanted, "{name}");
        }
        let [documents, splits, shards, one] =
            ["documents", "splits", "shards", "one.txt"].map(|name| layout(&place(name)));
        assert_eq!(
            [documents, splits, shards, one],
            [Layout::Documents, Layout::Splits, Layout::Shards, Layout::OneText]
        );
        let readers = |key: &str| [documents, splits, shards, one].map(|layout| layout.reads(key));
        assert_eq!(readers("corpus.shuffle"), [true, false, false, false]);
        assert_eq!(readers("corpus.split"), [true, false, false, true]);
        assert_eq!(readers("corpus.cache"), [false, false, true, false]);
    }
}
