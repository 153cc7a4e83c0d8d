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
        if train.positive_weight != 1.0 && self.kind != TaskKind::Classify {
            return wrong("train.positive_weight is for [task] kind = \"classify\"".into());
        }
        let language_only = [
            ("train.bptt_steps", train.bptt_steps != 1),
            ("train.min_epoch_steps", train.min_epoch_steps != 0),
            ("train.carry_state", train.carry_state),
            ("train.window", train.window != WindowKind::Fixed),
            ("train.activation", !train.activation.is_off()),
            ("train.fraternal", train.fraternal.is_some()),
            ("train.loss", !train.loss.is_exact()),
            ("train.update", !train.update.is_all()),
            ("train.state_reset", train.state_reset != 0.0),
        ];
        let text_only = [
            ("corpus.unit", corpus.unit != Unit::Char),
            ("train.dropout.word", train.dropout.word != 0.0),
            ("train.dropout.embedding", train.dropout.embedding != 0.0),
            ("train.dropout.hidden", train.dropout.hidden != 0.0),
            ("train.dropout.between", train.dropout.between.is_some()),
        ];
        let running_only = [
            ("corpus.sentences", corpus.sentences != Sentences::Running),
            ("corpus.storage", corpus.storage != Storage::Memory),
            ("corpus.shards", corpus.shards.is_some()),
            ("corpus.shuffle", corpus.shuffle.is_some()),
            ("train.clip", train.clip.is_some()),
        ];
        let set =
            |keys: &[(&'static str, bool)]| keys.iter().find(|(_, is_set)| *is_set).map(|(key, _)| *key);
        match self.kind {
            TaskKind::Language => Ok(()),
            TaskKind::Images => match set(&language_only).or(set(&text_only)) {
                None => Ok(()),
                Some(key) => wrong(format!(
                    "{key} is for text: of images, labels are characters, a window is 1, and dropout is on the input and the \
                     output of the layers"
                )),
            },
            TaskKind::Classify => match set(&language_only).or(set(&running_only)) {
                None => Ok(()),
                Some(key) => wrong(format!(
                    "{key} is for a running text: of [task] kind = \"classify\" each sentence is read whole, by itself, in an \
                     order drawn anew each epoch, and train.bptt_steps is 1"
                )),
            },
        }
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
