//! The loss's kernel: its gradient against central differences.

use super::{check_by_differences, random, values};
use candle_core::{DType, Device, Tensor};
use rhn::ops::{loss, reference};

#[test]
fn the_loss_has_the_gradient_of_central_differences() {
    for (rows, vocabulary) in [(1, 2), (4, 16), (3, 37)] {
        let products = random("products", &[rows, vocabulary], 3.0, DType::F64);
        let bias = random("bias", &[vocabulary], 3.0, DType::F64);
        let weights = random("weights", &[rows], 1.0, DType::F64);
        let targets: Vec<u32> = (0..rows).map(|row| (row * 5 % vocabulary) as u32).collect();
        let targets = Tensor::new(targets, &Device::Cpu).unwrap();
        for kernel in [loss::nats, reference::nats] {
            let weighted = || (kernel(&products, &bias, &targets).unwrap() * weights.as_tensor()).unwrap();
            let grads = weighted().sum_all().unwrap().backward().unwrap();
            for (name, var) in [("products", &products), ("bias", &bias)] {
                let grad = values(grads.get(var).unwrap());
                check_by_differences(name, var, &grad, || values(&weighted()).iter().sum());
            }
        }
    }
}
