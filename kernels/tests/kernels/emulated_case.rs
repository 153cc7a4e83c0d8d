//! A window of random numbers, and what the reference makes of it in double precision.

use candle_core::{DType, Device, Tensor, Var};
use rhn_kernels::rng::Rng;
use rhn_kernels::scan::{Cell, HiddenMask, reference};

/// Sizes and numbers of a window of one cell, row-major as [`rhn_kernels::scan::scan`] has them.
pub(crate) struct Case {
    pub(crate) time: usize,
    pub(crate) batch: usize,
    pub(crate) depth: usize,
    pub(crate) hidden: usize,
    pub(crate) cell: &'static str,
    pub(crate) gates: usize,
    pub(crate) saved: usize,
    pub(crate) parts: usize,
    /// Which saved value is the gradient of each gate's projected input.
    pub(crate) positions: Vec<usize>,
    pub(crate) projected: Vec<f32>,
    pub(crate) recurrent: Vec<f32>,
    pub(crate) bias: Vec<f32>,
    /// `(parts, batch, hidden)`.
    pub(crate) state: Vec<f32>,
    pub(crate) mask: Option<Vec<f32>>,
    /// The gradient of the outputs.
    pub(crate) grads: Vec<f32>,
    exact: fn(&Self) -> Vec<Vec<f64>>,
}

/// What is compared: the outputs, all gradients, and the state's parts but the first after the last step.
pub(crate) const PARTS: [&str; 5] = ["outputs", "projected_grad", "recurrent_grad", "bias_grad", "last"];

/// Uniform between `-scale` and `scale`.
pub(crate) fn random(name: &str, count: usize, scale: f64) -> Vec<f32> {
    let mut rng = Rng::keyed(11, name, 0);
    (0..count).map(|_| (scale * (2.0 * rng.uniform() - 1.0)) as f32).collect()
}

impl Case {
    pub(crate) fn new<C: Cell>([time, batch, depth, hidden]: [usize; 4], masked: bool) -> Self {
        let mask = random("mask", batch * hidden, 1.0);
        let kept = |x: &f32| if *x < -0.5 { 0.0 } else { 4.0 / 3.0 };
        let width = C::GATES * hidden;
        Self {
            time,
            batch,
            depth,
            hidden,
            cell: C::NAME,
            gates: C::GATES,
            saved: C::SAVED,
            parts: C::STATES,
            positions: C::PROJECTED[..C::GATES].to_vec(),
            projected: random("projected", time * batch * width, 1.0),
            recurrent: random("recurrent", depth * hidden * width, 1.5 / (hidden as f64).sqrt()),
            bias: random("bias", depth * width, 0.5),
            state: random("state", C::STATES * batch * hidden, 0.8),
            mask: masked.then(|| mask.iter().map(kept).collect()),
            grads: random("grads", time * batch * hidden, 1.0),
            exact: exact::<C>,
        }
    }

    /// Fails unless every part is within `tolerance` of the reference's, relative to that part's largest number.
    pub(crate) fn check(&self, found: &[Vec<f32>], tolerance: f64) {
        let exact = (self.exact)(self);
        assert_eq!(found.len(), exact.len());
        for ((name, found), exact) in PARTS.iter().zip(found).zip(exact) {
            let distance = distance(found, &exact);
            let Self { time, batch, depth, hidden, cell, .. } = self;
            let masked = self.mask.is_some();
            let case = format!("{cell} {name}, T {time} B {batch} L {depth} H {hidden}, mask {masked}");
            assert!(distance <= tolerance, "{case}: {distance:e}");
        }
    }
}

/// Plain tensor operations, and candle's own gradient of them.
fn exact<C: Cell>(case: &Case) -> Vec<Vec<f64>> {
    let Case { time, batch, depth, hidden, gates, .. } = *case;
    let tensor = |values: &[f32], shape: &[usize]| {
        Tensor::from_slice(values, shape, &Device::Cpu).unwrap().to_dtype(DType::F64).unwrap()
    };
    let var = |values: &[f32], shape: &[usize]| Var::from_tensor(&tensor(values, shape)).unwrap();
    let projected = var(&case.projected, &[time, batch, gates * hidden]);
    let recurrent = var(&case.recurrent, &[depth, hidden, gates * hidden]);
    let bias = var(&case.bias, &[depth, gates * hidden]);
    let mask = match &case.mask {
        Some(mask) => HiddenMask::Shared(tensor(mask, &[batch, hidden])),
        None => HiddenMask::None,
    };
    let parts = case.state.chunks_exact(batch * hidden);
    let state: Vec<_> = parts.map(|part| tensor(part, &[batch, hidden])).collect();
    let (outputs, state) = reference::scan::<C>(&projected, &recurrent, &bias, &state, &mask).unwrap();
    let loss = (&outputs * tensor(&case.grads, &[time, batch, hidden])).unwrap().sum_all().unwrap();
    let grads = loss.backward().unwrap();
    let values = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f64>().unwrap();
    let grad = |var: &Var| values(grads.get(var).expect("a gradient"));
    let last = state[1..].iter().flat_map(values).collect();
    vec![values(&outputs), grad(&projected), grad(&recurrent), grad(&bias), last]
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
