//! `rhn score`: the surprisal of each token or line of a text, as a table.

use super::args::DeviceArgs;
use super::output::{json_line, load, note_unseen};
use crate::config::Unit;
use crate::data::{Text, Tokenizer};
use crate::error::{Error, Result};
use crate::eval::score::Scorer;
use clap::ValueEnum;
use serde::Serialize;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

const AFTER_HELP: &str = "\
A token's surprisal is -log p of it, given all the text before it. The first is predicted after
a line end, and has none if the vocabulary has no line end. The text is read as one stream, a
line at a time, so it may be of any length; byte pairs are cut line by line.

Columns, with a tab between and \\t, \\n, \\r and \\\\ for what would break them:
  --per token   line, position (both from 1), token, surprisal
  --per line    line, tokens, unknown (symbols not in the vocabulary), surprisal, mean, text

Examples:
  rhn score checkpoints/ptb-rhn sentences.txt
  rhn score checkpoints/ptb-rhn sentences.txt --per line | sort -t$'\\t' -k5,5nr | head
  echo 'To be, or not to be' | rhn score checkpoints/shakespeare --per line --json";

/// Score a text: the surprisal of each of its tokens or lines, as tab-separated values
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// A run's directory, or hf://owner/name[@revision]
    checkpoint: String,
    /// The text; - is the standard input
    #[arg(default_value = "-")]
    file: PathBuf,
    /// What a row is about
    #[arg(long, value_enum, default_value = "token")]
    per: Per,
    /// The logarithm's base: 2 gives bits, e nats
    #[arg(long, value_enum, default_value = "2")]
    base: Base,
    #[command(flatten)]
    pub(super) device: DeviceArgs,
    /// Print a line of JSON for each row
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Per {
    Token,
    Line,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Base {
    #[value(name = "2")]
    Two,
    E,
    #[value(name = "10")]
    Ten,
}

impl Base {
    /// `nats` in this base's unit.
    fn of(self, nats: f64) -> f64 {
        match self {
            Self::Two => nats / std::f64::consts::LN_2,
            Self::E => nats,
            Self::Ten => nats / std::f64::consts::LN_10,
        }
    }
}

/// A row of `--per token`.
#[derive(Serialize)]
struct TokenRow<'a> {
    line: u64,
    position: usize,
    token: &'a str,
    id: u32,
    surprisal: Option<f64>,
}

/// A row of `--per line`.
#[derive(Serialize)]
struct LineRow {
    line: u64,
    tokens: usize,
    unknown: u64,
    surprisal: f64,
    mean: Option<f64>,
    text: String,
}

/// Tokens of a line that are scored and held at once, whole windows of them: a line may be of any length.
const AT_ONCE: usize = 1 << 16;

/// What a line's tokens add up to.
#[derive(Debug, Default)]
struct Sums {
    tokens: usize,
    known: usize,
    nats: f64,
}

impl Sums {
    fn add(&mut self, nats: &[Option<f64>]) {
        self.tokens += nats.len();
        for nats in nats.iter().flatten() {
            self.known += 1;
            self.nats += nats;
        }
    }
}

/// Scores and prints. Fails if the checkpoint or the text is refused, or the model gives numbers that are not
/// finite.
pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let (source, mut input) = open(&args.file)?;
    let loaded = load(&args.checkpoint, &args.device)?;
    let mut scorer = Scorer::new(&loaded.model, loaded.tokenizer.line_end_id())?;
    let mut table = Table { args, tokenizer: &loaded.tokenizer, out: BufWriter::new(io::stdout().lock()) };
    table.header()?;
    let mut lines = Lines { source: &source, number: 0, offset: 0, line: Vec::new() };
    let mut unseen = 0;
    while lines.read(&mut input)? {
        let encoded = lines.encode(&loaded.tokenizer)?;
        unseen += encoded.unseen;
        let mut sums = Sums::default();
        for start in (0..encoded.tokens.len()).step_by(AT_ONCE) {
            let mut ids = vec![0; AT_ONCE.min(encoded.tokens.len() - start)];
            encoded.tokens.copy_to(start, &mut ids);
            let nats = scorer.nats(&ids)?;
            match args.per {
                Per::Token => table.tokens(lines.number, start + 1, &ids, &nats)?,
                Per::Line => sums.add(&nats),
            }
        }
        if args.per == Per::Line {
            table.line(LineRow::new(lines.number, lines.text(), encoded.unseen, &sums, args.base))?;
        }
        table.out.flush()?; // what is scored can be read
    }
    note_unseen(unseen, &source.display().to_string(), loaded.tokenizer.unknown_id().is_some());
    Ok(())
}

fn open(file: &Path) -> Result<(PathBuf, Box<dyn BufRead>)> {
    if file == Path::new("-") {
        return Ok(("standard input".into(), Box::new(io::stdin().lock())));
    }
    let opened = File::open(file).map_err(|error| Error::data(file, format!("cannot be read: {error}")))?;
    Ok((file.to_path_buf(), Box::new(BufReader::new(opened))))
}

/// A text, a line at a time: what is held does not grow with the file.
struct Lines<'a> {
    source: &'a Path,
    number: u64,
    offset: u64,
    line: Vec<u8>,
}

impl Lines<'_> {
    /// Whether there was another line.
    fn read(&mut self, input: &mut impl BufRead) -> Result<bool> {
        self.offset += self.line.len() as u64;
        self.number += 1;
        self.line.clear();
        let length = input.read_until(b'\n', &mut self.line);
        Ok(length.map_err(|error| Error::data(self.source, format!("cannot be read: {error}")))? > 0)
    }

    fn encode(&self, tokenizer: &Tokenizer) -> Result<crate::data::Encoded> {
        if tokenizer.unit() != Unit::Byte {
            std::str::from_utf8(&self.line).map_err(|error| self.not_utf8(error.valid_up_to()))?;
        }
        tokenizer.encode(&Text::new(self.line.clone(), self.source))
    }

    fn not_utf8(&self, valid: usize) -> Error {
        let byte = self.line[valid];
        let offset = self.offset + valid as u64;
        let what = format!(
            "invalid UTF-8: byte 0x{byte:02x} at offset {offset}, line {}; convert it to UTF-8",
            self.number
        );
        Error::data(self.source, what)
    }

    /// The line as people read it, without its end.
    fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.line);
        text.trim_end_matches('\n').trim_end_matches('\r').to_string()
    }
}

/// Writes rows as they were asked for.
struct Table<'a, W: Write> {
    args: &'a Args,
    tokenizer: &'a Tokenizer,
    out: W,
}

impl<W: Write> Table<'_, W> {
    fn header(&mut self) -> io::Result<()> {
        match (self.args.json, self.args.per) {
            (true, _) => Ok(()),
            (false, Per::Token) => self.out.write_all(b"line\tposition\ttoken\tsurprisal\n"),
            (false, Per::Line) => self.out.write_all(b"line\ttokens\tunknown\tsurprisal\tmean\ttext\n"),
        }
    }

    /// Rows of a part of a line that begins at position `first`.
    fn tokens(&mut self, line: u64, first: usize, ids: &[u32], nats: &[Option<f64>]) -> io::Result<()> {
        for ((position, &id), nats) in (first..).zip(ids).zip(nats) {
            let token = self.tokenizer.token(id);
            let surprisal = nats.map(|nats| self.args.base.of(nats));
            if self.args.json {
                json_line(&mut self.out, &TokenRow { line, position, token, id, surprisal })?;
            } else {
                writeln!(self.out, "{line}\t{position}\t{}\t{}", escape(token), cell(surprisal))?;
            }
        }
        Ok(())
    }

    fn line(&mut self, row: LineRow) -> io::Result<()> {
        if self.args.json {
            return json_line(&mut self.out, &row);
        }
        let LineRow { line, tokens, unknown, surprisal, mean, text } = row;
        let surprisal = cell(Some(surprisal));
        let mean = cell(mean);
        let text = escape(&text);
        writeln!(self.out, "{line}\t{tokens}\t{unknown}\t{surprisal}\t{mean}\t{text}")
    }
}

impl LineRow {
    /// The mean is over the tokens that have a surprisal.
    fn new(line: u64, text: String, unknown: u64, sums: &Sums, base: Base) -> Self {
        let surprisal = base.of(sums.nats);
        let mean = (sums.known > 0).then(|| surprisal / sums.known as f64);
        Self { line, tokens: sums.tokens, unknown, surprisal, mean, text }
    }
}

/// A number to six decimals; nothing where there is none.
fn cell(value: Option<f64>) -> String {
    value.map_or_else(String::new, |value| format!("{value:.6}"))
}

/// `text` without a character that would break a table of tab-separated values.
fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\t', "\\t").replace('\n', "\\n").replace('\r', "\\r")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_break_a_table_is_escaped() {
        assert_eq!(escape("a\tb\\n\r\n"), "a\\tb\\\\n\\r\\n");
    }

    #[test]
    fn a_line_sums_what_its_tokens_have_and_divides_once() {
        let half = 2f64.ln(); // one bit
        let row = |nats: &[Option<f64>]| {
            let mut sums = Sums::default();
            nats.chunks(2).for_each(|part| sums.add(part));
            LineRow::new(1, "abc".into(), 0, &sums, Base::Two)
        };
        let three = row(&[None, Some(half), Some(3.0 * half)]);
        assert_eq!((three.tokens, three.surprisal, three.mean), (3, 4.0, Some(2.0)));
        assert_eq!(row(&[None]).mean, None);
    }

    #[test]
    fn one_tenth_is_one_in_base_ten() {
        assert!((Base::Ten.of(10f64.ln()) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn invalid_utf8_is_found_by_its_offset_in_the_whole_text() {
        let mut lines = Lines { source: Path::new("text"), number: 0, offset: 0, line: Vec::new() };
        let mut input: &[u8] = b"one\ntw\xffo\n";
        assert!(lines.read(&mut input).expect("a line") && lines.read(&mut input).expect("another"));
        let message = lines.not_utf8(2).to_string();
        assert!(message.contains("offset 6, line 2"), "{message}");
    }
}
