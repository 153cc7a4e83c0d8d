//! Minimal pairs: which sentence of each has the higher score, by phenomenon.

use super::{Args, scores, unigrams};
use crate::command::output::{json_line, note};
use crate::error::{Error, Result};
use crate::eval::sentences::{Accuracy, Measure, Outcome, Pair, Sentence};
use crate::predict::Loaded;
use crate::study::compare::csv_line;
use crate::study::markdown;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::{self, Write};

/// A pair with its two scores.
pub(super) struct Judged {
    pair: Pair,
    good: f64,
    bad: f64,
    outcome: Outcome,
    counts: Accuracy,
}

/// Each pair with its two scores. Fails if one of its sentences has none.
pub(super) fn judge(args: &Args, loaded: &Loaded, pairs: Vec<Pair>) -> Result<Vec<Judged>> {
    let texts: Vec<&str> = pairs.iter().flat_map(|pair| [pair.good.as_str(), &pair.bad]).collect();
    let unigrams = unigrams(args, &loaded.tokenizer)?;
    let (sentences, scores) = scores(args, loaded, unigrams.as_ref(), &texts)?;
    let both = pairs.into_iter().zip(sentences.chunks(2).zip(scores.chunks(2)));
    both.map(|(pair, (sentences, scores))| {
        let &[Some(good), Some(bad)] = scores else {
            let what =
                format!("line {}: a sentence has no token that the model's vocabulary can score", pair.line);
            return Err(Error::data(&pair.file, what));
        };
        let outcome = Outcome::of(good, bad);
        let counts = counts(&pair, outcome, sentences);
        Ok(Judged { pair, good, bad, outcome, counts })
    })
    .collect()
}

fn counts(pair: &Pair, outcome: Outcome, sentences: &[Sentence]) -> Accuracy {
    let sum = |of: fn(&Sentence) -> usize| sentences.iter().map(|sentence| of(sentence) as u64).sum();
    let mut counts = Accuracy {
        identical: u64::from(pair.good == pair.bad),
        unequal: u64::from(sentences[0].ids.len() != sentences[1].ids.len()),
        words: sum(|sentence| sentence.words),
        unknown_words: sum(|sentence| sentence.unknown_words),
        ..Accuracy::default()
    };
    counts.take(outcome);
    counts
}

/// What the pairs of a group have in common.
type Label = fn(&Pair) -> Option<&String>;

/// Names of groups of pairs.
const LEVELS: [(&str, Label); 3] = [
    ("field", |pair| pair.field.as_ref()),
    ("phenomenon", |pair| pair.phenomenon.as_ref()),
    ("uid", |pair| pair.uid.as_ref()),
];

/// A row of the result.
#[derive(Serialize)]
struct Row<'a> {
    event: &'static str,
    by: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    level: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    pairs: u64,
    right: u64,
    ties: u64,
    identical: u64,
    accuracy: f64,
    unequal_lengths: u64,
    words: u64,
    unknown_words: u64,
    unknown_share: f64,
}

/// A pair in JSON.
#[derive(Serialize)]
struct PairRow<'a> {
    event: &'static str,
    file: String,
    line: usize,
    good: &'a str,
    bad: &'a str,
    score_good: f64,
    score_bad: f64,
    outcome: Outcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    phenomenon: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<&'a str>,
}

fn row<'a>(by: Measure, group: Option<(&'static str, &'a str)>, counts: &Accuracy) -> Row<'a> {
    Row {
        event: if group.is_some() { "group" } else { "total" },
        by: by.name(),
        level: group.map(|(level, _)| level),
        name: group.map(|(_, name)| name),
        pairs: counts.pairs,
        right: counts.right,
        ties: counts.ties,
        identical: counts.identical,
        accuracy: counts.share(),
        unequal_lengths: counts.unequal,
        words: counts.words,
        unknown_words: counts.unknown_words,
        unknown_share: counts.unknown_share(),
    }
}

/// The groups of each level in the order of their names, and the total at the end.
fn rows(by: Measure, judged: &[Judged]) -> Vec<Row<'_>> {
    let mut rows = Vec::new();
    for (level, label) in LEVELS {
        let mut groups: BTreeMap<&str, Accuracy> = BTreeMap::new();
        for judged in judged {
            if let Some(name) = label(&judged.pair) {
                groups.entry(name).or_default().add(&judged.counts);
            }
        }
        rows.extend(groups.into_iter().map(|(name, counts)| row(by, Some((level, name)), &counts)));
    }
    let mut all = Accuracy::default();
    judged.iter().for_each(|judged| all.add(&judged.counts));
    rows.push(row(by, None, &all));
    rows
}

/// Prints the groups and the total, or with `--json` each pair too.
pub(super) fn print(args: &Args, judged: &[Judged], mut out: impl Write) -> io::Result<()> {
    let rows = rows(args.by, judged);
    if args.json {
        judged.iter().try_for_each(|judged| json_line(&mut out, &pair_row(judged)))?;
        rows.iter().try_for_each(|row| json_line(&mut out, row))?;
    } else if args.csv {
        out.write_all(csv(&rows).as_bytes())?;
    } else {
        out.write_all(table(&rows).as_bytes())?;
    }
    let unequal = rows.last().map_or(0, |all| all.unequal_lengths);
    if args.by == Measure::Lp && unequal > 0 {
        note(&format!(
            "{unequal} of {} pairs differ in their number of tokens, and lp prefers the shorter: see --by mean, pen, norm and slor",
            judged.len()
        ));
    }
    out.flush()
}

fn pair_row(judged: &Judged) -> PairRow<'_> {
    let pair = &judged.pair;
    PairRow {
        event: "pair",
        file: pair.file.display().to_string(),
        line: pair.line,
        good: &pair.good,
        bad: &pair.bad,
        score_good: judged.good,
        score_bad: judged.bad,
        outcome: judged.outcome,
        field: pair.field.as_deref(),
        phenomenon: pair.phenomenon.as_deref(),
        uid: pair.uid.as_deref(),
    }
}

fn table(rows: &[Row<'_>]) -> String {
    let head = ["", "pairs", "accuracy %", "ties", "identical", "unknown words %"].map(String::from);
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            let name = match (row.level, row.name) {
                (Some(level), Some(name)) => format!("{level} {name}"),
                _ => "all".into(),
            };
            let counts = [row.pairs, row.ties, row.identical].map(|count| count.to_string());
            let [accuracy, unknown] =
                [row.accuracy, row.unknown_share].map(|share| format!("{:.1}", 100.0 * share));
            let [pairs, ties, identical] = counts;
            vec![name, pairs, accuracy, ties, identical, unknown]
        })
        .collect();
    markdown::table(&head, &cells)
}

fn csv(rows: &[Row<'_>]) -> String {
    let head = "level,name,by,pairs,right,ties,identical,accuracy,unequal_lengths,words,unknown_words\n";
    let line = |row: &Row<'_>| {
        let names = [row.level.unwrap_or("all"), row.name.unwrap_or_default(), row.by].map(String::from);
        let counts = [row.pairs, row.right, row.ties, row.identical].map(|count| count.to_string());
        let rest = [row.unequal_lengths, row.words, row.unknown_words].map(|count| count.to_string());
        csv_line(names.into_iter().chain(counts).chain([format!("{:.6}", row.accuracy)]).chain(rest))
    };
    rows.iter().fold(head.to_owned(), |text, row| text + &line(row))
}
