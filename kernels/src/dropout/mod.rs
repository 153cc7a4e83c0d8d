//! Inverted dropout masks from keyed streams: what is kept is divided by the probability of being kept.
//!
//! A GPU draws the same bits as the CPU.

mod apply;
#[cfg(feature = "cuda")]
mod cuda;

pub use apply::dropped;

use crate::cpu::pool;
use crate::cpu::real::Real;
use crate::cpu::shared::Shared;
use crate::error::Result;
use crate::rng::Rng;
use candle_core::{DType, Device, Shape, Tensor};

/// A stream's name, as [`Rng::keyed`] takes it.
#[derive(Clone, Copy, Debug)]
pub struct Stream<'a> {
    /// The run's seed.
    pub seed: u64,
    /// What the numbers are for.
    pub purpose: &'a str,
    /// The position in the run, say the step.
    pub position: u64,
}

impl Stream<'_> {
    fn rng(self) -> Rng {
        Rng::keyed(self.seed, self.purpose, self.position)
    }

    #[cfg(feature = "cuda")]
    fn key(self) -> [u32; 8] {
        crate::rng::key_words(self.seed, self.purpose, self.position)
    }
}

/// A mask of `shape`: the stream's numbers in order, each below `rate` drops.
pub fn mask(stream: Stream<'_>, rate: f64, shape: Shape, dtype: DType, device: &Device) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if let Device::Cuda(device) = device {
        return Ok(crate::dropout::cuda::mask(device, dtype, stream.key(), rate, shape)?);
    }
    let count = shape.elem_count();
    match dtype {
        DType::F32 => Ok(Tensor::from_vec(draw::<f32>(stream, rate, count), shape, device)?),
        _ => to(draw::<f64>(stream, rate, count), shape, dtype, device),
    }
}

/// The first `count` numbers of a stream, each kept or dropped, by all threads: each begins where its share does.
fn draw<T: Real>(stream: Stream<'_>, rate: f64, count: usize) -> Vec<T> {
    let mut values = vec![T::zero(); count];
    let shared = Shared::new(&mut values);
    let whole = T::from_f64(1.0 / (1.0 - rate));
    pool::run(|worker| {
        let own = worker.share(count);
        let mut rng = stream.rng();
        rng.skip_to(own.start as u64);
        // SAFETY: workers' shares are disjoint.
        let values = unsafe { shared.part(own.start, own.len()) };
        values.iter_mut().filter(|_| rng.uniform() >= rate).for_each(|value| *value = whole);
    });
    values
}

/// A number for each of `tokens` `(time, batch)`, in its batch row's stream at the position that is the token's id, so
/// that all occurrences of a word in a batch row share it: `(time, batch, 1)`. There is a stream for each batch row.
pub fn words(
    streams: &[Stream<'_>],
    rate: f64,
    tokens: &Tensor,
    dtype: DType,
    device: &Device,
) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if let Device::Cuda(device) = device {
        let keys: Vec<[u32; 8]> = streams.iter().map(|stream| stream.key()).collect();
        return Ok(crate::dropout::cuda::words(device, dtype, &keys, rate, tokens)?);
    }
    let (time, batch) = tokens.dims2()?;
    let mut values = vec![0f64; time * batch];
    let mut rngs: Vec<Rng> = streams.iter().map(|stream| stream.rng()).collect();
    for (i, token) in tokens.flatten_all()?.to_vec1::<u32>()?.into_iter().enumerate() {
        values[i] = kept(rngs[i % batch].uniform_at(u64::from(token)), rate);
    }
    to(values, (time, batch, 1).into(), dtype, device)
}

fn to(values: Vec<f64>, shape: Shape, dtype: DType, device: &Device) -> Result<Tensor> {
    Ok(Tensor::from_vec(values, shape, &Device::Cpu)?.to_dtype(dtype)?.to_device(device)?)
}

fn kept(uniform: f64, rate: f64) -> f64 {
    if uniform < rate { 0.0 } else { 1.0 / (1.0 - rate) }
}
