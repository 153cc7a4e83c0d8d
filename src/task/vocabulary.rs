//! The vocabulary of a run, sorted by falling frequency where the output layer or the loss goes by that: an adaptive softmax
//! cuts its clusters by it, and the words of a sampled loss are drawn by their place in it.

use crate::config::{Recipe, Unit};
use crate::data::{Corpus, Encoded, Tokenizer};
use crate::error::{Error, Result};

/// The vocabulary of the training text, or the one that the recipe names.
///
/// # Errors
/// If there is none, or it must be sorted, is not, and was not taken from this text.
pub fn build(recipe: &Recipe, corpus: &Corpus) -> Result<Tokenizer> {
    let tokenizer = Tokenizer::build(&recipe.corpus, &corpus.train)?;
    if !recipe.needs_sorted_words() {
        return Ok(tokenizer);
    }
    let counts = counts(&tokenizer.encode(&corpus.train)?, tokenizer.vocab_size());
    if first_unsorted(&counts).is_none() {
        return Ok(tokenizer);
    }
    match recipe.corpus.tokenizer {
        // `<unk>`, which stands for all words that were left out, is more frequent than its place says.
        None if tokenizer.unit() == Unit::Word => Ok(tokenizer.sorted_by(&counts)),
        _ => Err(unsorted(recipe, &tokenizer, &counts)),
    }
}

/// Refuses a vocabulary that must be sorted and is not in the text that was encoded with it.
pub fn check(recipe: &Recipe, tokenizer: &Tokenizer, train: &Encoded) -> Result<()> {
    let counts = counts(train, tokenizer.vocab_size());
    match first_unsorted(&counts) {
        None => Ok(()),
        Some(_) => Err(unsorted(recipe, tokenizer, &counts)),
    }
}

/// How often each token is in a text.
fn counts(text: &Encoded, vocab_size: usize) -> Vec<u64> {
    let mut counts = vec![0; vocab_size];
    (0..text.tokens.len()).for_each(|at| counts[text.tokens.get(at) as usize] += 1);
    counts
}

/// The first token that is rarer than the one after it.
fn first_unsorted(counts: &[u64]) -> Option<usize> {
    counts.windows(2).position(|pair| pair[0] < pair[1])
}

fn unsorted(recipe: &Recipe, tokenizer: &Tokenizer, counts: &[u64]) -> Error {
    let at = first_unsorted(counts).unwrap_or_default();
    let token = |id: usize| {
        format!("{:?}, number {id}, is {} times in the training text", tokenizer.token(id as u32), counts[id])
    };
    let why = match (recipe.model.output.needs_sorted_words(), recipe.train.loss.is_sampled()) {
        (true, _) => "model.output.kind = \"adaptive\"".into(),
        (false, false) => "model.embedding.kind = \"adaptive\"".into(),
        (false, true) => format!("train.loss.kind = \"{}\"", recipe.train.loss.as_str()),
    };
    let which = match &recipe.corpus.tokenizer {
        Some(path) => format!("{}'s", path.display()),
        None => format!("this vocabulary of unit {}", tokenizer.unit().as_str()),
    };
    Error::config(format!(
        "{why} needs a vocabulary sorted by falling frequency, and {which} is not: {} and {}. Wanted the words of the \
         training text, corpus.unit = \"word\" without corpus.tokenizer, which are sorted here",
        token(at),
        token(at + 1)
    ))
}

#[cfg(test)]
mod tests {
    use super::first_unsorted;

    #[test]
    fn counts_that_fall_or_stay_are_sorted() {
        assert_eq!(first_unsorted(&[5, 5, 2, 0, 0]), None);
        assert_eq!(first_unsorted(&[5, 2, 3, 0]), Some(1));
        assert_eq!(first_unsorted(&[]), None);
    }
}
