//! Large matrix products by all threads: both operands packed a block at a time, tiles in registers.

use crate::cpu::instruction_set::{Computed, WithKernel};
use crate::cpu::panels::{View, pack_half, pack_strip, pack_tile};
use crate::cpu::pool::{self, Worker};
use crate::cpu::real::Real;
use crate::cpu::shared::Shared;
use crate::cpu::thin::Thin;
use crate::cpu::tile::{Kernel, MOST_COLUMNS, MOST_ROWS, Operands, Sums, Tiling, even_part};
use crate::cpu::workspace;
use std::ops::Range;

/// Values along the inner dimension that a block holds at most: its panels fit the nearest cache.
const INNER: usize = 320;

/// Columns of the result that a block holds at most: its panels fit a shared cache.
const COLUMNS: usize = 4096;

/// Rows of the result that stay in a core's own cache while the panels pass.
const ROWS: usize = 144;

/// Panels that a worker packs together for itself: what lies side by side in a row of the operand is read at once.
const STRIP: usize = 8;

/// A result: `rows × columns` values, `stride` apart by row.
pub(crate) struct Target<'a, T> {
    data: Shared<'a, T>,
    rows: usize,
    columns: usize,
    stride: usize,
}

impl<'a, T: Real> Target<'a, T> {
    /// `data` holds the result row by row.
    pub(crate) fn new(data: &'a mut [T], rows: usize, columns: usize) -> Self {
        assert_eq!(data.len(), rows * columns, "a {rows} × {columns} result");
        Self { data: Shared::new(data), rows, columns, stride: columns }
    }
}

/// `c = a b`, or `c += a b` if `accumulate`; operands are rounded to bf16 if `bf16` says so.
///
/// The order of every sum depends on the sizes alone, so any number of threads gives the same bits.
pub(crate) fn product<T: Computed>(
    c: Target<'_, T>,
    a: View<'_, T>,
    b: View<'_, T>,
    accumulate: bool,
    bf16: bool,
) {
    assert_eq!(a.columns, b.rows, "inner sizes");
    assert_eq!((c.rows, c.columns), (a.rows, b.columns), "the result's size");
    T::with_kernel(bf16, Product { c, a, b, accumulate });
}

struct Product<'a, T> {
    c: Target<'a, T>,
    a: View<'a, T>,
    b: View<'a, T>,
    accumulate: bool,
}

impl<T: Real> WithKernel<T> for Product<'_, T> {
    type Output = ();

    fn run<K: Kernel<Element = T>>(self) {
        if self.c.rows == 0 || self.c.columns == 0 || self.a.columns == 0 {
            if !self.accumulate {
                // SAFETY: no other thread runs.
                unsafe { self.c.data.part(0, self.c.rows * self.c.columns) }.fill(T::zero());
            }
            return;
        }
        if let Some(thin) = Thin::of::<K>(self.a, self.b) {
            let Self { c, a, b, accumulate } = self;
            return pool::run(|worker| thin.multiply::<K>(&c.data, a, b, accumulate, worker));
        }
        let inner = even_part(self.a.columns, INNER).next_multiple_of(K::DEPTH);
        let columns = even_part(self.c.columns, COLUMNS).next_multiple_of(K::columns());
        let mut panels = workspace::take::<K::Column>(K::steps(inner) * columns);
        let mut rows = workspace::take::<K::Row>(K::steps(inner) * self.c.rows);
        let panels = Shared::new(&mut panels);
        let rows = Shared::new(&mut rows);
        let blocks = Blocks::<K> { inner, columns, panels, rows };
        pool::run(|worker| blocks.each(&self, worker));
    }
}

/// How a product is cut, and where the packed parts are.
struct Blocks<'a, K: Kernel> {
    inner: usize,
    columns: usize,
    panels: Shared<'a, K::Column>,
    rows: Shared<'a, K::Row>,
}

impl<K: Kernel> Blocks<'_, K> {
    fn each(&self, product: &Product<'_, K::Element>, worker: Worker<'_>) {
        let Product { c, a, b, accumulate } = product;
        let few_rows = Tiling::new::<K>(c.rows).count <= tiles_near::<K>();
        let alone = few_rows && self.columns / K::columns() >= STRIP * worker.count;
        for first in (0..a.columns).step_by(self.inner) {
            let inner = self.inner.min(a.columns - first);
            let steps = K::steps(inner);
            let add = *accumulate || first > 0;
            let b = b.rows(first, inner);
            pack_tiles::<K>(&self.rows, a.columns(first, inner), worker);
            if alone {
                worker.barrier();
                Part { c, column: 0, width: c.columns, steps, add }.pack_and_multiply(self, b, worker);
                worker.barrier();
                continue;
            }
            for column in (0..c.columns).step_by(self.columns) {
                let width = self.columns.min(c.columns - column);
                let b = b.columns(column, width);
                pack_panels::<K>(&self.panels, 0, b, worker.share(width.div_ceil(K::columns())));
                worker.barrier();
                Part { c, column, width, steps, add }.multiply(self, worker);
                worker.barrier();
            }
        }
    }
}

/// How many tiles' rows stay in a core's own cache.
fn tiles_near<K: Kernel>() -> usize {
    (ROWS / K::TILES.len()).max(1)
}

/// `c = a b` of row-major `a` (m × k) and `b` (k × n), by the kernels that the models use; `sizes` are m, n, k.
/// Panics if a slice is not as long as its sizes say.
pub fn multiply(c: &mut [f32], a: &[f32], b: &[f32], sizes: [usize; 3], bf16: bool) {
    let [m, n, k] = sizes;
    product(Target::new(c, m, n), View::new(a, m, k), View::new(b, k, n), false, bf16);
}

/// The rows of `a`, tile by tile.
fn pack_tiles<K: Kernel>(packed: &Shared<'_, K::Row>, a: View<'_, K::Element>, worker: Worker<'_>) {
    let steps = K::steps(a.columns);
    let tiling = Tiling::new::<K>(a.rows);
    for tile in worker.share(tiling.count).map(|index| tiling.tile(index)) {
        // SAFETY: workers' shares are disjoint, and the rows are read only after a barrier.
        let packed = unsafe { packed.part(tile.start * steps, tile.len() * steps) };
        pack_tile::<K>(packed, a.rows(tile.start, tile.len()));
    }
}

/// Packs some panels of `b` behind the first `start` panels of the buffer, some steps of all of them at a time.
fn pack_panels<K: Kernel>(
    panels: &Shared<'_, K::Column>,
    start: usize,
    b: View<'_, K::Element>,
    chosen: Range<usize>,
) {
    const STEPS: usize = 64;
    let width = K::columns();
    let len = K::steps(b.rows) * width;
    for (block, first) in (0..b.rows).step_by(STEPS * K::DEPTH).enumerate() {
        let b = b.rows(first, (STEPS * K::DEPTH).min(b.rows - first));
        let whole = if b.column_stride == 1 && b.rows % K::DEPTH == 0 {
            chosen.start..chosen.end.min(b.columns / width).max(chosen.start)
        } else {
            chosen.start..chosen.start
        };
        for strip in whole.clone().step_by(STRIP) {
            let count = STRIP.min(whole.end - strip);
            let at = (start + strip) * len + block * STEPS * width;
            let steps = K::steps(b.rows);
            // SAFETY: no two workers pack the same panels, and those of another are read only after a barrier.
            let packed = unsafe { panels.part(at, (count - 1) * len + steps * width) };
            K::vectorized(
                #[inline(always)]
                || pack_strip::<K>(packed, len, b.columns(strip * width, count * width), steps),
            );
        }
        for panel in whole.end..chosen.end {
            let at = (start + panel) * len + block * STEPS * width;
            // SAFETY: no two workers pack the same panels, and those of another are read only after a barrier.
            let packed = unsafe { panels.part(at, K::steps(b.rows) * width) };
            for half in 0..2 {
                let start = (panel * width + half * K::LANES).min(b.columns);
                let columns = b.columns(start, K::LANES.min(b.columns - start));
                pack_half::<K>(&mut packed[half * K::LANES..], columns);
            }
        }
    }
}

/// The product of one block: columns `column .. column + width` of the result.
struct Part<'a, T> {
    c: &'a Target<'a, T>,
    column: usize,
    width: usize,
    steps: usize,
    add: bool,
}

impl<T: Real> Part<'_, T> {
    /// The worker's share, by columns where there are enough of them, else by rows.
    fn multiply<K: Kernel<Element = T>>(&self, blocks: &Blocks<'_, K>, worker: Worker<'_>) {
        let panels = self.width.div_ceil(K::columns());
        let tiling = Tiling::new::<K>(self.c.rows);
        let (panels, tiles) = if panels >= 8 * worker.count {
            (worker.share(panels), 0..tiling.count)
        } else {
            (0..panels, worker.share(tiling.count))
        };
        let near = tiles_near::<K>();
        for start in tiles.clone().step_by(near) {
            for panel in panels.clone() {
                let end = tiles.end.min(start + near);
                self.panel(blocks, panel, panel, (start..end).map(|index| tiling.tile(index)));
            }
        }
    }

    /// The worker's share by columns, of few rows: each panel is used while it is still in the cache in which it was
    /// packed, and no other worker needs it.
    fn pack_and_multiply<K: Kernel<Element = T>>(
        &self,
        blocks: &Blocks<'_, K>,
        b: View<'_, T>,
        worker: Worker<'_>,
    ) {
        let tiling = Tiling::new::<K>(self.c.rows);
        let own = worker.share(self.width.div_ceil(K::columns()));
        for start in own.clone().step_by(STRIP) {
            let strip = start..own.end.min(start + STRIP);
            let columns = b.columns(start * K::columns(), b.columns - start * K::columns());
            let buffer = worker.index * STRIP;
            pack_panels::<K>(&blocks.panels, buffer, columns, 0..strip.len());
            for (at, panel) in strip.enumerate() {
                self.panel(blocks, panel, buffer + at, (0..tiling.count).map(|index| tiling.tile(index)));
            }
        }
    }

    /// One panel's columns of some tiles; it is packed as panel `packed` of the buffer.
    fn panel<K: Kernel<Element = T>>(
        &self,
        blocks: &Blocks<'_, K>,
        panel: usize,
        packed: usize,
        tiles: impl Iterator<Item = Range<usize>>,
    ) {
        let steps = self.steps;
        let column = self.column + panel * K::columns();
        let width = K::columns().min(self.column + self.width - column);
        // SAFETY: packed before the barrier or by this worker, and not written meanwhile.
        let columns = unsafe { blocks.panels.read(packed * steps * K::columns(), steps * K::columns()) };
        let mut tiles = tiles.peekable();
        while let Some(tile) = tiles.next() {
            // The next tile's part of the result is fetched while this one is summed up.
            for row in tiles.peek().cloned().unwrap_or(0..0) {
                self.c.data.fetch_for_writing(row * self.c.stride + column, width);
            }
            // SAFETY: as above.
            let rows = unsafe { blocks.rows.read(tile.start * steps, tile.len() * steps) };
            let operands = Operands {
                rows: rows.as_ptr(),
                panel: columns.as_ptr(),
                steps,
                ahead: columns.as_ptr().cast(),
                advance: 0,
            };
            self.tile::<K>(operands, tile, column, width);
        }
    }

    /// Some rows of one panel: straight into the result if the panel is full, else by a copy of the tile.
    fn tile<K: Kernel<Element = T>>(
        &self,
        operands: Operands<K::Row, K::Column>,
        rows: Range<usize>,
        column: usize,
        width: usize,
    ) {
        let row = rows.start;
        let rows = rows.len();
        let tile = K::TILES[rows - 1];
        let target = |r: usize| {
            // SAFETY: this worker's share of the result.
            unsafe { self.c.data.part((row + r) * self.c.stride + column, width) }
        };
        if width == K::columns() {
            let whole = (0..rows).map(|r| target(r).as_mut_ptr()).next().expect("a tile has a row");
            // SAFETY: `with_kernel` chose a kernel that the processor has; every row was checked to be in the result.
            unsafe { tile(operands, Sums { out: whole, stride: self.c.stride, add: self.add }) };
            return;
        }
        // The copy begins with what is added to, so that a sum has the same order in a full panel and in the last one,
        // which are not the same columns on every instruction set.
        let mut out = [T::zero(); MOST_ROWS * MOST_COLUMNS];
        for (r, sums) in out.chunks_mut(K::columns()).take(rows).enumerate().filter(|_| self.add) {
            sums[..width].copy_from_slice(target(r));
        }
        // SAFETY: as above, and `out` holds the largest tile.
        unsafe { tile(operands, Sums { out: out.as_mut_ptr(), stride: K::columns(), add: self.add }) };
        for (r, sums) in out.chunks(K::columns()).take(rows).enumerate() {
            target(r).copy_from_slice(&sums[..width]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Target, product};
    use crate::cpu::instruction_set::{Computed, InstructionSet};
    use crate::cpu::panels::View;
    use crate::cpu::pool::with_threads;
    use crate::rng::Rng;
    use candle_core::WithDType;

    fn random(len: usize, purpose: &str) -> Vec<f64> {
        let mut rng = Rng::keyed(3, purpose, len as u64);
        (0..len).map(|_| 2.0 * rng.uniform() - 1.0).collect()
    }

    /// Row-major data of a matrix, or of its transpose.
    fn view<T: Copy>(data: &[T], rows: usize, columns: usize, transposed: bool) -> View<'_, T> {
        if transposed { View::new(data, columns, rows).t() } else { View::new(data, rows, columns) }
    }

    fn cast<T: Computed>(values: &[f64]) -> Vec<T> {
        values.iter().map(|&x| T::from_f64(x)).collect()
    }

    /// Largest error of the product and of what it is added to, over transposes, in parts of the sums' size.
    fn error<T: Computed>(m: usize, n: usize, k: usize, bf16: bool) -> f64 {
        let a = random(m * k, "a");
        let b = random(k * n, "b");
        let c = random(m * n, "c");
        let mut worst = 0f64;
        for (transposed, accumulate) in [(0, false), (1, true), (2, false), (3, true)] {
            let a_t = transposed & 1 == 1;
            let b_t = transposed & 2 == 2;
            let wa = view(&a, m, k, a_t);
            let wb = view(&b, k, n, b_t);
            let fa = cast::<T>(&a);
            let fb = cast::<T>(&b);
            let mut found = cast::<T>(&c);
            product(
                Target::new(&mut found, m, n),
                view(&fa, m, k, a_t),
                view(&fb, k, n, b_t),
                accumulate,
                bf16,
            );
            for (i, found) in found.iter().enumerate() {
                let row = i / n;
                let column = i % n;
                let term = |k: usize| {
                    wa.data[row * wa.row_stride + k * wa.column_stride]
                        * wb.data[k * wb.row_stride + column * wb.column_stride]
                };
                let wanted = (0..k).map(term).sum::<f64>() + if accumulate { c[i] } else { 0.0 };
                let error = (WithDType::to_f64(*found) - wanted).abs() / (k as f64).sqrt().max(1.0);
                worst = if error <= worst { worst } else { error };
            }
        }
        worst
    }

    #[test]
    fn products_equal_the_definition_on_every_instruction_set() {
        let shapes = [
            (1, 1, 1),
            (3, 5, 2),
            (7, 33, 19),
            (20, 40, 831),
            (33, 16, 7),
            (150, 70, 450),
            (70, 45, 5),
            (9, 33, 8),
            (5, 600, 330),
            (12, 600, 330), // each worker packs for itself
            (1, 300, 5),
            (5, 1, 900),
        ];
        for (m, n, k) in shapes {
            assert!(error::<f64>(m, n, k, false) < 1e-14, "f64 {m} {n} {k}");
            for set in InstructionSet::available() {
                let (full, bf16) = set.force(|| (error::<f32>(m, n, k, false), error::<f32>(m, n, k, true)));
                assert!(full < 2e-6, "f32 {set:?} {m} {n} {k}: {full:e}");
                assert!(bf16 < 8e-3, "bf16 {set:?} {m} {n} {k}: {bf16:e}"); // 2 operands of 2^-9 each
            }
        }
    }

    #[test]
    fn every_number_of_threads_gives_the_same_bits() {
        let n = 530;
        let k = 460;
        for (m, transposed) in [(37, false), (5, false), (5, true), (12, true)] {
            let a = cast::<f32>(&random(m * k, "a"));
            let b = cast::<f32>(&random(k * n, "b"));
            let run = |threads| {
                let mut c = vec![0f32; m * n];
                with_threads(threads, || {
                    let target = Target::new(&mut c, m, n);
                    product(target, View::new(&a, m, k), view(&b, k, n, transposed), false, false);
                });
                c
            };
            let alone = run(1);
            assert!([2, 3, 5].iter().all(|&threads| run(threads) == alone), "{m} {transposed}");
        }
    }

    #[test]
    fn every_instruction_set_whose_multiply_adds_are_fused_gives_the_same_bits() {
        for (m, n, k) in [(1, 40, 30), (7, 33, 700), (20, 530, 460), (5, 3, 1000), (50, 37, 5)] {
            let a = cast::<f32>(&random(m * k, "a"));
            let b = cast::<f32>(&random(k * n, "b"));
            let run = |set: InstructionSet| {
                let mut c = cast::<f32>(&random(m * n, "c"));
                let target = Target::new(&mut c, m, n);
                set.fused().force(|| product(target, View::new(&a, m, k), View::new(&b, k, n), true, false));
                c
            };
            let wanted = run(InstructionSet::Portable);
            assert!(InstructionSet::available().into_iter().all(|set| run(set) == wanted), "{m} {n} {k}");
        }
    }

    #[test]
    fn an_empty_inner_size_gives_zeros() {
        let mut c = [1f32; 6];
        product(Target::new(&mut c, 2, 3), View::new(&[], 2, 0), View::new(&[], 0, 3), false, false);
        assert_eq!(c, [0.0; 6]);
    }
}
