//! Single sentences by a language model's score: the threshold with the best F1 on some labelled sentences decides on others.

use super::{Args, scores, unigrams};
use crate::command::output::{json_line, load};
use crate::data::labelled::Labelled;
use crate::error::{Error, Result};
use crate::eval::decisions::{Counts, Decisions, best_threshold, percent};
use crate::eval::sentences::{Sentence, Unigrams};
use crate::predict::Loaded;
use serde::Serialize;
use std::io::Write;
use std::path::Path;

/// What the decisions are worth, in JSON.
#[derive(Serialize)]
struct Found {
    event: &'static str,
    by: &'static str,
    sentences: u64,
    accuracy: Option<f64>,
    words: u64,
    unknown_words: u64,
    #[serde(flatten)]
    decisions: Decisions,
    tune_f1: Option<f64>,
}

/// Labelled sentences with how much each looks as if it needs an edit: less the score, so that a threshold is a least value.
struct Scored {
    labels: Vec<bool>,
    values: Vec<f64>,
    sentences: Vec<Sentence>,
}

/// Judges and prints. Fails if a file is refused, or a sentence has no score.
pub(super) fn run(args: &Args, tune: &Path, mut out: impl Write) -> anyhow::Result<()> {
    let tuning = Labelled::read(tune)?;
    if let Some(only) =
        [true, false].into_iter().find(|label| tuning.labels().iter().all(|found| found == label))
    {
        let what =
            format!("all labels are {}: a threshold is found between sentences of both", u8::from(only));
        return Err(Error::data(tune, what).into());
    }
    let files = args.pairs.iter().map(|file| Labelled::read(file)).collect::<Result<Vec<_>>>()?;
    let loaded = load(&args.checkpoint, &args.device)?;
    let unigrams = unigrams(args, &loaded.tokenizer)?;
    let score = |files: &[Labelled]| score(args, &loaded, unigrams.as_ref(), files);
    let tuned = score(&[tuning])?;
    let threshold = best_threshold(&tuned.values, &tuned.labels);
    let judged = score(&files)?;
    let sum = |of: fn(&Sentence) -> usize| judged.sentences.iter().map(|sentence| of(sentence) as u64).sum();
    let found = Found {
        event: "total",
        by: args.by.name(),
        sentences: judged.labels.len() as u64,
        accuracy: Counts::of(&judged.values, &judged.labels, threshold).accuracy(),
        words: sum(|sentence| sentence.words),
        unknown_words: sum(|sentence| sentence.unknown_words),
        decisions: Decisions::at(threshold, &judged.values, &judged.labels),
        tune_f1: Counts::of(&tuned.values, &tuned.labels, threshold).f1(),
    };
    if args.json {
        json_line(&mut out, &found)?;
    } else {
        writeln!(
            out,
            "score            −{}, the threshold of which has F1 {} on {}",
            found.by,
            percent(found.tune_f1),
            tune.display()
        )?;
        writeln!(out, "accuracy         {}", percent(found.accuracy))?;
        found.decisions.print(&mut out)?;
        writeln!(out, "sentences        {}", found.sentences)?;
        let unknown = 100.0 * found.unknown_words as f64 / (found.words as f64).max(1.0);
        writeln!(out, "words            {}, {} unknown ({unknown:.1} %)", found.words, found.unknown_words)?;
    }
    Ok(out.flush()?)
}

fn score(args: &Args, loaded: &Loaded, unigrams: Option<&Unigrams>, files: &[Labelled]) -> Result<Scored> {
    let all = files.iter().flat_map(|file| &file.sentences);
    let texts: Vec<&str> = all.clone().map(|sentence| sentence.text.as_str()).collect();
    let (sentences, scores) = scores(args, loaded, unigrams, &texts)?;
    let value = |(text, score): (&&str, Option<f64>)| {
        let none =
            || Error::config(format!("{text:.60?} has no token that the model's vocabulary can score"));
        score.map(|score| -score).ok_or_else(none)
    };
    let values = texts.iter().zip(scores).map(value).collect::<Result<_>>()?;
    Ok(Scored { labels: all.map(|sentence| sentence.needs_edit).collect(), values, sentences })
}
