//! The scan of every cell by one product and one launch a sublayer step.

use crate::emulated_case::Case;
use crate::emulated_window::{Matrix, Operands, Window};
use crate::emulator::{LaunchShape, emulator};
use rhn_kernels::scan::{Cell, Gru, Lstm, Rhn, UncoupledRhn};

/// As the operation orders its launches.
fn script<'a>(case: &'a Case, operands: Operands) -> Window<'a> {
    let mut window = Window::new(case, operands);
    let Case { batch, depth, hidden, gates, saved, parts, cell, .. } = *case;
    let stride = window.stride;
    let steps = case.time * depth;
    let units = LaunchShape::flat((batch * hidden).div_ceil(64), 64);
    operands.zeros(&mut window.script, "packed", depth * stride * gates * stride);
    window.script.buffer::<f32>("sums", batch * gates * stride);
    window.script.buffer::<f32>("carried", parts * batch * hidden);
    let mask = window.mask();
    let gate_operands = operands.of_gates();
    let kernel = |what: &str| format!("{cell}_{what}_{}", operands.name());
    window.launch(&kernel("pack"), LaunchShape::flat(2, 64), &[&"&recurrent", &"&packed"]);
    window.launch(&kernel("first_state"), units, &[&"&state", &mask, &"&states", &"&operands"]);
    let row = |index: usize| (index % depth * case.time + index / depth) * batch;
    let weights = |index: usize| index % depth * stride * gates * stride;
    for index in 0..steps {
        window.product(
            [batch, gates * stride, stride],
            Matrix { buffer: "&operands", first: row(index) * stride, row: stride, column: 1 },
            Matrix { buffer: "&packed", first: weights(index), row: gates * stride, column: 1 },
            Matrix { buffer: "&sums", first: 0, row: gates * stride, column: 1 },
        );
        window.launch(
            &kernel("forward_step"),
            units,
            &[
                &index,
                &"&sums",
                &"&projected",
                &"&bias",
                &mask,
                &"&states",
                &"&saved",
                &"&operands",
                &"&outputs",
                &"&last",
            ],
        );
    }
    for index in (0..steps).rev() {
        let sums = if index + 1 == steps { "0" } else { "&sums" };
        window.launch(
            &kernel("backward_step"),
            units,
            &[&index, &sums, &"&grads", &mask, &"&states", &"&carried", &"&saved", &gate_operands],
        );
        if index > 0 {
            let first = row(index) * saved * stride;
            window.product(
                [batch, stride, gates * stride],
                Matrix { buffer: gate_operands, first, row: saved * stride, column: 1 },
                Matrix { buffer: "&packed", first: weights(index), row: 1, column: gates * stride },
                Matrix { buffer: "&sums", first: 0, row: stride, column: 1 },
            );
        }
    }
    window.grads();
    window
}

fn check<C: Cell>(sizes: [usize; 4], masked: bool, operands: Operands, tolerance: f64) {
    let Some(emulator) = emulator() else { return };
    let case = Case::new::<C>(sizes, masked);
    let small = case.hidden < 100;
    case.check(&script(&case, operands).found(emulator, small), tolerance);
}

/// T, B, L, H.
const SHAPES: [[usize; 4]; 5] = [[1, 1, 1, 7], [35, 3, 1, 7], [3, 20, 2, 7], [2, 33, 10, 7], [2, 3, 2, 130]];

/// Of the cells that have no depth in any model.
const FLAT_SHAPES: [[usize; 4]; 4] = [[1, 1, 1, 7], [5, 3, 1, 7], [4, 20, 1, 7], [2, 3, 1, 33]];

#[test]
fn a_launch_a_step_equals_the_reference_in_single_precision() {
    for masked in [false, true] {
        SHAPES.into_iter().for_each(|sizes| check::<Rhn>(sizes, masked, Operands::F32, 1e-5));
        SHAPES.into_iter().for_each(|sizes| check::<UncoupledRhn>(sizes, masked, Operands::F32, 1e-5));
        FLAT_SHAPES.into_iter().for_each(|sizes| check::<Lstm>(sizes, masked, Operands::F32, 1e-5));
        FLAT_SHAPES.into_iter().for_each(|sizes| check::<Gru>(sizes, masked, Operands::F32, 1e-5));
    }
}

#[test]
fn a_launch_a_step_is_near_the_reference_in_bf16() {
    // Operands have a relative error of 2^-9.
    SHAPES.into_iter().for_each(|sizes| check::<Rhn>(sizes, true, Operands::Bf16, 2e-2));
    SHAPES.into_iter().for_each(|sizes| check::<UncoupledRhn>(sizes, true, Operands::Bf16, 2e-2));
    FLAT_SHAPES.into_iter().for_each(|sizes| check::<Lstm>(sizes, true, Operands::Bf16, 2e-2));
    FLAT_SHAPES.into_iter().for_each(|sizes| check::<Gru>(sizes, true, Operands::Bf16, 2e-2));
}
