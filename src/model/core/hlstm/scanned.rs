//! A highway LSTM layer through the scan: what does not wait for the step before is computed for all steps at once, the
//! depth gate's view of the lower cell too.

use super::layer::{Beside, DepthGate, Layer, LayerSteps, LayerWeights, Window};
use crate::error::Result;
use crate::model::core::recurrent::RECURRENT;
use crate::model::noise::RecurrentNoise;
use candle_core::{D, Tensor};
use rhn_kernels::linear::{self, Stored, linear};
use rhn_kernels::precision::Precision;
use rhn_kernels::scan::{self, Hlstm, scan};
use std::sync::Arc;

/// A layer with diagonal peepholes or none, a forget gate of its own, and no projection.
pub(super) struct Scanned {
    weights: LayerWeights,
    input: Product,
    /// The matrices of the gate and of what it carries.
    depth: Option<(Product, Option<Product>)>,
    /// The recurrence of a layer whose weights do not change.
    prepared: Option<scan::Prepared>,
}

/// A product with the input.
enum Product {
    Trained(Tensor, Precision),
    Packed(linear::Prepared),
}

impl Product {
    fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        Ok(match self {
            Self::Trained(weight, precision) => linear(xs, weight, Stored::ByInput, *precision)?,
            Self::Packed(weight) => weight.forward(xs)?,
        })
    }

    fn packed(weight: &Tensor, precision: Precision) -> Result<Self> {
        Ok(Self::Packed(linear::Prepared::new(weight, Stored::ByInput, precision)?))
    }

    fn rows(&self) -> Option<linear::Rows> {
        match self {
            Self::Trained(..) => None,
            Self::Packed(weight) => weight.rows(),
        }
    }
}

impl Scanned {
    pub(super) fn new(weights: LayerWeights) -> Result<Self> {
        Self::of(weights, |weight, precision| Ok(Product::Trained(weight.clone(), precision)))
    }

    fn of(weights: LayerWeights, product: impl Fn(&Tensor, Precision) -> Result<Product>) -> Result<Self> {
        let product = |weight: &Tensor| product(weight, weights.precision);
        let depth = |gate: &DepthGate| -> Result<_> {
            Ok((product(&gate.input)?, gate.carry.as_ref().map(product).transpose()?))
        };
        Ok(Self {
            input: product(&weights.input)?,
            depth: weights.depth.as_ref().map(depth).transpose()?,
            weights,
            prepared: None,
        })
    }

    /// The biases and the weights that act unit by unit, as the scan takes them.
    fn vectors(&self) -> Result<Tensor> {
        let LayerWeights { bias, peephole, depth, shape, .. } = &self.weights;
        let zeros = |rows: usize| Tensor::zeros(rows * shape.cells, bias.dtype(), bias.device());
        let peephole = peephole.as_ref().map_or_else(|| zeros(3), Tensor::flatten_all)?;
        let mut parts = vec![bias.clone(), peephole];
        if let Some(gate) = depth {
            parts.push(gate.peephole.as_ref().map_or_else(|| zeros(1), |peephole| peephole.get(0))?);
        }
        Ok(Tensor::cat(&parts, 0)?)
    }

    /// `(time, batch, inputs · cells)`: the gates' products with the input, and for a depth gate its own and the cell that
    /// it lets through.
    fn projected(&self, xs: &Tensor, beside: &Beside<'_>) -> Result<Tensor> {
        let xs = &self.weights.stabilised(xs)?;
        let gates = self.input.forward(xs)?;
        let (Some(gate), Some((product, carry))) = (&self.weights.depth, &self.depth) else {
            return Ok(gates);
        };
        let mut seen = product.forward(xs)?.broadcast_add(&gate.bias)?;
        let mut carried = match (carry, beside.below) {
            (Some(carry), _) => carry.forward(xs)?,
            (None, below) => {
                let below = below.expect("a layer with a gate and no carry lies over another");
                if let Some(peephole) = &gate.peephole {
                    seen = (seen + below.broadcast_mul(&peephole.get(1)?)?)?;
                }
                below.clone()
            }
        };
        if let Some(mask) = beside.depth_mask {
            carried = carried.broadcast_mul(mask)?; // (m ⊙ d) ⊙ c↓
        }
        Ok(Tensor::cat(&[gates, seen, carried.contiguous()?], D::Minus1)?)
    }

    fn scan(
        &self,
        projected: &Tensor,
        state: &[Tensor],
        noise: RecurrentNoise<'_>,
    ) -> Result<(Tensor, Vec<Tensor>)> {
        let mask = noise.state;
        if let Some(prepared) = &self.prepared {
            return Ok(prepared.forward(projected, state, mask)?);
        }
        let LayerWeights { recurrent, precision, .. } = &self.weights;
        let recurrent = noise.weights.on(RECURRENT, recurrent)?;
        let vectors = self.vectors()?;
        Ok(match self.depth.is_some() {
            true => scan::<Hlstm<true>>(projected, &recurrent, &vectors, state, mask, *precision)?,
            false => scan::<Hlstm<false>>(projected, &recurrent, &vectors, state, mask, *precision)?,
        })
    }
}

impl Layer for Scanned {
    fn forward(&self, xs: &Tensor, state: &[Tensor], beside: &Beside<'_>) -> Result<Window> {
        let (both, state) = self.scan(&self.projected(xs, beside)?, state, beside.noise)?;
        let cells = self.weights.shape.cells;
        let outputs = both.narrow(D::Minus1, 0, cells)?.contiguous()?;
        Ok(Window { outputs, cells: both.narrow(D::Minus1, cells, cells)?.contiguous()?, state })
    }

    fn cost(&self) -> u64 {
        self.weights.cost()
    }

    fn frozen(&self) -> Result<Option<Arc<dyn Layer>>> {
        let mut frozen = Self::of(self.weights.folded()?, Product::packed)?;
        let LayerWeights { recurrent, precision, .. } = &self.weights;
        let vectors = self.vectors()?;
        frozen.prepared = Some(match self.depth.is_some() {
            true => scan::Prepared::new::<Hlstm<true>>(recurrent, &vectors, *precision)?,
            false => scan::Prepared::new::<Hlstm<false>>(recurrent, &vectors, *precision)?,
        });
        Ok(Some(Arc::new(frozen)))
    }

    fn steps(&self) -> Result<Option<Box<dyn LayerSteps>>> {
        let Some(recurrence) = self.prepared.as_ref().map(scan::Prepared::steps).transpose()?.flatten()
        else {
            return Ok(None);
        };
        let Some(input) = self.input.rows() else { return Ok(None) };
        let depth = match (&self.weights.depth, &self.depth) {
            (Some(gate), Some((product, carry))) => Some(DepthSteps {
                product: product.rows().expect("packed as the input's weights are"),
                carry: carry.as_ref().map(|carry| carry.rows().expect("packed as the input's weights are")),
                bias: gate.bias.to_vec1()?,
                peephole: match (carry, &gate.peephole) {
                    (None, Some(peephole)) => Some(peephole.get(1)?.to_vec1()?),
                    _ => None,
                },
            }),
            _ => None,
        };
        Ok(Some(Box::new(ScannedSteps { input, depth, projected: Vec::new(), recurrence })))
    }
}

/// The layer at batch 1, one step at a time.
struct ScannedSteps {
    input: linear::Rows,
    depth: Option<DepthSteps>,
    projected: Vec<f32>,
    recurrence: scan::Steps,
}

/// What a depth gate adds to the layer's input.
struct DepthSteps {
    product: linear::Rows,
    carry: Option<linear::Rows>,
    bias: Vec<f32>,
    peephole: Option<Vec<f32>>,
}

impl DepthSteps {
    fn extend(&mut self, projected: &mut Vec<f32>, xs: &[f32], below: &[f32]) {
        let seen = self.product.multiply(xs).iter().zip(&self.bias).map(|(product, bias)| product + bias);
        match &self.peephole {
            None => projected.extend(seen),
            Some(peephole) => {
                projected.extend(seen.zip(peephole.iter().zip(below)).map(|(z, (weight, c))| z + c * weight));
            }
        }
        projected.extend_from_slice(self.carry.as_mut().map_or(below, |carry| carry.multiply(xs)));
    }
}

impl LayerSteps for ScannedSteps {
    fn step(&mut self, xs: &[f32], below: &[f32]) {
        let Some(depth) = &mut self.depth else { return self.recurrence.step(self.input.multiply(xs)) };
        self.projected.clear();
        self.projected.extend_from_slice(self.input.multiply(xs));
        depth.extend(&mut self.projected, xs, below);
        self.recurrence.step(&self.projected);
    }

    fn state(&self) -> &[Vec<f32>] {
        &self.recurrence.state
    }

    fn state_mut(&mut self) -> &mut [Vec<f32>] {
        &mut self.recurrence.state
    }
}
