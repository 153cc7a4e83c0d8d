//! Word errors: substitutions, insertions and deletions against a reference.

use serde::Serialize;

/// Sums over utterances.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct WordErrors {
    /// Words that are substituted, inserted or left out.
    pub errors: u64,
    /// Words of the references.
    pub words: u64,
}

impl WordErrors {
    /// Another utterance.
    pub fn add(&mut self, errors: usize, words: usize) {
        self.errors += errors as u64;
        self.words += words as u64;
    }

    /// Errors a word of the reference; none without a word.
    pub fn rate(&self) -> Option<f64> {
        (self.words > 0).then(|| self.errors as f64 / self.words as f64)
    }
}

/// The fewest words to substitute, insert or leave out in `found` to get `wanted` (Levenshtein, 1966).
pub fn word_distance(found: &str, wanted: &str) -> usize {
    let wanted: Vec<&str> = wanted.split_whitespace().collect();
    let mut row: Vec<usize> = (0..=wanted.len()).collect(); // from no word of `found` to each beginning of `wanted`
    for (at, word) in found.split_whitespace().enumerate() {
        let mut diagonal = row[0];
        row[0] = at + 1;
        for (column, target) in wanted.iter().enumerate() {
            let substituted = diagonal + usize::from(word != *target);
            diagonal = row[column + 1];
            row[column + 1] = substituted.min(row[column] + 1).min(diagonal + 1);
        }
    }
    row[wanted.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distance_counts_substitutions_insertions_and_deletions() {
        let cases = [
            ("a b c", "a b c", 0),
            ("a x c", "a b c", 1),
            ("a c", "a b c", 1),
            ("a b b c", "a b c", 1),
            ("", "a b", 2),
            ("a b", "", 2),
            ("b c d", "a b c", 2),
            ("x y z", "a b c", 3),
        ];
        for (found, wanted, distance) in cases {
            assert_eq!(word_distance(found, wanted), distance, "{found:?} to {wanted:?}");
            assert_eq!(word_distance(wanted, found), distance);
        }
    }

    #[test]
    fn a_rate_is_of_sums_and_may_exceed_one() {
        let mut sum = WordErrors::default();
        sum.add(3, 1);
        sum.add(0, 1);
        assert_eq!((sum.rate(), WordErrors::default().rate()), (Some(1.5), None));
    }
}
