//! Nats of targets in the softmax of packed weights' products. A panel's logits are summed up while they are in the cache, and none
//! are kept: a large vocabulary's would be written to memory and read again.
//!
//! ```text
//! of panel P    m_P = max l      s_P = Σ e^(l − m_P)
//! of all        m = max m_P      −ln p(target) = m + ln Σ_P s_P e^(m_P − m) − l(target)
//! ```
//!
//! The panels' sums come together in the panels' order, so that the bits are the same with any number of threads, and a row's
//! whatever the other rows are.

use super::cpu::write_operands;
use crate::cpu::packed::{OperandBuffers, PackedWeights, Weights};
use crate::cpu::panels::View;
use crate::cpu::pool;
use crate::cpu::real::Real;
use crate::cpu::shared::Shared;
use crate::cpu::tile::Kernel;
use crate::cpu::workspace;
use num_traits::Float;

/// Rows whose panels' sums are held at a time.
const ROWS: usize = 256;

/// `−ln softmax(xs W + bias)[target]` of each row into `nats`; `xs` is `(rows, input)`, each target below the weights' columns.
pub(super) fn nats<K: Kernel>(
    weights: &PackedWeights<K>,
    xs: &[K::Element],
    bias: &[K::Element],
    targets: &[u32],
    nats: &mut [K::Element],
) {
    let input = xs.len() / targets.len().max(1);
    let blocks = targets.chunks(ROWS).zip(nats.chunks_mut(ROWS));
    for (index, (targets, nats)) in blocks.enumerate() {
        let xs = View::new(&xs[index * ROWS * input..][..targets.len() * input], targets.len(), input);
        block(weights, xs, bias, targets, nats);
    }
}

fn block<K: Kernel>(
    weights: &PackedWeights<K>,
    xs: View<'_, K::Element>,
    bias: &[K::Element],
    targets: &[u32],
    nats: &mut [K::Element],
) {
    let rows = targets.len();
    let panels = weights.parts();
    let mut operands = OperandBuffers::<K>::new(rows, weights.steps());
    let operands = operands.shared();
    let mut most = workspace::take::<K::Element>(panels * rows);
    let mut sums = workspace::take::<K::Element>(panels * rows);
    let most = Shared::new(&mut most);
    let sums = Shared::new(&mut sums);
    let nats = Shared::new(nats); // of each row first its target's logit
    pool::run(|worker| {
        write_operands(&operands, xs, worker);
        worker.barrier();
        // SAFETY: after the barrier no thread writes them.
        let read = unsafe { operands.read(0) };
        let mut products = weights.sums(rows);
        weights.multiply(0, 0, read, worker, &mut products, &mut |panel, products| {
            let start = panel * K::columns();
            let bias = &bias[start..bias.len().min(start + K::columns())];
            let logits = |row: usize| &products[row * K::columns()..][..bias.len()];
            // SAFETY: workers' panels are disjoint.
            let [most, sums] = unsafe { [&most, &sums].map(|all| all.part(panel * rows, rows)) };
            K::vectorized(
                #[inline(always)]
                || {
                    for row in 0..rows {
                        (most[row], sums[row]) = sum(logits(row), bias);
                    }
                },
            );
            for (row, &target) in targets.iter().enumerate() {
                let place = (target as usize).wrapping_sub(start);
                if let Some(&bias) = bias.get(place) {
                    // SAFETY: a target is in one panel.
                    let logit = unsafe { nats.part(row, 1) };
                    logit[0] = logits(row)[place] + bias;
                }
            }
        });
        worker.barrier();
        let own = worker.share(rows);
        // SAFETY: workers' rows are disjoint, and after the barrier no thread writes what is read.
        let nats = unsafe { nats.part(own.start, own.len()) };
        // SAFETY: as above.
        let [most, sums] = unsafe { [&most, &sums].map(|all| all.read(0, panels * rows)) };
        let of_panel = |panel: usize| panel * rows + own.start..panel * rows + own.end;
        let mut all_most = vec![<K::Element as Float>::neg_infinity(); own.len()];
        let mut all_sums = vec![K::Element::default(); own.len()];
        K::vectorized(
            #[inline(always)]
            || {
                for panel in 0..panels {
                    for (most, &other) in all_most.iter_mut().zip(&most[of_panel(panel)]) {
                        *most = if other > *most { other } else { *most };
                    }
                }
                for panel in 0..panels {
                    let of_panel = most[of_panel(panel)].iter().zip(&sums[of_panel(panel)]);
                    for ((sum, &all), (&most, &part)) in all_sums.iter_mut().zip(&all_most).zip(of_panel) {
                        *sum += part * (most - all).fast_exp();
                    }
                }
            },
        );
        for ((nats, most), sum) in nats.iter_mut().zip(all_most).zip(all_sums) {
            *nats = most + sum.ln() - *nats;
        }
    });
}

/// Sums and maxima that run side by side, whatever the instruction set.
const LANES: usize = 16;

/// The highest logit of a panel and the sum of exponentials below it. What is no number is not the highest, and not lost: the sum
/// is none then.
#[inline(always)]
fn sum<T: Real>(products: &[T], bias: &[T]) -> (T, T) {
    let (chunks, rest) = products.as_chunks::<LANES>();
    let (bias_chunks, bias_rest) = bias.as_chunks::<LANES>();
    let higher = |a: T, b: T| if b > a { b } else { a };
    let mut lanes = [T::neg_infinity(); LANES];
    for (chunk, bias) in chunks.iter().zip(bias_chunks) {
        for i in 0..LANES {
            lanes[i] = higher(lanes[i], chunk[i] + bias[i]);
        }
    }
    for (lane, (&x, &b)) in lanes.iter_mut().zip(rest.iter().zip(bias_rest)) {
        *lane = higher(*lane, x + b);
    }
    let most = join(lanes, higher);
    // Where there is none, infinity less infinity would be no number though nothing is wrong with the other panels.
    let below = if most > T::neg_infinity() { most } else { T::zero() };
    let mut lanes = [T::zero(); LANES];
    for (chunk, bias) in chunks.iter().zip(bias_chunks) {
        for i in 0..LANES {
            lanes[i] += (chunk[i] + bias[i] - below).fast_exp();
        }
    }
    for (lane, (&x, &b)) in lanes.iter_mut().zip(rest.iter().zip(bias_rest)) {
        *lane += (x + b - below).fast_exp();
    }
    (most, join(lanes, |a, b| a + b))
}

/// All lanes in one, halves with halves: one after the other, each would wait for the one before.
#[inline(always)]
fn join<T: Copy>(mut lanes: [T; LANES], join: impl Fn(T, T) -> T) -> T {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] = join(lanes[i], lanes[i + width]);
        }
        width /= 2;
    }
    lanes[0]
}

#[cfg(test)]
mod tests {
    use super::ROWS;
    use crate::cpu::pool::with_threads;
    use crate::linear::{Prepared, Stored};
    use crate::precision::Precision;
    use crate::rng::Rng;
    use crate::softmax::reference;
    use candle_core::{DType, Device, Tensor};

    fn random(name: &str, shape: &[usize], dtype: DType) -> Tensor {
        let mut rng = Rng::keyed(3, name, shape.iter().sum::<usize>() as u64);
        let values: Vec<f64> = (0..shape.iter().product()).map(|_| 4.0 * rng.uniform() - 2.0).collect();
        Tensor::from_vec(values, shape, &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
    }

    fn flat(tensor: &Tensor) -> Vec<f64> {
        tensor.to_dtype(DType::F64).unwrap().to_vec1().unwrap()
    }

    fn targets(rows: usize, vocabulary: usize) -> Tensor {
        let ids: Vec<u32> = (0..rows).map(|row| ((row * 31 + row * row) % vocabulary) as u32).collect();
        Tensor::new(ids, &Device::Cpu).unwrap()
    }

    #[test]
    fn they_are_those_of_the_logits() {
        for (dtype, precision, tolerance) in
            [(DType::F64, Precision::F64, 1e-12), (DType::F32, Precision::F32, 1e-5)]
        {
            for (rows, input, vocabulary) in
                [(1, 3, 1), (2, 5, 31), (7, 9, 64), (5, 40, 257), (ROWS + 3, 4, 100)]
            {
                let xs = random("xs", &[rows, input], dtype);
                let weight = random("weight", &[vocabulary, input], dtype);
                let bias = random("bias", &[vocabulary], dtype);
                let targets = targets(rows, vocabulary);
                let prepared = Prepared::new(&weight, Stored::ByOutput, precision).unwrap();
                let found = flat(&prepared.nats(&xs, &bias, &targets).unwrap());
                let products = xs.matmul(&weight.t().unwrap()).unwrap();
                let wanted = flat(&reference::nats(&products, &bias, &targets).unwrap());
                for (found, wanted) in found.iter().zip(&wanted) {
                    let far = (found - wanted).abs();
                    assert!(
                        far <= tolerance * (1.0 + wanted),
                        "{rows} {input} {vocabulary}: {found}, {wanted}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_row_has_the_same_bits_among_others_and_with_any_number_of_threads() {
        let vocabulary = 1000;
        let xs = random("xs", &[ROWS + 40, 24], DType::F32);
        let weight = random("weight", &[vocabulary, 24], DType::F32);
        let bias = random("bias", &[vocabulary], DType::F32);
        let targets = targets(ROWS + 40, vocabulary);
        let prepared = Prepared::new(&weight, Stored::ByOutput, Precision::F32).unwrap();
        let run = |start: usize, count: usize, threads| {
            let rows = |tensor: &Tensor| tensor.narrow(0, start, count).unwrap();
            with_threads(threads, || flat(&prepared.nats(&rows(&xs), &bias, &rows(&targets)).unwrap()))
        };
        let all = run(0, ROWS + 40, 1);
        assert_eq!(run(0, ROWS + 40, 2), all);
        assert_eq!(run(0, ROWS + 40, 3), all);
        for (start, count) in [(0, 1), (3, 2), (17, 23), (ROWS - 5, 30)] {
            assert_eq!(run(start, count, 2), all[start..start + count]);
        }
    }

    #[test]
    fn what_is_no_number_or_infinite_does_not_pass_as_one_and_a_word_that_never_comes_costs_the_others_nothing()
     {
        let vocabulary = 150;
        let of = |bias: Vec<f64>| {
            let bias = Tensor::from_vec(bias, vocabulary, &Device::Cpu).unwrap();
            let weight = Tensor::zeros((vocabulary, 2), DType::F64, &Device::Cpu).unwrap();
            let xs = Tensor::ones((1, 2), DType::F64, &Device::Cpu).unwrap();
            let target = Tensor::new(&[3u32], &Device::Cpu).unwrap();
            let prepared = Prepared::new(&weight, Stored::ByOutput, Precision::F64).unwrap();
            flat(&prepared.nats(&xs, &bias, &target).unwrap())[0]
        };
        let of_bias = |at: usize, value: f64| {
            let mut bias = vec![0.0; vocabulary];
            bias[at] = value;
            of(bias)
        };
        for at in [0, 3, 70, vocabulary - 1] {
            assert!(!of_bias(at, f64::NAN).is_finite() && !of_bias(at, f64::INFINITY).is_finite(), "{at}");
        }
        assert!((of_bias(70, f64::NEG_INFINITY) - 149f64.ln()).abs() < 1e-12);
        assert!((of_bias(vocabulary - 1, f64::NEG_INFINITY) - 149f64.ln()).abs() < 1e-12);
        let all_but_few = |few: usize| {
            of((0..vocabulary).map(|at| if at < few { 0.0 } else { f64::NEG_INFINITY }).collect())
        };
        assert!((all_but_few(4) - 4f64.ln()).abs() < 1e-12, "whole panels of words that never come");
        assert!(!all_but_few(0).is_finite());
    }

    #[test]
    fn targets_outside_the_vocabulary_and_too_few_of_them_are_refused() {
        let weight = random("weight", &[5, 2], DType::F64);
        let prepared = Prepared::new(&weight, Stored::ByOutput, Precision::F64).unwrap();
        let bias = random("bias", &[5], DType::F64);
        let xs = random("xs", &[2, 2], DType::F64);
        for wrong in [vec![0, 5], vec![1]] {
            assert!(prepared.nats(&xs, &bias, &Tensor::new(wrong, &Device::Cpu).unwrap()).is_err());
        }
    }
}
