//! `rhn eval`: perplexity of a corpus's split under a trained model.

use super::args::{DataArgs, DeviceArgs, PrecisionChoice};
use super::output::{Meter, json_line, load, note_unseen};
use crate::config::recipe::Recipe;
use crate::data::{Corpus, Encoded, Text};
use crate::error::Error;
use crate::eval::monte_carlo::{MonteCarlo, MonteCarloSettings, monte_carlo};
use crate::eval::perplexity::{Evaluation, Split, batched, stream};
use crate::predict::Loaded;
use crate::readable::perplexity;
use clap::ValueEnum;
use std::io::Write;

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
    /// The numbers to compute with
    #[arg(long, value_enum, default_value = "f32")]
    precision: PrecisionChoice,
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
    fn name(self) -> &'static str {
        match self {
            Self::Test => "test",
            Self::Valid => "valid",
            Self::Train => "train",
        }
    }

    fn of(self, corpus: &Corpus) -> &Text {
        match self {
            Self::Test => &corpus.test,
            Self::Valid => &corpus.valid,
            Self::Train => &corpus.train,
        }
    }
}

/// What was measured, by either way.
enum Report {
    Plain(Evaluation),
    Averaged(MonteCarlo),
}

/// Evaluates and prints. Fails if the checkpoint or the corpus is refused, or the model gives numbers that
/// are not finite.
pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let device = args.device.open()?;
    let loaded = load(&args.checkpoint, args.precision.on(&device)?, &device)?;
    let recipe = loaded.recipe()?;
    let mut config = recipe.corpus.clone();
    if let Some(corpus) = &args.corpus {
        config.name = corpus.clone();
    }
    let corpus = Corpus::open(&config, &args.data.places()?)?;
    let text = loaded.tokenizer.encode(args.split.of(&corpus))?;
    note_unseen(
        text.unseen,
        &format!("the {} split", args.split.name()),
        loaded.tokenizer.unknown_id().is_some(),
    );
    let report = evaluate(args, &loaded, &recipe, &corpus.name, &text)?;
    print(args, &report)?;
    Ok(())
}

fn evaluate(
    args: &Args,
    loaded: &Loaded,
    recipe: &Recipe,
    corpus: &str,
    text: &Encoded,
) -> Result<Report, Error> {
    let unit = loaded.tokenizer.unit();
    let split = Split { corpus, split: args.split.name(), unit, text };
    let meter = Meter::new("evaluating");
    let progress = &mut |done, total| {
        meter.set(done, total);
        Ok(())
    };
    let model = &loaded.model;
    let train = &recipe.train;
    if let Some(passes) = args.mc {
        let settings = MonteCarloSettings { passes, seed: args.seed };
        return Ok(Report::Averaged(monte_carlo(model, &split, &train.dropout, settings, progress)?));
    }
    Ok(Report::Plain(match args.protocol {
        Protocol::Stream => stream(model, &split, progress)?,
        Protocol::Batched => batched(model, &split, train.batch_size, train.bptt_steps, progress)?,
    }))
}

fn print(args: &Args, report: &Report) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    match (report, args.json) {
        (Report::Plain(evaluation), true) => json_line(&mut out, evaluation),
        (Report::Averaged(averaged), true) => json_line(&mut out, averaged),
        (Report::Plain(evaluation), false) => table(&mut out, evaluation),
        (Report::Averaged(averaged), false) => {
            table(&mut out, &averaged.evaluation)?;
            writeln!(
                out,
                "passes           {}, {} of them rejected",
                averaged.mc_passes, averaged.mc_rejected
            )
        }
    }
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
