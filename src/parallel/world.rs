//! The processes that train one model together, each of which is a rank.

use crate::error::Result;
use crate::model::Parameters;
use candle_core::Tensor;
use rhn_kernels::gradients::Gradient;

/// The ranks of a training run, seen from one of them.
pub trait World {
    /// How many ranks there are.
    fn size(&self) -> usize;

    /// Replaces each of `values` by its sum over the ranks.
    fn sum(&self, values: &mut [Tensor]) -> Result<()>;

    /// Whether `flag` is set on any rank.
    fn any(&self, flag: bool) -> Result<bool>;
}

/// Replaces the gradients of `parameters` by their sums over the ranks, of which each may lack others: of several ranks
/// every gradient is of all numbers.
pub fn sum_gradients(
    world: &dyn World,
    parameters: &Parameters,
    gradients: Vec<Option<Gradient>>,
) -> Result<Vec<Option<Gradient>>> {
    if world.size() == 1 {
        return Ok(gradients);
    }
    let of_all = |(gradient, (_, var)): (Option<Gradient>, (&str, &candle_core::Var))| match gradient {
        Some(gradient) => Ok(gradient.dense()?),
        None => Ok(var.zeros_like()?),
    };
    let mut dense =
        gradients.into_iter().zip(parameters.trained()).map(of_all).collect::<Result<Vec<_>>>()?;
    world.sum(&mut dense)?;
    Ok(dense.into_iter().map(|gradient| Some(Gradient::Dense(gradient))).collect())
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
