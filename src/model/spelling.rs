//! How the words of a vocabulary are spelled: the table of letters behind a char-cnn embedding.
//!
//! A word is `{`, its characters and `}`; `<eos>` is the word `+`, `<unk>` the word `|` (Kim et al., 2016).
//! Letter 0 is the blank, 1 and 2 are the marks, the others follow in the order of their code points.

use crate::error::Result;
use candle_core::{Device, Tensor};
use std::collections::{BTreeMap, BTreeSet};

/// The letters of every word of a vocabulary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spelling {
    /// Different letters, the blank and the marks included.
    pub alphabet_size: usize,
    /// Letters of the longest word, its marks included.
    pub word_length: usize,
    /// `(vocabulary, word_length)`, row by row.
    letters: Vec<u32>,
}

impl Spelling {
    /// Spells `words`, each cut to `max_word_length` letters with its marks.
    pub fn of<'a>(words: impl Iterator<Item = &'a str> + Clone, max_word_length: usize) -> Result<Self> {
        let room = max_word_length.saturating_sub(2);
        let spelled = words.map(|word| letters_of(word).take(room).collect::<Vec<char>>());
        let spelled: Vec<Vec<char>> = spelled.collect();
        let used: BTreeSet<char> = spelled.iter().flatten().copied().filter(|c| !"{}".contains(*c)).collect();
        let numbered = used.into_iter().zip(3u32..);
        let ids: BTreeMap<char, u32> = [('{', 1), ('}', 2)].into_iter().chain(numbered).collect();
        let word_length = spelled.iter().map(|word| word.len() + 2).max().unwrap_or(2);
        let mut letters = Vec::with_capacity(spelled.len() * word_length);
        for word in &spelled {
            letters.push(1);
            letters.extend(word.iter().map(|letter| ids[letter]));
            letters.push(2);
            letters.resize(letters.len().div_ceil(word_length) * word_length, 0);
        }
        Ok(Self { alphabet_size: ids.len() + 1, word_length, letters })
    }

    /// The tables that a model with this vocabulary keeps, by name.
    pub fn tensors(&self) -> Result<BTreeMap<String, Tensor>> {
        let words = self.letters.len() / self.word_length;
        let table = Tensor::from_slice(&self.letters, (words, self.word_length), &Device::Cpu)?;
        Ok(BTreeMap::from([("embedding.spelling".to_string(), table)]))
    }
}

fn letters_of(word: &str) -> impl Iterator<Item = char> {
    match word {
        "<eos>" => "+",
        "<unk>" => "|",
        word => word,
    }
    .chars()
}

#[cfg(test)]
mod tests {
    use super::Spelling;

    #[test]
    fn words_are_marked_padded_and_cut() {
        let words = ["ab", "<eos>", "<unk>", "abcdef"];
        let spelling = Spelling::of(words.into_iter(), 5).unwrap();
        // blank, {, }, then + a b c | in the order of their code points
        assert_eq!((spelling.alphabet_size, spelling.word_length), (8, 5));
        let rows: Vec<_> = spelling.letters.chunks(5).collect();
        assert_eq!(rows, [[1, 4, 5, 2, 0], [1, 3, 2, 0, 0], [1, 7, 2, 0, 0], [1, 4, 5, 6, 2]]);
    }
}
