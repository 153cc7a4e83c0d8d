//! What a run is: a model, a corpus, a way to train. Published values live in `recipes/`, never in code.

pub mod corpus;
pub mod model;
pub mod recipe;
pub mod sweep;
pub mod train;

pub use corpus::{CorpusConfig, Unit};
pub use model::{CoreConfig, EmbeddingConfig, ModelConfig, ModelSpec};
pub use recipe::{Recipe, Resolved};
pub use sweep::Sweep;
pub use train::{DropoutKind, TrainConfig};
