//! `rhn eval` of a checkpoint that classifies images.

use super::super::output::{Meter, json_line};
use super::{Args, Protocol};
use crate::checkpoint::Checkpoint;
use crate::data::{SplitName, TrainedOn};
use crate::error::Error;
use crate::eval;
use crate::model::LanguageModel;
use crate::predict::corpus_sha256;
use crate::storage::RECIPE;
use crate::task::images;
use anyhow::Result;
use std::io::{Write, stdout};

/// The loss and the accuracy of a checkpoint that classifies images.
pub(super) fn run(args: &Args, checkpoint: &Checkpoint) -> Result<()> {
    let text_only = [
        ("--file", !args.file.is_empty()),
        ("--mc", args.mc.is_some()),
        ("--per", args.per.is_some()),
        ("--keep", args.keep),
        ("--protocol batched", matches!(args.protocol, Protocol::Batched)),
    ];
    if let Some((flag, _)) = text_only.into_iter().chain(args.adapt.given()).find(|(_, given)| *given) {
        return Err(
            Error::config(format!("{flag} is for text, and this checkpoint classifies images")).into()
        );
    }
    super::refuse_samples(args, "this checkpoint classifies images")?;
    let (device, precision) = args.device.open()?;
    let recipe = checkpoint.read_recipe()?.ok_or_else(|| {
        Error::checkpoint(
            checkpoint.directory.join(RECIPE),
            "is missing: it says which images were trained on",
        )
    })?;
    let named = args
        .corpus
        .as_deref()
        .map(|path| path.to_str().ok_or_else(|| Error::data(path, "has a name that is not UTF-8")));
    let directories = args.data.directories()?;
    let sha256 = corpus_sha256(&checkpoint.directory);
    let run =
        TrainedOn { config: &recipe.corpus, sha256: sha256.as_deref(), directory: &checkpoint.directory };
    let corpus = images::corpus_of(run, named.transpose()?, &checkpoint.config, &directories)?;
    let parameters = checkpoint.parameters(precision.dtype(), &device)?;
    let model = LanguageModel::new(&checkpoint.config, &parameters, precision, &device)?;
    let absent = || Error::data(&corpus.name, "has no validation images: corpus.split keeps none apart");
    let (name, split) = match args.split.unwrap_or(SplitName::Test) {
        SplitName::Test => ("test", &corpus.test),
        SplitName::Train => ("train", &corpus.train),
        SplitName::Valid => ("valid", corpus.valid.as_ref().ok_or_else(absent)?),
        SplitName::All => {
            return Err(Error::config("--split all is for text: name train, valid or test").into());
        }
    };
    let meter = Meter::new("evaluating");
    let progress = &mut |done, total| {
        meter.set(done, total);
        Ok(())
    };
    let found = eval::images::evaluate(&model, [&corpus.name, name], split, precision, progress)?;
    let mut out = stdout().lock();
    if args.json {
        return Ok(json_line(&mut out, &found)?);
    }
    writeln!(out, "{}, {} split", found.corpus, found.split)?;
    writeln!(out, "nats an image    {:.6}", found.nats_per_token)?;
    writeln!(out, "accuracy         {:.2} %", 100.0 * found.accuracy.unwrap_or(f64::NAN))?;
    writeln!(out, "images           {}", found.tokens)?;
    Ok(writeln!(out, "time             {:.1} s, {:.0} images/s", found.seconds, found.tokens_per_second)?)
}
