//! Dynamic evaluation (Krause et al., 2017): the weights go on learning from the text that was just predicted.
//!
//! After each segment, with its mean loss's gradient g by the weights that predicted it,
//!
//! ```text
//! θ ← θ + min(λ r, 1) (θ₀ − θ) − η g / (m + ε)      r = m / (mean over the weights' tensors of mean(m))
//! ```
//!
//! where m is the root mean square of each number's gradient over the training text ([`super::statistics`]).

use super::predictor::{Predicted, Predictor};
use super::settings::{Adaptation, DynamicSettings};
use crate::config::ModelConfig;
use crate::error::{Error, Result};
use crate::model::{LanguageModel, Noise, Parameters, State};
use crate::predict::{DropoutPasses, PassesRead};
use candle_core::{D, DType, Device, Tensor};
use rhn_kernels::gradients::{Gradient, Gradients};
use rhn_kernels::precision::Precision;
use rhn_kernels::update::dynamic::{DynamicStep, dynamic};
use std::collections::BTreeMap;
use std::ops::Range;

/// A model whose weights change as it reads; they are its own, and nothing is stored back.
pub struct DynamicModel {
    model: LanguageModel,
    parameters: Parameters,
    learning: BTreeMap<String, Learning>,
    /// Mean over the tensors of the mean of m.
    mean: f64,
    settings: DynamicSettings,
    state: State,
}

/// A weight that is updated.
struct Learning {
    /// `(2, …)`: as it was trained, and m.
    trained: Tensor,
    /// 1 for the columns that are updated, 0 for the others; none where all are.
    mask: Option<Tensor>,
}

impl DynamicModel {
    /// The model `config` on `parameters`. `statistics` has the root mean square of each trained weight's gradient.
    ///
    /// # Errors
    /// If a setting cannot be used, or a weight has no statistics.
    pub fn new(
        config: &ModelConfig,
        parameters: Parameters,
        statistics: &BTreeMap<String, Tensor>,
        settings: DynamicSettings,
        precision: Precision,
        device: &Device,
    ) -> Result<Self> {
        settings.validate()?;
        let mut learning = BTreeMap::new();
        let mut means = Vec::new();
        for (name, var) in parameters.trained() {
            let rms =
                statistics.get(name).ok_or_else(|| Error::tensor(name, "has no gradient statistics"))?;
            means.push(rms.to_dtype(DType::F64)?.mean_all()?.to_scalar::<f64>()?);
            let columns = settings.update.columns(&config.spec, name, var.dim(D::Minus1)?);
            let columns = columns.ok_or_else(|| no_gates(&settings, config))?;
            if !columns.is_empty() {
                let start = var.as_detached_tensor();
                let trained = Tensor::stack(&[&start, &rms.to_dtype(start.dtype())?], 0)?;
                learning.insert(name.to_string(), Learning { trained, mask: mask(&start, columns)? });
            }
        }
        let mean = means.iter().sum::<f64>() / means.len() as f64;
        let tensors = parameters.tracked_where(|name| learning.contains_key(name));
        let model = LanguageModel::of_tensors(config, &tensors, precision, device)?;
        Ok(Self { state: model.zero_state(1)?, model, parameters, learning, mean, settings })
    }

    /// The weights as they are now, by name.
    pub fn weights(&self) -> Result<BTreeMap<String, Tensor>> {
        let copied = |(name, tensor): (String, Tensor)| Ok((name, tensor.copy()?));
        self.parameters.tensors().into_iter().map(copied).collect()
    }

    /// Changes the weights by the gradient of `loss`, nats per token.
    fn learn(&mut self, loss: &Tensor) -> Result<()> {
        let DynamicSettings { rate, decay, epsilon, .. } = self.settings;
        let step = DynamicStep { rate, decay: decay / self.mean, epsilon };
        let mut gradients = Gradients::in_parts(loss)?;
        for (name, var) in self.parameters.trained() {
            let Some(Learning { trained, mask }) = self.learning.get(name) else { continue };
            let mut gradient = match gradients.remove_as_it_is(var)? {
                Some(gradient) => gradient,
                None if self.parameters.rests(name) => Gradient::Dense(var.zeros_like()?), // it is drawn back all the same
                None => return Err(Error::tensor(name, "received no gradient")),
            };
            if let Some(mask) = mask {
                gradient = gradient.masked(mask)?; // what never leaves its first value is not drawn back either
            }
            dynamic(var, trained, gradient, step)?;
        }
        Ok(())
    }
}

/// Where a core's gates are not told apart from the rest.
fn no_gates(settings: &DynamicSettings, config: &ModelConfig) -> Error {
    let group = settings.update.name();
    Error::config(format!("--dynamic-update {group}: there are no gates in {}", config.spec.core))
}

/// 1 for some columns of `weight`, 0 for the others; `None` if these are all.
fn mask(weight: &Tensor, columns: Range<usize>) -> Result<Option<Tensor>> {
    let width = weight.dim(D::Minus1)?;
    if columns == (0..width) {
        return Ok(None);
    }
    let ones = (0..width).map(|column| f32::from(columns.contains(&column)));
    Ok(Some(Tensor::from_iter(ones, weight.device())?.to_dtype(weight.dtype())?))
}

impl Predictor for DynamicModel {
    fn restart(&mut self, adaptation: &Adaptation) -> Result<()> {
        if let Some(settings) = adaptation.dynamic {
            assert_eq!(settings.update, self.settings.update, "the model was made for one group of weights");
            self.settings = settings;
        }
        for (name, var) in self.parameters.trained() {
            if let Some(learning) = self.learning.get(name) {
                var.set(&learning.trained.get(0)?)?;
            }
        }
        self.state = self.model.zero_state(1)?;
        Ok(())
    }

    fn predict(&mut self, inputs: &Tensor, targets: &Tensor, temperatures: &[f64]) -> Result<Predicted> {
        let none = Noise::none();
        let (ys, state) = self.model.hidden(inputs, &self.state, &none)?;
        let loss = self.model.nats_of(&ys, targets, &none, 1.0)?;
        let states = ys.detach();
        let nats = |&temperature: &f64| match temperature {
            1.0 => Ok(loss.detach()),
            _ => self.model.nats_of(&states, targets, &none, temperature),
        };
        let nats = temperatures.iter().map(nats).collect::<Result<_>>()?;
        self.learn(&loss.mean_all()?)?;
        self.state = state.detach();
        Ok(Predicted { states: states.flatten(0, 1)?, nats })
    }

    fn predict_with_dropout(
        &mut self,
        passes: &mut DropoutPasses,
        inputs: &Tensor,
        targets: &Tensor,
        temperature: f64,
    ) -> Result<PassesRead> {
        let read = passes.read(&self.model, inputs, targets, temperature)?;
        self.predict(inputs, targets, &[])?;
        Ok(read)
    }

    fn window(&self) -> usize {
        self.settings.segment
    }

    fn device(&self) -> &Device {
        self.model.device()
    }
}
