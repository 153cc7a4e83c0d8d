//! Image nets that a study trains: each a run of its own in the study's directory, which goes on where it was stopped.

use crate::command::args::{DataArgs, DeviceArgs};
use crate::config::{CoreConfig, Recipe, Resolved};
use crate::console::{Line, report};
use crate::data::images::ImageCorpus;
use crate::error::{Error, Result};
use crate::events::{Event, Outcome};
use crate::parallel::world::Solo;
use crate::readable::duration;
use crate::run::{self, AnyRun, Ended, Request};
use crate::signals::Signals;
use crate::study::RunHistory;
use crate::train::limits::{Limits, Stop};
use crate::train::recorder::{Progress, Recorder};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[derive(Clone, Debug, clap::Args)]
pub(super) struct NetArgs {
    /// Epochs of each net
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub(super) epochs: u64,
    /// Three epochs without a search of the rate, which is .1 for highway and .01 for plain nets: a look at the study in a
    /// minute or two. Its runs have names of their own
    #[arg(long, conflicts_with = "epochs")]
    pub(super) quick: bool,
    /// Runs of each net with settings drawn at random, as the paper did; 1 tries four rates instead
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub(super) trials: u64,
    /// What the settings, first weights and orders of images are drawn from
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(super) seed: u64,
    /// The images: a known name, or a directory with idx files
    #[arg(long, value_name = "NAME|DIR", default_value = "mnist")]
    corpus: String,
    /// Override a key of the recipe mnist-highway for every net, say train.batch_size=50; may be repeated. What is set is
    /// neither searched nor drawn
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// Where the runs and the results go [default: studies/STUDY]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print one line of JSON
    #[arg(long)]
    pub(super) json: bool,
    /// Write the pictures as PNG too, at twice the size
    #[arg(long)]
    pub(super) png: bool,
    #[command(flatten)]
    pub(super) device: DeviceArgs,
    #[command(flatten)]
    data: DataArgs,
}

/// A net that is to be trained.
#[derive(Clone, Debug)]
pub(super) struct Net {
    /// Of its directory.
    pub(super) name: String,
    pub(super) kind: &'static str,
    /// Hidden layers, the first plain one counted.
    pub(super) depth: usize,
    /// What it sets otherwise than the recipe `mnist-highway`, where `--set` does not say otherwise.
    pub(super) usual: Vec<String>,
    /// What it sets whatever `--set` says.
    pub(super) settings: Vec<String>,
    /// First biases of the transform gates that are tried with each rate; none where they are set, or there are no gates.
    pub(super) biases: &'static [f64],
}

/// What a trial of a net came to. Losses are over all training images, in a pass of their own.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Trained {
    pub(super) net: String,
    pub(super) kind: &'static str,
    pub(super) depth: usize,
    pub(super) trial: u64,
    pub(super) units: usize,
    pub(super) weights: u64,
    pub(super) learning_rate: f64,
    pub(super) momentum: f64,
    /// What the rate is multiplied by each epoch.
    pub(super) decay: f64,
    pub(super) activation: String,
    /// Of highway nets.
    pub(super) transform_bias: Option<f64>,
    pub(super) epochs: u64,
    pub(super) best_train_nats: Option<f64>,
    pub(super) last_train_nats: Option<f64>,
    pub(super) train_accuracy: Option<f64>,
    pub(super) test_nats: Option<f64>,
    pub(super) test_accuracy: Option<f64>,
    pub(super) seconds: Option<f64>,
    /// Why there is no result.
    pub(super) failed: Option<String>,
    /// The loss after each epoch.
    pub(super) curve: Vec<(u64, f64)>,
    /// Its run.
    #[serde(skip)]
    pub(super) directory: PathBuf,
}

/// What trains the nets of a study.
pub(super) struct Nets<'a> {
    pub(super) args: &'a NetArgs,
    pub(super) out: PathBuf,
    pub(super) corpus: ImageCorpus,
    pub(super) signals: Signals,
}

impl NetArgs {
    /// Epochs of each net.
    pub(super) fn epochs(&self) -> u64 {
        if self.quick { 3 } else { self.epochs }
    }

    /// What the rate is multiplied by each epoch unless it is drawn: the papers' curves are flat from epoch 150 on.
    pub(super) fn decay(&self) -> f64 {
        if self.epochs() <= 50 { 0.9 } else { 0.97 }
    }

    /// Opens the images. Fails if they cannot be had.
    pub(super) fn open(&self, study: &str) -> Result<Nets<'_>> {
        let out = self.out.clone().unwrap_or_else(|| Path::new("studies").join(study));
        let resolved = Resolved::new("mnist-highway", &self.common(&[]))?;
        let corpus = ImageCorpus::open(&resolved.recipe.corpus, &self.data.directories()?)?;
        Ok(Nets { args: self, out, corpus, signals: Signals::listen()? })
    }

    /// Whether `--set` gives this key of the recipe.
    pub(super) fn gives(&self, key: &str) -> Result<bool> {
        Ok(Resolved::new("mnist-highway", &self.settings)?.is_given(key))
    }

    /// Refuses a key in `--set` that a flag of the study is for.
    pub(super) fn refuse(&self, keys: &[(&str, &str)]) -> Result<()> {
        for (key, flag) in keys {
            if self.gives(key)? {
                return Err(Error::config(format!("--set {key}: the study takes it from {flag}")));
            }
        }
        Ok(())
    }

    /// The settings of a net: those of every one, `usual` ones, and what the user sets, of which the last counts.
    pub(super) fn common(&self, usual: &[String]) -> Vec<String> {
        let name = toml::Value::String(self.corpus.clone());
        let mut settings = vec![
            format!("corpus.name={name}"),
            format!("train.epochs={}", self.epochs()),
            format!("train.seed={}", self.seed),
            decayed(self.decay()),
        ];
        settings.extend_from_slice(usual);
        settings.extend_from_slice(&self.settings);
        settings
    }
}

impl Nets<'_> {
    /// Trains what is not finished of all trials of `nets`. A net that leaves its course is a result like another.
    ///
    /// # Errors
    /// If a recipe cannot be used, a file cannot be written, or a signal ends it.
    pub(super) fn train(&self, nets: &[Net]) -> Result<Vec<Trained>> {
        let trials = self.args.trials;
        let mut all = Vec::new();
        for (number, net) in (1..).zip(nets) {
            for trial in 1..=trials {
                let suffix = match (trials > 1, self.args.quick) {
                    (true, _) => format!("-trial-{trial}"),
                    (false, true) => "-quick".into(),
                    (false, false) => String::new(),
                };
                let name = format!("{}{suffix}", net.name);
                let trained = self.trial(net, trial, &self.out.join(&name))?;
                let loss =
                    trained.last_train_nats.map_or_else(|| "–".into(), |nats| format!("{nats:.3e} nats"));
                let what = trained.failed.clone().map_or(loss, |why| format!("failed: {why}"));
                let took =
                    trained.seconds.map_or_else(String::new, |seconds| format!(", {}", duration(seconds)));
                report(&format!(
                    "{number} of {}: {name}: {what} at rate {}{took}",
                    nets.len(),
                    trained.learning_rate
                ));
                all.push(trained);
            }
        }
        Ok(all)
    }

    fn trial(&self, net: &Net, trial: u64, directory: &Path) -> Result<Trained> {
        let begun = run::begun(directory)?;
        // A run that goes on is held to what is asked for now, but for what was searched when it began.
        let (recipe, settings) = match &begun {
            Some(recipe) => {
                self.check_begun(net, directory, recipe)?;
                (directory.display().to_string(), self.asked(net, trial))
            }
            None => ("mnist-highway".into(), self.settings(net, trial)?),
        };
        let (device, precision) = self.args.device.open()?;
        let request = Request {
            recipe,
            settings,
            corpus: None,
            on_non_finite: None,
            out: Some(directory.to_path_buf()),
            resume: begun.is_some(),
            init_from: None,
            grow_vocab: false,
            precision,
            device,
            directories: self.args.data.directories()?,
            limits: Limits { max_steps: None, time: None },
            tensorboard: false,
            world: Arc::new(Solo),
        };
        let failed = match self.run(&request, net) {
            Ok(_) => None,
            Err(error @ (Error::NotFinite { .. } | Error::Diverged { .. })) => Some(first_sentence(&error)),
            Err(error) => return Err(error),
        };
        Trained::read(net, trial, directory, failed)
    }

    /// Refuses a run whose rate or bias was given, where it would be searched now, and one of more epochs than are asked for.
    fn check_begun(&self, net: &Net, directory: &Path, recipe: &Recipe) -> Result<()> {
        let refuse = |what: String| {
            let what = format!("{}: {what}; --out names another directory", directory.display());
            Err(Error::config(what))
        };
        let has = |key: &str, found: f64, tried: &[f64]| match tried.is_empty() || tried.contains(&found) {
            true => Ok(()),
            false => refuse(format!(
                "its {key} is {found}, which was given and is none of those tried here, {tried:?}"
            )),
        };
        let (epochs, asked) = (recipe.train.epochs, self.args.epochs());
        if epochs > asked {
            return refuse(format!("its run is one of {epochs} epochs, {asked} are asked for"));
        }
        if self.args.trials > 1 {
            return Ok(());
        }
        has("train.learning_rate", recipe.train.learning_rate, self.rates()?)?;
        match &recipe.model.core {
            CoreConfig::FeedForward(core) => {
                has("model.core.transform_bias", core.transform_bias, net.biases)
            }
            _ => Ok(()),
        }
    }

    fn run(&self, request: &Request, net: &Net) -> Result<Outcome> {
        let AnyRun::Images(run) = request.open_with(Some(self.corpus.clone()))? else {
            return Err(Error::config("the recipe of a net for images is one of text"));
        };
        let screen = Box::new(Screen { name: net.name.clone(), line: Line::new() });
        match run.train(screen, self.signals.clone())? {
            Ended::Before(outcome, _) | Ended::Finished(outcome) => Ok(outcome),
            Ended::Untested(code) | Ended::Stopped(Stop::Signal(code)) => Err(Error::Stopped { code }),
            Ended::Stopped(_) | Ended::Followed => Err(Error::Stopped { code: 0 }),
        }
    }
}

/// What is in a list, in its order and without what it has a second time.
pub(super) fn each_once<T: Copy + PartialEq>(list: &[T]) -> Vec<T> {
    let is_first = |(at, value): &(usize, &T)| !list[..*at].contains(value);
    list.iter().enumerate().filter(is_first).map(|(_, value)| *value).collect()
}

/// The setting of a rate that is multiplied by `decay` each epoch.
pub(super) fn decayed(decay: f64) -> String {
    format!("train.schedule={{kind=\"decay-per-epoch\",factor={:?},constant_epochs=1}}", 1.0 / decay)
}

/// The settings of an activation, of the first layer too, with the first weights that keep its signal's size.
pub(super) fn activated(activation: &str) -> [String; 3] {
    let init = if activation == "relu" { "he" } else { "glorot" };
    [
        format!("model.core.activation={activation}"),
        format!("model.embedding.activation={activation}"),
        format!("train.init={init}"),
    ]
}

fn first_sentence(error: &Error) -> String {
    let text = error.to_string();
    text.split(". ").next().unwrap_or(&text).to_string()
}

impl Trained {
    /// What the run in `directory` has recorded.
    fn read(net: &Net, trial: u64, directory: &Path, failed: Option<String>) -> Result<Self> {
        let run = RunHistory::read(directory)?;
        let recipe = &run.start.recipe;
        let number = |key: &str| key.split('.').fold(recipe, |value, part| &value[part]).as_f64();
        let loss = |row: &crate::events::Epoch| row.valid_nats_per_token;
        let curve: Vec<(u64, f64)> =
            run.epochs.iter().filter_map(|row| Some((row.epoch, loss(row)?))).collect();
        let result = run.result.as_ref();
        let last = run.epochs.last();
        let is_plain = net.kind == "plain";
        let bias = number("model.core.transform_bias").filter(|_| !is_plain);
        Ok(Self {
            net: net.name.clone(),
            kind: net.kind,
            depth: net.depth,
            trial,
            units: number("model.core.hidden_size").unwrap_or(0.0) as usize,
            weights: run.start.parameters,
            learning_rate: number("train.learning_rate").unwrap_or(f64::NAN),
            momentum: number("train.momentum").unwrap_or(0.0),
            decay: 1.0 / number("train.schedule.factor").unwrap_or(1.0),
            activation: recipe["model"]["core"]["activation"].as_str().unwrap_or("tanh").into(),
            transform_bias: bias,
            epochs: last.map_or(0, |row| row.epoch),
            best_train_nats: curve.iter().map(|point| point.1).min_by(f64::total_cmp),
            last_train_nats: last.and_then(loss).filter(|_| failed.is_none()),
            train_accuracy: last.and_then(|row| row.valid_accuracy),
            test_nats: result.and_then(|result| result.test.nats_per_token),
            test_accuracy: result.and_then(|result| result.test.accuracy),
            seconds: last.and_then(|row| row.seconds),
            failed,
            curve,
            directory: directory.to_path_buf(),
        })
    }
}

/// A line that moves while a net trains.
struct Screen {
    name: String,
    line: Line,
}

impl Recorder for Screen {
    fn record(&mut self, _event: &Event) -> Result<()> {
        Ok(())
    }

    fn show(&mut self, progress: &Progress<'_>) {
        match progress {
            Progress::Training(now) => {
                let head = format!("{}: epoch {}/{}", self.name, now.epoch, now.epochs);
                self.line.show(&head, now.window, now.windows, || {
                    format!(
                        "{:.2e} nats  {:.0} images/s  {} left",
                        now.nats,
                        now.tokens_per_second,
                        duration(now.run_left)
                    )
                });
            }
            Progress::Evaluating(..) | Progress::Sample(_) | Progress::Warning(_) => {}
            Progress::Over => self.line.clear(),
        }
    }
}
