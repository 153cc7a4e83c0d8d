//! `rhn score`: the surprisal of each token, word, line or document of a text, as a table.

mod blanks;
mod line;
mod row;
mod rows;
mod sums;
mod table;
mod window;

use super::args::{CacheArgs, DeviceArgs};
use super::output::{Treatment, load, note_crlf, note_unseen};
use crate::data::{Piece, Text, TextStream, Tokenizer, packed};
use crate::error::{Error, Result};
use crate::eval::adapt::CacheSettings;
use crate::eval::score::{Cost, Scorer};
use crate::eval::words::Boundary;
use crate::model::FrozenModel;
use blanks::blanks;
use clap::ValueEnum;
use line::Line;
use rows::Rows;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
#[cfg(feature = "serve")]
use std::sync::{Arc, atomic::AtomicBool};
use table::Table;
pub(super) use table::cell;

const AFTER_HELP: &str = "\
A token's surprisal is -log p of it, given all the text before it. The first is predicted after
a line end, and has none if the vocabulary has no line end. The tokens are those of the whole
text, as rhn eval has them; it is read a line at a time, so it may be of any length.

Columns, separated by tabs; what would break a table is written \\t, \\n, \\r, \\\\ or \\u{2028}, and
a cell with a quotation mark is quoted, the mark doubled. `start` and `end` count the characters
(Unicode scalar values) of the file as it is; the JSON has those of bytes too.
  --per token     line, position (both from 1), token, surprisal, start, end, text
                  a symbol that the vocabulary lacks has its own spelling as text, and <unk> or
                  nothing as token: what is left out has a row without a surprisal
  --per word      line, position, word, surprisal, start, end, tokens, unknown
  --per line      line, tokens, unknown (symbols not in the vocabulary), surprisal, mean, text,
                  start, end
  --per document  file, tokens, unknown, surprisal, mean
With several files each row ends with its file. --json ends with a line of totals.
pandas: read_csv(FILE, sep='\\t', keep_default_na=False), R: read.delim(FILE, na.strings='')

Words are what white space separates, whatever the unit; their surprisals sum up those of their
tokens, and a word with a token that has none, or with a symbol that is left out, has none. Of `a cat` in characters, a, blank, c, a, t costing 1, 2, 3, 4 and 5 bits:
  --boundary leading    the blank belongs to the word after it: a 1, cat 14
  --boundary trailing   to the word before it: a 3, cat 12
Where tokens hold a blank and letters, trailing counts the probability that any token with a
blank at its start follows to the word before, and the rest of that token to the word after it
(Pimentel and Meister 2024, Oh and Schuler 2024). A line end is a row of its own by leading and
ends a word by trailing, where the rest of a token with nothing but a line end has a row too.

Examples:
  rhn score checkpoints/ptb-rhn sentences.txt
  rhn score checkpoints/ptb-rhn sentences.txt --per line | sort -t$'\\t' -k5,5nr | head
  rhn score checkpoints/shakespeare stimuli.txt --reset line --per word
  rhn score checkpoints/shakespeare a.txt b.txt --per document --json
  echo 'To be, or not to be' | rhn score checkpoints/shakespeare --per line --json";

/// Score a text: the surprisal of each of its tokens, words or lines, as tab-separated values
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// A run's directory, or hf://owner/name[@revision]
    checkpoint: PathBuf,
    /// The texts, which may be packed (.gz, .zst); - is the standard input
    #[arg(value_name = "FILE", default_value = "-")]
    files: Vec<PathBuf>,
    /// What a row is about
    #[arg(long, value_enum, default_value = "token")]
    per: Per,
    /// Where the model forgets what it read: at each line's or file's begin, or nowhere
    #[arg(long, value_enum, default_value = "document")]
    reset: Reset,
    /// The word that a blank belongs to, with --per word [default: leading]
    #[arg(long, value_enum)]
    boundary: Option<Boundary>,
    /// A text that is read before each text, or each line with --reset line, and not scored
    #[arg(long, value_name = "FILE")]
    context: Option<PathBuf>,
    /// The logarithm's base: 2 gives bits, e nats
    #[arg(long, value_enum, default_value = "2")]
    base: Base,
    #[command(flatten)]
    cache: CacheArgs,
    #[command(flatten)]
    pub(super) device: DeviceArgs,
    /// Print a line of JSON for each row, and one of totals at the end
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Per {
    Token,
    Word,
    Line,
    Document,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Reset {
    /// Nowhere: several files are one text
    None,
    /// Each line is scored by itself, whatever its neighbours are
    Line,
    /// Each file is scored by itself
    Document,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Base {
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

/// Stretches of a text that are scored and held at once, whole windows of them: a line may be of any length.
const AT_ONCE: usize = 1 << 16;

/// With so many bytes of lines no further line is read beside them.
const LINES_AT_ONCE: usize = 1 << 16;

/// A line with more bytes is scored by itself.
const LONG_LINE: usize = 1 << 12;

/// What rows are about, and how they are written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    pub(super) per: Per,
    pub(super) reset: Reset,
    pub(super) boundary: Boundary,
    pub(super) base: Base,
    pub(super) cache: Option<CacheSettings>,
    /// Rows of JSON, not of cells.
    pub(super) json: bool,
    /// Whether there is more than one text, so that rows name theirs.
    pub(super) several: bool,
}

/// Scores and prints. Fails if the checkpoint or a text is refused, or the model gives numbers that are not finite.
pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let inputs = args.files.iter().chain(&args.context).filter(|file| *file == Path::new("-"));
    if inputs.count() > 1 {
        return Err(
            Error::config("the standard input (-) can be read once only, it is asked for twice").into()
        );
    }
    if args.boundary.is_some() && args.per != Per::Word {
        return Err(Error::config("--boundary is for --per word").into());
    }
    let settings = Settings {
        per: args.per,
        reset: args.reset,
        boundary: args.boundary.unwrap_or_default(),
        base: args.base,
        cache: args.cache.settings()?, // before anything is loaded
        json: args.json,
        several: args.files.len() > 1,
    };
    let loaded = load(&args.checkpoint, &args.device)?;
    let tokenizer = &loaded.tokenizer;
    let mut scorer = scorer(&loaded.model, tokenizer, &settings)?;
    let treatment = Treatment::in_text(tokenizer, scorer.reads_any_string());
    if let Some(file) = &args.context {
        let (source, mut input) = open(file)?;
        let mut bytes = Vec::new();
        input.read_to_end(&mut bytes).map_err(|error| packed::unreadable(&source, &error))?;
        let context = Line::cut(Text::new(bytes, &source), tokenizer, scorer.reads_any_string())?;
        note_unseen(context.unseen(), &source.display().to_string(), treatment);
        scorer.set_context(&context.unfinished(tokenizer))?;
    }
    for file in args.files.iter().filter(|file| *file != Path::new("-")) {
        packed::open(file)?; // before anything is printed
    }
    let out = BufWriter::new(io::stdout().lock());
    let mut scoring = Scoring::new(settings, tokenizer, scorer, out)?;
    for file in &args.files {
        let (source, input) = open(file)?;
        let symbols = scoring.text(&source, input)?;
        let name = source.display().to_string();
        note_unseen(symbols.unseen, &name, treatment);
        note_crlf(symbols.crlf, &name, tokenizer);
    }
    Ok(scoring.rows.total()?)
}

/// Writes the rows of one text, and its totals, to `out`. Fails as [`run`], or between two windows once `is_abandoned` says
/// that nobody waits for it.
#[cfg(feature = "serve")]
pub(super) fn score_text(
    model: &FrozenModel,
    tokenizer: &Tokenizer,
    text: &[u8],
    settings: Settings,
    is_abandoned: Arc<AtomicBool>,
    out: impl Write,
) -> anyhow::Result<()> {
    let scorer = scorer(model, tokenizer, &settings)?.until(is_abandoned);
    let mut scoring = Scoring::new(settings, tokenizer, scorer, out)?;
    scoring.text(Path::new("text"), text)?;
    Ok(scoring.rows.total()?)
}

fn scorer(model: &FrozenModel, tokenizer: &Tokenizer, settings: &Settings) -> Result<Scorer> {
    let scorer = Scorer::new(model, tokenizer.line_end_id())?;
    match settings.cache {
        Some(cache) => scorer.with_cache(cache),
        None => Ok(scorer),
    }
}

fn open(file: &Path) -> Result<(PathBuf, Box<dyn Read>)> {
    if file == Path::new("-") {
        return Ok(("standard input".into(), Box::new(io::stdin().lock())));
    }
    Ok((file.to_path_buf(), packed::open(file)?))
}

/// A run over the texts.
struct Scoring<'a, W> {
    settings: Settings,
    tokenizer: &'a Tokenizer,
    scorer: Scorer,
    set: Option<Vec<bool>>,
    rows: Rows<'a, W>,
}

/// What of a text may surprise a reader of its rows.
#[derive(Default)]
struct Symbols {
    /// Symbols that the vocabulary lacks.
    unseen: u64,
    /// Line ends of CR LF.
    crlf: usize,
}

impl Symbols {
    fn take(&mut self, part: &Text, unseen: u64) {
        self.unseen += unseen;
        self.crlf += part.bytes().windows(2).filter(|pair| pair == b"\r\n").count();
    }
}

impl<'a, W: Write> Scoring<'a, W> {
    fn new(settings: Settings, tokenizer: &'a Tokenizer, scorer: Scorer, out: W) -> io::Result<Self> {
        let set = (settings.per == Per::Word && settings.boundary == Boundary::Trailing)
            .then(|| blanks(tokenizer))
            .filter(|set| set.contains(&true));
        let table = Table::new(&settings, out)?;
        let rows = Rows::new(&settings, set.is_some(), tokenizer, table);
        Ok(Self { settings, tokenizer, scorer, set, rows })
    }

    fn text(&mut self, source: &Path, input: impl Read) -> anyhow::Result<Symbols> {
        let mut stream = TextStream::new(source, input);
        if self.settings.reset == Reset::Document {
            self.scorer.restart()?;
        }
        self.rows.begin(source);
        let mut symbols = Symbols::default();
        if self.settings.reset == Reset::Line {
            while self.lines(&mut stream, &mut symbols)? {}
        } else {
            while let Some(part) = stream.next_part(self.tokenizer)? {
                self.part(&part, &mut symbols)?;
            }
        }
        self.rows.end()?;
        Ok(symbols)
    }

    /// Scores the next lines, each by itself: those that are there without waiting, so that a line that somebody types has its
    /// row at once. Whether there were any.
    fn lines(&mut self, stream: &mut TextStream<impl Read>, symbols: &mut Symbols) -> anyhow::Result<bool> {
        let mut lines = Vec::new();
        let mut bytes = 0;
        let ended = loop {
            match stream.next_line() {
                Ok(None) => break Ok(!lines.is_empty()),
                Ok(Some(line)) if line.len() > LONG_LINE || self.settings.cache.is_some() => {
                    self.side_by_side(std::mem::take(&mut lines), symbols)?;
                    self.scorer.restart()?;
                    self.part(&line, symbols)?;
                    break Ok(true);
                }
                Ok(Some(line)) => {
                    bytes += line.len();
                    match Line::cut(line, self.tokenizer, self.scorer.reads_any_string()) {
                        Ok(line) => lines.push(line),
                        Err(error) => break Err(error),
                    }
                    if bytes >= LINES_AT_ONCE || !stream.has_line() {
                        break Ok(true);
                    }
                }
                Err(error) => break Err(error),
            }
        };
        self.side_by_side(lines, symbols)?; // those before an error too
        Ok(ended?)
    }

    fn side_by_side(&mut self, lines: Vec<Line>, symbols: &mut Symbols) -> anyhow::Result<()> {
        let texts: Vec<_> = lines.iter().map(Line::row).collect();
        let Ok(costs) = self.scorer.costs_of_texts(&texts, self.set.as_deref()) else {
            // One after another, so that those before the one that cannot be scored are written.
            return lines.iter().try_for_each(|line| {
                self.scorer.restart()?;
                self.part(&line.text, symbols)
            });
        };
        for (line, costs) in lines.iter().zip(costs) {
            symbols.take(&line.text, line.unseen());
            self.rows.part(&line.text);
            let mut costs = costs.into_iter();
            for piece in &line.pieces {
                self.rows.take(piece, piece.id.and_then(|_| costs.next().flatten()))?;
            }
            self.rows.end_part(true)?;
        }
        self.rows.flush()?; // what is scored can be read
        Ok(())
    }

    /// Scores a part of the text.
    fn part(&mut self, part: &Text, symbols: &mut Symbols) -> anyhow::Result<()> {
        self.rows.part(part);
        let mut unseen = 0;
        let mut held = Vec::with_capacity(AT_ONCE.min(part.len()));
        let mut outcome = Ok(());
        let tokenizer = self.tokenizer;
        tokenizer.cut(part, |piece| {
            unseen += u64::from(!piece.known);
            held.push(piece);
            if outcome.is_ok() && held.len() == AT_ONCE {
                outcome = self.score(part, &mut held);
            }
        })?;
        outcome.and_then(|()| self.score(part, &mut held))?;
        self.rows.end_part(self.settings.reset == Reset::Line)?;
        symbols.take(part, unseen);
        self.rows.flush()?; // what is scored can be read
        Ok(())
    }

    /// Scores stretches of a part. A model that reads bytes reads a word that its vocabulary lacks as it is.
    fn score(&mut self, part: &Text, held: &mut Vec<Piece>) -> anyhow::Result<()> {
        let ids: Vec<u32> = held.iter().filter_map(|piece| piece.id).collect();
        let any = self.scorer.reads_any_string();
        let word =
            |piece: &Piece| (any && !piece.known).then(|| part.bytes()[piece.span.clone()].trim_ascii());
        let words: Vec<Option<&[u8]>> = held.iter().filter(|piece| piece.id.is_some()).map(word).collect();
        let mut costs = self.scorer.costs_of_words(&ids, &words, self.set.as_deref())?.into_iter();
        for piece in held.drain(..) {
            let cost: Option<Cost> = piece.id.and_then(|_| costs.next().flatten());
            self.rows.take(&piece, cost)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_tenth_is_one_in_base_ten() {
        assert!((Base::Ten.of(10f64.ln()) - 1.0).abs() < 1e-12);
    }
}
