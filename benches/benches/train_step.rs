//! Whole training steps: masks, forward, backward, clipping, update.

mod support;

use criterion::{Criterion, Throughput};
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
        let session = subject(name).session;
        let mut stepper = session.stepper(None).expect("a model");
        let windows = session.lanes.window_count() as u64;
        let mut step = 0;
        group.throughput(Throughput::Elements(stepper_tokens(&session)));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let window = (step % windows) as usize;
                let (inputs, targets) =
                    session.lanes.window(&session.train.tokens, window, &session.device).expect("a window");
                stepper.step(&inputs, &targets, step, 1e-9).expect("a step");
                step += 1;
            });
        });
    }
    group.finish();
    criterion.final_summary();
}

fn stepper_tokens(session: &rhn::train::session::Session) -> u64 {
    (session.recipe.train.batch_size * session.recipe.train.bptt_steps) as u64
}
