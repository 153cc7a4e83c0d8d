//! The sum of the ranks' gradients.
//!
//! Dense gradients, one after another in the order of the weights' names, are cut into buckets of a fixed size, which are
//! summed from the last to the first. A bucket is begun as soon as all of it is there, while the rest of the backward pass
//! goes on: the output layer, whose gradients come first, is at the end of the alphabet. What is summed in which order
//! depends on the layout alone, never on when it was there.
//!
//! Of a table of which a step looks up some rows, only these are exchanged, and added in the order of the ranks.

use super::world::{Numbers, Sum, World};
use crate::error::{Error, Result};
use crate::model::Parameters;
use candle_core::{DType, Device, Result as CandleResult, Tensor, TensorId, Var, WithDType};
use rhn_kernels::embedding::RowGradient;
use rhn_kernels::gradients::{Counts, Gradient, Gradients, Watch};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};

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
    pub reported: [f64; 2],
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
    pub reported: [f64; 2],
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

    /// Goes on with the layout of a run that was stopped.
    pub fn set_layout(&mut self, layout: Layout) {
        self.layout = layout;
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
        let reported = own.as_ref().map_or([0.0; 2], |own| own.reported);
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

        let mut head = vec![reported[0], reported[1], has_failed.into(), is_late.into()];
        head.extend(gradients.iter().map(|gradient| f64::from(gradient.is_some())));
        let Numbers::F64(head) = self.world.begin_sum(Numbers::F64(head))?.wait()? else {
            unreachable!("sums have the type of their numbers")
        };
        let mut summed =
            Summed { gradients: Vec::new(), reported: [head[0], head[1]], has_failed: head[2] > 0.0 };
        if summed.has_failed {
            return Ok((summed, error));
        }
        // A gradient that was taken to be complete and was not, on any rank: the sums are made anew with what there is now.
        let sums = match head[3] > 0.0 {
            false => sums,
            true => Begun::<T>::new(self.world.clone(), &self.layout, &weights).finish(&dense)?,
        };
        for (index, (_, var)) in weights.iter().enumerate() {
            let is_there = head[4 + index] > 0.0;
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

/// Numbers of a row of `var`; a vector is a table of rows of one number.
fn width(var: &Var) -> usize {
    var.dims().get(1).copied().unwrap_or(1)
}

/// The numbers of the rows, each followed by its row.
fn encode<T: Summable>(var: &Var, gradient: Option<Gradient>) -> Result<Vec<u8>> {
    let (ids, rows) = match gradient {
        None => return Ok(Vec::new()),
        Some(Gradient::Rows(rows)) => rows.summed()?,
        Some(gradient) => ((0..var.dims()[0] as u32).collect(), gradient.dense()?),
    };
    let numbers = rows.flatten_all()?.to_vec1::<T>()?;
    let mut bytes = Vec::with_capacity(ids.len() * 4 + numbers.len() * size_of::<T>());
    for (id, row) in ids.iter().zip(numbers.chunks(width(var))) {
        bytes.extend(id.to_le_bytes());
        row.iter().for_each(|number| number.write(&mut bytes));
    }
    Ok(bytes)
}

/// The rows that [`encode`] wrote: their numbers `(count)`, and `(count, width)`; `None` if there are none.
fn decode<T: Summable>(var: &Var, bytes: &[u8]) -> Result<Option<(Tensor, Tensor)>> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let length = 4 + width(var) * size_of::<T>();
    let mut ids = Vec::with_capacity(bytes.len() / length);
    let mut rows = Vec::with_capacity(bytes.len() / size_of::<T>());
    for row in bytes.chunks_exact(length) {
        let (id, numbers) = row.split_at(4);
        ids.push(u32::from_le_bytes(id.try_into().expect("four")));
        rows.extend(numbers.chunks_exact(size_of::<T>()).map(T::read));
    }
    let count = ids.len();
    let rows = Tensor::from_vec(rows, (count, width(var)), &Device::Cpu)?;
    Ok(Some((Tensor::from_vec(ids, count, &Device::Cpu)?, rows)))
}

/// The sums of a step's dense gradients under way.
struct Begun<T> {
    world: Arc<dyn World>,
    /// Numbers of a bucket.
    bucket: usize,
    /// Where the gradient of each weight begins and ends; empty for one that is summed by rows.
    places: Vec<std::ops::Range<usize>>,
    /// Those that are there and not all begun.
    ready: Vec<Option<Tensor>>,
    /// Of the last bucket, the one before, and so on.
    sums: Vec<Sum>,
    numbers: std::marker::PhantomData<T>,
}

impl<T: Summable> Begun<T> {
    fn new(world: Arc<dyn World>, layout: &Layout, weights: &[(&str, &Var)]) -> Self {
        let mut end = 0;
        let by_rows = layout.by_rows.clone().unwrap_or_default();
        let place = |(name, var): &(&str, &Var)| {
            let start = end;
            end += if by_rows.contains(*name) { 0 } else { var.elem_count() };
            start..end
        };
        let places = weights.iter().map(place).collect();
        let ready = vec![None; weights.len()];
        Self {
            world,
            bucket: layout.bucket,
            places,
            ready,
            sums: Vec::new(),
            numbers: std::marker::PhantomData,
        }
    }

    fn total(&self) -> usize {
        self.places.last().map_or(0, |place| place.end)
    }

    fn buckets(&self) -> usize {
        self.total().div_ceil(self.bucket)
    }

    /// Takes a gradient that is complete, and begins the buckets that are now.
    fn offer(&mut self, index: usize, gradient: &Tensor) -> Result<()> {
        self.ready[index] = Some(gradient.clone());
        while self.sums.len() < self.buckets() {
            let range = self.range(self.buckets() - 1 - self.sums.len());
            let is_missing = |(place, ready): (&std::ops::Range<usize>, &Option<Tensor>)| {
                place.start < range.end && range.start < place.end && ready.is_none()
            };
            if self.places.iter().zip(&self.ready).any(is_missing) {
                return Ok(());
            }
            self.begin(range)?;
        }
        Ok(())
    }

    fn range(&self, bucket: usize) -> std::ops::Range<usize> {
        bucket * self.bucket..((bucket + 1) * self.bucket).min(self.total())
    }

    /// Begins the sum of these numbers; what is not ready is zero.
    fn begin(&mut self, range: std::ops::Range<usize>) -> Result<()> {
        let mut numbers = Vec::with_capacity(range.len());
        for (place, gradient) in self.places.iter().zip(&self.ready) {
            let start = place.start.max(range.start);
            let end = place.end.min(range.end);
            if start >= end {
                continue;
            }
            match gradient {
                None => numbers.resize(numbers.len() + end - start, T::default()),
                Some(gradient) => {
                    let part = gradient.flatten_all()?.narrow(0, start - place.start, end - start)?;
                    numbers.extend(part.to_vec1::<T>()?);
                }
            }
        }
        self.sums.push(self.world.begin_sum(T::numbers(numbers))?);
        Ok(())
    }

    /// Begins what was not begun, of `dense`, and waits for all of it.
    fn finish(mut self, dense: &[Option<Tensor>]) -> Result<Sums<T>> {
        self.ready = dense.to_vec();
        while self.sums.len() < self.buckets() {
            self.begin(self.range(self.buckets() - 1 - self.sums.len()))?;
        }
        let mut buckets = Vec::with_capacity(self.sums.len());
        for sum in self.sums {
            buckets.push(T::of(sum.wait()?));
        }
        buckets.reverse();
        Ok(Sums { buckets, places: self.places })
    }
}

/// The sums of a step's dense gradients.
struct Sums<T> {
    /// In the order of the weights.
    buckets: Vec<Vec<T>>,
    places: Vec<std::ops::Range<usize>>,
}

impl<T: Summable> Sums<T> {
    /// That of one weight.
    fn tensor(&self, index: usize, var: &Var) -> Result<Tensor> {
        let place = &self.places[index];
        let mut numbers = Vec::with_capacity(place.len());
        let mut start = 0;
        for bucket in &self.buckets {
            let end = start + bucket.len();
            if start < place.end && place.start < end {
                numbers
                    .extend_from_slice(&bucket[place.start.max(start) - start..place.end.min(end) - start]);
            }
            start = end;
        }
        Ok(Tensor::from_vec(numbers, var.shape(), &Device::Cpu)?.to_device(var.device())?)
    }
}

/// A type of numbers that are summed.
trait Summable: WithDType + Default {
    fn numbers(numbers: Vec<Self>) -> Numbers;
    fn of(numbers: Numbers) -> Vec<Self>;
    fn write(self, bytes: &mut Vec<u8>);
    fn read(bytes: &[u8]) -> Self;
}

macro_rules! summable {
    ($type:ty, $kind:ident) => {
        impl Summable for $type {
            fn numbers(numbers: Vec<Self>) -> Numbers {
                Numbers::$kind(numbers)
            }

            fn of(numbers: Numbers) -> Vec<Self> {
                match numbers {
                    Numbers::$kind(numbers) => numbers,
                    _ => unreachable!("sums have the type of their numbers"),
                }
            }

            fn write(self, bytes: &mut Vec<u8>) {
                bytes.extend(self.to_le_bytes());
            }

            fn read(bytes: &[u8]) -> Self {
                Self::from_le_bytes(bytes.try_into().expect("the size of a number"))
            }
        }
    };
}

summable!(f32, F32);
summable!(f64, F64);
