//! Sentences as items that have nothing to do with each other: lines of a text, and batches of them.

use super::tokens::Tokens;
use crate::error::Result;
use candle_core::{Device, Tensor};

/// The sentences of a split: its lines without their ends. Empty lines are no sentences.
#[derive(Clone, Debug, Default)]
pub struct Items {
    tokens: Vec<u32>,
    /// Where each sentence ends.
    ends: Vec<usize>,
    /// Sentences that were left out because they are too long.
    pub dropped: u64,
}

/// Some sentences side by side, padded at the end with line ends: `(time, batch)` of u32, `time` being the words of the
/// longest one and 1.
pub struct SentenceBatch {
    /// What a decoder reads: a line end, then the words.
    pub inputs: Tensor,
    /// What it predicts: the words, then a line end.
    pub targets: Tensor,
    /// Words of each sentence.
    pub lengths: Vec<usize>,
}

impl Items {
    /// The lines of a text that have at most `longest` tokens before their end, the token `line_end`.
    pub fn of(text: &Tokens, line_end: u32, longest: Option<usize>) -> Self {
        let mut items = Self::default();
        let mut sentence = Vec::new();
        let unfinished = std::iter::once(line_end);
        for id in text.iter().chain(unfinished) {
            if id != line_end {
                sentence.push(id);
                continue;
            }
            if longest.is_some_and(|longest| sentence.len() > longest) {
                items.dropped += 1;
            } else if !sentence.is_empty() {
                items.push(&sentence);
            }
            sentence.clear();
        }
        items
    }

    /// These sentences, none of which is empty.
    pub fn from_sentences<'a>(sentences: impl IntoIterator<Item = &'a [u32]>) -> Self {
        let mut items = Self::default();
        sentences.into_iter().for_each(|sentence| items.push(sentence));
        items
    }

    /// Adds the sentences of another text.
    pub fn append(&mut self, other: Self) {
        let before = self.tokens.len();
        self.tokens.extend(other.tokens);
        self.ends.extend(other.ends.into_iter().map(|end| before + end));
        self.dropped += other.dropped;
    }

    fn push(&mut self, sentence: &[u32]) {
        self.tokens.extend_from_slice(sentence);
        self.ends.push(self.tokens.len());
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Words of all sentences.
    pub fn words(&self) -> u64 {
        self.tokens.len() as u64
    }

    /// Tokens that are predicted: the words, and an end for each sentence.
    pub fn predicted(&self) -> u64 {
        (self.tokens.len() + self.ends.len()) as u64
    }

    /// The words of sentence number `index`.
    pub fn get(&self, index: usize) -> &[u32] {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.tokens[start..self.ends[index]]
    }

    /// The sentences of these numbers side by side.
    pub fn batch(&self, numbers: &[u32], line_end: u32, device: &Device) -> Result<SentenceBatch> {
        let rows: Vec<&[u32]> = numbers.iter().map(|&number| self.get(number as usize)).collect();
        let lengths: Vec<usize> = rows.iter().map(|row| row.len()).collect();
        let time = lengths.iter().copied().max().unwrap_or(0) + 1;
        let word = |row: &[u32], step: Option<usize>| {
            step.and_then(|step| row.get(step)).copied().unwrap_or(line_end)
        };
        let matrix = |shift: usize| -> Result<Tensor> {
            let steps = (0..time).map(|step| step.checked_sub(shift));
            let ids: Vec<u32> = steps.flat_map(|step| rows.iter().map(move |row| word(row, step))).collect();
            Ok(Tensor::from_vec(ids, (time, rows.len()), device)?)
        };
        Ok(SentenceBatch { inputs: matrix(1)?, targets: matrix(0)?, lengths })
    }
}

impl SentenceBatch {
    /// The words that an encoder reads, `(time − 1, batch)`.
    pub fn words(&self) -> Result<Tensor> {
        Ok(self.inputs.narrow(0, 1, self.inputs.dim(0)? - 1)?)
    }

    /// Tokens that are predicted, padding left out.
    pub fn predicted(&self) -> u64 {
        self.lengths.iter().map(|&words| words as u64 + 1).sum()
    }

    /// The tokens that each sentence has with its end.
    pub fn steps(&self) -> Vec<usize> {
        self.lengths.iter().map(|words| words + 1).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(ids: &[u32]) -> Tokens {
        let mut tokens = Tokens::with_capacity(10, ids.len());
        ids.iter().for_each(|&id| tokens.push(id));
        tokens
    }

    #[test]
    fn lines_are_sentences_and_those_that_are_too_long_are_counted() {
        let items = Items::of(&text(&[1, 2, 0, 0, 3, 0, 4, 5, 6, 0, 7, 8]), 0, Some(2));
        let found: Vec<&[u32]> = (0..items.len()).map(|index| items.get(index)).collect();
        assert_eq!(found, [&[1, 2][..], &[3], &[7, 8]]); // the last line has no end of its own
        assert_eq!((items.dropped, items.words(), items.predicted()), (1, 5, 8));
    }

    #[test]
    fn a_batch_is_padded_with_line_ends() {
        let items = Items::from_sentences([&[1, 2, 3][..], &[4]]);
        let batch = items.batch(&[1, 0], 0, &Device::Cpu).unwrap();
        assert_eq!(batch.inputs.to_vec2::<u32>().unwrap(), [[0, 0], [4, 1], [0, 2], [0, 3]]);
        assert_eq!(batch.targets.to_vec2::<u32>().unwrap(), [[4, 1], [0, 2], [0, 3], [0, 0]]);
        assert_eq!((batch.lengths.clone(), batch.predicted()), (vec![1, 3], 6));
        assert_eq!(batch.words().unwrap().to_vec2::<u32>().unwrap(), [[4, 1], [0, 2], [0, 3]]);
    }
}
