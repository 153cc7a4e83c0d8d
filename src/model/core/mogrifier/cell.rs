//! A layer with gates between its input and its state, in tensor operations one step after another: the input of a step
//! depends on the step before, so there is no product for all steps at once, and no scan.

use super::Gates;
use crate::error::Result;
use crate::model::core::recurrent::Recurrent;
use crate::model::core::step_weights::StepWeights;
use crate::model::layers::Cell;
use crate::model::noise::RecurrentNoise;
use crate::model::stage::{LayerTrace, StageTrace};
use candle_core::Tensor;
use rhn_kernels::scan::{self, trace::HighwayCell};
use std::sync::Arc;

/// A layer of cell `C` behind the gates.
pub(in crate::model::core) struct Mogrified<C> {
    gates: Gates,
    layer: Recurrent<C>,
    sublayer: Option<Sublayer>,
}

/// [`HighwayCell::sublayer`], of a cell whose sublayers are highway layers.
type Sublayer = fn(&Tensor, Option<&Tensor>, &Tensor) -> rhn_kernels::Result<(Vec<Tensor>, Tensor)>;

impl<C: scan::Cell> Mogrified<C> {
    /// `layer` must be on trained weights.
    pub(in crate::model::core) fn new(gates: Gates, layer: Recurrent<C>) -> Self {
        Self { gates, layer, sublayer: None }
    }

    /// The state after a time step, from the input and the state's first part behind the gates, and the state as it was.
    fn step(
        &self,
        weights: &StepWeights,
        [x, gated]: [&Tensor; 2],
        mut state: Vec<Tensor>,
    ) -> Result<Vec<Tensor>> {
        let projected = weights.projected(x)?;
        for sublayer in 0..weights.depth() {
            let products = weights.products(sublayer, if sublayer == 0 { gated } else { &state[0] })?;
            state = C::reference(&products, (sublayer == 0).then_some(&projected), &[], &state)?;
        }
        Ok(state)
    }
}

impl<C: HighwayCell> Mogrified<C> {
    /// The same layer, whose sublayers can be looked into.
    pub(in crate::model::core) fn with_tracer(self) -> Self {
        Self { sublayer: Some(C::sublayer), ..self }
    }
}

impl<C: scan::Cell> Cell for Mogrified<C> {
    fn forward(
        &self,
        xs: &Tensor,
        state: &[Tensor],
        noise: RecurrentNoise<'_>,
    ) -> Result<(Tensor, Vec<Tensor>)> {
        let weights = self.layer.step_weights(noise)?;
        let mut state: Vec<Tensor> = state.to_vec();
        let mut outputs = Vec::with_capacity(xs.dim(0)?);
        for time in 0..xs.dim(0)? {
            let [x, gated] = self.gates.apply(&xs.get(time)?, &state[0])?;
            state = self.step(&weights, [&x, &gated], state)?;
            outputs.push(state[0].clone());
        }
        Ok((Tensor::stack(&outputs, 0)?, state))
    }

    fn parts(&self) -> usize {
        C::STATES
    }

    fn cost(&self) -> u64 {
        self.gates.cost() + self.layer.cost()
    }

    fn frozen(&self) -> Result<Option<Arc<dyn Cell>>> {
        let layer = self.layer.detached();
        Ok(Some(Arc::new(Self { gates: self.gates.detached(), layer, sublayer: self.sublayer })))
    }

    /// What enters the first sublayer is the state as it is; its products see the state behind the gates.
    fn trace(&self, xs: &Tensor, state: &[Tensor]) -> Result<Option<StageTrace>> {
        let Some(run) = self.sublayer else { return Ok(None) };
        let weights = self.layer.step_weights(RecurrentNoise::NONE)?;
        let depth = weights.depth();
        let mut s = state[0].detach();
        let mut entering = Vec::new();
        let mut states = vec![Vec::new(); depth];
        let mut values = vec![vec![Vec::new(); C::GATES]; depth];
        for time in 0..xs.dim(0)? {
            let [x, gated] = self.gates.apply(&xs.get(time)?, &s)?;
            let projected = weights.projected(&x)?;
            entering.push(s.clone());
            for sublayer in 0..depth {
                let products = weights.products(sublayer, if sublayer == 0 { &gated } else { &s })?;
                let (made, after) = run(&products, (sublayer == 0).then_some(&projected), &s)?;
                values[sublayer].iter_mut().zip(made).for_each(|(all, value)| all.push(value));
                states[sublayer].push(after.clone());
                s = after;
            }
        }
        let layer = |(states, values): (Vec<Tensor>, Vec<Vec<Tensor>>)| -> Result<LayerTrace> {
            let mut gates = values.iter().map(|values| rows(values));
            Ok(LayerTrace {
                state: rows(&states)?,
                candidate: gates.next().transpose()?,
                gate: gates.next().transpose()?,
                carry: gates.next().transpose()?,
            })
        };
        let layers = states.into_iter().zip(values).map(layer).collect::<Result<_>>()?;
        Ok(Some(StageTrace { entering: rows(&entering)?, layers }))
    }
}

/// Those of all time steps, `(time · batch, units)`, without history.
fn rows(steps: &[Tensor]) -> Result<Tensor> {
    Ok(Tensor::cat(steps, 0)?.detach())
}
