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
use candle_core::{DType, Device, Tensor};
use rhn_kernels::precision::Precision;
use rhn_kernels::update::dynamic::{DynamicStep, dynamic};
use std::collections::BTreeMap;

/// A model whose weights change as it reads; they are its own, and nothing is stored back.
pub struct DynamicModel {
    model: LanguageModel,
    parameters: Parameters,
    /// Of each trained weight that is updated `(2, …)`: as it was trained, and m.
    trained: BTreeMap<String, Tensor>,
    /// Mean over the tensors of the mean of m.
    mean: f64,
    settings: DynamicSettings,
    state: State,
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
        let tensors = parameters.tracked_where(|name| settings.update.includes(name));
        let model = LanguageModel::of_tensors(config, &tensors, precision, device)?;
        let mut trained = BTreeMap::new();
        let mut means = Vec::new();
        for (name, var) in parameters.trained() {
            let rms =
                statistics.get(name).ok_or_else(|| Error::tensor(name, "has no gradient statistics"))?;
            means.push(rms.to_dtype(DType::F64)?.mean_all()?.to_scalar::<f64>()?);
            if settings.update.includes(name) {
                let start = var.as_detached_tensor();
                trained.insert(name.to_string(), Tensor::stack(&[&start, &rms.to_dtype(start.dtype())?], 0)?);
            }
        }
        let mean = means.iter().sum::<f64>() / means.len() as f64;
        Ok(Self { state: model.zero_state(1)?, model, parameters, trained, mean, settings })
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
        let mut gradients = loss.backward()?;
        for (name, var) in self.parameters.trained() {
            let Some(trained) = self.trained.get(name) else { continue };
            let gradient = gradients.remove(var);
            let gradient = gradient.ok_or_else(|| Error::tensor(name, "received no gradient"))?;
            dynamic(var, trained, &gradient, step)?;
        }
        Ok(())
    }
}

impl Predictor for DynamicModel {
    fn restart(&mut self, adaptation: &Adaptation) -> Result<()> {
        if let Some(settings) = adaptation.dynamic {
            assert_eq!(settings.update, self.settings.update, "the model was made for one group of weights");
            self.settings = settings;
        }
        for (name, var) in self.parameters.trained() {
            if let Some(trained) = self.trained.get(name) {
                var.set(&trained.get(0)?)?;
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

    fn window(&self) -> usize {
        self.settings.segment
    }

    fn device(&self) -> &Device {
        self.model.device()
    }
}
