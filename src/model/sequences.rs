//! Sequences of different lengths side by side, padded at the end.

use crate::error::{Error, Result};
use candle_core::{DType, Device, Tensor};
use rhn_kernels::sequences::reversed;

/// The lengths of the rows of a `(time, batch)` batch, whose steps past them are padding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lengths {
    time: usize,
    rows: Vec<usize>,
}

impl Lengths {
    /// Of a batch of `time` steps. Fails if a row is empty or longer.
    pub(crate) fn new(time: usize, rows: Vec<usize>) -> Result<Self> {
        match rows.iter().find(|&&steps| steps == 0 || steps > time) {
            Some(steps) => Err(Error::config(format!("a sequence of {steps} steps in a batch of {time}"))),
            None => Ok(Self { time, rows }),
        }
    }

    /// Steps of each row.
    pub(crate) fn rows(&self) -> &[usize] {
        &self.rows
    }

    /// `xs`, `(time, batch, size)`, with the steps of each row in the opposite order; padding stays where it is.
    pub(crate) fn reversed(&self, xs: &Tensor) -> Result<Tensor> {
        Ok(reversed(xs, &self.rows)?)
    }

    /// What `ys`, `(time, batch, size)`, has at the last step of each row, `(batch, size)`.
    pub(crate) fn last(&self, ys: &Tensor) -> Result<Tensor> {
        let batch = self.rows.len();
        let places = self.rows.iter().enumerate().map(|(row, steps)| ((steps - 1) * batch + row) as u32);
        let places = Tensor::from_vec(places.collect::<Vec<_>>(), batch, ys.device())?;
        Ok(ys.flatten(0, 1)?.index_select(&places, 0)?)
    }

    /// 1 where a row has a step, and 0 in the padding, `(time, batch)`.
    pub(crate) fn mask(&self, dtype: DType, device: &Device) -> Result<Tensor> {
        let is_inside = |step: usize| self.rows.iter().map(move |&steps| f32::from(u8::from(step < steps)));
        let mask: Vec<f32> = (0..self.time).flat_map(is_inside).collect();
        Ok(Tensor::from_vec(mask, (self.time, self.rows.len()), &Device::Cpu)?
            .to_dtype(dtype)?
            .to_device(device)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_step_and_the_mask_are_of_each_rows_length() {
        let lengths = Lengths::new(3, vec![3, 1, 2]).unwrap();
        let xs = Tensor::arange(0u32, 9, &Device::Cpu).unwrap().reshape((3, 3, 1)).unwrap();
        let last = lengths.last(&xs).unwrap().flatten_all().unwrap().to_vec1::<u32>().unwrap();
        assert_eq!(last, [6, 1, 5]);
        let mask = lengths.mask(DType::F64, &Device::Cpu).unwrap().to_vec2::<f64>().unwrap();
        assert_eq!(mask, [[1.0, 1.0, 1.0], [1.0, 0.0, 1.0], [1.0, 0.0, 0.0]]);
    }

    #[test]
    fn a_row_without_steps_or_past_the_batch_is_refused() {
        for rows in [vec![1, 0], vec![4]] {
            assert!(Lengths::new(3, rows).is_err());
        }
    }
}
