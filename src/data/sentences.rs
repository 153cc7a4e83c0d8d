//! Sentences in blocks, of which one is in memory at a time.

use super::tokenizer::Encoded;
use crate::error::Result;
use std::sync::Arc;

/// The most tokens of a block, however few sentences they are; a longer sentence is a block of its own.
const MOST_TOKENS: usize = 4 << 20;

/// The sentences of a split. A sentence is a line: its tokens and the line's end.
pub(crate) trait SentenceSource {
    /// How many sentences each block has.
    fn blocks(&self) -> Vec<usize>;

    /// The tokens of each sentence of a block.
    ///
    /// # Errors
    /// If they cannot be read.
    fn lengths(&self, block: usize) -> Result<Vec<u32>>;

    /// All tokens of a block.
    ///
    /// # Errors
    /// As [`SentenceSource::lengths`].
    fn tokens(&self, block: usize) -> Result<Vec<u32>>;
}

/// Cuts sentences that end at `ends` into blocks of at most `most`; where each block ends, as a number of sentences.
pub(super) fn cut(ends: impl Iterator<Item = usize>, most: usize) -> Vec<usize> {
    let mut cuts = Vec::new();
    let mut first = 0;
    let mut begin = 0;
    let mut last = (0, 0); // sentences, and where the last of them ends
    for end in ends {
        let (sentences, before) = last;
        if sentences > first && (sentences - first == most.max(1) || end - begin > MOST_TOKENS) {
            cuts.push(sentences);
            first = sentences;
            begin = before;
        }
        last = (sentences + 1, end);
    }
    if last.0 > first {
        cuts.push(last.0);
    }
    cuts
}

/// The differences of `ends`, of which the first sentence begins at `begin`.
pub(super) fn lengths(begin: usize, ends: impl Iterator<Item = usize>) -> Vec<u32> {
    ends.scan(begin, |last, end| Some((end - std::mem::replace(last, end)) as u32)).collect()
}

/// The sentences of a text in memory.
pub(crate) struct TextSentences {
    text: Arc<Encoded>,
    ends: Vec<usize>,
    /// Where each block ends, as a number of sentences.
    cuts: Vec<usize>,
}

impl TextSentences {
    /// The sentences that end with `line_end`, in blocks of at most `most`. What follows the last line end is one too.
    pub(crate) fn new(text: Arc<Encoded>, line_end: u32, most: usize) -> Self {
        let tokens = text.tokens.iter().enumerate();
        let mut ends: Vec<usize> = tokens.filter(|&(_, id)| id == line_end).map(|(at, _)| at + 1).collect();
        if ends.last().copied().unwrap_or(0) < text.tokens.len() {
            ends.push(text.tokens.len());
        }
        let cuts = cut(ends.iter().copied(), most);
        Self { text, ends, cuts }
    }

    /// The sentences of a block, and where the first begins.
    fn block(&self, block: usize) -> (&[usize], usize) {
        let first = if block == 0 { 0 } else { self.cuts[block - 1] };
        let begin = if first == 0 { 0 } else { self.ends[first - 1] };
        (&self.ends[first..self.cuts[block]], begin)
    }
}

impl SentenceSource for TextSentences {
    fn blocks(&self) -> Vec<usize> {
        (0..self.cuts.len()).map(|block| self.block(block).0.len()).collect()
    }

    fn lengths(&self, block: usize) -> Result<Vec<u32>> {
        let (ends, begin) = self.block(block);
        Ok(lengths(begin, ends.iter().copied()))
    }

    fn tokens(&self, block: usize) -> Result<Vec<u32>> {
        let (ends, begin) = self.block(block);
        let mut tokens = vec![0; ends.last().map_or(0, |end| end - begin)];
        self.text.tokens.copy_to(begin, &mut tokens);
        Ok(tokens)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_have_as_many_sentences_as_asked_for_or_fewer_if_they_are_long() {
        let ends = |lengths: &[usize]| {
            lengths
                .iter()
                .scan(0, |at, length| {
                    *at += length;
                    Some(*at)
                })
                .collect::<Vec<_>>()
        };
        let cut = |lengths: &[usize], most| cut(ends(lengths).into_iter(), most);
        assert_eq!(cut(&[1, 2, 3, 4, 5], 2), [2, 4, 5]);
        assert_eq!(cut(&[1, 2, 3, 4], 2), [2, 4]);
        assert_eq!(cut(&[1, MOST_TOKENS, 1, MOST_TOKENS - 1, 2], 100), [1, 2, 4, 5]);
        assert!(cut(&[], 2).is_empty());
    }
}
