//! Surprisal: −ln p of each token of any text, given all the text before it.

use super::perplexity::finite;
use crate::error::Result;
use crate::model::FrozenModel;
use crate::predict::{Reader, STREAM_STEPS, WindowReader};
use candle_core::Tensor;

/// Reads a text piece by piece, the state carried from one to the next.
pub struct Scorer {
    reader: WindowReader,
    previous: Option<u32>,
    read: usize,
}

impl Scorer {
    /// A reader at the start of a text. `context`, the line end, comes before the first token; where a
    /// vocabulary has none, the first token has no surprisal.
    pub fn new(model: &FrozenModel, context: Option<u32>) -> Result<Self> {
        Ok(Self { reader: WindowReader::new(model, 1)?, previous: context, read: 0 })
    }

    /// Nats of each of the next tokens.
    pub fn nats(&mut self, tokens: &[u32]) -> Result<Vec<Option<f64>>> {
        let mut nats = Vec::with_capacity(tokens.len());
        for window in tokens.chunks(STREAM_STEPS) {
            self.window(window, &mut nats)?;
        }
        Ok(nats)
    }

    fn window(&mut self, tokens: &[u32], nats: &mut Vec<Option<f64>>) -> Result<()> {
        let (Some(&first), Some(&last)) = (tokens.first(), tokens.last()) else { return Ok(()) };
        let targets = if self.previous.is_some() { tokens } else { &tokens[1..] };
        if self.previous.is_none() {
            nats.push(None);
        }
        let mut inputs = vec![self.previous.unwrap_or(first)];
        inputs.extend_from_slice(targets);
        inputs.truncate(targets.len()); // the last token is read when the next one is predicted
        self.previous = Some(last);
        if targets.is_empty() {
            return Ok(());
        }
        let device = self.reader.model().device();
        let column = |ids: &[u32]| Tensor::from_slice(ids, (ids.len(), 1), device);
        let inputs = column(&inputs)?;
        let targets = column(targets)?;
        let window = self.reader.nats(&inputs, &targets)?;
        nats.extend(finite(&window, self.read)?.into_iter().map(Some));
        self.read += targets.elem_count();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Scorer;
    use crate::config::Unit;
    use crate::eval::perplexity::{Split, stream};
    use crate::predict::STREAM_STEPS;
    use crate::predict::tiny;

    #[test]
    fn a_text_scores_alike_however_it_is_cut_and_as_the_stream_does() {
        let (text, vocab_size) = tiny::encoded(Unit::Char, &tiny::characters(STREAM_STEPS + 30));
        let model = tiny::drawn(vocab_size, 1.0);
        let ids = text.tokens.to_vec();
        let score = |piece: usize| -> Vec<Option<f64>> {
            let mut scorer = Scorer::new(&model, None).unwrap();
            ids.chunks(piece).flat_map(|piece| scorer.nats(piece).unwrap()).collect()
        };
        let split = Split { corpus: "tiny", split: "test", unit: Unit::Char, text: &text };
        let wanted = stream(&model, &split, &mut |_, _| Ok(())).unwrap().nats_per_token;
        for piece in [1, 2, 7, STREAM_STEPS, ids.len()] {
            let nats = score(piece);
            assert_eq!((nats.len(), nats[0]), (ids.len(), None));
            let mean = nats.iter().flatten().sum::<f64>() / (ids.len() - 1) as f64;
            assert!((mean - wanted).abs() < 1e-12, "pieces of {piece}: {mean} is not {wanted}");
        }
    }

    #[test]
    fn the_context_predicts_the_first_token_and_is_not_scored() {
        let model = tiny::constant(&[0.5, 0.25, 0.25]);
        let nats = Scorer::new(&model, Some(2)).unwrap().nats(&[0, 1]).unwrap();
        let wanted = [2f64.ln(), 4f64.ln()];
        assert!(nats.iter().zip(wanted).all(|(found, wanted)| (found.unwrap() - wanted).abs() < 1e-12));
    }

    #[test]
    fn no_tokens_are_no_surprise() {
        assert!(Scorer::new(&tiny::drawn(3, 0.0), None).unwrap().nats(&[]).unwrap().is_empty());
    }
}
