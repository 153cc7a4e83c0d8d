//! Trains a recipe for some steps from Rust: `cargo run --release --example train -- shakespeare 100`.

use candle_core::Device;
use rhn::config::Resolved;
use rhn::data::DataDirectories;
use rhn::parallel::world::Solo;
use rhn::task::language::Language;
use rhn::train::task::Task;
use rhn_kernels::precision::Precision;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let recipe = arguments.next().unwrap_or_else(|| "shakespeare".into());
    let steps: u64 = arguments.next().map_or(Ok(100), |steps| steps.parse())?;

    // Any key of a recipe can be set from outside, as `--set` does.
    let resolved = Resolved::new(&recipe, &["train.seed=2".into()])?;
    let directories = DataDirectories::new(None)?;
    let language = Language::prepare(resolved.recipe, &directories, None, Precision::F32, &Device::Cpu)?;
    let mut stepper = language.stepper(None)?;
    let rate = language.recipe().train.learning_rate;
    println!("{} parameters", stepper.parameters.count());

    for step in 0..steps {
        let batch = language.batch(0, step as usize % language.batch_count(0))?;
        let report = stepper.step(&batch, step, rate)?;
        if step % 10 == 0 {
            println!("step {step}: {:.4} nats a token", report.nats / report.tokens as f64);
        }
    }
    let valid = language.validate(&stepper.parameters, &Solo, &mut |_, _| Ok(()))?;
    println!("validation: {:.4} nats a token", valid.nats_per_token);
    Ok(())
}
