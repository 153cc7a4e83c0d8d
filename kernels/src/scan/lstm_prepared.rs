//! The LSTM recurrence with weights that are laid out once: for evaluation.

use crate::cpu::instruction_set::{Computed, WithKernel};
use crate::cpu::real::{self, Real};
use crate::cpu::tile::Kernel;
use crate::error::Result;
use crate::precision::Precision;
use crate::scan::hidden_mask::HiddenMask;
use crate::scan::lstm_cpu::{Inputs, Outputs, Packed, Sizes, forward};
use crate::scan::lstm_op::lstm;
use crate::scan::steps::StepByStep;
use candle_core::{DType, Tensor};
use std::sync::Arc;

/// Recurrent weights that do not change while this exists, laid out for their kernel.
pub struct Prepared {
    packed: Packs,
    recurrent: Tensor,
    bias: Tensor,
    precision: Precision,
}

enum Packs {
    F32(Arc<dyn Recurrence<f32>>),
    F64(Arc<dyn Recurrence<f64>>),
    /// Elsewhere than on the CPU.
    None,
}

impl Prepared {
    /// Packs the weights; shapes as in [`crate::scan::lstm_op::lstm`].
    pub fn new(recurrent: &Tensor, bias: &Tensor, precision: Precision) -> Result<Self> {
        let (hidden, _) = recurrent.dims2()?;
        let (recurrent, bias) = (recurrent.contiguous()?.detach(), bias.contiguous()?.detach());
        macro_rules! pack {
            ($kind:ident, $t:ty) => {
                Packs::$kind(real::with_elements::<$t, _>(&recurrent, |recurrent| {
                    Ok(<$t>::with_kernel(precision.rounds(), Pack { recurrent, hidden }))
                })?)
            };
        }
        let packed = match (recurrent.device().is_cpu(), recurrent.dtype()) {
            (true, DType::F32) => pack!(F32, f32),
            (true, DType::F64) => pack!(F64, f64),
            _ => Packs::None,
        };
        Ok(Self { packed, recurrent, bias, precision })
    }

    /// As [`crate::scan::lstm_op::lstm`]; the history is not followed.
    pub fn forward(
        &self,
        projected: &Tensor,
        state: [&Tensor; 2],
        mask: &HiddenMask,
    ) -> Result<(Tensor, Tensor)> {
        match &self.packed {
            Packs::F32(packed) => self.run(&**packed, projected, state, mask),
            Packs::F64(packed) => self.run(&**packed, projected, state, mask),
            Packs::None => {
                lstm(&projected.detach(), &self.recurrent, &self.bias, state, mask, self.precision)
            }
        }
    }

    fn run<T: Computed>(
        &self,
        packed: &dyn Recurrence<T>,
        projected: &Tensor,
        state: [&Tensor; 2],
        mask: &HiddenMask,
    ) -> Result<(Tensor, Tensor)> {
        let ((time, batch, _), (hidden, _)) = (projected.dims3()?, self.recurrent.dims2()?);
        let values = |tensor: &Tensor| tensor.flatten_all()?.to_vec1::<T>();
        let (h, c, mask) = (values(state[0])?, values(state[1])?, mask.shared().map(values).transpose()?);
        let (projected, sizes) = (projected.contiguous()?, Sizes { time, batch, hidden });
        let (mut outputs, mut cell) = sizes.zeros::<T>();
        real::with_elements::<T, _>(&projected, |projected| {
            real::with_elements::<T, _>(&self.bias, |bias| {
                let inputs = Inputs { projected, bias, state: [&h, &c], mask: mask.as_deref(), sizes };
                packed.run(&inputs, Outputs { hidden: &mut outputs, cell: &mut cell });
                Ok(())
            })
        })?;
        let device = projected.device();
        let cell = Tensor::from_vec(cell, (batch, hidden), device)?;
        Ok((Tensor::from_vec(outputs, (time, batch, hidden), device)?, cell))
    }

    /// The same for one step after another at batch 1, where the CPU computes in single precision; from the state
    /// zero.
    pub fn steps(&self) -> Result<Option<Steps>> {
        let Packs::F32(packed) = &self.packed else { return Ok(None) };
        let bias = self.bias.to_vec1()?;
        let zeros = || vec![0.0; bias.len() / 4];
        let state = [zeros(), zeros()];
        Ok(Some(Steps { packed: packed.clone(), next: state.clone(), state, bias }))
    }
}

/// One step after another at batch 1, on shared weights; nothing is allocated for a step.
pub struct Steps {
    packed: Arc<dyn Recurrence<f32>>,
    bias: Vec<f32>,
    /// h and c.
    state: [Vec<f32>; 2],
    next: [Vec<f32>; 2],
}

impl StepByStep for Steps {
    fn step(&mut self, projected: &[f32]) {
        let ([h, c], [hidden, cell]) = (&self.state, &mut self.next);
        let sizes = Sizes { time: 1, batch: 1, hidden: h.len() };
        let inputs = Inputs { projected, bias: &self.bias, state: [h, c], mask: None, sizes };
        self.packed.run(&inputs, Outputs { hidden, cell });
        std::mem::swap(&mut self.state, &mut self.next);
    }

    fn state(&self) -> &[Vec<f32>] {
        &self.state
    }

    fn state_mut(&mut self) -> &mut [Vec<f32>] {
        &mut self.state
    }
}

/// Packed weights of some kernel.
trait Recurrence<T: Real>: Send + Sync {
    fn run(&self, inputs: &Inputs<'_, T>, outputs: Outputs<'_, T>);
}

impl<K: Kernel> Recurrence<K::Element> for Packed<K> {
    fn run(&self, inputs: &Inputs<'_, K::Element>, outputs: Outputs<'_, K::Element>) {
        forward(self, inputs, false, outputs);
    }
}

struct Pack<'a, T> {
    recurrent: &'a [T],
    hidden: usize,
}

impl<T: Real> WithKernel<T> for Pack<'_, T> {
    type Output = Arc<dyn Recurrence<T>>;

    fn run<K: Kernel<Element = T>>(self) -> Self::Output {
        Arc::new(Packed::<K>::new(self.recurrent, self.hidden))
    }
}
