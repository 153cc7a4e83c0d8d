//! What a corpus holds: sizes, tokens, vocabulary, lines, symbols outside the vocabulary.

use super::corpus::Corpus;
use super::text::Text;
use super::tokenizer::{Tokenizer, count_chars};
use crate::config::Unit;
use crate::error::Result;
use crate::readable::grouped;
use serde::Serialize;
use std::collections::HashSet;
use std::fmt;

/// What a corpus holds.
#[derive(Clone, Debug, Serialize)]
pub struct CorpusReport {
    /// Its name or path.
    pub corpus: String,
    /// What a token is.
    pub unit: Unit,
    /// The size of the vocabulary, which comes from the training split unless one was given.
    pub vocab_size: usize,
    /// The SHA-256 of the splits one after another.
    pub sha256: String,
    /// Training, validation, test.
    pub splits: Vec<SplitCounts>,
}

/// What a split holds.
#[derive(Clone, Debug, Serialize)]
pub struct SplitCounts {
    /// `train`, `valid` or `test`.
    pub split: &'static str,
    /// Bytes as read.
    pub bytes: u64,
    /// Characters as read; absent if they are no UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chars: Option<u64>,
    /// Tokens.
    pub tokens: usize,
    /// Different tokens: of what the vocabulary lacks, different symbols.
    pub types: usize,
    /// Lines.
    pub lines: u64,
    /// Characters of the longest line.
    pub longest_line: u64,
    /// Symbols that the vocabulary lacks.
    pub oov_tokens: u64,
}

impl CorpusReport {
    /// Cuts the whole corpus into tokens and counts.
    ///
    /// # Errors
    /// If the text cannot be cut by the tokenizer.
    pub fn new(corpus: &Corpus, tokenizer: &Tokenizer) -> Result<Self> {
        let splits = corpus.splits().map(|(name, text)| inspect(name, text, tokenizer));
        Ok(Self {
            corpus: corpus.name.clone(),
            unit: tokenizer.unit(),
            vocab_size: tokenizer.vocab_size(),
            sha256: corpus.sha256.clone(),
            splits: splits.into_iter().collect::<Result<_>>()?,
        })
    }
}

fn inspect<'a>(split: &'static str, text: &'a Text, tokenizer: &Tokenizer) -> Result<SplitCounts> {
    let encoded = tokenizer.encode(text)?;
    let mut seen = vec![false; tokenizer.vocab_size()];
    let mut unknown: HashSet<&[u8]> = HashSet::new();
    if encoded.unseen == 0 {
        encoded.tokens.iter().for_each(|id| seen[id as usize] = true);
    } else {
        // Of what the vocabulary lacks the tokens do not say which symbols they are.
        // A word may come with white space around it. White space is a symbol by itself, a line's end one however it is written.
        let is_line_end = |spelled: &[u8]| tokenizer.unit() != Unit::Byte && spelled.contains(&b'\n');
        let symbol = |spelled: &'a [u8]| match spelled.trim_ascii() {
            [] if is_line_end(spelled) => b"\n",
            [] => spelled,
            trimmed => trimmed,
        };
        tokenizer.cut(text, |piece| match piece.id {
            Some(id) if piece.known => seen[id as usize] = true,
            _ => drop(unknown.insert(symbol(&text.bytes()[piece.span]))),
        })?;
    }
    // A byte order mark is bytes to a tokenizer of bytes, and nothing to others.
    let mark = if tokenizer.unit() == Unit::Byte { 0 } else { text.mark_length() };
    let lines = || text.bytes()[mark..].split_inclusive(|&byte| byte == b'\n');
    let length = |line: &[u8]| {
        let line = line.strip_suffix(b"\n").map_or(line, |line| line.strip_suffix(b"\r").unwrap_or(line));
        count_chars(line)
    };
    Ok(SplitCounts {
        split,
        bytes: encoded.bytes,
        chars: std::str::from_utf8(text.bytes()).is_ok().then_some(encoded.chars),
        tokens: encoded.tokens.len(),
        types: seen.iter().filter(|&&seen| seen).count() + unknown.len(),
        lines: lines().count() as u64,
        longest_line: lines().map(length).max().unwrap_or(0),
        oov_tokens: encoded.unseen,
    })
}

impl fmt::Display for CorpusReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = grouped(self.vocab_size as u64);
        let unit = self.unit.as_str();
        writeln!(f, "{}: a vocabulary of {size} by {unit}, SHA-256 {}", self.corpus, self.sha256)?;
        let heads = ["bytes", "chars", "tokens", "distinct", "lines", "longest line", "OOV"];
        write!(f, "{:6}", "split")?;
        heads.iter().try_for_each(|head| write!(f, "{head:>13}"))?;
        for split in &self.splits {
            let [tokens, distinct] = [split.tokens, split.types].map(|count| count as u64);
            let SplitCounts { split, bytes, chars, lines, longest_line, oov_tokens, .. } = *split;
            write!(f, "\n{split:6}")?;
            let counts = [
                Some(bytes),
                chars,
                Some(tokens),
                Some(distinct),
                Some(lines),
                Some(longest_line),
                Some(oov_tokens),
            ];
            counts
                .iter()
                .try_for_each(|count| write!(f, "{:>13}", count.map_or_else(|| "–".into(), grouped)))?;
        }
        Ok(())
    }
}
