//! The emulator finds the mistakes that a GPU would hide.

use crate::emulator::{LaunchShape, Script, emulator};

fn mistake(number: u32) -> Option<Result<Vec<f32>, String>> {
    let mut script = Script::new();
    script.buffer::<f32>("values", 32);
    script.launch("probe_mistake", LaunchShape::flat(1, 32), &[&"&values", &32, &number]);
    let found = script.run_in_order(emulator()?, &["values"], 0);
    Some(found.map(|found| found.get::<f32>("values")))
}

#[test]
fn a_kernel_without_a_mistake_runs() {
    if let Some(found) = mistake(0) {
        assert_eq!(found.unwrap(), [1.0; 32]);
    }
}

#[test]
fn mistakes_are_found_and_named() {
    let named = [
        (1, "outside of buffer values: byte 128 of 128"),
        (2, "beside buffer values"),
        (3, "that have left the kernel"),
        (4, "while another thread is at"),
        (5, "waits for another block"),
        (7, "which has left the kernel"),
    ];
    for (number, wanted) in named {
        let Some(found) = mistake(number) else { return };
        let message = found.expect_err("a mistake");
        assert!(message.contains(wanted), "{number}: {message}");
    }
}

#[test]
fn memory_that_nobody_wrote_is_not_a_number() {
    if let Some(found) = mistake(6) {
        assert!(found.unwrap().iter().all(|value| value.is_nan()));
    }
}

#[test]
fn sums_of_a_block_are_whole() {
    let Some(emulator) = emulator() else { return };
    for (count, threads) in [(1, 32), (33, 64), (1000, 256), (5000, 1024)] {
        let values: Vec<f32> = (0..count).map(|i| i as f32).collect();
        let mut script = Script::new();
        script.load("values", &values);
        script.buffer::<f32>("sum", 1);
        script.launch("probe_sum", LaunchShape::flat(1, threads), &[&"&values", &count, &"&sum"]);
        let sum = script.run(emulator, &["sum"]).get::<f32>("sum")[0];
        let wanted = (count * (count - 1) / 2) as f32;
        assert!((sum - wanted).abs() <= 1e-6 * wanted, "{sum} for {wanted}");
    }
}

#[test]
fn a_forgotten_barrier_shows_in_another_order() {
    let Some(emulator) = emulator() else { return };
    let reverse = |barrier: u32, order| {
        let mut script = Script::new();
        script.load("in", &(0..128u32).collect::<Vec<_>>());
        script.buffer::<u32>("out", 128);
        let shape = LaunchShape { shared: 4 * 64, ..LaunchShape::flat(2, 64) };
        script.launch("probe_reverse", shape, &[&"&in", &"&out", &barrier]);
        script.run_in_order(emulator, &["out"], order).unwrap().get::<u32>("out")
    };
    let wanted: Vec<u32> = (0..64).rev().chain((64..128).rev()).collect();
    assert!((0..4).all(|order| reverse(1, order) == wanted));
    assert_ne!(reverse(0, 0), reverse(0, 1));
}

#[test]
fn blocks_wait_for_one_another() {
    let Some(emulator) = emulator() else { return };
    let mut script = Script::new();
    script.load("arrived", &[0u32]);
    script.load("counts", &[0u32; 7]);
    let shape = LaunchShape { cooperative: true, ..LaunchShape::flat(7, 40) };
    script.launch("probe_grid", shape, &[&"&arrived", &"&counts", &5]);
    assert_eq!(script.run(emulator, &["counts"]).get::<u32>("counts"), [5; 7]);
}

#[test]
fn a_warps_product_is_that_of_its_matrices() {
    let Some(emulator) = emulator() else { return };
    let a: Vec<f32> = (0..16 * 16).map(|i| ((i * 7) % 23) as f32 - 11.0).collect(); // exact in bf16
    let b: Vec<f32> = (0..16 * 8).map(|i| ((i * 5) % 17) as f32 - 8.0).collect();
    let mut script = Script::new();
    script.load("a", &a);
    script.load("b", &b);
    script.buffer::<f32>("d", 16 * 8);
    script.launch("probe_mma", LaunchShape::flat(1, 32), &[&"&a", &"&b", &"&d"]);
    let found = script.run(emulator, &["d"]).get::<f32>("d");
    let product = |i: usize| (0..16).map(|k| a[i / 8 * 16 + k] * b[k * 8 + i % 8]).sum::<f32>();
    assert_eq!(found, (0..16 * 8).map(product).collect::<Vec<_>>());
}
