//! The highway layer's kernel: against the reference, and its gradients against central differences.

use super::{check_by_differences, distance, random, values};
use candle_core::{DType, Device, Tensor, Var};
use rhn_kernels::Result;
use rhn_kernels::cpu::{InstructionSet, with_threads};
use rhn_kernels::highway::{self, Variant, reference};

/// Products, bias and the layer's input, and the weights of the sum that is the loss.
fn gated(variant: Variant, rows: usize, size: usize, dtype: DType) -> [Var; 4] {
    let width = variant.columns() * size;
    [
        random("products", &[rows, width], 2.0, dtype),
        random("bias", &[width], 0.5, dtype),
        random("ys", &[rows, size], 1.0, dtype),
        random("weights", &[rows, size], 1.0, dtype),
    ]
}

/// The values, and the gradients of products, bias and input; zero for an input that does not matter.
fn run(
    variant: Variant,
    [products, bias, ys, weights]: &[Var; 4],
    f: impl Fn(Variant, &Tensor, &Tensor, &Tensor, f64) -> Result<Tensor>,
) -> [Tensor; 4] {
    let out = f(variant, products, bias, ys, -2.0).unwrap();
    let grads = (&out * weights.as_tensor()).unwrap().sum_all().unwrap().backward().unwrap();
    let grad = |var: &Var| grads.get(var).cloned().unwrap_or_else(|| var.zeros_like().unwrap());
    [out.detach(), grad(products), grad(bias), grad(ys)]
}

#[test]
fn every_variant_equals_the_reference_on_every_instruction_set() {
    for variant in Variant::ALL {
        for (rows, size) in [(1, 1), (3, 16), (20, 525)] {
            let exact = run(variant, &gated(variant, rows, size, DType::F64), reference::highway);
            for (dtype, tolerance) in [(DType::F64, 1e-12), (DType::F32, 1e-5)] {
                let vars = gated(variant, rows, size, dtype);
                for set in InstructionSet::available() {
                    let fast = set.force(|| run(variant, &vars, highway::highway));
                    for (part, (fast, exact)) in fast.iter().zip(&exact).enumerate() {
                        let distance = distance(fast, exact);
                        let case = format!("part {part} {variant:?} {set:?} {dtype:?} {rows} × {size}");
                        assert!(distance <= tolerance, "{case}: {distance:e}");
                    }
                }
            }
        }
    }
}

#[test]
fn every_variant_has_the_gradient_of_central_differences_with_any_number_of_threads() {
    for variant in Variant::ALL {
        let vars = gated(variant, 4, 5, DType::F64);
        let loss = || -> f64 {
            let out = highway::highway(variant, &vars[0], &vars[1], &vars[2], -2.0).unwrap();
            values(&(out * vars[3].as_tensor()).unwrap()).iter().sum()
        };
        let run = |threads| {
            with_threads(threads, || run(variant, &vars, highway::highway).map(|part| values(&part)))
        };
        let alone = run(1);
        assert!([2, 3, 5].iter().all(|&threads| run(threads) == alone));
        for (index, name) in ["products", "bias", "ys"].into_iter().enumerate() {
            check_by_differences(&format!("{variant:?} {name}"), &vars[index], &alone[index + 1], loss);
        }
    }
}

fn row(values: &[f64]) -> Tensor {
    Tensor::from_slice(values, (1, values.len()), &Device::Cpu).unwrap()
}

#[test]
fn a_shut_gate_carries_and_an_open_one_rectifies() {
    let bias = Tensor::zeros(4, DType::F64, &Device::Cpu).unwrap();
    let ys = [0.3, -0.7];
    let h = [2.0, -3.0];
    for (z, wanted) in [(-1e3, ys), (1e3, [2.0, 0.0])] {
        let products = row(&[h[0], h[1], z, z]);
        let out = highway::highway(Variant::Coupled, &products, &bias, &row(&ys), -2.0).unwrap();
        assert_eq!(values(&out), wanted);
    }
}

#[test]
fn each_variant_mixes_as_its_equation_says() {
    // H = 2; T = sigmoid(2 − 2) = 1/2 and C = sigmoid(-2 + 2) = 1/2; y = -6.
    let wanted = [
        (Variant::Coupled, vec![2.0, 2.0], -2.0),       // -6 + (2 + 6) / 2
        (Variant::Full, vec![2.0, 2.0, -2.0], -2.0),    // 2 / 2 - 6 / 2
        (Variant::CarryOnly, vec![2.0, -2.0], -1.0),    // 2 - 6 / 2
        (Variant::TransformOnly, vec![2.0, 2.0], -5.0), // 2 / 2 - 6
        (Variant::Residual, vec![2.0], -4.0),
        (Variant::Plain, vec![2.0], 2.0),
    ];
    for (variant, products, wanted) in wanted {
        let bias = Tensor::zeros(products.len(), DType::F64, &Device::Cpu).unwrap();
        for f in [highway::highway, reference::highway] {
            let out = f(variant, &row(&products), &bias, &row(&[-6.0]), -2.0).unwrap();
            assert_eq!(values(&out), [wanted], "{variant:?}");
        }
    }
}

#[test]
fn products_of_another_width_are_an_error() {
    let bias = Tensor::zeros(4, DType::F64, &Device::Cpu).unwrap();
    let error = highway::highway(Variant::Full, &row(&[0.0; 4]), &bias, &row(&[0.0; 2]), -2.0).unwrap_err();
    assert!(error.to_string().contains("do not fit a Full layer"), "{error}");
}
