//! The products of the stack, with eight rows in a vector.
//!
//! A layer is narrow and its rows are few, so rows lie in the lanes: a value of the weights is multiplied with eight
//! rows' values of a unit at once, neither is packed, and what a tile leaves is already what the next layer reads.

use crate::cpu::chunk::{CHUNK, Chunk};
use crate::cpu::real::Real;

/// Units of a tile at most, and vectors beside one another: as many sums as there are registers for.
pub(super) const UNITS: usize = 6;
pub(super) const VECTORS: usize = 2;

/// Sums of a tile: `V` vectors of each of `U` units.
pub(super) type Sums<T, const V: usize, const U: usize> = [[Chunk<T>; V]; U];

/// Where a product's scalars lie: from the first on, `step` apart along the sum and `unit` from one result to the next.
#[derive(Clone, Copy)]
pub(super) struct Scalars<'a, T> {
    pub(super) data: &'a [T],
    pub(super) step: usize,
    pub(super) unit: usize,
}

/// Adds to `sums[u][v]` the products of scalar `(k, u)` with the chunk of `vectors[v]` at `k · stride`, for each `k` below
/// `inner`.
#[inline(always)]
pub(super) fn multiply<T: Real, const FUSED: bool, const V: usize, const U: usize>(
    sums: &mut Sums<T, V, U>,
    scalars: Scalars<'_, T>,
    vectors: [&[T]; V],
    stride: usize,
    inner: usize,
) {
    if inner == 0 {
        return;
    }
    assert!(scalars.data.len() > (inner - 1) * scalars.step + (U - 1) * scalars.unit, "scalars of a tile");
    assert!(vectors.iter().all(|vector| vector.len() >= (inner - 1) * stride + CHUNK), "vectors of a tile");
    for k in 0..inner {
        let mut chunks = [[T::zero(); CHUNK]; V];
        for (chunk, vector) in chunks.iter_mut().zip(vectors) {
            // SAFETY: the vector is as long as was just checked.
            *chunk = unsafe { vector.as_ptr().add(k * stride).cast::<Chunk<T>>().read_unaligned() };
        }
        for (u, sums) in sums.iter_mut().enumerate() {
            // SAFETY: there are as many scalars as was just checked.
            let scalar = unsafe { *scalars.data.get_unchecked(k * scalars.step + u * scalars.unit) };
            for (sums, chunk) in sums.iter_mut().zip(&chunks) {
                for (sum, &value) in sums.iter_mut().zip(chunk) {
                    *sum = if FUSED { scalar.mul_add(value, *sum) } else { scalar * value + *sum };
                }
            }
        }
    }
}

/// Calls `$work::<…, V, U>` for as many units `U` as are left, at most [`UNITS`].
macro_rules! by_units {
    ($count:expr, $call:ident::<$t:ty, $fused:ident, $v:literal>($($argument:expr),* $(,)?)) => {
        match $count {
            1 => $call::<$t, $fused, $v, 1>($($argument),*),
            2 => $call::<$t, $fused, $v, 2>($($argument),*),
            3 => $call::<$t, $fused, $v, 3>($($argument),*),
            4 => $call::<$t, $fused, $v, 4>($($argument),*),
            5 => $call::<$t, $fused, $v, 5>($($argument),*),
            _ => $call::<$t, $fused, $v, 6>($($argument),*),
        }
    };
}
pub(super) use by_units;
