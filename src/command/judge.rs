//! `rhn judge`: how many minimal pairs a model ranks right.

use super::args::DeviceArgs;
use super::output::{Meter, json_line, load, note};
use crate::data::{Tokenizer, packed};
use crate::error::{Error, Result};
use crate::eval::sentences::{
    Accuracy, Measure, Outcome, Pair, ROWS, Sentence, SentenceScore, Unigrams, read_pairs, score_sentences,
};
use crate::predict::Loaded;
use crate::study::compare::csv_line;
use crate::study::markdown;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

const AFTER_HELP: &str = "\
PAIRS is a file of lines good<TAB>bad[<TAB>phenomenon], which may begin with such a header, a file of BLiMP's JSON lines
(sentence_good, sentence_bad, field, linguistics_term, UID), packed or not, a directory of such files, or -.

Each sentence is scored by itself: the state is zero at its start, its first token is predicted after a line end, and the
line end after it is scored too (where the vocabulary has one), as rhn score --reset line --per line does. The pair is right
if the good sentence has the higher score; a tie counts half, as two identical sentences always do.
  lp     sum of ln p                      for pairs of equal length
  mean   sum of ln p, over the tokens     where lengths differ
  slor   (sum of ln p - sum of ln p of the tokens by their frequency in --unigrams), over the tokens
  min    the lowest ln p of a token
A model of words gives <unk> a high probability, so that an unknown word looks good: see the column of unknown words, and
--unknown-penalty. --json has a line for each pair, for each group of pairs, and the total as the last.

Examples:
  rhn data errors shakespeare --count 500 > pairs.tsv
  rhn judge checkpoints/shakespeare pairs.tsv
  rhn judge checkpoints/ptb-rhn blimp/data --by slor --unigrams data/ptb.train.txt --csv";

/// Judge which sentence of each pair is the better one: accuracy on minimal pairs
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
    /// A text to count tokens in, for --by slor: best the model's training text
    #[arg(long, value_name = "FILE")]
    unigrams: Option<PathBuf>,
    /// Nats to take off a sentence's ln p for each word with a symbol that the vocabulary lacks
    #[arg(long, value_name = "X", default_value = "0")]
    unknown_penalty: f64,
    #[command(flatten)]
    pub(super) device: DeviceArgs,
    /// Print a line of JSON for each pair, each group and the total
    #[arg(long)]
    json: bool,
    /// Print the groups and the total as comma-separated values
    #[arg(long, conflicts_with = "json")]
    csv: bool,
}

/// Judges and prints. Fails if the checkpoint or a pair is refused, or the model gives numbers that are not finite.
pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    validate(args)?;
    let mut pairs = Vec::new();
    for path in &args.pairs {
        pairs.extend(read_pairs(path)?);
    }
    let loaded = load(&args.checkpoint, &args.device)?;
    let judged = judge(args, &loaded, pairs)?;
    let out = BufWriter::new(io::stdout().lock());
    Ok(print(args, &judged, out)?)
}

/// What can be refused before anything is read.
fn validate(args: &Args) -> Result<()> {
    match (args.by, &args.unigrams) {
        (Measure::Slor, None) => {
            return Err(Error::config(
                "--by slor needs --unigrams FILE, a text to count tokens in (best the model's training text)",
            ));
        }
        (Measure::Lp | Measure::Mean | Measure::Min, Some(_)) => {
            return Err(Error::config(format!("--unigrams is for --by slor, not --by {}", args.by.name())));
        }
        _ => {}
    }
    if !(args.unknown_penalty.is_finite() && args.unknown_penalty >= 0.0) {
        let what =
            format!("--unknown-penalty is {}, wanted a number of nats, 0 or more", args.unknown_penalty);
        return Err(Error::config(what));
    }
    let inputs = args.pairs.iter().chain(&args.unigrams).filter(|file| *file == Path::new("-"));
    if inputs.count() > 1 {
        return Err(Error::config("the standard input (-) can be read once only, it is asked for twice"));
    }
    Ok(())
}

/// A pair with its two scores.
struct Judged {
    pair: Pair,
    good: f64,
    bad: f64,
    outcome: Outcome,
    counts: Accuracy,
}

fn judge(args: &Args, loaded: &Loaded, pairs: Vec<Pair>) -> Result<Vec<Judged>> {
    let tokenizer = &loaded.tokenizer;
    let unigrams = args.unigrams.as_deref().map(|file| count(tokenizer, file)).transpose()?;
    let texts = pairs.iter().flat_map(|pair| [&pair.good, &pair.bad]);
    let sentences = texts.map(|text| Sentence::cut(text, tokenizer)).collect::<Result<Vec<_>>>()?;
    let ids: Vec<&[u32]> = sentences.iter().map(|sentence| sentence.ids.as_slice()).collect();
    let context = tokenizer.line_end_id();
    if context.is_none() {
        note("the vocabulary has no line end: the first token of each sentence has no score");
    }
    let meter = Meter::new("judging");
    let scores = score_sentences(&loaded.model, context, &ids, ROWS, &mut |done, all| meter.set(done, all))?;
    let value = |sentence: &Sentence, score: &SentenceScore| {
        let penalty = args.unknown_penalty * sentence.unknown_words as f64;
        let lowered = match args.by {
            Measure::Min => SentenceScore { lowest: score.lowest - penalty, ..*score },
            Measure::Lp | Measure::Mean | Measure::Slor => SentenceScore { lp: score.lp - penalty, ..*score },
        };
        let scored = &sentence.ids[sentence.ids.len() - score.tokens..];
        args.by.of(&lowered, unigrams.as_ref().map_or(0.0, |unigrams| unigrams.log_p(scored)))
    };
    let both = pairs.into_iter().zip(sentences.chunks(2).zip(scores.chunks(2)));
    both.map(|(pair, (sentences, scores))| {
        let [good, bad] = [0, 1].map(|at| value(&sentences[at], &scores[at]));
        let (Some(good), Some(bad)) = (good, bad) else {
            let what =
                format!("line {}: a sentence has no token that the model's vocabulary can score", pair.line);
            return Err(Error::data(&pair.file, what));
        };
        let outcome = Outcome::of(good, bad);
        let counts = counts(&pair, outcome, sentences);
        Ok(Judged { pair, good, bad, outcome, counts })
    })
    .collect()
}

fn count(tokenizer: &Tokenizer, file: &Path) -> Result<Unigrams> {
    match file == Path::new("-") {
        true => Unigrams::count(tokenizer, Path::new("standard input"), io::stdin().lock()),
        false => Unigrams::count(tokenizer, file, packed::open(file)?),
    }
}

fn counts(pair: &Pair, outcome: Outcome, sentences: &[Sentence]) -> Accuracy {
    let sum = |of: fn(&Sentence) -> usize| sentences.iter().map(|sentence| of(sentence) as u64).sum();
    let mut counts = Accuracy {
        identical: u64::from(pair.good == pair.bad),
        unequal: u64::from(sentences[0].ids.len() != sentences[1].ids.len()),
        words: sum(|sentence| sentence.words),
        unknown_words: sum(|sentence| sentence.unknown_words),
        ..Accuracy::default()
    };
    counts.take(outcome);
    counts
}

/// What the pairs of a group have in common.
type Label = fn(&Pair) -> Option<&String>;

/// Names of groups of pairs.
const LEVELS: [(&str, Label); 3] = [
    ("field", |pair| pair.field.as_ref()),
    ("phenomenon", |pair| pair.phenomenon.as_ref()),
    ("uid", |pair| pair.uid.as_ref()),
];

/// A row of the result.
#[derive(Serialize)]
struct Row<'a> {
    event: &'static str,
    by: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    level: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    pairs: u64,
    right: u64,
    ties: u64,
    identical: u64,
    accuracy: f64,
    unequal_lengths: u64,
    words: u64,
    unknown_words: u64,
    unknown_share: f64,
}

/// A pair in JSON.
#[derive(Serialize)]
struct PairRow<'a> {
    event: &'static str,
    file: String,
    line: usize,
    good: &'a str,
    bad: &'a str,
    score_good: f64,
    score_bad: f64,
    outcome: Outcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    phenomenon: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<&'a str>,
}

fn row<'a>(by: Measure, group: Option<(&'static str, &'a str)>, counts: &Accuracy) -> Row<'a> {
    Row {
        event: if group.is_some() { "group" } else { "total" },
        by: by.name(),
        level: group.map(|(level, _)| level),
        name: group.map(|(_, name)| name),
        pairs: counts.pairs,
        right: counts.right,
        ties: counts.ties,
        identical: counts.identical,
        accuracy: counts.share(),
        unequal_lengths: counts.unequal,
        words: counts.words,
        unknown_words: counts.unknown_words,
        unknown_share: counts.unknown_share(),
    }
}

/// The groups of each level in the order of their names, and the total at the end.
fn rows(by: Measure, judged: &[Judged]) -> Vec<Row<'_>> {
    let mut rows = Vec::new();
    for (level, label) in LEVELS {
        let mut groups: BTreeMap<&str, Accuracy> = BTreeMap::new();
        for judged in judged {
            if let Some(name) = label(&judged.pair) {
                groups.entry(name).or_default().add(&judged.counts);
            }
        }
        rows.extend(groups.into_iter().map(|(name, counts)| row(by, Some((level, name)), &counts)));
    }
    let mut all = Accuracy::default();
    judged.iter().for_each(|judged| all.add(&judged.counts));
    rows.push(row(by, None, &all));
    rows
}

fn print(args: &Args, judged: &[Judged], mut out: impl Write) -> io::Result<()> {
    let rows = rows(args.by, judged);
    if args.json {
        judged.iter().try_for_each(|judged| json_line(&mut out, &pair_row(judged)))?;
        rows.iter().try_for_each(|row| json_line(&mut out, row))?;
    } else if args.csv {
        out.write_all(csv(&rows).as_bytes())?;
    } else {
        out.write_all(table(&rows).as_bytes())?;
    }
    let unequal = rows.last().map_or(0, |all| all.unequal_lengths);
    if args.by == Measure::Lp && unequal > 0 {
        note(&format!(
            "{unequal} of {} pairs differ in their number of tokens, and lp prefers the shorter: see --by mean and slor",
            judged.len()
        ));
    }
    out.flush()
}

fn pair_row(judged: &Judged) -> PairRow<'_> {
    let pair = &judged.pair;
    PairRow {
        event: "pair",
        file: pair.file.display().to_string(),
        line: pair.line,
        good: &pair.good,
        bad: &pair.bad,
        score_good: judged.good,
        score_bad: judged.bad,
        outcome: judged.outcome,
        field: pair.field.as_deref(),
        phenomenon: pair.phenomenon.as_deref(),
        uid: pair.uid.as_deref(),
    }
}

fn table(rows: &[Row<'_>]) -> String {
    let head = ["", "pairs", "accuracy %", "ties", "identical", "unknown words %"].map(String::from);
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            let name = match (row.level, row.name) {
                (Some(level), Some(name)) => format!("{level} {name}"),
                _ => "all".into(),
            };
            let counts = [row.pairs, row.ties, row.identical].map(|count| count.to_string());
            let [accuracy, unknown] =
                [row.accuracy, row.unknown_share].map(|share| format!("{:.1}", 100.0 * share));
            let [pairs, ties, identical] = counts;
            vec![name, pairs, accuracy, ties, identical, unknown]
        })
        .collect();
    markdown::table(&head, &cells)
}

fn csv(rows: &[Row<'_>]) -> String {
    let head = "level,name,by,pairs,right,ties,identical,accuracy,unequal_lengths,words,unknown_words\n";
    let line = |row: &Row<'_>| {
        let names = [row.level.unwrap_or("all"), row.name.unwrap_or_default(), row.by].map(String::from);
        let counts = [row.pairs, row.right, row.ties, row.identical].map(|count| count.to_string());
        let rest = [row.unequal_lengths, row.words, row.unknown_words].map(|count| count.to_string());
        csv_line(names.into_iter().chain(counts).chain([format!("{:.6}", row.accuracy)]).chain(rest))
    };
    rows.iter().fold(head.to_owned(), |text, row| text + &line(row))
}
