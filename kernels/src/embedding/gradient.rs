//! The gradient of a table of which some rows were looked up.

use crate::cpu::real::{self, by_float};
use crate::embedding::add_rows;
use crate::error::Result;
use candle_core::{Result as CandleResult, Shape, Storage, Tensor};

/// The gradient of a table, `(rows, width)`, or of a vector, which is a table of rows of one number: that of some rows,
/// zero for the others.
#[derive(Clone, Debug)]
pub struct RowGradient {
    shape: Shape,
    /// In the order in which they came: `(count)` of u32, and the rows of these numbers; a number may come again.
    pieces: Vec<(Tensor, Tensor)>,
}

impl RowGradient {
    /// Of the rows `ids`, `(count)` of u32, of `table`: `rows` is `(count, width)`.
    pub fn new(table: &Tensor, ids: &Tensor, rows: &Tensor) -> Self {
        Self { shape: table.shape().clone(), pieces: vec![(ids.clone(), rows.clone())] }
    }

    /// The same, and further rows of the same table.
    pub fn and(mut self, ids: &Tensor, rows: &Tensor) -> Self {
        self.pieces.push((ids.clone(), rows.clone()));
        self
    }

    /// `sum`, of the table's shape, with the rows added in their order.
    pub(crate) fn add_to(&self, sum: Tensor) -> CandleResult<Tensor> {
        let add = |sum: Tensor, (ids, rows): &(Tensor, Tensor)| add_rows(sum, ids, rows);
        self.pieces.iter().try_fold(sum, add).map_err(candle_core::Error::wrap)
    }

    /// Every number of it, in the table's shape.
    pub fn dense(&self) -> Result<Tensor> {
        let (_, rows) = &self.pieces[0];
        Ok(self.add_to(Tensor::zeros(&self.shape, rows.dtype(), rows.device())?)?)
    }

    /// The numbers of the rows in rising order, each once, and the sum of what came for each: `(count, width)`. A sum has
    /// the order in which its parts came, as in [`RowGradient::dense`].
    ///
    /// # Errors
    /// If the rows are not of f32 or f64 on the CPU.
    pub fn summed(&self) -> Result<(Vec<u32>, Tensor)> {
        let ids: Vec<Vec<u32>> =
            self.pieces.iter().map(|(ids, _)| ids.to_vec1()).collect::<CandleResult<_>>()?;
        let mut all: Vec<(u32, usize, usize)> = Vec::new();
        for (piece, ids) in ids.iter().enumerate() {
            all.extend(ids.iter().enumerate().map(|(at, &id)| (id, piece, at)));
        }
        all.sort_unstable();
        let mut distinct: Vec<u32> = all.iter().map(|&(id, ..)| id).collect();
        distinct.dedup();
        let width = self.shape.dims().get(1).copied().unwrap_or(1);
        let rows: Vec<Tensor> =
            self.pieces.iter().map(|(_, rows)| rows.contiguous()).collect::<CandleResult<_>>()?;
        let dtype = rows[0].dtype();
        let device = rows[0].device();
        let sums = by_float!(dtype, T => {
            let mut sums = Vec::<T>::with_capacity(distinct.len() * width);
            let storages: Vec<_> = rows.iter().map(Tensor::storage_and_layout).collect();
            let slices = storages.iter().map(|(storage, layout)| match &**storage {
                Storage::Cpu(storage) => real::elements::<T>(storage, layout),
                _ => candle_core::bail!("rows of a gradient are summed on the CPU"),
            });
            let slices = slices.collect::<CandleResult<Vec<_>>>()?;
            let mut last = None;
            for (id, piece, at) in all {
                let row = &slices[piece][at * width..(at + 1) * width];
                if last.replace(id) == Some(id) {
                    let start = sums.len() - width;
                    sums[start..].iter_mut().zip(row).for_each(|(sum, &x)| *sum += x);
                } else {
                    sums.extend_from_slice(row);
                }
            }
            Tensor::from_vec(sums, (distinct.len(), width), device)?
        });
        Ok((distinct, sums))
    }
}
