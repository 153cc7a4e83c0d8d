//! A text in memory: a range of a shared buffer, so that a corpus's splits are never copied.

use crate::error::{Error, Result};
use std::io::Read;
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
    /// Where it came from; only for messages.
    pub source: PathBuf,
}

impl Text {
    /// A text of these bytes.
    pub fn new(bytes: Vec<u8>, source: impl AsRef<Path>) -> Self {
        let range = 0..bytes.len();
        Self { buffer: Arc::new(bytes), range, source: source.as_ref().to_path_buf() }
    }

    /// No text at all, for a split that a corpus lacks.
    pub fn empty(source: impl AsRef<Path>) -> Self {
        Self::new(Vec::new(), source)
    }

    /// Reads the whole file.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn read(path: &Path) -> Result<Self> {
        // Never mapped: a mapped file that someone truncates would kill the process.
        Ok(Self::new(std::fs::read(path).map_err(Error::io(path))?, path))
    }

    /// Reads all of the standard input.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn read_stdin() -> Result<Self> {
        let source = Path::new("standard input");
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
        Self { buffer: self.buffer.clone(), range, source: self.source.clone() }
    }

    /// The text as characters, without a byte order mark at its start.
    ///
    /// # Errors
    /// If it is not UTF-8: names the first bad byte's offset and line.
    pub fn as_str(&self) -> Result<&str> {
        let text = std::str::from_utf8(self.bytes()).map_err(|error| self.not_utf8(error.valid_up_to()))?;
        let first = self.range.start == 0; // a part from the middle begins with whatever it begins with
        Ok(if first { text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text) } else { text })
    }

    /// Where in its source the rest of this text begins, in bytes.
    pub(crate) fn offset(&self, rest: &str) -> usize {
        self.range.end - rest.len()
    }

    fn not_utf8(&self, valid: usize) -> Error {
        let offset = self.range.start + valid;
        let line = 1 + self.buffer[..offset].iter().filter(|&&byte| byte == b'\n').count();
        let byte = self.buffer[offset];
        let what = format!(
            "invalid UTF-8: byte 0x{byte:02x} at offset {offset}, line {line}; \
             convert the text to UTF-8, or use unit = \"byte\""
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
    use super::Text;

    #[test]
    fn a_byte_order_mark_is_dropped_at_the_start_only() {
        let text = Text::from("\u{feff}a\u{feff}b");
        assert_eq!(text.as_str().unwrap(), "a\u{feff}b");
        assert_eq!(text.slice(4..8).as_str().unwrap(), "\u{feff}b");
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
