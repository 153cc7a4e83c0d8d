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

/// Cuts sentences into blocks, one sentence after another.
pub(super) struct Cutter {
    most: usize,
    /// Where the block began: as a number of sentences and of tokens.
    begin: [usize; 2],
    /// Where the last sentence ended.
    last: [usize; 2],
}

impl Cutter {
    /// Blocks of at most `most` sentences.
    pub(super) fn new(most: usize) -> Self {
        Self { most: most.max(1), begin: [0, 0], last: [0, 0] }
    }

    /// Takes a sentence that ends after `end` tokens. Where a block ended before it, as a number of sentences and of
    /// tokens, if one did.
    pub(super) fn add(&mut self, end: usize) -> Option<[usize; 2]> {
        let sentences = self.last[0] - self.begin[0];
        let is_full = sentences == self.most || (sentences > 0 && end - self.begin[1] > MOST_TOKENS);
        let cut = if is_full { self.end() } else { None };
        self.last = [self.last[0] + 1, end];
        cut
    }

    /// Where the last block ends, if there is one.
    pub(super) fn end(&mut self) -> Option<[usize; 2]> {
        (self.last[0] > self.begin[0]).then(|| {
            self.begin = self.last;
            self.last
        })
    }
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
        let mut cutter = Cutter::new(most);
        let mut cuts: Vec<usize> =
            ends.iter().filter_map(|&end| cutter.add(end)).map(|[cut, _]| cut).collect();
        cuts.extend(cutter.end().map(|[cut, _]| cut));
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
        let cut = |lengths: &[usize], most| {
            let mut cutter = Cutter::new(most);
            let mut end = 0;
            let mut cuts = Vec::new();
            for length in lengths {
                end += length;
                cuts.extend(cutter.add(end));
            }
            cuts.extend(cutter.end());
            assert_eq!(cuts.last().map_or(0, |cut| cut[1]), end);
            cuts.iter().map(|cut| cut[0]).collect::<Vec<_>>()
        };
        assert_eq!(cut(&[1, 2, 3, 4, 5], 2), [2, 4, 5]);
        assert_eq!(cut(&[1, 2, 3, 4], 2), [2, 4]);
        assert_eq!(cut(&[1, MOST_TOKENS, 1, MOST_TOKENS - 1, 2], 100), [1, 2, 4, 5]);
        assert!(cut(&[], 2).is_empty());
    }
}
