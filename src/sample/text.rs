//! From a prompt to a text, passed on as it grows.

use super::stop::StopStrings;
use super::{Drawn, Sampler};
use crate::config::Unit;
use crate::data::{Characters, Decoder, Text, Tokenizer};
use crate::error::{Error, Result};
use serde::Serialize;
use std::io;

#[derive(Clone, Debug)]
pub(crate) struct Prompt {
    /// The text to show before the sample's own.
    pub text: Vec<u8>,
    /// Symbols that the vocabulary lacks.
    pub unseen: u64,
    context: Vec<u32>,
    start: usize, // where the prompt's own tokens begin in `context`
}

impl Prompt {
    /// Encodes `text`, which is UTF-8 unless the units are bytes. The model reads a line end before it, as at the start of a
    /// text it was trained on. Fails if the tokenizer refuses the text.
    pub(crate) fn new(tokenizer: &Tokenizer, text: &[u8]) -> Result<Self> {
        Self::of(tokenizer, text, "the prompt")
    }

    /// As [`Prompt::new`]; `source` is for messages.
    pub(crate) fn of(tokenizer: &Tokenizer, text: &[u8], source: &str) -> Result<Self> {
        let encoded = tokenizer.encode_unfinished(&Text::new(text.to_vec(), source))?;
        let ids = encoded.tokens.to_vec();
        let mut shown = text;
        if tokenizer.unit() == Unit::Word && !text.ends_with(b"\n") {
            // The sample's first word brings its own space; a line end is none.
            let last_line = text.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
            let content = String::from_utf8_lossy(&text[last_line..]).trim_end().len();
            shown = &text[..last_line + content];
        }
        let mut context = Vec::from_iter(tokenizer.line_end_id());
        if context.is_empty() && ids.is_empty() {
            context.push(first_token(tokenizer));
        }
        let start = context.len();
        context.extend(ids);
        Ok(Self { text: shown.to_vec(), unseen: encoded.unseen, context, start })
    }

    /// Tokens of the vocabulary; the model reads a line end before them, unless they begin with one.
    #[cfg(feature = "serve")]
    pub(crate) fn of_ids(tokenizer: &Tokenizer, ids: &[u32]) -> Self {
        let mut context = Vec::from_iter(tokenizer.line_end_id().filter(|id| ids.first() != Some(id)));
        if context.is_empty() && ids.is_empty() {
            context.push(first_token(tokenizer));
        }
        let start = context.len();
        context.extend(ids);
        let mut decoder = tokenizer.decoder();
        let text = ids.iter().flat_map(|&id| decoder.push_raw(id)).collect();
        Self { text, unseen: 0, context, start }
    }

    /// How many of the first tokens of [`Prompt::context`] are not of the prompt itself.
    pub(crate) fn start(&self) -> usize {
        self.start
    }

    /// The tokens that the model reads before its first draw; at least one.
    pub(crate) fn context(&self) -> &[u32] {
        &self.context
    }

    /// A decoder that has seen the prompt, so that the sample joins on to it.
    pub(crate) fn decoder<'a>(&self, tokenizer: &'a Tokenizer) -> Decoder<'a> {
        let mut decoder = tokenizer.decoder();
        for &id in &self.context[self.start..] {
            decoder.push_raw(id);
        }
        decoder
    }
}

/// Something to begin with where there is no line end: a space, or else the first token.
fn first_token(tokenizer: &Tokenizer) -> u32 {
    (0..).zip(tokenizer.words()).find(|(_, word)| *word == " ").map_or(0, |(id, _)| id)
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Sample {
    /// The text after the prompt, without the stop string that ended it.
    pub text: String,
    /// The same as two hexadecimal digits a byte, where it is not UTF-8, so that `text` is not all of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hex: Option<String>,
    pub tokens: u64,
    /// Their −ln p under the model itself, before any filter.
    pub nats: f64,
    /// Whether a stop string ended it.
    pub stopped: bool,
}

/// A sample on its way from tokens to text.
pub(crate) struct Writing<'a> {
    decoder: Decoder<'a>,
    watch: StopStrings,
    sample: Sample,
    bytes: Vec<u8>,
}

impl<'a> Writing<'a> {
    /// What comes after `prompt`, up to one of `stops`.
    pub(crate) fn new(tokenizer: &'a Tokenizer, prompt: &Prompt, stops: &[String]) -> Self {
        let decoder = prompt.decoder(tokenizer);
        Self { decoder, watch: StopStrings::new(stops), sample: Sample::default(), bytes: Vec::new() }
    }

    /// The next token; gives the bytes that can be shown now.
    pub(crate) fn push(&mut self, drawn: &Drawn) -> Vec<u8> {
        self.sample.tokens += 1;
        self.sample.nats += drawn.nats;
        let shown = self.watch.push(&self.decoder.push_raw(drawn.id));
        self.bytes.extend_from_slice(&shown);
        shown
    }

    /// Whether a stop string has appeared; nothing is shown after it.
    pub(crate) fn stopped(&self) -> bool {
        self.watch.found()
    }

    /// The bytes that were held back, and the whole sample: no token follows.
    pub(crate) fn finish(mut self) -> (Vec<u8>, Sample) {
        let rest = self.watch.finish();
        self.bytes.extend_from_slice(&rest);
        let text = String::from_utf8_lossy(&self.bytes).into_owned();
        let stopped = self.watch.found();
        (rest, Sample { text, hex: hex(&self.bytes), stopped, ..self.sample })
    }
}

/// Draws up to `limit` tokens, or to one of `stops`; `show` gets the text as it comes, in whole characters or, if `raw`, in
/// its own bytes. Fails if the model gives a number that is not finite, or `show` fails.
pub(crate) fn write(
    sampler: impl Iterator<Item = Result<Drawn>>,
    tokenizer: &Tokenizer,
    prompt: &Prompt,
    limit: usize,
    stops: &[String],
    raw: bool,
    mut show: impl FnMut(&[u8]) -> io::Result<()>,
) -> Result<Sample> {
    let mut writing = Writing::new(tokenizer, prompt, stops);
    let mut characters = Characters::default();
    let mut pass_on = |given: Vec<u8>| {
        let shown = if raw { given } else { characters.push(&given).into_bytes() };
        show(&shown).map_err(Error::io("standard output"))
    };
    for drawn in sampler.take(limit) {
        pass_on(writing.push(&drawn?))?;
        if writing.stopped() {
            break;
        }
    }
    let (rest, sample) = writing.finish();
    pass_on(rest)?;
    let rest = characters.finish();
    if !raw {
        show(rest.as_bytes()).map_err(Error::io("standard output"))?;
    }
    Ok(sample)
}

/// Bytes that are not UTF-8, as two hexadecimal digits each.
pub(crate) fn hex(bytes: &[u8]) -> Option<String> {
    let digits = || bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    std::str::from_utf8(bytes).is_err().then(digits)
}

/// The text of one sample, all at once.
///
/// # Errors
/// As [`write()`].
pub(crate) fn text(sampler: Sampler, tokenizer: &Tokenizer, prompt: &Prompt, limit: usize) -> Result<String> {
    Ok(write(sampler, tokenizer, prompt, limit, &[], false, |_| Ok(()))?.text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::predict::tiny;

    /// What `show` gets when the model draws `pieces`' tokens, and the sample.
    fn written(tokenizer: &Tokenizer, prompt: &str, drawn: &str, stops: &[&str]) -> (Vec<String>, Sample) {
        let prompt = Prompt::new(tokenizer, prompt.as_bytes()).unwrap();
        let ids = tokenizer.encode(&Text::from(drawn)).unwrap().tokens.to_vec();
        let stops: Vec<String> = stops.iter().map(|stop| stop.to_string()).collect();
        let count = ids.len();
        let mut shown = Vec::new();
        let sampler = ids.into_iter().map(|id| Ok(Drawn { id, nats: 0.5 }));
        let show = |text: &[u8]| {
            shown.extend((!text.is_empty()).then(|| String::from_utf8(text.to_vec()).unwrap()));
            Ok(())
        };
        let sample = write(sampler, tokenizer, &prompt, count, &stops, false, show).unwrap();
        (shown, sample)
    }

    #[test]
    fn words_join_on_to_the_prompt_with_spaces_and_line_ends() {
        let tokenizer = tiny::tokenizer(Unit::Word, "to be or not\nto be\n");
        let (shown, sample) = written(&tokenizer, "to be ", "or not\nto", &[]);
        let shown_of = |prompt: &str| {
            String::from_utf8(Prompt::new(&tokenizer, prompt.as_bytes()).unwrap().text).unwrap()
        };
        assert_eq!(
            ["to be ", "to be\n ", "to be\n\n", "to\n  be\t"].map(shown_of),
            ["to be", "to be\n", "to be\n\n", "to\n  be"]
        );
        assert_eq!(shown, [" or", " not", "\n", "to", "\n"]);
        assert_eq!((sample.tokens, sample.nats, sample.stopped), (5, 2.5, false));
    }

    #[test]
    fn bytes_are_shown_in_whole_characters() {
        let tokenizer = tiny::tokenizer(Unit::Byte, "été\n");
        assert_eq!(written(&tokenizer, "", "été", &[]).0, ["é", "t", "é"]);
    }

    #[test]
    fn a_sample_that_ends_within_a_character_says_so() {
        let tokenizer = tiny::tokenizer(Unit::Byte, "é\n");
        let prompt = Prompt::new(&tokenizer, b"").unwrap();
        let first = tokenizer.encode(&Text::from("é")).unwrap().tokens.get(0);
        for (raw, wanted) in [(false, "\u{fffd}".as_bytes()), (true, &[0xc3])] {
            let sampler = std::iter::once(Ok(Drawn { id: first, nats: 0.0 }));
            let mut shown = Vec::new();
            let show = |bytes: &[u8]| {
                shown.extend_from_slice(bytes);
                Ok(())
            };
            let sample = write(sampler, &tokenizer, &prompt, 1, &[], raw, show).unwrap();
            assert_eq!((sample.text.as_str(), sample.hex.as_deref()), ("\u{fffd}", Some("c3")));
            assert_eq!(shown, wanted);
        }
    }

    #[test]
    fn a_stop_string_ends_the_sample_and_is_not_part_of_it() {
        let tokenizer = tiny::tokenizer(Unit::Char, "abc\n");
        let (_, sample) = written(&tokenizer, "a", "abcabc", &["ca"]);
        assert_eq!((sample.text.as_str(), sample.tokens, sample.stopped), ("ab", 4, true));
    }

    #[test]
    fn a_prompt_is_read_after_a_line_end_and_its_unseen_symbols_are_counted() {
        let tokenizer = tiny::tokenizer(Unit::Char, "ab\n");
        let prompt = Prompt::new(&tokenizer, b"aXb").unwrap();
        let word = |id: &u32| tokenizer.token(*id).to_string();
        let read: Vec<String> = prompt.context().iter().map(word).collect();
        assert_eq!((read.join("|").as_str(), prompt.unseen), ("\n|a|<unk>|b", 1));
        assert_eq!(Prompt::new(&tokenizer, b"").unwrap().context().len(), 1);
    }

    #[test]
    fn without_line_ends_an_empty_prompt_begins_after_a_space() {
        let tokenizer = tiny::tokenizer(Unit::Char, "ab ab");
        assert_eq!(tokenizer.token(Prompt::new(&tokenizer, b"").unwrap().context()[0]), " ");
    }
}
