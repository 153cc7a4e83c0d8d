//! Whole training steps: masks, forward, backward, clipping, update.

mod support;

use criterion::{Criterion, Throughput};
use rhn::task::language::Language;
use rhn::train::task::Task;
use rhn_kernels::{memory, threads};
use support::subject;

fn main() {
    memory::keep_pages();
    threads::start(None).expect("nothing runs before");
    threads::on_one(run);
}

fn run() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("train-step");
    group.sample_size(10);
    for name in ["shakespeare", "ptb-rhn", "ptb-char-cnn-small"] {
        let language = subject(name).language;
        let mut stepper = language.stepper(None).expect("a model");
        let windows = language.batch_count(0) as u64;
        let mut step = 0;
        group.throughput(Throughput::Elements(step_tokens(&language)));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let window = (step % windows) as usize;
                let window = language.batch(0, window).expect("a window");
                stepper.step(&window, step, 1e-9).expect("a step");
                step += 1;
            });
        });
    }
    group.finish();
    criterion.final_summary();
}

fn step_tokens(language: &Language) -> u64 {
    let config = &language.recipe().train;
    (config.batch_size * config.bptt_steps) as u64
}
