//! The training step, on one page.

use super::averaging::Average;
use super::objective::{Loss, Objective, Sums};
use super::update::{Step, StepReport, Update};
use super::watched::Watched;
use crate::error::{Error, Result};
use crate::model::{Parameters, State};
use crate::parallel::on_device;
use crate::parallel::reduce::{Layout, Own, Reducer};
use crate::parallel::rows::{Rows, whole_state};
use crate::parallel::world::{Solo, World};
use candle_core::{DType, Device, Tensor};
use rhn_kernels::gradients::Gradient;
use std::sync::Arc;

/// Everything that a step reads and changes.
pub struct Stepper<O> {
    /// What is minimized.
    pub objective: O,
    /// The weights.
    pub parameters: Parameters,
    /// The update rule and what it remembers.
    pub update: Update,
    /// The mean of the weights.
    pub average: Average,
    /// The state that the batch rows carry from window to window: those of this rank.
    pub carried: State,
    /// What teachers cost on steps that were not reported yet.
    pub watched: Watched,
    /// The SHA-256 of the checkpoint's weights that the run begins with, if it does.
    pub begun_from: Option<String>,
    ranks: Ranks,
}

/// The ranks that train together, and the part of this one.
struct Ranks {
    world: Arc<dyn World>,
    rows: Rows,
    reducer: Reducer,
    /// Whether a step failed on a rank: all of them know, and none has made an update of it.
    have_failed: bool,
}

impl Ranks {
    fn new(world: Arc<dyn World>, rows: Rows) -> Self {
        Self { reducer: Reducer::new(world.clone()), world, rows, have_failed: false }
    }
}

/// What a step found on the way forth.
struct Forward {
    loss: Loss,
    rate: f64,
}

impl<O: Objective> Stepper<O> {
    /// A run of one process before its first step, from the zero state of all batch rows.
    pub fn new(
        objective: O,
        parameters: Parameters,
        update: Update,
        average: Average,
        batch_size: usize,
    ) -> Result<Self> {
        let carried = objective.zero_state()?;
        let ranks = Ranks::new(Arc::new(Solo), Rows::all(batch_size));
        Ok(Self {
            objective,
            parameters,
            update,
            average,
            carried,
            watched: Watched::default(),
            begun_from: None,
            ranks,
        })
    }

    /// The same, of a run whose first weights are those of a checkpoint with this SHA-256, if there is one.
    pub fn begun_from(self, weights_sha256: Option<String>) -> Self {
        Self { begun_from: weights_sha256, ..self }
    }

    /// Becomes one rank of several, which share its batch rows. All ranks must come here.
    ///
    /// # Errors
    /// If there are more ranks than batch rows, or the ranks' GPUs do not find each other.
    pub fn join(&mut self, world: Arc<dyn World>) -> Result<()> {
        let rows = Rows::of_rank(&*world, self.ranks.rows.of)?;
        let device = self.parameters.trained().next().map(|(_, var)| var.device().clone());
        self.ranks = Ranks::new(on_device(world, &device.unwrap_or(Device::Cpu))?, rows);
        self.reset_state()
    }

    /// The ranks that train together.
    pub fn world(&self) -> &Arc<dyn World> {
        &self.ranks.world
    }

    /// How the ranks' gradients are summed, which a stopped run goes on with.
    pub(super) fn reducer(&mut self) -> &mut Reducer {
        &mut self.ranks.reducer
    }

    /// Sums gradients as the stopped run did.
    pub(super) fn set_layout(&mut self, layout: Layout) {
        self.ranks.reducer.set_layout(layout, &self.parameters);
    }

    /// Whether a step failed, on any rank, with all of them as they were before it.
    pub(crate) fn has_failed_together(&self) -> bool {
        self.ranks.have_failed
    }

    /// Begins anew with the zero state.
    pub fn reset_state(&mut self) -> Result<()> {
        self.carried = self.ranks.rows.of_state(&self.objective.zero_state()?)?;
        Ok(())
    }

    /// Goes on from a state of all batch rows.
    pub(super) fn set_whole_state(&mut self, whole: &State) -> Result<()> {
        self.carried = self.ranks.rows.of_state(whole)?;
        Ok(())
    }

    /// The state of all batch rows; every rank asks for it.
    pub(crate) fn whole_state(&self) -> Result<State> {
        whole_state(&*self.ranks.world, self.ranks.rows, &self.carried)
    }

    /// One update by truncated back-propagation; the state carries over, its history does not. What the step did is
    /// among [`Stepper::reports`], then or later.
    ///
    /// `step` counts from 0 and names the batch's noise; `rate` is the schedule's, which the batch may scale.
    ///
    /// # Errors
    /// If it is known that loss, gradient's norm or update are not finite; all is then as it was. Of several ranks, if
    /// the step failed on any; all of them are then as they were.
    pub fn advance(&mut self, batch: &O::Batch, step: u64, rate: f64) -> Result<()> {
        let forward = self.forward(batch, step, rate);
        let (Forward { loss, rate }, gradients) = match self.ranks.world.size() {
            1 => {
                let made = forward.and_then(|forward| {
                    let gradients = self.parameters.gradients_as_they_are(&forward.loss.objective)?;
                    Ok((forward, gradients))
                });
                self.ranks.have_failed = made.is_err();
                made?
            }
            _ => self.sum_over_ranks(forward)?,
        };
        let applied = self.update.step(&self.parameters, gradients, &loss.sums, Step { step, rate })?;
        loss.teacher.into_iter().for_each(|nats| self.watched.keep(step, nats));
        self.carried = applied.choose(&loss.carried, &self.carried)?;
        self.average.add(&self.parameters, &applied)
    }

    /// Takes a step that cannot be made, since its batch cannot be read, which the other ranks learn of in its place.
    ///
    /// # Errors
    /// Always: `error`.
    pub(crate) fn fail(&mut self, error: Error) -> Result<()> {
        if self.ranks.world.size() == 1 {
            self.ranks.have_failed = true;
            return Err(error);
        }
        self.sum_over_ranks(Err(error)).map(drop)
    }

    /// The loss of this rank's rows of a batch, its part of the whole batch's.
    fn forward(&self, batch: &O::Batch, step: u64, rate: f64) -> Result<Forward> {
        let noise = self.objective.noise(batch, step)?;
        let rate = rate * self.objective.rate_scale(batch);
        let rows = self.ranks.rows;
        if rows.is_all() {
            return Ok(Forward { loss: self.objective.loss(batch, &self.carried, &noise)?, rate });
        }
        let (own, noise) = self.objective.rows(batch, noise, rows)?;
        let loss = self.objective.loss(&own, &self.carried, &noise)?;
        let objective = (loss.objective * rows.share())?;
        Ok(Forward { loss: Loss { objective, ..loss }, rate })
    }

    /// Gradients and sums of all ranks; the error of a rank that fails is its own, that of the others says so.
    fn sum_over_ranks(&mut self, forward: Result<Forward>) -> Result<(Forward, Vec<Option<Gradient>>)> {
        let forward = forward.and_then(|forward| Ok((reported(&forward.loss)?, forward)));
        let (forward, error) = match forward {
            Ok(forward) => (Some(forward), None),
            Err(error) => (None, Some(error)),
        };
        let own = forward
            .as_ref()
            .map(|(reported, forward)| Own { objective: &forward.loss.objective, reported: *reported });
        let Ranks { reducer, have_failed, .. } = &mut self.ranks;
        let (summed, of_gradients) = reducer.sum(&self.parameters, own)?;
        *have_failed = summed.has_failed;
        match (error.or(of_gradients), forward) {
            (Some(error), _) => Err(error),
            (None, Some((_, Forward { loss, rate }))) if !summed.has_failed => {
                let [nats, teacher, tokens] = summed.reported;
                let teacher = loss.teacher.map(|like| number_like(teacher, &like)).transpose()?;
                let sums = Sums { nats: number_like(nats, &loss.sums.nats)?, tokens: tokens as u64 };
                Ok((Forward { loss: Loss { sums, teacher, ..loss }, rate }, summed.gradients))
            }
            _ => Err(Error::other_rank("the step failed on another rank, which says why")),
        }
    }

    /// The weights that the run is measured and published by.
    pub fn measured(&self) -> &Parameters {
        self.average.weights(&self.parameters)
    }

    /// What steps did, in their order: those that are known, or with `wait` all that were not reported yet.
    pub fn reports(&mut self, wait: bool) -> Result<Vec<Result<StepReport>>> {
        let mut reports = self.update.reports(wait)?;
        for report in reports.iter_mut().flatten() {
            report.teacher_nats = self.watched.take(report.step)?;
        }
        Ok(reports)
    }

    /// As [`Stepper::advance`], and waits for what the step did.
    ///
    /// # Errors
    /// If loss, gradient's norm or update are not finite; all is then as it was. After a step that halted the run,
    /// the error is that step's.
    pub fn step(&mut self, batch: &O::Batch, step: u64, rate: f64) -> Result<StepReport> {
        self.advance(batch, step, rate)?;
        let last = self.reports(true)?.pop();
        last.unwrap_or_else(|| Err(self.update.halted()))
    }
}

/// What is reported of a step: −ln p summed over the tokens, by the model and by its teacher, and how many tokens these are.
fn reported(loss: &Loss) -> Result<[f64; 3]> {
    let sum = |nats: &Tensor| -> Result<f64> { Ok(nats.to_dtype(DType::F64)?.sum_all()?.to_scalar()?) };
    Ok([sum(&loss.sums.nats)?, loss.teacher.as_ref().map_or(Ok(0.0), sum)?, loss.sums.tokens as f64])
}

/// One number where the tensor `like` is; on a GPU, of its type too.
fn number_like(number: f64, like: &Tensor) -> Result<Tensor> {
    let number = Tensor::new(&[number], &Device::Cpu)?;
    match like.device() {
        Device::Cpu => Ok(number),
        device => Ok(number.to_dtype(like.dtype())?.to_device(device)?),
    }
}
