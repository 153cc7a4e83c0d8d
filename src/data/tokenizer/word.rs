//! Words: what whitespace separates, with `<eos>` at each line's end.

use super::{END_OF_LINE, Encoded, UNKNOWN};
use crate::config::CorpusConfig;
use std::collections::HashMap;

/// A vocabulary of words. Ids go by descending count in the training split; of equal counts the word that came
/// first goes first; `<unk>` is last if the text lacked it.
#[derive(Clone, Debug)]
pub(super) struct WordTable {
    pub(super) words: Vec<String>,
    ids: HashMap<String, u32>,
}

/// The words of a text and its line ends. A last line without a line feed ends like any other.
fn tokens(text: &str) -> impl Iterator<Item = &str> {
    text.split_terminator('\n').flat_map(|line| line.split_whitespace().chain([END_OF_LINE]))
}

fn is_reserved(word: &str) -> bool {
    word == END_OF_LINE || word == UNKNOWN
}

impl WordTable {
    pub(super) fn build(config: &CorpusConfig, text: &str) -> Self {
        let mut counts: HashMap<&str, (u64, usize)> = HashMap::new();
        for (position, word) in tokens(text).enumerate() {
            counts.entry(word).or_insert((0, position)).0 += 1;
        }
        let add_unknown = config.unknown && !counts.contains_key(UNKNOWN);
        let mut ranked: Vec<(&str, (u64, usize))> = counts.into_iter().collect();
        ranked.sort_unstable_by_key(|&(_, (count, first))| (std::cmp::Reverse(count), first));
        ranked.retain(|&(word, (count, _))| is_reserved(word) || count >= config.min_count);
        keep_most_frequent(&mut ranked, config.vocab_size, add_unknown);
        let words = ranked.into_iter().map(|(word, _)| word).chain(add_unknown.then_some(UNKNOWN));
        Self::from_words(words.map(str::to_owned).collect())
    }

    /// The table with these words in the order of their ids.
    pub(super) fn from_words(words: Vec<String>) -> Self {
        let ids = words.iter().zip(0..).map(|(word, id)| (word.clone(), id)).collect();
        Self { words, ids }
    }

    pub(super) fn id(&self, word: &str) -> Option<u32> {
        self.ids.get(word).copied()
    }

    pub(super) fn unknown(&self) -> Option<u32> {
        self.id(UNKNOWN)
    }

    pub(super) fn encode(&self, text: &str) -> Encoded {
        let mut encoded = Encoded::new(text.as_bytes(), self.words.len(), 0);
        let unknown = self.unknown();
        for word in tokens(text) {
            let id = self.id(word);
            encoded.unseen += u64::from(id.is_none());
            if let Some(id) = id.or(unknown) {
                encoded.tokens.push(id);
            }
        }
        encoded.measure_first(first_token(text));
        encoded
    }
}

/// Leaves `vocab_size` words (0: all) with `<eos>` and `<unk>` among them.
fn keep_most_frequent(ranked: &mut Vec<(&str, (u64, usize))>, vocab_size: usize, add_unknown: bool) {
    if vocab_size == 0 {
        return;
    }
    let reserved = ranked.iter().filter(|(word, _)| is_reserved(word)).count() + usize::from(add_unknown);
    let mut left = vocab_size.saturating_sub(reserved);
    ranked.retain(|(word, _)| {
        let keep = is_reserved(word) || left > 0;
        left -= usize::from(keep && !is_reserved(word));
        keep
    });
}

/// The text up to the end of its first word, or of its first line if that is empty.
fn first_token(text: &str) -> &[u8] {
    let line = text.split_inclusive('\n').next().unwrap_or("");
    let end = match line.trim_start() {
        "" => line.len(),
        rest => line.len() - rest.len() + rest.find(char::is_whitespace).unwrap_or(rest.len()),
    };
    &line.as_bytes()[..end]
}
