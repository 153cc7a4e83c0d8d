//! What evaluation and scoring ask of a model.

use crate::error::Result;
use candle_core::Tensor;

/// Reads a text window by window; what it remembers of the text before is its own.
pub trait Reader {
    /// Nats of each target, `(time, batch)`, given `inputs` and all windows before.
    ///
    /// `inputs` and `targets`: `(time, batch)` of u32.
    fn nats(&mut self, inputs: &Tensor, targets: &Tensor) -> Result<Tensor>;
}
