//! The kernel against the plain steps.

use super::{FEW, reference, scan};
use crate::cpu::instruction_set::InstructionSet;
use crate::cpu::pool::with_threads;
use crate::precision::Precision;
use crate::rng::Rng;
use crate::scan::HiddenMask;
use candle_core::{DType, Device, Tensor, Var};

fn random(name: &str, shape: &[usize], dtype: DType) -> Var {
    let mut rng = Rng::keyed(11, name, 0);
    let values: Vec<f64> = (0..shape.iter().product()).map(|_| 1.6 * rng.uniform() - 0.8).collect();
    Var::from_tensor(&Tensor::from_vec(values, shape, &Device::Cpu).unwrap().to_dtype(dtype).unwrap())
        .unwrap()
}

fn flat(tensor: &Tensor) -> Vec<f64> {
    tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// Outputs, state and gradients of a window, of the kernel or of the plain steps.
fn run(
    [time, batch, hidden, outputs]: [usize; 4],
    masked: bool,
    precision: Precision,
    plain: bool,
) -> Vec<f64> {
    let dtype = precision.dtype();
    let x = random("x", &[time, batch, 4 * hidden], dtype);
    let r = random("r", &[outputs, 4 * hidden], dtype);
    let p = random("p", &[hidden, outputs], dtype);
    let m = random("m", &[batch, outputs], dtype);
    let c = random("c", &[batch, hidden], dtype);
    let factors = random("factors", &[time, batch, outputs], dtype);
    let mask = random("mask", &[batch, outputs], dtype).ge(0.0).unwrap().to_dtype(dtype).unwrap();
    let mask = if masked { HiddenMask::Shared((mask * 2.0).unwrap()) } else { HiddenMask::None };
    let state = [m.as_tensor(), c.as_tensor()];
    let (ys, [m, c]) = match plain {
        true => reference::scan(&x, &r, &p, state, &mask, precision).unwrap(),
        false => scan(&x, &r, &p, state, &mask, precision).unwrap(),
    };
    // The last m has a part of its own in the loss.
    let loss = (&ys * factors.as_tensor()).unwrap().sum_all().unwrap();
    let loss = (loss + m.sqr().unwrap().sum_all().unwrap()).unwrap();
    let grads = loss.backward().unwrap();
    let mut found = [flat(&ys), flat(&m), flat(&c)].concat();
    [&x, &r, &p].iter().for_each(|var| found.extend(flat(grads.get(var).unwrap())));
    found
}

/// Within a part of the largest number.
fn assert_close(found: &[f64], wanted: &[f64], tolerance: f64, what: &str) {
    assert_eq!(found.len(), wanted.len(), "{what}");
    let largest = wanted.iter().fold(1f64, |largest, x| largest.max(x.abs()));
    for (at, (found, wanted)) in found.iter().zip(wanted).enumerate() {
        assert!((found - wanted).abs() <= tolerance * largest, "{what} at {at}: {found} for {wanted}");
    }
}

#[test]
fn values_state_and_gradients_are_those_of_the_plain_steps() {
    for sizes in [[FEW, 1, 1, 1], [5, 3, 9, 4], [7, 2, 33, 20], [4, 13, 16, 17], [6, 5, 8, 40]] {
        for masked in [false, true] {
            let wanted = run(sizes, masked, Precision::F64, true);
            assert_close(&run(sizes, masked, Precision::F64, false), &wanted, 1e-12, &format!("{sizes:?}"));
            for set in InstructionSet::available() {
                let what = format!("{set:?} {sizes:?} {masked}");
                let single = set.force(|| run(sizes, masked, Precision::F32, false));
                // Weights this large make gradients of 40 of what a tanh is off by.
                assert_close(&single, &wanted, 1e-4, &what);
                // The plain steps round the same operands.
                let [plain, rounded] =
                    [true, false].map(|plain| set.force(|| run(sizes, masked, Precision::Bf16, plain)));
                assert_close(&rounded, &plain, 0.03, &what);
            }
        }
    }
}

#[test]
fn every_number_of_threads_gives_the_same_bits() {
    let of = |threads| with_threads(threads, || run([5, 4, 37, 21], true, Precision::F32, false));
    let one = of(1);
    assert_eq!(one, of(2));
    assert_eq!(one, of(3));
}

#[test]
fn without_gradients_the_values_are_the_same() {
    let x = random("x", &[6, 2, 20], DType::F32);
    let r = random("r", &[3, 20], DType::F32);
    let p = random("p", &[5, 3], DType::F32);
    let m = random("m", &[2, 3], DType::F32);
    let c = random("c", &[2, 5], DType::F32);
    let of = |[x, r, p]: [&Tensor; 3]| {
        let (ys, [m, c]) = scan(x, r, p, [&m, &c], &HiddenMask::None, Precision::F32).unwrap();
        [flat(&ys), flat(&m), flat(&c)]
    };
    assert_eq!(of([&x, &r, &p]), of([&x.detach(), &r.detach(), &p.detach()]));
}

#[test]
fn sizes_that_do_not_fit_are_an_error() {
    let x = random("x", &[6, 2, 20], DType::F32);
    let c = random("c", &[2, 5], DType::F32);
    let run = |r: [usize; 2], p: [usize; 2], m: [usize; 2]| {
        let [r, p, m] = [r, p, m].map(|shape| random("any", &shape, DType::F32));
        scan(&x, &r, &p, [&m, &c], &HiddenMask::None, Precision::F32).is_err()
    };
    assert!(!run([3, 20], [5, 3], [2, 3]));
    assert!(run([4, 20], [5, 3], [2, 3]) && run([3, 16], [5, 3], [2, 3]));
    assert!(run([3, 20], [4, 3], [2, 3]) && run([3, 20], [5, 3], [1, 3]));
    let [r, p, m, mask] = [[3, 20], [5, 3], [2, 3], [1, 3]].map(|shape| random("any", &shape, DType::F32));
    let mask = HiddenMask::Shared(mask.as_tensor().clone());
    assert!(scan(&x, &r, &p, [&m, &c], &mask, Precision::F32).is_err());
}
