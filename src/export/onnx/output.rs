//! The output layer as nodes of a graph: logits of a softmax, or ln p of a mixture of them, as `model/output` has them.

use super::cores::Step;
use super::graph::{Attribute, Value, Weights};
use crate::error::Result;
use crate::export::subject::Subject;

/// An output layer whose weights are in a graph already.
pub(super) struct Output {
    /// `(size, vocabulary)`, or the table if that is used.
    weight: Value,
    tied: bool,
    bias: Value,
    mixture: Option<Mixture>,
}

struct Mixture {
    components: usize,
    /// Of a vector.
    size: usize,
    vectors: Value,
    vectors_bias: Value,
    prior: Value,
}

impl Output {
    /// Puts the weights into `weights`, where `table` is already.
    pub(super) fn new(subject: &Subject, table: &str, weights: &mut Weights) -> Result<Self> {
        let weight = match &subject.output {
            Some(output) => weights.add("output.weight", output.clone()),
            None => table.to_string(),
        };
        let bias = weights.add("output.bias", subject.output_bias.clone());
        let mixture = subject.mixture.as_ref().map(|mixture| -> Result<_> {
            Ok(Mixture {
                components: mixture.components,
                size: mixture.vectors_bias.dim(0)? / mixture.components,
                vectors: weights.add("output.components.weight", mixture.vectors.clone()),
                vectors_bias: weights.add("output.components.bias", mixture.vectors_bias.clone()),
                prior: weights.add("output.mixture.weight", mixture.prior.clone()),
            })
        });
        let mixture = mixture.transpose()?;
        Ok(Self { weight, tied: subject.output.is_none(), bias, mixture })
    }

    /// From what the last layer gives, `(…, hidden)`, to logits, `(…, vocabulary)`.
    pub(super) fn logits(&self, to: &mut Step<'_>, ys: &str) -> Value {
        let weight = if self.tied { to.graph.op("Transpose", &[&self.weight]) } else { self.weight.clone() };
        match &self.mixture {
            None => self.products(to, ys, &weight),
            Some(mixture) => self.log_probabilities(to, ys, &weight, mixture),
        }
    }

    fn products(&self, to: &mut Step<'_>, vectors: &str, weight: &str) -> Value {
        let products = to.graph.op("MatMul", &[vectors, weight]);
        to.graph.op("Add", &[&products, &self.bias])
    }

    /// ln of the sum over components of prior times softmax, the largest of them taken out first.
    fn log_probabilities(&self, to: &mut Step<'_>, ys: &str, weight: &str, mixture: &Mixture) -> Value {
        let products = to.graph.op("MatMul", &[ys, &mixture.vectors]);
        let sum = to.graph.op("Add", &[&products, &mixture.vectors_bias]);
        let vectors = to.graph.op("Tanh", &[&sum]);
        let vectors = to.split(&vectors, mixture.components, mixture.size);
        let prior = to.graph.op("MatMul", &[ys, &mixture.prior]);
        let prior = log_softmax(to, &prior);
        let prior = to.split(&prior, mixture.components, 1);
        let parts: Vec<Value> = vectors
            .iter()
            .zip(&prior)
            .map(|(vector, prior)| {
                let logits = self.products(to, vector, weight);
                let own = log_softmax(to, &logits);
                to.graph.op("Add", &[&own, prior])
            })
            .collect();
        let all: Vec<&str> = parts.iter().map(String::as_str).collect();
        let largest = to.graph.op("Max", &all);
        let shares: Vec<Value> = parts
            .iter()
            .map(|part| {
                let below = to.graph.op("Sub", &[part, &largest]);
                to.graph.op("Exp", &[&below])
            })
            .collect();
        let sum = to.graph.op("Sum", &shares.iter().map(String::as_str).collect::<Vec<_>>());
        let log = to.graph.op("Log", &[&sum]);
        to.graph.op("Add", &[&largest, &log])
    }
}

fn log_softmax(to: &mut Step<'_>, logits: &str) -> Value {
    to.graph.op_with("LogSoftmax", &[logits], &[Attribute::Number("axis", -1)])
}
