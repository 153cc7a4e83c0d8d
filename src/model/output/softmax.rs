//! One softmax over the whole vocabulary.
//!
//! ```text
//! p(w) = softmax(y W + b)[w]
//! ```
//!
//! Where a step has samples, its loss is that of the target among these (`rhn_kernels::softmax::sampled`), and the gradients
//! of the words and of their biases are those of the rows that take part.
//!
//! Weights: `output.weight` (hidden, vocabulary), or the embedding's (vocabulary, hidden) if tied, or `output.table`
//! (vocabulary, hidden) with `by_word`; `output.bias`.

use super::OutputSizes;
use super::product::Product;
use super::soft::{Layer, SoftTargets, of_products, of_window};
use crate::error::{Error, Result};
use crate::model::builder::Builder;
use crate::model::layers::{Output, OutputRows};
use crate::model::noise::Noise;
use crate::model::sampler::Candidates;
use candle_core::Tensor;
use rhn_kernels::embedding::lookup;
use rhn_kernels::linear::{self, Stored};
use rhn_kernels::precision::Precision;
use rhn_kernels::profile::{self, Part};
use rhn_kernels::softmax::sampled;
use std::sync::Arc;

pub(super) struct Softmax {
    weight: Product,
    bias: Tensor,
    cost: u64,
}

impl Softmax {
    pub(super) fn build(
        OutputSizes { hidden, vocabulary, .. }: OutputSizes,
        by_word: bool,
        tied: Option<&Tensor>,
        builder: &Builder<'_>,
    ) -> Result<Self> {
        let (weight, stored) = match tied {
            Some(table) => (table.clone(), Stored::ByOutput),
            None if by_word => (builder.words("output.table", (vocabulary, hidden))?, Stored::ByOutput),
            None => (builder.weight("output.weight", (hidden, vocabulary))?, Stored::ByInput),
        };
        let bias = builder.weight("output.bias", vocabulary)?;
        let cost = weight.elem_count() as u64;
        Ok(Self { weight: Product::Trained { weight, stored, precision: builder.precision }, bias, cost })
    }

    /// Of words' vectors that do not change, `(vocabulary, hidden)`, laid out for evaluation.
    pub(super) fn packed(words: &Tensor, bias: &Tensor, precision: Precision) -> Result<Self> {
        let weight = Product::Packed(linear::Prepared::new(words, Stored::ByOutput, precision)?);
        Ok(Self { weight, bias: bias.detach(), cost: words.elem_count() as u64 })
    }

    /// `ys` times the weights: `(time, batch, hidden)` to `(time, batch, vocabulary)`.
    fn products(&self, ys: &Tensor) -> Result<Tensor> {
        self.weight.forward(ys)
    }

    /// The loss of each row, `(rows)`, among the words that were drawn.
    fn sampled(&self, ys: &Tensor, targets: &Tensor, drawn: &Candidates) -> Result<Tensor> {
        let Product::Trained { weight, stored: Stored::ByOutput, precision } = &self.weight else {
            return Err(Error::config("words are sampled from a table of one row a word: tied, or by_word"));
        };
        let samples = drawn.for_targets(targets.to_vec1()?);
        let ids = [samples.ids.as_slice(), &samples.targets].concat();
        let ids = Tensor::from_vec(ids, samples.ids.len() + samples.targets.len(), ys.device())?;
        let words = lookup(weight, &ids, None)?;
        let biases = lookup(&self.bias, &ids, None)?;
        Ok(sampled::nats(ys, &words, &biases, samples, *precision)?)
    }
}

impl Output for Softmax {
    fn nats(&self, ys: &Tensor, targets: &Tensor, noise: &Noise) -> Result<Tensor> {
        let flat = targets.flatten_all()?;
        let nats = match &noise.candidates {
            None => self.weight.nats(ys, &self.bias, &flat)?,
            Some(drawn) => self.sampled(&ys.flatten(0, 1)?, &flat, drawn)?,
        };
        Ok(profile::mark(nats.reshape(targets.shape())?, Part::Rest, Part::OutputBackward)?)
    }

    fn logits(&self, ys: &Tensor, _noise: &Noise) -> Result<Tensor> {
        Ok(self.products(ys)?.broadcast_add(&self.bias)?)
    }

    /// One product: logits are linear, so their difference is that of the difference, and the bias falls out. No
    /// pass's own logits are made.
    fn squared_distance(&self, [one, other]: [&Tensor; 2], _noise: [&Noise; 2]) -> Result<Tensor> {
        Ok(self.products(&(one - other)?)?.sqr()?)
    }

    fn divergence(
        &self,
        ys: &Tensor,
        soft: Arc<dyn SoftTargets>,
        noise: &Noise,
        temperature: f64,
    ) -> Result<Tensor> {
        let divergence = match &self.weight {
            Product::Trained { weight, stored, precision } => {
                let layer = Layer { weight, stored: *stored, bias: &self.bias, precision: *precision };
                of_products(&layer, ys, soft, temperature)?
            }
            Product::Packed(_) | Product::TwoBytes { .. } => {
                of_window(&self.logits(ys, noise)?, &*soft, temperature)?
            }
        };
        Ok(profile::mark(divergence, Part::Rest, Part::OutputBackward)?)
    }

    fn vocabulary(&self) -> usize {
        self.bias.elem_count()
    }

    fn cost(&self) -> u64 {
        self.cost
    }

    fn frozen(&self) -> Result<Option<Arc<dyn Output>>> {
        let Some(weight) = self.weight.packed()? else { return Ok(None) };
        Ok(Some(Arc::new(Self { weight, bias: self.bias.detach(), cost: self.cost })))
    }

    fn rows(&self) -> Result<Option<Box<dyn OutputRows>>> {
        let Some(weight) = self.weight.rows() else { return Ok(None) };
        Ok(Some(Box::new(SoftmaxRows { weight, bias: self.bias.to_vec1()? })))
    }
}

struct SoftmaxRows {
    weight: linear::Rows,
    bias: Vec<f32>,
}

impl OutputRows for SoftmaxRows {
    fn logits(&mut self, ys: &[f32], logits: &mut Vec<f64>) {
        let products = self.weight.multiply(ys).iter().zip(&self.bias);
        logits.clear();
        logits.extend(products.map(|(product, bias)| f64::from(product + bias)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{D, DType, Device, Var};

    #[test]
    fn log_probabilities_are_the_negative_nats_trained_or_frozen() {
        let tensor =
            |values: &[f64], shape: &[usize]| Tensor::from_slice(values, shape, &Device::Cpu).unwrap();
        let weight = tensor(&[1.0, -2.0, 0.5, 0.25, 3.0, -1.0], &[2, 3]);
        let bias = tensor(&[0.1, 0.2, -0.3], &[3]);
        let weight = Product::Trained { weight, stored: Stored::ByInput, precision: Precision::F64 };
        let softmax = Softmax { weight, bias, cost: 6 };
        let ys = tensor(&[0.3, -0.7, 1.5, 0.2], &[2, 1, 2]);
        let targets = Tensor::zeros((2, 1), DType::U32, &Device::Cpu).unwrap();
        for layer in [&softmax as &dyn Output, &*softmax.frozen().unwrap().unwrap()] {
            let nats = layer.nats(&ys, &targets, &Noise::none()).unwrap();
            let logits = layer.logits(&ys, &Noise::none()).unwrap();
            let sums = logits.exp().unwrap().sum_keepdim(D::Minus1).unwrap();
            let log_probs = logits.broadcast_sub(&sums.log().unwrap()).unwrap();
            let sum = (nats + log_probs.narrow(2, 0, 1).unwrap().squeeze(2).unwrap()).unwrap();
            let sum = sum.flatten_all().unwrap().to_vec1::<f64>().unwrap();
            assert!(sum.iter().all(|sum| sum.abs() < 1e-12), "{sum:?}");
            let whole = log_probs.exp().unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap();
            assert!((whole - 2.0).abs() < 1e-12); // two time steps
        }
    }

    #[test]
    fn the_distance_of_logits_is_that_of_the_logits_themselves_and_so_is_its_gradient() {
        let var = |values: &[f64], shape: &[usize]| {
            Var::from_tensor(&Tensor::from_slice(values, shape, &Device::Cpu).unwrap()).unwrap()
        };
        let weight = var(&[1.0, -2.0, 0.5, 0.25, 3.0, -1.0], &[2, 3]);
        let bias = var(&[0.1, 0.2, -0.3], &[3]);
        let one = var(&[0.3, -0.7, 1.5, 0.2], &[2, 1, 2]);
        let other = var(&[-0.4, 0.1, 1.1, 0.9], &[2, 1, 2]);
        let trained = weight.as_tensor().clone();
        let product =
            Product::Trained { weight: trained, stored: Stored::ByInput, precision: Precision::F64 };
        let softmax = Softmax { weight: product, bias: bias.as_tensor().clone(), cost: 6 };
        let none = Noise::none();
        let fast = softmax.squared_distance([&one, &other], [&none, &none]).unwrap();
        let slow = (softmax.logits(&one, &none).unwrap() - softmax.logits(&other, &none).unwrap())
            .unwrap()
            .sqr()
            .unwrap();
        let off = |a: &Tensor, b: &Tensor| -> f64 {
            (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar().unwrap()
        };
        assert_eq!(fast.dims(), [2, 1, 3]);
        assert!(off(&fast, &slow) < 1e-12);
        let [fast, slow] = [fast, slow].map(|distance| distance.backward().unwrap());
        for var in [&weight, &one, &other] {
            assert!(off(fast.get(var).unwrap(), slow.get(var).unwrap()) < 1e-12);
        }
        assert_eq!(off(slow.get(&bias).unwrap(), &bias.zeros_like().unwrap()), 0.0);
        assert!(fast.get(&bias).is_none());
    }
}
