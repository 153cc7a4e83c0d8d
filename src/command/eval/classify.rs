//! `rhn eval` of a checkpoint that classifies sentences.

use super::super::output::{Meter, json_line, note};
use super::{Args, Protocol};
use crate::checkpoint::Checkpoint;
use crate::config::CorpusConfig;
use crate::data::chosen::labelled_of;
use crate::data::labelled::{Labelled, LabelledCorpus, Named};
use crate::data::{SplitName, TrainedOn};
use crate::error::Error;
use crate::eval::Evaluation;
use crate::eval::classify::{SentenceCutter, Threshold, evaluate};
use crate::model::Classifier;
use crate::predict::corpus_sha256;
use crate::storage::{RECIPE, THRESHOLD};
use anyhow::Result;
use std::io::{Write, stdout};
use std::path::Path;

/// The loss of a checkpoint that classifies sentences, and what its decisions are worth.
pub(super) fn run(args: &Args, checkpoint: &Checkpoint) -> Result<()> {
    let language_only = [
        ("--mc", args.mc.is_some()),
        ("--per", args.per.is_some()),
        ("--protocol batched", matches!(args.protocol, Protocol::Batched)),
    ];
    if let Some((flag, _)) = language_only.into_iter().chain(args.adapt.given()).find(|(_, given)| *given) {
        let what = format!("{flag} is for language models, and this checkpoint classifies sentences");
        return Err(Error::config(what).into());
    }
    if args.keep {
        let what =
            "--keep is for language models and sentence VAEs, and this checkpoint classifies sentences";
        return Err(Error::config(what).into());
    }
    let (device, precision) = args.device.open()?;
    let recipe = checkpoint.read_recipe()?.ok_or_else(|| {
        Error::checkpoint(checkpoint.directory.join(RECIPE), "is missing: it says what was trained on")
    })?;
    let (corpus, split, labelled) = labelled(args, checkpoint, &recipe.corpus)?;
    if labelled.left_out > 0 {
        note(&format!("{} elements without any text before the edit are left out", labelled.left_out));
    }
    let tokenizer = checkpoint.read_tokenizer()?;
    let mut cutter = SentenceCutter::new(&tokenizer, &checkpoint.config);
    let sentences = cutter.cut_all(&labelled)?;
    let parameters = checkpoint.parameters(precision.dtype(), &device)?;
    let words = cutter.words();
    let model = Classifier::frozen(&checkpoint.config, &parameters, &words, precision, &device)?;
    let threshold = threshold(checkpoint)?;
    let meter = Meter::new("evaluating");
    let progress = &mut |done, total| {
        meter.set(done, total);
        Ok(())
    };
    let names = [corpus.as_str(), split.as_str()];
    let found = evaluate(&model, names, &sentences, Threshold::At(threshold), progress)?;
    let mut out = stdout().lock();
    let printed = if args.json { json_line(&mut out, &found) } else { print(&mut out, &found) };
    Ok(printed?)
}

/// Where the classifier decides: 1/2 if it was never validated.
pub(in crate::command) fn threshold(checkpoint: &Checkpoint) -> Result<f64> {
    let found = checkpoint.threshold()?;
    if found.is_none() {
        note(&format!("no {THRESHOLD}, as the run was not validated: the threshold is 0.5"));
    }
    Ok(found.unwrap_or(0.5))
}

/// The sentences that were asked for, and what they are called.
fn labelled(
    args: &Args,
    checkpoint: &Checkpoint,
    config: &CorpusConfig,
) -> Result<(String, SplitName, Labelled)> {
    match args.file.as_slice() {
        [] => {}
        [file] => return Ok((file.display().to_string(), SplitName::All, Labelled::read(file)?)),
        _ => {
            let what =
                "this checkpoint classifies sentences: give one --file of labelled sentences at a time";
            return Err(Error::config(what).into());
        }
    }
    let name = |path: &Path| match path.to_str() {
        Some(name) => Ok(name.to_owned()),
        None => Err(Error::data(path, "has a name that is not UTF-8")),
    };
    let named = args.corpus.as_deref().map(name).transpose()?;
    let directories = args.data.directories()?;
    let sha256 = corpus_sha256(&checkpoint.directory);
    let run = TrainedOn { config, sha256: sha256.as_deref(), directory: &checkpoint.directory };
    let corpus = match named {
        Some(name) => {
            let config = CorpusConfig { name, ..config.clone() };
            let found = match args.split {
                Some(_) => Named::Splits(LabelledCorpus::open(&config, &directories)?),
                None => LabelledCorpus::named(&config, run, &directories)?,
            };
            match found {
                Named::Splits(corpus) => corpus,
                Named::Whole(labelled) => return Ok((config.name, SplitName::All, labelled)),
            }
        }
        None => {
            let corpus = labelled_of(run, &directories)?;
            run.check(&corpus.name, &corpus.sha256)?;
            corpus
        }
    };
    let split = args.split.unwrap_or(SplitName::Test);
    let labelled = match split {
        SplitName::Train => corpus.train,
        SplitName::Valid => corpus.valid,
        SplitName::Test => corpus.test.ok_or_else(|| {
            Error::data(&corpus.name, "has no test split: --split valid, which chose weights and threshold")
        })?,
        SplitName::All => {
            let what = "--split all is for language models: name train, valid or test, or a --file";
            return Err(Error::config(what).into());
        }
    };
    Ok((corpus.name, split, labelled))
}

fn print(out: &mut impl Write, found: &Evaluation) -> std::io::Result<()> {
    writeln!(out, "{}, {} split", found.corpus, found.split)?;
    writeln!(out, "nats a sentence  {:.6}", found.nats_per_token)?;
    writeln!(out, "accuracy         {:.2} %", 100.0 * found.accuracy.unwrap_or(f64::NAN))?;
    if let Some(decisions) = &found.decisions {
        decisions.print(out)?;
    }
    writeln!(out, "sentences        {}", found.tokens)?;
    let unknown = 100.0 * found.oov_tokens as f64 / (found.words as f64).max(1.0);
    writeln!(out, "words            {}, {} unknown ({unknown:.1} %)", found.words, found.oov_tokens)?;
    writeln!(out, "time             {:.1} s, {:.0} sentences/s", found.seconds, found.tokens_per_second)
}
