//! A highway LSTM layer in plain tensor operations, one step after another: whatever the scan does not have, which is
//! full matrices on the cell, a coupled forget gate and a projection. It takes the other settings too, as the reference
//! of the scanned layer.

use super::layer::{Beside, Layer, LayerWeights, Window};
use super::{Peephole, Shape};
use crate::error::{Error, Result};
use candle_core::{D, Tensor};
use rhn_kernels::linear::{Stored, linear};
use rhn_kernels::scan::HiddenMask;

/// A layer with any settings.
pub(super) struct Plain(pub(super) LayerWeights);

/// What the input brings, for every time step at once: `(time, batch, ·)`.
struct Inputs {
    gates: Tensor,
    /// The depth gate's argument but for the term of this layer's cell, and what it lets through.
    depth: Option<(Tensor, Tensor)>,
}

impl Plain {
    fn inputs(&self, xs: &Tensor, beside: &Beside<'_>) -> Result<Inputs> {
        let LayerWeights { input, bias, depth, precision, .. } = &self.0;
        let xs = &self.0.stabilised(xs)?;
        let product =
            |weight: &Tensor| -> Result<Tensor> { Ok(linear(xs, weight, Stored::ByInput, *precision)?) };
        let gates = product(input)?.broadcast_add(bias)?;
        let Some(gate) = depth else { return Ok(Inputs { gates, depth: None }) };
        let mut seen = product(&gate.input)?.broadcast_add(&gate.bias)?;
        let mut carried = match (&gate.carry, beside.below) {
            (Some(carry), _) => product(carry)?,
            (None, below) => below.expect("a layer with a gate and no carry lies over another").clone(),
        };
        if let (None, Some(peephole)) = (&gate.carry, &gate.peephole) {
            seen = (seen + carried.broadcast_mul(&peephole.get(1)?)?)?;
        }
        if let Some(mask) = beside.depth_mask {
            carried = carried.broadcast_mul(mask)?; // (m ⊙ d) ⊙ c↓
        }
        Ok(Inputs { gates, depth: Some((seen, carried)) })
    }

    /// What peephole `index` shows of `cell`; nothing is added where there is none.
    fn with_peephole(&self, z: Tensor, index: usize, cell: &Tensor) -> Result<Tensor> {
        let Some(peephole) = &self.0.peephole else { return Ok(z) };
        let weights = peephole.get(index)?;
        Ok((z + match self.0.shape.peephole {
            Peephole::Full => linear(cell, &weights, Stored::ByInput, self.0.precision)?,
            _ => cell.broadcast_mul(&weights)?,
        })?)
    }

    /// h and c after a time step.
    fn step(
        &self,
        inputs: &Inputs,
        time: usize,
        [h, c]: [&Tensor; 2],
        mask: &HiddenMask,
    ) -> Result<[Tensor; 2]> {
        let LayerWeights { recurrent, precision, projection, depth, shape, .. } = &self.0;
        let Shape { cells, coupled, .. } = *shape;
        let masked = match mask {
            HiddenMask::Shared(mask) => (h * mask)?,
            _ => h.clone(), // this core has no separate masks
        };
        let z = (inputs.gates.get(time)? + linear(&masked, recurrent, Stored::ByInput, *precision)?)?;
        let gate = |index: usize| Ok::<_, Error>(z.narrow(D::Minus1, index * cells, cells)?.contiguous()?);
        let i = sigmoid(&self.with_peephole(gate(0)?, 0, c)?)?;
        let f = if coupled { i.affine(-1.0, 1.0)? } else { sigmoid(&self.with_peephole(gate(2)?, 1, c)?)? };
        let g = gate(if coupled { 2 } else { 3 })?.tanh()?;
        let mut after = ((f * c)? + (i * g)?)?;
        if let (Some(weights), Some((seen, carried))) = (depth, &inputs.depth) {
            let mut d = seen.get(time)?;
            if let Some(peephole) = &weights.peephole {
                d = (d + c.broadcast_mul(&peephole.get(0)?)?)?;
            }
            after = (after + (sigmoid(&d)? * carried.get(time)?)?)?;
        }
        let last = if coupled { 1 } else { 2 };
        let o = sigmoid(&self.with_peephole(gate(1)?, last, &after)?)?;
        let mut h = (o * after.tanh()?)?;
        if let Some(projection) = projection {
            h = linear(&h, projection, Stored::ByInput, *precision)?;
        }
        Ok([h, after])
    }
}

/// As (1 + tanh(z / 2)) / 2.
fn sigmoid(z: &Tensor) -> Result<Tensor> {
    Ok((z * 0.5)?.tanh()?.affine(0.5, 0.5)?)
}

impl Layer for Plain {
    fn forward(&self, xs: &Tensor, state: &[Tensor], beside: &Beside<'_>) -> Result<Window> {
        let inputs = self.inputs(xs, beside)?;
        let layer = Self(self.0.dropped(beside.noise.weights)?);
        let mut h = state[0].clone();
        let mut c = state[1].clone();
        let mut outputs = Vec::new();
        let mut cells = Vec::new();
        for time in 0..xs.dim(0)? {
            [h, c] = layer.step(&inputs, time, [&h, &c], beside.noise.state)?;
            outputs.push(h.clone());
            cells.push(c.clone());
        }
        Ok(Window {
            outputs: Tensor::stack(&outputs, 0)?,
            cells: Tensor::stack(&cells, 0)?,
            state: vec![h, c],
        })
    }

    fn cost(&self) -> u64 {
        self.0.cost()
    }
}
