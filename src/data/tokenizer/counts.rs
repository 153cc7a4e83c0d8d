//! Counts of a text's symbols, added part by part, from which its vocabulary is made.

use super::table::{ByteTable, CharTable, chars};
use super::word::{WordTable, tokens};
use super::word_counts::{Seen, TOGETHER, WordCounts};
use super::{Kind, Tokenizer, UNKNOWN};
use crate::config::{CorpusConfig, Unit};
use crate::data::text::Text;
use crate::error::{Error, Result};
use std::collections::BTreeSet;

/// Words are counted; characters and bytes are only listed, for their ids go by their value.
#[derive(Debug)]
pub(crate) enum SymbolCounts {
    /// Words and line ends.
    Words(WordCounts),
    /// Characters.
    Characters(BTreeSet<char>),
    /// Bytes.
    Bytes(Box<[bool; 256]>),
}

impl SymbolCounts {
    /// Nothing yet, of symbols of a unit.
    ///
    /// # Errors
    /// If the unit's vocabulary is not made by counting.
    pub(crate) fn new(unit: Unit) -> Result<Self> {
        match unit {
            Unit::Word => Ok(Self::Words(WordCounts::default())),
            Unit::Char => Ok(Self::Characters(BTreeSet::new())),
            Unit::Byte => Ok(Self::Bytes(Box::new([false; 256]))),
            Unit::Bpe => Err(Error::config("byte pairs are not made by counting symbols")),
        }
    }

    /// Adds a part of source number `source`; `read` symbols of it came before. Gives how many this part has, of words.
    ///
    /// # Errors
    /// If it is not UTF-8 where the unit needs it.
    pub(crate) fn add(&mut self, text: &Text, source: u32, read: u64) -> Result<u64> {
        let mut added = 0;
        match self {
            Self::Words(words) => {
                let mut held = Vec::with_capacity(TOGETHER);
                for (word, _) in tokens(text.as_str()?) {
                    held.push((word, Seen { count: 1, first: (source, read + added) }));
                    added += 1;
                    if held.len() == TOGETHER {
                        words.add(&held);
                        held.clear();
                    }
                }
                words.add(&held);
            }
            Self::Characters(known) => {
                let mut last = None;
                for (_, char) in chars(text.as_str()?) {
                    if last != Some(char) {
                        known.insert(char);
                        last = Some(char);
                    }
                }
            }
            Self::Bytes(seen) => text.bytes().iter().for_each(|&byte| seen[usize::from(byte)] = true),
        }
        Ok(added)
    }

    /// Adds the counts of other sources of the same unit, in any order.
    pub(crate) fn join(&mut self, other: Self) {
        match (self, other) {
            (Self::Words(words), Self::Words(others)) => words.join(&others),
            (Self::Characters(known), Self::Characters(others)) => known.extend(others),
            (Self::Bytes(seen), Self::Bytes(others)) => {
                seen.iter_mut().zip(*others).for_each(|(seen, other)| *seen |= other);
            }
            _ => unreachable!("counts of one corpus are of one unit"),
        }
    }

    /// The vocabulary, as [`Tokenizer::build`] makes it of the whole text. With `sorted`, words go by falling count with
    /// `<unk>` among them, which stands for all that were left out.
    pub(crate) fn tokenizer(self, config: &CorpusConfig, sorted: bool) -> Tokenizer {
        Tokenizer(match self {
            Self::Words(words) => return of_words(&words, config, sorted),
            Self::Characters(known) => {
                Kind::Char(CharTable::from_symbols(known.into_iter().collect(), config.unknown))
            }
            Self::Bytes(seen) => {
                let symbols = (0..=255).filter(|&byte: &u8| seen[usize::from(byte)]).collect();
                Kind::Byte(ByteTable::from_symbols(symbols, config.unknown))
            }
        })
    }
}

fn of_words(words: &WordCounts, config: &CorpusConfig, sorted: bool) -> Tokenizer {
    let ranked = words.iter().map(|(word, seen)| (word, (seen.count, seen.first))).collect();
    let tokenizer = Tokenizer(Kind::Word(WordTable::of_counts(config, ranked)));
    if !sorted {
        return tokenizer;
    }
    let count = |word: &String| words.get(word).map_or(0, |seen| seen.count);
    let mut counts: Vec<u64> = tokenizer.words().iter().map(count).collect();
    if let Some(unknown) = tokenizer.words().iter().position(|word| word == UNKNOWN) {
        let all: u64 = words.iter().map(|(_, seen)| seen.count).sum();
        counts[unknown] += all - counts.iter().sum::<u64>();
    }
    tokenizer.sorted_by(&counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vocabulary of parts that are counted apart and joined, the last first.
    fn counted(parts: &[&str], config: &CorpusConfig, sorted: bool) -> Vec<String> {
        let mut all = SymbolCounts::new(config.unit).unwrap();
        for (source, part) in parts.iter().enumerate().rev() {
            let mut counts = SymbolCounts::new(config.unit).unwrap();
            counts.add(&Text::from(*part), source as u32, 0).unwrap();
            all.join(counts);
        }
        all.tokenizer(config, sorted).words().to_vec()
    }

    #[test]
    fn the_vocabulary_of_parts_is_that_of_the_whole() {
        let parts = ["the old mill\nthe river\n", "über the mill\r\n\nsleeps now\n", "now old\n"];
        for unit in [Unit::Word, Unit::Char, Unit::Byte] {
            for (min_count, vocab_size, unknown) in [(1, 0, true), (2, 0, true), (1, 4, false)] {
                let config = CorpusConfig { min_count, vocab_size, unknown, ..CorpusConfig::new("x", unit) };
                let whole = Tokenizer::build(&config, &Text::from(parts.concat().as_str())).unwrap();
                assert_eq!(counted(&parts, &config, false), whole.words(), "{unit:?}");
            }
        }
    }

    #[test]
    fn a_sorted_vocabulary_has_unknown_words_where_their_count_says() {
        let config = CorpusConfig { min_count: 2, ..CorpusConfig::new("x", Unit::Word) };
        // a 3, b 2, <eos> 1; c, d, e, f are left out: <unk> 4
        assert_eq!(counted(&["a a a b b c d e f\n"], &config, true), [UNKNOWN, "a", "b", "<eos>"]);
    }
}
