//! A layer on the CPU as one operation: the product of its input with the weights of all gates, and the scan over it.
//!
//! The product and its gradient, the largest tensors of a layer, are buffers of the operation: as tensors of candle each would
//! be made anew, and the gradient added to zeros of its size. The operation has four operands and candle's have three; so the
//! recurrent weights and the bias are [`joined`] to a tensor of one number, whose own backward pass gives their gradients on.

use super::cell::Pointwise;
use super::hidden_mask::HiddenMask;
use super::op::{OfOperands, Scan, operate, sizes, state_after};
use crate::backend::Backend;
use crate::cpu::gemm::{Target, product};
use crate::cpu::instruction_set::Computed;
use crate::cpu::panels::View;
use crate::cpu::real::{self, by_float};
use crate::cpu::workspace;
use crate::error::Result;
use crate::gradients::{hand_over, hand_over_product, takes_product};
use crate::linear::{Stored, linear};
use crate::precision::Precision;
use crate::saved::SavedForBackward;
use candle_core::backend::BackendStorage;
use candle_core::{
    CpuStorage, CustomOp2, CustomOp3, DType, Layout, Result as CandleResult, Shape, Tensor, WithDType,
};
use std::sync::Arc;

/// [`super::scan_of_input`], from the input, its weight, the recurrent weights and the bias.
pub(super) fn operate_on_input<C: Pointwise>(
    [xs, input, recurrent, bias]: [&Tensor; 4],
    state: &[Tensor],
    mask: &HiddenMask,
    precision: Precision,
) -> Result<(Tensor, Vec<Tensor>)> {
    let follows_state = state.iter().any(Tensor::track_op);
    if Backend::of(xs) != Backend::Cpu || mask.is_separate() || follows_state {
        let projected = linear(xs, input, Stored::ByInput, precision)?;
        return operate::<C>([&projected, recurrent, bias], state, mask, precision);
    }
    let recurrent = recurrent.contiguous()?;
    let bias = bias.contiguous()?;
    let left = Arc::new(SavedForBackward::default());
    let joint = joined(&recurrent, &bias, left.clone())?;
    let records = [xs, input, &joint].iter().any(|tensor| tensor.track_op());
    let scan = Scan::<C>::new(state, mask, records, precision)?;
    let last = scan.last.clone();
    let op = Layer { scan, weights: [recurrent.clone(), bias], left };
    let outputs = xs.contiguous()?.apply_op3(&input.contiguous()?, &joint, op)?;
    let state = state_after(&outputs, &recurrent, &last)?;
    Ok((outputs, state))
}

/// One number that stands for two weights: what a later operation puts into `left` in its backward pass becomes their
/// gradients.
fn joined(recurrent: &Tensor, bias: &Tensor, left: Arc<SavedForBackward>) -> CandleResult<Tensor> {
    recurrent.apply_op2(bias, Joined { left })
}

struct Joined {
    left: Arc<SavedForBackward>,
}

/// The gradients of two weights, as far as they were not handed over.
type Left = [Option<Tensor>; 2];

impl CustomOp2 for Joined {
    fn name(&self) -> &'static str {
        "joined weights"
    }

    fn cpu_fwd(
        &self,
        recurrent: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> CandleResult<(CpuStorage, Shape)> {
        let storage = by_float!(recurrent.dtype(), T => T::to_cpu_storage_owned(vec![T::default()]));
        Ok((storage, 1.into()))
    }

    fn bwd(
        &self,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
    ) -> CandleResult<(Option<Tensor>, Option<Tensor>)> {
        let [recurrent, bias] = self.left.take::<Left>()?;
        Ok((recurrent, bias))
    }
}

/// The candle operation, of the input, its weight and what stands for the others.
struct Layer<C> {
    scan: Scan<C>,
    /// The recurrent weights and the bias.
    weights: [Tensor; 2],
    left: Arc<SavedForBackward>,
}

impl<C: Pointwise> Layer<C> {
    fn backward<T: Computed>(
        &self,
        [xs, input, joint]: [&Tensor; 3],
        grad: &Tensor,
    ) -> CandleResult<[Option<Tensor>; 3]> {
        let [recurrent, bias] = &self.weights;
        let OfOperands { projected, weights, .. } = self.scan.grads::<T>(recurrent, bias, grad)?;
        self.left.keep::<Left>(Some(weights));
        let (time, batch, width) = xs.dims3()?;
        let rows = time * batch;
        let (_, columns) = input.dims2()?;
        let bf16 = self.scan.precision.rounds();
        let device = grad.device();
        let projected = View::new(&projected, rows, columns);
        let of_xs = || {
            let mut out = vec![T::zero(); rows * width];
            real::with_elements([input], |[input]| {
                let weight = View::new(input, width, columns).t();
                product(Target::new(&mut out, rows, width), projected, weight, false, bf16);
            })?;
            hand_over(xs, Tensor::from_vec(out, xs.shape(), device)?)
        };
        let of_input = || {
            if !bf16 && takes_product(input, rows) {
                let left = xs.detach().reshape((1, rows, width))?;
                let right = Tensor::from_slice(projected.data, (1, rows, columns), device)?;
                hand_over_product(input, left, right)?;
                return Ok(None);
            }
            let mut out = vec![T::zero(); width * columns];
            real::with_elements([xs], |[xs]| {
                let xs = View::new(xs, rows, width);
                Stored::ByInput.weight_grad(&mut out, xs, projected, false, bf16);
            })?;
            hand_over(input, Tensor::from_vec(out, input.shape(), device)?)
        };
        let of_joint = || Tensor::zeros(1, joint.dtype(), device).map(Some);
        Ok([
            if xs.track_op() { of_xs()? } else { None },
            if input.track_op() { of_input()? } else { None },
            if joint.track_op() { of_joint()? } else { None },
        ])
    }
}

impl<C: Pointwise> CustomOp3 for Layer<C> {
    fn name(&self) -> &'static str {
        C::NAME
    }

    fn cpu_fwd(
        &self,
        xs: &CpuStorage,
        xs_layout: &Layout,
        input: &CpuStorage,
        input_layout: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> CandleResult<(CpuStorage, Shape)> {
        let (time, batch, width) = xs_layout.shape().dims3()?;
        let (wanted, columns) = input_layout.shape().dims2()?;
        if wanted != width {
            candle_core::bail!("an input of {width} values does not fit a weight for {wanted}");
        }
        let [recurrent, bias] = &self.weights;
        let sizes = sizes::<C>(&(time, batch, columns).into(), recurrent.shape(), bias.shape())?;
        let rows = time * batch;
        let outputs = by_float!(xs.dtype(), T => {
            let xs = View::new(real::elements::<T>(xs, xs_layout)?, rows, width);
            let weight = View::new(real::elements(input, input_layout)?, width, columns);
            let mut projected = workspace::take(rows * columns);
            let target = Target::new(&mut projected, rows, columns);
            product(target, xs, weight, false, self.scan.precision.rounds());
            let outputs = real::with_elements([recurrent, bias], |[recurrent, bias]| {
                self.scan.forward([&projected, recurrent, bias], sizes)
            })??;
            T::to_cpu_storage_owned(outputs)
        });
        Ok((outputs, (time, batch, C::OUTPUTS * sizes.hidden).into()))
    }

    fn bwd(
        &self,
        xs: &Tensor,
        input: &Tensor,
        joint: &Tensor,
        _outputs: &Tensor,
        grad: &Tensor,
    ) -> CandleResult<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let operands = [xs, input, joint];
        let [xs, input, joint] = match grad.dtype() {
            DType::F64 => self.backward::<f64>(operands, &grad)?,
            _ => self.backward::<f32>(operands, &grad)?,
        };
        Ok((xs, input, joint))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Cell, HiddenMask, Lstm, Rhn, scan, scan_of_input};
    use crate::gradients::Gradients;
    use crate::linear::{Stored, linear};
    use crate::precision::Precision;
    use crate::rng::Rng;
    use candle_core::{Device, Tensor, Var};

    fn random(name: &str, shape: &[usize]) -> Var {
        let mut rng = Rng::keyed(3, name, shape.iter().sum::<usize>() as u64);
        let values: Vec<f64> = (0..shape.iter().product()).map(|_| rng.uniform() - 0.5).collect();
        Var::from_vec(values, shape, &Device::Cpu).unwrap()
    }

    /// Outputs, state after, and all gradients of a window by each way, with and without someone who collects them.
    fn compare<C: Cell>(gates: usize, parts: usize, recurrent: &[usize], bias: &[usize], input: usize) {
        let hidden = recurrent[recurrent.len() - 2];
        let xs = random("xs", &[3, 2, input]);
        let weight = random("input", &[input, gates * hidden]);
        let recurrent = random("recurrent", recurrent);
        let bias = random("bias", bias);
        let state: Vec<Tensor> = (0..parts)
            .map(|part| random("state", &[2, hidden]).affine(1.0, part as f64).unwrap().detach())
            .collect();
        let mask = HiddenMask::Shared(random("mask", &[2, hidden]).as_tensor().detach());
        let flat = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f64>().unwrap();
        for mask in [HiddenMask::None, mask] {
            let run = |(outputs, after): (Tensor, Vec<Tensor>), collects: bool| {
                let loss = outputs.sqr().unwrap().sum_all().unwrap();
                let mut found = vec![flat(&outputs)];
                found.extend(after.iter().map(flat));
                let variables = [&xs, &weight, &recurrent, &bias];
                if collects {
                    let mut grads = Gradients::of(&loss).unwrap();
                    found.extend(variables.map(|variable| flat(&grads.remove(variable).unwrap().unwrap())));
                } else {
                    let grads = loss.backward().unwrap();
                    found.extend(variables.map(|variable| flat(grads.get(variable).unwrap())));
                }
                found
            };
            for collects in [false, true] {
                let projected = linear(&xs, &weight, Stored::ByInput, Precision::F64).unwrap();
                let apart = scan::<C>(&projected, &recurrent, &bias, &state, &mask, Precision::F64).unwrap();
                let operands = [xs.as_tensor(), &weight, &recurrent, &bias];
                let whole = scan_of_input::<C>(operands, &state, &mask, Precision::F64).unwrap();
                assert_eq!(run(whole, collects), run(apart, collects));
            }
        }
    }

    #[test]
    fn a_layer_is_the_product_and_the_scan_to_the_bit() {
        compare::<Lstm>(4, 2, &[5, 20], &[20], 7);
        compare::<Lstm>(4, 2, &[1, 5, 20], &[1, 20], 5);
        compare::<Rhn>(2, 1, &[3, 6, 12], &[3, 12], 4);
    }

    #[test]
    fn weights_alone_or_the_input_alone_can_be_followed() {
        let xs = random("xs", &[3, 2, 4]);
        let weight = random("input", &[4, 12]);
        let recurrent = random("recurrent", &[2, 6, 12]);
        let bias = random("bias", &[2, 12]);
        let state = [random("state", &[2, 6]).as_tensor().detach()];
        let follow = |operands: [&Tensor; 4]| {
            let (outputs, _) =
                scan_of_input::<Rhn>(operands, &state, &HiddenMask::None, Precision::F64).unwrap();
            outputs.sum_all().unwrap().backward().unwrap()
        };
        let plain = [&xs, &weight, &recurrent, &bias].map(|variable| variable.as_tensor().detach());
        let all = follow([&xs, &weight, &recurrent, &bias]);
        let of_xs = follow([&xs, &plain[1], &plain[2], &plain[3]]);
        let of_bias = follow([&plain[0], &plain[1], &plain[2], &bias]);
        let flat = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f64>().unwrap();
        assert_eq!(flat(of_xs.get(&xs).unwrap()), flat(all.get(&xs).unwrap()));
        assert_eq!(flat(of_bias.get(&bias).unwrap()), flat(all.get(&bias).unwrap()));
        assert!(of_bias.get(&xs).is_none());
    }

    #[test]
    fn an_input_that_does_not_fit_is_an_error() {
        let operands = [
            random("xs", &[3, 2, 5]),
            random("input", &[4, 12]),
            random("r", &[2, 6, 12]),
            random("b", &[2, 12]),
        ];
        let state = [random("state", &[2, 6]).as_tensor().detach()];
        let operands = operands.each_ref().map(Var::as_tensor);
        assert!(scan_of_input::<Rhn>(operands, &state, &HiddenMask::None, Precision::F64).is_err());
    }
}
