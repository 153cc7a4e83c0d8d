//! One softmax over the whole vocabulary.
//!
//! ```text
//! p(w) = softmax(y W + b)[w]
//! ```
//!
//! Weights: `output.weight` (hidden, vocabulary), or the embedding's (vocabulary, hidden) if tied; `output.bias`.

use super::OutputSizes;
use crate::error::Result;
use crate::model::builder::Builder;
use crate::model::layers::{Output, OutputRows};
use crate::model::noise::Noise;
use candle_core::Tensor;
use rhn_kernels::linear::{self, Stored, linear};
use rhn_kernels::precision::Precision;
use rhn_kernels::profile::{self, Part};
use rhn_kernels::softmax as loss;
use std::sync::Arc;

pub(super) struct Softmax {
    form: Form,
    bias: Tensor,
    cost: u64,
}

enum Form {
    Trained { weight: Tensor, stored: Stored, precision: Precision },
    Packed(linear::Prepared),
}

impl Softmax {
    pub(super) fn build(
        OutputSizes { hidden, vocabulary, .. }: OutputSizes,
        tied: Option<&Tensor>,
        builder: &Builder<'_>,
    ) -> Result<Self> {
        let (weight, stored) = match tied {
            Some(table) => (table.clone(), Stored::ByOutput),
            None => (builder.weight("output.weight", (hidden, vocabulary))?, Stored::ByInput),
        };
        let bias = builder.weight("output.bias", vocabulary)?;
        let cost = weight.elem_count() as u64;
        Ok(Self { form: Form::Trained { weight, stored, precision: builder.precision }, bias, cost })
    }
}

impl Output for Softmax {
    fn nats(&self, ys: &Tensor, targets: &Tensor, _noise: &Noise) -> Result<Tensor> {
        let ys = ys.flatten(0, 1)?;
        let flat = targets.flatten_all()?;
        let nats = match &self.form {
            Form::Trained { weight, stored, precision } => {
                loss::nats(&ys, weight, *stored, &self.bias, &flat, *precision)?
            }
            Form::Packed(weight) => loss::nats_of_products(&weight.forward(&ys)?, &self.bias, &flat)?,
        };
        Ok(profile::mark(nats.reshape(targets.shape())?, Part::Rest, Part::OutputBackward)?)
    }

    fn logits(&self, ys: &Tensor, _noise: &Noise) -> Result<Tensor> {
        let (time, batch, _) = ys.dims3()?;
        let ys = ys.flatten(0, 1)?;
        let products = match &self.form {
            Form::Trained { weight, stored, precision } => linear(&ys, weight, *stored, *precision)?,
            Form::Packed(weight) => weight.forward(&ys)?,
        };
        Ok(products.broadcast_add(&self.bias)?.reshape((time, batch, ()))?)
    }

    fn cost(&self) -> u64 {
        self.cost
    }

    fn frozen(&self) -> Result<Option<Arc<dyn Output>>> {
        let Form::Trained { weight, stored, precision } = &self.form else { return Ok(None) };
        let form = Form::Packed(linear::Prepared::new(weight, *stored, *precision)?);
        Ok(Some(Arc::new(Self { form, bias: self.bias.detach(), cost: self.cost })))
    }

    fn rows(&self) -> Result<Option<Box<dyn OutputRows>>> {
        let Form::Packed(weight) = &self.form else { return Ok(None) };
        let Some(weight) = weight.rows() else { return Ok(None) };
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
    use candle_core::{D, DType, Device};

    #[test]
    fn log_probabilities_are_the_negative_nats_trained_or_frozen() {
        let tensor =
            |values: &[f64], shape: &[usize]| Tensor::from_slice(values, shape, &Device::Cpu).unwrap();
        let weight = tensor(&[1.0, -2.0, 0.5, 0.25, 3.0, -1.0], &[2, 3]);
        let bias = tensor(&[0.1, 0.2, -0.3], &[3]);
        let form = Form::Trained { weight, stored: Stored::ByInput, precision: Precision::F64 };
        let softmax = Softmax { form, bias, cost: 6 };
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
}
