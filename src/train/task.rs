//! What the loop asks of a task: its batches, how a model is measured, and the files that make a checkpoint.

use super::objective::Objective;
use crate::checkpoint::Checkpoint;
use crate::config::{ModelConfig, Recipe};
use crate::error::Result;
use crate::eval::{Evaluation, EvaluationProgress};
use crate::model::Parameters;
use crate::parallel::world::World;
use rhn_kernels::precision::Precision;

/// Files by name, as they are to be written.
pub type Files = Vec<(&'static str, Vec<u8>)>;

/// The data that a run learns from, for its events and to know it again.
#[derive(Clone, Copy, Debug)]
pub struct Data<'a> {
    /// What it is called.
    pub corpus: &'a str,
    /// Its SHA-256.
    pub sha256: &'a str,
    /// Tokens of training, validation and test split: one text can be split in several ways.
    pub tokens: [u64; 3],
}

/// The weight of the KL in the loss of a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KlWeight {
    /// The weight.
    pub value: f64,
    /// Whether it is what the weight comes to: before that no validation decides which weights are kept.
    pub is_last: bool,
}

/// A recipe brought to its data.
pub trait Task {
    /// What its training minimizes.
    type Objective: Objective;

    /// How the run was asked for.
    fn recipe(&self) -> &Recipe;

    /// Keys of the recipe whose values were taken from a checkpoint or made to fit the text: a resumed run keeps them.
    fn taken(&self) -> &[String] {
        &[]
    }

    /// The SHA-256 of the weights of each model that it is taught by.
    fn teachers(&self) -> Vec<String> {
        Vec::new()
    }

    /// What it learns from.
    fn data(&self) -> Data<'_>;

    /// What fixes the weights' shapes.
    fn model(&self) -> &ModelConfig;

    /// The numbers that it computes with.
    fn precision(&self) -> Precision;

    /// Batches of epoch `epoch`, counted from 0, one a step.
    fn batch_count(&self, epoch: u64) -> usize;

    /// Batch number `index` of epoch `epoch`, both counted from 0.
    fn batch(&self, epoch: u64, index: usize) -> Result<<Self::Objective as Objective>::Batch>;

    /// The model on the validation split, with dropout off; the ranks share the work, and each has the result.
    fn validate(
        &self,
        parameters: &Parameters,
        world: &dyn World,
        progress: EvaluationProgress<'_>,
    ) -> Result<Evaluation>;

    /// The model on the test split by the published protocol; `None` if there is no such split.
    fn test(&self, parameters: &Parameters, progress: EvaluationProgress<'_>) -> Result<Option<Evaluation>>;

    /// Something of what the model has learned to look at, if it can be shown.
    fn sample(&self, parameters: &Parameters, seed: u64) -> Result<Option<String>>;

    /// The files of a checkpoint with these weights.
    fn files(&self, parameters: &Parameters) -> Result<Files>;

    /// The files that are published with weights of which validation found `valid`, if they were measured.
    fn published(&self, parameters: &Parameters, _valid: Option<&Evaluation>) -> Result<Files> {
        self.files(parameters)
    }

    /// What guessing uniformly costs, in nats: at most ln of what there is to choose from.
    fn uniform_nats(&self) -> f64 {
        (self.model().vocab_size as f64).ln()
    }

    /// The weights of a checkpoint of the same model; of another one they are refused.
    fn parameters_of(&self, checkpoint: &Checkpoint) -> Result<Parameters>;

    /// The weight of the KL in the loss of step `step`, counted from 0, if there is one; where a cycle of weights has just ended, that
    /// of the step before.
    fn kl_weight(&self, _step: u64) -> Option<KlWeight> {
        None
    }

    /// What is to be said of a validation after `step` steps, if something is wrong.
    fn warning(&self, _valid: &Evaluation, _step: u64) -> Option<String> {
        None
    }

    /// Steps of the whole run; this is of a task whose epochs have as many each.
    fn total_steps(&self) -> u64 {
        self.recipe().train.epochs.saturating_mul(self.batch_count(0) as u64)
    }
}
