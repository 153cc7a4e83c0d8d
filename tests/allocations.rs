//! Memory: a sampled token takes none of its own, and the loss of a mixture of softmaxes little more than that of one.

use candle_core::{DType, Device, Tensor};
use rhn::config::{CoreConfig, EmbeddingConfig, ModelConfig, ModelSpec};
use rhn::model::core::{LstmConfig, RhnConfig, RhnSharedGates, Variant};
use rhn::model::output::OutputConfig;
use rhn::model::{FrozenModel, LanguageModel, Noise, Parameters};
use rhn::sample::distribution::Filters;
use rhn::sample::{SampleSettings, Sampler};
use rhn_kernels::precision::Precision;
use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// The system's allocator, counted.
struct Counted;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

/// Bytes that are allocated now.
static HELD: AtomicUsize = AtomicUsize::new(0);

/// The most of them so far.
static PEAK: AtomicUsize = AtomicUsize::new(0);

/// Held by the one test that runs, so that no other allocates meanwhile.
static ALONE: Mutex<()> = Mutex::new(());

#[expect(unsafe_code, reason = "the trait asks for it; all is passed on to the system's allocator")]
// SAFETY: as the system's.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        let held = HELD.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(held, Ordering::Relaxed);
        // SAFETY: as the caller vouches.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller vouches.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counted = Counted;

fn model(core: CoreConfig, precision: Precision) -> FrozenModel {
    let embedding = EmbeddingConfig::Word(Default::default());
    let output = OutputConfig::default();
    let config = ModelConfig::new(
        ModelSpec { embedding, core, output, latent: None, encoder: None, classifier: None },
        50,
    );
    let device = candle_core::Device::Cpu;
    let parameters = Parameters::draw(&config, BTreeMap::new(), 1, 0.5, precision.dtype(), &device).unwrap();
    LanguageModel::new(&config, &parameters, precision, &device).unwrap().freeze().unwrap()
}

#[test]
fn a_sampled_token_allocates_nothing() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let rhn = RhnConfig {
        layers: 2,
        hidden_size: 40,
        recurrence_depth: 3,
        transform_bias: -1.0,
        shared_gates: RhnSharedGates::None,
        mogrifier: None,
    };
    let lstm = LstmConfig { layers: 2, hidden_size: 40, projection: None, mogrifier: None };
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

/// Bytes that a window's loss and its gradients take at most, by the kernels' buffers too, beside the weights.
fn peak_of_a_window(output: serde_json::Value) -> usize {
    const ROWS: (usize, usize) = (20, 16);
    let spec = serde_json::json!({"embedding": {"kind": "word"}, "core": {"kind": "lstm", "hidden_size": 64},
        "output": output});
    let config = ModelConfig::new(serde_json::from_value(spec).unwrap(), 4000);
    let device = Device::Cpu;
    let parameters = Parameters::draw(&config, BTreeMap::new(), 1, 0.1, DType::F32, &device).unwrap();
    let model = LanguageModel::new(&config, &parameters, DType::F32, &device).unwrap();
    let tokens = Tensor::zeros(ROWS, DType::U32, &device).unwrap();
    let state = model.zero_state(ROWS.1).unwrap();
    rhn_kernels::cpu::clear_workspace();
    let before = HELD.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let (nats, _) = model.nats(&tokens, &tokens, &state, &Noise::none()).unwrap();
    let gradients = parameters.gradients(&nats.sum_all().unwrap()).unwrap();
    assert!(gradients.iter().all(|gradient| gradient.elem_count() > 0));
    PEAK.load(Ordering::Relaxed) - before
}

/// 320 rows of 4,000 logits are 5.1 MB; of 15 components at once they would be 77 MB.
#[test]
fn the_loss_of_a_mixture_takes_at_most_three_tenths_more_memory_than_that_of_one_softmax() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mixture = peak_of_a_window(serde_json::json!({"kind": "mixture", "components": 15, "tied": true}));
    let softmax = peak_of_a_window(serde_json::json!({"tied": true}));
    assert!(softmax > 320 * 4000 * 4, "{softmax}"); // the logits are in it
    let ratio = mixture as f64 / softmax as f64;
    assert!(ratio <= 1.3, "{mixture} for {softmax} bytes: {ratio:.2}");
}
