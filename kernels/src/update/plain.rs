//! The update rules by plain operations of candle, for a device on which they have no kernels: what a step would leave, which is
//! looked at before any of it is kept. The element's equations are those of `element.rs` and `adagrad.rs`.

use super::adagrad::AdagradStep;
use super::element::{AdamStep, MomentsStep, VelocityStep};
use crate::error::Result;
use candle_core::{D, DType, Tensor};

/// Whether all numbers are finite.
pub(super) fn is_finite(tensor: &Tensor) -> Result<bool> {
    // x · 0 is 0 for every finite x and no number for any other.
    Ok((tensor * 0.0)?.sum_all()?.to_dtype(DType::F64)?.to_scalar::<f64>()? == 0.0)
}

/// Σ x² in f64, summed row by row first.
pub(super) fn sum_of_squares(tensor: &Tensor) -> Result<f64> {
    let squares = tensor.to_dtype(if tensor.rank() < 2 { DType::F64 } else { tensor.dtype() })?.sqr()?;
    let rows = if tensor.rank() < 2 { squares } else { squares.sum(D::Minus1)?.to_dtype(DType::F64)? };
    Ok(rows.sum_all()?.to_scalar()?)
}

/// What decay and clipping make of a gradient.
fn scaled(gradient: &Tensor, parameter: &Tensor, scale: f64, decay: f64) -> Result<Tensor> {
    Ok(((gradient + (parameter * decay)?)? * scale)?)
}

/// θ after a step of plain gradient descent.
pub(super) fn sgd(parameter: &Tensor, grad: &Tensor, rate: f64, scale: f64, decay: f64) -> Result<Tensor> {
    Ok((parameter - (scaled(grad, parameter, scale, decay)? * rate)?)?)
}

/// v and θ after a step with a velocity, which has θ's shape or `(1, …)`.
pub(super) fn velocity(
    parameter: &Tensor,
    velocity: &Tensor,
    grad: &Tensor,
    step: VelocityStep,
) -> Result<[Tensor; 2]> {
    let VelocityStep { rate, scale, decay, momentum, nesterov } = step;
    let grad = scaled(grad, parameter, scale, decay)?;
    let after = ((velocity.reshape(parameter.shape())? * momentum)? + &grad)?;
    let by = if nesterov { (grad + (&after * momentum)?)? } else { after.clone() };
    Ok([after.reshape(velocity.shape())?, (parameter - (by * rate)?)?])
}

/// Both moments of Adam after a step, `(2, …)`.
pub(super) fn adam_moments(
    moments: &Tensor,
    grad: &Tensor,
    parameter: &Tensor,
    step: MomentsStep,
) -> Result<Tensor> {
    let MomentsStep { scale, beta1, beta2, decay } = step;
    let grad = scaled(grad, parameter, scale, decay)?.unsqueeze(0)?;
    let toward = |index: usize, beta: f64, value: Tensor| -> Result<Tensor> {
        Ok(((moments.narrow(0, index, 1)? * beta)? + (value * (1.0 - beta))?)?)
    };
    let squares = grad.sqr()?;
    Ok(Tensor::cat(&[toward(0, beta1, grad)?, toward(1, beta2, squares)?], 0)?)
}

/// θ after a step of Adam, from the moments after it.
pub(super) fn adam(parameter: &Tensor, moments: &Tensor, step: AdamStep) -> Result<Tensor> {
    let AdamStep { rate, root_scale, epsilon, keep } = step;
    let [first, second] = [moments.narrow(0, 0, 1)?, moments.narrow(0, 1, 1)?];
    let size = ((second.sqrt()? * root_scale)? + epsilon)?;
    let change = ((first / size)? * rate)?.reshape(parameter.shape())?;
    Ok(((parameter * keep)? - change)?)
}

/// The sums `(1, …)` and θ after a step of AdaGrad.
pub(super) fn adagrad(
    parameter: &Tensor,
    sums: &Tensor,
    grad: &Tensor,
    step: AdagradStep,
) -> Result<[Tensor; 2]> {
    let AdagradStep { rate, scale, decay, epsilon, initial } = step;
    let grad = scaled(grad, parameter, scale, decay)?;
    let after = (sums.reshape(parameter.shape())? + grad.sqr()?)?;
    let root = ((&after + initial)?.sqrt()? + epsilon)?;
    Ok([after.reshape(sums.shape())?, (parameter - ((grad / root)? * rate)?)?])
}

/// The sums `(1, rows)` and θ after a step of AdaGrad by rows.
pub(super) fn adagrad_by_row(
    parameter: &Tensor,
    sums: &Tensor,
    grad: &Tensor,
    step: AdagradStep,
) -> Result<[Tensor; 2]> {
    let AdagradStep { rate, scale, decay, epsilon, initial } = step;
    let grad = scaled(grad, parameter, scale, decay)?;
    let after = (sums + grad.sqr()?.mean(D::Minus1)?.unsqueeze(0)?)?;
    let root = ((&after + initial)?.sqrt()? + epsilon)?.reshape(((), 1))?;
    Ok([after, (parameter - (grad.broadcast_div(&root)? * rate)?)?])
}

/// The kernels' own results, on the CPU.
#[cfg(test)]
mod tests {
    use super::super::{adagrad as kernels, adagrad_rows, finite};
    use super::*;
    use crate::rng::Rng;
    use crate::update::{self, Touched, squared_norm};
    use candle_core::{Device, Var};

    fn drawn(shape: &[usize], seed: u64) -> Tensor {
        let mut rng = Rng::keyed(seed, "plain", 0);
        let count = shape.iter().product();
        let values: Vec<f64> = (0..count).map(|_| rng.normal()).collect();
        Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
    }

    fn var(shape: &[usize], seed: u64) -> Var {
        Var::from_tensor(&drawn(shape, seed)).unwrap()
    }

    #[track_caller]
    fn close(found: &Tensor, wanted: &Tensor) {
        assert_eq!(found.dims(), wanted.dims());
        let values = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f64>().unwrap();
        for (found, wanted) in values(found).iter().zip(values(wanted)) {
            assert!((found - wanted).abs() < 1e-13, "{found} for {wanted}");
        }
    }

    const SHAPE: [usize; 2] = [5, 7];

    #[test]
    fn each_rule_leaves_what_its_kernel_leaves() {
        let grad = drawn(&SHAPE, 1);
        let parameter = || var(&SHAPE, 2);
        let before = parameter().as_detached_tensor();

        let found = parameter();
        update::sgd(&found, &grad, 0.3, 0.7, 0.1).unwrap();
        close(&sgd(&before, &grad, 0.3, 0.7, 0.1).unwrap(), &found);

        for nesterov in [false, true] {
            let step = VelocityStep { rate: 0.3, scale: 0.7, decay: 0.1, momentum: 0.9, nesterov };
            let (found, memory) = (parameter(), var(&[1, 5, 7], 3));
            let [after, moved] = velocity(&before, &memory.copy().unwrap(), &grad, step).unwrap();
            update::velocity(&found, &memory, &grad, step).unwrap();
            close(&after, &memory);
            close(&moved, &found);
        }

        let first = MomentsStep { scale: 0.7, beta1: 0.9, beta2: 0.99, decay: 0.1 };
        let second = AdamStep { rate: 0.3, root_scale: 2.0, epsilon: 1e-3, keep: 0.95 };
        let (found, memory) = (parameter(), Var::from_tensor(&drawn(&[2, 5, 7], 4).abs().unwrap()).unwrap());
        let after = adam_moments(&memory.copy().unwrap(), &grad, &before, first).unwrap();
        update::adam_moments(&memory, &grad, &before, first).unwrap();
        close(&after, &memory);
        update::adam(&found, &memory, second).unwrap();
        close(&adam(&before, &after, second).unwrap(), &found);

        let step = AdagradStep { rate: 0.3, scale: 0.7, decay: 0.1, epsilon: 1e-3, initial: 0.5 };
        let (found, sums) = (parameter(), Var::from_tensor(&drawn(&[1, 5, 7], 5).abs().unwrap()).unwrap());
        let [after, moved] = adagrad(&before, &sums.copy().unwrap(), &grad, step).unwrap();
        kernels::adagrad(&found, &sums, &grad, Touched::All, step).unwrap();
        close(&after, &sums);
        close(&moved, &found);

        let (found, sums) = (parameter(), Var::from_tensor(&drawn(&[1, 5], 6).abs().unwrap()).unwrap());
        let [after, moved] = adagrad_by_row(&before, &sums.copy().unwrap(), &grad, step).unwrap();
        adagrad_rows::adagrad_by_row(&found, &sums, &grad, Touched::All, step).unwrap();
        close(&after, &sums);
        close(&moved, &found);

        let norm = sum_of_squares(&grad).unwrap();
        assert!((norm - squared_norm(&grad, &grad, 0.0).unwrap()).abs() < 1e-12, "{norm}");
    }

    #[test]
    fn one_number_that_is_not_finite_is_found() {
        assert!(is_finite(&drawn(&SHAPE, 1)).unwrap());
        for wrong in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let one = Tensor::new(&[0.0, wrong, 1.0], &Device::Cpu).unwrap();
            assert!(!is_finite(&one).unwrap(), "{wrong}");
        }
        // As the kernels' own check: the step overflows, though the gradient does not.
        let ones = Tensor::ones(SHAPE.to_vec(), DType::F32, &Device::Cpu).unwrap();
        assert!(!is_finite(&sgd(&ones, &ones, 1e39, 1.0, 0.0).unwrap()).unwrap());
        assert!(!finite::sgd(&ones, &ones, 1e39, 1.0, 0.0).unwrap());
    }
}
