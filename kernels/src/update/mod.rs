//! What an optimizer does to a tensor on the CPU, in one pass and without temporaries; [`guard`] is for a GPU, and where the host
//! decides a step there, plain operations do the same.
//!
//! Sums run over pieces of a fixed length and are added in order, so that every number of threads gives the same bits.

pub mod adagrad;
pub mod adagrad_rows;
#[cfg(feature = "cuda")]
mod cuda;
pub mod dynamic;
mod element;
pub mod finite;
pub mod guard;
mod pieces;
mod plain;
mod spans;

use crate::cpu::in_vectors;
use crate::cpu::real::{self, Real, by_float};
use crate::cpu::shared::Shared;
use crate::error::Result;
use crate::update::element::{Adam, Moments, Sgd, Velocity};
use candle_core::backend::BackendStorage;
use candle_core::{
    CpuStorage, DType, Device, InplaceOp2, InplaceOp3, Layout, Result as CandleResult, Tensor, Var,
};
pub use element::{AdamStep, MomentsStep, VelocityStep};
use pulp::Arch;
use spans::Spans;
pub use spans::Touched;

/// The guard of `device` for weights of type `dtype`, which records `capacity` steps; `None` on the CPU.
#[cfg(feature = "cuda")]
pub fn open_guard(
    device: &Device,
    dtype: DType,
    capacity: usize,
) -> Result<Option<Box<dyn guard::DeviceGuard>>> {
    let Device::Cuda(device) = device else { return Ok(None) };
    Ok(Some(Box::new(cuda::CudaGuard::new(device, dtype, capacity)?)))
}

/// The guard of a device; a build without CUDA has none.
#[cfg(not(feature = "cuda"))]
pub fn open_guard(_: &Device, _: DType, _: usize) -> Result<Option<Box<dyn guard::DeviceGuard>>> {
    Ok(None)
}

/// Σ (g + decay · θ)², in f64; on a GPU, and for other element types than f32 and f64, by plain operations.
pub fn squared_norm(grad: &Tensor, parameter: &Tensor, decay: f64) -> Result<f64> {
    if !parameter.device().is_cpu() || !matches!(parameter.dtype(), DType::F32 | DType::F64) {
        let total = if decay == 0.0 { grad.clone() } else { (grad + (parameter * decay)?)? };
        return plain::sum_of_squares(&total);
    }
    let grad = grad.contiguous()?;
    let parameter = parameter.contiguous()?;
    Ok(by_float!(parameter.dtype(), T => {
        real::with_elements([&grad, &parameter], |[g, p]| sum_of_squares::<T>(g, p, decay))?
    }))
}

/// θ ← θ − rate · (scale · (g + decay · θ))
pub fn sgd(parameter: &Var, grad: &Tensor, rate: f64, scale: f64, decay: f64) -> Result<()> {
    if !parameter.device().is_cpu() {
        let after = plain::sgd(&parameter.as_detached_tensor(), grad, rate, scale, decay)?;
        return Ok(parameter.set(&after)?);
    }
    Ok(parameter.inplace_op2(&grad.contiguous()?, &Sgd::new(rate, scale, decay))?)
}

/// [`sgd`] without decay, of the rows `ids` of a table on the CPU, whose numbers rise; `grad` holds these rows alone.
pub fn sgd_rows(parameter: &Var, grad: &Tensor, ids: &[u32], rate: f64, scale: f64) -> Result<()> {
    let spans = Spans::new(parameter.shape(), Touched::Rows(ids))?;
    let op = SgdRows { step: -rate * scale, spans };
    Ok(parameter.inplace_op2(&grad.contiguous()?, &op)?)
}

/// mean ← mean + (θ − mean) · share
pub fn towards(mean: &Var, parameter: &Var, share: f64) -> Result<()> {
    let parameter = parameter.as_detached_tensor();
    if !parameter.device().is_cpu() {
        let old = mean.as_detached_tensor();
        return Ok(mean.set(&(&old + ((parameter - &old)? * share)?)?)?);
    }
    Ok(mean.inplace_op2(&parameter, &Towards(share))?)
}

/// [`towards`] by a share that is known where the weights are: one number of their type.
pub fn towards_by(mean: &Var, parameter: &Var, share: &Tensor) -> Result<()> {
    let old = mean.as_detached_tensor();
    let way = (parameter.as_detached_tensor() - &old)?.broadcast_mul(share)?;
    Ok(mean.set(&(old + way)?)?)
}

/// v ← momentum · v + scale · (g + decay · θ), then θ ← θ − rate · v, or with Nesterov's form θ − rate · (scale · (g +
/// decay · θ) + momentum · v); as `torch.optim.SGD`. By plain operations where there is no kernel.
pub fn velocity(parameter: &Var, velocity: &Var, grad: &Tensor, step: VelocityStep) -> Result<()> {
    let old = parameter.as_detached_tensor();
    if !old.device().is_cpu() {
        let [after, moved] = plain::velocity(&old, &velocity.as_detached_tensor(), grad, step)?;
        parameter.set(&moved)?;
        return Ok(velocity.set(&after)?);
    }
    let grad = grad.contiguous()?;
    velocity.inplace_op3(&grad, &old, &VelocityOp { step, of_parameter: false })?;
    Ok(parameter.inplace_op3(
        &velocity.as_detached_tensor(),
        &grad,
        &VelocityOp { step, of_parameter: true },
    )?)
}

/// Adam's moments `(2, …)` of one tensor: m ← β₁ m + (1 − β₁) g, v ← β₂ v + (1 − β₂) g², with
/// g = scale · (gradient + decay · θ).
pub fn adam_moments(moments: &Var, grad: &Tensor, parameter: &Tensor, step: MomentsStep) -> Result<()> {
    if !parameter.device().is_cpu() {
        let after = plain::adam_moments(&moments.as_detached_tensor(), grad, parameter, step)?;
        return Ok(moments.set(&after)?);
    }
    Ok(moments.inplace_op3(&grad.contiguous()?, &parameter.contiguous()?, &step)?)
}

/// θ ← keep · θ − rate · m / (root_scale · √v + ε)
pub fn adam(parameter: &Var, moments: &Tensor, step: AdamStep) -> Result<()> {
    if !moments.device().is_cpu() {
        return Ok(parameter.set(&plain::adam(&parameter.as_detached_tensor(), moments, step)?)?);
    }
    Ok(parameter.inplace_op2(moments, &step)?)
}

fn sum_of_squares<T: Real>(grad: &[T], parameter: &[T], decay: f64) -> f64 {
    let arch = Arch::new();
    let decay = T::from_f64(decay);
    pieces::sum(grad.len(), |piece| {
        in_vectors!(arch, piece_of_squares(&grad[piece.clone()], &parameter[piece.clone()], decay))
    })
}

#[inline(always)]
fn piece_of_squares<T: Real>(grad: &[T], parameter: &[T], decay: T) -> f64 {
    const LANES: usize = 16;
    let mut sums = [0f64; LANES];
    let (grads, last_grads) = grad.as_chunks::<LANES>();
    let (parameters, last_parameters) = parameter.as_chunks::<LANES>();
    for (g, p) in grads.iter().zip(parameters) {
        for lane in 0..LANES {
            let total = (g[lane] + decay * p[lane]).to_f64();
            sums[lane] += total * total;
        }
    }
    for (sum, (&g, &p)) in sums.iter_mut().zip(last_grads.iter().zip(last_parameters)) {
        let total = (g + decay * p).to_f64();
        *sum += total * total;
    }
    sums.into_iter().sum()
}

/// What an operation does to its first operand, for either element type.
trait Kernel: Sync {
    const NAME: &'static str;
    fn run<T: Real>(&self, target: &mut [T], operand: &[T]);
}

macro_rules! in_place {
    ($($op:ty),*) => {$(
        impl InplaceOp2 for $op {
            fn name(&self) -> &'static str {
                Self::NAME
            }

            fn cpu_fwd(&self, target: &mut CpuStorage, layout: &Layout, operand: &CpuStorage, operand_layout: &Layout) -> CandleResult<()> {
                by_float!(operand.dtype(), T => {
                    self.run::<T>(real::elements_mut(target, layout)?, real::elements(operand, operand_layout)?);
                });
                Ok(())
            }
        }
    )*};
}

in_place!(Sgd, SgdRows, AdamStep, Towards, dynamic::Squares);

impl InplaceOp3 for MomentsStep {
    fn name(&self) -> &'static str {
        "adam-moments"
    }

    fn cpu_fwd(
        &self,
        moments: &mut CpuStorage,
        layout: &Layout,
        grad: &CpuStorage,
        grad_layout: &Layout,
        parameter: &CpuStorage,
        parameter_layout: &Layout,
    ) -> CandleResult<()> {
        by_float!(grad.dtype(), T => {
            let grad = real::elements(grad, grad_layout)?;
            let parameter = real::elements(parameter, parameter_layout)?;
            self.run::<T>(real::elements_mut(moments, layout)?, grad, parameter);
        });
        Ok(())
    }
}

/// A tensor goes a share of the way to another.
struct Towards(f64);

impl Kernel for Towards {
    const NAME: &'static str = "towards";

    fn run<T: Real>(&self, mean: &mut [T], parameter: &[T]) {
        let arch = Arch::new();
        let share = T::from_f64(self.0);
        pieces::for_each_mut(mean, |mean, piece| {
            let both = mean.iter_mut().zip(&parameter[piece]);
            in_vectors!(
                arch,
                both.for_each(|(mean, &parameter)| *mean = *mean + (parameter - *mean) * share)
            );
        });
    }
}

impl Kernel for Sgd {
    const NAME: &'static str = "sgd";

    fn run<T: Real>(&self, parameter: &mut [T], grad: &[T]) {
        let arch = Arch::new();
        let (keep, step) = self.numbers::<T>();
        pieces::for_each_mut(parameter, |parameter, piece| {
            let grad = &grad[piece];
            in_vectors!(arch, parameter.iter_mut().zip(grad).for_each(|(p, &g)| *p = *p * keep + g * step));
        });
    }
}

/// One of the two passes of [`velocity`].
struct VelocityOp {
    step: VelocityStep,
    /// Whether the operand is θ, with v and g beside it; else it is v, with g and θ.
    of_parameter: bool,
}

impl InplaceOp3 for VelocityOp {
    fn name(&self) -> &'static str {
        "velocity"
    }

    fn cpu_fwd(
        &self,
        target: &mut CpuStorage,
        layout: &Layout,
        first: &CpuStorage,
        first_layout: &Layout,
        second: &CpuStorage,
        second_layout: &Layout,
    ) -> CandleResult<()> {
        by_float!(first.dtype(), T => {
            let first = real::elements(first, first_layout)?;
            let second = real::elements(second, second_layout)?;
            self.run::<T>(real::elements_mut(target, layout)?, first, second);
        });
        Ok(())
    }
}

impl VelocityOp {
    fn run<T: Real>(&self, target: &mut [T], first: &[T], second: &[T]) {
        let arch = Arch::new();
        let step = Velocity::new(&self.step);
        pieces::for_each_mut(target, |target, piece| {
            let both = first[piece.clone()].iter().zip(&second[piece]);
            let all = target.iter_mut().zip(both);
            if self.of_parameter {
                in_vectors!(arch, all.for_each(|(p, (&v, &g))| *p = step.parameter(*p, v, g)));
            } else {
                in_vectors!(arch, all.for_each(|(v, (&g, &p))| *v = step.velocity(*v, g, p)));
            }
        });
    }
}

impl MomentsStep {
    fn run<T: Real>(&self, moments: &mut [T], grad: &[T], parameter: &[T]) {
        let arch = Arch::new();
        let step = Moments::new(self);
        let (first, second) = moments.split_at_mut(grad.len());
        let second = Shared::new(second);
        pieces::for_each_mut(first, |first, piece| {
            // SAFETY: pieces are disjoint.
            let second = unsafe { second.part(piece.start, piece.len()) };
            let gradient = grad[piece.clone()].iter().zip(&parameter[piece]);
            in_vectors!(arch, {
                for ((m, v), (&g, &p)) in first.iter_mut().zip(second).zip(gradient) {
                    (*m, *v) = step.after(*m, *v, g, p);
                }
            });
        });
    }
}

impl Kernel for AdamStep {
    const NAME: &'static str = "adam";

    fn run<T: Real>(&self, parameter: &mut [T], moments: &[T]) {
        let arch = Arch::new();
        let step = Adam::new(self);
        let (first, second) = moments.split_at(parameter.len());
        pieces::for_each_mut(parameter, |parameter, piece| {
            let moments = first[piece.clone()].iter().zip(&second[piece]);
            in_vectors!(arch, {
                for (p, (&m, &v)) in parameter.iter_mut().zip(moments) {
                    *p = step.after(*p, m, v);
                }
            });
        });
    }
}

/// Some rows of a table, θ ← θ + step · g.
struct SgdRows {
    step: f64,
    spans: Spans,
}

impl Kernel for SgdRows {
    const NAME: &'static str = "sgd-rows";

    fn run<T: Real>(&self, parameter: &mut [T], grad: &[T]) {
        assert_eq!(grad.len(), self.spans.touched(), "numbers of a gradient");
        let arch = Arch::new();
        let step = T::from_f64(self.step);
        self.spans.for_each_mut(parameter, |parameter, _, of_gradient| {
            let both = parameter.iter_mut().zip(&grad[of_gradient]);
            in_vectors!(arch, both.for_each(|(p, &g)| *p += g * step));
        });
    }
}

#[cfg(test)]
mod tests;
