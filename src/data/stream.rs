//! A text that is read and cut piece by piece, so that what is held does not grow with it.

use super::text::{Before, Text};
use super::tokenizer::Tokenizer;
use crate::error::{Error, Result};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

/// Bytes of the source that are asked for at once; it may give fewer, a person who types gives a line.
const READ_AT_ONCE: usize = 1 << 16;

/// A source of text, read line by line.
pub struct TextStream<R> {
    source: PathBuf,
    input: BufReader<R>,
    /// What was read and not yet given.
    held: Vec<u8>,
    before: Before,
    over: bool,
}

impl<R: Read> TextStream<R> {
    /// The whole of `input`, which errors call `source`.
    pub fn new(source: &Path, input: R) -> Self {
        let before = Before::default();
        let input = BufReader::with_capacity(READ_AT_ONCE, input);
        Self { source: source.to_path_buf(), input, held: Vec::new(), before, over: false }
    }

    /// The next part, which `tokenizer` cuts as it cuts the whole: a line or several, without the end that still
    /// depends on what follows. None after the last.
    ///
    /// # Errors
    /// If the source cannot be read.
    pub fn next_part(&mut self, tokenizer: &Tokenizer) -> Result<Option<Text>> {
        loop {
            let settled = if self.over { self.held.len() } else { tokenizer.settled(&self.held) };
            if settled > 0 {
                return Ok(Some(self.give(settled)));
            }
            if self.over {
                return Ok(None);
            }
            while !self.read_line()? && !self.over {}
        }
    }

    /// The next line, with its end, cut by itself; none after the last. Errors as [`TextStream::next_part`].
    pub fn next_line(&mut self) -> Result<Option<Text>> {
        self.read_line()?;
        Ok((!self.held.is_empty()).then(|| self.give(self.held.len())))
    }

    /// Whether the next line is here already, so that nobody has to wait for it.
    pub fn has_line(&self) -> bool {
        self.input.buffer().contains(&b'\n')
    }

    /// Reads a line. Whether something in it is visible: blank lines settle nothing.
    fn read_line(&mut self) -> Result<bool> {
        let start = self.held.len();
        let read = self.input.read_until(b'\n', &mut self.held);
        let read = read.map_err(|error| Error::data(&self.source, format!("cannot be read: {error}")))?;
        self.over = read == 0;
        Ok(!self.held[start..].trim_ascii().is_empty())
    }

    fn give(&mut self, length: usize) -> Text {
        let rest = self.held.split_off(length);
        let given = std::mem::replace(&mut self.held, rest);
        let before = self.before;
        self.before.bytes += given.len() as u64;
        self.before.lines += given.iter().filter(|&&byte| byte == b'\n').count() as u64;
        Text::following(given, &self.source, before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Unit;
    use crate::predict::tiny;

    #[test]
    fn a_line_is_here_when_the_source_has_given_its_end() {
        struct Typed(Vec<&'static str>);
        impl Read for Typed {
            fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
                if self.0.is_empty() { Ok(0) } else { self.0.remove(0).as_bytes().read(bytes) }
            }
        }
        let mut stream = TextStream::new(Path::new("text"), Typed(vec!["a\nb\nc", "d\n", "e"]));
        let mut found = Vec::new();
        while let Some(line) = stream.next_line().unwrap() {
            found.push((String::from_utf8(line.bytes().to_vec()).unwrap(), stream.has_line()));
        }
        let wanted = [("a\n", true), ("b\n", false), ("cd\n", false), ("e", false)];
        assert_eq!(found, wanted.map(|(line, more)| (line.to_string(), more)));
    }

    #[test]
    fn parts_are_cut_as_the_whole_is() {
        let text = "\u{feff}the old mill\r\n    and the\u{feff} river\n\n\tsleeps \n  now";
        for unit in [Unit::Word, Unit::Char, Unit::Byte, Unit::Bpe] {
            let tokenizer = tiny::tokenizer(unit, &text.repeat(3));
            let wanted = tokenizer.encode(&Text::from(text)).unwrap().tokens.to_vec();
            let mut stream = TextStream::new(Path::new("text"), text.as_bytes());
            let mut found = Vec::new();
            let mut parts = 0;
            while let Some(part) = stream.next_part(&tokenizer).unwrap() {
                tokenizer.cut(&part, |piece| found.extend(piece.id)).unwrap();
                parts += 1;
            }
            assert!(parts > 3, "{unit:?}");
            assert_eq!(found, wanted, "{unit:?}");
        }
    }
}
