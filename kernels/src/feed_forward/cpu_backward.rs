//! The stack backward on the CPU: a thread takes its rows back through all layers; then each layer's weights.
//!
//! A row's gradients depend on that row alone, and a layer's weights are one worker's, so any number of threads gives
//! the same bits.

use super::cpu::{Record, Sizes};
use super::layer::{Layer, MOST_GATES, Values};
use super::tile::{Scalars, by_shape, multiply, shape};
use crate::cpu::chunk::{CHUNK, load, store, sum};
use crate::cpu::instruction_set::{Computed, WithKernel};
use crate::cpu::pool;
use crate::cpu::real::Real;
use crate::cpu::shared::Shared;
use crate::cpu::tile::{Kernel, even_parts};
use crate::cpu::workspace;
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
}

impl<T: Computed> WithKernel<T> for Backward<'_, T> {
    type Output = [Vec<T>; 3];

    fn run<K: Kernel<Element = T>>(mut self) -> Self::Output {
        let sizes = self.sizes;
        let Sizes { layers, rows, size, gates } = sizes;
        let mut carried = workspace::take(sizes.vectors() * size * CHUNK);
        let mut input = vec![T::zero(); rows * size];
        let pass = Pass {
            weights: self.weights,
            grad: self.grad,
            sizes,
            layer: self.layer,
            xs: &self.record.xs,
            values: Shared::new(&mut self.record.values),
            carried: Shared::new(&mut carried),
            input: Shared::new(&mut input),
        };
        pool::run(|worker| {
            for block in sizes.blocks(worker) {
                pass.last(block.clone());
                for layer in (0..layers).rev() {
                    K::vectorized(
                        #[inline(always)]
                        || {
                            if K::FUSED {
                                pass.layer::<true>(layer, block.clone())
                            } else {
                                pass.layer::<false>(layer, block.clone())
                            }
                        },
                    );
                }
                pass.first(block);
            }
        });
        let mut weights = vec![T::zero(); layers * size * gates * size];
        let mut bias = vec![T::zero(); layers * gates * size];
        let to_weights = Shared::new(&mut weights);
        let to_bias = Shared::new(&mut bias);
        pool::run(|worker| {
            let mut by_rows =
                workspace::take(sizes.vectors() * CHUNK * (gates * size).next_multiple_of(CHUNK));
            for layer in worker.share(layers) {
                // SAFETY: layers are shared out.
                let (weights, bias) = unsafe {
                    let width = gates * size;
                    (to_weights.part(layer * size * width, size * width), to_bias.part(layer * width, width))
                };
                let grads = LayerGrads { record: &self.record, sizes, layer };
                K::vectorized(
                    #[inline(always)]
                    || {
                        grads.turn(&mut by_rows);
                        grads.bias(&by_rows, bias);
                        if K::FUSED {
                            grads.weights::<true>(&by_rows, weights)
                        } else {
                            grads.weights::<false>(&by_rows, weights)
                        }
                    },
                );
            }
        });
        [input, weights, bias]
    }
}

struct Pass<'a, T> {
    weights: &'a [T],
    grad: &'a [T],
    sizes: Sizes,
    layer: Layer,
    xs: &'a [T],
    /// What was computed, to become the gradients of the products.
    values: Shared<'a, T>,
    /// The gradient of what leaves a layer, `(vectors, size)` chunks; zero past the last row.
    carried: Shared<'a, T>,
    input: Shared<'a, T>,
}

impl<'a, T: Real> Pass<'a, T> {
    /// The gradient of what leaves the last layer.
    fn last(&self, block: Range<usize>) {
        let Sizes { rows, size, .. } = self.sizes;
        for vector in block {
            let carried = self.carried(vector);
            carried.fill(T::zero());
            for (lane, row) in (vector * CHUNK..rows.min((vector + 1) * CHUNK)).enumerate() {
                let values = &self.grad[row * size..][..size];
                carried[lane..].iter_mut().step_by(CHUNK).zip(values).for_each(|(to, &value)| *to = value);
            }
        }
    }

    /// The gradient of what enters the first.
    fn first(&self, block: Range<usize>) {
        let Sizes { rows, size, .. } = self.sizes;
        for vector in block {
            let carried = self.carried(vector);
            for (lane, row) in (vector * CHUNK..rows.min((vector + 1) * CHUNK)).enumerate() {
                // SAFETY: this worker's rows.
                let input = unsafe { self.input.part(row * size, size) };
                input
                    .iter_mut()
                    .zip(carried[lane..].iter().step_by(CHUNK))
                    .for_each(|(to, &value)| *to = value);
            }
        }
    }

    #[inline(always)]
    fn carried(&self, vector: usize) -> &'a mut [T] {
        let size = self.sizes.size;
        // SAFETY: this worker's vectors.
        unsafe { self.carried.part(vector * size * CHUNK, size * CHUNK) }
    }

    /// The chunks of a vector's products.
    #[inline(always)]
    fn values(&self, layer: usize, vector: usize) -> &'a mut [T] {
        let Sizes { size, gates, .. } = self.sizes;
        // SAFETY: this worker's vectors.
        unsafe { self.values.part(self.sizes.at(layer, vector) * gates, gates * size * CHUNK) }
    }

    #[inline(always)]
    fn layer<const FUSED: bool>(&self, layer: usize, block: Range<usize>) {
        let Sizes { size, .. } = self.sizes;
        let mut vector = block.start;
        while vector < block.end {
            let (vectors, most) = shape(block.end - vector);
            self.layer.constant(
                #[inline(always)]
                |kind| {
                    for vector in vector..vector + vectors {
                        self.unmix(kind, layer, vector);
                    }
                },
            );
            for part in even_parts(size, most) {
                by_shape!(vectors, part.len(), units::<T, FUSED>(self, layer, vector, part.start));
            }
            vector += vectors;
        }
    }

    /// The gradients of a vector's products, and what goes past the layer, unit by unit.
    #[inline(always)]
    fn unmix(&self, kind: Layer, layer: usize, vector: usize) {
        let Sizes { size, .. } = self.sizes;
        let gates = kind.gates();
        let values = self.values(layer, vector);
        let carried = self.carried(vector);
        let xs = &self.xs[self.sizes.at(layer, vector)..][..size * CHUNK];
        for unit in 0..size {
            let mut chunks: Values<T> = [[T::zero(); CHUNK]; MOST_GATES];
            for (gate, chunk) in chunks.iter_mut().enumerate().take(gates) {
                *chunk = load(values, (gate * size + unit) * CHUNK, CHUNK);
            }
            let at = unit * CHUNK;
            let past = kind.backward(&mut chunks, load(xs, at, CHUNK), load(carried, at, CHUNK));
            store(&mut carried[at..at + CHUNK], &past);
            for (gate, chunk) in chunks.iter().enumerate().take(gates) {
                store(&mut values[(gate * size + unit) * CHUNK..][..CHUNK], chunk);
            }
        }
    }
}

/// `U` units of what enters a layer, of `V` vectors: the products with the transposed weights join what went past it.
#[inline(always)]
fn units<T: Real, const FUSED: bool, const V: usize, const U: usize>(
    pass: &Pass<'_, T>,
    layer: usize,
    vector: usize,
    unit: usize,
) {
    let Sizes { size, gates, .. } = pass.sizes;
    let width = gates * size;
    let weights = &pass.weights[layer * size * width..][..size * width];
    // Loops and not `from_fn`, which the compiler may leave as a call in the middle of a tile.
    let mut grads: [&[T]; V] = [&[]; V];
    let mut sums = [[[T::zero(); CHUNK]; V]; U];
    for v in 0..V {
        grads[v] = pass.values(layer, vector + v);
        let carried = pass.carried(vector + v);
        for (u, sums) in sums.iter_mut().enumerate() {
            sums[v] = load(carried, (unit + u) * CHUNK, CHUNK);
        }
    }
    let scalars = Scalars { data: &weights[unit * width..], step: 1, unit: width };
    multiply::<T, FUSED, V, U>(&mut sums, scalars, grads, CHUNK, width);
    for (u, sums) in sums.iter().enumerate() {
        for (v, sum) in sums.iter().enumerate() {
            store(&mut pass.carried(vector + v)[(unit + u) * CHUNK..][..CHUNK], sum);
        }
    }
}

/// The gradients of a layer's weights and biases, once the record holds those of its products.
struct LayerGrads<'a, T: Real> {
    record: &'a Record<T>,
    sizes: Sizes,
    layer: usize,
}

impl<T: Real> LayerGrads<'_, T> {
    /// From one row's gradients to the next in `by_rows`.
    fn stride(&self) -> usize {
        (self.sizes.gates * self.sizes.size).next_multiple_of(CHUNK)
    }

    /// The gradients of the products row by row: units lie in the lanes, since the sums are over rows.
    #[inline(always)]
    fn turn(&self, by_rows: &mut [T]) {
        let width = self.sizes.gates * self.sizes.size;
        let stride = self.stride();
        for vector in 0..self.sizes.vectors() {
            let at = self.sizes.at(self.layer, vector) * self.sizes.gates;
            let grads = &self.record.values[at..][..width * CHUNK];
            let rows = &mut by_rows[vector * CHUNK * stride..][..CHUNK * stride];
            for start in (0..width).step_by(CHUNK) {
                let mut units = [[T::zero(); CHUNK]; CHUNK];
                if start + CHUNK <= width {
                    for (unit, chunk) in units.iter_mut().enumerate() {
                        *chunk = load(grads, (start + unit) * CHUNK, CHUNK);
                    }
                } else {
                    for (unit, chunk) in units.iter_mut().enumerate().take(width - start) {
                        *chunk = load(grads, (start + unit) * CHUNK, CHUNK);
                    }
                }
                for lane in 0..CHUNK {
                    let mut row = [T::zero(); CHUNK];
                    for unit in 0..CHUNK {
                        row[unit] = units[unit][lane];
                    }
                    store(&mut rows[lane * stride + start..][..CHUNK], &row);
                }
            }
        }
    }

    #[inline(always)]
    fn bias(&self, by_rows: &[T], bias: &mut [T]) {
        let stride = self.stride();
        for start in (0..bias.len()).step_by(CHUNK) {
            let mut total = [T::zero(); CHUNK];
            for row in by_rows.chunks_exact(stride).take(self.sizes.vectors() * CHUNK) {
                total = sum(total, load(row, start, CHUNK));
            }
            let width = CHUNK.min(bias.len() - start);
            store(&mut bias[start..start + width], &total);
        }
    }

    #[inline(always)]
    fn weights<const FUSED: bool>(&self, by_rows: &[T], weights: &mut [T]) {
        let Sizes { size, gates, .. } = self.sizes;
        let width = gates * size;
        let chunks = width.div_ceil(CHUNK);
        let mut chunk = 0;
        while chunk < chunks {
            let (vectors, most) = shape(chunks - chunk);
            for part in even_parts(size, most) {
                let unit = part.start;
                by_shape!(
                    vectors,
                    part.len(),
                    weight_tile::<T, FUSED>(self, by_rows, weights, unit, chunk * CHUNK)
                );
            }
            chunk += vectors;
        }
    }
}

/// The weights from `U` units to `V` vectors of columns, summed over the rows in their order.
#[inline(always)]
fn weight_tile<T: Real, const FUSED: bool, const V: usize, const U: usize>(
    grads: &LayerGrads<'_, T>,
    by_rows: &[T],
    weights: &mut [T],
    unit: usize,
    column: usize,
) {
    let Sizes { size, gates, .. } = grads.sizes;
    let width = gates * size;
    let stride = grads.stride();
    let mut sums = [[[T::zero(); CHUNK]; V]; U];
    for vector in 0..grads.sizes.vectors() {
        let xs = &grads.record.xs[grads.sizes.at(grads.layer, vector)..][..size * CHUNK];
        let mut rows: [&[T]; V] = [&[]; V];
        for (v, rows) in rows.iter_mut().enumerate() {
            *rows = &by_rows[vector * CHUNK * stride + column + v * CHUNK..];
        }
        let scalars = Scalars { data: &xs[unit * CHUNK..], step: 1, unit: CHUNK };
        multiply::<T, FUSED, V, U>(&mut sums, scalars, rows, stride, CHUNK);
    }
    for (u, sums) in sums.iter().enumerate() {
        for (v, sum) in sums.iter().enumerate() {
            let start = column + v * CHUNK;
            let count = CHUNK.min(width - start);
            store(&mut weights[(unit + u) * width + start..][..count], sum);
        }
    }
}
