//! Scored stretches on their way into rows: where each is in the text, and what a word, line or file adds up to.

use super::row::{DocumentRow, LineRow, TokenRow, WordRow};
use super::sums::Sums;
use super::table::Table;
use super::window::{Cursor, Place, Window};
use super::{Base, Per, Settings};
use crate::data::{Piece, Text, Tokenizer, spelled};
use crate::eval::adapt::CacheSettings;
use crate::eval::score::Cost;
use crate::eval::words::{TokenCost, WordCost, Words};
use std::collections::VecDeque;
use std::io::{self, Write};
use std::ops::Range;
use std::path::Path;

/// A line that is not complete, and what its tokens add up to.
struct OpenLine {
    start: Cursor,
    sums: Sums,
}

/// Turns the stretches of one file after another into rows.
pub(super) struct Rows<'a, W> {
    per: Per,
    base: Base,
    tokenizer: &'a Tokenizer,
    table: Table<W>,
    cache: Option<CacheSettings>,
    file: String,
    files: usize,
    window: Window,
    /// Where the part that is cut now begins.
    part_start: u64,
    words: Words,
    /// Where the last stretch ended.
    previous_end: u64,
    /// The number of the last row in its line.
    position: usize,
    position_line: u64,
    lines: VecDeque<OpenLine>,
    document: Sums,
    all: Sums,
}

impl<'a, W: Write> Rows<'a, W> {
    pub(super) fn new(settings: &Settings, apart: bool, tokenizer: &'a Tokenizer, table: Table<W>) -> Self {
        Self {
            per: settings.per,
            base: settings.base,
            tokenizer,
            table,
            cache: settings.cache,
            file: String::new(),
            files: 0,
            window: Window::default(),
            part_start: 0,
            words: Words::new(settings.boundary, apart),
            previous_end: 0,
            position: 0,
            position_line: 0,
            lines: VecDeque::new(),
            document: Sums::default(),
            all: Sums::default(),
        }
    }

    /// A file begins.
    pub(super) fn begin(&mut self, source: &Path) {
        self.file = source.display().to_string();
        self.files += 1;
        self.window = Window::default();
        self.previous_end = 0;
        self.position_line = 0;
        self.document = Sums::default();
    }

    /// The next part of the file begins.
    pub(super) fn part(&mut self, part: &Text) {
        self.part_start = self.window.end();
        self.window.bytes.extend_from_slice(part.bytes());
        let mut start = self.window.at(self.part_start);
        for line in part.bytes().split_inclusive(|&byte| byte == b'\n') {
            let known = self.lines.back().is_some_and(|open| open.start.lines == start.lines);
            if self.per == Per::Line && !known {
                self.lines.push_back(OpenLine { start, sums: Sums::default() });
            }
            start.advance(line);
            self.document.lines += u64::from(line.ends_with(b"\n"));
        }
    }

    /// The next stretch of the part, and what it cost.
    pub(super) fn take(&mut self, piece: &Piece, cost: Option<Cost>) -> io::Result<()> {
        self.document.take(piece, cost);
        let span = self.part_start + piece.span.start as u64..self.part_start + piece.span.end as u64;
        match self.per {
            Per::Token => self.take_token(piece, span, cost),
            Per::Word => self.take_word(piece, span, cost),
            Per::Line => {
                let line = self.window.at(span.start).lines;
                // Open lines follow each other without a gap.
                let first = self.lines.front().map_or(0, |open| open.start.lines);
                let last = self.lines.len().saturating_sub(1);
                let index = last.min(line.saturating_sub(first) as usize);
                if let Some(open) = self.lines.get_mut(index) {
                    open.sums.take(piece, cost);
                }
                Ok(())
            }
            Per::Document => Ok(()),
        }
    }

    fn take_token(&mut self, piece: &Piece, span: Range<u64>, cost: Option<Cost>) -> io::Result<()> {
        let place = self.window.place(&span);
        let line = self.line_of(span.start);
        let row = TokenRow {
            line,
            position: self.next_position(line),
            token: piece.id.map(|id| self.tokenizer.token(id).to_owned()),
            id: piece.id,
            surprisal: cost.map(|cost| self.base.of(cost.nats)),
            place,
            text: spelled(self.window.slice(&span)),
            unknown: !piece.known,
        };
        self.table.write(&row, &self.file)
    }

    fn take_word(&mut self, piece: &Piece, span: Range<u64>, cost: Option<Cost>) -> io::Result<()> {
        let text = self.window.slice(&span);
        let gap = self.previous_end.max(self.window.base.bytes)..span.start;
        let separated = self.window.has_white(&gap);
        let token = TokenCost {
            visible: self.window.visible(&span),
            line_end: text.contains(&b'\n') || text.is_empty(),
            separated,
            is_token: piece.id.is_some(),
            known: piece.known,
            cost,
            span,
        };
        self.previous_end = self.previous_end.max(token.span.end);
        let mut rows = Vec::new();
        self.words.push(&token, &mut rows);
        self.write_words(&rows)
    }

    fn write_words(&mut self, rows: &[WordCost]) -> io::Result<()> {
        for word in rows {
            let line = self.line_of(word.span.start);
            let row = WordRow {
                line,
                position: self.next_position(line),
                word: if word.is_word { spelled(self.window.slice(&word.span)) } else { String::new() },
                surprisal: word.nats.map(|nats| self.base.of(nats)),
                place: self.window.place(&word.span),
                tokens: word.tokens,
                unknown: word.unknown,
            };
            self.table.write(&row, &self.file)?;
        }
        Ok(())
    }

    fn line_of(&mut self, byte: u64) -> u64 {
        1 + self.window.at(byte).lines
    }

    /// The number of the next row within `line`, from 1.
    fn next_position(&mut self, line: u64) -> usize {
        if self.position_line != line {
            self.position_line = line;
            self.position = 0;
        }
        self.position += 1;
        self.position
    }

    /// The part is over. `apart`: the next one is a text of its own.
    pub(super) fn end_part(&mut self, apart: bool) -> io::Result<()> {
        if apart {
            self.finish_words()?;
        }
        let end = self.window.at(self.window.end());
        self.finish_lines(end.lines)?;
        let open_line = self.lines.front().map(|open| open.start.bytes);
        let open_word = self.words.open_start();
        let needed = [open_line, open_word].into_iter().flatten().min();
        self.window.forget(needed.unwrap_or(self.window.end()));
        Ok(())
    }

    /// The file is over.
    pub(super) fn end(&mut self) -> io::Result<()> {
        self.finish_words()?;
        self.finish_lines(u64::MAX)?;
        if self.window.ends_within_line {
            self.document.lines += 1;
        }
        if self.per == Per::Document {
            let file = std::mem::take(&mut self.file);
            let row = self.document_row(&self.document, Some(&file));
            self.table.write(&row, &file)?;
        }
        self.all.add(&self.document);
        self.flush()
    }

    fn finish_words(&mut self) -> io::Result<()> {
        let mut rows = Vec::new();
        self.words.finish(&mut rows);
        self.write_words(&rows)
    }

    /// Writes the lines that have fewer than `lines` line ends before them.
    fn finish_lines(&mut self, lines: u64) -> io::Result<()> {
        while self.lines.front().is_some_and(|open| open.start.lines < lines) {
            let Some(OpenLine { start, sums }) = self.lines.pop_front() else { break };
            let end = match self.lines.front() {
                Some(next) => next.start,
                None => self.window.at(self.window.end()),
            };
            let text = spelled(self.window.slice(&(start.bytes..end.bytes)));
            let text = text.trim_end_matches('\n').trim_end_matches('\r').to_string();
            let row = LineRow {
                line: 1 + start.lines,
                tokens: sums.tokens,
                unknown: sums.unknown,
                surprisal: sums.all().map(|nats| self.base.of(nats)),
                mean: sums.mean().map(|nats| self.base.of(nats)),
                text,
                place: Place {
                    start: start.chars,
                    end: end.chars,
                    start_byte: start.bytes,
                    end_byte: end.bytes,
                },
            };
            self.table.write(&row, &self.file)?;
        }
        Ok(())
    }

    fn document_row<'b>(&self, sums: &Sums, file: Option<&'b str>) -> DocumentRow<'b> {
        DocumentRow {
            event: None,
            file,
            files: None,
            lines: sums.lines,
            scored: sums.scored,
            tokens: sums.tokens,
            unknown: sums.unknown,
            surprisal: sums.all().map(|nats| self.base.of(nats)),
            mean: sums.mean().map(|nats| self.base.of(nats)),
            perplexity: sums.mean().map(f64::exp),
            protocol: self.cache.map(|_| "cache"),
            cache: self.cache,
        }
    }

    /// Everything is read: the sums over all files.
    pub(super) fn total(&mut self) -> io::Result<()> {
        let row = self.document_row(&self.all, None);
        self.table.total(&DocumentRow { event: Some("total"), files: Some(self.files), ..row })?;
        self.flush()
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.table.out.flush()
    }
}
