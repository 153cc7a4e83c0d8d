//! The recurrent weights of a cell, packed for the forward pass.
//!
//! A group of panels holds all gates of the same units side by side, so that its sums are all that these units need.

use super::cell::Pointwise;
use crate::cpu::packed::PackedWeights;
use crate::cpu::panels::View;
use crate::cpu::tile::Kernel;
use std::marker::PhantomData;

/// Vectors of units whose gates fill whole panels, of two vectors each.
pub(super) const fn vectors_together<C: Pointwise>() -> usize {
    if C::GATES % 2 == 0 { 1 } else { 2 }
}

/// The recurrent weights `(depth, hidden, gates · hidden)` of cell `C`.
pub(crate) struct PackedCell<K: Kernel, C> {
    pub(super) weights: PackedWeights<K>,
    cell: PhantomData<C>,
}

impl<K: Kernel, C: Pointwise> PackedCell<K, C> {
    pub(crate) fn new(recurrent: &[K::Element], depth: usize, hidden: usize) -> Self {
        let width = C::GATES * hidden;
        let together = vectors_together::<C>();
        let panels = C::GATES * together / 2;
        let part = |sublayer: usize, panel: usize, _section: usize, half: usize| {
            let matrix = View::new(&recurrent[sublayer * hidden * width..][..hidden * width], hidden, width);
            let index = panel % panels * 2 + half;
            let vector = panel / panels * together + index / C::GATES;
            let start = (vector * K::LANES).min(hidden);
            matrix.columns(index % C::GATES * hidden + start, K::LANES.min(hidden - start))
        };
        let groups = hidden.div_ceil(K::LANES).div_ceil(together);
        let weights = PackedWeights::pack(depth, groups * panels, &[hidden], part).finished_together(panels);
        Self { weights, cell: PhantomData }
    }
}
