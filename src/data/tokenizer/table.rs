//! Characters and bytes: one table look-up a symbol. Ids go by code point or byte value, `<unk>` is last.

use super::byte_level::display;
use super::{Piece, UNKNOWN};
use std::collections::{BTreeSet, HashMap};

const ABSENT: u32 = u32::MAX;

/// A vocabulary of Unicode scalar values.
#[derive(Clone, Debug)]
pub(super) struct CharTable {
    pub(super) words: Vec<String>,
    ascii: Box<[u32; 128]>,
    others: HashMap<char, u32>,
    pub(super) unknown: Option<u32>,
}

/// The characters of a text, with CR LF read as LF, and where each ends.
pub(super) fn chars(text: &str) -> impl Iterator<Item = (usize, char)> {
    let bytes = text.as_bytes();
    let kept = text.char_indices().filter(|&(at, char)| char != '\r' || bytes.get(at + 1) != Some(&b'\n'));
    kept.map(|(at, char)| (at + char.len_utf8(), char))
}

impl CharTable {
    pub(super) fn build(add_unknown: bool, text: &str) -> Self {
        let mut ascii = [false; 128];
        let mut others = BTreeSet::new();
        for (_, char) in chars(text) {
            match ascii.get_mut(char as usize) {
                Some(seen) => *seen = true,
                None => drop(others.insert(char)),
            }
        }
        let ascii = (0..128u8).filter(|&code| ascii[code as usize]).map(char::from);
        Self::from_symbols(ascii.chain(others).collect(), add_unknown)
    }

    pub(super) fn from_symbols(symbols: Vec<char>, add_unknown: bool) -> Self {
        let words = symbols.iter().map(char::to_string).chain(add_unknown.then(|| UNKNOWN.to_owned()));
        // Without duplicates or foreign entries this cannot fail.
        Self::from_words(words.collect()).expect("symbols are single characters")
    }

    /// The table with these characters in the order of their ids; none if one is more than a character.
    pub(super) fn from_words(words: Vec<String>) -> Option<Self> {
        let mut table =
            Self { words: vec![], ascii: Box::new([ABSENT; 128]), others: HashMap::new(), unknown: None };
        for (word, id) in words.iter().zip(0..) {
            let mut characters = word.chars();
            match (characters.next(), characters.next()) {
                (Some(char), None) if char.is_ascii() => table.ascii[char as usize] = id,
                (Some(char), None) => drop(table.others.insert(char, id)),
                _ if word == UNKNOWN => table.unknown = Some(id),
                _ => return None,
            }
        }
        table.words = words;
        Some(table)
    }

    #[inline]
    pub(super) fn id(&self, char: char) -> Option<u32> {
        match self.ascii.get(char as usize) {
            Some(&id) => (id != ABSENT).then_some(id),
            None => self.others.get(&char).copied(),
        }
    }

    /// Visits the characters of `text` in order.
    #[inline]
    pub(super) fn cut(&self, text: &str, mut take: impl FnMut(Piece)) {
        let mut start = 0;
        for (end, char) in chars(text) {
            let id = self.id(char);
            take(Piece { id: id.or(self.unknown), known: id.is_some(), span: start..end });
            start = end;
        }
    }
}

/// A vocabulary of bytes.
#[derive(Clone, Debug)]
pub(super) struct ByteTable {
    pub(super) words: Vec<String>,
    /// The bytes in the order of their ids.
    pub(super) symbols: Vec<u8>,
    ids: Box<[u32; 256]>,
    pub(super) unknown: Option<u32>,
}

impl ByteTable {
    pub(super) fn build(add_unknown: bool, text: &[u8]) -> Self {
        let mut seen = [false; 256];
        text.iter().for_each(|&byte| seen[byte as usize] = true);
        Self::from_symbols((0..=255).filter(|&byte| seen[byte as usize]).collect(), add_unknown)
    }

    /// The table with these bytes in the order of their ids, and `<unk>` after them if wanted.
    pub(super) fn from_symbols(symbols: Vec<u8>, add_unknown: bool) -> Self {
        let mut ids = Box::new([ABSENT; 256]);
        symbols.iter().zip(0..).for_each(|(&byte, id)| ids[byte as usize] = id);
        let words = symbols.iter().map(|&byte| display(&[byte])).chain(add_unknown.then(|| UNKNOWN.into()));
        Self { words: words.collect(), ids, unknown: add_unknown.then_some(symbols.len() as u32), symbols }
    }

    #[inline]
    pub(super) fn id(&self, byte: u8) -> Option<u32> {
        let id = self.ids[byte as usize];
        (id != ABSENT).then_some(id)
    }

    /// Visits the bytes of `text` in order.
    #[inline]
    pub(super) fn cut(&self, text: &[u8], mut take: impl FnMut(Piece)) {
        for (at, &byte) in text.iter().enumerate() {
            let id = self.id(byte);
            take(Piece { id: id.or(self.unknown), known: id.is_some(), span: at..at + 1 });
        }
    }
}
