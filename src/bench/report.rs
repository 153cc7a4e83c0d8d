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
use rhn_kernels::{peak as machine, threads};
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
        let mut report = Self {
            recipe: recipe.into(),
            corpus: language.data().corpus.into(),
            made_up: subject.made_up,
            vocab_size: language.model().vocab_size,
            parameters: parameter_count(language.model())?,
            device: name(language.device()),
            gpu: machine::gpu(language.device()),
            precision: language.precision().as_str(),
            threads: threads::count(),
            train: None,
            stream: None,
            sample: None,
            machine: None,
        };
        let plan = |budget| Plan { repeats, budget };
        if whats.contains(&What::Train) {
            report.train = Some(Training::measure(subject, plan(TRAINING), progress)?);
        }
        report.infer(subject, whats, plan(OTHERS), progress)?;
        if whats.contains(&What::Machine) {
            progress("the machine's peaks", 0, 0);
            report.compare(Machine::measure(language.precision(), language.device())?);
        }
        Ok(report)
    }

    fn infer(&mut self, subject: &Subject, whats: &[What], plan: Plan, progress: Progress<'_>) -> Result<()> {
        let stream = whats.contains(&What::Stream);
        let sample = whats.contains(&What::Sample);
        if !(stream || sample) {
            return Ok(());
        }
        let model = measure::model(subject)?;
        if stream {
            self.stream = Some(measure::stream(subject, &model, plan, progress)?);
        }
        if sample {
            self.sample = Some(measure::sample(&model, plan, progress)?);
        }
        Ok(())
    }

    /// Takes the machine's peaks in, and computes training's share of them.
    fn compare(&mut self, machine: Machine) {
        let peak = machine.gemm_peak_gflops.get(self.precision);
        if let Some(train) = &mut self.train {
            train.share_of_gemm_peak = peak.map(|peak| train.gflops / peak);
        }
        self.machine = Some(machine);
    }
}

impl Machine {
    /// For products in f32 and in `precision`.
    fn measure(precision: Precision, device: &Device) -> Result<Self> {
        let mut gemm_peak_gflops = BTreeMap::new();
        for precision in [Precision::F32, precision] {
            if !gemm_peak_gflops.contains_key(precision.as_str()) {
                let peak = machine::product_peak(precision, device)?;
                gemm_peak_gflops.insert(precision.as_str(), peak / 1e9);
            }
        }
        Ok(Self { gemm_peak_gflops, memory_gb_per_second: machine::memory_bandwidth(device)? / 1e9 })
    }
}

fn name(device: &Device) -> String {
    match device.location() {
        DeviceLocation::Cpu => "cpu".into(),
        DeviceLocation::Cuda { gpu_id } => format!("cuda:{gpu_id}"),
        DeviceLocation::Metal { gpu_id } => format!("metal:{gpu_id}"),
    }
}
