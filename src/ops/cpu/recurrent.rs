//! What the recurrences share: weights in panels for every sublayer, operands that all threads read while the next
//! ones are written, and tiles whose sums are used before they leave the cache.

use super::kernel::{Kernel, MOST_COLUMNS, MOST_ROWS, Operands, Sums, tiles};
use super::panels::{View, pack_half};
use super::shared::Shared;
use super::team::{self, Member};
use super::workspace::{self, Buffer};
use std::ops::Range;

/// Weights of every sublayer, packed; in a panel, a vector of columns of one matrix beside a vector of another's.
pub(super) struct Weights<K: Kernel> {
    panels: Buffer<K::Column>,
    /// Steps along the inner dimension.
    pub(super) steps: usize,
    /// Panels of a sublayer.
    pub(super) count: usize,
}

impl<K: Kernel> Weights<K> {
    /// Packs `count` panels for each of `sublayers`. The inner dimension has sections of `inner` values, each padded
    /// to whole steps; `part(sublayer, panel, section, half)` is what goes there, inner × columns.
    pub(super) fn pack<'a>(
        sublayers: usize,
        count: usize,
        inner: &[usize],
        part: impl Fn(usize, usize, usize, usize) -> View<'a, K::Element> + Sync,
    ) -> Self {
        let steps: usize = inner.iter().map(|&inner| K::steps(inner)).sum();
        let len = steps * K::columns();
        let mut panels = workspace::take::<K::Column>(sublayers * count * len);
        let shared = Shared::new(&mut panels);
        team::run(|member| {
            for index in member.share(sublayers * count) {
                // SAFETY: members' shares are disjoint.
                let mut panel = unsafe { shared.part(index * len, len) };
                for (section, &inner) in inner.iter().enumerate() {
                    let (lines, rest) = panel.split_at_mut(K::steps(inner) * K::columns());
                    for half in 0..2 {
                        let view = part(index / count, index % count, section, half);
                        pack_half::<K>(&mut lines[half * K::LANES..], view);
                    }
                    panel = rest;
                }
            }
        });
        Self { panels, steps, count }
    }

    fn panel(&self, sublayer: usize, panel: usize) -> &[K::Column] {
        let len = self.steps * K::columns();
        &self.panels[(sublayer * self.count + panel) * len..][..len]
    }

    /// Multiplies `lanes` rows of operands with this member's panels of a sublayer, and hands each tile's sums to
    /// `finish`: the panel, the rows, and for each row `K::columns()` sums. The panel after it is fetched meanwhile,
    /// the first one of sublayer `then` after the last.
    pub(super) fn multiply(
        &self,
        sublayer: usize,
        then: usize,
        operands: &[K::Row],
        lanes: usize,
        member: Member<'_>,
        mut finish: impl FnMut(usize, Range<usize>, &[K::Element]),
    ) {
        let mut sums = [K::Element::default(); MOST_ROWS * MOST_COLUMNS];
        let own = member.share(self.count);
        for panel in own.clone() {
            let columns = self.panel(sublayer, panel);
            let next = if panel + 1 < own.end {
                self.panel(sublayer, panel + 1)
            } else {
                self.panel(then, own.start)
            };
            let parts = tiles(lanes, K::TILES.len());
            let advance = size_of_val(columns) / self.steps.max(1) / parts.len();
            for (index, rows) in parts.enumerate() {
                let operands = &operands[rows.start * self.steps..rows.end * self.steps];
                let operands = Operands {
                    rows: operands.as_ptr(),
                    stride: self.steps,
                    panel: columns.as_ptr(),
                    steps: self.steps,
                    ahead: next.as_ptr().cast::<u8>().wrapping_add(index * advance * self.steps),
                    advance,
                };
                let to = Sums { out: sums.as_mut_ptr(), stride: K::columns(), add: false };
                // SAFETY: `with_kernel` chose a kernel that the processor has; the slices are as long as wanted.
                unsafe { K::TILES[rows.len() - 1](operands, to) };
                finish(panel, rows, &sums);
            }
        }
    }
}

/// Rows of operands for the products of one sublayer step, and room for the next one's.
pub(super) struct Turns<K: Kernel> {
    buffers: [Buffer<K::Row>; 2],
}

impl<K: Kernel> Turns<K> {
    /// `len` operands each.
    pub(super) fn new(len: usize) -> Self {
        Self { buffers: [workspace::take(len), workspace::take(len)] }
    }

    pub(super) fn shared(&mut self) -> [Shared<'_, K::Row>; 2] {
        self.buffers.each_mut().map(|buffer| Shared::new(buffer))
    }
}
