//! Backward on the CPU: from the last step to the first two products each, by the transposes; at the end one product for each
//! of the two weights.

use super::cpu::{GATES, pack_columns};
use super::{Record, Sizes, Window};
use crate::cpu::chunk::{Chunk, load, multiply, store, sum};
use crate::cpu::gemm::{Target, product};
use crate::cpu::instruction_set::Computed;
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

/// The gradients of a window.
pub(super) struct Grads<T> {
    pub(super) projected: Vec<T>,
    pub(super) recurrent: Vec<T>,
    pub(super) projection: Vec<T>,
}

/// The gradients of the projected input and of both weights, from the `outputs` and their gradient, `(time, batch, outputs)`.
pub(super) fn backward<K: Kernel<Element: Computed>>(
    window: Window<'_, K::Element>,
    record: Record<K::Element>,
    outputs: &[K::Element],
    grad: &[K::Element],
) -> Grads<K::Element> {
    match K::LANES {
        16 => by_vectors::<K, 16>(window, record, outputs, grad),
        _ => by_vectors::<K, 8>(window, record, outputs, grad),
    }
}

/// With `N` = `K::LANES`, which no array's length can name.
fn by_vectors<K: Kernel<Element: Computed>, const N: usize>(
    window: Window<'_, K::Element>,
    record: Record<K::Element>,
    outputs: &[K::Element],
    grad: &[K::Element],
) -> Grads<K::Element> {
    assert_eq!(N, K::LANES, "units of a vector");
    let Sizes { batch, hidden, outputs: width, .. } = window.sizes;
    let rows = window.sizes.rows();
    let zero = K::Element::zero();
    let mut projected = vec![zero; rows * GATES * hidden];
    let mut of_outputs = workspace::take(rows * width);
    let mut carried = workspace::take(batch * hidden);
    carried.fill(zero);
    let recurrent = View::new(window.recurrent, width, GATES * hidden).t();
    let recurrent = pack_columns::<K>(recurrent, &[hidden; GATES]);
    let projection = pack_columns::<K>(View::new(window.projection, hidden, width).t(), &[width]);
    let mut sent = OperandBuffers::<K>::new(batch, GATES * K::steps(hidden));
    let mut inner = OperandBuffers::<K>::new(batch, K::steps(width));
    let pass = Backward::<K, N> {
        window,
        record: &record,
        grad,
        recurrent: &recurrent,
        projection: &projection,
        projected: Shared::new(&mut projected),
        of_outputs: Shared::new(&mut of_outputs),
        carried: Shared::new(&mut carried),
        sent: sent.shared(),
        inner: inner.shared(),
    };
    pool::run(|worker| pass.run(worker));

    let mut recurrent = vec![zero; width * GATES * hidden];
    let mut projection = vec![zero; hidden * width];
    let mut seen = workspace::take(rows * width);
    entering(window, outputs, &mut seen);
    let bf16 = K::DEPTH == 2;
    let seen = View::new(&seen, rows, width).t();
    let gates = View::new(&projected, rows, GATES * hidden);
    product(Target::new(&mut recurrent, width, GATES * hidden), seen, gates, false, bf16);
    let given = View::new(&record.given, rows, hidden).t();
    product(
        Target::new(&mut projection, hidden, width),
        given,
        View::new(&of_outputs, rows, width),
        false,
        bf16,
    );
    Grads { projected, recurrent, projection }
}

/// m as the gates' product of each step sees it.
fn entering<T: crate::cpu::real::Real>(window: Window<'_, T>, outputs: &[T], seen: &mut [T]) {
    let (first, later) = seen.split_at_mut(window.m.len());
    first.copy_from_slice(window.m);
    later.copy_from_slice(&outputs[..later.len()]);
    if let Some(mask) = window.mask {
        for step in seen.chunks_exact_mut(mask.len().max(1)) {
            step.iter_mut().zip(mask).for_each(|(m, &mask)| *m *= mask);
        }
    }
}

struct Backward<'a, K: Kernel, const N: usize> {
    window: Window<'a, K::Element>,
    record: &'a Record<K::Element>,
    grad: &'a [K::Element],
    /// Transposed.
    recurrent: &'a PackedWeights<K>,
    projection: &'a PackedWeights<K>,
    /// `(time, batch, 4 · hidden)`: the gradients of the gates' sums.
    projected: Shared<'a, K::Element>,
    /// `(time, batch, outputs)`: those of m, with what comes back from the next step.
    of_outputs: Shared<'a, K::Element>,
    /// `(batch, hidden)`: that of c.
    carried: Shared<'a, K::Element>,
    /// The gates' gradients as operands, and those of m.
    sent: SharedOperands<'a, K>,
    inner: SharedOperands<'a, K>,
}

impl<K: Kernel, const N: usize> Backward<'_, K, N> {
    fn run(&self, worker: Worker<'_>) {
        let Sizes { time, batch, .. } = self.window.sizes;
        let mut output_sums = self.recurrent.sums(batch);
        let mut unit_sums = self.projection.sums(batch);
        let nothing = vec![K::Element::zero(); batch * K::columns()];
        for step in (0..time).rev() {
            let mut of_outputs = |panel: usize, sums: &[K::Element]| {
                K::vectorized(
                    #[inline(always)]
                    || self.columns(step, panel, sums),
                )
            };
            if step + 1 == time {
                worker.share(self.recurrent.parts()).for_each(|panel| of_outputs(panel, &nothing));
            } else {
                // SAFETY: they were written before the barrier, and are not written again before the next one.
                let operands = unsafe { self.sent.read(step + 1) };
                self.recurrent.multiply(0, 0, operands, worker, &mut output_sums, &mut of_outputs);
            }
            worker.barrier();
            // SAFETY: as above.
            let operands = unsafe { self.inner.read(step) };
            self.projection.multiply(0, 0, operands, worker, &mut unit_sums, &mut |panel, sums| {
                K::vectorized(
                    #[inline(always)]
                    || self.units(step, panel, sums),
                )
            });
            worker.barrier();
        }
    }

    /// A panel of outputs: the gradient of m, of which `sums` is what the next step sends back.
    #[inline(always)]
    fn columns(&self, step: usize, panel: usize, sums: &[K::Element]) {
        let Sizes { batch, outputs, .. } = self.window.sizes;
        let tiling = self.inner.tiling;
        for tile in (0..tiling.count).map(|index| tiling.tile(index)) {
            for row in tile.clone() {
                for offset in (0..K::columns()).step_by(N) {
                    let start = panel * K::columns() + offset;
                    if start >= outputs {
                        continue;
                    }
                    let width = N.min(outputs - start);
                    let mut back: Chunk<_, N> = load(sums, row * K::columns() + offset, N);
                    if let Some(mask) = self.window.mask {
                        back = multiply(back, load(mask, row * outputs + start, width));
                    }
                    let at = (step * batch + row) * outputs + start;
                    let of_m = sum(back, load(self.grad, at, width));
                    // SAFETY: this worker's columns.
                    unsafe {
                        store(self.of_outputs.part(at, width), &of_m);
                        self.inner.write(step, &tile, row, start / K::DEPTH, &of_m, width);
                    }
                }
            }
        }
    }

    /// A panel of units; `sums` is the gradient of o tanh(c).
    #[inline(always)]
    fn units(&self, step: usize, panel: usize, sums: &[K::Element]) {
        let hidden = self.window.sizes.hidden;
        let tiling = self.sent.tiling;
        for tile in (0..tiling.count).map(|index| tiling.tile(index)) {
            for row in tile.clone() {
                for offset in (0..K::columns()).step_by(N) {
                    let start = panel * K::columns() + offset;
                    if start < hidden {
                        let of_given = load(sums, row * K::columns() + offset, N);
                        self.row(step, &tile, row, start, of_given);
                    }
                }
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
        of_given: Chunk<K::Element, N>,
    ) {
        let Sizes { batch, hidden, .. } = self.window.sizes;
        let width = N.min(hidden - start);
        let line = step * batch + row;
        let mut gates = [[K::Element::zero(); N]; MOST_VALUES];
        for (gate, values) in gates.iter_mut().enumerate().take(GATES) {
            *values = load(&self.record.gates, (line * GATES + gate) * hidden + start, width);
        }
        let zeros = [K::Element::zero(); N];
        let state = [zeros, load(&self.record.cells, line * hidden + start, width)];
        // SAFETY: this worker's units.
        let carried = unsafe { self.carried.part(row * hidden + start, width) };
        let grads = [of_given, load(carried, 0, width)];
        let mut none = [zeros; MOST_UNIT_WEIGHTS];
        let before = if K::FUSED {
            Lstm::backward::<_, N, true>(grads, state, &mut none, &mut gates, true)
        } else {
            Lstm::backward::<_, N, false>(grads, state, &mut none, &mut gates, true)
        };
        store(carried, &before[1]);
        for (gate, values) in gates.iter().enumerate().take(GATES) {
            // SAFETY: as above.
            unsafe {
                store(self.projected.part((line * GATES + gate) * hidden + start, width), values);
                self.sent.write(step, tile, row, gate * K::steps(hidden) + start / K::DEPTH, values, width);
            }
        }
    }
}
