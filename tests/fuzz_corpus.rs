//! Every committed input of the fuzz targets, through the code that the targets run (see `fuzz/`).

#[path = "../fuzz/checks.rs"]
mod checks;

use std::path::Path;
use std::time::{Duration, Instant};

/// No input may take longer; most take less than a thousandth of it.
const LONGEST: Duration = Duration::from_secs(5);

#[test]
fn every_input_that_was_found_once_keeps_its_promises() {
    for (target, check) in checks::ALL {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
        let mut inputs: Vec<_> =
            std::fs::read_dir(folder).unwrap().map(|input| input.unwrap().path()).collect();
        inputs.sort();
        assert!(inputs.len() >= 10, "{target} has {} inputs", inputs.len());
        for input in inputs {
            let bytes = std::fs::read(&input).unwrap();
            let start = Instant::now();
            check(&bytes);
            assert!(start.elapsed() < LONGEST, "{} took {:?}", input.display(), start.elapsed());
        }
    }
}
