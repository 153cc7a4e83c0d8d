//! ONNX: `step.onnx` reads one token a batch row, `sequence.onnx` a window of tokens by a `Scan` over time.
//!
//! Both take the state and give the next one, so that either can go on where the other stopped. Ids are the checkpoint's,
//! and `tokenizer.json` is its own. The files are written here (`protobuf`, `graph`); `onnx.checker` and a runtime have
//! accepted them.

mod cores;
mod graph;
mod output;
mod protobuf;
mod readme;

use super::Files;
use super::subject::Subject;
use crate::error::Result;
use crate::storage::TOKENIZER;
use cores::{Kind, Layer, Step};
use graph::{Attribute, Dim, Graph, Type, Value, Weights};
use output::Output;
use protobuf::Message;

/// Weights of more bytes are in a file of their own: a message of 2 GiB cannot be read at all.
pub(super) const MOST_INSIDE: usize = 256 << 20;

/// That file.
const WEIGHTS: &str = "weights.bin";

const BATCH: Dim = Dim::Named("batch");
const TIME: Dim = Dim::Named("time");

/// The directory's files; weights of more than `most_inside` bytes are in one of their own.
pub(super) fn files(subject: &Subject, most_inside: usize) -> Result<Files> {
    let mut weights = Weights::default();
    let model = Model::new(subject, &mut weights)?;
    let step = model.step_graph(&mut weights);
    let sequence = model.sequence_graph(&mut weights);
    let (headers, outside) = if weights.bytes() > most_inside {
        let (headers, bytes) = weights.outside(WEIGHTS)?;
        (headers, Some((WEIGHTS, bytes)))
    } else {
        (weights.inside()?, None)
    };
    let about = about(subject);
    let mut files = vec![
        ("step.onnx", step.file(&headers, &about)),
        ("sequence.onnx", sequence.file(&headers, &about)),
        (TOKENIZER, subject.tokenizer.to_json().into_bytes()),
        ("README.md", readme::readme(subject, &model.state).into_bytes()),
    ];
    files.extend(outside);
    Ok(files)
}

/// What the files say of themselves.
fn about(subject: &Subject) -> Vec<(&'static str, String)> {
    let mut about = vec![
        ("unit", subject.tokenizer.unit().as_str().to_string()),
        ("model", subject.about.model.clone()),
        ("weights_sha256", subject.about.weights.clone()),
    ];
    about.extend(subject.tokenizer.line_end_id().map(|id| ("line_end_id", id.to_string())));
    about
}

/// A model whose weights are in place.
struct Model {
    layers: Vec<Layer>,
    table: Value,
    output: Output,
    vocab_size: usize,
    hidden_size: usize,
    /// Each part of the state: layer, part, units.
    state: Vec<(usize, usize, usize)>,
}

impl Model {
    fn new(subject: &Subject, weights: &mut Weights) -> Result<Self> {
        let kind = Kind::of(&subject.core)?;
        let layers = subject.layers.iter().enumerate();
        let layers: Vec<Layer> =
            layers.map(|(k, tensors)| Layer::new(kind, k, tensors, weights)).collect::<Result<_>>()?;
        let parts = layers.iter().enumerate();
        let state = parts.flat_map(|(k, layer)| {
            layer.state_sizes.iter().enumerate().map(move |(part, &units)| (k, part, units))
        });
        let state = state.collect();
        let table = weights.add("embedding.weight", subject.table.clone());
        let output = Output::new(subject, &table, weights)?;
        Ok(Self {
            layers,
            table,
            output,
            vocab_size: subject.config.vocab_size,
            hidden_size: subject.config.spec.core.hidden_size(),
            state,
        })
    }

    /// `tokens` (batch) and the state to `logits` (batch, vocabulary) and the next state.
    fn step_graph(&self, weights: &mut Weights) -> Graph {
        let mut graph = Graph::new("step");
        let tokens = graph.input("tokens", Type::Int64, &[BATCH]);
        let state = self.state_inputs(&mut graph, "state");
        let x = graph.op("Gather", &[&self.table, &tokens]);
        let next = self.layers(&mut Step { graph: &mut graph, weights }, &x, &state);
        let ys = self.outputs(&next).to_string();
        let logits = self.output.logits(&mut Step { graph: &mut graph, weights }, &ys);
        graph.output("logits", &logits, Type::Float, &[BATCH, Dim::Size(self.vocab_size)]);
        self.state_outputs(&mut graph, &next);
        graph
    }

    /// `tokens` (batch, time) and the state to `logits` (batch, time, vocabulary) and the state after the window.
    fn sequence_graph(&self, weights: &mut Weights) -> Graph {
        let mut graph = Graph::new("sequence");
        let tokens = graph.input("tokens", Type::Int64, &[BATCH, TIME]);
        let state = self.state_inputs(&mut graph, "state");
        let xs = graph.op("Gather", &[&self.table, &tokens]);
        let next: Vec<_> = self.state.iter().map(|_| graph.fresh("Scan")).collect();
        let ys = graph.fresh("Scan");
        let inputs: Vec<&str> = state.iter().chain([&xs]).map(String::as_str).collect();
        let attributes = [
            Attribute::Graph("body", self.body(weights)),
            Attribute::Number("num_scan_inputs", 1),
            Attribute::Numbers("scan_input_axes", vec![1]),
            Attribute::Numbers("scan_output_axes", vec![1]),
        ];
        graph.node("Scan", &inputs, &[next.clone(), vec![ys.clone()]].concat(), &attributes);
        let logits = self.output.logits(&mut Step { graph: &mut graph, weights }, &ys);
        graph.output("logits", &logits, Type::Float, &[BATCH, TIME, Dim::Size(self.vocab_size)]);
        self.state_outputs(&mut graph, &next);
        graph
    }

    /// What `Scan` does at each time step: from the state and a vector to the state and the output layer's input.
    fn body(&self, weights: &mut Weights) -> Message {
        let mut graph = Graph::new("body");
        let state = self.state_inputs(&mut graph, "body_state");
        let size = self.layers.first().map_or(0, |layer| layer.input_size);
        let x = graph.input("body_x", Type::Float, &[BATCH, Dim::Size(size)]);
        let next = self.layers(&mut Step { graph: &mut graph, weights }, &x, &state);
        for (value, (k, part, units)) in next.iter().zip(&self.state) {
            let name = format!("body_next.{k}.{part}");
            graph.output(&name, value, Type::Float, &[BATCH, Dim::Size(*units)]);
        }
        graph.output("body_y", self.outputs(&next), Type::Float, &[BATCH, Dim::Size(self.hidden_size)]);
        graph.encode(&[])
    }

    fn state_inputs(&self, graph: &mut Graph, name: &str) -> Vec<Value> {
        let input = |(k, part, units): &(usize, usize, usize)| {
            graph.input(&format!("{name}.{k}.{part}"), Type::Float, &[BATCH, Dim::Size(*units)])
        };
        self.state.iter().map(input).collect()
    }

    fn state_outputs(&self, graph: &mut Graph, next: &[Value]) {
        for (value, (k, part, units)) in next.iter().zip(&self.state) {
            graph.output(&format!("next.{k}.{part}"), value, Type::Float, &[BATCH, Dim::Size(*units)]);
        }
    }

    /// Every layer's time step: the next state, part after part.
    fn layers(&self, to: &mut Step<'_>, x: &str, state: &[Value]) -> Vec<Value> {
        let mut x = x.to_string();
        let mut state = state;
        let mut below: Option<Value> = None;
        let mut next = Vec::new();
        for layer in &self.layers {
            let (entering, others) = state.split_at(layer.state_sizes.len());
            let after = layer.step(to, &x, entering, below.as_deref());
            x = after[0].clone();
            below = after.last().cloned();
            next.extend(after);
            state = others;
        }
        next
    }

    /// Of the next state, what the output layer reads: the first part of the last layer.
    fn outputs<'a>(&self, next: &'a [Value]) -> &'a str {
        let parts = self.layers.last().map_or(0, |layer| layer.state_sizes.len());
        &next[next.len() - parts]
    }
}

#[cfg(test)]
mod tests;
