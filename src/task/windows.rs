//! The windows of training: each epoch the same, or drawn for it.

use crate::config::TrainConfig;
use crate::config::train::WindowKind;
use crate::data::batch::Batches;
use crate::data::{Tokens, drawn};
use crate::error::Result;
use candle_core::{Device, Tensor};
use std::cell::RefCell;

/// The windows of training.
pub(super) struct TrainingWindows {
    batches: Batches,
    bptt: usize,
    seed: u64,
    kind: WindowKind,
    /// Those of the epoch that was asked for last, where they are drawn.
    drawn: RefCell<Option<Drawn>>,
}

/// The windows of an epoch: where each starts within its batch row, and its steps.
struct Drawn {
    epoch: u64,
    windows: Vec<(usize, usize)>,
}

impl TrainingWindows {
    /// The windows of `batches`, or of the same batch rows.
    pub(super) fn new(batches: Batches, config: &TrainConfig) -> Self {
        let &TrainConfig { bptt_steps: bptt, seed, window: kind, .. } = config;
        Self { batches, bptt, seed, kind, drawn: RefCell::new(None) }
    }

    /// How many epoch `epoch` has.
    pub(super) fn count(&self, epoch: u64) -> usize {
        match self.kind {
            WindowKind::Fixed => self.batches.window_count(),
            WindowKind::Variable => self.with_drawn(epoch, |windows| windows.len()),
        }
    }

    /// How many `epochs` have together.
    pub(super) fn total(&self, epochs: u64) -> u64 {
        match self.kind {
            WindowKind::Fixed => epochs.saturating_mul(self.batches.window_count() as u64),
            WindowKind::Variable => (0..epochs).map(|epoch| self.draw(epoch).len() as u64).sum(),
        }
    }

    /// Inputs and targets of window number `index` of epoch `epoch`, `(time, batch)` of u32 each.
    pub(super) fn window(
        &self,
        tokens: &Tokens,
        epoch: u64,
        index: usize,
        device: &Device,
    ) -> Result<(Tensor, Tensor)> {
        match self.kind {
            WindowKind::Fixed => self.batches.window(tokens, index, device),
            WindowKind::Variable => {
                let place = self.with_drawn(epoch, |windows| windows[index]);
                self.batches.window_at(tokens, place, device)
            }
        }
    }

    fn with_drawn<T>(&self, epoch: u64, read: impl FnOnce(&[(usize, usize)]) -> T) -> T {
        let mut held = self.drawn.borrow_mut();
        let known = held.take().filter(|drawn| drawn.epoch == epoch);
        let drawn = held.insert(known.unwrap_or_else(|| Drawn { epoch, windows: self.draw(epoch) }));
        read(&drawn.windows)
    }

    fn draw(&self, epoch: u64) -> Vec<(usize, usize)> {
        drawn::windows(self.batches.following(), self.bptt, self.seed, epoch)
    }
}
