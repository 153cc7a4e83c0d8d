//! Dynamic evaluation (Krause et al., 2017), RMS form with decay: one pass over the weights, and the squares behind it.
//!
//! ```text
//! θ ← θ + min(decay · m, 1) (θ₀ − θ) − rate · g / (m + ε)      m: the root mean square of g over the training text
//! ```

mod parts;

use self::parts::FromParts;
use super::{Kernel, pieces};
use crate::cpu::in_vectors;
use crate::cpu::real::{self, Real, by_float};
use crate::error::Result;
use crate::gradients::Gradient;
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, InplaceOp3, Layout, Result as CandleResult, Tensor, Var};
use pulp::Arch;

/// Numbers of one step.
#[derive(Clone, Copy, Debug)]
pub struct DynamicStep {
    /// The learning rate.
    pub rate: f64,
    /// What draws a weight back to its first value, for each unit of m; a weight goes back at most all the way.
    pub decay: f64,
    /// Keeps weights that hardly had a gradient from moving far.
    pub epsilon: f64,
}

/// Changes `parameter` by its gradient. `trained`, `(2, …)`: θ₀, then m. By plain operations where there is no kernel.
pub fn dynamic(parameter: &Var, trained: &Tensor, gradient: Gradient, step: DynamicStep) -> Result<()> {
    let is_dense = matches!(gradient, Gradient::Dense(_));
    if parameter.device().is_cpu() && !is_dense {
        return Ok(parameter.inplace_op2(trained, &FromParts::new(gradient, step)?)?);
    }
    let grad = gradient.dense()?;
    if !parameter.device().is_cpu() {
        let after = reference(&parameter.as_detached_tensor(), trained, &grad, step)?;
        return Ok(parameter.set(&after)?);
    }
    Ok(parameter.inplace_op3(trained, &grad.contiguous()?, &step)?)
}

/// What [`dynamic`] makes of a parameter, by plain operations.
fn reference(parameter: &Tensor, trained: &Tensor, grad: &Tensor, step: DynamicStep) -> Result<Tensor> {
    let start = trained.get(0)?;
    let rms = trained.get(1)?;
    let back = ((&rms * step.decay)?.minimum(1.0)? * (start - parameter)?)?;
    let along = ((grad * step.rate)? / (rms + step.epsilon)?)?;
    Ok(((parameter + back)? - along)?)
}

/// sums ← sums + g²
pub fn add_squares(sums: &Var, grad: &Tensor) -> Result<()> {
    if !sums.device().is_cpu() {
        return Ok(sums.set(&(sums.as_detached_tensor() + grad.sqr()?)?)?);
    }
    Ok(sums.inplace_op2(&grad.contiguous()?, &Squares)?)
}

impl InplaceOp3 for DynamicStep {
    fn name(&self) -> &'static str {
        "dynamic-evaluation"
    }

    fn cpu_fwd(
        &self,
        parameter: &mut CpuStorage,
        layout: &Layout,
        trained: &CpuStorage,
        trained_layout: &Layout,
        grad: &CpuStorage,
        grad_layout: &Layout,
    ) -> CandleResult<()> {
        by_float!(grad.dtype(), T => {
            let trained = real::elements(trained, trained_layout)?;
            let grad = real::elements(grad, grad_layout)?;
            self.run::<T>(real::elements_mut(parameter, layout)?, trained, grad);
        });
        Ok(())
    }
}

impl DynamicStep {
    fn run<T: Real>(&self, parameter: &mut [T], trained: &[T], grad: &[T]) {
        let arch = Arch::new();
        let numbers = self.numbers();
        let (start, rms) = trained.split_at(parameter.len());
        pieces::for_each_mut(parameter, |parameter, piece| {
            let trained = [&start[piece.clone()], &rms[piece.clone()]];
            let grad = &grad[piece];
            in_vectors!(arch, update(parameter, trained, grad, numbers));
        });
    }

    /// The rate, the decay and ε.
    fn numbers<T: Real>(&self) -> [T; 3] {
        [self.rate, self.decay, self.epsilon].map(T::from_f64)
    }
}

/// The step of some weights, `trained` are their θ₀ and m.
#[inline(always)]
fn update<T: Real>(parameter: &mut [T], [start, rms]: [&[T]; 2], grad: &[T], [rate, decay, epsilon]: [T; 3]) {
    for (p, ((&start, &rms), &g)) in parameter.iter_mut().zip(start.iter().zip(rms).zip(grad)) {
        let back = decay * rms;
        let back = if back < T::one() { back } else { T::one() };
        *p = *p + back * (start - *p) - rate * g / (rms + epsilon);
    }
}

/// sums ← sums + g²
pub(super) struct Squares;

impl Kernel for Squares {
    const NAME: &'static str = "add-squares";

    fn run<T: Real>(&self, sums: &mut [T], grad: &[T]) {
        let arch = Arch::new();
        pieces::for_each_mut(sums, |sums, piece| {
            let grad = &grad[piece];
            in_vectors!(arch, sums.iter_mut().zip(grad).for_each(|(sum, &g)| *sum += g * g));
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use crate::update::element::PIECE;
    use candle_core::{DType, Device};

    /// Longer than two pieces.
    const LENGTH: usize = 2 * PIECE + 37;

    fn random(name: &str, from: f64, to: f64, dtype: DType) -> Tensor {
        let mut rng = Rng::keyed(3, name, 0);
        let values: Vec<f64> = (0..LENGTH).map(|_| from + (to - from) * rng.uniform()).collect();
        Tensor::new(values, &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
    }

    fn largest_difference(a: &Tensor, b: &Tensor) -> f64 {
        let far = (a - b).unwrap().abs().unwrap().to_dtype(DType::F64).unwrap();
        far.max(0).unwrap().to_scalar().unwrap()
    }

    #[test]
    fn the_pass_over_the_weights_is_that_of_plain_operations() {
        let step = DynamicStep { rate: 0.01, decay: 0.7, epsilon: 0.05 };
        for (dtype, tolerance) in [(DType::F64, 1e-14), (DType::F32, 1e-6)] {
            let start = random("start", -1.0, 1.0, dtype);
            let rms = random("rms", 0.0, 2.0, dtype); // above 1 / 0.7 the decay is cut
            let trained = Tensor::stack(&[start, rms], 0).unwrap();
            let grad = random("grad", -1.0, 1.0, dtype);
            let parameter = Var::from_tensor(&random("parameter", -1.0, 1.0, dtype)).unwrap();
            let wanted = reference(&parameter.as_detached_tensor(), &trained, &grad, step).unwrap();
            dynamic(&parameter, &trained, Gradient::Dense(grad), step).unwrap();
            let far = largest_difference(&parameter.as_detached_tensor(), &wanted);
            assert!(far < tolerance, "{dtype:?}: {far}");
        }
    }

    #[test]
    fn a_weight_goes_against_its_gradient_and_back_to_where_it_was() {
        let of = |values: &[f64]| Tensor::new(values, &Device::Cpu).unwrap();
        let trained = Tensor::stack(&[of(&[1.0, 1.0, 1.0]), of(&[0.0, 0.5, 9.0])], 0).unwrap();
        let parameter = Var::from_tensor(&of(&[2.0, 2.0, 2.0])).unwrap();
        let step = DynamicStep { rate: 0.1, decay: 0.5, epsilon: 0.5 };
        dynamic(&parameter, &trained, Gradient::Dense(of(&[1.0, 2.0, 0.0])), step).unwrap();
        let wanted = of(&[2.0 - 0.1 / 0.5, 2.0 - 0.25 - 0.1 * 2.0, 1.0]);
        assert!(largest_difference(&parameter.as_detached_tensor(), &wanted) < 1e-15);
    }

    #[test]
    fn without_rate_and_decay_no_bit_changes() {
        let trained = Tensor::stack(&["start", "rms"].map(|name| random(name, -1.0, 1.0, DType::F32)), 0)
            .unwrap()
            .abs()
            .unwrap();
        let before = random("parameter", -1.0, 1.0, DType::F32);
        let parameter = Var::from_tensor(&before).unwrap();
        let step = DynamicStep { rate: 0.0, decay: 0.0, epsilon: 1e-5 };
        dynamic(&parameter, &trained, Gradient::Dense(random("grad", -1.0, 1.0, DType::F32)), step).unwrap();
        assert_eq!(parameter.to_vec1::<f32>().unwrap(), before.to_vec1::<f32>().unwrap());
    }

    #[test]
    fn squares_are_added() {
        let sums = Var::from_tensor(&random("sums", 0.0, 1.0, DType::F64)).unwrap();
        let grad = random("grad", -1.0, 1.0, DType::F64);
        let wanted = (sums.as_detached_tensor() + grad.sqr().unwrap()).unwrap();
        add_squares(&sums, &grad).unwrap();
        assert!(largest_difference(&sums.as_detached_tensor(), &wanted) < 1e-15);
    }
}
