//! The operation on the CPU: products, loss, and all gradients from the logits' own.

use super::blocks::{self, Blocks};
use super::check_targets;
use super::cpu::{Backward, Forward};
use crate::cpu::gemm::{Target, product};
use crate::cpu::instruction_set::Computed;
use crate::cpu::operation::Operation;
use crate::cpu::panels::View;
use crate::cpu::workspace::{self, Buffer};
use crate::error::Result;
use crate::linear::Stored;
use crate::precision::Precision;
use candle_core::{Result as CandleResult, Shape, Tensor};
use std::any::Any;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// Words from which on a vocabulary is large: it is gone over some words at a time.
pub(super) const LARGE: usize = 1 << 14;

/// Its settings, and what its forward pass leaves.
pub(super) struct Nats {
    targets: Vec<u32>,
    stored: Stored,
    bf16: bool,
    most_logits: usize,
    /// Words from which on they are gone over in blocks, and these.
    pub(super) large: usize,
    pub(super) blocks: Blocks,
    tracked: bool,
    /// The logits of all rows, if they are few enough: a [`Buffer`] of the element type; in blocks what those leave.
    kept: Mutex<Option<Box<dyn Any + Send>>>,
}

/// The output layer's weights and sizes.
#[derive(Clone, Copy)]
pub(super) struct Layer<'a, T> {
    pub(super) weight: &'a [T],
    pub(super) bias: &'a [T],
    pub(super) stored: Stored,
    pub(super) hidden: usize,
    pub(super) bf16: bool,
}

impl<'a, T: Computed> Layer<'a, T> {
    /// `(hidden, vocabulary)`.
    pub(super) fn view(&self) -> View<'a, T> {
        self.stored.view(self.weight, self.hidden, self.bias.len())
    }

    /// The products of some rows, the bias not yet added.
    pub(super) fn products(&self, ys: &[T]) -> Buffer<T> {
        let rows = ys.len() / self.hidden;
        let mut logits = workspace::take(rows * self.bias.len());
        let target = Target::new(&mut logits, rows, self.bias.len());
        product(target, View::new(ys, rows, self.hidden), self.view(), false, self.bf16);
        logits
    }

    /// From the logits' gradients of some rows, those of the rows.
    fn ys_grad(&self, logits: &[T], ys_grad: &mut [T]) {
        let rows = ys_grad.len() / self.hidden;
        let logits = View::new(logits, rows, self.bias.len());
        let target = Target::new(ys_grad, rows, self.hidden);
        product(target, logits, self.view().t(), false, self.bf16);
    }

    /// From the logits' gradients of some rows, what is added to the weight's, or begins it.
    fn weight_grad(&self, ys: &[T], logits: &[T], weight_grad: &mut [T], begins: bool) {
        let rows = ys.len() / self.hidden;
        let logits = View::new(logits, rows, self.bias.len());
        let ys = View::new(ys, rows, self.hidden);
        self.stored.weight_grad(weight_grad, ys, logits, !begins, self.bf16);
    }
}

impl Nats {
    pub(super) fn new(
        targets: &Tensor,
        stored: Stored,
        precision: Precision,
        most_logits: usize,
        tracked: bool,
    ) -> Result<Self> {
        let targets = targets.to_vec1()?;
        Ok(Self {
            targets,
            stored,
            bf16: precision.rounds(),
            most_logits,
            large: LARGE,
            blocks: Blocks::default(),
            tracked,
            kept: Mutex::new(None),
        })
    }

    /// How many rows' logits are made at a time.
    fn rows_at_once(&self, vocabulary: usize) -> usize {
        (self.most_logits / vocabulary.max(1)).max(1)
    }

    /// Whether `vocabulary` words, the rows of the weight, are gone over in blocks.
    fn in_blocks(&self, vocabulary: usize) -> bool {
        self.stored == Stored::ByOutput && vocabulary >= self.large
    }

    fn keep<R: Send + 'static>(&self, what: R) {
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(what));
    }

    /// What was kept, once.
    fn kept<R: 'static>(&self) -> Option<R> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).take();
        kept.and_then(|kept| kept.downcast().ok()).map(|kept| *kept)
    }

    fn layer<'a, T>(&self, weight: &'a [T], bias: &'a [T]) -> Layer<'a, T> {
        let hidden = weight.len() / bias.len().max(1);
        Layer { weight, bias, stored: self.stored, hidden, bf16: self.bf16 }
    }
}

impl Operation for Nats {
    const NAME: &'static str = "softmax-cross-entropy";

    fn forward<T: Computed>(
        &self,
        [ys, weight, bias]: [&[T]; 3],
        shapes: [&Shape; 3],
    ) -> CandleResult<(Vec<T>, Shape)> {
        let Some((&hidden, rows)) = shapes[0].dims().split_last() else {
            candle_core::bail!("a number is no row of the output layer");
        };
        let rows = rows.iter().product();
        let vocabulary = shapes[2].dims1()?;
        check_targets(&self.targets, rows, vocabulary)?;
        if weight.len() != hidden * vocabulary {
            let shape = shapes[1].dims();
            candle_core::bail!("a weight of {shape:?} for {hidden} units and a vocabulary of {vocabulary}");
        }
        let layer = self.layer(weight, bias);
        if self.in_blocks(vocabulary) {
            let most = if self.tracked { self.most_logits } else { 0 };
            let (nats, saved) = blocks::forward(&layer, self.blocks, ys, &self.targets, most);
            if self.tracked {
                self.keep(saved);
            }
            return Ok((nats, rows.into()));
        }
        let mut nats = vec![T::zero(); rows];
        let at_once = self.rows_at_once(vocabulary);
        let parts = ys.chunks(at_once * hidden).zip(self.targets.chunks(at_once));
        for ((ys, targets), nats) in parts.zip(nats.chunks_mut(at_once)) {
            let logits = layer.products(ys);
            T::with_kernel(false, Forward { logits: &logits, bias, targets, nats });
            if self.tracked && rows <= at_once {
                self.keep(logits);
            }
        }
        Ok((nats, rows.into()))
    }

    fn backward<T: Computed>(&self, [ys, weight, bias]: [&[T]; 3], nats: &[T], grad: &[T]) -> [Vec<T>; 3] {
        let layer = self.layer(weight, bias);
        let mut weight_grad = vec![T::zero(); weight.len()];
        if self.in_blocks(bias.len()) {
            let [ys_grad, bias_grad] = self.blocks_back(layer, ys, grad, |words, logits| {
                let part = &mut weight_grad[words.start * layer.hidden..words.end * layer.hidden];
                let logits = View::new(logits, self.targets.len(), words.len());
                let ys = View::new(ys, self.targets.len(), layer.hidden);
                self.stored.weight_grad(part, ys, logits, false, self.bf16);
            });
            return [ys_grad, weight_grad, bias_grad];
        }
        let [ys_grad, bias_grad] = self.walk_back(layer, ys, [nats, grad], |start, ys, logits| {
            layer.weight_grad(ys, logits, &mut weight_grad, start == 0);
        });
        [ys_grad, weight_grad, bias_grad]
    }

    fn inner(&self) -> Option<usize> {
        (!self.bf16).then_some(self.targets.len())
    }

    fn backward_in_parts<T: Computed>(
        &self,
        [ys, weight, bias]: [&[T]; 3],
        nats: &[T],
        grad: &[T],
    ) -> ([Vec<T>; 2], [Vec<T>; 2]) {
        let layer = self.layer(weight, bias);
        if self.in_blocks(bias.len()) {
            let mut logits = vec![T::zero(); self.targets.len() * bias.len()];
            let grads = self.blocks_back(layer, ys, grad, |words, block| {
                let rows = logits.chunks_exact_mut(bias.len()).zip(block.chunks_exact(words.len()));
                rows.for_each(|(row, part)| row[words.clone()].copy_from_slice(part));
            });
            return (grads, [logits, ys.to_vec()]);
        }
        let mut logits = Vec::with_capacity(self.targets.len() * bias.len());
        let add = |_, _: &[T], part: &[T]| logits.extend_from_slice(part);
        let grads = self.walk_back(layer, ys, [nats, grad], add);
        let ys = ys.to_vec();
        (grads, if self.stored == Stored::ByInput { [ys, logits] } else { [logits, ys] })
    }
}

impl Nats {
    /// The gradients of the rows and of the bias, block by block of words; `each` gets the words of one and the gradients of
    /// their logits.
    fn blocks_back<T: Computed>(
        &self,
        layer: Layer<'_, T>,
        ys: &[T],
        grad: &[T],
        each: impl FnMut(Range<usize>, &[T]),
    ) -> [Vec<T>; 2] {
        let saved = self.kept::<blocks::Saved<T>>();
        let saved = saved.unwrap_or_else(|| blocks::forward(&layer, self.blocks, ys, &self.targets, 0).1);
        blocks::backward(&layer, self.blocks, [ys, grad], &self.targets, saved, each)
    }

    /// The gradients of the rows and of the bias; `each` gets the number of the first row of some, those rows, and the
    /// gradients of their logits.
    fn walk_back<T: Computed>(
        &self,
        layer: Layer<'_, T>,
        ys: &[T],
        [nats, grad]: [&[T]; 2],
        mut each: impl FnMut(usize, &[T], &[T]),
    ) -> [Vec<T>; 2] {
        let Layer { hidden, bias, .. } = layer;
        let [mut ys_grad, mut bias_grad] = [ys, bias].map(|values| vec![T::zero(); values.len()]);
        let at_once = self.rows_at_once(bias.len());
        let mut kept = self.kept::<Buffer<T>>();
        for start in (0..self.targets.len()).step_by(at_once) {
            let rows = start..self.targets.len().min(start + at_once);
            let values = rows.start * hidden..rows.end * hidden;
            let part = &ys[values.clone()];
            let mut logits = kept.take().unwrap_or_else(|| layer.products(part));
            let work = Backward {
                logits: &mut logits,
                bias,
                targets: &self.targets[rows.clone()],
                nats: &nats[rows.clone()],
                grad: &grad[rows.clone()],
                sums: &mut bias_grad,
            };
            T::with_kernel(false, work);
            layer.ys_grad(&logits, &mut ys_grad[values]);
            each(start, part, &logits);
        }
        [ys_grad, bias_grad]
    }
}
