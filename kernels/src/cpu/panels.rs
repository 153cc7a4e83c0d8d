//! Matrices packed for the tiles: panels two vectors of columns wide, laid out as they are read.

use crate::cpu::tile::Kernel;
use num_traits::Zero;

/// A matrix in memory: element `(row, column)` is at `row · row_stride + column · column_stride`.
#[derive(Clone, Copy)]
pub(crate) struct View<'a, T> {
    pub(crate) data: &'a [T],
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) row_stride: usize,
    pub(crate) column_stride: usize,
}

impl<'a, T> View<'a, T> {
    /// `data` holds `rows × columns` values, row by row.
    pub(crate) fn new(data: &'a [T], rows: usize, columns: usize) -> Self {
        assert_eq!(data.len(), rows * columns, "a {rows} × {columns} matrix");
        Self { data, rows, columns, row_stride: columns, column_stride: 1 }
    }

    /// The transpose, nothing moved.
    pub(crate) fn t(self) -> Self {
        let Self { data, rows, columns, row_stride, column_stride } = self;
        Self { data, rows: columns, columns: rows, row_stride: column_stride, column_stride: row_stride }
    }

    /// Columns `start .. start + count`.
    pub(crate) fn columns(self, start: usize, count: usize) -> Self {
        assert!(start + count <= self.columns, "{count} columns from {start} of {}", self.columns);
        let from = if self.rows == 0 || count == 0 { 0 } else { start * self.column_stride };
        Self { data: &self.data[from..], columns: count, ..self }
    }

    /// Rows `start .. start + count`.
    pub(crate) fn rows(self, start: usize, count: usize) -> Self {
        self.t().columns(start, count).t()
    }
}

/// Fills one half of a panel, one vector wide, with `view` (inner × at most `LANES`); the rest becomes zero.
///
/// `panel` begins at the half's first column and has a line of `K::columns()` for each step.
#[inline(always)]
pub(crate) fn pack_half<K: Kernel>(panel: &mut [K::Column], view: View<'_, K::Element>) {
    if view.rows % K::DEPTH != 0 || view.columns < K::LANES {
        let zero = K::column([K::Element::zero(); 2]);
        panel.chunks_mut(K::columns()).for_each(|line| line[..K::LANES].fill(zero));
    }
    if view.column_stride == 1 { pack_rows::<K>(panel, view) } else { pack_columns::<K>(panel, view) }
}

/// Fills some steps of several whole panels, `len` columns apart, from rows of `view` that lie side by side: what the
/// panels have of a row is read at once.
///
/// `panels` begins at the first of them, `view` has `K::columns()` columns for each and at least as many rows as the steps take.
#[inline(always)]
pub(crate) fn pack_strip<K: Kernel>(
    panels: &mut [K::Column],
    len: usize,
    view: View<'_, K::Element>,
    steps: usize,
) {
    let width = K::columns();
    for step in 0..steps {
        let row = |depth: usize| &view.data[(step * K::DEPTH + depth) * view.row_stride..][..view.columns];
        let [first, last] = [row(0), row(K::DEPTH - 1)].map(|row| row.chunks_exact(K::LANES));
        let mut vectors = first.zip(last);
        for panel in 0..view.columns / width {
            for half in 0..2 {
                let Some((first, last)) = vectors.next() else { return };
                let to = &mut panels[panel * len + step * width + half * K::LANES..][..K::LANES];
                let both = first.iter().zip(last);
                to.iter_mut().zip(both).for_each(|(to, (&first, &last))| *to = K::column([first, last]));
            }
        }
    }
}

/// Columns that lie side by side: whole rows are copied.
#[inline(always)]
fn pack_rows<K: Kernel>(panel: &mut [K::Column], view: View<'_, K::Element>) {
    let row = |k: usize| &view.data[k * view.row_stride..][..view.columns];
    for (step, line) in panel.chunks_mut(K::columns()).enumerate() {
        let k = step * K::DEPTH;
        if K::DEPTH == 1 {
            line.iter_mut().zip(row(k)).for_each(|(slot, &value)| *slot = K::column([value, value]));
        } else if k + 1 < view.rows {
            for (slot, (&first, &second)) in line.iter_mut().zip(row(k).iter().zip(row(k + 1))) {
                *slot = K::column([first, second]);
            }
        } else {
            for (slot, &last) in line.iter_mut().zip(row(k)) {
                *slot = K::column([last, K::Element::zero()]);
            }
        }
    }
}

/// Columns that lie anywhere, each along the inner dimension; some steps at a time, so that their lines stay near.
#[inline(always)]
fn pack_columns<K: Kernel>(panel: &mut [K::Column], view: View<'_, K::Element>) {
    const STEPS: usize = 64;
    for (block, lines) in panel.chunks_mut(STEPS * K::columns()).enumerate() {
        let first = block * STEPS * K::DEPTH;
        let inner = (STEPS * K::DEPTH).min(view.rows - first);
        let view = view.rows(first, inner);
        let (columns, steps) = transpose_blocks::<K>(lines, view);
        let whole = |column| if column < columns { steps } else { 0 };
        for column in 0..view.columns {
            let done = whole(column);
            let slots = lines.iter_mut().skip(done * K::columns() + column).step_by(K::columns());
            let done = done * K::DEPTH;
            let from =
                &view.data[(done * view.row_stride + column * view.column_stride).min(view.data.len())..];
            fill_steps::<K, _>(slots, from, view.row_stride, inner - done, K::column);
        }
    }
}

/// Packs what whole blocks of 8 columns by 8 steps cover, where the kernel can: so many columns, and steps of each.
#[inline(always)]
fn transpose_blocks<K: Kernel>(lines: &mut [K::Column], view: View<'_, K::Element>) -> (usize, usize) {
    const SIDE: usize = 8;
    let Some(transpose) = K::TRANSPOSE.filter(|_| view.row_stride == 1) else { return (0, 0) };
    let columns = view.columns / SIDE * SIDE;
    let steps = view.rows / (SIDE * K::DEPTH) * SIDE;
    for column in (0..columns).step_by(SIDE) {
        for step in (0..steps).step_by(SIDE) {
            let from = &view.data[step * K::DEPTH + column * view.column_stride..];
            let to = &mut lines[step * K::columns() + column..];
            assert!(from.len() >= (SIDE - 1) * view.column_stride + SIDE * K::DEPTH);
            assert!(to.len() >= (SIDE - 1) * K::columns() + SIDE);
            // SAFETY: both slices hold the block, and `with_kernel` chose a kernel that the processor has.
            unsafe { transpose(from.as_ptr(), view.column_stride, to.as_mut_ptr(), K::columns()) };
        }
    }
    (columns, steps)
}

/// Packs `inner` values, `stride` apart, into steps.
#[inline(always)]
fn fill_steps<'a, K: Kernel, S: 'a>(
    slots: impl Iterator<Item = &'a mut S>,
    from: &[K::Element],
    stride: usize,
    inner: usize,
    pack: impl Fn([K::Element; 2]) -> S,
) {
    let zero = K::Element::zero();
    match (K::DEPTH, stride) {
        (1, 1) => slots.zip(&from[..inner]).for_each(|(slot, &value)| *slot = pack([value, zero])),
        (1, _) => {
            let values = from.iter().step_by(stride).take(inner);
            slots.zip(values).for_each(|(slot, &value)| *slot = pack([value, zero]));
        }
        (_, 1) => {
            let (pairs, rest) = from[..inner].as_chunks::<2>();
            let last = rest.first().map(|&value| [value, zero]);
            let pairs = pairs.iter().copied().chain(last);
            slots.zip(pairs).for_each(|(slot, pair)| *slot = pack(pair));
        }
        _ => {
            let at = |k: usize| if k < inner { from[k * stride] } else { zero };
            slots
                .enumerate()
                .take(inner.div_ceil(2))
                .for_each(|(i, slot)| *slot = pack([at(2 * i), at(2 * i + 1)]));
        }
    }
}

/// The operands of one tile's rows, side by side at each step, from a view of `rows × inner`.
#[inline(always)]
pub(crate) fn pack_tile<K: Kernel>(packed: &mut [K::Row], view: View<'_, K::Element>) {
    const STEPS: usize = 64;
    if K::DEPTH == 1 && view.row_stride == 1 {
        return copy_lines::<K>(packed, view);
    }
    let done = transpose_rows::<K>(packed, view);
    let packed = &mut packed[done * view.rows..];
    let view = view.columns(done * K::DEPTH, view.columns - done * K::DEPTH);
    for (block, lines) in packed.chunks_mut(STEPS * view.rows).enumerate() {
        let first = block * STEPS * K::DEPTH;
        let inner = (STEPS * K::DEPTH).min(view.columns - first);
        for row in 0..view.rows {
            let slots = lines[row..].iter_mut().step_by(view.rows);
            let from = &view.data[row * view.row_stride + first * view.column_stride..];
            fill_steps::<K, _>(slots, from, view.column_stride, inner, K::row);
        }
    }
}

/// A tile whose rows lie side by side: whole lines are copied, of a length that is known for the usual tiles.
#[inline(always)]
fn copy_lines<K: Kernel>(packed: &mut [K::Row], view: View<'_, K::Element>) {
    let from = |k: usize| &view.data[k * view.column_stride..][..view.rows];
    let copy = |line: &mut [K::Row], from: &[K::Element]| {
        line.iter_mut().zip(from).for_each(|(slot, &value)| *slot = K::row([value, value]));
    };
    macro_rules! by_rows {
        ($($rows:literal)*) => {
            match view.rows {
                $($rows => for (k, line) in packed.chunks_exact_mut($rows).enumerate() {
                    copy(&mut line[..$rows], &from(k)[..$rows]);
                },)*
                rows => for (k, line) in packed.chunks_exact_mut(rows).enumerate() {
                    copy(line, from(k));
                },
            }
        };
    }
    by_rows!(5 6 11 12);
}

/// Packs the first steps of a tile whose rows are each along the inner dimension, 8 by 8, where the kernel can; how many
/// steps.
///
/// Of fewer rows 8 are read, as far as there are values behind them, and 8 written: what is too much at the end of a step's
/// line is the beginning of the next one, which is written after it.
#[inline(always)]
fn transpose_rows<K: Kernel>(packed: &mut [K::Row], view: View<'_, K::Element>) -> usize {
    const SIDE: usize = 8;
    let View { rows, columns, row_stride, column_stride, data } = view;
    let Some(transpose) = K::TRANSPOSE_ROWS.filter(|_| column_stride == 1 && rows >= SIDE / 2) else {
        return 0;
    };
    let values = SIDE * K::DEPTH;
    let mut done = 0;
    while done * K::DEPTH + values <= columns {
        let from = &data[done * K::DEPTH..];
        let to = &mut packed[done * rows..];
        if from.len() < (SIDE - 1) * row_stride + values || to.len() < (SIDE - 1) * rows + SIDE {
            break;
        }
        // SAFETY: both slices hold the block, and `with_kernel` chose a kernel that the processor has.
        unsafe { transpose(from.as_ptr(), row_stride, to.as_mut_ptr(), rows) };
        if rows > SIDE {
            // The last rows, some of them once more.
            let first = rows - SIDE;
            let from = &from[first * row_stride..];
            let to = &mut to[first..];
            if from.len() < (SIDE - 1) * row_stride + values || to.len() < (SIDE - 1) * rows + SIDE {
                break;
            }
            // SAFETY: as above.
            unsafe { transpose(from.as_ptr(), row_stride, to.as_mut_ptr(), rows) };
        }
        done += SIDE;
    }
    done
}

#[cfg(test)]
mod tests {
    use super::{View, pack_half, pack_tile};
    use crate::cpu::instruction_set::{Computed, InstructionSet, WithKernel};
    use crate::cpu::portable::{Portable, PortableBf16};
    use crate::cpu::tile::{Kernel, Step, pair, unpair};
    use std::any::Any;

    const DATA: [f64; 6] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];

    #[test]
    fn a_half_panel_has_the_columns_side_by_side_and_zeros_after_them() {
        type K = Portable<f64>;
        for view in [View::new(&DATA, 2, 3), View::new(&[1.0, 4.0, 2.0, 5.0, 3.0, 6.0], 3, 2).t()] {
            let mut panel = [9.0; 2 * 16];
            pack_half::<K>(&mut panel, view);
            assert_eq!(panel[..8], [1.0, 2.0, 3.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
            assert_eq!(panel[16..24], [4.0, 5.0, 6.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
            assert_eq!(panel[8..16], [9.0; 8]); // the other half's
        }
    }

    #[test]
    fn bf16_steps_hold_two_rows_and_a_zero_after_the_last() {
        let data = DATA.map(|x| x as f32);
        for view in [View::new(&data, 3, 2), View::new(&[1.0, 3.0, 5.0, 2.0, 4.0, 6.0], 2, 3).t()] {
            let mut panel = [7; 2 * 16];
            pack_half::<PortableBf16>(&mut panel, view);
            assert_eq!([panel[0], panel[1], panel[2]].map(unpair), [[1.0, 3.0], [2.0, 4.0], [0.0, 0.0]]);
            assert_eq!([panel[16], panel[17]].map(unpair), [[5.0, 0.0], [6.0, 0.0]]);
            assert_eq!(PortableBf16::steps(3), 2);
        }
    }

    #[test]
    fn a_tile_has_its_rows_side_by_side_on_every_instruction_set_and_wherever_it_lies() {
        struct Pack<'a>(View<'a, f32>);
        impl WithKernel<f32> for Pack<'_> {
            type Output = Vec<f32>;
            fn run<K: Kernel<Element = f32>>(self) -> Vec<f32> {
                let mut packed = vec![K::Row::default(); self.0.rows * self.0.columns];
                pack_tile::<K>(&mut packed, self.0);
                packed.into_iter().map(Step::first).collect()
            }
        }
        let rows = 14;
        let inner = 29;
        let data: Vec<f32> = (0..rows * inner).map(|at| at as f32).collect();
        for set in InstructionSet::available() {
            for (start, count) in [(0, 6), (8, 6), (2, 12), (3, 5), (4, 4), (13, 1), (1, 8), (5, 9)] {
                let view = View::new(&data, rows, inner).rows(start, count);
                let wanted: Vec<f32> = (0..inner)
                    .flat_map(|k| (start..start + count).map(move |row| (row * inner + k) as f32))
                    .collect();
                assert_eq!(
                    set.force(|| f32::with_kernel(false, Pack(view))),
                    wanted,
                    "{set:?} {start} {count}"
                );
                let turned: Vec<f32> =
                    (0..inner * rows).map(|at| data[at % rows * inner + at / rows]).collect();
                let view = View::new(&turned, inner, rows).t().rows(start, count);
                assert_eq!(
                    set.force(|| f32::with_kernel(false, Pack(view))),
                    wanted,
                    "{set:?} {start} {count}"
                );
            }
        }
    }

    /// What a kernel makes of a view: the steps of a tile's rows, or of a half panel's columns, as pairs of bf16.
    struct Steps<'a> {
        view: View<'a, f32>,
        of_rows: bool,
    }

    impl WithKernel<f32> for Steps<'_> {
        type Output = Option<Vec<u32>>;

        /// `None` of a kernel whose steps are no pairs.
        fn run<K: Kernel<Element = f32>>(self) -> Self::Output {
            let pairs = |any: &dyn Any| any.downcast_ref::<Vec<u32>>().cloned();
            let steps = K::steps(if self.of_rows { self.view.columns } else { self.view.rows });
            if self.of_rows {
                let mut packed = vec![K::Row::default(); self.view.rows * steps];
                pack_tile::<K>(&mut packed, self.view);
                return pairs(&packed);
            }
            let mut panel = vec![K::Column::default(); K::columns() * steps];
            pack_half::<K>(&mut panel, self.view);
            let columns = self.view.columns;
            let lines = panel.chunks(K::columns()).flat_map(|line| line[..columns].iter().copied());
            pairs(&lines.collect::<Vec<K::Column>>())
        }
    }

    #[test]
    fn pairs_of_bf16_are_the_same_on_every_instruction_set_and_wherever_the_values_lie() {
        let inner = 83usize;
        let lines = 14;
        let data: Vec<f32> =
            (0..lines * inner).map(|at| (at as f32 * 0.7).sin() * 1.001f32.powi(at as i32)).collect();
        let turned: Vec<f32> = (0..inner * lines).map(|at| data[at % lines * inner + at / lines]).collect();
        let mut found = 0;
        for (start, count, from, length) in [
            (0, 8, 0, 83),
            (2, 12, 0, 83),
            (3, 5, 1, 32),
            (0, 8, 3, 80),
            (13, 1, 0, 16),
            (1, 8, 0, 15),
            (6, 8, 0, 83),
        ] {
            let wanted: Vec<u32> = (0..usize::div_ceil(length, 2))
                .flat_map(|step| (start..start + count).map(move |line| (step, line)))
                .map(|(step, line)| {
                    let at = |k: usize| if k < length { data[line * inner + from + k] } else { 0.0 };
                    pair([at(2 * step), at(2 * step + 1)])
                })
                .collect();
            let along = View::new(&data, lines, inner).rows(start, count).columns(from, length);
            let across = View::new(&turned, inner, lines).t().rows(start, count).columns(from, length);
            for set in InstructionSet::available() {
                for view in [along, across] {
                    for of_rows in [true, false] {
                        let view = if of_rows { view } else { view.t() };
                        if !of_rows && count > 8 {
                            continue; // wider than half a panel
                        }
                        let steps = set.force(|| f32::with_kernel(true, Steps { view, of_rows }));
                        let Some(steps) = steps else { continue };
                        found += 1;
                        assert_eq!(steps, wanted, "{set:?} {start} {count} {from} {length}");
                    }
                }
            }
        }
        assert!(found > 0);
    }

    #[test]
    fn parts_of_a_view_are_views() {
        let view = View::new(&DATA, 2, 3);
        assert_eq!(view.columns(1, 2).rows(1, 1).data[0], 5.0);
        assert_eq!(view.t().rows(2, 1).data[0], 3.0);
    }
}
