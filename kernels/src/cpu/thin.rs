//! Products one of whose operands is thin: of few rows, as a window of few tokens has, or over few values, as a weight's
//! gradient by those tokens is. Nothing is packed, which would take longer than the product: the large operand is gone over
//! once as it lies in memory.

use crate::cpu::chunk::{CHUNK, Chunk, fetch, load, store, sum};
use crate::cpu::panels::View;
use crate::cpu::pool::Worker;
use crate::cpu::shared::Shared;
use crate::cpu::tile::Kernel;
use num_traits::Zero;

/// The most rows, or values along the inner dimension, for which this is faster than tiles.
pub(crate) const MOST: usize = 8;

/// Dot products that are taken together.
pub(crate) const DOTS: usize = 4;

/// Chunks of sums that one dot product has; they are added up at its end, so the order of the sum is the same on every
/// processor.
const CHUNKS: usize = 2;

/// How a product is done here.
#[derive(Clone, Copy)]
pub(crate) enum Thin {
    /// Over few values: each row of the result is a sum of few lines.
    Inner,
    /// Of few rows, with a matrix whose rows lie in memory: each line of it is added to all rows of the result.
    Lines,
    /// Of few rows, with a matrix whose columns lie in memory: each value of the result is a dot product.
    Dots,
}

impl Thin {
    /// How the product of `a` and `b` is done here, if it is; operands are not rounded.
    pub(crate) fn of<K: Kernel>(a: View<'_, K::Element>, b: View<'_, K::Element>) -> Option<Self> {
        if K::DEPTH != 1 {
            return None;
        }
        if a.columns <= MOST && b.column_stride == 1 {
            return Some(Self::Inner);
        }
        match (a.rows <= MOST, b.column_stride, b.row_stride) {
            (true, 1, _) => Some(Self::Lines),
            (true, _, 1) if a.column_stride == 1 => Some(Self::Dots),
            _ => None,
        }
    }

    /// This worker's part of `c = a b`, or of `c += a b`; `c` has as many columns as `b`, row by row. The order of each sum
    /// depends on the sizes alone; but for dot products it is that of the tiles.
    pub(crate) fn multiply<K: Kernel>(
        self,
        c: &Shared<'_, K::Element>,
        a: View<'_, K::Element>,
        b: View<'_, K::Element>,
        add: bool,
        worker: Worker<'_>,
    ) {
        match self {
            Self::Inner => by_rows::<K>(c, a, b, add, worker),
            Self::Lines => by_lines::<K>(c, a, b, add, worker),
            Self::Dots => by_dots::<K>(c, a, b, add, worker),
        }
    }
}

fn by_rows<K: Kernel>(
    c: &Shared<'_, K::Element>,
    a: View<'_, K::Element>,
    b: View<'_, K::Element>,
    add: bool,
    worker: Worker<'_>,
) {
    for row in worker.share(a.rows) {
        // SAFETY: workers' rows are disjoint.
        let out = unsafe { c.part(row * b.columns, b.columns) };
        let factor = |k: usize| a.data[row * a.row_stride + k * a.column_stride];
        let line = |k: usize| &b.data[k * b.row_stride..][..b.columns];
        K::vectorized(
            #[inline(always)]
            || combine_all::<K>(out, a.columns, factor, line, add, 0),
        );
    }
}

fn by_lines<K: Kernel>(
    c: &Shared<'_, K::Element>,
    a: View<'_, K::Element>,
    b: View<'_, K::Element>,
    add: bool,
    worker: Worker<'_>,
) {
    let own = worker.share(b.columns.div_ceil(CHUNK));
    let own = own.start * CHUNK..b.columns.min(own.end * CHUNK);
    for first in (0..a.columns).step_by(MOST) {
        let count = MOST.min(a.columns - first);
        let line = |k: usize| &b.data[(first + k) * b.row_stride + own.start..][..own.len()];
        for row in 0..a.rows {
            let ahead = if row == 0 { MOST * b.row_stride } else { 0 };
            // SAFETY: workers' columns are disjoint.
            let out = unsafe { c.part(row * b.columns + own.start, own.len()) };
            let factor = |k: usize| a.data[row * a.row_stride + (first + k) * a.column_stride];
            K::vectorized(
                #[inline(always)]
                || combine_all::<K>(out, count, factor, line, add || first > 0, ahead),
            );
        }
    }
}

fn by_dots<K: Kernel>(
    c: &Shared<'_, K::Element>,
    a: View<'_, K::Element>,
    b: View<'_, K::Element>,
    add: bool,
    worker: Worker<'_>,
) {
    let own = worker.share(b.columns);
    let row = |row: usize| &a.data[row * a.row_stride..][..a.columns];
    K::vectorized(
        #[inline(always)]
        || {
            for column in own.clone() {
                let xs = &b.data[column * b.column_stride..][..a.columns];
                let mut found = [K::Element::zero(); MOST];
                macro_rules! by_count {
                    ($($rows:literal)*) => {
                        match a.rows {
                            $($rows => found[..$rows].copy_from_slice(&dots::<K, $rows>(
                                std::array::from_fn(row),
                                xs,
                                0,
                            )),)*
                            rows => {
                                let first = dots::<K, DOTS>(std::array::from_fn(row), xs, 0);
                                found[..DOTS].copy_from_slice(&first);
                                // Past the last row the last one is computed again.
                                let rest = |n: usize| row((DOTS + n).min(rows - 1));
                                let rest = dots::<K, DOTS>(std::array::from_fn(rest), xs, 0);
                                found[DOTS..].copy_from_slice(&rest);
                            }
                        }
                    };
                }
                by_count!(1 2 3 4 5 6);
                for (row, &found) in found.iter().enumerate().take(a.rows) {
                    // SAFETY: workers' columns are disjoint.
                    let out = unsafe { c.part(row * b.columns + column, 1) };
                    out[0] = if add { out[0] + found } else { found };
                }
            }
        },
    );
}

/// `out = Σ factor(k) · line(k)` over `count` lines, or `out +=` it, a few lines at a time in their order; to be called
/// inside [`Kernel::vectorized`]. What is `ahead` values after each value of the lines is fetched meanwhile, unless that is 0.
#[inline(always)]
pub(crate) fn combine_all<'a, K: Kernel>(
    out: &mut [K::Element],
    count: usize,
    factor: impl Fn(usize) -> K::Element,
    line: impl Fn(usize) -> &'a [K::Element],
    add: bool,
    ahead: usize,
) {
    if count == 0 && !add {
        out.fill(K::Element::zero());
    }
    for first in (0..count).step_by(MOST) {
        let add = add || first > 0;
        macro_rules! by_count {
            ($($lines:literal)*) => {
                match MOST.min(count - first) {
                    $($lines => {
                        let factors = std::array::from_fn(|k| factor(first + k));
                        let lines = std::array::from_fn(|k| line(first + k));
                        if add {
                            combine::<K, $lines, true>(out, factors, lines, ahead);
                        } else {
                            combine::<K, $lines, false>(out, factors, lines, ahead);
                        }
                    })*
                    _ => unreachable!("at most {MOST} lines at a time"),
                }
            };
        }
        by_count!(1 2 3 4 5 6 7 8);
    }
}

/// `out = Σ factors[k] · lines[k]`, or `out +=` it.
#[inline(always)]
fn combine<K: Kernel, const N: usize, const ADD: bool>(
    out: &mut [K::Element],
    factors: [K::Element; N],
    lines: [&[K::Element]; N],
    ahead: usize,
) {
    let lines = lines.map(|line| &line[..out.len()]);
    let step = CHUNKS * CHUNK;
    let whole = out.len() / step * step;
    for start in (0..whole).step_by(step) {
        let mut sums = [[K::Element::zero(); CHUNK]; CHUNKS];
        if ADD {
            sums = std::array::from_fn(|chunk| load(out, start + chunk * CHUNK, CHUNK));
        }
        for (&factor, line) in factors.iter().zip(lines) {
            if ahead > 0 {
                fetch(line, start + ahead);
            }
            for (chunk, sums) in sums.iter_mut().enumerate() {
                let line = load(line, start + chunk * CHUNK, CHUNK);
                *sums = add_products::<K>(*sums, [factor; CHUNK], line);
            }
        }
        for (chunk, sums) in sums.iter().enumerate() {
            store(&mut out[start + chunk * CHUNK..][..CHUNK], sums);
        }
    }
    for (column, out) in out.iter_mut().enumerate().skip(whole) {
        let mut sum = if ADD { *out } else { K::Element::zero() };
        for (&factor, line) in factors.iter().zip(lines) {
            sum = K::multiply_add(factor, line[column], sum);
        }
        *out = sum;
    }
}

/// `Σ rows[n][i] xs[i]` for each n; all are of one length. What is `ahead` values after each value of the rows is fetched
/// meanwhile, unless that is 0.
#[inline(always)]
pub(crate) fn dots<K: Kernel, const N: usize>(
    rows: [&[K::Element]; N],
    xs: &[K::Element],
    ahead: usize,
) -> [K::Element; N] {
    let rows = rows.map(|row| &row[..xs.len()]);
    let mut sums = [[[K::Element::zero(); CHUNK]; CHUNKS]; N];
    let step = CHUNKS * CHUNK;
    let whole = xs.len() / step * step;
    for start in (0..whole).step_by(step) {
        for (sums, row) in sums.iter_mut().zip(rows) {
            if ahead > 0 {
                fetch(row, start + ahead);
            }
            for (chunk, sums) in sums.iter_mut().enumerate() {
                let at = start + chunk * CHUNK;
                *sums = add_products::<K>(*sums, load(row, at, CHUNK), load(xs, at, CHUNK));
            }
        }
    }
    for at in (whole..xs.len()).step_by(CHUNK) {
        let width = CHUNK.min(xs.len() - at);
        for (sums, row) in sums.iter_mut().zip(rows) {
            sums[0] = add_products::<K>(sums[0], load(row, at, width), load(xs, at, width));
        }
    }
    sums.map(|sums| {
        let mut sums = sums.into_iter().reduce(sum).expect("there are chunks");
        let mut count = CHUNK / 2;
        while count > 0 {
            for lane in 0..count {
                sums[lane] += sums[lane + count];
            }
            count /= 2;
        }
        sums[0]
    })
}

/// `sums + a ⊙ b`
#[inline(always)]
fn add_products<K: Kernel>(
    mut sums: Chunk<K::Element>,
    a: Chunk<K::Element>,
    b: Chunk<K::Element>,
) -> Chunk<K::Element> {
    for lane in 0..CHUNK {
        sums[lane] = K::multiply_add(a[lane], b[lane], sums[lane]);
    }
    sums
}
