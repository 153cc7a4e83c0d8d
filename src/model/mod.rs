//! What a language model is made of: an embedding, a recurrent core, an output layer.

mod builder;
pub mod cell;
pub mod char_cnn;
pub mod core;
pub mod embedding;
pub mod highway;
pub mod lm;
pub mod lstm;
pub mod noise;
pub mod parameters;
pub mod reader;
pub mod rhn;
pub mod specs;
pub mod spelling;

pub use builder::TensorSpec;
pub use cell::State;
pub use lm::{Evaluator, LanguageModel};
pub use noise::{Noise, NoiseSource};
pub use parameters::Parameters;
pub use reader::Reader;
pub use specs::{parameter_count, specs};
