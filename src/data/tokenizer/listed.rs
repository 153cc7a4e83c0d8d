//! A vocabulary as a file lists it: a word and its count a line, by falling count, as `1b_word_vocab.txt` has it.

use super::word::{WordTable, keep_most_frequent};
use super::{END_OF_LINE, Kind, Tokenizer, UNKNOWN};
use crate::config::{CorpusConfig, Unit};
use crate::data::text::Text;
use crate::error::{Error, Result};
use std::collections::HashSet;
use std::path::Path;

/// What other programs call the ends of a sentence, and the words that were left out.
const ENDS: [&str; 4] = [END_OF_LINE, "<S>", "</S>", "</s>"];
const UNKNOWNS: [&str; 2] = [UNKNOWN, "<UNK>"];

impl Tokenizer {
    /// The words of a file in its order. `<S>` and `</S>` are both the line's end, `<UNK>` is `<unk>`; where the file has
    /// no line end it comes first, where it has no `<unk>` and `config.unknown` asks for it, it is last.
    ///
    /// # Errors
    /// If the unit is not `word`, or a line is no word with a count, or is listed twice, or counts rise.
    pub(super) fn listed(config: &CorpusConfig, path: &Path) -> Result<Self> {
        if config.unit != Unit::Word {
            let unit = config.unit.as_str();
            return Err(Error::config(format!("corpus.vocabulary lists words, and corpus.unit is {unit}")));
        }
        let text = Text::read(path)?;
        let mut words = read(&text, path)?;
        let has = |name: &str, words: &[String]| words.iter().any(|word| word == name);
        if !has(END_OF_LINE, &words) {
            words.insert(0, END_OF_LINE.to_owned());
        }
        let adds_unknown = config.unknown && !has(UNKNOWN, &words);
        keep_most_frequent(&mut words, |word| word.as_str(), config.vocab_size, adds_unknown);
        if adds_unknown {
            words.push(UNKNOWN.to_owned());
        }
        Ok(Self(Kind::Word(WordTable::from_words(words))))
    }
}

/// The words of the file.
fn read(text: &Text, path: &Path) -> Result<Vec<String>> {
    let mut words = Vec::new();
    let mut known = HashSet::new();
    let mut last = u64::MAX;
    for (line, number) in text.as_str()?.lines().zip(1..) {
        let wrong = |what: String| Error::data(path, format!("line {number}: {what}"));
        let mut parts = line.split_whitespace();
        let (Some(word), count, None) = (parts.next(), parts.next(), parts.next()) else {
            return Err(wrong(format!("found {line:?}, wanted a word and its count")));
        };
        if let Some(count) = count {
            let count: u64 = count.parse().map_err(|_| wrong(format!("{count:?} is no count")))?;
            if count > last {
                return Err(wrong(format!(
                    "{word:?} is {count} times and the word before {last}; counts must fall"
                )));
            }
            last = count;
        }
        let word = own_name(word);
        match known.insert(word.to_owned()) {
            true => words.push(word.to_owned()),
            false if word == END_OF_LINE => {} // one mark for both ends
            false => return Err(wrong(format!("{word:?} is listed twice"))),
        }
    }
    if words.is_empty() {
        return Err(Error::data(path, "lists no word; wanted a word and its count a line"));
    }
    Ok(words)
}

fn own_name(word: &str) -> &str {
    match word {
        _ if ENDS.contains(&word) => END_OF_LINE,
        _ if UNKNOWNS.contains(&word) => UNKNOWN,
        word => word,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(content: &str, config: &CorpusConfig) -> Result<Vec<String>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("words.txt");
        std::fs::write(&path, content).unwrap();
        Tokenizer::listed(config, &path).map(|tokenizer| tokenizer.words().to_vec())
    }

    #[test]
    fn marks_of_the_benchmark_get_the_names_that_they_have_here() {
        let config = CorpusConfig::new("x", Unit::Word);
        let found = listed("the 9\n<S> 4\n</S> 4\n<UNK> 3\nmill 1\n", &config).unwrap();
        assert_eq!(found, ["the", END_OF_LINE, UNKNOWN, "mill"]);
        assert_eq!(listed("the 9\nmill\n", &config).unwrap(), [END_OF_LINE, "the", "mill", UNKNOWN]);
        let four = CorpusConfig { vocab_size: 4, ..config };
        let words = "the 9\nold 7\nmill 3\nriver 2\n";
        assert_eq!(listed(words, &four).unwrap(), [END_OF_LINE, "the", "old", UNKNOWN]);
        let marked = "the 9\n<S> 4\nold 4\nmill 3\n<UNK> 3\n";
        assert_eq!(listed(marked, &four).unwrap(), ["the", END_OF_LINE, "old", UNKNOWN]);
    }

    #[test]
    fn a_list_that_is_none_is_refused_with_its_line() {
        let config = CorpusConfig::new("x", Unit::Word);
        for (content, part) in [
            ("the 9\nmill 10\n", "line 2: \"mill\" is 10 times"),
            ("the 9\nthe 3\n", "line 2: \"the\" is listed twice"),
            ("the nine\n", "line 1: \"nine\" is no count"),
            ("the 9 x\n", "line 1: found \"the 9 x\""),
            ("", "lists no word"),
        ] {
            let error = listed(content, &config).unwrap_err();
            assert!(error.to_string().contains(part) && error.exit_code() == 3, "{error}");
        }
        let chars = CorpusConfig::new("x", Unit::Char);
        assert_eq!(listed("the 9\n", &chars).unwrap_err().exit_code(), 2);
    }
}
