//! How well a trained model predicts: perplexity of a split, with and without dropout, surprisal of any text, which of
//! two sentences it prefers, and which words are alike to it.

pub mod adapt;
pub mod classify;
pub mod decisions;
mod evaluation;
pub mod images;
mod information;
pub mod latent;
pub(crate) mod log_sum;
pub mod monte_carlo;
pub mod nbest;
pub(crate) mod neighbours;
pub mod perplexity;
pub mod refine;
pub mod score;
pub mod sentences;
pub mod side_by_side;
pub(crate) mod streamed;
mod tally;
pub mod words;

pub use evaluation::Evaluation;
pub use perplexity::{EvaluationProgress, Split, batched, batched_among, stream};
