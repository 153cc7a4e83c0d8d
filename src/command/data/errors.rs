//! `rhn data errors`: pairs of a line and the same with a made-up error, for `rhn judge`; or lines labelled by whether they
//! have one, for a classifier.

use super::super::args::DataArgs;
use super::super::output::note;
use super::settings;
use crate::data::edits::{Edit, one_edit};
use crate::data::{Corpus, Text};
use crate::error::{Error, Result};
use clap::ValueEnum;
use rhn_kernels::rng::Rng;
use std::io::{BufWriter, Write, stdout};
use std::num::NonZeroUsize;
use std::path::PathBuf;

const AFTER_HELP: &str = "\
Each line of enough words gives one pair, `good<TAB>bad<TAB>kind`, with one error of one kind, each kind that has a place in
the line equally likely; an edit of a character that by chance changes nothing counts as no place. A line's error depends on its
number, the seed and the kinds alone. By chance the edited line may be right too. The words of the kinds delete, double and
exchange are English.

With --labels each line comes once, as `label<TAB>sentence<TAB>kind`: as it is (label 0), or with its error (label 1).

Examples:
  rhn data errors shakespeare --count 500 > pairs.tsv
  rhn data errors my-novel.txt --kind swap --kind character --seed 2 > pairs.tsv
  rhn data errors shakespeare --split train --labels 0.5 > errors/train.tsv";

/// Make up errors in the lines of a text: pairs for rhn judge, or labelled sentences
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// A text, - for the standard input, or a corpus known by name
    #[arg(value_name = "TEXT")]
    text: PathBuf,
    /// The split of a corpus that is known by name [default: test]; a text of your own is read whole
    #[arg(long, value_enum)]
    split: Option<Split>,
    /// What the errors are drawn from
    #[arg(long, value_name = "N", default_value = "1")]
    seed: u64,
    /// A kind of error; several may be given [default: all]
    #[arg(long = "kind", value_enum, value_name = "KIND")]
    kinds: Vec<Edit>,
    /// Words that a line has at least
    #[arg(long, value_name = "N", default_value = "4")]
    min_words: usize,
    /// Write each line once, labelled by whether it has its error, which it has with this probability
    #[arg(long, value_name = "SHARE")]
    labels: Option<f64>,
    /// Stop after this many pairs, or lines
    #[arg(long, value_name = "N")]
    count: Option<NonZeroUsize>,
    #[command(flatten)]
    data: DataArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Split {
    Train,
    Valid,
    Test,
}

/// Writes the pairs. Fails if the text cannot be read or is not UTF-8, or gives no pair.
pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let mut kinds = Vec::new();
    for &kind in if args.kinds.is_empty() { &Edit::ALL[..] } else { &args.kinds } {
        if !kinds.contains(&kind) {
            kinds.push(kind); // given twice it is no likelier
        }
    }
    if let Some(share) = args.labels.filter(|share| !(0.0..=1.0).contains(share)) {
        return Err(Error::config(format!("--labels is {share}, wanted a probability, 0 to 1")).into());
    }
    let text = open(args)?;
    let found: Vec<Made> =
        pairs(text.as_str()?, args, &kinds).take(args.count.map_or(usize::MAX, NonZeroUsize::get)).collect();
    if found.is_empty() {
        let what = format!(
            "no line of at least {} words has a place for an error of the kinds that were asked for",
            args.min_words
        );
        return Err(Error::data(&text.source, what).into());
    }
    if let Some(count) = args.count.filter(|count| count.get() > found.len()) {
        let what = if args.labels.is_some() { "lines" } else { "pairs" };
        note(&format!("{} {what}, not {count}: the text has no more", found.len()));
    }
    let mut out = BufWriter::new(stdout().lock());
    writeln!(
        out,
        "{}",
        if args.labels.is_some() { "label\tsentence\tkind" } else { "good\tbad\tphenomenon" }
    )?;
    for Made { number, good, bad, kind } in found {
        match args.labels {
            None => writeln!(out, "{good}\t{bad}\t{}", kind.name())?,
            Some(share) if Rng::keyed(args.seed, "labelled error", number).uniform() < share => {
                writeln!(out, "1\t{bad}\t{}", kind.name())?;
            }
            Some(_) => writeln!(out, "0\t{good}\t")?,
        }
    }
    Ok(out.flush()?)
}

fn open(args: &Args) -> Result<Text> {
    let is_input = args.text.as_os_str() == "-";
    let directories = args.data.directories()?;
    let named = args.text.to_str().and_then(|name| directories.registry.get(name));
    let Some(entry) = named.filter(|_| !is_input) else {
        if args.split.is_some() {
            return Err(Error::config(format!(
                "--split is for a corpus known by name, and {} is read whole: give the file of each split",
                args.text.display()
            )));
        }
        return if is_input { Text::read_stdin() } else { Text::read(&args.text) };
    };
    if entry.images {
        return Err(Error::config(format!("{} is a corpus of images; wanted a text", entry.name)));
    }
    let corpus = Corpus::open(&settings(&entry.name, entry.unit), &directories)?;
    Ok(match args.split.unwrap_or(Split::Test) {
        Split::Train => corpus.train,
        Split::Valid => corpus.valid,
        Split::Test => corpus.test,
    })
}

/// A line of the text, and the same with an error.
struct Made {
    /// Which line.
    number: u64,
    good: String,
    bad: String,
    kind: Edit,
}

/// White space within a line is written as it is, but for tabs, which part the columns.
fn pairs<'a>(text: &'a str, args: &'a Args, kinds: &'a [Edit]) -> impl Iterator<Item = Made> + 'a {
    text.lines().zip(0..).filter_map(move |(line, number)| {
        let line = line.trim().replace('\t', " ");
        if line.split_whitespace().count() < args.min_words.max(1) {
            return None;
        }
        let mut rng = Rng::keyed(args.seed, "made-up error", number);
        let (bad, kind) = one_edit(&line, kinds, &mut rng)?;
        Some(Made { number, good: line, bad, kind })
    })
}
