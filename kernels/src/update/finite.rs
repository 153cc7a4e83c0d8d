//! Whether all that an update is about to write is finite: a pass that computes the same numbers and keeps none.
//!
//! It only reads, so that a step that is refused leaves parameters and moments as they were, whichever number of
//! whichever tensor is at fault.

use crate::cpu::in_vectors;
use crate::cpu::real::{Real, by_float, with_elements};
use crate::error::Result;
use crate::update::element::{Adam, AdamStep, Moments, MomentsStep, Sgd, Velocity, VelocityStep};
use crate::update::spans::{Spans, Touched};
use crate::update::{pieces, plain};
use candle_core::Tensor;
use pulp::Arch;

/// Whether [`crate::update::sgd`] would write finite numbers alone.
pub fn sgd(parameter: &Tensor, grad: &Tensor, rate: f64, scale: f64, decay: f64) -> Result<bool> {
    if !parameter.device().is_cpu() {
        return plain::is_finite(&plain::sgd(parameter, grad, rate, scale, decay)?);
    }
    let op = Sgd::new(rate, scale, decay);
    let tensors = [&parameter.contiguous()?, &grad.contiguous()?];
    Ok(by_float!(parameter.dtype(), T => with_elements(tensors, |[p, g]| sgd_pass::<T>(&op, p, g))?))
}

/// Whether [`crate::update::sgd_rows`] would write finite numbers alone.
pub fn sgd_rows(parameter: &Tensor, grad: &Tensor, ids: &[u32], rate: f64, scale: f64) -> Result<bool> {
    let spans = Spans::new(parameter.shape(), Touched::Rows(ids))?;
    let tensors = [&parameter.contiguous()?, &grad.contiguous()?];
    Ok(by_float!(parameter.dtype(), T => {
        with_elements(tensors, |[p, g]| sgd_rows_pass::<T>(&spans, p, g, -rate * scale))?
    }))
}

fn sgd_rows_pass<T: Real>(spans: &Spans, parameter: &[T], grad: &[T], step: f64) -> bool {
    let step = T::from_f64(step);
    spans.all(|span, of_gradient| {
        parameter[span].iter().zip(&grad[of_gradient]).all(|(&p, &g)| (p + g * step).is_finite())
    })
}

/// Whether [`crate::update::velocity`] would write finite numbers alone.
pub fn velocity(parameter: &Tensor, velocity: &Tensor, grad: &Tensor, step: VelocityStep) -> Result<bool> {
    if !parameter.device().is_cpu() {
        let [after, moved] = plain::velocity(parameter, velocity, grad, step)?;
        return Ok(plain::is_finite(&after)? && plain::is_finite(&moved)?);
    }
    let tensors = [&parameter.contiguous()?, velocity, &grad.contiguous()?];
    Ok(by_float!(parameter.dtype(), T => {
        let step = Velocity::<T>::new(&step);
        with_elements(tensors, |[p, v, g]| velocity_pass(&step, p, v, g))?
    }))
}

/// Whether [`crate::update::adam_moments`] and then [`crate::update::adam`] would write finite numbers alone.
pub fn adam(
    parameter: &Tensor,
    moments: &Tensor,
    grad: &Tensor,
    moments_step: MomentsStep,
    step: AdamStep,
) -> Result<bool> {
    if !parameter.device().is_cpu() {
        let after = plain::adam_moments(moments, grad, parameter, moments_step)?;
        return Ok(plain::is_finite(&after)? && plain::is_finite(&plain::adam(parameter, &after, step)?)?);
    }
    let tensors = [&parameter.contiguous()?, moments, &grad.contiguous()?];
    Ok(by_float!(parameter.dtype(), T => {
        let moments_step = Moments::<T>::new(&moments_step);
        let step = Adam::new(&step);
        with_elements(tensors, |[p, both, g]| adam_pass(&moments_step, &step, p, both, g))?
    }))
}

/// Collects numbers and finds whether all were finite; in SIMD lanes, so that it vectorises.
struct Zeros<T>([T; LANES]);

const LANES: usize = 16;

impl<T: Real> Zeros<T> {
    fn new() -> Self {
        Self([T::zero(); LANES])
    }

    /// Takes what `value` gives for each lane. x · 0 is 0 for every finite x and no number for any other.
    ///
    /// A loop over the lanes: arrays that are mapped here were not always compiled in place.
    #[inline(always)]
    fn add<const N: usize>(&mut self, value: impl Fn(usize) -> [T; N]) {
        for (lane, sum) in self.0.iter_mut().enumerate() {
            for value in value(lane) {
                *sum += value * T::zero();
            }
        }
    }

    /// Takes the numbers of one element.
    #[inline(always)]
    fn add_one<const N: usize>(&mut self, values: [T; N]) {
        values.into_iter().for_each(|value| self.0[0] += value * T::zero());
    }

    fn are_zero(self) -> bool {
        self.0.into_iter().all(|sum| sum == T::zero())
    }
}

fn sgd_pass<T: Real>(op: &Sgd, parameter: &[T], grad: &[T]) -> bool {
    let arch = Arch::new();
    let (keep, step) = op.numbers::<T>();
    pieces::all(grad.len(), |piece| {
        let parameter = &parameter[piece.clone()];
        let grad = &grad[piece];
        in_vectors!(arch, {
            let mut zeros = Zeros::new();
            let (ps, p_rest) = parameter.as_chunks::<LANES>();
            let (gs, g_rest) = grad.as_chunks::<LANES>();
            let after = |p: T, g: T| [p * keep + g * step];
            for (p, g) in ps.iter().zip(gs) {
                zeros.add(|lane| after(p[lane], g[lane]));
            }
            p_rest.iter().zip(g_rest).for_each(|(&p, &g)| zeros.add_one(after(p, g)));
            zeros.are_zero()
        })
    })
}

fn velocity_pass<T: Real>(step: &Velocity<T>, parameter: &[T], velocity: &[T], grad: &[T]) -> bool {
    let arch = Arch::new();
    pieces::all(grad.len(), |piece| {
        let [parameter, velocity, grad] = [parameter, velocity, grad].map(|values| &values[piece.clone()]);
        in_vectors!(arch, {
            let mut zeros = Zeros::new();
            let [(ps, p_rest), (vs, v_rest), (gs, g_rest)] =
                [parameter, velocity, grad].map(<[T]>::as_chunks::<LANES>);
            let after = |p: T, v: T, g: T| {
                let velocity = step.velocity(v, g, p);
                [step.parameter(p, velocity, g), velocity] // at a rate of zero it is not in the parameter
            };
            for ((p, v), g) in ps.iter().zip(vs).zip(gs) {
                zeros.add(|lane| after(p[lane], v[lane], g[lane]));
            }
            let rest = p_rest.iter().zip(v_rest).zip(g_rest);
            rest.for_each(|((&p, &v), &g)| zeros.add_one(after(p, v, g)));
            zeros.are_zero()
        })
    })
}

fn adam_pass<T: Real>(moments: &Moments<T>, step: &Adam<T>, parameter: &[T], both: &[T], grad: &[T]) -> bool {
    let arch = Arch::new();
    let (first, second) = both.split_at(grad.len());
    pieces::all(grad.len(), |piece| {
        let [first, second, grad, parameter] =
            [first, second, grad, parameter].map(|values| &values[piece.clone()]);
        in_vectors!(arch, {
            let mut zeros = Zeros::new();
            let [(ms, m_rest), (vs, v_rest), (gs, g_rest), (ps, p_rest)] =
                [first, second, grad, parameter].map(<[T]>::as_chunks::<LANES>);
            let after = |m: T, v: T, g: T, p: T| {
                let (first, second) = moments.after(m, v, g, p);
                [step.after(p, first, second), second] // an infinite one alone hides in a step of zero
            };
            for ((m, v), (g, p)) in ms.iter().zip(vs).zip(gs.iter().zip(ps)) {
                zeros.add(|lane| after(m[lane], v[lane], g[lane], p[lane]));
            }
            let rest = m_rest.iter().zip(v_rest).zip(g_rest.iter().zip(p_rest));
            rest.for_each(|((&m, &v), (&g, &p))| zeros.add_one(after(m, v, g, p)));
            zeros.are_zero()
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::update::element::PIECE;
    use candle_core::Device;

    /// Longer than a piece, of ones; `value` at `at`.
    fn ones(value: f32, at: usize) -> Tensor {
        let mut values = vec![1f32; PIECE + LANES + 3];
        values[at] = value;
        Tensor::new(values, &Device::Cpu).unwrap()
    }

    const MOMENTS: MomentsStep = MomentsStep { scale: 1.0, beta1: 0.9, beta2: 0.999, decay: 0.0 };
    const VELOCITY: VelocityStep =
        VelocityStep { rate: 0.1, scale: 1.0, decay: 0.0, momentum: 0.9, nesterov: true };
    const STEP: AdamStep = AdamStep { rate: 0.1, root_scale: 1.0, epsilon: 1e-8, keep: 1.0 };

    /// Whether Adam's step is finite with these at one position of parameter, first moment, second moment, gradient.
    fn adam_with(numbers: [f32; 4], at: usize) -> bool {
        let [p, m, v, g] = numbers.map(|number| ones(number, at));
        adam(&p, &Tensor::stack(&[m, v], 0).unwrap(), &g, MOMENTS, STEP).unwrap()
    }

    #[test]
    fn one_number_that_is_not_finite_is_seen_wherever_it_is() {
        for at in [0, LANES + 1, PIECE - 1, PIECE, PIECE + LANES + 2] {
            assert!(adam_with([1.0; 4], at) && sgd(&ones(1.0, at), &ones(1.0, at), 0.1, 1.0, 0.0).unwrap());
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                for which in 0..4 {
                    let mut numbers = [1.0; 4];
                    numbers[which] = bad;
                    assert!(!adam_with(numbers, at), "{numbers:?} at {at}");
                }
                assert!(!sgd(&ones(bad, at), &ones(1.0, at), 0.1, 1.0, 0.0).unwrap());
                assert!(!sgd(&ones(1.0, at), &ones(bad, at), 0.1, 1.0, 0.0).unwrap());
                for which in 0..3 {
                    let mut numbers = [1.0; 3];
                    numbers[which] = bad;
                    let [p, v, g] = numbers.map(|number| ones(number, at));
                    assert!(!velocity(&p, &v, &g, VELOCITY).unwrap(), "{numbers:?} at {at}");
                }
            }
        }
    }

    #[test]
    fn what_overflows_only_in_the_update_is_seen() {
        assert!(!sgd(&ones(3e38, 5), &ones(-3e38, 5), 1.0, 1.0, 0.0).unwrap()); // 3e38 + 3e38
        assert!(sgd(&ones(3e38, 5), &ones(3e38, 5), 1.0, 1.0, 0.0).unwrap()); // 3e38 - 3e38
        assert!(!adam_with([1.0, 1.0, 1.0, 1e21], 5)); // 1e42 is no single precision, its share of 1e-3 would be
        assert!(!adam_with([1.0, 3e37, 0.0, 0.0], 5)); // over epsilon
        assert!(adam_with([3e38, 1.0, 3e38, 1e-3], 5));
    }
}
