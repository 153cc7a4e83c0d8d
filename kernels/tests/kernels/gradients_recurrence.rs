//! The recurrence's kernel: against the plain-tensor oracle, and its gradient against central differences.

use super::{check_by_differences, distance, random, values};
use candle_core::{DType, Device, Tensor, Var};
use rhn_kernels::Result;
use rhn_kernels::cpu::{InstructionSet, with_threads};
use rhn_kernels::precision::Precision::{self, F64};
use rhn_kernels::scan::reference;
use rhn_kernels::scan::{HiddenMask, rhn_op as recurrence};

struct Case {
    projected: Var,
    recurrent: Var,
    bias: Var,
    state: Var,
    weights: Var,
    mask: HiddenMask,
}

impl Case {
    fn new(time: usize, batch: usize, depth: usize, hidden: usize, masked: bool, dtype: DType) -> Self {
        let scale = 1.0 / (hidden as f64).sqrt();
        let mask = random("mask", &[batch, hidden], 1.0, dtype).ge(-0.5).unwrap().to_dtype(dtype).unwrap();
        Self {
            projected: random("projected", &[time, batch, 2 * hidden], 1.0, dtype),
            recurrent: random("recurrent", &[depth, hidden, 2 * hidden], 1.5 * scale, dtype),
            bias: random("bias", &[depth, 2 * hidden], 0.5, dtype),
            state: random("state", &[batch, hidden], 0.8, dtype),
            weights: random("weights", &[time, batch, hidden], 1.0, dtype),
            mask: if masked { HiddenMask::Shared((mask / 0.75).unwrap()) } else { HiddenMask::None },
        }
    }

    fn run(
        &self,
        f: impl Fn(&Tensor, &Tensor, &Tensor, &Tensor, &HiddenMask) -> Result<Tensor>,
    ) -> [Tensor; 4] {
        let outputs = f(&self.projected, &self.recurrent, &self.bias, &self.state, &self.mask).unwrap();
        let grads = (&outputs * self.weights.as_tensor()).unwrap().sum_all().unwrap().backward().unwrap();
        let grad = |var: &Var| grads.get(var).expect("a gradient").clone();
        [outputs.detach(), grad(&self.projected), grad(&self.recurrent), grad(&self.bias)]
    }
}

/// T, B, L, H: odd ones, full vectors and one more, more lanes than a tile has rows.
const SHAPES: [(usize, usize, usize, usize); 10] = [
    (1, 1, 1, 1),
    (35, 1, 1, 7),
    (3, 3, 2, 7),
    (5, 20, 3, 16),
    (35, 3, 1, 33),
    (2, 33, 10, 130),
    (2, 70, 2, 130),
    (1, 20, 10, 130),
    (2, 20, 2, 830),
    (1, 33, 1, 830),
];

/// The recurrence, by a kernel or by its oracle.
type Recurrence = dyn Fn(&Tensor, &Tensor, &Tensor, &Tensor, &HiddenMask) -> Result<Tensor>;

const PARTS: [&str; 4] = ["outputs", "projected", "recurrent", "bias"];

fn kernel(
    precision: Precision,
) -> impl Fn(&Tensor, &Tensor, &Tensor, &Tensor, &HiddenMask) -> Result<Tensor> {
    move |projected, recurrent, bias, state, mask| {
        recurrence::rhn(projected, recurrent, bias, state, mask, precision)
    }
}

/// Every instruction set of this processor, with and without a mask, against the oracle in double precision.
fn check_against_the_oracle(dtype: DType, precision: Precision, tolerance: f64) {
    for (time, batch, depth, hidden) in SHAPES {
        for masked in [false, true] {
            let exact = Case::new(time, batch, depth, hidden, masked, DType::F64).run(reference::rhn);
            let case = Case::new(time, batch, depth, hidden, masked, dtype);
            for set in InstructionSet::available() {
                let fast = set.force(|| case.run(kernel(precision)));
                for (what, (fast, exact)) in PARTS.iter().zip(fast.iter().zip(&exact)) {
                    let distance = distance(fast, exact);
                    let place =
                        format!("{what} {set:?} {precision:?} T {time} B {batch} L {depth} H {hidden}");
                    assert!(distance <= tolerance, "{place}: {distance:e}");
                }
            }
        }
    }
}

#[test]
fn the_recurrence_kernel_equals_the_oracle_in_double_precision() {
    check_against_the_oracle(DType::F64, Precision::F64, 1e-12);
}

#[test]
fn the_recurrence_kernel_equals_the_oracle_in_single_precision_on_every_instruction_set() {
    check_against_the_oracle(DType::F32, Precision::F32, 1e-5);
}

#[test]
fn the_recurrence_kernel_is_near_the_oracle_in_bf16_on_every_instruction_set() {
    check_against_the_oracle(DType::F32, Precision::Bf16, 2e-2); // operands of 2^-9, through 35 steps
}

#[test]
fn every_number_of_threads_gives_the_same_bits() {
    for precision in [Precision::F32, Precision::Bf16] {
        for (batch, hidden) in [(1, 7), (20, 130), (33, 33)] {
            let case = Case::new(4, batch, 3, hidden, true, DType::F32);
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
fn the_recurrence_kernel_has_the_gradient_of_central_differences() {
    let case = Case::new(3, 2, 3, 5, true, DType::F64);
    let loss = || -> f64 {
        let outputs =
            kernel(F64)(&case.projected, &case.recurrent, &case.bias, &case.state, &case.mask).unwrap();
        values(&(outputs * case.weights.as_tensor()).unwrap()).iter().sum()
    };
    let [_, projected, recurrent, bias] = case.run(kernel(F64));
    for (name, var, grad) in [
        ("projected", &case.projected, projected),
        ("recurrent", &case.recurrent, recurrent),
        ("bias", &case.bias, bias),
    ] {
        check_by_differences(name, var, &values(&grad), loss);
    }
}

#[test]
fn each_sublayer_halves_the_state_when_weights_are_zero() {
    for depth in [1, 2, 5] {
        let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F64, &Device::Cpu).unwrap();
        let state = Tensor::ones((1, 2), DType::F64, &Device::Cpu).unwrap();
        let outputs = kernel(F64)(
            &zeros(&[1, 1, 4]),
            &zeros(&[depth, 2, 4]),
            &zeros(&[depth, 4]),
            &state,
            &HiddenMask::None,
        );
        assert_eq!(values(&outputs.unwrap()), [0.5f64.powi(depth as i32); 2]); // h = 0, t = 1/2
    }
}

#[test]
fn the_carry_uses_the_state_without_the_mask() {
    // Transform gates shut: whatever the mask does, the state must come out as it went in.
    let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F64, &Device::Cpu).unwrap();
    let shut = Tensor::new(&[[0.0f64, 0.0, -1e3, -1e3]], &Device::Cpu).unwrap();
    let state = Tensor::new(&[[0.3f64, -0.7]], &Device::Cpu).unwrap();
    let ops: [&Recurrence; 2] = [&kernel(F64), &reference::rhn];
    for op in ops {
        let mask = HiddenMask::Shared(zeros(&[1, 2]));
        let outputs = op(&zeros(&[2, 1, 4]), &zeros(&[1, 2, 4]), &shut, &state, &mask).unwrap();
        assert_eq!(values(&outputs), [0.3, -0.7, 0.3, -0.7]);
    }
}
