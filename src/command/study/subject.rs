//! What a study of a language model works on: a checkpoint and a part of its own corpus.

use super::images::ImageSubject;
use crate::checkpoint::{self, Checkpoint};
use crate::command::args::{DataArgs, DeviceArgs};
use crate::command::output::{Treatment, load, note_unseen, refuse_lists};
use crate::config::{Recipe, Sentences, TrainConfig};
use crate::console::{note, report};
use crate::data::batch::Batches;
use crate::data::{Chosen, Encoded, SplitName, TrainedOn};
use crate::error::{Error, Result};
use crate::eval::Split;
use crate::model::{StageId, stages};
use crate::predict::Loaded;
use crate::readable::too_few;
use crate::study::directory::StudyDirectory;
use candle_core::Tensor;
use std::collections::BTreeMap;
use std::path::PathBuf;

#[derive(Clone, Debug, clap::Args)]
pub(super) struct SubjectArgs {
    /// A run's directory, or hf://owner/name[@revision]
    checkpoint: PathBuf,
    /// The part of the run's corpus to read [default: valid; of images train]
    #[arg(long, value_enum, value_name = "SPLIT")]
    split: Option<SplitName>,
    /// Read this text, or - for the standard input, instead of the run's corpus
    #[arg(long, value_name = "FILE", conflicts_with = "split")]
    file: Option<PathBuf>,
    /// Read only the first N tokens, or images, of it
    #[arg(long, value_name = "N")]
    tokens: Option<usize>,
    /// Where the results go [default: studies/RUN/STUDY]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Write each picture as PNG too, with two pixels for one of the SVG
    #[arg(long)]
    pub(super) png: bool,
    /// Print one line of JSON
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    pub(super) device: DeviceArgs,
}

/// A model and its text.
pub(super) struct Subject {
    pub(super) loaded: Loaded,
    pub(super) recipe: Recipe,
    pub(super) corpus: String,
    pub(super) split: SplitName,
    pub(super) text: Encoded,
}

impl SubjectArgs {
    /// The net and its images, if the checkpoint classifies images. Fails if one of them is refused.
    pub(super) fn open_images(&self) -> Result<Option<ImageSubject>> {
        let checkpoint = Checkpoint::open(&checkpoint::resolve(&self.checkpoint)?)?;
        if checkpoint.config.pixels().is_none() {
            return Ok(None);
        }
        if self.file.is_some() {
            return Err(Error::config(
                "--file is a text for a language model, and this checkpoint is one of images",
            ));
        }
        let (device, precision) = self.device.open()?;
        let split = self.split.unwrap_or(SplitName::Train);
        let directories = self.data.directories()?;
        let count = self.tokens;
        ImageSubject::open(checkpoint, split, count, self.out.clone(), &directories, (device, precision))
            .map(Some)
    }

    /// Opens the checkpoint, and its corpus as `rhn eval` does. Fails if one of them is refused, or the model has no
    /// stage.
    pub(super) fn open(&self) -> Result<Subject> {
        let loaded = load(&self.checkpoint, &self.device)?;
        if stages(loaded.model.config()).is_empty() {
            return Err(Error::config(format!(
                "{} has no stage to study: wanted a char-cnn or char-lstm embedding with highway layers, or a \
                 recurrent highway network; it is: {}",
                self.checkpoint.display(),
                loaded.model.config()
            )));
        }
        let recipe = loaded.recipe()?;
        let chosen = match &self.file {
            Some(file) => Chosen::file(file)?,
            None => self.of_run(&loaded, &recipe)?,
        };
        let split = chosen.split;
        let text = loaded.tokenizer.encode_measured(&chosen.text)?;
        let name = match &self.file {
            Some(_) => chosen.corpus.clone(),
            None => format!("the {} split", split.as_str()),
        };
        note_sentences(&recipe);
        note_unseen(text.unseen, &name, Treatment::of(&loaded.tokenizer));
        let text = match self.tokens {
            Some(count) => text.truncated(count),
            None => text,
        };
        Ok(Subject { loaded, recipe, corpus: chosen.corpus, split, text })
    }

    /// A part of the run's own corpus.
    fn of_run(&self, loaded: &Loaded, recipe: &Recipe) -> Result<Chosen> {
        refuse_lists(
            recipe,
            "there is no text of its own to study: take the model that the run began with, or --file",
        )?;
        let sha256 = loaded.corpus_sha256();
        let run =
            TrainedOn { config: &recipe.corpus, sha256: sha256.as_deref(), directory: loaded.directory() };
        let split = self.split.unwrap_or(SplitName::Valid);
        Chosen::of_run(run, Some(split), &self.data.directories()?)
    }

    /// The directory of the study's results. Fails if it cannot be made.
    pub(super) fn directory(&self, subject: &Subject, study: &str) -> Result<StudyDirectory> {
        StudyDirectory::create(self.out.as_deref(), subject.loaded.directory(), study)
    }
}

impl Subject {
    pub(super) fn stages(&self) -> Vec<StageId> {
        stages(self.loaded.model.config())
    }

    pub(super) fn split(&self) -> Split<'_> {
        Split {
            corpus: &self.corpus,
            split: self.split.as_str(),
            unit: self.loaded.tokenizer.unit(),
            text: &self.text,
        }
    }

    /// The text in the batch rows and windows of training. Fails if it is too short for them.
    pub(super) fn batches(&self) -> Result<Batches> {
        let TrainConfig { batch_size, bptt_steps, .. } = self.recipe.train;
        let name = format!("{} ({})", self.corpus, self.split.as_str());
        let count = self.text.tokens.len();
        let wanted = batch_size.saturating_mul(bptt_steps.saturating_add(1));
        if count < wanted {
            let what = format!(
                "{}: a study reads in the {batch_size} batch rows and windows of {bptt_steps} steps of the run's \
                 training, and needs at least {wanted}; read more (--tokens) or another split or text (--split, --file)",
                too_few(count, "token")
            );
            return Err(Error::data(name, what));
        }
        Batches::batched(&name, count, batch_size, bptt_steps)
    }

    /// The checkpoint's tensors by name, in the numbers that are computed with. Fails if they cannot be read.
    pub(super) fn tensors(&self) -> Result<BTreeMap<String, Tensor>> {
        let model = &self.loaded.model;
        let parameters = self.loaded.checkpoint().parameters(model.precision().dtype(), model.device())?;
        Ok(parameters.tensors())
    }

    /// Says what was read, for the head of a table.
    pub(super) fn describe(&self, tokens: u64) -> String {
        let tokens = crate::readable::grouped(tokens);
        let split = self.split.as_str();
        format!("{}, {} split, {tokens} tokens, batched protocol\n", self.corpus, split)
    }
}

/// Says of a run that learned from sentences that a study reads them otherwise, and returns whether it is one.
pub(super) fn note_sentences(recipe: &Recipe) -> bool {
    let sentences = recipe.corpus.sentences;
    if sentences == Sentences::Running {
        return false;
    }
    note(&format!(
        "the run learned from sentences (corpus.sentences = \"{}\"), and a study reads one running text: its perplexity is \
         not that of rhn eval",
        sentences.as_str()
    ));
    true
}

/// Says on the standard error where the results are.
pub(super) fn report_directory(directory: &StudyDirectory) {
    report(&format!("kept in {}", directory.path().display()));
}
