//! `rhn data errors`: pairs of a line and the same with a made-up error, for `rhn judge`.

use super::super::args::DataArgs;
use super::super::output::note;
use super::settings;
use crate::data::edits::{Edit, one_edit};
use crate::data::{Corpus, Text};
use crate::error::{Error, Result};
use clap::ValueEnum;
use rhn_kernels::rng::Rng;
use std::io::{BufWriter, Write, stdout};
use std::path::PathBuf;

const AFTER_HELP: &str = "\
Each line of enough words gives one pair, `good<TAB>bad<TAB>kind`, with one error of one kind, each kind that has a place in
the line equally likely. A line's error depends on its number, the seed and the kinds alone. By chance the edited line may be
right too. The words of the kinds delete, double and exchange are English.

Examples:
  rhn data errors shakespeare --count 500 > pairs.tsv
  rhn data errors my-novel.txt --kind swap --kind character --seed 2 > pairs.tsv";

/// Make up an error in each line of a text, as pairs for rhn judge
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// A text, - for the standard input, or a corpus known by name
    #[arg(value_name = "TEXT")]
    text: PathBuf,
    /// The split of a corpus that is known by name; a text of your own is read whole
    #[arg(long, value_enum, default_value = "test")]
    split: Split,
    /// What the errors are drawn from
    #[arg(long, value_name = "N", default_value = "1")]
    seed: u64,
    /// A kind of error; several may be given [default: all]
    #[arg(long = "kind", value_enum, value_name = "KIND")]
    kinds: Vec<Edit>,
    /// Words that a line has at least
    #[arg(long, value_name = "N", default_value = "4")]
    min_words: usize,
    /// Stop after this many pairs
    #[arg(long, value_name = "N")]
    count: Option<usize>,
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
    let kinds = if args.kinds.is_empty() { &Edit::ALL[..] } else { &args.kinds };
    let text = open(args)?;
    let found: Vec<(String, String, Edit)> =
        pairs(text.as_str()?, args, kinds).take(args.count.unwrap_or(usize::MAX)).collect();
    if found.is_empty() {
        let what = format!(
            "no line of at least {} words has a place for an error of the kinds that were asked for",
            args.min_words
        );
        return Err(Error::data(&text.source, what).into());
    }
    if let Some(count) = args.count.filter(|&count| count > found.len()) {
        note(&format!("{} pairs, not {count}: the text has no more", found.len()));
    }
    let mut out = BufWriter::new(stdout().lock());
    writeln!(out, "good\tbad\tphenomenon")?;
    for (good, bad, kind) in found {
        writeln!(out, "{good}\t{bad}\t{}", kind.name())?;
    }
    Ok(out.flush()?)
}

fn open(args: &Args) -> Result<Text> {
    if args.text.as_os_str() == "-" {
        return Text::read_stdin();
    }
    let directories = args.data.directories()?;
    let named = args.text.to_str().and_then(|name| directories.registry.get(name));
    let Some(entry) = named else { return Text::read(&args.text) };
    if entry.images {
        return Err(Error::config(format!("{} is a corpus of images; wanted a text", entry.name)));
    }
    let corpus = Corpus::open(&settings(&entry.name, entry.unit), &directories)?;
    Ok(match args.split {
        Split::Train => corpus.train,
        Split::Valid => corpus.valid,
        Split::Test => corpus.test,
    })
}

/// White space within a line is written as it is, but for tabs, which part the columns.
fn pairs<'a>(
    text: &'a str,
    args: &'a Args,
    kinds: &'a [Edit],
) -> impl Iterator<Item = (String, String, Edit)> + 'a {
    text.lines().zip(0..).filter_map(move |(line, number)| {
        let line = line.trim().replace('\t', " ");
        if line.split_whitespace().count() < args.min_words.max(1) {
            return None;
        }
        let mut rng = Rng::keyed(args.seed, "made-up error", number);
        let (bad, kind) = one_edit(&line, kinds, &mut rng)?;
        Some((line, bad, kind))
    })
}
