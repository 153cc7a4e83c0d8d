//! `rhn compress`: a file without loss, in the bits that a model's predictions leave.

use super::args::ThreadArgs;
use super::output::{Meter, json_line, note};
use crate::compress::{Compressor, MOST_ROWS, Summary};
use crate::error::{Error, Result};
use crate::readable::{duration, grouped};
use crate::signals::Signals;
use crate::storage::aside::Aside;
use serde::Serialize;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

const AFTER_HELP: &str = "\
The better the model predicts the file, the smaller it gets. Any file comes back byte for byte, with
the same checkpoint, on any number of threads and on any processor; docs/compression.md says how.
It takes as long as the model needs to read the text, a token at a time.

Examples:
  rhn compress checkpoints/shakespeare play.txt --out play.rhn
  rhn compress checkpoints/shakespeare play.txt --out play.rhn --rows 1   smallest, slowest
  rhn decompress checkpoints/shakespeare play.rhn --out play.txt          and back";

/// Compress a file without loss, with a model's predictions
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// A run's directory, or hf://owner/name[@revision]
    checkpoint: PathBuf,
    /// The file to compress; - is the standard input
    file: PathBuf,
    /// The compressed file; - is the standard output
    #[arg(long, value_name = "FILE.rhn")]
    out: PathBuf,
    /// Cut the text into N parts that are read side by side: faster, a few bytes larger for each
    /// [default: one for each 8 KiB, at most 64]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=MOST_ROWS as i64))]
    rows: Option<u16>,
    #[command(flatten)]
    pub(super) threads: ThreadArgs,
    /// Print one line of JSON: bytes in and out, bits a byte, the model's own bits, seconds
    #[arg(long)]
    json: bool,
}

/// The name of the standard input and output.
const STANDARD: &str = "-";

/// Compresses. Fails if a file cannot be read or written, the checkpoint is refused, or a signal asks to stop.
pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let start = Instant::now();
    let signals = Signals::listen()?;
    check_out(&args.file, &args.out)?;
    let text = read(&args.file)?;
    let compressor = open(&args.checkpoint)?;
    let meter = Meter::of_bytes("compressing");
    let rows = args.rows.map(usize::from);
    let (file, coded) = compressor.compress(&text, rows, &mut |done, total| {
        meter.set(done, total);
        signals.check()
    })?;
    drop(meter);
    write(&args.out, &file)?;
    Report::new(text.len(), file.len(), coded, start).print(text.len(), args.json, &args.out)
}

/// Opens a model; notes if its files could not be verified.
pub(super) fn open(argument: &Path) -> Result<Compressor> {
    let compressor = Compressor::open(argument)?;
    if !compressor.verified() {
        note(&format!("{}: no manifest; the files could not be verified", argument.display()));
    }
    Ok(compressor)
}

/// Refuses to write over what is read.
pub(super) fn check_out(file: &Path, out: &Path) -> Result<()> {
    match (file.canonicalize(), out.canonicalize()) {
        (Ok(file), Ok(other)) if file == other => {
            Err(Error::config(format!("--out {} is the file that is read: wanted another", out.display())))
        }
        _ => Ok(()),
    }
}

/// The bytes of a file as they are, whatever its name ends in; with `-` those of the standard input.
pub(super) fn read(path: &Path) -> Result<Vec<u8>> {
    let refuse = |error: io::Error| Error::data(path, format!("cannot be read: {error}"));
    if path != Path::new(STANDARD) {
        return std::fs::read(path).map_err(refuse);
    }
    let mut bytes = Vec::new();
    io::stdin().lock().read_to_end(&mut bytes).map_err(refuse)?;
    Ok(bytes)
}

/// Writes `bytes` to a file, or with `-` to the standard output.
pub(super) fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    if path == Path::new(STANDARD) {
        return Ok(io::stdout().lock().write_all(bytes)?);
    }
    Ok(Aside::write_as_named(path, bytes)?)
}

/// What either direction prints.
#[derive(Serialize)]
pub(super) struct Report {
    bytes_in: usize,
    bytes_out: usize,
    /// Of the compressed file, over the bytes of the text.
    bits_per_byte: Option<f64>,
    #[serde(flatten)]
    coded: Summary,
    seconds: f64,
}

impl Report {
    /// What came in, what goes out, since when.
    pub(super) fn new(bytes_in: usize, bytes_out: usize, coded: Summary, start: Instant) -> Self {
        let seconds = start.elapsed().as_secs_f64();
        Self { bytes_in, bytes_out, bits_per_byte: None, coded, seconds }
    }

    /// Prints it, for a text of `text` bytes; to the standard error if `written` is the standard output.
    pub(super) fn print(mut self, text: usize, json: bool, written: &Path) -> anyhow::Result<()> {
        let compressed = if self.bytes_in == text { self.bytes_out } else { self.bytes_in };
        self.bits_per_byte = (text > 0).then(|| compressed as f64 * 8.0 / text as f64);
        let is_free = written != Path::new(STANDARD);
        let mut out: Box<dyn Write> =
            if is_free { Box::new(io::stdout().lock()) } else { Box::new(io::stderr().lock()) };
        if json {
            return Ok(json_line(&mut out, &self)?);
        }
        let Self { bytes_in, bytes_out, bits_per_byte, coded, seconds } = self;
        write!(out, "{} bytes to {}", grouped(bytes_in as u64), grouped(bytes_out as u64))?;
        if let Some(bits) = bits_per_byte {
            let ideal = coded.ideal_bits / text as f64;
            write!(out, ", {bits:.4} bits a byte of text (the model's own: {ideal:.4})")?;
        }
        if coded.literals > 0 {
            write!(out, "; {} bytes that no token spells", grouped(coded.literals))?;
        }
        let rate = grouped((text as f64 / seconds.max(1e-9)) as u64);
        Ok(writeln!(out, "; {} at {rate} bytes/s", duration(seconds))?)
    }
}
