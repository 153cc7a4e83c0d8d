//! Features of words by convolutions over their characters (Kim et al., 2016).
//!
//! ```text
//! f_w = max over positions of tanh(conv_w(characters) + b_w)      all widths side by side
//! ```
//!
//! There are few characters and many positions. A filter's response is the sum, over the characters that it sees, of a
//! character's vector times the filter's weights for it; these products are made once for each character, and a response
//! is then a sum of `width` numbers. The maximum is taken before the tanh, which rises everywhere.

mod cpu;
mod cpu_backward;
mod filters;
pub mod reference;

use crate::backend::Backend;
use crate::char_cnn::cpu::{Features, Forward, Layer, Words};
use crate::char_cnn::cpu_backward::{Backward, Grads};
pub use crate::char_cnn::filters::Filters;
use crate::cpu::instruction_set::Computed;
use crate::cpu::real;
use crate::error::{Error, Result};
use crate::precision::Precision;
use candle_core::{CpuStorage, CustomOp3, DType, Layout, Result as CandleResult, Shape, Tensor};
use std::sync::OnceLock;

/// Features of words: `(words, filters of all widths)`.
///
/// - `spelled`: `(words, length)` of u32, each row padded with the blank, 0
/// - `characters`: `(alphabet, char size)`; the blank's row counts as zero and receives no gradient
///
/// Of equal maxima the first receives the gradient. On the CPU a kernel with its own backward pass does the work;
/// elsewhere [`reference::features`] does, in full precision.
///
/// # Errors
/// If a character is not in the alphabet, or a filter is wider than `length`.
pub fn features(
    spelled: &Tensor,
    characters: &Tensor,
    filters: &[Filters],
    precision: Precision,
) -> Result<Tensor> {
    let (_, length) = spelled.dims2()?;
    if let Some(filters) = filters.iter().find(|filters| filters.width > length) {
        let width = filters.width;
        return Err(Error::setting(format!(
            "a filter of width {width} is wider than a word of {length} characters"
        )));
    }
    if Backend::of(characters) != Backend::Cpu {
        return reference::features(spelled, characters, filters);
    }
    let (alphabet, _) = characters.dims2()?;
    let spelled = spelled.flatten_all()?.to_vec1::<u32>()?;
    if let Some(character) = spelled.iter().find(|&&character| character as usize >= alphabet) {
        return Err(Error::setting(format!(
            "character {character} is not below the alphabet's size {alphabet}"
        )));
    }
    let sizes = filters.iter().map(|filters| Ok((filters.width, filters.bias.dim(0)?)));
    let op = CharCnn {
        words: Words::new(&spelled, length, alphabet),
        filters: sizes.collect::<Result<_>>()?,
        precision,
        positions: OnceLock::new(),
    };
    let flat = |part: fn(&Filters) -> &Tensor| -> Result<Tensor> {
        let parts = filters.iter().map(|filters| part(filters).flatten_all());
        Ok(Tensor::cat(&parts.collect::<CandleResult<Vec<_>>>()?, 0)?)
    };
    let weights = flat(|filters| &filters.weight)?;
    let bias = flat(|filters| &filters.bias)?;
    Ok(characters.contiguous()?.apply_op3(&weights, &bias, op)?)
}

/// The candle operation.
struct CharCnn {
    words: Words,
    /// Width and count.
    filters: Vec<(usize, usize)>,
    precision: Precision,
    /// `(words, filters)`: where each filter responds most.
    positions: OnceLock<Vec<u32>>,
}

impl CharCnn {
    fn layer<'a, T>(
        &'a self,
        characters: &'a [T],
        weights: &'a [T],
        bias: &'a [T],
        char_size: usize,
    ) -> Layer<'a, T> {
        Layer { words: &self.words, filters: &self.filters, characters, weights, bias, char_size }
    }

    fn forward<T: Computed>(&self, layer: Layer<'_, T>) -> Vec<T> {
        let Features { values, positions } = T::with_kernel(self.precision.rounds(), Forward(layer));
        self.positions.set(positions).expect("the operation runs once");
        values
    }

    fn backward<T: Computed>(
        &self,
        [characters, weights, bias, ys, grad]: [&Tensor; 5],
    ) -> CandleResult<[Tensor; 3]> {
        let (_, char_size) = characters.dims2()?;
        let positions = self.positions.get().expect("the operation has run");
        let of = |tensor: &Tensor| tensor.flatten_all()?.to_vec1::<T>();
        let ys = of(ys)?;
        let grad = of(grad)?;
        let e = of(characters)?;
        let w = of(weights)?;
        let b = of(bias)?;
        let layer = self.layer(&e, &w, &b, char_size);
        let work = Backward { layer, ys: &ys, positions, grad: &grad };
        let Grads { characters: e, weights: w, bias: b } = T::with_kernel(self.precision.rounds(), work);
        let device = characters.device();
        Ok([
            Tensor::from_vec(e, characters.shape(), device)?,
            Tensor::from_vec(w, weights.shape(), device)?,
            Tensor::from_vec(b, bias.shape(), device)?,
        ])
    }
}

impl CustomOp3 for CharCnn {
    fn name(&self) -> &'static str {
        "char-cnn"
    }

    fn cpu_fwd(
        &self,
        characters: &CpuStorage,
        characters_layout: &Layout,
        weights: &CpuStorage,
        weights_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> CandleResult<(CpuStorage, Shape)> {
        let (_, char_size) = characters_layout.shape().dims2()?;
        let shape = (self.words.count(), bias_layout.shape().elem_count()).into();
        macro_rules! run {
            ($kind:ident) => {
                CpuStorage::$kind(self.forward(self.layer(
                    real::elements(characters, characters_layout)?,
                    real::elements(weights, weights_layout)?,
                    real::elements(bias, bias_layout)?,
                    char_size,
                )))
            };
        }
        let values = match characters {
            CpuStorage::F64(_) => run!(F64),
            _ => run!(F32),
        };
        Ok((values, shape))
    }

    fn bwd(
        &self,
        characters: &Tensor,
        weights: &Tensor,
        bias: &Tensor,
        ys: &Tensor,
        grad: &Tensor,
    ) -> CandleResult<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let all = [characters, weights, bias, ys, grad];
        let [characters, weights, bias] = match characters.dtype() {
            DType::F64 => self.backward::<f64>(all)?,
            _ => self.backward::<f32>(all)?,
        };
        Ok((Some(characters), Some(weights), Some(bias)))
    }
}
