//! Where a run's events and files go: the seam between the loop and a directory or a screen.

use crate::error::Result;
use crate::events::Event;
use candle_core::Tensor;
use std::collections::BTreeMap;

/// Takes what a run leaves behind. Only [`Recorder::record`] has no default.
pub trait Recorder {
    /// Records an event.
    fn record(&mut self, event: &Event) -> Result<()>;

    /// Shows how far the run is; nothing of it is kept.
    fn show(&mut self, _progress: &Progress<'_>) {}

    /// Keeps the files of the training state after `step` steps.
    fn save(&mut self, _step: u64, _files: &[(&str, Vec<u8>)]) -> Result<()> {
        Ok(())
    }

    /// Keeps the files of the best model so far in place of the ones before.
    fn publish(&mut self, _files: &[(&str, Vec<u8>)]) -> Result<()> {
        Ok(())
    }

    /// The weights of the best model so far, by name, if it was kept.
    fn best_weights(&self) -> Result<Option<BTreeMap<String, Tensor>>> {
        Ok(None)
    }
}

/// How far a run is.
#[derive(Clone, Copy, Debug)]
pub enum Progress<'a> {
    /// After a window of training.
    Training(Training),
    /// While a split is evaluated: what for, the tokens that are done, and how many there are.
    Evaluating(&'a str, u64, u64),
    /// The model's own text after an epoch.
    Sample(&'a str),
    /// Something that is wrong with the model.
    Warning(&'a str),
    /// Nothing more follows.
    Over,
}

/// How far training is.
#[derive(Clone, Copy, Debug)]
pub struct Training {
    /// The epoch's number, counted from 1.
    pub epoch: u64,
    /// Epochs in all.
    pub epochs: u64,
    /// Windows of this epoch that are done.
    pub window: u64,
    /// Windows of an epoch.
    pub windows: u64,
    /// Nats per token of the latest window.
    pub nats: f64,
    /// Over which words they are, as recipes name it: of any but `exact`, e^nats is no perplexity.
    pub loss: &'static str,
    /// Tokens that this process trains in a second.
    pub tokens_per_second: f64,
    /// Seconds left of the epoch, its validation apart.
    pub epoch_left: f64,
    /// Seconds left of the run.
    pub run_left: f64,
}

/// Several recorders, asked in their order; none keeps and shows nothing.
impl Recorder for Vec<Box<dyn Recorder + '_>> {
    fn record(&mut self, event: &Event) -> Result<()> {
        self.iter_mut().try_for_each(|recorder| recorder.record(event))
    }

    fn show(&mut self, progress: &Progress<'_>) {
        self.iter_mut().for_each(|recorder| recorder.show(progress));
    }

    fn save(&mut self, step: u64, files: &[(&str, Vec<u8>)]) -> Result<()> {
        self.iter_mut().try_for_each(|recorder| recorder.save(step, files))
    }

    fn publish(&mut self, files: &[(&str, Vec<u8>)]) -> Result<()> {
        self.iter_mut().try_for_each(|recorder| recorder.publish(files))
    }

    fn best_weights(&self) -> Result<Option<BTreeMap<String, Tensor>>> {
        self.iter().find_map(|recorder| recorder.best_weights().transpose()).transpose()
    }
}
