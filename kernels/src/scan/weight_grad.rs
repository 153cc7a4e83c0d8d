//! The gradient of a sublayer's recurrent weights, from a window's record as it lies: what entered the products, transposed,
//! times the gradients of their results. The vectors of units that the record keeps are columns side by side already, so
//! nothing is laid out row by row first, and where a step's vectors are just a panel's line, nothing is packed.

use super::cell::Pointwise;
use super::window::WindowRecord;
use crate::cpu::pool::{self, Worker};
use crate::cpu::shared::Shared;
use crate::cpu::tile::{Kernel, MOST_COLUMNS, MOST_ROWS, Operands, Sums, even_part};
use crate::cpu::workspace::{self, Buffer};
use num_traits::Zero;
use std::marker::PhantomData;
use std::ops::Range;

/// Bytes of a panel that are multiplied with all units before the next part: they come from a core's second cache, which is
/// fast enough for twelve rows, and the result is read and written once a part.
const PART: usize = 40 << 10;

/// Writes `(hidden, gates · hidden)` of one sublayer, or adds it to what is there. Each sum runs over the steps and batch rows in their order, as that of a
/// product of the same values in rows.
pub(super) fn weight_grad<K: Kernel, C: Pointwise>(
    record: &WindowRecord<K::Element>,
    sublayer: usize,
    out: &mut [K::Element],
    add: bool,
) {
    let hidden = record.sizes.hidden;
    let steps = even_part(K::steps(record.layout.rows), PART / (K::columns() * size_of::<K::Column>()));
    let mut left = workspace::take::<K::Row>(steps * hidden);
    let pass = WeightGrad::<K, C> {
        record,
        sublayer,
        steps,
        left: Shared::new(&mut left),
        out: Shared::new(out),
        add,
        cell: PhantomData,
    };
    pool::run(|worker| pass.run(worker));
}

struct WeightGrad<'a, K: Kernel, C> {
    record: &'a WindowRecord<K::Element>,
    sublayer: usize,
    /// Steps of a part of the inner dimension, which are batch rows or in bf16 two of them.
    steps: usize,
    /// A part of the states, in tiles of units.
    left: Shared<'a, K::Row>,
    out: Shared<'a, K::Element>,
    /// Whether the sums go on top of what is in `out`.
    add: bool,
    cell: PhantomData<C>,
}

/// A panel's two vectors of columns: of which gate, and of which vector of units.
type Halves = [Option<(usize, usize)>; 2];

impl<K: Kernel, C: Pointwise> WeightGrad<'_, K, C> {
    fn run(&self, worker: Worker<'_>) {
        let rows = self.record.layout.rows;
        let panels = (C::GATES * self.record.layout.vectors).div_ceil(2);
        let own = worker.share(panels);
        let mut packed = self.in_place(0, 0..0).is_none().then(|| workspace::take(self.steps * K::columns()));
        for start in (0..rows).step_by(self.steps * K::DEPTH) {
            let part = start..rows.min(start + self.steps * K::DEPTH);
            for tile in worker.share(self.tiles()) {
                self.pack_left(&part, tile);
            }
            worker.barrier();
            for panel in own.clone() {
                self.panel(&part, panel, packed.as_mut());
            }
            worker.barrier();
        }
    }

    fn tiles(&self) -> usize {
        self.record.sizes.hidden.div_ceil(K::TILES.len())
    }

    fn tile(&self, index: usize) -> Range<usize> {
        let most = K::TILES.len();
        index * most..self.record.sizes.hidden.min((index + 1) * most)
    }

    fn halves(&self, panel: usize) -> Halves {
        [2 * panel, 2 * panel + 1].map(|column| {
            (column < C::GATES * self.record.layout.vectors).then_some((column % C::GATES, column / C::GATES))
        })
    }

    /// The values of a part of the inner dimension of a tile of units, the units of a step side by side.
    fn pack_left(&self, part: &Range<usize>, tile: usize) {
        let units = self.tile(tile);
        let steps = K::steps(part.len());
        // SAFETY: workers' tiles are disjoint, and are read only after a barrier.
        let packed = unsafe { self.left.part(units.start * steps, units.len() * steps) };
        let mut first = units.start;
        while first < units.end {
            let end = units.end.min((first / K::LANES + 1) * K::LANES);
            let position = self.record.layout.vector(self.sublayer, first / K::LANES, part.start);
            let from = &self.record.states[C::STATES * position * K::LANES + first % K::LANES..];
            let to = &mut packed[first - units.start..];
            K::vectorized(
                #[inline(always)]
                || match end - first {
                    2 => copy_units::<K>(to, units.len(), from, C::STATES * K::LANES, part.len(), 2),
                    4 => copy_units::<K>(to, units.len(), from, C::STATES * K::LANES, part.len(), 4),
                    6 => copy_units::<K>(to, units.len(), from, C::STATES * K::LANES, part.len(), 6),
                    8 => copy_units::<K>(to, units.len(), from, C::STATES * K::LANES, part.len(), 8),
                    12 => copy_units::<K>(to, units.len(), from, C::STATES * K::LANES, part.len(), 12),
                    count => copy_units::<K>(to, units.len(), from, C::STATES * K::LANES, part.len(), count),
                },
            );
            first = end;
        }
    }

    /// A panel as it lies in the record, if it does.
    fn in_place(&self, panel: usize, part: Range<usize>) -> Option<&[K::Column]> {
        let values = K::as_columns(&self.record.saved).filter(|_| C::GATES == 2 && C::SAVED == 2)?;
        let start = self.record.layout.vector(self.sublayer, panel, part.start) * K::columns();
        Some(&values[start..start + part.len() * K::columns()])
    }

    /// Packs a panel: for each step a vector of columns beside another.
    fn pack<'a>(&self, part: &Range<usize>, panel: usize, packed: &'a mut [K::Column]) -> &'a [K::Column] {
        let packed = &mut packed[..K::steps(part.len()) * K::columns()];
        for (half, column) in self.halves(panel).into_iter().enumerate() {
            let to = &mut packed[half * K::LANES..];
            let Some((gate, vector)) = column else {
                to.chunks_mut(K::columns()).for_each(|line| line[..K::LANES].fill(K::Column::default()));
                continue;
            };
            let position = self.record.layout.vector(self.sublayer, vector, part.start);
            let from = &self.record.saved[(C::SAVED * position + gate) * K::LANES..];
            K::vectorized(
                #[inline(always)]
                || copy_columns::<K>(to, from, C::SAVED * K::LANES, part.len()),
            );
        }
        packed
    }

    /// All units times one panel.
    fn panel(&self, part: &Range<usize>, panel: usize, packed: Option<&mut Buffer<K::Column>>) {
        // Where panels lie in place, the next one begins as far behind this one as this one has rows in all parts. What is
        // packed is near already.
        let (columns, next) = match packed {
            Some(packed) => (self.pack(part, panel, packed), 0),
            None => {
                let columns = self.in_place(panel, part.clone()).expect("panels that lie in the record");
                (columns, self.record.layout.rows * K::columns() * size_of::<K::Column>())
            }
        };
        let steps = K::steps(part.len());
        let advance = (K::columns() * size_of::<K::Column>()).div_ceil(self.tiles());
        for (index, units) in (0..self.tiles()).map(|index| (index, self.tile(index))) {
            // SAFETY: packed before the barrier, and not written until the next one.
            let left = unsafe { self.left.read(units.start * steps, units.len() * steps) };
            let operands = Operands {
                rows: left.as_ptr(),
                panel: columns.as_ptr(),
                steps,
                ahead: columns.as_ptr().cast::<u8>().wrapping_add(next + index * advance * steps),
                advance,
            };
            self.multiply(operands, units, panel, self.add || part.start > 0);
        }
    }

    /// A tile's sums, on top of those of the parts before if there were any.
    fn multiply(&self, operands: Operands<K::Row, K::Column>, units: Range<usize>, panel: usize, add: bool) {
        let mut sums = [K::Element::zero(); MOST_ROWS * MOST_COLUMNS];
        if add {
            self.each_target(units.clone(), panel, |target, at, width| {
                copy::<K>(&mut sums[at..], target, width);
            });
        }
        let tile = K::TILES[units.len() - 1];
        // SAFETY: `with_kernel` chose a kernel that the processor has; `sums` holds the largest tile.
        unsafe { tile(operands, Sums { out: sums.as_mut_ptr(), stride: K::columns(), add }) };
        self.each_target(units, panel, |target, at, width| copy::<K>(target, &sums[at..], width));
    }

    /// Calls `each` with where a unit's and a half's sums go, where they are in a tile's sums, and how many there are.
    #[inline(always)]
    fn each_target(
        &self,
        units: Range<usize>,
        panel: usize,
        mut each: impl FnMut(&mut [K::Element], usize, usize),
    ) {
        let hidden = self.record.sizes.hidden;
        for (half, column) in self.halves(panel).into_iter().enumerate() {
            let Some((gate, vector)) = column else { continue };
            let start = vector * K::LANES;
            let width = K::LANES.min(hidden - start);
            for (row, unit) in units.clone().enumerate() {
                let at = (unit * C::GATES + gate) * hidden + start;
                // SAFETY: this worker's panels, whose columns no other has.
                each(unsafe { self.out.part(at, width) }, row * K::columns() + half * K::LANES, width);
            }
        }
    }
}

/// `width` values, at most a vector.
#[inline(always)]
fn copy<K: Kernel>(to: &mut [K::Element], from: &[K::Element], width: usize) {
    if width == K::LANES {
        to[..K::LANES].copy_from_slice(&from[..K::LANES]); // of a known length: no call
    } else {
        to[..width].copy_from_slice(&from[..width]);
    }
}

/// `count` units of each batch row, `stride` values apart, into steps that are `line` apart.
#[inline(always)]
fn copy_units<K: Kernel>(
    to: &mut [K::Row],
    line: usize,
    from: &[K::Element],
    stride: usize,
    rows: usize,
    count: usize,
) {
    for (step, to) in to.chunks_mut(line).take(K::steps(rows)).enumerate() {
        let row = step * K::DEPTH;
        let first = &from[row * stride..][..count];
        if K::DEPTH == 2 && row + 1 < rows {
            let second = &from[(row + 1) * stride..][..count];
            let pairs = first.iter().zip(second);
            to[..count].iter_mut().zip(pairs).for_each(|(to, (&a, &b))| *to = K::row([a, b]));
        } else {
            to[..count].iter_mut().zip(first).for_each(|(to, &a)| *to = K::row([a, K::Element::zero()]));
        }
    }
}

/// A vector of columns of each batch row, `stride` values apart, into the lines of a panel.
#[inline(always)]
fn copy_columns<K: Kernel>(to: &mut [K::Column], from: &[K::Element], stride: usize, rows: usize) {
    for (step, to) in to.chunks_mut(K::columns()).enumerate() {
        let row = step * K::DEPTH;
        let first = &from[row * stride..][..K::LANES];
        if K::DEPTH == 2 && row + 1 < rows {
            let second = &from[(row + 1) * stride..][..K::LANES];
            let pairs = first.iter().zip(second);
            to[..K::LANES].iter_mut().zip(pairs).for_each(|(to, (&a, &b))| *to = K::column([a, b]));
        } else {
            let zero = K::Element::zero();
            to[..K::LANES].iter_mut().zip(first).for_each(|(to, &a)| *to = K::column([a, zero]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::gemm::{Target, product};
    use crate::cpu::instruction_set::{Computed, InstructionSet, WithKernel};
    use crate::cpu::panels::View;
    use crate::cpu::pool::with_threads;
    use crate::rng::Rng;
    use crate::scan::cpu_grads::gather;
    use crate::scan::window::{WindowLayout, WindowSizes};
    use crate::scan::{Gru, Lstm, Rhn};

    /// The gradient of a made-up record, and what the product of its values in rows makes of it.
    struct Both<C>([usize; 3], PhantomData<C>);

    impl<C: Pointwise> WithKernel<f32> for Both<C> {
        type Output = [Vec<f32>; 2];

        fn run<K: Kernel<Element = f32>>(self) -> Self::Output {
            let [time, batch, hidden] = self.0;
            let sizes = WindowSizes { time, batch, depth: 2, hidden };
            let layout = WindowLayout { vectors: hidden.div_ceil(K::LANES), rows: time * batch };
            let random = |count: usize, purpose: &str| {
                let mut rng = Rng::keyed(5, purpose, 0);
                let mut values = workspace::take(count * layout.vector(2, 0, 0) * K::LANES);
                values.iter_mut().for_each(|value| *value = (rng.uniform() - 0.5) as f32);
                values
            };
            let states = random(C::STATES, "states");
            let saved = random(C::SAVED, "saved");
            let record = WindowRecord { sizes, mask: None, layout, states, entered: Vec::new(), saved };
            let width = C::GATES * hidden;
            let mut found = vec![f32::NAN; hidden * width];
            weight_grad::<K, C>(&record, 1, &mut found, false);

            let mut states = vec![0.0; layout.rows * hidden];
            let mut grads = vec![0.0; layout.rows * width];
            let gates: Vec<usize> = (0..C::GATES).collect();
            gather::<K>(&record.states, C::STATES, &[0], &record, 1, &mut states);
            gather::<K>(&record.saved, C::SAVED, &gates, &record, 1, &mut grads);
            let mut wanted = vec![0.0; hidden * width];
            product(
                Target::new(&mut wanted, hidden, width),
                View::new(&states, layout.rows, hidden).t(),
                View::new(&grads, layout.rows, width),
                false,
                K::DEPTH == 2,
            );
            [found, wanted]
        }
    }

    fn assert_is_the_product<C: Pointwise>(sizes: [usize; 3]) {
        for set in InstructionSet::available() {
            for bf16 in [false, true] {
                for threads in [1, 3] {
                    let both = || f32::with_kernel(bf16, Both::<C>(sizes, PhantomData));
                    let [found, wanted] = with_threads(threads, || set.force(both));
                    assert_eq!(found, wanted, "{} {set:?} {bf16} {threads} {sizes:?}", C::NAME);
                }
            }
        }
    }

    #[test]
    fn a_record_as_it_lies_gives_the_bits_of_the_product_of_its_rows() {
        for sizes in [[5, 3, 40], [7, 3, 16], [41, 17, 21]] {
            assert_is_the_product::<Rhn>(sizes);
            assert_is_the_product::<Lstm>(sizes);
            assert_is_the_product::<Gru>(sizes);
        }
    }
}
