//! Dense gradients one after another, cut into buckets whose sums go on while the others are computed: in the host's memory, or
//! on the ranks' devices where these add up among themselves.

use super::Layout;
use super::number::Summable;
use crate::error::Result;
use crate::parallel::world::{Sum, TensorSum, World};
use candle_core::{Device, Tensor, Var};
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;

/// The sums of a step's dense gradients under way.
pub(super) struct Begun<T> {
    world: Arc<dyn World>,
    /// Numbers of a bucket.
    bucket: usize,
    /// Where the gradient of each weight begins and ends; empty for one that is summed by rows.
    places: Vec<Range<usize>>,
    /// Those that are there and not all begun.
    ready: Vec<Option<Tensor>>,
    /// The weights' device, if buckets are summed there.
    device: Option<Device>,
    /// Of the last bucket, the one before, and so on.
    sums: Vec<Begin>,
    numbers: PhantomData<T>,
}

/// The sum of a bucket under way.
enum Begin {
    InHost(Sum),
    OnDevice(TensorSum),
}

/// The sum of a bucket.
enum Bucket<T> {
    InHost(Vec<T>),
    OnDevice(Tensor),
}

impl<T: Summable> Begun<T> {
    pub(super) fn new(world: Arc<dyn World>, layout: &Layout, weights: &[(&str, &Var)]) -> Self {
        let mut end = 0;
        let by_rows = layout.by_rows.clone().unwrap_or_default();
        let place = |(name, var): &(&str, &Var)| {
            let start = end;
            end += if by_rows.contains(*name) { 0 } else { var.elem_count() };
            start..end
        };
        let places = weights.iter().map(place).collect();
        let ready = vec![None; weights.len()];
        let device = weights.first().map(|(_, var)| var.device().clone());
        let device = device.filter(|device| world.adds_up_on(device));
        let bucket = layout.bucket;
        Self { world, bucket, places, ready, device, sums: Vec::new(), numbers: PhantomData }
    }

    fn total(&self) -> usize {
        self.places.last().map_or(0, |place| place.end)
    }

    fn buckets(&self) -> usize {
        self.total().div_ceil(self.bucket)
    }

    /// Takes a gradient that is complete, and begins the buckets that are now.
    pub(super) fn offer(&mut self, index: usize, gradient: &Tensor) -> Result<()> {
        self.ready[index] = Some(gradient.clone());
        while self.sums.len() < self.buckets() {
            let range = self.range(self.buckets() - 1 - self.sums.len());
            let is_missing = |(place, ready): (&Range<usize>, &Option<Tensor>)| {
                place.start < range.end && range.start < place.end && ready.is_none()
            };
            if self.places.iter().zip(&self.ready).any(is_missing) {
                return Ok(());
            }
            self.begin(range)?;
        }
        Ok(())
    }

    fn range(&self, bucket: usize) -> Range<usize> {
        bucket * self.bucket..((bucket + 1) * self.bucket).min(self.total())
    }

    /// The parts of the gradients that lie in `range`, in order: how many numbers each has, and they if they are ready.
    fn parts(&self, range: &Range<usize>) -> Result<Vec<(usize, Option<Tensor>)>> {
        let part = |(place, gradient): (&Range<usize>, &Option<Tensor>)| {
            let start = place.start.max(range.start);
            let count = place.end.min(range.end).checked_sub(start).filter(|&count| count > 0)?;
            let part = gradient
                .as_ref()
                .map(|gradient| gradient.flatten_all()?.narrow(0, start - place.start, count));
            Some(part.transpose().map(|part| (count, part)))
        };
        Ok(self.places.iter().zip(&self.ready).filter_map(part).collect::<candle_core::Result<_>>()?)
    }

    /// Begins the sum of these numbers; what is not ready is zero.
    fn begin(&mut self, range: Range<usize>) -> Result<()> {
        let parts = self.parts(&range)?;
        let sum = match &self.device {
            None => {
                let mut numbers = Vec::with_capacity(range.len());
                for (count, part) in parts {
                    match part {
                        None => numbers.resize(numbers.len() + count, T::default()),
                        Some(part) => numbers.extend(part.to_vec1::<T>()?),
                    }
                }
                Begin::InHost(self.world.begin_sum(T::numbers(numbers))?)
            }
            Some(device) => {
                let part = |(count, part): (usize, Option<Tensor>)| {
                    part.map_or_else(|| Tensor::zeros(count, T::DTYPE, device), Ok)
                };
                let parts = parts.into_iter().map(part).collect::<candle_core::Result<Vec<_>>>()?;
                // A single part is copied too: the gradient itself is not to change.
                let bucket = if let [part] = &parts[..] { part.copy()? } else { Tensor::cat(&parts, 0)? };
                Begin::OnDevice(self.world.begin_tensor_sum(bucket)?)
            }
        };
        self.sums.push(sum);
        Ok(())
    }

    /// Begins what was not begun, of `dense`, and waits for all of it.
    pub(super) fn finish(mut self, dense: &[Option<Tensor>]) -> Result<Sums<T>> {
        self.ready = dense.to_vec();
        while self.sums.len() < self.buckets() {
            self.begin(self.range(self.buckets() - 1 - self.sums.len()))?;
        }
        let mut buckets = Vec::with_capacity(self.sums.len());
        for sum in self.sums {
            buckets.push(match sum {
                Begin::InHost(sum) => Bucket::InHost(T::of(sum.wait()?)),
                Begin::OnDevice(sum) => Bucket::OnDevice(sum()?),
            });
        }
        buckets.reverse();
        Ok(Sums { buckets, places: self.places })
    }
}

/// The sums of a step's dense gradients.
pub(super) struct Sums<T> {
    /// In the order of the weights.
    buckets: Vec<Bucket<T>>,
    places: Vec<Range<usize>>,
}

impl<T: Summable> Sums<T> {
    /// That of one weight.
    pub(super) fn tensor(&self, index: usize, var: &Var) -> Result<Tensor> {
        let place = &self.places[index];
        let mut numbers = Vec::new();
        let mut tensors = Vec::new();
        let mut start = 0;
        for bucket in &self.buckets {
            let end = start + bucket.len();
            if start < place.end && place.start < end {
                let part = place.start.max(start) - start..place.end.min(end) - start;
                match bucket {
                    Bucket::InHost(bucket) => numbers.extend_from_slice(&bucket[part]),
                    Bucket::OnDevice(bucket) => tensors.push(bucket.narrow(0, part.start, part.len())?),
                }
            }
            start = end;
        }
        if tensors.is_empty() {
            return Ok(Tensor::from_vec(numbers, var.shape(), &Device::Cpu)?.to_device(var.device())?);
        }
        Ok(Tensor::cat(&tensors, 0)?.reshape(var.shape())?)
    }
}

impl<T> Bucket<T> {
    fn len(&self) -> usize {
        match self {
            Self::InHost(numbers) => numbers.len(),
            Self::OnDevice(numbers) => numbers.elem_count(),
        }
    }
}
