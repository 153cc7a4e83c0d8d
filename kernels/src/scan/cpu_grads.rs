//! The gradients of a recurrence's weights on the CPU, once those of all steps are in the record.

use super::cell::Pointwise;
use super::weight_grad::weight_grad;
use super::window::{WindowRecord, WindowSizes};
use crate::cpu::gemm::{Target, product};
use crate::cpu::instruction_set::Computed;
use crate::cpu::panels::View;
use crate::cpu::pool;
use crate::cpu::shared::Shared;
use crate::cpu::thin;
use crate::cpu::tile::Kernel;
use crate::cpu::workspace;
use num_traits::Zero;

/// The gradient of recurrent weights.
pub(super) enum RecurrentGrad<T> {
    /// `(depth, hidden, gates · hidden)`.
    Whole(Vec<T>),
    /// What enters the products of each sublayer, `(depth, rows, hidden)`, and the gradients of their results, `(depth,
    /// rows, gates · hidden)`: for each sublayer the product of both, over the rows.
    Product([Vec<T>; 2]),
}

/// One product a sublayer for all steps, on top of `before` if there were later blocks of the window. Of few rows, for which a
/// product packs nothing, the values are laid out in rows; then `projected` holds the gradients of the first sublayer's
/// projected input, the gates' first.
pub(super) fn weight_grads<K: Kernel<Element: Computed>, C: Pointwise>(
    record: &WindowRecord<K::Element>,
    projected: &[K::Element],
    before: Option<Vec<K::Element>>,
) -> Vec<K::Element> {
    let WindowSizes { time, batch, depth, hidden } = record.sizes;
    let rows = time * batch;
    let width = C::GATES * hidden;
    let gates: Vec<usize> = (0..C::GATES).collect();
    let same_as_projected = C::PROJECTED[..C::GATES] == gates[..];
    let add = before.is_some();
    // Of a whole window the weights that were packed for the way back made way: nothing of them is needed any more.
    let mut recurrent = before.unwrap_or_else(|| workspace::take_for_good(depth * hidden * width));
    if rows > thin::MOST {
        for (sublayer, out) in recurrent.chunks_exact_mut((hidden * width).max(1)).enumerate() {
            weight_grad::<K, C>(record, sublayer, out, add);
        }
        return recurrent;
    }
    let mut states = workspace::take(rows * hidden);
    let mut grads = workspace::take(if depth > 1 || !same_as_projected { rows * width } else { 0 });
    for sublayer in 0..depth {
        gather::<K>(&record.states, C::STATES, &[0], record, sublayer, &mut states);
        let grads = if sublayer == 0 && same_as_projected {
            View::new(projected, rows, C::INPUTS * hidden).columns(0, width)
        } else {
            gather::<K>(&record.saved, C::SAVED, &gates, record, sublayer, &mut grads);
            View::new(&grads, rows, width)
        };
        product(
            Target::new(&mut recurrent[sublayer * hidden * width..][..hidden * width], hidden, width),
            View::new(&states, rows, hidden).t(),
            grads,
            add,
            K::DEPTH == 2,
        );
    }
    recurrent
}

/// The same, not multiplied out.
pub(super) fn weight_products<K: Kernel, C: Pointwise>(
    record: &WindowRecord<K::Element>,
) -> [Vec<K::Element>; 2] {
    let WindowSizes { time, batch, depth, hidden } = record.sizes;
    let rows = time * batch;
    let width = C::GATES * hidden;
    let gates: Vec<usize> = (0..C::GATES).collect();
    let mut states = vec![K::Element::zero(); depth * rows * hidden];
    let mut grads = vec![K::Element::zero(); depth * rows * width];
    for sublayer in 0..depth {
        let states = &mut states[sublayer * rows * hidden..][..rows * hidden];
        gather::<K>(&record.states, C::STATES, &[0], record, sublayer, states);
        let grads = &mut grads[sublayer * rows * width..][..rows * width];
        gather::<K>(&record.saved, C::SAVED, &gates, record, sublayer, grads);
    }
    [states, grads]
}

/// Some of a sublayer's `count` values of each unit as rows of `parts.len() · hidden`: of the first steps and batch rows, as
/// many as `out` has.
pub(super) fn gather<K: Kernel>(
    values: &[K::Element],
    count: usize,
    parts: &[usize],
    record: &WindowRecord<K::Element>,
    sublayer: usize,
    out: &mut [K::Element],
) {
    const ROWS: usize = 32; // their lines stay in the cache while the vectors pass
    let layout = record.layout;
    let hidden = record.sizes.hidden;
    let rows = out.len() / (parts.len() * hidden).max(1);
    let out = Shared::new(out);
    pool::run(|worker| {
        let own = worker.share(rows);
        for start in own.clone().step_by(ROWS) {
            for vector in 0..layout.vectors {
                let width = K::LANES.min(hidden - vector * K::LANES);
                for row in start..own.end.min(start + ROWS) {
                    for (index, part) in parts.iter().enumerate() {
                        let from = (count * layout.vector(sublayer, vector, row) + part) * K::LANES;
                        let from = &values[from..][..K::LANES];
                        let to = (row * parts.len() + index) * hidden + vector * K::LANES;
                        // SAFETY: workers' rows are disjoint.
                        let to = unsafe { out.part(to, width) };
                        if width == K::LANES {
                            to[..K::LANES].copy_from_slice(from); // of a known length: no call
                        } else {
                            to.copy_from_slice(&from[..width]);
                        }
                    }
                }
            }
        }
    });
}
