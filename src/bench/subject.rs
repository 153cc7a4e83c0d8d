//! What is measured: a recipe on its corpus, or on a made-up text of the same size where that is not at hand.

use super::made_up;
use crate::config::{Recipe, TaskKind};
use crate::data::batch::Batches;
use crate::data::{DataDirectories, corpus};
use crate::error::{Error, Result};
use crate::task::language::Language;
use crate::train::task::Task;
use candle_core::Device;
use rhn_kernels::precision::Precision;

/// A recipe brought to a text.
pub struct Subject {
    /// The recipe, its text and the model's sizes.
    pub language: Language,
    /// Whether the text is made up.
    pub made_up: bool,
    /// Tokens of the corpus's training split.
    train_tokens: usize,
    /// Tokens of its validation split.
    valid_tokens: usize,
}

impl Subject {
    /// Opens the recipe's corpus if it is on this machine; nothing is fetched. Fails if the recipe cannot be run, or
    /// the corpus is neither here nor one whose size is known.
    pub fn prepare(
        recipe: Recipe,
        directories: &DataDirectories,
        precision: Precision,
        device: &Device,
    ) -> Result<Self> {
        let what = match recipe.task.kind {
            TaskKind::Classify => Some("a classifier of sentences"),
            TaskKind::Rescore => Some("learning from n-best lists"),
            TaskKind::Images => Some("a classifier of images"),
            TaskKind::Language | TaskKind::Vae => None, // a VAE is refused by what it lacks
        };
        if let Some(what) = what {
            return Err(Error::config(format!(
                "rhn bench is for language models; of {what} `rhn train --dry-run` tells the speed"
            )));
        }
        let entry = directories.registry.get(&recipe.corpus.name);
        let Some(entry) = entry.filter(|entry| !corpus::is_here(entry, directories)) else {
            let language = Language::prepare(recipe, directories, None, precision, device)?;
            let [train_tokens, valid_tokens, _] = language.data().tokens.map(|tokens| tokens as usize);
            return Ok(Self { language, made_up: false, train_tokens, valid_tokens });
        };
        let (corpus, tokenizer) = made_up::corpus(entry, &recipe.corpus, &recipe.train)?;
        let language = Language::with_corpus(recipe, corpus, Some(tokenizer), precision, device)?;
        let [train_tokens, valid_tokens, _] = entry.tokens.unwrap_or_default();
        Ok(Self { language, made_up: true, train_tokens, valid_tokens })
    }

    /// Windows of an epoch's training and of its validation, over the whole corpus. Fails if the corpus is too short
    /// for a window.
    pub fn windows(&self) -> Result<[usize; 2]> {
        let train = &self.language.recipe().train;
        let corpus = self.language.data().corpus;
        let batches = |tokens: usize| Batches::batched(corpus, tokens, train.batch_size, train.bptt_steps);
        Ok([batches(self.train_tokens)?.window_count(), batches(self.valid_tokens)?.window_count()])
    }
}

#[cfg(test)]
mod tests {
    use super::Subject;
    use crate::config::Resolved;
    use crate::data::{DataDirectories, registry::Registry};
    use crate::model::parameter_count;
    use crate::train::task::Task;
    use candle_core::Device;
    use rhn_kernels::precision::Precision;
    use std::collections::HashSet;
    use std::path::Path;

    fn made_up(recipe: &str) -> Subject {
        let directories = DataDirectories::only(Path::new("no such directory"), Registry::built_in());
        let recipe = Resolved::new(recipe, &[]).unwrap().recipe;
        let subject = Subject::prepare(recipe, &directories, Precision::F32, &Device::Cpu).unwrap();
        assert!(subject.made_up);
        subject
    }

    #[test]
    fn a_made_up_text_gives_the_published_number_of_parameters() {
        let count = |recipe: &str| parameter_count(made_up(recipe).language.model()).unwrap();
        assert_eq!(count("ptb-rhn"), 23_482_400);
        assert_eq!(count("ptb-char-cnn-small"), 5_312_515);
        assert_eq!(count("enwik8-rhn"), 45_994_730);
        assert_eq!(count("text8-rhn"), 45_152_256);
    }

    #[test]
    fn made_up_windows_have_as_many_different_words_as_penn_treebanks() {
        let language = made_up("ptb-rhn").language;
        let distinct = |window: usize| {
            let ids =
                language.batch(0, window).unwrap().inputs.flatten_all().unwrap().to_vec1::<u32>().unwrap();
            ids.into_iter().collect::<HashSet<_>>().len()
        };
        let windows = language.batch_count(0);
        let mean = (0..windows).map(distinct).sum::<usize>() as f64 / windows as f64;
        assert!((mean - 360.0).abs() < 10.0, "{mean}"); // 360.1 in the real training split
    }

    #[test]
    fn an_epoch_is_that_of_the_whole_corpus() {
        // (929,589 / 20 − 1) / 35 and (73,760 / 20 − 1) / 35
        assert_eq!(made_up("ptb-rhn").windows().unwrap(), [1327, 105]);
    }

    #[test]
    fn built_in_text_is_real() {
        let directories = DataDirectories::only(Path::new("no such directory"), Registry::built_in());
        let recipe = Resolved::new("shakespeare", &[]).unwrap().recipe;
        assert!(!Subject::prepare(recipe, &directories, Precision::F32, &Device::Cpu).unwrap().made_up);
    }

    #[test]
    fn units_whose_number_is_not_known_are_refused_with_what_to_do() {
        let directories = DataDirectories::only(Path::new("no such directory"), Registry::built_in());
        let recipe = Resolved::new("ptb-rhn", &["corpus.unit=byte".into()]).unwrap().recipe;
        let error = Subject::prepare(recipe, &directories, Precision::F32, &Device::Cpu).err().unwrap();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("rhn data fetch ptb"), "{error}");
    }
}
