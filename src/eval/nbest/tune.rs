//! The weight and the word penalty with the fewest word errors on development lists, from a grid.

use super::{NBest, Weights, WordErrors, word_distance};
use std::collections::BTreeMap;

/// Weights of the language model that are tried.
const WEIGHTS: [f64; 19] =
    [0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0, 12.0, 20.0];

/// Penalties a word, in nats, that are tried besides none, each with either sign.
const PENALTIES: [f64; 11] = [0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0];

/// What a search found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tuned {
    /// The best weights.
    pub weights: Weights,
    /// Their errors on the development lists.
    pub errors: WordErrors,
    /// Points of the grid.
    pub trials: usize,
}

/// Searches what is `None` of `weight` and `word_penalty`; `fixed` has the rest. Each list has a reference. Of equal points
/// the one with the smallest penalty is taken, then the one with the smallest weight.
pub fn tune(
    lists: &[NBest],
    references: &BTreeMap<String, String>,
    fixed: Weights,
    weight: Option<f64>,
    word_penalty: Option<f64>,
) -> Tuned {
    let distances: Vec<(Vec<usize>, usize)> =
        lists.iter().filter_map(|list| Some(distances(list, references.get(&list.id)?))).collect();
    let weights = weight.map_or_else(|| WEIGHTS.to_vec(), |weight| vec![weight]);
    let signed = std::iter::once(0.0).chain(PENALTIES.iter().flat_map(|&penalty| [penalty, -penalty]));
    let penalties = word_penalty.map_or_else(|| signed.collect(), |penalty| vec![penalty]);
    let mut best: Option<(WordErrors, Weights)> = None;
    for &word_penalty in &penalties {
        for &weight in &weights {
            let tried = Weights { weight, word_penalty, ..fixed };
            let mut errors = WordErrors::default();
            for (list, (distances, words)) in lists.iter().zip(&distances) {
                errors.add(distances[tried.best(list)], *words);
            }
            if best.is_none_or(|(least, _)| errors.errors < least.errors) {
                best = Some((errors, tried));
            }
        }
    }
    let (errors, weights_found) = best.unwrap_or((WordErrors::default(), fixed));
    Tuned { weights: weights_found, errors, trials: weights.len() * penalties.len() }
}

/// The word errors of each hypothesis, and the words of the reference.
pub fn distances(list: &NBest, reference: &str) -> (Vec<usize>, usize) {
    let of = |text: &str| word_distance(text, reference);
    let errors = list.hypotheses.iter().map(|hypothesis| of(&hypothesis.text)).collect();
    (errors, reference.split_whitespace().count())
}

#[cfg(test)]
mod tests {
    use super::super::list;
    use super::*;

    const FIXED: Weights = Weights { acoustic_scale: 1.0, old_weight: 1.0, weight: 0.5, word_penalty: 0.0 };

    fn references(texts: &[(&str, &str)]) -> BTreeMap<String, String> {
        texts.iter().map(|(id, text)| ((*id).to_owned(), (*text).to_owned())).collect()
    }

    #[test]
    fn the_smallest_weight_that_turns_the_order_is_found() {
        // The second is right, and wins when 4 w > 1.
        let lists = [list("u", &[(-1.0, -6.0, "a x"), (-2.0, -2.0, "a b")])];
        let tuned = tune(&lists, &references(&[("u", "a b")]), FIXED, None, None);
        assert_eq!((tuned.weights.weight, tuned.weights.word_penalty), (0.3, 0.0));
        assert_eq!((tuned.errors.errors, tuned.errors.words, tuned.trials), (0, 2, 19 * 23));
    }

    #[test]
    fn a_penalty_is_found_where_only_lengths_differ_and_what_is_given_stays() {
        // The right one is shorter by a word, and 2.5 nats worse.
        let lists = [list("u", &[(-1.0, 0.0, "a b c"), (-3.5, 0.0, "a b")])];
        let tuned = tune(&lists, &references(&[("u", "a b")]), FIXED, Some(0.5), None);
        assert_eq!((tuned.weights.weight, tuned.weights.word_penalty, tuned.errors.errors), (0.5, 3.0, 0));
        let fixed = tune(&lists, &references(&[("u", "a b")]), FIXED, None, Some(0.0));
        assert_eq!((fixed.weights.word_penalty, fixed.errors.errors), (0.0, 1));
    }
}
