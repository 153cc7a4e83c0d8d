//! SRILM's lists, nbest-format(5): one file an utterance, in one of three formats.
//!
//! - `NBestList1.0`, then lines of `(score) w1 w2 …`: one score of all models, in bytelogs;
//! - `NBestList2.0`, the same with `( st: … et: … g: … a: … )` after each word, which is not read;
//! - no header: `ascore lscore nwords w1 w2 …`, logarithms of base 10.
//!
//! The marks `<s>` and `</s>` are no words.

use super::read::{joined, number, text};
use super::{Hypothesis, NBest};
use crate::error::{Error, Result};
use std::path::{Path, PathBuf};

/// Nats of a bytelog: 1024 logarithms of base 1.0001, ln 1.0001 = 1 / 10000.5.
const NATS_PER_BYTELOG: f64 = 1024.0 / 10_000.5;

pub(super) fn read(path: &Path) -> Result<Vec<NBest>> {
    if !path.is_dir() {
        return Ok(vec![read_file(path)?]);
    }
    let mut files: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(path).map_err(Error::io(path))? {
        let file = entry.map_err(Error::io(path))?.path();
        let hidden = file.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if file.is_file() && !hidden {
            files.push(file);
        }
    }
    if files.is_empty() {
        return Err(Error::data(path, "has no files; wanted SRILM's n-best lists, one file an utterance"));
    }
    files.sort();
    files.iter().map(|file| read_file(file)).collect()
}

/// The utterance is called as its file, without the endings of packing and lists.
fn read_file(path: &Path) -> Result<NBest> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let plain = name.trim_end_matches(".gz").trim_end_matches(".zst");
    let endings = [".nbest", ".score", ".txt"];
    let id = endings.iter().find_map(|ending| plain.strip_suffix(ending)).unwrap_or(plain).to_owned();
    let text = text(path)?;
    Ok(NBest { id, hypotheses: parse(path, text.as_str()?)? })
}

fn parse(path: &Path, text: &str) -> Result<Vec<Hypothesis>> {
    let header = text.lines().next().map(str::trim).filter(|line| line.starts_with("NBestList"));
    let mut hypotheses = Vec::new();
    for (line, at) in text.lines().zip(1..).skip(usize::from(header.is_some())) {
        let parsed = match header {
            _ if line.trim().is_empty() => continue,
            None => scored_apart(line),
            Some("NBestList1.0") => scored_together(line, Some),
            Some("NBestList2.0") => {
                let mut depth = 0;
                scored_together(line, |word| outside_parentheses(word, &mut depth))
            }
            Some(other) => {
                let what =
                    format!("line 1: has the header {other:.40?}, wanted NBestList1.0, NBestList2.0 or none");
                return Err(Error::data(path, what));
            }
        };
        let hypothesis = parsed.map_err(|what| Error::data(path, format!("line {at}: {what}")))?;
        hypotheses.push(hypothesis);
    }
    match hypotheses.is_empty() {
        true => Err(Error::data(path, "has no hypotheses; wanted a list of SRILM's nbest-format")),
        false => Ok(hypotheses),
    }
}

fn is_word(word: &&str) -> bool {
    !matches!(*word, "<s>" | "</s>")
}

/// `ascore lscore nwords w1 w2 …`; the number of words is counted again.
fn scored_apart(line: &str) -> std::result::Result<Hypothesis, String> {
    let cells: Vec<&str> = line.split_whitespace().collect();
    let [acoustic, old, count, words @ ..] = &cells[..] else {
        return Err(format!("wanted `ascore lscore nwords words`, found {line:.60?}"));
    };
    number(count, "number of words")?;
    let nats = |cell: &str, what: &str| Ok::<f64, String>(number(cell, what)? * std::f64::consts::LN_10);
    Ok(Hypothesis {
        acoustic: nats(acoustic, "acoustic score")?,
        old: nats(old, "language score")?,
        text: joined(words.iter().copied().filter(is_word)),
        lp: 0.0,
    })
}

/// `(score) w1 w2 …`, the words as `take` leaves them.
fn scored_together<'a>(
    line: &'a str,
    take: impl FnMut(&'a str) -> Option<&'a str>,
) -> std::result::Result<Hypothesis, String> {
    let parts = line.trim().strip_prefix('(').and_then(|line| line.split_once(')'));
    let (score, words) = parts.ok_or_else(|| format!("wanted `(score) words`, found {line:.60?}"))?;
    let acoustic = number(score, "score")? * NATS_PER_BYTELOG;
    let text = joined(words.split_whitespace().filter_map(take).filter(is_word));
    Ok(Hypothesis { acoustic, old: 0.0, text, lp: 0.0 })
}

/// The word, if it is not between a `(` and its `)`, each of which stands alone.
fn outside_parentheses<'a>(word: &'a str, depth: &mut u32) -> Option<&'a str> {
    match word {
        "(" => *depth += 1,
        ")" => *depth = depth.saturating_sub(1),
        _ if *depth == 0 => return Some(word),
        _ => {}
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<(f64, f64, String)> {
        let round = |value: f64| (value * 1e4).round() / 1e4;
        let hypotheses = parse(Path::new("u"), text).unwrap();
        hypotheses.into_iter().map(|each| (round(each.acoustic), round(each.old), each.text)).collect()
    }

    #[test]
    fn the_three_formats_give_nats_and_words() {
        let first = found("NBestList1.0\n(-1000) a b\n(-2000) <s> a </s>\n");
        assert_eq!(first, [(-102.3949, 0.0, "a b".into()), (-204.7898, 0.0, "a".into())]);
        let second = found("NBestList2.0\n(-1000) a ( st: 0.1 et: 0.2 g: -3 a: -4 ) b ( st: 0.2 et: 0.3 )\n");
        assert_eq!(second, first[..1]);
        let third = found("-10 -2 2 a b\n-11 -1.5 4 <s> a x </s>\n");
        assert_eq!(third, [(-23.0259, -4.6052, "a b".into()), (-25.3284, -3.4539, "a x".into())]);
    }

    #[test]
    fn what_is_no_list_is_refused_with_its_line() {
        let message = |text| parse(Path::new("u"), text).unwrap_err().to_string();
        assert!(message("NBestList1.0\n-3 a\n").starts_with("u: line 2: wanted `(score) words`"));
        assert!(message("NBestList3.0\n(1) a\n").contains("line 1: has the header"));
        assert!(message("-1 x 2 a b\n").contains("line 1: the language score is \"x\""));
        assert!(message("NBestList1.0\n").contains("no hypotheses"));
    }
}
