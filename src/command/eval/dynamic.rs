//! The model of `rhn eval --dynamic`, and the gradient statistics that it needs once.

use super::super::output::{Meter, note};
use crate::checkpoint::Statistics;
use crate::data::{Chosen, DataDirectories, SplitName, TrainedOn};
use crate::error::{Error, Result};
use crate::eval::adapt::{DynamicModel, DynamicSettings, statistics};
use crate::model::Parameters;
use crate::predict::Loaded;
use crate::signals::Signals;
use candle_core::Tensor;
use std::collections::BTreeMap;

/// The checkpoint's model, ready to learn from what it reads.
pub(super) fn open(
    loaded: &Loaded,
    run: TrainedOn<'_>,
    directories: &DataDirectories,
    settings: DynamicSettings,
    signals: &Signals,
) -> Result<DynamicModel> {
    let model = &loaded.model;
    let precision = model.precision();
    let checkpoint = loaded.checkpoint();
    let parameters = checkpoint.parameters(precision.dtype(), model.device())?;
    let kept = match checkpoint.read_statistics(precision, model.device())? {
        Statistics::Kept(statistics) => Some(statistics),
        Statistics::Missing => None,
        Statistics::Outdated(of) => {
            let path = checkpoint.statistics_path();
            note(&format!("{}: holds gradient statistics of {of}; they are gathered anew", path.display()));
            None
        }
    };
    let statistics = kept.map_or_else(|| gather(loaded, run, directories, &parameters, signals), Ok)?;
    DynamicModel::new(&checkpoint.config, parameters, &statistics, settings, precision, model.device())
}

/// Gathers the statistics over the training split and keeps them beside the weights, where that can be written to.
fn gather(
    loaded: &Loaded,
    run: TrainedOn<'_>,
    directories: &DataDirectories,
    parameters: &Parameters,
    signals: &Signals,
) -> Result<BTreeMap<String, Tensor>> {
    let train = Chosen::of_run(run, Some(SplitName::Train), directories).map_err(|error| {
        let what = "--dynamic needs the training split once, to see how large its gradients are";
        Error::data(&run.config.name, format!("{what}: {error}"))
    })?;
    let tokens = loaded.tokenizer.encode(&train.text)?.tokens;
    let checkpoint = loaded.checkpoint();
    let path = checkpoint.statistics_path();
    note(&format!(
        "gathering gradient statistics over {} training tokens, once; they are kept in {}",
        tokens.len(),
        path.display()
    ));
    let meter = Meter::new("gradient statistics");
    let progress = &mut |done, total| {
        meter.set(done, total);
        signals.check()
    };
    let precision = loaded.model.precision();
    let device = loaded.model.device();
    let text = (train.corpus.as_str(), &tokens);
    let found = statistics::gather(&checkpoint.config, parameters, text, precision, device, progress)?;
    if let Err(error) = checkpoint.write_statistics(&found, precision) {
        note(&format!("the statistics could not be kept, and are gathered again next time: {error}"));
    }
    Ok(found)
}
