//! The very bytes that each token stands for, so that a text can be put together from tokens exactly.

use super::{END_OF_LINE, Kind};

/// The bytes of every token of a vocabulary.
pub struct Spellings {
    bytes: Vec<Vec<u8>>,
    unknown: Option<u32>,
    /// A blank comes before every token but this one, unless white space or nothing is there.
    line_end: Option<u32>,
    separated: bool,
}

impl Spellings {
    /// None where only the library of another program's tokenizer knows what its tokens are together.
    pub(super) fn new(kind: &Kind, unknown: Option<u32>, line_end: Option<u32>) -> Option<Self> {
        let as_bytes = |words: &[String]| words.iter().map(|word| word.clone().into_bytes()).collect();
        let bytes = match kind {
            Kind::Word(table) => {
                let spelled =
                    |word: &String| if word == END_OF_LINE { b"\n".to_vec() } else { word.clone().into() };
                table.words.iter().map(spelled).collect()
            }
            Kind::Char(table) => as_bytes(&table.words),
            Kind::Byte(table) => {
                let mut bytes: Vec<Vec<u8>> = table.symbols.iter().map(|&byte| vec![byte]).collect();
                bytes.extend(as_bytes(&table.words[bytes.len()..]));
                bytes
            }
            Kind::Bpe(bpe) => bpe.bytes.clone()?,
        };
        Some(Self { bytes, unknown, line_end, separated: matches!(kind, Kind::Word(_)) })
    }

    /// What token `id` stands for after the byte `before`, or at a start: whether a blank, and its bytes. None for an id
    /// outside the vocabulary.
    pub fn of(&self, id: u32, before: Option<u8>) -> Option<(bool, &[u8])> {
        let bytes = self.bytes.get(id as usize)?;
        let open = before.is_some_and(|byte| !byte.is_ascii_whitespace());
        Some((self.separated && open && Some(id) != self.line_end, bytes))
    }

    /// The token for what the vocabulary lacks, if it has one.
    pub fn unknown(&self) -> Option<u32> {
        self.unknown
    }
}
