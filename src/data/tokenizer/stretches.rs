//! Where a text may be cut before byte pairs are made of it: at its words' ends, and for counting within very long words.

use crate::data::text::Text;
use crate::error::{Error, Result};

/// Bytes between two positions where a text may be cut; more in one stretch would need gigabytes.
const LONGEST_STRETCH: usize = 8 << 20;

/// Bytes of a word that pairs are counted over at a time: the library's time for one grows with the square of its length.
const LONGEST_COUNTED: usize = 1 << 10;

/// The text, if it can be cut piece by piece. Fails if it is not UTF-8, or has a stretch that is too long;
/// says where.
pub(super) fn partable(text: &Text) -> Result<&str> {
    let content = text.whole_str()?;
    let mut start = 0;
    for piece in pieces(content, 1) {
        if piece.len() > LONGEST_STRETCH {
            let length = piece.len();
            let offset = text.offset(start);
            let what = format!(
                "{length} bytes from offset {offset} on without a word's end; byte pairs want one every \
                 {LONGEST_STRETCH} bytes: divide the text by spaces or line ends, or use unit = \"byte\" or \"char\""
            );
            return Err(Error::data(&text.source, what));
        }
        start += piece.len();
    }
    Ok(content)
}

/// Cuts a text into parts of `size` bytes or somewhat more, each but the first beginning with white space that follows
/// something visible. GPT-2's pattern always ends a piece there, so no token is cut.
pub(super) fn pieces(text: &str, size: usize) -> impl Iterator<Item = &str> + Send {
    let mut rest = text;
    std::iter::from_fn(move || {
        let from = size.min(rest.len());
        let cut = (from..rest.len()).find(|&at| at > 0 && parts(rest.as_bytes(), at)).unwrap_or(rest.len());
        let (piece, left) = rest.split_at(cut);
        rest = left;
        (!piece.is_empty()).then_some(piece)
    })
}

/// The parts of a text in which no word is longer than [`LONGEST_COUNTED`]; a longer one, as of a script without blanks, is cut
/// between characters, so that the pair across each cut is not counted.
pub(super) fn without_long_words(text: &str) -> impl Iterator<Item = &str> + Send {
    let mut cuts = Vec::new();
    let mut start = 0;
    for word in pieces(text, 1) {
        let mut at = start;
        start += word.len();
        while start - at > LONGEST_COUNTED {
            at = (at..=at + LONGEST_COUNTED).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(start);
            cuts.push(at);
        }
    }
    cuts.push(text.len());
    let mut from = 0;
    cuts.into_iter().map(move |to| {
        let part = &text[from..to];
        from = to;
        part
    })
}

/// Whether white space of ASCII begins at byte `at`, which is not the first, after a character that is visible.
pub(super) fn parts(text: &[u8], at: usize) -> bool {
    let white = |byte: u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
    if !white(text[at]) {
        return false;
    }
    let begins = text[..at].iter().rposition(|&byte| byte & 0xc0 != 0x80).unwrap_or(0);
    let last = str::from_utf8(&text[begins..at]).ok().and_then(|text| text.chars().next_back());
    last.is_some_and(|last| !last.is_whitespace())
}
