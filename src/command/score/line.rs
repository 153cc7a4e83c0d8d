//! Lines that are scored side by side.

use crate::config::Unit;
use crate::data::{Piece, Text, Tokenizer};
use crate::error::Result;
use crate::eval::side_by_side::Row;
use std::ops::Range;

/// A line that is scored beside others.
pub(super) struct Line {
    pub(super) text: Text,
    pub(super) pieces: Vec<Piece>,
    ids: Vec<u32>,
    /// Words that are read as they are spelled: their places in `ids` and in the text.
    words: Vec<(usize, Range<usize>)>,
}

impl Line {
    /// Cuts a line for a model that reads words as they are spelled, or its vocabulary's alone. Fails if a tokenizer of
    /// another program refuses it.
    pub(super) fn cut(text: Text, tokenizer: &Tokenizer, reads_any_string: bool) -> Result<Self> {
        let mut pieces = Vec::new();
        tokenizer.cut(&text, |piece| pieces.push(piece))?;
        let tokens = || pieces.iter().filter(|piece| piece.id.is_some());
        let as_spelled = |(_, piece): &(usize, &Piece)| reads_any_string && !piece.known;
        let words = tokens().enumerate().filter(as_spelled).map(|(place, piece)| (place, piece.span.clone()));
        Ok(Self {
            ids: tokens().filter_map(|piece| piece.id).collect(),
            words: words.collect(),
            pieces,
            text,
        })
    }

    /// Its symbols that the vocabulary lacks.
    pub(super) fn unseen(&self) -> u64 {
        self.pieces.iter().filter(|piece| !piece.known).count() as u64
    }

    /// What the model reads of a text that is to be continued: where tokens are words, an unfinished last line has no end yet.
    pub(super) fn unfinished(&self, tokenizer: &Tokenizer) -> Row<'_> {
        let Row { ids, words } = self.row();
        let is_end = tokenizer.unit() == Unit::Word && !self.text.bytes().ends_with(b"\n");
        let is_end = is_end && ids.last().is_some_and(|&id| Some(id) == tokenizer.line_end_id());
        Row { ids: &ids[..ids.len() - usize::from(is_end)], words }
    }

    /// What the model reads of it.
    pub(super) fn row(&self) -> Row<'_> {
        let word = |span: &Range<usize>| self.text.bytes()[span.clone()].trim_ascii();
        Row { ids: &self.ids, words: self.words.iter().map(|(place, span)| (*place, word(span))).collect() }
    }
}
