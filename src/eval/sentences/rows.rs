//! Many sentences side by side: those of like length are the batch rows of one window after another.

use super::Sentence;
use crate::error::Result;
use crate::eval::perplexity::finite;
use crate::model::{FrozenModel, Noise};
use crate::predict::{STREAM_STEPS, WindowReader};
use candle_core::Tensor;
use std::collections::{BTreeMap, BTreeSet};

/// Sentences that are read side by side, at most.
pub const ROWS: usize = 64;

/// Tokens of all rows that are read at once, at most: what bounds the logits that are held.
const TOKENS_AT_ONCE: usize = 4096;

/// What a sentence's tokens add up to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SentenceScore {
    /// Σ ln p, in nats.
    pub lp: f64,
    /// The lowest ln p of a token, in nats; 0 if none is scored.
    pub lowest: f64,
    /// Tokens that are scored.
    pub tokens: usize,
}

impl SentenceScore {
    fn take(&mut self, nats: f64) {
        self.lp -= nats;
        self.lowest = self.lowest.min(-nats);
        self.tokens += 1;
    }
}

/// What is read of a sentence: sentences that are the same to the model are equal, and the order is by length.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Line<'a> {
    length: usize,
    ids: &'a [u32],
    /// Where a word is read by its own characters, and the word, in the order of the places.
    words: &'a [(usize, String)],
}

impl<'a> Line<'a> {
    fn new(sentence: &'a Sentence, reads_any_string: bool) -> Self {
        let words = if reads_any_string { sentence.unknown.as_slice() } else { &[] };
        Self { length: sentence.ids.len(), ids: &sentence.ids, words }
    }

    /// The word that is read in place of the token at `place`.
    fn word(self, place: usize) -> Option<&'a [u8]> {
        let found = self.words.binary_search_by_key(&place, |(place, _)| *place).ok()?;
        Some(self.words[found].1.as_bytes())
    }
}

/// The score of each of `sentences`, each from the zero state. `context`, the line end, predicts the first token; without
/// one it is not scored. A word that the vocabulary lacks is predicted as `<unk>`, and read by its own characters where the model
/// reads any string. Equal sentences are read once, so that their scores are the same bits. At most `rows` are read side by side;
/// `progress` gets the tokens that are done, and all.
///
/// # Errors
/// If the model gives a number that is not finite.
pub fn score_sentences(
    model: &FrozenModel,
    context: Option<u32>,
    sentences: &[Sentence],
    rows: usize,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Vec<SentenceScore>> {
    let line = |sentence| Line::new(sentence, model.reads_any_string());
    let distinct: BTreeSet<Line<'_>> = sentences.iter().map(line).collect();
    let distinct: Vec<Line<'_>> = distinct.into_iter().collect(); // shortest first
    let all: usize = distinct.iter().map(|line| line.length).sum();
    let mut scores: BTreeMap<Line<'_>, SentenceScore> = BTreeMap::new();
    let mut left = distinct.as_slice();
    let mut done = 0;
    while let Some(longest) = left.last() {
        let fit = TOKENS_AT_ONCE / longest.length.clamp(1, STREAM_STEPS);
        let count = fit.min(rows).clamp(1, left.len());
        let (rest, group) = left.split_at(left.len() - count);
        scores.extend(group.iter().copied().zip(score_group(model, context, group)?));
        left = rest;
        done += group.iter().map(|line| line.length).sum::<usize>();
        progress(done as u64, all as u64);
    }
    Ok(sentences.iter().map(|sentence| scores[&line(sentence)]).collect())
}

/// The scores of the rows of one batch. A row that is over is filled up with token 0, which no score sees.
fn score_group(model: &FrozenModel, context: Option<u32>, group: &[Line<'_>]) -> Result<Vec<SentenceScore>> {
    let targets =
        |row: usize| if context.is_some() { group[row].ids } else { group[row].ids.get(1..).unwrap_or(&[]) };
    // Which token of a sentence is read at a time; none before the first.
    let place = |at: usize| if context.is_some() { at.checked_sub(1) } else { Some(at) };
    let input = |row: usize, at: usize| place(at).map_or(context, |place| group[row].ids.get(place).copied());
    let rows = group.len();
    let steps = (0..rows).map(|row| targets(row).len()).max().unwrap_or(0);
    let mut scores = vec![SentenceScore::default(); rows];
    let mut reader = WindowReader::new(model, rows)?;
    for start in (0..steps).step_by(STREAM_STEPS) {
        let times = start..steps.min(start + STREAM_STEPS);
        let table = |of: &dyn Fn(usize, usize) -> Option<u32>| {
            let ids: Vec<u32> =
                times.clone().flat_map(|at| (0..rows).map(move |row| of(row, at).unwrap_or(0))).collect();
            Tensor::from_vec(ids, (times.len(), rows), model.device())
        };
        let wanted = table(&|row, at| targets(row).get(at).copied())?;
        let word = |at: usize, row: usize| place(at).and_then(|place| group[row].word(place));
        let words: Vec<Option<&[u8]>> =
            times.clone().flat_map(|at| (0..rows).map(move |row| word(at, row))).collect();
        let ys = reader.hidden_of_words(&table(&input)?, &words)?;
        let nats = finite(&model.nats_of(&ys, &wanted, &Noise::none(), 1.0)?, start)?;
        for (at, nats) in times.zip(nats.chunks(rows)) {
            let running = (0..rows).filter(|&row| at < targets(row).len());
            running.for_each(|row| scores[row].take(nats[row]));
        }
    }
    Ok(scores)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::score::Scorer;
    use crate::predict::tiny;

    fn score(
        model: &FrozenModel,
        context: Option<u32>,
        texts: &[Vec<u32>],
        rows: usize,
    ) -> Vec<SentenceScore> {
        let sentence =
            |ids: &Vec<u32>| Sentence { ids: ids.clone(), words: 0, unknown_words: 0, unknown: Vec::new() };
        let texts: Vec<Sentence> = texts.iter().map(sentence).collect();
        score_sentences(model, context, &texts, rows, &mut |_, _| ()).unwrap()
    }

    #[test]
    fn a_sentence_has_the_score_that_it_has_alone_whatever_the_rows() {
        let model = tiny::drawn(5, 1.0);
        let lengths = [3, STREAM_STEPS + 9, 1, 7, 3, 12, 0, 40];
        let texts: Vec<Vec<u32>> = lengths
            .iter()
            .zip(1..)
            .map(|(&len, k)| (0..len).map(|i| ((i * i + k) % 5) as u32).collect())
            .collect();
        for context in [Some(4), None] {
            let mut scorer = Scorer::new(&model, context).unwrap();
            let alone: Vec<SentenceScore> = texts
                .iter()
                .map(|ids| {
                    scorer.restart().unwrap();
                    let mut sum = SentenceScore::default();
                    scorer.nats(ids).unwrap().into_iter().flatten().for_each(|nats| sum.take(nats));
                    sum
                })
                .collect();
            for rows in [1, 2, 3, ROWS] {
                for (found, wanted) in score(&model, context, &texts, rows).iter().zip(&alone) {
                    assert_eq!(found.tokens, wanted.tokens);
                    assert!((found.lp - wanted.lp).abs() < 1e-10, "{rows} rows: {found:?}, {wanted:?}");
                    assert!((found.lowest - wanted.lowest).abs() < 1e-10, "{rows} rows");
                }
            }
        }
    }

    #[test]
    fn constant_probabilities_add_up() {
        let model = tiny::constant(&[0.5, 0.25, 0.25]);
        let found = score(&model, Some(2), &[vec![0, 1, 2], vec![0, 2]], ROWS);
        let wanted = [(-5.0, 3), (-3.0, 2)].map(|(halvings, tokens)| (halvings * 2f64.ln(), tokens));
        for (found, (lp, tokens)) in found.iter().zip(wanted) {
            assert!((found.lp - lp).abs() < 1e-12 && found.tokens == tokens);
            assert!((found.lowest + 4f64.ln()).abs() < 1e-12);
        }
    }

    #[test]
    fn equal_sentences_have_the_same_bits() {
        let model = tiny::drawn(5, 1.0);
        let text = |k: u32, len: u32| (0..len).map(|i| (i * i + k) % 5).collect::<Vec<u32>>();
        let texts = [text(1, 9), text(2, 9), text(1, 9), text(3, 30), text(1, 9)];
        let found = score(&model, Some(0), &texts, 2);
        assert!(found[0] == found[2] && found[0] == found[4] && found[0] != found[1]);
    }
}
