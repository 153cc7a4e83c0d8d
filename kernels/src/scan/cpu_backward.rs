//! A recurrence backward on the CPU: the walk through the window, and at the end one large product a sublayer for all
//! weights of it.

use super::cell::{MOST_VALUES, Pointwise};
use super::cpu_grads::{RecurrentGrad, gather, weight_grads, weight_products};
use super::cpu_walk::walk_back;
use super::in_place::{self, InPlace, Transposed};
use super::window::{WindowRecord, WindowSizes};
use crate::cpu::gemm::{Target, product};
use crate::cpu::instruction_set::Computed;
use crate::cpu::packed::{PackedWeights, Weights};
use crate::cpu::panels::View;
use crate::cpu::tile::Kernel;
use crate::cpu::workspace::{self, Buffer};
use crate::memory::release_free_pages;
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
    mut records: Vec<WindowRecord<K::Element>>,
    recurrent: &[K::Element],
    bias: &[K::Element],
    grad: &[K::Element],
    wanted: Wanted,
) -> Grads<K::Element> {
    let Some(&WindowRecord { sizes: WindowSizes { batch, depth, hidden, .. }, .. }) = records.first() else {
        unreachable!("a window has a block")
    };
    let time: usize = records.iter().map(|record| record.sizes.time).sum();
    let is_block = records.len() > 1;
    let mut carried = workspace::take(C::STATES * batch * hidden);
    carried.fill(K::Element::zero());
    let mut bias_grad = vec![K::Element::zero(); depth * (C::GATES + C::UNIT_WEIGHTS) * hidden];
    let mut projected = workspace::take(time * batch * C::INPUTS * hidden);
    let mut weights: Option<Box<dyn Weights<K> + '_>> = Some(if in_place::fits::<K>(time, batch) {
        Box::new(Transposed(InPlace::new::<C>(recurrent, hidden)))
    } else {
        Box::new(pack_transposed::<K, C>(recurrent, depth, hidden))
    });
    let mut so_far = None;
    let mut state = None;
    let mut end = time;
    while let Some(mut record) = records.pop() {
        let start = end - record.sizes.time;
        record.complete::<K, C>();
        let grad = &grad[start * batch * C::OUTPUTS * hidden..end * batch * C::OUTPUTS * hidden];
        let packed = weights.as_deref().expect("until the first block is done");
        walk_back::<K, C>(&mut record, packed, bias, grad, &mut carried, &mut bias_grad);
        let projected = &mut projected[start * batch * C::INPUTS * hidden..end * batch * C::INPUTS * hidden];
        gather::<K>(&record.saved, C::SAVED, &C::PROJECTED[..C::INPUTS], &record, 0, projected);
        if start > 0 || wanted.state {
            add_first_product::<K, C>(&record, recurrent, &mut carried);
        }
        if start == 0 {
            state = wanted.state.then(|| carried.to_vec());
            weights = None;
        }
        so_far = Some(match so_far {
            None if wanted.in_parts && !is_block => RecurrentGrad::Product(weight_products::<K, C>(&record)),
            Some(RecurrentGrad::Whole(sum)) => {
                RecurrentGrad::Whole(weight_grads::<K, C>(&record, projected, Some(sum)))
            }
            _ => {
                if is_block {
                    release_free_pages(); // of the tensors between the record's making and this
                }
                RecurrentGrad::Whole(weight_grads::<K, C>(&record, projected, None))
            }
        });
        end = start;
    }
    let recurrent = so_far.expect("a window has a block");
    Grads { projected, recurrent, bias: bias_grad, state }
}

/// Adds to the gradient of the state before the first step, `carried` unit by unit if it is, what the first product sends
/// back.
fn add_first_product<K: Kernel<Element: Computed>, C: Pointwise>(
    record: &WindowRecord<K::Element>,
    recurrent: &[K::Element],
    carried: &mut [K::Element],
) {
    let WindowSizes { batch, hidden, .. } = record.sizes;
    let width = C::GATES * hidden;
    let gates: Vec<usize> = (0..C::GATES).collect();
    let mut grads = workspace::take(batch * width);
    gather::<K>(&record.saved, C::SAVED, &gates, record, 0, &mut grads);
    let mut sent = vec![K::Element::zero(); batch * hidden];
    product(
        Target::new(&mut sent, batch, hidden),
        View::new(&grads, batch, width),
        View::new(&recurrent[..hidden * width], hidden, width).t(),
        false,
        K::DEPTH == 2,
    );
    for (at, (carried, sent)) in carried.iter_mut().zip(sent).enumerate() {
        let before = if C::CARRIES_OUTPUT { *carried } else { K::Element::zero() };
        *carried = before + record.mask.as_ref().map_or(sent, |mask| sent * mask[at]);
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
