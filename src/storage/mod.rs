//! Files on a disk: written so that a kill or a failure loses nothing, read only if they are whole.

pub(crate) mod aside;
pub(crate) mod disk;
mod fault;
pub(crate) mod file_set;
mod lock;
mod manifest;
pub(crate) mod read;
pub(crate) mod tensors;

pub use lock::{Lock, is_held};
pub(crate) use manifest::check_format;
pub use manifest::{FileRecord, Manifest};
pub use tensors::{load_tensors, load_weights, save_tensors, save_tensors_of};

/// `value` as the JSON of a checkpoint's file.
pub(crate) fn to_json(value: &impl serde::Serialize) -> Vec<u8> {
    let mut text = serde_json::to_vec_pretty(value).expect("string keys and finite numbers");
    text.push(b'\n');
    text
}

/// The model's configuration.
pub const CONFIG: &str = "config.json";
/// The weights.
pub const MODEL: &str = "model.safetensors";
/// The vocabulary.
pub const TOKENIZER: &str = "tokenizer.json";
/// The run as it was asked for.
pub const RECIPE: &str = "recipe.toml";
/// The root mean squares of the weights' gradients over the training text, for dynamic evaluation.
pub const STATISTICS: &str = "gradient-rms.safetensors";
/// Where a classifier of sentences decides.
pub const THRESHOLD: &str = "threshold.json";
/// The final numbers of a run.
pub const RESULT: &str = "result.json";
/// Evaluations by other protocols than training's own, one JSON object a line.
pub const EVALUATIONS: &str = "evaluations.jsonl";
/// The events of a run, one JSON object a line.
pub const METRICS: &str = "metrics.jsonl";
/// The optimizer's moments, in a training state.
pub const OPTIMIZER: &str = "optimizer.safetensors";
/// The position of the run, in a training state.
pub const STATE: &str = "state.json";
/// The directory of a run's training states.
pub const STATES: &str = "state";
/// The run's numbers for TensorBoard, which looks for `.tfevents` in a name.
pub const TENSORBOARD: &str = "events.out.tfevents.rhn";
/// Lengths and hashes of the files beside it.
pub const MANIFEST: &str = "manifest.json";
