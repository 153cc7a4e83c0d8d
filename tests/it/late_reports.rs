//! Steps may be reported late, as a GPU reports them: the run is the same, bit for bit, wherever it is stopped.

use crate::support::shrunk;
use candle_core::{DType, Device, Tensor, Var};
use rhn::data::{DataDirectories, registry::Registry};
use rhn::model::Parameters;
use rhn::run::RunDirectory;
use rhn::signals::Signals;
use rhn::task::language::Language;
use rhn::train::limits::Limits;
use rhn::train::resume::Resumed;
use rhn::train::step::Stepper;
use rhn::train::task::Task;
use rhn::train::trainer::Trainer;
use rhn::train::update::Update;
use rhn_kernels::update::guard::{Check, DeviceAdam, DeviceGuard, Record, Status};
use rhn_kernels::update::{self, AdamStep, MomentsStep};
use serde_json::Value;
use shrunk::shrunk;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

type CandleResult<T> = candle_core::Result<T>;

/// A guard on the CPU: it makes each step at once, as the host would, and keeps to itself what the step did.
#[derive(Default)]
struct LateGuard {
    capacity: usize,
    updates: Cell<u64>,
    scale: Cell<f64>,
    records: RefCell<Vec<Record>>,
    /// Steps that are not applied, as if their update were not finite.
    refused: Vec<u64>,
    /// Steps so far, and whether the last of them was applied.
    steps: Cell<u64>,
    applied: Cell<bool>,
}

fn message(error: rhn_kernels::Error) -> candle_core::Error {
    candle_core::Error::Msg(error.to_string())
}

impl DeviceGuard for LateGuard {
    fn capacity(&self) -> usize {
        self.capacity
    }

    fn begin(&self, updates: u64, _may_skip: u64) -> CandleResult<()> {
        self.updates.set(updates);
        Ok(())
    }

    fn check(
        &self,
        nats: &Tensor,
        pairs: &[(&Tensor, &Var)],
        check: &Check,
        index: usize,
    ) -> CandleResult<()> {
        let nats = nats.to_dtype(DType::F64)?.sum_all()?.to_scalar()?;
        let mut square = 0.0;
        for (gradient, var) in pairs {
            square += update::squared_norm(gradient, var, check.decay).map_err(message)?;
        }
        let grad_norm = square.sqrt();
        let clips = check.max_norm > 0.0 && grad_norm > check.max_norm;
        self.scale.set(if clips { check.max_norm / grad_norm } else { 1.0 });
        let applied = !self.refused.contains(&self.steps.get());
        self.steps.set(self.steps.get() + 1);
        self.applied.set(applied);
        self.updates.set(self.updates.get() + u64::from(applied));
        let status = if applied { Status::Applied } else { Status::Update };
        let mut records = self.records.borrow_mut();
        records.truncate(index);
        records.push(Record { nats, grad_norm, status });
        assert!(records.len() <= self.capacity && records.len() == index + 1);
        Ok(())
    }

    fn read(&self, count: usize) -> CandleResult<(u64, Vec<Record>)> {
        Ok((self.updates.get(), self.records.borrow()[..count].to_vec()))
    }

    fn sgd(&self, parameter: &Var, gradient: &Tensor, rate: f64, decay: f64) -> CandleResult<()> {
        if !self.applied.get() {
            return Ok(());
        }
        update::sgd(parameter, gradient, rate, self.scale.get(), decay).map_err(message)
    }

    fn adam(&self, parameter: &Var, moments: &Var, gradient: &Tensor, step: &DeviceAdam) -> CandleResult<()> {
        if !self.applied.get() {
            return Ok(());
        }
        let &DeviceAdam { rate, beta1, beta2, epsilon, decay, decoupled, left_out } = step;
        let correction = |beta: f64| 1.0 - beta.powf((self.updates.get() - left_out) as f64);
        let first = MomentsStep { scale: self.scale.get(), beta1, beta2, decay };
        let second = AdamStep {
            rate: rate / correction(beta1),
            root_scale: 1.0 / correction(beta2).sqrt(),
            epsilon,
            keep: 1.0 - rate * decoupled,
        };
        let before = parameter.as_detached_tensor();
        update::adam_moments(moments, gradient, &before, first).map_err(message)?;
        update::adam(parameter, moments, second).map_err(message)
    }

    fn choose(&self, after: &Tensor, before: &Tensor) -> CandleResult<Tensor> {
        Ok(if self.applied.get() { after.clone() } else { before.clone() })
    }
}

/// A piece of Shakespeare in two epochs of 22 windows.
fn language(place: &Path, settings: &[&str]) -> Language {
    let play = include_str!("../../data/tiny-shakespeare.txt");
    let corpus = place.join("corpus.txt");
    fs::write(&corpus, &play[..12_000]).unwrap();
    let name = format!("corpus.name={}", corpus.display());
    let sizes = ["train.batch_size=8", "train.bptt_steps=60", "train.epochs=2", "train.learning_rate=0.003"];
    let recipe = shrunk("text", 16, &[&[name.as_str()], &sizes[..], settings].concat());
    let directories = DataDirectories::only(Path::new("."), Registry::built_in());
    Language::prepare(recipe, &directories, None, DType::F32, &Device::Cpu).unwrap()
}

fn guard(language: &Language, stepper: &mut Stepper<<Language as Task>::Objective>, guard: LateGuard) {
    let config = &language.recipe().train;
    stepper.update = Update::guarded(config, &stepper.parameters, Some(Box::new(guard))).unwrap();
}

/// Trains into `out` until `max_steps`, from where it was left; `late` steps are reported together, or each at once.
fn train(language: &Language, out: &Path, late: Option<usize>, max_steps: Option<u64>) {
    fs::create_dir_all(out).unwrap();
    let resumed = Resumed::find(out, |_| ()).unwrap();
    let mut stepper = language.stepper(None).unwrap();
    if let Some(capacity) = late {
        guard(language, &mut stepper, LateGuard { capacity, ..LateGuard::default() });
    }
    let limits = Limits { max_steps, time: None };
    let signals = Signals::listen().unwrap();
    let position = resumed.as_ref().map(|resumed| &resumed.position);
    let directory = Box::new(RunDirectory::open(out, position).unwrap());
    let trainer = Trainer::new(language, stepper, directory, resumed.as_ref(), signals, limits);
    trainer.unwrap().run().unwrap();
}

/// The newest state's tensors as bytes; its position and the run's events, what the clock says apart.
fn left(out: &Path) -> (BTreeMap<&'static str, Vec<u8>>, Value, Vec<Value>) {
    let states = fs::read_dir(out.join("state")).unwrap().map(|entry| entry.unwrap().path());
    let newest = states.max().unwrap();
    let files = ["model.safetensors", "optimizer.safetensors"];
    let tensors = files.map(|name| (name, fs::read(newest.join(name)).unwrap()));
    let timeless = |text: &str| {
        let mut value: Value = serde_json::from_str(text).unwrap();
        for key in ["seconds", "tokens_per_second", "time"] {
            value.as_object_mut().unwrap().remove(key);
        }
        value
    };
    let position = timeless(&fs::read_to_string(newest.join("state.json")).unwrap());
    let events = fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    let counted = |event: &Value| {
        ["step", "evaluation", "divergence", "epoch"].contains(&event["event"].as_str().unwrap())
    };
    (tensors.into(), position, events.lines().map(timeless).filter(counted).collect())
}

#[test]
fn a_run_that_is_reported_late_is_the_same_wherever_it_stops() {
    is_the_same_wherever_it_stops(&[], &[16, 27]);
}

#[test]
fn a_run_that_is_reported_late_and_validates_within_epochs_is_the_same_wherever_it_stops() {
    is_the_same_wherever_it_stops(&["train.evaluate_steps=9"], &[16, 27]);
}

#[test]
fn a_run_that_is_reported_late_and_goes_back_to_its_best_weights_is_the_same_wherever_it_stops() {
    let schedule = r#"train.schedule={kind="decay-per-epoch",factor=1e-4,constant_epochs=1}"#;
    let settings = [schedule, "train.bptt_steps=5", "train.on_divergence=rollback"];
    let events = is_the_same_wherever_it_stops(&settings, &[505, 520]);
    let rollbacks = events.iter().filter(|event| event["action"] == "rollback");
    assert_eq!(rollbacks.map(|event| &event["step"]).collect::<Vec<_>>(), [512]);
}

#[test]
fn a_mean_of_weights_that_is_reported_late_is_the_same_wherever_the_run_stops() {
    let ema = "train.averaging={kind=\"ema\",decay=0.9}";
    is_the_same_wherever_it_stops(&[ema], &[5, 27]);
    let asgd = "train.averaging={kind=\"nt-asgd\",from_start=true}";
    is_the_same_wherever_it_stops(&[asgd], &[16]);
}

#[test]
fn clusters_without_words_in_some_steps_are_the_same_wherever_the_run_stops() {
    let output = "model.output={kind=\"adaptive\",cutoffs=[300,800]}";
    let sizes = ["train.batch_size=2", "train.bptt_steps=12", "corpus.unit=\"word\"", "corpus.unknown=true"];
    let settings = [&[output, "train.optimizer=\"adam\""], &sizes[..]].concat();
    let (position, _) = same_wherever_it_stops(&settings, &[16, 27]);
    let left_out = position["left_out"].as_object().unwrap();
    let of_the_last = left_out.keys().all(|name| name.starts_with("output.tail.1."));
    assert!(of_the_last && !left_out.is_empty(), "{left_out:?}");
}

#[test]
fn a_step_that_was_skipped_counts_for_no_weight() {
    let place = tempfile::tempdir().unwrap();
    let output = "model.output={kind=\"adaptive\",cutoffs=[300,800]}";
    let sizes = ["train.batch_size=2", "train.bptt_steps=12", "corpus.unit=\"word\"", "corpus.unknown=true"];
    let skip = "train.on_non_finite=\"skip\"";
    let settings = [&[output, "train.optimizer=\"adam\"", skip], &sizes[..]].concat();
    let language = language(place.path(), &settings);
    for refused in [vec![0, 1, 2, 3, 5], vec![4, 9, 17, 18, 40]] {
        let [mut late, mut at_once] = [(); 2].map(|()| language.stepper(None).unwrap());
        guard(
            &language,
            &mut late,
            LateGuard { capacity: 16, refused: refused.clone(), ..LateGuard::default() },
        );
        for step in 0..60 {
            let batch = language.batch(0, step as usize).unwrap();
            late.advance(&batch, step, 0.01).unwrap();
            late.update.reports(false).unwrap();
            if !refused.contains(&step) {
                at_once.advance(&batch, step, 0.01).unwrap();
                at_once.update.reports(false).unwrap();
            }
        }
        late.update.reports(true).unwrap();
        assert!(!at_once.update.save().left_out.is_empty());
        assert_eq!(late.update.save().left_out, at_once.update.save().left_out);
        let bytes = |parameters: &Parameters| rhn::storage::save_tensors(&parameters.tensors()).unwrap();
        assert!(bytes(&late.parameters) == bytes(&at_once.parameters), "{refused:?}");
    }
}

#[test]
fn a_mean_of_weights_has_no_step_that_was_not_applied() {
    let place = tempfile::tempdir().unwrap();
    let language = language(place.path(), &["train.averaging={kind=\"ema\",decay=0.8}"]);
    let weights = |parameters: &Parameters| -> Vec<f64> {
        let numbers = |var: &Var| var.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>();
        parameters.trained().flat_map(|(_, var)| numbers(var).unwrap()).collect()
    };
    for refused in [vec![3, 4, 9], vec![0, 1, 5], vec![0]] {
        let mut stepper = language.stepper(None).unwrap();
        let late = LateGuard { capacity: 16, refused: refused.clone(), ..LateGuard::default() };
        guard(&language, &mut stepper, late);
        let mut mean = weights(&stepper.parameters);
        let mut steps = 0;
        for step in 0..12 {
            let before = weights(&stepper.parameters);
            stepper.advance(&language.batch(0, step).unwrap(), step as u64, 0.01).unwrap();
            let after = weights(&stepper.parameters);
            assert_eq!(before == after, refused.contains(&(step as u64)));
            if before != after {
                steps += 1;
                let share = (1.0 / f64::from(steps)).max(0.2);
                mean.iter_mut().zip(&after).for_each(|(mean, after)| *mean += (after - *mean) * share);
            }
            let measured = weights(stepper.measured());
            let is_mean = measured.iter().zip(&mean).all(|(found, wanted)| (found - wanted).abs() < 1e-6);
            assert!(is_mean, "after step {step} without {refused:?}");
            assert_eq!(stepper.average.steps().unwrap(), u64::try_from(steps).unwrap());
        }
    }
}

#[test]
fn gates_that_learn_alone_from_a_teacher_and_are_reported_late_are_the_same_wherever_the_run_stops() {
    let place = tempfile::tempdir().unwrap();
    let teacher = place.path().join("teacher");
    train(&language(place.path(), &[]), &teacher, None, Some(3));
    let loss = format!("train.loss={{kind=\"distill\",teacher={:?}}}", teacher.to_str().unwrap());
    let events = is_the_same_wherever_it_stops(&["train.update=gates", &loss], &[16, 27]);
    let epochs = events.iter().filter(|event| event["event"] == "epoch");
    let watched: Vec<f64> = epochs.map(|epoch| epoch["teacher_nats_per_token"].as_f64().unwrap()).collect();
    assert!(watched.len() == 2 && watched[0] == watched[1], "{watched:?}"); // the same text by the same weights
}

#[track_caller]
fn is_the_same_wherever_it_stops(settings: &[&str], stops: &[u64]) -> Vec<Value> {
    same_wherever_it_stops(settings, stops).1
}

/// Its position and events.
#[track_caller]
fn same_wherever_it_stops(settings: &[&str], stops: &[u64]) -> (Value, Vec<Value>) {
    let place = tempfile::tempdir().unwrap();
    let language = language(place.path(), settings);
    let steps = language.total_steps();
    assert!(steps > 2 * 16, "{steps} steps are reported at once");
    let out = |name: &str| place.path().join(name);
    train(&language, &out("at once"), None, None);
    let wanted = left(&out("at once"));
    assert_eq!(wanted.1["step"], steps);
    train(&language, &out("late"), Some(16), None);
    assert_eq!(left(&out("late")), wanted);
    for &stop in stops {
        let out = out(&format!("stopped at {stop}"));
        train(&language, &out, Some(16), Some(stop));
        assert_eq!(left(&out).1["step"], stop);
        train(&language, &out, Some(16), None);
        assert_eq!(left(&out), wanted, "stopped at {stop}");
    }
    (wanted.1, wanted.2)
}
