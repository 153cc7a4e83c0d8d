//! How a model is measured: validation in the batch rows of training, the test as a stream.

use super::Language;
use crate::config::TrainConfig;
use crate::config::corpus::Sentences;
use crate::data::Encoded;
use crate::error::Result;
use crate::eval::streamed::Streamed;
use crate::eval::{self, Evaluation, EvaluationProgress, Split};
use crate::model::FrozenModel;
use crate::parallel::world::{World, agree};
use crate::predict::WindowReader;
use crate::task::split::{SplitTokens, line_end};

impl Language {
    /// The token at which the state goes back to zero, if it does.
    pub(super) fn resets_at(&self) -> Option<u32> {
        let resets = self.recipe.corpus.sentences == Sentences::Reset;
        self.tokenizer.line_end_id().filter(|_| resets)
    }

    /// A split in memory, with the names that reports give it.
    fn split<'a>(&'a self, name: &'a str, text: &'a Encoded) -> Split<'a> {
        Split { corpus: &self.corpus, split: name, unit: self.unit(), text }
    }

    /// A split whose tokens are read in parts.
    fn streamed<'a>(&'a self, split: &'a str) -> Streamed<'a> {
        let unknown = self.tokenizer.unknown_id();
        let sentences = self.recipe.corpus.sentences;
        Streamed { corpus: &self.corpus, split, unit: self.unit(), unknown, sentences }
    }

    /// The validation split in the batches of training, of which several ranks read some rows each.
    pub(super) fn measure_valid(
        &self,
        model: &FrozenModel,
        world: &dyn World,
        progress: EvaluationProgress<'_>,
    ) -> Result<Evaluation> {
        let &TrainConfig { batch_size, bptt_steps, .. } = &self.recipe.train;
        match self.valid.text().filter(|_| self.recipe.corpus.sentences == Sentences::Running) {
            Some(text) => eval::batched_among(
                world,
                model,
                &self.split("valid", text),
                [batch_size, bptt_steps],
                progress,
            ),
            None => {
                let mut reader = WindowReader::new(model, batch_size)?.resetting_at(self.resets_at());
                let window = |index| self.valid_window(index);
                // Each rank reads all of it.
                let counts = (self.valid_count(), self.valid.size().unseen);
                let found = self.streamed("valid").batched(&mut reader, counts, window, progress);
                agree(world, found)
            }
        }
    }

    /// The test split `test` as a stream.
    pub(super) fn measure_test(
        &self,
        test: &SplitTokens,
        model: &FrozenModel,
        progress: EvaluationProgress<'_>,
    ) -> Result<Evaluation> {
        let sentences = self.recipe.corpus.sentences;
        let context = line_end(sentences, &self.tokenizer)?;
        let mut reader = WindowReader::new(model, 1)?.resetting_at(self.resets_at());
        let streamed = self.streamed("test");
        match (test, &self.shards) {
            (SplitTokens::Text(text), _) if sentences == Sentences::Running => {
                eval::stream(model, &self.split("test", text), progress)
            }
            (SplitTokens::Text(text), _) => {
                let parts = std::iter::once(Ok((**text).clone()));
                streamed.stream(&mut reader, &self.device, (parts, text.bytes), context, progress)
            }
            (SplitTokens::Shards(shards), corpus) => {
                let parts = corpus.iter().flat_map(|corpus| corpus.measured(2, &self.tokenizer));
                let bytes = shards.counts().bytes;
                streamed.stream(&mut reader, &self.device, (parts, bytes), context, progress)
            }
        }
    }
}
