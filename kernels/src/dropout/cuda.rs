//! Dropout masks drawn on a GPU: the same bits as [`crate::dropout`] draws on the CPU.

use crate::cpu::real::by_float;
use crate::cuda::launch::{cover, kernels, launch, size, tensor, uninitialized, with_elements};
use candle_core::{CudaDevice, DType, Result, Shape, Tensor};

/// Numbers of a stream's block: what one thread draws.
const OF_BLOCK: usize = 8;

kernels!(MASK = "dropout", WORDS = "word_dropout");

/// A mask of `shape` from the stream of `key`.
pub(crate) fn mask(
    device: &CudaDevice,
    dtype: DType,
    key: [u32; 8],
    rate: f64,
    shape: Shape,
) -> Result<Tensor> {
    let count = shape.elem_count();
    let key = device.clone_htod(&key)?;
    let kept = 1.0 / (1.0 - rate);
    by_float!(dtype, T => {
        let mut mask = uninitialized::<T>(device, count)?;
        let config = cover(count.div_ceil(OF_BLOCK));
        launch!(device, "masks", T::MASK, config; &key, &rate, &kept, &size(count)?, &mut mask)?;
        Ok(tensor(mask, shape, device))
    })
}

/// A number for each of `tokens` `(time, batch)`, from its batch row's stream at the token's id: `(time, batch, 1)`.
pub(crate) fn words(
    device: &CudaDevice,
    dtype: DType,
    keys: &[[u32; 8]],
    rate: f64,
    tokens: &Tensor,
) -> Result<Tensor> {
    let (time, batch) = tokens.dims2()?;
    let count = time * batch;
    let keys = device.clone_htod(keys.as_flattened())?;
    let kept = 1.0 / (1.0 - rate);
    with_elements::<u32, _, _>([&tokens.contiguous()?], |[tokens]| {
        by_float!(dtype, T => {
            let mut mask = uninitialized::<T>(device, count)?;
            launch!(device, "masks", T::WORDS, cover(count);
                &keys, tokens, &rate, &kept, &size(batch)?, &size(count)?, &mut mask)?;
            Ok(tensor(mask, (time, batch, 1), device))
        })
    })
}
