//! `rhn export`: a checkpoint in the form that other programs load.

use super::output::note;
use crate::checkpoint::{self, Checkpoint};
use crate::export::{Target, export};
use clap::ValueEnum;
use clap::builder::PossibleValue;
use std::io::Write;
use std::path::PathBuf;

const AFTER_HELP: &str = "\
transformers: AutoModelForCausalLM.from_pretrained(DIR, trust_remote_code=True) loads the model,
AutoTokenizer.from_pretrained(DIR) its tokenizer. onnx: a graph of one step and one of a whole
sequence. DIR/README.md says how to use what is there; docs/export.md has the details.

Examples:
  rhn export checkpoints/shakespeare --to transformers shakespeare-hf
  rhn export checkpoints/ptb-rhn --to onnx ptb-onnx";

/// Export a model for other programs: transformers, or anything that runs ONNX
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// A run's directory, or hf://owner/name[@revision]
    checkpoint: PathBuf,
    /// For whom
    #[arg(long, value_enum)]
    to: TargetChoice,
    /// The directory to write, which must be new or empty
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct TargetChoice(Target);

impl ValueEnum for TargetChoice {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self(Target::Transformers), Self(Target::Onnx)]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self.0 {
            Target::Transformers => {
                PossibleValue::new("transformers").help("A directory as the Hugging Face hub has them")
            }
            Target::Onnx => PossibleValue::new("onnx").help("step.onnx and sequence.onnx"),
        })
    }
}

/// Exports, and prints what was written. Fails if the directory is not empty, the checkpoint is refused, or it has a part
/// that the other program cannot be given.
pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let checkpoint = Checkpoint::open(&checkpoint::resolve(&args.checkpoint)?)?;
    if !checkpoint.verified {
        note(&format!("{}: no manifest; the files could not be verified", args.checkpoint.display()));
    }
    let names = export(&checkpoint, args.to.0, &args.directory)?;
    let text = format!("{}: {}\n", args.directory.display(), names.join(", "));
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}
