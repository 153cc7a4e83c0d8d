//! The divergence of a plain softmax's window, its logits made in blocks of time steps.

use super::{SoftTargets, compare, known};
use crate::error::Result;
use candle_core::{
    CpuStorage, CudaStorage, CustomOp3, D, Layout, Result as CandleResult, Shape, Storage, Tensor,
    backend::BackendStorage,
};
use rhn_kernels::gradients::hand_over;
use rhn_kernels::linear::{Stored, linear};
use rhn_kernels::precision::Precision;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// The layer's weights, and how they are stored and multiplied.
pub(in crate::model::output) struct Layer<'a> {
    pub(in crate::model::output) weight: &'a Tensor,
    pub(in crate::model::output) stored: Stored,
    pub(in crate::model::output) bias: &'a Tensor,
    pub(in crate::model::output) precision: Precision,
}

/// The KL of each position, `(time, batch)`, for `ys` of `(time, batch, hidden)`.
pub(in crate::model::output) fn of_products(
    layer: &Layer<'_>,
    ys: &Tensor,
    soft: Arc<dyn SoftTargets>,
    temperature: f64,
) -> Result<Tensor> {
    let (time, batch, _) = ys.dims3()?;
    let ys = ys.flatten(0, 1)?;
    let &Layer { weight, stored, bias, precision } = layer;
    let at_once = soft.steps_at_once().max(1);
    let blocks: Vec<_> = (0..time).step_by(at_once).map(|start| start..time.min(start + at_once)).collect();
    let work = Blocks { batch, soft, blocks, stored, precision, temperature };
    let operands = [&ys, weight, bias];
    let tracked = operands.iter().any(|operand| operand.track_op());
    let mut values = Vec::with_capacity(work.blocks.len());
    let mut kept = None;
    for steps in &work.blocks {
        let (value, slope) = work.block(operands, steps)?;
        values.push(value);
        kept = (tracked && work.blocks.len() == 1).then_some(slope);
    }
    let value = Tensor::cat(&values, 0)?;
    if !tracked {
        return Ok(value.reshape((time, batch))?);
    }
    let op = OfProducts { value, kept: Mutex::new(kept), work };
    Ok(ys.contiguous()?.apply_op3(weight, bias, op)?.reshape((time, batch))?)
}

/// How a window is cut, and what each block is compared with.
struct Blocks {
    batch: usize,
    soft: Arc<dyn SoftTargets>,
    /// Time steps.
    blocks: Vec<Range<usize>>,
    stored: Stored,
    precision: Precision,
    temperature: f64,
}

impl Blocks {
    fn rows(&self, tensor: &Tensor, steps: &Range<usize>) -> CandleResult<Tensor> {
        tensor.narrow(0, steps.start * self.batch, steps.len() * self.batch)
    }

    /// The KL of a block's rows, and its gradient by their logits.
    fn block(&self, operands: [&Tensor; 3], steps: &Range<usize>) -> Result<(Tensor, Tensor)> {
        let [ys, weight, bias] = operands.map(Tensor::detach);
        let products = linear(&self.rows(&ys, steps)?, &weight, self.stored, self.precision)?;
        compare(&products.broadcast_add(&bias)?, &self.soft.at(steps.clone())?, self.temperature)
    }
}

/// Gives the KL of each row, which is known. Operands: ys, the weight, the bias.
struct OfProducts {
    value: Tensor,
    /// The gradient by the logits, if there is one block.
    kept: Mutex<Option<Tensor>>,
    work: Blocks,
}

impl OfProducts {
    /// The gradients of the operands from that of the KL of each row.
    fn gradients(&self, operands: [&Tensor; 3], grad: &Tensor) -> Result<[Tensor; 3]> {
        let Self { work, .. } = self;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).take();
        let [ys, weight, _] = operands.map(Tensor::detach);
        let turned = match work.stored {
            Stored::ByInput => Stored::ByOutput,
            Stored::ByOutput => Stored::ByInput,
        };
        let product = |left: &Tensor, right: &Tensor| {
            linear(&left.t()?.contiguous()?, right, Stored::ByInput, work.precision)
        };
        let mut ys_grads = Vec::with_capacity(work.blocks.len());
        let mut sums: Option<[Tensor; 2]> = None;
        for steps in &work.blocks {
            let slope = kept.take().map_or_else(|| Ok(work.block(operands, steps)?.1), Result::Ok)?;
            let slope = slope.broadcast_mul(&work.rows(grad, steps)?.unsqueeze(D::Minus1)?)?;
            let ys = work.rows(&ys, steps)?;
            ys_grads.push(linear(&slope, &weight, turned, work.precision)?);
            let of_weight = match work.stored {
                Stored::ByInput => product(&ys, &slope)?,
                Stored::ByOutput => product(&slope, &ys)?,
            };
            let of_bias = slope.sum(0)?;
            sums = Some(match sums {
                None => [of_weight, of_bias],
                Some([weight, bias]) => [(weight + of_weight)?, (bias + of_bias)?],
            });
        }
        let [of_weight, of_bias] = sums.expect("a window has a step");
        Ok([Tensor::cat(&ys_grads, 0)?, of_weight, of_bias])
    }
}

impl CustomOp3 for OfProducts {
    fn name(&self) -> &'static str {
        "divergence-of-products"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> CandleResult<(CpuStorage, Shape)> {
        known!(self.value, Cpu)
    }

    fn cuda_fwd(
        &self,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
    ) -> CandleResult<(CudaStorage, Shape)> {
        known!(self.value, Cuda)
    }

    fn bwd(
        &self,
        ys: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _value: &Tensor,
        grad: &Tensor,
    ) -> CandleResult<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let found = self.gradients([ys, weight, bias], &grad.contiguous()?);
        let [of_ys, of_weight, of_bias] = found.map_err(candle_core::Error::wrap)?;
        Ok((hand_over(ys, of_ys)?, hand_over(weight, of_weight)?, hand_over(bias, of_bias)?))
    }
}
