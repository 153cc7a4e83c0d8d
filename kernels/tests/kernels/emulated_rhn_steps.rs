//! One product and one launch a sublayer step.

use crate::emulated_case::Case;
use crate::emulated_rhn_window::{Matrix, Operands, Window};
use crate::emulator::{Geometry, emulator};

/// As the operation orders its launches.
fn script<'a>(case: &'a Case, operands: Operands) -> Window<'a> {
    let mut window = Window::new(case, operands);
    let (stride, name) = (window.stride, operands.name());
    let (depth, steps) = (case.depth, case.time * case.depth);
    let cells = Geometry::flat((case.batch * case.hidden).div_ceil(64), 64);
    let packed = case.depth * stride * 2 * stride;
    operands.zeros(&mut window.script, "packed", packed);
    window.script.buffer::<f32>("sums", case.batch * 2 * stride);
    window.script.buffer::<f32>("carried", case.batch * case.hidden);
    let (mask, gate_operands) = (window.mask(), operands.of_gates());
    window.launch(&format!("rhn_pack_{name}"), Geometry::flat(2, 64), &[&"&recurrent", &"&packed"]);
    window.launch(&format!("rhn_first_state_{name}"), cells, &[&"&state", &mask, &"&states", &"&operands"]);
    let row = |index: usize| (index % depth * case.time + index / depth) * case.batch;
    let weights = |index: usize| index % depth * stride * 2 * stride;
    for index in 0..steps {
        window.product(
            [case.batch, 2 * stride, stride],
            Matrix { buffer: "&operands", first: row(index) * stride, row: stride, column: 1 },
            Matrix { buffer: "&packed", first: weights(index), row: 2 * stride, column: 1 },
            Matrix { buffer: "&sums", first: 0, row: 2 * stride, column: 1 },
        );
        window.launch(
            &format!("rhn_forward_step_{name}"),
            cells,
            &[
                &index,
                &"&sums",
                &"&projected",
                &"&bias",
                &mask,
                &"&states",
                &"&gates",
                &"&operands",
                &"&outputs",
            ],
        );
    }
    for index in (0..steps).rev() {
        let sums = if index + 1 == steps { "0" } else { "&sums" };
        window.launch(
            &format!("rhn_backward_step_{name}"),
            cells,
            &[&index, &sums, &"&grads", &mask, &"&states", &"&carried", &"&gates", &gate_operands],
        );
        if index > 0 {
            window.product(
                [case.batch, stride, 2 * stride],
                Matrix { buffer: gate_operands, first: row(index) * 2 * stride, row: 2 * stride, column: 1 },
                Matrix { buffer: "&packed", first: weights(index), row: 1, column: 2 * stride },
                Matrix { buffer: "&sums", first: 0, row: stride, column: 1 },
            );
        }
    }
    window.grads();
    window
}

fn check(sizes: [usize; 4], masked: bool, operands: Operands, tolerance: f64) {
    let Some(emulator) = emulator() else { return };
    let case = Case::new(sizes, masked);
    let small = case.hidden < 100;
    case.check(&script(&case, operands).found(emulator, small), tolerance);
}

/// T, B, L, H.
const SHAPES: [[usize; 4]; 5] = [[1, 1, 1, 7], [35, 3, 1, 7], [3, 20, 2, 7], [2, 33, 10, 7], [2, 3, 2, 130]];

#[test]
fn a_launch_a_step_equals_the_oracle_in_single_precision() {
    for masked in [false, true] {
        SHAPES.into_iter().for_each(|sizes| check(sizes, masked, Operands::F32, 1e-5));
    }
}

#[test]
fn a_launch_a_step_is_near_the_oracle_in_bf16() {
    SHAPES.into_iter().for_each(|sizes| check(sizes, true, Operands::Bf16, 2e-2)); // operands of 2^-9
}
