//! Every committed input of the fuzz targets, and random changes of them, through the code that the targets run (see
//! `fuzz/`).

#[path = "../../fuzz/checks.rs"]
mod checks;

use rhn_kernels::rng::Rng;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

/// No input may take longer; most take less than a thousandth of it.
const LONGEST: Duration = Duration::from_secs(5);

fn inputs(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|input| input.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= 10, "{target} has {} inputs", paths.len());
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

/// The check holds, in time; else the input is shown. One that took long is tried again: the machine may have paused.
fn hold(target: &str, check: fn(&[u8]), bytes: &[u8]) {
    let input = || bytes.escape_ascii();
    let took = || {
        let start = Instant::now();
        let held = catch_unwind(AssertUnwindSafe(|| check(bytes)));
        assert!(held.is_ok(), "{target} fails on \"{}\"", input());
        start.elapsed()
    };
    assert!(took() < LONGEST || took() < LONGEST, "{target} takes more than {LONGEST:?} for \"{}\"", input());
}

#[test]
fn every_input_that_was_found_once_keeps_its_promises() {
    for (target, check) in checks::ALL {
        inputs(target).iter().for_each(|bytes| hold(target, check, bytes));
    }
}

/// One of the inputs with a few bits flipped, parts cut out, doubled, or taken from another input.
fn changed(inputs: &[Vec<u8>], draw: &mut Rng) -> Vec<u8> {
    let mut below = |limit: usize| (draw.uniform() * limit as f64) as usize;
    let mut bytes = inputs[below(inputs.len())].clone();
    for _ in 0..=below(4) {
        let (from, length) = (below(bytes.len() + 1), below(16));
        let to = (from + length).min(bytes.len());
        match below(5) {
            0 if from < bytes.len() => bytes[from] ^= 1 << below(8),
            1 if from < bytes.len() => bytes[from] = below(256) as u8,
            2 => drop(bytes.drain(from..to)),
            3 => drop(bytes.splice(from..from, bytes[from..to].to_vec())),
            _ => {
                let other = &inputs[below(inputs.len())];
                let start = below(other.len() + 1);
                let end = (start + length).min(other.len());
                bytes.splice(from..to, other[start..end].iter().copied());
            }
        }
    }
    bytes
}

fn change(times: u64) {
    for (target, check) in checks::ALL {
        let (inputs, mut draw) = (inputs(target), Rng::keyed(1, target, 0));
        let start = Instant::now();
        (0..times).for_each(|_| hold(target, check, &changed(&inputs, &mut draw)));
        println!("{target}: {times} inputs in {:?}", start.elapsed());
    }
}

#[test]
fn random_changes_of_the_inputs_keep_the_promises() {
    change(300);
}

#[test]
#[ignore = "long: a hundred thousand changes for each target"]
fn a_hundred_thousand_random_changes_of_the_inputs_keep_the_promises() {
    change(100_000);
}
