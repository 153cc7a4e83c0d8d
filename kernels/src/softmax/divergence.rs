//! A softmax's distribution of rows of logits, and how far it is from another, with the gradient of that (Hinton et al., 2015):
//!
//! ```text
//! p = softmax(z / τ)      KL = Σ_v q_v (ln q_v − ln p_v)      ∂KL/∂z = (p − q) / τ
//! ```
//!
//! No history is followed. On the CPU a row stays in the cache while it is gone over three times, whose exponentials vectorise.

use crate::backend::Backend;
use crate::cpu::instruction_set::{Computed, WithKernel};
use crate::cpu::pool;
use crate::cpu::real::{self, Real, by_float};
use crate::cpu::shared::Shared;
use crate::cpu::tile::Kernel;
use crate::error::Result;
use candle_core::{D, Result as CandleResult, Tensor};

/// `ln softmax(logits / temperature)` of `(rows, vocabulary)`.
pub fn log_softmax(logits: &Tensor, temperature: f64) -> Result<Tensor> {
    let logits = logits.detach().contiguous()?;
    if Backend::of(&logits) != Backend::Cpu {
        return Ok(plain_log_softmax(&logits, temperature)?);
    }
    let (rows, vocabulary) = logits.dims2()?;
    by_float!(logits.dtype(), T => {
        let mut out = vec![T::default(); rows * vocabulary];
        real::with_elements([&logits], |[logits]| {
            let work = Distributions { logits, vocabulary, temperature, out: &mut out };
            T::with_kernel(false, work);
        })?;
        Ok(Tensor::from_vec(out, (rows, vocabulary), logits.device())?)
    })
}

/// The KL of each row of `logits`, `(rows, vocabulary)`, from `log_q` of that shape: `(rows)`; and its gradient by the logits.
///
/// # Errors
/// If the shapes differ.
pub fn divergence(logits: &Tensor, log_q: &Tensor, temperature: f64) -> Result<(Tensor, Tensor)> {
    let logits = logits.detach().contiguous()?;
    let log_q = log_q.detach().contiguous()?;
    if Backend::of(&logits) != Backend::Cpu {
        return Ok(plain_divergence(&logits, &log_q, temperature)?);
    }
    let (rows, vocabulary) = logits.dims2()?;
    if log_q.dims() != logits.dims() {
        Err(candle_core::Error::Msg(format!("logits {:?} beside {:?}", logits.dims(), log_q.dims())))?;
    }
    by_float!(logits.dtype(), T => {
        let mut nats = vec![T::default(); rows];
        let mut slope = vec![T::default(); rows * vocabulary];
        real::with_elements([&logits, &log_q], |[logits, log_q]| {
            let out = [&mut nats, &mut slope].map(Vec::as_mut_slice);
            T::with_kernel(false, Divergences { logits, log_q, vocabulary, temperature, out });
        })?;
        let device = logits.device();
        let nats = Tensor::from_vec(nats, rows, device)?;
        Ok((nats, Tensor::from_vec(slope, (rows, vocabulary), device)?))
    })
}

/// [`log_softmax`] in plain tensor operations.
fn plain_log_softmax(logits: &Tensor, temperature: f64) -> CandleResult<Tensor> {
    candle_nn::ops::log_softmax(&(logits / temperature)?, D::Minus1)
}

/// [`divergence`] in plain tensor operations.
fn plain_divergence(logits: &Tensor, log_q: &Tensor, temperature: f64) -> CandleResult<(Tensor, Tensor)> {
    let log_p = plain_log_softmax(logits, temperature)?;
    let q = log_q.exp()?;
    let nats = (&q * (log_q - &log_p)?)?.sum(D::Minus1)?;
    Ok((nats, ((log_p.exp()? - q)? / temperature)?))
}

struct Distributions<'a, T> {
    logits: &'a [T],
    vocabulary: usize,
    temperature: f64,
    out: &'a mut [T],
}

impl<T: Computed> WithKernel<T> for Distributions<'_, T> {
    type Output = ();

    fn run<K: Kernel<Element = T>>(self) {
        let Self { logits, vocabulary, temperature, out } = self;
        let scale = T::from_f64(1.0 / temperature);
        let out = Shared::new(out);
        pool::run(|worker| {
            for row in worker.share(logits.len() / vocabulary.max(1)) {
                let logits = &logits[row * vocabulary..][..vocabulary];
                // SAFETY: workers' rows are disjoint.
                let out = unsafe { out.part(row * vocabulary, vocabulary) };
                K::vectorized(
                    #[inline(always)]
                    || {
                        let whole = normaliser(logits, scale);
                        out.iter_mut().zip(logits).for_each(|(out, &x)| *out = x * scale - whole);
                    },
                );
            }
        });
    }
}

struct Divergences<'a, T> {
    logits: &'a [T],
    log_q: &'a [T],
    vocabulary: usize,
    temperature: f64,
    /// Of the nats and of the slopes.
    out: [&'a mut [T]; 2],
}

impl<T: Computed> WithKernel<T> for Divergences<'_, T> {
    type Output = ();

    fn run<K: Kernel<Element = T>>(self) {
        let Self { logits, log_q, vocabulary, temperature, out } = self;
        let scale = T::from_f64(1.0 / temperature);
        let [nats, slopes] = out.map(Shared::new);
        pool::run(|worker| {
            for row in worker.share(logits.len() / vocabulary.max(1)) {
                let values = row * vocabulary..(row + 1) * vocabulary;
                let logits = &logits[values.clone()];
                let log_q = &log_q[values.clone()];
                // SAFETY: workers' rows are disjoint.
                let slope = unsafe { slopes.part(values.start, vocabulary) };
                // SAFETY: as above.
                let nats = unsafe { nats.part(row, 1) };
                nats[0] = K::vectorized(
                    #[inline(always)]
                    || compare(logits, log_q, scale, slope),
                );
            }
        });
    }
}

/// Sums and maxima that run side by side, whatever the instruction set.
const LANES: usize = 16;

/// `ln Σ e^(x · scale)`, safe from overflow.
#[inline(always)]
fn normaliser<T: Real>(row: &[T], scale: T) -> T {
    let (chunks, rest) = row.as_chunks::<LANES>();
    let mut highest = [T::neg_infinity(); LANES];
    for chunk in chunks {
        for i in 0..LANES {
            let x = chunk[i] * scale;
            highest[i] = if x > highest[i] { x } else { highest[i] };
        }
    }
    let of_rest = rest.iter().map(|&x| x * scale);
    let highest =
        highest.into_iter().chain(of_rest).fold(T::neg_infinity(), |a, b| if b > a { b } else { a });
    let mut sums = [T::zero(); LANES];
    for chunk in chunks {
        for i in 0..LANES {
            sums[i] += (chunk[i] * scale - highest).fast_exp();
        }
    }
    let of_rest = rest.iter().map(|&x| (x * scale - highest).fast_exp());
    highest + sums.into_iter().chain(of_rest).sum::<T>().ln()
}

/// The KL of a row, whose gradient is written to `slope`.
#[inline(always)]
fn compare<T: Real>(logits: &[T], log_q: &[T], scale: T, slope: &mut [T]) -> T {
    let whole = normaliser(logits, scale);
    let one = |x: T, log_q: T| {
        let log_p = x * scale - whole;
        let log_p = if log_p > T::zero() { T::zero() } else { log_p }; // rounding of huge logits; NaN passes
        let q = log_q.fast_exp();
        (q * (log_q - log_p), (log_p.fast_exp() - q) * scale)
    };
    let (chunks, rest) = logits.as_chunks::<LANES>();
    let (q_chunks, q_rest) = log_q.as_chunks::<LANES>();
    let (slope_chunks, slope_rest) = slope.as_chunks_mut::<LANES>();
    let mut sums = [T::zero(); LANES];
    for ((x, log_q), slope) in chunks.iter().zip(q_chunks).zip(slope_chunks) {
        for i in 0..LANES {
            let (nats, by_logit) = one(x[i], log_q[i]);
            sums[i] += nats;
            slope[i] = by_logit;
        }
    }
    let mut sum: T = sums.into_iter().sum();
    for ((&x, &log_q), slope) in rest.iter().zip(q_rest).zip(slope_rest) {
        let (nats, by_logit) = one(x, log_q);
        sum += nats;
        *slope = by_logit;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use candle_core::{DType, Device};

    fn random(name: &str, rows: usize, vocabulary: usize, scale: f64) -> Tensor {
        let mut rng = Rng::keyed(11, name, vocabulary as u64);
        let values: Vec<f64> = (0..rows * vocabulary).map(|_| scale * (rng.uniform() - 0.5)).collect();
        Tensor::from_vec(values, (rows, vocabulary), &Device::Cpu).unwrap()
    }

    fn assert_near(found: &Tensor, wanted: &Tensor, tolerance: f64) {
        let flat = |tensor: &Tensor| {
            tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap()
        };
        for (found, wanted) in flat(found).into_iter().zip(flat(wanted)) {
            assert!((found - wanted).abs() <= tolerance * (1.0 + wanted.abs()), "{found} for {wanted}");
        }
    }

    #[test]
    fn distributions_and_divergences_equal_plain_operations() {
        for (rows, vocabulary) in [(1, 1), (3, 5), (2, 16), (4, 37), (2, 300)] {
            for temperature in [1.0, 1.7, 0.4] {
                let logits = random("logits", rows, vocabulary, 12.0);
                let log_q = plain_log_softmax(&random("teacher", rows, vocabulary, 9.0), 1.0).unwrap();
                for (dtype, tolerance) in [(DType::F64, 1e-13), (DType::F32, 2e-6)] {
                    let logits = logits.to_dtype(dtype).unwrap();
                    let log_q = log_q.to_dtype(dtype).unwrap();
                    let wanted = plain_log_softmax(&logits, temperature).unwrap();
                    assert_near(&log_softmax(&logits, temperature).unwrap(), &wanted, tolerance);
                    let (nats, slope) = divergence(&logits, &log_q, temperature).unwrap();
                    let (wanted_nats, wanted_slope) = plain_divergence(&logits, &log_q, temperature).unwrap();
                    assert_near(&nats, &wanted_nats, 10.0 * tolerance);
                    assert_near(&slope, &wanted_slope, tolerance);
                }
            }
        }
    }

    #[test]
    fn huge_logits_are_no_overflow_and_what_is_no_number_stays_so() {
        let logits = Tensor::new(&[[3e38f32, 0.0, -3e38], [f32::NAN, 1.0, 2.0]], &Device::Cpu).unwrap();
        let found = log_softmax(&logits, 1.0).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(found[0], [0.0, -3e38, f32::NEG_INFINITY]);
        assert!(found[1].iter().all(|x| x.is_nan()));
        let log_q = Tensor::new(&[[-1f32; 3]; 2], &Device::Cpu).unwrap();
        let (nats, _) = divergence(&logits, &log_q, 1.0).unwrap();
        assert!(nats.to_vec1::<f32>().unwrap()[1].is_nan());
    }

    #[test]
    fn other_shapes_are_an_error() {
        let zeros = |rows: usize| Tensor::zeros((rows, 4), DType::F32, &Device::Cpu).unwrap();
        assert!(divergence(&zeros(2), &zeros(3), 1.0).is_err());
    }
}
