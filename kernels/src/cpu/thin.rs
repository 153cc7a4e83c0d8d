//! Products whose inner dimension is a few values, as a weight's gradient over a few tokens is: nothing is packed, each row
//! of the result is one pass over those few rows.

use crate::cpu::panels::View;
use crate::cpu::pool::Worker;
use crate::cpu::shared::Shared;
use crate::cpu::tile::Kernel;

/// The largest inner dimension for which this is faster than tiles.
const MOST: usize = 8;

/// Whether a product of `a` and `b` is done here: the columns of `b` lie side by side, and operands are not rounded.
pub(crate) fn fits<K: Kernel>(a: View<'_, K::Element>, b: View<'_, K::Element>) -> bool {
    K::DEPTH == 1 && a.columns <= MOST && b.column_stride == 1
}

/// This worker's rows of `c = a b`, or of `c += a b`; `c` has as many columns as `b`, row by row. The order of each sum is
/// that of the tiles.
pub(crate) fn multiply<K: Kernel>(
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
            || combine_all::<K>(out, a.columns, factor, line, add),
        );
    }
}

/// `out = Σ factor(k) · line(k)` over `count` lines, or `out +=` it, a few lines at a time in their order; to be called
/// inside [`Kernel::vectorized`].
#[inline(always)]
pub(crate) fn combine_all<'a, K: Kernel>(
    out: &mut [K::Element],
    count: usize,
    factor: impl Fn(usize) -> K::Element,
    line: impl Fn(usize) -> &'a [K::Element],
    add: bool,
) {
    if count == 0 && !add {
        out.fill(num_traits::Zero::zero());
    }
    for first in (0..count).step_by(MOST) {
        let add = add || first > 0;
        macro_rules! by_count {
            ($($lines:literal)*) => {
                match MOST.min(count - first) {
                    $($lines => combine::<K, $lines>(
                        out,
                        std::array::from_fn(|k| factor(first + k)),
                        std::array::from_fn(|k| line(first + k)),
                        add,
                    ),)*
                    _ => unreachable!("at most {MOST} lines at a time"),
                }
            };
        }
        by_count!(1 2 3 4 5 6 7 8);
    }
}

/// `out = Σ factors[k] · lines[k]`, or `out +=` it.
#[inline(always)]
fn combine<K: Kernel, const N: usize>(
    out: &mut [K::Element],
    factors: [K::Element; N],
    lines: [&[K::Element]; N],
    add: bool,
) {
    let zero = <K::Element as num_traits::Zero>::zero();
    let lines = lines.map(|line| &line[..out.len()]);
    for (column, out) in out.iter_mut().enumerate() {
        let mut sum = if add { *out } else { zero };
        for k in 0..N {
            sum = K::multiply_add(factors[k], lines[k][column], sum);
        }
        *out = sum;
    }
}
