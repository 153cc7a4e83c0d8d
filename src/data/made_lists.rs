//! Made-up n-best lists: what a recognizer might have heard in each line of a text, so that rescoring and learning from lists
//! can be tried without one.
//!
//! A hypothesis is the line with one to three errors: a word that looks like another of the text's, a function word left out,
//! an article or a verb of another number. Its score is −1 for each error and normal noise, so that the first of a list is often
//! wrong, and the language has to say which is right.

use super::edits::{Edit, one_edit};
use rhn_kernels::rng::Rng;

/// Words of the text of which the most similar one takes a word's place.
const DRAWN: usize = 30;

/// How a list is made up.
#[derive(Clone, Copy, Debug)]
pub struct ListSettings {
    /// Hypotheses of a list, at most.
    pub count: usize,
    /// The standard deviation of a score, in errors.
    pub noise: f64,
}

/// A text's running words, from which those that take another's place are drawn.
pub struct Confusions<'a>(Vec<&'a str>);

impl<'a> Confusions<'a> {
    /// Of a text.
    pub fn new(text: &'a str) -> Self {
        Self(text.split_whitespace().collect())
    }

    /// A word of the text that looks like `word` and is another; none if the text has none.
    fn like(&self, word: &str, rng: &mut Rng) -> Option<&'a str> {
        let draw = |_| self.0[((rng.uniform() * self.0.len() as f64) as usize).min(self.0.len() - 1)];
        let drawn: Vec<&str> = if self.0.is_empty() { Vec::new() } else { (0..DRAWN).map(draw).collect() };
        let others = drawn.into_iter().filter(|other| *other != word);
        others.min_by_key(|other| strsim::damerau_levenshtein(other, word))
    }

    /// `line` with one error.
    fn misheard(&self, line: &str, rng: &mut Rng) -> Option<String> {
        const SUBSTITUTED: f64 = 0.7;
        if rng.uniform() >= SUBSTITUTED {
            let kinds = [Edit::Delete, Edit::Exchange, Edit::FinalS];
            return one_edit(line, &kinds, rng).map(|(edited, _)| edited);
        }
        let mut words: Vec<&str> = line.split(' ').collect();
        let at = ((rng.uniform() * words.len() as f64) as usize).min(words.len() - 1);
        words[at] = self.like(words[at], rng)?;
        Some(words.join(" "))
    }
}

/// Hypotheses of `line`, whose words a blank parts, with their scores, the best score first; the line itself is among those
/// that the best are taken of.
pub fn hypotheses(
    line: &str,
    confusions: &Confusions<'_>,
    settings: ListSettings,
    rng: &mut Rng,
) -> Vec<(f64, String)> {
    // Some edits have no place, or give what is there: a short line has few.
    const TRIES: usize = 3;
    const FRUITLESS: usize = 1000;
    let mut found = vec![(0.0, line.to_owned())];
    let mut in_vain = 0;
    for _ in 0..TRIES.saturating_mul(settings.count) {
        if found.len() > settings.count || in_vain == FRUITLESS {
            break;
        }
        in_vain += 1;
        let errors = match rng.uniform() {
            few if few < 0.5 => 1,
            few if few < 0.8 => 2,
            _ => 3,
        };
        let mut edited = Some(line.to_owned());
        for _ in 0..errors {
            edited = edited.and_then(|line| confusions.misheard(&line, rng));
        }
        let Some(edited) = edited.filter(|edited| found.iter().all(|(_, other)| other != edited)) else {
            continue;
        };
        found.push((-f64::from(errors), edited));
        in_vain = 0;
    }
    for (score, _) in &mut found {
        *score += settings.noise * normal(rng);
    }
    found.sort_by(|one, other| other.0.total_cmp(&one.0));
    found.truncate(settings.count);
    found
}

/// A number from the standard normal distribution (Box and Muller, 1958).
fn normal(rng: &mut Rng) -> f64 {
    let radius = (-2.0 * (1.0 - rng.uniform()).ln()).sqrt();
    radius * (std::f64::consts::TAU * rng.uniform()).cos()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "the cat sat on the mat\nthe hat is in a bag\nthe cats are on the mats\n";

    fn list(seed: u64, noise: f64) -> Vec<(f64, String)> {
        let mut rng = Rng::keyed(seed, "test", 0);
        let settings = ListSettings { count: 6, noise };
        hypotheses("the cat sat on the mat", &Confusions::new(TEXT), settings, &mut rng)
    }

    #[test]
    fn hypotheses_differ_and_fall_in_score() {
        for seed in 0..20 {
            let list = list(seed, 2.0);
            assert_eq!(list.len(), 6);
            assert!(list.windows(2).all(|pair| pair[0].0 >= pair[1].0));
            let mut texts: Vec<&String> = list.iter().map(|(_, text)| text).collect();
            texts.sort();
            texts.dedup();
            assert_eq!(texts.len(), 6);
        }
    }

    #[test]
    fn without_noise_the_line_comes_first_and_with_it_not_always() {
        let is_first =
            |noise| (0..50).filter(|&seed| list(seed, noise)[0].1 == "the cat sat on the mat").count();
        assert_eq!(is_first(0.0), 50);
        assert!((5..30).contains(&is_first(2.0)), "{}", is_first(2.0));
    }

    #[test]
    fn what_takes_a_words_place_looks_like_it() {
        let mut rng = Rng::keyed(1, "test", 1);
        let near = Confusions::new(TEXT).like("cat", &mut rng).unwrap();
        assert!(["hat", "mat", "cats", "sat"].contains(&near), "{near}");
        assert_eq!(Confusions::new("").like("cat", &mut rng), None);
        assert_eq!(Confusions::new("cat").like("cat", &mut rng), None);
    }
}
