//! The stack forward on the CPU: a thread takes its rows through all layers, and waits for nobody.

use super::layer::{Layer, MOST_GATES, Values};
use super::tile::{Scalars, by_shape, multiply, shape};
use crate::cpu::chunk::{CHUNK, load, store};
use crate::cpu::instruction_set::WithKernel;
use crate::cpu::pool::{self, Worker};
use crate::cpu::real::Real;
use crate::cpu::shared::Shared;
use crate::cpu::tile::{Kernel, even_part, even_parts};
use crate::cpu::workspace::{self, Buffer};
use std::ops::Range;

/// Vectors of rows that go through all layers together at most: their values of a layer stay in the nearest caches.
const TOGETHER: usize = 12;

/// Sizes of a stack and its input.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    pub(super) layers: usize,
    pub(super) rows: usize,
    /// Units of a layer.
    pub(super) size: usize,
    /// Products of a layer.
    pub(super) gates: usize,
}

impl Sizes {
    /// Vectors that hold the rows.
    pub(super) fn vectors(&self) -> usize {
        self.rows.div_ceil(CHUNK)
    }

    /// A worker's vectors, in blocks.
    pub(super) fn blocks(&self, worker: Worker<'_>) -> impl Iterator<Item = Range<usize>> {
        let own = worker.share(self.vectors());
        let part = if own.is_empty() { 1 } else { even_part(own.len(), TOGETHER) };
        let end = own.end;
        own.step_by(part).map(move |start| start..end.min(start + part))
    }

    /// Where a vector's values of a layer's units are, one chunk a unit.
    pub(super) fn at(&self, layer: usize, vector: usize) -> usize {
        (layer * self.vectors() + vector) * self.size * CHUNK
    }
}

/// What the backward pass needs.
pub(super) struct Record<T: Real> {
    /// What enters each layer: `(layers, vectors, size)` chunks.
    pub(super) xs: Buffer<T>,
    /// h, t and c: `(layers, vectors, gates · size)` chunks.
    pub(super) values: Buffer<T>,
}

/// The forward pass on whatever kernel is chosen; shapes as in [`super::feed_forward`].
pub(super) struct Forward<'a, T> {
    pub(super) xs: &'a [T],
    pub(super) weights: &'a [T],
    pub(super) bias: &'a [T],
    pub(super) sizes: Sizes,
    pub(super) layer: Layer,
    pub(super) records: bool,
}

impl<T: Real> WithKernel<T> for Forward<'_, T> {
    type Output = (Vec<T>, Option<Record<T>>);

    fn run<K: Kernel<Element = T>>(self) -> Self::Output {
        let Sizes { layers, rows, size, gates } = self.sizes;
        if layers == 0 || rows == 0 || size == 0 {
            return (self.xs.to_vec(), None);
        }
        // What enters a layer is kept of every layer, or of the present one and the next.
        let slots = if self.records { layers } else { 2 };
        let vectors = self.sizes.vectors();
        let mut xs = workspace::take(slots * vectors * size * CHUNK);
        let kept = if self.records { layers } else { 1 };
        let mut values = workspace::take(kept * vectors * gates * size * CHUNK);
        let mut out = vec![T::zero(); rows * size];
        let pass = Pass {
            inputs: &self,
            slots,
            xs: Shared::new(&mut xs),
            values: Shared::new(&mut values),
            out: Shared::new(&mut out),
        };
        pool::run(|worker| {
            for block in pass.sizes().blocks(worker) {
                pass.first(block.clone());
                for layer in 0..layers {
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
            }
        });
        (out, self.records.then_some(Record { xs, values }))
    }
}

struct Pass<'a, T> {
    inputs: &'a Forward<'a, T>,
    slots: usize,
    xs: Shared<'a, T>,
    /// h, t and c of every layer, or of the present one.
    values: Shared<'a, T>,
    out: Shared<'a, T>,
}

impl<'a, T: Real> Pass<'a, T> {
    fn sizes(&self) -> Sizes {
        self.inputs.sizes
    }

    /// What enters the first layer, rows side by side; past the last row it is zero.
    fn first(&self, block: Range<usize>) {
        let Sizes { rows, size, .. } = self.sizes();
        for vector in block {
            // SAFETY: this worker's vectors.
            let xs = unsafe { self.xs.part(self.sizes().at(0, vector), size * CHUNK) };
            xs.fill(T::zero());
            for (lane, row) in (vector * CHUNK..rows.min((vector + 1) * CHUNK)).enumerate() {
                let values = &self.inputs.xs[row * size..][..size];
                xs[lane..].iter_mut().step_by(CHUNK).zip(values).for_each(|(x, &value)| *x = value);
            }
        }
    }

    #[inline(always)]
    fn layer<const FUSED: bool>(&self, layer: usize, block: Range<usize>) {
        let mut vector = block.start;
        while vector < block.end {
            let (vectors, most) = shape(block.end - vector);
            for columns in even_parts(self.width(), most) {
                by_shape!(vectors, columns.len(), products::<T, FUSED>(self, layer, vector, columns.start));
            }
            self.inputs.layer.constant(
                #[inline(always)]
                |kind| {
                    for vector in vector..vector + vectors {
                        self.mix::<FUSED>(kind, layer, vector);
                    }
                },
            );
            vector += vectors;
        }
    }

    /// Columns of a layer's weights.
    fn width(&self) -> usize {
        self.sizes().gates * self.sizes().size
    }

    /// The chunks of a vector's products.
    #[inline(always)]
    fn values(&self, layer: usize, vector: usize) -> &'a mut [T] {
        let layer = if self.inputs.records { layer } else { 0 };
        let at = self.sizes().at(layer, vector) * self.sizes().gates;
        // SAFETY: this worker's vectors.
        unsafe { self.values.part(at, self.width() * CHUNK) }
    }

    /// The chunks of what enters a layer.
    #[inline(always)]
    fn entering(&self, layer: usize, vector: usize) -> &'a mut [T] {
        let Sizes { size, .. } = self.sizes();
        // SAFETY: this worker's vectors.
        unsafe { self.xs.part(self.sizes().at(layer % self.slots, vector), size * CHUNK) }
    }

    /// What a layer makes of a vector's products, unit by unit.
    #[inline(always)]
    fn mix<const FUSED: bool>(&self, kind: Layer, layer: usize, vector: usize) {
        let Sizes { layers, rows, size, .. } = self.sizes();
        let gates = kind.gates();
        let values = self.values(layer, vector);
        let xs = self.entering(layer, vector);
        let mut next = (layer + 1 < layers).then(|| self.entering(layer + 1, vector));
        for unit in 0..size {
            let mut chunks: Values<T> = [[T::zero(); CHUNK]; MOST_GATES];
            for (gate, chunk) in chunks.iter_mut().enumerate().take(gates) {
                *chunk = load(values, (gate * size + unit) * CHUNK, CHUNK);
            }
            let y = kind.forward::<T, FUSED>(&mut chunks, load(xs, unit * CHUNK, CHUNK));
            for (gate, chunk) in chunks.iter().enumerate().take(gates) {
                store(&mut values[(gate * size + unit) * CHUNK..][..CHUNK], chunk);
            }
            match &mut next {
                Some(next) => store(&mut next[unit * CHUNK..][..CHUNK], &y),
                None => {
                    for (lane, row) in (vector * CHUNK..rows.min((vector + 1) * CHUNK)).enumerate() {
                        // SAFETY: this worker's rows.
                        let out = unsafe { self.out.part(row * size + unit, 1) };
                        out[0] = y[lane];
                    }
                }
            }
        }
    }
}

/// The products of `V` vectors with `U` columns of a layer's weights, and the bias.
#[inline(always)]
fn products<T: Real, const FUSED: bool, const V: usize, const U: usize>(
    pass: &Pass<'_, T>,
    layer: usize,
    vector: usize,
    column: usize,
) {
    let Sizes { size, .. } = pass.sizes();
    let width = pass.width();
    let weights = &pass.inputs.weights[layer * size * width..][..size * width];
    let bias = &pass.inputs.bias[layer * width + column..][..U];
    // Loops and not `from_fn`, which the compiler may leave as a call in the middle of a tile.
    let mut xs: [&[T]; V] = [&[]; V];
    for (v, xs) in xs.iter_mut().enumerate() {
        *xs = pass.entering(layer, vector + v);
    }
    let mut sums = [[[T::zero(); CHUNK]; V]; U];
    for (sums, &bias) in sums.iter_mut().zip(bias) {
        *sums = [[bias; CHUNK]; V];
    }
    let scalars = Scalars { data: &weights[column..], step: width, unit: 1 };
    multiply::<T, FUSED, V, U>(&mut sums, scalars, xs, CHUNK, size);
    for (u, sums) in sums.iter().enumerate() {
        for (v, sum) in sums.iter().enumerate() {
            store(&mut pass.values(layer, vector + v)[(column + u) * CHUNK..][..CHUNK], sum);
        }
    }
}
