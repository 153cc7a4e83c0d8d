//! What a run is: a model, a corpus, a way to train. Published values live in `recipes/`, never in code.

/// Functions that serde calls for keys that are absent.
macro_rules! defaults {
    ($($name:ident: $type:ty = $value:expr;)*) => {
        $(fn $name() -> $type {
            $value
        })*
    };
}

pub mod averaging;
pub mod clip;
pub mod corpus;
pub mod distill;
pub mod latent;
pub mod lists;
pub mod loss;
pub mod recipe;
mod resolved;
pub mod sweep;
mod table_numbers;
mod tables;
pub mod task;
pub mod techniques;
pub mod train;

pub use crate::model::config::{ModelConfig, ModelSpec};
pub use crate::model::core::CoreConfig;
pub use crate::model::embedding::EmbeddingConfig;
pub use corpus::{CorpusConfig, Sentences, ShardPatterns, Storage, Unit};
pub use distill::DistillConfig;
pub use latent::LatentTraining;
pub use lists::ListsConfig;
pub use loss::LossConfig;
pub use recipe::Recipe;
pub use resolved::Resolved;
pub use sweep::Sweep;
pub use table_numbers::TableNumbers;
pub(crate) use tables::{kinds_first, nearest};
pub use task::{TaskConfig, TaskKind};
pub use train::{DropoutKind, TrainConfig};
