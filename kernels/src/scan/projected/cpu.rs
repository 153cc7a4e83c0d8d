//! Forward on the CPU: threads own units of the cell, then columns of the projection, and wait for each other after each of a
//! step's two products.

use super::{Record, Sizes, Window};
use crate::cpu::chunk::{Chunk, load, multiply, store};
use crate::cpu::packed::{OperandBuffers, PackedWeights, SharedOperands, Weights};
use crate::cpu::panels::View;
use crate::cpu::pool::{self, Worker};
use crate::cpu::shared::Shared;
use crate::cpu::tile::Kernel;
use crate::cpu::workspace;
use crate::scan::cell::{MOST_UNIT_WEIGHTS, MOST_VALUES, Pointwise};
use crate::scan::lstm::Lstm;
use num_traits::Zero;
use std::ops::Range;

/// Gates of the cell.
pub(super) const GATES: usize = 4;

/// Writes the outputs and the last cells, and returns the record if it is wanted.
pub(super) fn forward<K: Kernel>(
    window: Window<'_, K::Element>,
    records: bool,
    outputs: &mut [K::Element],
    last: &mut [K::Element],
) -> Option<Record<K::Element>> {
    match K::LANES {
        16 => by_vectors::<K, 16>(window, records, outputs, last),
        _ => by_vectors::<K, 8>(window, records, outputs, last),
    }
}

/// With `N` = `K::LANES`, which no array's length can name.
fn by_vectors<K: Kernel, const N: usize>(
    window: Window<'_, K::Element>,
    records: bool,
    outputs: &mut [K::Element],
    last: &mut [K::Element],
) -> Option<Record<K::Element>> {
    assert_eq!(N, K::LANES, "units of a vector");
    let Sizes { batch, hidden, outputs: width, .. } = window.sizes;
    let rows = if records { window.sizes.rows() } else { 0 };
    let mut gates = workspace::take(rows * GATES * hidden);
    let mut cells = workspace::take(rows * hidden);
    let mut given = workspace::take(rows * hidden);
    last.copy_from_slice(window.c);
    let recurrent = pack_gates::<K>(window.recurrent, hidden, width);
    let projection = pack_projection::<K>(window.projection, hidden, width);
    let mut seen = OperandBuffers::<K>::new(batch, K::steps(width));
    let mut inner = OperandBuffers::<K>::new(batch, K::steps(hidden));
    let pass = Forward::<K, N> {
        window,
        recurrent: &recurrent,
        projection: &projection,
        outputs: Shared::new(outputs),
        cell: Shared::new(last),
        record: records.then(|| [&mut gates, &mut cells, &mut given].map(|buffer| Shared::new(&mut *buffer))),
        seen: seen.shared(),
        inner: inner.shared(),
    };
    pool::run(|worker| pass.run(worker));
    records.then_some(Record { gates, cells, given })
}

/// The gates of the same units in two panels side by side.
fn pack_gates<K: Kernel>(recurrent: &[K::Element], hidden: usize, outputs: usize) -> PackedWeights<K> {
    let matrix = View::new(recurrent, outputs, GATES * hidden);
    let part = |_: usize, panel: usize, _: usize, half: usize| {
        let gate = panel % 2 * 2 + half;
        let start = (panel / 2 * K::LANES).min(hidden);
        matrix.columns(gate * hidden + start, K::LANES.min(hidden - start))
    };
    PackedWeights::pack(1, 2 * hidden.div_ceil(K::LANES), &[outputs], part).finished_together(2)
}

fn pack_projection<K: Kernel>(projection: &[K::Element], hidden: usize, outputs: usize) -> PackedWeights<K> {
    pack_columns(View::new(projection, hidden, outputs), &[hidden])
}

/// A matrix in panels; its rows are cut into `sections`.
pub(super) fn pack_columns<K: Kernel>(matrix: View<'_, K::Element>, sections: &[usize]) -> PackedWeights<K> {
    let columns = matrix.columns;
    let part = |_: usize, panel: usize, section: usize, half: usize| {
        let start = (panel * K::columns() + half * K::LANES).min(columns);
        let first: usize = sections[..section].iter().sum();
        matrix.rows(first, sections[section]).columns(start, K::LANES.min(columns - start))
    };
    PackedWeights::pack(1, columns.div_ceil(K::columns()), sections, part)
}

struct Forward<'a, K: Kernel, const N: usize> {
    window: Window<'a, K::Element>,
    recurrent: &'a PackedWeights<K>,
    projection: &'a PackedWeights<K>,
    outputs: Shared<'a, K::Element>,
    /// `(batch, hidden)`: c after the last step that was computed.
    cell: Shared<'a, K::Element>,
    /// Gates, entering cells, o tanh(c).
    record: Option<[Shared<'a, K::Element>; 3]>,
    /// m, masked, as operands of the gates' product; o tanh(c) as those of the projection.
    seen: SharedOperands<'a, K>,
    inner: SharedOperands<'a, K>,
}

impl<K: Kernel, const N: usize> Forward<'_, K, N> {
    fn run(&self, worker: Worker<'_>) {
        let Sizes { time, batch, .. } = self.window.sizes;
        let mut gate_sums = self.recurrent.sums(batch);
        let mut output_sums = self.projection.sums(batch);
        self.first_state(worker);
        worker.barrier();
        for step in 0..time {
            // SAFETY: they were written before the barrier, and are not written again before the next one.
            let operands = unsafe { self.seen.read(step) };
            self.recurrent.multiply(0, 0, operands, worker, &mut gate_sums, &mut |group, sums| {
                K::vectorized(
                    #[inline(always)]
                    || self.units(step, group, sums),
                )
            });
            worker.barrier();
            // SAFETY: as above.
            let operands = unsafe { self.inner.read(step) };
            self.projection.multiply(0, 0, operands, worker, &mut output_sums, &mut |panel, sums| {
                K::vectorized(
                    #[inline(always)]
                    || self.columns(step, panel, sums),
                )
            });
            worker.barrier();
        }
    }

    /// The operands of m before the window.
    fn first_state(&self, worker: Worker<'_>) {
        let width = self.window.sizes.outputs;
        let tiling = self.seen.tiling;
        for tile in worker.share(tiling.count).map(|index| tiling.tile(index)) {
            for row in tile.clone() {
                for start in (0..width).step_by(N) {
                    let m = load(self.window.m, row * width + start, N.min(width - start));
                    self.write_seen(0, &tile, row, start, m);
                }
            }
        }
    }

    /// m, masked, as operands of the gates' product of step `step`.
    #[inline(always)]
    fn write_seen(
        &self,
        step: usize,
        tile: &Range<usize>,
        row: usize,
        start: usize,
        mut m: Chunk<K::Element, N>,
    ) {
        let outputs = self.window.sizes.outputs;
        let width = N.min(outputs - start);
        if let Some(mask) = self.window.mask {
            m = multiply(m, load(mask, row * outputs + start, width));
        }
        // SAFETY: this worker's columns, or tiles before the first product.
        unsafe { self.seen.write(step, tile, row, start / K::DEPTH, &m, width) };
    }

    /// A vector of units: from the sums of all gates to o tanh(c).
    #[inline(always)]
    fn units(&self, step: usize, vector: usize, sums: &[K::Element]) {
        let batch = self.window.sizes.batch;
        let tiling = self.inner.tiling;
        for tile in (0..tiling.count).map(|index| tiling.tile(index)) {
            for row in tile.clone() {
                let mut products = [[K::Element::zero(); N]; MOST_VALUES];
                for (gate, products) in products.iter_mut().enumerate().take(GATES) {
                    let line = gate / 2 * batch + row;
                    *products = load(sums, line * K::columns() + gate % 2 * N, N);
                }
                self.row(step, &tile, row, vector * N, products);
            }
        }
    }

    /// A vector of units of one batch row.
    #[inline(always)]
    fn row(
        &self,
        step: usize,
        tile: &Range<usize>,
        row: usize,
        start: usize,
        products: [Chunk<K::Element, N>; MOST_VALUES],
    ) {
        let Sizes { batch, hidden, .. } = self.window.sizes;
        let width = N.min(hidden - start);
        let line = step * batch + row;
        let mut projected = [[K::Element::zero(); N]; MOST_VALUES];
        for (gate, x) in projected.iter_mut().enumerate().take(GATES) {
            *x = load(self.window.projected, (line * GATES + gate) * hidden + start, width);
        }
        // SAFETY: this worker's units.
        let cell = unsafe { self.cell.part(row * hidden + start, width) };
        let entered = load(cell, 0, width);
        let mut state = [[K::Element::zero(); N], entered];
        let none = [[K::Element::zero(); N]; MOST_UNIT_WEIGHTS];
        let saved = if K::FUSED {
            Lstm::forward::<_, N, true>(products, Some(projected), &none, &mut state)
        } else {
            Lstm::forward::<_, N, false>(products, Some(projected), &none, &mut state)
        };
        store(cell, &state[1]);
        // SAFETY: as above.
        unsafe {
            if let Some([gates, cells, given]) = self.record {
                for (gate, values) in saved.iter().enumerate().take(GATES) {
                    store(gates.part((line * GATES + gate) * hidden + start, width), values);
                }
                store(cells.part(line * hidden + start, width), &entered);
                store(given.part(line * hidden + start, width), &state[0]);
            }
            self.inner.write(step, tile, row, start / K::DEPTH, &state[0], width);
        }
    }

    /// A panel of the projection: outputs, and operands of the next step.
    #[inline(always)]
    fn columns(&self, step: usize, panel: usize, sums: &[K::Element]) {
        let Sizes { time, batch, outputs, .. } = self.window.sizes;
        let tiling = self.seen.tiling;
        for tile in (0..tiling.count).map(|index| tiling.tile(index)) {
            for row in tile.clone() {
                for offset in (0..K::columns()).step_by(N) {
                    let start = panel * K::columns() + offset;
                    if start >= outputs {
                        continue;
                    }
                    let m = load(sums, row * K::columns() + offset, N);
                    let at = (step * batch + row) * outputs + start;
                    // SAFETY: this worker's columns.
                    store(unsafe { self.outputs.part(at, N.min(outputs - start)) }, &m);
                    if step + 1 < time {
                        self.write_seen(step + 1, &tile, row, start, m);
                    }
                }
            }
        }
    }
}
