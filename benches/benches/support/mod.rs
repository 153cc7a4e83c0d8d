//! What the benchmarks run on: recipes as they are, on a made-up text where their corpus is not on this machine.

use candle_core::Device;
use rhn::bench::subject::Subject;
use rhn::config::Resolved;
use rhn::data::DataDirectories;
use rhn_kernels::precision::Precision;

/// The built-in recipe `name`, in single precision on the CPU.
pub(crate) fn subject(name: &str) -> Subject {
    let recipe = Resolved::new(name, &[]).expect("a built-in recipe").recipe;
    let directories = DataDirectories::new(None).expect("nothing was given");
    Subject::prepare(recipe, &directories, Precision::F32, &Device::Cpu).expect("a corpus of known size")
}
