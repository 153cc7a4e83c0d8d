//! The posterior of a sentence fitted to that sentence: stochastic variational inference from where the encoder begins (Hoffman
//! et al., 2013; Kim et al., 2018, arXiv 1802.02550).
//!
//! ```text
//! (μ, log σ²) ← Adam on Σ_t −ln p(w_t | w_<t, z) − ln p(z) + ln q(z)       z = μ + σ ⊙ ε, another ε ~ N(0, I) at each step, and −ε
//! ```
//!
//! The gradient goes through z alone: what ln q(z) has of its own μ and σ is zero on the average, and is left out, so that the noise
//! goes to nothing as q comes near the posterior ("sticking the landing", Roeder et al., 2017, arXiv 1703.09194). Of an ε and its
//! opposite, what the gradient of a variance or a covariance has of the slope at μ cancels too.
//!
//! Any Gaussian gives a bound on −ln p(x), and the weights stay as they are. What it gains is what the encoder loses by giving each
//! sentence its Gaussian in one go, the amortization gap (Cremer et al., 2018). With a full covariance, which the encoder has not,
//! it gains a part of the approximation gap too: numbers of the vector that say the same of a sentence are told from those
//! that do not. The rate falls in a line to nothing.

use crate::data::items::SentenceBatch;
use crate::error::{Error, Result};
use crate::model::latent::Gaussian;
use crate::model::sequences::Lengths;
use crate::model::{Noise, SentenceVae};
use candle_core::{DType, Device, Tensor, Var};
use rhn_kernels::rng::Rng;
use serde::{Deserialize, Serialize};

/// How posteriors are fitted to their sentences.
#[derive(Clone, Copy)]
pub struct Refinement<'a> {
    /// The model that is measured, with weights that record nothing ([`SentenceVae::with_fixed_weights`]).
    pub model: &'a SentenceVae,
    /// Steps for each sentence.
    pub steps: usize,
    /// Adam's rate at the first step.
    pub rate: f64,
    /// What is fitted beside μ.
    pub covariance: Covariance,
}

/// The covariance of a posterior that is fitted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Covariance {
    /// A variance for each number, as the encoder gives them
    #[default]
    Diagonal,
    /// All covariances of the numbers too
    Full,
}

/// The share of the rate for covariances: there are many of them, and two draws say little of each.
const MIXING: f64 = 0.1;

const DECAYS: [f64; 2] = [0.9, 0.999];
const EPSILON: f64 = 1e-8;

impl Refinement<'_> {
    /// The Gaussians of the sentences of `batch` after the steps, from `posterior`; the decoder reads `inputs`, `(time, batch)`
    /// of u32, and `streams` draw for each sentence. What comes out for a sentence does not depend on the others. `check` may
    /// end it before each step.
    pub(super) fn refined(
        &self,
        posterior: &Gaussian,
        (batch, inputs): (&SentenceBatch, &Tensor),
        streams: &mut [Rng],
        check: &mut dyn FnMut() -> Result<()>,
    ) -> Result<Gaussian> {
        let dtype = self.model.precision().dtype();
        let inside = Lengths::new(inputs.dim(0)?, batch.steps())?.mask(dtype, self.model.device())?;
        let twice = |tensor: &Tensor| Tensor::cat(&[tensor, tensor], 1);
        let [inputs, targets, inside] = [twice(inputs)?, twice(&batch.targets)?, twice(&inside)?];
        let mut mean = Moments::new(&posterior.mean)?;
        let mut log_variance = Moments::new(&posterior.log_variance)?;
        let mut mixing = match self.covariance {
            Covariance::Diagonal => None,
            Covariance::Full => Some(Mixing::new(&posterior.mean)?),
        };
        for step in 0..self.steps {
            check()?;
            let epsilon = normal(streams, posterior.mean.dim(1)?, dtype, self.model.device())?;
            let gaussian = Gaussian {
                mean: mean.at.as_tensor().clone(),
                log_variance: log_variance.at.as_tensor().clone(),
                mixing: mixing.as_ref().map(Mixing::weights).transpose()?,
            };
            let z = Tensor::cat(&[gaussian.sample(&epsilon)?, gaussian.sample(&epsilon.neg()?)?], 0)?;
            let slope = gaussian.slope(&epsilon)?;
            let slope = Tensor::cat(&[&slope, &slope.neg()?], 0)?;
            let nats = (self.model.nats(&inputs, &targets, &z, &Noise::none())? * &inside)?;
            // With the slope held fixed, −z · slope has the gradient that ln q(z) has by way of z.
            let of_latent = ((&z * slope)?.sum_all()? + self.model.log_prior(&z)?.sum_all()?)?;
            let gradients = ((nats.sum_all()? - of_latent)? * 0.5)?.backward()?;
            let rate = self.rate * (1.0 - step as f64 / self.steps as f64);
            let mixing = mixing.as_mut().map(|mixing| &mut mixing.moments);
            let each = [(&mut mean, rate), (&mut log_variance, rate)];
            for (moments, rate) in each.into_iter().chain(mixing.map(|mixing| (mixing, MIXING * rate))) {
                if let Some(gradient) = gradients.get(&moments.at) {
                    moments.step(gradient, rate, step + 1)?;
                }
            }
        }
        let fitted = Gaussian {
            mean: mean.at.as_detached_tensor(),
            log_variance: log_variance.at.as_detached_tensor(),
            mixing: mixing.as_ref().map(Mixing::weights).transpose()?,
        }
        .detach();
        let largest = (fitted.mean.abs()?.sum_all()? + fitted.divergence()?.abs()?.sum_all()?)?;
        match largest.to_dtype(DType::F64)?.to_scalar::<f64>()?.is_finite() {
            true => Ok(fitted),
            false => Err(Error::config(format!(
                "--refine-rate {} is too high: the posteriors that it fits are no longer finite",
                self.rate
            ))),
        }
    }
}

/// Standard normal numbers, `(rows, size)`, each row from its own stream.
pub(super) fn normal(streams: &mut [Rng], size: usize, dtype: DType, device: &Device) -> Result<Tensor> {
    let drawn: Vec<f64> =
        streams.iter_mut().flat_map(|rng| (0..size).map(|_| rng.normal()).collect::<Vec<_>>()).collect();
    Ok(Tensor::from_vec(drawn, (streams.len(), size), &Device::Cpu)?.to_dtype(dtype)?.to_device(device)?)
}

/// What mixes the numbers of a vector, which is nothing at first.
struct Mixing {
    moments: Moments,
    /// 1 below the diagonal.
    below: Tensor,
}

impl Mixing {
    /// For vectors like `mean`, `(batch, size)`.
    fn new(mean: &Tensor) -> Result<Self> {
        let (batch, size) = mean.dims2()?;
        let is_below = |at: usize| if at % size < at / size { 1.0f64 } else { 0.0 };
        let below: Vec<f64> = (0..size * size).map(is_below).collect();
        let below = Tensor::from_vec(below, (1, size, size), &Device::Cpu)?;
        let below = below.to_dtype(mean.dtype())?.to_device(mean.device())?;
        let zeros = Tensor::zeros((batch, size, size), mean.dtype(), mean.device())?;
        Ok(Self { moments: Moments::new(&zeros)?, below })
    }

    fn weights(&self) -> Result<Tensor> {
        Ok(self.moments.at.as_tensor().broadcast_mul(&self.below)?)
    }
}

/// What Adam changes, and its running means of the gradient and of its square.
struct Moments {
    at: Var,
    first: Tensor,
    second: Tensor,
}

impl Moments {
    fn new(start: &Tensor) -> Result<Self> {
        let zeros = start.zeros_like()?;
        Ok(Self { at: Var::from_tensor(&start.detach())?, first: zeros.clone(), second: zeros })
    }

    /// Step `count`, counted from 1.
    fn step(&mut self, gradient: &Tensor, rate: f64, count: usize) -> Result<()> {
        let gradient = gradient.detach();
        let toward = |mean: &Tensor, value: Tensor, decay: f64| (mean * decay)? + (value * (1.0 - decay))?;
        self.first = toward(&self.first, gradient.clone(), DECAYS[0])?;
        self.second = toward(&self.second, gradient.sqr()?, DECAYS[1])?;
        let [first, second] = DECAYS.map(|decay| 1.0 - decay.powi(count as i32));
        let size = ((&self.second / second)?.sqrt()? + EPSILON)?;
        let change = ((&self.first * (rate / first))? / size)?;
        Ok(self.at.set(&(self.at.as_tensor().detach() - change)?)?)
    }
}
