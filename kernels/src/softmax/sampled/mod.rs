//! Losses in which a few sampled words stand for the vocabulary (Jean et al., 2015; Józefowicz et al., 2016, section 3.1).
//!
//! One set S of word numbers is drawn for all rows. With scores s(v) = y · w_v + b_v and the count Q(v) of a word that the
//! sampler is expected to draw, l(v) = s(v) − ln Q(v):
//!
//! ```text
//! sampled softmax   −ln softmax over {w} ∪ S \ {w} of l, at the target w
//! NCE               −ln sigmoid(l(w)) − Σ_{v ∈ S} ln sigmoid(−l(v))                Gutmann and Hyvärinen, 2010
//! ```
//!
//! Both are losses for training: a sampled softmax is far below the nats of the whole one.

mod cpu;
pub mod reference;

use crate::backend::Backend;
use crate::cpu::gemm::{Target, product};
use crate::cpu::instruction_set::Computed;
use crate::cpu::operation::{self, Operation};
use crate::cpu::panels::View;
use crate::cpu::workspace::{self, Buffer};
use crate::error::{Error, Result};
use crate::precision::Precision;
use candle_core::{Result as CandleResult, Shape, Tensor};
use cpu::{Backward, Forward};
use std::any::Any;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Logits that are held at a time, as of the whole softmax.
const LOGITS: usize = 1 << 25;

/// Which loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A softmax over the target and the samples; a sample that is the row's target is left out.
    Softmax,
    /// Noise-contrastive estimation: a binary decision about the target and about each sample.
    Nce,
}

/// What is random in the loss of some rows: the words and how often each was expected.
#[derive(Clone, Debug)]
pub struct Samples {
    /// Which loss.
    pub kind: Kind,
    /// The numbers of the sampled words, each once.
    pub ids: Vec<u32>,
    /// The number of the word that each row wants.
    pub targets: Vec<u32>,
    /// ln Q of the samples, then of the targets.
    pub log_expected: Vec<f64>,
}

impl Samples {
    /// For each row the position of its target among the samples.
    fn hits(&self) -> Vec<Option<usize>> {
        let positions: HashMap<u32, usize> = self.ids.iter().zip(0..).map(|(&id, at)| (id, at)).collect();
        self.targets.iter().map(|target| positions.get(target).copied()).collect()
    }
}

/// The loss of each row, `(rows)`.
///
/// `ys`: `(rows, hidden)`; `words`: `(samples + rows, hidden)`, the vectors of the samples and then of each row's target;
/// `biases`: `(samples + rows)`, theirs.
pub fn nats(
    ys: &Tensor,
    words: &Tensor,
    biases: &Tensor,
    samples: Samples,
    precision: Precision,
) -> Result<Tensor> {
    let (rows, hidden) = ys.dims2()?;
    let count = samples.ids.len() + samples.targets.len();
    let fits = samples.targets.len() == rows && samples.log_expected.len() == count;
    if !fits || words.dims() != [count, hidden] || biases.dims() != [count] {
        return Err(Error::setting(format!(
            "{rows} rows, {} targets, {} samples, vectors {:?}, biases {:?}",
            samples.targets.len(),
            samples.ids.len(),
            words.dims(),
            biases.dims()
        )));
    }
    if Backend::of(ys) != Backend::Cpu {
        return reference::nats(ys, words, biases, &samples);
    }
    let tracked = [ys, words, biases].iter().any(|tensor| tensor.track_op());
    let op = Sampled::new(samples, precision.rounds(), LOGITS, tracked);
    Ok(operation::apply(op, [ys, words, biases])?)
}

struct Sampled {
    samples: Samples,
    hits: Vec<Option<usize>>,
    bf16: bool,
    most_logits: usize,
    tracked: bool,
    /// l of the samples in all rows, if they are few enough: a [`Buffer`] of the element type.
    kept: Mutex<Option<Box<dyn Any + Send>>>,
}

/// The operands, cut into those of the samples and of the targets.
struct Operands<'a, T> {
    ys: &'a [T],
    words: &'a [T],
    target_words: &'a [T],
    /// b − ln Q.
    offsets: Vec<T>,
    target_offsets: Vec<T>,
    hidden: usize,
}

impl<T: Computed> Operands<'_, T> {
    /// l of the target of each of some rows.
    fn targets(&self, rows: std::ops::Range<usize>) -> Vec<T> {
        let dot = |at: usize| {
            let values = at * self.hidden..(at + 1) * self.hidden;
            let both = self.ys[values.clone()].iter().zip(&self.target_words[values]);
            both.fold(T::zero(), |sum, (&y, &w)| sum + y * w) + self.target_offsets[at]
        };
        rows.map(dot).collect()
    }
}

impl Sampled {
    fn new(samples: Samples, bf16: bool, most_logits: usize, tracked: bool) -> Self {
        let hits = samples.hits();
        Self { samples, hits, bf16, most_logits, tracked, kept: Mutex::new(None) }
    }

    fn rows_at_once(&self) -> usize {
        (self.most_logits / self.samples.ids.len().max(1)).max(1)
    }

    fn operands<'a, T: Computed>(&self, [ys, words, biases]: [&'a [T]; 3]) -> Operands<'a, T> {
        let hidden = ys.len() / self.samples.targets.len().max(1);
        let count = self.samples.ids.len();
        let (words, target_words) = words.split_at(count * hidden);
        let corrected = biases.iter().zip(&self.samples.log_expected);
        let mut offsets: Vec<T> = corrected.map(|(&b, &ln_q)| b - T::from_f64(ln_q)).collect();
        let target_offsets = offsets.split_off(count);
        Operands { ys, words, target_words, offsets, target_offsets, hidden }
    }

    /// The products of some rows with the samples, the offsets not yet added.
    fn products<T: Computed>(&self, of: &Operands<'_, T>, rows: std::ops::Range<usize>) -> Buffer<T> {
        let count = self.samples.ids.len();
        let mut logits = workspace::take(rows.len() * count);
        let ys = &of.ys[rows.start * of.hidden..rows.end * of.hidden];
        let words = View::new(of.words, count, of.hidden).t();
        let target = Target::new(&mut logits, rows.len(), count);
        product(target, View::new(ys, rows.len(), of.hidden), words, false, self.bf16);
        logits
    }

    fn parts(&self) -> impl Iterator<Item = std::ops::Range<usize>> + use<> {
        let rows = self.samples.targets.len();
        let at_once = self.rows_at_once();
        (0..rows).step_by(at_once).map(move |start| start..rows.min(start + at_once))
    }
}

impl Operation for Sampled {
    const NAME: &'static str = "sampled-softmax";

    fn forward<T: Computed>(&self, operands: [&[T]; 3], _: [&Shape; 3]) -> CandleResult<(Vec<T>, Shape)> {
        let of = self.operands(operands);
        let rows = self.samples.targets.len();
        let mut nats = vec![T::zero(); rows];
        for part in self.parts() {
            let mut logits = self.products(&of, part.clone());
            let work = Forward {
                kind: self.samples.kind,
                logits: &mut logits,
                offsets: &of.offsets,
                targets: &of.targets(part.clone()),
                hits: &self.hits[part.clone()],
                nats: &mut nats[part.clone()],
            };
            T::with_kernel(false, work);
            if self.tracked && part.len() == rows {
                *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(logits));
            }
        }
        Ok((nats, rows.into()))
    }

    fn backward<T: Computed>(&self, operands: [&[T]; 3], nats: &[T], grad: &[T]) -> [Vec<T>; 3] {
        let of = self.operands(operands);
        let hidden = of.hidden;
        let count = self.samples.ids.len();
        let [mut ys_grad, mut words_grad, mut biases_grad] =
            operands.map(|values| vec![T::zero(); values.len()]);
        let (sample_words, target_words) = words_grad.split_at_mut(count * hidden);
        let (sample_biases, target_biases) = biases_grad.split_at_mut(count);
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut kept = kept.and_then(|kept| kept.downcast::<Buffer<T>>().ok());
        for part in self.parts() {
            let targets = of.targets(part.clone());
            // What was kept has the offsets in it.
            let (mut logits, offsets) = match kept.take() {
                Some(kept) => (*kept, None),
                None => (self.products(&of, part.clone()), Some(&*of.offsets)),
            };
            let work = Backward {
                kind: self.samples.kind,
                logits: &mut logits,
                offsets,
                targets: &targets,
                hits: &self.hits[part.clone()],
                nats: &nats[part.clone()],
                grad: &grad[part.clone()],
                target_grads: &mut target_biases[part.clone()],
                sums: sample_biases,
            };
            T::with_kernel(false, work);
            let values = part.start * hidden..part.end * hidden;
            let logits = View::new(&logits, part.len(), count);
            let words = View::new(of.words, count, hidden);
            product(
                Target::new(&mut ys_grad[values.clone()], part.len(), hidden),
                logits,
                words,
                false,
                self.bf16,
            );
            let ys = View::new(&of.ys[values], part.len(), hidden);
            product(Target::new(sample_words, count, hidden), logits.t(), ys, part.start > 0, self.bf16);
        }
        for (row, &grad) in target_biases.iter().enumerate() {
            let values = row * hidden..(row + 1) * hidden;
            let y = &of.ys[values.clone()];
            let w = &of.target_words[values.clone()];
            target_words[values.clone()].iter_mut().zip(y).for_each(|(to, &y)| *to = grad * y);
            ys_grad[values].iter_mut().zip(w).for_each(|(to, &w)| *to += grad * w);
        }
        [ys_grad, words_grad, biases_grad]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use candle_core::{Device, Var};

    fn random(shape: &[usize], scale: f64) -> Var {
        let mut rng = Rng::keyed(7, "sampled", shape.iter().sum::<usize>() as u64);
        let values = (0..shape.iter().product()).map(|_| scale * (2.0 * rng.uniform() - 1.0));
        Var::from_vec(values.collect::<Vec<f64>>(), shape, &Device::Cpu).unwrap()
    }

    /// Three of the rows want a word that is among the samples.
    fn samples(kind: Kind, rows: usize, count: usize) -> Samples {
        let ids: Vec<u32> = (0..count as u32).map(|at| at * 3).collect();
        let targets: Vec<u32> = (0..rows as u32).map(|row| row * 2 + 1).collect(); // 3 and 9 are samples
        let log_expected = (0..count + rows).map(|at| -0.1 * at as f64 - 0.5).collect();
        Samples { kind, ids, targets, log_expected }
    }

    #[test]
    fn loss_and_gradients_equal_the_reference_however_many_logits_are_held() {
        for kind in [Kind::Softmax, Kind::Nce] {
            for (rows, hidden, count) in [(1, 1, 1), (6, 5, 37), (5, 3, 900)] {
                let ys = random(&[rows, hidden], 2.0);
                let words = random(&[count + rows, hidden], 2.0);
                let biases = random(&[count + rows], 2.0);
                let weights = Tensor::arange(1.0f64, 1.0 + rows as f64, &Device::Cpu).unwrap();
                let run = |loss: Tensor| {
                    let grads = (&loss * &weights).unwrap().sum_all().unwrap().backward().unwrap();
                    let flat = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f64>().unwrap();
                    let grad = |var: &Var| flat(grads.get(var).unwrap());
                    [flat(&loss), grad(&ys), grad(&words), grad(&biases)].concat()
                };
                let drawn = samples(kind, rows, count);
                let slow = run(reference::nats(&ys, &words, &biases, &drawn).unwrap());
                for most_logits in [1, 2 * count, 1 << 20] {
                    let op = Sampled::new(drawn.clone(), false, most_logits, true);
                    let loss = operation::apply(op, [&ys, &words, &biases]).unwrap();
                    for (fast, slow) in run(loss).iter().zip(&slow) {
                        assert!(
                            (fast - slow).abs() <= 1e-12 * (1.0 + slow.abs()),
                            "{kind:?}: {fast} for {slow}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn all_other_words_as_samples_make_the_whole_softmax_with_equal_expectations() {
        // l = s − ln Q with one Q for all is the softmax over the vocabulary of {0, 1, 2}.
        let ys = Tensor::new(&[[1.0f64]], &Device::Cpu).unwrap();
        let words = Tensor::new(&[[0.5f64], [-1.0], [2.0], [2.0]], &Device::Cpu).unwrap(); // samples 0, 1, 2; target 2
        let biases = Tensor::zeros(4, words.dtype(), &Device::Cpu).unwrap();
        let samples = Samples {
            kind: Kind::Softmax,
            ids: vec![0, 1, 2],
            targets: vec![2],
            log_expected: vec![-1.5; 4],
        };
        let found = nats(&ys, &words, &biases, samples, Precision::F64).unwrap().to_vec1::<f64>().unwrap()[0];
        let wanted = (0.5f64.exp() + (-1.0f64).exp() + 2.0f64.exp()).ln() - 2.0;
        assert!((found - wanted).abs() < 1e-14, "{found} for {wanted}");
    }

    #[test]
    fn sizes_that_do_not_fit_are_an_error() {
        let ys = random(&[2, 3], 1.0);
        let drawn = samples(Kind::Nce, 3, 4);
        assert!(nats(&ys, &random(&[7, 3], 1.0), &random(&[7], 1.0), drawn, Precision::F64).is_err());
    }
}
