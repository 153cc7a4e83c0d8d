//! Everything that `rhn bench` finds out; what it prints with `--json`.

use super::measure;
use super::speed::{Plan, Progress, Speed};
use super::subject::Subject;
use super::training::Training;
use crate::error::Result;
use crate::model::parameter_count;
use crate::train::task::Task;
use candle_core::{Device, DeviceLocation};
use rhn_kernels::precision::Precision;
use rhn_kernels::{peak, threads};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

const TRAINING: Duration = Duration::from_secs(20);
const OTHERS: Duration = Duration::from_secs(8);

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum What {
    /// Training steps, and the time of the whole run
    Train,
    /// Evaluation, one batch row
    Stream,
    /// Sampling, one token after another
    Sample,
    /// The machine's peaks: products and memory
    Machine,
}

/// How fast a recipe is on this machine. What was not asked for is absent.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct BenchReport {
    pub recipe: String,
    pub corpus: String,
    /// Whether its text is made up, the corpus not being on this machine.
    pub made_up: bool,
    pub vocab_size: usize,
    /// Numbers that training finds.
    pub parameters: u64,
    /// `cpu` or `cuda:N`.
    pub device: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu: Option<String>,
    /// The numbers that are computed with, say `f32`.
    pub precision: &'static str,
    pub threads: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub train: Option<Training>,
    /// Evaluation at batch 1, the state carried on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<Speed>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample: Option<Speed>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine: Option<Machine>,
}

/// What the machine can do at most, on as many threads.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Machine {
    /// 10⁹ floating-point operations a second in a large product, by precision.
    pub gemm_peak_gflops: BTreeMap<&'static str, f64>,
    /// 10⁹ bytes a second, read and written at once.
    pub memory_gb_per_second: f64,
}

impl BenchReport {
    /// Measures `whats` of the recipe called `recipe`. Fails if the model cannot be made or run.
    pub(crate) fn measure(
        recipe: &str,
        subject: &Subject,
        whats: &[What],
        repeats: Option<usize>,
        progress: Progress<'_>,
    ) -> Result<Self> {
        let language = &subject.language;
        let parameters = parameter_count(language.model())?;
        let plan = |budget| Plan { repeats, budget };
        let asked = |what| whats.contains(&what);
        let train = asked(What::Train).then(|| Training::measure(subject, plan(TRAINING), progress));
        let mut train = train.transpose()?;
        let frozen =
            (asked(What::Stream) || asked(What::Sample)).then(|| measure::model(subject)).transpose()?;
        let stream = frozen.as_ref().filter(|_| asked(What::Stream));
        let stream =
            stream.map(|model| measure::stream(subject, model, plan(OTHERS), progress)).transpose()?;
        let sample = frozen.as_ref().filter(|_| asked(What::Sample));
        let sample = sample.map(|model| measure::sample(model, plan(OTHERS), progress)).transpose()?;
        let precision = language.precision();
        let mut machine = None;
        if asked(What::Machine) {
            progress("the machine's peaks", 0, 0);
            let found = Machine::measure(precision, language.device())?;
            let peak = found.gemm_peak_gflops.get(precision.as_str());
            if let Some(products) = train.as_mut().and_then(|train| train.products.as_mut()) {
                products.share_of_gemm_peak = peak.map(|peak| products.gflops / peak);
            }
            machine = Some(found);
        }
        Ok(Self {
            recipe: recipe.into(),
            corpus: language.data().corpus.into(),
            made_up: subject.made_up,
            vocab_size: language.model().vocab_size,
            parameters,
            device: name(language.device()),
            gpu: peak::gpu(language.device()),
            precision: precision.as_str(),
            threads: threads::count(),
            train,
            stream,
            sample,
            machine,
        })
    }
}

impl Machine {
    /// For products in f32 and in `precision`.
    fn measure(precision: Precision, device: &Device) -> Result<Self> {
        let mut gemm_peak_gflops = BTreeMap::new();
        for precision in [Precision::F32, precision] {
            if !gemm_peak_gflops.contains_key(precision.as_str()) {
                let peak = peak::product_peak(precision, device)?;
                gemm_peak_gflops.insert(precision.as_str(), peak / 1e9);
            }
        }
        Ok(Self { gemm_peak_gflops, memory_gb_per_second: peak::memory_bandwidth(device)? / 1e9 })
    }
}

fn name(device: &Device) -> String {
    match device.location() {
        DeviceLocation::Cpu => "cpu".into(),
        DeviceLocation::Cuda { gpu_id } => format!("cuda:{gpu_id}"),
        DeviceLocation::Metal { gpu_id } => format!("metal:{gpu_id}"),
    }
}
