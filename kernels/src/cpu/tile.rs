//! What an instruction set offers to the products: a tile of a few rows by two vectors of columns, in registers.
//!
//! Weights are packed once into *panels*, two vectors of columns wide: for each step along the inner dimension the
//! panel's columns side by side. In full precision a step is one value; in bf16 it is two, packed in 32 bits, which
//! is what the processors' dot-product instruction takes.

use crate::cpu::real::Real;
use std::ops::Range;

/// The longest tile of any kernel.
pub(crate) const MOST_ROWS: usize = 12;

/// The widest tile of any kernel: two vectors of 16.
pub(crate) const MOST_COLUMNS: usize = 32;

/// `out[r][c] (+)= Σ_k a[r][k] · panel[k][c]` for `R` rows and two vectors of columns.
///
/// # Safety
/// The processor has the kernel's instructions, and the pointers are valid for what [`Operands`] and [`Sums`] say.
pub(crate) type Tile<K> =
    unsafe fn(Operands<<K as Kernel>::Row, <K as Kernel>::Column>, Sums<<K as Kernel>::Element>);

/// `to[k · line + c]` is step k of column c, whose values lie from `from[c · stride]` on, for 8 steps of 8 columns.
///
/// # Safety
/// The processor has the kernel's instructions; the values of 8 steps can be read and 8 steps written at each of the 8
/// positions.
pub(crate) type Transpose<K> = unsafe fn(
    from: *const <K as Kernel>::Element,
    stride: usize,
    to: *mut <K as Kernel>::Column,
    line: usize,
);

/// As [`Transpose`], of rows that lie along the inner dimension.
pub(crate) type TransposeRows<K> =
    unsafe fn(from: *const <K as Kernel>::Element, stride: usize, to: *mut <K as Kernel>::Row, line: usize);

/// What a tile multiplies.
#[derive(Clone, Copy)]
pub(crate) struct Operands<A, B> {
    /// `steps` times R operands: the rows side by side.
    pub(crate) rows: *const A,
    /// `steps` lines of two vectors of columns.
    pub(crate) panel: *const B,
    pub(crate) steps: usize,
    /// Memory to prefetch meanwhile: a cache line at each step, `advance` bytes on from step to step.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "only x86-64 prefetches"))]
    pub(crate) ahead: *const u8,
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "only x86-64 prefetches"))]
    pub(crate) advance: usize,
}

/// Where a tile's sums go.
#[derive(Clone, Copy)]
pub(crate) struct Sums<T> {
    /// R rows of two vectors, `stride` apart.
    pub(crate) out: *mut T,
    pub(crate) stride: usize,
    /// Whether to add to what is there.
    pub(crate) add: bool,
}

/// A step of a row along the inner dimension, as it is multiplied.
pub(crate) trait Step<T> {
    /// Its first value.
    fn first(self) -> T;
}

impl<T: Real> Step<T> for T {
    #[inline(always)]
    fn first(self) -> T {
        self
    }
}

impl Step<f32> for [f32; 2] {
    fn first(self) -> f32 {
        self[0]
    }
}

impl Step<f32> for u32 {
    fn first(self) -> f32 {
        unpair(self)[0]
    }
}

/// Products of one precision on one instruction set.
pub(crate) trait Kernel: Copy + Send + Sync + 'static {
    /// What is stored and summed.
    type Element: Real;
    /// A step of a row along the inner dimension, as it is multiplied.
    type Row: Step<Self::Element> + Copy + Default + Send + Sync + 'static;
    /// The same of a panel's column.
    type Column: Copy + Default + Send + Sync + 'static;
    /// Columns of a vector; a tile and a panel have two.
    const LANES: usize;
    /// Values along the inner dimension in a step.
    const DEPTH: usize;
    /// Whether a fused multiply-add is an instruction.
    const FUSED: bool;

    /// Tiles of 1, 2, … rows.
    const TILES: &'static [Tile<Self>];

    /// Packs a block of columns that lie along the inner dimension, where there are instructions for it.
    const TRANSPOSE: Option<Transpose<Self>> = None;

    /// The same of rows; the lines are written one after the other, and may overlap.
    const TRANSPOSE_ROWS: Option<TransposeRows<Self>> = None;

    /// Runs `work` compiled for the instruction set; it and what it calls must be `#[inline(always)]`.
    fn vectorized<R>(work: impl FnOnce() -> R) -> R;

    /// One step of a row; the second value counts where `DEPTH` is 2, and is zero past the inner dimension's end.
    fn row(values: [Self::Element; 2]) -> Self::Row;

    /// One step of a column.
    fn column(values: [Self::Element; 2]) -> Self::Column;

    /// Values as the steps of columns that they are, where a step is one value as it is.
    fn as_columns(_values: &[Self::Element]) -> Option<&[Self::Column]> {
        None
    }

    /// `a · b + c` as the tiles have it: with one rounding where the kernel fuses.
    #[inline(always)]
    fn multiply_add(a: Self::Element, b: Self::Element, c: Self::Element) -> Self::Element {
        if Self::FUSED { num_traits::Float::mul_add(a, b, c) } else { a * b + c }
    }

    /// Steps that cover `inner` values.
    fn steps(inner: usize) -> usize {
        inner.div_ceil(Self::DEPTH)
    }

    /// Columns of a panel.
    fn columns() -> usize {
        2 * Self::LANES
    }
}

/// Rows cut into the fewest tiles, alike in size. Their operands are laid out tile by tile, `steps` times the tile's
/// rows side by side, so that a tile starts at its first row times `steps`.
#[derive(Clone, Copy)]
pub(crate) struct Tiling {
    pub(crate) rows: usize,
    /// How many tiles there are.
    pub(crate) count: usize,
}

impl Tiling {
    pub(crate) fn new<K: Kernel>(rows: usize) -> Self {
        Self { rows, count: rows.div_ceil(K::TILES.len()) }
    }

    /// The rows of a tile.
    #[inline(always)]
    pub(crate) fn tile(&self, index: usize) -> Range<usize> {
        self.rows * index / self.count..self.rows * (index + 1) / self.count
    }
}

/// The fewest parts of at most `most` that `whole` is cut into, alike to one.
pub(crate) fn even_parts(whole: usize, most: usize) -> impl Iterator<Item = Range<usize>> {
    let count = whole.div_ceil(most);
    (0..count).map(move |index| whole * index / count..whole * (index + 1) / count)
}

/// The size of parts, alike and at most `most`, that `whole` is cut into.
pub(crate) fn even_part(whole: usize, most: usize) -> usize {
    whole.div_ceil(whole.div_ceil(most))
}

/// Nearest bfloat16, ties to even, in the upper half of the bits; not-a-number stays so.
#[inline(always)]
pub(crate) fn round_to_bf16(x: f32) -> u32 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1));
    let quiet = bits | 0x0040_0000;
    (if x.is_nan() { quiet } else { rounded }) & 0xffff_0000
}

/// Two numbers as bfloat16, the first in the lower half.
#[inline(always)]
pub(crate) fn pair(values: [f32; 2]) -> u32 {
    (round_to_bf16(values[0]) >> 16) | round_to_bf16(values[1])
}

/// The numbers of a pair.
#[inline(always)]
pub(crate) fn unpair(pair: u32) -> [f32; 2] {
    [f32::from_bits(pair << 16), f32::from_bits(pair & 0xffff_0000)]
}

#[cfg(test)]
mod tests {
    use super::{Tiling, pair, unpair};
    use crate::cpu::portable::Portable;

    #[test]
    fn tiles_cover_the_rows_in_order() {
        for rows in 1..40 {
            let tiling = Tiling::new::<Portable<f32>>(rows);
            let tiles: Vec<_> = (0..tiling.count).map(|index| tiling.tile(index)).collect();
            assert_eq!(tiles.iter().cloned().flatten().collect::<Vec<_>>(), (0..rows).collect::<Vec<_>>());
            assert!(tiles.iter().all(|tile| tile.len() <= 4));
        }
    }

    #[test]
    fn bf16_keeps_eight_bits_and_rounds_ties_to_even() {
        let eighth_bit = 1.0 / 128.0;
        assert_eq!(unpair(pair([1.0, -3.0])), [1.0, -3.0]);
        assert_eq!(unpair(pair([1.0 + eighth_bit, 1.0 + 0.5 * eighth_bit])), [1.0 + eighth_bit, 1.0]);
        assert_eq!(
            unpair(pair([1.0 + 1.5 * eighth_bit, 1.0 + 0.51 * eighth_bit])),
            [1.0 + 2.0 * eighth_bit, 1.0 + eighth_bit]
        );
    }

    #[test]
    fn what_is_not_finite_stays_so() {
        let [infinite, not_a_number] = unpair(pair([f32::NEG_INFINITY, f32::from_bits(0x7f80_0001)]));
        assert!(infinite == f32::NEG_INFINITY && not_a_number.is_nan());
        assert_eq!(unpair(pair([f32::MAX, 0.0]))[0], f32::INFINITY); // nearest in bf16
    }
}
