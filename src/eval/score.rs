//! Surprisal: −ln p of each token of any text, given all the text before it.

use super::adapt::{CacheSettings, CachedText};
use super::perplexity::finite;
use super::sentences::ROWS;
use super::side_by_side::{self, Begin, Row, fitting};
use crate::error::{Error, Result};
use crate::model::{FrozenModel, Noise, State};
use crate::predict::{STREAM_STEPS, WindowReader};
use candle_core::Tensor;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Reads a text piece by piece, the state carried from one to the next.
pub struct Scorer {
    reader: WindowReader,
    previous: Option<Previous>,
    cache: Option<CachedText>,
    /// Where [`Scorer::restart`] goes back to.
    start: Start,
    read: usize,
    /// Whether nobody waits for what is read any more.
    is_abandoned: Arc<AtomicBool>,
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
        Ok(Self { reader, previous, cache: None, start, read: 0, is_abandoned: Arc::default() })
    }

    /// The same reader, which stops with an error between two windows once `is_abandoned` says that nobody waits for it.
    pub fn until(self, is_abandoned: Arc<AtomicBool>) -> Self {
        Self { is_abandoned, ..self }
    }

    fn check(&self) -> Result<()> {
        match self.is_abandoned.load(Ordering::Relaxed) {
            true => Err(Error::Stopped { code: 0 }),
            false => Ok(()),
        }
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

    /// Reads `text` after the line end without a score; texts begin after it from now on.
    ///
    /// # Errors
    /// As [`Scorer::costs_of_words`].
    pub fn set_context(&mut self, text: &Row<'_>) -> Result<()> {
        let words: Vec<Option<&[u8]>> = (0..text.ids.len()).map(|place| text.word(place)).collect();
        self.costs_of_words(text.ids, &words, None)?;
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
            self.check()?;
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
            Some(set) => side_by_side::set_nats(self.reader.model(), &states, set)?,
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

    /// The costs of several texts, each by itself from where [`Scorer::restart`] goes back to, read side by side. Where this
    /// reader is in its own text stays as it is; its cache is not asked.
    ///
    /// # Errors
    /// If the model gives a number that is not finite, or a word is given and it reads the words of its vocabulary alone.
    pub fn costs_of_texts(&self, texts: &[Row<'_>], set: Option<&[bool]>) -> Result<Vec<Vec<Option<Cost>>>> {
        let previous = self.start.previous.as_ref();
        let begin = Begin {
            state: &self.start.state,
            context: previous.map(|previous| previous.id),
            word: previous.and_then(|previous| previous.word.as_deref()),
        };
        let mut order: Vec<usize> = (0..texts.len()).collect();
        order.sort_by_key(|&text| texts[text].ids.len()); // the least is filled up among texts of like length
        let mut costs = vec![Vec::new(); texts.len()];
        while let Some(&longest) = order.last() {
            self.check()?;
            let count = fitting(texts[longest].ids.len(), order.len(), ROWS);
            let group = order.split_off(order.len() - count);
            let rows: Vec<Row<'_>> = group.iter().map(|&text| texts[text].clone()).collect();
            let found = side_by_side::costs(self.reader.model(), &begin, &rows, set)?;
            group.into_iter().zip(found).for_each(|(text, found)| costs[text] = found);
        }
        Ok(costs)
    }
}

#[cfg(test)]
mod tests {
    use super::{CacheSettings, Row, Scorer};
    use crate::config::Unit;
    use crate::eval::adapt::{Adaptation, adapted};
    use crate::eval::perplexity::{Split, stream};
    use crate::predict::tiny;
    use crate::predict::{STREAM_STEPS, WindowReader};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

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
    fn a_text_that_nobody_waits_for_is_read_no_further() {
        let model = tiny::constant(&[0.5, 0.25, 0.25]);
        let is_abandoned = Arc::new(AtomicBool::new(false));
        let mut scorer = Scorer::new(&model, Some(2)).unwrap().until(is_abandoned.clone());
        let ids = [0, 1];
        let rows = [Row { ids: &ids, ..Row::default() }];
        assert!(scorer.nats(&ids).is_ok() && scorer.costs_of_texts(&rows, None).is_ok());
        is_abandoned.store(true, Ordering::Relaxed);
        assert!(scorer.nats(&ids).is_err() && scorer.costs_of_texts(&rows, None).is_err());
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
    fn a_text_beside_others_costs_what_it_costs_alone() {
        let lengths = [3, STREAM_STEPS + 9, 1, 7, 3, 12, 0, 40];
        let text = |length: u32, k: u32| (0..length).map(|at| (at * at + k) % 5).collect::<Vec<u32>>();
        let texts: Vec<Vec<u32>> =
            lengths.iter().zip(1..).map(|(&length, k)| text(length as u32, k)).collect();
        let rows: Vec<Row<'_>> = texts.iter().map(|ids| Row { ids, ..Row::default() }).collect();
        let set = [false, true, false, false, true];
        for context in [Some(4), None] {
            for before in [&[] as &[u32], &[1, 2, 2]] {
                for set in [None, Some(set.as_slice())] {
                    let mut scorer = Scorer::new(&tiny::drawn(5, 1.0), context).unwrap();
                    scorer.set_context(&Row { ids: before, ..Row::default() }).unwrap();
                    let found = scorer.costs_of_texts(&rows, set).unwrap();
                    for (ids, found) in texts.iter().zip(found) {
                        scorer.restart().unwrap();
                        assert_eq!(found, scorer.costs(ids, set).unwrap());
                    }
                }
            }
        }
    }

    #[test]
    fn a_restart_forgets_the_text_and_keeps_the_context() {
        let model = tiny::drawn(3, 1.0);
        let mut whole = Scorer::new(&model, Some(0)).unwrap();
        let wanted = whole.nats(&[1, 2, 2, 1]).unwrap()[2..].to_vec();
        let mut scorer = Scorer::new(&model, Some(0)).unwrap();
        scorer.set_context(&Row { ids: &[1, 2], ..Row::default() }).unwrap();
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
