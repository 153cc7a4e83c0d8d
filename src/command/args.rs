//! Flags that several commands share: where to compute, how exactly, where corpora are.

use crate::console::note;
use crate::data::DataDirectories;
use crate::error::{Error, Result};
use crate::eval::adapt::CacheSettings;
use crate::parallel::local_rank;
use candle_core::Device;
use clap::ValueEnum;
use clap::builder::PossibleValue;
use rhn_kernels::cpu::InstructionSet;
use rhn_kernels::precision::Precision;
use std::path::PathBuf;
use std::str::FromStr;

/// Where to compute, and with which numbers.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct DeviceArgs {
    /// The numbers to compute with
    #[arg(long, value_enum, default_value = "f32")]
    precision: PrecisionChoice,
    /// Compute on: auto, cpu, cuda or cuda:N. auto takes the first GPU if this build and machine have one
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    device: DeviceChoice,
    #[command(flatten)]
    pub(super) threads: ThreadArgs,
}

/// How many threads compute.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct ThreadArgs {
    /// Threads of the CPU to compute on [default: one a core, or fewer where that is found to be faster]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
}

impl ThreadArgs {
    /// How many were asked for; says if they are more than can run at once.
    pub(super) fn count(&self) -> Option<usize> {
        let asked = self.threads.map(usize::from)?;
        let cores = std::thread::available_parallelism().map_or(asked, std::num::NonZero::get);
        if asked > cores {
            let cores = if cores == 1 { "one core".into() } else { format!("{cores} cores") };
            note(&format!(
                "--threads {asked} on {cores}: threads that wait for one another take turns, which is slow"
            ));
        }
        Some(asked)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DeviceChoice {
    Auto,
    Cpu,
    /// The GPU of a number, or of this rank's number on its machine.
    Cuda(Option<usize>),
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match (text, text.strip_prefix("cuda:").map(str::parse)) {
            ("auto", _) => Ok(Self::Auto),
            ("cpu", _) => Ok(Self::Cpu),
            ("cuda", _) => Ok(Self::Cuda(None)),
            (_, Some(Ok(ordinal))) => Ok(Self::Cuda(Some(ordinal))),
            _ => Err("wanted auto, cpu, cuda or cuda:N".into()),
        }
    }
}

impl DeviceArgs {
    /// The device and the numbers to compute with. Fails if a GPU was asked for by name and there is none, or
    /// this build cannot use it, or the device has no kernels for the numbers.
    pub(super) fn open(&self) -> Result<(Device, Precision)> {
        let device = match self.device {
            DeviceChoice::Cuda(ordinal) => cuda(ordinal.unwrap_or_else(local_rank))?,
            DeviceChoice::Auto if cfg!(feature = "cuda") => cuda(local_rank()).unwrap_or_else(|error| {
                note(&format!("computing on the CPU: {error}"));
                Device::Cpu
            }),
            DeviceChoice::Cpu | DeviceChoice::Auto => Device::Cpu,
        };
        let precision = self.precision.on(&device)?;
        Ok((device, precision))
    }
}

#[cfg(feature = "cuda")]
fn cuda(ordinal: usize) -> Result<Device> {
    Ok(rhn_kernels::cuda::device::open(ordinal)?)
}

#[cfg(not(feature = "cuda"))]
fn cuda(_ordinal: usize) -> Result<Device> {
    Err(Error::config(
        "this build has no CUDA: build with `cargo build --release --features cuda`, or use --device cpu",
    ))
}

#[derive(Clone, Debug, clap::Args)]
pub(super) struct DataArgs {
    /// Look for corpora here first [default: $RHN_DATA, else ./data, else the user's cache]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

impl DataArgs {
    /// The directories to look for a corpus in, in order. Fails if the one that was given is none.
    pub(super) fn directories(&self) -> Result<DataDirectories> {
        DataDirectories::new(self.data_dir.as_deref())
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct PrecisionChoice(Precision);

impl ValueEnum for PrecisionChoice {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self(Precision::F32), Self(Precision::F64), Self(Precision::Bf16), Self(Precision::Tf32)]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let help = match self.0 {
            Precision::F32 => "Single precision",
            Precision::F64 => "Double precision: slower, to rule out rounding",
            Precision::Bf16 => {
                "Products of bfloat16, sums and weights in single precision: faster where the processor has the instructions"
            }
            Precision::Tf32 => {
                "Products by a GPU's tensor cores with 10 bits of mantissa, everything else in single precision"
            }
        };
        Some(PossibleValue::new(self.0.as_str()).help(help))
    }
}

impl PrecisionChoice {
    /// The precision, if `device` has kernels for it.
    fn on(self, device: &Device) -> Result<Precision> {
        let Self(precision) = self;
        match (precision, device.is_cpu()) {
            (Precision::Bf16, true) if !InstructionSet::current().multiplies_bf16() => note(
                "this processor has no bf16 products (AVX512-BF16): the same numbers are computed in f32, not faster",
            ),
            (Precision::Tf32, true) => {
                let what = "--precision tf32 is for a GPU; on the CPU use f32, bf16 or f64";
                return Err(Error::config(what));
            }
            (Precision::Tf32, false) => candle_core::cuda::set_gemm_reduced_precision_f32(true), // also for plain operations
            _ => {}
        }
        Ok(precision)
    }
}

#[cfg(test)]
mod tests {
    use super::DeviceChoice;

    #[test]
    fn a_device_is_named_with_or_without_its_number() {
        let parsed = ["auto", "cpu", "cuda", "cuda:3"].map(|text| text.parse());
        let cuda0 = DeviceChoice::Cuda(None);
        let cuda3 = DeviceChoice::Cuda(Some(3));
        assert_eq!(parsed, [Ok(DeviceChoice::Auto), Ok(DeviceChoice::Cpu), Ok(cuda0), Ok(cuda3)]);
        for wrong in ["gpu", "cuda:", "cuda:-1", "CPU", ""] {
            assert!(wrong.parse::<DeviceChoice>().is_err(), "{wrong}");
        }
    }

    #[test]
    #[cfg(not(feature = "cuda"))]
    fn a_build_without_cuda_says_how_to_get_it() {
        let message = super::cuda(0).expect_err("there is no CUDA").to_string();
        assert!(message.contains("--features cuda"), "{message}");
    }
}

/// The flags of a neural cache.
#[derive(Debug, clap::Args)]
pub(super) struct CacheArgs {
    /// Mix in a neural cache of the last N positions
    #[arg(long, value_name = "N")]
    cache: Option<usize>,
    /// How much more a past state counts that is like the present one [default: 1]
    #[arg(long, value_name = "X", requires = "cache", allow_negative_numbers = true)]
    cache_theta: Option<f64>,
    /// The cache's share of the probability [default: 0.1]
    #[arg(long, value_name = "X", requires = "cache", allow_negative_numbers = true)]
    cache_lambda: Option<f64>,
}

impl CacheArgs {
    /// What was asked for, with the defaults of the rest; `None` without `--cache`.
    ///
    /// # Errors
    /// If a number means nothing; names its flag.
    pub(super) fn settings(&self) -> Result<Option<CacheSettings>> {
        let Some(window) = self.cache else { return Ok(None) };
        let usual = CacheSettings::new(window);
        let asked = CacheSettings {
            theta: self.cache_theta.unwrap_or(usual.theta),
            lambda: self.cache_lambda.unwrap_or(usual.lambda),
            ..usual
        };
        asked.validate()?;
        Ok(Some(asked))
    }

    /// Whether there is to be a cache.
    pub(super) fn is_given(&self) -> bool {
        self.cache.is_some()
    }

    /// Which of θ and λ were left open.
    pub(super) fn free(&self) -> [bool; 2] {
        [self.cache_theta.is_none(), self.cache_lambda.is_none()]
    }
}
