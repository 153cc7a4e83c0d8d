//! Evaluation of a split that is not whole in memory: its text part by part, or its batch rows window by window.

use super::Evaluation;
use super::perplexity::{EvaluationProgress, finite};
use super::tally::{Predicted, Tally};
use crate::config::Unit;
use crate::config::corpus::Sentences;
use crate::data::{Encoded, Extent};
use crate::error::{Error, Result};
use crate::predict::{Reader, STREAM_STEPS};
use candle_core::{Device, Tensor};
use std::time::Instant;

/// A split as its reports name it, and how it is read.
#[derive(Clone, Copy)]
pub(crate) struct Streamed<'a> {
    /// The corpus's name.
    pub(crate) corpus: &'a str,
    /// `train`, `valid` or `test`.
    pub(crate) split: &'a str,
    /// What a token is.
    pub(crate) unit: Unit,
    /// The id of `<unk>`, if the vocabulary has it.
    pub(crate) unknown: Option<u32>,
    /// How sentences reach the model.
    pub(crate) sentences: Sentences,
}

/// The tokens of a window that is not full yet.
struct Gathered {
    previous: Option<u32>,
    inputs: Vec<u32>,
    targets: Vec<u32>,
    extents: Vec<Extent>,
}

impl Streamed<'_> {
    /// The stream over `parts`, whose text has `bytes` bytes, cut and measured: as [`super::stream`]. With a `context`, the
    /// line end, the first token is predicted too.
    pub(crate) fn stream(
        &self,
        reader: &mut dyn Reader,
        device: &Device,
        (parts, bytes): (impl Iterator<Item = Result<Encoded>>, u64),
        context: Option<u32>,
        progress: EvaluationProgress<'_>,
    ) -> Result<Evaluation> {
        let start = Instant::now();
        let mut tally = Tally::of_vocabulary(self.unknown);
        let mut read = 0;
        let mut window = Gathered { previous: context, inputs: vec![], targets: vec![], extents: vec![] };
        for part in parts {
            let part = part?;
            tally.unseen += part.unseen;
            tally.no_characters |= !part.is_utf8;
            read += part.bytes;
            for (at, id) in part.tokens.iter().enumerate() {
                let Some(previous) = window.previous.replace(id) else { continue };
                window.inputs.push(previous);
                window.targets.push(id);
                window.extents.push(part.extents.get(at));
                if window.targets.len() == STREAM_STEPS {
                    self.predict(reader, device, &mut window, &mut tally)?;
                    let all = (tally.tokens as f64 * bytes as f64 / read.max(1) as f64) as u64;
                    progress(tally.tokens, all.max(tally.tokens))?;
                }
            }
        }
        if !window.targets.is_empty() {
            self.predict(reader, device, &mut window, &mut tally)?;
        }
        if tally.tokens == 0 {
            let what = "has no token that could be predicted: the first is context alone";
            return Err(Error::data(format!("{} ({})", self.corpus, self.split), what));
        }
        Ok(self.named("stream", tally, start))
    }

    fn predict(
        &self,
        reader: &mut dyn Reader,
        device: &Device,
        window: &mut Gathered,
        tally: &mut Tally,
    ) -> Result<()> {
        let column = |ids: &[u32]| Tensor::from_slice(ids, (ids.len(), 1), device);
        let nats = reader.nats(&column(&window.inputs)?, &column(&window.targets)?)?;
        let nats = finite(&nats, tally.tokens as usize)?;
        tally.add_predicted(&Predicted { targets: &window.targets, nats: &nats }, self.unknown);
        window.extents.drain(..).for_each(|extent| tally.add_extent(extent));
        window.inputs.clear();
        window.targets.clear();
        Ok(())
    }

    /// The `count` windows of batch rows that `window` gives, inputs and targets of `(time, batch)` each: as
    /// [`super::batched`], without figures over the text. `unseen` are the split's symbols that the vocabulary lacks.
    pub(crate) fn batched(
        &self,
        reader: &mut dyn Reader,
        (count, unseen): (usize, u64),
        window: impl Fn(usize) -> Result<(Tensor, Tensor)>,
        progress: EvaluationProgress<'_>,
    ) -> Result<Evaluation> {
        let start = Instant::now();
        let mut tally = Tally { unmeasured: true, unseen, ..Tally::of_vocabulary(self.unknown) };
        for index in 0..count {
            let (inputs, targets) = window(index)?;
            let (steps, rows) = targets.dims2()?;
            let nats = finite(&reader.nats(&inputs, &targets)?, tally.tokens as usize / rows)?;
            let targets = targets.flatten_all()?.to_vec1::<u32>()?;
            tally.add_predicted(&Predicted { targets: &targets, nats: &nats }, self.unknown);
            progress(tally.tokens, (count * steps * rows) as u64)?;
        }
        Ok(self.named("batched", tally, start))
    }

    fn named(&self, protocol: &str, tally: Tally, start: Instant) -> Evaluation {
        let names = [self.corpus, self.split, protocol];
        let found = Evaluation::named(names, self.unit, tally, start.elapsed().as_secs_f64());
        let sentences = (self.sentences != Sentences::Running).then(|| self.sentences.as_str().to_owned());
        Evaluation { sentences, ..found }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Text;
    use crate::eval::perplexity::{Split, stream};
    use crate::predict::{WindowReader, tiny};

    fn streamed(unit: Unit, unknown: Option<u32>, sentences: Sentences) -> Streamed<'static> {
        Streamed { corpus: "tiny", split: "test", unit, unknown, sentences }
    }

    #[test]
    fn a_stream_in_parts_is_the_stream_to_the_last_bit() {
        let lines = "the old mill\r\n  and the über river\n\nsleeps \n".repeat(60);
        let tokenizer = tiny::tokenizer(Unit::Word, "the old mill and the river\n");
        let whole = tokenizer.encode_measured(&Text::from(lines.as_str())).unwrap();
        let model = tiny::drawn(tokenizer.vocab_size(), 1.0);
        let split = Split { corpus: "tiny", split: "test", unit: Unit::Word, text: &whole };
        let wanted = stream(&model, &split, &mut |_, _| Ok(())).unwrap();
        let mut reader = WindowReader::new(&model, 1).unwrap();
        let parts = lines.split_inclusive('\n').map(|line| tokenizer.encode_measured(&Text::from(line)));
        let split = streamed(Unit::Word, tokenizer.unknown_id(), Sentences::Running);
        let bytes = lines.len() as u64;
        let found =
            split.stream(&mut reader, &Device::Cpu, (parts, bytes), None, &mut |_, _| Ok(())).unwrap();
        let same = Evaluation {
            seconds: wanted.seconds,
            tokens_per_second: wanted.tokens_per_second,
            adaptation: wanted.adaptation.clone(),
            ..found
        };
        assert_eq!(same, wanted);
    }

    #[test]
    fn of_batch_rows_there_are_bits_per_character_unless_letters_hide_behind_unknown() {
        let tokenizer = tiny::tokenizer(Unit::Char, "the old mill\n");
        let model = tiny::drawn(tokenizer.vocab_size(), 1.0);
        let split = streamed(Unit::Char, tokenizer.unknown_id(), Sentences::Running);
        let measured = |text: &str| {
            let ids = tokenizer.encode(&Text::from(text)).unwrap().tokens.iter().collect::<Vec<u32>>();
            let column = |ids: &[u32]| Tensor::from_slice(ids, (ids.len(), 1), &Device::Cpu);
            let window = |_| Ok((column(&ids[..ids.len() - 1])?, column(&ids[1..])?));
            let mut reader = WindowReader::new(&model, 1).unwrap();
            split.batched(&mut reader, (1, 0), window, &mut |_, _| Ok(())).unwrap()
        };
        let known = measured("the mill\n");
        assert_eq!(known.bits_per_char, Some(known.bits_per_token));
        assert!(!known.is_measured() && known.bits_per_byte.is_none());
        let hidden = measured("the mixxl\n");
        assert_eq!(hidden.bits_per_char, None);
        let reason = hidden.bits_per_char_absent.unwrap();
        assert!(reason.starts_with("2 predicted tokens are <unk>"), "{reason}");
    }

    #[test]
    fn a_text_of_nothing_but_a_word_is_measured_although_what_is_predicted_has_no_character() {
        let tokenizer = tiny::tokenizer(Unit::Word, "the old mill\n");
        let model = tiny::drawn(tokenizer.vocab_size(), 1.0);
        let text = tokenizer.encode_measured(&Text::from("the")).unwrap(); // its line end is not in the text
        let split = Split { corpus: "tiny", split: "all", unit: Unit::Word, text: &text };
        let found = stream(&model, &split, &mut |_, _| Ok(())).unwrap();
        assert_eq!((found.tokens, found.chars, found.bytes, found.is_measured()), (1, Some(0), 0, true));
        assert_eq!(found.bits_per_char_absent.as_deref(), Some("no character was predicted"));
    }

    #[test]
    fn with_resets_each_sentence_costs_what_it_costs_alone() {
        let tokenizer = tiny::tokenizer(Unit::Word, "the old mill and river sleeps\n");
        let model = tiny::drawn(tokenizer.vocab_size(), 1.0);
        let lines = ["the old mill\n", "\n", "and the river sleeps\n"].repeat(40); // 400 tokens: over two windows
        let end = tokenizer.line_end_id();
        let split = streamed(Unit::Word, tokenizer.unknown_id(), Sentences::Reset);
        let nats = |lines: &[&str]| {
            let mut reader = WindowReader::new(&model, 1).unwrap().resetting_at(end);
            let parts = lines.iter().map(|line| tokenizer.encode_measured(&Text::from(*line)));
            let found = split.stream(&mut reader, &Device::Cpu, (parts, 1), end, &mut |_, _| Ok(())).unwrap();
            assert_eq!(found.sentences.as_deref(), Some("reset"));
            (found.nats_per_token * found.tokens as f64, found.tokens)
        };
        let (whole, tokens) = nats(&lines);
        let alone: f64 = lines[..3].iter().map(|line| nats(&[line]).0).sum();
        assert_eq!(tokens, 40 * (4 + 1 + 5));
        assert!((whole - 40.0 * alone).abs() < 1e-9, "{whole} {}", 40.0 * alone);
    }
}
