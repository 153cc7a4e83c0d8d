//! What a language model is made of: an embedding, a recurrent core, an output layer; and what a sentence VAE has around
//! them, in [`latent`].
//!
//! Each hides behind a trait of [`layers`], and its settings live in its own file. To add one:
//!
//! | what | files |
//! | --- | --- |
//! | an embedding | `embedding/<kind>.rs`, its lines in `embedding/mod.rs` |
//! | a cell of plain operations | `core/<kind>.rs` with a `Cell`, its lines in `core/mod.rs` |
//! | a cell with kernels | the same with a `Recurrence` instead, and its files in `kernels/src/scan/` |
//! | a core whose layers are linked | `core/<kind>.rs` with a `Core`, its lines in `core/mod.rs` |
//! | an output layer | `output/<kind>.rs`, its lines in `output/mod.rs` |
//! | a pooling of a classifier | its variant in `pooling.rs` |

mod builder;
mod classifier;
mod clusters;
pub mod config;
pub mod core;
pub mod dropout;
pub mod embedding;
mod encoder_noise;
pub mod frozen;
mod groups;
pub mod grow;
pub(crate) mod language;
pub mod latent;
pub mod layers;
mod noise;
pub mod output;
mod parameters;
mod pooling;
pub mod rearrange;
pub mod sampler;
pub(crate) mod sequences;
mod specs;
pub mod stage;

pub(crate) use self::core::pieces::Pieces;
pub use self::core::state::State;
pub use builder::{Initial, InitialRule, TensorSpec};
pub(crate) use classifier::lent;
pub use classifier::{Classifier, ClassifierConfig, label_nats};
pub use clusters::AdaptiveShape;
pub use dropout::NoiseSource;
pub use embedding::spelling;
pub use encoder_noise::{EncoderNoise, EncoderNoiseSource};
pub use frozen::FrozenModel;
pub use groups::UpdateGroup;
pub use language::LanguageModel;
pub(crate) use language::Outputs;
pub use latent::SentenceVae;
pub use layers::Cost;
pub(crate) use noise::masked;
pub use noise::{Noise, RecurrentNoise, WeightMasks};
pub use parameters::{Parameters, WeightTypes};
pub use pooling::Pooling;
pub use rearrange::{StageId, stages};
pub use specs::{cost, parameter_count, specs};
pub use stage::{LayerTrace, StageTrace};
