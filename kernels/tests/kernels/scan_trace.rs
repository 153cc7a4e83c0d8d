//! A window from within: the kernel's trace beside the reference's, and beside the scan.

use super::{distance, random, values};
use candle_core::{DType, Tensor};
use rhn_kernels::cpu::InstructionSet;
use rhn_kernels::precision::Precision;
use rhn_kernels::scan::trace::{Trace, reference, trace};
use rhn_kernels::scan::{HiddenMask, Rhn, scan};

/// Projected input, recurrent weights, bias and state.
fn window([time, batch, depth, hidden]: [usize; 4], dtype: DType) -> [Tensor; 4] {
    [
        random("projected", &[time, batch, 2 * hidden], 2.0, dtype),
        random("recurrent", &[depth, hidden, 2 * hidden], 0.3, dtype),
        random("bias", &[depth, 2 * hidden], 1.0, dtype),
        random("state", &[batch, hidden], 0.9, dtype),
    ]
    .map(|var| var.as_detached_tensor())
}

/// The outputs, then each sublayer's state, H and T.
fn parts(trace: &Trace) -> Vec<Tensor> {
    let sublayers = trace.sublayers.iter();
    let all = sublayers.flat_map(|layer| [&layer.entering, &layer.candidate, &layer.gate]);
    std::iter::once(&trace.outputs).chain(all).cloned().collect()
}

const SHAPES: [[usize; 4]; 4] = [[1, 1, 1, 1], [3, 2, 2, 5], [4, 20, 3, 130], [2, 33, 4, 33]];

#[test]
fn the_trace_of_every_instruction_set_equals_the_references() {
    for shape in SHAPES {
        let [projected, recurrent, bias, state] = window(shape, DType::F64);
        let exact = parts(&reference(&projected, &recurrent, &bias, &state).unwrap());
        for (dtype, precision, tolerance) in
            [(DType::F64, Precision::F64, 1e-12), (DType::F32, Precision::F32, 1e-5)]
        {
            let [projected, recurrent, bias, state] = window(shape, dtype);
            for set in InstructionSet::available() {
                let fast = set.force(|| trace(&projected, &recurrent, &bias, &state, precision).unwrap());
                for (part, (fast, exact)) in parts(&fast).iter().zip(&exact).enumerate() {
                    let distance = distance(fast, exact);
                    assert!(distance <= tolerance, "{shape:?} part {part} {set:?} {dtype:?}: {distance:e}");
                }
            }
        }
    }
}

#[test]
fn the_trace_ends_where_the_scan_does_to_the_bit_and_each_step_begins_where_the_last_one_ended() {
    for shape @ [time, _, depth, _] in SHAPES {
        for precision in [Precision::F32, Precision::Bf16, Precision::F64] {
            let [projected, recurrent, bias, state] = window(shape, precision.dtype());
            let found = trace(&projected, &recurrent, &bias, &state, precision).unwrap();
            let part = std::slice::from_ref(&state);
            let (outputs, _) =
                scan::<Rhn>(&projected, &recurrent, &bias, part, &HiddenMask::None, precision).unwrap();
            assert_eq!(values(&found.outputs), values(&outputs), "{shape:?} {precision:?}");
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
fn a_sublayer_mixes_its_state_with_its_candidate() {
    let [projected, recurrent, bias, state] = window([3, 2, 3, 7], DType::F64);
    let found = trace(&projected, &recurrent, &bias, &state, Precision::F64).unwrap();
    for (index, layer) in found.sublayers.iter().enumerate() {
        let after = found.sublayers.get(index + 1).map_or(&found.outputs, |next| &next.entering);
        let mixed = (&layer.entering
            + (&layer.gate * (&layer.candidate - &layer.entering).unwrap()).unwrap())
        .unwrap();
        assert!(distance(&mixed, after) < 1e-15);
    }
}
