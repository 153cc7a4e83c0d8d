//! `rhn decompress`: the file that `rhn compress` took, byte for byte.

use super::args::ThreadArgs;
use super::compress::{Report, check_out, open, read, write};
use super::output::Meter;
use crate::signals::Signals;
use std::path::PathBuf;
use std::time::Instant;

const AFTER_HELP: &str = "\
It wants the very checkpoint that the file was compressed with: its configuration, tokenizer and
weights. Nothing is written unless every block of the text has the check sum that the file says.

Examples:
  rhn decompress checkpoints/shakespeare play.rhn --out play.txt
  rhn decompress checkpoints/shakespeare play.rhn --out play.txt --threads 1   the same, slower";

/// Decompress a file that `rhn compress` made, with the same model
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// The directory or hf://owner/name[@revision] of the model that it was compressed with
    checkpoint: PathBuf,
    /// The compressed file; - is the standard input
    file: PathBuf,
    /// The file to write; - is the standard output
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    pub(super) threads: ThreadArgs,
    /// Print one line of JSON: bytes in and out, bits a byte, the model's own bits, seconds
    #[arg(long)]
    json: bool,
}

/// Decompresses. Fails if a file cannot be read or written, is damaged or of another model, or a signal asks to stop.
pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let start = Instant::now();
    let signals = Signals::listen()?;
    check_out(&args.file, &args.out)?;
    let file = read(&args.file)?;
    let compressor = open(&args.checkpoint)?;
    let meter = Meter::of_bytes("decompressing");
    let (text, coded) = compressor.decompress(&args.file, &file, &mut |done, total| {
        meter.set(done, total);
        signals.check()
    })?;
    drop(meter);
    write(&args.out, &text)?;
    Report::new(file.len(), text.len(), coded, start).print(text.len(), args.json, &args.out)
}
