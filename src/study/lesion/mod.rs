//! What a trained model loses when layers of a stage are left out, exchanged, shuffled or repeated (Veit et al., 2016;
//! Greff et al., 2017, arXiv 1612.07771). Nothing is trained again.

mod figure;
mod intervention;

pub(crate) use figure::{Cost, orders, removals};
pub(crate) use intervention::{Asked, Change, Intervention};

use crate::data::images::Images;
use crate::error::{Error, Result};
use crate::eval;
use crate::eval::perplexity::batched;
use crate::eval::{Evaluation, EvaluationProgress, Split};
use crate::model::config::ModelConfig;
use crate::model::{LanguageModel, StageId};
use candle_core::{Device, Tensor};
use rhn_kernels::precision::Precision;
use serde::Serialize;
use std::collections::BTreeMap;

/// A removal that costs less than this ratio of perplexities counts as mild.
pub(crate) const MILD: f64 = 1.25;

/// A trained model as its weights, so that its stages can be rearranged.
pub(crate) struct Trained<'a> {
    /// What fixes the weights' shapes.
    pub(crate) config: &'a ModelConfig,
    /// All tensors by name.
    pub(crate) tensors: &'a BTreeMap<String, Tensor>,
    /// What to compute with.
    pub(crate) precision: Precision,
    /// Where.
    pub(crate) device: &'a Device,
}

/// How a text is read: batch rows side by side in windows.
#[derive(Clone, Copy)]
pub(crate) struct Reading<'a> {
    /// The text.
    pub(crate) split: &'a Split<'a>,
    /// Batch rows.
    pub(crate) batch: usize,
    /// Time steps of a window.
    pub(crate) steps: usize,
}

/// What a change costs.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Outcome {
    /// Which stage was changed.
    pub(crate) stage: String,
    /// What was done.
    pub(crate) intervention: String,
    /// To which layers, counted from 1.
    pub(crate) layers: String,
    /// The trained layers that were applied, counted from 1.
    pub(crate) order: Vec<usize>,
    /// exp of the nats per token; none if that is not finite.
    pub(crate) perplexity: Option<f64>,
    /// Mean −ln p of a token; none if that is not finite.
    pub(crate) nats_per_token: Option<f64>,
    /// The perplexity over that of the untouched model.
    pub(crate) ratio: Option<f64>,
    /// Of a random order: Kendall's tau to the trained one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) kendall_tau: Option<f64>,
    /// Why there is no figure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) absent: Option<String>,
}

/// How many layers of a stage can be left out one by one at a small cost.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Mild {
    /// The stage.
    pub(crate) stage: String,
    /// Layers whose removal costs less than [`MILD`].
    pub(crate) mild: usize,
    /// All of them.
    pub(crate) layers: usize,
}

impl Trained<'_> {
    /// Evaluates the model under a change, as `rhn eval --protocol batched` does the untouched one.
    ///
    /// # Errors
    /// If the text is too short, a loss is not finite, or `progress` ends the evaluation.
    pub(crate) fn evaluate(
        &self,
        intervention: &Intervention,
        reading: Reading<'_>,
        progress: EvaluationProgress<'_>,
    ) -> Result<Evaluation> {
        let Intervention { stage, order, .. } = intervention;
        let (config, tensors) = stage.rearranged(self.config, self.tensors, order)?;
        let model = LanguageModel::of_tensors(&config, &tensors, self.precision, self.device)?.freeze()?;
        batched(&model, reading.split, reading.batch, reading.steps, progress)
    }

    /// As [`Trained::evaluate`], of a net that classifies images; `names` are those of the corpus and the split.
    pub(crate) fn evaluate_images(
        &self,
        intervention: &Intervention,
        names: [&str; 2],
        images: &Images,
        progress: EvaluationProgress<'_>,
    ) -> Result<Evaluation> {
        let Intervention { stage, order, .. } = intervention;
        let (config, tensors) = stage.rearranged(self.config, self.tensors, order)?;
        let model = LanguageModel::of_tensors(&config, &tensors, self.precision, self.device)?;
        eval::images::evaluate(&model, names, images, self.precision, progress)
    }
}

/// The evaluation of a model under a change.
type Evaluate<'a> = &'a dyn Fn(&Intervention, EvaluationProgress<'_>) -> Result<Evaluation>;

impl Outcome {
    /// The outcome of each change, in order; `untouched` is the model's own evaluation. One whose loss is not finite
    /// has no figure, and says why.
    ///
    /// # Errors
    /// As `evaluate`, but for a loss that is not finite.
    pub(crate) fn all(
        interventions: &[Intervention],
        untouched: &Evaluation,
        evaluate: Evaluate<'_>,
        progress: EvaluationProgress<'_>,
    ) -> Result<Vec<Self>> {
        let count = interventions.len() as u64;
        let outcome = |(done, intervention): (u64, &Intervention)| {
            let mut part = |tokens, of| progress(done * of + tokens, count * of);
            match evaluate(intervention, &mut part) {
                Ok(found) => Ok(Self::new(intervention, &found, untouched)),
                Err(Error::NotFinite { what, .. }) => Ok(Self::absent(intervention, what)),
                Err(error) => Err(error),
            }
        };
        (0..).zip(interventions).map(outcome).collect()
    }

    /// Of an evaluation; its ratio is of perplexities, or where there are none, of a net for images, of losses.
    pub(crate) fn new(intervention: &Intervention, found: &Evaluation, untouched: &Evaluation) -> Self {
        let finite = |value: f64| value.is_finite().then_some(value);
        let ratio = match found.perplexity {
            Some(_) => (found.nats_per_token - untouched.nats_per_token).exp(),
            None => found.nats_per_token / untouched.nats_per_token,
        };
        let perplexity = found.perplexity.and_then(finite);
        Self {
            perplexity,
            nats_per_token: finite(found.nats_per_token),
            ratio: finite(ratio),
            absent: found
                .perplexity
                .is_some_and(f64::is_infinite)
                .then(|| "the perplexity is over 1e308".into()),
            ..Self::unmeasured(intervention)
        }
    }

    fn absent(intervention: &Intervention, reason: String) -> Self {
        Self { absent: Some(reason), ..Self::unmeasured(intervention) }
    }

    fn unmeasured(intervention: &Intervention) -> Self {
        Self {
            stage: intervention.stage.name(),
            intervention: intervention.name().into(),
            layers: intervention.layers(),
            order: intervention.order.iter().map(|layer| layer + 1).collect(),
            perplexity: None,
            nats_per_token: None,
            ratio: None,
            kendall_tau: intervention.kendall_tau(),
            absent: None,
        }
    }
}

/// For each stage how many removals are mild; `outcomes` are those of `interventions`.
pub(crate) fn mild(stages: &[StageId], interventions: &[Intervention], outcomes: &[Outcome]) -> Vec<Mild> {
    let of_stage = |stage: &StageId| {
        let removed = interventions.iter().zip(outcomes).filter(|(intervention, outcome)| {
            intervention.stage == *stage
                && matches!(intervention.change, Change::Remove(_))
                && outcome.ratio.is_some_and(|ratio| ratio < MILD)
        });
        Mild { stage: stage.name(), mild: removed.count(), layers: stage.layers() }
    };
    stages.iter().map(of_stage).collect()
}

#[cfg(test)]
mod tests;
