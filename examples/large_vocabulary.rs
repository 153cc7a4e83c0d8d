//! What an output layer over a large vocabulary costs, forward and backward, and but for `adaptive` an AdaGrad step too:
//!
//! ```text
//! cargo run --release --example large_vocabulary -- adaptive 20 /tmp/adaptive.safetensors
//! cargo run --release --example large_vocabulary -- adaptive-adagrad 20
//! cargo run --release --example large_vocabulary -- sampled 20
//! cargo run --release --example large_vocabulary -- sampled-by-row 20
//! cargo run --release --example large_vocabulary -- sampled-in-two-bytes 20
//! cargo run --release --example large_vocabulary -- exact 3
//! ```
//!
//! Prints the median of so many steps and the memory that they and the weights take. With a file, weights, inputs and
//! gradients go there, for `benches/peers/pytorch_adaptive.py`.

use anyhow::{Context, Result, bail};
use candle_core::{DType, Device, Tensor, Var};
use rhn::config::train::Accumulator;
use rhn::config::{LossConfig, ModelConfig, Resolved, TableNumbers, TrainConfig};
use rhn::model::sampler::{CandidateSource, LogUniform};
use rhn::model::{LanguageModel, Noise, Parameters};
use rhn::train::objective::Sums;
use rhn::train::update::{Step, Update};
use rhn_kernels::gradients::{Gradient, Gradients};
use rhn_kernels::rng::Rng;
use rhn_kernels::{memory, threads};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

const HIDDEN: usize = 512;
const STEPS: usize = 35;
const ROWS: usize = 20;

/// The layer, and the words that its loss is over.
struct Case {
    vocabulary: usize,
    output: Value,
    loss: LossConfig,
    /// Whether an update belongs to a step.
    updates: bool,
    accumulator: Accumulator,
    tables: TableNumbers,
}

impl Case {
    fn new(vocabulary: usize, output: Value, loss: LossConfig) -> Self {
        let accumulator = Accumulator::Element;
        Self { vocabulary, output, loss, updates: true, accumulator, tables: TableNumbers::F32 }
    }
}

fn case(name: &str) -> Result<Case> {
    let by_word = |loss| Case::new(793_471, json!({"by_word": true}), loss);
    let clusters = json!({"kind": "adaptive", "cutoffs": [20_000, 40_000, 200_000]});
    let adaptive = Case::new(267_735, clusters, LossConfig::Exact {});
    Ok(match name {
        "adaptive" => Case { updates: false, ..adaptive },
        "adaptive-adagrad" => adaptive,
        "exact" => by_word(LossConfig::Exact {}),
        "sampled" => by_word(LossConfig::Sampled { samples: 8_192 }),
        "sampled-by-row" => {
            let sampled = by_word(LossConfig::Sampled { samples: 8_192 });
            Case { accumulator: Accumulator::Row, ..sampled }
        }
        "sampled-in-two-bytes" => {
            let sampled = by_word(LossConfig::Sampled { samples: 8_192 });
            Case { accumulator: Accumulator::Row, tables: TableNumbers::F16, ..sampled }
        }
        "nce" => by_word(LossConfig::Nce { samples: 8_192 }),
        other => {
            let known =
                "adaptive, adaptive-adagrad, exact, sampled, sampled-by-row, sampled-in-two-bytes or nce";
            bail!("{other} is no case: {known}")
        }
    })
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().unwrap_or_else(|| "adaptive".into());
    let steps: usize = arguments.next().map_or(Ok(20), |steps| steps.parse())?;
    let file = arguments.next();
    memory::keep_pages();
    threads::start(Some(2))?;
    threads::on_one(|| run(&name, steps, file.as_deref()))
}

/// Resident memory now or at its peak, in MiB.
fn resident(which: &str) -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(which)).context("no such line")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse::<u64>()? / 1024)
}

fn run(name: &str, steps: usize, file: Option<&str>) -> Result<()> {
    let Case { vocabulary, output, loss, updates, accumulator, tables } = case(name)?;
    let before = resident("VmRSS:")?;
    // The rest of the model is as small as it can be: only the output layer is at work.
    let core = json!({"kind": "lstm", "hidden_size": HIDDEN});
    let spec = json!({"embedding": {"kind": "word", "size": 1}, "core": core, "output": output});
    let config = ModelConfig::new(serde_json::from_value(spec)?, vocabulary);
    let device = Device::Cpu;
    let parameters =
        Parameters::draw(&config, Default::default(), 1, 0.05, tables.types(DType::F32), &device)?;
    let model = LanguageModel::new(&config, &parameters, DType::F32, &device)?;
    let train = TrainConfig { loss: loss.clone(), accumulator, ..adagrad()? };
    let source = CandidateSource::new(&loss, vocabulary, 1);
    let mut update = Update::new(&train, &parameters, DType::F32, &device)?;
    let mut rng = Rng::keyed(1, "bench", 0);
    let ys: Vec<f32> = (0..STEPS * ROWS * HIDDEN).map(|_| rng.uniform() as f32 - 0.5).collect();
    let ys = Var::from_tensor(&Tensor::from_vec(ys, (STEPS, ROWS, HIDDEN), &device)?)?;
    let sampler = LogUniform::new(vocabulary);
    let targets: Vec<u32> = (0..STEPS * ROWS).map(|_| sampler.draw(1, &mut rng).0[0]).collect();
    let targets = Tensor::from_vec(targets, (STEPS, ROWS), &device)?;
    std::fs::write("/proc/self/clear_refs", "5")?; // the peak begins anew
    let weights = resident("VmRSS:")? - before;

    let mut times = Vec::new();
    for step in 0..steps as u64 + 1 {
        let start = Instant::now();
        let candidates = source.as_ref().map(|source| Arc::new(source.draw(step)));
        let noise = Noise { candidates, ..Noise::none() };
        let nats = model.nats_of(&ys, &targets, &noise, 1.0)?;
        let mut gradients = Gradients::of(&(nats.sum_all()? / ROWS as f64)?)?;
        let of_ys = gradients.remove(&ys)?.context("no gradient")?;
        let taken: Vec<Option<Gradient>> = parameters
            .trained()
            .map(|(_, var)| gradients.remove_as_it_is(var))
            .collect::<rhn_kernels::Result<_>>()?;
        if !updates {
            times.push(start.elapsed().as_secs_f64());
            if let Some(file) = file.filter(|_| step == 0) {
                save(file, &parameters, [&ys, &targets, &nats, &of_ys], taken)?;
            }
            continue;
        }
        let sums = Sums { nats: nats.detach(), tokens: (STEPS * ROWS) as u64 };
        update.step(&parameters, taken, &sums, Step { step, rate: 0.2 })?;
        update.reports(true)?.pop().context("no report")??;
        times.push(start.elapsed().as_secs_f64());
    }
    let mut times = times.split_off(1); // the first allocates
    times.sort_by(f64::total_cmp);
    let peak = resident("VmHWM:")? - before;
    println!(
        "{name}: {:.1} ms a step (median of {steps}, least {:.1}); {peak} MiB at the peak, of which {weights} were there before",
        1e3 * times[times.len() / 2],
        1e3 * times[0]
    );
    Ok(())
}

fn adagrad() -> Result<TrainConfig> {
    let settings = ["train.optimizer=adagrad", "train.weight_decay=0", "train.max_grad_norm=0"];
    let settings: Vec<String> = settings.map(String::from).to_vec();
    Ok(Resolved::new("ptb-lstm-small", &settings)?.recipe.train)
}

fn save(
    file: &str,
    parameters: &Parameters,
    [ys, targets, nats, of_ys]: [&Tensor; 4],
    gradients: Vec<Option<Gradient>>,
) -> Result<()> {
    let mut tensors: HashMap<String, Tensor> = HashMap::new();
    for ((name, var), gradient) in parameters.trained().zip(gradients) {
        if let (Some(name), Some(gradient)) = (name.strip_prefix("output."), gradient) {
            tensors.insert(name.to_string(), var.as_detached_tensor());
            tensors.insert(format!("grad.{name}"), gradient.dense()?);
        }
    }
    let others = [("ys", ys), ("targets", targets), ("nats", nats), ("grad.ys", of_ys)];
    tensors.extend(others.map(|(name, tensor)| (name.to_string(), tensor.detach())));
    Ok(candle_core::safetensors::save(&tensors, file)?)
}
