//! `rhn sample` of a sentence VAE: sentences from the prior, around or between given ones, and gaps that are filled.

use super::super::output::{Treatment, json_line, note_unseen};
use super::{Args, TOKENS, show};
use crate::checkpoint::Checkpoint;
use crate::config::Unit;
use crate::error::{Error, Result};
use crate::predict::LoadedVae;
use crate::sample::SampleSettings;
use crate::sample::distribution::Filters;
use crate::sample::draws::Draws;
use crate::sample::sentences::{SentenceWriter, Written, around, prior};
use candle_core::Tensor;
use serde::Serialize;
use std::io;

/// What stands for a word that is to be filled in.
const GAP: &str = "___";

/// Sentences that a beam holds unless `--beam` says another number.
const BEAM: usize = 10;

/// Rows between two sentences unless `--steps` says another number.
const STEPS: usize = 6;

/// Where the flags stand in the help.
const HEADING: &str = "Of a sentence VAE";

/// What is asked of a sentence VAE.
#[derive(Debug, clap::Args)]
pub(super) struct SentenceArgs {
    /// Write this sentence anew from its vector: the mean first, then draws of the posterior for --samples
    #[arg(long, help_heading = HEADING, value_name = "TEXT", conflicts_with_all = ["from", "impute"])]
    reconstruct: Option<String>,
    /// With --to: the sentences on the line from the vector of this one to that of the other
    #[arg(long, help_heading = HEADING, value_name = "TEXT", requires = "to", conflicts_with = "impute")]
    from: Option<String>,
    /// The end of that line
    #[arg(long, help_heading = HEADING, value_name = "TEXT", requires = "from")]
    to: Option<String>,
    /// Sentences on the line, both ends with them [default: 6]
    #[arg(long, help_heading = HEADING, value_name = "N", requires = "from")]
    steps: Option<usize>,
    /// Fill in the words for which ___ stands, by a beam search
    #[arg(long, help_heading = HEADING, value_name = "TEXT")]
    impute: Option<String>,
    /// The likeliest sentence that a search with N of them at a time finds
    #[arg(long, help_heading = HEADING, value_name = "N", conflicts_with = "temperature")]
    beam: Option<usize>,
}

impl SentenceArgs {
    /// Refuses the flags where the checkpoint is a language model.
    pub(super) fn refuse(&self) -> Result<()> {
        let given = [
            ("--reconstruct", self.reconstruct.is_some()),
            ("--from", self.from.is_some()),
            ("--impute", self.impute.is_some()),
            ("--beam", self.beam.is_some()),
        ];
        match given.iter().find(|(_, given)| *given) {
            None => Ok(()),
            Some((flag, _)) => Err(Error::config(format!(
                "{flag} is for a sentence VAE, and this checkpoint is a language model; --prompt is what it continues"
            ))),
        }
    }
}

/// A sentence as `--json` prints it.
#[derive(Serialize)]
struct SentenceRow<'a> {
    sample: usize,
    seed: u64,
    /// Where it stands between the two given sentences, from 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<f64>,
    text: &'a str,
    tokens: usize,
    /// −ln p of its words and its end given the vector, under the model itself.
    nats: f64,
}

/// Writes sentences and prints them. Fails if a flag is for language models, or as [`super::run`].
pub(super) fn run(args: &Args, checkpoint: Checkpoint) -> anyhow::Result<()> {
    refuse_text_flags(args)?;
    let (device, precision) = args.device.open()?;
    let loaded = LoadedVae::new(checkpoint, precision, &device)?;
    let unknown = loaded.tokenizer.unknown_id().filter(|_| !args.unknown);
    let writer = SentenceWriter::new(&loaded.model, &loaded.tokenizer)?.without(unknown);
    let sentence = &args.sentence;
    if let Some(template) = &sentence.impute {
        if loaded.tokenizer.unit() != Unit::Word {
            let unit = loaded.tokenizer.unit().as_str();
            let what = format!("--impute is for a vocabulary of words, and this one's unit is {unit}");
            return Err(Error::config(what).into());
        }
        refuse_drawing(args)?;
        let places = places(&writer, template)?;
        let filled = writer.fill(&places, sentence.beam.unwrap_or(BEAM))?;
        return Ok(print(args, 0, None, &filled, &fill(&writer, template, &filled))?);
    }
    refuse_what_does_nothing(args)?;
    let vectors = vectors(args, &writer)?;
    let count = vectors.dim(0)?;
    for index in 0..count {
        let z = vectors.narrow(0, index, 1)?;
        let written = match sentence.beam {
            Some(width) => writer.beam(&z, width, args.tokens)?,
            None => {
                let filters = filters(args);
                let settings =
                    SampleSettings { filters, ..args.settings(loaded.tokenizer.unknown_id(), None) };
                writer.draw(&z, &mut Draws::new(settings, index as u64), args.tokens)?
            }
        };
        let position = sentence.from.as_ref().map(|_| index as f64 / (count - 1) as f64);
        print(args, index, position, &written, &writer.text(&written))?;
    }
    Ok(())
}

/// Refuses flags that do nothing for sentences.
fn refuse_text_flags(args: &Args) -> Result<()> {
    let text_only = [
        ("--prompt", !args.prompt.is_empty()),
        ("--prompt-file", args.prompt_file.is_some()),
        ("--raw", args.raw),
        ("--stop", !args.stop.is_empty()),
        ("--cache", args.cache.settings()?.is_some()),
    ];
    match text_only.iter().find(|(_, given)| *given) {
        None => Ok(()),
        Some((flag, _)) => Err(Error::config(format!(
            "{flag} is for language models, and this checkpoint is a sentence VAE, which writes whole sentences: \
             --reconstruct, --from and --to, or --impute take text"
        ))),
    }
}

/// Refuses what a line between two sentences, or a search for the likeliest sentence, has no use for.
fn refuse_what_does_nothing(args: &Args) -> Result<()> {
    let sentence = &args.sentence;
    if sentence.from.is_some() && args.samples != 1 {
        return Err(Error::config(
            "--samples is for the prior or --reconstruct: of a line, --steps says how many",
        ));
    }
    if sentence.beam.is_some() && args.filters() != Filters::default() {
        return Err(Error::config(
            "a filter of probabilities is for sentences that are drawn, and --beam searches for the likeliest one",
        ));
    }
    Ok(())
}

/// Refuses what says how sentences are drawn where the likeliest one is searched for.
fn refuse_drawing(args: &Args) -> Result<()> {
    let drawing = [
        ("--samples", args.samples != 1),
        ("--tokens", args.tokens != TOKENS),
        ("--temperature", args.temperature.is_some()),
        ("a filter of probabilities", args.filters() != Filters::default()),
    ];
    match drawing.iter().find(|(_, given)| *given) {
        None => Ok(()),
        Some((what, _)) => Err(Error::config(format!(
            "{what} is for sentences that are drawn, and --impute searches for the likeliest words: --beam widens the search"
        ))),
    }
}

/// The template with its gaps filled; its own words stay as they are written there, also those that the vocabulary lacks.
fn fill(writer: &SentenceWriter<'_>, template: &str, filled: &Written) -> String {
    let word = |(given, &id): (&str, &u32)| match given {
        GAP => writer.text(&Written { ids: vec![id], nats: 0.0 }),
        given => given.to_owned(),
    };
    template.split_whitespace().zip(&filled.ids).map(word).collect::<Vec<_>>().join(" ")
}

/// The likeliest words, unless something is said of how they are drawn.
fn filters(args: &Args) -> Filters {
    let given = args.filters();
    let is_greedy = args.temperature.is_none() && given == Filters::default();
    if is_greedy { Filters { temperature: 0.0, ..given } } else { given }
}

/// The vectors to write sentences from, `(count, size)`.
fn vectors(args: &Args, writer: &SentenceWriter<'_>) -> Result<Tensor> {
    let sentence = &args.sentence;
    let samples = args.samples as usize;
    let mean = |text: &str| Ok::<_, Error>(writer.posterior(&words(writer, text)?)?.mean);
    match (&sentence.reconstruct, &sentence.from, &sentence.to) {
        (Some(text), ..) => {
            let posterior = writer.posterior(&words(writer, text)?)?;
            around(writer.model(), &posterior, args.seed, samples.max(1))
        }
        (None, Some(from), Some(to)) => line(&mean(from)?, &mean(to)?, sentence.steps.unwrap_or(STEPS)),
        _ => prior(writer.model(), args.seed, samples),
    }
}

/// `steps` vectors from `first` to `last`, both of `(1, size)`, on a straight line.
fn line(first: &Tensor, last: &Tensor, steps: usize) -> Result<Tensor> {
    if steps < 2 {
        return Err(Error::config(format!(
            "--steps is {steps}: a line has its two ends at least, wanted 2 or more"
        )));
    }
    let at = |step: usize| -> Result<Tensor> {
        let t = step as f64 / (steps - 1) as f64;
        Ok(((first * (1.0 - t))? + (last * t)?)?)
    };
    Ok(Tensor::cat(&(0..steps).map(at).collect::<Result<Vec<_>>>()?, 0)?)
}

/// The words of a sentence; says how many the vocabulary lacks.
fn words(writer: &SentenceWriter<'_>, text: &str) -> Result<Vec<u32>> {
    let (ids, unseen) = writer.words(text)?;
    note_unseen(unseen, "the sentence", Treatment::of(writer.tokenizer()));
    Ok(ids)
}

/// The words of a sentence, `None` for each gap. Fails if there is no gap, or a word is not one token.
fn places(writer: &SentenceWriter<'_>, template: &str) -> Result<Vec<Option<u32>>> {
    if template.trim_end().contains('\n') {
        return Err(Error::config(format!("--impute {template:?} is not one sentence: wanted one line")));
    }
    if !template.split_whitespace().any(|word| word == GAP) {
        return Err(Error::config(format!(
            "--impute {template:?} has no gap: wanted {GAP} in place of a word"
        )));
    }
    let place = |word: &str| match word {
        GAP => Ok(None),
        word => match words(writer, word)?.as_slice() {
            [id] => Ok(Some(*id)),
            ids => Err(Error::config(format!(
                "--impute is for a vocabulary of words, and {word:?} is {} tokens of this one",
                ids.len()
            ))),
        },
    };
    template.split_whitespace().map(place).collect()
}

fn print(args: &Args, index: usize, position: Option<f64>, written: &Written, text: &str) -> io::Result<()> {
    if !args.json {
        return show(format!("{text}\n").as_bytes());
    }
    let Written { ids, nats } = written;
    let row =
        SentenceRow { sample: index + 1, seed: args.seed, position, text, tokens: ids.len(), nats: *nats };
    json_line(&mut io::stdout().lock(), &row)
}
