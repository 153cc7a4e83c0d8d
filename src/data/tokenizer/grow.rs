//! A vocabulary that goes on with another text: new symbols behind the old ones, which keep their ids.

use super::table::CharTable;
use super::word::WordTable;
use super::{Kind, Tokenizer};
use crate::config::CorpusConfig;
use crate::data::text::Text;
use crate::error::{Error, Result};

impl Tokenizer {
    /// The vocabulary with the characters or words of `text` that it lacks: characters in the order of their code
    /// points, words by descending count, as `config` asks for them.
    ///
    /// # Errors
    /// If it is of bytes or byte pairs, or the text is not UTF-8.
    pub fn grown(&self, config: &CorpusConfig, text: &Text) -> Result<Self> {
        let known = self.words();
        let grown = |found: Vec<String>, has: &dyn Fn(&String) -> bool| {
            let mut new: Vec<String> = found.into_iter().filter(|word| !has(word)).collect();
            if config.vocab_size > 0 {
                new.truncate(config.vocab_size.saturating_sub(known.len()));
            }
            [known, &new].concat()
        };
        match &self.0 {
            Kind::Char(table) => {
                let found = CharTable::build(false, text.as_str()?).words;
                let has = |word: &String| word.chars().all(|character| table.id(character).is_some());
                let table = CharTable::from_words(grown(found, &has));
                Ok(Self(Kind::Char(table.expect("both tables have single characters and <unk>"))))
            }
            Kind::Word(table) => {
                let every = CorpusConfig { unknown: false, vocab_size: 0, ..config.clone() };
                let found = WordTable::build(&every, text.as_str()?).words;
                let has = |word: &String| table.id(word).is_some();
                Ok(Self(Kind::Word(WordTable::from_words(grown(found, &has)))))
            }
            Kind::Byte(_) | Kind::Bpe(_) => Err(Error::config(format!(
                "--grow-vocab: the checkpoint's unit is {}, whose vocabulary cannot grow; wanted char or word",
                self.unit().as_str()
            ))),
        }
    }
}
