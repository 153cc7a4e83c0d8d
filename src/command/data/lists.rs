//! `rhn data lists`: made-up n-best lists of a text, for `rhn rescore` and for training on lists.

use super::super::args::DataArgs;
use super::super::output::note;
use super::settings;
use crate::config::{CorpusConfig, Unit};
use crate::data::made_lists::{Confusions, ListSettings, hypotheses};
use crate::data::{Corpus, Text};
use crate::error::{Error, Result};
use crate::storage::aside::Aside;
use crate::storage::disk;
use rhn_kernels::rng::Rng;
use std::fmt::Write as _;
use std::io::{Write as _, stdout};
use std::num::NonZeroUsize;
use std::path::PathBuf;

const AFTER_HELP: &str = "\
Writes train.tsv, valid.tsv and test.tsv, lines of `id<TAB>score<TAB>hypothesis`, and train.text,
valid.text and test.text, lines of an id and the words, into the directory. A hypothesis is a line
of the text with one to three errors; its score is -1 for each error and normal noise. A line's list
depends on its number, its split and the seed alone. It is to try things with: what a recognizer
does is not made up so.

Examples:
  rhn data lists shakespeare --out lists
  rhn rescore checkpoints/shakespeare lists/test.tsv --references lists/test.text \\
      --tune lists/valid.tsv --references lists/valid.text
  rhn train rescore --init-from checkpoints/shakespeare --corpus lists --out checkpoints/rescoring";

/// The most hypotheses of a list: recognizers write a few hundred.
const MOST_HYPOTHESES: usize = 10_000;

/// The most noise of a score: a larger one says nothing else, and the largest numbers are no scores.
const MOST_NOISE: f64 = 1e6;

/// Make up n-best lists of a text, for rhn rescore and for training on them
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// A text, - for the standard input, a directory with train, valid and test files, or a corpus known by name
    #[arg(value_name = "NAME|PATH|-")]
    text: String,
    /// The directory to write to; files of these names there are replaced
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Hypotheses of a list, at most
    #[arg(long, value_name = "N", default_value = "10")]
    hypotheses: usize,
    /// The standard deviation of a score, in errors
    #[arg(long, value_name = "X", default_value = "2", allow_negative_numbers = true)]
    noise: f64,
    /// What errors and noise are drawn from
    #[arg(long, value_name = "N", default_value = "1")]
    seed: u64,
    /// Words that a line has at least
    #[arg(long, value_name = "N", default_value = "4")]
    min_words: usize,
    /// Lists of a split, at most
    #[arg(long, value_name = "N")]
    count: Option<NonZeroUsize>,
    #[command(flatten)]
    data: DataArgs,
}

/// Writes the lists. Fails if the text cannot be read or is not UTF-8, a split gives no list, or a file cannot be written.
pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    if !(2..=MOST_HYPOTHESES).contains(&args.hypotheses) {
        let what = format!("--hypotheses is {}, wanted 2 to {MOST_HYPOTHESES}", args.hypotheses);
        return Err(Error::config(what).into());
    }
    if !(0.0..=MOST_NOISE).contains(&args.noise) {
        return Err(Error::config(format!("--noise is {}, wanted 0 to {MOST_NOISE}", args.noise)).into());
    }
    let directories = args.data.directories()?;
    let unit = directories.registry.get(&args.text).map_or(Unit::Word, |entry| entry.unit);
    let corpus =
        Corpus::open(&CorpusConfig { name: args.text.clone(), ..settings(&args.text, unit) }, &directories)?;
    let confusions = Confusions::new(corpus.train.as_str()?);
    let splits = [("train", &corpus.train), ("valid", &corpus.valid), ("test", &corpus.test)];
    std::fs::create_dir_all(&args.out).map_err(Error::io(&args.out))?;
    for (split, text) in splits {
        let Written { lists, references, count } = write(args, split, text, &confusions)?;
        let path = |ending: &str| args.out.join(format!("{split}.{ending}"));
        if count == 0 {
            note(&format!("{split}: no line of at least {} words, so no lists", args.min_words));
            for old in ["tsv", "text"].map(path).into_iter().filter(|old| old.exists()) {
                disk::remove_file(&old)?;
                note(&format!("{} was of another text, and is removed", old.display()));
            }
            continue;
        }
        for (ending, text) in [("tsv", lists), ("text", references)] {
            Aside::write(&path(ending), text.as_bytes())?;
        }
        writeln!(stdout(), "{}: {count} lists", args.out.join(format!("{split}.tsv")).display())?;
    }
    Ok(())
}

struct Written {
    lists: String,
    references: String,
    count: usize,
}

fn write(args: &Args, split: &str, text: &Text, confusions: &Confusions<'_>) -> Result<Written> {
    let settings = ListSettings { count: args.hypotheses, noise: args.noise };
    let mut written = Written { lists: String::new(), references: String::new(), count: 0 };
    for (line, number) in text.as_str()?.lines().zip(0..) {
        let words: Vec<&str> = line.split_whitespace().collect();
        if words.len() < args.min_words.max(1) {
            continue;
        }
        if args.count.is_some_and(|most| written.count >= most.get()) {
            break;
        }
        let line = words.join(" ");
        let id = format!("{split}-{:06}", number + 1);
        let mut rng = Rng::keyed(args.seed, &format!("made-up list {split}"), number);
        for (score, hypothesis) in hypotheses(&line, confusions, settings, &mut rng) {
            writeln!(written.lists, "{id}\t{score:.4}\t{hypothesis}").expect("a string takes all");
        }
        writeln!(written.references, "{id} {line}").expect("a string takes all");
        written.count += 1;
    }
    Ok(written)
}
