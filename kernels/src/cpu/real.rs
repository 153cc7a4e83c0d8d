//! Element types of the CPU kernels, with a hyperbolic tangent and an exponential that vectorise.
//!
//! The f32 versions are branch-free polynomials, a few units in the last place from the truth. f64 takes the standard
//! library's: it serves checks, not speed.

use candle_core::{CpuStorage, Layout, Storage, Tensor, WithDType};
use std::any::Any;

/// f32 or f64.
pub trait Real: WithDType + Default + num_traits::Float + std::iter::Sum {
    /// Hyperbolic tangent; `FUSED` multiply-adds are for processors that have them.
    fn fast_tanh<const FUSED: bool>(self) -> Self;
    /// Exponential of a number that is at most 0.
    fn fast_exp(self) -> Self;
    /// `self · b + c` with one rounding, as `mul_add`, but fast where the processor has no such instruction.
    fn fused_in_software(self, b: Self, c: Self) -> Self;
}

/// `1 / (1 + e^-x)`, by the tangent so that it needs no exponential.
#[inline(always)]
pub(crate) fn sigmoid<T: Real, const FUSED: bool>(x: T) -> T {
    let half = T::from_f64(0.5);
    half * (half * x).fast_tanh::<FUSED>() + half
}

impl Real for f32 {
    /// Rational minimax approximation of degree 13 over 6, as in Eigen.
    ///
    /// Where it first comes to exactly 1 it is cut off: beyond, its gradient `1 − tanh²` is exactly 0, as that of the
    /// standard library's is from 9.02 on, and nothing is above 1. Fused sums are rounded otherwise and come to 1 later.
    #[inline(always)]
    fn fast_tanh<const FUSED: bool>(self) -> Self {
        let add = |sum: f32, y: f32, c: f32| if FUSED { sum.mul_add(y, c) } else { sum * y + c };
        let end = if FUSED { 7.907_765_4 } else { 7.905_311 };
        let x = self.clamp(-end, end);
        let y = x * x;
        let mut p = -2.760_768_5e-16f32;
        for c in [2.000_188e-13, -8.604_672e-11, 5.122_297e-8, 1.485_722_4e-5, 6.372_619_4e-4, 4.893_525e-3] {
            p = add(p, y, c);
        }
        let mut q = 1.198_258_4e-6f32;
        for c in [1.185_347_1e-4, 2.268_434_6e-3, 4.893_525e-3] {
            q = add(q, y, c);
        }
        x * p / q
    }

    /// `2^n · e^r` with `|r| ≤ ln 2 / 2`, the polynomial of Cephes.
    #[inline(always)]
    fn fast_exp(self) -> Self {
        const ROUND: f32 = 12_582_912.0; // 1.5 · 2^23: adding it leaves the nearest integer in the low bits
        let x = if self < -87.0 { -87.0 } else { self }; // NaN passes
        let shifted = x * std::f32::consts::LOG2_E + ROUND;
        let n = shifted - ROUND;
        let r = x - n * 0.693_359_4 + n * 2.121_944_4e-4;
        let mut p = 1.987_569_1e-4f32;
        for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 5e-1] {
            p = p * r + c;
        }
        let scale = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
        (p * r * r + r + 1.0) * scale
    }

    /// In double precision the product is exact; their sum is rounded to odd there, so that the second rounding, to
    /// single precision, is that of the exact sum (Boldo and Melquiond, 2008).
    #[inline(always)]
    fn fused_in_software(self, b: Self, c: Self) -> Self {
        let product = f64::from(self) * f64::from(b);
        let c = f64::from(c);
        let sum = product + c;
        let added = sum - product;
        let error = (product - (sum - added)) + (c - added);
        let bits = sum.to_bits();
        let inexact = error.abs() > 0.0; // not if it is no number
        let toward_error =
            if (error > 0.0) == (sum > 0.0) { bits.wrapping_add(1) } else { bits.wrapping_sub(1) };
        f64::from_bits(if inexact && bits & 1 == 0 { toward_error } else { bits }) as f32
    }
}

impl Real for f64 {
    #[inline(always)]
    fn fast_tanh<const FUSED: bool>(self) -> Self {
        self.tanh()
    }

    #[inline(always)]
    fn fast_exp(self) -> Self {
        self.exp()
    }

    #[inline(always)]
    fn fused_in_software(self, b: Self, c: Self) -> Self {
        self.mul_add(b, c)
    }
}

/// The elements of a contiguous tensor.
pub(crate) fn elements<'a, T: Real>(
    storage: &'a CpuStorage,
    layout: &Layout,
) -> candle_core::Result<&'a [T]> {
    let (start, end) = layout
        .contiguous_offsets()
        .ok_or_else(|| candle_core::Error::Msg("a kernel wants contiguous tensors".into()))?;
    Ok(&T::cpu_storage_as_slice(storage)?[start..end])
}

/// The elements of a contiguous tensor, to be changed.
pub(crate) fn elements_mut<'a, T: Real>(
    storage: &'a mut CpuStorage,
    layout: &Layout,
) -> candle_core::Result<&'a mut [T]> {
    let values: &mut dyn Any = match storage {
        CpuStorage::F64(values) => values,
        CpuStorage::F32(values) => values,
        _ => candle_core::bail!("a kernel wants tensors of f32 or f64"),
    };
    match (layout.contiguous_offsets(), values.downcast_mut::<Vec<T>>()) {
        (Some((start, end)), Some(values)) => Ok(&mut values[start..end]),
        _ => candle_core::bail!("a kernel wants contiguous tensors of one element type"),
    }
}

/// Calls `work` with the elements of contiguous tensors on the CPU, nothing copied.
pub(crate) fn with_elements<T: Real, R, const N: usize>(
    tensors: [&Tensor; N],
    work: impl FnOnce([&[T]; N]) -> R,
) -> candle_core::Result<R> {
    let storages = tensors.map(Tensor::storage_and_layout);
    let mut slices: [&[T]; N] = [&[]; N];
    for (slice, (storage, layout)) in slices.iter_mut().zip(&storages) {
        let Storage::Cpu(storage) = &**storage else { candle_core::bail!("this kernel is for the CPU") };
        *slice = elements(storage, layout)?;
    }
    Ok(work(slices))
}

/// Evaluates `$work` with `$t` as f64 if `$dtype` is that, else as f32.
macro_rules! by_float {
    ($dtype:expr, $t:ident => $work:expr) => {
        if $dtype == candle_core::DType::F64 {
            type $t = f64;
            $work
        } else {
            type $t = f32;
            $work
        }
    };
}
pub(crate) use by_float;

#[cfg(test)]
mod tests {
    use super::{Real, sigmoid};
    use crate::rng::Rng;

    /// Points from -12 to 12, dense near zero.
    fn points() -> impl Iterator<Item = f32> {
        (-4000..=4000).map(|i| (i as f32 / 4000.0).powi(3) * 12.0)
    }

    #[test]
    fn tanh_is_within_a_few_units_in_the_last_place() {
        for x in points() {
            let want = f64::from(x).tanh();
            for found in [x.fast_tanh::<false>(), x.fast_tanh::<true>()] {
                let error = (f64::from(found) - want).abs();
                assert!(error <= 4e-7 * want.abs().max(1e-30), "tanh({x}): {found} for {want}");
            }
        }
    }

    #[test]
    fn tanh_is_never_above_one_and_exactly_one_from_where_it_first_is() {
        for x in (7.0f32.to_bits()..=10.0f32.to_bits()).map(f32::from_bits) {
            for tanh in [x.fast_tanh::<false>(), x.fast_tanh::<true>()] {
                assert!(tanh <= 1.0 && (x < 7.907_765_4 || tanh == 1.0), "tanh({x}): {tanh}");
            }
        }
        for x in [9.1f32, 100.0, 1e30, f32::INFINITY] {
            for sign in [1.0, -1.0] {
                assert_eq!((sign * x).fast_tanh::<false>(), sign);
                assert_eq!((sign * x).fast_tanh::<true>(), sign);
                assert_eq!(sigmoid::<f32, true>(2.0 * sign * x), (sign + 1.0) / 2.0);
            }
        }
    }

    #[test]
    fn sigmoid_is_within_a_few_units_in_the_last_place_of_one() {
        for x in points() {
            let want = 1.0 / (1.0 + (-f64::from(x)).exp());
            assert!((f64::from(sigmoid::<f32, false>(x)) - want).abs() < 2e-7, "sigmoid({x})");
        }
    }

    #[test]
    fn exp_is_within_a_few_units_in_the_last_place() {
        for x in points().map(|x| -x.abs() * 7.0) {
            let want = f64::from(x).exp();
            assert!((f64::from(x.fast_exp()) - want).abs() <= 3e-7 * want, "exp({x}): {}", x.fast_exp());
        }
    }

    #[test]
    fn a_multiply_add_in_software_is_the_fused_one_to_the_bit() {
        let mut rng = Rng::keyed(1, "fused", 0);
        let mut any = || f32::from_bits((rng.uniform() * 2f64.powi(32)) as u32);
        let assert_equal = |[a, b, c]: [f32; 3]| {
            let found = a.fused_in_software(b, c);
            let wanted = a.mul_add(b, c);
            let same = found.to_bits() == wanted.to_bits() || found.is_nan() && wanted.is_nan();
            assert!(same, "{a:e} · {b:e} + {c:e}: {found:e}, wanted {wanted:e}");
        };
        (0..200_000).for_each(|_| assert_equal([any(), any(), any()]));
        // of like size, where the sum's last bits are lost or cancel, also among the smallest numbers
        for scale in [1.0f32, 2f32.powi(-70)] {
            let mut near = || scale * (1.0 + (any().to_bits() >> 9) as f32 / 2f32.powi(23));
            for _ in 0..100_000 {
                let [a, b] = [near(), near()];
                let c = [-a * b, near() * scale, f32::MIN_POSITIVE * scale, f32::from_bits(3)];
                c.into_iter().for_each(|c| assert_equal([a, b, c]));
            }
        }
        let special =
            [0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, f32::MAX, f32::MIN, f32::from_bits(1)];
        for a in special {
            special.iter().for_each(|&b| special.iter().for_each(|&c| assert_equal([a, b, c])));
        }
    }

    #[test]
    fn not_a_number_stays_not_a_number() {
        assert!(
            f32::NAN.fast_tanh::<true>().is_nan()
                && f32::NAN.fast_exp().is_nan()
                && sigmoid::<f32, true>(f32::NAN).is_nan()
        );
    }
}
