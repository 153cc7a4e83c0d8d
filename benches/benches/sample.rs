//! Sampling at batch 1: a token, with everything that it takes.

mod support;

use criterion::{Criterion, Throughput};
use rhn::bench::measure::model;
use rhn::sample::{SampleSettings, Sampler};
use rhn_kernels::{memory, threads};
use std::hint::black_box;
use support::subject;

fn main() {
    memory::keep_pages();
    threads::start(None).expect("nothing runs before");
    threads::on_one(run);
}

fn run() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("sample");
    group.throughput(Throughput::Elements(1));
    for name in ["shakespeare", "ptb-rhn", "ptb-char-cnn-small"] {
        let model = model(&subject(name)).expect("a model");
        let settings = SampleSettings::default();
        let mut sampler = Sampler::new(&model, settings, &[0], 0).expect("a sample");
        group.bench_function(name, |bencher| {
            bencher.iter(|| black_box(sampler.next().expect("without end").expect("a token")));
        });
    }
    group.finish();
    criterion.final_summary();
}
