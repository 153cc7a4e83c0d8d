//! The kinds of events and their fields.

use crate::eval::Evaluation;
use crate::eval::decisions::Decisions;
use crate::eval::latent::LatentFigures;
use rhn_kernels::precision::Precision;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Something that happened in a run. `step` is the steps of the run so far; epochs count from 1.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Event {
    Start(Start),
    Resume(Start),
    Step(Step),
    Skip(Skip),
    Divergence(Divergence),
    /// The validation split was measured within an epoch, whose number and whose means so far the event has.
    Evaluation(Epoch),
    Epoch(Epoch),
    Stop(Stop),
    Result(Box<Outcome>),
}

/// What a run is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Start {
    #[serde(default)]
    pub step: u64,
    pub corpus: String,
    pub corpus_sha256: String,
    /// How many numbers training finds.
    pub parameters: u64,
    #[serde(default)]
    pub vocab_size: usize,
    #[serde(default)]
    pub train_tokens: usize,
    /// Steps of the epoch that begins or goes on; where windows are drawn, others have about as many.
    #[serde(default)]
    pub steps_per_epoch: u64,
    /// The run as it was asked for.
    pub recipe: Value,
    /// The precision; runs of earlier versions did not write it, and most had single precision.
    #[serde(default = "single")]
    pub precision: String,
    pub version: String,
    /// The SHA-256 of the checkpoint's weights that the run began with, if it did; a run that goes on does not say it again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begun_from: Option<String>,
    /// Whether the best model so far is lost, so that no validation before counts as the best any more.
    #[serde(default, skip_serializing_if = "is_false")]
    pub lost_best: bool,
}

fn single() -> String {
    Precision::F32.as_str().into()
}

/// A step of training.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Step {
    pub step: u64,
    pub epoch: u64,
    /// The step's own loss, with dropout.
    pub train_nats_per_token: Option<f64>,
    pub learning_rate: Option<f64>,
    /// The gradient's global norm before clipping.
    pub grad_norm: Option<f64>,
}

/// A step that changed nothing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Skip {
    /// The step's number, counted from 1.
    pub step: u64,
    pub epoch: u64,
    pub skipped_steps: u64,
    pub reason: String,
}

/// A loss that has left its course.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Divergence {
    /// Steps of the run so far.
    pub step: u64,
    /// The epoch's number, counted from 1.
    pub epoch: u64,
    /// What was found.
    pub reason: String,
    /// What was done: `stop`, `warn` or `rollback`.
    pub action: String,
    /// Rollbacks of the run so far, with this one.
    pub rollbacks: u64,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// An epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Epoch {
    /// Whether the model of this row was lost and replaced later; readers find out by the events that follow.
    #[serde(skip)]
    pub lost: bool,
    pub epoch: u64,
    pub step: u64,
    /// Tokens trained on so far.
    pub tokens: u64,
    /// The mean over the epoch, with dropout; none where all of its steps were skipped.
    pub train_nats_per_token: Option<f64>,
    /// The same of the model that the run is taught by, without dropout unless that is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub teacher_nats_per_token: Option<f64>,
    /// The loss on the validation split at the epoch's end.
    pub valid_nats_per_token: Option<f64>,
    pub valid_perplexity: Option<f64>,
    /// The same in bits over the text's characters.
    pub valid_bits_per_char: Option<f64>,
    /// Of images and labelled sentences: the share whose label is found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_accuracy: Option<f64>,
    /// Of labelled sentences: F1 at the threshold with the best.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_f1: Option<f64>,
    /// Of n-best lists: the word errors of the best hypotheses, a word of the references.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_word_error_rate: Option<f64>,
    /// Of n-best lists: the word errors to expect, by which the best weights are chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_expected_error_rate: Option<f64>,
    /// Of a sentence VAE: −ln p(x | z) of a sentence of the validation split.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_reconstruction_nats: Option<f64>,
    /// Its KL; with the reconstruction it makes the bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_kl_nats: Option<f64>,
    /// The weight of the KL in the loss of the next step, or of the last one where a cycle has just ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kl_weight: Option<f64>,
    /// The same in bits over the text's bytes; it is shown and not written.
    #[serde(skip)]
    pub valid_bits_per_byte: Option<f64>,
    /// The schedule's rate at the epoch's last step.
    pub learning_rate: Option<f64>,
    /// The mean over the epoch's steps that were not skipped.
    pub grad_norm: Option<f64>,
    /// The speed of training alone.
    pub tokens_per_second: Option<f64>,
    /// Wall-clock seconds of the run so far.
    pub seconds: Option<f64>,
    #[serde(default)]
    pub skipped_steps: u64,
    /// Steps in the mean of the weights that was measured; 0 for the weights themselves.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub averaged_steps: u64,
    /// Whether it is better than every validation before.
    #[serde(default)]
    pub best: bool,
    /// Whether the weight of the KL had not come to its last value: any later validation is better than this one.
    #[serde(default, skip_serializing_if = "is_false")]
    pub provisional: bool,
}

fn is_false(value: &bool) -> bool {
    !value
}

impl Epoch {
    /// The best of `rows` that have a loss on the validation split and whose model is not lost, by what decides, as
    /// [`crate::eval::Evaluation::decides`].
    pub fn best_of<'a>(rows: impl Iterator<Item = &'a Self>) -> Option<&'a Self> {
        let decides = |row: &Self| row.valid_expected_error_rate.or(row.valid_nats_per_token);
        let measured =
            rows.filter(|row| !row.lost).filter_map(|row| Some((row.provisional, decides(row)?, row)));
        measured.min_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))).map(|(.., row)| row)
    }
}

/// A stop before the run's end.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stop {
    pub step: u64,
    pub reason: String,
}

/// The final numbers of a run, as `result.json` has them; those of the test split are missing where there is none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Outcome {
    pub corpus: String,
    /// The split that was measured.
    pub split: Option<String>,
    /// The evaluation of that split, its names apart.
    #[serde(flatten)]
    pub test: Measured,
    /// The epoch with the least loss on the validation split, counted from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub best_epoch: Option<u64>,
    /// The steps that the run had made when it had that loss.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub best_step: Option<u64>,
    /// That loss on the validation split.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub valid_nats_per_token: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub valid_perplexity: Option<f64>,
    pub steps: u64,
    pub skipped_steps: u64,
    /// How many numbers training finds.
    pub parameters: u64,
    /// Wall-clock seconds of the run, its test included.
    pub seconds_total: Option<f64>,
    /// The same as `steps`, in the event alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<u64>,
}

/// The evaluation of the test split (the fields of `Evaluation`), absent where the corpus has none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Measured {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sentences: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chars: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub words: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oov_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nats_per_token: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub perplexity: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub perplexity_absent: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub perplexity_known: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub perplexity_known_absent: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub perplexity_words: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub perplexity_words_absent: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f64>,
    #[serde(flatten)]
    pub decisions: Option<Decisions>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub word_error_rate: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub word_error_rate_first: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub word_error_rate_oracle: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected_error_rate: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bits_per_token: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bits_per_char: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bits_per_char_absent: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bits_per_byte: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bits_per_byte_absent: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_second: Option<f64>,
    /// Of a sentence VAE.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub latent: Option<LatentFigures>,
}

impl From<&Evaluation> for Measured {
    fn from(found: &Evaluation) -> Self {
        Self {
            protocol: Some(found.protocol.clone()),
            sentences: found.sentences.clone(),
            tokens: Some(found.tokens),
            bytes: Some(found.bytes).filter(|bytes| *bytes > 0),
            chars: found.chars,
            words: Some(found.words).filter(|words| *words > 0 || found.bytes > 0),
            oov_tokens: Some(found.oov_tokens),
            nats_per_token: Some(found.nats_per_token),
            perplexity: found.perplexity,
            perplexity_absent: found.perplexity_absent.clone(),
            perplexity_known: found.perplexity_known,
            perplexity_known_absent: found.perplexity_known_absent.clone(),
            perplexity_words: found.perplexity_words,
            perplexity_words_absent: found.perplexity_words_absent.clone(),
            accuracy: found.accuracy,
            decisions: found.decisions,
            word_error_rate: found.lists.word_error_rate,
            word_error_rate_first: found.lists.word_error_rate_first,
            word_error_rate_oracle: found.lists.word_error_rate_oracle,
            expected_error_rate: found.lists.expected_error_rate,
            bits_per_token: Some(found.bits_per_token),
            bits_per_char: found.bits_per_char,
            bits_per_char_absent: found.bits_per_char_absent.clone(),
            bits_per_byte: found.bits_per_byte,
            bits_per_byte_absent: found.bits_per_byte_absent.clone(),
            seconds: Some(found.seconds),
            tokens_per_second: Some(found.tokens_per_second),
            latent: found.latent.clone(),
        }
    }
}

impl Event {
    /// The event that an object is; `None` if it is of a kind that this version does not know. Fails with what is
    /// wrong with which field.
    pub fn parse(object: &Value) -> Result<Option<Self>, String> {
        fn typed<T: DeserializeOwned>(object: &Value) -> Result<T, String> {
            serde_path_to_error::deserialize(object).map_err(|error| error.to_string())
        }
        Ok(Some(match object["event"].as_str() {
            Some("start") => Self::Start(typed(object)?),
            Some("resume") => Self::Resume(typed(object)?),
            Some("step") => Self::Step(typed(object)?),
            Some("skip") => Self::Skip(typed(object)?),
            Some("divergence") => Self::Divergence(typed(object)?),
            Some("evaluation") => Self::Evaluation(typed(object)?),
            Some("epoch") => Self::Epoch(typed(object)?),
            Some("stop") => Self::Stop(typed(object)?),
            Some("result") => Self::Result(typed(object)?),
            _ => return Ok(None),
        }))
    }
}

#[cfg(test)]
mod tests;
