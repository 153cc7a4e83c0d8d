//! The speed of work that is done over and over: a few warm runs, then several repeats, their median and their spread.

use crate::error::Result;
use candle_core::Device;
use rhn_kernels::memory;
use serde::Serialize;
use std::time::{Duration, Instant};

/// A repeat is made of so many runs that it takes at least this long.
const SHORTEST: Duration = Duration::from_millis(200);
/// A first run that takes longer than this is warm enough.
const SLOW: Duration = Duration::from_secs(2);
const FEWEST: usize = 3;
const MOST: usize = 10;

/// Receives what is measured, the repeats that are done and how many there are.
pub(crate) type Progress<'a> = &'a mut dyn FnMut(&str, usize, usize);

/// Tokens a second, of several repeats.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Speed {
    /// The median of the repeats.
    pub tokens_per_second: f64,
    pub lowest: f64,
    pub highest: f64,
    /// Each repeat, in the order of time.
    pub repeats: Vec<f64>,
    /// The process's peak resident memory until then, where the system reports it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_memory_mib: Option<u64>,
    /// The most of a GPU's memory that tensors took until then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_device_memory_mib: Option<u64>,
}

/// How often something is repeated.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// So often, if that was asked for.
    pub repeats: Option<usize>,
    /// Otherwise as often as fits into this, within limits.
    pub budget: Duration,
}

impl Speed {
    /// From the repeats' rates, of which there is at least one.
    pub(crate) fn of(repeats: Vec<f64>) -> Self {
        let mut sorted = repeats.clone();
        sorted.sort_by(f64::total_cmp);
        let count = sorted.len();
        let middle = count / 2;
        let median =
            if count % 2 == 1 { sorted[middle] } else { 0.5 * (sorted[middle - 1] + sorted[middle]) };
        Self {
            tokens_per_second: median,
            lowest: sorted[0],
            highest: sorted[count - 1],
            repeats,
            peak_memory_mib: memory::peak_mib(),
            peak_device_memory_mib: None,
        }
    }

    /// Runs `work`, which returns how many tokens it did, until its speed is known; the clock is read when `device` has
    /// done all of a repeat.
    pub(crate) fn measure(
        what: &str,
        plan: Plan,
        progress: Progress<'_>,
        device: &Device,
        mut work: impl FnMut() -> Result<u64>,
    ) -> Result<Self> {
        let mut timed = |runs: usize| {
            let start = Instant::now();
            let tokens = (0..runs).map(|_| work()).sum::<Result<u64>>()?;
            device.synchronize()?;
            Ok::<_, crate::error::Error>((start.elapsed(), tokens as f64))
        };
        progress(what, 0, 0);
        let cold = timed(1)?.0;
        let once = if cold > SLOW { cold } else { timed(1)?.0 };
        let runs = SHORTEST.as_secs_f64() / once.as_secs_f64().max(1e-9);
        let runs = runs.ceil().max(1.0) as usize;
        let fitting = plan.budget.as_secs_f64() / (runs as f64 * once.as_secs_f64());
        let repeats = plan.repeats.unwrap_or((fitting as usize).clamp(FEWEST, MOST));
        let mut rates = Vec::with_capacity(repeats);
        for done in 0..repeats {
            progress(what, done, repeats);
            let (time, tokens) = timed(runs)?;
            rates.push(tokens / time.as_secs_f64());
        }
        Ok(Self { peak_device_memory_mib: memory::peak_mib_of(device), ..Self::of(rates) })
    }
}

#[cfg(test)]
mod tests {
    use super::{Plan, Speed};
    use candle_core::Device;
    use std::time::Duration;

    #[test]
    fn the_median_of_an_even_number_is_between_the_middle_ones() {
        let rate = Speed::of(vec![4.0, 1.0, 3.0, 10.0]);
        assert_eq!((rate.tokens_per_second, rate.lowest, rate.highest), (3.5, 1.0, 10.0));
        assert_eq!(Speed::of(vec![2.0, 9.0, 1.0]).tokens_per_second, 2.0);
        assert_eq!(Speed::of(vec![2.0]).tokens_per_second, 2.0);
    }

    #[test]
    fn slow_work_is_repeated_three_times_after_one_that_warms_up() {
        let mut runs = 0;
        let plan = Plan { repeats: None, budget: Duration::ZERO };
        let work = || {
            runs += 1;
            std::thread::sleep(Duration::from_millis(250));
            Ok(100)
        };
        let rate = Speed::measure("sleep", plan, &mut |_, _, _| (), &Device::Cpu, work).unwrap();
        assert_eq!((rate.repeats.len(), runs), (3, 5)); // 250 ms are not slow: two to warm up
        assert!(rate.highest <= 400.0, "{rate:?}");
    }
}
