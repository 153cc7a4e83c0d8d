//! Many sentences side by side: those of like length are the batch rows of one window after another.

use super::Sentence;
use crate::error::Result;
use crate::eval::EvaluationProgress;
use crate::eval::score::Cost;
use crate::eval::side_by_side::{self, Begin, Row, fitting};
use crate::model::FrozenModel;
use std::collections::{BTreeMap, BTreeSet};

/// Sentences that are read side by side, at most.
pub const ROWS: usize = 64;

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

    fn row(self) -> Row<'a> {
        let words = self.words.iter().map(|(place, word)| (*place, word.as_bytes())).collect();
        Row { ids: self.ids, words }
    }
}

/// The score of each of `sentences`, each from the zero state. `context`, the line end, predicts the first token; without
/// one it is not scored. A word that the vocabulary lacks is predicted as `<unk>`, and read by its own characters where the model
/// reads any string. Equal sentences are read once, so that their scores are the same bits. At most `rows` are read side by side;
/// `progress` gets the tokens that are done, and all; its error ends the work.
///
/// # Errors
/// If the model gives a number that is not finite, or `progress` says so.
pub fn score_sentences(
    model: &FrozenModel,
    context: Option<u32>,
    sentences: &[Sentence],
    rows: usize,
    progress: EvaluationProgress<'_>,
) -> Result<Vec<SentenceScore>> {
    let line = |sentence| Line::new(sentence, model.reads_any_string());
    let distinct: BTreeSet<Line<'_>> = sentences.iter().map(line).collect();
    let distinct: Vec<Line<'_>> = distinct.into_iter().collect(); // shortest first
    let all: usize = distinct.iter().map(|line| line.length).sum();
    let mut scores: BTreeMap<Line<'_>, SentenceScore> = BTreeMap::new();
    let mut left = distinct.as_slice();
    let mut done = 0;
    let begin = Begin { state: &model.zero_state(1)?, context, word: None };
    while let Some(longest) = left.last() {
        let count = fitting(longest.length, left.len(), rows);
        let (rest, group) = left.split_at(left.len() - count);
        let texts: Vec<Row<'_>> = group.iter().map(|line| line.row()).collect();
        let costs = side_by_side::costs(model, &begin, &texts, None)?;
        scores.extend(group.iter().copied().zip(costs.into_iter().map(sum)));
        left = rest;
        done += group.iter().map(|line| line.length).sum::<usize>();
        progress(done as u64, all as u64)?;
    }
    Ok(sentences.iter().map(|sentence| scores[&line(sentence)]).collect())
}

/// What the tokens of a sentence add up to.
fn sum(costs: Vec<Option<Cost>>) -> SentenceScore {
    let mut score = SentenceScore::default();
    costs.into_iter().flatten().for_each(|cost| score.take(cost.nats));
    score
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::score::Scorer;
    use crate::predict::{STREAM_STEPS, tiny};

    fn score(
        model: &FrozenModel,
        context: Option<u32>,
        texts: &[Vec<u32>],
        rows: usize,
    ) -> Vec<SentenceScore> {
        let sentence = |ids: &Vec<u32>| Sentence {
            ids: ids.clone(),
            words: 0,
            unknown_words: 0,
            unseen: 0,
            unknown: Vec::new(),
        };
        let texts: Vec<Sentence> = texts.iter().map(sentence).collect();
        score_sentences(model, context, &texts, rows, &mut |_, _| Ok(())).unwrap()
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
