//! With which settings a study trains a net: drawn at random as the paper did, or the best of a few after two epochs.

use super::nets::{Net, Nets, activated, decayed};
use crate::config::Resolved;
use crate::console::Line;
use crate::error::{Error, Result};
use crate::eval::images::evaluate;
use crate::model::LanguageModel;
use crate::task::images::ImageTask;
use crate::train::task::Task;
use rhn_kernels::rng::Rng;

/// The rates that are tried where the recipe's is not taken.
const RATES: [f64; 4] = [0.003, 0.01, 0.03, 0.1];

/// Epochs that each of them is tried for.
const TRIED_EPOCHS: u64 = 2;

/// A loss beyond this, in nats of ten classes, is of a net that has left its course.
const LOST: f64 = 5.0;

impl Nets<'_> {
    /// What a trial sets: at random where there are several, else the best of a few rates and biases.
    pub(super) fn settings(&self, net: &Net, trial: u64) -> Result<Vec<String>> {
        let mut settings = self.asked(net, trial);
        if self.args.trials > 1 {
            return Ok(settings);
        }
        let rates = self.rates()?.iter().map(|rate| vec![format!("train.learning_rate={rate:?}")]);
        let rates: Vec<Vec<String>> = if rates.len() > 0 { rates.collect() } else { vec![Vec::new()] };
        let biases = net.biases.iter().map(|bias| vec![format!("model.core.transform_bias={bias:?}")]);
        let biases: Vec<Vec<String>> = if biases.len() > 0 { biases.collect() } else { vec![Vec::new()] };
        let both = biases.iter().flat_map(|bias| rates.iter().map(move |rate| [&bias[..], rate].concat()));
        settings.extend(self.best(net, &settings, &both.collect::<Vec<_>>())?);
        Ok(settings)
    }

    /// The rates that are tried; none where one is given.
    pub(super) fn rates(&self) -> Result<&'static [f64]> {
        let is_set = self.args.quick || self.args.gives("train.learning_rate")?;
        Ok(if is_set { &[] } else { &RATES })
    }

    /// What a trial sets, apart from what is searched.
    pub(super) fn asked(&self, net: &Net, trial: u64) -> Vec<String> {
        let mut usual = net.usual.clone();
        if self.args.trials > 1 {
            usual.extend(self.drawn(net, trial));
        } else if self.args.quick && net.kind == "plain" {
            usual.push("train.learning_rate=0.01".into()); // the recipe's is for highway nets
        }
        let mut settings = self.args.common(&usual);
        settings.extend_from_slice(&net.settings);
        settings
    }

    /// The paper's search: rate, momentum, decay, activation and transform bias at random. What the user sets comes after it.
    fn drawn(&self, net: &Net, trial: u64) -> Vec<String> {
        let mut rng = Rng::keyed(self.args.seed, &format!("study.nets.{}", net.name), trial);
        let mut uniform = |low: f64, high: f64| low + (high - low) * rng.uniform();
        let rate = 10f64.powf(uniform(-3.0, -1.0));
        let momentum = [0.5, 0.9, 0.99][uniform(0.0, 3.0) as usize % 3];
        let decay = uniform(0.9, 1.0);
        let activation = ["relu", "tanh"][uniform(0.0, 2.0) as usize % 2];
        let bias = -1.0 - uniform(0.0, 10.0).floor().min(9.0);
        let mut settings = vec![
            decayed(decay),
            format!("train.learning_rate={rate:?}"),
            format!("train.momentum={momentum:?}"),
            format!("train.seed={}", self.args.seed.wrapping_add(trial - 1)),
        ];
        settings.extend(activated(activation));
        if net.kind != "plain" {
            settings.push(format!("model.core.transform_bias={bias:?}"));
        }
        settings
    }

    /// Those of `choices`, added to `settings`, with the least loss after a short training; one that loses its course is
    /// passed over. A single choice is not tried.
    fn best(&self, net: &Net, settings: &[String], choices: &[Vec<String>]) -> Result<Vec<String>> {
        if let [only] = choices {
            return Ok(only.clone());
        }
        let mut best = (f64::INFINITY, choices[0].clone());
        let mut line = Line::new();
        for (number, choice) in (0..).zip(choices) {
            let recipe = Resolved::new("mnist-highway", &[settings, choice].concat())?.recipe;
            let (device, precision) = self.args.device.open()?;
            let task = ImageTask::with_corpus(recipe, self.corpus.clone(), precision, &device)?;
            let all = TRIED_EPOCHS * task.batch_count(0) as u64;
            let nats = self.try_out(&task, |step| {
                let done = number * all + step;
                line.show(&net.name, done, choices.len() as u64 * all, || {
                    format!("trying {}", choice.join(" "))
                });
            })?;
            if nats.is_some_and(|nats| nats < best.0) {
                best = (nats.unwrap_or(f64::INFINITY), choice.clone());
            }
        }
        line.clear();
        Ok(best.1)
    }

    /// The loss after [`TRIED_EPOCHS`]; `None` if a number was not finite, or the loss was lost.
    fn try_out(&self, task: &ImageTask, mut show: impl FnMut(u64)) -> Result<Option<f64>> {
        let mut stepper = task.stepper(None)?;
        let rate = task.recipe().train.learning_rate;
        let batches = task.batch_count(0);
        let mut step = 0;
        for epoch in 0..TRIED_EPOCHS {
            for index in 0..batches {
                self.signals.check()?;
                match stepper.step(&task.batch(epoch, index)?, step, rate) {
                    Ok(report) if report.nats / report.tokens as f64 <= LOST => {}
                    Ok(_) | Err(Error::NotFinite { .. }) => return Ok(None),
                    Err(error) => return Err(error),
                }
                step += 1;
                show(step);
            }
        }
        let parameters = &stepper.parameters;
        let precision = task.precision();
        let device = stepper.objective.model.device();
        let model = LanguageModel::new(task.model(), parameters, precision, device)?;
        let names = [self.corpus.name.as_str(), "train"];
        match evaluate(&model, names, &self.corpus.train, precision, &mut |_, _| self.signals.check()) {
            Ok(found) => Ok(Some(found.nats_per_token)),
            Err(Error::NotFinite { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
