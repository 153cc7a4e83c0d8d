//! The rows of a score: what each has, and its cells in a table.

use super::table::{Row, cell, number};
use super::window::Place;
use crate::eval::adapt::CacheSettings;
use serde::Serialize;

/// A row of `--per token`.
#[derive(Serialize)]
pub(super) struct TokenRow {
    pub(super) line: u64,
    pub(super) position: usize,
    pub(super) token: Option<String>,
    pub(super) id: Option<u32>,
    pub(super) surprisal: Option<f64>,
    #[serde(flatten)]
    pub(super) place: Place,
    pub(super) text: String,
    pub(super) unknown: bool,
}

/// A row of `--per word`.
#[derive(Serialize)]
pub(super) struct WordRow {
    pub(super) line: u64,
    pub(super) position: usize,
    /// Empty for white space that belongs to no word.
    pub(super) word: String,
    pub(super) surprisal: Option<f64>,
    #[serde(flatten)]
    pub(super) place: Place,
    pub(super) tokens: usize,
    pub(super) unknown: u64,
}

/// A row of `--per line`.
#[derive(Serialize)]
pub(super) struct LineRow {
    pub(super) line: u64,
    pub(super) tokens: usize,
    pub(super) unknown: u64,
    pub(super) surprisal: Option<f64>,
    pub(super) mean: Option<f64>,
    pub(super) text: String,
    #[serde(flatten)]
    pub(super) place: Place,
}

/// A row of `--per document`, and the total.
#[derive(Serialize)]
pub(super) struct DocumentRow<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) event: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) file: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) files: Option<usize>,
    pub(super) lines: u64,
    /// Tokens that have a surprisal, and all.
    pub(super) scored: usize,
    pub(super) tokens: usize,
    pub(super) unknown: u64,
    pub(super) surprisal: Option<f64>,
    pub(super) mean: Option<f64>,
    /// exp of the mean, in nats.
    pub(super) perplexity: Option<f64>,
    /// As evaluation names what was on, if anything was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) protocol: Option<&'static str>,
    #[serde(flatten)]
    pub(super) cache: Option<CacheSettings>,
}

impl Row for TokenRow {
    fn cells(&self) -> Vec<String> {
        let Place { start, end, .. } = self.place;
        let token = cell(self.token.as_deref().unwrap_or_default());
        let text = cell(&self.text);
        vec![
            self.line.to_string(),
            self.position.to_string(),
            token,
            number(self.surprisal),
            start.to_string(),
            end.to_string(),
            text,
        ]
    }
}

impl Row for WordRow {
    fn cells(&self) -> Vec<String> {
        let Place { start, end, .. } = self.place;
        let counts = [start, end, self.tokens as u64, self.unknown].map(|count| count.to_string());
        let first =
            vec![self.line.to_string(), self.position.to_string(), cell(&self.word), number(self.surprisal)];
        [first, counts.to_vec()].concat()
    }
}

impl Row for LineRow {
    fn cells(&self) -> Vec<String> {
        let Place { start, end, .. } = self.place;
        vec![
            self.line.to_string(),
            self.tokens.to_string(),
            self.unknown.to_string(),
            number(self.surprisal),
            number(self.mean),
            cell(&self.text),
            start.to_string(),
            end.to_string(),
        ]
    }
}

impl Row for DocumentRow<'_> {
    fn cells(&self) -> Vec<String> {
        let file = cell(self.file.unwrap_or_default());
        let counts = [self.tokens.to_string(), self.unknown.to_string()];
        vec![file, counts.join("\t"), number(self.surprisal), number(self.mean)]
    }
}
