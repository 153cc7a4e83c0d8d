//! A weight that an output layer multiplies by: as training changes it, or laid out for evaluation.

use crate::error::Result;
use candle_core::{D, DType, Tensor};
use rhn_kernels::embedding::is_two_bytes;
use rhn_kernels::linear::{self, Stored, linear};
use rhn_kernels::precision::Precision;
use rhn_kernels::softmax as loss;
use std::ops::Range;

/// The most logits that an evaluation makes at a time, where it makes any: 128 MiB of f32, as in training.
pub(super) const LOGITS: usize = 1 << 25;

/// A weight that is multiplied by.
pub(super) enum Product {
    Trained {
        weight: Tensor,
        stored: Stored,
        precision: Precision,
    },
    Packed(linear::Prepared),
    /// A table of two bytes a number, `(output, input)`, for evaluation: it comes to single precision a piece at a time.
    TwoBytes {
        table: Tensor,
        precision: Precision,
    },
}

/// Words of a table of two bytes a number that are in single precision at a time: 16 MiB of 512 numbers each.
const WORDS: usize = 1 << 13;

/// The products of `xs` with the words of a table of two bytes a number, some words at a time.
fn pieces<'a>(
    table: &'a Tensor,
    precision: Precision,
    xs: &'a Tensor,
) -> Result<impl Iterator<Item = Result<(Range<usize>, Tensor)>> + 'a> {
    let words = table.dim(0)?;
    Ok((0..words).step_by(WORDS).map(move |start| {
        let words = start..words.min(start + WORDS);
        let piece = table.narrow(0, start, words.len())?.to_dtype(xs.dtype())?;
        Ok((words, linear(xs, &piece, Stored::ByOutput, precision)?))
    }))
}

/// Nats of each target, `(rows)`, in the softmax of `xs` `(rows, input)` times the table plus `bias`.
fn nats_by_pieces(
    products: impl Iterator<Item = Result<(Range<usize>, Tensor)>>,
    bias: &Tensor,
    targets: &Tensor,
) -> Result<Tensor> {
    let targets = targets.to_vec1::<u32>()?;
    // ln Σ e^logit = most + ln sum
    let mut most = vec![f64::NEG_INFINITY; targets.len()];
    let mut sum = vec![0.0; targets.len()];
    let mut wanted = vec![f64::NAN; targets.len()];
    for piece in products {
        let (words, products) = piece?;
        let logits = products.broadcast_add(&bias.narrow(0, words.start, words.len())?)?;
        let highest = logits.max_keepdim(D::Minus1)?;
        let sums =
            logits.broadcast_sub(&highest)?.exp()?.sum(D::Minus1)?.to_dtype(DType::F64)?.to_vec1::<f64>()?;
        let highest = highest.squeeze(1)?.to_dtype(DType::F64)?.to_vec1::<f64>()?;
        // A target of another piece stands at its first word here, and is passed over.
        let place =
            |target: &u32| if words.contains(&(*target as usize)) { *target - words.start as u32 } else { 0 };
        let places: Vec<u32> = targets.iter().map(place).collect();
        let places = Tensor::from_vec(places, (targets.len(), 1), logits.device())?;
        let at_targets = logits.gather(&places, 1)?.squeeze(1)?.to_dtype(DType::F64)?.to_vec1::<f64>()?;
        for (row, (&high, of_piece)) in highest.iter().zip(sums).enumerate() {
            // A number that is not finite must not be lost: NaN is never the higher one.
            let next = if high > most[row] || high.is_nan() { high } else { most[row] };
            let before = if sum[row] == 0.0 { 0.0 } else { sum[row] * (most[row] - next).exp() };
            sum[row] = before + of_piece * (high - next).exp();
            most[row] = next;
            if words.contains(&(targets[row] as usize)) {
                wanted[row] = at_targets[row];
            }
        }
    }
    let nats: Vec<f64> =
        most.iter().zip(&sum).zip(&wanted).map(|((most, sum), wanted)| most + sum.ln() - wanted).collect();
    Ok(Tensor::from_vec(nats, targets.len(), bias.device())?.to_dtype(bias.dtype())?)
}

impl Product {
    /// `xs W`: `(…, input)` to `(…, output)`.
    pub(super) fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        Ok(match self {
            Self::Trained { weight, stored, precision } => linear(xs, weight, *stored, *precision)?,
            Self::Packed(weight) => weight.forward(xs)?,
            Self::TwoBytes { table, precision } => {
                let products = pieces(table, *precision, xs)?.map(|piece| Ok(piece?.1));
                Tensor::cat(&products.collect::<Result<Vec<_>>>()?, D::Minus1)?
            }
        })
    }

    /// Nats of each target in the softmax of `xs W + bias`, `(rows)`, of `xs` `(…, hidden)`. Weights that are laid out
    /// for evaluation on the CPU keep no logits; others make them some rows at a time where all would fill the memory.
    pub(super) fn nats(&self, xs: &Tensor, bias: &Tensor, targets: &Tensor) -> Result<Tensor> {
        let weight = match self {
            Self::Trained { weight, stored, precision } => {
                return Ok(loss::nats(xs, weight, *stored, bias, targets, *precision)?);
            }
            Self::Packed(weight) => weight,
            Self::TwoBytes { table, precision } => {
                let xs = xs.flatten_to(D::Minus2)?;
                return in_blocks(xs.dim(0)?, WORDS, |rows| {
                    let xs = xs.narrow(0, rows.start, rows.len())?;
                    let targets = targets.narrow(0, rows.start, rows.len())?;
                    nats_by_pieces(pieces(table, *precision, &xs)?, bias, &targets)
                });
            }
        };
        let xs = xs.flatten_to(D::Minus2)?;
        if xs.device().is_cpu() {
            return Ok(weight.nats(&xs, bias, targets)?);
        }
        in_blocks(xs.dim(0)?, bias.elem_count(), |rows| {
            let xs = xs.narrow(0, rows.start, rows.len())?;
            let targets = targets.narrow(0, rows.start, rows.len())?;
            Ok(weight.nats(&xs, bias, &targets)?)
        })
    }

    /// Laid out for evaluation; `None` if it is already.
    pub(super) fn packed(&self) -> Result<Option<Self>> {
        let Self::Trained { weight, stored, precision } = self else { return Ok(None) };
        if is_two_bytes(weight) {
            return Ok(Some(Self::TwoBytes { table: weight.detach(), precision: *precision }));
        }
        Ok(Some(Self::Packed(linear::Prepared::new(weight, *stored, *precision)?)))
    }

    /// For one row after another; `None` where only tensors can do it.
    pub(super) fn rows(&self) -> Option<linear::Rows> {
        match self {
            Self::Trained { .. } | Self::TwoBytes { .. } => None,
            Self::Packed(weight) => weight.rows(),
        }
    }
}

/// What `block` makes of some rows, for all `rows` one behind the other: of so many at a time that there are [`LOGITS`] of
/// `width` a row at most.
pub(super) fn in_blocks(
    rows: usize,
    width: usize,
    block: impl Fn(Range<usize>) -> Result<Tensor>,
) -> Result<Tensor> {
    in_blocks_of((LOGITS / width.max(1)).max(1), rows, block)
}

/// The same of `at_once` rows at a time.
pub(super) fn in_blocks_of(
    at_once: usize,
    rows: usize,
    block: impl Fn(Range<usize>) -> Result<Tensor>,
) -> Result<Tensor> {
    if rows <= at_once {
        return block(0..rows);
    }
    let blocks = (0..rows).step_by(at_once).map(|start| block(start..rows.min(start + at_once)));
    Ok(Tensor::cat(&blocks.collect::<Result<Vec<_>>>()?, 0)?)
}

#[cfg(test)]
mod tests {
    use super::{Product, WORDS};
    use candle_core::{DType, Device, Tensor};
    use rhn_kernels::linear::Stored;
    use rhn_kernels::precision::Precision;
    use rhn_kernels::rng::Rng;

    fn random(name: &str, shape: &[usize]) -> Tensor {
        let mut rng = Rng::keyed(2, name, 0);
        let values: Vec<f32> =
            (0..shape.iter().product()).map(|_| rng.uniform() as f32 * 4.0 - 2.0).collect();
        Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
    }

    #[test]
    fn a_table_of_two_bytes_a_number_gives_what_the_same_numbers_in_four_give() {
        let words = WORDS + 5; // two pieces
        let half = random("table", &[words, 3]).to_dtype(DType::F16).unwrap();
        let whole = half.to_dtype(DType::F32).unwrap();
        let trained =
            |weight| Product::Trained { weight, stored: Stored::ByOutput, precision: Precision::F32 };
        let two = trained(half).packed().unwrap().unwrap();
        let four = trained(whole).packed().unwrap().unwrap();
        assert!(matches!(two, Product::TwoBytes { .. }) && two.packed().unwrap().is_none());
        let xs = random("xs", &[4, 3]);
        let bias = random("bias", &[words]);
        let targets =
            Tensor::new(&[0u32, WORDS as u32 - 1, WORDS as u32, words as u32 - 1], &Device::Cpu).unwrap();
        let near = |one: Tensor, other: Tensor| {
            let far = (one - other).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap();
            assert!(far.to_scalar::<f32>().unwrap() < 2e-5, "{far}");
        };
        near(two.nats(&xs, &bias, &targets).unwrap(), four.nats(&xs, &bias, &targets).unwrap());
        near(two.forward(&xs).unwrap(), four.forward(&xs).unwrap());
        assert_eq!(two.forward(&xs.unsqueeze(1).unwrap()).unwrap().dims(), [4, 1, words]);
    }

    #[test]
    fn a_row_that_is_not_a_number_has_nats_that_are_none_and_leaves_the_others() {
        let table = random("table", &[WORDS + 2, 2]).to_dtype(DType::F16).unwrap();
        let two = Product::TwoBytes { table, precision: Precision::F32 };
        let xs = Tensor::new(&[[f32::NAN, 1.0], [0.5, 1.0]], &Device::Cpu).unwrap();
        let bias = Tensor::zeros(WORDS + 2, DType::F32, &Device::Cpu).unwrap();
        let targets = Tensor::new(&[3u32, 4], &Device::Cpu).unwrap();
        let nats = two.nats(&xs, &bias, &targets).unwrap().to_vec1::<f32>().unwrap();
        assert!(nats[0].is_nan() && nats[1] > 0.0, "{nats:?}");
        // A single number of the first piece, which is none and not its highest.
        let mut bias = vec![0f32; WORDS + 2];
        bias[1] = f32::NAN;
        let bias = Tensor::from_vec(bias, WORDS + 2, &Device::Cpu).unwrap();
        let nats = two.nats(&xs, &bias, &targets).unwrap().to_vec1::<f32>().unwrap();
        assert!(nats.iter().all(|nats| nats.is_nan()), "{nats:?}");
    }
}
