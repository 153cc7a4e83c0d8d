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
    /// To predict whether a sentence needs an edit.
    Classify,
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
            Self::Classify => "classify",
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
        check_part("images", self.kind == TaskKind::Images, "model.embedding.kind = \"pixels\"", {
            matches!(model.embedding, EmbeddingConfig::Pixels(_))
        })?;
        check_part(
            "classify",
            self.kind == TaskKind::Classify,
            "[model.classifier]",
            model.classifier.is_some(),
        )?;
        let wrong = |what: String| Err(Error::config(what));
        if train.init != InitialRule::Uniform && self.kind != TaskKind::Images {
            return wrong("train.init other than uniform is for [task] kind = \"images\"".into());
        }
        if train.lists.is_some() && self.kind != TaskKind::Rescore {
            return wrong("[train.lists] is for [task] kind = \"rescore\"".into());
        }
        self.validate_latent(corpus, model, train)?;
        if train.positive_weight != 1.0 && self.kind != TaskKind::Classify {
            return wrong("train.positive_weight is for [task] kind = \"classify\"".into());
        }
        if train.clip.is_some_and(|clip| clip.latent != 0.0) && self.kind != TaskKind::Vae {
            return wrong("train.clip.latent is for [task] kind = \"vae\"".into());
        }
        match (self.kind, self.unused(corpus, train)) {
            (_, None) | (TaskKind::Language, _) => Ok(()),
            (TaskKind::Images, Some(key)) => wrong(format!(
                "{key} is for text: of images, labels are characters, a window is 1, and dropout is on the input and the \
                 output of the layers"
            )),
            (TaskKind::Rescore, Some(key)) => wrong(format!(
                "{key} is for running text: of n-best lists each sentence is read from its beginning to its end, and a batch \
                 has train.batch_size lists"
            )),
            (TaskKind::Classify, Some(key)) => wrong(format!(
                "{key} is for running text: of [task] kind = \"classify\" each sentence is read whole, by itself, in an order \
                 drawn anew each epoch, and train.bptt_steps is 1"
            )),
            (TaskKind::Vae, Some(key)) => wrong(format!(
                "{key} is for running text: [task] kind = \"vae\" reads sentences as items that have nothing to do with each \
                 other, in batches of similar length, and train.bptt_steps is 1"
            )),
        }
    }

    /// Refuses a latent vector where nothing has one, and a sentence VAE without it.
    fn validate_latent(self, corpus: &CorpusConfig, model: &ModelSpec, train: &TrainConfig) -> Result<()> {
        if self.kind == TaskKind::Vae {
            return match (&model.latent, corpus.longest_sentence) {
                (None, _) => Err(Error::config(
                    "[task] kind = \"vae\" needs a [model.latent], the vector between encoder and decoder; say size = 32",
                )),
                (_, Some(0)) => Err(Error::config("corpus.longest_sentence is 0, wanted 1 or more")),
                _ => Ok(()),
            };
        }
        let vae_only = [
            ("model.latent", model.latent.is_some()),
            ("model.encoder", model.encoder.is_some()),
            ("train.latent", train.latent.is_some()),
            ("corpus.longest_sentence", corpus.longest_sentence.is_some()),
        ];
        match vae_only.iter().find(|(_, is_set)| *is_set) {
            None => Ok(()),
            Some((key, _)) => Err(Error::config(format!(
                "{key} is for a sentence VAE, [task] kind = \"vae\"; this is [task] kind = \"{}\"",
                self.kind.as_str()
            ))),
        }
    }

    /// A key that is set and would do nothing in this task, if there is one.
    fn unused(self, corpus: &CorpusConfig, train: &TrainConfig) -> Option<&'static str> {
        use TaskKind::{Classify, Images, Rescore, Vae};
        let but_language = &[Images, Rescore, Classify, Vae][..];
        let keys = [
            (but_language, "train.bptt_steps", train.bptt_steps != 1),
            (but_language, "train.min_epoch_steps", train.min_epoch_steps != 0),
            (but_language, "train.carry_state", train.carry_state),
            (but_language, "train.window", train.window != WindowKind::Fixed),
            (but_language, "train.activation", !train.activation.is_off()),
            (but_language, "train.fraternal", train.fraternal.is_some()),
            (but_language, "train.loss", !train.loss.is_exact()),
            (but_language, "train.state_reset", train.state_reset != 0.0),
            (&[Images, Classify, Vae], "train.update", !train.update.is_all()),
            (but_language, "corpus.sentences", corpus.sentences != Sentences::Running),
            (but_language, "corpus.storage", corpus.storage != Storage::Memory),
            (but_language, "corpus.shards", corpus.shards.is_some()),
            (but_language, "corpus.shuffle", corpus.shuffle.is_some()),
            (&[Classify], "train.clip", train.clip.is_some()),
            (&[Images], "corpus.unit", corpus.unit != Unit::Char),
            (&[Images], "train.dropout.word", train.dropout.word != 0.0),
            (&[Images], "train.dropout.embedding", train.dropout.embedding != 0.0),
            (&[Images], "train.dropout.hidden", train.dropout.hidden != 0.0),
            (&[Images], "train.dropout.between", train.dropout.between.is_some()),
        ];
        let found = keys.into_iter().find(|(tasks, _, is_set)| *is_set && tasks.contains(&self.kind));
        found.map(|(_, key, _)| key)
    }
}

/// Refuses a part of a model that is for another task, and a task without the part that it needs.
fn check_part(task: &str, is_task: bool, part: &str, is_there: bool) -> Result<()> {
    match (is_task, is_there) {
        (true, false) => Err(Error::config(format!("[task] kind = \"{task}\" needs {part}"))),
        (false, true) => Err(Error::config(format!("{part} needs [task] kind = \"{task}\""))),
        _ => Ok(()),
    }
}
