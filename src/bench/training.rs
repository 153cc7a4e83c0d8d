//! The speed of training: whole steps, their parts, and what of the machine's peak and of a run's time that makes.

use super::flops;
use super::speed::{Plan, Progress, Speed};
use super::subject::Subject;
use crate::error::Result;
use crate::model::Parameters;
use crate::predict::{Reader, WindowReader};
use crate::task::language::{Language, NextToken, Window};
use crate::train::step::Stepper;
use crate::train::task::Task;
use candle_core::Device;
use rhn_kernels::profile::{self, Part};
use serde::Serialize;
use std::collections::HashSet;
use std::time::{Duration, Instant};

/// Steps whose parts are measured, to report their mean; of long steps one.
const STEPS_APART: u32 = 3;
const LONG_SECONDS: f64 = 3.0;

/// How fast a recipe is trained.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Training {
    /// The speed of whole steps: masks, forward, backward, clipping, update.
    #[serde(flatten)]
    pub rate: Speed,
    /// On average, where windows vary.
    pub tokens_per_step: u64,
    /// Different ones among them, on average.
    pub distinct_tokens_per_step: f64,
    /// A step at the median rate.
    pub step_seconds: f64,
    /// The products of a step, where they are known.
    #[serde(flatten)]
    pub products: Option<Products>,
    /// Where a step spends its time; only on the CPU.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<PartTime>,
    pub epochs: u64,
    /// An epoch on the whole corpus, its validation included.
    pub epoch_seconds: f64,
    /// All epochs; the test apart.
    pub run_seconds: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Products {
    /// Their floating-point operations.
    pub flops_per_step: f64,
    /// Those, in a second, in units of 10⁹.
    pub gflops: f64,
    /// The share of the machine's peak that this is, where the peak was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub share_of_gemm_peak: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct PartTime {
    pub part: Part,
    /// Its mean time in a step.
    pub seconds: f64,
    pub share: f64,
}

impl Training {
    /// Trains for a few steps at a rate so small that the weights stay where they are. Fails if the model
    /// cannot be made, or a step fails.
    pub(crate) fn measure(subject: &Subject, plan: Plan, progress: Progress<'_>) -> Result<Self> {
        let language = &subject.language;
        let mut steps = Steps::new(language)?;
        let rate = Speed::measure("training", plan, progress, language.device(), || steps.next())?;
        let config = &language.recipe().train;
        let tokens = steps.tokens as f64 / steps.done as f64;
        let step_seconds = tokens / rate.tokens_per_second;
        let apart = if step_seconds > LONG_SECONDS { 1 } else { STEPS_APART };
        let parts = if language.device().is_cpu() { steps.parts(apart)? } else { Vec::new() };
        let distinct = steps.distinct as f64 / steps.done as f64;
        let passes = if config.fraternal.is_some() { 2.0 } else { 1.0 };
        let flops = flops::of_step(language.model(), &config.loss, tokens, distinct)?;
        let products = flops.map(|flops| Products {
            flops_per_step: passes * flops,
            gflops: passes * flops / step_seconds / 1e9,
            share_of_gemm_peak: None,
        });
        progress("validation", 0, 0);
        // An epoch is counted in windows of the usual length.
        let window_seconds = (config.batch_size * config.bptt_steps) as f64 / rate.tokens_per_second;
        let epoch_seconds =
            epoch_seconds(language, &steps.stepper.parameters, window_seconds, subject.windows()?)?;
        Ok(Self {
            rate,
            tokens_per_step: tokens.round() as u64,
            distinct_tokens_per_step: distinct,
            step_seconds,
            products,
            parts,
            epochs: config.epochs,
            epoch_seconds,
            run_seconds: epoch_seconds * config.epochs as f64,
        })
    }
}

/// A run's steps, one after another, at a rate so small that the weights stay where they are.
pub(super) struct Steps<'a> {
    language: &'a Language,
    pub(super) stepper: Stepper<NextToken>,
    done: usize,
    tokens: usize,
    distinct: usize,
}

impl<'a> Steps<'a> {
    pub(super) fn new(language: &'a Language) -> Result<Self> {
        Ok(Self::of(language, language.stepper(None)?))
    }

    /// Those of `stepper`.
    pub(super) fn of(language: &'a Language, stepper: Stepper<NextToken>) -> Self {
        Self { language, stepper, done: 0, tokens: 0, distinct: 0 }
    }

    /// Makes a step; its tokens.
    pub(super) fn next(&mut self) -> Result<u64> {
        let device = self.language.device();
        let Window { inputs, targets } =
            self.language.batch_on(0, self.done % self.language.batch_count(0), &Device::Cpu)?;
        let ids = inputs.flatten_all()?.to_vec1::<u32>()?;
        self.distinct += ids.into_iter().collect::<HashSet<_>>().len();
        let window = Window { inputs: inputs.to_device(device)?, targets: targets.to_device(device)? };
        let rate = 1e-6 * self.language.recipe().train.learning_rate;
        self.stepper.advance(&window, self.done as u64, rate)?;
        self.check(false)?;
        self.done += 1;
        self.tokens += targets.elem_count();
        Ok(targets.elem_count() as u64)
    }

    /// Fails if a step did: of those that are known, or with `wait` of all.
    pub(super) fn check(&mut self, wait: bool) -> Result<()> {
        self.stepper.reports(wait)?.into_iter().try_for_each(|report| report.map(drop))
    }

    /// The parts of `count` more steps.
    fn parts(&mut self, count: u32) -> Result<Vec<PartTime>> {
        let (steps, spent) = profile::listen(|| (0..count).try_for_each(|_| self.next().map(drop)));
        steps?;
        let all = spent.iter().sum::<Duration>().as_secs_f64();
        let part = |(part, time): (Part, Duration)| {
            let seconds = time.as_secs_f64();
            PartTime { part, seconds: seconds / f64::from(count), share: seconds / all }
        };
        Ok(Part::ALL.into_iter().zip(spent).map(part).collect())
    }
}

/// The seconds of an epoch of so many windows of training and of validation, by those of a step and by two windows
/// of validation.
pub(super) fn epoch_seconds(
    language: &Language,
    parameters: &Parameters,
    step_seconds: f64,
    [train, valid]: [usize; 2],
) -> Result<f64> {
    let model = language.frozen(parameters)?;
    let start = Instant::now();
    let mut reader = WindowReader::new(&model, language.recipe().train.batch_size)?;
    let before = start.elapsed().as_secs_f64();
    let mut window_seconds = 0.0;
    for window in 0..2 {
        let start = Instant::now();
        let (inputs, targets) = language.valid_window(window % language.valid_count())?;
        reader.nats(&inputs, &targets)?;
        language.device().synchronize()?;
        window_seconds = start.elapsed().as_secs_f64(); // the first only warms up
    }
    let validation = before + valid as f64 * window_seconds;
    let validations = language.recipe().train.validations(train as u64) as f64;
    Ok(train as f64 * step_seconds + validations * validation)
}
