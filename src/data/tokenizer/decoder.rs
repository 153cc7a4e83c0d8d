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
    pending: Vec<u8>, // the beginning of a character
    line_started: bool,
}

impl<'a> Decoder<'a> {
    pub(super) fn new(kind: &'a Kind) -> Self {
        let stream = match kind {
            Kind::Bpe(bpe) if bpe.bytes.is_none() => Some(bpe.inner.decode_stream(false)),
            _ => None,
        };
        Self { kind, stream, pending: Vec::new(), line_started: false }
    }

    /// The text that `id` completes; empty while a character is incomplete or for an id outside the vocabulary.
    pub fn push(&mut self, id: u32) -> String {
        if let Some(stream) = &mut self.stream {
            return capture_panic(|| stream.step(id)).ok().and_then(Result::ok).flatten().unwrap_or_default();
        }
        match self.kind {
            Kind::Word(table) => match table.words.get(id as usize) {
                Some(word) => self.push_word(word),
                None => String::new(),
            },
            Kind::Char(table) => table.words.get(id as usize).cloned().unwrap_or_default(),
            Kind::Byte(table) => match table.symbols.get(id as usize) {
                Some(&byte) => self.push_bytes(&[byte]),
                None => self.push_bytes(table.words.get(id as usize).map_or(&[], |word| word.as_bytes())),
            },
            Kind::Bpe(bpe) => {
                let bytes = bpe.bytes.as_ref().and_then(|bytes| bytes.get(id as usize));
                self.push_bytes(bytes.map_or(&[], |bytes| bytes.as_slice()))
            }
        }
    }

    /// What is left of an incomplete character, as `U+FFFD`.
    pub fn finish(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.pending)).into_owned()
    }

    fn push_word(&mut self, word: &str) -> String {
        let space = if self.line_started { " " } else { "" };
        self.line_started = word != END_OF_LINE;
        if self.line_started { format!("{space}{word}") } else { "\n".to_owned() }
    }

    fn push_bytes(&mut self, bytes: &[u8]) -> String {
        self.pending.extend_from_slice(bytes);
        let whole = whole_chars(&self.pending);
        let text = String::from_utf8_lossy(&self.pending[..whole]).into_owned();
        self.pending.drain(..whole);
        text
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
