//! How often each token is in a text: what SLOR takes off and NormLP divides by, so that rare words alone make no sentence bad.

use crate::data::{TextStream, Tokenizer};
use crate::error::{Error, Result};
use std::io::BufRead;
use std::path::Path;

/// ln of each token's frequency; one is added to each count, so that a token that the text lacks has one too.
#[derive(Clone, Debug)]
pub struct Unigrams {
    log_p: Vec<f64>,
}

impl Unigrams {
    /// Counts the tokens of `input`, line ends included, which errors call `source`.
    ///
    /// # Errors
    /// If it cannot be read, or has no token of the vocabulary.
    pub fn count(tokenizer: &Tokenizer, source: &Path, input: impl BufRead) -> Result<Self> {
        let mut counts = vec![1u64; tokenizer.vocab_size()];
        let mut stream = TextStream::new(source, input);
        while let Some(part) = stream.next_part(tokenizer)? {
            tokenizer.cut(&part, |piece| piece.id.into_iter().for_each(|id| counts[id as usize] += 1))?;
        }
        let all: u64 = counts.iter().sum();
        if all == counts.len() as u64 {
            let what = "has no token of the model's vocabulary; --unigrams wants a text like the model's training text";
            return Err(Error::data(source, what));
        }
        let log_p = counts.iter().map(|&count| (count as f64 / all as f64).ln()).collect();
        Ok(Self { log_p })
    }

    /// Σ ln p of `ids`, each below the vocabulary's size.
    pub fn log_p(&self, ids: &[u32]) -> f64 {
        ids.iter().map(|&id| self.log_p[id as usize]).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Unit;
    use crate::predict::tiny;

    #[test]
    fn counts_are_those_of_the_text_and_one_more() {
        let tokenizer = tiny::tokenizer(Unit::Char, "ab\n");
        let counted = Unigrams::count(&tokenizer, Path::new("x"), b"aaa\nb".as_slice()).unwrap();
        let id = |char: &str| tokenizer.words().iter().position(|word| word == char).unwrap() as u32;
        let all = 5.0 + tokenizer.vocab_size() as f64;
        let wanted = (4.0f64 / all).ln() + (2.0f64 / all).ln();
        assert!((counted.log_p(&[id("a"), id("b")]) - wanted).abs() < 1e-12);
        assert!(Unigrams::count(&tokenizer, Path::new("x"), b"".as_slice()).is_err());
    }
}
