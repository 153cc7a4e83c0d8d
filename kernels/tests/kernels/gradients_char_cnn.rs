//! The kernels of the character-aware embedding: against the references, and their gradients against central
//! differences.

use super::{check_by_differences, distance, random, values};
use candle_core::{DType, Device, Tensor, Var};
use rhn_kernels::Result;
use rhn_kernels::char_cnn::{self, Filters, reference};
use rhn_kernels::cpu::{InstructionSet, with_threads};
use rhn_kernels::precision::Precision;
use rhn_kernels::rng::Rng;

/// Widths and counts of filters: within a vector, a whole one, more than one.
const FILTERS: [(usize, usize); 4] = [(1, 3), (2, 16), (3, 21), (6, 40)];

struct Case {
    spelling: Tensor,
    characters: Var,
    filters: Vec<Filters>,
    parts: Vec<Var>,
    weights: Var,
}

impl Case {
    /// Numbers are representable in bf16: rounding must not decide which position responds most.
    fn new(words: usize, alphabet: usize, filters: &[(usize, usize)], dtype: DType) -> Self {
        let rounded = |name: &str, shape: &[usize], scale: f64| {
            let exact = random(name, shape, scale, DType::F64);
            Var::from_tensor(&exact.to_dtype(DType::BF16).unwrap().to_dtype(dtype).unwrap()).unwrap()
        };
        const SIZE: usize = 5;
        let of_width = |&(width, count): &(usize, usize)| {
            let weight = rounded(&format!("weight {width}"), &[width * SIZE, count], 0.5);
            [weight, rounded(&format!("bias {width}"), &[count], 0.5)]
        };
        let parts: Vec<[Var; 2]> = filters.iter().map(of_width).collect();
        let of_parts = |(&(width, _), [weight, bias]): (&(usize, usize), &[Var; 2])| Filters {
            width,
            weight: weight.as_tensor().clone(),
            bias: bias.as_tensor().clone(),
        };
        let count = filters.iter().map(|(_, count)| count).sum();
        Self {
            spelling: spelled(words, alphabet),
            characters: rounded("characters", &[alphabet, SIZE], 1.0),
            filters: filters.iter().zip(&parts).map(of_parts).collect(),
            parts: parts.into_iter().flatten().collect(),
            weights: random("weights", &[words, count], 1.0, dtype),
        }
    }

    fn run(&self, f: impl Fn(&Tensor, &Tensor, &[Filters]) -> Result<Tensor>) -> Vec<Tensor> {
        let ys = f(&self.spelling, &self.characters, &self.filters).unwrap();
        let grads = (&ys * self.weights.as_tensor()).unwrap().sum_all().unwrap().backward().unwrap();
        let grad = |var: &Var| grads.get(var).expect("a gradient").clone();
        let parts = self.parts.iter().map(grad);
        [ys.detach(), grad(&self.characters)].into_iter().chain(parts).collect()
    }
}

/// Words of 1 to 8 characters, padded; the third fills the padding, and repeats a character.
fn spelled(words: usize, alphabet: usize) -> Tensor {
    const LENGTH: usize = 8;
    let mut rng = Rng::keyed(2, "spelling", words as u64);
    let mut below = |limit: usize| (rng.uniform() * limit as f64) as u32;
    let mut word = |index: usize| -> Vec<u32> {
        let len = if index == 2 { LENGTH } else { 1 + below(LENGTH) as usize };
        let character = |position: usize, drawn: u32| if index == 2 && position > 3 { 1 } else { 1 + drawn };
        let mut spelling: Vec<u32> =
            (0..len).map(|position| character(position, below(alphabet - 1))).collect();
        spelling.resize(LENGTH, 0);
        spelling
    };
    let spelling: Vec<u32> = (0..words).flat_map(&mut word).collect();
    Tensor::from_vec(spelling, (words, LENGTH), &Device::Cpu).unwrap()
}

fn kernel(precision: Precision) -> impl Fn(&Tensor, &Tensor, &[Filters]) -> Result<Tensor> {
    move |spelling, characters, filters| char_cnn::features(spelling, characters, filters, precision)
}

/// Every instruction set of this processor against the reference in double precision.
fn check_against_the_reference(dtype: DType, precision: Precision, tolerance: f64) {
    for (words, alphabet) in [(1, 2), (3, 7), (40, 51)] {
        let exact = Case::new(words, alphabet, &FILTERS, DType::F64).run(reference::features);
        let case = Case::new(words, alphabet, &FILTERS, dtype);
        for set in InstructionSet::available() {
            let fast = set.force(|| case.run(kernel(precision)));
            for (part, (fast, exact)) in fast.iter().zip(&exact).enumerate() {
                let distance = distance(fast, exact);
                let case =
                    format!("part {part} {set:?} {precision:?} {words} words of {alphabet} characters");
                assert!(distance <= tolerance, "{case}: {distance:e}");
            }
        }
    }
}

#[test]
fn the_character_kernel_equals_the_reference_in_double_precision() {
    check_against_the_reference(DType::F64, Precision::F64, 1e-12);
}

#[test]
fn the_character_kernel_equals_the_reference_in_single_precision_on_every_instruction_set() {
    check_against_the_reference(DType::F32, Precision::F32, 1e-5);
}

#[test]
fn the_character_kernel_is_near_the_reference_in_bf16_on_every_instruction_set() {
    check_against_the_reference(DType::F32, Precision::Bf16, 1e-2); // the gradient's operands of 2^-9
}

#[test]
fn every_number_of_threads_gives_the_same_bits() {
    for precision in [Precision::F32, Precision::Bf16] {
        let case = Case::new(40, 51, &FILTERS, DType::F32);
        let run = |threads| {
            let parts = with_threads(threads, || case.run(kernel(precision)));
            parts.iter().map(values).collect::<Vec<_>>()
        };
        let alone = run(1);
        for threads in [2, 3, 5] {
            assert_eq!(run(threads), alone, "{threads} threads, {precision:?}");
        }
    }
}

#[test]
fn the_character_kernel_has_the_gradient_of_central_differences() {
    let case = Case::new(6, 7, &[(1, 2), (3, 17)], DType::F64);
    let loss = || -> f64 {
        let ys = kernel(Precision::F64)(&case.spelling, &case.characters, &case.filters).unwrap();
        values(&(ys * case.weights.as_tensor()).unwrap()).iter().sum()
    };
    let grads = case.run(kernel(Precision::F64));
    for (index, var) in [&case.characters].into_iter().chain(&case.parts).enumerate() {
        check_by_differences(&format!("part {index}"), var, &values(&grads[index + 1]), loss);
    }
}

#[test]
fn a_blank_has_no_vector_and_a_character_outside_the_alphabet_is_an_error() {
    let filters = || {
        let weight = Tensor::new(&[[1.0f64], [1.0]], &Device::Cpu).unwrap();
        vec![Filters { width: 2, weight, bias: Tensor::new(&[0.0f64], &Device::Cpu).unwrap() }]
    };
    let characters = Tensor::new(&[[9.0f64], [0.5], [-0.25]], &Device::Cpu).unwrap();
    let words = Tensor::new(&[[1u32, 2, 0], [2, 0, 0]], &Device::Cpu).unwrap();
    for f in [
        &kernel(Precision::F64) as &dyn Fn(&Tensor, &Tensor, &[Filters]) -> Result<Tensor>,
        &reference::features,
    ] {
        let ys = f(&words, &characters, &filters()).unwrap();
        assert_eq!(values(&ys), [0.25f64.tanh(), 0.0]); // 0.5 − 0.25 before −0.25 + 0; 0 + 0 after −0.25 + 0
    }
    let outside = Tensor::new(&[[1u32, 3, 0]], &Device::Cpu).unwrap();
    assert!(kernel(Precision::F64)(&outside, &characters, &filters()).is_err());
}

#[test]
fn what_is_not_a_number_reaches_the_features() {
    let mut case = Case::new(3, 7, &[(2, 3)], DType::F32);
    case.filters[0].weight = (&case.filters[0].weight * f64::NAN).unwrap();
    let ys = kernel(Precision::F32)(&case.spelling, &case.characters, &case.filters).unwrap();
    assert!(values(&ys).iter().all(|y| y.is_nan()));
}
