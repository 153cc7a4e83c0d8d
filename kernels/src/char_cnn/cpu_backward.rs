//! Convolutions over characters backward: each word's gradient goes into a table of its block, and from there to the
//! weights and the characters.
//!
//! Threads own blocks of filters; the characters' gradients are summed block by block in the end, so that any number
//! of threads gives the same bits.

use crate::char_cnn::cpu::{Block, LANES, Layer, Line, add_multiple, operand, own};
use crate::cpu::instruction_set::WithKernel;
use crate::cpu::pool;
use crate::cpu::real::Real;
use crate::cpu::shared::Shared;
use crate::cpu::tile::Kernel;
use crate::cpu::workspace;
use num_traits::Zero;

/// The backward pass on whatever kernel is chosen: the gradients of the characters, the weights and the bias.
pub(crate) struct Backward<'a, T> {
    pub(crate) layer: Layer<'a, T>,
    /// The features.
    pub(crate) ys: &'a [T],
    pub(crate) positions: &'a [u32],
    pub(crate) grad: &'a [T],
}

impl<T: Real> WithKernel<T> for Backward<'_, T> {
    type Output = [Vec<T>; 3];

    fn run<K: Kernel<Element = T>>(self) -> [Vec<T>; 3] {
        let Layer { words, characters, weights, bias, char_size, .. } = self.layer;
        let [mut characters, mut weights, mut bias] =
            [characters, weights, bias].map(|values| vec![T::zero(); values.len()]);
        let blocks = self.layer.blocks();
        let vectors = self.layer.vectors::<K>();
        let mut parts = workspace::take::<T>(blocks.len() * vectors.len());
        let to_weights = Shared::new(&mut weights);
        let to_bias = Shared::new(&mut bias);
        let to_characters = Shared::new(&mut characters);
        let to_parts = Shared::new(&mut parts);
        pool::run(|worker| {
            for (index, block) in own(&blocks, worker) {
                // SAFETY: blocks are shared out.
                let part = unsafe { to_parts.part(index * vectors.len(), vectors.len()) };
                let pass = &self;
                let vectors = &vectors;
                let mut pass = Return::<K> { pass, vectors, block, weights: to_weights, bias: to_bias, part };
                K::vectorized(
                    #[inline(always)]
                    || pass.run(),
                );
            }
            worker.barrier();
            for row in worker.share(words.used.len() - 1).map(|row| row + 1) {
                // SAFETY: all parts are written, and characters are shared out; the blank's gradient stays zero.
                let (parts, grad) = unsafe {
                    let grad = to_characters.part(words.used[row] * char_size, char_size);
                    (to_parts.read(0, blocks.len() * vectors.len()), grad)
                };
                for part in parts.chunks(vectors.len()) {
                    grad.iter_mut().zip(&part[row * char_size..]).for_each(|(sum, &term)| *sum += term);
                }
            }
        });
        [characters, weights, bias]
    }
}

/// A block's gradients.
struct Return<'a, K: Kernel> {
    pass: &'a Backward<'a, K::Element>,
    vectors: &'a [K::Element],
    block: Block,
    weights: Shared<'a, K::Element>,
    bias: Shared<'a, K::Element>,
    /// The characters' gradient by way of this block.
    part: &'a mut [K::Element],
}

impl<K: Kernel> Return<'_, K> {
    #[inline(always)]
    fn run(&mut self) {
        let used = self.pass.layer.words.used.len();
        let mut table = vec![[K::Element::zero(); LANES]; self.block.width * used];
        self.scatter(&mut table);
        table.iter_mut().step_by(used).for_each(|blank| *blank = [K::Element::zero(); LANES]);
        table.iter_mut().flatten().for_each(|value| *value = operand::<K>(*value));
        self.weight_grads(&table);
        self.character_grads(&table);
    }

    /// Each word's gradient goes to the characters that its filters saw where they responded most.
    #[inline(always)]
    fn scatter(&self, table: &mut [Line<K::Element>]) {
        use num_traits::One;
        let Backward { layer, ys, positions, grad } = self.pass;
        let Block { width, filter, lanes, .. } = self.block;
        let used = layer.words.used.len();
        let mut sums = [K::Element::zero(); LANES];
        for word in 0..layer.words.count() {
            let rows = layer.words.rows(word);
            let at = word * layer.bias.len() + filter;
            let ys = &ys[at..][..lanes];
            let grad = &grad[at..][..lanes];
            let positions = &positions[at..][..lanes];
            for lane in 0..lanes {
                let grad = grad[lane] * (K::Element::one() - ys[lane] * ys[lane]);
                sums[lane] += grad;
                for (offset, &row) in rows[positions[lane] as usize..][..width].iter().enumerate() {
                    table[offset * used + row as usize][lane] += grad;
                }
            }
        }
        // SAFETY: this block's filters, which no other worker has.
        unsafe { self.bias.part(filter, lanes) }.copy_from_slice(&sums[..lanes]);
    }

    /// The characters' vectors times the table.
    #[inline(always)]
    fn weight_grads(&self, table: &[Line<K::Element>]) {
        let Layer { words, char_size, .. } = self.pass.layer;
        let Block { lanes, weight, stride, .. } = self.block;
        for (offset, table) in table.chunks(words.used.len()).enumerate() {
            for k in 0..char_size {
                let mut sums = [K::Element::zero(); LANES];
                for (line, &value) in table.iter().zip(self.vectors[k..].iter().step_by(char_size)) {
                    add_multiple(&mut sums, value, line);
                }
                // SAFETY: this block's filters, which no other worker has.
                let to = unsafe { self.weights.part(weight + (offset * char_size + k) * stride, lanes) };
                to.copy_from_slice(&sums[..lanes]);
            }
        }
    }

    /// The table times the weights.
    #[inline(always)]
    fn character_grads(&mut self, table: &[Line<K::Element>]) {
        let Layer { words, char_size, .. } = self.pass.layer;
        let lines = self.pass.layer.lines::<K>(self.block);
        for (row, part) in self.part.chunks_mut(char_size).enumerate() {
            for (k, grad) in part.iter_mut().enumerate() {
                let mut sums = [K::Element::zero(); LANES];
                for (table, lines) in table.chunks(words.used.len()).zip(lines.chunks(char_size)) {
                    for lane in 0..LANES {
                        sums[lane] += table[row][lane] * lines[k][lane];
                    }
                }
                *grad = total(sums);
            }
        }
    }
}

/// The sum of all lanes, by halves.
#[inline(always)]
fn total<T: Real>(mut sums: Line<T>) -> T {
    for half in [8, 4, 2, 1] {
        for lane in 0..half {
            sums[lane] += sums[lane + half];
        }
    }
    sums[0]
}
