//! The first losses of a small `shakespeare` run, as they were when this was written: a change of the first
//! weights, of the masks, of the order of the text or of the update does not pass unseen.

use crate::support::shrunk;
use candle_core::{DType, Device};
use rhn::data::{DataDirectories, registry::Registry};
use rhn::task::language::Language;
use rhn::train::schedule::Rate;
use rhn::train::task::Task;
use shrunk::shrunk;
use std::path::Path;

/// Nats per token of the first 20 windows; f64 gives the same to the last digit shown.
const LOSSES: [f64; 20] = [
    4.184551, 4.183390, 4.182842, 4.181707, 4.176749, 4.174064, 4.168733, 4.162242, 4.154459, 4.147124,
    4.129021, 4.109793, 4.083059, 4.040853, 3.989524, 3.889963, 3.816978, 3.666572, 3.538645, 3.519955,
];

fn losses(dtype: DType) -> Vec<f64> {
    let settings = [
        "model.core.recurrence_depth=2",
        "train.schedule.warmup_steps=10",
        "train.dropout.hidden=0.1",
        "train.dropout.output=0.1",
    ];
    let recipe = shrunk("shakespeare", 32, &settings);
    let directories = DataDirectories::only(Path::new("."), Registry::built_in());
    let language = Language::prepare(recipe, &directories, None, dtype, &Device::Cpu).unwrap();
    let mut stepper = language.stepper(None).unwrap();
    let rate = Rate::new(&language.recipe().train, language.total_steps());
    let step = |step: u64| {
        let window = language.batch(0, step as usize).unwrap();
        let report = stepper.step(&window, step, rate.at(0, step)).unwrap();
        report.nats / report.tokens as f64
    };
    (0..20).map(step).collect()
}

#[test]
fn the_first_losses_are_what_they_were() {
    for dtype in [DType::F32, DType::F64] {
        let found = losses(dtype);
        let close = found.iter().zip(LOSSES).all(|(found, wanted)| (found - wanted).abs() < 1e-4);
        assert!(close, "{dtype:?}: found {found:.6?}");
    }
}
