//! A token as an answer tells it: its text, where it begins, and the logarithms of probabilities.

use crate::config::Unit;
use crate::data::{Characters, Decoder, Tokenizer};
use std::fmt::Write;

/// A token of an answer.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::command::serve) struct Entry {
    pub(in crate::command::serve) token: String,
    /// ln p of it under the model itself; none for a first token that nothing comes before.
    pub(in crate::command::serve) logprob: Option<f64>,
    /// The likeliest tokens and their ln p, the likeliest first.
    pub(in crate::command::serve) top: Vec<(String, f64)>,
    /// Characters before it.
    pub(in crate::command::serve) offset: usize,
}

/// Makes entries of one token after another.
pub(super) struct Entries<'a> {
    tokenizer: &'a Tokenizer,
    decoder: Decoder<'a>,
    characters: Characters,
    /// Characters that are complete.
    chars: usize,
    /// Whether a word, if it came now, would have a blank before it.
    is_within_line: bool,
}

impl<'a> Entries<'a> {
    /// After what `decoder` has seen; `last` is the last token of it.
    pub(super) fn new(tokenizer: &'a Tokenizer, decoder: Decoder<'a>, last: Option<u32>) -> Self {
        let is_within_line = last.is_some() && last != tokenizer.line_end_id();
        Self { tokenizer, decoder, characters: Characters::default(), chars: 0, is_within_line }
    }

    /// The next token; `logits` predict it, if anything does.
    pub(super) fn next(&mut self, id: u32, logits: Option<&[f64]>, count: usize) -> Entry {
        let offset = self.chars;
        let token = self.spelled(id);
        let mut logprob = None;
        let mut top = Vec::new();
        if let Some(logits) = logits {
            let likeliest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = logits.iter().map(|logit| (logit - likeliest).exp()).sum();
            let normalizer = likeliest + sum.ln();
            logprob = Some(logits[id as usize] - normalizer);
            top = self.likeliest(logits, normalizer, count);
            if count > 0 && top.iter().all(|(other, _)| *other != token) {
                top.push((token.clone(), logits[id as usize] - normalizer));
            }
        }
        self.chars += self.characters.push(&self.decoder.push_raw(id)).chars().count();
        self.is_within_line = Some(id) != self.tokenizer.line_end_id();
        Entry { token, logprob, top, offset }
    }

    fn likeliest(&self, logits: &[f64], normalizer: f64, count: usize) -> Vec<(String, f64)> {
        let mut ids: Vec<u32> = (0..logits.len() as u32).collect();
        let falling = |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
        if count == 0 {
            return Vec::new();
        }
        if count < ids.len() {
            ids.select_nth_unstable_by(count - 1, falling);
            ids.truncate(count);
        }
        ids.sort_unstable_by(falling);
        ids.into_iter().map(|id| (self.spelled(id), logits[id as usize] - normalizer)).collect()
    }

    /// The text that `id` stands for if it comes now; of bytes that are no UTF-8, `bytes:\xc3`.
    fn spelled(&self, id: u32) -> String {
        if self.tokenizer.unit() == Unit::Word {
            return match Some(id) == self.tokenizer.line_end_id() {
                true => "\n".into(),
                false if self.is_within_line => format!(" {}", self.tokenizer.token(id)),
                false => self.tokenizer.token(id).into(),
            };
        }
        match String::from_utf8(self.tokenizer.decoder().push_raw(id)) {
            Ok(text) if text.is_empty() => self.tokenizer.token(id).into(),
            Ok(text) => text,
            Err(error) => error.as_bytes().iter().fold("bytes:".to_string(), |mut text, byte| {
                write!(text, "\\x{byte:02x}").expect("a string takes all");
                text
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Entries;
    use crate::config::Unit;
    use crate::predict::tiny::tokenizer;

    #[test]
    fn words_bring_their_blank_and_offsets_count_characters() {
        let words = tokenizer(Unit::Word, "été be\n");
        let id = |word: &str| words.words().iter().position(|known| known == word).unwrap() as u32;
        let mut entries = Entries::new(&words, words.decoder(), None);
        let ids = [id("été"), id("be"), words.line_end_id().unwrap(), id("be")];
        let found = ids.map(|id| entries.next(id, None, 0));
        assert_eq!(found.each_ref().map(|entry| entry.token.as_str()), ["été", " be", "\n", "be"]);
        assert_eq!(found.map(|entry| entry.offset), [0, 3, 6, 7]);
    }

    #[test]
    fn half_a_character_is_spelled_in_bytes_and_begins_where_the_whole_does() {
        let bytes = tokenizer(Unit::Byte, "aé\n");
        let id = |byte: &str| bytes.words().iter().position(|known| known == byte).unwrap() as u32;
        let mut entries = Entries::new(&bytes, bytes.decoder(), None);
        let found = [id("a"), id("<0xC3>"), id("<0xA9>"), id("a")].map(|id| entries.next(id, None, 0));
        assert_eq!(
            found.each_ref().map(|entry| entry.token.as_str()),
            ["a", "bytes:\\xc3", "bytes:\\xa9", "a"]
        );
        assert_eq!(found.map(|entry| entry.offset), [0, 1, 1, 2]);
    }

    #[test]
    fn the_likeliest_come_first_and_the_token_itself_is_among_them() {
        let chars = tokenizer(Unit::Char, "abc\n");
        let logits: Vec<f64> = [0.5f64, 0.25, 0.125, 0.125].iter().map(|p| p.ln()).collect();
        let mut entries = Entries::new(&chars, chars.decoder(), None);
        let logits = [logits.clone(), vec![-9.0; chars.vocab_size() - 4]].concat();
        let entry = entries.next(2, Some(&logits), 1);
        let names: Vec<&str> = entry.top.iter().map(|(token, _)| token.as_str()).collect();
        assert_eq!(names, [chars.token(0), chars.token(2)]);
        let wanted = entry.top[0].1 - 4f64.ln();
        assert!((entry.logprob.unwrap() - wanted).abs() < 1e-12);
    }
}
