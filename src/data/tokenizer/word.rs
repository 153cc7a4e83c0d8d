//! Words: what whitespace separates, with `<eos>` at each line's end.

use super::{END_OF_LINE, Piece, UNKNOWN};
use crate::config::CorpusConfig;
use std::collections::HashMap;
use std::ops::Range;

/// A vocabulary of words. Ids go by descending count in the training split; of equal counts the word that came
/// first goes first; `<unk>` is last if the text lacked it.
#[derive(Clone, Debug)]
pub(super) struct WordTable {
    pub(super) words: Vec<String>,
    ids: HashMap<String, u32>,
}

/// The words of a text and its line ends, each with its bytes. A last line without a line feed ends like any other, in no
/// bytes; CR LF is one line end.
pub(super) fn tokens(text: &str) -> impl Iterator<Item = (&str, Range<usize>)> {
    let at = |part: &str| part.as_ptr() as usize - text.as_ptr() as usize;
    text.split_inclusive('\n').flat_map(move |line| {
        let words = line.split_whitespace().map(move |word| (word, at(word)..at(word) + word.len()));
        let content = line.strip_suffix('\n').map_or(line, |line| line.strip_suffix('\r').unwrap_or(line));
        words.chain([(END_OF_LINE, at(line) + content.len()..at(line) + line.len())])
    })
}

fn is_reserved(word: &str) -> bool {
    word == END_OF_LINE || word == UNKNOWN
}

impl WordTable {
    pub(super) fn build(config: &CorpusConfig, text: &str) -> Self {
        let mut counts: HashMap<&str, (u64, usize)> = HashMap::new();
        for (position, (word, _)) in tokens(text).enumerate() {
            counts.entry(word).or_insert((0, position)).0 += 1;
        }
        Self::of_counts(config, counts.into_iter().collect())
    }

    /// The vocabulary of words that were counted, each with its count and where it came first.
    pub(super) fn of_counts<W: AsRef<str>, P: Ord>(
        config: &CorpusConfig,
        mut ranked: Vec<(W, (u64, P))>,
    ) -> Self {
        let add_unknown = config.unknown && !ranked.iter().any(|(word, _)| word.as_ref() == UNKNOWN);
        ranked.sort_unstable_by(|(_, (one, first)), (_, (other, second))| {
            other.cmp(one).then_with(|| first.cmp(second))
        });
        ranked.retain(|(word, (count, _))| is_reserved(word.as_ref()) || *count >= config.min_count);
        keep_most_frequent(&mut ranked, |(word, _)| word.as_ref(), config.vocab_size, add_unknown);
        let words = ranked.iter().map(|(word, _)| word.as_ref()).chain(add_unknown.then_some(UNKNOWN));
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

    /// Visits the words and line ends of `text` in order.
    pub(super) fn cut(&self, text: &str, mut take: impl FnMut(Piece)) {
        let unknown = self.unknown();
        for (word, span) in tokens(text) {
            let id = self.id(word);
            take(Piece { id: id.or(unknown), known: id.is_some(), span });
        }
    }
}

/// Leaves `vocab_size` words (0: all) with `<eos>` and `<unk>` among them.
pub(super) fn keep_most_frequent<T>(
    ranked: &mut Vec<T>,
    word: impl Fn(&T) -> &str,
    vocab_size: usize,
    add_unknown: bool,
) {
    if vocab_size == 0 {
        return;
    }
    let reserved = ranked.iter().filter(|entry| is_reserved(word(entry))).count() + usize::from(add_unknown);
    let mut left = vocab_size.saturating_sub(reserved);
    ranked.retain(|entry| {
        let reserved = is_reserved(word(entry));
        let keep = reserved || left > 0;
        left -= usize::from(keep && !reserved);
        keep
    });
}
