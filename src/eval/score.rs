//! Surprisal: −ln p of each token of any text, given all the text before it.

use super::adapt::{CacheSettings, CachedText};
use super::log_sum::ln_of_sum;
use super::perplexity::finite;
use crate::error::Result;
use crate::model::{FrozenModel, Noise, State};
use crate::predict::{STREAM_STEPS, WindowReader};
use candle_core::{DType, Tensor};

/// Reads a text piece by piece, the state carried from one to the next.
pub struct Scorer {
    reader: WindowReader,
    previous: Option<Previous>,
    cache: Option<CachedText>,
    /// Where [`Scorer::restart`] goes back to.
    start: Start,
    read: usize,
}

/// What a text begins with.
struct Start {
    state: State,
    previous: Option<Previous>,
    cache: Option<CachedText>,
}

/// The token that is read when the next one is predicted.
#[derive(Clone, Debug)]
struct Previous {
    id: u32,
    /// The word that `id` stands for, where it is read by its own bytes.
    word: Option<Vec<u8>>,
}

/// What a token cost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    /// −ln of its probability.
    pub nats: f64,
    /// −ln of the probability that any token of a given set came here; 0 without a set.
    pub set_nats: f64,
}

impl Scorer {
    /// A reader at the start of a text. `context`, the line end, comes before the first token; where a
    /// vocabulary has none, the first token has no surprisal.
    pub fn new(model: &FrozenModel, context: Option<u32>) -> Result<Self> {
        let reader = WindowReader::new(model, 1)?;
        let previous = context.map(|id| Previous { id, word: None });
        let start = Start { state: reader.state().clone(), previous: previous.clone(), cache: None };
        Ok(Self { reader, previous, cache: None, start, read: 0 })
    }

    /// The same reader, which mixes in a neural cache; to be asked for before anything is read. A text's cache begins empty,
    /// or with what [`Scorer::set_context`] read.
    ///
    /// # Errors
    /// If a setting cannot be used.
    pub fn with_cache(mut self, settings: CacheSettings) -> Result<Self> {
        self.cache = Some(CachedText::new(settings)?);
        self.start.cache = Some(CachedText::new(settings)?);
        Ok(self)
    }

    /// Reads `tokens` after the line end without a score; texts begin after them from now on.
    pub fn set_context(&mut self, tokens: &[u32]) -> Result<()> {
        self.nats(tokens)?;
        let cache = self.cache.as_ref().map(CachedText::fork).transpose()?;
        self.start = Start { state: self.reader.state().clone(), previous: self.previous.clone(), cache };
        Ok(())
    }

    /// Goes back to the start of a text.
    pub fn restart(&mut self) -> Result<()> {
        self.reader.set_state(self.start.state.clone());
        self.previous = self.start.previous.clone();
        self.cache = self.start.cache.as_ref().map(CachedText::fork).transpose()?;
        Ok(())
    }

    /// Nats of each of the next tokens.
    pub fn nats(&mut self, tokens: &[u32]) -> Result<Vec<Option<f64>>> {
        let costs = self.costs(tokens, None)?;
        Ok(costs.into_iter().map(|cost| cost.map(|cost| cost.nats)).collect())
    }

    /// The cost of each of the next tokens. `set`, if given, says of each entry of the vocabulary whether it is in.
    pub fn costs(&mut self, tokens: &[u32], set: Option<&[bool]>) -> Result<Vec<Option<Cost>>> {
        self.costs_of_words(tokens, &vec![None; tokens.len()], set)
    }

    /// Whether the model reads words that its vocabulary lacks.
    pub fn reads_any_string(&self) -> bool {
        self.reader.model().reads_any_string()
    }

    /// As [`Scorer::costs`]; a token beside which a word is given is predicted as the token that it is, and read by the word's
    /// bytes.
    ///
    /// # Errors
    /// If a word is given and the model reads the words of its vocabulary alone.
    pub fn costs_of_words(
        &mut self,
        tokens: &[u32],
        words: &[Option<&[u8]>],
        set: Option<&[bool]>,
    ) -> Result<Vec<Option<Cost>>> {
        let mut costs = Vec::with_capacity(tokens.len());
        for (window, words) in tokens.chunks(STREAM_STEPS).zip(words.chunks(STREAM_STEPS)) {
            self.window(window, words, set, &mut costs)?;
        }
        Ok(costs)
    }

    fn window(
        &mut self,
        tokens: &[u32],
        words: &[Option<&[u8]>],
        set: Option<&[bool]>,
        costs: &mut Vec<Option<Cost>>,
    ) -> Result<()> {
        let (Some(&first), Some(&last)) = (tokens.first(), tokens.last()) else { return Ok(()) };
        let word_of = |at: usize| words[at].map(<[u8]>::to_vec);
        let last = Previous { id: last, word: word_of(tokens.len() - 1) };
        let before = self.previous.replace(last);
        let skipped = usize::from(before.is_none());
        costs.extend(before.is_none().then_some(None));
        let before = before.unwrap_or_else(|| Previous { id: first, word: word_of(0) });
        let targets = &tokens[skipped..];
        let mut inputs = vec![before.id];
        inputs.extend_from_slice(targets);
        inputs.truncate(targets.len()); // the last token is read when the next one is predicted
        let mut read = vec![before.word.as_deref()];
        read.extend_from_slice(&words[skipped..]);
        read.truncate(targets.len());
        if targets.is_empty() {
            return Ok(());
        }
        let device = self.reader.model().device().clone();
        let column = |ids: &[u32]| Tensor::from_slice(ids, (ids.len(), 1), &device);
        let states = self.reader.hidden_of_words(&column(&inputs)?, &read)?;
        let set_nats = match set {
            None => vec![0.0; targets.len()],
            Some(set) => self.set_nats(&states, set)?,
        };
        let nats = self.reader.model().nats_of(&states, &column(targets)?, &Noise::none(), 1.0)?;
        let nats = finite(&nats, self.read)?;
        let mut found: Vec<Cost> =
            nats.into_iter().zip(set_nats).map(|(nats, set_nats)| Cost { nats, set_nats }).collect();
        if let Some(cache) = &mut self.cache {
            found = cache.costs(&states.flatten(0, 1)?, targets, found, set)?;
        }
        costs.extend(found.into_iter().map(Some));
        self.read += targets.len();
        Ok(())
    }

    /// −ln of what the members of `set` share after each of `states`, `(time, 1, hidden)`.
    fn set_nats(&self, states: &Tensor, set: &[bool]) -> Result<Vec<f64>> {
        let logits = self.reader.model().logits_of(states, &Noise::none())?;
        let rows = logits.squeeze(1)?.to_dtype(DType::F64)?.to_vec2::<f64>()?;
        let of = |row: &Vec<f64>| {
            let members = row.iter().zip(set).filter(|&(_, &member)| member).map(|(&logit, _)| logit);
            ln_of_sum(row.iter().copied()) - ln_of_sum(members)
        };
        Ok(rows.iter().map(of).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::{CacheSettings, Scorer};
    use crate::config::Unit;
    use crate::eval::adapt::{Adaptation, adapted};
    use crate::eval::perplexity::{Split, stream};
    use crate::predict::tiny;
    use crate::predict::{STREAM_STEPS, WindowReader};

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
    fn a_set_costs_what_its_members_share() {
        let model = tiny::constant(&[0.5, 0.3, 0.2]);
        let costs = Scorer::new(&model, Some(2)).unwrap().costs(&[0, 1], Some(&[false, true, true])).unwrap();
        for cost in costs {
            assert!((cost.unwrap().set_nats - 2f64.ln()).abs() < 1e-12);
        }
    }

    #[test]
    fn a_restart_forgets_the_text_and_keeps_the_context() {
        let model = tiny::drawn(3, 1.0);
        let mut whole = Scorer::new(&model, Some(0)).unwrap();
        let wanted = whole.nats(&[1, 2, 2, 1]).unwrap()[2..].to_vec();
        let mut scorer = Scorer::new(&model, Some(0)).unwrap();
        scorer.set_context(&[1, 2]).unwrap();
        for _ in 0..2 {
            let found = scorer.nats(&[2, 1]).unwrap();
            assert!(found.iter().zip(&wanted).all(|(a, b)| (a.unwrap() - b.unwrap()).abs() < 1e-12));
            scorer.restart().unwrap();
        }
    }

    #[test]
    fn a_cache_gives_what_evaluation_with_it_gives_however_the_text_is_cut() {
        let (text, vocab_size) = tiny::encoded(Unit::Char, &tiny::characters(STREAM_STEPS + 30));
        let model = tiny::drawn(vocab_size, 1.0);
        let ids = text.tokens.to_vec();
        let settings = CacheSettings { window: 40, theta: 0.3, lambda: 0.2 };
        let split = Split { corpus: "tiny", split: "test", unit: Unit::Char, text: &text };
        let mut predictor = WindowReader::new(&model, 1).unwrap();
        let adaptation = Adaptation { cache: Some(settings), ..Adaptation::default() };
        let wanted = adapted(&mut predictor, &split, &adaptation, &mut |_, _| Ok(())).unwrap().nats_per_token;
        let mut scorer = Scorer::new(&model, None).unwrap().with_cache(settings).unwrap();
        for piece in [1, 7, ids.len()] {
            scorer.restart().unwrap();
            let nats: Vec<f64> =
                ids.chunks(piece).flat_map(|piece| scorer.nats(piece).unwrap()).flatten().collect();
            let mean = nats.iter().sum::<f64>() / (ids.len() - 1) as f64;
            assert!((mean - wanted).abs() < 1e-10, "pieces of {piece}: {mean} is not {wanted}");
        }
    }

    #[test]
    fn no_tokens_are_no_surprise() {
        assert!(Scorer::new(&tiny::drawn(3, 0.0), None).unwrap().nats(&[]).unwrap().is_empty());
    }
}
