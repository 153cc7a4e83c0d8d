//! Norm, check and updates beside those of the CPU, and what a step that is not finite leaves.

use crate::emulator::{LaunchShape, Script, emulator};
use crate::{grids, scattered};
use candle_core::{Device, Var};
use rhn_kernels::update::{self, AdamStep, MomentsStep};

/// As `guard.cuh` numbers them.
const APPLIED: usize = 0;
const SCALE: usize = 1;
const UPDATES: usize = 2;
const ALLOWED: usize = 3;
const HALTED: usize = 4;
const RECORDS: usize = 7;

fn guard(updates: f64, allowed: f64, records: usize) -> Vec<f64> {
    let mut guard = vec![0.0; RECORDS + 3 * records];
    (guard[UPDATES], guard[ALLOWED]) = (updates, allowed);
    guard
}

/// A check of `nats` and `sums`, entered as `record`.
fn check(script: &mut Script, rows: usize, pieces: usize, record: usize, max_norm: f64, limit: f64) {
    let arguments: [&dyn std::fmt::Display; 12] =
        [&"&nats", &rows, &"&sums", &pieces, &"&guard", &record, &0.5, &max_norm, &0.9, &0.99, &0, &limit];
    script.launch("check_f64", LaunchShape::flat(1, 256), &arguments);
}

#[test]
fn the_norm_is_that_of_gradient_and_decay_over_all_tensors() {
    let Some(emulator) = emulator() else { return };
    let counts = [1usize, 300, 2 * 16384 + 77];
    let mut script = Script::new();
    let mut pieces = 0;
    let mut wanted = 0.0;
    script.load("nats", &[1.0f64, 2.0, 4.0]);
    script.load("guard", &guard(0.0, 0.0, 1));
    script.buffer::<f64>("sums", counts.iter().map(|count| count.div_ceil(16384)).sum());
    for (i, count) in counts.into_iter().enumerate() {
        let grad = scattered(count, 1.0, 1);
        let parameter = scattered(count, 2.0, 2);
        let var = |values: &[f64]| Var::new(values, &Device::Cpu).unwrap();
        wanted += update::squared_norm(&var(&grad), &var(&parameter), 0.25).unwrap();
        let [g, p] = ["g", "p"].map(|name| format!("{name}{i}"));
        script.load(&g, &grad);
        script.load(&p, &parameter);
        let blocks = count.div_ceil(16384);
        let sums = format!("&sums+{}", 8 * pieces);
        let arguments: [&dyn std::fmt::Display; 5] =
            [&format!("&{g}"), &format!("&{p}"), &0.25, &count, &sums];
        script.launch("squares_f64", LaunchShape::flat(blocks, 256), &arguments);
        pieces += blocks;
    }
    check(&mut script, 3, pieces, 0, 10.0, f64::MAX);
    let guard = script.run(emulator, &["guard"]).get::<f64>("guard");
    let [nats, norm, reason] = [0, 1, 2].map(|i| guard[RECORDS + i]);
    assert_eq!((nats, reason), (7.0, 0.0));
    assert!((norm - wanted.sqrt()).abs() <= 1e-12 * norm, "{norm} for {}", wanted.sqrt());
    assert!((guard[SCALE] - 10.0 / norm).abs() < 1e-15 && guard[APPLIED] == 1.0);
    assert_eq!(guard[UPDATES], 1.0);
}

#[test]
fn sgd_is_that_of_the_cpu() {
    let Some(emulator) = emulator() else { return };
    let count = 1000;
    let parameter = scattered(count, 1.0, 1);
    let grad = scattered(count, 1.0, 2);
    let var = Var::new(parameter.as_slice(), &Device::Cpu).unwrap();
    update::sgd(&var, &Var::new(grad.as_slice(), &Device::Cpu).unwrap(), 0.3, 0.5, 0.01).unwrap();
    for shape in grids(count, 64) {
        let mut script = Script::new();
        script.load("parameter", &parameter);
        script.load("grad", &grad);
        script.load("guard", &[1.0, 0.5]);
        let arguments: [&dyn std::fmt::Display; 6] =
            [&"&parameter", &"&grad", &"&guard", &0.3, &0.01, &count];
        script.launch("sgd_f64", shape, &arguments);
        let found = script.run(emulator, &["parameter"]).get::<f64>("parameter");
        assert_eq!(found, var.to_vec1::<f64>().unwrap());
    }
}

#[test]
fn adam_and_adamw_are_those_of_the_cpu() {
    let Some(emulator) = emulator() else { return };
    let count = 700;
    let parameter = scattered(count, 1.0, 1);
    let grad = scattered(count, 1.0, 2);
    let first: Vec<f64> = scattered(2 * count, 0.1, 3).iter().map(|value| value.abs()).collect();
    let rate = 0.1;
    let beta1 = 0.9;
    let beta2 = 0.99;
    let epsilon = 1e-8;
    let updates = 3.0;
    let scale = 0.5;
    for (decay, decoupled, left_out) in [(0.02, 0.0, 0.0), (0.0, 0.02, 0.0), (0.0, 0.02, 2.0)] {
        let device = &Device::Cpu;
        let var = Var::new(parameter.as_slice(), device).unwrap();
        let moments = Var::from_slice(&first, (2, count), device).unwrap();
        let step = MomentsStep { scale, beta1, beta2, decay };
        let gradient = Var::new(grad.as_slice(), device).unwrap();
        update::adam_moments(&moments, &gradient, &var.as_detached_tensor(), step).unwrap();
        let correction = |beta: f64, updates: f64| 1.0 - beta.powf(updates);
        let own = |beta| correction(beta, updates - left_out);
        let step = AdamStep {
            rate: rate / own(beta1),
            root_scale: 1.0 / own(beta2).sqrt(),
            epsilon,
            keep: 1.0 - rate * decoupled,
        };
        update::adam(&var, &moments, step).unwrap();
        for shape in grids(count, 64) {
            let mut script = Script::new();
            script.load("parameter", &parameter);
            script.load("moments", &first);
            script.load("grad", &grad);
            script.load(
                "guard",
                &[1.0, scale, updates, 0.0, 0.0, correction(beta1, updates), correction(beta2, updates)],
            );
            let arguments: [&dyn std::fmt::Display; 12] = [
                &"&parameter",
                &"&moments",
                &"&grad",
                &"&guard",
                &rate,
                &beta1,
                &beta2,
                &epsilon,
                &decay,
                &decoupled,
                &left_out,
                &count,
            ];
            script.launch("adam_f64", shape, &arguments);
            let found = script.run(emulator, &["parameter", "moments"]);
            let near = |found: Vec<f64>, wanted: Vec<f64>| {
                for (found, wanted) in found.into_iter().zip(wanted) {
                    assert!((found - wanted).abs() <= 1e-14 * (1.0 + wanted.abs()), "{found} for {wanted}");
                }
            };
            near(found.get("parameter"), var.to_vec1().unwrap());
            near(found.get("moments"), moments.flatten_all().unwrap().to_vec1().unwrap());
        }
    }
}

/// Steps with these losses and norms, one after another: what the guard holds, a weight after them, the state of a batch row.
fn steps(losses: &[f64], norms: &[f64], allowed: f64) -> Option<(Vec<f64>, f32, f32)> {
    let emulator = emulator()?;
    let mut script = Script::new();
    script.load("weight", &[1f32]);
    script.load("grad", &[f32::NAN]); // each step has its own gradient below
    script.load("state", &[0f32]);
    script.load("guard", &guard(0.0, allowed, losses.len()));
    for (i, (loss, norm)) in losses.iter().zip(norms).enumerate() {
        let [nats, sums, grad, next] = ["nats", "sums", "grad", "next"].map(|name| format!("{name}{i}"));
        script.load(&nats, &[*loss]);
        script.load(&sums, &[norm * norm]);
        script.load(&grad, &[-1f32]); // a rate of 0.5 adds a half
        script.load(&next, &[1.0 + i as f32]);
        let arguments: [&dyn std::fmt::Display; 12] = [
            &format!("&{nats}"),
            &1,
            &format!("&{sums}"),
            &1,
            &"&guard",
            &i,
            &0.5,
            &0.0,
            &0.9,
            &0.99,
            &0,
            &f64::from(f32::MAX),
        ];
        script.launch("check_f64", LaunchShape::flat(1, 256), &arguments);
        let arguments: [&dyn std::fmt::Display; 6] =
            [&"&weight", &format!("&{grad}"), &"&guard", &0.5, &0.0, &1];
        script.launch("sgd_f32", LaunchShape::flat(1, 32), &arguments);
        let arguments: [&dyn std::fmt::Display; 5] =
            [&format!("&{next}"), &"&state", &"&guard", &1, &"&state"];
        script.launch("choose_f32", LaunchShape::flat(1, 32), &arguments);
    }
    let found = script.run(emulator, &["guard", "weight", "state"]);
    Some((found.get("guard"), found.get::<f32>("weight")[0], found.get::<f32>("state")[0]))
}

fn reasons(guard: &[f64]) -> Vec<f64> {
    guard[RECORDS..].chunks(3).map(|record| record[2]).collect()
}

#[test]
fn a_step_that_is_not_finite_changes_nothing_and_halts_what_comes_after() {
    let cases = [
        (f64::NAN, 1.0, 1.0),
        (f64::INFINITY, f64::NAN, 1.0),
        (1.0, f64::NAN, 2.0),
        (1.0, f64::INFINITY, 2.0),
        (1.0, 1e39, 3.0), // half of it is more than single precision holds
    ];
    for (loss, norm, reason) in cases {
        let Some((guard, weight, state)) = steps(&[1.0, loss, 1.0, 1.0], &[1.0, norm, 1.0, 1.0], 0.0) else {
            return;
        };
        assert_eq!(reasons(&guard), [0.0, reason, 4.0, 4.0], "{loss} {norm}");
        assert_eq!((weight, state), (1.5, 1.0));
        assert_eq!((guard[UPDATES], guard[HALTED], guard[APPLIED]), (1.0, 1.0, 0.0));
    }
}

#[test]
fn as_many_steps_are_passed_over_as_are_allowed() {
    let losses = [f64::NAN, 1.0, f64::NAN, 1.0, f64::NAN, 1.0];
    let Some((guard, weight, state)) = steps(&losses, &[1.0; 6], 2.0) else { return };
    assert_eq!(reasons(&guard), [1.0, 0.0, 1.0, 0.0, 1.0, 4.0]);
    assert_eq!((weight, state), (2.0, 4.0)); // two steps of a half; the state of the fourth
    assert_eq!((guard[ALLOWED], guard[HALTED], guard[UPDATES]), (0.0, 1.0, 2.0));
}
