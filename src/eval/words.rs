//! From the cost of tokens to the cost of words, which white space separates.
//!
//! By the convention `leading` a blank belongs to the word after it, by `trailing` to the word before. Where a token may
//! hold a blank and letters, as ` the` of byte pairs, `trailing` takes each token apart that begins with a blank after a
//! word: that *some* such token comes is the end of the word before, that it is this one belongs to the word after it
//! (Pimentel and Meister, 2024; Oh and Schuler, 2024). A line end is a row of its own by `leading`; by `trailing` it ends a
//! word like any blank, and where tokens are taken apart what is left of it, that the blank is this one, is a row of its own.

use super::score::Cost;
use std::ops::Range;

/// The word that a blank belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Boundary {
    /// The word after the blank
    #[default]
    Leading,
    /// The word before the blank
    Trailing,
}

/// A token, or a stretch that was left out, on its way into a word. Places are bytes of the whole text.
#[derive(Clone, Debug)]
pub struct TokenCost {
    /// The stretch of the text.
    pub span: Range<u64>,
    /// The part of it without white space at its ends; empty if it is all white space.
    pub visible: Range<u64>,
    /// Whether a line ends in it.
    pub line_end: bool,
    /// Whether white space that is no token comes before it.
    pub separated: bool,
    /// Whether it is a token, and not left out.
    pub is_token: bool,
    /// Whether the vocabulary has it.
    pub known: bool,
    /// What it cost, with the blanks for a set; none if it has no surprisal.
    pub cost: Option<Cost>,
}

/// A word, or white space that belongs to none.
#[derive(Clone, Debug, PartialEq)]
pub struct WordCost {
    /// The letters' place; the white space's, if there are none.
    pub span: Range<u64>,
    /// Whether there are letters.
    pub is_word: bool,
    /// Tokens in it; one that is taken apart counts in the second word.
    pub tokens: usize,
    /// Symbols in it that the vocabulary lacks.
    pub unknown: u64,
    /// The sum of its parts; none if one of its tokens has none.
    pub nats: Option<f64>,
}

/// Adds tokens up, in the order of the text.
#[derive(Debug)]
pub struct Words {
    boundary: Boundary,
    /// Tokens that begin with a blank are taken apart by `trailing`.
    apart: bool,
    open: Option<WordCost>,
    /// White space came after the open row's letters.
    ended: bool,
}

impl Words {
    /// No token yet. `apart`: the costs have that of any token with a blank at its start, for `trailing`.
    pub fn new(boundary: Boundary, apart: bool) -> Self {
        Self { boundary, apart: apart && boundary == Boundary::Trailing, open: None, ended: false }
    }

    /// Takes the next token; the rows that it completes are appended to `rows`.
    pub fn push(&mut self, token: &TokenCost, rows: &mut Vec<WordCost>) {
        self.ended |= token.separated;
        if token.visible.is_empty() {
            self.push_white(token, rows);
        } else {
            self.push_visible(token, rows);
        }
    }

    /// The text is over: gives what is left.
    pub fn finish(&mut self, rows: &mut Vec<WordCost>) {
        rows.extend(self.open.take());
        self.ended = false;
    }

    /// Where the row begins that is not complete, if there is one.
    pub fn open_start(&self) -> Option<u64> {
        self.open.as_ref().map(|open| open.span.start)
    }

    fn push_white(&mut self, token: &TokenCost, rows: &mut Vec<WordCost>) {
        let in_word = self.open.as_ref().is_some_and(|open| open.is_word);
        if self.boundary == Boundary::Leading && in_word {
            self.finish(rows);
        }
        // A line end with nothing before it ends no word: it is one row, of all of its cost.
        let is_apart = !token.line_end || self.open.is_some();
        let own = if is_apart { self.take_end(token, rows) } else { nats(token) };
        self.add(token, own);
        self.ended = true;
        if token.line_end && (self.boundary == Boundary::Leading || self.apart) {
            self.finish(rows);
            self.ended = true; // what comes after it is no end of a word
        }
    }

    fn push_visible(&mut self, token: &TokenCost, rows: &mut Vec<WordCost>) {
        let begins_blank = token.visible.start > token.span.start;
        let own = if begins_blank { self.take_end(token, rows) } else { nats(token) };
        let in_word = self.open.as_ref().is_some_and(|open| open.is_word);
        let blank_is_of_word_before = self.boundary == Boundary::Trailing && !self.apart;
        if (begins_blank || self.ended) && (in_word || blank_is_of_word_before) {
            self.finish(rows);
        }
        self.add(token, own);
        self.ended = token.visible.end < token.span.end;
    }

    /// Gives the open row the end that a token with a blank at its start is, if such tokens are taken apart and it has not
    /// ended yet; what the token itself still costs.
    fn take_end(&mut self, token: &TokenCost, rows: &mut Vec<WordCost>) -> Option<f64> {
        let (true, false, Some(cost)) = (self.apart, self.ended, token.cost) else { return nats(token) };
        let blank = token.span.start..token.visible.start.max(token.span.start);
        let open = self.open.get_or_insert(WordCost {
            span: blank,
            is_word: false,
            tokens: 0,
            unknown: 0,
            nats: Some(0.0),
        });
        open.nats = open.nats.map(|sum| sum + cost.set_nats);
        self.finish(rows);
        Some(cost.nats - cost.set_nats)
    }

    fn add(&mut self, token: &TokenCost, nats: Option<f64>) {
        let visible = &token.visible;
        let open = self.open.get_or_insert(WordCost {
            span: token.span.clone(),
            is_word: false,
            tokens: 0,
            unknown: 0,
            nats: Some(0.0),
        });
        match (open.is_word, visible.is_empty()) {
            (false, false) => open.span = visible.clone(),
            (true, false) => open.span.end = open.span.end.max(visible.end),
            (false, true) => open.span.end = open.span.end.max(token.span.end),
            (true, true) => {}
        }
        open.is_word |= !visible.is_empty();
        open.tokens += usize::from(token.is_token);
        open.unknown += u64::from(!token.known);
        open.nats = open.nats.zip(nats).map(|(sum, nats)| sum + nats);
    }
}

fn nats(token: &TokenCost) -> Option<f64> {
    token.cost.map(|cost| cost.nats)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tokens that are `parts` of a text one after another, each at the cost of its place, the set at half of it.
    fn words(parts: &[&str], boundary: Boundary, apart: bool) -> Vec<(String, f64)> {
        let text: String = parts.concat();
        let mut words = Words::new(boundary, apart);
        let mut rows = Vec::new();
        let mut start = 0;
        for (part, place) in parts.iter().zip(1..) {
            let lead = (part.len() - part.trim_start().len()) as u64;
            let end = start + part.len() as u64;
            let visible = start + lead..start + lead + part.trim().len() as u64;
            let cost = Some(Cost { nats: f64::from(place), set_nats: f64::from(place) / 2.0 });
            let line_end = part.contains('\n');
            let token = TokenCost {
                span: start..end,
                visible,
                line_end,
                separated: false,
                is_token: true,
                known: true,
                cost,
            };
            words.push(&token, &mut rows);
            start = end;
        }
        words.finish(&mut rows);
        let spelled = |row: &WordCost| text[row.span.start as usize..row.span.end as usize].to_owned();
        rows.iter().map(|row| (spelled(row), row.nats.unwrap())).collect()
    }

    fn rows(wanted: &[(&str, f64)]) -> Vec<(String, f64)> {
        wanted.iter().map(|&(text, nats)| (text.to_owned(), nats)).collect()
    }

    #[test]
    fn a_blank_belongs_to_the_word_after_or_to_the_word_before() {
        let parts = ["a", "b", " ", "c", "\n", "d"];
        let leading = words(&parts, Boundary::Leading, false);
        assert_eq!(leading, rows(&[("ab", 3.0), ("c", 7.0), ("\n", 5.0), ("d", 6.0)]));
        let trailing = words(&parts, Boundary::Trailing, false);
        assert_eq!(trailing, rows(&[("ab", 6.0), ("c", 9.0), ("d", 6.0)]));
    }

    #[test]
    fn a_token_with_a_blank_at_its_start_is_taken_apart_where_the_blank_ends_a_word() {
        let parts = ["the", " riv", "er", " sl", "\n   ", " and"];
        let leading = words(&parts, Boundary::Leading, true);
        assert_eq!(leading, rows(&[("the", 1.0), ("river", 5.0), ("sl", 4.0), ("\n   ", 5.0), ("and", 6.0)]));
        let trailing = words(&parts, Boundary::Trailing, true);
        let wanted = [("the", 2.0), ("river", 6.0), ("sl", 4.5), ("\n   ", 2.5), ("and", 6.0)];
        assert_eq!(trailing, rows(&wanted));
        let all = |rows: &[(String, f64)]| rows.iter().map(|row| row.1).sum::<f64>();
        assert_eq!((all(&leading), all(&trailing)), (21.0, 21.0)); // nothing is lost, nothing counts twice
    }

    #[test]
    fn white_space_of_no_word_has_a_row() {
        assert_eq!(words(&[" ", "a", " "], Boundary::Leading, false), rows(&[("a", 3.0), (" ", 3.0)]));
        assert_eq!(words(&[" ", "a", " "], Boundary::Trailing, false), rows(&[(" ", 1.0), ("a", 5.0)]));
        let lines = words(&["\n", "a", "\n", "\n", "b"], Boundary::Trailing, true);
        assert_eq!(lines, rows(&[("\n", 1.0), ("a", 3.5), ("\n", 1.5), ("\n", 4.0), ("b", 5.0)]));
        assert_eq!(
            words(&[" a", " "], Boundary::Trailing, true),
            rows(&[(" ", 0.5), ("a", 1.5), (" ", 1.0)])
        );
    }
}
