//! `[task]` of a recipe: what the model learns to do.

use super::train::{InitialRule, WindowKind};
use super::{CorpusConfig, EmbeddingConfig, ModelSpec, Sentences, TrainConfig, Unit};
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
        let wrong = |what: String| Err(Error::config(what));
        let reads_pixels = matches!(model.embedding, EmbeddingConfig::Pixels(_));
        if train.lists.is_some() && self.kind != TaskKind::Rescore {
            return wrong("[train.lists] is for [task] kind = \"rescore\"".into());
        }
        if self.kind == TaskKind::Rescore {
            return validate_lists(model, corpus, train);
        }
        if self.is_language() {
            return match (reads_pixels, train.init) {
                (true, _) => wrong("a model that reads pixels needs [task] kind = \"images\"".into()),
                (false, InitialRule::Uniform) => Ok(()),
                (false, _) => wrong("train.init other than uniform is for [task] kind = \"images\"".into()),
            };
        }
        if !reads_pixels {
            return wrong("[task] kind = \"images\" needs model.embedding.kind = \"pixels\"".into());
        }
        let language_only = [
            ("corpus.unit", corpus.unit != Unit::Char),
            ("train.bptt_steps", train.bptt_steps != 1),
            ("train.min_epoch_steps", train.min_epoch_steps != 0),
            ("train.carry_state", train.carry_state),
            ("train.window", train.window != WindowKind::Fixed),
            ("train.activation", !train.activation.is_off()),
            ("train.fraternal", train.fraternal.is_some()),
            ("train.loss", !train.loss.is_exact()),
            ("train.update", !train.update.is_all()),
            ("train.state_reset", train.state_reset != 0.0),
            ("train.dropout.word", train.dropout.word != 0.0),
            ("train.dropout.embedding", train.dropout.embedding != 0.0),
            ("train.dropout.hidden", train.dropout.hidden != 0.0),
            ("train.dropout.between", train.dropout.between.is_some()),
        ];
        match language_only.iter().find(|(_, is_set)| *is_set) {
            None => Ok(()),
            Some((key, _)) => wrong(format!(
                "{key} is for text: of images, labels are characters, a window is 1, and dropout is on the input and the \
                 output of the layers"
            )),
        }
    }
}

/// Refuses a model that scores no sentences, and settings that would do nothing for n-best lists.
fn validate_lists(model: &ModelSpec, corpus: &CorpusConfig, train: &TrainConfig) -> Result<()> {
    let wrong = |what: String| Err(Error::config(what));
    if matches!(model.embedding, EmbeddingConfig::Pixels(_)) {
        return wrong("a model that reads pixels needs [task] kind = \"images\"".into());
    }
    let for_text = [
        ("train.bptt_steps", train.bptt_steps != 1),
        ("train.min_epoch_steps", train.min_epoch_steps != 0),
        ("train.carry_state", train.carry_state),
        ("train.window", train.window != WindowKind::Fixed),
        ("train.activation", !train.activation.is_off()),
        ("train.fraternal", train.fraternal.is_some()),
        ("train.loss", !train.loss.is_exact()),
        ("train.state_reset", train.state_reset != 0.0),
        ("train.init", train.init != InitialRule::Uniform),
        ("corpus.sentences", corpus.sentences != Sentences::Running),
    ];
    match for_text.iter().find(|(_, is_set)| *is_set) {
        None => Ok(()),
        Some((key, _)) => wrong(format!(
            "{key} is for running text: of n-best lists each sentence is read from its beginning to its end, and a batch has \
             train.batch_size lists"
        )),
    }
}
