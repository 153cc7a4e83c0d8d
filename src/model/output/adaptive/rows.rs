//! An adaptive softmax for one token at a time; nothing is allocated for a token.

use crate::model::layers::OutputRows;
use rhn_kernels::linear::Rows;

/// The weights, and where ln p of the clusters is kept meanwhile.
pub(super) struct AdaptiveRows {
    head: Rows,
    head_bias: Vec<f32>,
    /// The projection and the words of each tail.
    tails: Vec<[Rows; 2]>,
    clusters: Vec<f64>,
}

impl AdaptiveRows {
    pub(super) fn new(head: Rows, head_bias: Vec<f32>, tails: Vec<[Rows; 2]>) -> Self {
        let clusters = vec![0.0; tails.len()];
        Self { head, head_bias, tails, clusters }
    }
}

impl OutputRows for AdaptiveRows {
    /// ln p, whose softmax is p.
    fn logits(&mut self, ys: &[f32], logits: &mut Vec<f64>) {
        logits.clear();
        let products = self.head.multiply(ys).iter().zip(&self.head_bias);
        logits.extend(products.map(|(product, bias)| f64::from(product + bias)));
        normalise(logits, 0.0);
        let first = logits.len() - self.tails.len();
        self.clusters.copy_from_slice(&logits[first..]);
        logits.truncate(first);
        for ([projection, words], &cluster) in self.tails.iter_mut().zip(&self.clusters) {
            let start = logits.len();
            logits.extend(words.multiply(projection.multiply(ys)).iter().map(|&product| f64::from(product)));
            normalise(&mut logits[start..], cluster);
        }
    }
}

/// Logits become ln p within them, plus `outside`.
fn normalise(logits: &mut [f64], outside: f64) {
    let highest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = logits.iter().map(|logit| (logit - highest).exp()).sum();
    let normaliser = highest + sum.ln() - outside;
    logits.iter_mut().for_each(|logit| *logit -= normaliser);
}
