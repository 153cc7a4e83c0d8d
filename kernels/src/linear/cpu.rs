//! A product with weights that do not change: packed once, fast for a single row as for many.

use crate::cpu::instruction_set::{Computed, WithKernel};
use crate::cpu::packed::{OperandBuffers, PackedWeights, SharedOperands, Weights};
use crate::cpu::panels::{View, pack_tile};
use crate::cpu::pool::{self, Worker};
use crate::cpu::shared::Shared;
use crate::cpu::tile::Kernel;
use std::sync::Arc;

/// `xs W` for rows of `xs`.
pub(crate) trait Dense<T>: Send + Sync {
    /// `(rows, input)` to `(rows, output)`, both row-major.
    fn multiply(&self, xs: &[T], rows: usize, out: &mut [T]);

    /// `−ln softmax(xs W + bias)[target]` of each row; a target is below the number of outputs.
    fn nats(&self, xs: &[T], bias: &[T], targets: &[u32], nats: &mut [T]);
}

/// Packs `weight`, input × output.
pub(crate) fn pack<T: Computed>(weight: View<'_, T>, bf16: bool) -> Arc<dyn Dense<T>> {
    T::with_kernel(bf16, Pack(weight))
}

struct Pack<'a, T>(View<'a, T>);

impl<T: Computed> WithKernel<T> for Pack<'_, T> {
    type Output = Arc<dyn Dense<T>>;

    fn run<K: Kernel<Element = T>>(self) -> Self::Output {
        let Self(weight) = self;
        let part = |_sublayer: usize, panel: usize, _section: usize, half: usize| {
            let start = (panel * K::columns() + half * K::LANES).min(weight.columns);
            weight.columns(start, K::LANES.min(weight.columns - start))
        };
        let count = weight.columns.div_ceil(K::columns());
        let weights = PackedWeights::<K>::pack(1, count, &[weight.rows], part);
        Arc::new(Packed { weights, input: weight.rows, output: weight.columns })
    }
}

struct Packed<K: Kernel> {
    weights: PackedWeights<K>,
    input: usize,
    output: usize,
}

impl<K: Kernel> Dense<K::Element> for Packed<K> {
    fn multiply(&self, xs: &[K::Element], rows: usize, out: &mut [K::Element]) {
        let mut operands = OperandBuffers::<K>::new(rows, self.weights.steps());
        let operands = operands.shared();
        let target = Shared::new(out);
        let xs = View::new(xs, rows, self.input);
        pool::run(|worker| {
            let mut sums = self.weights.sums(rows);
            write_operands(&operands, xs, worker);
            worker.barrier();
            // SAFETY: after the barrier no thread writes them.
            let read = unsafe { operands.read(0) };
            self.weights.multiply(0, 0, read, worker, &mut sums, &mut |panel, sums| {
                let start = panel * K::columns();
                let width = K::columns().min(self.output - start);
                for (row, sums) in sums.chunks_exact(K::columns()).enumerate() {
                    // SAFETY: workers' panels are disjoint.
                    unsafe { target.part(row * self.output + start, width) }.copy_from_slice(&sums[..width]);
                }
            });
        });
    }

    fn nats(&self, xs: &[K::Element], bias: &[K::Element], targets: &[u32], nats: &mut [K::Element]) {
        assert_eq!((xs.len(), bias.len()), (targets.len() * self.input, self.output));
        super::nats::nats(&self.weights, xs, bias, targets, nats);
    }
}

/// Writes a worker's share of the rows as operands, to be read after a barrier.
pub(super) fn write_operands<K: Kernel>(
    operands: &SharedOperands<'_, K>,
    xs: View<'_, K::Element>,
    worker: Worker<'_>,
) {
    let tiling = operands.tiling;
    for tile in worker.share(tiling.count).map(|index| tiling.tile(index)) {
        // SAFETY: workers' tiles are disjoint, which are read only after a barrier.
        let packed = unsafe { operands.tile(0, &tile) };
        pack_tile::<K>(packed, xs.rows(tile.start, tile.len()));
    }
}
