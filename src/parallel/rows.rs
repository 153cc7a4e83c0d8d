//! The batch rows of a rank.

use super::world::World;
use crate::error::{Error, Result};
use crate::model::{EncoderNoise, Noise, State};
use candle_core::{DType, Device, Tensor};

/// Some of a batch's rows, one after another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rows {
    /// The first of them.
    pub first: usize,
    /// How many they are.
    pub count: usize,
    /// How many the batch has.
    pub of: usize,
}

impl Rows {
    /// All rows of a batch.
    pub fn all(of: usize) -> Self {
        Self { first: 0, count: of, of }
    }

    /// Those of this rank: as many as every other rank has, or one more or less.
    ///
    /// # Errors
    /// If there are more ranks than rows.
    pub fn of_rank(world: &dyn World, of: usize) -> Result<Self> {
        let (size, rank) = (world.size(), world.rank());
        if of < size {
            return Err(Error::config(format!(
                "train.batch_size is {of} and there are {size} ranks, each of which needs a batch row: start fewer of them, \
                 or give more rows"
            )));
        }
        let start = |rank: usize| of * rank / size;
        Ok(Self { first: start(rank), count: start(rank + 1) - start(rank), of })
    }

    /// Whether these are all rows.
    pub fn is_all(&self) -> bool {
        self.count == self.of
    }

    /// What part of the batch they are.
    pub fn share(&self) -> f64 {
        self.count as f64 / self.of as f64
    }

    /// The rows of `tensor`, along dimension `dim`, which has all of them or, pass after pass, all of several passes.
    pub fn of_tensor(&self, tensor: &Tensor, dim: usize) -> Result<Tensor> {
        let passes = tensor.dim(dim)? / self.of;
        let pass = |pass: usize| tensor.narrow(dim, pass * self.of + self.first, self.count);
        let passes = (0..passes).map(pass).collect::<candle_core::Result<Vec<_>>>()?;
        Ok(Tensor::cat(&passes, dim)?.contiguous()?)
    }

    /// What is random for these rows, of what was drawn for all.
    pub fn of_noise(&self, noise: Noise) -> Result<Noise> {
        noise.with_rows(|mask| self.of_tensor(mask, mask.rank() - 2))
    }

    /// The same of an encoder.
    pub fn of_encoder_noise(&self, noise: EncoderNoise) -> Result<EncoderNoise> {
        let [forward, backward] = noise.each;
        Ok(EncoderNoise {
            each: [self.of_noise(forward)?, self.of_noise(backward)?],
            pooled: noise.pooled.map(|mask| self.of_tensor(&mask, 0)).transpose()?,
        })
    }

    /// The rows of what a core carries.
    pub fn of_state(&self, state: &State) -> Result<State> {
        if self.is_all() {
            return Ok(state.clone());
        }
        let layer = |parts: &Vec<Tensor>| parts.iter().map(|part| self.of_tensor(part, 0)).collect();
        Ok(State(state.0.iter().map(layer).collect::<Result<_>>()?))
    }
}

/// What a core carries for the rows of all ranks, `own` being those of this one. Every rank asks for it.
///
/// # Errors
/// If the ranks are no longer connected.
pub fn whole_state(world: &dyn World, rows: Rows, own: &State) -> Result<State> {
    if world.size() == 1 {
        return Ok(own.clone());
    }
    let whole = |part: &Tensor| -> Result<Tensor> {
        let passes = (0..part.dim(0)?).step_by(rows.count);
        let passes = passes.map(|start| whole_part(world, &part.narrow(0, start, rows.count)?));
        Ok(Tensor::cat(&passes.collect::<Result<Vec<_>>>()?, 0)?)
    };
    let layer = |parts: &Vec<Tensor>| parts.iter().map(whole).collect();
    Ok(State(own.0.iter().map(layer).collect::<Result<_>>()?))
}

/// All ranks' rows of `(rows, width)`.
fn whole_part(world: &dyn World, own: &Tensor) -> Result<Tensor> {
    let width = own.dim(1)?;
    // Single precision is kept exactly by double.
    let numbers = own.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
    let gathered = world.gather(numbers.iter().flat_map(|number| number.to_le_bytes()).collect())?.concat();
    let number = |bytes: &[u8]| f64::from_le_bytes(bytes.try_into().expect("eight"));
    let numbers: Vec<f64> = gathered.chunks_exact(8).map(number).collect();
    let rows = numbers.len() / width;
    let whole = Tensor::from_vec(numbers, (rows, width), &Device::Cpu)?;
    Ok(whole.to_dtype(own.dtype())?.to_device(own.device())?)
}

#[cfg(test)]
mod tests {
    use super::Rows;
    use crate::parallel::group::Group;

    #[test]
    fn every_row_belongs_to_one_rank_and_none_has_two_more_than_another() {
        for (of, size) in [(20, 1), (20, 3), (7, 4), (4, 4)] {
            let rows = Group::run(size, |world| Rows::of_rank(world, of).unwrap());
            let mut next = 0;
            for rows in &rows {
                assert_eq!((rows.first, rows.of), (next, of));
                next += rows.count;
            }
            assert_eq!(next, of);
            let counts = rows.iter().map(|rows| rows.count);
            assert!(counts.clone().max().unwrap() - counts.min().unwrap() <= 1);
        }
        let refused = Group::run(3, |world| Rows::of_rank(world, 2).unwrap_err().to_string());
        assert!(refused[0].contains("batch_size is 2 and there are 3 ranks"), "{}", refused[0]);
    }
}
