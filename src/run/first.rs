//! The checkpoint that a run begins with: its weights, and the sizes and the vocabulary that come with them.

use crate::checkpoint::{self, Checkpoint};
use crate::config::distill::TeacherNames;
use crate::config::{EmbeddingConfig, LossConfig, ModelConfig, ModelSpec, Recipe, Resolved, TaskKind};
use crate::data::{Corpus, Tokenizer};
use crate::error::{Error, Result};
use crate::task::vocabulary;
use std::path::Path;

/// The checkpoint that a run begins with.
pub(super) struct First {
    pub(super) checkpoint: Checkpoint,
    pub(super) tokenizer: Tokenizer,
    /// What it was asked for by.
    name: String,
}

/// What a run takes from the checkpoint that it begins with, where nobody has set it.
pub(super) const TAKEN: [&str; 2] = ["model", "corpus.unit"];

/// The key under which [`First::teach`] names the checkpoint.
pub(super) const TEACHER: &str = "train.loss.teacher";

impl First {
    pub(super) fn open(name: &Path) -> Result<Self> {
        let checkpoint = Checkpoint::open(&checkpoint::resolve(name)?)?;
        let name = name.display().to_string();
        Ok(Self { tokenizer: checkpoint.read_tokenizer()?, checkpoint, name })
    }

    /// Refuses a checkpoint of another kind of model than the task begins with: a classifier of sentences begins with a
    /// language model or another one, all others with their like.
    pub(super) fn check_kind(&self, task: TaskKind) -> Result<()> {
        let spec = &self.checkpoint.config.spec;
        let refuse = |what: &str| {
            let what = format!(
                "{what}: --init-from cannot begin a run of [task] kind = \"{}\" with it",
                task.as_str()
            );
            Err(Error::checkpoint(&self.checkpoint.directory, what))
        };
        let is_of_images = self.checkpoint.config.pixels().is_some();
        match (spec.latent.is_some(), spec.classifier.is_some(), task) {
            (false, false, task) if is_of_images != (task == TaskKind::Images) => {
                refuse(if is_of_images { "classifies images" } else { "reads text" })
            }
            (true, _, TaskKind::Vae) | (_, true, TaskKind::Classify) => Ok(()),
            (true, ..) => refuse("is a sentence VAE"),
            (_, true, _) => refuse("classifies sentences and is no language model"),
            (false, false, TaskKind::Vae) => refuse("is no sentence VAE"),
            (false, false, _) => Ok(()),
        }
    }

    /// The model of the checkpoint.
    pub(super) fn spec(&self) -> &ModelSpec {
        &self.checkpoint.config.spec
    }

    /// Refuses settings of another kind of embedding or core than the checkpoint's, which may lack keys that the other needs.
    pub(super) fn check_settings(&self, settings: &[String]) -> Result<()> {
        let spec = serde_json::to_value(self.spec()).expect("a model's settings have string keys");
        for part in ["embedding", "core"] {
            let key = format!("model.{part}.kind");
            let there = spec[part]["kind"].as_str().unwrap_or_default();
            let given = settings.iter().filter_map(|setting| setting.split_once('='));
            let given = given.filter(|(other, _)| other.trim() == key);
            for (_, value) in given {
                let here = value.trim().trim_matches(['"', '\'']);
                if here != there {
                    return Err(self.is_another(&[[key, there.into(), here.into()]]));
                }
            }
        }
        Ok(())
    }

    /// The refusal of settings that the checkpoint does not have: each key, the value there and the one wanted.
    fn is_another(&self, conflicts: &[[String; 3]]) -> Error {
        let show = |[key, there, here]: &[String; 3]| format!("its {key} is {there}, wanted {here}");
        let all: Vec<String> = conflicts.iter().map(show).collect();
        let what = format!(
            "is another model: {}; --init-from takes every size from the checkpoint that is not set otherwise",
            all.join(", ")
        );
        Error::checkpoint(&self.checkpoint.directory, what)
    }

    /// Gives the recipe the sizes and the unit of the checkpoint.
    ///
    /// # Errors
    /// If a size was set otherwise; names each.
    pub(super) fn lend(&self, resolved: &mut Resolved) -> Result<()> {
        if self.checkpoint.config.spec.classifier.is_some() {
            self.checkpoint.check_language()?;
        }
        self.lend_spec(self.checkpoint.config.spec.clone(), resolved)
    }

    /// Gives the recipe the sizes of `spec` and the unit of the checkpoint.
    fn lend_spec(&self, spec: ModelSpec, resolved: &mut Resolved) -> Result<()> {
        let mut own = resolved.recipe.clone();
        own.model = spec;
        if resolved.is_set("model.core.variant") {
            let grown = resolved.recipe.model.core.grown_from(&own.model.core);
            own.model.core = grown.unwrap_or(own.model.core);
        }
        if let Some((wanted, latent)) = resolved.recipe.model.latent.as_ref().zip(own.model.latent.as_mut())
            && resolved.is_set("model.latent.prior_components")
            && let Some(grown) = wanted.grown_from(latent)
        {
            *latent = grown;
        }
        own.corpus.unit = self.tokenizer.unit();
        let conflicts = resolved.conflicts(&TAKEN[..1], &own);
        if !conflicts.is_empty() {
            return Err(self.is_another(&conflicts));
        }
        let taken = match resolved.is_set(TAKEN[1]) {
            true => &TAKEN[..1], // a unit that differs is refused with the vocabulary
            false => &TAKEN[..],
        };
        resolved.take(taken, &own)
    }

    /// Gives the recipe of a classifier of sentences the sizes of the embedding and the core, and the unit, of the
    /// checkpoint, which may be a language model's or a classifier's.
    ///
    /// # Errors
    /// As [`First::lend`].
    pub(super) fn lend_classifier(&self, resolved: &mut Resolved) -> Result<()> {
        let mut spec = self.checkpoint.config.spec.clone();
        if spec.classifier.is_none() {
            spec.output = resolved.recipe.model.output.clone();
            spec.classifier = resolved.recipe.model.classifier.clone();
        }
        self.lend_spec(spec, resolved)
    }

    /// Names the checkpoint as the teacher of a run that has none, and gives whether so.
    pub(super) fn teach(&self, resolved: &mut Resolved) -> bool {
        match &mut resolved.recipe.train.loss {
            LossConfig::Distill(distill) if distill.teacher.is_none() => {
                distill.teacher = Some(TeacherNames::One(self.name.clone()));
                true
            }
            _ => false,
        }
    }

    /// The vocabulary. Fails if the recipe needs it sorted, and neither the checkpoint nor the new text says that it is.
    pub(super) fn vocabulary(&self, recipe: &Recipe, corpus: &Corpus) -> Result<Tokenizer> {
        if recipe.needs_sorted_words() && !self.checkpoint.config.sorted_by_frequency {
            vocabulary::check(recipe, &self.tokenizer, &self.tokenizer.encode(&corpus.train)?)?;
        }
        Ok(self.tokenizer.clone())
    }

    /// The vocabulary with the symbols of the training text that it lacks.
    pub(super) fn grow(&self, recipe: &Recipe, corpus: &Corpus) -> Result<Tokenizer> {
        if recipe.needs_sorted_words() {
            return Err(Error::config(
                "--grow-vocab puts new words behind all others, and model.output.kind = \"adaptive\" and sampled losses need \
                 them sorted by falling frequency",
            ));
        }
        self.tokenizer.grown(&recipe.corpus, &corpus.train)
    }

    /// Sets the size of the embedding where it would follow the vocabulary's.
    pub(super) fn keep_embedding_size(&self, recipe: &mut Recipe, vocab_size: usize) {
        let size = self.checkpoint.config.embedding_size();
        let follows = ModelConfig::new(recipe.model.clone(), vocab_size).embedding_size() != size;
        if let EmbeddingConfig::Word(table) = &mut recipe.model.embedding {
            table.size = if follows { Some(size) } else { table.size };
        }
    }
}
