//! What a text is coded as: tokens where they spell its very bytes, and literal bytes for the rest. Only the encoder cuts
//! a text; the decoder does not need to know how.

use crate::config::Unit;
use crate::data::tokenizer::Spellings;
use crate::data::{Piece, Text, Tokenizer};
use crate::error::Result;
use std::ops::Range;

/// A step of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Item {
    /// A byte that no token spells.
    Literal(u8),
    /// A token that stands for its own bytes.
    Token(u32),
    /// The token for what the vocabulary lacks; literal bytes follow, one at least.
    Hidden(u32),
}

/// Bytes that are cut at a time: a tokenizer of byte pairs refuses a longer stretch without a word's end.
const LONGEST: usize = 4 << 20;

/// How far after its even share a part may end, to end with a line.
const REACH: usize = 512;

/// Cuts a text into at most `count` parts of about equal length, none empty, if possible at the ends of lines.
pub(super) fn parts(text: &[u8], count: usize) -> Vec<&[u8]> {
    let count = count.clamp(1, text.len().max(1));
    let reach = REACH.min(text.len() / count / 2);
    let mut cuts: Vec<usize> =
        (0..count).map(|index| boundary(text, text.len() * index / count, reach)).collect();
    cuts.push(text.len());
    cuts.dedup();
    cuts.windows(2).map(|cut| &text[cut[0]..cut[1]]).collect()
}

/// The end of the first line that ends within `reach` of `at`, else `at`, or the next byte that begins a character.
fn boundary(text: &[u8], at: usize, reach: usize) -> usize {
    if at == 0 {
        return 0;
    }
    let window = &text[at..at + reach];
    let line_end = window.iter().position(|&byte| byte == b'\n').map(|end| end + 1);
    let begins_character = |&byte: &u8| byte & 0xc0 != 0x80;
    at + line_end.or_else(|| window.iter().take(4).position(begins_character)).unwrap_or(0)
}

/// The items of a part. Fails if the tokenizer does.
pub(super) fn items(tokenizer: &Tokenizer, spellings: &Spellings, part: &[u8]) -> Result<Vec<Item>> {
    let words = tokenizer.unit() == Unit::Word;
    let mut writer = Writer { text: part, at: 0, spellings, words, items: Vec::new() };
    for stretch in stretches(part, tokenizer.unit()) {
        let text = Text::new(part[stretch.clone()].to_vec(), "text");
        tokenizer.cut(&text, |piece| {
            let span = stretch.start + piece.span.start..stretch.start + piece.span.end;
            writer.add(Piece { span, ..piece });
        })?;
    }
    writer.literals(part.len());
    Ok(writer.items)
}

/// The parts of a text that a tokenizer takes: all of it for bytes, else what is UTF-8, cut where it is very long.
fn stretches(text: &[u8], unit: Unit) -> Vec<Range<usize>> {
    if unit == Unit::Byte {
        return std::iter::once(0..text.len()).collect();
    }
    let mut stretches = Vec::new();
    let mut at = 0;
    for chunk in text.utf8_chunks() {
        let valid = chunk.valid();
        let end = at + valid.len();
        while end - at > LONGEST {
            let offset = valid.len() - (end - at);
            let length = (0..=LONGEST).rev().find(|&length| valid.is_char_boundary(offset + length));
            let next = at + length.expect("a character has at most four bytes");
            stretches.push(at..next);
            at = next;
        }
        stretches.push(at..end);
        at = end + chunk.invalid().len();
    }
    stretches
}

/// Makes items of the pieces that a tokenizer cuts.
struct Writer<'a> {
    text: &'a [u8],
    /// Bytes that the items so far spell.
    at: usize,
    spellings: &'a Spellings,
    /// Tokens are words, and the model expects unknown ones; an unknown character or byte comes as a surprise to it, which
    /// would cost more bits than it saves.
    words: bool,
    items: Vec<Item>,
}

impl Writer<'_> {
    /// The bytes before `end` as literals.
    fn literals(&mut self, end: usize) {
        self.items.extend(self.text[self.at..end].iter().map(|&byte| Item::Literal(byte)));
        self.at = end;
    }

    /// Takes the next piece; what it does not spell is left for literals.
    fn add(&mut self, piece: Piece) {
        let Some(id) = piece.id else { return };
        let end = piece.span.end;
        if end <= self.at {
            return; // the end of a last line without a line feed, or a part of a character that is done
        }
        if !piece.known {
            let begins = piece.span.start == 0 || self.text[piece.span.start - 1].is_ascii_whitespace();
            if self.words && begins {
                self.items.push(Item::Hidden(id));
                self.literals(end);
            }
        } else if let Some(start) = self.spelled_from(id, end) {
            self.literals(start);
            self.items.push(Item::Token(id));
            self.at = end;
        }
    }

    /// Where the bytes begin that token `id` stands for, if they end at `end` and are not done yet.
    fn spelled_from(&self, id: u32, end: usize) -> Option<usize> {
        let spelled = |start: usize| {
            let before = start.checked_sub(1).map(|last| self.text[last]);
            let (blank, bytes) = self.spellings.of(id, before)?;
            let found = &self.text[start..end];
            let found = if blank { found.strip_prefix(b" ")? } else { found };
            (!bytes.is_empty() && found == bytes).then_some(start)
        };
        let longest = self.spellings.of(id, Some(b'x'))?;
        let start = end.checked_sub(longest.1.len())?;
        let with_blank = start.checked_sub(usize::from(longest.0)).filter(|&start| start >= self.at);
        with_blank
            .and_then(spelled)
            .or_else(|| Some(start).filter(|&start| start >= self.at).and_then(spelled))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::predict::tiny;

    fn cut(unit: Unit, vocabulary: &str, text: &[u8]) -> (Vec<Item>, Tokenizer) {
        let tokenizer = tiny::tokenizer(unit, vocabulary);
        let spellings = tokenizer.spellings().unwrap();
        (items(&tokenizer, &spellings, text).unwrap(), tokenizer)
    }

    /// Tokens in brackets, with `?` where they hide something; literal bytes as they are.
    fn shown(unit: Unit, vocabulary: &str, text: &[u8]) -> String {
        let (items, tokenizer) = cut(unit, vocabulary, text);
        let show = |item: &Item| match *item {
            Item::Literal(byte) => byte.escape_ascii().to_string(),
            Item::Token(id) => format!("[{}]", tokenizer.token(id).escape_debug()),
            Item::Hidden(id) => format!("[{}?]", tokenizer.token(id)),
        };
        items.iter().map(show).collect()
    }

    #[test]
    fn words_are_tokens_where_one_blank_parts_them() {
        let vocabulary = "to be or not\n<unk>\n";
        let shown = |text: &str| shown(Unit::Word, vocabulary, text.as_bytes());
        assert_eq!(shown("to be\nor not\n"), "[to][be][<eos>][or][not][<eos>]");
        assert_eq!(shown(" to  be \nor"), " [to]  [be] [<eos>][or]");
        assert_eq!(shown("to\tbe\r\nto"), r"[to]\t[be]\r[<eos>][to]");
        assert_eq!(shown("to see be"), "[to][<unk>?] see[be]");
        assert_eq!(shown("to <unk> be"), "[to][<unk>][be]");
        assert_eq!(shown("\u{feff}to"), r"\xef\xbb\xbfto");
        assert_eq!(shown(""), "");
        assert_eq!(shown("\n\n"), "[<eos>][<eos>]");
    }

    #[test]
    fn characters_are_tokens_but_for_those_that_the_vocabulary_lacks() {
        let shown = |text: &[u8]| shown(Unit::Char, "aé\n", text);
        assert_eq!(shown("aéa\n".as_bytes()), r"[a][é][a][\n]");
        assert_eq!(shown(b"ab\r\na"), r"[a]b\r[\n][a]");
        assert_eq!(shown(b"a\xff\xc3a\xc3"), r"[a]\xff\xc3[a]\xc3");
        assert_eq!(shown(b"\xc3"), r"\xc3");
    }

    #[test]
    fn byte_pairs_are_tokens_to_the_byte() {
        let text = "one two one two one\r\ntwo é";
        let (items, tokenizer) = cut(Unit::Bpe, &"one two one two\n".repeat(9), text.as_bytes());
        let spellings = tokenizer.spellings().unwrap();
        let bytes: Vec<u8> = items
            .iter()
            .flat_map(|item| match *item {
                Item::Literal(byte) => vec![byte],
                Item::Token(id) => spellings.of(id, None).unwrap().1.to_vec(),
                Item::Hidden(_) => panic!("byte pairs know every byte"),
            })
            .collect();
        assert_eq!(String::from_utf8(bytes).unwrap(), text);
        assert_eq!(items.iter().filter(|item| matches!(item, Item::Literal(_))).count(), 1); // the carriage return
    }

    #[test]
    fn parts_are_the_text_and_end_with_lines_where_they_can() {
        let text = "a line of text\n".repeat(100);
        for count in [1, 2, 3, 7, 99, 1500, 5000] {
            for text in [text.as_bytes(), &[b'x'; 1000], "é".repeat(40).as_bytes(), b"x"] {
                let parts = parts(text, count);
                assert_eq!(parts.concat(), text);
                assert!(parts.len() <= count && parts.iter().all(|part| !part.is_empty()));
            }
        }
        assert!(parts(text.as_bytes(), 7).iter().all(|part| part.ends_with(b"\n")));
        assert!(parts("é".repeat(400).as_bytes(), 3).iter().all(|part| std::str::from_utf8(part).is_ok()));
        assert!(parts(b"", 3).is_empty());
    }
}
