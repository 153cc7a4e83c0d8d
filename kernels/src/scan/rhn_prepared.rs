//! The RHN recurrence with weights that are laid out once: for evaluation.

use crate::cpu::instruction_set::{Computed, WithKernel};
use crate::cpu::real::{self, Real};
use crate::cpu::tile::Kernel;
use crate::error::Result;
use crate::precision::Precision;
use crate::scan::hidden_mask::HiddenMask;
use crate::scan::rhn_cpu::{Inputs, Packed, Sizes, forward};
use crate::scan::rhn_op::rhn;
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
    /// Packs the weights; shapes as in [`crate::scan::rhn_op::rhn`].
    pub fn new(recurrent: &Tensor, bias: &Tensor, precision: Precision) -> Result<Self> {
        let (depth, hidden, _) = recurrent.dims3()?;
        let (recurrent, bias) = (recurrent.contiguous()?.detach(), bias.contiguous()?.detach());
        macro_rules! pack {
            ($kind:ident, $t:ty) => {
                Packs::$kind(real::with_elements::<$t, _>(&recurrent, |recurrent| {
                    Ok(<$t>::with_kernel(precision.rounds(), Pack { recurrent, depth, hidden }))
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

    /// As [`crate::scan::rhn_op::rhn`]; the history is not followed.
    pub fn forward(&self, projected: &Tensor, state: &Tensor, mask: &HiddenMask) -> Result<Tensor> {
        let (time, batch, _) = projected.dims3()?;
        let (depth, hidden, _) = self.recurrent.dims3()?;
        let sizes = Sizes { time, batch, depth, hidden };
        macro_rules! run {
            ($packed:expr, $t:ty) => {{
                let mask = match mask {
                    HiddenMask::None => None,
                    HiddenMask::Shared(mask) => Some(mask.flatten_all()?.to_vec1::<$t>()?),
                    HiddenMask::Separate { .. } => return self.plain(projected, state, mask),
                };
                let (projected, state) = (projected.contiguous()?, state.contiguous()?);
                let mut outputs = vec![<$t>::default(); time * batch * hidden];
                real::with_elements::<$t, _>(&projected, |projected| {
                    real::with_elements::<$t, _>(&self.bias, |bias| {
                        real::with_elements::<$t, _>(&state, |state| {
                            let inputs = Inputs { projected, bias, state, mask: mask.as_deref(), sizes };
                            $packed.run(&inputs, &mut outputs);
                            Ok(())
                        })
                    })
                })?;
                Ok(Tensor::from_vec(outputs, (time, batch, hidden), projected.device())?)
            }};
        }
        match &self.packed {
            Packs::F32(packed) => run!(packed, f32),
            Packs::F64(packed) => run!(packed, f64),
            Packs::None => self.plain(projected, state, mask),
        }
    }

    fn plain(&self, projected: &Tensor, state: &Tensor, mask: &HiddenMask) -> Result<Tensor> {
        rhn(&projected.detach(), &self.recurrent, &self.bias, state, mask, self.precision)
    }

    /// The same for one step after another at batch 1, where the CPU computes in single precision; from the state
    /// zero.
    pub fn steps(&self) -> Result<Option<Steps>> {
        let Packs::F32(packed) = &self.packed else { return Ok(None) };
        let (depth, hidden, _) = self.recurrent.dims3()?;
        let sizes = Sizes { time: 1, batch: 1, depth, hidden };
        let (bias, zeros) = (self.bias.flatten_all()?.to_vec1()?, vec![0.0; hidden]);
        Ok(Some(Steps { packed: packed.clone(), sizes, bias, next: zeros.clone(), state: [zeros] }))
    }
}

/// One step after another at batch 1, on shared weights; nothing is allocated for a step.
pub struct Steps {
    packed: Arc<dyn Recurrence<f32>>,
    sizes: Sizes,
    bias: Vec<f32>,
    state: [Vec<f32>; 1],
    next: Vec<f32>,
}

impl StepByStep for Steps {
    fn step(&mut self, projected: &[f32]) {
        let Self { packed, sizes, bias, state: [state], next } = self;
        packed.run(&Inputs { projected, bias, state, mask: None, sizes: *sizes }, next);
        std::mem::swap(state, next);
    }

    fn state(&self) -> &[Vec<f32>] {
        &self.state
    }

    fn state_mut(&mut self) -> &mut [Vec<f32>] {
        &mut self.state
    }
}

/// Packed weights of some kernel.
trait Recurrence<T>: Send + Sync {
    fn run(&self, inputs: &Inputs<'_, T>, outputs: &mut [T]);
}

impl<K: Kernel> Recurrence<K::Element> for Packed<K> {
    fn run(&self, inputs: &Inputs<'_, K::Element>, outputs: &mut [K::Element]) {
        forward(self, inputs, false, outputs);
    }
}

struct Pack<'a, T> {
    recurrent: &'a [T],
    depth: usize,
    hidden: usize,
}

impl<T: Real> WithKernel<T> for Pack<'_, T> {
    type Output = Arc<dyn Recurrence<T>>;

    fn run<K: Kernel<Element = T>>(self) -> Self::Output {
        Arc::new(Packed::<K>::new(self.recurrent, self.depth, self.hidden))
    }
}
