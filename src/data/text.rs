//! A text in memory: a range of a shared buffer, so that a corpus's splits are never copied.

use super::packed;
use crate::console::note;
use crate::error::{Error, Result};
use std::io::{IsTerminal, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The mark that some editors put at a file's start; it is not part of the text.
const BYTE_ORDER_MARK: &str = "\u{feff}";

/// A text, not yet cut into tokens. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Text {
    buffer: Arc<Vec<u8>>,
    range: Range<usize>,
    before: Before,
    /// Where it came from; only for messages.
    pub source: PathBuf,
}

/// What was read of a source before a text's first byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Before {
    /// Bytes of it.
    pub bytes: u64,
    /// Line ends in it.
    pub lines: u64,
}

impl Text {
    /// A text of these bytes.
    pub fn new(bytes: Vec<u8>, source: impl AsRef<Path>) -> Self {
        Self::following(bytes, source, Before::default())
    }

    /// The next part of a source that is read piece by piece.
    pub fn following(bytes: Vec<u8>, source: impl AsRef<Path>, before: Before) -> Self {
        let range = 0..bytes.len();
        Self { buffer: Arc::new(bytes), range, before, source: source.as_ref().to_path_buf() }
    }

    /// No text at all, for a split that a corpus lacks.
    pub fn empty(source: impl AsRef<Path>) -> Self {
        Self::new(Vec::new(), source)
    }

    /// Reads the whole file; one whose name ends in `.gz` or `.zst` is unpacked.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn read(path: &Path) -> Result<Self> {
        // Never mapped: a mapped file that someone truncates would kill the process.
        Ok(Self::new(packed::read(path)?, path))
    }

    /// Reads all of the standard input.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn read_stdin() -> Result<Self> {
        let source = Path::new("standard input");
        if std::io::stdin().is_terminal() {
            note("reading what is typed, to its end (Ctrl-D at the beginning of a line)");
        }
        let mut bytes = Vec::new();
        std::io::stdin().lock().read_to_end(&mut bytes).map_err(Error::io(source))?;
        Ok(Self::new(bytes, source))
    }

    /// The bytes as read.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[self.range.clone()]
    }

    /// How many bytes there are.
    pub fn len(&self) -> usize {
        self.range.len()
    }

    /// Whether there is no byte.
    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    /// A part of this text; the buffer is shared.
    pub fn slice(&self, part: Range<usize>) -> Self {
        let range = self.range.start + part.start..self.range.start + part.end;
        assert!(part.start <= part.end && range.end <= self.range.end, "part of a text out of its range");
        Self { buffer: self.buffer.clone(), range, before: self.before, source: self.source.clone() }
    }

    /// The text as characters, without a byte order mark at its source's start.
    ///
    /// # Errors
    /// If it is not UTF-8: names the first bad byte's offset and line.
    pub fn as_str(&self) -> Result<&str> {
        let text = self.whole_str()?;
        Ok(&text[self.mark_length()..])
    }

    /// The text as characters, a byte order mark included; errors as [`Text::as_str`].
    pub(crate) fn whole_str(&self) -> Result<&str> {
        std::str::from_utf8(self.bytes()).map_err(|error| self.not_utf8(error.valid_up_to()))
    }

    /// Whether this is where its source begins: a part from the middle begins with whatever it begins with.
    pub(crate) fn is_start(&self) -> bool {
        self.before.bytes == 0 && self.range.start == 0
    }

    /// Bytes of the byte order mark at the source's start; 0 without one.
    pub(crate) fn mark_length(&self) -> usize {
        let marked = self.is_start() && self.bytes().starts_with(BYTE_ORDER_MARK.as_bytes());
        if marked { BYTE_ORDER_MARK.len() } else { 0 }
    }

    /// Where in its source the byte `at` of this text is.
    pub(crate) fn offset(&self, at: usize) -> u64 {
        self.before.bytes + (self.range.start + at) as u64
    }

    fn not_utf8(&self, valid: usize) -> Error {
        let at = self.range.start + valid;
        let lines = self.buffer[..at].iter().filter(|&&byte| byte == b'\n').count() as u64;
        let line = 1 + self.before.lines + lines;
        let offset = self.offset(valid);
        let byte = self.buffer[at];
        let what = format!(
            "invalid UTF-8: byte 0x{byte:02x} at offset {offset}, line {line}; \
             convert the text to UTF-8, or use unit = \"byte\" in a language model"
        );
        Error::data(&self.source, what)
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self::new(text.as_bytes().to_vec(), "text")
    }
}

#[cfg(test)]
mod tests {
    use super::{Before, Text};

    #[test]
    fn a_byte_order_mark_is_dropped_at_the_start_only() {
        let text = Text::from("\u{feff}a\u{feff}b");
        assert_eq!(text.as_str().unwrap(), "a\u{feff}b");
        assert_eq!(text.slice(4..8).as_str().unwrap(), "\u{feff}b");
    }

    #[test]
    fn a_part_that_is_read_later_is_not_a_sources_start() {
        let before = Before { bytes: 4, lines: 1 };
        let text = Text::following("\u{feff}a".into(), "file", before);
        assert_eq!((text.as_str().unwrap(), text.offset(3)), ("\u{feff}a", 7));
        let broken = Text::following(b"a\n\xff".to_vec(), "file", before);
        let message = broken.as_str().unwrap_err().to_string();
        assert!(message.contains("offset 6, line 3"), "{message}");
    }

    #[test]
    fn invalid_utf8_is_reported_with_file_offset_and_line() {
        let text = Text::new(b"one\ntw\xffo\n".to_vec(), "some/file.txt");
        let message = text.slice(4..9).as_str().unwrap_err().to_string();
        for part in ["some/file.txt", "0xff", "offset 6", "line 2", "unit = \"byte\""] {
            assert!(message.contains(part), "{message}");
        }
    }
}
