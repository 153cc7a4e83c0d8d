//! From ids back to text, as they come, never with half a character.

use super::panic_capture::capture_panic;
use super::{END_OF_LINE, Kind};
use tokenizers::tokenizer::DecodeStream;
use tokenizers::{
    DecoderWrapper, ModelWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper,
};

/// The library's own way to decode, for vocabularies that only it understands.
type Stream<'a> = DecodeStream<
    'a,
    ModelWrapper,
    NormalizerWrapper,
    PreTokenizerWrapper,
    PostProcessorWrapper,
    DecoderWrapper,
>;

/// Turns ids into text as they come.
pub struct Decoder<'a> {
    kind: &'a Kind,
    stream: Option<Stream<'a>>,
    characters: Characters,
    line_started: bool,
}

impl<'a> Decoder<'a> {
    pub(super) fn new(kind: &'a Kind) -> Self {
        let stream = match kind {
            Kind::Bpe(bpe) if bpe.bytes.is_none() => Some(bpe.inner.decode_stream(false)),
            _ => None,
        };
        Self { kind, stream, characters: Characters::default(), line_started: false }
    }

    /// The text that `id` completes; empty while a character is incomplete or for an id outside the vocabulary.
    pub fn push(&mut self, id: u32) -> String {
        let bytes = self.push_raw(id);
        self.characters.push(&bytes)
    }

    /// The bytes that `id` stands for, whether or not they end a character.
    pub fn push_raw(&mut self, id: u32) -> Vec<u8> {
        if let Some(stream) = &mut self.stream {
            let step = capture_panic(|| stream.step(id)).ok().and_then(Result::ok).flatten();
            return step.unwrap_or_default().into_bytes();
        }
        let index = id as usize;
        match self.kind {
            Kind::Word(table) => match table.words.get(index) {
                Some(word) => self.word(word),
                None => vec![],
            },
            Kind::Char(table) => table.words.get(index).cloned().unwrap_or_default().into_bytes(),
            Kind::Byte(table) => match table.symbols.get(index) {
                Some(&byte) => vec![byte],
                None => table.words.get(index).cloned().unwrap_or_default().into_bytes(),
            },
            Kind::Bpe(bpe) => {
                let bytes = bpe.bytes.as_ref().and_then(|bytes| bytes.get(index));
                bytes.cloned().unwrap_or_default()
            }
        }
    }

    /// What is left of an incomplete character, as `U+FFFD`.
    pub fn finish(&mut self) -> String {
        self.characters.finish()
    }

    fn word(&mut self, word: &str) -> Vec<u8> {
        let space = if self.line_started { " " } else { "" };
        self.line_started = word != END_OF_LINE;
        if self.line_started { format!("{space}{word}").into_bytes() } else { b"\n".to_vec() }
    }
}

/// Bytes that come in any pieces, as whole characters; what is no UTF-8 becomes `U+FFFD`.
#[derive(Debug, Default)]
pub(crate) struct Characters {
    /// The beginning of a character.
    pending: Vec<u8>,
}

impl Characters {
    /// The characters that these bytes complete.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> String {
        self.pending.extend_from_slice(bytes);
        let whole = whole_chars(&self.pending);
        let text = String::from_utf8_lossy(&self.pending[..whole]).into_owned();
        self.pending.drain(..whole);
        text
    }

    /// What is left of an incomplete character, as `U+FFFD`.
    pub(crate) fn finish(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.pending)).into_owned()
    }
}

/// How many bytes come before a character that more bytes could still complete.
fn whole_chars(bytes: &[u8]) -> usize {
    let mut checked = 0;
    while let Err(error) = std::str::from_utf8(&bytes[checked..]) {
        checked += error.valid_up_to();
        match error.error_len() {
            Some(bad) => checked += bad,
            None => return checked,
        }
    }
    bytes.len()
}
