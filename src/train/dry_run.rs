//! What a run will take: parameters, memory and time, from a step or two of it.

use super::session::Session;
use crate::data::batch::Batches;
use crate::error::Result;
use crate::predict::{Reader, WindowReader};
use crate::readable::{duration, grouped};
use rhn_kernels::{memory, threads};
use std::time::Instant;

/// Makes a step to warm up and one to measure, and evaluates a window.
pub fn report(session: &Session) -> Result<String> {
    let mut stepper = session.stepper(None)?;
    let steps = session.lanes.window_count();
    let mut step_seconds = 0.0;
    for step in 0..2 {
        let (inputs, targets) = session.lanes.window(&session.train.tokens, step % steps, &session.device)?;
        let start = Instant::now();
        stepper.step(&inputs, &targets, step as u64, 1e-6 * session.recipe.train.learning_rate)?;
        step_seconds = start.elapsed().as_secs_f64();
    }
    let config = &session.recipe.train;
    let lanes =
        Batches::batched("validation", session.valid.tokens.len(), config.batch_size, config.bptt_steps)?;
    let mut reader = WindowReader::new(&stepper.model.freeze()?, lanes.count)?;
    let start = Instant::now();
    let (inputs, targets) = lanes.window(&session.valid.tokens, 0, &session.device)?;
    reader.nats(&inputs, &targets)?;
    let epoch = steps as f64 * step_seconds + lanes.window_count() as f64 * start.elapsed().as_secs_f64();
    let tokens = (config.batch_size * config.bptt_steps) as f64;
    Ok(format!(
        "parameters       {}\ntraining tokens  {}, {} steps an epoch\nspeed            {} tokens/s on {} threads\n\
         peak memory      {}\nan epoch         {}\nthe whole run    {} for {} epochs, the test split apart\n",
        grouped(stepper.parameters.count()),
        grouped(session.train.tokens.len() as u64),
        grouped(steps as u64),
        grouped((tokens / step_seconds).round() as u64),
        threads::count(),
        memory::peak_mib().map_or("unknown on this system".into(), |mib| format!("{} MiB", grouped(mib))),
        duration(epoch),
        duration(epoch * config.epochs as f64),
        config.epochs,
    ))
}
