//! The LSTM's kernel: against the plain-tensor oracle, and its gradient against central differences.

use super::{check_by_differences, distance, random, values};
use candle_core::{DType, Device, Tensor, Var};
use rhn_kernels::Result;
use rhn_kernels::cpu::{InstructionSet, with_threads};
use rhn_kernels::precision::Precision::{self, F64};
use rhn_kernels::scan::HiddenMask;
use rhn_kernels::scan::lstm_op as lstm;
use rhn_kernels::scan::reference;

struct Case {
    projected: Var,
    recurrent: Var,
    bias: Var,
    state: [Var; 2],
    weights: Var,
    mask: HiddenMask,
}

impl Case {
    fn new(time: usize, batch: usize, hidden: usize, masked: bool, dtype: DType) -> Self {
        let scale = 1.0 / (hidden as f64).sqrt();
        let mask = random("mask", &[batch, hidden], 1.0, dtype).ge(-0.5).unwrap().to_dtype(dtype).unwrap();
        Self {
            projected: random("projected", &[time, batch, 4 * hidden], 1.0, dtype),
            recurrent: random("recurrent", &[hidden, 4 * hidden], 1.5 * scale, dtype),
            bias: random("bias", &[4 * hidden], 0.5, dtype),
            state: ["h", "c"].map(|part| random(part, &[batch, hidden], 0.8, dtype)),
            weights: random("weights", &[time, batch, hidden], 1.0, dtype),
            mask: if masked { HiddenMask::Shared((mask / 0.75).unwrap()) } else { HiddenMask::None },
        }
    }

    fn outputs(&self, f: impl Lstm) -> (Tensor, Tensor) {
        let state = self.state.each_ref().map(Var::as_tensor);
        f(&self.projected, &self.recurrent, &self.bias, state, &self.mask).unwrap()
    }

    fn run(&self, f: impl Lstm) -> [Tensor; 5] {
        let (outputs, cell) = self.outputs(f);
        let grads = (&outputs * self.weights.as_tensor()).unwrap().sum_all().unwrap().backward().unwrap();
        assert!(self.state.iter().all(|part| grads.get(part).is_none()));
        let grad = |var: &Var| grads.get(var).expect("a gradient").clone();
        [outputs.detach(), cell, grad(&self.projected), grad(&self.recurrent), grad(&self.bias)]
    }
}

/// The kernel or the oracle.
trait Lstm: Fn(&Tensor, &Tensor, &Tensor, [&Tensor; 2], &HiddenMask) -> Result<(Tensor, Tensor)> {}

impl<F: Fn(&Tensor, &Tensor, &Tensor, [&Tensor; 2], &HiddenMask) -> Result<(Tensor, Tensor)>> Lstm for F {}

/// T, B, H: odd ones, full vectors and one more, more lanes than a tile has rows.
const SHAPES: [(usize, usize, usize); 10] = [
    (1, 1, 1),
    (35, 1, 7),
    (3, 3, 7),
    (5, 20, 16),
    (35, 3, 33),
    (2, 33, 130),
    (2, 70, 130),
    (1, 20, 130),
    (2, 20, 650),
    (1, 33, 650),
];

const PARTS: [&str; 5] = ["outputs", "cell", "projected", "recurrent", "bias"];

fn kernel(precision: Precision) -> impl Lstm {
    move |projected: &Tensor, recurrent: &Tensor, bias: &Tensor, state: [&Tensor; 2], mask: &HiddenMask| {
        lstm::lstm(projected, recurrent, bias, state, mask, precision)
    }
}

/// Every instruction set of this processor, with and without a mask, against the oracle in double precision.
fn check_against_the_oracle(dtype: DType, precision: Precision, tolerance: f64) {
    for (time, batch, hidden) in SHAPES {
        for masked in [false, true] {
            let exact = Case::new(time, batch, hidden, masked, DType::F64).run(reference::lstm);
            let case = Case::new(time, batch, hidden, masked, dtype);
            for set in InstructionSet::available() {
                let fast = set.force(|| case.run(kernel(precision)));
                for (what, (fast, exact)) in PARTS.iter().zip(fast.iter().zip(&exact)) {
                    let distance = distance(fast, exact);
                    let place = format!("{what} {set:?} {precision:?} T {time} B {batch} H {hidden}");
                    assert!(distance <= tolerance, "{place}: {distance:e}");
                }
            }
        }
    }
}

#[test]
fn the_lstm_kernel_equals_the_oracle_in_double_precision() {
    check_against_the_oracle(DType::F64, Precision::F64, 1e-12);
}

#[test]
fn the_lstm_kernel_equals_the_oracle_in_single_precision_on_every_instruction_set() {
    check_against_the_oracle(DType::F32, Precision::F32, 1e-5);
}

#[test]
fn the_lstm_kernel_is_near_the_oracle_in_bf16_on_every_instruction_set() {
    check_against_the_oracle(DType::F32, Precision::Bf16, 2e-2); // operands of 2^-9, through 35 steps
}

#[test]
fn every_number_of_threads_gives_the_same_bits() {
    for precision in [Precision::F32, Precision::Bf16] {
        for (batch, hidden) in [(1, 7), (20, 130), (33, 33)] {
            let case = Case::new(4, batch, hidden, true, DType::F32);
            let run =
                |threads| with_threads(threads, || case.run(kernel(precision)).map(|part| values(&part)));
            let alone = run(1);
            for threads in [2, 3, 5] {
                assert_eq!(run(threads), alone, "{threads} threads, {precision:?}, B {batch} H {hidden}");
            }
        }
    }
}

#[test]
fn nothing_changes_where_no_gradient_is_wanted() {
    let case = Case::new(4, 3, 33, true, DType::F32);
    let [projected, recurrent, bias] =
        [&case.projected, &case.recurrent, &case.bias].map(Var::as_detached_tensor);
    let state = case.state.each_ref().map(Var::as_tensor);
    let (outputs, cell) =
        lstm::lstm(&projected, &recurrent, &bias, state, &case.mask, Precision::F32).unwrap();
    let [recorded, recorded_cell, ..] = case.run(kernel(Precision::F32));
    assert_eq!(values(&outputs), values(&recorded));
    assert_eq!(values(&cell), values(&recorded_cell));
}

#[test]
fn the_lstm_kernel_has_the_gradient_of_central_differences() {
    let case = Case::new(3, 2, 5, true, DType::F64);
    let loss = || -> f64 {
        let (outputs, _) = case.outputs(kernel(F64));
        values(&(outputs * case.weights.as_tensor()).unwrap()).iter().sum()
    };
    let [_, _, projected, recurrent, bias] = case.run(kernel(F64));
    for (name, var, grad) in [
        ("projected", &case.projected, projected),
        ("recurrent", &case.recurrent, recurrent),
        ("bias", &case.bias, bias),
    ] {
        check_by_differences(name, var, &values(&grad), loss);
    }
}

#[test]
fn half_the_cell_is_forgotten_at_each_step_when_weights_are_zero() {
    let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F64, &Device::Cpu).unwrap();
    let ones = Tensor::ones((1, 2), DType::F64, &Device::Cpu).unwrap();
    let (outputs, cell) =
        kernel(F64)(&zeros(&[3, 1, 8]), &zeros(&[2, 8]), &zeros(&[8]), [&ones, &ones], &HiddenMask::None)
            .unwrap();
    assert_eq!(values(&cell), [0.125; 2]); // f = 1/2, g = 0
    let wanted = [0.5f64, 0.25, 0.125].map(|c| 0.5 * c.tanh()); // o = 1/2
    assert_eq!(values(&outputs), wanted.map(|h| [h, h]).concat());
}
