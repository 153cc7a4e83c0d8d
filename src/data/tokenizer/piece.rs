//! What each token is of the text: which bytes became it, and how many characters, bytes and words they are.

use std::collections::BTreeMap;
use std::ops::Range;

/// A stretch of a text that became one token, or that was left out because the vocabulary lacks it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The token; none if the stretch was left out.
    pub id: Option<u32>,
    /// Whether the vocabulary has the stretch: `<unk>` stands for one that it lacks.
    pub known: bool,
    /// The bytes, counted from the text's first. Those of tokens that are parts of one character may overlap.
    pub span: Range<usize>,
}

/// How much text a token predicts.
///
/// Exactly the symbols that are read: CR LF counts once where it is read as LF, and of the blanks between two words that
/// are tokens, one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// Bytes.
    pub bytes: u32,
    /// Characters: bytes that begin one.
    pub chars: u32,
    /// Words, which white space separates, that end here.
    pub words: u32,
    /// Whether the letters are hidden behind `<unk>`: nobody predicted them.
    pub hidden: bool,
}

/// The extent of each token of a text, in four bytes where they are small.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extents {
    small: Vec<[u8; 4]>,
    large: BTreeMap<usize, Extent>,
}

impl Extents {
    /// Appends the next token's.
    pub(super) fn push(&mut self, extent: Extent) {
        let Extent { bytes, chars, words, hidden } = extent;
        let small = |value: u32| u8::try_from(value).ok();
        let packed = [small(bytes), small(chars), small(words), Some(u8::from(hidden))];
        if packed.contains(&None) {
            self.large.insert(self.small.len(), extent);
        }
        self.small.push(packed.map(Option::unwrap_or_default));
    }

    /// How many tokens there are.
    pub fn len(&self) -> usize {
        self.small.len()
    }

    /// Whether there is no token.
    pub fn is_empty(&self) -> bool {
        self.small.is_empty()
    }

    /// Drops all but the first `count`.
    pub(super) fn truncate(&mut self, count: usize) {
        self.small.truncate(count);
        self.large.split_off(&count);
    }

    /// The extent of token number `index`, which must be below `len()`.
    pub fn get(&self, index: usize) -> Extent {
        let [bytes, chars, words, hidden] = self.small[index];
        let read =
            Extent { bytes: bytes.into(), chars: chars.into(), words: words.into(), hidden: hidden != 0 };
        match self.large.get(&index) {
            Some(&extent) => extent,
            None => read,
        }
    }
}

/// Measures the pieces of a text, which come in its order.
pub(super) struct Measure<'a> {
    content: &'a [u8],
    text: Option<&'a str>,
    /// Tokens are words: what separates them is white space, of which one blank counts.
    words: bool,
    /// CR LF is read as LF.
    crlf: bool,
    at: usize,
}

impl<'a> Measure<'a> {
    pub(super) fn new(content: &'a [u8], words: bool, crlf: bool) -> Self {
        Self { content, text: std::str::from_utf8(content).ok(), words, crlf, at: 0 }
    }

    /// The extent of the next piece.
    pub(super) fn next(&mut self, piece: &Piece) -> Extent {
        let Range { start, end } = piece.span;
        let mut extent = Extent { hidden: !piece.known && piece.id.is_some(), ..Extent::default() };
        let gap = self.at.min(start)..start;
        if self.words && self.separates(gap) {
            extent.bytes += 1;
            extent.chars += 1;
        }
        for at in self.at.max(start)..end {
            let byte = self.content[at];
            if self.crlf && byte == b'\r' && self.content.get(at + 1) == Some(&b'\n') {
                continue;
            }
            extent.bytes += 1;
            extent.chars += u32::from(byte & 0xc0 != 0x80);
            extent.words += u32::from(self.ends_word(at));
        }
        self.at = self.at.max(end);
        extent
    }

    /// Whether white space between two words of a line lies in `gap`: that of a line's start or end separates nothing.
    fn separates(&self, gap: Range<usize>) -> bool {
        let is_line_end = |byte: u8| byte == b'\n' || byte == b'\r';
        let word_before = gap.start > 0 && !is_line_end(self.content[gap.start - 1]);
        let word_after = self.content.get(gap.end).is_some_and(|&byte| !is_line_end(byte));
        let one_line = !self.content[gap.clone()].contains(&b'\n');
        !gap.is_empty() && word_before && word_after && one_line && self.white(gap.start)
    }

    /// Whether the byte is the last one of a word.
    fn ends_word(&self, at: usize) -> bool {
        let next = at + 1;
        let whole = self.text.is_none_or(|text| text.is_char_boundary(next));
        whole && (next == self.content.len() || self.white(next)) && !self.white_before(next)
    }

    /// Whether white space begins at a byte. In text that is not UTF-8 only that of ASCII is known.
    fn white(&self, at: usize) -> bool {
        match self.text {
            Some(text) => text.get(at..).is_some_and(|rest| rest.starts_with(char::is_whitespace)),
            None => self.content[at].is_ascii_whitespace(),
        }
    }

    fn white_before(&self, at: usize) -> bool {
        match self.text {
            Some(text) => text[..at].ends_with(char::is_whitespace),
            None => self.content[at - 1].is_ascii_whitespace(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(span: Range<usize>) -> Piece {
        Piece { id: Some(0), known: true, span }
    }

    fn extent(bytes: u32, chars: u32, words: u32) -> Extent {
        Extent { bytes, chars, words, hidden: false }
    }

    #[test]
    fn a_small_extent_and_a_large_one_come_back() {
        let mut extents = Extents::default();
        let large = Extent { bytes: 70_000, chars: 300, words: 2, hidden: true };
        [extent(255, 3, 0), large, extent(1, 1, 1)].into_iter().for_each(|extent| extents.push(extent));
        assert_eq!((extents.len(), extents.get(0), extents.get(1)), (3, extent(255, 3, 0), large));
        assert_eq!(extents.get(2), extent(1, 1, 1));
    }

    #[test]
    fn a_carriage_return_that_nobody_predicts_is_not_counted() {
        let mut measure = Measure::new(b"a\r\nb", false, true);
        let found = [0..1, 1..3, 3..4].map(|span| measure.next(&piece(span)));
        assert_eq!(found, [extent(1, 1, 1), extent(1, 1, 0), extent(1, 1, 1)]);
    }

    #[test]
    fn parts_of_a_character_are_counted_once() {
        let mut measure = Measure::new("é!".as_bytes(), false, true);
        let found = [0..2, 0..2, 2..3].map(|span| measure.next(&piece(span)));
        assert_eq!(found, [extent(2, 1, 0), extent(0, 0, 0), extent(1, 1, 1)]);
    }

    #[test]
    fn one_blank_separates_words_and_those_at_a_lines_ends_separate_nothing() {
        let mut measure = Measure::new(" ab  c \n d".as_bytes(), true, true);
        let found = [1..3, 5..6, 7..8, 9..10].map(|span| measure.next(&piece(span)));
        assert_eq!(found, [extent(2, 2, 1), extent(2, 2, 1), extent(1, 1, 0), extent(1, 1, 1)]);
    }
}
