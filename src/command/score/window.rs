//! Where in its file a stretch of text is: places in bytes, characters and lines, counted as the file goes by.

use serde::Serialize;
use std::ops::Range;

/// Where a row's text is in its file: in characters (Unicode scalar values) and in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Place {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) start_byte: u64,
    pub(super) end_byte: u64,
}

/// The bytes of a file that rows still need, and what was counted before them.
#[derive(Default)]
pub(super) struct Window {
    pub(super) bytes: Vec<u8>,
    pub(super) base: Cursor,
    /// The place that was asked for last.
    counted: Cursor,
    /// The last byte that was forgotten is no line end.
    pub(super) ends_within_line: bool,
}

/// A place in a file: the bytes, characters and line ends before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cursor {
    pub(super) bytes: u64,
    pub(super) chars: u64,
    pub(super) lines: u64,
}

impl Cursor {
    pub(super) fn advance(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.chars += bytes.iter().filter(|&&byte| begins_char(byte)).count() as u64;
        self.lines += bytes.iter().filter(|&&byte| byte == b'\n').count() as u64;
    }
}

fn begins_char(byte: u8) -> bool {
    byte & 0xc0 != 0x80
}

impl Window {
    pub(super) fn end(&self) -> u64 {
        self.base.bytes + self.bytes.len() as u64
    }

    pub(super) fn slice(&self, span: &Range<u64>) -> &[u8] {
        let start = (span.start - self.base.bytes) as usize;
        &self.bytes[start..(span.end - self.base.bytes) as usize]
    }

    /// What comes before byte `at`, counted from the place that was asked for before.
    pub(super) fn at(&mut self, at: u64) -> Cursor {
        let from = self.counted;
        let between = self.slice(&(from.bytes.min(at)..from.bytes.max(at)));
        let mut passed = Cursor::default();
        passed.advance(between);
        self.counted = match at < from.bytes {
            true => Cursor { bytes: at, chars: from.chars - passed.chars, lines: from.lines - passed.lines },
            false => Cursor { bytes: at, chars: from.chars + passed.chars, lines: from.lines + passed.lines },
        };
        self.counted
    }

    /// A part of a character has the place of the whole one.
    pub(super) fn place(&mut self, span: &Range<u64>) -> Place {
        let start = self.at(span.start);
        let end = self.at(span.end);
        let within = span.start < self.end() && !begins_char(self.slice(&(span.start..span.start + 1))[0]);
        Place {
            start: start.chars - u64::from(within && start.chars > 0),
            end: end.chars,
            start_byte: span.start,
            end_byte: span.end,
        }
    }

    /// The stretch without white space at its ends. A part of a character is white space if the whole one is.
    pub(super) fn visible(&self, span: &Range<u64>) -> Range<u64> {
        let white = |at: &u64| self.is_white(*at);
        let start = span.clone().find(|at| !white(at)).unwrap_or(span.end);
        let end = span.clone().rev().find(|at| !white(at)).map_or(start, |at| at + 1);
        start..end.max(start)
    }

    pub(super) fn has_white(&self, span: &Range<u64>) -> bool {
        span.clone().any(|at| self.is_white(at))
    }

    pub(super) fn is_white(&self, at: u64) -> bool {
        let at = (at - self.base.bytes) as usize;
        let start = (0..=at).rev().take(4).find(|&at| begins_char(self.bytes[at])).unwrap_or(at);
        let end = self.bytes.len().min(start + 4);
        self.bytes[start..end]
            .utf8_chunks()
            .next()
            .is_some_and(|chunk| chunk.valid().starts_with(char::is_whitespace))
    }

    /// Drops what comes before `at`.
    pub(super) fn forget(&mut self, at: u64) {
        let base = self.at(at);
        let dropped = (at - self.base.bytes) as usize;
        if let Some(&last) = self.bytes.last() {
            self.ends_within_line = last != b'\n';
        }
        self.bytes.drain(..dropped);
        self.base = base;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(text: &[u8]) -> Window {
        Window { bytes: text.to_vec(), ..Window::default() }
    }

    #[test]
    fn places_are_counted_in_characters_wherever_they_are_asked_for() {
        let mut window = window("é\nbü c".as_bytes());
        let place = |start, end, start_byte, end_byte| Place { start, end, start_byte, end_byte };
        assert_eq!(window.place(&(3..4)), place(2, 3, 3, 4));
        assert_eq!(window.place(&(0..2)), place(0, 1, 0, 2));
        assert_eq!(window.place(&(5..6)), place(3, 4, 5, 6)); // the second half of ü
        assert_eq!((window.at(3).lines, window.at(2).lines), (1, 0));
        window.forget(3);
        assert_eq!((window.place(&(4..6)), window.slice(&(4..6))), (place(3, 4, 4, 6), "ü".as_bytes()));
    }

    #[test]
    fn what_is_visible_is_what_is_left_without_white_space_of_any_kind() {
        let window = window("\u{a0} ab\u{3000}c\n".as_bytes());
        assert_eq!(window.visible(&(0..10)), 3..9);
        assert_eq!(window.visible(&(0..3)), 3..3);
        assert_eq!(window.visible(&(6..8)), 8..8); // a part of a wide blank
        assert!(window.has_white(&(4..6)) && !window.has_white(&(3..5)));
    }
}
