//! A window from within: the kernel's trace beside the reference's, and beside the scan.

use super::{distance, random, values};
use candle_core::{DType, Tensor};
use rhn_kernels::cpu::InstructionSet;
use rhn_kernels::precision::Precision;
use rhn_kernels::scan::trace::{HighwayCell, Trace, reference, trace};
use rhn_kernels::scan::{HiddenMask, Rhn, UncoupledRhn, scan};

/// Projected input, recurrent weights, bias and state.
fn window<C: HighwayCell>([time, batch, depth, hidden]: [usize; 4], dtype: DType) -> [Tensor; 4] {
    let width = C::GATES * hidden;
    [
        random("projected", &[time, batch, width], 2.0, dtype),
        random("recurrent", &[depth, hidden, width], 0.3, dtype),
        random("bias", &[depth, width], 1.0, dtype),
        random("state", &[batch, hidden], 0.9, dtype),
    ]
    .map(|var| var.as_detached_tensor())
}

/// The outputs, then each sublayer's state, H and T, and C where it has that gate.
fn parts(trace: &Trace) -> Vec<Tensor> {
    let sublayers = trace.sublayers.iter();
    let all = sublayers
        .flat_map(|layer| [&layer.entering, &layer.candidate, &layer.gate].into_iter().chain(&layer.carry));
    std::iter::once(&trace.outputs).chain(all).cloned().collect()
}

const SHAPES: [[usize; 4]; 4] = [[1, 1, 1, 1], [3, 2, 2, 5], [4, 20, 3, 130], [2, 33, 4, 33]];

fn check_beside_the_reference<C: HighwayCell>() {
    for shape in SHAPES {
        let [projected, recurrent, bias, state] = window::<C>(shape, DType::F64);
        let exact = parts(&reference::<C>(&projected, &recurrent, &bias, &state).unwrap());
        assert_eq!(exact.len(), 1 + shape[2] * (1 + C::GATES));
        for (dtype, precision, tolerance) in
            [(DType::F64, Precision::F64, 1e-12), (DType::F32, Precision::F32, 1e-5)]
        {
            let [projected, recurrent, bias, state] = window::<C>(shape, dtype);
            for set in InstructionSet::available() {
                let fast =
                    set.force(|| trace::<C>(&projected, &recurrent, &bias, &state, precision).unwrap());
                let fast = parts(&fast);
                assert_eq!(fast.len(), exact.len());
                for (part, (fast, exact)) in fast.iter().zip(&exact).enumerate() {
                    let distance = distance(fast, exact);
                    let case = format!("{} {shape:?} part {part} {set:?} {dtype:?}", C::NAME);
                    assert!(distance <= tolerance, "{case}: {distance:e}");
                }
            }
        }
    }
}

#[test]
fn the_trace_of_every_instruction_set_equals_the_references() {
    check_beside_the_reference::<Rhn>();
    check_beside_the_reference::<UncoupledRhn>();
}

fn check_beside_the_scan<C: HighwayCell>() {
    for shape @ [time, _, depth, _] in SHAPES {
        for precision in [Precision::F32, Precision::Bf16, Precision::F64] {
            let [projected, recurrent, bias, state] = window::<C>(shape, precision.dtype());
            let found = trace::<C>(&projected, &recurrent, &bias, &state, precision).unwrap();
            let part = std::slice::from_ref(&state);
            let (outputs, _) =
                scan::<C>(&projected, &recurrent, &bias, part, &HiddenMask::None, precision).unwrap();
            assert_eq!(values(&found.outputs), values(&outputs), "{} {shape:?} {precision:?}", C::NAME);
            assert_eq!(found.sublayers.len(), depth);
            let entering = &found.sublayers[0].entering;
            assert_eq!(values(&entering.get(0).unwrap()), values(&state));
            for step in 1..time {
                let before = outputs.get(step - 1).unwrap();
                assert_eq!(values(&entering.get(step).unwrap()), values(&before), "step {step}");
            }
        }
    }
}

#[test]
fn the_trace_ends_where_the_scan_does_to_the_bit_and_each_step_begins_where_the_last_one_ended() {
    check_beside_the_scan::<Rhn>();
    check_beside_the_scan::<UncoupledRhn>();
}

fn check_mixing<C: HighwayCell>() {
    let [projected, recurrent, bias, state] = window::<C>([3, 2, 3, 7], DType::F64);
    let found = trace::<C>(&projected, &recurrent, &bias, &state, Precision::F64).unwrap();
    for (index, layer) in found.sublayers.iter().enumerate() {
        let after = found.sublayers.get(index + 1).map_or(&found.outputs, |next| &next.entering);
        let carry = layer.carry.clone().unwrap_or_else(|| (1.0 - &layer.gate).unwrap());
        let transformed = (&layer.gate * &layer.candidate).unwrap();
        let mixed = (transformed + (carry * &layer.entering).unwrap()).unwrap();
        assert!(distance(&mixed, after) < 1e-15, "{}", C::NAME);
    }
}

#[test]
fn a_sublayer_mixes_its_state_with_its_candidate() {
    check_mixing::<Rhn>();
    check_mixing::<UncoupledRhn>();
}
