//! `rhn judge`: how many minimal pairs a language model ranks right, and which sentences need an edit.

mod each;
mod pairs;
mod sentences;
mod threshold;

use super::args::DeviceArgs;
use super::output::{Meter, load, note};
use crate::checkpoint::{self, Checkpoint};
use crate::data::{Text, Tokenizer, packed};
use crate::error::{Error, Result};
use crate::eval::sentences::{Measure, ROWS, Sentence, SentenceScore, Unigrams, read_pairs, score_sentences};
use crate::predict::Loaded;
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};

const AFTER_HELP: &str = "\
PAIRS is a file of lines good<TAB>bad[<TAB>phenomenon], or with any columns under a header that names these, a file of BLiMP's JSON lines
(sentence_good, sentence_bad, field, linguistics_term, UID), packed or not, a directory of such files, or -.

Each sentence is scored by itself: the state is zero at its start, its first token is predicted after a line end, and the
line end after it is scored too (where the vocabulary has one), as rhn score --reset line --per line does. The pair is right
if the good sentence has the higher score; a tie counts half, as two identical sentences always do.
  lp     sum of ln p                      for pairs of equal length
  mean   sum of ln p, over the tokens     where lengths differ
  pen    sum of ln p, over ((5 + tokens) / 6)^0.8, between the two
  norm   - sum of ln p, over the sum of ln p of the tokens by their frequency in --unigrams
  slor   (sum of ln p - sum of ln p of the tokens by their frequency in --unigrams), over the tokens
  min    the lowest ln p of a token
A model of words gives <unk> a high probability, so that an unknown word looks good: see the column of unknown words, and
--unknown-penalty. --json has a line for each pair, for each group of pairs, and the total as the last.

With --tune FILE single sentences are judged: FILE and PAIRS are labelled sentences, lines of label<TAB>sentence (1 needs an
edit), pairs, CoLA's lines or AESW's XML. The threshold of the score with the best F1 on FILE decides on those of PAIRS.
With --each PAIRS are plain texts, and each line's score by --by is printed with its tokens and words: for R, NA is none.
A checkpoint that classifies sentences reads plain texts, a sentence a line, and prints for each the probability that it needs
an edit and the decision (1 for yes).

Examples:
  rhn data errors shakespeare --count 500 > pairs.tsv
  rhn judge checkpoints/shakespeare pairs.tsv
  rhn judge checkpoints/ptb-rhn blimp/data --by slor --unigrams data/ptb.train.txt --csv
  rhn judge checkpoints/ptb-rhn stimuli.txt --each --by slor --unigrams data/ptb.train.txt > scores.tsv
  rhn judge checkpoints/shakespeare errors/test.tsv --by mean --tune errors/valid.tsv
  rhn judge checkpoints/errors-classify letter.txt --threshold 0.8";

/// Judge which sentence of each pair is the better one, or which sentences need an edit
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// A run's directory, or hf://owner/name[@revision]
    checkpoint: PathBuf,
    /// Files of pairs, directories of them, or - for the standard input
    #[arg(value_name = "PAIRS", required = true)]
    pairs: Vec<PathBuf>,
    /// What a sentence's score is
    #[arg(long, value_enum, default_value = "lp")]
    by: Measure,
    /// A text to count tokens in, for --by norm and slor: best the model's training text
    #[arg(long, value_name = "FILE")]
    unigrams: Option<PathBuf>,
    /// Nats to take off a sentence's ln p for each word with a symbol that the vocabulary lacks
    #[arg(long, value_name = "X", default_value = "0")]
    unknown_penalty: f64,
    /// Score each line of PAIRS by itself, a sentence a line
    #[arg(long, conflicts_with_all = ["tune", "csv", "threshold"])]
    each: bool,
    /// Judge single labelled sentences by the threshold of the score with the best F1 on this file
    #[arg(long, value_name = "FILE", conflicts_with = "csv")]
    tune: Option<PathBuf>,
    /// Of a checkpoint that classifies sentences: decide at this probability [default: where its run found the best F1]
    #[arg(long, value_name = "P")]
    threshold: Option<f64>,
    #[command(flatten)]
    pub(super) device: DeviceArgs,
    /// Print a line of JSON for each pair, each group and the total, or for each sentence
    #[arg(long)]
    json: bool,
    /// Print the groups and the total as comma-separated values
    #[arg(long, conflicts_with = "json")]
    csv: bool,
}

/// Judges and prints. Fails if the checkpoint or a file is refused, or the model gives numbers that are not finite.
pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    validate(args)?;
    let checkpoint = Checkpoint::open(&checkpoint::resolve(&args.checkpoint)?)?;
    let out = BufWriter::new(io::stdout().lock());
    if checkpoint.config.spec.classifier.is_some() {
        return sentences::run(args, &checkpoint, out);
    }
    if args.threshold.is_some() {
        let what = "--threshold is a probability, which a checkpoint that classifies sentences gives; of a language model \
                    --tune FILE finds one";
        return Err(Error::config(what).into());
    }
    if let Some(tune) = &args.tune {
        return threshold::run(args, tune, out);
    }
    if args.each {
        return each::run(args, out);
    }
    let mut pairs = Vec::new();
    for path in &args.pairs {
        pairs.extend(read_pairs(path)?);
    }
    let loaded = load(&args.checkpoint, &args.device)?;
    let judged = pairs::judge(args, &loaded, pairs)?;
    Ok(pairs::print(args, &judged, out)?)
}

/// What can be refused before anything is read.
fn validate(args: &Args) -> Result<()> {
    let by = args.by.name();
    match (args.by.reads_unigrams(), &args.unigrams) {
        (true, None) => {
            let what = format!(
                "--by {by} needs --unigrams FILE, a text to count tokens in (best the model's training text)"
            );
            return Err(Error::config(what));
        }
        (false, Some(_)) => {
            return Err(Error::config(format!("--unigrams is for --by norm and slor, not --by {by}")));
        }
        (true, Some(_)) | (false, None) => {}
    }
    if !(args.unknown_penalty.is_finite() && args.unknown_penalty >= 0.0) {
        let what =
            format!("--unknown-penalty is {}, wanted a number of nats, 0 or more", args.unknown_penalty);
        return Err(Error::config(what));
    }
    let inputs =
        args.pairs.iter().chain(&args.unigrams).chain(&args.tune).filter(|file| *file == Path::new("-"));
    if inputs.count() > 1 {
        return Err(Error::config("the standard input (-) can be read once only, it is asked for twice"));
    }
    Ok(())
}

/// Each text cut into tokens, and its score by `--by`, which is higher for the better sentence; none if no token has one.
fn scores(
    args: &Args,
    loaded: &Loaded,
    unigrams: Option<&Unigrams>,
    texts: &[&str],
) -> Result<(Vec<Sentence>, Vec<Option<f64>>)> {
    let tokenizer = &loaded.tokenizer;
    let sentences = texts.iter().map(|text| Sentence::cut(text, tokenizer)).collect::<Result<Vec<_>>>()?;
    let context = tokenizer.line_end_id();
    if context.is_none() {
        note("the vocabulary has no line end: the first token of each sentence has no score");
    }
    let meter = Meter::new("judging");
    let progress = &mut |done, all| {
        meter.set(done, all);
        Ok(())
    };
    let scores = score_sentences(&loaded.model, context, &sentences, ROWS, progress)?;
    let value = |(sentence, score): (&Sentence, &SentenceScore)| {
        let penalty = args.unknown_penalty * sentence.unknown_words as f64;
        let lowered = match args.by {
            Measure::Min => SentenceScore { lowest: score.lowest - penalty, ..*score },
            _ => SentenceScore { lp: score.lp - penalty, ..*score },
        };
        let scored = &sentence.ids[sentence.ids.len() - score.tokens..];
        args.by.of(&lowered, unigrams.map_or(0.0, |unigrams| unigrams.log_p(scored)))
    };
    let values = sentences.iter().zip(&scores).map(value).collect();
    Ok((sentences, values))
}

/// A file or the standard input.
fn read(file: &Path) -> Result<Text> {
    if file == Path::new("-") { Text::read_stdin() } else { Text::read(file) }
}

/// The lines of texts that are not blank, without white space at their ends: of each its file and number.
fn lines(texts: &[Text]) -> Result<Vec<(&Path, usize, &str)>> {
    let mut lines = Vec::new();
    for text in texts {
        let numbered = text.as_str()?.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty());
        lines.extend(numbered.map(|(line, number)| (text.source.as_path(), number, line.trim())));
    }
    Ok(lines)
}

/// How often each token is in `--unigrams`, which is read once: it may be the standard input.
fn unigrams(args: &Args, tokenizer: &Tokenizer) -> Result<Option<Unigrams>> {
    let count = |file: &PathBuf| match file == Path::new("-") {
        true => Unigrams::count(tokenizer, Path::new("standard input"), io::stdin().lock()),
        false => Unigrams::count(tokenizer, file, packed::open(file)?),
    };
    args.unigrams.as_ref().map(count).transpose()
}
