//! The speed of a model that is not trained any more: reading a long text, and writing one.

use super::speed::{Plan, Progress, Speed};
use super::subject::Subject;
use crate::data::batch::Batches;
use crate::error::Result;
use crate::model::FrozenModel;
use crate::predict::{Reader, STREAM_STEPS, WindowReader};
use crate::sample::{SampleSettings, Sampler};
use crate::train::task::Task;

/// Tokens that are sampled between two looks at the clock.
const SAMPLED: usize = 16;

/// A model as it is before training. Fails if it cannot be made.
pub fn model(subject: &Subject) -> Result<FrozenModel> {
    let language = &subject.language;
    language.frozen(&language.first_parameters()?)
}

/// Evaluation by the `stream` protocol: one batch row, the state carried on. Fails if the text is too short, or a
/// number is not finite.
pub(crate) fn stream(
    subject: &Subject,
    model: &FrozenModel,
    plan: Plan,
    progress: Progress<'_>,
) -> Result<Speed> {
    let language = &subject.language;
    let text = &*language.held_out();
    let batches = Batches::stream(language.data().corpus, text.len(), STREAM_STEPS)?;
    let whole = (batches.window_count() - 1).max(1); // the last one may be short
    let mut reader = WindowReader::new(model, 1)?;
    let mut window = 0;
    Speed::measure("stream evaluation", plan, progress, language.device(), || {
        let (inputs, targets) = batches.window(text, window % whole, language.device())?;
        let nats = reader.nats(&inputs, &targets)?;
        nats.sum_all()?.to_dtype(candle_core::DType::F64)?.to_scalar::<f64>()?; // waits for the device
        window += 1;
        Ok(targets.elem_count() as u64)
    })
}

/// Sampling, one token after another. Fails if a number is not finite.
pub(crate) fn sample(model: &FrozenModel, plan: Plan, progress: Progress<'_>) -> Result<Speed> {
    let mut sampler = Sampler::new(model, SampleSettings::default(), &[0], 0)?;
    Speed::measure("sampling", plan, progress, model.device(), || {
        for drawn in sampler.by_ref().take(SAMPLED) {
            drawn?;
        }
        Ok(SAMPLED as u64)
    })
}
