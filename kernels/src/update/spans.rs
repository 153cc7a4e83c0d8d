//! The numbers that an update touches: all of a tensor, or some rows of a table.

use super::pieces;
use crate::cpu::pool;
use crate::cpu::shared::Shared;
use candle_core::{Result, Shape};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

/// Which numbers of a tensor a gradient is of.
#[derive(Clone, Copy, Debug)]
pub enum Touched<'a> {
    /// All of them.
    All,
    /// Those of the rows with these numbers, which rise; the gradient holds these rows alone.
    Rows(&'a [u32]),
}

/// The numbers of a tensor that are touched, as ranges of its elements.
#[derive(Clone)]
pub(super) struct Spans {
    /// The numbers of the rows and how many elements each has; `None` for all.
    rows: Option<(Vec<u32>, usize)>,
    /// Elements of the tensor.
    len: usize,
}

impl Spans {
    /// Of a tensor of `shape`, or of several such tensors one behind the other, each by itself.
    ///
    /// # Errors
    /// If a row is not in the table, or the rows do not rise.
    pub(super) fn new(shape: &Shape, touched: Touched<'_>) -> Result<Self> {
        let len = shape.elem_count();
        let Touched::Rows(ids) = touched else { return Ok(Self { rows: None, len }) };
        let count = shape.dims().first().copied().unwrap_or(1);
        let rises = ids.windows(2).all(|pair| pair[0] < pair[1]);
        if !rises || ids.last().is_some_and(|&last| last as usize >= count) {
            candle_core::bail!("rows of a table of {count} must rise and be in it");
        }
        Ok(Self { rows: Some((ids.to_vec(), len / count.max(1))), len })
    }

    /// Elements of the gradient.
    pub(super) fn touched(&self) -> usize {
        self.rows.as_ref().map_or(self.len, |(ids, width)| ids.len() * width)
    }

    /// Calls `work` with each range of the tensor's elements and that of the gradient's, on any thread.
    pub(super) fn for_each(&self, work: impl Fn(Range<usize>, Range<usize>) + Sync) {
        let Some((ids, width)) = &self.rows else {
            return pieces::for_each(self.len, |piece| work(piece.clone(), piece));
        };
        let row = |start: usize| start * width..(start + 1) * width;
        pool::run(|worker| worker.share(ids.len()).for_each(|at| work(row(ids[at] as usize), row(at))));
    }

    /// As [`Spans::for_each`], with those elements of `target` themselves.
    pub(super) fn for_each_mut<T: Send>(
        &self,
        target: &mut [T],
        work: impl Fn(&mut [T], Range<usize>, Range<usize>) + Sync,
    ) {
        let target = Shared::new(target);
        self.for_each(|span, of_gradient| {
            // SAFETY: pieces are disjoint, and so are rows, whose numbers rise.
            work(unsafe { target.part(span.start, span.len()) }, span, of_gradient);
        });
    }

    /// Whether `work` holds of every range.
    pub(super) fn all(&self, work: impl Fn(Range<usize>, Range<usize>) -> bool + Sync) -> bool {
        let all = AtomicBool::new(true);
        self.for_each(|span, of_gradient| {
            if !work(span, of_gradient) {
                all.store(false, Ordering::Relaxed);
            }
        });
        all.into_inner()
    }
}
