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
use crate::char_cnn::cpu::{Forward, Layer, Words};
use crate::char_cnn::cpu_backward::Backward;
pub use crate::char_cnn::filters::Filters;
use crate::cpu::instruction_set::Computed;
use crate::cpu::operation::{self, Operation};
use crate::error::{Error, Result};
use crate::precision::Precision;
use candle_core::{Result as CandleResult, Shape, Tensor};
use std::sync::OnceLock;

/// Features of words: `(words, filters of all widths)`.
///
/// - `spelled`: `(words, length)` of u32, each row padded with the blank, 0
/// - `characters`: `(alphabet, char size)`; the blank's row counts as zero and receives no gradient
///
/// Of equal maxima the first receives the gradient. On the CPU a kernel with its own backward pass does the work;
/// elsewhere [`reference::features`] does, in full precision. Fails if a character is not in the alphabet, or a filter
/// is wider than `length`.
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
    let (alphabet, char_size) = characters.dims2()?;
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
        char_size,
        precision,
        positions: OnceLock::new(),
    };
    let flat = |part: fn(&Filters) -> &Tensor| -> Result<Tensor> {
        let parts = filters.iter().map(|filters| part(filters).flatten_all());
        Ok(Tensor::cat(&parts.collect::<CandleResult<Vec<_>>>()?, 0)?)
    };
    let weights = flat(|filters| &filters.weight)?;
    let bias = flat(|filters| &filters.bias)?;
    Ok(operation::apply(op, [characters, &weights, &bias])?)
}

struct CharCnn {
    words: Words,
    /// Width and count.
    filters: Vec<(usize, usize)>,
    char_size: usize,
    precision: Precision,
    /// `(words, filters)`: where each filter responds most.
    positions: OnceLock<Vec<u32>>,
}

impl CharCnn {
    fn layer<'a, T>(&'a self, [characters, weights, bias]: [&'a [T]; 3]) -> Layer<'a, T> {
        let Self { words, filters, char_size, .. } = self;
        Layer { words, filters, characters, weights, bias, char_size: *char_size }
    }
}

impl Operation for CharCnn {
    const NAME: &'static str = "char-cnn";

    fn forward<T: Computed>(&self, operands: [&[T]; 3], _: [&Shape; 3]) -> CandleResult<(Vec<T>, Shape)> {
        let work = Forward(self.layer(operands));
        let (values, positions) = T::with_kernel(self.precision.rounds(), work);
        self.positions.set(positions).expect("the operation runs once");
        Ok((values, (self.words.count(), operands[2].len()).into()))
    }

    fn backward<T: Computed>(&self, operands: [&[T]; 3], ys: &[T], grad: &[T]) -> [Vec<T>; 3] {
        let positions = self.positions.get().expect("the operation has run");
        let work = Backward { layer: self.layer(operands), ys, positions, grad };
        T::with_kernel(self.precision.rounds(), work)
    }
}
