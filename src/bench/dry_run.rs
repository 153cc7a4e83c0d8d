//! What a run will take: parameters, memory and time, from a step or two of it.

use super::training::{Steps, epoch_seconds};
use crate::config::train::WindowKind;
use crate::error::Result;
use crate::model::parameter_count;
use crate::readable::{duration, grouped};
use crate::task::language::Language;
use crate::train::task::Task;
use rhn_kernels::{memory, threads};
use std::time::Instant;

/// Makes a step to warm up and one to measure, evaluates two windows, and reports what the whole run will take.
/// Fails if the model cannot be made, or a step fails.
pub(crate) fn report(language: &Language) -> Result<String> {
    let mut steps = Steps::new(language)?;
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
    Ok(format!(
        "parameters       {}\ntraining tokens  {}, {} steps {}\nspeed            {} tokens/s on {} threads\n\
         peak memory      {}\nan epoch         {}\nthe whole run    {} for {} epochs, the test split apart\n",
        grouped(parameter_count(language.model())?),
        grouped(language.data().tokens[0]),
        grouped(language.batch_count(0) as u64),
        match config.window {
            WindowKind::Fixed => "an epoch",
            WindowKind::Variable => "in the first epoch",
        },
        grouped((tokens / step_seconds).round() as u64),
        threads::count(),
        memory::peak_mib().map_or("unknown on this system".into(), |mib| format!("{} MiB", grouped(mib))),
        duration(epoch),
        duration(epoch * config.epochs as f64),
        config.epochs,
    ))
}
