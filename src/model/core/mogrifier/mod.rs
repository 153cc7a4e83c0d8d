//! The Mogrifier (Melis et al., 2020, arXiv 1909.01792): before a layer's cell, its input and its state gate each other.
//!
//! ```text
//! x ← 2 sigmoid(h Q_i + b_i) ⊙ x      i = 0, 2, 4 …
//! h ← 2 sigmoid(x R_i + b_i) ⊙ h      i = 1, 3, 5 …
//! ```
//!
//! Biases begin at 0, so that every factor is near 1 at first. Dropout of the input comes before, that of the state inside
//! the cell's products after. In a recurrent highway network h is the state that enters the products of the first sublayer. What
//! is carried unit by unit is left alone, an RHN's state as an LSTM's cell: gated at each step it could double each time, and
//! nothing would bound it.
//!
//! Weights, under `core.<k>.mogrifier.<i>`: `weight` (from, to), or `down.weight` (from, rank) and `up.weight` (rank, to),
//! whose product it is; `bias` (to). For an even i that is from the state to the input, for an odd one the other way.

mod cell;

pub(super) use cell::Mogrified;

use crate::error::{Error, Result};
use crate::model::builder::Builder;
use candle_core::Tensor;
use rhn_kernels::linear::{Stored, linear};
use rhn_kernels::precision::Precision;
use serde::{Deserialize, Serialize};
use std::fmt::{self, Display, Formatter};

/// How a layer's input and state gate each other before its cell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MogrifierConfig {
    /// Gates, of the input and of the state in turn.
    #[serde(default = "five")]
    pub rounds: usize,
    /// Each matrix is the product of two with this many units between them; whole unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rank: Option<usize>,
}

fn five() -> usize {
    5
}

impl MogrifierConfig {
    /// Refuses settings that cannot be built for a layer of `hidden_size` units.
    pub(super) fn validate(&self, hidden_size: usize) -> Result<()> {
        const MOST: usize = 64;
        if !(1..=MOST).contains(&self.rounds) {
            return Err(Error::config(format!(
                "model.core.mogrifier.rounds is {}, wanted 1 to {MOST}",
                self.rounds
            )));
        }
        if let Some(rank) = self.rank.filter(|rank| !(1..=hidden_size).contains(rank)) {
            return Err(Error::config(format!(
                "model.core.mogrifier.rank is {rank}, wanted 1 to the hidden size {hidden_size}; leave it out for whole matrices"
            )));
        }
        Ok(())
    }

    /// The gates of a layer, under `mogrifier`.
    pub(super) fn build(
        &self,
        input_size: usize,
        hidden_size: usize,
        weights: &Builder<'_>,
    ) -> Result<Gates> {
        let gate = |index: usize| {
            let sizes =
                if index.is_multiple_of(2) { [hidden_size, input_size] } else { [input_size, hidden_size] };
            Gate::build(sizes, self.rank, &weights.under("mogrifier").under(&index.to_string()))
        };
        Ok(Gates((0..self.rounds).map(gate).collect::<Result<_>>()?))
    }
}

impl Display for MogrifierConfig {
    /// What a core's description adds.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, ", input and state gate each other in {} rounds", self.rounds)?;
        self.rank.map_or(Ok(()), |rank| write!(f, " of rank {rank}"))
    }
}

/// The gates of a layer, in order.
pub(super) struct Gates(Vec<Gate>);

/// One of them.
struct Gate {
    /// One matrix, or two whose product is applied.
    weights: Vec<Tensor>,
    bias: Tensor,
    precision: Precision,
}

impl Gate {
    fn build([from, to]: [usize; 2], rank: Option<usize>, weights: &Builder<'_>) -> Result<Self> {
        Ok(Self {
            weights: match rank {
                None => vec![weights.weight("weight", (from, to))?],
                Some(rank) => {
                    vec![
                        weights.weight("down.weight", (from, rank))?,
                        weights.weight("up.weight", (rank, to))?,
                    ]
                }
            },
            bias: weights.weight_with("bias", to, |_, _| 0.0)?,
            precision: weights.precision,
        })
    }

    /// `2 sigmoid(from W + b) ⊙ to`; 2 sigmoid(z) is 1 + tanh(z / 2).
    fn apply(&self, from: &Tensor, to: &Tensor) -> Result<Tensor> {
        let mut z = from.clone();
        for weight in &self.weights {
            z = linear(&z, weight, Stored::ByInput, self.precision)?;
        }
        let factor = (z.broadcast_add(&self.bias)? * 0.5)?.tanh()?.affine(1.0, 1.0)?;
        Ok((factor * to)?)
    }
}

impl Gates {
    /// Input and state after all rounds, `(batch, input)` and `(batch, hidden)`.
    fn apply(&self, x: &Tensor, h: &Tensor) -> Result<[Tensor; 2]> {
        let mut x = x.clone();
        let mut h = h.clone();
        for (index, gate) in self.0.iter().enumerate() {
            match index % 2 {
                0 => x = gate.apply(&h, &x)?,
                _ => h = gate.apply(&x, &h)?,
            }
        }
        Ok([x, h])
    }

    /// Multiplications a token.
    fn cost(&self) -> u64 {
        let weights = self.0.iter().flat_map(|gate| &gate.weights);
        weights.map(|weight| weight.elem_count() as u64).sum()
    }

    /// The same without their history.
    fn detached(&self) -> Self {
        let detached = |gate: &Gate| Gate {
            weights: gate.weights.iter().map(Tensor::detach).collect(),
            bias: gate.bias.detach(),
            precision: gate.precision,
        };
        Self(self.0.iter().map(detached).collect())
    }
}
