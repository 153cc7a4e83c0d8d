//! `POST /page/gates`: how far the transform gates of each sublayer are open at each token of a text (Zilly et al., 2017,
//! section 5).
//!
//! The model that generates has its weights packed, and no gates to be seen; so there is another one beside it, from the first
//! request on and as long as it.

use super::super::App;
use super::super::failure::Failure;
use super::super::http::{Reply, json};
use super::super::models::unavailable;
use super::super::pool::Model;
use super::super::request::{Fields, Object};
use crate::config::Unit;
use crate::data::{Piece, Text, Tokenizer};
use crate::error::{Error, Result};
use crate::model::config::ModelConfig;
use crate::model::{LanguageModel, StageId, StageTrace, stages};
use candle_core::{DType, Tensor};
use hyper::body::Bytes;
use hyper::{Response, StatusCode};
use serde::Serialize;
use std::sync::Arc;
use tokio::sync::oneshot::{Sender, channel};

/// Tokens of a text: as many columns are drawn.
const MOST_TOKENS: usize = 2000;

/// Tokens that are read at once; between them is looked whether somebody still waits.
const WINDOW: usize = 128;

#[derive(Serialize)]
struct Found {
    object: &'static str,
    model: String,
    tokens: Vec<Token>,
    stages: Vec<Stage>,
}

/// A token that the model reads.
#[derive(Serialize)]
struct Token {
    /// The stretch of the text that it stands for; empty for the end of the last line.
    text: String,
    /// Whether the vocabulary lacks it.
    unknown: bool,
    #[serde(skip)]
    id: u32,
}

/// The sublayers of one recurrent layer.
#[derive(Serialize)]
struct Stage {
    name: String,
    /// For each sublayer, the gate's mean over units at each token.
    transform: Vec<Vec<f64>>,
    /// The same of the carry gate, where it has weights of its own; else empty, and the carry is one less the transform.
    carry: Vec<Vec<f64>>,
}

type Outcome = std::result::Result<Found, Failure>;

/// Reads the text beside the model's thread.
pub(super) async fn gates(app: Arc<App>, body: Bytes) -> std::result::Result<Response<Reply>, Failure> {
    let fields: Object = serde_json::from_slice(&body)
        .map_err(|error| Failure::body(format!("the body is no JSON object as wanted: {error}")))?;
    let mut fields = Fields::new(fields);
    let model = fields.string("model")?;
    let Some(text) = fields.string("text")? else {
        return Err(Failure::field("text", "text is missing, wanted the text to read"));
    };
    fields.finish()?;
    let (name, asked) = app.models.get(model.as_deref()).await?;
    let work = async {
        let Ok(permit) = app.scores.clone().acquire_owned().await else {
            return Err(Failure::internal("the server stops"));
        };
        let (sender, found) = channel();
        tokio::task::spawn_blocking(move || {
            let _permit = permit; // until the work is over, also where nobody waits for it any more
            let outcome = read(&name, &asked, text, &sender);
            let _ = sender.send(outcome); // nobody may wait any more
        });
        found.await.unwrap_or_else(|_| Err(Failure::internal("reading the text failed")))
    };
    match tokio::time::timeout(app.limits.request_timeout, work).await {
        Ok(found) => Ok(json(StatusCode::OK, &found?)),
        Err(_) => Err(Failure::timeout(app.limits.request_timeout.as_secs())),
    }
}

fn read(name: &str, asked: &Model, text: String, waiting: &Sender<Outcome>) -> Outcome {
    let tokenizer = &asked.engine.served.tokenizer;
    let steps = steps(asked.engine.served.model.config());
    if steps.is_empty() {
        return Err(no_gates(name));
    }
    let tokens = tokens(tokenizer, text).map_err(|error| Failure::field("text", error.to_string()))?;
    if tokens.is_empty() || tokens.len() > MOST_TOKENS {
        let message = format!("the text has {} tokens, wanted 1 to {MOST_TOKENS}", tokens.len());
        return Err(Failure::field("text", message));
    }
    let mut found: Vec<Stage> = steps
        .iter()
        .map(|stage| Stage { name: stage.name(), transform: Vec::new(), carry: Vec::new() })
        .collect();
    let start: Vec<u32> = tokenizer.line_end_id().into_iter().collect(); // as rhn score begins
    let ids: Vec<u32> = start.iter().copied().chain(tokens.iter().map(|token| token.id)).collect();
    let model = asked.unpacked().map_err(|error| unavailable(name, &error))?;
    trace(&model, &ids, &mut found, waiting).map_err(|error| Failure::internal(error.to_string()))?;
    if found.iter().any(|stage| stage.transform.is_empty()) {
        return Err(no_gates(name));
    }
    for layer in found.iter_mut().flat_map(|stage| stage.transform.iter_mut().chain(&mut stage.carry)) {
        layer.drain(..start.len());
    }
    Ok(Found { object: "gates", model: name.to_string(), tokens, stages: found })
}

fn no_gates(model: &str) -> Failure {
    let message = format!(
        "the model {model:?} has no sublayers with transform gates: wanted a recurrent highway network (rhn)"
    );
    Failure::field("model", message)
}

/// The stages of a time step.
fn steps(config: &ModelConfig) -> Vec<StageId> {
    let is_step = |stage: &StageId| matches!(stage, StageId::TimeStep { .. });
    stages(config).into_iter().filter(is_step).collect()
}

/// The tokens of a text that may go on, so that an unfinished last line has no end.
fn tokens(tokenizer: &Tokenizer, text: String) -> Result<Vec<Token>> {
    let text = Text::new(text.into_bytes(), "the text");
    let mut tokens = Vec::new();
    tokenizer.cut(&text, |Piece { id, known, span }| {
        let Some(id) = id else { return };
        let stretch = String::from_utf8_lossy(&text.bytes()[span]).into_owned();
        tokens.push(Token { text: stretch, unknown: !known, id });
    })?;
    let ended = tokens.last().is_some_and(|token: &Token| Some(token.id) == tokenizer.line_end_id());
    if tokenizer.unit() == Unit::Word && ended && !text.bytes().ends_with(b"\n") {
        tokens.pop();
    }
    Ok(tokens)
}

/// Adds the gates at each of `ids`. Fails if nobody waits any more.
fn trace(model: &LanguageModel, ids: &[u32], found: &mut [Stage], waiting: &Sender<Outcome>) -> Result<()> {
    let mut state = model.zero_state(1)?;
    for window in ids.chunks(WINDOW) {
        if waiting.is_closed() {
            return Err(Error::config("nobody waits for the gates any more"));
        }
        let inputs = Tensor::from_slice(window, (window.len(), 1), model.device())?;
        let Some((traces, after)) = model.trace_steps(&inputs, &state)? else { return Ok(()) };
        state = after;
        for (stage, trace) in found.iter_mut().zip(&traces) {
            stage.add(trace)?;
        }
    }
    Ok(())
}

impl Stage {
    fn add(&mut self, trace: &StageTrace) -> Result<()> {
        for (layer, values) in trace.layers.iter().enumerate() {
            for (gate, means) in [(&values.gate, &mut self.transform), (&values.carry, &mut self.carry)] {
                let Some(gate) = gate else { continue };
                means.resize(means.len().max(layer + 1), Vec::new());
                means[layer].extend(mean_over_units(gate)?);
            }
        }
        Ok(())
    }
}

/// `(rows, units)` to a mean for each row, to six digits.
fn mean_over_units(gate: &Tensor) -> Result<Vec<f64>> {
    let means: Vec<f64> = gate.to_dtype(DType::F64)?.mean(1)?.to_vec1()?;
    Ok(means.into_iter().map(|mean| (mean * 1e6).round() / 1e6).collect())
}
