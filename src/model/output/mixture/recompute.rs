//! The loss of a window in blocks of rows, of which nothing is kept: the backward pass makes each block's values again.
//!
//! A block has as many rows as make its logits, of all components, seven eighths of those that a plain softmax has for the whole
//! window: beside them the gradients of the blocks are added up.

use super::layer::{Layer, Weights, Window};
use crate::error::Result;
use candle_core::backend::BackendStorage;
use candle_core::{
    CpuStorage, CudaStorage, CustomOp3, Layout, Result as CandleResult, Shape, Storage, Tensor, Var,
};
use rhn_kernels::gradients::{Gradients, hand_over};
use rhn_kernels::linear::Stored;
use rhn_kernels::precision::Precision;
use std::ops::Range;

/// The most logits of a block, as of the plain softmax: 128 MiB of f32.
const LOGITS: usize = 1 << 25;

/// Nats of each target, `(rows)`, for `ys` of `(rows, hidden)` and `targets` of `(rows)`.
pub(super) fn recomputed(layer: &Layer, ys: &Tensor, targets: &Tensor, window: Window) -> Result<Tensor> {
    let blocks: Vec<_> = window.blocks(ys.dim(0)?, rows_at_once(layer, ys.dim(0)?)).collect();
    let Some((weights, stored, precision)) = layer.trained() else {
        return in_blocks(layer, &ys.detach(), targets, &window, &blocks);
    };
    let detached = Layer::new(weights.each_ref().map(|weight| weight.detach()), stored, precision)?;
    let nats = in_blocks(&detached, &ys.detach(), targets, &window, &blocks)?;
    if !ys.track_op() && !weights.iter().any(Tensor::track_op) {
        return Ok(nats);
    }
    let small = Small::of(&weights);
    let packed = small.pack(&weights)?;
    let words = weights[WORDS].clone();
    let targets = targets.clone();
    let op = Recomputed { nats, targets, window, blocks, small, stored, precision };
    Ok(ys.contiguous()?.apply_op3(&packed, &words, op)?)
}

fn rows_at_once(layer: &Layer, rows: usize) -> usize {
    let most = LOGITS.min(rows * layer.vocabulary() * 7 / 8);
    (most / layer.logits_of_a_row()).max(1)
}

fn in_blocks(
    layer: &Layer,
    ys: &Tensor,
    targets: &Tensor,
    window: &Window,
    blocks: &[Range<usize>],
) -> Result<Tensor> {
    let block = |rows: &Range<usize>| {
        let mask = window.mask_of(rows)?;
        let of_rows = |tensor: &Tensor| tensor.narrow(0, rows.start, rows.len());
        layer.nats(&of_rows(ys)?, &of_rows(targets)?, mask.as_ref())
    };
    Ok(Tensor::cat(&blocks.iter().map(block).collect::<Result<Vec<_>>>()?, 0)?)
}

/// Which of the [`Weights`] are the words' vectors.
const WORDS: usize = 3;

/// The weights but for the words' vectors, in one vector: an operation has three operands.
struct Small(Vec<Shape>);

impl Small {
    fn of(weights: &Weights) -> Self {
        Self(small(weights).map(|weight| weight.shape().clone()).collect())
    }

    fn pack<'a>(&self, weights: impl IntoIterator<Item = &'a Tensor>) -> CandleResult<Tensor> {
        let flat = small(weights).map(Tensor::flatten_all).collect::<CandleResult<Vec<_>>>()?;
        Tensor::cat(&flat, 0)
    }

    /// The weights of `packed`, with `words` in their place.
    fn unpack(&self, packed: &Tensor, words: Var) -> CandleResult<Vec<Var>> {
        let mut start = 0;
        let weight = |shape: &Shape| {
            let count = shape.elem_count();
            start += count;
            Var::from_tensor(&packed.narrow(0, start - count, count)?.reshape(shape)?)
        };
        let mut weights = self.0.iter().map(weight).collect::<CandleResult<Vec<_>>>()?;
        weights.insert(WORDS, words);
        Ok(weights)
    }
}

/// All but the words' vectors.
fn small<'a>(weights: impl IntoIterator<Item = &'a Tensor>) -> impl Iterator<Item = &'a Tensor> {
    weights.into_iter().enumerate().filter(|(index, _)| *index != WORDS).map(|(_, weight)| weight)
}

/// Gives `nats`, which are known; its gradient is made block by block. Operands: ys, the small weights, the words' vectors.
struct Recomputed {
    nats: Tensor,
    targets: Tensor,
    window: Window,
    blocks: Vec<Range<usize>>,
    small: Small,
    stored: Stored,
    precision: Precision,
}

impl Recomputed {
    /// The gradients of ys, of the small weights and of the words' vectors, from that of the nats.
    fn gradients(&self, operands: [&Tensor; 3], grad: &Tensor) -> Result<[Tensor; 3]> {
        let [ys, packed, words] = operands.map(Tensor::detach);
        // A variable of its own ends the history here; that of a trained table is taken as it is.
        let words = if operands[2].is_variable() { operands[2].clone() } else { words };
        let weights = self.small.unpack(&packed, Var::from_tensor(&words)?)?;
        let tensors: Vec<Tensor> = weights.iter().map(|weight| weight.as_tensor().clone()).collect();
        let tensors: Weights = tensors.try_into().expect("as many as were packed");
        let layer = Layer::new(tensors, self.stored, self.precision)?;
        let mut ys_grads = Vec::with_capacity(self.blocks.len());
        let mut sums: Vec<Tensor> = Vec::new();
        for rows in &self.blocks {
            let of_rows = |tensor: &Tensor| tensor.narrow(0, rows.start, rows.len());
            let ys = Var::from_tensor(&of_rows(&ys)?)?;
            let mask = self.window.mask_of(rows)?;
            let nats = layer.nats(ys.as_tensor(), &of_rows(&self.targets)?, mask.as_ref())?;
            let mut gradients = Gradients::of(&(nats * of_rows(grad)?)?.sum_all()?)?;
            let mut take = |var: &Var| -> Result<Tensor> {
                Ok(gradients.remove(var)?.expect("every weight takes part in each row"))
            };
            ys_grads.push(take(&ys)?);
            for (index, weight) in weights.iter().enumerate() {
                let grad = take(weight)?;
                match sums.get_mut(index) {
                    None => sums.push(grad),
                    Some(sum) => *sum = (&*sum + grad)?,
                }
            }
        }
        let packed = self.small.pack(&sums)?;
        Ok([Tensor::cat(&ys_grads, 0)?, packed, sums.swap_remove(WORDS)])
    }
}

impl CustomOp3 for Recomputed {
    fn name(&self) -> &'static str {
        "mixture-of-softmaxes"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> CandleResult<(CpuStorage, Shape)> {
        let (storage, layout) = self.nats.storage_and_layout();
        match &*storage {
            Storage::Cpu(nats) => Ok((nats.try_clone(layout)?, layout.shape().clone())),
            _ => candle_core::bail!("the loss lies on another device than its operands"),
        }
    }

    fn cuda_fwd(
        &self,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
    ) -> CandleResult<(CudaStorage, Shape)> {
        let (storage, layout) = self.nats.storage_and_layout();
        match &*storage {
            Storage::Cuda(nats) => Ok((nats.try_clone(layout)?, layout.shape().clone())),
            _ => candle_core::bail!("the loss lies on another device than its operands"),
        }
    }

    fn bwd(
        &self,
        ys: &Tensor,
        packed: &Tensor,
        words: &Tensor,
        _nats: &Tensor,
        grad: &Tensor,
    ) -> CandleResult<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let found = self.gradients([ys, packed, words], &grad.contiguous()?);
        let [of_ys, of_packed, of_words] = found.map_err(candle_core::Error::wrap)?;
        Ok((hand_over(ys, of_ys)?, hand_over(packed, of_packed)?, hand_over(words, of_words)?))
    }
}
