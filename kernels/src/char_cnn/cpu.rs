//! Convolutions over characters by tables: for a block of filters, each character's products with the weights of each
//! offset.
//!
//! A table of sixteen filters fits the nearest cache while all words pass. Threads own blocks of filters.

use crate::cpu::instruction_set::WithKernel;
use crate::cpu::pool::{self, Worker};
use crate::cpu::real::Real;
use crate::cpu::shared::Shared;
use crate::cpu::tile::{Kernel, round_to_bf16};
use num_traits::Zero;

/// Filters of a block at most.
pub(crate) const LANES: usize = 16;

/// A number for each filter of a block.
pub(crate) type Line<T> = [T; LANES];

/// Words by characters that are numbered in the order of the alphabet, those that do not occur left out.
pub(crate) struct Words {
    /// `(words, length)`; 0 is the blank.
    rows: Vec<u32>,
    length: usize,
    /// Characters of each word up to the last that is not blank.
    lengths: Vec<usize>,
    /// The characters, the blank first.
    pub(crate) used: Vec<usize>,
}

impl Words {
    /// `spelling`: `(words, length)`, each below `alphabet`.
    pub(crate) fn new(spelling: &[u32], length: usize, alphabet: usize) -> Self {
        let mut row = vec![0; alphabet];
        spelling.iter().for_each(|&character| row[character as usize] = 1);
        let used: Vec<usize> =
            (0..alphabet).filter(|&character| character == 0 || row[character] == 1).collect();
        (0..).zip(&used).for_each(|(number, &character)| row[character] = number);
        let rows = spelling.iter().map(|&character| row[character as usize]).collect();
        let spelled =
            |word: &[u32]| word.iter().rposition(|&character| character != 0).map_or(0, |last| last + 1);
        Self { rows, length, lengths: spelling.chunks(length).map(spelled).collect(), used }
    }

    /// How many words there are.
    pub(crate) fn count(&self) -> usize {
        self.lengths.len()
    }

    /// A word's characters by their numbers.
    pub(crate) fn rows(&self, word: usize) -> &[u32] {
        &self.rows[word * self.length..][..self.length]
    }

    /// Positions that a filter is tried at: the first window of nothing but blanks stands for those after it.
    fn positions(&self, word: usize, width: usize) -> usize {
        (self.length - width + 1).min(self.lengths[word] + 1)
    }
}

/// What the features are computed from; row-major, shapes as in [`mod@crate::char_cnn`].
#[derive(Clone, Copy)]
pub(crate) struct Layer<'a, T> {
    pub(crate) words: &'a Words,
    /// Width and count.
    pub(crate) filters: &'a [(usize, usize)],
    pub(crate) characters: &'a [T],
    /// The weights of all widths, one after the other; so is the bias.
    pub(crate) weights: &'a [T],
    pub(crate) bias: &'a [T],
    pub(crate) char_size: usize,
}

/// Up to [`LANES`] filters of one width.
#[derive(Clone, Copy)]
pub(crate) struct Block {
    pub(crate) width: usize,
    /// The first one among all filters.
    pub(crate) filter: usize,
    pub(crate) lanes: usize,
    /// Where the first one's weights begin, and how far apart they are.
    pub(crate) weight: usize,
    pub(crate) stride: usize,
    /// Widths of the blocks before it: their work.
    before: usize,
}

impl<T: Real> Layer<'_, T> {
    pub(crate) fn blocks(&self) -> Vec<Block> {
        let mut blocks = Vec::new();
        let [mut filter, mut weight, mut before] = [0; 3];
        for &(width, count) in self.filters {
            for start in (0..count).step_by(LANES) {
                let lanes = LANES.min(count - start);
                let filter = filter + start;
                let weight = weight + start;
                blocks.push(Block { width, filter, lanes, weight, stride: count, before });
                before += width;
            }
            filter += count;
            weight += width * self.char_size * count;
        }
        blocks
    }

    /// Vectors of the characters that occur, as operands; the blank's is zero.
    pub(crate) fn vectors<K: Kernel<Element = T>>(&self) -> Vec<T> {
        let size = self.char_size;
        let vector = |&character: &usize| &self.characters[character * size..][..size];
        let mut vectors: Vec<T> = self.words.used.iter().flat_map(vector).copied().collect();
        vectors[..size].fill(T::zero());
        vectors.iter_mut().for_each(|value| *value = operand::<K>(*value));
        vectors
    }

    /// A block's weights as operands: a line for each offset and element of a character's vector.
    #[inline(always)]
    pub(crate) fn lines<K: Kernel<Element = T>>(&self, block: Block) -> Vec<Line<T>> {
        let line = |row: usize| {
            let mut line = [T::zero(); LANES];
            let weights = &self.weights[block.weight + row * block.stride..][..block.lanes];
            line.iter_mut().zip(weights).for_each(|(value, &weight)| *value = operand::<K>(weight));
            line
        };
        (0..block.width * self.char_size).map(line).collect()
    }
}

/// An operand as the kernel's products see it.
#[inline(always)]
pub(crate) fn operand<K: Kernel>(value: K::Element) -> K::Element {
    use candle_core::WithDType;
    if K::DEPTH == 1 {
        return value;
    }
    K::Element::from_f64(f32::from_bits(round_to_bf16(value.to_f64() as f32)).into())
}

/// The worker's blocks, by their work.
pub(crate) fn own(blocks: &[Block], worker: Worker<'_>) -> impl Iterator<Item = (usize, Block)> {
    let work = worker.share(blocks.iter().map(|block| block.width).sum());
    blocks.iter().copied().enumerate().filter(move |(_, block)| work.contains(&block.before))
}

#[inline(always)]
fn add<T: Real>(sums: &mut Line<T>, line: &Line<T>) {
    for lane in 0..LANES {
        sums[lane] += line[lane];
    }
}

#[inline(always)]
pub(crate) fn add_multiple<T: Real>(sums: &mut Line<T>, factor: T, line: &Line<T>) {
    for lane in 0..LANES {
        sums[lane] += factor * line[lane];
    }
}

/// The forward pass on whatever kernel is chosen: the features, `(words, filters)`, and where each filter responds most.
pub(crate) struct Forward<'a, T>(pub(crate) Layer<'a, T>);

impl<T: Real> WithKernel<T> for Forward<'_, T> {
    type Output = (Vec<T>, Vec<u32>);

    fn run<K: Kernel<Element = T>>(self) -> (Vec<T>, Vec<u32>) {
        let Self(layer) = self;
        let len = layer.words.count() * layer.bias.len();
        let mut values = vec![T::zero(); len];
        let mut positions = vec![0; len];
        let blocks = layer.blocks();
        let vectors = layer.vectors::<K>();
        let to_values = Shared::new(&mut values);
        let to_positions = Shared::new(&mut positions);
        pool::run(|worker| {
            for (_, block) in own(&blocks, worker) {
                let layer = &layer;
                let vectors = &vectors;
                let pass = Respond::<K> { layer, vectors, block, values: to_values, positions: to_positions };
                K::vectorized(
                    #[inline(always)]
                    || pass.run(),
                );
            }
        });
        (values, positions)
    }
}

/// A block's responses to all words.
struct Respond<'a, K: Kernel> {
    layer: &'a Layer<'a, K::Element>,
    vectors: &'a [K::Element],
    block: Block,
    values: Shared<'a, K::Element>,
    positions: Shared<'a, u32>,
}

impl<K: Kernel> Respond<'_, K> {
    #[inline(always)]
    fn run(&self) {
        let Layer { words, bias, .. } = *self.layer;
        let Block { filter, lanes, .. } = self.block;
        let mut shift = [K::Element::zero(); LANES];
        shift[..lanes].copy_from_slice(&bias[filter..][..lanes]);
        let table = self.table();
        for word in 0..words.count() {
            let (mut highest, positions) = self.highest(&table, word);
            for lane in 0..LANES {
                let x = highest[lane] + shift[lane];
                highest[lane] = if K::FUSED { x.fast_tanh::<true>() } else { x.fast_tanh::<false>() };
            }
            let at = word * bias.len() + filter;
            // SAFETY: this block's filters, which no other worker has.
            unsafe {
                self.values.part(at, lanes).copy_from_slice(&highest[..lanes]);
                self.positions.part(at, lanes).copy_from_slice(&positions[..lanes]);
            }
        }
    }

    /// For each offset in the window and each character, the block's products.
    #[inline(always)]
    fn table(&self) -> Vec<Line<K::Element>> {
        let size = self.layer.char_size;
        let mut table = Vec::with_capacity(self.block.width * self.layer.words.used.len());
        for lines in self.layer.lines::<K>(self.block).chunks(size) {
            for vector in self.vectors.chunks(size) {
                let mut sums = [K::Element::zero(); LANES];
                vector.iter().zip(lines).for_each(|(&value, line)| add_multiple(&mut sums, value, line));
                table.push(sums);
            }
        }
        table
    }

    /// The highest response to a word, and its position; not-a-number counts as higher than all.
    #[inline(always)]
    fn highest(&self, table: &[Line<K::Element>], word: usize) -> (Line<K::Element>, Line<u32>) {
        use num_traits::Float;
        let words = self.layer.words;
        let used = self.layer.words.used.len();
        let rows = words.rows(word);
        let mut highest = [K::Element::neg_infinity(); LANES];
        let mut positions = [0; LANES];
        for position in 0..words.positions(word, self.block.width) {
            let window = &rows[position..position + self.block.width];
            let mut sums = table[window[0] as usize];
            for (offset, &row) in (1..).zip(&window[1..]) {
                add(&mut sums, &table[offset * used + row as usize]);
            }
            for lane in 0..LANES {
                let higher = sums[lane] > highest[lane] || sums[lane].is_nan();
                highest[lane] = if higher { sums[lane] } else { highest[lane] };
                positions[lane] = if higher { position as u32 } else { positions[lane] };
            }
        }
        (highest, positions)
    }
}

#[cfg(test)]
mod tests {
    use super::Words;

    #[test]
    fn characters_that_do_not_occur_are_left_out() {
        let words = Words::new(&[1, 7, 4, 0, 1, 4, 0, 0], 4, 9);
        assert_eq!(words.used, [0, 1, 4, 7]);
        assert_eq!(words.rows, [1, 3, 2, 0, 1, 2, 0, 0]);
        assert_eq!(words.lengths, [3, 2]);
        assert_eq!([words.positions(0, 1), words.positions(1, 1), words.positions(1, 3)], [4, 3, 2]);
    }
}
