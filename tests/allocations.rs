//! What a token costs when text is sampled: no memory of its own.

use rhn::config::{CoreConfig, EmbeddingConfig, ModelConfig, ModelSpec};
use rhn::model::core::{LstmConfig, RhnConfig, RhnSharedGates, Variant};
use rhn::model::output::OutputConfig;
use rhn::model::{FrozenModel, LanguageModel, Parameters};
use rhn::sample::distribution::Filters;
use rhn::sample::{SampleSettings, Sampler};
use rhn_kernels::precision::Precision;
use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The system's allocator, counted.
struct Counted;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

#[expect(unsafe_code, reason = "the trait asks for it; all is passed on to the system's allocator")]
// SAFETY: as the system's.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as the caller vouches.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller vouches.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counted = Counted;

fn model(core: CoreConfig, precision: Precision) -> FrozenModel {
    let embedding = EmbeddingConfig::Word(Default::default());
    let output = OutputConfig::default();
    let config = ModelConfig::new(ModelSpec { embedding, core, output }, 50);
    let device = candle_core::Device::Cpu;
    let parameters = Parameters::draw(&config, BTreeMap::new(), 1, 0.5, precision.dtype(), &device).unwrap();
    LanguageModel::new(&config, &parameters, precision, &device).unwrap().freeze().unwrap()
}

/// One test in this process, so that no other allocates meanwhile.
#[test]
fn a_sampled_token_allocates_nothing() {
    let rhn = RhnConfig {
        layers: 2,
        hidden_size: 40,
        recurrence_depth: 3,
        transform_bias: -1.0,
        shared_gates: RhnSharedGates::None,
    };
    let lstm = LstmConfig { layers: 2, hidden_size: 40 };
    let hlstm = |variant: Variant| {
        let settings = serde_json::json!({"layers": 2, "hidden_size": 40, "variant": variant});
        CoreConfig::Hlstm(serde_json::from_value(settings).unwrap())
    };
    let [zhang, kurata] = [Variant::Zhang, Variant::Kurata].map(hlstm);
    let filters = Filters { top_k: 20, top_p: 0.9, min_p: 0.01, repetition_penalty: 1.2, temperature: 0.8 };
    for core in [CoreConfig::Rhn(rhn), CoreConfig::Lstm(lstm), zhang, kurata] {
        for precision in [Precision::F32, Precision::Bf16] {
            for filters in [Filters::default(), filters.clone()] {
                let model = model(core.clone(), precision);
                let settings = SampleSettings { filters, repetition_window: 16, ..Default::default() };
                let mut sampler = Sampler::new(&model, settings, &[0], 0).unwrap();
                sampler.by_ref().take(40).for_each(|drawn| _ = drawn.unwrap()); // buffers reach their sizes
                // The thread that runs the tests may allocate now and then; a token that does would do so each time.
                let least = (0..3).map(|_| {
                    let before = ALLOCATIONS.load(Ordering::Relaxed);
                    sampler.by_ref().take(100).for_each(|drawn| _ = drawn.unwrap());
                    ALLOCATIONS.load(Ordering::Relaxed) - before
                });
                assert_eq!(least.min(), Some(0));
            }
        }
    }
}
