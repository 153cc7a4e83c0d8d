//! Tiles in plain Rust, for every processor (with NEON where it has it) and for double precision; on request with fused
//! multiply-adds also where the processor has none.

use crate::cpu::real::Real;
use crate::cpu::tile::{Kernel, Operands, Sums, Tile, pair, unpair};

/// Lanes of a vector; the compiler makes of them what registers there are.
const LANES: usize = 8;

/// Whether every processor of this build fuses multiply-adds.
const FUSED: bool = cfg!(any(target_arch = "aarch64", target_feature = "fma"));

/// f32 or f64 as it is; `ALWAYS_FUSED` multiply-adds have one rounding on every processor.
#[derive(Clone, Copy)]
pub(crate) struct Portable<T, const ALWAYS_FUSED: bool = false>(std::marker::PhantomData<T>);

/// bf16 operands, products and sums in f32.
#[derive(Clone, Copy)]
pub(crate) struct PortableBf16;

#[inline(always)]
fn multiply_add<T: Real, const ALWAYS_FUSED: bool>(a: T, b: T, c: T) -> T {
    match (FUSED, ALWAYS_FUSED) {
        (true, _) => a.mul_add(b, c),
        (false, true) => a.fused_in_software(b, c),
        (false, false) => a * b + c,
    }
}

/// # Safety
/// As [`crate::cpu::tile::Tile`] says.
unsafe fn tile<T: Real, const R: usize, const ALWAYS_FUSED: bool>(operands: Operands<T, T>, to: Sums<T>) {
    let Operands { rows, panel, steps, .. } = operands;
    // SAFETY: what `Operands` and `Sums` say, which the caller promises.
    unsafe {
        let mut sums = first_sums::<T, R>(to);
        for k in 0..steps {
            let columns = &*panel.add(k * 2 * LANES).cast::<[T; 2 * LANES]>();
            for (r, sums) in sums.iter_mut().enumerate() {
                let a = *rows.add(k * R + r);
                for (sum, &column) in sums.iter_mut().zip(columns) {
                    *sum = multiply_add::<T, ALWAYS_FUSED>(a, column, *sum);
                }
            }
        }
        store(to, sums);
    }
}

/// # Safety
/// As [`crate::cpu::tile::Tile`] says.
unsafe fn tile_bf16<const R: usize>(operands: Operands<u32, u32>, to: Sums<f32>) {
    let Operands { rows, panel, steps, .. } = operands;
    // SAFETY: what `Operands` and `Sums` say, which the caller promises.
    unsafe {
        let mut sums = first_sums::<f32, R>(to);
        for k in 0..steps {
            let columns = &*panel.add(k * 2 * LANES).cast::<[u32; 2 * LANES]>();
            for (r, sums) in sums.iter_mut().enumerate() {
                let [a0, a1] = unpair(*rows.add(k * R + r));
                for (sum, &column) in sums.iter_mut().zip(columns) {
                    let [b0, b1] = unpair(column);
                    let first = multiply_add::<f32, false>(a0, b0, *sum);
                    *sum = multiply_add::<f32, false>(a1, b1, first);
                }
            }
        }
        store(to, sums);
    }
}

/// # Safety
/// `to` has R rows.
#[inline(always)]
unsafe fn first_sums<T: Real, const R: usize>(to: Sums<T>) -> [[T; 2 * LANES]; R] {
    let mut sums = [[T::zero(); 2 * LANES]; R];
    if to.add {
        for (r, sums) in sums.iter_mut().enumerate() {
            // SAFETY: row r of `to`.
            *sums = unsafe { to.out.add(r * to.stride).cast::<[T; 2 * LANES]>().read_unaligned() };
        }
    }
    sums
}

/// # Safety
/// `to` has R rows.
#[inline(always)]
unsafe fn store<T: Real, const R: usize>(to: Sums<T>, sums: [[T; 2 * LANES]; R]) {
    for (r, sums) in sums.into_iter().enumerate() {
        // SAFETY: row r of `to`.
        unsafe { to.out.add(r * to.stride).cast::<[T; 2 * LANES]>().write_unaligned(sums) };
    }
}

impl<T: Real, const ALWAYS_FUSED: bool> Kernel for Portable<T, ALWAYS_FUSED> {
    type Element = T;
    type Row = T;
    type Column = T;
    const LANES: usize = LANES;
    const DEPTH: usize = 1;
    const FUSED: bool = FUSED || ALWAYS_FUSED;
    const TILES: &'static [Tile<Self>] = &[
        tile::<T, 1, ALWAYS_FUSED>,
        tile::<T, 2, ALWAYS_FUSED>,
        tile::<T, 3, ALWAYS_FUSED>,
        tile::<T, 4, ALWAYS_FUSED>,
    ];

    fn vectorized<R>(work: impl FnOnce() -> R) -> R {
        work()
    }

    #[inline(always)]
    fn multiply_add(a: T, b: T, c: T) -> T {
        multiply_add::<T, ALWAYS_FUSED>(a, b, c)
    }

    fn as_columns(values: &[T]) -> Option<&[T]> {
        Some(values)
    }

    #[inline(always)]
    fn row(values: [T; 2]) -> T {
        values[0]
    }

    #[inline(always)]
    fn column(values: [T; 2]) -> T {
        values[0]
    }
}

impl Kernel for PortableBf16 {
    type Element = f32;
    type Row = u32;
    type Column = u32;
    const LANES: usize = LANES;
    const DEPTH: usize = 2;
    const FUSED: bool = FUSED;
    const TILES: &'static [Tile<Self>] = &[tile_bf16::<1>, tile_bf16::<2>, tile_bf16::<3>, tile_bf16::<4>];

    fn vectorized<R>(work: impl FnOnce() -> R) -> R {
        work()
    }

    #[inline(always)]
    fn row(values: [f32; 2]) -> u32 {
        pair(values)
    }

    #[inline(always)]
    fn column(values: [f32; 2]) -> u32 {
        pair(values)
    }
}
