//! Evaluation that adapts to the text it reads: a temperature of the softmax, weights that go on learning, a cache of past
//! states.
//!
//! All of it uses past text alone, so the perplexities are honest; but none of them is comparable with that of a model
//! whose weights and distribution stay as they were trained. [`Adaptation`] says in every result what was on.

mod cache;
mod cached;
mod dynamic;
mod predictor;
mod settings;
pub mod statistics;
mod tune;

pub use crate::model::UpdateGroup;
pub use cached::CachedText;
pub use dynamic::DynamicModel;
pub use predictor::Predictor;
pub use settings::{Adaptation, CacheSettings, DynamicSettings};
pub use tune::{Free, SearchText, Trial, tune};

use super::Evaluation;
use super::perplexity::{EvaluationProgress, Split, evaluate};
use crate::error::{Error, Result};
use crate::predict::Reader;
use candle_core::{DType, Device, Tensor};
use predictor::Predicted;

/// Perplexity at batch 1 over the whole split, every token but the first predicted, by a model that starts anew and
/// by an adaptation that has seen nothing yet.
///
/// # Errors
/// If a setting cannot be used or a number is not finite, or `progress` ends it.
pub fn adapted(
    predictor: &mut dyn Predictor,
    split: &Split<'_>,
    adaptation: &Adaptation,
    progress: EvaluationProgress<'_>,
) -> Result<Evaluation> {
    adaptation.validate()?;
    let device = predictor.device().clone();
    let mut reader = AdaptedReader::new(predictor, adaptation, split.text.tokens.len())?;
    let batches = split.stream(reader.predictor.window())?;
    let found = evaluate(&mut reader, split, adaptation.protocol(), &batches, &device, progress);
    let found = if adaptation.dynamic.is_some() { found.map_err(off_course)? } else { found? };
    Ok(Evaluation { adaptation: adaptation.clone(), ..found })
}

/// Says what to do when weights that go on learning make a number that is not finite.
pub(super) fn off_course(error: Error) -> Error {
    match error {
        Error::NotFinite { step, what } => {
            let advice = "a smaller --dynamic-rate, or a larger --dynamic-decay or --dynamic-epsilon, may do";
            Error::NotFinite {
                step,
                what: format!("dynamic evaluation has left its course: {what}; {advice}"),
            }
        }
        other => other,
    }
}

/// Reads one batch row with the adaptation on, in windows of at most [`Predictor::window`].
pub struct AdaptedReader<'a> {
    predictor: &'a mut dyn Predictor,
    temperature: f64,
    cache: Option<CachedText>,
}

impl<'a> AdaptedReader<'a> {
    /// A reader of a text of `tokens` that has read nothing yet.
    pub fn new(predictor: &'a mut dyn Predictor, adaptation: &Adaptation, tokens: usize) -> Result<Self> {
        predictor.restart(adaptation)?;
        let cache = adaptation.empty_cache(tokens)?;
        Ok(Self { predictor, temperature: adaptation.temperature.unwrap_or(1.0), cache })
    }
}

impl Reader for AdaptedReader<'_> {
    fn nats(&mut self, inputs: &Tensor, targets: &Tensor) -> Result<Tensor> {
        let Predicted { states, nats } = self.predictor.predict(inputs, targets, &[self.temperature])?;
        let nats = &nats[0];
        let Some(cache) = &mut self.cache else { return Ok(nats.clone()) };
        let by_model = nats.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
        let both = cache.nats(&states, &targets.flatten_all()?.to_vec1()?, by_model)?;
        Ok(Tensor::from_iter(both, &Device::Cpu)?.reshape(targets.shape())?)
    }
}

#[cfg(test)]
mod tests;
