//! A whole window in one cooperative launch.

use crate::emulated_case::Case;
use crate::emulated_window::{Operands, Window};
use crate::emulator::{LaunchShape, emulator};
use rhn_kernels::scan::persistent::launch_plan::{Direction, Persistent, Shape};

fn launch_shape(case: &Case, direction: Direction) -> (usize, LaunchShape) {
    let shape = Shape { batch: case.batch, depth: case.depth, hidden: case.hidden };
    let plan = Persistent::wanted(shape, direction);
    let flat = LaunchShape::flat(plan.blocks, plan.threads);
    (plan.tiles, LaunchShape { shared: plan.shared_bytes, cooperative: true, ..flat })
}

/// As the operation orders its launches.
fn script(case: &Case) -> Window<'_> {
    let mut window = Window::new(case, Operands::Bf16);
    let mask = window.mask();
    window.script.load("arrived", &[0u32]);
    let (tiles, forward) = launch_shape(case, Direction::Forward);
    window.launch(
        &format!("rhn_persistent_forward_{tiles}"),
        forward,
        &[
            &"&projected",
            &"&recurrent",
            &"&bias",
            &"&state",
            &mask,
            &"&states",
            &"&saved",
            &"&operands",
            &"&outputs",
            &"&arrived",
        ],
    );
    window.script.load("arrived_back", &[0u32]);
    let (tiles, backward) = launch_shape(case, Direction::Backward);
    window.launch(
        &format!("rhn_persistent_backward_{tiles}"),
        backward,
        &[&"&grads", &"&recurrent", &mask, &"&states", &"&saved", &"&gate_operands", &"&arrived_back"],
    );
    window.grads();
    window
}

fn check(sizes: [usize; 4], masked: bool) {
    let Some(emulator) = emulator() else { return };
    let case = Case::new::<rhn_kernels::scan::Rhn>(sizes, masked);
    let small = case.hidden < 100;
    case.check(&script(&case).found(emulator, small), 2e-2); // operands of 2^-9
}

#[test]
fn a_window_in_one_launch_is_near_the_reference() {
    // T, B, L, H: sublayers in registers alone and in shared memory too; tiles of batch rows, and passes of tiles.
    for sizes in [[1, 1, 1, 7], [35, 3, 1, 7], [2, 20, 10, 7], [3, 33, 2, 7], [2, 3, 4, 40], [1, 3, 10, 130]]
    {
        check(sizes, true);
    }
    check([2, 3, 2, 7], false);
}

#[test]
fn the_papers_width_in_one_launch_is_near_the_reference() {
    check([1, 3, 2, 830], true);
}
