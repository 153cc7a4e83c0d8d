//! `[task]` of a recipe: what the model learns to do.

use super::train::{InitialRule, WindowKind};
use super::{CorpusConfig, EmbeddingConfig, ModelSpec, Sentences, Storage, TrainConfig, Unit};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// `[task]` of a recipe: what the model learns to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskConfig {
    /// Which task.
    #[serde(default)]
    pub kind: TaskKind,
}

/// What a model learns to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TaskKind {
    /// To predict the next token of a text.
    #[default]
    Language,
    /// To predict the label of an image.
    Images,
    /// To put the hypotheses of n-best lists in order.
    Rescore,
    /// To write a sentence from a vector that an encoder has made of it (Bowman et al., 2016).
    Vae,
}

impl TaskKind {
    /// As recipes name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Language => "language",
            Self::Images => "images",
            Self::Rescore => "rescore",
            Self::Vae => "vae",
        }
    }
}

impl TaskConfig {
    /// Whether recipes leave it out.
    pub(super) fn is_language(&self) -> bool {
        self.kind == TaskKind::Language
    }
}

impl TaskConfig {
    /// Refuses a model that is not for the task, and settings that would do nothing in it.
    pub(super) fn validate(
        self,
        corpus: &CorpusConfig,
        model: &ModelSpec,
        train: &TrainConfig,
    ) -> Result<()> {
        let wrong = |what: &str| Err(Error::config(what));
        let reads_pixels = matches!(model.embedding, EmbeddingConfig::Pixels(_));
        if train.lists.is_some() && self.kind != TaskKind::Rescore {
            return wrong("[train.lists] is for [task] kind = \"rescore\"");
        }
        if self.kind != TaskKind::Images && reads_pixels {
            return wrong("a model that reads pixels needs [task] kind = \"images\"");
        }
        if self.kind != TaskKind::Images && train.init != InitialRule::Uniform {
            return wrong("train.init other than uniform is for [task] kind = \"images\"");
        }
        self.validate_latent(corpus, model, train)?;
        match self.kind {
            TaskKind::Language => Ok(()),
            TaskKind::Images if !reads_pixels => {
                wrong("[task] kind = \"images\" needs model.embedding.kind = \"pixels\"")
            }
            TaskKind::Images => refuse(
                for_text(corpus, train),
                "text: of images, labels are characters, a window is 1, and dropout is on the input and the output of the layers",
            ),
            TaskKind::Rescore => refuse(
                of_windows(corpus, train),
                "running text: of n-best lists each sentence is read from its beginning to its end, and a batch has \
                 train.batch_size lists",
            ),
            TaskKind::Vae => refuse(
                for_running_text(corpus, train),
                "running text: a sentence VAE reads sentences as items that have nothing to do with each other, in batches of \
                 train.batch_size sentences of similar length",
            ),
        }
    }

    /// Refuses a latent vector where nothing has one, and a sentence VAE without it.
    fn validate_latent(self, corpus: &CorpusConfig, model: &ModelSpec, train: &TrainConfig) -> Result<()> {
        if self.kind == TaskKind::Vae {
            return match (&model.latent, corpus.longest_sentence) {
                (None, _) => Err(Error::config(
                    "[task] kind = \"vae\" needs a [model.latent], the vector between encoder and decoder; say size = 32",
                )),
                (_, Some(0)) => Err(Error::config("corpus.longest_sentence must be at least 1")),
                _ => Ok(()),
            };
        }
        let vae_only = [
            ("model.latent", model.latent.is_some()),
            ("model.encoder", model.encoder.is_some()),
            ("train.latent", train.latent.is_some()),
            ("corpus.longest_sentence", corpus.longest_sentence.is_some()),
        ];
        let this = self.kind.as_str();
        let what = format!("a sentence VAE, [task] kind = \"vae\", and this is [task] kind = \"{this}\"");
        refuse(vae_only, &what)
    }
}

/// Refuses the first of `keys` that is set; `what` says what it is for.
fn refuse(keys: impl IntoIterator<Item = (&'static str, bool)>, what: &str) -> Result<()> {
    match keys.into_iter().find(|(_, is_set)| *is_set) {
        None => Ok(()),
        Some((key, _)) => Err(Error::config(format!("{key} is for {what}"))),
    }
}

/// Keys that do nothing for images, and whether they are set.
fn for_text(corpus: &CorpusConfig, train: &TrainConfig) -> Vec<(&'static str, bool)> {
    let mut keys = vec![("corpus.unit", corpus.unit != Unit::Char)];
    keys.extend(of_windows(corpus, train));
    keys.extend([
        ("train.update", !train.update.is_all()),
        ("train.dropout.word", train.dropout.word != 0.0),
        ("train.dropout.embedding", train.dropout.embedding != 0.0),
        ("train.dropout.hidden", train.dropout.hidden != 0.0),
        ("train.dropout.between", train.dropout.between.is_some()),
    ]);
    keys
}

/// Keys that do nothing for sentences as items, and whether they are set.
fn for_running_text(corpus: &CorpusConfig, train: &TrainConfig) -> Vec<(&'static str, bool)> {
    let mut keys = Vec::from(of_windows(corpus, train));
    keys.extend([
        ("train.update", !train.update.is_all()),
        ("corpus.storage", corpus.storage != Storage::Memory),
        ("corpus.shards", corpus.shards.is_some()),
    ]);
    keys
}

/// Keys of windows of a running text and of losses over them, and whether they are set.
fn of_windows(corpus: &CorpusConfig, train: &TrainConfig) -> [(&'static str, bool); 9] {
    [
        ("train.bptt_steps", train.bptt_steps != 1),
        ("train.min_epoch_steps", train.min_epoch_steps != 0),
        ("train.carry_state", train.carry_state),
        ("train.window", train.window != WindowKind::Fixed),
        ("train.activation", !train.activation.is_off()),
        ("train.fraternal", train.fraternal.is_some()),
        ("train.loss", !train.loss.is_exact()),
        ("train.state_reset", train.state_reset != 0.0),
        ("corpus.sentences", corpus.sentences != Sentences::Running),
    ]
}
