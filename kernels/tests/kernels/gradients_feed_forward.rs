//! The stack of feed-forward layers against its reference and against central differences.

use crate::{check_by_differences, distance, random, values};
use candle_core::{DType, Tensor, Var};
use rhn_kernels::cpu::{InstructionSet, with_threads};
use rhn_kernels::feed_forward::{Activation, Layer, Mixing, activated, feed_forward, reference};

/// Layers, rows, units: less than a chunk, several panels, and rows that no block divides.
const SIZES: [[usize; 3]; 3] = [[3, 5, 7], [4, 37, 50], [2, 201, 71]];

fn layers() -> impl Iterator<Item = Layer> {
    let mixings = [Mixing::Plain, Mixing::Coupled, Mixing::Full];
    let activations = [Activation::Relu, Activation::Tanh, Activation::Sigmoid];
    mixings.into_iter().flat_map(move |mixing| activations.map(|activation| Layer { mixing, activation }))
}

fn operands(layer: Layer, [layers, rows, size]: [usize; 3], dtype: DType) -> [Var; 3] {
    let width = layer.gates() * size;
    let scale = 1.5 / (size as f64).sqrt();
    [
        random("xs", &[rows, size], 1.0, dtype),
        random("weights", &[layers, size, width], scale, dtype),
        random("bias", &[layers, width], 0.5, dtype),
    ]
}

/// The values, then the gradients of a sum that weighs each value.
fn run(operands: &[Var; 3], work: impl Fn(&Tensor, &Tensor, &Tensor) -> Tensor) -> Vec<Tensor> {
    let [xs, weights, bias] = operands;
    let out = work(xs, weights, bias);
    let weighed = random("weighing", out.dims(), 1.0, out.dtype());
    let grads = (&out * weighed.as_tensor()).unwrap().sum_all().unwrap().backward().unwrap();
    let grads = operands.iter().map(|var| grads.get(var).unwrap().clone());
    [out.detach()].into_iter().chain(grads).collect()
}

fn kernel(layer: Layer) -> impl Fn(&Tensor, &Tensor, &Tensor) -> Tensor {
    move |xs, weights, bias| feed_forward(xs, weights, bias, layer).unwrap()
}

#[test]
fn a_stack_is_near_its_reference_in_every_precision_on_every_instruction_set() {
    for layer in layers() {
        for sizes in SIZES {
            let exact = run(&operands(layer, sizes, DType::F64), |xs, weights, bias| {
                reference::feed_forward(xs, weights, bias, layer).unwrap()
            });
            for set in InstructionSet::available() {
                for (dtype, tolerance) in [(DType::F64, 1e-13), (DType::F32, 5e-6)] {
                    let operands = operands(layer, sizes, dtype);
                    let found = set.force(|| run(&operands, kernel(layer)));
                    for (found, wanted) in found.iter().zip(&exact) {
                        let far = distance(&found.to_dtype(DType::F64).unwrap(), wanted);
                        assert!(far <= tolerance, "{layer:?} {sizes:?} {set:?} {dtype:?}: {far:e}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_stack_has_the_gradient_of_central_differences() {
    for layer in layers() {
        let operands = operands(layer, [3, 4, 5], DType::F64);
        let work = kernel(layer);
        let found = run(&operands, &work);
        let weighed = random("weighing", &[4, 5], 1.0, DType::F64);
        for (var, grad) in operands.iter().zip(&found[1..]) {
            check_by_differences("stack", var, &values(grad), || {
                let [xs, weights, bias] = &operands;
                let out = work(xs, weights, bias);
                values(&(&out * weighed.as_tensor()).unwrap().sum_all().unwrap())[0]
            });
        }
    }
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    for layer in layers() {
        let operands = operands(layer, [5, 101, 50], DType::F32);
        let run = |threads| {
            let found = with_threads(threads, || run(&operands, kernel(layer)));
            found.iter().map(values).collect::<Vec<_>>()
        };
        let alone = run(1);
        assert!([2, 3, 5].iter().all(|&threads| run(threads) == alone));
    }
}

#[test]
fn what_is_not_followed_is_the_same_and_leaves_no_record() {
    for layer in layers() {
        let operands = operands(layer, [5, 101, 50], DType::F32);
        let [xs, weights, bias] = operands.each_ref().map(|var| var.as_tensor().clone());
        let work = kernel(layer);
        let followed = values(&work(&xs, &weights, &bias));
        assert_eq!(values(&work(&xs.detach(), &weights.detach(), &bias.detach())), followed);
    }
}

#[test]
fn a_closed_gate_copies_and_an_open_one_is_a_plain_layer() {
    let [xs, weights, bias] =
        operands(Layer { mixing: Mixing::Coupled, activation: Activation::Tanh }, [2, 3, 4], DType::F64);
    let coupled = Layer { mixing: Mixing::Coupled, activation: Activation::Tanh };
    let with_gate = |value: f64| {
        let gate = Tensor::full(value, (2, 4), xs.device()).unwrap();
        let bias = Tensor::cat(&[bias.narrow(1, 0, 4).unwrap(), gate], 1).unwrap();
        values(&feed_forward(&xs, &weights, &bias, coupled).unwrap())
    };
    assert_eq!(with_gate(-1000.0), values(&xs));
    let plain = Layer { mixing: Mixing::Plain, activation: Activation::Tanh };
    let weights = weights.narrow(2, 0, 4).unwrap();
    let bias = bias.narrow(1, 0, 4).unwrap();
    let open = values(&feed_forward(&xs, &weights, &bias, plain).unwrap());
    let far = with_gate(1000.0).iter().zip(&open).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(far < 1e-15, "{far:e}");
}

#[test]
fn sizes_that_do_not_fit_are_an_error() {
    let layer = Layer { mixing: Mixing::Coupled, activation: Activation::Tanh };
    let [xs, _, bias] = operands(layer, [2, 3, 4], DType::F64);
    let [_, weights, _] = operands(layer, [2, 3, 5], DType::F64);
    let error = feed_forward(&xs, &weights, &bias, layer).unwrap_err().to_string();
    assert!(error.contains("no stack of layers with 2 products"), "{error}");
}

#[test]
fn a_plain_layers_function_is_near_its_reference_and_has_its_gradient() {
    for activation in [Activation::Relu, Activation::Tanh, Activation::Sigmoid] {
        for (dtype, tolerance) in [(DType::F64, 1e-14), (DType::F32, 2e-6)] {
            let run = |dtype, work: &dyn Fn(&Tensor, &Tensor) -> Tensor| {
                let products = random("products", &[7, 19], 2.0, dtype);
                let bias = random("bias", &[19], 0.5, dtype);
                let out = work(&products, &bias);
                let weighed = random("weighing", &[7, 19], 1.0, dtype);
                let grads = (&out * weighed.as_tensor()).unwrap().sum_all().unwrap().backward().unwrap();
                [out.detach(), grads.get(&products).unwrap().clone(), grads.get(&bias).unwrap().clone()]
            };
            let exact = run(DType::F64, &|products, bias| {
                reference::activated(&products.broadcast_add(bias).unwrap(), activation).unwrap()
            });
            for set in InstructionSet::available() {
                let found = set
                    .force(|| run(dtype, &|products, bias| activated(products, bias, activation).unwrap()));
                for (found, wanted) in found.iter().zip(&exact) {
                    let far = distance(&found.to_dtype(DType::F64).unwrap(), wanted);
                    assert!(far <= tolerance, "{activation:?} {set:?} {dtype:?}: {far:e}");
                }
            }
        }
    }
}
