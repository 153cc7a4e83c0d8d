//! `rhn eval`: perplexity of a corpus's split under a trained model.

use super::args::{DataArgs, DeviceArgs};
use super::output::{Meter, json_line, load, note_unseen};
use crate::config::TrainConfig;
use crate::data::{Corpus, Text};
use crate::eval::monte_carlo::{MonteCarlo, MonteCarloSettings, monte_carlo};
use crate::eval::perplexity::{Evaluation, Split, batched, stream};
use crate::model::FrozenModel;
use crate::readable::perplexity;
use anyhow::Result;
use clap::ValueEnum;
use serde::Serialize;
use std::io::{Write, stdout};

const AFTER_HELP: &str = "\
Protocols:
  stream   one batch row, the state carried over the whole split, every token but the first
           predicted: the number that papers publish
  batched  the batch rows and windows of training, dropout off, the tail dropped: what training
           chose its best epoch by
  --mc N   dropout stays on for N passes, each with one draw of every mask, and the tokens'
           probabilities are averaged; passes with a perplexity of 500 or more are rejected

Examples:
  rhn eval checkpoints/shakespeare                    the test split of its own corpus
  rhn eval checkpoints/ptb-rhn --split valid --json   one line of JSON
  rhn eval checkpoints/ptb-rhn --mc 100               Monte-Carlo dropout
  rhn eval checkpoints/shakespeare --corpus my-text/  another text
  rhn eval hf://owner/name --corpus ptb --data-dir ~/corpora";

/// Evaluate: perplexity, bits per character and bits per byte of a split
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// A run's directory, or hf://owner/name[@revision]
    checkpoint: String,
    /// A corpus's name, a file, a directory, or - for the standard input [default: as in training]
    #[arg(long, value_name = "NAME|PATH|-")]
    corpus: Option<String>,
    /// The part of the corpus to evaluate
    #[arg(long, value_enum, default_value = "test")]
    split: SplitName,
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
enum SplitName {
    Test,
    Valid,
    Train,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Protocol {
    Stream,
    Batched,
}

impl SplitName {
    fn of(self, corpus: &Corpus) -> (&'static str, &Text) {
        match self {
            Self::Test => ("test", &corpus.test),
            Self::Valid => ("valid", &corpus.valid),
            Self::Train => ("train", &corpus.train),
        }
    }
}

/// Evaluates and prints. Fails if the checkpoint or the corpus is refused, or the model gives numbers that
/// are not finite.
pub(super) fn run(args: &Args) -> Result<()> {
    let loaded = load(&args.checkpoint, &args.device)?;
    let recipe = loaded.recipe()?;
    let mut config = recipe.corpus.clone();
    if let Some(corpus) = &args.corpus {
        config.name = corpus.clone();
    }
    let corpus = Corpus::open(&config, &args.data.directories()?)?;
    let (name, text) = args.split.of(&corpus);
    let text = loaded.tokenizer.encode(text)?;
    note_unseen(text.unseen, &format!("the {name} split"), loaded.tokenizer.unknown_id().is_some());
    let split = Split { corpus: &corpus.name, split: name, unit: loaded.tokenizer.unit(), text: &text };
    evaluate(args, &loaded.model, &recipe.train, &split)
}

fn evaluate(args: &Args, model: &FrozenModel, train: &TrainConfig, split: &Split) -> Result<()> {
    let meter = Meter::new("evaluating");
    let progress = &mut |done, total| {
        meter.set(done, total);
        Ok(())
    };
    if let Some(passes) = args.mc {
        let settings = MonteCarloSettings { passes, seed: args.seed };
        let averaged = monte_carlo(model, split, &train.dropout, settings, progress)?;
        drop(meter);
        print(args.json, &averaged, &averaged.evaluation)?;
        if !args.json {
            let MonteCarlo { mc_passes, mc_rejected, .. } = averaged;
            writeln!(stdout(), "passes           {mc_passes}, {mc_rejected} of them rejected")?;
        }
        return Ok(());
    }
    let evaluation = match args.protocol {
        Protocol::Stream => stream(model, split, progress)?,
        Protocol::Batched => batched(model, split, train.batch_size, train.bptt_steps, progress)?,
    };
    drop(meter);
    Ok(print(args.json, &evaluation, &evaluation)?)
}

/// Prints `found` as JSON, or `evaluation`, which is in it, as a table.
fn print(json: bool, found: &impl Serialize, evaluation: &Evaluation) -> std::io::Result<()> {
    let mut out = stdout().lock();
    if json { json_line(&mut out, found) } else { table(&mut out, evaluation) }
}

fn table(out: &mut impl Write, found: &Evaluation) -> std::io::Result<()> {
    writeln!(out, "{}, {} split, {} protocol", found.corpus, found.split, found.protocol)?;
    writeln!(out, "perplexity       {}", perplexity(found.nats_per_token, 4))?;
    writeln!(out, "nats per token   {:.5}", found.nats_per_token)?;
    writeln!(out, "bits per token   {:.5}", found.bits_per_token)?;
    writeln!(out, "bits per char    {:.5}", found.bits_per_char)?;
    writeln!(out, "bits per byte    {:.5}", found.bits_per_byte)?;
    writeln!(out, "tokens           {} ({} bytes)", found.tokens, found.bytes)?;
    writeln!(out, "not in vocab     {}", found.oov_tokens)?;
    writeln!(out, "time             {:.1} s, {:.0} tokens/s", found.seconds, found.tokens_per_second)
}
