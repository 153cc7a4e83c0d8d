//! Convolutions over letters by tables: for a block of filters, each letter's products with the weights of each offset.
//!
//! A table of sixteen filters fits the nearest cache while all words pass. Threads own blocks of filters.

use crate::cpu::instruction_set::WithKernel;
use crate::cpu::pool::{self, Worker};
use crate::cpu::real::Real;
use crate::cpu::shared::Shared;
use crate::cpu::tile::{Kernel, Work, round_to_bf16};
use num_traits::Zero;

/// Filters of a block at most.
pub(crate) const LANES: usize = 16;

/// A number for each filter of a block.
pub(crate) type Line<T> = [T; LANES];

/// Words by letters that are numbered in the order of the alphabet, those that do not occur left out.
pub(crate) struct Words {
    /// `(words, length)`; 0 is the blank.
    rows: Vec<u32>,
    length: usize,
    /// Letters of each word up to the last that is not blank.
    lengths: Vec<usize>,
    /// The letters, the blank first.
    pub(crate) used: Vec<usize>,
}

impl Words {
    /// `letters`: `(words, length)`, each below `alphabet`.
    pub(crate) fn new(letters: &[u32], length: usize, alphabet: usize) -> Self {
        let mut row = vec![0; alphabet];
        letters.iter().for_each(|&letter| row[letter as usize] = 1);
        let used: Vec<usize> = (0..alphabet).filter(|&letter| letter == 0 || row[letter] == 1).collect();
        (0..).zip(&used).for_each(|(number, &letter)| row[letter] = number);
        let rows = letters.iter().map(|&letter| row[letter as usize]).collect();
        let spelled = |word: &[u32]| word.iter().rposition(|&letter| letter != 0).map_or(0, |last| last + 1);
        Self { rows, length, lengths: letters.chunks(length).map(spelled).collect(), used }
    }

    /// How many words there are.
    pub(crate) fn count(&self) -> usize {
        self.lengths.len()
    }

    /// A word's letters by their numbers.
    pub(crate) fn rows(&self, word: usize) -> &[u32] {
        &self.rows[word * self.length..][..self.length]
    }

    /// Places that a filter is tried at: the first window of nothing but blanks stands for those after it.
    fn places(&self, word: usize, width: usize) -> usize {
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
    /// Of all widths, one after the other; so is the bias.
    pub(crate) weights: &'a [T],
    pub(crate) bias: &'a [T],
    pub(crate) char_size: usize,
}

/// Features by their kernel.
pub(crate) struct Features<T> {
    /// `(words, filters)`.
    pub(crate) values: Vec<T>,
    /// `(words, filters)`: where each filter responds most.
    pub(crate) places: Vec<u32>,
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
                blocks.push(Block {
                    width,
                    filter: filter + start,
                    lanes,
                    weight: weight + start,
                    stride: count,
                    before,
                });
                before += width;
            }
            filter += count;
            weight += width * self.char_size * count;
        }
        blocks
    }

    /// Vectors of the letters that occur, as operands; the blank's is zero.
    pub(crate) fn letters<K: Kernel<Element = T>>(&self) -> Vec<T> {
        let size = self.char_size;
        let mut letters: Vec<T> = self
            .words
            .used
            .iter()
            .flat_map(|&letter| &self.characters[letter * size..][..size])
            .copied()
            .collect();
        letters[..size].fill(T::zero());
        letters.iter_mut().for_each(|value| *value = operand::<K>(*value));
        letters
    }

    /// A block's weights as operands: a line for each offset and element of a letter's vector.
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

/// The forward pass on whatever kernel is chosen.
pub(crate) struct Forward<'a, T>(pub(crate) Layer<'a, T>);

impl<T: Real> WithKernel<T> for Forward<'_, T> {
    type Output = Features<T>;

    fn run<K: Kernel<Element = T>>(self) -> Features<T> {
        let Self(layer) = self;
        let len = layer.words.count() * layer.bias.len();
        let mut values = vec![T::zero(); len];
        let mut places = vec![0; len];
        let blocks = layer.blocks();
        let letters = layer.letters::<K>();
        let shared = Shared::new(&mut values);
        let shared_places = Shared::new(&mut places);
        pool::run(|worker| {
            for (_, block) in own(&blocks, worker) {
                let letters = &letters;
                K::vectorized(Respond::<K> {
                    layer: &layer,
                    letters,
                    block,
                    values: shared,
                    places: shared_places,
                });
            }
        });
        Features { values, places }
    }
}

/// A block's responses to all words.
struct Respond<'a, K: Kernel> {
    layer: &'a Layer<'a, K::Element>,
    letters: &'a [K::Element],
    block: Block,
    values: Shared<'a, K::Element>,
    places: Shared<'a, u32>,
}

impl<K: Kernel> Work for Respond<'_, K> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Layer { words, bias, .. } = *self.layer;
        let Block { filter, lanes, .. } = self.block;
        let mut shift = [K::Element::zero(); LANES];
        shift[..lanes].copy_from_slice(&bias[filter..][..lanes]);
        let table = self.table();
        for word in 0..words.count() {
            let (mut highest, places) = self.highest(&table, word);
            for lane in 0..LANES {
                let x = highest[lane] + shift[lane];
                highest[lane] = if K::FUSED { x.fast_tanh::<true>() } else { x.fast_tanh::<false>() };
            }
            let at = word * bias.len() + filter;
            // SAFETY: this block's filters, which no other worker has.
            unsafe {
                self.values.part(at, lanes).copy_from_slice(&highest[..lanes]);
                self.places.part(at, lanes).copy_from_slice(&places[..lanes]);
            }
        }
    }
}

impl<K: Kernel> Respond<'_, K> {
    /// For each offset in the window and each letter, the block's products.
    #[inline(always)]
    fn table(&self) -> Vec<Line<K::Element>> {
        let size = self.layer.char_size;
        let mut table = Vec::with_capacity(self.block.width * self.layer.words.used.len());
        for lines in self.layer.lines::<K>(self.block).chunks(size) {
            for letter in self.letters.chunks(size) {
                let mut sums = [K::Element::zero(); LANES];
                letter.iter().zip(lines).for_each(|(&value, line)| add_multiple(&mut sums, value, line));
                table.push(sums);
            }
        }
        table
    }

    /// The highest response to a word, and its place; not-a-number counts as higher than all.
    #[inline(always)]
    fn highest(&self, table: &[Line<K::Element>], word: usize) -> (Line<K::Element>, Line<u32>) {
        use num_traits::Float;
        let words = self.layer.words;
        let letters = self.layer.words.used.len();
        let rows = words.rows(word);
        let mut highest = [K::Element::neg_infinity(); LANES];
        let mut places = [0; LANES];
        for place in 0..words.places(word, self.block.width) {
            let window = &rows[place..place + self.block.width];
            let mut sums = table[window[0] as usize];
            for (offset, &row) in (1..).zip(&window[1..]) {
                add(&mut sums, &table[offset * letters + row as usize]);
            }
            for lane in 0..LANES {
                let higher = sums[lane] > highest[lane] || sums[lane].is_nan();
                highest[lane] = if higher { sums[lane] } else { highest[lane] };
                places[lane] = if higher { place as u32 } else { places[lane] };
            }
        }
        (highest, places)
    }
}

#[cfg(test)]
mod tests {
    use super::Words;

    #[test]
    fn letters_that_do_not_occur_are_left_out() {
        let words = Words::new(&[1, 7, 4, 0, 1, 4, 0, 0], 4, 9);
        assert_eq!(words.used, [0, 1, 4, 7]);
        assert_eq!(words.rows, [1, 3, 2, 0, 1, 2, 0, 0]);
        assert_eq!(words.lengths, [3, 2]);
        assert_eq!([words.places(0, 1), words.places(1, 1), words.places(1, 3)], [4, 3, 2]);
    }
}
