//! How large each weight's gradient is over the training text: what dynamic evaluation divides its steps by.

use super::super::perplexity::{EvaluationProgress, finite};
use crate::config::ModelConfig;
use crate::data::Tokens;
use crate::data::batch::Batches;
use crate::error::Result;
use crate::model::{LanguageModel, Noise, Parameters};
use candle_core::{Device, Tensor, Var};
use rhn_kernels::precision::Precision;
use rhn_kernels::update::dynamic::add_squares;
use std::collections::BTreeMap;

/// Batch rows, fewer of a text that is too short for them, and time steps of a segment, as the authors have them.
const ROWS: usize = 100;
const STEPS: usize = 5;

/// √(mean over segments of g²) for each number of each trained weight, by name: g is the gradient of a segment's nats per
/// token over `ROWS` batch rows side by side, the states carried and nothing dropped. `name` is the text's, for errors.
///
/// # Errors
/// If the text has fewer than two tokens or a loss is not finite, or `progress` ends it.
pub fn gather(
    config: &ModelConfig,
    parameters: &Parameters,
    (name, tokens): (&str, &Tokens),
    precision: Precision,
    device: &Device,
    progress: EvaluationProgress<'_>,
) -> Result<BTreeMap<String, Tensor>> {
    let steps = STEPS.min(tokens.len().saturating_sub(1)).max(1);
    let rows = ROWS.min(tokens.len() / (steps + 1)).max(1);
    let batches = Batches::batched(name, tokens.len(), rows, steps)?;
    let model = LanguageModel::new(config, parameters, precision, device)?;
    let zeros = |(_, var): (&str, &Var)| Ok(Var::zeros(var.shape(), var.dtype(), device)?);
    let sums = parameters.trained().map(zeros).collect::<Result<Vec<_>>>()?;
    let mut state = model.zero_state(rows)?;
    for (window, (start, steps)) in batches.windows().enumerate() {
        let (inputs, targets) = batches.window(tokens, window, device)?;
        let (nats, after) = model.nats(&inputs, &targets, &state, &Noise::none())?;
        finite(&nats, start)?;
        for (sums, gradient) in sums.iter().zip(parameters.gradients(&nats.mean_all()?)?) {
            add_squares(sums, &gradient)?;
        }
        state = after.detach();
        progress((rows * (start + steps)) as u64, (rows * batches.predicted) as u64)?;
    }
    let segments = batches.window_count() as f64;
    let root = |((name, _), sums): ((&str, &Var), &Var)| {
        Ok((name.to_string(), (sums.as_detached_tensor() / segments)?.sqrt()?))
    };
    parameters.trained().zip(&sums).map(root).collect()
}
