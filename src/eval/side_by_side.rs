//! Texts that are read side by side, as the batch rows of one window after another, and score as each does by itself: on the CPU to the
//! bit, but for an adaptive softmax and lines of fewer than four tokens by an LSTM with projection, to rounding.

use super::log_sum::ln_of_sum;
use super::perplexity::finite_at;
use super::score::Cost;
use crate::error::Result;
use crate::model::{FrozenModel, Noise, State};
use crate::predict::{STREAM_STEPS, WindowReader};
use candle_core::{DType, Tensor};

/// Tokens of all rows that are read at once, at most: what bounds the logits that are held.
const TOKENS_AT_ONCE: usize = 4096;

/// A text among others.
#[derive(Clone, Debug, Default)]
pub struct Row<'a> {
    /// Its tokens.
    pub ids: &'a [u32],
    /// Words that are read by their own bytes: the places in `ids` of the tokens that stand for them, rising, and the words.
    pub words: Vec<(usize, &'a [u8])>,
}

impl<'a> Row<'a> {
    /// The word that is read in place of the token at `place`.
    pub(super) fn word(&self, place: usize) -> Option<&'a [u8]> {
        let found = self.words.binary_search_by_key(&place, |(place, _)| *place).ok()?;
        Some(self.words[found].1)
    }
}

/// What comes before the first token of every row.
pub(super) struct Begin<'a> {
    /// What was read, at batch 1.
    pub(super) state: &'a State,
    /// The token that predicts the first one; without it the first one is read and not scored.
    pub(super) context: Option<u32>,
    /// The word that this token stands for, where it is read by its own bytes.
    pub(super) word: Option<&'a [u8]>,
}

/// How many of the `left` rows are read at once if the longest has `longest` tokens, and no more than `rows` are wanted; at
/// least one.
pub(super) fn fitting(longest: usize, left: usize, rows: usize) -> usize {
    (TOKENS_AT_ONCE / longest.clamp(1, STREAM_STEPS)).min(rows).clamp(1, left.max(1))
}

/// The cost of each token of each of `rows`, which should be of similar length; none of a token that nothing predicts. `set`, if
/// given, says of each entry of the vocabulary whether it is in. A row that is over is filled up with token 0.
///
/// # Errors
/// If the model gives a number that is not finite, or a word is given and it reads the words of its vocabulary alone.
pub(super) fn costs(
    model: &FrozenModel,
    begin: &Begin<'_>,
    rows: &[Row<'_>],
    set: Option<&[bool]>,
) -> Result<Vec<Vec<Option<Cost>>>> {
    let skipped = usize::from(begin.context.is_none());
    let targets = |row: usize| rows[row].ids.get(skipped..).unwrap_or(&[]);
    // Which token of a text is read at a time; none before the first.
    let place = |at: usize| if skipped == 1 { Some(at) } else { at.checked_sub(1) };
    let input =
        |row: usize, at: usize| place(at).map_or(begin.context, |place| rows[row].ids.get(place).copied());
    let count = rows.len();
    let steps = (0..count).map(|row| targets(row).len()).max().unwrap_or(0);
    let unscored = |row: &Row<'_>| vec![None; skipped.min(row.ids.len())];
    let mut costs: Vec<Vec<Option<Cost>>> = rows.iter().map(unscored).collect();
    let mut reader = WindowReader::new(model, count)?;
    reader.set_state(State::join(&vec![begin.state; count])?);
    for start in (0..steps).step_by(STREAM_STEPS) {
        let times = start..steps.min(start + STREAM_STEPS);
        let places = || times.clone().flat_map(|at| (0..count).map(move |row| (row, at)));
        let inputs: Vec<u32> = places().map(|(row, at)| input(row, at).unwrap_or(0)).collect();
        let inputs = Tensor::from_vec(inputs, (times.len(), count), model.device())?;
        let word = |at: usize, row: usize| place(at).map_or(begin.word, |place| rows[row].word(place));
        let words: Vec<Option<&[u8]>> = places().map(|(row, at)| word(at, row)).collect();
        let ys = reader.hidden_of_words(&inputs, &words)?.flatten(0, 1)?;
        // Nothing is predicted where a row is over.
        let target = |(index, (row, at)): (usize, (usize, usize))| {
            targets(row).get(at).map(|&target| (index as u32, row, target))
        };
        let predicted: Vec<(u32, usize, u32)> = places().enumerate().filter_map(target).collect();
        let column =
            |of: fn(&(u32, usize, u32)) -> u32| Tensor::from_iter(predicted.iter().map(of), model.device());
        let ys = ys.index_select(&column(|(index, ..)| *index)?, 0)?.unsqueeze(1)?;
        let wanted = column(|(.., target)| *target)?.unsqueeze(1)?;
        let nats = model.nats_of(&ys, &wanted, &Noise::none(), 1.0)?;
        let nats = finite_at(&nats, |at| start + predicted[at].0 as usize / count)?;
        let set_nats = match set {
            None => vec![0.0; nats.len()],
            Some(set) => set_nats(model, &ys, set)?,
        };
        for ((&(_, row, _), nats), set_nats) in predicted.iter().zip(nats).zip(set_nats) {
            costs[row].push(Some(Cost { nats, set_nats }));
        }
    }
    Ok(costs)
}

/// −ln of what the members of `set` share after each of `states`, `(time, batch, hidden)`, in row order.
pub(super) fn set_nats(model: &FrozenModel, states: &Tensor, set: &[bool]) -> Result<Vec<f64>> {
    let (time, batch, hidden) = states.dims3()?;
    let states = states.reshape((time * batch, 1, hidden))?;
    let of = |row: &Vec<f64>| {
        let members = row.iter().zip(set).filter(|&(_, &member)| member).map(|(&logit, _)| logit);
        ln_of_sum(row.iter().copied()) - ln_of_sum(members)
    };
    let mut nats = Vec::with_capacity(time * batch);
    for start in (0..time * batch).step_by(STREAM_STEPS) {
        let count = STREAM_STEPS.min(time * batch - start);
        let logits = model.logits_of(&states.narrow(0, start, count)?, &Noise::none())?;
        let rows = logits.squeeze(1)?.to_dtype(DType::F64)?.to_vec2::<f64>()?;
        nats.extend(rows.iter().map(of));
    }
    Ok(nats)
}
