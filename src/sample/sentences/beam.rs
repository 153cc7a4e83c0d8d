//! The likeliest sentence among several that are written side by side, and the likeliest words for the gaps of one.

use super::{SentenceWriter, Written};
use crate::error::{Error, Result};
use crate::eval::log_sum::ln_of_sum;
use candle_core::{DType, Tensor};

/// How often a sentence whose gaps were filled is encoded anew.
const ROUNDS: usize = 3;

/// A sentence that may go on.
struct Hypothesis {
    written: Written,
    /// The row of the batch that it goes on from.
    row: u32,
}

/// What a sentence is to be.
#[derive(Clone, Copy)]
enum Wanted<'a> {
    /// Of at most so many words.
    Free(usize),
    /// With a word at each place, or a gap.
    Template(&'a [Option<u32>]),
}

impl Wanted<'_> {
    fn longest(self) -> usize {
        match self {
            Self::Free(longest) => longest,
            Self::Template(places) => places.len(),
        }
    }
}

impl SentenceWriter<'_> {
    /// The likeliest of the sentences that a search with `width` of them at a time finds for `z`, `(1, size)`: of at most
    /// `longest` words.
    ///
    /// # Errors
    /// If `width` is 0, or the model gives a number that is not finite.
    pub fn beam(&self, z: &Tensor, width: usize, longest: usize) -> Result<Written> {
        self.search(z, width, Wanted::Free(longest))
    }

    /// The likeliest words for the gaps of a sentence, `None` in `places`: found by a beam of `width` with the mean vector of
    /// the sentence, whose gaps are `<unk>` to the encoder at first and what was found after that.
    ///
    /// # Errors
    /// If the vocabulary has no `<unk>`, or as [`SentenceWriter::beam`].
    pub fn fill(&self, places: &[Option<u32>], width: usize) -> Result<Written> {
        let unknown = self.tokenizer.unknown_id().ok_or_else(|| {
            Error::config(
                "gaps are <unk> to the encoder, and this vocabulary has none: the sentence cannot be filled",
            )
        })?;
        let mut ids: Vec<u32> = places.iter().map(|place| place.unwrap_or(unknown)).collect();
        let mut found = None;
        for _ in 0..ROUNDS {
            let mean = self.posterior(&ids)?.mean;
            let filled = self.search(&mean, width, Wanted::Template(places))?;
            let is_settled = filled.ids == ids;
            ids.clone_from(&filled.ids);
            found = Some(filled);
            if is_settled {
                break;
            }
        }
        found.ok_or_else(|| Error::config("a sentence to be filled has no words"))
    }

    fn search(&self, z: &Tensor, width: usize, wanted: Wanted<'_>) -> Result<Written> {
        if width == 0 {
            return Err(Error::config("a beam of 0 sentences finds none: wanted --beam 1 or more"));
        }
        let mut live = vec![Hypothesis { written: Written { ids: Vec::new(), nats: 0.0 }, row: 0 }];
        let mut decoding = self.model.begin(z)?;
        let mut best: Option<Written> = None;
        for place in 0..=wanted.longest() {
            let rows: Vec<u32> = live.iter().map(|hypothesis| hypothesis.row).collect();
            let words: Vec<u32> = live
                .iter()
                .map(|hypothesis| self.read(hypothesis.written.ids.last().copied().unwrap_or(self.line_end)))
                .collect();
            let (logits, after) = self.model.step(&words, &decoding.select(&rows)?)?;
            decoding = after;
            let logits = logits.to_dtype(DType::F64)?.to_vec2::<f64>()?;
            live = self.next(&live, &logits, (place, wanted), width)?;
            live.retain(|hypothesis| match hypothesis.written.ids.last() {
                Some(&id) if id == self.line_end => {
                    let ids = hypothesis.written.ids[..place].to_vec();
                    let ended = Written { ids, nats: hypothesis.written.nats };
                    if best.as_ref().is_none_or(|best| ended.nats < best.nats) {
                        best = Some(ended);
                    }
                    false
                }
                _ => true,
            });
            // −ln p only grows, so what is behind now stays behind.
            live.retain(|hypothesis| best.as_ref().is_none_or(|best| hypothesis.written.nats < best.nats));
            if live.is_empty() || place + 1 > wanted.longest() {
                break;
            }
        }
        let unfinished = || live.first().map(|hypothesis| hypothesis.written.clone());
        best.or_else(unfinished).ok_or_else(|| Error::config("no sentence was found: each word is forbidden"))
    }

    /// The `width` likeliest sentences that are one token longer than those of `live`, whose next token has `logits`; the
    /// likeliest first.
    fn next(
        &self,
        live: &[Hypothesis],
        logits: &[Vec<f64>],
        (place, wanted): (usize, Wanted<'_>),
        width: usize,
    ) -> Result<Vec<Hypothesis>> {
        let mut candidates: Vec<(f64, usize, u32)> = Vec::new();
        for (row, (hypothesis, logits)) in live.iter().zip(logits).enumerate() {
            let all = ln_of_sum(logits.iter().copied());
            if !all.is_finite() {
                let what = format!("the model gives logits whose sum of exponentials is {}", all.exp());
                return Err(Error::NotFinite { step: place as u64, what });
            }
            let nats = |id: u32| hypothesis.written.nats + all - logits[id as usize];
            let ids = 0..logits.len() as u32;
            let mut of_row: Vec<(f64, usize, u32)> =
                ids.filter(|&id| self.may_stand(id, place, wanted)).map(|id| (nats(id), row, id)).collect();
            keep_least(&mut of_row, width);
            candidates.append(&mut of_row);
        }
        keep_least(&mut candidates, width);
        let longer = |(nats, row, id): (f64, usize, u32)| {
            let mut ids = live[row].written.ids.clone();
            ids.push(id);
            Hypothesis { written: Written { ids, nats }, row: row as u32 }
        };
        Ok(candidates.into_iter().map(longer).collect())
    }

    /// Whether token `id` may stand at `place` of a sentence.
    fn may_stand(&self, id: u32, place: usize, wanted: Wanted<'_>) -> bool {
        let is_end = id == self.line_end;
        match wanted {
            Wanted::Free(longest) => (is_end || place < longest) && Some(id) != self.forbidden,
            Wanted::Template(places) => match places.get(place) {
                None => is_end,
                Some(Some(word)) => id == *word,
                Some(None) => !is_end && Some(id) != self.forbidden,
            },
        }
    }
}

/// Keeps the `count` with the least nats, in the order of these; of two that are alike, the one that came first.
fn keep_least(candidates: &mut Vec<(f64, usize, u32)>, count: usize) {
    let order =
        |a: &(f64, usize, u32), b: &(f64, usize, u32)| a.0.total_cmp(&b.0).then((a.1, a.2).cmp(&(b.1, b.2)));
    if count < candidates.len() {
        candidates.select_nth_unstable_by(count, order);
        candidates.truncate(count);
    }
    candidates.sort_unstable_by(order);
}
