//! The sentences of plain texts by a classifier: the probability that each needs an edit, and the decision.

use super::{Args, lines, read};
use crate::checkpoint::Checkpoint;
use crate::command::eval::classify::threshold;
use crate::command::output::{Meter, json_line};
use crate::command::score::cell;
use crate::error::{Error, Result};
use crate::eval::classify::{SentenceCutter, logits, probability};
use crate::eval::sentences::{Measure, has_labels};
use crate::model::Classifier;
use serde::Serialize;
use std::io::Write;

/// A sentence in JSON.
#[derive(Serialize)]
struct Row<'a> {
    event: &'static str,
    file: String,
    line: usize,
    probability: f64,
    needs_edit: bool,
    words: usize,
    unknown_words: usize,
    sentence: &'a str,
}

/// All sentences, in JSON.
#[derive(Serialize)]
struct Total {
    event: &'static str,
    sentences: usize,
    need_edit: usize,
    threshold: f64,
    words: usize,
    unknown_words: usize,
}

/// Judges and prints. Fails if a flag is for language models, a text cannot be read, or a number is not finite.
pub(super) fn run(args: &Args, checkpoint: &Checkpoint, mut out: impl Write) -> anyhow::Result<()> {
    check_flags(args)?;
    let threshold = match args.threshold {
        Some(threshold) => threshold,
        None => threshold(checkpoint)?,
    };
    let texts = args.pairs.iter().map(|file| read(file)).collect::<Result<Vec<_>>>()?;
    for text in &texts {
        if has_labels(text.as_str()?) {
            let what = "has lines of a label and a sentence, and a sentence a line is judged: `rhn eval` with --corpus reads labels";
            return Err(Error::data(&text.source, what).into());
        }
    }
    let lines = lines(&texts)?;
    let tokenizer = checkpoint.read_tokenizer()?;
    let mut cutter = SentenceCutter::new(&tokenizer, &checkpoint.config);
    let mut cut = |&(file, number, line): &(_, usize, &str)| {
        cutter.cut(line).map_err(|error| Error::data(file, format!("line {number}: {error}")))
    };
    let sentences = lines.iter().map(&mut cut).collect::<Result<Vec<_>>>()?;
    let words = cutter.words();
    let (device, precision) = args.device.open()?;
    let parameters = checkpoint.parameters(precision.dtype(), &device)?;
    let model = Classifier::frozen(&checkpoint.config, &parameters, &words, precision, &device)?;
    let meter = Meter::new("judging");
    let progress = &mut |done, all| {
        meter.set(done, all);
        Ok(())
    };
    let logits = logits(&model, &sentences, progress)?;
    let mut total =
        Total { event: "total", sentences: lines.len(), need_edit: 0, threshold, words: 0, unknown_words: 0 };
    if !args.json {
        writeln!(out, "probability\tneeds_edit\tsentence")?;
    }
    for ((&(file, line, text), sentence), logit) in lines.iter().zip(&sentences).zip(logits) {
        let probability = probability(logit);
        let needs_edit = probability >= threshold;
        total.need_edit += usize::from(needs_edit);
        total.words += sentence.words;
        total.unknown_words += sentence.unknown_words;
        if !args.json {
            writeln!(out, "{probability:.6}\t{}\t{}", u8::from(needs_edit), cell(text))?;
            continue;
        }
        let row = Row {
            event: "sentence",
            file: file.display().to_string(),
            line,
            probability,
            needs_edit,
            words: sentence.words,
            unknown_words: sentence.unknown_words,
            sentence: text,
        };
        json_line(&mut out, &row)?;
    }
    if args.json {
        json_line(&mut out, &total)?;
    }
    Ok(out.flush()?)
}

fn check_flags(args: &Args) -> Result<()> {
    let language_only = [
        ("--by", args.by != Measure::Lp),
        ("--unigrams", args.unigrams.is_some()),
        ("--unknown-penalty", args.unknown_penalty != 0.0),
        ("--tune", args.tune.is_some()),
        ("--csv", args.csv),
        ("--each", args.each),
    ];
    if let Some((flag, _)) = language_only.iter().find(|(_, given)| *given) {
        let what = format!("{flag} is for language models, and this checkpoint classifies sentences");
        return Err(Error::config(what));
    }
    match args.threshold.filter(|threshold| !(0.0..=1.0).contains(threshold)) {
        None => Ok(()),
        Some(threshold) => {
            Err(Error::config(format!("--threshold is {threshold}, wanted a probability, 0 to 1")))
        }
    }
}
