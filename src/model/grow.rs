//! The weights of a model whose vocabulary has grown: each old token keeps its row, each new one gets the mean of all.

use super::builder::missing;
use super::config::ModelConfig;
use super::output::OutputKind;
use super::specs::specs;
use crate::error::{Error, Result};
use candle_core::{Device, Tensor};
use std::collections::BTreeMap;

/// The characters' vectors of an embedding that reads characters.
const CHARACTERS: &str = "embedding.characters";

/// A model and the words of its vocabulary.
#[derive(Clone, Copy)]
pub struct Vocabulary<'a> {
    /// What fixes the weights' shapes.
    pub config: &'a ModelConfig,
    /// Every token, in the order of the ids.
    pub words: &'a [String],
}

/// The weights `old_weights` of the model `old` for `new`, which has more words and is the same otherwise; `tables` are
/// the tables of indices of `new`. Everything lies on the CPU.
///
/// # Errors
/// If the words of `old` are not the first of `new`, or a weight has another shape for another reason.
pub fn grow(
    old: Vocabulary<'_>,
    new: Vocabulary<'_>,
    old_weights: &BTreeMap<String, Tensor>,
    tables: &BTreeMap<String, Tensor>,
) -> Result<BTreeMap<String, Tensor>> {
    if !new.words.starts_with(old.words) {
        return Err(Error::config("a vocabulary grows behind its own words, this is another one"));
    }
    if new.config.spec.output.kind == OutputKind::Adaptive {
        return Err(Error::config(
            "an adaptive softmax cannot grow: its words go by falling frequency, and new ones would all be the rarest. Begin \
             another run without --init-from",
        ));
    }
    if new.config.spec.output.kind == OutputKind::CharCnn {
        return Err(Error::config(
            "--grow-vocab: a char-cnn output cannot grow, as its alphabet is the old one",
        ));
    }
    let mut weights = BTreeMap::new();
    for (name, spec) in specs(new.config)? {
        let source = if spec.trained() { old_weights } else { tables };
        let weight = source.get(&name).ok_or_else(|| missing(&name))?;
        let grown = match weight.dims() == spec.shape {
            true => weight.clone(),
            false if name == CHARACTERS => characters(old, new, weight)?,
            false => {
                let sizes = [old.words.len(), new.words.len()];
                let axis = axis(weight.dims(), &spec.shape, sizes).ok_or_else(|| {
                    let what = format!("{:?} where the grown model has {:?}", weight.dims(), spec.shape);
                    Error::tensor(&name, what)
                })?;
                let mean = weight.mean_keepdim(axis)?;
                let mut shape = weight.dims().to_vec();
                shape[axis] = sizes[1] - sizes[0];
                Tensor::cat(&[weight, &mean.broadcast_as(shape)?.contiguous()?], axis)?
            }
        };
        weights.insert(name, grown);
    }
    Ok(weights)
}

/// The one axis along which the shapes differ, if its sizes are those of the vocabularies.
fn axis(old: &[usize], new: &[usize], sizes: [usize; 2]) -> Option<usize> {
    let mut differing = (0..old.len().max(new.len())).filter(|&axis| old.get(axis) != new.get(axis));
    let axis = differing.next().filter(|_| differing.next().is_none())?;
    (old.len() == new.len() && [old[axis], new[axis]] == sizes).then_some(axis)
}

/// The vectors of the new alphabet, whose characters are in another order; the blank is row 0 and no part of the mean.
fn characters(old: Vocabulary<'_>, new: Vocabulary<'_>, weight: &Tensor) -> Result<Tensor> {
    let alphabet = |vocabulary: Vocabulary<'_>| -> Result<Vec<char>> {
        let spelling = vocabulary.config.spec.embedding.settings().spell(vocabulary.words)?;
        let spelling =
            spelling.ok_or_else(|| Error::tensor(CHARACTERS, "no embedding that reads characters"))?;
        Ok(spelling.alphabet)
    };
    let before = alphabet(old)?;
    let after = alphabet(new)?;
    let (rows, _) = weight.dims2()?;
    let known = |character: &char| before.iter().position(|known| known == character).map(|index| index + 1);
    let row = |character: &char| known(character).unwrap_or(rows) as u32; // the mean lies behind the rows
    let ids: Vec<u32> = std::iter::once(0).chain(after.iter().map(row)).collect();
    let mean = weight.narrow(0, 1, rows - 1)?.mean_keepdim(0)?;
    let with_mean = Tensor::cat(&[weight, &mean], 0)?;
    Ok(with_mean.index_select(&Tensor::from_vec(ids, after.len() + 1, &Device::Cpu)?, 0)?)
}
