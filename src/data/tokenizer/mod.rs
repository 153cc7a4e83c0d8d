//! From text to token ids and back, by words, characters, bytes or byte pairs.

mod bpe;
mod byte_level;
mod counts;
mod decoder;
mod grow;
mod json;
mod listed;
mod normalizer;
mod panic_capture;
mod piece;
mod spellings;
mod stretches;
mod table;
mod word;
mod word_counts;

pub(crate) use counts::SymbolCounts;
pub(crate) use decoder::Characters;
pub use decoder::Decoder;
pub use piece::{Extent, Extents, Piece};
pub use spellings::Spellings;

use crate::config::{CorpusConfig, Unit};
use crate::data::text::Text;
use crate::data::tokens::Tokens;
use crate::error::{Error, Result};
use piece::Measure;
use std::path::Path;

/// The token that stands for symbols outside the vocabulary.
pub const UNKNOWN: &str = "<unk>";

/// The token that ends a line where tokens are words.
pub const END_OF_LINE: &str = "<eos>";

/// Cuts text into tokens. Its vocabulary comes from the training split alone, or from a `tokenizer.json`.
#[derive(Clone, Debug)]
pub struct Tokenizer(Kind);

#[derive(Clone, Debug)]
enum Kind {
    Word(word::WordTable),
    Char(table::CharTable),
    Byte(table::ByteTable),
    Bpe(Box<bpe::Bpe>),
}

/// A text as token ids, and what it measured.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// The ids, in order.
    pub tokens: Tokens,
    /// Characters of the text as read, a byte order mark apart; of bytes, those that begin a character.
    pub chars: u64,
    /// Bytes of the text as read, a byte order mark apart.
    pub bytes: u64,
    /// Symbols that the vocabulary lacks: they became `<unk>`, or were left out where there is none.
    pub unseen: u64,
    /// The id of `<unk>`, if the vocabulary has it.
    pub unknown: Option<u32>,
    /// Whether the text is UTF-8, so that it has characters.
    pub is_utf8: bool,
    /// How much text each token is, if that was asked for.
    pub extents: Extents,
}

impl Encoded {
    /// The first `count` tokens. What is counted over the whole text stays so.
    pub fn truncated(mut self, count: usize) -> Self {
        self.tokens.truncate(count);
        self.extents.truncate(count);
        self
    }
}

/// Bytes of a text as people read them; those that are no UTF-8 look like `<0xE9>`.
pub(crate) fn spelled(bytes: &[u8]) -> String {
    byte_level::display(bytes)
}

/// Characters in UTF-8 text: bytes that are no continuation.
pub(crate) fn count_chars(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|&&byte| byte & 0xc0 != 0x80).count() as u64
}

impl Tokenizer {
    /// The vocabulary of the training split, or what `config.tokenizer` names.
    ///
    /// # Errors
    /// If the text is empty or is not UTF-8 where the unit needs it, or the settings cannot be met.
    pub fn build(config: &CorpusConfig, train: &Text) -> Result<Self> {
        if let Some(path) = &config.tokenizer {
            return Self::load_for(config.unit, path);
        }
        if let Some(path) = &config.vocabulary {
            return Self::listed(config, path);
        }
        if train.is_empty() {
            return Err(Error::data(&train.source, "no text to take a vocabulary from"));
        }
        Ok(Self(match config.unit {
            Unit::Word => Kind::Word(word::WordTable::build(config, train.as_str()?)),
            Unit::Char => Kind::Char(table::CharTable::build(config.unknown, train.as_str()?)),
            Unit::Byte => Kind::Byte(table::ByteTable::build(config.unknown, train.bytes())),
            Unit::Bpe => Kind::Bpe(Box::new(bpe::Bpe::train(config.vocab_size, train)?)),
        }))
    }

    pub(crate) fn load_for(unit: Unit, path: &Path) -> Result<Self> {
        let loaded = Self::load(path)?;
        if loaded.unit() == unit {
            return Ok(loaded);
        }
        let found = loaded.unit();
        Err(Error::config(format!(
            "{}: cuts by {}, and corpus.unit says {}",
            path.display(),
            found.as_str(),
            unit.as_str()
        )))
    }

    /// Reads a `tokenizer.json`, written here or by another program.
    ///
    /// # Errors
    /// `Error::Checkpoint` if the file is too large or is no tokenizer.
    pub fn load(path: &Path) -> Result<Self> {
        json::load(path).map(Self)
    }

    /// The tokenizer in the bytes of a `tokenizer.json` that was read and verified; `path` is for messages.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Self> {
        json::parse(path, bytes).map(Self)
    }

    /// Refuses a vocabulary that is too large for its `tokenizer.json` to be read again.
    ///
    /// # Errors
    /// `Error::Config`.
    pub(crate) fn check_size(&self) -> Result<()> {
        json::check_size(&self.0, self.words())
    }

    /// What the Python `tokenizers` library loads to the same ids.
    pub fn to_json(&self) -> String {
        json::write(&self.0)
    }

    /// What a token is.
    pub fn unit(&self) -> Unit {
        match &self.0 {
            Kind::Word(_) => Unit::Word,
            Kind::Char(_) => Unit::Char,
            Kind::Byte(_) => Unit::Byte,
            Kind::Bpe(_) => Unit::Bpe,
        }
    }

    /// The size of the vocabulary; every id is below it.
    pub fn vocab_size(&self) -> usize {
        self.words().len()
    }

    /// The id of `<unk>`, if the vocabulary has it.
    pub fn unknown_id(&self) -> Option<u32> {
        match &self.0 {
            Kind::Word(table) => table.unknown(),
            Kind::Char(table) => table.unknown,
            Kind::Byte(table) => table.unknown,
            Kind::Bpe(bpe) => bpe.unknown,
        }
    }

    /// The id that ends a line, if there is one: a context to begin with.
    pub fn line_end_id(&self) -> Option<u32> {
        match &self.0 {
            Kind::Word(table) => table.id(END_OF_LINE),
            Kind::Char(table) => table.id('\n'),
            Kind::Byte(table) => table.id(b'\n'),
            Kind::Bpe(bpe) => bpe.line_end(),
        }
    }

    /// The id of `<eos>`, where the vocabulary has a token of that name: a text can end there.
    pub fn end_id(&self) -> Option<u32> {
        (0..).zip(self.words()).find(|(_, word)| *word == END_OF_LINE).map(|(id, _)| id)
    }

    /// Cuts a text. Symbols outside the vocabulary are counted, never an error.
    ///
    /// Words and characters are cut from text without its byte order mark; characters, and byte pairs that were trained
    /// here, take CR LF for a line's end; bytes are taken as they are; what another program's tokenizer makes of either
    /// is what its file says.
    ///
    /// # Errors
    /// If the text is not UTF-8 and the unit is not bytes, or a tokenizer of another program refuses it.
    pub fn encode(&self, text: &Text) -> Result<Encoded> {
        let mut encoded = self.begin(text);
        self.cut(text, |piece| {
            encoded.unseen += u64::from(!piece.known);
            piece.id.into_iter().for_each(|id| encoded.tokens.push(id));
        })?;
        Ok(encoded)
    }

    /// The ids of a text that is to be continued: where tokens are words, an unfinished last line has no end yet. Errors as
    /// [`Tokenizer::encode`].
    pub fn encode_unfinished(&self, text: &Text) -> Result<Encoded> {
        let mut encoded = self.encode(text)?;
        let ids = encoded.tokens.to_vec();
        let ended = ids.last().is_some_and(|&id| Some(id) == self.line_end_id());
        if self.unit() == Unit::Word && ended && !text.bytes().ends_with(b"\n") {
            encoded.tokens = Tokens::with_capacity(self.vocab_size(), ids.len());
            ids[..ids.len() - 1].iter().for_each(|&id| encoded.tokens.push(id));
        }
        Ok(encoded)
    }

    /// As [`Tokenizer::encode`], with the extent of each token.
    pub fn encode_measured(&self, text: &Text) -> Result<Encoded> {
        let mut encoded = self.begin(text);
        encoded.is_utf8 = std::str::from_utf8(text.bytes()).is_ok();
        let separated = match &self.0 {
            Kind::Word(_) => true,
            Kind::Bpe(bpe) => bpe.drops_blanks(),
            Kind::Char(_) | Kind::Byte(_) => false,
        };
        let mut measure = Measure::new(text.bytes(), separated, self.reads_crlf_as_lf());
        self.cut(text, |piece| {
            encoded.unseen += u64::from(!piece.known);
            let extent = measure.next(&piece);
            if let Some(id) = piece.id {
                encoded.tokens.push(id);
                encoded.extents.push(extent);
            }
        })?;
        Ok(encoded)
    }

    fn begin(&self, text: &Text) -> Encoded {
        let content = match self.unit() {
            Unit::Byte => text.bytes(),
            _ => &text.bytes()[text.mark_length()..],
        };
        let chars = count_chars(content);
        let capacity = match self.unit() {
            Unit::Byte => content.len(),
            Unit::Char => chars as usize,
            Unit::Word | Unit::Bpe => 0,
        };
        Encoded {
            tokens: Tokens::with_capacity(self.vocab_size(), capacity),
            chars,
            bytes: content.len() as u64,
            unseen: 0,
            unknown: self.unknown_id(),
            is_utf8: true,
            extents: Extents::default(),
        }
    }

    /// Visits every stretch of `text` in order, with the token that it became; errors as [`Tokenizer::encode`].
    pub fn cut(&self, text: &Text, mut take: impl FnMut(Piece)) -> Result<()> {
        let mark = text.mark_length();
        let after_mark = |mut piece: Piece| {
            piece.span = piece.span.start + mark..piece.span.end + mark;
            piece
        };
        match &self.0 {
            Kind::Word(table) => table.cut(text.as_str()?, |piece| take(after_mark(piece))),
            Kind::Char(table) => table.cut(text.as_str()?, |piece| take(after_mark(piece))),
            Kind::Byte(table) => table.cut(text.bytes(), take),
            Kind::Bpe(bpe) => bpe.cut(text, take)?,
        }
        Ok(())
    }

    /// How many of the first bytes of `text`, after which more may follow, are cut alike whatever follows.
    pub fn settled(&self, text: &[u8]) -> usize {
        match &self.0 {
            Kind::Bpe(bpe) => bpe.settled(text),
            _ => text.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1),
        }
    }

    /// Whether another program's tokenizer changes `text` before it cuts it, say to lower case: what it takes away is
    /// predicted by nobody.
    pub fn changes(&self, text: &Text) -> bool {
        match (&self.0, std::str::from_utf8(text.bytes())) {
            (Kind::Bpe(bpe), Ok(text)) if !bpe.is_plain() => {
                bpe.normalized(text).is_some_and(|made| made != text)
            }
            _ => false,
        }
    }

    /// Whether CR LF gives the tokens of LF.
    pub fn reads_crlf_as_lf(&self) -> bool {
        match &self.0 {
            Kind::Word(_) | Kind::Char(_) => true,
            Kind::Byte(_) => false,
            Kind::Bpe(bpe) => bpe.reads_crlf_as_lf(),
        }
    }

    /// A token as people read it; bytes that are no UTF-8 by themselves look like `<0xE9>`. Empty for an id
    /// outside the vocabulary.
    pub fn token(&self, id: u32) -> &str {
        self.words().get(id as usize).map_or("", String::as_str)
    }

    /// Every token as people read it, in the order of the ids.
    pub fn words(&self) -> &[String] {
        match &self.0 {
            Kind::Word(table) => &table.words,
            Kind::Char(table) => &table.words,
            Kind::Byte(table) => &table.words,
            Kind::Bpe(bpe) => &bpe.words,
        }
    }

    /// The very bytes of every token; none if another program's tokenizer does not tell them.
    pub fn spellings(&self) -> Option<Spellings> {
        Spellings::new(&self.0, self.unknown_id(), self.line_end_id())
    }

    /// The same words in the order of falling `counts`, of which there is one a token; those of equal counts stay in theirs.
    /// A tokenizer of another unit than words stays as it is.
    pub fn sorted_by(&self, counts: &[u64]) -> Self {
        let Kind::Word(table) = &self.0 else { return self.clone() };
        let mut ranked: Vec<(&u64, &String)> = counts.iter().zip(&table.words).collect();
        ranked.sort_by_key(|&(&count, _)| std::cmp::Reverse(count));
        let words = ranked.into_iter().map(|(_, word)| word.clone()).collect();
        Self(Kind::Word(word::WordTable::from_words(words)))
    }

    /// Turns ids into text as they come.
    pub fn decoder(&self) -> Decoder<'_> {
        Decoder::new(&self.0)
    }
}

#[cfg(test)]
mod tests;
