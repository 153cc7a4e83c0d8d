//! How well a model classifies images: the nats of their labels, and how many labels have the largest probability.

use super::{Evaluation, EvaluationProgress};
use crate::data::images::Images;
use crate::error::{Error, Result};
use crate::model::{LanguageModel, Noise};
use candle_core::{D, DType};
use rhn_kernels::precision::Precision;
use std::time::Instant;

/// Images that are evaluated together.
pub(crate) const TOGETHER: usize = 1000;

/// The model on a split: mean −ln p of the labels, and how many have the largest probability.
///
/// # Errors
/// If a loss is not finite, or `progress` ends it.
pub fn evaluate(
    model: &LanguageModel,
    [corpus, split]: [&str; 2],
    images: &Images,
    precision: Precision,
    progress: EvaluationProgress<'_>,
) -> Result<Evaluation> {
    let start = Instant::now();
    let state = model.zero_state(TOGETHER)?;
    let mut nats = 0f64;
    let mut correct = 0;
    let all: Vec<u32> = (0..images.len() as u32).collect();
    for numbers in all.chunks(TOGETHER) {
        let (pixels, labels) = images.batch(numbers, precision.dtype(), model.device())?;
        let (logits, _) = model.logits(&pixels, &state, &Noise::none())?;
        let logits = logits.squeeze(0)?.to_dtype(DType::F64)?;
        let labels = labels.squeeze(0)?;
        let of_labels = logits.gather(&labels.unsqueeze(1)?, 1)?.squeeze(1)?;
        nats += (logits.log_sum_exp(D::Minus1)? - of_labels)?.sum_all()?.to_scalar::<f64>()?;
        let hits = logits.argmax(D::Minus1)?.eq(&labels)?.to_dtype(DType::F64)?;
        correct += hits.sum_all()?.to_scalar::<f64>()? as u64;
        if !nats.is_finite() {
            let what = format!("the model gives a label of {corpus} ({split}) −ln p = {nats}");
            return Err(Error::NotFinite { step: 0, what });
        }
        progress(u64::from(numbers[numbers.len() - 1]) + 1, images.len() as u64)?;
    }
    let counts = [images.len() as u64, correct];
    Ok(Evaluation::of_labels(corpus, split, nats, counts, start.elapsed().as_secs_f64()))
}
