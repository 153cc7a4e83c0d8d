//! A recurrence backward on the CPU: the walk through the window, and at the end one large product a sublayer for all
//! weights of it.

use super::cell::{MOST_VALUES, Pointwise};
use super::cpu_grads::{RecurrentGrad, gather, weight_grads, weight_products};
use super::cpu_walk::walk_back;
use super::in_place::{self, InPlace, Transposed};
use super::window::{WindowRecord, WindowSizes};
use crate::cpu::gemm::{Target, product};
use crate::cpu::instruction_set::Computed;
use crate::cpu::packed::PackedWeights;
use crate::cpu::panels::View;
use crate::cpu::tile::Kernel;
use crate::cpu::workspace::{self, Buffer};
use num_traits::Zero;

/// The gradients of a window.
pub(crate) struct Grads<T: Copy + Default + Send + 'static> {
    pub(super) projected: Buffer<T>,
    pub(super) recurrent: RecurrentGrad<T>,
    pub(super) bias: Vec<T>,
    /// Of the state before the first step, `(parts, batch, hidden)`, if it is wanted.
    pub(super) state: Option<Vec<T>>,
}

/// Which gradients of a window are wanted, and how.
#[derive(Clone, Copy)]
pub(crate) struct Wanted {
    /// That of the recurrent weights as a product.
    pub(super) in_parts: bool,
    /// That of the state before the first step.
    pub(super) state: bool,
}

/// The gradients of the projected input, the weights and the biases, from that of the outputs, `(time, batch, outputs ·
/// hidden)`; `recurrent` is `(depth, hidden, gates · hidden)`, `bias` `(depth, (gates + unit weights) · hidden)`.
pub(crate) fn backward<K: Kernel<Element: Computed>, C: Pointwise>(
    mut record: WindowRecord<K::Element>,
    recurrent: &[K::Element],
    bias: &[K::Element],
    grad: &[K::Element],
    wanted: Wanted,
) -> Grads<K::Element> {
    let WindowSizes { time, batch, depth, hidden } = record.sizes;
    let mut carried = workspace::take(C::STATES * batch * hidden);
    carried.fill(K::Element::zero());
    let bias = if in_place::fits::<K>(time, batch) {
        let weights = Transposed(InPlace::new::<C>(recurrent, hidden));
        walk_back::<K, C>(&mut record, &weights, bias, grad, &mut carried)
    } else {
        let weights = pack_transposed::<K, C>(recurrent, depth, hidden);
        walk_back::<K, C>(&mut record, &weights, bias, grad, &mut carried)
    };
    let mut projected = workspace::take(time * batch * C::INPUTS * hidden);
    gather::<K>(&record.saved, C::SAVED, &C::PROJECTED[..C::INPUTS], &record, 0, &mut projected);
    let state = wanted.state.then(|| {
        add_first_product::<K, C>(&record, recurrent, &mut carried);
        carried.to_vec()
    });
    let recurrent = if wanted.in_parts {
        RecurrentGrad::Product(weight_products::<K, C>(&record))
    } else {
        RecurrentGrad::Whole(weight_grads::<K, C>(&record, &projected))
    };
    Grads { projected, recurrent, bias, state }
}

/// Adds to the gradient of the state before the first step, `carried` unit by unit, what the first product sends back.
fn add_first_product<K: Kernel<Element: Computed>, C: Pointwise>(
    record: &WindowRecord<K::Element>,
    recurrent: &[K::Element],
    carried: &mut [K::Element],
) {
    let WindowSizes { batch, hidden, .. } = record.sizes;
    let width = C::GATES * hidden;
    let gates: Vec<usize> = (0..C::GATES).collect();
    let mut grads = workspace::take(record.layout.rows * width);
    gather::<K>(&record.saved, C::SAVED, &gates, record, 0, &mut grads);
    let mut sent = vec![K::Element::zero(); batch * hidden];
    product(
        Target::new(&mut sent, batch, hidden),
        View::new(&grads[..batch * width], batch, width),
        View::new(&recurrent[..hidden * width], hidden, width).t(),
        false,
        K::DEPTH == 2,
    );
    for (at, (carried, sent)) in carried.iter_mut().zip(sent).enumerate() {
        *carried += record.mask.as_ref().map_or(sent, |mask| sent * mask[at]);
    }
}

/// The recurrent weights, packed for products with their transposes.
fn pack_transposed<K: Kernel, C: Pointwise>(
    recurrent: &[K::Element],
    depth: usize,
    hidden: usize,
) -> PackedWeights<K> {
    let width = C::GATES * hidden;
    let part = |sublayer: usize, panel: usize, gate: usize, half: usize| {
        let matrix = View::new(&recurrent[sublayer * hidden * width..][..hidden * width], hidden, width).t();
        let start = (panel * K::columns() + half * K::LANES).min(hidden);
        matrix.rows(gate * hidden, hidden).columns(start, K::LANES.min(hidden - start))
    };
    let inner = &[hidden; MOST_VALUES][..C::GATES];
    PackedWeights::pack(depth, hidden.div_ceil(K::columns()), inner, part)
}
