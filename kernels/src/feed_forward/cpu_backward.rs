//! The stack backward on the CPU: a thread takes its rows back through all layers; then each layer's weights.
//!
//! A row's gradients depend on that row alone, and a layer's weights are one worker's, so any number of threads gives
//! the same bits.

use super::cpu::{Record, Sizes};
use super::layer::{Layer, MOST_GATES};
use crate::cpu::chunk::{CHUNK, load, store, sum};
use crate::cpu::gemm::{Target, product};
use crate::cpu::instruction_set::{Computed, WithKernel};
use crate::cpu::packed::{OperandBuffers, PackedWeights, SharedOperands};
use crate::cpu::panels::View;
use crate::cpu::pool::{self, Worker};
use crate::cpu::shared::Shared;
use crate::cpu::tile::Kernel;
use crate::cpu::workspace;
use num_traits::Zero;
use std::ops::Range;

/// The backward pass on whatever kernel is chosen: gradients of the input, the weights and the biases.
pub(super) struct Backward<'a, T: Computed> {
    pub(super) record: Record<T>,
    /// `(layers, size, gates · size)`.
    pub(super) weights: &'a [T],
    /// Of the last layer's values, `(rows, size)`.
    pub(super) grad: &'a [T],
    pub(super) sizes: Sizes,
    pub(super) layer: Layer,
    /// Whether operands are rounded to bf16.
    pub(super) rounds: bool,
}

impl<T: Computed> WithKernel<T> for Backward<'_, T> {
    type Output = [Vec<T>; 3];

    fn run<K: Kernel<Element = T>>(mut self) -> Self::Output {
        let sizes = self.sizes;
        let Sizes { layers, rows, size, gates } = sizes;
        let packed = self.pack::<K>();
        let mut carried = workspace::take(rows * sizes.stride());
        let mut input = vec![T::zero(); rows * size];
        let pass = Pass::<K> {
            packed,
            grad: self.grad,
            sizes,
            layer: self.layer,
            xs: &self.record.xs,
            values: Shared::new(&mut self.record.values),
            carried: Shared::new(&mut carried),
            input: Shared::new(&mut input),
        };
        pool::run(|worker| sizes.blocks(worker).for_each(|rows| pass.block(&rows, worker)));
        drop(pass);
        let mut weights = vec![T::zero(); layers * size * gates * size];
        let mut bias = vec![T::zero(); layers * gates * size];
        self.weight_grads(Shared::new(&mut weights), Shared::new(&mut bias));
        [input, weights, bias]
    }
}

impl<T: Computed> Backward<'_, T> {
    /// The transposed weights; the inner dimension is the units of one gate after the other.
    fn pack<K: Kernel<Element = T>>(&self) -> PackedWeights<K> {
        let Sizes { layers, size, gates, .. } = self.sizes;
        let width = gates * size;
        let part = |layer: usize, panel: usize, gate: usize, half: usize| {
            let matrix = View::new(&self.weights[layer * size * width..][..size * width], size, width).t();
            let start = (panel * K::columns() + half * K::LANES).min(size);
            matrix.rows(gate * size, size).columns(start, K::LANES.min(size - start))
        };
        PackedWeights::pack(layers, size.div_ceil(K::columns()), &[size; MOST_GATES][..gates], part)
    }

    /// One product a layer over all rows, once the record holds the gradients of the products.
    fn weight_grads(&self, weights: Shared<'_, T>, bias: Shared<'_, T>) {
        let Sizes { layers, rows, size, gates } = self.sizes;
        let stride = self.sizes.stride();
        let width = gates * stride;
        pool::run(|worker| {
            let mut whole = workspace::take(size * width);
            let mut sums = vec![T::zero(); width];
            for layer in worker.share(layers) {
                let xs = &self.record.xs[layer * rows * stride..][..rows * stride];
                let grads = &self.record.values[layer * rows * width..][..rows * width];
                let inputs = View::new(xs, rows, stride).columns(0, size).t();
                let target = Target::new(&mut whole, size, width);
                product(target, inputs, View::new(grads, rows, width), false, self.rounds);
                sums.fill(T::zero());
                for row in grads.chunks_exact(width) {
                    sums.iter_mut().zip(row).for_each(|(sum, &grad)| *sum += grad);
                }
                // SAFETY: layers are shared out.
                let (to_weights, to_bias) = unsafe {
                    let per_layer = size * gates * size;
                    (
                        weights.part(layer * per_layer, per_layer),
                        bias.part(layer * gates * size, gates * size),
                    )
                };
                let lines = to_weights.chunks_exact_mut(gates * size).zip(whole.chunks_exact(width));
                for (to, from) in lines.chain([(to_bias, &sums[..])]) {
                    for (to, from) in to.chunks_exact_mut(size).zip(from.chunks_exact(stride)) {
                        to.copy_from_slice(&from[..size]);
                    }
                }
            }
        });
    }
}

struct Pass<'a, K: Kernel> {
    packed: PackedWeights<K>,
    grad: &'a [K::Element],
    sizes: Sizes,
    layer: Layer,
    xs: &'a [K::Element],
    /// What was computed, to become the gradients of the products.
    values: Shared<'a, K::Element>,
    /// The gradient of what leaves a layer, `(rows, stride)`; zero past a row's last unit.
    carried: Shared<'a, K::Element>,
    input: Shared<'a, K::Element>,
}

impl<K: Kernel> Pass<'_, K> {
    /// Some rows back through all layers.
    fn block(&self, rows: &Range<usize>, worker: Worker<'_>) {
        let Sizes { layers, size, .. } = self.sizes;
        let stride = self.sizes.stride();
        let mut buffers = OperandBuffers::<K>::new(rows.len(), self.packed.steps);
        let operands = buffers.shared();
        let mut sums = self.packed.sums(rows.len());
        for line in rows.clone() {
            // SAFETY: this worker's rows, here and below.
            let carried = unsafe { self.carried.part(line * stride, stride) };
            carried[..size].copy_from_slice(&self.grad[line * size..][..size]);
            carried[size..].fill(K::Element::zero());
        }
        for layer in (0..layers).rev() {
            K::vectorized(
                #[inline(always)]
                || self.units(layer, rows, &operands),
            );
            // SAFETY: only this worker has the buffers.
            let read = unsafe { operands.read(layer) };
            let next = layer.saturating_sub(1);
            self.packed.multiply(layer, next, read, worker.alone(), &mut sums, |panel, sums| {
                K::vectorized(
                    #[inline(always)]
                    || self.add(panel, rows, sums),
                )
            });
        }
        for line in rows.clone() {
            // SAFETY: as above.
            unsafe {
                let carried = self.carried.read(line * stride, size);
                self.input.part(line * size, size).copy_from_slice(carried);
            }
        }
    }

    /// The gradients of a layer's products, which are the operands of the product with its weights, and what goes past it.
    #[inline(always)]
    fn units(&self, layer: usize, rows: &Range<usize>, operands: &SharedOperands<'_, K>) {
        let Sizes { rows: all, size, gates, .. } = self.sizes;
        let stride = self.sizes.stride();
        let tiling = operands.tiling;
        for tile in (0..tiling.count).map(|index| tiling.tile(index)) {
            for row in tile.clone() {
                let line = rows.start + row;
                let at = (layer * all + line) * stride;
                // SAFETY: this worker's rows.
                let carried = unsafe { self.carried.part(line * stride, stride) };
                // SAFETY: as above.
                let values = unsafe { self.values.part(at * gates, gates * stride) };
                for start in (0..size).step_by(CHUNK) {
                    let width = CHUNK.min(size - start);
                    let mut chunks = [[K::Element::zero(); CHUNK]; MOST_GATES];
                    for (gate, chunk) in chunks.iter_mut().enumerate().take(gates) {
                        *chunk = load(values, gate * stride + start, CHUNK);
                    }
                    let x = load(self.xs, at + start, CHUNK);
                    let past = self.layer.backward(&mut chunks, x, load(carried, start, CHUNK));
                    store(&mut carried[start..start + CHUNK], &past);
                    for (gate, chunk) in chunks.iter().enumerate().take(gates) {
                        store(&mut values[gate * stride + start..][..CHUNK], chunk);
                        let step = gate * K::steps(size) + start / K::DEPTH;
                        // SAFETY: only this worker has the buffers.
                        unsafe { operands.write(layer, &tile, row, step, chunk, width) };
                    }
                }
            }
        }
    }

    /// A panel's sums join what went past the layer.
    #[inline(always)]
    fn add(&self, panel: usize, rows: &Range<usize>, sums: &[K::Element]) {
        let stride = self.sizes.stride();
        for offset in (0..K::columns()).step_by(CHUNK) {
            let start = panel * K::columns() + offset;
            if start >= stride {
                break; // past the last unit
            }
            for (row, line) in rows.clone().enumerate() {
                // SAFETY: this worker's rows.
                let carried = unsafe { self.carried.part(line * stride + start, CHUNK) };
                let both = sum(load(carried, 0, CHUNK), load(sums, row * K::columns() + offset, CHUNK));
                store(carried, &both);
            }
        }
    }
}
