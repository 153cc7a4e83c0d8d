//! Softmax cross-entropy and its gradient beside the reference's.

use crate::emulator::{LaunchShape, Script, emulator};
use crate::{grids, scattered};
use candle_core::{Device, Tensor, Var};
use rhn_kernels::softmax::reference;

struct Case {
    rows: usize,
    vocabulary: usize,
    products: Vec<f64>,
    bias: Vec<f64>,
    targets: Vec<u32>,
    upstream: Vec<f64>,
}

impl Case {
    fn new(rows: usize, vocabulary: usize) -> Self {
        Self {
            rows,
            vocabulary,
            products: scattered(rows * vocabulary, 8.0, 1),
            bias: scattered(vocabulary, 3.0, 2),
            targets: (0..rows).map(|row| (row * 7 % vocabulary) as u32).collect(),
            upstream: scattered(rows, 1.0, 3),
        }
    }

    /// Nats, and the gradients of products and bias.
    fn wanted(&self) -> [Vec<f64>; 3] {
        let device = &Device::Cpu;
        let products = Var::from_slice(&self.products, (self.rows, self.vocabulary), device).unwrap();
        let bias = Var::from_slice(&self.bias, self.vocabulary, device).unwrap();
        let targets = Tensor::new(self.targets.as_slice(), device).unwrap();
        let upstream = Tensor::new(self.upstream.as_slice(), device).unwrap();
        let nats = reference::nats(&products, &bias, &targets).unwrap();
        let grads = (&nats * upstream).unwrap().sum_all().unwrap().backward().unwrap();
        let flat = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f64>().unwrap();
        [flat(&nats), flat(grads.get(&products).unwrap()), flat(grads.get(&bias).unwrap())]
    }

    /// The kernels' script in f64 or f32.
    fn script(&self, double: bool, threads: usize, whole: bool) -> Script {
        let mut script = Script::new();
        let count = self.rows * self.vocabulary;
        let mut load = |name: &str, values: &[f64]| match double {
            true => script.load(name, values),
            false => script.load(name, &values.iter().map(|&value| value as f32).collect::<Vec<_>>()),
        };
        load("products", &self.products);
        load("bias", &self.bias);
        load("upstream", &self.upstream);
        script.load("targets", &self.targets);
        for (name, count) in [("nats", self.rows), ("lse", self.rows), ("bias_grad", self.vocabulary)] {
            if double { script.buffer::<f64>(name, count) } else { script.buffer::<f32>(name, count) }
        }
        let suffix = if double { "f64" } else { "f32" };
        let name = |kernel: &str| format!("{kernel}_{suffix}");
        let vocabulary = self.vocabulary;
        let arguments: [&dyn std::fmt::Display; 6] =
            [&"&products", &"&bias", &"&targets", &vocabulary, &"&nats", &"&lse"];
        script.launch(&name("nats"), LaunchShape::flat(self.rows, threads), &arguments);
        let arguments: [&dyn std::fmt::Display; 7] =
            [&"&products", &"&bias", &"&targets", &"&lse", &"&upstream", &vocabulary, &count];
        script.launch(&name("nats_grad"), grids(count, 64)[usize::from(!whole)], &arguments);
        let arguments: [&dyn std::fmt::Display; 4] = [&"&products", &self.rows, &vocabulary, &"&bias_grad"];
        script.launch(&name("sum_rows"), LaunchShape::flat(vocabulary.div_ceil(32), 256), &arguments);
        script
    }
}

const NAMES: [&str; 3] = ["nats", "products", "bias_grad"];
const SHAPES: [(usize, usize, usize); 5] =
    [(1, 1, 32), (3, 16, 32), (4, 37, 64), (20, 300, 256), (11, 67, 96)];

#[test]
fn nats_and_gradients_are_the_references() {
    let Some(emulator) = emulator() else { return };
    for (rows, vocabulary, threads) in SHAPES {
        let case = Case::new(rows, vocabulary);
        for whole in [true, false] {
            let found = case.script(true, threads, whole).run(emulator, &NAMES);
            for (name, wanted) in NAMES.iter().zip(case.wanted()) {
                for (found, wanted) in found.get::<f64>(name).into_iter().zip(wanted) {
                    assert!(
                        (found - wanted).abs() <= 1e-12 * (1.0 + wanted.abs()),
                        "{name}: {found} for {wanted}"
                    );
                }
            }
        }
    }
}

#[test]
fn single_precision_is_near() {
    let Some(emulator) = emulator() else { return };
    for (rows, vocabulary, threads) in SHAPES {
        let case = Case::new(rows, vocabulary);
        let found = case.script(false, threads, true).run(emulator, &NAMES);
        for (name, wanted) in NAMES.iter().zip(case.wanted()) {
            for (found, wanted) in found.get::<f32>(name).into_iter().zip(wanted) {
                let error = (f64::from(found) - wanted).abs();
                assert!(error <= 1e-5 * (1.0 + wanted.abs()), "{name}: {found} for {wanted}");
            }
        }
    }
}

#[test]
fn what_is_not_finite_does_not_pass_as_a_number() {
    let Some(emulator) = emulator() else { return };
    let non_finite = [f64::INFINITY, f64::NAN, f64::NEG_INFINITY];
    for (at, value) in non_finite.into_iter().enumerate() {
        let mut case = Case::new(2, 40);
        case.products[3] = value;
        let nats = case.script(true, 32, true).run(emulator, &["nats"]).get::<f64>("nats");
        // Of -infinity only the probability is zero: that is a number. All the others are not.
        assert_eq!(nats[0].is_finite(), at == 2, "{value}: {nats:?}");
        assert!(nats[1].is_finite());
    }
    let mut case = Case::new(2, 40);
    case.targets[1] = 40;
    let nats = case.script(true, 32, true).run(emulator, &["nats"]).get::<f64>("nats");
    assert!(nats[0].is_finite() && nats[1].is_nan());
}
