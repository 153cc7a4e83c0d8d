//! `rhn study gates`: when the transform gates of a trained model are open (Srivastava, Greff and Schmidhuber, 2015,
//! section 4).

mod shown;

use super::images::ImageSubject;
use super::subject::{Subject, SubjectArgs};
use crate::command::output::Meter;
use crate::config::ModelConfig;
use crate::error::{Error, Result};
use crate::model::{LanguageModel, StageId, StageTrace, stages};
use crate::predict::begun_from;
use crate::study::gates::{GateMeans, Matrix, absolute, biases, for_each_trace, layer_means, rows};
use candle_core::Tensor;
use shown::{Found, LayerRow, Stage, finish};
use std::path::Path;

const AFTER_HELP: &str = "\
Of every stage, a table of layers × units each, as TSV: the transform gates' biases, their mean
over all that is read, the gates and the outputs on one sample, and for a class the gates' mean on
it less the mean over all. Carry gates with weights of their own have a table of their mean. The
table on the screen has means over a layer's units.

Of a net for images a class is a label and a sample an image; of a language model a class is a token
that is read (as --class the,of), a sample is a token of the split, and the layers are the sublayers
of a recurrent highway network's time step or the highway layers of a char CNN.

Examples:
  rhn study gates studies/depth/highway-50 --class 0,7
  rhn study gates checkpoints/shakespeare --class e,q --sample 100";

/// When gates are open: biases, means, one sample, classes
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    #[command(flatten)]
    pub(super) subject: SubjectArgs,
    /// Labels, or tokens, whose rows are compared with all
    #[arg(long = "class", value_name = "NAME,…", value_delimiter = ',')]
    classes: Vec<String>,
    /// Which image, or token, is the sample; counted from 0
    #[arg(long, value_name = "N", default_value_t = 0)]
    sample: usize,
}

/// What is gathered of a stage while a text or images are read.
struct Gathered {
    means: GateMeans,
    rows: u64,
    /// Gates and outputs of the sample, a layer each.
    sample: Option<(Vec<Vec<f64>>, Matrix)>,
}

impl Gathered {
    fn new(classes: &[(String, u32)]) -> Self {
        Self { means: GateMeans::of_classes(classes.iter().map(|class| class.1)), rows: 0, sample: None }
    }

    /// Adds a trace whose rows have these classes; `sample` is the row of it that is the sample, if it is among them.
    fn add(&mut self, trace: &StageTrace, classes: &[u32], sample: Option<usize>) -> Result<()> {
        self.means.add(trace, classes)?;
        self.rows += classes.len() as u64;
        if let Some(row) = sample {
            let of_row = |tensor: &Tensor| Ok(rows(&tensor.narrow(0, row, 1)?)?.remove(0));
            let gates = trace.layers.iter().filter_map(|layer| layer.gate.as_ref()).map(of_row);
            let outputs = trace.layers.iter().map(|layer| of_row(&layer.state));
            self.sample = Some((gates.collect::<Result<_>>()?, outputs.collect::<Result<_>>()?));
        }
        Ok(())
    }

    fn finish(
        self,
        stage: StageId,
        biases: Option<Matrix>,
        first: Option<f64>,
        classes: &[(String, u32)],
    ) -> Stage {
        let mean = self.means.mean();
        let mean_carry = self.means.mean_carry();
        let (sample_gates, sample_outputs) = self.sample.unwrap_or_default();
        let mut matrices: Vec<(String, Matrix)> = Vec::new();
        matrices.extend(biases.clone().map(|matrix| ("biases".to_string(), matrix)));
        for (name, matrix) in [
            ("mean", &mean),
            ("mean-carry", &mean_carry),
            ("sample-gates", &sample_gates),
            ("sample-outputs", &sample_outputs),
        ] {
            if !matrix.is_empty() {
                matrices.push((name.to_string(), matrix.clone()));
            }
        }
        let mut of_classes = Vec::new();
        for (name, class) in classes {
            if let Some(routing) = self.means.routing(*class) {
                of_classes.push((name.clone(), layer_means(&absolute(&routing))));
                matrices.push((format!("class-{class}"), routing));
            }
        }
        let at = |matrix: &Matrix, layer: usize| layer_means(matrix).get(layer).copied();
        let layer = |layer: usize| LayerRow {
            layer: layer + 1,
            bias: biases.as_ref().and_then(|matrix| at(matrix, layer)),
            mean: at(&mean, layer),
            mean_carry: at(&mean_carry, layer),
            sample_gate: at(&sample_gates, layer),
            sample_output: at(&sample_outputs, layer),
            classes: of_classes
                .iter()
                .filter_map(|(name, means)| Some((name.clone(), *means.get(layer)?)))
                .collect(),
        };
        Stage {
            stage: stage.name(),
            rows: self.rows,
            layers: (0..stage.layers()).map(layer).collect(),
            sample_open: share(&sample_gates, |gate| gate > 0.5),
            biases_fallen: first.and_then(|first| share(&biases?, |bias| bias < first)),
            matrices,
        }
    }
}

/// The share of a matrix's values that `is` holds for; `None` of an empty one.
fn share(matrix: &Matrix, is: impl Fn(f64) -> bool) -> Option<f64> {
    let values = || matrix.iter().flatten();
    let count = values().count();
    (count > 0).then(|| values().filter(|value| is(**value)).count() as f64 / count as f64)
}

/// Reads, prints and keeps. Fails if the checkpoint or its corpus is refused, it has no gates, or a class is none of its.
pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    if let Some(subject) = args.subject.open_images()? {
        return run_images(args, &subject);
    }
    let subject = args.subject.open()?;
    let stages = text_stages(args, &subject)?;
    let found = Found {
        study: "gates",
        corpus: &subject.corpus,
        split: subject.split.as_str(),
        sample: args.sample,
        stages: &stages,
    };
    let head = subject.describe(stages.iter().map(|stage| stage.rows).max().unwrap_or(0));
    let directory = args.subject.directory(&subject, "gates")?;
    finish(args, &found, &head, &directory)
}

fn run_images(args: &Args, subject: &ImageSubject) -> anyhow::Result<()> {
    check_sample(args.sample, subject.images.len())?;
    let config = subject.model.config();
    let names: Vec<String> = (0..config.vocab_size).map(|class| class.to_string()).collect();
    let classes =
        named(&args.classes, |name| names.iter().position(|known| known == name).map(|id| id as u32))?;
    let stage = stages(config)[0];
    let mut gathered = Gathered::new(&classes);
    let meter = Meter::new("reading");
    let mut progress = |done, total| {
        meter.set(done, total);
        Ok(())
    };
    for_each_trace(&subject.model, &subject.images, &mut progress, |trace| {
        let start = gathered.rows as usize;
        let count = trace.entering.dim(0)?;
        let labels: Vec<u32> =
            subject.images.labels()[start..start + count].iter().map(|&label| label.into()).collect();
        gathered.add(trace, &labels, within(args.sample, start, count))
    })?;
    drop(meter);
    let biases = biases(config, &subject.tensors()?, stage)?.ok_or_else(no_gates)?;
    let stages = [gathered.finish(stage, Some(biases), first_bias(config, subject.run()), &classes)];
    let [corpus, split] = subject.names();
    let found = Found { study: "gates", corpus, split, sample: args.sample, stages: &stages };
    finish(args, &found, &subject.describe(), &subject.directory("gates")?)
}

/// The stages of a language model: a time step's over the tokens that are read, the embedding's over the same.
fn text_stages(args: &Args, subject: &Subject) -> Result<Vec<Stage>> {
    let batches = subject.batches()?;
    let tokens = &subject.text.tokens;
    check_sample(args.sample, tokens.len())?;
    let sample = batches.reading_order(args.sample).ok_or_else(|| {
        let what = "a study reads whole windows of every batch row, and this token is in none of them";
        Error::config(format!("--sample {}: {what}", args.sample))
    })?;
    let words = subject.loaded.tokenizer.words();
    let id = |name: &str| words.iter().position(|word| word == name).map(|id| id as u32);
    let classes = named(&args.classes, id)?;
    let tensors = subject.tensors()?;
    let frozen = &subject.loaded.model;
    let model = LanguageModel::of_tensors(frozen.config(), &tensors, frozen.precision(), frozen.device())?;
    let all = stages(frozen.config());
    let mut gathered: Vec<Gathered> = all.iter().map(|_| Gathered::new(&classes)).collect();
    let meter = Meter::new("reading");
    let mut state = model.zero_state(batches.count)?;
    let mut start = 0;
    for (window, (first, steps)) in batches.windows().enumerate() {
        let (inputs, _) = batches.window(tokens, window, model.device())?;
        let ids = inputs.flatten_all()?.to_vec1::<u32>()?;
        let sample = within(sample, start, ids.len());
        start += ids.len();
        let traces = model.trace_steps(&inputs, &state)?;
        let mut steps_traces = Vec::new();
        if let Some((traces, after)) = traces {
            state = after;
            steps_traces = traces;
        }
        let mut steps_traces = steps_traces.iter();
        for (stage, gathered) in all.iter().zip(&mut gathered) {
            match stage {
                StageId::Embedding { .. } => {
                    if let Some(trace) = model.trace_words(&inputs.flatten_all()?)? {
                        gathered.add(&trace, &ids, sample)?;
                    }
                }
                _ => {
                    if let Some(trace) = steps_traces.next() {
                        gathered.add(trace, &ids, sample)?;
                    }
                }
            }
        }
        let rows = batches.count;
        meter.set((rows * (first + steps)) as u64, (rows * batches.predicted) as u64);
    }
    drop(meter);
    let config = frozen.config();
    let finished = |(stage, gathered): (&StageId, Gathered)| {
        // Those of an embedding are drawn around their number.
        let first = match stage {
            StageId::Embedding { .. } => None,
            _ => first_bias(config, subject.loaded.directory()),
        };
        Ok(gathered.finish(*stage, biases(config, &tensors, *stage)?, first, &classes))
    };
    let found: Vec<Stage> = all.iter().zip(gathered).map(finished).collect::<Result<_>>()?;
    if found.iter().all(|stage| stage.layers.iter().all(|layer| layer.mean.is_none())) {
        return Err(no_gates());
    }
    Ok(found)
}

/// Where the biases of the core's transform gates began, if at one number: a run that began with the weights of another
/// checkpoint did not.
fn first_bias(config: &ModelConfig, run: &Path) -> Option<f64> {
    use crate::config::CoreConfig;
    if begun_from(run).is_some() {
        return None;
    }
    match &config.spec.core {
        CoreConfig::Rhn(core) => Some(core.transform_bias),
        CoreConfig::FeedForward(core) => Some(core.transform_bias),
        _ => None,
    }
}

fn no_gates() -> Error {
    Error::config("the model's layers have no transform gates, so there is nothing to see")
}

/// The row of `count` from `start` on that is row `sample` of all.
fn within(sample: usize, start: usize, count: usize) -> Option<usize> {
    sample.checked_sub(start).filter(|row| *row < count)
}

fn check_sample(sample: usize, count: usize) -> Result<()> {
    if sample < count {
        return Ok(());
    }
    Err(Error::config(format!("--sample {sample}: there are {count}, counted from 0")))
}

/// The classes' ids. Fails if one is none of the model's.
fn named(names: &[String], id: impl Fn(&str) -> Option<u32>) -> Result<Vec<(String, u32)>> {
    let find = |name: &String| match id(name) {
        Some(id) => Ok((name.clone(), id)),
        None => Err(Error::config(format!("--class {name}: the model has no such label or token"))),
    };
    names.iter().map(find).collect()
}
