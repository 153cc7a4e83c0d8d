//! How well a trained model predicts: perplexity of a split, with and without dropout, surprisal of any text, and which
//! of two sentences it prefers.

pub mod adapt;
pub mod classify;
pub mod decisions;
mod evaluation;
pub mod images;
pub mod latent;
pub(crate) mod log_sum;
pub mod monte_carlo;
pub mod nbest;
pub mod perplexity;
pub mod score;
pub mod sentences;
pub(crate) mod streamed;
mod tally;
pub mod words;

pub use evaluation::Evaluation;
pub use perplexity::{EvaluationProgress, Split, batched, batched_among, stream};
