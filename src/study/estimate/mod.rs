//! Whether the layers of a stage refine one estimate (Greff et al., 2017, arXiv 1612.07771): how far each state is from
//! the last one, and whether the gates weigh a new estimate as the derivation says.
//!
//! `docs/studies.md` defines the figures.

mod figure;
mod moments;
mod result;
mod sums;

pub(crate) use figure::figure;
pub(crate) use result::{COLUMNS, LayerEstimate, StageEstimate};

use crate::data::Tokens;
use crate::data::batch::Batches;
use crate::data::images::Images;
use crate::error::Result;
use crate::eval::EvaluationProgress;
use crate::model::{LanguageModel, StageId, stages};
use crate::study::gates::for_each_trace;
use candle_core::Tensor;
use std::collections::BTreeMap;
use sums::StageSums;

/// What averages over the words of an embedding are over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Over {
    /// Each word as often as the text has it
    #[default]
    Tokens,
    /// Each distinct word of the text once
    Types,
}

impl Over {
    fn as_str(self) -> &'static str {
        match self {
            Self::Tokens => "tokens",
            Self::Types => "types",
        }
    }
}

/// The figures of every stage of `model` over a text that is read as in training, dropout off: batch rows side by side,
/// the state carried from window to window. `weights` says whose weights they are.
///
/// # Errors
/// If a state is not finite, or `progress` ends the study.
pub(crate) fn estimate(
    model: &LanguageModel,
    weights: &str,
    tokens: &Tokens,
    batches: &Batches,
    over: Over,
    progress: EvaluationProgress<'_>,
) -> Result<Vec<StageEstimate>> {
    let mut found = Vec::new();
    let stages = stages(model.config());
    if let Some(stage) = stages.iter().find(|stage| matches!(stage, StageId::Embedding { .. })) {
        found.extend(words(model, *stage, weights, tokens, batches, over)?);
    }
    let steps: Vec<_> =
        stages.into_iter().filter(|stage| matches!(stage, StageId::TimeStep { .. })).collect();
    if !steps.is_empty() {
        found.extend(time_steps(model, &steps, weights, tokens, batches, progress)?);
    }
    Ok(found)
}

/// The layers of a net for images, each image once; else as [`estimate`].
pub(crate) fn of_images(
    model: &LanguageModel,
    weights: &str,
    images: &Images,
    progress: EvaluationProgress<'_>,
) -> Result<Vec<StageEstimate>> {
    let mut sums: Option<StageSums> = None;
    for_each_trace(model, images, progress, |trace| {
        let sums = match &mut sums {
            Some(sums) => sums,
            empty => empty.insert(StageSums::new(trace)?),
        };
        sums.add(trace, |_| 1.0)
    })?;
    let stages = stages(model.config());
    Ok(sums.iter().zip(stages).map(|(sums, stage)| sums.divide(stage, weights, "images")).collect())
}

/// The highway layers of the embedding, each distinct word computed once.
fn words(
    model: &LanguageModel,
    stage: StageId,
    weights: &str,
    tokens: &Tokens,
    batches: &Batches,
    over: Over,
) -> Result<Option<StageEstimate>> {
    const AT_ONCE: usize = 512; // what is computed on the way would fill the memory for a large vocabulary
    let mut counts: BTreeMap<u32, f64> = BTreeMap::new();
    for position in batches.predicted_positions() {
        *counts.entry(tokens.get(position - 1)).or_default() += 1.0; // the token that is read
    }
    let counts: Vec<(u32, f64)> = counts.into_iter().collect();
    let mut sums = None;
    for part in counts.chunks(AT_ONCE) {
        let ids: Vec<u32> = part.iter().map(|(id, _)| *id).collect();
        let Some(trace) = model.trace_words(&Tensor::new(ids, model.device())?)? else { return Ok(None) };
        let sums = match &mut sums {
            Some(sums) => sums,
            empty => empty.insert(StageSums::new(&trace)?),
        };
        sums.add(&trace, |row| if over == Over::Tokens { part[row].1 } else { 1.0 })?;
    }
    Ok(sums.map(|sums| sums.divide(stage, weights, over.as_str())))
}

/// The sublayers of the time steps, each token once.
fn time_steps(
    model: &LanguageModel,
    stages: &[StageId],
    weights: &str,
    tokens: &Tokens,
    batches: &Batches,
    progress: EvaluationProgress<'_>,
) -> Result<Vec<StageEstimate>> {
    let mut state = model.zero_state(batches.count)?;
    let mut all: Vec<StageSums> = Vec::new();
    for (window, (start, steps)) in batches.windows().enumerate() {
        let (inputs, _) = batches.window(tokens, window, model.device())?;
        let Some((traces, after)) = model.trace_steps(&inputs, &state)? else { return Ok(Vec::new()) };
        if all.is_empty() {
            all = traces.iter().map(StageSums::new).collect::<Result<_>>()?;
        }
        for (sums, trace) in all.iter_mut().zip(&traces) {
            sums.add(trace, |_| 1.0)?;
        }
        state = after;
        let rows = batches.count;
        progress((rows * (start + steps)) as u64, (rows * batches.predicted) as u64)?;
    }
    let divided = all.iter().zip(stages).map(|(sums, stage)| sums.divide(*stage, weights, "tokens"));
    Ok(divided.collect())
}
