//! How the words of a vocabulary are spelled: the table of characters behind an embedding that reads these.
//!
//! A word is `{`, its characters and `}`; `<eos>` is the word `+`, `<unk>` the word `|` (Kim et al., 2016).
//! Character 0 is the blank, 1 and 2 are the marks, the others follow in the order of their code points.
//!
//! Over bytes (Józefowicz et al., 2016, and their code lm_1b) the alphabet is the same for every text, so that any string can be
//! spelled: byte b is character b + 1, then come four marks. A word is `<bow>`, its bytes and `<eow>`; a sentence's begin and
//! end are `<bow><bos><eow>` and `<bow><eos><eow>`.

use crate::error::{Error, Result};
use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The table's name among a model's tensors.
pub(super) const TABLE: &str = "embedding.spelling";

/// What a word is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Characters {
    /// Unicode scalar values, those that the vocabulary has
    #[default]
    Unicode,
    /// The bytes of its UTF-8, all 256 of them
    Bytes,
}

impl Characters {
    pub(super) fn is_unicode(&self) -> bool {
        *self == Self::Unicode
    }

    /// Spells `words`, each cut to `max_word_length` characters with its marks.
    pub(super) fn spell(self, words: &[String], max_word_length: usize) -> Result<Spelling> {
        let words = words.iter().map(String::as_str);
        match self {
            Self::Unicode => Spelling::of(words, max_word_length),
            Self::Bytes => Ok(Spelling::of_bytes(words, max_word_length)),
        }
    }
}

/// What `max_word_length` is unless given.
pub(super) fn longest_word() -> usize {
    65 // the default of Kim et al.'s code
}

/// The marks behind the bytes.
const BEGIN_OF_WORD: u32 = 257;
const END_OF_WORD: u32 = 258;
const BEGIN_OF_SENTENCE: u32 = 259;
const END_OF_SENTENCE: u32 = 260;

/// The blank, the bytes and the marks.
const BYTE_ALPHABET: usize = 261;

/// The characters of `word` over bytes: `length` of them, cut or padded with the blank.
pub(super) fn spell_bytes(word: &[u8], length: usize) -> Vec<u32> {
    let bytes = || word.iter().map(|&byte| u32::from(byte) + 1).take(length.saturating_sub(2)).collect();
    let within: Vec<u32> = match word {
        b"<bos>" | b"<s>" | b"<S>" => vec![BEGIN_OF_SENTENCE],
        b"<eos>" | b"</s>" | b"</S>" => vec![END_OF_SENTENCE],
        _ => bytes(),
    };
    let mut spelled = [&[BEGIN_OF_WORD], within.as_slice(), &[END_OF_WORD]].concat();
    spelled.resize(length, 0);
    spelled
}

/// [`spell_bytes`] of each of `words`: `(words, length)`.
pub(super) fn spell_all(words: &[&[u8]], length: usize, device: &Device) -> Result<Tensor> {
    let characters: Vec<u32> = words.iter().flat_map(|word| spell_bytes(word, length)).collect();
    Ok(Tensor::from_vec(characters, (words.len(), length), device)?)
}

/// What the spelling of a vocabulary adds to the sizes of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpellingSize {
    /// Distinct characters, the blank and the marks included.
    pub alphabet_size: usize,
    /// Characters of the longest word, its marks included.
    pub word_length: usize,
}

/// The characters of every word of a vocabulary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spelling {
    /// The alphabet's and the table's size.
    pub size: SpellingSize,
    /// The characters from number 1 on: the marks, then the others; none over bytes.
    pub alphabet: Vec<char>,
    /// `(vocabulary, word_length)`, row by row.
    characters: Vec<u32>,
    /// Characters that a word is cut to, its marks included.
    max_word_length: usize,
}

impl Spelling {
    /// Spells `words`, each cut to `max_word_length` characters with its marks.
    pub fn of<'a>(words: impl Iterator<Item = &'a str> + Clone, max_word_length: usize) -> Result<Self> {
        let longest = max_word_length.saturating_sub(2);
        let spelled = words.map(|word| characters_of(word).take(longest).collect::<Vec<char>>());
        let spelled: Vec<Vec<char>> = spelled.collect();
        let used: BTreeSet<char> = spelled.iter().flatten().copied().filter(|c| !"{}".contains(*c)).collect();
        let alphabet: Vec<char> = ['{', '}'].into_iter().chain(used).collect();
        let ids: BTreeMap<char, u32> = alphabet.iter().copied().zip(1..).collect();
        let word_length = spelled.iter().map(|word| word.len() + 2).max().unwrap_or(2);
        let mut characters = Vec::with_capacity(spelled.len() * word_length);
        for word in &spelled {
            characters.push(1);
            characters.extend(word.iter().map(|character| ids[character]));
            characters.push(2);
            characters.resize(characters.len().div_ceil(word_length) * word_length, 0);
        }
        let size = SpellingSize { alphabet_size: alphabet.len() + 1, word_length };
        Ok(Self { size, alphabet, characters, max_word_length })
    }

    /// Spells `words` over bytes, each in `word_length` characters, so that any other word can be spelled like them.
    pub fn of_bytes<'a>(words: impl Iterator<Item = &'a str>, word_length: usize) -> Self {
        let size = SpellingSize { alphabet_size: BYTE_ALPHABET, word_length };
        let characters = words.flat_map(|word| spell_bytes(word.as_bytes(), word_length)).collect();
        Self { size, alphabet: Vec::new(), characters, max_word_length: word_length }
    }

    /// The tables that a model with this vocabulary keeps, by name.
    pub fn tensors(&self) -> Result<BTreeMap<String, Tensor>> {
        Ok(BTreeMap::from([(TABLE.to_string(), self.tensor()?)]))
    }

    /// The characters of each word of the vocabulary, `(vocabulary, word_length)` of u32.
    pub fn tensor(&self) -> Result<Tensor> {
        let shape = (self.characters.len() / self.size.word_length, self.size.word_length);
        Ok(Tensor::from_slice(&self.characters, shape, &Device::Cpu)?)
    }

    /// A word that the vocabulary may lack, spelled as its words are: `(1, length)` of u32, as long as the longest word of
    /// the vocabulary or longer.
    ///
    /// # Errors
    /// If it has a character that no word of the vocabulary has.
    pub fn spell(&self, word: &str) -> Result<Tensor> {
        let mut characters = match self.is_of_bytes() {
            true => spell_bytes(word.as_bytes(), self.size.word_length),
            false => {
                let within = characters_of(word).take(self.longest());
                let ids = within.map(|character| self.id(character, word)).collect::<Result<Vec<u32>>>()?;
                [&[1], ids.as_slice(), &[2]].concat()
            }
        };
        let length = characters.len().max(self.size.word_length);
        characters.resize(length, 0);
        Ok(Tensor::from_vec(characters, (1, length), &Device::Cpu)?)
    }

    /// How many characters or bytes of `word` are spelled, if not all of them.
    pub fn cut(&self, word: &str) -> Option<usize> {
        let length = if self.is_of_bytes() { word.len() } else { word.chars().count() };
        (length > self.longest()).then(|| self.longest())
    }

    fn is_of_bytes(&self) -> bool {
        self.alphabet.is_empty()
    }

    /// Characters of a word between its marks, at most.
    fn longest(&self) -> usize {
        self.max_word_length.saturating_sub(2)
    }

    fn id(&self, character: char, word: &str) -> Result<u32> {
        let known = self.alphabet.iter().zip(1..).find(|(known, _)| **known == character);
        known.map(|(_, id)| id).ok_or_else(|| {
            Error::config(format!(
                "{word:?} has the character {character:?}, which no word of the vocabulary has: a model with \
                 embedding.characters = \"bytes\" reads any word"
            ))
        })
    }
}

fn characters_of(word: &str) -> impl Iterator<Item = char> {
    match word {
        "<eos>" => "+",
        "<unk>" => "|",
        word => word,
    }
    .chars()
}

#[cfg(test)]
mod tests {
    use super::{Spelling, SpellingSize, spell_bytes};

    #[test]
    fn over_bytes_any_string_has_a_spelling_of_the_same_length() {
        let spelling = Spelling::of_bytes(["é", "<eos>", "abcdef"].into_iter(), 6);
        assert_eq!(spelling.size, SpellingSize { alphabet_size: 261, word_length: 6 });
        let rows: Vec<_> = spelling.characters.chunks(6).collect();
        let wanted = [
            [257, 0xc3 + 1, 0xa9 + 1, 258, 0, 0],
            [257, 260, 258, 0, 0, 0],
            [257, 98, 99, 100, 101, 258], // four bytes remain
        ];
        assert_eq!(rows, wanted);
        assert_eq!(spell_bytes(b"<S>", 4), [257, 259, 258, 0]);
        assert_eq!(spell_bytes(&[0, 255], 4), [257, 1, 256, 258]); // no UTF-8
        assert_eq!(spell_bytes(b"", 3), [257, 258, 0]);
    }

    #[test]
    fn a_word_that_the_vocabulary_lacks_is_spelled_like_its_words() {
        let row = |spelling: &Spelling, word: &str| {
            spelling.spell(word).map(|row| row.to_vec2::<u32>().unwrap().remove(0))
        };
        let spelling = Spelling::of(["ab", "<eos>"].into_iter(), 5).unwrap(); // blank, {, }, then + a b
        assert_eq!(row(&spelling, "b").unwrap(), [1, 5, 2, 0]);
        assert_eq!(row(&spelling, "b{a").unwrap(), [1, 5, 1, 4, 2]); // longer than any word of the vocabulary
        assert_eq!(row(&spelling, "abab").unwrap(), [1, 4, 5, 4, 2]);
        assert_eq!([spelling.cut("aba"), spelling.cut("abab")], [None, Some(3)]);
        let error = row(&spelling, "b\u{e9}").unwrap_err().to_string();
        assert!(error.contains("'é'") && error.contains("bytes"), "{error}");
        let bytes = Spelling::of_bytes(["ab"].into_iter(), 5);
        assert_eq!(row(&bytes, "\u{e9}").unwrap(), [257, 0xc3 + 1, 0xa9 + 1, 258, 0]);
        assert_eq!([bytes.cut("\u{e9}b"), bytes.cut("\u{e9}\u{e9}")], [None, Some(3)]);
    }

    #[test]
    fn words_are_marked_padded_and_cut() {
        let words = ["ab", "<eos>", "<unk>", "abcdef"];
        let spelling = Spelling::of(words.into_iter(), 5).unwrap();
        // blank, {, }, then + a b c | in the order of their code points
        assert_eq!(spelling.size, SpellingSize { alphabet_size: 8, word_length: 5 });
        assert_eq!(spelling.alphabet, ['{', '}', '+', 'a', 'b', 'c', '|']);
        let rows: Vec<_> = spelling.characters.chunks(5).collect();
        assert_eq!(rows, [[1, 4, 5, 2, 0], [1, 3, 2, 0, 0], [1, 7, 2, 0, 0], [1, 4, 5, 6, 2]]);
    }
}
