//! Several ranks are one process to rounding, and themselves to the bit.

mod failures;
mod tensors;

use super::group::Group;
use super::world::World;
use crate::config::{Recipe, Resolved};
use crate::data::{Corpus, DataDirectories, Text};
use crate::model::State;
use crate::task::language::Language;
use crate::task::rescore::{Lists, Rescoring};
use crate::task::vae::VaeTask;
use crate::train::objective::Objective;
use crate::train::step::Stepper;
use crate::train::task::Task;
use candle_core::{Device, Tensor};
use rhn_kernels::precision::Precision;
use std::path::Path;
use std::sync::Arc;

/// Sentences of forty words, of which some are frequent.
fn words(count: usize) -> String {
    let mut seed = 7u32;
    let mut word = || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let uniform = f64::from(seed >> 8) / f64::from(1 << 24);
        format!("w{}", (uniform * uniform * 40.0) as u32)
    };
    let line = |_| (0..9).map(|_| word()).collect::<Vec<_>>().join(" ") + "\n";
    (0..count / 10).map(line).collect()
}

fn language(settings: &[&str], precision: Precision) -> Language {
    let small = [
        "corpus.unit=word",
        "train.batch_size=5",
        "train.bptt_steps=4",
        "train.min_epoch_steps=0",
        "model.embedding.size=6",
        "model.core.hidden_size=6",
        "model.core.recurrence_depth=2",
        "model.output.tied=false",
        "train.optimizer=sgd",
        "train.max_grad_norm=1.0",
    ];
    let all: Vec<String> = small.iter().chain(settings).map(ToString::to_string).collect();
    let recipe: Recipe = Resolved::new("shakespeare", &all).unwrap().recipe;
    let corpus = Corpus {
        name: "words".into(),
        train: Text::from(words(2_000).as_str()),
        valid: Text::from(words(300).as_str()),
        test: Text::from(""),
        sha256: String::new(),
    };
    Language::with_corpus(recipe, corpus, None, precision, &Device::Cpu).unwrap()
}

/// Nats and tokens of each of some steps, the weights after them, and the nats of a validation.
#[derive(Debug, PartialEq)]
struct Course {
    nats: Vec<f64>,
    tokens: Vec<u64>,
    weights: Vec<f64>,
    valid: f64,
}

fn course(settings: &[&str], precision: Precision, world: Arc<dyn World>) -> Course {
    let language = language(settings, precision);
    let course = course_of(&language, language.stepper(None).unwrap(), world);
    assert!(course.tokens.iter().all(|tokens| *tokens > 0 && tokens.is_multiple_of(5)));
    course
}

/// Eight steps of a task, and a validation.
fn course_of<T: Task>(task: &T, mut stepper: Stepper<T::Objective>, world: Arc<dyn World>) -> Course {
    stepper.join(world.clone()).unwrap();
    let batch = |step: usize| task.batch(0, step % task.batch_count(0)).unwrap();
    let step = |step| stepper.step(&batch(step), step as u64, 0.2).unwrap();
    let reports: Vec<_> = (0..8).map(step).collect();
    let valid = task.validate(&stepper.parameters, &*world, &mut |_, _| Ok(())).unwrap();
    Course {
        nats: reports.iter().map(|report| report.nats).collect(),
        tokens: reports.iter().map(|report| report.tokens).collect(),
        weights: weights(&stepper),
        valid: valid.nats_per_token,
    }
}

fn weights<O: Objective>(stepper: &Stepper<O>) -> Vec<f64> {
    let numbers = |tensor: &Tensor| tensor.to_dtype(candle_core::DType::F64)?.flatten_all()?.to_vec1::<f64>();
    stepper.parameters.trained().flat_map(|(_, var)| numbers(var).unwrap()).collect()
}

fn furthest(one: &[f64], other: &[f64]) -> f64 {
    assert_eq!(one.len(), other.len());
    one.iter().zip(other).map(|(one, other)| (one - other).abs() / one.abs().max(1.0)).fold(0.0, f64::max)
}

/// Runs of 2 and 5 ranks are that of one; twice the same number of ranks, to the bit.
fn assert_is_one(settings: &[&str], precision: Precision, most: f64) {
    assert_same_course(&format!("{settings:?}"), |world| course(settings, precision, world), most);
}

/// As [`assert_is_one`], of what `course` does; `what` names it.
fn assert_same_course(what: &str, course: impl Fn(Arc<dyn World>) -> Course + Sync, most: f64) {
    let alone = &Group::run_shared(1, &course)[0];
    assert!(alone.nats.iter().all(|nats| nats.is_finite()), "{what}");
    for size in [2, 5] {
        let run = || Group::run_shared(size, &course);
        let first = run();
        if size == 2 {
            assert_eq!(first, run(), "{what}");
        }
        for course in &first {
            assert_eq!(course, &first[0], "ranks differ: {what} on {size}");
        }
        assert_eq!(alone.tokens, first[0].tokens, "{what} on {size}");
        let of_nats = furthest(&alone.nats, &first[0].nats);
        let of_weights = furthest(&alone.weights, &first[0].weights);
        let of_valid = (alone.valid - first[0].valid).abs();
        let distances = [of_nats, of_weights, of_valid];
        assert!(distances.iter().all(|distance| *distance < most), "{what} on {size}: {distances:?}");
    }
}

#[test]
fn whatever_is_random_or_added_to_the_loss_is_of_the_whole_batch() {
    let variational =
        "train.dropout={word=0.2,embedding=0.1,input=0.2,hidden=0.3,output=0.2,recurrent_weights=0.2}";
    let settings: [&[&str]; 5] = [
        &[],
        &[variational, "train.window=variable", "train.state_reset=0.3"],
        &["train.dropout={kind='per-step',input=0.3,output=0.2}", "train.activation={ar=2.0,tar=1.0}"],
        &[variational, "train.fraternal={kappa=0.2}", "model.output.tied=true"],
        &["model.core={kind='lstm',layers=2,hidden_size=6}", "train.dropout={input=0.2,between=0.3}"],
    ];
    for settings in settings {
        assert_is_one(settings, Precision::F64, 1e-10);
    }
}

#[test]
fn rows_of_tables_and_clusters_that_rest_are_summed_too() {
    let adaptive = "model.output={kind='adaptive',cutoffs=[8,30],div_value=2.0}";
    let settings: [&[&str]; 3] = [
        &["train.loss={kind='sampled',samples=12}", "train.optimizer=adagrad", "model.output.by_word=true"],
        &[adaptive, "train.optimizer=adagrad"],
        &[adaptive, "train.optimizer=adam", "train.batch_size=5", "train.bptt_steps=2"],
    ];
    for settings in &settings[..2] {
        assert_is_one(settings, Precision::F64, 1e-10);
    }
    // Where a sum is rounded otherwise, one of many numbers of two bytes may go to its other neighbour.
    let in_two_bytes = [settings[0], &["train.tables=f16"]].concat();
    assert_is_one(&in_two_bytes, Precision::F32, 1e-3);
    // Few tokens, so that steps without a rare word come.
    let alone = Group::run_shared(1, |world| first_steps(settings[2], world));
    let several = Group::run_shared(3, |world| first_steps(settings[2], world));
    assert!(furthest(&alone[0], &several[0]) < 1e-10);
}

fn first_steps(settings: &[&str], world: Arc<dyn World>) -> Vec<f64> {
    let language = language(settings, Precision::F64);
    let mut stepper = language.stepper(None).unwrap();
    stepper.join(world).unwrap();
    (0..12).for_each(|step| {
        stepper.step(&language.batch(0, step).unwrap(), step as u64, 0.01).unwrap();
    });
    weights(&stepper)
}

/// A small recipe, `name` with `settings`, whose corpus is the directory `corpus`.
fn of_directory(name: &str, corpus: &Path, settings: &[&str]) -> Recipe {
    let small = [
        "train.batch_size=5",
        "train.optimizer=sgd",
        "train.max_grad_norm=1.0",
        "train.dropout={kind='per-step',output=0.3}",
    ];
    let mut all: Vec<String> = small.iter().chain(settings).map(ToString::to_string).collect();
    all.push(format!("corpus.name='{}'", corpus.display()));
    Resolved::new(name, &all).unwrap().recipe
}

#[test]
fn sentences_of_a_vae_are_shared_among_ranks() {
    let directory = tempfile::tempdir().unwrap();
    let line =
        |number: usize| format!("{}\n", ["a", "bc", "dad", "ebb", "fa"][..1 + number * 7 % 5].join(" "));
    let text: String = (0..40).map(line).collect();
    std::fs::write(directory.path().join("train.txt"), &text).unwrap();
    std::fs::write(directory.path().join("valid.txt"), &text[..120]).unwrap();
    let settings = [
        "corpus.unit=word",
        "corpus.unknown=true",
        "model.embedding.size=6",
        "model.core.hidden_size=6",
        "model.latent.size=3",
        "train.latent.word_keep=0.6",
        "train.latent.free_bits=0.02",
        "train.latent.free_bits_epochs=1",
        "model.latent.prior_components=4",
    ];
    for (what, settings) in [("a sentence VAE", &settings[..8]), ("one with a learned prior", &settings)] {
        let course = |world| {
            let recipe = of_directory("shakespeare-vae", directory.path(), settings);
            let places = DataDirectories::new(None).unwrap();
            let task = VaeTask::prepare(recipe, &places, None, Precision::F64, &Device::Cpu).unwrap();
            course_of(&task, task.stepper(None).unwrap(), world)
        };
        assert_same_course(what, course, 1e-10);
    }
}

#[test]
fn lists_are_shared_among_ranks() {
    let directory = tempfile::tempdir().unwrap();
    let words = ["w0", "w1", "w2", "w3", "w4"];
    for split in ["train", "valid"] {
        let mut lists = String::new();
        let mut said = String::new();
        for list in 0..12 {
            said += &format!("{list} {}\n", words[..1 + list % 5].join(" "));
            for hypothesis in 0..1 + list * 5 % 4 {
                let (first, last) = ((list + hypothesis) % 3, 3 + (list * hypothesis) % 3);
                lists += &format!("{list}\t-{hypothesis}.5\t{}\n", words[first..last.min(5)].join(" "));
            }
        }
        std::fs::write(directory.path().join(format!("{split}.tsv")), lists).unwrap();
        std::fs::write(directory.path().join(format!("{split}.text")), said).unwrap();
    }
    let spec = ["model.embedding.size=6", "model.core.hidden_size=6"];
    let settings = [&spec[..], &["corpus.unit=word", "train.lists.weight=0.7"]].concat();
    for output in ["model.output.tied=false", "model.output={kind='mixture',components=2}"] {
        let settings = [&settings[..], &[output, "train.dropout={input=0.2,output=0.2}"]].concat();
        let course = |world| {
            let recipe = of_directory("rescore", directory.path(), &settings);
            let tokenizer = language(&[], Precision::F64).tokenizer().clone();
            let lists =
                Lists::open(&recipe.corpus.name, recipe.train.lists.unwrap_or_default().format).unwrap();
            let task = Rescoring::open(recipe, lists, tokenizer, Precision::F64, &Device::Cpu).unwrap();
            course_of(&task, task.resumed_stepper().unwrap(), world)
        };
        assert_same_course(output, course, 1e-10);
    }
}

#[test]
fn single_precision_is_as_close_as_it_can_be() {
    assert_is_one(&["train.dropout={input=0.2,hidden=0.3}"], Precision::F32, 1e-5);
}

#[test]
fn a_run_goes_on_with_another_number_of_ranks() {
    let settings = &["train.dropout={input=0.2}"];
    let language = || language(settings, Precision::F64);
    let whole = Group::run_shared(2, |world| {
        let language = language();
        let mut stepper = language.stepper(None).unwrap();
        stepper.join(world).unwrap();
        stepper.step(&language.batch(0, 0).unwrap(), 0, 0.2).unwrap();
        let State(layers) = stepper.whole_state().unwrap();
        let parts = layers.into_iter().flatten();
        parts.map(|part| part.to_vec2::<f64>().unwrap()).collect::<Vec<_>>()
    });
    let alone = Group::run_shared(1, |world| {
        let language = language();
        let mut stepper = language.stepper(None).unwrap();
        stepper.join(world).unwrap();
        stepper.step(&language.batch(0, 0).unwrap(), 0, 0.2).unwrap();
        stepper.carried.0.concat().iter().map(|part| part.to_vec2::<f64>().unwrap()).collect::<Vec<_>>()
    });
    assert_eq!(whole[0], whole[1]);
    for (one, other) in alone[0].iter().zip(&whole[0]) {
        assert!(furthest(&one.concat(), &other.concat()) < 1e-12);
    }
}
