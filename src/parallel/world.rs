//! The processes that train one model together, each of which is a rank.

use crate::error::Result;
use candle_core::Tensor;

/// The ranks of a training run, seen from one of them.
pub trait World {
    /// How many ranks there are.
    fn size(&self) -> usize;

    /// Replaces each of `values` by its sum over the ranks.
    fn sum(&self, values: &mut [Tensor]) -> Result<()>;

    /// Whether `flag` is set on any rank.
    fn any(&self, flag: bool) -> Result<bool>;
}

/// One process that trains alone.
#[derive(Clone, Copy, Debug)]
pub struct Solo;

impl World for Solo {
    fn size(&self) -> usize {
        1
    }

    fn sum(&self, _values: &mut [Tensor]) -> Result<()> {
        Ok(())
    }

    fn any(&self, flag: bool) -> Result<bool> {
        Ok(flag)
    }
}
