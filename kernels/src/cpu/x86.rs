//! Tiles for x86-64: AVX2 with FMA, AVX-512, and the bf16 dot product of AVX512-BF16.
//!
//! AVX2 has 16 registers: 6 rows × 2 vectors of sums, two of columns and one of a row. AVX-512 has 32: 12 rows.

use crate::cpu::tile::{Kernel, Operands, Sums, Tile, Transpose, TransposeRows, pair, round_to_bf16};
use std::arch::x86_64::*;
use std::mem::transmute;

/// f32 by AVX2 and FMA.
#[derive(Clone, Copy)]
pub(crate) struct Avx2;

/// bf16 operands by AVX2: widened in registers, products and sums in f32.
#[derive(Clone, Copy)]
pub(crate) struct Avx2Bf16;

/// f32 by AVX-512.
#[derive(Clone, Copy)]
pub(crate) struct Avx512;

/// bf16 operands by the dot product of AVX512-BF16, sums in f32.
#[derive(Clone, Copy)]
pub(crate) struct Avx512Bf16;

/// Tiles, from what one step does: `$load` a vector of columns, `$splat` a row's value, `$add` their product.
macro_rules! tiles {
    ($($features:literal fn $name:ident($row:ty, $column:ty) $lanes:literal $zero:ident $read:ident $store:ident $load:ident $splat:ident $add:ident)*) => {$(
        /// # Safety
        /// As [`crate::cpu::tile::Tile`] says.
        #[target_feature(enable = $features)]
        unsafe fn $name<const R: usize>(operands: Operands<$row, $column>, to: Sums<f32>) {
            const LINES: usize = 2 * $lanes * size_of::<$column>() / 64;
            let Operands { mut rows, mut panel, steps, mut ahead, advance } = operands;
            // SAFETY: what `Operands` and `Sums` say, which the caller promises; a prefetch may name any address.
            unsafe {
                let mut sums = [[$zero(); 2]; R];
                if to.add {
                    for r in 0..R {
                        let out = to.out.add(r * to.stride);
                        sums[r] = [$read(out), $read(out.add($lanes))];
                    }
                }
                for _ in 0..steps {
                    for line in 0..LINES {
                        _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(64 * line).cast());
                    }
                    let columns = [$load(panel), $load(panel.add($lanes))];
                    for r in 0..R {
                        let row = $splat(rows.add(r));
                        sums[r][0] = $add(sums[r][0], row, columns[0]);
                        sums[r][1] = $add(sums[r][1], row, columns[1]);
                    }
                    rows = rows.add(R);
                    panel = panel.add(2 * $lanes);
                    ahead = ahead.wrapping_add(advance);
                }
                for r in 0..R {
                    let out = to.out.add(r * to.stride);
                    $store(out, sums[r][0]);
                    $store(out.add($lanes), sums[r][1]);
                }
            }
        }
    )*};
}

/// Instructions under one name for every kernel.
macro_rules! arithmetic {
    ($($features:literal fn $name:ident($($arg:ident: $kind:ty),*) -> $out:ty $body:block)*) => {$(
        #[inline]
        #[target_feature(enable = $features)]
        fn $name($($arg: $kind),*) -> $out $body
    )*};
}

/// The same for those that go to memory: as safe as the pointer that they are given.
macro_rules! memory {
    ($($features:literal fn $name:ident($($arg:ident: $kind:ty),*) -> $out:ty $body:block)*) => {$(
        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn $name($($arg: $kind),*) -> $out {
            // SAFETY: the caller's pointer is valid for a vector, or for the one value that is read.
            unsafe { $body }
        }
    )*};
}

/// Eight columns of bf16 pairs, widened: the first of each pair, then the second.
type Wide = [__m256; 2];

arithmetic! {
    "avx2,fma" fn zero8() -> __m256 { _mm256_setzero_ps() }
    "avx2,fma" fn add8(sum: __m256, a: __m256, b: __m256) -> __m256 { _mm256_fmadd_ps(a, b, sum) }
    "avx2,fma" fn widen8(pairs: __m256i) -> Wide {
        let upper = _mm256_set1_epi32(0xffff_0000u32 as i32);
        [_mm256_castsi256_ps(_mm256_slli_epi32::<16>(pairs)), _mm256_castsi256_ps(_mm256_and_si256(pairs, upper))]
    }
    "avx2,fma" fn add_pairs8(sum: __m256, a: Wide, b: Wide) -> __m256 {
        _mm256_fmadd_ps(a[1], b[1], _mm256_fmadd_ps(a[0], b[0], sum))
    }
    "avx512f" fn zero16() -> __m512 { _mm512_setzero_ps() }
    "avx512f" fn add16(sum: __m512, a: __m512, b: __m512) -> __m512 { _mm512_fmadd_ps(a, b, sum) }
    "avx512f,avx512bf16" fn add_pairs16(sum: __m512, a: __m512i, b: __m512i) -> __m512 {
        // SAFETY: both types are 512 bits without meaning of their own.
        let [a, b] = unsafe { std::mem::transmute::<[__m512i; 2], [__m512bh; 2]>([a, b]) };
        _mm512_dpbf16_ps(sum, a, b)
    }
}

memory! {
    "avx2,fma" fn load8(from: *const f32) -> __m256 { _mm256_loadu_ps(from) }
    "avx2,fma" fn splat8(from: *const f32) -> __m256 { _mm256_broadcast_ss(&*from) }
    "avx2,fma" fn store8(to: *mut f32, sum: __m256) -> () { _mm256_storeu_ps(to, sum) }
    "avx2,fma" fn load_pairs8(from: *const u32) -> Wide { widen8(_mm256_loadu_si256(from.cast())) }
    "avx2,fma" fn splat_both8(from: *const [f32; 2]) -> Wide {
        [_mm256_broadcast_ss(&(*from)[0]), _mm256_broadcast_ss(&(*from)[1])]
    }
    "avx512f" fn load16(from: *const f32) -> __m512 { _mm512_loadu_ps(from) }
    "avx512f" fn splat16(from: *const f32) -> __m512 { _mm512_set1_ps(*from) }
    "avx512f" fn store16(to: *mut f32, sum: __m512) -> () { _mm512_storeu_ps(to, sum) }
    "avx512f" fn load_pairs16(from: *const u32) -> __m512i { _mm512_loadu_si512(from.cast()) }
    "avx512f" fn splat_pair16(from: *const u32) -> __m512i { _mm512_set1_epi32(*from.cast()) }
}

tiles! {
    "avx2,fma" fn tile_avx2(f32, f32) 8 zero8 load8 store8 load8 splat8 add8
    "avx2,fma" fn tile_avx2_bf16([f32; 2], u32) 8 zero8 load8 store8 load_pairs8 splat_both8 add_pairs8
    "avx512f" fn tile_avx512(f32, f32) 16 zero16 load16 store16 load16 splat16 add16
    "avx512f,avx512bf16" fn tile_avx512_bf16(u32, u32) 16 zero16 load16 store16 load_pairs16 splat_pair16 add_pairs16
}

macro_rules! kernel {
    ($kernel:ty, $features:literal, $lanes:literal, $depth:literal, $tile:ident: $($count:literal)*, $row:ty: $to_row:expr, $column:ty: $to_column:expr, $transpose:expr, $transpose_rows:expr, $as_columns:expr) => {
        impl Kernel for $kernel {
            type Element = f32;
            type Row = $row;
            type Column = $column;
            const LANES: usize = $lanes;
            const DEPTH: usize = $depth;
            const FUSED: bool = true;
            const TILES: &'static [Tile<Self>] = &[$($tile::<$count>),*];
            const TRANSPOSE: Option<Transpose<Self>> = $transpose;
            const TRANSPOSE_ROWS: Option<TransposeRows<Self>> = $transpose_rows;

            fn vectorized<R>(work: impl FnOnce() -> R) -> R {
                #[target_feature(enable = $features)]
                fn run<R>(work: impl FnOnce() -> R) -> R {
                    work()
                }
                // SAFETY: `with_kernel` chose a kernel whose features the processor has.
                unsafe { run(work) }
            }

            fn as_columns(values: &[f32]) -> Option<&[$column]> {
                $as_columns(values)
            }

            #[inline(always)]
            fn row(values: [f32; 2]) -> $row {
                $to_row(values)
            }

            #[inline(always)]
            fn column(values: [f32; 2]) -> $column {
                $to_column(values)
            }
        }
    };
}

kernel!(Avx2, "avx2,fma", 8, 1, tile_avx2: 1 2 3 4 5 6, f32: first, f32: first, Some(transpose8), Some(transpose8), Some);
kernel!(Avx2Bf16, "avx2,fma", 8, 2, tile_avx2_bf16: 1 2 3 4 5, [f32; 2]: rounded, u32: pair, None, None, |_| None);
kernel!(Avx512, "avx2,fma,avx512f", 16, 1, tile_avx512: 1 2 3 4 5 6 7 8 9 10 11 12, f32: first, f32: first, Some(transpose8), Some(transpose8), Some);
kernel!(Avx512Bf16, "avx2,fma,avx512f", 16, 2, tile_avx512_bf16: 1 2 3 4 5 6 7 8 9 10 11 12, u32: pair, u32: pair, Some(transpose8_pairs), Some(transpose8_pairs), |_| None);

/// # Safety
/// As [`Transpose`] says; the lines are written in their order.
#[target_feature(enable = "avx2,fma")]
unsafe fn transpose8(from: *const f32, stride: usize, to: *mut f32, line: usize) {
    for half in 0..2 {
        // SAFETY: four values from each of the 8 columns, which the caller promises.
        let both = |column: usize| unsafe {
            let lower = _mm_loadu_ps(from.add(column * stride + 4 * half));
            let upper = _mm_loadu_ps(from.add((column + 4) * stride + 4 * half));
            _mm256_set_m128(upper, lower)
        };
        let [a, b, c, d] = [both(0), both(1), both(2), both(3)];
        let [ab, ab_next] = [_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b)];
        let [cd, cd_next] = [_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d)];
        let lines = [
            _mm256_shuffle_ps::<0x44>(ab, cd),
            _mm256_shuffle_ps::<0xee>(ab, cd),
            _mm256_shuffle_ps::<0x44>(ab_next, cd_next),
            _mm256_shuffle_ps::<0xee>(ab_next, cd_next),
        ];
        for (k, values) in lines.into_iter().enumerate() {
            // SAFETY: a line of 8 values, which the caller promises.
            unsafe { _mm256_storeu_ps(to.add((4 * half + k) * line), values) };
        }
    }
}

/// The values become pairs of bf16 on the way. What is too small to be a normal number becomes zero, as in the tile's own
/// instruction.
///
/// # Safety
/// As [`Transpose`] says; the lines are written in their order.
#[target_feature(enable = "avx2,fma,avx512f,avx512bf16")]
unsafe fn transpose8_pairs(from: *const f32, stride: usize, to: *mut u32, line: usize) {
    // SAFETY: 16 values, which the caller promises.
    let values = |column: usize| unsafe { _mm512_loadu_ps(from.add(column * stride)) };
    // SAFETY: both have 256 bits.
    let pairs = |column: usize| unsafe { transmute::<__m256bh, __m256>(_mm512_cvtneps_pbh(values(column))) };
    // Of four columns: steps 0 and 4, 1 and 5, 2 and 6, 3 and 7, side by side.
    let quarters = |first: usize| {
        let [a, b, c, d] = [pairs(first), pairs(first + 1), pairs(first + 2), pairs(first + 3)];
        let [ab, ab_next] = [_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b)];
        let [cd, cd_next] = [_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d)];
        [
            _mm256_shuffle_ps::<0x44>(ab, cd),
            _mm256_shuffle_ps::<0xee>(ab, cd),
            _mm256_shuffle_ps::<0x44>(ab_next, cd_next),
            _mm256_shuffle_ps::<0xee>(ab_next, cd_next),
        ]
    };
    let lower = quarters(0);
    let upper = quarters(4);
    // SAFETY: a line of 8 steps, which the caller promises.
    let store = |step: usize, values: __m256| unsafe { _mm256_storeu_ps(to.add(step * line).cast(), values) };
    for step in 0..4 {
        store(step, _mm256_permute2f128_ps::<0x20>(lower[step], upper[step]));
    }
    for step in 0..4 {
        store(4 + step, _mm256_permute2f128_ps::<0x31>(lower[step], upper[step]));
    }
}

#[inline(always)]
fn first(values: [f32; 2]) -> f32 {
    values[0]
}

#[inline(always)]
fn rounded(values: [f32; 2]) -> [f32; 2] {
    values.map(|x| f32::from_bits(round_to_bf16(x)))
}
