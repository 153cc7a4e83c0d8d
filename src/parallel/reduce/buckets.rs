//! Dense gradients one after another, cut into buckets whose sums go on while the others are computed.

use super::Layout;
use super::number::Summable;
use crate::error::Result;
use crate::parallel::world::{Sum, World};
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
    /// Of the last bucket, the one before, and so on.
    sums: Vec<Sum>,
    numbers: PhantomData<T>,
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
        Self { world, bucket: layout.bucket, places, ready, sums: Vec::new(), numbers: PhantomData }
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

    /// Begins the sum of these numbers; what is not ready is zero.
    fn begin(&mut self, range: Range<usize>) -> Result<()> {
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
    pub(super) fn finish(mut self, dense: &[Option<Tensor>]) -> Result<Sums<T>> {
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
pub(super) struct Sums<T> {
    /// In the order of the weights.
    buckets: Vec<Vec<T>>,
    places: Vec<Range<usize>>,
}

impl<T: Summable> Sums<T> {
    /// That of one weight.
    pub(super) fn tensor(&self, index: usize, var: &Var) -> Result<Tensor> {
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
