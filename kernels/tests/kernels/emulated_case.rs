//! A window of random numbers, and what the oracle makes of it in double precision.

use candle_core::{DType, Device, Tensor, Var};
use rhn_kernels::rng::Rng;
use rhn_kernels::scan::HiddenMask;
use rhn_kernels::scan::reference;

/// Sizes and numbers of an RHN's window, row-major as [`rhn_kernels::scan::rhn_op::rhn`] tells.
pub(crate) struct Case {
    pub(crate) time: usize,
    pub(crate) batch: usize,
    pub(crate) depth: usize,
    pub(crate) hidden: usize,
    pub(crate) projected: Vec<f32>,
    pub(crate) recurrent: Vec<f32>,
    pub(crate) bias: Vec<f32>,
    pub(crate) state: Vec<f32>,
    pub(crate) mask: Option<Vec<f32>>,
    /// The gradient of the outputs.
    pub(crate) grads: Vec<f32>,
}

/// The outputs, and the gradients of all that has one.
pub(crate) struct Found {
    pub(crate) outputs: Vec<f32>,
    pub(crate) projected: Vec<f32>,
    pub(crate) recurrent: Vec<f32>,
    pub(crate) bias: Vec<f32>,
}

/// The names of [`Found`]'s parts.
const PARTS: [&str; 4] = ["outputs", "projected", "recurrent", "bias"];

/// Uniform between `-scale` and `scale`.
pub(crate) fn random(name: &str, count: usize, scale: f64) -> Vec<f32> {
    let mut rng = Rng::keyed(11, name, 0);
    (0..count).map(|_| (scale * (2.0 * rng.uniform() - 1.0)) as f32).collect()
}

impl Case {
    pub(crate) fn new([time, batch, depth, hidden]: [usize; 4], masked: bool) -> Self {
        let mask = random("mask", batch * hidden, 1.0);
        let kept = |x: &f32| if *x < -0.5 { 0.0 } else { 4.0 / 3.0 };
        Self {
            time,
            batch,
            depth,
            hidden,
            projected: random("projected", time * batch * 2 * hidden, 1.0),
            recurrent: random("recurrent", depth * hidden * 2 * hidden, 1.5 / (hidden as f64).sqrt()),
            bias: random("bias", depth * 2 * hidden, 0.5),
            state: random("state", batch * hidden, 0.8),
            mask: masked.then(|| mask.iter().map(kept).collect()),
            grads: random("grads", time * batch * hidden, 1.0),
        }
    }

    /// Plain tensor operations, and candle's own gradient of them.
    pub(crate) fn exact(&self) -> [Vec<f64>; 4] {
        let Self { time, batch, depth, hidden, .. } = *self;
        let tensor = |values: &[f32], shape: &[usize]| {
            Tensor::from_slice(values, shape, &Device::Cpu).unwrap().to_dtype(DType::F64).unwrap()
        };
        let var = |values: &[f32], shape: &[usize]| Var::from_tensor(&tensor(values, shape)).unwrap();
        let projected = var(&self.projected, &[time, batch, 2 * hidden]);
        let recurrent = var(&self.recurrent, &[depth, hidden, 2 * hidden]);
        let bias = var(&self.bias, &[depth, 2 * hidden]);
        let mask = match &self.mask {
            Some(mask) => HiddenMask::Shared(tensor(mask, &[batch, hidden])),
            None => HiddenMask::None,
        };
        let state = tensor(&self.state, &[batch, hidden]);
        let outputs = reference::rhn(&projected, &recurrent, &bias, &state, &mask).unwrap();
        let loss = (&outputs * tensor(&self.grads, &[time, batch, hidden])).unwrap().sum_all().unwrap();
        let grads = loss.backward().unwrap();
        let values = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f64>().unwrap();
        let grad = |var: &Var| values(grads.get(var).expect("a gradient"));
        [values(&outputs), grad(&projected), grad(&recurrent), grad(&bias)]
    }

    /// Fails unless every part is within `tolerance` of the oracle's, relative to that part's largest number.
    pub(crate) fn check(&self, found: &Found, tolerance: f64) {
        let parts = [&found.outputs, &found.projected, &found.recurrent, &found.bias];
        for ((name, found), exact) in PARTS.iter().zip(parts).zip(self.exact()) {
            let distance = distance(found, &exact);
            let Self { time, batch, depth, hidden, .. } = self;
            let place =
                format!("{name}, T {time} B {batch} L {depth} H {hidden}, mask {}", self.mask.is_some());
            assert!(distance <= tolerance, "{place}: {distance:e}");
        }
    }
}

/// Largest difference, relative to the largest wanted magnitude; a number that is missing counts as infinite.
pub(crate) fn distance(found: &[f32], wanted: &[f64]) -> f64 {
    assert_eq!(found.len(), wanted.len());
    let size = wanted.iter().fold(1e-30, |a: f64, b| a.max(b.abs()));
    let worst = found.iter().zip(wanted).map(|(f, w)| (f64::from(*f) - w).abs() / size);
    worst.fold(0.0, |a, b| if b.is_nan() { f64::INFINITY } else { a.max(b) })
}

#[test]
fn what_is_not_a_number_is_infinitely_far() {
    assert_eq!(distance(&[1.0, f32::NAN], &[1.0, 2.0]), f64::INFINITY);
    assert_eq!(distance(&[1.0, 2.0], &[1.0, 4.0]), 0.5); // relative to 4
}
