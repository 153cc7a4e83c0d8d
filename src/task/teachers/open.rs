//! Teachers as a recipe names them: checkpoints with the student's vocabulary.

use super::{Teacher, Teachers};
use crate::checkpoint::{self, Checkpoint};
use crate::config::DistillConfig;
use crate::data::Tokenizer;
use crate::digest::sha256;
use crate::error::{Error, Result};
use crate::model::dropout::DropoutConfig;
use candle_core::Device;
use rhn_kernels::precision::Precision;
use std::path::Path;

impl Teachers {
    /// Opens the checkpoints that `settings` name, whose vocabulary must be that of `tokenizer`.
    ///
    /// # Errors
    /// If there is none, one of them cannot be read, has another vocabulary, or says nothing of the dropout that it is to
    /// have.
    pub fn open(
        settings: &DistillConfig,
        tokenizer: &Tokenizer,
        precision: Precision,
        device: &Device,
    ) -> Result<Self> {
        if settings.teachers().is_empty() {
            return Err(Error::config(
                "train.loss.kind = \"distill\" needs train.loss.teacher = CHECKPOINT, or --init-from CHECKPOINT, which is \
                 then the teacher",
            ));
        }
        let own = tokenizer.to_json();
        let open = |name: &String| {
            let directory = checkpoint::resolve(Path::new(name))?;
            let checkpoint = Checkpoint::open(&directory).map_err(|error| match error {
                Error::Checkpoint { path, what } => {
                    Error::checkpoint(path, format!("{what} (of train.loss.teacher = {name:?})"))
                }
                other => other,
            })?;
            let theirs = checkpoint.read_tokenizer()?;
            if theirs.to_json() != own {
                return Err(Error::checkpoint(&directory, other_vocabulary(&theirs, tokenizer, &directory)));
            }
            let dropout = match settings.teacher_mc {
                0 => DropoutConfig::default(),
                passes => dropout_of(&checkpoint, passes)?,
            };
            Ok(Teacher {
                name: name.clone(),
                sha256: checkpoint.weights_sha256(),
                model: checkpoint.model(precision, device)?,
                dropout,
            })
        };
        let each = settings.teachers().iter().map(open).collect::<Result<_>>()?;
        Self::new(each, settings.clone())
    }
}

/// The dropout that a teacher was trained with.
fn dropout_of(checkpoint: &Checkpoint, passes: usize) -> Result<DropoutConfig> {
    let recipe = checkpoint.read_recipe()?;
    let dropout = recipe.map(|recipe| recipe.train.dropout).unwrap_or_default();
    if !dropout.masks_values(checkpoint.config.spec.core.layers()) {
        let what = format!(
            "its recipe has no dropout, and train.loss.teacher_mc = {passes} averages passes that drop other values each; \
             wanted 0"
        );
        return Err(Error::checkpoint(&checkpoint.directory, what));
    }
    Ok(dropout)
}

/// What differs between the vocabulary of a teacher in `directory` and the student's.
fn other_vocabulary(theirs: &Tokenizer, own: &Tokenizer, directory: &Path) -> String {
    let named = |tokenizer: &Tokenizer| {
        let digest = &sha256(tokenizer.to_json().as_bytes())[..12];
        format!("{} tokens by {}, SHA-256 {digest}…", tokenizer.vocab_size(), tokenizer.unit().as_str())
    };
    let [teacher, student] = [theirs, own].map(Tokenizer::words);
    let at = (0..teacher.len().max(student.len())).find(|&id| teacher.get(id) != student.get(id));
    let differs = match at {
        None => "the same tokens, cut from a text in other ways".into(),
        Some(id) => {
            let token = |words: &[String]| words.get(id).map_or("none".into(), |word| format!("{word:?}"));
            format!("token {id} is {} there and {} here", token(teacher), token(student))
        }
    };
    format!(
        "the teacher has another vocabulary than the run: {} there, {} here; {differs}. A student predicts the teacher's \
         tokens: --set corpus.tokenizer={} takes its vocabulary",
        named(theirs),
        named(own),
        directory.join(crate::storage::TOKENIZER).display()
    )
}
