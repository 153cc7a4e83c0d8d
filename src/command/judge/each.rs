//! The sentences of plain texts by a language model: a score for each.

use super::{Args, lines, read, scores, unigrams};
use crate::command::output::{json_line, load};
use crate::command::score::cell;
use crate::error::{Error, Result};
use serde::Serialize;
use std::io::Write;

/// A sentence in JSON.
#[derive(Serialize)]
struct Row<'a> {
    event: &'static str,
    by: &'static str,
    file: String,
    line: usize,
    /// None of a sentence without a token that the model can score.
    score: Option<f64>,
    tokens: usize,
    words: usize,
    unknown_words: usize,
    sentence: &'a str,
}

/// Scores and prints. Fails if a text cannot be read, or the model gives numbers that are not finite.
pub(super) fn run(args: &Args, mut out: impl Write) -> anyhow::Result<()> {
    let texts = args.pairs.iter().map(|file| read(file)).collect::<Result<Vec<_>>>()?;
    let lines = lines(&texts)?;
    if lines.is_empty() {
        let what = "has no sentences; wanted one a line";
        return Err(Error::data(&args.pairs[0], what).into());
    }
    if let Some((file, line, _)) = lines.iter().find(|(_, _, text)| text.contains('\t')) {
        let what =
            format!("line {line}: has a tab, and --each reads a sentence a line: take the other columns out");
        return Err(Error::data(*file, what).into());
    }
    let loaded = load(&args.checkpoint, &args.device)?;
    let unigrams = unigrams(args, &loaded.tokenizer)?;
    let sentences: Vec<&str> = lines.iter().map(|&(_, _, text)| text).collect();
    let (cut, scores) = scores(args, &loaded, unigrams.as_ref(), &sentences)?;
    if !args.json {
        writeln!(out, "{}\ttokens\twords\tunknown_words\tsentence", args.by.name())?;
    }
    for ((&(file, line, text), sentence), score) in lines.iter().zip(&cut).zip(scores) {
        let (tokens, words, unknown_words) = (sentence.ids.len(), sentence.words, sentence.unknown_words);
        if args.json {
            let file = file.display().to_string();
            let row = Row {
                event: "sentence",
                by: args.by.name(),
                file,
                line,
                score,
                tokens,
                words,
                unknown_words,
                sentence: text,
            };
            json_line(&mut out, &row)?;
        } else {
            let score = score.map_or_else(|| "NA".into(), |score| format!("{score:.6}"));
            writeln!(out, "{score}\t{tokens}\t{words}\t{unknown_words}\t{}", cell(text))?;
        }
    }
    Ok(out.flush()?)
}
