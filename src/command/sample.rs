//! `rhn sample`: text from a trained model, shown as it comes.

mod sentences;

use super::args::{CacheArgs, DeviceArgs};
use super::output::{Treatment, json_line, load_checkpoint, note_unseen, open_checkpoint};
use crate::data::Text;
use crate::error::Result;
use crate::eval::adapt::CacheSettings;
use crate::sample::distribution::Filters;
use crate::sample::text::{Prompt, Sample, hex, write};
use crate::sample::{SampleSettings, Sampler};
use clap::builder::NonEmptyStringValueParser;
use sentences::SentenceArgs;
use serde::Serialize;
use std::borrow::Cow;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Tokens of a sample, unless it says otherwise.
const TOKENS: usize = 500;

const AFTER_HELP: &str = "\
The filters apply in this order: repetition penalty, temperature, top-k, top-p, min-p.
The same seed, prompt and settings give the same text.

Examples:
  rhn sample checkpoints/shakespeare
  rhn sample checkpoints/shakespeare --prompt 'ROMEO:' --tokens 300 --temperature 0.8
  rhn sample checkpoints/shakespeare --prompt 'JULIET:' --stop $'\\n\\n' --samples 3   one speech each
  rhn sample checkpoints/ptb-rhn --prompt 'the company said' --top-p 0.9
  rhn sample checkpoints/shakespeare --samples 100 --json > samples.jsonl
  rhn sample checkpoints/latin1 --prompt-file begin.txt --raw > continued.txt   bytes as they are

Of a sentence VAE, a sentence a line; the likeliest words unless a temperature, a filter or a
beam is given:
  rhn sample checkpoints/ptb-vae --samples 10                             from the prior
  rhn sample checkpoints/ptb-vae --reconstruct 'the cat sat' --samples 3  the mean, and two draws
  rhn sample checkpoints/ptb-vae --from 'i am here' --to 'he was there' --steps 6
  rhn sample checkpoints/ptb-vae --impute 'the ___ sat on the ___' --beam 10";

/// Sample text, streamed as it is drawn
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// A run's directory, or hf://owner/name[@revision]
    checkpoint: PathBuf,
    /// Text to continue; without one, the sample starts a new line
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true,
        allow_hyphen_values = true
    )]
    prompt: String,
    /// A file with the text to continue, of any length; - is the standard input
    #[arg(long, value_name = "FILE", conflicts_with = "prompt")]
    prompt_file: Option<PathBuf>,
    /// Write the bytes as they are, also those that are no UTF-8, and nothing after the sample's end
    #[arg(long, conflicts_with = "json")]
    raw: bool,
    /// Tokens to draw for each sample
    #[arg(long, value_name = "N", default_value_t = TOKENS, allow_negative_numbers = true)]
    tokens: usize,
    /// Samples to draw, each with its own random numbers
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    samples: u64,
    /// Below 1 bolder choices get rarer, above 1 commoner; 0 always takes the likeliest token [default: 1; of a sentence VAE
    /// 0, unless a filter is given]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    temperature: Option<f64>,
    /// Draw from the N likeliest tokens only; 0 from all
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true)]
    top_k: usize,
    /// Draw from the likeliest tokens that together have probability X
    #[arg(long, value_name = "X", default_value_t = 1.0, allow_negative_numbers = true)]
    top_p: f64,
    /// Draw from tokens at least X times as likely as the likeliest
    #[arg(long, value_name = "X", default_value_t = 0.0, allow_negative_numbers = true)]
    min_p: f64,
    /// Make tokens that came lately less likely: logits divided by X where positive, multiplied where not
    #[arg(long, value_name = "X", default_value_t = 1.0, allow_negative_numbers = true)]
    repetition_penalty: f64,
    /// How many of the latest tokens the repetition penalty looks at
    #[arg(long, value_name = "N", default_value_t = 256, allow_negative_numbers = true)]
    repetition_window: usize,
    /// End the sample before TEXT; may be given several times
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, value_parser = NonEmptyStringValueParser::new())]
    stop: Vec<String>,
    /// Let `<unk>` be drawn
    #[arg(long)]
    unknown: bool,
    /// What every draw is made from
    #[arg(long, value_name = "N", default_value_t = 1, allow_negative_numbers = true)]
    seed: u64,
    #[command(flatten)]
    sentence: SentenceArgs,
    #[command(flatten)]
    cache: CacheArgs,
    #[command(flatten)]
    pub(super) device: DeviceArgs,
    /// Print one line of JSON a sample: prompt, text, tokens, nats (by the model as it is, whatever --temperature)
    #[arg(long)]
    json: bool,
}

impl Args {
    /// The prompt's bytes. Fails if its file cannot be read.
    fn given_prompt(&self) -> Result<Vec<u8>> {
        match &self.prompt_file {
            None => Ok(self.prompt.clone().into_bytes()),
            Some(file) if file == Path::new("-") => Ok(Text::read_stdin()?.bytes().to_vec()),
            Some(file) => Ok(Text::read(file)?.bytes().to_vec()),
        }
    }

    fn filters(&self) -> Filters {
        Filters {
            temperature: self.temperature.unwrap_or(1.0),
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
        }
    }

    fn settings(&self, unknown: Option<u32>, cache: Option<CacheSettings>) -> SampleSettings {
        SampleSettings {
            cache,
            filters: self.filters(),
            repetition_window: self.repetition_window,
            unwritten: 0,
            forbidden: unknown.filter(|_| !self.unknown),
            seed: self.seed,
        }
    }
}

/// A sample as `--json` prints it.
#[derive(Serialize)]
struct SampleRow<'a> {
    sample: u64,
    seed: u64,
    prompt: Cow<'a, str>,
    /// The prompt in hexadecimal digits, where it is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_hex: Option<String>,
    #[serde(flatten)]
    drawn: Sample,
}

/// Samples and prints. Fails if a setting is out of its range, the checkpoint is refused, or the standard
/// output cannot be written.
pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    args.filters().validate()?; // before anything is loaded
    let cache = args.cache.settings()?;
    let checkpoint = open_checkpoint(&args.checkpoint)?;
    if checkpoint.config.spec.latent.is_some() {
        return sentences::run(args, checkpoint);
    }
    checkpoint.check_language()?;
    args.sentence.refuse()?;
    let loaded = load_checkpoint(checkpoint, &args.device)?;
    let tokenizer = &loaded.tokenizer;
    let given = args.given_prompt()?;
    let source =
        args.prompt_file.as_ref().map_or_else(|| "the prompt".into(), |file| file.display().to_string());
    let prompt = Prompt::of(tokenizer, &given, &source)?;
    note_unseen(prompt.unseen, "the prompt", Treatment::of(tokenizer));
    let settings = args.settings(tokenizer.unknown_id(), cache);
    let settings = SampleSettings { unwritten: prompt.start(), ..settings };
    let first = Sampler::new(&loaded.model, settings, prompt.context(), 0)?;
    for index in 0..args.samples {
        let sampler = first.fork(index)?;
        if args.json {
            let drawn = write(sampler, tokenizer, &prompt, args.tokens, &args.stop, false, |_| Ok(()))?;
            let prompt = String::from_utf8_lossy(&given);
            let prompt_hex = hex(&given);
            json_line(
                &mut io::stdout().lock(),
                &SampleRow { sample: index + 1, seed: args.seed, prompt, prompt_hex, drawn },
            )?;
        } else {
            head(args, index, &prompt.text)?;
            let drawn = write(sampler, tokenizer, &prompt, args.tokens, &args.stop, args.raw, show)?;
            show(if args.raw || drawn.text.ends_with('\n') { b"" } else { b"\n" })?;
        }
    }
    Ok(())
}

/// What stands before a sample: its number if there are several, and the prompt.
fn head(args: &Args, index: u64, prompt: &[u8]) -> io::Result<()> {
    if args.samples > 1 && !args.raw {
        show(format!("--- sample {} ---\n", index + 1).as_bytes())?;
    }
    match args.raw {
        true => show(prompt),
        false => show(String::from_utf8_lossy(prompt).as_bytes()),
    }
}

fn show(text: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text)?;
    out.flush()
}
