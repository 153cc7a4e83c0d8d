//! The loop around the step: epochs, validation, the best model kept, the state saved so that any stop can be resumed.

mod clock;
mod course;
mod epoch;
mod measure;

use super::limits::{Limits, Stop};
use super::recorder::{Progress, Recorder};
use super::resume::Resumed;
use super::schedule::Rate;
use super::state::{self, Best, EpochSums, Learned, Position};
use super::step::Stepper;
use super::task::Task;
use crate::config::TrainConfig;
use crate::config::train::Schedule;
use crate::console::{note, report_of_rank};
use crate::error::{Error, Result};
use crate::eval::Evaluation;
use crate::events::{self, Event};
use crate::model::State;
use crate::parallel::world::{World, agree, with_common_code};
use crate::signals::Signals;
use clock::Clock;
use measure::Validated;
use rhn_kernels::threads::Tuner;
use rhn_kernels::update::squared_norm;
use std::time::Instant;

/// A run under way.
pub struct Trainer<'a, T: Task> {
    task: &'a T,
    stepper: Stepper<T::Objective>,
    rate: Rate,
    position: Position,
    recorder: Box<dyn Recorder + 'a>,
    signals: Signals,
    limits: Limits,
    clock: Clock,
    /// Finds out how many threads are fastest, where nobody asked for a number.
    tuner: Option<Tuner>,
    /// The step of the newest state; none without any.
    saved_step: Option<u64>,
    /// Whether the best model so far was lost before the run went on.
    lost_best: bool,
}

impl<'a, T: Task> Trainer<'a, T> {
    /// A run before its first step, or where `resumed` left off.
    ///
    /// # Errors
    /// If a tensor of the state does not fit; names the file.
    pub fn new(
        task: &'a T,
        mut stepper: Stepper<T::Objective>,
        recorder: Box<dyn Recorder + 'a>,
        resumed: Option<&Resumed>,
        signals: Signals,
        limits: Limits,
    ) -> Result<Self> {
        let config = &task.recipe().train;
        let needs_total = matches!(config.schedule, Schedule::Cosine(_)); // to count it takes time where windows are drawn
        let mut rate = Rate::new(config, if needs_total { task.total_steps() } else { 0 });
        let position = match resumed {
            None => Position::first(task),
            Some(resumed) => {
                resumed.restore(task, &mut stepper)?;
                rate.load(resumed.position.rate.clone());
                resumed.position.clone()
            }
        };
        let clock = Clock::start(position.seconds);
        let is_on_cpu = stepper.parameters.trained().all(|(_, var)| var.device().is_cpu());
        let tuner = if is_on_cpu { Tuner::new() } else { None };
        let saved_step = resumed.map(|_| position.step);
        let lost_best = resumed.is_some_and(|resumed| resumed.lost_best);
        Ok(Self {
            task,
            stepper,
            rate,
            position,
            recorder,
            signals,
            limits,
            clock,
            tuner,
            saved_step,
            lost_best,
        })
    }

    /// The position of the run.
    pub fn position(&self) -> &Position {
        &self.position
    }

    /// Whether the epochs are done, as many as `train.patience` were no better on the validation split, or the mean of the
    /// weights is no longer getting better where that ends a run.
    pub fn is_over(&self) -> bool {
        let config = self.config();
        let best = self.position.best.as_ref();
        let waited = best.map_or(0, |best| best.waited(self.position.epoch));
        self.position.epoch >= config.epochs
            || (config.patience > 0 && waited >= config.patience)
            || self.stepper.average.is_over()
    }

    /// Trains to the recipe's end, or to a limit, which is then returned; the state is saved either way.
    pub fn run(&mut self) -> Result<Option<Stop>> {
        self.record_start()?;
        self.return_to_course()?; // it may have stopped for a divergence
        let stop = self.epochs();
        self.recorder.show(&Progress::Over);
        let stop = match stop {
            Err(error) if self.is_unsaved(&error) => return Err(self.save_after(error)?),
            stop => stop?,
        };
        let Some(stop) = stop else { return Ok(None) };
        self.save()?;
        if self.position.best.is_none() {
            self.publish(None)?; // a run that stops before its first validation still leaves something to look at
        }
        let event = events::Stop { step: self.position.step, reason: format!("{stop:?}") };
        self.record(&Event::Stop(event))?;
        Ok(Some(stop))
    }

    /// Whether a step failed with all ranks as they were before it, or a number was not finite, and the steps before it are to be
    /// kept. A divergence has saved them.
    fn is_unsaved(&self, error: &Error) -> bool {
        let is_not_finite =
            error.exit_code() == Error::NOT_FINITE && !matches!(error, Error::Diverged { .. });
        self.stepper.has_failed_together()
            || (is_not_finite && self.saved_step.unwrap_or(0) < self.position.step)
    }

    /// Keeps the state before a step or a validation that failed, for which all ranks have come here, and gives the error to end
    /// with.
    fn save_after(&mut self, error: Error) -> Result<Error> {
        let is_alone = self.world().size() == 1;
        let is_said_elsewhere = matches!(error, Error::OtherRank { .. } | Error::NotFinite { .. }); // that on all ranks
        if !(is_alone || is_said_elsewhere) {
            // Now: once the state is saved, the end of another rank may end this process first.
            report_of_rank(self.world().rank(), &error.to_string());
        }
        // Steps that a GPU made and that were not reported are part of the weights already.
        let saved = self.observe(true).and_then(|()| self.save());
        match agree(self.world(), saved) {
            Err(unsaved) if is_alone => note(&format!("the state before that could not be saved: {unsaved}")),
            saved => saved?, // nobody ends before it is written
        }
        with_common_code(self.world(), error)
    }

    fn record_start(&mut self) -> Result<()> {
        let task = self.task;
        let data = task.data();
        let start = events::Start {
            step: self.position.step,
            corpus: data.corpus.into(),
            corpus_sha256: data.sha256.into(),
            parameters: self.stepper.parameters.count(),
            vocab_size: task.model().vocab_size,
            train_tokens: data.tokens[0] as usize,
            steps_per_epoch: self.windows(),
            recipe: serde_json::to_value(task.recipe()).expect("a recipe is a table"),
            precision: task.precision().as_str().into(),
            version: env!("CARGO_PKG_VERSION").into(),
            begun_from: self.stepper.begun_from.clone(),
            lost_best: self.lost_best,
        };
        let event = if self.saved_step.is_some() { Event::Resume(start) } else { Event::Start(start) };
        self.record(&event)
    }

    fn epochs(&mut self) -> Result<Option<Stop>> {
        if let Some(stop) = self.replace_lost_best()? {
            return Ok(Some(stop));
        }
        while !self.is_over() {
            if let Some(stop) = self.train_epoch()? {
                return Ok(Some(stop));
            }
            match self.validate()? {
                Validated::Measured(valid) => self.finish_epoch(&valid)?,
                Validated::Stopped => return self.interrupted().map(Some),
                Validated::RolledBack => self.begin_epoch()?,
            }
        }
        Ok(None)
    }

    /// Keeps the model if it is the best, reports the epoch, and begins the next.
    fn finish_epoch(&mut self, valid: &Evaluation) -> Result<()> {
        let best_before = self.position.best.as_ref().map(|best| best.valid_nats_per_token);
        self.position.course.end_epoch(valid.nats_per_token, best_before, self.uniform());
        let best = self.keep_if_best(valid, self.position.epoch + 1)?;
        let provisional = self.is_provisional();
        if let Some(best) = self.position.best.as_mut().filter(|best| provisional && !best.provisional) {
            best.passed_over += 1;
        }
        let row = self.row(valid, best)?;
        self.record(&Event::Epoch(row))?;
        if let Some(warning) = self.task.warning(valid, self.position.step) {
            self.recorder.show(&Progress::Warning(&warning));
        }
        let sample = match self.writes() {
            true => self.task.sample(self.stepper.measured(), self.position.epoch),
            false => Ok(None),
        };
        if let Some(text) = agree(self.world(), sample)? {
            self.recorder.show(&Progress::Sample(&text));
        }
        self.rate.observe(self.position.epoch, self.position.step, valid.nats_per_token.exp());
        self.stepper.average.end_epoch(valid.decides());
        if best {
            self.keep_learned();
        }
        self.begin_epoch()
    }

    /// Leaves an epoch behind that is over, and saves.
    fn begin_epoch(&mut self) -> Result<()> {
        self.position.epoch += 1;
        self.position.window = 0;
        self.position.epoch_sums = EpochSums::default();
        if !self.config().carry_state {
            self.stepper.reset_state()?;
        }
        self.return_to_course()?;
        self.save()
    }

    /// Publishes the model of `epoch`, counted from 1, if it is better than every validation before, and gives whether it is.
    fn keep_if_best(&mut self, valid: &Evaluation, epoch: u64) -> Result<bool> {
        if self.saved_step.is_none() {
            self.save()?; // a model that is published belongs to a run that can be resumed
        }
        let best = self.position.best.as_ref();
        let provisional = self.is_provisional();
        let is_best = best.is_none_or(|best| best.is_beaten_by(valid.decides(), provisional));
        if is_best {
            self.position.best = Some(Best {
                epoch,
                step: Some(self.position.step),
                valid_nats_per_token: valid.nats_per_token,
                expected_error_rate: valid.lists.expected_error_rate,
                provisional,
                passed_over: 0,
                learned: None,
            });
            self.keep_learned();
            self.publish(Some(valid))?;
        }
        Ok(is_best)
    }

    /// Keeps what validations have taught so far beside the best of them.
    fn keep_learned(&mut self) {
        let learned = Learned { rate: self.rate.save(), averaging: self.stepper.average.memory() };
        self.position.best.iter_mut().for_each(|best| best.learned = Some(learned.clone()));
    }

    /// Whether a validation now decides nothing yet: the weight of the KL has not come to its last value.
    fn is_provisional(&self) -> bool {
        self.task.kl_weight(self.position.step).is_some_and(|weight| !weight.is_last)
    }

    /// The row of an epoch that ends or is under way.
    fn row(&self, valid: &Evaluation, best: bool) -> Result<events::Epoch> {
        let position = &self.position;
        let sums = &position.epoch_sums;
        let mean = |sum: f64, count: u64| (count > 0).then(|| sum / count as f64); // all may have been skipped
        Ok(events::Epoch {
            lost: false,
            epoch: position.epoch + 1,
            step: position.step,
            tokens: position.tokens,
            train_nats_per_token: mean(sums.nats, sums.tokens),
            teacher_nats_per_token: mean(sums.teacher_nats, sums.tokens).filter(|nats| *nats > 0.0),
            valid_nats_per_token: Some(valid.nats_per_token),
            valid_perplexity: valid.perplexity,
            valid_bits_per_char: valid.bits_per_char,
            valid_bits_per_byte: valid.bits_per_byte,
            valid_accuracy: valid.accuracy,
            valid_f1: valid.decisions.and_then(|decisions| decisions.f1),
            valid_word_error_rate: valid.lists.word_error_rate,
            valid_expected_error_rate: valid.lists.expected_error_rate,
            valid_reconstruction_nats: valid.latent.as_ref().map(|latent| latent.reconstruction_nats),
            valid_kl_nats: valid.latent.as_ref().map(|latent| latent.kl_nats),
            kl_weight: self.task.kl_weight(position.step).map(|weight| weight.value),
            learning_rate: Some(self.rate.of_last(position.epoch_of_last_step(), position.step)),
            grad_norm: mean(sums.grad_norms, sums.steps),
            tokens_per_second: self.clock.tokens_per_second(),
            seconds: Some(self.clock.seconds()),
            skipped_steps: position.skipped_steps,
            averaged_steps: self.stepper.average.steps()?,
            best,
            provisional: self.is_provisional(),
        })
    }

    /// Why to stop before the next step, if there is a reason on any rank.
    fn stop(&self) -> Result<Option<Stop>> {
        let own = if let Some(code) = self.signals.received() {
            Some(Stop::Signal(code))
        } else if self.limits.max_steps.is_some_and(|max| self.position.step + self.pending() >= max) {
            Some(Stop::MaxSteps)
        } else {
            self.limits.is_time_over(self.clock.started).then_some(Stop::TimeLimit)
        };
        let is_any = self.world().any(own.is_some().into())? > 0;
        Ok(is_any.then(|| own.unwrap_or(Stop::OtherRank)))
    }

    /// Whether it is time to save, by the clock of any rank.
    fn is_save_due(&self) -> Result<bool> {
        let is_due = self.clock.saved.elapsed().as_secs_f64() > 60.0 * self.config().save_minutes;
        Ok(self.world().any(is_due.into())? > 0)
    }

    /// The weights now become the checkpoint that other commands load; `valid` is what was found with them, if they were
    /// measured.
    fn publish(&mut self, valid: Option<&Evaluation>) -> Result<()> {
        self.check_weights()?;
        let own = if self.writes() { self.write_model(valid) } else { Ok(()) };
        agree(self.world(), own)
    }

    /// Keeps the training state.
    pub fn save(&mut self) -> Result<()> {
        self.check_weights()?;
        self.position.seconds = self.clock.seconds();
        self.position.rate = self.rate.save();
        let carried = self.stepper.whole_state()?;
        let own = if self.writes() { self.write_state(&carried) } else { Ok(()) };
        agree(self.world(), own)?;
        self.clock.saved = Instant::now();
        self.saved_step = Some(self.position.step);
        Ok(())
    }

    fn write_model(&mut self, valid: Option<&Evaluation>) -> Result<()> {
        let files = self.task.published(self.stepper.measured(), valid)?;
        self.recorder.publish(&files)
    }

    fn write_state(&mut self, carried: &State) -> Result<()> {
        let files = state::files(self.task, &mut self.stepper, carried, &mut self.position)?;
        self.recorder.save(self.position.step, &files)
    }

    /// Records an event of the training, which all ranks come to; of an error of rank 0, which writes, all know.
    fn record(&mut self, event: &Event) -> Result<()> {
        let own = self.recorder.record(event);
        agree(self.world(), own)
    }

    /// The ranks that train together.
    fn world(&self) -> &dyn World {
        &**self.stepper.world()
    }

    /// Whether this rank is the one that writes.
    fn writes(&self) -> bool {
        self.world().rank() == 0
    }

    /// A weight that is not finite is never kept, nor are weights that differ between ranks.
    fn check_weights(&self) -> Result<()> {
        let mut norms = Vec::new();
        for (name, var) in self.stepper.parameters.trained() {
            let norm = squared_norm(var, var, 0.0)?;
            if !norm.is_finite() {
                let what = format!("weight {name} is not finite; the last saved state is kept");
                return Err(Error::NotFinite { step: self.position.step, what });
            }
            norms.extend(norm.to_le_bytes());
        }
        let of_ranks = self.world().gather(norms)?;
        match of_ranks.iter().position(|norms| *norms != of_ranks[0]) {
            None => Ok(()),
            Some(rank) => Err(Error::other_rank(format!(
                "step {}: rank {rank} has other weights than rank 0, which the same sums cannot give; the last saved state \
                 is kept. Do all ranks run the same program on the same kind of processor?",
                self.position.step
            ))),
        }
    }

    fn config(&self) -> &'a TrainConfig {
        &self.task.recipe().train
    }

    /// Windows of the epoch.
    fn windows(&self) -> u64 {
        self.task.batch_count(self.position.epoch) as u64
    }
}
