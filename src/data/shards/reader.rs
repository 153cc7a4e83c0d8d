//! A shard as text, in parts of about a megabyte that end with a line.

use crate::data::packed;
use crate::data::text::{Before, Text};
use crate::data::tokenizer::Tokenizer;
use crate::error::Result;
use sha2::{Digest, Sha256};
use std::io::{BufRead, Read};
use std::path::{Path, PathBuf};

/// Bytes that are read at once.
const PART: u64 = 1 << 20;

/// Reads a shard, packed or not, part by part; a line is never cut. A last line without a line feed gets one: the next
/// shard begins a line.
pub(super) struct ShardReader {
    path: PathBuf,
    input: Box<dyn BufRead>,
    held: Vec<u8>,
    before: Before,
    digest: Sha256,
    over: bool,
}

impl ShardReader {
    /// The shard from its first byte.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let input = packed::open(path)?;
        let before = Before::default();
        Ok(Self { path: path.to_path_buf(), input, held: vec![], before, digest: Sha256::new(), over: false })
    }

    /// The next part, which `tokenizer` cuts as it cuts the whole; without one, some lines. None after the last.
    ///
    /// # Errors
    /// If the shard cannot be read, or is not packed as its name says.
    pub(super) fn next(&mut self, tokenizer: Option<&Tokenizer>) -> Result<Option<Text>> {
        loop {
            let settled = match tokenizer {
                _ if self.over => self.held.len(),
                Some(tokenizer) => tokenizer.settled(&self.held),
                None => self.held.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1),
            };
            if settled > 0 {
                return Ok(Some(self.give(settled)));
            }
            if self.over {
                return Ok(None);
            }
            self.read()?;
        }
    }

    /// The SHA-256 of the text, once all of it was read.
    pub(super) fn digest(self) -> String {
        crate::digest::hex(self.digest)
    }

    fn read(&mut self) -> Result<()> {
        let start = self.held.len();
        let read = self.input.by_ref().take(PART).read_to_end(&mut self.held);
        read.map_err(|error| packed::unreadable(&self.path, &error))?;
        self.digest.update(&self.held[start..]);
        self.over = self.held.len() == start;
        if self.over && self.held.last().is_some_and(|&byte| byte != b'\n') {
            self.held.push(b'\n');
        }
        Ok(())
    }

    fn give(&mut self, length: usize) -> Text {
        let rest = self.held.split_off(length);
        let given = std::mem::replace(&mut self.held, rest);
        let before = self.before;
        self.before.bytes += given.len() as u64;
        self.before.lines += given.iter().filter(|&&byte| byte == b'\n').count() as u64;
        Text::following(given, &self.path, before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(bytes: &[u8]) -> (Vec<String>, String) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shard.txt");
        std::fs::write(&path, bytes).unwrap();
        let mut reader = ShardReader::open(&path).unwrap();
        let mut parts = Vec::new();
        while let Some(part) = reader.next(None).unwrap() {
            parts.push(part.as_str().unwrap().to_owned());
        }
        (parts, reader.digest())
    }

    #[test]
    fn parts_end_with_lines_and_are_together_the_text() {
        let line = "a line of some words\n".repeat(100_000); // 2.1 MB
        let (found, digest) = parts(line.as_bytes());
        assert!(found.len() > 1 && found.iter().all(|part| part.ends_with('\n')));
        assert_eq!(found.concat(), line);
        assert_eq!(digest, crate::digest::sha256(line.as_bytes()));
    }

    #[test]
    fn a_last_line_gets_its_end_and_an_empty_shard_has_no_part() {
        assert_eq!(parts(b"a\nb").0.concat(), "a\nb\n");
        assert_eq!(parts(b"a\nb\n").0.concat(), "a\nb\n");
        assert!(parts(b"").0.is_empty());
    }

    #[test]
    fn what_is_not_utf8_is_reported_with_its_place_in_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shard.txt");
        let mut bytes = "a line of some words\n".repeat(100_000).into_bytes();
        bytes.extend_from_slice(b"ab\xffc\n");
        std::fs::write(&path, &bytes).unwrap();
        let mut reader = ShardReader::open(&path).unwrap();
        let message = loop {
            if let Err(error) = reader.next(None).unwrap().unwrap().as_str() {
                break error.to_string();
            }
        };
        assert!(
            message.contains("shard.txt") && message.contains("offset 2100002, line 100001"),
            "{message}"
        );
    }
}
