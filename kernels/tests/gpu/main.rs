//! The scans on a GPU beside the reference in double precision: every path, outputs and all gradients. Where no GPU is
//! found each test says so and is passed over.

use candle_core::{DType, Device, Tensor, Var};
use rhn_kernels::cuda::device;
use rhn_kernels::precision::Precision;
use rhn_kernels::rng::Rng;
use rhn_kernels::scan::cuda::Path;
use rhn_kernels::scan::persistent::launch_plan::{Card, Direction, Persistent, Shape};
use rhn_kernels::scan::{Cell, Gru, HiddenMask, Lstm, Rhn, UncoupledRhn, reference, scan};
use std::marker::PhantomData;

/// The GPU; `None`, with a note, where there is none.
fn gpu() -> Option<Device> {
    if !device::is_there() {
        eprintln!("skipped: no CUDA device was found");
        return None;
    }
    Some(device::open(0).unwrap())
}

fn random(name: &str, shape: &[usize], scale: f64) -> Tensor {
    let mut rng = Rng::keyed(11, name, 0);
    let values: Vec<f64> = (0..shape.iter().product()).map(|_| scale * (2.0 * rng.uniform() - 1.0)).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

/// Numbers of a window of one cell, in double precision on the CPU.
struct Case<C> {
    sizes: [usize; 4],
    masked: bool,
    cell: PhantomData<C>,
}

/// Outputs, then the gradients of the projection, the weights and the biases.
type Parts = Vec<Vec<f64>>;

impl<C: Cell> Case<C> {
    fn new(sizes: [usize; 4], masked: bool) -> Self {
        Self { sizes, masked, cell: PhantomData }
    }

    fn tensors(&self) -> [Tensor; 7] {
        let [time, batch, depth, hidden] = self.sizes;
        let scale = 1.5 / (hidden as f64).sqrt();
        let mask = random("mask", &[batch, hidden], 1.0).ge(-0.5).unwrap().to_dtype(DType::F64).unwrap();
        [
            random("projected", &[time, batch, C::GATES * hidden], 1.0),
            random("recurrent", &[depth, hidden, C::GATES * hidden], scale),
            random("bias", &[depth, C::GATES * hidden], 0.5),
            random("state", &[batch, hidden], 0.8),
            random("second part", &[batch, hidden], 0.8),
            (mask / 0.75).unwrap(),
            random("weights", &[time, batch, hidden], 1.0),
        ]
    }

    /// The operation, or its reference where no precision is given.
    fn run(&self, device: &Device, dtype: DType, precision: Option<Precision>) -> Parts {
        let tensors = self.tensors().map(|t| t.to_dtype(dtype).unwrap().to_device(device).unwrap());
        let [projected, recurrent, bias, first, second, mask, weights] = tensors;
        let [projected, recurrent, bias] =
            [projected, recurrent, bias].map(|t| Var::from_tensor(&t).unwrap());
        let mask = if self.masked { HiddenMask::Shared(mask) } else { HiddenMask::None };
        let state = &[first, second][..C::STATES];
        let (outputs, _) = match precision {
            Some(precision) => scan::<C>(&projected, &recurrent, &bias, state, &mask, precision),
            None => reference::scan::<C>(&projected, &recurrent, &bias, state, &mask),
        }
        .unwrap();
        let grads = (&outputs * weights).unwrap().sum_all().unwrap().backward().unwrap();
        let values = |t: &Tensor| {
            let t = t.to_device(&Device::Cpu).unwrap().to_dtype(DType::F64).unwrap();
            t.flatten_all().unwrap().to_vec1().unwrap()
        };
        let grad = |var: &Var| values(grads.get(var).expect("a gradient"));
        vec![values(&outputs), grad(&projected), grad(&recurrent), grad(&bias)]
    }

    /// Three times, as the second is captured in a graph and the third replays it: the same bits each time.
    fn check(&self, device: &Device, precision: Precision, tolerance: f64) {
        let case = format!("{} {:?}, mask {}, {precision:?}", C::NAME, self.sizes, self.masked);
        let exact = self.run(&Device::Cpu, DType::F64, None);
        let first = self.run(device, DType::F32, Some(precision));
        for (i, (found, wanted)) in first.iter().zip(&exact).enumerate() {
            let distance = distance(found, wanted);
            assert!(distance <= tolerance, "part {i} of {case}: {distance:e}");
        }
        for _ in 0..2 {
            assert_eq!(self.run(device, DType::F32, Some(precision)), first, "{case}: not the same again");
        }
    }
}

/// Largest difference, relative to the largest wanted magnitude; NaN counts as infinite.
fn distance(found: &[f64], wanted: &[f64]) -> f64 {
    assert_eq!(found.len(), wanted.len());
    let size = wanted.iter().fold(1e-30, |a: f64, b| a.max(b.abs()));
    let worst = found.iter().zip(wanted).map(|(f, w)| (f - w).abs() / size);
    worst.fold(0.0, |a, b| if b.is_nan() { f64::INFINITY } else { a.max(b) })
}

/// T, B, L, H, as on the CPU: odd ones, full rows and one more, more batch rows than a pass has.
const SHAPES: [[usize; 4]; 9] = [
    [1, 1, 1, 7],
    [35, 1, 1, 7],
    [3, 3, 2, 7],
    [5, 20, 3, 16],
    [35, 3, 1, 33],
    [2, 33, 10, 130],
    [35, 20, 10, 130],
    [2, 20, 10, 830],
    [1, 33, 1, 830],
];

const PRECISIONS: [(Precision, f64); 3] = [
    (Precision::F32, 1e-4),
    (Precision::Tf32, 1e-2), // operands of 2^-11
    (Precision::Bf16, 2e-2), // operands of 2^-9
];

#[test]
fn a_launch_a_step_equals_the_reference() {
    let Some(device) = gpu() else { return };
    for sizes in SHAPES {
        for masked in [false, true] {
            for (precision, tolerance) in PRECISIONS {
                let case = Case::<Rhn>::new(sizes, masked);
                Path::Steps.force(|| case.check(&device, precision, tolerance));
                Case::<UncoupledRhn>::new(sizes, masked).check(&device, precision, tolerance);
            }
        }
    }
}

#[test]
fn a_window_in_one_launch_is_near_the_reference() {
    let Some(device) = gpu() else { return };
    let Some(card) = card(&device) else { return };
    for sizes in SHAPES {
        let [_, batch, depth, hidden] = sizes;
        let fits = [Direction::Forward, Direction::Backward]
            .iter()
            .all(|direction| Persistent::plan(Shape { batch, depth, hidden }, *direction, card).is_some());
        if !fits {
            eprintln!("skipped: {sizes:?} does not fit {card:?}");
            continue;
        }
        for masked in [false, true] {
            let case = Case::<Rhn>::new(sizes, masked);
            Path::Persistent.force(|| case.check(&device, Precision::Bf16, 2e-2));
        }
    }
}

#[test]
fn an_lstm_and_a_gru_equal_the_reference() {
    let Some(device) = gpu() else { return };
    for [time, batch, _, hidden] in SHAPES {
        for (precision, tolerance) in PRECISIONS {
            let sizes = [time, batch, 1, hidden];
            Case::<Lstm>::new(sizes, true).check(&device, precision, tolerance);
            Case::<Gru>::new(sizes, true).check(&device, precision, tolerance);
        }
    }
}

#[test]
fn a_path_that_a_window_does_not_fit_is_refused_when_it_is_asked_for() {
    let Some(device) = gpu() else { return };
    let case = Case::<Rhn>::new([1, 1, 1, 7], false);
    let run = || {
        let tensors = case.tensors().map(|t| t.to_dtype(DType::F32).unwrap().to_device(&device).unwrap());
        let [projected, recurrent, bias, state, ..] = tensors;
        scan::<Rhn>(&projected, &recurrent, &bias, &[state], &HiddenMask::None, Precision::F32)
    };
    let message = Path::Persistent.force(run).expect_err("it is for bf16").to_string();
    assert!(message.contains("cannot be computed in one launch"), "{message}");
}

fn card(device: &Device) -> Option<Card> {
    rhn_kernels::scan::cuda::card(device.as_cuda_device().unwrap()).unwrap()
}
