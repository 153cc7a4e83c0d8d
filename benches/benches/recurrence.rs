//! The recurrence of a window, forward and with its gradients, at the sizes of the recipes.

use candle_core::{DType, Device, Tensor, Var};
use criterion::{BenchmarkId, Criterion, Throughput};
use rhn_kernels::precision::Precision;
use rhn_kernels::scan::{HiddenMask, Rhn, scan};
use rhn_kernels::{memory, threads};
use std::hint::black_box;

/// Name, time steps, batch rows, sublayers and units.
const SIZES: [(&str, [usize; 4]); 3] =
    [("shakespeare", [64, 32, 4, 256]), ("ptb-rhn", [35, 20, 10, 830]), ("sampling", [1, 1, 10, 830])];

struct Window {
    projected: Var,
    recurrent: Var,
    bias: Var,
    state: Tensor,
    mask: HiddenMask,
}

impl Window {
    fn new([time, batch, depth, hidden]: [usize; 4]) -> Self {
        let random =
            |shape: &[usize], scale: f64| Var::randn_f64(0.0, scale, shape, DType::F32, &Device::Cpu);
        let ones = Tensor::ones((batch, hidden), DType::F32, &Device::Cpu);
        Self {
            projected: random(&[time, batch, 2 * hidden], 0.5).expect("a tensor"),
            recurrent: random(&[depth, hidden, 2 * hidden], 0.03).expect("a tensor"),
            bias: random(&[depth, 2 * hidden], 0.1).expect("a tensor"),
            state: random(&[batch, hidden], 0.5).expect("a tensor").as_detached_tensor(),
            mask: HiddenMask::Shared(ones.expect("a tensor")),
        }
    }

    /// Nothing is recorded.
    fn forward(&self) -> Tensor {
        let [projected, recurrent, bias] =
            [&self.projected, &self.recurrent, &self.bias].map(Var::as_detached_tensor);
        self.scan(&projected, &recurrent, &bias)
    }

    fn scan(&self, projected: &Tensor, recurrent: &Tensor, bias: &Tensor) -> Tensor {
        let state = std::slice::from_ref(&self.state);
        scan::<Rhn>(projected, recurrent, bias, state, &self.mask, Precision::F32).expect("sizes fit").0
    }

    fn gradients(&self) -> candle_core::backprop::GradStore {
        let outputs = self.scan(&self.projected, &self.recurrent, &self.bias);
        outputs.sum_all().expect("a sum").backward().expect("gradients")
    }
}

fn main() {
    memory::keep_pages();
    threads::start(None).expect("nothing runs before");
    threads::on_one(run);
}

fn run() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("recurrence");
    group.sample_size(10);
    for (name, sizes) in SIZES {
        let window = Window::new(sizes);
        group.throughput(Throughput::Elements((sizes[0] * sizes[1]) as u64)); // tokens
        group.bench_function(BenchmarkId::new("forward", name), |bencher| {
            bencher.iter(|| black_box(window.forward()));
        });
        group.bench_function(BenchmarkId::new("with-gradients", name), |bencher| {
            bencher.iter(|| black_box(window.gradients()));
        });
    }
    group.finish();
    criterion.final_summary();
}
