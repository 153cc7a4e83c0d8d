//! The loss's kernel: its gradient against central differences.

use super::{check_by_differences, random, values};
use candle_core::{DType, Device, Tensor};
use rhn_kernels::linear::Stored;
use rhn_kernels::precision::Precision;
use rhn_kernels::softmax::{self as loss, reference};

#[test]
fn the_loss_has_the_gradient_of_central_differences() {
    for (rows, hidden, vocabulary) in [(1, 1, 2), (4, 3, 16), (3, 2, 37)] {
        let ys = random("ys", &[rows, hidden], 3.0, DType::F64);
        let weight = random("weight", &[hidden, vocabulary], 1.0, DType::F64);
        let bias = random("bias", &[vocabulary], 3.0, DType::F64);
        let weights = random("weights", &[rows], 1.0, DType::F64);
        let targets: Vec<u32> = (0..rows).map(|row| (row * 5 % vocabulary) as u32).collect();
        let targets = Tensor::new(targets, &Device::Cpu).unwrap();
        let fast = || loss::nats(&ys, &weight, Stored::ByInput, &bias, &targets, Precision::F64).unwrap();
        let slow = || reference::nats(&ys.matmul(&weight).unwrap(), &bias, &targets).unwrap();
        for kernel in [&fast as &dyn Fn() -> Tensor, &slow] {
            let weighted = || (kernel() * weights.as_tensor()).unwrap();
            let grads = weighted().sum_all().unwrap().backward().unwrap();
            for (name, var) in [("ys", &ys), ("weight", &weight), ("bias", &bias)] {
                let grad = values(grads.get(var).unwrap());
                check_by_differences(name, var, &grad, || values(&weighted()).iter().sum());
            }
        }
    }
}
