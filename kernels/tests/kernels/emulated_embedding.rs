//! Rows of a table, and their gradient in the order of the positions.

use crate::emulator::{LaunchShape, Script, emulator};
use crate::{grids, scattered};
use candle_core::{Device, Tensor, Var};

#[test]
fn rows_and_their_gradient_are_those_of_index_select() {
    let Some(emulator) = emulator() else { return };
    for (rows, width, count, threads) in [(1, 1, 1, 32), (7, 5, 40, 32), (50, 130, 33, 64), (3, 33, 200, 32)]
    {
        let ids: Vec<u32> = (0..count).map(|i| (i * i * 5 % rows) as u32).collect();
        let table = scattered(rows * width, 1.0, 1);
        let weights = scattered(count * width, 1.0, 2);
        let var = Var::from_slice(&table, (rows, width), &Device::Cpu).unwrap();
        let positions = Tensor::new(ids.as_slice(), &Device::Cpu).unwrap();
        let taken = var.index_select(&positions, 0).unwrap();
        let upstream = Tensor::from_slice(&weights, (count, width), &Device::Cpu).unwrap();
        let grads = (&taken * upstream).unwrap().sum_all().unwrap().backward().unwrap();
        let flat = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f64>().unwrap();

        let mut script = Script::new();
        script.load("table", &table);
        script.load("ids", &ids);
        script.load("weights", &weights);
        script.load("grads", &vec![0f64; rows * width]);
        script.buffer::<f64>("taken", count * width);
        let [shape, _] = grids(count * width, 64);
        script.launch("lookup_f64", shape, &[&"&table", &"&ids", &rows, &width, &count, &"&taken"]);
        let shape =
            LaunchShape { grid: [count, width.div_ceil(threads), 1], ..LaunchShape::flat(1, threads) };
        let arguments: [&dyn std::fmt::Display; 7] =
            [&"&weights", &"&ids", &rows, &u32::MAX, &width, &count, &"&grads"];
        script.launch("lookup_grad_f64", shape, &arguments);
        let found = script.run(emulator, &["taken", "grads"]);
        assert_eq!(found.get::<f64>("taken"), flat(&taken));
        assert_eq!(found.get::<f64>("grads"), flat(grads.get(&var).unwrap())); // the same order of additions
    }
}

#[test]
fn a_blank_receives_nothing_and_a_number_outside_is_not_a_number() {
    let Some(emulator) = emulator() else { return };
    let mut script = Script::new();
    script.load("table", &[1f32, 2.0, 3.0, 4.0]);
    script.load("ids", &[0u32, 1, 2, 1]);
    script.load("weights", &[1f32; 8]);
    script.load("grads", &[0f32; 4]);
    script.buffer::<f32>("taken", 8);
    script.launch("lookup_f32", LaunchShape::flat(1, 32), &[&"&table", &"&ids", &2, &2, &4, &"&taken"]);
    let shape = LaunchShape { grid: [4, 1, 1], ..LaunchShape::flat(1, 32) };
    script.launch("lookup_grad_f32", shape, &[&"&weights", &"&ids", &2, &0, &2, &4, &"&grads"]);
    let found = script.run(emulator, &["taken", "grads"]);
    let taken = found.get::<f32>("taken");
    assert_eq!((&taken[..4], &taken[6..]), ([1.0, 2.0, 3.0, 4.0].as_slice(), [3.0, 4.0].as_slice()));
    assert!(taken[4].is_nan() && taken[5].is_nan());
    assert_eq!(found.get::<f32>("grads"), [0.0, 0.0, 2.0, 2.0]);
}
