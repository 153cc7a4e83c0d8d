//! The windows of batch rows: each epoch the same, or drawn for it; contiguous parts of a text, or sentences.

use crate::config::TrainConfig;
use crate::config::train::WindowKind;
use crate::data::batch::Batches;
use crate::data::packing::PackedRows;
use crate::data::{TokenSource, drawn};
use crate::error::Result;
use candle_core::{Device, Tensor};
use std::cell::RefCell;

/// What batch rows are made of.
pub(crate) enum Rows {
    /// Contiguous parts of a text.
    Running(Box<dyn TokenSource>),
    /// Whole sentences of one stream.
    Sentences(Box<PackedRows>),
}

/// The windows of batch rows.
pub(crate) struct RowWindows {
    batches: Batches,
    rows: Rows,
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

impl RowWindows {
    /// The windows of training over `rows`, of which there are as many tokens as `batches` says.
    pub(super) fn new(batches: Batches, rows: Rows, config: &TrainConfig) -> Self {
        let &TrainConfig { bptt_steps: bptt, seed, window: kind, .. } = config;
        Self { batches, rows, bptt, seed, kind, drawn: RefCell::new(None) }
    }

    /// As [`RowWindows::new`], windows of equal lengths whatever the recipe says: for validation.
    pub(super) fn fixed(batches: Batches, rows: Rows, config: &TrainConfig) -> Self {
        Self { kind: WindowKind::Fixed, ..Self::new(batches, rows, config) }
    }

    /// How many epoch `epoch` has.
    pub(crate) fn count(&self, epoch: u64) -> usize {
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
    pub(crate) fn window(&self, epoch: u64, index: usize, device: &Device) -> Result<(Tensor, Tensor)> {
        match (&self.rows, self.kind) {
            (Rows::Running(tokens), WindowKind::Fixed) => self.batches.window(&**tokens, index, device),
            (Rows::Running(tokens), WindowKind::Variable) => {
                let place = self.with_drawn(epoch, |windows| windows[index]);
                self.batches.window_at(&**tokens, place, device)
            }
            (Rows::Sentences(rows), kind) => {
                let steps = |index: usize| match kind {
                    WindowKind::Fixed => self.bptt,
                    WindowKind::Variable => self.with_drawn(epoch, |windows| windows[index].1),
                };
                let shape = (steps(index), self.batches.count);
                let [inputs, targets] = rows.window(epoch, index, &steps)?;
                Ok((Tensor::from_vec(inputs, shape, device)?, Tensor::from_vec(targets, shape, device)?))
            }
        }
    }

    /// How many there are of equal lengths.
    pub(super) fn fixed_count(&self) -> usize {
        self.batches.window_count()
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
