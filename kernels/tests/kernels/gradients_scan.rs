//! The scan of every cell: on every instruction set beside the reference in double precision, and its gradient beside
//! central differences.

use super::{check_by_differences, distance, random, values};
use candle_core::{DType, Device, Tensor, Var};
use rhn_kernels::Result;
use rhn_kernels::cpu::{InstructionSet, with_threads};
use rhn_kernels::precision::Precision::{self, F64};
use rhn_kernels::scan::{
    Cell, Gru, HiddenMask, Hlstm, KurataLstm, Lstm, Prepared, Rhn, UncoupledRhn, reference, scan,
};

pub(super) struct Case {
    projected: Var,
    recurrent: Var,
    bias: Var,
    pub(super) state: Vec<Tensor>,
    weights: Var,
    mask: HiddenMask,
}

impl Case {
    pub(super) fn new<C: Cell>([time, batch, depth, hidden]: [usize; 4], masked: bool, dtype: DType) -> Self {
        let scale = 1.0 / (hidden as f64).sqrt();
        let width = C::GATES * hidden;
        let mask = random("mask", &[batch, hidden], 1.0, dtype).ge(-0.5).unwrap().to_dtype(dtype).unwrap();
        let part = |name: &&str| random(name, &[batch, hidden], 0.8, dtype).into_inner();
        Self {
            projected: random("projected", &[time, batch, C::INPUTS * hidden], 1.0, dtype),
            recurrent: random("recurrent", &[depth, hidden, width], 1.5 * scale, dtype),
            bias: random("bias", &[depth, width + C::UNIT_WEIGHTS * hidden], 0.5, dtype),
            state: ["state", "c"].iter().take(C::STATES).map(part).collect(),
            weights: random("weights", &[time, batch, C::OUTPUTS * hidden], 1.0, dtype),
            mask: if masked { HiddenMask::Shared((mask / 0.75).unwrap()) } else { HiddenMask::None },
        }
    }

    fn outputs(&self, scan: impl Scan) -> (Tensor, Vec<Tensor>) {
        scan(&self.projected, &self.recurrent, &self.bias, &self.state, &self.mask).unwrap()
    }

    /// The outputs times the weights, summed.
    pub(super) fn loss(&self, scan: impl Scan) -> Tensor {
        (self.outputs(scan).0 * self.weights.as_tensor()).unwrap().sum_all().unwrap()
    }

    /// Those of the projected input, the weights and the biases.
    pub(super) fn gradients(&self, scan: impl Scan) -> Vec<Tensor> {
        let grads = self.loss(scan).backward().unwrap();
        let vars = [&self.projected, &self.recurrent, &self.bias];
        vars.map(|var| grads.get(var).expect("a gradient").clone()).to_vec()
    }

    /// Outputs, the gradients of what has one, and the state's parts after the last step.
    fn run(&self, scan: impl Scan) -> Vec<Tensor> {
        let (outputs, state) = self.outputs(&scan);
        let mut parts = vec![outputs.detach()];
        parts.extend(self.gradients(scan));
        parts.extend(state.iter().map(Tensor::detach));
        parts
    }
}

/// The kernel or the reference.
pub(super) trait Scan:
    Fn(&Tensor, &Tensor, &Tensor, &[Tensor], &HiddenMask) -> Result<(Tensor, Vec<Tensor>)>
{
}

impl<F: Fn(&Tensor, &Tensor, &Tensor, &[Tensor], &HiddenMask) -> Result<(Tensor, Vec<Tensor>)>> Scan for F {}

pub(super) fn kernel<C: Cell>(precision: Precision) -> impl Scan {
    move |projected: &Tensor, recurrent: &Tensor, bias: &Tensor, state: &[Tensor], mask: &HiddenMask| {
        scan::<C>(projected, recurrent, bias, state, mask, precision)
    }
}

/// T, B, L, H: odd ones, full vectors and one more, more batch rows than a tile has. Never one number alone, of which
/// nothing is left where its terms cancel.
const SHAPES: [[usize; 4]; 12] = [
    [2, 1, 1, 1],
    [35, 1, 1, 7],
    [3, 3, 2, 7],
    [5, 20, 3, 16],
    [35, 3, 1, 33],
    [3, 20, 1, 41],
    [2, 33, 10, 130],
    [2, 70, 2, 130],
    [1, 20, 10, 130],
    [2, 20, 1, 650],
    [2, 20, 2, 830],
    [1, 33, 1, 830],
];

const PARTS: [&str; 6] = ["outputs", "projected", "recurrent", "bias", "state", "c"];

/// How far a scan may be from the reference in double precision. bf16: operands have a relative error of 2^-9, through 35
/// steps.
pub(super) const TOLERANCES: [(DType, Precision, f64); 3] =
    [(DType::F64, F64, 1e-12), (DType::F32, Precision::F32, 1e-5), (DType::F32, Precision::Bf16, 2e-2)];

/// Every instruction set of this processor and every precision, with and without a mask, beside the reference.
fn check_beside_the_reference<C: Cell>() {
    for shape in SHAPES {
        for masked in [false, true] {
            let exact = Case::new::<C>(shape, masked, DType::F64).run(reference::scan::<C>);
            for (dtype, precision, tolerance) in TOLERANCES {
                let case = Case::new::<C>(shape, masked, dtype);
                for set in InstructionSet::available() {
                    let fast = set.force(|| case.run(kernel::<C>(precision)));
                    assert_eq!(fast.len(), exact.len());
                    for (what, (fast, exact)) in PARTS.iter().zip(fast.iter().zip(&exact)) {
                        let distance = distance(fast, exact);
                        let case = format!("{} {what} {set:?} {precision:?} T, B, L, H {shape:?}", C::NAME);
                        assert!(distance <= tolerance, "{case}: {distance:e}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_scan_of_highway_layers_is_near_the_reference_in_every_precision() {
    check_beside_the_reference::<Rhn>();
}

#[test]
fn a_scan_of_uncoupled_highway_layers_is_near_the_reference_in_every_precision() {
    check_beside_the_reference::<UncoupledRhn>();
}

#[test]
fn a_scan_of_an_lstm_is_near_the_reference_in_every_precision() {
    check_beside_the_reference::<Lstm>();
}

#[test]
fn a_scan_of_a_gru_is_near_the_reference_in_every_precision() {
    check_beside_the_reference::<Gru>();
}

#[test]
fn a_scan_of_an_lstm_with_peepholes_is_near_the_reference_in_every_precision() {
    check_beside_the_reference::<Hlstm<false>>();
}

#[test]
fn a_scan_of_a_highway_lstm_is_near_the_reference_in_every_precision() {
    check_beside_the_reference::<Hlstm<true>>();
}

#[test]
fn a_scan_of_an_lstm_with_a_highway_layer_inside_is_near_the_reference_in_every_precision() {
    check_beside_the_reference::<KurataLstm>();
}

fn check_threads<C: Cell>() {
    for precision in [Precision::F32, Precision::Bf16] {
        for (batch, hidden) in [(1, 7), (20, 130), (33, 33)] {
            let case = Case::new::<C>([4, batch, 3, hidden], true, DType::F32);
            let run = |threads| -> Vec<_> {
                with_threads(threads, || case.run(kernel::<C>(precision)).iter().map(values).collect())
            };
            let alone = run(1);
            for threads in [2, 3, 5] {
                let case = format!("{} {threads} threads, {precision:?}, B {batch} H {hidden}", C::NAME);
                assert_eq!(run(threads), alone, "{case}");
            }
        }
    }
}

#[test]
fn every_number_of_threads_gives_the_same_bits() {
    check_threads::<Rhn>();
    check_threads::<UncoupledRhn>();
    check_threads::<Lstm>();
    check_threads::<Gru>();
    check_threads::<Hlstm<false>>();
    check_threads::<Hlstm<true>>();
    check_threads::<KurataLstm>();
}

/// Without a record, with packed weights and one step at a time at batch 1, the outputs are the same bits. The window is so
/// long that its weights are packed; shorter ones of one row read them in place, where sums have another order.
fn check_reading<C: Cell>() {
    let [time, hidden] = [65, 33];
    let case = Case::new::<C>([time, 1, 2, hidden], false, DType::F32);
    let recorded = case.run(kernel::<C>(Precision::F32));
    let [projected, recurrent, bias] =
        [&case.projected, &case.recurrent, &case.bias].map(Var::as_detached_tensor);
    let scanned = scan::<C>(&projected, &recurrent, &bias, &case.state, &case.mask, Precision::F32).unwrap();
    let prepared = Prepared::new::<C>(&recurrent, &bias, Precision::F32).unwrap();
    let packed = prepared.forward(&projected, &case.state, &case.mask).unwrap();
    for (outputs, state) in [scanned, packed] {
        assert_eq!(values(&outputs), values(&recorded[0]), "{}", C::NAME);
        let wanted: Vec<_> = recorded[4..].iter().map(values).collect();
        assert_eq!(state.iter().map(values).collect::<Vec<_>>(), wanted, "{}", C::NAME);
    }
    let mut steps = prepared.steps().unwrap().expect("single precision on the CPU");
    for (part, state) in steps.state.iter_mut().zip(&case.state) {
        *part = state.flatten_all().unwrap().to_vec1().unwrap();
    }
    for step in 0..time {
        steps.step(&projected.get(step).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap());
        let wanted = recorded[0].get(step).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let wanted = &wanted[..hidden]; // what else a cell gives is its state's next part
        assert_eq!(steps.state[0], wanted, "{} step {step}", C::NAME);
    }
}

#[test]
fn reading_gives_the_bits_of_training() {
    check_reading::<Rhn>();
    check_reading::<UncoupledRhn>();
    check_reading::<Lstm>();
    check_reading::<Gru>();
    check_reading::<Hlstm<false>>();
    check_reading::<Hlstm<true>>();
    check_reading::<KurataLstm>();
}

fn check_differences<C: Cell>() {
    let case = Case::new::<C>([3, 2, 3, 5], true, DType::F64);
    let loss = || -> f64 {
        let (outputs, _) = case.outputs(kernel::<C>(F64));
        values(&(outputs * case.weights.as_tensor()).unwrap()).iter().sum()
    };
    let parts = case.run(kernel::<C>(F64));
    for (index, var) in [&case.projected, &case.recurrent, &case.bias].into_iter().enumerate() {
        let name = format!("{} {}", C::NAME, PARTS[1 + index]);
        check_by_differences(&name, var, &values(&parts[1 + index]), loss);
    }
}

#[test]
fn a_scan_has_the_gradient_of_central_differences() {
    check_differences::<Rhn>();
    check_differences::<UncoupledRhn>();
    check_differences::<Lstm>();
    check_differences::<Gru>();
    check_differences::<Hlstm<false>>();
    check_differences::<Hlstm<true>>();
    check_differences::<KurataLstm>();
}

fn zeros(shape: &[usize]) -> Tensor {
    Tensor::zeros(shape, DType::F64, &Device::Cpu).unwrap()
}

fn ones(shape: &[usize]) -> Tensor {
    Tensor::ones(shape, DType::F64, &Device::Cpu).unwrap()
}

#[test]
fn each_sublayer_halves_the_state_when_weights_are_zero() {
    for depth in [1, 2, 5] {
        let (outputs, _) = kernel::<Rhn>(F64)(
            &zeros(&[1, 1, 4]),
            &zeros(&[depth, 2, 4]),
            &zeros(&[depth, 4]),
            &[ones(&[1, 2])],
            &HiddenMask::None,
        )
        .unwrap();
        assert_eq!(values(&outputs), [0.5f64.powi(depth as i32); 2]); // h = 0, t = 1/2
    }
}

#[test]
fn an_uncoupled_sublayer_carries_as_much_as_its_carry_gate_says() {
    // Weights are zero, so h = tanh(b_h) = 1/3, t = sigmoid(b_t) = 3/4 and c = 1/2, which is not 1 − t.
    let bias = Tensor::new(&[[2f64.ln() / 2.0, 3f64.ln(), 0.0]], &Device::Cpu).unwrap();
    let zeros = zeros(&[1, 1, 3]);
    let (outputs, _) =
        kernel::<UncoupledRhn>(F64)(&zeros, &zeros, &bias, &[ones(&[1, 1])], &HiddenMask::None).unwrap();
    assert!((values(&outputs)[0] - (0.25 + 0.5)).abs() < 1e-15);
}

#[test]
fn half_the_cell_is_forgotten_at_each_step_when_weights_are_zero() {
    let state = [ones(&[1, 2]), ones(&[1, 2])];
    let projected = zeros(&[3, 1, 8]);
    let recurrent = zeros(&[1, 2, 8]);
    let bias = zeros(&[1, 8]);
    let (outputs, state) =
        kernel::<Lstm>(F64)(&projected, &recurrent, &bias, &state, &HiddenMask::None).unwrap();
    assert_eq!(values(&state[1]), [0.125; 2]); // f = 1/2, g = 0
    let wanted = [0.5f64, 0.25, 0.125].map(|c| 0.5 * c.tanh()); // o = 1/2
    assert_eq!(values(&outputs), wanted.map(|h| [h, h]).concat());
}

#[test]
fn a_highway_lstm_whose_depth_gate_is_shut_is_the_lstm_with_peepholes() {
    const HIDDEN: usize = 9;
    let case = Case::new::<Hlstm<true>>([4, 3, 1, HIDDEN], true, DType::F64);
    let gates = case.projected.narrow(2, 0, 4 * HIDDEN).unwrap().contiguous().unwrap();
    let below = case.projected.narrow(2, 5 * HIDDEN, HIDDEN).unwrap();
    let shut = (below.zeros_like().unwrap() - 1e3).unwrap();
    let with_gate = Tensor::cat(&[&gates, &shut, &below], 2).unwrap();
    let peepholes = case.bias.narrow(1, 0, 7 * HIDDEN).unwrap().contiguous().unwrap();
    let Case { recurrent, bias, state, mask, .. } = &case;
    let (outputs, _) = kernel::<Hlstm<true>>(F64)(&with_gate, recurrent, bias, state, mask).unwrap();
    let (plain, _) = kernel::<Hlstm<false>>(F64)(&gates, recurrent, &peepholes, state, mask).unwrap();
    assert_eq!(values(&outputs), values(&plain));
}

#[test]
fn the_reset_gate_reaches_the_candidates_recurrent_bias_alone() {
    // Weights are zero, so r = sigmoid(b_r), z = 1/2, n = tanh(x_n + r b_n).
    let projected = Tensor::new(&[[[0.0f64, 0.0, 0.3]]], &Device::Cpu).unwrap();
    let bias = Tensor::new(&[[3f64.ln(), 0.0, 0.8]], &Device::Cpu).unwrap(); // r = 3/4
    let (outputs, _) =
        kernel::<Gru>(F64)(&projected, &zeros(&[1, 1, 3]), &bias, &[ones(&[1, 1])], &HiddenMask::None)
            .unwrap();
    let n = (0.3 + 0.75 * 0.8f64).tanh();
    assert!((values(&outputs)[0] - (0.5 * n + 0.5)).abs() < 1e-15);
}

#[test]
fn the_carry_uses_the_state_without_the_mask() {
    // Transform gates shut: whatever the mask does, the state must come out as it went in.
    let shut = Tensor::new(&[[0.0f64, 0.0, -1e3, -1e3]], &Device::Cpu).unwrap();
    let state = [Tensor::new(&[[0.3f64, -0.7]], &Device::Cpu).unwrap()];
    let mask = HiddenMask::Shared(zeros(&[1, 2]));
    let inputs = (zeros(&[2, 1, 4]), zeros(&[1, 2, 4]));
    for (outputs, _) in [
        kernel::<Rhn>(F64)(&inputs.0, &inputs.1, &shut, &state, &mask).unwrap(),
        reference::scan::<Rhn>(&inputs.0, &inputs.1, &shut, &state, &mask).unwrap(),
    ] {
        assert_eq!(values(&outputs), [0.3, -0.7, 0.3, -0.7]);
    }
}

#[test]
fn tensors_that_do_not_fit_together_are_an_error() {
    let error = kernel::<Gru>(F64)(
        &zeros(&[2, 1, 8]),
        &zeros(&[1, 2, 8]),
        &zeros(&[1, 8]),
        &[zeros(&[1, 2])],
        &HiddenMask::None,
    )
    .unwrap_err();
    assert!(error.to_string().contains("gru"), "{error}");
}
