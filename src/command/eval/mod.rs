//! `rhn eval`: perplexity of a corpus's split under a trained model.

mod adapt;
pub(super) mod classify;
mod dynamic;
mod images;
mod latent;
mod parts;
mod table;
mod tune;

use super::args::{DataArgs, DeviceArgs};
use super::output::{
    Meter, Treatment, json_line, load, note, note_crlf, note_if_worse_than_guessing, note_unseen,
    refuse_lists,
};
use crate::checkpoint::{self, Checkpoint};
use crate::config::{TrainConfig, Unit};
use crate::data::{Chosen, Encoded, SplitName, Tokenizer, TrainedOn};
use crate::error::Error;
use crate::eval::Evaluation;
use crate::eval::adapt::{Adaptation, Predictor, adapted};
use crate::eval::monte_carlo::{MonteCarlo, MonteCarloSettings, monte_carlo};
use crate::eval::perplexity::{Split, batched_at, stream_at};
use crate::eval::refine::Covariance;
use crate::predict::{Loaded, WindowReader};
use crate::readable::counted;
use crate::signals::Signals;
use crate::study::kept;
use adapt::AdaptArgs;
use anyhow::Result;
use clap::ValueEnum;
use parts::Reading;
use serde::Serialize;
use std::io::{Write, stdout};
use std::path::{Path, PathBuf};

const AFTER_HELP: &str = "\
Protocols:
  stream   one batch row, the state carried over the whole split, every token but the first
           predicted: the number that papers publish
  batched  the batch rows and windows of training, dropout off, the tail dropped: what training
           chose its best epoch by
  --mc N   dropout stays on for N passes, each with one draw of every mask, and the tokens'
           probabilities are averaged; passes with a perplexity of 500 or more are rejected
  --dynamic  the stream in segments; after each, the weights learn from it (Krause et al., 2017).
           The first time, the training split is read for the sizes of its gradients
  --cache N  the stream, whose probabilities are mixed with a neural cache (Grave et al., 2017) of
           the last N positions: p = (1 - lambda) p_model + lambda p_cache
--mc, --dynamic and --cache go together, --temperature goes with all. Figures with any of them
compare with their like alone: JSON names the protocol (stream, batched, mc, dynamic, cache,
dynamic+cache, mc+cache and so on) and every setting. --tune searches what is not given of
--dynamic-rate and --dynamic-decay, of --temperature, and of --cache-theta and --cache-lambda.

Bits per character and byte and the perplexity over words are over exactly the text whose
probability was computed: what is left out of it does not count. Where letters hide behind <unk>,
which nobody predicted, there is a dash, and the JSON says why.

Examples:
  rhn eval checkpoints/shakespeare                    the test split of its own corpus
  rhn eval checkpoints/ptb-rhn --split valid --json   one line of JSON
  rhn eval checkpoints/ptb-rhn --mc 100               Monte-Carlo dropout
  rhn eval checkpoints/ptb-vae --samples 500          a sentence VAE's bounds
  rhn eval checkpoints/ptb-vae --refine 50            its bound, with fitted posteriors
  rhn eval checkpoints/ptb-rhn --dynamic --dynamic-rate 5e-5 --segment 5
  rhn eval checkpoints/ptb-rhn --dynamic --cache 500 --tune
  rhn eval checkpoints/ptb-rhn --cache 500 --cache-theta 0.3 --cache-lambda 0.1
  rhn eval checkpoints/shakespeare --file my.txt      another text, the whole of it
  rhn eval checkpoints/shakespeare --file a.txt --file b.txt --per document
  rhn eval checkpoints/shakespeare --corpus my-text/  the test split of another corpus
  rhn eval hf://owner/name --corpus ptb --data-dir ~/corpora";

/// Evaluate: perplexity, bits per character and bits per byte of a split
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// A run's directory, or hf://owner/name[@revision]
    checkpoint: PathBuf,
    /// A corpus's name, a directory with splits, a file, or - for the standard input [default: as in training]
    #[arg(long, value_name = "NAME|PATH|-")]
    corpus: Option<PathBuf>,
    /// A text to read whole, - for the standard input; may be given several times, each is read by itself
    #[arg(long, value_name = "FILE", conflicts_with_all = ["corpus", "split"])]
    file: Vec<PathBuf>,
    /// The part of the corpus to evaluate [default: test; all of a file that the run was not trained on]
    #[arg(long, value_enum, value_name = "SPLIT")]
    split: Option<SplitName>,
    /// Print also the figures of each file, of several or of a folder of documents
    #[arg(long, value_enum)]
    per: Option<Per>,
    /// How the split is read
    #[arg(long, value_enum, default_value = "stream")]
    protocol: Protocol,
    /// Average N passes with dropout on, at the rates of the checkpoint's recipe
    #[arg(long, value_name = "N", conflicts_with = "protocol")]
    mc: Option<usize>,
    /// Of a sentence VAE: vectors to draw for each sentence; several give an importance-weighted bound [default: 1]
    #[arg(long, value_name = "N", conflicts_with = "mc")]
    samples: Option<usize>,
    /// What the masks of --mc, or the vectors of a sentence VAE, are drawn from [default: 1]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Of a sentence VAE: fit each sentence's posterior to it in N steps, from where the encoder begins; a tighter bound
    #[arg(long, value_name = "N")]
    refine: Option<usize>,
    /// The rate of the first step of --refine; it falls to 0
    #[arg(long, value_name = "RATE", default_value_t = 0.05, requires = "refine")]
    refine_rate: f64,
    /// What --refine fits beside the mean: a variance for each number of the vector, or all covariances too
    #[arg(long, value_enum, default_value = "diagonal", requires = "refine")]
    refine_covariance: Covariance,
    #[command(flatten)]
    adapt: AdaptArgs,
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    pub(super) device: DeviceArgs,
    /// Keep the result of the test split in the run's directory: `rhn compare` shows it in a column of its own, as long as
    /// the weights are the same
    #[arg(long, conflicts_with_all = ["file", "corpus"])]
    keep: bool,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Per {
    /// A file
    Document,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Protocol {
    Stream,
    Batched,
}

/// Evaluates and prints. Fails if the checkpoint or the corpus is refused, or the model gives numbers that
/// are not finite.
pub(super) fn run(args: &Args) -> Result<()> {
    if args.file.iter().filter(|file| *file == Path::new("-")).count() > 1 {
        let what = "the standard input (-) can be read once only, it is asked for twice";
        return Err(Error::config(what).into());
    }
    if args.keep && args.split.is_some_and(|split| split != SplitName::Test) {
        let what = "--keep is for the test split, whose figures rhn compare shows";
        return Err(Error::config(what).into());
    }
    let mut adaptation = args.adapt.settings()?;
    if matches!(args.protocol, Protocol::Batched) && adaptation.cache.is_some() {
        let what = "--cache remembers one text as it is read: it is for --protocol stream, not batched";
        return Err(Error::config(what).into());
    }
    let checkpoint = Checkpoint::open(&checkpoint::resolve(&args.checkpoint)?)?;
    if checkpoint.config.pixels().is_some() {
        return images::run(args, &checkpoint);
    }
    if checkpoint.config.spec.latent.is_some() {
        return latent::run(args, checkpoint);
    }
    if checkpoint.config.spec.classifier.is_some() {
        refuse_samples(args, "this checkpoint classifies sentences")?;
        return classify::run(args, &checkpoint);
    }
    refuse_samples(args, "this checkpoint is a language model")?;
    let loaded = load(&args.checkpoint, &args.device)?;
    let recipe = loaded.recipe()?;
    if args.corpus.is_none() && args.file.is_empty() {
        refuse_lists(&recipe, "--corpus or --file names a text")?;
    }
    let sha256 = loaded.corpus_sha256();
    let run = TrainedOn { config: &recipe.corpus, sha256: sha256.as_deref(), directory: loaded.directory() };
    let directories = args.data.directories()?;
    let reading = Reading::new(args, &loaded, &recipe)?;
    // After it was printed: a directory that cannot be written to must not cost the result.
    let keep = |found: &Found| match args.keep {
        true => Ok(kept::keep(loaded.checkpoint(), found)?),
        false => Ok(()),
    };
    let of_one = |corpus: &str| {
        if args.per.is_some() && args.file.is_empty() {
            note(&format!(
                "--per document: the split of {corpus} is read as one text; --file takes its documents one by one"
            ));
        }
    };
    if let Some((corpus, sha256)) = parts::shards(args, run, &loaded.tokenizer, &directories)? {
        of_one(&corpus.name);
        let found = reading.shards(&corpus, sha256)?;
        print(args.json, &found)?;
        return keep(&found);
    }
    let texts = match &args.corpus {
        _ if !args.file.is_empty() => {
            args.file.iter().map(|file| Chosen::file(file)).collect::<Result<_, _>>()?
        }
        None => vec![Chosen::of_run(run, args.split, &directories)?],
        Some(path) => match path.to_str() {
            Some(name) => Chosen::named(name, run, args.split, &directories)?,
            None => vec![Chosen::file(path)?], // a recipe could not name it, so no run has it for its corpus
        },
    };
    if let [one] = &texts[..]
        && one.split != SplitName::All
    {
        of_one(&one.corpus);
    }
    let signals = Signals::listen()?;
    let free = args.adapt.free();
    let mut predictor: Option<Box<dyn Predictor>> = match adaptation.dynamic {
        Some(settings) => Some(Box::new(dynamic::open(&loaded, run, &directories, settings, &signals)?)),
        None if adaptation.cache.is_some() || free.is_some() => {
            Some(Box::new(WindowReader::new(&loaded.model, 1)?))
        }
        None => None,
    };
    if let Some((free, predictor)) = free.zip(predictor.as_deref_mut()) {
        let corpus = (run, &directories);
        adaptation =
            tune::search(predictor, &adaptation, free, corpus, &loaded.tokenizer, args.json, &signals)?;
    }
    if args.mc.is_some() && !recipe.train.dropout.masks_values(recipe.model.core.layers()) {
        note("--mc: the run was trained without dropout of values, so that all passes are the same");
    }
    let several = texts.len() > 1;
    let mut evaluator =
        Evaluator { args, loaded: &loaded, train: &recipe.train, adaptation, predictor, reading, signals };
    let mut all = Vec::new();
    for text in texts {
        let name = text.corpus.clone();
        let encoded = loaded.tokenizer.encode_measured(&text.text)?;
        if several && encoded.tokens.len() < 2 {
            note(&format!(
                "{name}: {}, of which none can be predicted; left out",
                counted(encoded.tokens.len() as u64, "token")
            ));
            continue;
        }
        let found = evaluator.evaluate(&text, &encoded)?;
        if several && args.per.is_some() {
            print(args.json, &found)?;
        }
        all.push(found);
    }
    match &all[..] {
        [] => {
            Err(Error::data(&*args.checkpoint, "none of the texts has a token that can be predicted").into())
        }
        [one] if !several => {
            print(args.json, one)?;
            let uniform = (loaded.tokenizer.vocab_size() as f64).ln();
            note_if_worse_than_guessing(Some(one.evaluation().nats_per_token), uniform);
            keep(one)
        }
        _ => Ok(print(args.json, &Found::total(&all, loaded.tokenizer.unit()))?),
    }
}

/// Refuses what only a sentence VAE has.
fn refuse_samples(args: &Args, what: &str) -> crate::error::Result<()> {
    if args.refine.is_some() {
        return Err(Error::config(format!("--refine is for a sentence VAE, and {what}")));
    }
    match (args.samples, args.seed, args.mc) {
        (Some(_), ..) => Err(Error::config(format!("--samples is for a sentence VAE, and {what}"))),
        (None, Some(_), None) => Err(Error::config("--seed is for --mc, or for a sentence VAE")),
        _ => Ok(()),
    }
}

/// What an evaluation found, by Monte-Carlo dropout or without.
#[derive(Clone, Serialize)]
#[serde(untagged)]
enum Found {
    Plain(Evaluation),
    MonteCarlo(MonteCarlo),
}

impl Found {
    fn evaluation(&self) -> &Evaluation {
        match self {
            Self::Plain(evaluation) => evaluation,
            Self::MonteCarlo(averaged) => &averaged.evaluation,
        }
    }

    /// Several texts as one. Passes that were rejected are counted over all of them.
    fn total(all: &[Self], unit: Unit) -> Self {
        let evaluations: Vec<_> = all.iter().map(|found| found.evaluation().clone()).collect();
        let evaluation = Evaluation::total(&format!("{} files", all.len()), unit, &evaluations);
        let mut averaged = all.iter().filter_map(|found| match found {
            Self::MonteCarlo(averaged) => Some(averaged),
            Self::Plain(_) => None,
        });
        let mc_rejected = averaged.clone().map(|averaged| averaged.mc_rejected).sum();
        let texts = averaged.clone().map(|averaged| averaged.texts).sum();
        match averaged.next_back() {
            Some(last) => Self::MonteCarlo(MonteCarlo { evaluation, mc_rejected, texts, ..last.clone() }),
            None => Self::Plain(evaluation),
        }
    }
}

/// Evaluates one text after another, each by itself.
struct Evaluator<'a> {
    args: &'a Args,
    loaded: &'a Loaded,
    train: &'a TrainConfig,
    adaptation: Adaptation,
    /// What reads with a cache or with weights that go on learning.
    predictor: Option<Box<dyn Predictor>>,
    /// What reads sentences that are no running text.
    reading: Reading<'a>,
    signals: Signals,
}

impl Evaluator<'_> {
    fn evaluate(&mut self, chosen: &Chosen, encoded: &Encoded) -> Result<Found> {
        let model = &self.loaded.model;
        let tokenizer = &self.loaded.tokenizer;
        note_text(chosen, encoded, tokenizer);
        let Chosen { corpus, split: part, .. } = chosen;
        if self.reading.is_apart() {
            return self.reading.text([corpus, part.as_str()], encoded, &self.signals);
        }
        let split = &Split { corpus, split: part.as_str(), unit: tokenizer.unit(), text: encoded };
        let meter = Meter::new("evaluating");
        let progress = &mut |done, total| {
            meter.set(done, total);
            self.signals.check()
        };
        let temperature = self.adaptation.temperature.unwrap_or(1.0);
        if let Some(passes) = self.args.mc {
            let settings = MonteCarloSettings { passes, seed: self.args.seed.unwrap_or(1) };
            let dropout = &self.train.dropout;
            let adaptation = &self.adaptation;
            let mut plain = WindowReader::new(model, 1)?;
            let predictor = self.predictor.as_deref_mut().unwrap_or(&mut plain);
            let found = monte_carlo(model, predictor, split, dropout, settings, adaptation, progress)?;
            return Ok(Found::MonteCarlo(found));
        }
        if let Some(predictor) = &mut self.predictor {
            return Ok(Found::Plain(adapted(&mut **predictor, split, &self.adaptation, progress)?));
        }
        let window = [self.train.batch_size, self.train.bptt_steps];
        Ok(Found::Plain(match self.args.protocol {
            Protocol::Stream => stream_at(model, split, temperature, progress)?,
            Protocol::Batched => batched_at(model, split, window, temperature, progress)?,
        }))
    }
}

/// Says what of a text its tokens do not have.
fn note_text(chosen: &Chosen, encoded: &Encoded, tokenizer: &Tokenizer) {
    let Chosen { corpus, split: part, text } = chosen;
    let name = match part {
        SplitName::All => corpus.clone(),
        _ => format!("the {} split", part.as_str()),
    };
    note_unseen(encoded.unseen, &name, Treatment::of(tokenizer));
    note_crlf(text.bytes().windows(2).filter(|pair| pair == b"\r\n").count(), &name, tokenizer);
    if tokenizer.changes(text) {
        note(&format!(
            "the tokenizer changes {name} before it cuts it; figures over characters and bytes are of the text as it was given"
        ));
    }
}

/// Prints as one line of JSON or as a table.
fn print(json: bool, found: &Found) -> std::io::Result<()> {
    let mut out = stdout().lock();
    if json {
        return json_line(&mut out, found);
    }
    table::table(&mut out, found.evaluation())?;
    if let Found::MonteCarlo(MonteCarlo { mc_passes, mc_rejected, texts, .. }) = found {
        let of_all = if *texts > 1 { format!(" over each of {texts} texts") } else { String::new() };
        writeln!(out, "passes           {mc_passes}{of_all}, {mc_rejected} of them rejected")?;
    }
    Ok(())
}
