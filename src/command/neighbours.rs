//! `rhn neighbours`: the words whose vectors are nearest to a word's.

use super::args::DeviceArgs;
use super::output::{json_line, note, open_checkpoint};
use super::score::cell;
use crate::data::Text;
use crate::error::{Error, Result};
use crate::eval::neighbours::{Found, Neighbourhood};
use crate::model::layers::VectorStage;
use serde::Serialize;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

const AFTER_HELP: &str = "\
Vectors are those that enter the recurrent layers, of a language model, a sentence VAE or a
classifier of sentences; near is by their cosine. A model that reads characters has a vector for a
word that its vocabulary lacks too: over bytes for any, else for one of characters that the
vocabulary has. Put a word that begins with - behind --. What is printed is a line for each
neighbour, nearest first: the word, its neighbour, the cosine. With --json it is a line for each
word:
  {\"word\":…,\"known\":…,\"neighbours\":[{\"word\":…,\"cosine\":…},…]}

Examples:
  rhn neighbours checkpoints/ptb-char-cnn-small while richard looooook
  rhn neighbours checkpoints/ptb-char-cnn-small --before-highway --count 4 while
  cut -f1 words.tsv | rhn neighbours checkpoints/ptb-char-cnn-small - --json";

/// List the words of the vocabulary whose input vectors are nearest to a word's
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// A run's directory, or hf://owner/name[@revision]
    checkpoint: PathBuf,
    /// Words, in the vocabulary or not; - for those of the standard input, between blanks or line ends
    #[arg(value_name = "WORD", required = true)]
    words: Vec<String>,
    /// How many neighbours to list
    #[arg(long, value_name = "N", default_value = "10", value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,
    /// Compare what enters the highway layers over characters, not what leaves them
    #[arg(long)]
    before_highway: bool,
    #[command(flatten)]
    pub(super) device: DeviceArgs,
    /// Print a line of JSON for each word
    #[arg(long)]
    json: bool,
}

/// A word in JSON.
#[derive(Serialize)]
struct Row<'a> {
    word: &'a str,
    known: bool,
    neighbours: Vec<Near<'a>>,
}

#[derive(Serialize)]
struct Near<'a> {
    word: &'a str,
    cosine: f64,
}

/// Finds and prints them. Fails if the checkpoint is refused or a word has no vector.
pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let words = words(&args.words)?;
    let checkpoint = open_checkpoint(&args.checkpoint)?;
    let (device, precision) = args.device.open()?;
    let stage = if args.before_highway { VectorStage::BeforeHighway } else { VectorStage::Whole };
    let neighbourhood = Neighbourhood::new(&checkpoint, stage, precision, &device)?;
    let mut out = BufWriter::new(io::stdout().lock());
    if !args.json {
        writeln!(out, "word\tneighbour\tcosine")?;
    }
    for word in &words {
        let found = neighbourhood.of(word, args.count as usize)?;
        if let Some(read) = found.cut_to {
            note(&format!("{word:?} is longer than the model reads: its first {read} characters are taken"));
        }
        print(args.json, word, &found, &mut out)?;
    }
    Ok(out.flush()?)
}

/// Those of the arguments; `-` stands for the words of the standard input.
fn words(arguments: &[String]) -> Result<Vec<String>> {
    if arguments.iter().filter(|word| *word == "-").count() > 1 {
        return Err(Error::config("the standard input (-) can be read once only, it is asked for twice"));
    }
    let mut words = Vec::new();
    for argument in arguments {
        if argument == "-" {
            words.extend(Text::read_stdin()?.as_str()?.split_whitespace().map(String::from));
        } else {
            words.push(argument.clone());
        }
    }
    if words.is_empty() {
        return Err(Error::data("standard input", "has no word"));
    }
    if words.iter().any(String::is_empty) {
        return Err(Error::config("an empty word has no neighbours"));
    }
    Ok(words)
}

fn print(json: bool, word: &str, found: &Found<'_>, out: &mut impl Write) -> io::Result<()> {
    if json {
        let near = found.neighbours.iter().map(|near| Near { word: near.word, cosine: near.cosine });
        return json_line(out, &Row { word, known: found.is_known, neighbours: near.collect() });
    }
    found
        .neighbours
        .iter()
        .try_for_each(|near| writeln!(out, "{}\t{}\t{:.4}", cell(word), cell(near.word), near.cosine))
}
