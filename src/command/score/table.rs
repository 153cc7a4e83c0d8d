//! Rows as tab-separated values that spreadsheets, Python's csv, pandas and R read back, or as JSON.

use super::{Per, Settings};
use crate::command::output::json_line;
use serde::Serialize;
use std::fmt::Write as _;
use std::io::{self, Write};

/// Where rows go.
pub(super) struct Table<W> {
    pub(super) out: W,
    json: bool,
    /// Rows say which file they are of.
    files: bool,
}

/// A row with its file, where there are several.
#[derive(Serialize)]
struct Named<'a, R> {
    #[serde(flatten)]
    row: &'a R,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<&'a str>,
}

/// What a row is without its file.
pub(super) trait Row: Serialize {
    /// The cells of a line, in the order of the header.
    fn cells(&self) -> Vec<String>;
}

impl<W: Write> Table<W> {
    /// Writes the header, if there is one.
    pub(super) fn new(settings: &Settings, mut out: W) -> io::Result<Self> {
        let files = settings.several && settings.per != Per::Document;
        if !settings.json {
            let header = match settings.per {
                Per::Token => "line\tposition\ttoken\tsurprisal\tstart\tend\ttext",
                Per::Word => "line\tposition\tword\tsurprisal\tstart\tend\ttokens\tunknown",
                Per::Line => "line\ttokens\tunknown\tsurprisal\tmean\ttext\tstart\tend",
                Per::Document => "file\ttokens\tunknown\tsurprisal\tmean",
            };
            writeln!(out, "{header}{}", if files { "\tfile" } else { "" })?;
        }
        Ok(Self { out, json: settings.json, files })
    }

    pub(super) fn write(&mut self, row: &impl Row, file: &str) -> io::Result<()> {
        let file = self.files.then_some(file);
        if self.json {
            return json_line(&mut self.out, &Named { row, file });
        }
        let mut cells = row.cells();
        cells.extend(file.map(cell));
        writeln!(self.out, "{}", cells.join("\t"))
    }

    /// A line that is no row, in JSON alone.
    pub(super) fn total(&mut self, total: &impl Serialize) -> io::Result<()> {
        if self.json { json_line(&mut self.out, total) } else { Ok(()) }
    }
}

/// A number to six decimals; nothing where there is none.
pub(super) fn number(value: Option<f64>) -> String {
    value.map_or_else(String::new, |value| format!("{value:.6}"))
}

/// A text as one cell: what ends a line or a cell for any reader is spelled out, and quotation marks are doubled inside
/// quotation marks.
pub(in crate::command) fn cell(text: &str) -> String {
    let mut cell = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '\\' => cell.push_str("\\\\"),
            '\t' => cell.push_str("\\t"),
            '\n' => cell.push_str("\\n"),
            '\r' => cell.push_str("\\r"),
            '"' => cell.push_str("\"\""),
            char if char.is_control() || matches!(char, '\u{2028}' | '\u{2029}') => {
                write!(cell, "\\u{{{:04x}}}", char as u32).expect("a string takes all");
            }
            char => cell.push(char),
        }
    }
    if cell.contains('"') { format!("\"{cell}\"") } else { cell }
}

#[cfg(test)]
mod tests {
    use super::cell;

    #[test]
    fn what_would_break_a_table_is_escaped() {
        assert_eq!(cell("a\tb\\n\r\n\0\u{85}"), "a\\tb\\\\n\\r\\n\\u{0000}\\u{0085}");
    }

    #[test]
    fn a_quotation_mark_is_quoted() {
        assert_eq!(
            [cell("\""), cell("say \"no\""), cell("it's")],
            ["\"\"\"\"", "\"say \"\"no\"\"\"", "it's"]
        );
    }
}
