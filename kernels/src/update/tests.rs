//! Each rule against its equations by hand.

use super::element::PIECE;
use super::*;
use candle_core::Device;

fn var(values: &[f64]) -> Var {
    Var::new(values, &Device::Cpu).unwrap()
}

fn close(found: &Tensor, wanted: &[f64]) {
    for (found, wanted) in found.flatten_all().unwrap().to_vec1::<f64>().unwrap().iter().zip(wanted) {
        assert!((found - wanted).abs() < 1e-12, "{found} for {wanted}");
    }
}

#[test]
fn the_norm_is_that_of_gradient_and_decay_together() {
    let grad = var(&[3.0, 0.0]);
    let parameter = var(&[0.0, 8.0]);
    assert_eq!(squared_norm(&grad, &parameter, 0.5).unwrap(), 9.0 + 16.0);
}

#[test]
fn the_norm_of_many_pieces_is_that_of_the_whole() {
    let ones = Tensor::ones(3 * PIECE + 5, DType::F32, &Device::Cpu).unwrap();
    assert_eq!(squared_norm(&ones, &ones, 0.0).unwrap(), (3 * PIECE + 5) as f64);
}

#[test]
fn a_mean_goes_a_share_of_the_way_in_every_piece() {
    let mean = Var::from_tensor(&Tensor::zeros(2 * PIECE + 9, DType::F64, &Device::Cpu).unwrap()).unwrap();
    let parameter = Var::from_tensor(&Tensor::arange(0.0, (2 * PIECE + 9) as f64, &Device::Cpu).unwrap());
    let parameter = parameter.unwrap();
    for steps in 1..=3 {
        towards(&mean, &parameter, 1.0 / f64::from(steps)).unwrap(); // twice what it is already
    }
    towards(&mean, &var(&vec![-1.0; 2 * PIECE + 9]), 0.25).unwrap();
    let wanted: Vec<f64> = (0..2 * PIECE + 9).map(|i| 0.75 * i as f64 - 0.25).collect();
    close(&mean, &wanted);
}

#[test]
fn sgd_of_rows_is_that_of_all_with_zeros_for_the_others() {
    let table = || Var::from_tensor(&var(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).reshape((3, 2)).unwrap()).unwrap();
    let dense = Tensor::new(&[[0.5f64, 0.25], [0.0, 0.0], [-1.0, 3.0]], &Device::Cpu).unwrap();
    let rows = Tensor::new(&[[0.5f64, 0.25], [-1.0, 3.0]], &Device::Cpu).unwrap();
    let wanted = table();
    sgd(&wanted, &dense, 0.3, 0.7, 0.0).unwrap();
    let found = table();
    sgd_rows(&found, &rows, &[0, 2], 0.3, 0.7).unwrap();
    close(&found, &wanted.flatten_all().unwrap().to_vec1::<f64>().unwrap());
    assert!(sgd_rows(&found, &rows, &[2, 0], 0.3, 0.7).is_err());
}

#[test]
fn sgd_moves_against_the_scaled_and_decayed_gradient() {
    let parameter = var(&[1.0, -2.0]);
    sgd(&parameter, &var(&[10.0, 20.0]), 0.1, 0.5, 4.0).unwrap();
    close(&parameter, &[1.0 - 0.1 * 0.5 * (10.0 + 4.0), -2.0 - 0.1 * 0.5 * (20.0 - 8.0)]);
}

#[test]
fn a_velocity_follows_its_equations_as_torch_has_them() {
    for (nesterov, by) in [(false, 2.0 + 0.9 * 4.0), (true, 2.0 + 0.9 * (2.0 + 0.9 * 4.0))] {
        let parameter = var(&[1.0]);
        let v = var(&[4.0]);
        let step = VelocityStep { rate: 0.5, scale: 0.5, decay: 3.0, momentum: 0.9, nesterov };
        velocity(&parameter, &v, &var(&[1.0]), step).unwrap(); // g = 0.5 · (1 + 3 · 1)
        close(&v, &[2.0 + 0.9 * 4.0]);
        close(&parameter, &[1.0 - 0.5 * by]);
    }
}

#[test]
fn adam_follows_its_equations() {
    let parameter = var(&[1.0]);
    let moments = Var::zeros((2, 1), DType::F64, &Device::Cpu).unwrap();
    let step = MomentsStep { scale: 0.5, beta1: 0.9, beta2: 0.99, decay: 3.0 };
    adam_moments(&moments, &var(&[1.0]), &parameter, step).unwrap(); // g = 0.5 · (1 + 3 · 1)
    close(&moments, &[0.1 * 2.0, 0.01 * 4.0]);
    adam(&parameter, &moments, AdamStep { rate: 0.5, root_scale: 10.0, epsilon: 0.25, keep: 0.75 }).unwrap();
    close(&parameter, &[0.75 - 0.5 * 0.2 / (10.0 * 0.2 + 0.25)]);
}
