//! The gradient of the state before a scan's first step: beside the reference in double precision on every instruction set,
//! and beside central differences.

use super::gradients_scan::{Case, TOLERANCES, kernel};
use super::{check_by_differences, distance, values};
use candle_core::{DType, Tensor, Var};
use rhn_kernels::cpu::InstructionSet;
use rhn_kernels::precision::Precision::F64;
use rhn_kernels::scan::{Cell, Gru, Hlstm, KurataLstm, Lstm, Rhn, UncoupledRhn, reference};

/// T, B, L, H: read in place and packed, odd ones and full vectors, more batch rows than a tile has.
const SHAPES: [[usize; 4]; 5] =
    [[35, 1, 1, 7], [3, 3, 2, 7], [5, 20, 3, 16], [3, 20, 1, 41], [2, 70, 2, 130]];

/// The case with a state that is trained.
fn trained<C: Cell>(shape: [usize; 4], masked: bool, dtype: DType) -> (Case, Vec<Var>) {
    let mut case = Case::new::<C>(shape, masked, dtype);
    let state: Vec<Var> = case.state.iter().map(|part| Var::from_tensor(part).unwrap()).collect();
    case.state = state.iter().map(|part| part.as_tensor().clone()).collect();
    (case, state)
}

fn grads(loss: &Tensor, state: &[Var]) -> Vec<Tensor> {
    let grads = loss.backward().unwrap();
    state.iter().map(|part| grads.get(part).expect("a gradient").clone()).collect()
}

fn check<C: Cell>() {
    for shape in SHAPES {
        for masked in [false, true] {
            let (case, state) = trained::<C>(shape, masked, DType::F64);
            let exact = grads(&case.loss(reference::scan::<C>), &state);
            for (dtype, precision, tolerance) in TOLERANCES {
                let (case, state) = trained::<C>(shape, masked, dtype);
                for set in InstructionSet::available() {
                    let fast = set.force(|| grads(&case.loss(kernel::<C>(precision)), &state));
                    for (part, (fast, exact)) in fast.iter().zip(&exact).enumerate() {
                        let distance = distance(fast, exact);
                        let case =
                            format!("{} part {part} {set:?} {precision:?} T, B, L, H {shape:?}", C::NAME);
                        assert!(distance <= tolerance, "{case}: {distance:e}");
                    }
                }
            }
        }
    }
    let (case, state) = trained::<C>([3, 2, 3, 5], true, DType::F64);
    let loss = || values(&case.loss(kernel::<C>(F64)))[0];
    for (part, grad) in grads(&case.loss(kernel::<C>(F64)), &state).iter().enumerate() {
        check_by_differences(&format!("{} state {part}", C::NAME), &state[part], &values(grad), loss);
    }
}

#[test]
fn the_first_state_of_every_cell_has_its_gradient() {
    check::<Rhn>();
    check::<UncoupledRhn>();
    check::<Lstm>();
    check::<Gru>();
    check::<Hlstm<false>>();
    check::<Hlstm<true>>();
    check::<KurataLstm>();
}

#[test]
fn a_state_with_a_history_changes_nothing_else() {
    let shape = [5, 20, 3, 16];
    let plain = Case::new::<UncoupledRhn>(shape, true, DType::F32);
    let (case, _) = trained::<UncoupledRhn>(shape, true, DType::F32);
    let scan = || kernel::<UncoupledRhn>(rhn_kernels::precision::Precision::F32);
    let wanted: Vec<_> = plain.gradients(scan()).iter().map(values).collect();
    assert_eq!(case.gradients(scan()).iter().map(values).collect::<Vec<_>>(), wanted);
}
