//! `rhn eval`: perplexity of a corpus's split under a trained model.

use super::args::{DataArgs, DeviceArgs};
use super::output::{Meter, json_line, load, note, note_crlf, note_unseen};
use crate::checkpoint::{self, Checkpoint};
use crate::config::{TrainConfig, Unit};
use crate::data::{Chosen, Encoded, SplitName, Tokenizer, TrainedOn};
use crate::error::Error;
use crate::eval;
use crate::eval::monte_carlo::{MonteCarlo, MonteCarloSettings, monte_carlo};
use crate::eval::perplexity::{Evaluation, Split, batched, stream};
use crate::model::{FrozenModel, LanguageModel};
use crate::readable::{or_dash, perplexity};
use crate::storage::RECIPE;
use crate::task::images;
use anyhow::Result;
use clap::ValueEnum;
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

Bits per character and byte and the perplexity over words are over exactly the text whose
probability was computed: what is left out of it does not count. Where letters hide behind <unk>,
which nobody predicted, there is a dash, and the JSON says why.

Examples:
  rhn eval checkpoints/shakespeare                    the test split of its own corpus
  rhn eval checkpoints/ptb-rhn --split valid --json   one line of JSON
  rhn eval checkpoints/ptb-rhn --mc 100               Monte-Carlo dropout
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
    /// What the masks of --mc are drawn from
    #[arg(long, value_name = "N", default_value_t = 1, requires = "mc")]
    seed: u64,
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    pub(super) device: DeviceArgs,
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

/// The loss and the accuracy of a checkpoint that classifies images.
fn run_images(args: &Args, checkpoint: &Checkpoint) -> Result<()> {
    let text_only =
        [("--file", !args.file.is_empty()), ("--mc", args.mc.is_some()), ("--per", args.per.is_some())];
    if let Some((flag, _)) = text_only.iter().find(|(_, given)| *given) {
        return Err(
            Error::config(format!("{flag} is for text, and this checkpoint classifies images")).into()
        );
    }
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
    let corpus = images::corpus_of(&recipe.corpus, named.transpose()?, &checkpoint.config, &directories)?;
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

/// Evaluates and prints. Fails if the checkpoint or the corpus is refused, or the model gives numbers that
/// are not finite.
pub(super) fn run(args: &Args) -> Result<()> {
    let checkpoint = Checkpoint::open(&checkpoint::resolve(&args.checkpoint)?)?;
    if checkpoint.config.pixels().is_some() {
        return run_images(args, &checkpoint);
    }
    let loaded = load(&args.checkpoint, &args.device)?;
    let recipe = loaded.recipe()?;
    let sha256 = loaded.corpus_sha256();
    let run = TrainedOn { config: &recipe.corpus, sha256: sha256.as_deref(), directory: loaded.directory() };
    let directories = args.data.directories()?;
    if args.file.iter().filter(|file| *file == Path::new("-")).count() > 1 {
        return Err(
            Error::config("the standard input (-) can be read once only, it is asked for twice").into()
        );
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
    let several = texts.len() > 1;
    let mut all = Vec::new();
    for text in texts {
        let name = text.corpus.clone();
        let encoded = loaded.tokenizer.encode_measured(&text.text)?;
        if several && encoded.tokens.len() < 2 {
            note(&format!(
                "{name}: {} tokens, of which none can be predicted; left out",
                encoded.tokens.len()
            ));
            continue;
        }
        let found = evaluate(args, &loaded.model, &loaded.tokenizer, &recipe.train, &text, &encoded)?;
        if several && args.per.is_some() {
            print(args.json, &found)?;
        }
        all.push(found);
    }
    match &all[..] {
        [] => {
            Err(Error::data(&*args.checkpoint, "none of the texts has a token that can be predicted").into())
        }
        [one] if !several => Ok(print(args.json, one)?),
        _ => Ok(print(args.json, &Found::total(&all, loaded.tokenizer.unit()))?),
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

    /// Several texts as one. Passes that were rejected are counted over all.
    fn total(all: &[Self], unit: Unit) -> Self {
        let evaluations: Vec<_> = all.iter().map(|found| found.evaluation().clone()).collect();
        let evaluation = Evaluation::total(&format!("{} files", all.len()), unit, &evaluations);
        let mut averaged = all.iter().filter_map(|found| match found {
            Self::MonteCarlo(averaged) => Some(averaged),
            Self::Plain(_) => None,
        });
        let mc_rejected = averaged.clone().map(|averaged| averaged.mc_rejected).sum();
        match averaged.next_back() {
            Some(last) => Self::MonteCarlo(MonteCarlo { evaluation, mc_rejected, ..last.clone() }),
            None => Self::Plain(evaluation),
        }
    }
}

fn evaluate(
    args: &Args,
    model: &FrozenModel,
    tokenizer: &Tokenizer,
    train: &TrainConfig,
    chosen: &Chosen,
    encoded: &Encoded,
) -> Result<Found> {
    let Chosen { corpus, split: part, text } = chosen;
    let name = match part {
        SplitName::All => corpus.clone(),
        _ => format!("the {} split", part.as_str()),
    };
    note_unseen(encoded.unseen, &name, tokenizer.unknown_id().is_some());
    note_crlf(text.bytes().windows(2).filter(|pair| pair == b"\r\n").count(), &name, tokenizer);
    if tokenizer.changes(text) {
        note(&format!(
            "the tokenizer changes {name} before it cuts it; figures over characters and bytes are of the text as it was given"
        ));
    }
    let split = &Split { corpus, split: part.as_str(), unit: tokenizer.unit(), text: encoded };
    let meter = Meter::new("evaluating");
    let progress = &mut |done, total| {
        meter.set(done, total);
        Ok(())
    };
    if let Some(passes) = args.mc {
        let settings = MonteCarloSettings { passes, seed: args.seed };
        return Ok(Found::MonteCarlo(monte_carlo(model, split, &train.dropout, settings, progress)?));
    }
    Ok(Found::Plain(match args.protocol {
        Protocol::Stream => stream(model, split, progress)?,
        Protocol::Batched => batched(model, split, train.batch_size, train.bptt_steps, progress)?,
    }))
}

/// Prints as one line of JSON or as a table.
fn print(json: bool, found: &Found) -> std::io::Result<()> {
    let mut out = stdout().lock();
    if json {
        return json_line(&mut out, found);
    }
    table(&mut out, found.evaluation())?;
    if let Found::MonteCarlo(MonteCarlo { mc_passes, mc_rejected, .. }) = found {
        writeln!(out, "passes           {mc_passes}, {mc_rejected} of them rejected")?;
    }
    Ok(())
}

fn table(out: &mut impl Write, found: &Evaluation) -> std::io::Result<()> {
    let part = if found.split == "all" { "the whole text".into() } else { format!("{} split", found.split) };
    writeln!(out, "{}, {part}, {} protocol", found.corpus, found.protocol)?;
    writeln!(out, "perplexity       {}", perplexity(found.nats_per_token, 4))?;
    if let Some(known) = found.perplexity_known {
        writeln!(out, "  without <unk>  {}", perplexity(known.ln(), 4))?;
    }
    writeln!(out, "nats per token   {:.5}", found.nats_per_token)?;
    writeln!(out, "bits per token   {:.5}", found.bits_per_token)?;
    writeln!(out, "bits per char    {}", or_dash(found.bits_per_char, 5))?;
    writeln!(out, "bits per byte    {}", or_dash(found.bits_per_byte, 5))?;
    let words = found.perplexity_words.map_or_else(|| "–".into(), |value| perplexity(value.ln(), 4));
    writeln!(out, "text over words  {words} (exp of all nats over {} words)", found.words)?;
    let characters = found.chars.map_or_else(|| "no".into(), |chars| chars.to_string());
    writeln!(out, "tokens           {} ({} characters, {} bytes)", found.tokens, characters, found.bytes)?;
    writeln!(out, "not in vocab     {}", found.oov_tokens)?;
    let reasons = [&found.bits_per_char_absent, &found.bits_per_byte_absent, &found.perplexity_words_absent];
    let mut said = Vec::new();
    for reason in reasons.into_iter().flatten() {
        if !said.contains(&reason) {
            writeln!(out, "no figure where there is a dash: {reason}")?;
            said.push(reason);
        }
    }
    writeln!(out, "time             {:.1} s, {:.0} tokens/s", found.seconds, found.tokens_per_second)
}
