//! `rhn eval` of a corpus of shards, or of sentences that are no running text: the split is read part by part.

use super::{Args, Found, Meter, Protocol};
use crate::config::corpus::{Sentences, Storage};
use crate::config::{CorpusConfig, Recipe};
use crate::data::chosen::shards_of;
use crate::data::{DataDirectories, Encoded, ShardedCorpus, SplitName, Tokenizer, TrainedOn};
use crate::error::Error;
use crate::eval::adapt::Adaptation;
use crate::eval::streamed::Streamed;
use crate::predict::{Loaded, WindowReader};
use crate::signals::Signals;
use crate::task::split::{SplitTokens, line_end};
use anyhow::Result;
use std::sync::Arc;

/// The corpus of shards that is asked for, and the SHA-256 that it must have; none if it is another corpus.
pub(super) fn shards<'a>(
    args: &Args,
    run: TrainedOn<'a>,
    tokenizer: &Tokenizer,
    directories: &DataDirectories,
) -> Result<Option<(ShardedCorpus, Option<&'a str>)>> {
    if !args.file.is_empty() {
        return Ok(None);
    }
    let Some(path) = &args.corpus else {
        return Ok(shards_of(run, tokenizer, directories)?.map(|corpus| (corpus, run.sha256)));
    };
    let Some(name) = path.to_str().filter(|_| path.is_dir()) else { return Ok(None) };
    let place = |name: &str| std::fs::canonicalize(name).ok();
    let own = name == run.config.name || place(name).is_some_and(|one| place(&run.config.name) == Some(one));
    let config = CorpusConfig {
        name: name.to_owned(),
        shards: run.config.shards.clone().filter(|_| own),
        storage: if own { run.config.storage } else { Storage::Memory },
        ..run.config.clone()
    };
    Ok(ShardedCorpus::find(&config, directories)?.map(|corpus| (corpus, None)))
}

/// Reads a split part by part.
pub(super) struct Reading<'a> {
    args: &'a Args,
    loaded: &'a Loaded,
    recipe: &'a Recipe,
    temperature: Option<f64>,
}

impl<'a> Reading<'a> {
    /// A reader with what `args` ask for.
    ///
    /// # Errors
    /// If something is asked for that reads running text alone.
    pub(super) fn new(args: &'a Args, loaded: &'a Loaded, recipe: &'a Recipe) -> Result<Self> {
        let reading = Self { args, loaded, recipe, temperature: args.adapt.settings()?.temperature };
        if reading.is_apart() {
            let sentences = recipe.corpus.sentences.as_str();
            reading.refuse_others(&format!("the run's corpus.sentences is {sentences:?}"))?;
        }
        Ok(reading)
    }

    /// Whether the run's sentences are no running text.
    pub(super) fn is_apart(&self) -> bool {
        self.recipe.corpus.sentences != Sentences::Running
    }

    fn refuse_others(&self, why: &str) -> Result<()> {
        let settings = self.args.adapt.settings()?;
        let adapts =
            settings.dynamic.is_some() || settings.cache.is_some() || self.args.adapt.free().is_some();
        if self.args.mc.is_some() || adapts {
            let what = "--mc, --dynamic, --cache and --tune read a running text that is in memory, as --file FILE is of a run on \
                running text";
            return Err(Error::config(format!("{what}; {why}")).into());
        }
        Ok(())
    }

    /// A text that is in memory.
    pub(super) fn text(
        &self,
        [corpus, split]: [&str; 2],
        text: &Encoded,
        signals: &Signals,
    ) -> Result<Found> {
        let parts = (std::iter::once(Ok(text.clone())), text.bytes);
        self.evaluate([corpus, split], parts, Some(SplitTokens::Text(Arc::new(text.clone()))), signals)
    }

    /// A split of shards, the test split unless another is named. `sha256` is that of the corpus that is wanted.
    pub(super) fn shards(&self, corpus: &ShardedCorpus, sha256: Option<&str>) -> Result<Found> {
        self.refuse_others("this corpus is one of shards")?;
        let tokenizer = &self.loaded.tokenizer;
        let split = match self.args.split.unwrap_or(SplitName::Test) {
            SplitName::Train => 0,
            SplitName::Valid => 1,
            SplitName::Test => 2,
            SplitName::All => {
                let what = "--split all is for a text; a corpus of shards has train, valid and test";
                return Err(Error::config(what).into());
            }
        };
        let name = ["train", "valid", "test"][split];
        if corpus.splits[split].is_empty() {
            return Err(Error::data(&corpus.name, format!("has no shards for {name}")).into());
        }
        if let Some(wanted) = sha256 {
            let found = corpus.sha256(tokenizer)?;
            if found != wanted {
                let what = format!(
                    "is another corpus than the run's: its SHA-256 is {found}, the run was trained on {wanted}; to \
                     evaluate this one, name it with --corpus"
                );
                return Err(Error::data(&corpus.name, what).into());
            }
        }
        let bytes = corpus.splits[split].iter().map(|shard| shard.bytes).sum();
        let parts = (corpus.measured(split, tokenizer), bytes);
        let tokens = match self.args.protocol {
            Protocol::Stream => None,
            Protocol::Batched => Some(SplitTokens::Shards(corpus.encode(split, tokenizer)?)),
        };
        // What was encoded until here is kept if the process is killed.
        self.evaluate([&corpus.name, name], parts, tokens, &Signals::listen()?)
    }

    fn evaluate(
        &self,
        [corpus, split]: [&str; 2],
        parts: (impl Iterator<Item = crate::error::Result<Encoded>>, u64),
        tokens: Option<SplitTokens>,
        signals: &Signals,
    ) -> Result<Found> {
        let Loaded { model, tokenizer, .. } = self.loaded;
        let sentences = self.recipe.corpus.sentences;
        let context = line_end(sentences, tokenizer)?;
        let resets_at = context.filter(|_| sentences == Sentences::Reset);
        let unit = tokenizer.unit();
        let streamed = Streamed { corpus, split, unit, unknown: tokenizer.unknown_id(), sentences };
        let meter = Meter::new("evaluating");
        let progress = &mut |done, total| {
            meter.set(done, total);
            signals.check()
        };
        let reader = |rows: usize| -> Result<WindowReader> {
            let reader = WindowReader::new(model, rows)?.at_temperature(self.temperature.unwrap_or(1.0));
            Ok(reader.resetting_at(resets_at))
        };
        let found = match tokens.filter(|_| matches!(self.args.protocol, Protocol::Batched)) {
            None => streamed.stream(&mut reader(1)?, model.device(), parts, context, progress)?,
            Some(tokens) => {
                let windows = tokens.validation(&format!("{corpus} ({split})"), self.recipe, tokenizer)?;
                let window = |index| windows.window(0, index, model.device());
                let rows = self.recipe.train.batch_size;
                let counts = (windows.count(0), tokens.size().unseen);
                streamed.batched(&mut reader(rows)?, counts, window, progress)?
            }
        };
        let adaptation = Adaptation::at_temperature(self.temperature.unwrap_or(1.0))?;
        Ok(Found::Plain(found.with_adaptation(adaptation)))
    }
}
