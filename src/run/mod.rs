//! A run from its settings to its result: its directory, whether it begins or goes on, and what records it.

mod any;
pub(crate) mod console;
pub mod directory;
mod first;
mod lists;
mod location;
pub(crate) mod packed;
mod prepared;
mod sentences;
mod shards;
mod tensorboard;
mod training;
mod unread;
mod vae;

pub(crate) use any::AnyRun;
pub use directory::{Follower, RunDirectory};
pub(crate) use prepared::Prepared;
pub(crate) use training::Ended;
pub use training::Finish;

use crate::checkpoint::{Checkpoint, newest_recipe};
use crate::config::train::OnNonFinite;
use crate::config::{Recipe, Resolved};
use crate::console::note;
use crate::data::chosen::images_of;
use crate::data::images::ImageCorpus;
use crate::data::{Corpus, DataDirectories, ShardedCorpus};
use crate::error::{Error, Result};
use crate::parallel::world::{World, agree};
use crate::readable::grouped;
use crate::storage::{Lock, MANIFEST, RECIPE};
use crate::task::fit;
use crate::task::images::ImageTask;
use crate::task::language::Language;
use crate::task::vocabulary;
use crate::train::limits::Limits;
use crate::train::resume::Resumed;
use crate::train::step::Stepper;
use crate::train::task::Task;
use candle_core::Device;
use first::{First, TAKEN, TEACHER};
use prepared::trained_on;
use rhn_kernels::precision::Precision;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How a run is asked for.
pub(crate) struct Request {
    /// A built-in recipe, a file that ends in .toml, or the directory of a run, to go on with its own.
    pub recipe: String,
    /// Keys of the recipe that are set otherwise, as `key=value`.
    pub settings: Vec<String>,
    /// The text to train on instead of the recipe's.
    pub corpus: Option<String>,
    /// What to do at a step that is not finite, instead of what the recipe says.
    pub on_non_finite: Option<OnNonFinite>,
    /// The run's directory, if not the usual one.
    pub out: Option<PathBuf>,
    /// Whether to go on with the run in the directory.
    pub resume: bool,
    /// The checkpoint whose weights, sizes and vocabulary to begin with.
    pub init_from: Option<PathBuf>,
    /// Whether its vocabulary gets the symbols of the training text that it lacks.
    pub grow_vocab: bool,
    pub precision: Precision,
    pub device: Device,
    /// Where corpora are looked for.
    pub directories: DataDirectories,
    pub limits: Limits,
    /// The ranks that train it together.
    pub world: Arc<dyn World>,
    /// Whether to write the numbers for TensorBoard too; a run that did so goes on with it.
    pub tensorboard: bool,
}

/// A run that is ready to train, in a directory that it holds.
pub(crate) struct Run<T: Task> {
    pub task: T,
    pub out: PathBuf,
    /// The state that it goes on from.
    pub resumed: Option<Resumed>,
    stepper: Stepper<T::Objective>,
    limits: Limits,
    tensorboard: bool,
    /// Of rank 0 alone, from when the run begins.
    lock: Option<Lock>,
}

impl Request {
    /// The recipe with its settings, the run that was named in its place, and the checkpoint to begin with, which must be of a
    /// kind that the recipe can begin with.
    fn resolve(&self) -> Result<(Resolved, Option<PathBuf>, Option<First>)> {
        let first = self.init_from.as_deref().map(First::open).transpose()?;
        let run = location::named(&self.recipe)?;
        let saved = run.as_deref().map(location::recipe).transpose()?;
        let saved = saved.map(|saved| saved.to_string_lossy().into_owned());
        // What a checkpoint lends, or has lent a run that goes on, takes the place of a recipe's own sizes: the whole is checked
        // once they are known.
        let name = saved.as_ref().unwrap_or(&self.recipe);
        let mut resolved = match &first {
            None if self.resume => Resolved::unchecked(name, &self.settings, None)?,
            None => Resolved::new(name, &self.settings)?,
            Some(first) => {
                first.check_settings(&self.settings)?;
                Resolved::unchecked(name, &self.settings, Some(first.spec()))?
            }
        };
        if let Some(corpus) = &self.corpus {
            resolved.recipe.corpus.name = corpus.clone();
        }
        if let Some(policy) = self.on_non_finite {
            resolved.recipe.train.on_non_finite = policy;
        }
        self.note_unread(&resolved)?;
        first.as_ref().map_or(Ok(()), |first| first.check_kind(resolved.recipe.task.kind))?;
        Ok((resolved, run, first))
    }

    /// A run that begins: sizes are those of the checkpoint to begin with, if there is one, and a small text's own.
    fn begin(&self, mut resolved: Resolved, first: Option<&First>) -> Result<Language> {
        first.map_or(Ok(()), |first| first.lend(&mut resolved))?;
        let is_taught_by_first = first.is_some_and(|first| first.teach(&mut resolved));
        let update = resolved.recipe.train.update;
        if first.is_none() && !update.is_all() {
            return Err(Error::config(format!(
                "train.update = \"{}\" leaves all other weights as they were trained: --init-from CHECKPOINT gives them",
                update.name()
            )));
        }
        if let Some(shards) = ShardedCorpus::find(&resolved.recipe.corpus, &self.directories)? {
            return self.begin_shards(resolved.recipe, shards, first, is_taught_by_first);
        }
        let vocabulary = |recipe: &Recipe, corpus: &Corpus| match first {
            None => vocabulary::build(recipe, corpus),
            Some(first) if self.grow_vocab => first.grow(recipe, corpus),
            Some(first) => first.vocabulary(recipe, corpus),
        };
        let mut recipe = resolved.recipe.clone();
        let is_free = |key: &str| !resolved.is_set(key);
        let fitted = fit::open(&mut recipe, &self.directories, is_free, vocabulary)?;
        let mut taken: Vec<String> = fitted.changes.iter().map(|(key, _)| key.to_string()).collect();
        if !fitted.changes.is_empty() {
            let changes: Vec<&str> = fitted.changes.iter().map(|(_, change)| change.as_str()).collect();
            let name = &recipe.corpus.name;
            let tokens = grouped(fitted.tokens as u64);
            note(&format!(
                "{name} is small, {tokens} tokens to train on: {}; --set keeps others",
                changes.join(", ")
            ));
        }
        if let Some(first) = first {
            taken.extend(TAKEN.map(String::from));
            taken.extend(is_taught_by_first.then(|| TEACHER.to_string()));
            let vocab_size = fitted.tokenizer.vocab_size();
            first.keep_embedding_size(&mut recipe, vocab_size);
            if self.grow_vocab {
                let new = vocab_size - first.tokenizer.vocab_size();
                note(&format!("the vocabulary grows by {new} to {vocab_size}"));
            }
        }
        let tokenizer = Some(fitted.tokenizer);
        let language = Language::with_corpus(recipe, fitted.corpus, tokenizer, self.precision, &self.device)?;
        Ok(language.with_taken(taken))
    }

    /// As [`Request::begin`], of images.
    fn begin_images(
        &self,
        mut resolved: Resolved,
        first: Option<&First>,
        resumed: Option<(&Resumed, &Path)>,
        images: Option<ImageCorpus>,
    ) -> Result<ImageTask> {
        if self.grow_vocab {
            return Err(Error::config("--grow-vocab is for text: images have labels, and no vocabulary"));
        }
        first.map_or(Ok(()), |first| first.lend(&mut resolved))?;
        let config = &resolved.recipe.corpus;
        let corpus = match (images, resumed) {
            (Some(images), _) => images,
            (None, None) => ImageCorpus::open(config, &self.directories)?,
            (None, Some(resumed)) => images_of(trained_on(config, resumed), &self.directories)?,
        };
        ImageTask::with_corpus(resolved.recipe, corpus, self.precision, &self.device)
    }

    /// Opens the corpus and the run's directory, which is then held. Fails if the recipe, the corpus or the directory
    /// cannot be used; a failed start leaves no directory behind.
    pub(crate) fn open(&self) -> Result<AnyRun> {
        self.open_with(None)
    }

    /// As [`Request::open`], with the images of the recipe if they are open already.
    ///
    /// Of several ranks the first opens it alone, and tells the others where.
    pub(crate) fn open_with(&self, images: Option<ImageCorpus>) -> Result<AnyRun> {
        let world = &*self.world;
        let opened = if world.rank() == 0 {
            let opened = self.open_alone(images, None);
            let out =
                opened.as_ref().map_or_else(|_| Vec::new(), |run| run.out().as_os_str().as_bytes().to_vec());
            world.gather(out)?;
            opened
        } else {
            let out = OsString::from_vec(world.gather(Vec::new())?.swap_remove(0));
            match out.is_empty() {
                true => Err(Error::other_rank("rank 0 could not open the run")),
                false => self.open_alone(images, Some(out.into())),
            }
        };
        let mut run = agree(world, opened)?;
        run.check_same(world)?;
        // Only now, when all ranks come here: GPUs that connect wait for each other.
        let joined = run.join(self.world.clone());
        agree(world, joined)?;
        // And only now, so that a start which fails on any rank leaves no directory behind.
        let held = if world.rank() == 0 { run.hold() } else { Ok(()) };
        agree(world, held)?;
        Ok(run)
    }

    /// As [`Request::open`] for one rank, up to where a new run's directory is made; a rank that is told where, `at`, leaves the
    /// directory to rank 0.
    fn open_alone(&self, images: Option<ImageCorpus>, at: Option<PathBuf>) -> Result<AnyRun> {
        let (mut resolved, run, first) = self.resolve()?;
        let leads = at.is_none();
        let out = at.unwrap_or_else(|| self.directory(run, &resolved));
        let held = if leads && out.exists() { Some(location::hold(&out, self.resume)?) } else { None };
        let resumed = if self.resume { find_state(&out, &mut resolved)? } else { None };
        let prepared = self.prepare(resolved, first.as_ref(), resumed.as_ref(), (&out, images))?;
        let first = first.filter(|_| resumed.is_none());
        let begun_from = first.map(|first| first.checkpoint.weights_sha256());
        let place = (out, resumed, held, begun_from);
        Ok(match prepared {
            Prepared::Language(ready) => AnyRun::Language(Box::new(self.ready(*ready, place)?)),
            Prepared::Images(ready) => AnyRun::Images(Box::new(self.ready(*ready, place)?)),
            Prepared::Classify(ready) => AnyRun::Classify(Box::new(self.ready(*ready, place)?)),
            Prepared::Rescoring(ready) => AnyRun::Rescoring(Box::new(self.ready(*ready, place)?)),
            Prepared::Vae(ready) => AnyRun::Vae(Box::new(self.ready(*ready, place)?)),
        })
    }

    /// The directory of what is asked for, where `run` is that of the run to be resumed, if one was named.
    fn directory(&self, run: Option<PathBuf>, resolved: &Resolved) -> PathBuf {
        let named = self.out.clone().or(run);
        named.unwrap_or_else(|| location::default(Path::new("checkpoints"), &resolved.name))
    }

    /// The run of a task that is known to fit.
    fn ready<T: Task>(
        &self,
        (task, stepper): (T, Stepper<T::Objective>),
        (out, resumed, held, begun_from): (PathBuf, Option<Resumed>, Option<Lock>, Option<String>),
    ) -> Result<Run<T>> {
        resumed.as_ref().map_or(Ok(()), |resumed| resumed.check_task(&task))?;
        Ok(Run {
            task,
            out,
            resumed,
            stepper: stepper.begun_from(begun_from),
            limits: self.limits,
            tensorboard: self.tensorboard,
            lock: held,
        })
    }
}

/// The recipe of the run in `directory`, if one is there that has saved something.
///
/// # Errors
/// If it is damaged or not understood.
pub(crate) fn begun(directory: &Path) -> Result<Option<Recipe>> {
    if !directory.join(RECIPE).is_file() && newest_recipe(directory).is_none() {
        return Ok(None);
    }
    let saved = location::recipe(directory)?;
    Ok(Some(Resolved::unchecked(&saved.to_string_lossy(), &[], None)?.recipe))
}

/// Lets a run whose best model is lost or damaged publish the weights that it goes on with and the best of what follows, and
/// says so; the model of a run with a result is needed as it was, unless these weights are it, or the run goes on by `recipe`.
fn forget_lost_model(out: &Path, resumed: &mut Resumed, recipe: &Recipe) {
    let position = &mut resumed.position;
    let has_result = directory::read_result(out).is_some_and(|result| result.steps == position.step);
    let goes_on = position.epoch < recipe.train.epochs && recipe.train != resumed.recipe.train;
    let is_best = position.best.as_ref().is_some_and(|best| best.step == Some(position.step));
    if (has_result && !goes_on && !is_best) || position.best.is_none() {
        return;
    }
    let what = match Checkpoint::open(out) {
        Ok(checkpoint) if checkpoint.verified => return,
        Ok(_) => {
            let manifest = out.join(MANIFEST);
            format!("{}: is missing: nothing says whether the model is whole", manifest.display())
        }
        Err(error) => error.to_string(),
    };
    note(&format!(
        "{what}. The best weights so far are lost; of these and what follows the best is published"
    ));
    position.best = None;
    resumed.lost_best = true;
}

/// The training state to go on with, if there is one.
fn find_state(out: &Path, resolved: &mut Resolved) -> Result<Option<Resumed>> {
    let mut resumed = Resumed::find(out, note)?;
    match &mut resumed {
        Some(resumed) => {
            resumed.check_settings(resolved)?;
            forget_lost_model(out, resumed, &resolved.recipe);
        }
        None if out.join(crate::storage::MODEL).exists() => {
            let what = "has a model but no training state to go on with; --init-from begins another run with its weights";
            return Err(Error::checkpoint(out, what));
        }
        None => {
            location::check_foreign(out)?;
            note(&format!("{}: no saved training state; beginning at the first step", out.display()));
        }
    }
    Ok(resumed)
}

#[cfg(test)]
mod tests {
    use super::Request;
    use crate::data::DataDirectories;
    use crate::parallel::group::Group;
    use crate::train::limits::Limits;
    use candle_core::Device;
    use rhn_kernels::precision::Precision;

    #[test]
    fn a_start_that_fails_on_any_rank_fails_on_all_and_leaves_no_directory() {
        let folder = tempfile::tempdir().unwrap();
        let line = "the same sentence over and over, so that a few rows are filled\n";
        for (name, lines) in [("text", 60), ("other", 61)] {
            std::fs::write(folder.path().join(name), line.repeat(lines)).unwrap();
        }
        let out = folder.path().join("run");
        let small = ["model.core.hidden_size=4", "train.batch_size=2", "train.bptt_steps=8"];
        let start = |corpus_of_rank: [&str; 2]| {
            Group::run_shared(2, |world| {
                let corpus = folder.path().join(corpus_of_rank[world.rank()]);
                let request = Request {
                    recipe: "shakespeare".into(),
                    settings: small.map(String::from).to_vec(),
                    corpus: Some(corpus.to_str().unwrap().into()),
                    on_non_finite: None,
                    out: Some(out.clone()),
                    resume: false,
                    init_from: None,
                    grow_vocab: false,
                    precision: Precision::F32,
                    device: Device::Cpu,
                    directories: DataDirectories::new(None).unwrap(),
                    limits: Limits { max_steps: None, time: None },
                    tensorboard: false,
                    world,
                };
                request.open().map(drop).map_err(|error| (error.exit_code(), error.to_string()))
            })
        };
        for (corpora, wanted) in [
            (["text", "other"], "rank 1 reads another text there than rank 0"),
            (["text", "none"], "another rank failed"),
            (["none", "text"], "none"),
        ] {
            let ended = start(corpora);
            assert!(ended[0].as_ref().unwrap_err().1.contains(wanted), "{ended:?}");
            assert!(ended.iter().all(|ended| ended.as_ref().unwrap_err().0 == 3), "{ended:?}");
            assert!(!out.exists(), "{corpora:?}");
        }
        start(["text", "text"]).into_iter().for_each(|ended| ended.unwrap());
        assert!(out.join("lock").exists());
    }
}
