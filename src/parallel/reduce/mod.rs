//! The sum of the ranks' gradients.
//!
//! Dense gradients, one after another in the order of the weights' names, are cut into buckets of a fixed size, which are
//! summed from the last to the first. A bucket is begun as soon as all of it is there, while the rest of the backward pass
//! goes on: the output layer, whose gradients come first, is at the end of the alphabet. What is summed in which order
//! depends on the layout alone, never on when it was there.
//!
//! Of a table of which a step looks up some rows, only these are exchanged, and added in the order of the ranks.

mod buckets;
mod number;
mod table_rows;

use super::world::{Numbers, World};
use crate::error::{Error, Result};
use crate::model::Parameters;
use buckets::Begun;
use candle_core::{DType, Result as CandleResult, Tensor, TensorId, Var};
use number::Summable;
use rhn_kernels::embedding::RowGradient;
use rhn_kernels::gradients::{Counts, Gradient, Gradients, Watch};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use table_rows::{decode, encode};

/// Numbers of a bucket: 4 MiB in single precision, enough for a network's full speed.
const BUCKET: usize = 1 << 20;

/// How gradients are laid out for their sums. The bits of a sum depend on it, so it is part of a run's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// Numbers of a bucket.
    bucket: usize,
    /// The tables of which rows are exchanged; not known before the first step.
    by_rows: Option<BTreeSet<String>>,
}

impl Default for Layout {
    fn default() -> Self {
        Self { bucket: BUCKET, by_rows: None }
    }
}

/// The sum of a step's gradients, and what was reported with them.
pub struct Summed {
    /// In the order of [`Parameters::trained`]; none where no rank has one.
    pub gradients: Vec<Option<Gradient>>,
    /// What is reported, summed over the ranks.
    pub reported: [f64; 3],
    /// Whether a rank has no gradients, because it failed.
    pub has_failed: bool,
}

/// Adds gradients up, step after step.
pub struct Reducer {
    world: Arc<dyn World>,
    layout: Layout,
    /// How often each weight's gradient was handed over in the step before: a hint when it will be complete.
    counts: Counts,
}

/// What a rank has of a step, without its gradients.
pub struct Own<'a> {
    /// What the gradients are of.
    pub objective: &'a Tensor,
    /// What is reported of it.
    pub reported: [f64; 3],
}

impl Reducer {
    /// Of a run that begins.
    pub fn new(world: Arc<dyn World>) -> Self {
        Self { world, layout: Layout::default(), counts: Counts::new() }
    }

    /// How gradients are laid out.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Goes on with the layout of a run that was stopped, which may have been on CPUs: of `parameters` on GPUs no rows are
    /// exchanged.
    pub fn set_layout(&mut self, layout: Layout, parameters: &Parameters) {
        self.layout = layout;
        let on_gpu = parameters.trained().filter(|(_, var)| !var.device().is_cpu());
        if let Some(by_rows) = &mut self.layout.by_rows {
            on_gpu.for_each(|(name, _)| _ = by_rows.remove(name));
        }
    }

    /// The sums over the ranks of the gradients of `own`; a rank that has failed gives none, and takes part all the same,
    /// so that no other waits for it. With the sums comes the error of this rank, if its gradients could not be computed.
    ///
    /// # Errors
    /// If the ranks are no longer connected.
    pub fn sum(&mut self, parameters: &Parameters, own: Option<Own<'_>>) -> Result<(Summed, Option<Error>)> {
        match parameters.trained().next().map(|(_, var)| var.dtype()) {
            Some(DType::F64) => self.sum_as::<f64>(parameters, own),
            _ => self.sum_as::<f32>(parameters, own),
        }
    }

    fn sum_as<T: Summable>(
        &mut self,
        parameters: &Parameters,
        own: Option<Own<'_>>,
    ) -> Result<(Summed, Option<Error>)> {
        let weights: Vec<(&str, &Var)> = parameters.trained().collect();
        let begun = Arc::new(Mutex::new(Begun::<T>::new(self.world.clone(), &self.layout, &weights)));
        let reported = own.as_ref().map_or([0.0; 3], |own| own.reported);
        let found = own.map(|own| self.gradients(parameters, own.objective, &begun));
        let (gradients, is_late, error) = match found {
            None => (vec![None; weights.len()], false, None),
            Some(Err(error)) => (vec![None; weights.len()], false, Some(error)),
            Some(Ok((gradients, is_late))) => (gradients, is_late, None),
        };
        let has_failed = error.is_some() || gradients.iter().all(Option::is_none);
        let mut begun = Arc::into_inner(begun).expect("the way back is over").into_inner().expect("no panic");
        if self.layout.by_rows.is_none() {
            self.layout.by_rows = Some(self.agree_on_rows(&weights, &gradients)?);
            begun = Begun::new(self.world.clone(), &self.layout, &weights); // of the old layout nothing was begun
        }
        let by_rows = self.layout.by_rows.clone().unwrap_or_default();
        let is_by_rows = |index: usize| by_rows.contains(weights[index].0);

        let mut dense = Vec::with_capacity(weights.len());
        for (index, gradient) in gradients.iter().enumerate() {
            let gradient = gradient.as_ref().filter(|_| !is_by_rows(index));
            dense.push(gradient.map(|gradient| gradient.clone().dense()).transpose()?);
        }
        let sums = begun.finish(&dense)?;

        let mut head = vec![has_failed.into(), is_late.into()];
        head.extend(reported);
        let first_of_gradients = head.len();
        head.extend(gradients.iter().map(|gradient| f64::from(gradient.is_some())));
        let Numbers::F64(head) = self.world.begin_sum(Numbers::F64(head))?.wait()? else {
            unreachable!("sums have the type of their numbers")
        };
        let mut summed = Summed {
            gradients: Vec::new(),
            reported: [head[2], head[3], head[4]],
            has_failed: head[0] > 0.0,
        };
        if summed.has_failed {
            return Ok((summed, error));
        }
        // A gradient that was taken to be complete and was not, on any rank: the sums are made anew with what there is now.
        let sums = match head[1] > 0.0 {
            false => sums,
            true => Begun::<T>::new(self.world.clone(), &self.layout, &weights).finish(&dense)?,
        };
        for (index, (_, var)) in weights.iter().enumerate() {
            let is_there = head[first_of_gradients + index] > 0.0;
            summed.gradients.push(match is_by_rows(index) {
                true => self.sum_rows::<T>(var, gradients[index].clone(), is_there)?,
                false if is_there => Some(Gradient::Dense(sums.tensor(index, var)?)),
                false => None,
            });
        }
        Ok((summed, None))
    }

    /// The gradients of `objective`, of which those that are ready early begin their sums; and whether one of those was not.
    fn gradients<T: Summable>(
        &mut self,
        parameters: &Parameters,
        objective: &Tensor,
        begun: &Arc<Mutex<Begun<T>>>,
    ) -> Result<(Vec<Option<Gradient>>, bool)> {
        // Before the layout is known, and where a weight rests in some steps, nothing is expected.
        let is_expected = |name: &str| {
            !parameters.rests(name) && self.layout.by_rows.as_ref().is_some_and(|rows| !rows.contains(name))
        };
        let of_weight = |(name, var): (&str, &Var)| {
            let count = self.counts.get(&var.id()).filter(|_| is_expected(name))?;
            Some((var.id(), *count))
        };
        let expected: Counts = parameters.trained().filter_map(of_weight).collect();
        let indices: HashMap<TensorId, usize> =
            parameters.trained().enumerate().map(|(index, (_, var))| (var.id(), index)).collect();
        let begun = begun.clone();
        let ready = move |id: TensorId, gradient: &Gradient| -> CandleResult<()> {
            let dense = gradient.clone().dense().map_err(candle_core::Error::wrap)?;
            let mut begun = begun.lock().expect("nobody panicked");
            begun.offer(indices[&id], &dense).map_err(candle_core::Error::wrap)
        };
        let watch = Watch { expected: expected.clone(), ready: Box::new(ready) };
        let mut found = Gradients::watched(objective, watch)?;
        let is_late = expected.iter().any(|(id, count)| found.counts().get(id) != Some(count));
        self.counts = found.counts().clone();
        Ok((parameters.take_gradients(&mut found)?, is_late))
    }

    /// Which tables are summed by rows, as the first step of a run has it: those that no rank has another gradient of.
    fn agree_on_rows(
        &self,
        weights: &[(&str, &Var)],
        gradients: &[Option<Gradient>],
    ) -> Result<BTreeSet<String>> {
        let kind = |(gradient, (_, var)): (&Option<Gradient>, &(&str, &Var))| match gradient {
            None => 0,
            Some(Gradient::Rows(_)) if var.device().is_cpu() => 1,
            Some(_) => 2,
        };
        let all = self.world.gather(gradients.iter().zip(weights).map(kind).collect())?;
        let is_by_rows = |index: &usize| {
            let kinds = all.iter().map(|kinds| kinds[*index]);
            kinds.max() == Some(1)
        };
        Ok((0..weights.len()).filter(is_by_rows).map(|index| weights[index].0.to_string()).collect())
    }

    /// The rows of all ranks, in the order of the ranks.
    fn sum_rows<T: Summable>(
        &self,
        var: &Var,
        own: Option<Gradient>,
        is_there: bool,
    ) -> Result<Option<Gradient>> {
        if !is_there {
            return Ok(None);
        }
        let all = self.world.gather(encode::<T>(var, own)?)?;
        let mut sum: Option<RowGradient> = None;
        for bytes in &all {
            let Some((ids, rows)) = decode::<T>(var, bytes)? else { continue };
            sum = Some(match sum {
                None => RowGradient::new(var, &ids, &rows),
                Some(sum) => sum.and(&ids, &rows),
            });
        }
        Ok(sum.map(Gradient::Rows))
    }
}
