//! A recurrent layer: one product with the input for every time step at once, then a scan over the window.
//!
//! What a kind of cell adds is its weights, and its name in [`rhn_kernels::scan`].

use super::state::State;
use super::step_weights::StepWeights;
use crate::error::Result;
use crate::model::layers::{Cell, Steps};
use crate::model::noise::{RecurrentNoise, WeightMasks};
use crate::model::stage::{LayerTrace, StageTrace};
use candle_core::{Device, Tensor};
use rhn_kernels::linear::{self, Stored, linear};
use rhn_kernels::precision::Precision;
use rhn_kernels::scan::trace::{HighwayCell, Trace};
use rhn_kernels::scan::{self, scan, scan_of_input};
use std::marker::PhantomData;
use std::sync::Arc;

/// The name of a layer's recurrent weights.
pub(super) const RECURRENT: &str = "recurrent.weight";

/// The name of those that all sublayers share.
pub(super) const SHARED: &str = "shared.weight";

/// The trained tensors of a layer.
pub(super) struct Weights {
    /// `(input, gates · hidden)`.
    pub(super) input: Tensor,
    /// `(depth, hidden, gates · hidden)`, or `(hidden, gates · hidden)` without a depth.
    pub(super) recurrent: Tensor,
    pub(super) bias: Bias,
    pub(super) precision: Precision,
}

/// The biases of a layer, `(depth, gates · hidden)` or `(gates · hidden)` each.
#[derive(Clone)]
pub(super) enum Bias {
    /// Added to the recurrent product.
    One(Tensor),
    /// Two vectors whose sum is added.
    Summed(Tensor, Tensor),
    /// One added to the input's product, one to the recurrent product, where it matters which.
    Apart { input: Tensor, recurrent: Tensor },
}

impl Bias {
    /// What is added to the recurrent product, `(depth, gates · hidden)` or `(gates · hidden)`.
    fn of_state(&self) -> Result<Tensor> {
        Ok(match self {
            Self::One(bias) | Self::Apart { recurrent: bias, .. } => bias.clone(),
            Self::Summed(one, other) => (one + other)?,
        })
    }

    fn detached(&self) -> Self {
        match self {
            Self::One(bias) => Self::One(bias.detach()),
            Self::Summed(one, other) => Self::Summed(one.detach(), other.detach()),
            Self::Apart { input, recurrent } => {
                Self::Apart { input: input.detach(), recurrent: recurrent.detach() }
            }
        }
    }

    /// What is added to the input's product, if anything.
    fn of_input(&self) -> Option<&Tensor> {
        match self {
            Self::Apart { input, .. } => Some(input),
            Self::One(_) | Self::Summed(..) => None,
        }
    }
}

/// A recurrent layer of cell `C`.
pub(super) struct Recurrent<C> {
    form: Form,
    bias: Bias,
    cost: u64,
    /// Weight `(hidden, shared · hidden)` and bias `(shared · hidden)` of the last gates, where all sublayers share them.
    shared_gates: Option<[Tensor; 2]>,
    tracer: Option<Tracer>,
    cell: PhantomData<C>,
}

/// [`scan::trace::trace`], of a cell whose sublayers are highway layers.
type Tracer = fn(&Tensor, &Tensor, &Tensor, &Tensor, Precision) -> rhn_kernels::Result<Trace>;

/// The weights of the products with the input and with the state.
enum Form {
    Trained { input: Tensor, recurrent: Tensor, precision: Precision },
    Packed { input: linear::Prepared, recurrent: scan::Prepared },
}

impl<C: scan::Cell> Recurrent<C> {
    pub(super) fn new(Weights { input, recurrent, bias, precision }: Weights) -> Self {
        Self {
            cost: (input.elem_count() + recurrent.elem_count()) as u64,
            form: Form::Trained { input, recurrent, precision },
            bias,
            shared_gates: None,
            tracer: None,
            cell: PhantomData,
        }
    }

    /// The same layer, with last gates whose weight and bias are those of every sublayer.
    pub(super) fn with_shared_gates(self, weight: Tensor, bias: Tensor, depth: usize) -> Self {
        let cost = self.cost + (depth * weight.elem_count()) as u64;
        Self { shared_gates: Some([weight, bias]), cost, ..self }
    }

    /// What the scan takes: `(depth, hidden, gates · hidden)`, and the bias `(depth, gates · hidden)`, without a depth where
    /// the layer has none.
    fn of_scan(&self, recurrent: &Tensor, masks: &WeightMasks) -> Result<[Tensor; 2]> {
        let recurrent = masks.on(RECURRENT, recurrent)?;
        let bias = self.bias.of_state()?;
        let Some([weight, gate_bias]) = &self.shared_gates else { return Ok([recurrent, bias]) };
        let depth = recurrent.dim(0)?;
        let weight = masks.on(SHARED, weight)?.unsqueeze(0)?.repeat((depth, 1, 1))?;
        let gate_bias = gate_bias.unsqueeze(0)?.repeat((depth, 1))?;
        Ok([Tensor::cat(&[recurrent, weight], 2)?, Tensor::cat(&[bias, gate_bias], 1)?])
    }

    /// `(time, batch, input)` to `(time, batch, gates · hidden)`.
    fn projected(&self, xs: &Tensor) -> Result<Tensor> {
        let projected = match &self.form {
            Form::Trained { input, precision, .. } => linear(xs, input, Stored::ByInput, *precision)?,
            Form::Packed { input, .. } => input.forward(xs)?,
        };
        Ok(match self.bias.of_input() {
            Some(bias) => projected.broadcast_add(bias)?,
            None => projected,
        })
    }
}

impl<C: scan::Cell> Recurrent<C> {
    /// The weights of a layer that is trained, or [`Recurrent::detached`] from training, for single time steps.
    pub(super) fn step_weights(&self, noise: RecurrentNoise<'_>) -> Result<StepWeights> {
        let Form::Trained { input, recurrent, precision } = &self.form else {
            panic!("packed weights are for the scan alone")
        };
        let [recurrent, bias] = self.of_scan(recurrent, noise.weights)?;
        StepWeights::new(input.clone(), &recurrent, &bias, noise.state, *precision)
    }

    /// The same layer without the history of its weights.
    pub(super) fn detached(&self) -> Self {
        let form = match &self.form {
            Form::Trained { input, recurrent, precision } => {
                Form::Trained { input: input.detach(), recurrent: recurrent.detach(), precision: *precision }
            }
            Form::Packed { .. } => panic!("packed weights are for the scan alone"),
        };
        Self {
            form,
            bias: self.bias.detached(),
            cost: self.cost,
            shared_gates: self.shared_gates.as_ref().map(|gates| gates.each_ref().map(Tensor::detach)),
            tracer: self.tracer,
            cell: PhantomData,
        }
    }
}

impl<C: HighwayCell> Recurrent<C> {
    /// The same layer, whose sublayers can be looked into.
    pub(super) fn with_tracer(self) -> Self {
        Self { tracer: Some(scan::trace::trace::<C>), ..self }
    }
}

impl<C: scan::Cell> Cell for Recurrent<C> {
    /// Packed weights are those of an evaluation, which drops none.
    fn forward(
        &self,
        xs: &Tensor,
        state: &[Tensor],
        noise: RecurrentNoise<'_>,
    ) -> Result<(Tensor, Vec<Tensor>)> {
        Ok(match &self.form {
            Form::Trained { input, recurrent, precision } => {
                let [recurrent, bias] = self.of_scan(recurrent, noise.weights)?;
                if self.bias.of_input().is_none() {
                    let operands = [xs, input, &recurrent, &bias];
                    return Ok(scan_of_input::<C>(operands, state, noise.state, *precision)?);
                }
                scan::<C>(&self.projected(xs)?, &recurrent, &bias, state, noise.state, *precision)?
            }
            Form::Packed { recurrent, .. } => recurrent.forward(&self.projected(xs)?, state, noise.state)?,
        })
    }

    fn parts(&self) -> usize {
        C::STATES
    }

    fn cost(&self) -> u64 {
        self.cost
    }

    /// The trained layer's alone: packed weights hold no others.
    fn trace(&self, xs: &Tensor, state: &[Tensor]) -> Result<Option<StageTrace>> {
        let Form::Trained { recurrent, precision, .. } = &self.form else { return Ok(None) };
        let Some(tracer) = self.tracer else { return Ok(None) };
        let [recurrent, bias] = self.of_scan(recurrent, WeightMasks::NONE)?;
        let projected = self.projected(xs)?;
        let trace = tracer(&projected, &recurrent, &bias, &state[0], *precision)?;
        Ok(Some(stage(trace)?))
    }

    fn frozen(&self) -> Result<Option<Arc<dyn Cell>>> {
        let Form::Trained { input, recurrent, precision } = &self.form else { return Ok(None) };
        let [recurrent, bias] = self.of_scan(recurrent, WeightMasks::NONE)?;
        let input = linear::Prepared::new(input, Stored::ByInput, *precision)?;
        let recurrent = scan::Prepared::new::<C>(&recurrent, &bias, *precision)?;
        Ok(Some(Arc::new(Self {
            form: Form::Packed { input, recurrent },
            bias: self.bias.clone(),
            cost: self.cost,
            shared_gates: None, // they are packed with the others
            tracer: self.tracer,
            cell: PhantomData,
        })))
    }

    fn steps(&self) -> Result<Option<Box<dyn Steps>>> {
        let Form::Packed { input, recurrent } = &self.form else { return Ok(None) };
        let (Some(product), Some(recurrence)) = (input.rows(), recurrent.steps()?) else { return Ok(None) };
        let bias = self.bias.of_input().map(|bias| bias.to_vec1()).transpose()?;
        Ok(Some(Box::new(LayerSteps { product, bias, projected: Vec::new(), recurrence })))
    }
}

/// The sublayers of all time steps as one stage; its rows are `(time, batch)` in order.
fn stage(Trace { outputs, sublayers }: Trace) -> Result<StageTrace> {
    let rows = |tensor: &Tensor| tensor.flatten(0, 1);
    let entering = rows(&sublayers[0].entering)?;
    let after = sublayers[1..].iter().map(|next| &next.entering).chain([&outputs]);
    let layer = |(sublayer, after): (&scan::trace::Sublayer, &Tensor)| -> Result<LayerTrace> {
        Ok(LayerTrace {
            state: rows(after)?,
            candidate: Some(rows(&sublayer.candidate)?),
            gate: Some(rows(&sublayer.gate)?),
            carry: sublayer.carry.as_ref().map(rows).transpose()?,
        })
    };
    Ok(StageTrace { entering, layers: sublayers.iter().zip(after).map(layer).collect::<Result<_>>()? })
}

/// The layer at batch 1, one step at a time.
struct LayerSteps {
    product: linear::Rows,
    bias: Option<Vec<f32>>,
    /// The input's product with the bias, where there is one.
    projected: Vec<f32>,
    recurrence: scan::Steps,
}

impl Steps for LayerSteps {
    fn step(&mut self, xs: &[f32]) -> &[f32] {
        let mut projected = self.product.multiply(xs);
        if let Some(bias) = &self.bias {
            self.projected.clear();
            self.projected.extend(projected.iter().zip(bias).map(|(product, bias)| product + bias));
            projected = &self.projected;
        }
        self.recurrence.step(projected);
        &self.recurrence.state[0]
    }

    fn state(&self) -> Result<State> {
        let part = |part: &Vec<f32>| Ok(Tensor::from_slice(part, (1, part.len()), &Device::Cpu)?);
        Ok(State(vec![self.recurrence.state.iter().map(part).collect::<Result<_>>()?]))
    }

    fn set_state(&mut self, state: &State) -> Result<()> {
        for (part, tensor) in self.recurrence.state.iter_mut().zip(state.0.iter().flatten()) {
            *part = tensor.flatten_all()?.to_vec1()?;
        }
        Ok(())
    }
}
