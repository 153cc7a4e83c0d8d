//! What a run will take: parameters, memory and time, from a few steps of it.

use super::training::{Steps, epoch_seconds};
use crate::config::train::WindowKind;
use crate::error::{Error, Result};
use crate::model::{Parameters, parameter_count};
use crate::parallel::world::Solo;
use crate::readable::{counted, duration, grouped};
use crate::task::language::{Language, NextToken};
use crate::train::step::Stepper;
use crate::train::task::Task;
use rhn_kernels::{memory, threads};
use std::time::{Duration, Instant};

/// Of items, steps are measured for so long, since no two take the same time; and so is the validation.
const MEASURED: Duration = Duration::from_secs(2);

/// What a run will take.
struct Estimate {
    parameters: u64,
    /// What is trained on, and in how many steps.
    data: String,
    /// The plural of what is counted.
    units: &'static str,
    per_second: f64,
    epoch_seconds: f64,
    epochs: u64,
}

impl Estimate {
    fn report(&self) -> String {
        format!(
            "parameters       {}\ntraining data    {}\nspeed            {} {}/s on {}\n\
             peak memory      {}\nan epoch         {}\nthe whole run    {} for {}, the test split apart\n",
            grouped(self.parameters),
            self.data,
            grouped(self.per_second.round() as u64),
            self.units,
            counted(threads::count() as u64, "thread"),
            memory::peak_mib().map_or("unknown on this system".into(), |mib| format!("{} MiB", grouped(mib))),
            duration(self.epoch_seconds),
            duration(self.epoch_seconds * self.epochs as f64),
            counted(self.epochs, "epoch"),
        )
    }
}

/// Makes a step to warm up and some to measure, validates for a while, and reports what the whole run will take. The
/// plurals are of what steps count, and of what [`Task::data`] does. Fails if a step fails.
pub(crate) fn of_items<T: Task>(
    task: &T,
    mut stepper: Stepper<T::Objective>,
    [units, of_data]: [&'static str; 2],
) -> Result<String> {
    let config = &task.recipe().train;
    let steps = task.batch_count(0);
    let rate = 1e-6 * config.learning_rate; // the weights stay where they are
    let mut step = |step: usize| stepper.step(&task.batch(0, step % steps)?, step as u64, rate);
    step(0)?;
    let start = Instant::now();
    let mut done = 0;
    let mut read = 0;
    while done == 0 || start.elapsed() < MEASURED {
        done += 1;
        read += step(done)?.tokens;
    }
    let step_seconds = start.elapsed().as_secs_f64() / done as f64;
    let validations = config.validations(steps as u64) as f64;
    let epoch_seconds =
        steps as f64 * step_seconds + validations * validation_seconds(task, &stepper.parameters)?;
    let estimate = Estimate {
        parameters: parameter_count(task.model())?,
        data: format!(
            "{} {of_data}, {} an epoch",
            grouped(task.data().tokens[0]),
            counted(steps as u64, "step")
        ),
        units,
        per_second: read as f64 / done as f64 / step_seconds,
        epoch_seconds,
        epochs: config.epochs,
    };
    Ok(estimate.report())
}

/// How long a validation takes, by how far it comes in a while.
fn validation_seconds<T: Task>(task: &T, parameters: &Parameters) -> Result<f64> {
    let start = Instant::now();
    let mut share = 1.0;
    let stops = &mut |done: u64, all: u64| {
        if done == 0 || start.elapsed() < MEASURED {
            return Ok(());
        }
        share = done as f64 / all.max(done) as f64;
        Err(Error::Stopped { code: 0 })
    };
    match task.validate(parameters, &Solo, stops) {
        Ok(_) | Err(Error::Stopped { .. }) => Ok(start.elapsed().as_secs_f64() / share),
        Err(error) => Err(error),
    }
}

/// Of text: makes a step to warm up and one to measure, evaluates two windows, and reports what the whole run will take. Fails if
/// the model cannot be made, or a step fails.
pub(crate) fn of_text(language: &Language, stepper: Stepper<NextToken>) -> Result<String> {
    let mut steps = Steps::of(language, stepper);
    let config = &language.recipe().train;
    let tokens = (config.batch_size * config.bptt_steps) as f64;
    let mut step_seconds = 0.0; // of a window of `bptt_steps`; one of a drawn length takes another time
    for _ in 0..2 {
        let start = Instant::now();
        let read = steps.next()?;
        steps.check(true)?;
        step_seconds = start.elapsed().as_secs_f64() * tokens / read as f64; // the first only warms up
    }
    let whole = [language.fixed_count(), language.valid_count()];
    let epoch = epoch_seconds(language, &steps.stepper.parameters, step_seconds, whole)?;
    let windows = match config.window {
        WindowKind::Fixed => "an epoch",
        WindowKind::Variable => "in the first epoch",
    };
    let estimate = Estimate {
        parameters: parameter_count(language.model())?,
        data: format!(
            "{}, {} {windows}",
            counted(language.data().tokens[0], "token"),
            counted(language.batch_count(0) as u64, "step")
        ),
        units: "tokens",
        per_second: tokens / step_seconds,
        epoch_seconds: epoch,
        epochs: config.epochs,
    };
    Ok(estimate.report())
}
