//! What is coded in which order. Encoder and decoder run this one code: the encoder gives it the items of each row, the
//! decoder none, and the [`Coder`] says what was written.
//!
//! A row goes from one token to the next at each step of the model:
//!
//! 1. whether a literal byte comes or a token, by frequencies of their own for what came before: a token or a literal, a
//!    blank, a line end or anything else
//! 2. a literal byte, by the frequencies of all literal bytes so far; then again 1, until the row is complete
//! 3. a token, by the model's distribution; if it is the one for what the vocabulary lacks, whether it stands for its own
//!    name, and if not a literal byte

use super::Summary;
use super::adaptive::Adaptive;
use super::blocks::BlockCheck;
use super::coder::{Coder, damaged};
use super::format::RowHeader;
use super::frequencies::Frequencies;
use super::items::Item;
use crate::data::tokenizer::Spellings;
use crate::error::Result;

/// Symbols of step 1.
const TOKEN: usize = 0;
const LITERAL: usize = 1;

/// A part of the text on its way through the coder.
pub(super) struct Row<'a> {
    text: Vec<u8>,
    length: usize,
    check: BlockCheck<'a>,
    /// The encoder's items that are not coded yet.
    given: std::slice::Iter<'a, Item>,
    after_literal: bool,
}

impl<'a> Row<'a> {
    /// A row of the header; a decoder has no items.
    pub(super) fn new(header: RowHeader<'a>, items: &'a [Item]) -> Self {
        let RowHeader { length, checks } = header;
        let check = BlockCheck::new(checks, length);
        Self { text: Vec::new(), length, check, given: items.iter(), after_literal: false }
    }

    fn is_complete(&self) -> bool {
        self.text.len() == self.length
    }

    /// The next item; a decoder's is never looked at.
    fn next_given(&mut self) -> Item {
        self.given.next().copied().unwrap_or(Item::Literal(0))
    }

    fn context(&self) -> usize {
        let last = match self.text.last() {
            None | Some(b'\n') => 0,
            Some(b' ') => 1,
            Some(_) => 2,
        };
        3 * usize::from(self.after_literal) + last
    }

    fn push(&mut self, blank: bool, bytes: &[u8], literal: bool) -> Result<()> {
        if self.length - self.text.len() < usize::from(blank) + bytes.len() || bytes.is_empty() {
            return Err(damaged("is damaged: a token does not fit its text"));
        }
        self.text.extend(blank.then_some(b' '));
        self.text.extend_from_slice(bytes);
        self.after_literal = literal;
        self.check.check(&self.text)
    }
}

/// All rows, and the frequencies of what the model does not predict.
pub(super) struct Rows<'a> {
    spellings: &'a Spellings,
    rows: Vec<Row<'a>>,
    kinds: [Adaptive<2>; 6],
    named: Adaptive<2>,
    literals: Adaptive<256>,
    summary: Summary,
}

impl<'a> Rows<'a> {
    pub(super) fn new(spellings: &'a Spellings, rows: Vec<Row<'a>>) -> Self {
        let summary = Summary { rows: rows.len(), ..Summary::default() };
        let kinds = [0; 6].map(|_| Adaptive::new(2));
        Self { spellings, rows, kinds, named: Adaptive::new(2), literals: Adaptive::new(32), summary }
    }

    pub(super) fn count(&self) -> usize {
        self.rows.len()
    }

    /// Bytes of the text so far.
    pub(super) fn done(&self) -> u64 {
        self.rows.iter().map(|row| row.text.len() as u64).sum()
    }

    pub(super) fn are_complete(&self) -> bool {
        self.rows.iter().all(Row::is_complete)
    }

    /// The whole text.
    pub(super) fn finish(self) -> (Vec<u8>, Summary) {
        (self.rows.into_iter().map(|row| row.text).collect::<Vec<_>>().concat(), self.summary)
    }

    /// Codes a row up to its next token, which the model reads then; `None` if the row is complete before one.
    pub(super) fn code(
        &mut self,
        index: usize,
        logits: &[f32],
        frequencies: &mut Frequencies,
        coder: &mut impl Coder,
    ) -> Result<Option<u32>> {
        let Self { spellings, rows, kinds, named, literals, summary } = self;
        let row = &mut rows[index];
        while !row.is_complete() {
            let item = row.next_given();
            let kind = if matches!(item, Item::Literal(_)) { LITERAL } else { TOKEN };
            if kinds[row.context()].code(kind, coder, &mut summary.ideal_bits)? == LITERAL {
                literal(row, item, literals, coder, summary)?;
                continue;
            }
            let (given, hidden) = match item {
                Item::Token(id) => (id, false),
                Item::Hidden(id) => (id, true),
                Item::Literal(_) => (0, false),
            };
            frequencies.set(logits)?;
            let id = coder.code(given as usize, frequencies.counts(), frequencies.total())?;
            summary.tokens += 1;
            summary.ideal_bits += frequencies.bits(logits[id]);
            let id = id as u32;
            if Some(id) == spellings.unknown()
                && named.code(usize::from(hidden), coder, &mut summary.ideal_bits)? == 1
            {
                let item = row.next_given();
                literal(row, item, literals, coder, summary)?;
                return Ok(Some(id));
            }
            let spelling = spellings.of(id, row.text.last().copied());
            let (blank, bytes) =
                spelling.ok_or_else(|| damaged("is damaged: a token is not in the vocabulary"))?;
            row.push(blank, bytes, false)?;
            return Ok(Some(id));
        }
        Ok(None)
    }
}

/// Codes a literal byte.
fn literal(
    row: &mut Row<'_>,
    item: Item,
    literals: &mut Adaptive<256>,
    coder: &mut impl Coder,
    summary: &mut Summary,
) -> Result<()> {
    let Item::Literal(given) = item else {
        return Err(damaged("cannot be written: a literal byte is missing"));
    };
    let byte = literals.code(given.into(), coder, &mut summary.ideal_bits)?;
    summary.literals += 1;
    row.push(false, &[byte as u8], true)
}
