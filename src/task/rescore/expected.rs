//! Learning from n-best lists: the word errors to expect of each (Povey, 2003, for speech; Prabhavalkar et al., 2018, and
//! Lu, 2016, for networks; here of the language model alone).
//!
//! ```text
//! total_h = a · acoustic_h + b · old_h + w · LP_h − p · words_h          as `rhn rescore` has it
//! P_h     = exp(κ total_h) / Σ exp(κ total)                               over the list
//! loss    = mean over lists of ( Σ_h P_h errors_h  +  γ · (−LP of the reference) )
//! ```
//!
//! LP is Σ ln p of a sentence read by itself from the zero state, its line end included. What is reported as nats is that of
//! the references.

use super::lists::ListTokens;
use crate::config::ListsConfig;
use crate::error::Result;
use crate::model::{LanguageModel, Noise, NoiseSource, State};
use crate::parallel::rows::Rows;
use crate::train::objective::{Loss, Objective, Sums};
use candle_core::{D, DType, Device, Tensor};

/// Added to the total of a place of the table that holds no hypothesis: its probability is exactly 0.
const NOBODY: f64 = -1e30;

/// The lists of a step. Sentences are the columns of `inputs`: the hypotheses of one list after the other, then the lists'
/// references.
pub struct ListBatch {
    /// What is read, `(time, sentences)` of u32, filled up with the line end.
    inputs: Tensor,
    /// What is predicted at the places that count, `(places, 1)` of u32.
    targets: Tensor,
    /// Where these are in `(time, sentences)`, `(places)` of u32.
    places: Tensor,
    /// Whose they are, `(places)` of u32.
    sentences: Tensor,
    /// The hypothesis of each place of a table, `(lists, most hypotheses)` of u32; 0 where there is none.
    table: Tensor,
    /// κ times what each total has beside the model's score, of the table's shape.
    fixed: Tensor,
    /// Word errors, of the table's shape.
    errors: Tensor,
    /// Where the hypotheses of each list begin among the sentences, and where those of the last one end.
    starts: Vec<u32>,
    /// Tokens of the lists' references.
    reference_tokens: Vec<u64>,
}

impl ListBatch {
    /// The lists of a step; `context` is the line end, after which each sentence begins.
    ///
    /// # Errors
    /// If the device has no memory for them.
    pub fn new(
        lists: &[&ListTokens],
        context: u32,
        settings: &ListsConfig,
        (dtype, device): (DType, &Device),
    ) -> Result<Self> {
        let hypotheses = lists.iter().flat_map(|list| list.hypotheses.iter());
        let references = lists.iter().map(|list| &list.reference);
        let all: Vec<&Vec<u32>> = hypotheses.chain(references).collect();
        let time = all.iter().map(|ids| ids.len()).max().unwrap_or(0);
        let most = lists.iter().map(|list| list.hypotheses.len()).max().unwrap_or(0);
        let mut inputs = vec![context; time * all.len()];
        let mut targets = Vec::new();
        let mut places = Vec::new();
        let mut sentences = Vec::new();
        for (number, ids) in all.iter().enumerate() {
            for (step, &id) in ids.iter().enumerate() {
                if step + 1 < ids.len() {
                    inputs[(step + 1) * all.len() + number] = id;
                }
                targets.push(id);
                places.push((step * all.len() + number) as u32);
                sentences.push(number as u32);
            }
        }
        let mut table = vec![0u32; lists.len() * most];
        let mut fixed = vec![NOBODY; lists.len() * most];
        let mut errors = vec![0.0; lists.len() * most];
        let mut next = 0;
        let mut starts = vec![0];
        for (row, list) in lists.iter().enumerate() {
            // Shares do not change by what all of a list have; what is left is small enough for single precision.
            let highest = list.fixed.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            for (column, (own, wrong)) in list.fixed.iter().zip(&list.errors).enumerate() {
                let at = row * most + column;
                table[at] = next;
                fixed[at] = settings.sharpness * (own - highest);
                errors[at] = *wrong;
                next += 1;
            }
            starts.push(next);
        }
        let shape = (lists.len(), most);
        let numbers = |values: Vec<f64>| -> Result<Tensor> {
            Ok(Tensor::from_vec(values, shape, &Device::Cpu)?.to_dtype(dtype)?.to_device(device)?)
        };
        let count = targets.len();
        Ok(Self {
            inputs: Tensor::from_vec(inputs, (time, all.len()), device)?,
            targets: Tensor::from_vec(targets, (count, 1), device)?,
            places: Tensor::from_vec(places, count, device)?,
            sentences: Tensor::from_vec(sentences, count, device)?,
            table: Tensor::from_vec(table, shape, device)?,
            fixed: numbers(fixed)?,
            errors: numbers(errors)?,
            starts,
            reference_tokens: lists.iter().map(|list| list.reference.len() as u64).collect(),
        })
    }

    /// Sentences that are hypotheses.
    fn hypotheses(&self) -> usize {
        *self.starts.last().expect("there is always an end") as usize
    }

    /// Some of the lists, in the length of all of them; and which of the sentences are theirs, as a tensor of u32.
    fn of_lists(&self, rows: Rows) -> Result<(Self, Tensor)> {
        let device = self.inputs.device();
        let starts = &self.starts[rows.first..=rows.first + rows.count];
        let own = starts[0]..starts[rows.count];
        let first_reference = (self.hypotheses() + rows.first) as u32;
        let kept: Vec<u32> =
            own.clone().chain(first_reference..first_reference + rows.count as u32).collect();
        let all = self.inputs.dim(1)? as u32;
        let number = |sentence: u32| kept.binary_search(&sentence).ok().map(|number| number as u32);
        let sentences = self.sentences.to_vec1::<u32>()?;
        // Of the places that count: which are of a kept sentence, where in (time, kept sentences), and whose they are.
        let mut of_targets = Vec::new();
        let mut places = Vec::new();
        let mut whose = Vec::new();
        for (at, (place, sentence)) in self.places.to_vec1::<u32>()?.into_iter().zip(sentences).enumerate() {
            if let Some(number) = number(sentence) {
                of_targets.push(at as u32);
                places.push(place / all * kept.len() as u32 + number);
                whose.push(number);
            }
        }
        let count = places.len();
        let columns = Tensor::new(kept.as_slice(), device)?;
        let of_targets = Tensor::from_vec(of_targets, count, device)?;
        let narrow = |tensor: &Tensor| tensor.narrow(0, rows.first, rows.count)?.contiguous();
        // A place of the table without a hypothesis names the first one, whichever that is.
        let shifted: Vec<u32> = narrow(&self.table)?
            .flatten_all()?
            .to_vec1::<u32>()?
            .into_iter()
            .map(|hypothesis| hypothesis.saturating_sub(own.start))
            .collect();
        let lists = Self {
            inputs: self.inputs.index_select(&columns, 1)?,
            targets: self.targets.index_select(&of_targets, 0)?,
            places: Tensor::from_vec(places, count, device)?,
            sentences: Tensor::from_vec(whose, count, device)?,
            table: Tensor::from_vec(shifted, (rows.count, self.table.dim(1)?), device)?,
            fixed: narrow(&self.fixed)?,
            errors: narrow(&self.errors)?,
            starts: starts.iter().map(|start| start - own.start).collect(),
            reference_tokens: self.reference_tokens[rows.first..rows.first + rows.count].to_vec(),
        };
        Ok((lists, columns))
    }

    /// The mask of the output layer at the places that count, `(places, 1, size)`, from one of `(batch, size)` or
    /// `(time, batch, size)`.
    fn of_places(&self, mask: &Tensor) -> Result<Tensor> {
        let selected = match mask.rank() {
            3 => mask.flatten(0, 1)?.index_select(&self.places, 0)?,
            _ => mask.index_select(&self.sentences, 0)?,
        };
        Ok(selected.unsqueeze(1)?)
    }
}

/// The word errors to expect of lists, with a share of the references' −ln p.
pub struct ExpectedErrors {
    model: LanguageModel,
    noise: NoiseSource,
    settings: ListsConfig,
}

impl ExpectedErrors {
    /// The objective of a model, whose dropout masks `noise` draws.
    pub fn new(model: LanguageModel, noise: NoiseSource, settings: ListsConfig) -> Self {
        Self { model, noise, settings }
    }

    /// −ln p at the places that count, `(places)`.
    fn nats(&self, batch: &ListBatch, noise: &Noise) -> Result<Tensor> {
        let zero = self.model.zero_state(batch.inputs.dim(1)?)?;
        let seen = self.model.outputs(&batch.inputs, None, &zero, noise)?.seen;
        let seen = seen.flatten(0, 1)?.index_select(&batch.places, 0)?.unsqueeze(1)?;
        let components = noise.components.as_ref().map(|mask| batch.of_places(mask)).transpose()?;
        let noise = Noise { components, ..Noise::none() };
        Ok(self.model.nats_of(&seen, &batch.targets, &noise, 1.0)?.flatten_all()?)
    }
}

impl Objective for ExpectedErrors {
    type Batch = ListBatch;
    type Noise = Noise;

    /// Sentences begin with the zero state, so nothing is carried.
    fn zero_state(&self) -> Result<State> {
        Ok(State(Vec::new()))
    }

    fn noise(&self, batch: &ListBatch, step: u64) -> Result<Noise> {
        self.noise.draw(&batch.inputs, step, step)
    }

    fn rows(&self, batch: &ListBatch, noise: Noise, rows: Rows) -> Result<(ListBatch, Noise)> {
        let (own, sentences) = batch.of_lists(rows)?;
        let noise = noise.with_rows(|mask| Ok(mask.index_select(&sentences, mask.rank() - 2)?))?;
        Ok((own, noise))
    }

    fn loss(&self, batch: &ListBatch, _carried: &State, noise: &Noise) -> Result<Loss> {
        let nats = self.nats(batch, noise)?;
        let sentences = batch.inputs.dim(1)?;
        let lp = nats.zeros_like()?.narrow(0, 0, 1)?.broadcast_as(sentences)?.contiguous()?;
        let lp = lp.index_add(&batch.sentences, &nats.neg()?, 0)?;
        let scores = lp.index_select(&batch.table.flatten_all()?, 0)?.reshape(batch.table.shape())?;
        let totals = ((scores * (self.settings.sharpness * self.settings.weight))? + &batch.fixed)?;
        let probabilities = softmax(&totals)?;
        let lists = batch.table.dim(0)?;
        let references = lp.narrow(0, batch.hypotheses(), lists)?;
        let mut objective = ((probabilities * &batch.errors)?.sum_all()? / lists as f64)?;
        if self.settings.cross_entropy > 0.0 {
            objective =
                (objective - (references.sum_all()? * (self.settings.cross_entropy / lists as f64))?)?;
        }
        let sums = Sums { nats: references.neg()?.detach(), tokens: batch.reference_tokens.iter().sum() };
        Ok(Loss { objective, sums, carried: State(Vec::new()), teacher: None })
    }
}

/// exp(x) over the sum of a row.
fn softmax(totals: &Tensor) -> Result<Tensor> {
    let highest = totals.detach().max_keepdim(D::Minus1)?;
    let weights = totals.broadcast_sub(&highest)?.exp()?;
    Ok(weights.broadcast_div(&weights.sum_keepdim(D::Minus1)?)?)
}
